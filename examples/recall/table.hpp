// SPDX-License-Identifier: MIT
#pragma once

#include "predict.hpp"

#include <cstddef>
#include <cstdio>
#include <string>

namespace recall {

/// "411 KiB"
inline std::string size(std::size_t bytes)
{
    char s[32];
    const auto n = static_cast<double>(bytes);
    if (bytes < 10'000) {
        std::snprintf(s, sizeof s, "%zu B", bytes);
    } else if (bytes < 10'240'000) {
        std::snprintf(s, sizeof s, "%.0f KiB", n / 1024);
    } else {
        std::snprintf(s, sizeof s, "%.0f MiB", n / (1024 * 1024));
    }
    return s;
}

/// For people.
struct table {
    static void head()
    {
        std::printf("%-14s  %-11s  %-7s  %8s  %8s  %9s  %8s  %8s  %8s  %8s  %7s  %8s\n", "method", "backend", "numbers",
                    "bytes", "sees", "bits/byte", "order-0", "of size", "seconds", "bytes/s", "GFLOP/s", "extra");
    }
    static void line(const result& r, double order0)
    {
        const plan& p = r.plan;
        const std::string sees = p.window > 0 ? std::to_string(p.window) : "all";
        std::printf("%-14s  %-11s  %-7s  %8td  %8s  %9.3f  %8.3f  %6.1f %%  %8.2f  %8.0f  %7.1f  %8s\n", p.method->name,
                    p.backend, p.method->numbers, p.length, sees.c_str(), r.bits_per_byte(), order0,
                    100 * r.bits_per_byte() / 8, r.seconds, static_cast<double>(p.length) / r.seconds,
                    r.cost.seconds > 0 ? r.flops / r.cost.seconds * 1e-9 : 0, size(r.cost.extra_bytes).c_str());
        std::fflush(stdout);
    }
};

/// For machines: one line of names, then one line a method; times in seconds, sizes in bytes.
struct csv {
    static void head()
    {
        std::puts(
            "method,backend,numbers,threads,bytes,window,bits_per_byte,order0_bits_per_byte,seconds,bytes_per_second,"
            "method_seconds,gflops,extra_bytes,worst_sum_error");
    }
    static void line(const result& r, double order0)
    {
        const plan& p = r.plan;
        std::printf("%s,%s,%s,%d,%td,%td,%.6f,%.6f,%.6f,%.1f,%.6f,%.3f,%zu,%.3g\n", p.method->name, p.backend,
                    p.method->numbers, r.cost.threads, p.length, p.window, r.bits_per_byte(), order0, r.seconds,
                    static_cast<double>(p.length) / r.seconds, r.cost.seconds,
                    r.cost.seconds > 0 ? r.flops / r.cost.seconds * 1e-9 : 0, r.cost.extra_bytes, r.worst_sum);
        std::fflush(stdout);
    }
};

} // namespace recall
