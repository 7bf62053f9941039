// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/gguf.hpp>
#include <seqmix/quant/nearest.hpp>

// Weights into GGUF blocks.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

inline gguf::half_e8m0 stored_scale(double largest, gguf::half_e8m0, float extreme)
{
    return {power_of_two_scale(largest, 0.5f * extreme)}; // values are doubled, and the scale is half of what its code says
}
inline gguf::half_ue4m3 stored_scale(double largest, gguf::half_ue4m3, float extreme)
{
    return {fp8_e4m3(static_cast<float>(2.0 * largest / static_cast<double>(extreme))).bits};
}
inline f16 stored_scale(double largest, f16 type, float extreme)
{
    return stored_scale(largest / static_cast<double>(extreme), type);
}

/// One scale (and min) a group.
template <block_format F>
void choose_scales(const extent_of_group* groups, const code_table& table, stored_block<F>& out)
{
    for (index g = 0; g < stored_block<F>::groups; ++g) {
        if constexpr (F::form == affine::scale_and_min) {
            out.scales[g] = stored_scale((groups[g].most - groups[g].least) / static_cast<double>(table.most()), f16());
            out.mins[g] = stored_scale(-groups[g].least, f16());
        } else {
            const double largest = F::extreme < 0.0f ? groups[g].largest : std::fabs(groups[g].largest);
            out.scales[g] = stored_scale(largest, typename F::scale_type(), F::extreme);
        }
    }
}

/// The largest scale of a group gets the largest small integer, and likewise the largest min.
template <block_format F>
requires F::two_levels void choose_scales(const extent_of_group* groups, const code_table& table, stored_block<F>& out)
{
    constexpr index count = stored_block<F>::groups;
    double scales[count], mins[count], largest_scale = 0.0, largest_min = 0.0;
    for (index g = 0; g < count; ++g) {
        extent_of_group group = groups[g];
        if constexpr (F::form == affine::scale_and_min) {
            group.see_zero();
            scales[g] = (group.most - group.least) / static_cast<double>(table.most());
            mins[g] = -group.least;
        } else {
            scales[g] = symmetric_scale(group, F::extreme);
            mins[g] = 0.0;
        }
        largest_scale = most_of(largest_scale, std::fabs(scales[g]));
        largest_min = most_of(largest_min, mins[g]);
    }
    constexpr double most = F::most_sub_scale;
    out.scale = stored_scale(largest_scale / most, f16());
    out.min = stored_scale(largest_min / most, f16());
    const auto multiple = [&](double of, f16 unit) {
        const auto one = static_cast<double>(static_cast<float>(unit));
        return one > 0.0 ? within(-most, std::nearbyint(of / one), most) : 0.0;
    };
    for (index g = 0; g < count; ++g) {
        out.sub_scales[g] = static_cast<std::int8_t>(multiple(scales[g], out.scale));
        out.sub_mins[g] = static_cast<std::uint8_t>(multiple(mins[g], out.min));
    }
}

/// Refuses what no scale can hold.
inline void check_finite(const checker& check, const view<const float, 2>& weights)
{
    for (index row = 0; row < weights.extent(0); ++row) {
        for (index column = 0; column < weights.extent(1); ++column) {
            check.require(std::isfinite(weights(row, column)), "weights has ", static_cast<double>(weights(row, column)),
                          " at row ", row, ", column ", column);
        }
    }
}

} // namespace detail

/// Writes weights [rows, columns] as blocks of a GGUF format, by rounding to the nearest; no calibration, no search for better
/// scales. Scales come from the largest magnitude (with its sign where codes reach further below zero than above), or from least
/// and largest number in formats with a min, are rounded to how they are stored, and every code is then the nearest under the scale
/// that is stored: within the reach of codes an error is at most half a step of the stored scale. For bytes of
/// `stored_bytes<F>(rows, columns)`. Refuses another number of bytes, columns that the block does not divide, and weights that are
/// not finite.
template <block_format F>
void encode(const view<const float, 2>& weights, void* bytes, index byte_count)
{
    const checker check("quant::encode");
    check_given(check, weights, "weights");
    const index row_bytes = gguf::detail::row_bytes(check, weights.extent(0), weights.extent(1), F::block, F::block_bytes);
    check.equal(byte_count, weights.extent(0) * row_bytes, "byte_count", "what rows, columns and the format ask for");
    check.require(bytes != nullptr || byte_count == 0, "bytes is null, but byte_count is ", byte_count);
    auto* to = static_cast<std::byte*>(bytes);
    check_apart(check, reach(view<std::byte, 1>(to, {byte_count})), "bytes", weights, "weights");
    detail::check_finite(check, weights);

    const detail::code_table table(F::value, F::bits);
    for (index row = 0; row < weights.extent(0); ++row) {
        for (index from = 0; from < weights.extent(1); from += F::block, to += F::block_bytes) {
            stored_block<F> block;
            detail::extent_of_group groups[stored_block<F>::groups];
            for (index i = 0; i < F::block; ++i) { groups[i / F::group].see(weights(row, from + i)); }
            detail::choose_scales<F>(groups, table, block);
            for (index i = 0; i < F::block; ++i) {
                const auto scale = static_cast<double>(group_scale(block, i / F::group)),
                           min = static_cast<double>(group_min(block, i / F::group));
                block.codes[i] = table.nearest((static_cast<double>(weights(row, from + i)) + min) / scale);
            }
            F::write(block, to);
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
