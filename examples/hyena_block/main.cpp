// SPDX-License-Identifier: MIT
// hyena_block [TOKENS [CHANNELS]]: Hyena's operator, whole and token by token, which must agree. README.md explains.
#include "kernel.hpp"

#include <can_run.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#define SEQMIX_ARCH(name) extern hyena_block::backend* const hyena_block_##name;
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

namespace {

std::ptrdiff_t tokens = 1024, channels = 64;

bool show(const char* name, hyena_block::backend* run)
{
    // The scalar backend has one lane, and its line should not hold up the others.
    const std::ptrdiff_t length = std::string(name) == "scalar" ? std::min<std::ptrdiff_t>(tokens, 256) : tokens;
    const hyena_block::result r = run(length, channels);
    const bool within = r.root_mean_square <= r.bound;
    std::printf("  %-11s  %6td  %12.0f  %15.0f  %10.1e  %10.1e  %7.1e%s\n", name, length, static_cast<double>(length) / r.whole_seconds,
                static_cast<double>(length) / r.stream_seconds, r.difference, r.root_mean_square, r.bound, within ? "" : "  FAILED");
    return within;
}

} // namespace

int main(int count, char** arguments)
{
    if (count > 1) { tokens = std::atol(arguments[1]); }
    if (count > 2) { channels = std::atol(arguments[2]); }
    if (count > 3 || tokens < 1 || channels < 1) {
        std::fputs("usage: hyena_block [TOKENS [CHANNELS]], both at least 1\n", stderr);
        return 2;
    }
    std::printf("Hyena of order 2, %td channels\n  %-11s  %6s  %12s  %15s  %10s  %10s  %7s\n", channels, "backend", "tokens", "whole, 1/s",
                "streamed, 1/s", "difference", "mean", "bound");
    bool same = true;
#define SEQMIX_ARCH(name)                                                                                              \
    if (can_run(#name)) { same = show(#name, hyena_block_##name) && same; }
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH
    std::puts(same ? "checked: both routes agree on every instruction set" : "the routes differ");
    return same ? 0 : 1;
}
