// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/format.hpp>

#include <algorithm>
#include <cmath>

// From numbers to codes and scales, by rounding to the nearest.

SEQMIX_NAMESPACE_BEGIN
namespace quant::detail {

// Ours, as smaller and larger in core/types.hpp.
inline double least_of(double a, double b) { return b < a ? b : a; }
inline double most_of(double a, double b) { return a < b ? b : a; }
inline double within(double low, double x, double high) { return most_of(low, least_of(x, high)); }

/// The codes of a format in the order of their values: finite ones, each once.
class code_table {
public:
    code_table(float (*value_of)(std::uint8_t), int bits)
    {
        for (unsigned code = 0; code < 1u << bits; ++code) {
            const float value = value_of(static_cast<std::uint8_t>(code));
            if (!std::isfinite(value)) { continue; }
            const entry* const same = std::find_if(table_, table_ + size_, [&](const entry& e) { return e.value == value; });
            if (same == table_ + size_) { table_[size_++] = {value, static_cast<std::uint8_t>(code)}; } // of 0 and -0 the first
        }
        std::sort(table_, table_ + size_, [](const entry& a, const entry& b) { return a.value < b.value; });
    }

    float least() const { return table_[0].value; }
    float most() const { return table_[size_ - 1].value; }

    /// The code whose value is nearest, of two that are as near the even one. NaN (0 / 0: a scale that is 0) counts as 0.
    std::uint8_t nearest(double x) const
    {
        if (std::isnan(x)) { x = 0.0; }
        const entry* const above =
            std::lower_bound(table_, table_ + size_, x, [](const entry& e, double y) { return static_cast<double>(e.value) < y; });
        if (above == table_) { return table_[0].code; }
        if (above == table_ + size_) { return table_[size_ - 1].code; }
        const entry* const below = above - 1;
        const double up = static_cast<double>(above->value) - x, down = x - static_cast<double>(below->value);
        const bool take_below = down < up || (down == up && below->code % 2 == 0);
        return take_below ? below->code : above->code;
    }

private:
    struct entry {
        float value;
        std::uint8_t code;
    };
    entry table_[256];
    int size_ = 0;
};

/// What a group of weights asks for: its least and largest number, and the one of largest magnitude.
struct extent_of_group {
    double least = 0.0, most = 0.0, largest = 0.0;
    bool any = false;

    void see(float weight)
    {
        const auto x = static_cast<double>(weight);
        least = any ? least_of(least, x) : x;
        most = any ? most_of(most, x) : x;
        if (std::fabs(x) > std::fabs(largest)) { largest = x; }
        any = true;
    }
    /// Together with 0.
    void see_zero() { see(0.0f); }
    extent_of_group times(double ratio) const { return {ratio * least, ratio * most, ratio * largest, any}; }
};

/// The scale that takes the largest magnitude to `extreme`, which is where a format reaches furthest: with its sign if that is
/// negative.
inline double symmetric_scale(const extent_of_group& group, float extreme)
{
    return (extreme < 0.0f ? group.largest : std::fabs(group.largest)) / static_cast<double>(extreme);
}

/// The scale nearest to `ideal` that can be stored; too large ones become the largest.
inline f16 stored_scale(double ideal, f16) { return f16(static_cast<float>(within(-65504.0, ideal, 65504.0))); }
inline bf16 stored_scale(double ideal, bf16) { return bf16(static_cast<float>(within(-0x1.fep127, ideal, 0x1.fep127))); }
inline float stored_scale(double ideal, float) { return static_cast<float>(within(-0x1.fffffep127, ideal, 0x1.fffffep127)); }
inline fp8_e4m3 stored_scale(double ideal, fp8_e4m3) { return fp8_e4m3(static_cast<float>(ideal)); }

/// Of powers of two, that of OCP Microscaling, section 6.3: 2^⌊log2 largest⌋ / 2^⌊log2 extreme⌋, so that the largest number may
/// saturate. The result is the exponent field of E8M0, at most that of 2^127.
inline std::uint8_t power_of_two_scale(double largest, float extreme)
{
    if (largest == 0.0) { return 0; }
    const int exponent = std::ilogb(largest) - std::ilogb(extreme) + 127;
    return static_cast<std::uint8_t>(exponent < 0 ? 0 : exponent > 254 ? 254 : exponent);
}

} // namespace quant::detail
SEQMIX_NAMESPACE_END
