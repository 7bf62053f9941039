// SPDX-License-Identifier: MIT
#pragma once

#include "arch.hpp"
#include "compare.hpp"
#include "laid_out.hpp"

#include <cstdio>
#include <string>

// Errors against tolerances that tests derive, element by element.

namespace test_support {

/// The distance between subnormal numbers of T, halved: what a rounding costs there.
template <class T>
inline constexpr double half_smallest = std::is_same_v<T, float>  ? 0x1p-150
                                        : std::is_same_v<T, bf16> ? 0x1p-134
                                                                  : 0x1p-25;

/// The largest error in units of what is tolerated.
template <class T, std::size_t Rank>
worst_error worst_in_tolerances(const sm::view<T, Rank>& got, const std::vector<double>& want,
                                const std::vector<double>& tolerance)
{
    worst_error worst;
    std::size_t i = 0;
    for_each(got, [&](const T& x, auto...) {
        const double error = absolute_error(as_double(x), want[i]), ratio = error == 0.0 ? 0.0 : error / tolerance[i];
        worst.see(std::isnan(ratio) ? static_cast<double>(infinity) : ratio, static_cast<index>(i), as_double(x),
                  want[i]);
        ++i;
    });
    return worst;
}

/// The largest error of a whole program, for the record.
struct error_record {
    const char* of;
    double error = 0.0;
    std::string where{};

    ~error_record()
    {
        if (where.empty()) { return; }
        std::printf("%s on %s: largest error %.3f of what is tolerated: %s\n", of, test_arch::name, error,
                    where.c_str());
    }
    void see(double e, const std::string& place)
    {
        if (e > error && e <= 1.0) { error = e, where = place; }
    }
};

} // namespace test_support
