// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/format.hpp>

// The byte that stands for a weight in kernels.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// Products of bytes want codes that count upwards from 0: value = unit · (code - zero). Where a format's own numbers do so in some
/// order, packing stores that order; where they have gaps, kernels look the code up, in a table of sixteen bytes.
/// Of formats that are no integers the code is the stored one.
template <format F>
struct lane_code {
    static constexpr int count = 1 << F::bits;

    /// value / unit of a stored code.
    static constexpr int number(int code) { return static_cast<int>(F::value(static_cast<std::uint8_t>(code)) / F::unit); }

    static constexpr int least = [] {
        int n = 0;
        for (int code = 0; F::integer_codes && code < count; ++code) { n = number(code) < n ? number(code) : n; }
        return n;
    }();
    static constexpr int most = [] {
        int n = 0;
        for (int code = 0; F::integer_codes && code < count; ++code) { n = number(code) > n ? number(code) : n; }
        return n;
    }();
    static constexpr bool has_gaps = F::integer_codes && most - least + 1 != count;

    static constexpr bool looked_up = has_gaps && F::bits == 4;
    static constexpr bool wide = most - least > 127;
    static constexpr int zero = wide ? 128 : -least;
    static constexpr int largest = wide ? 255 : most - least;

    /// The same of the bytes that are multiplied: group scale · (code - zero) + 128 where the format is row_scaled.
    static constexpr bool wide_product = wide || row_scaled<F>;
    static constexpr int product_zero = wide_product ? 128 : zero;
    static constexpr int largest_product = wide_product ? 255 : largest;

    static constexpr std::uint8_t of(int code) { return static_cast<std::uint8_t>(F::integer_codes ? number(code) + zero : code); }

    /// What a packed matrix holds, and of how many bits.
    static constexpr int stored_bits = has_gaps && !looked_up ? 8 : F::bits;
    static constexpr std::uint8_t stored(std::uint8_t code) { return looked_up ? code : of(code); }
    struct bytes {
        std::uint8_t byte[256];
    };
    /// `stored` of every code.
    static constexpr bytes all_stored = [] {
        bytes t{};
        for (int code = 0; code < count; ++code) { t.byte[code] = stored(static_cast<std::uint8_t>(code)); }
        return t;
    }();
    /// The inverse; 0 of what stands for no code. Two zeros of different signs come back as the positive one where codes are looked up by
    /// nobody.
    static constexpr bytes all_unstored = [] {
        bytes t{};
        for (int code = count - 1; code >= 0; --code) { t.byte[all_stored.byte[code]] = static_cast<std::uint8_t>(code); }
        return t;
    }();
    static constexpr std::uint8_t unstored(std::uint8_t code) { return all_unstored.byte[code]; }

    struct entries {
        std::uint8_t byte[16];
    };
    static constexpr entries table = [] {
        entries t{};
        for (int code = 0; looked_up && code < 16; ++code) { t.byte[code] = of(code); }
        return t;
    }();
};

} // namespace quant
SEQMIX_NAMESPACE_END
