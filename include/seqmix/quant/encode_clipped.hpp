// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/encode_arrays.hpp>

// Scales that give up the largest weights where the others gain more by a finer step.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// The ratios that are tried: steps + 1 of them from 1 to `least`, evenly.
struct clip_options {
    float least = 0.4f;
    int steps = 24;
    view<const float, 1> importance{}; ///< [columns], no number negative: what an error of a column counts; not given: 1
};

namespace detail {

/// `out` are the encoded arrays, which are not where the importance is.
template <class Encoded>
void check_clip(const checker& check, const Encoded& out, const clip_options& clip, index columns)
{
    check.require(clip.least > 0.0f && clip.least <= 1.0f, "least is ", static_cast<double>(clip.least), ", but must be in (0, 1]");
    check.require(clip.steps >= 0, "steps is negative: ", clip.steps);
    if (!clip.importance) { return; }
    check_extent(check, clip.importance, "importance", 0, "length", columns, "weights' number of columns");
    out.check_apart_from(check, clip.importance, "importance");
    for (index column = 0; column < columns; ++column) {
        check.require(std::isfinite(clip.importance(column)) && clip.importance(column) >= 0.0f, "importance has ",
                      static_cast<double>(clip.importance(column)), " at column ", column);
    }
}

} // namespace detail

/// As `encode`, with scales for `ratio` times the extent of a tile: of the ratios that are tried the one whose codes err least,
///
///     Σ importance[column] (decoded - weight)²  over the tile,
///
/// the larger ratio of two that are as good. The importance of a column is best the mean square of its activation: what is summed
/// is then the error of outputs as far as activations are uncorrelated. A tile's error is not larger than encode's. Costs steps + 1
/// times as much. Refuses what encode refuses, a `least` outside (0, 1], negative steps, importance of another length, negative or
/// not finite. (The search of OMSE, Choukroun et al. 2019, section 3.1, and of AWQ's clipping, Lin et al. 2023.)
template <format F>
    requires(F::block == 0 && !row_scaled<F>)
void encode_clipped(const view<const float, 2>& weights, const view<typename F::code_type, 2>& codes,
                    const view<typename F::scale_type, 2>& scales, const encode_options<F>& options = {}, const clip_options& clip = {})
{
    const checker check("quant::encode_clipped");
    const detail::encoded_arrays<F> out(check, weights, codes, scales, options);
    detail::check_clip(check, out, clip, weights.extent(1));
    out.clear();
    out.each_tile(0, out.rows(), [&](const detail::tile_of_weights& tile) {
        detail::extent_of_group extent;
        tile.each([&](index row, index column) { extent.see(weights(row, column)); });
        const auto error_of = [&](const group_parameters<F>& shared) {
            double sum = 0.0;
            tile.each([&](index row, index column) {
                const auto weight = static_cast<double>(weights(row, column));
                const double error = out.decoded(out.nearest(weight, shared), shared) - weight;
                sum += (clip.importance ? static_cast<double>(clip.importance(column)) : 1.0) * (error * error);
            });
            return sum;
        };
        group_parameters<F> best = out.reaching(extent);
        double least_error = error_of(best);
        for (int step = 1; step <= clip.steps && least_error > 0.0; ++step) {
            const double ratio = 1.0 + (static_cast<double>(clip.least) - 1.0) * step / clip.steps;
            const group_parameters<F> clipped = out.reaching(extent.times(ratio));
            const double error = error_of(clipped);
            if (error < least_error) { best = clipped, least_error = error; }
        }
        out.share(tile, best);
        tile.each([&](index row, index column) {
            out.put(row, column, out.nearest(static_cast<double>(weights(row, column)), best));
        });
    });
}

} // namespace quant
SEQMIX_NAMESPACE_END
