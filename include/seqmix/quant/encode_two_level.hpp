// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/encode_clipped.hpp>
#include <seqmix/quant/two_level.hpp>

// Weights into codes with two levels of scales.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// What encoders of two levels write: a row at a time, a group at a time.
template <row_scaled F>
class two_level_encoder {
    using scale_type = typename F::scale_type;

public:
    two_level_encoder(const checker& check, const view<const float, 2>& weights, const view<std::uint8_t, 2>& codes,
                      const view<std::uint8_t, 2>& group_scales, const view<scale_type, 2>& scales, const two_level_options& options)
        : weights_(weights), codes_(codes), group_scales_(group_scales), scales_(scales)
    {
        check_given(check, weights, "weights");
        two_level_options of_weights = options;
        if (options.columns < 0) { of_weights.columns = weights.extent(1); }
        shape_ = two_level_shape(check, named_operand("codes", codes), codes.stride(1), named_operand("group_scales", group_scales),
                                 named_operand("scales", scales), of_weights);
        check.equal(shape_.columns, weights.extent(1), "columns", "weights' number of columns");
        check_extent(check, codes, "codes", 0, "number of rows", weights.extent(0), "weights'");
        check_apart(check, reach(codes), "codes", group_scales, "group_scales");
        check_apart(check, reach(codes), "codes", scales, "scales");
        check_apart(check, reach(group_scales), "group_scales", scales, "scales");
        check_apart_from(check, weights, "weights");
        check_finite(check, weights);
    }

    template <class Operand>
    void check_apart_from(const checker& check, const Operand& operand, const char* name) const
    {
        check_apart(check, reach(codes_), "codes", operand, name);
        check_apart(check, reach(group_scales_), "group_scales", operand, name);
        check_apart(check, reach(scales_), "scales", operand, name);
    }

    index rows() const { return shape_.rows; }
    index groups() const { return ceiling(shape_.columns, shape_.group); }

    /// The largest magnitude of a group.
    double extent_of(index row, index group) const
    {
        double most = 0.0;
        each(group, [&](index column) { most = most_of(most, std::fabs(static_cast<double>(weights_(row, column)))); });
        return most;
    }
    double extent_of(index row) const
    {
        double most = 0.0;
        for (index g = 0; g < groups(); ++g) { most = most_of(most, extent_of(row, g)); }
        return most;
    }

    /// The scale of a row whose largest group scale reaches `extent`.
    static scale_type row_scale(double extent)
    {
        return stored_scale(extent / (static_cast<double>(F::extreme) * F::most_group_scale), scale_type());
    }
    /// The group scale that is nearest to what reaches `extent`.
    static int group_scale(scale_type scale, double extent)
    {
        const double step = static_cast<double>(static_cast<float>(scale)) * static_cast<double>(F::extreme);
        return step > 0.0 ? static_cast<int>(within(1.0, std::nearbyint(extent / step), F::most_group_scale)) : 1;
    }

    /// The nearest code, ties to the even one.
    static int nearest(double weight, const group_parameters<F>& shared)
    {
        const double step = static_cast<double>(static_cast<float>(shared.scale)) * shared.group_scale;
        return step > 0.0 ? static_cast<int>(within(-8.0, std::nearbyint(weight / step), 7.0)) : 0;
    }

    /// Σ importance · (decoded - weight)² of a group.
    double error_of(index row, index group, const group_parameters<F>& shared, const view<const float, 1>& importance) const
    {
        double sum = 0.0;
        each(group, [&](index column) {
            const auto weight = static_cast<double>(weights_(row, column));
            const auto code = static_cast<std::uint8_t>(nearest(weight, shared) & 15);
            const double error = static_cast<double>(dequantize<F>(code, shared, 1.0f)) - weight;
            sum += (importance ? static_cast<double>(importance(column)) : 1.0) * (error * error);
        });
        return sum;
    }

    /// Bits of a row beyond its columns are 0.
    void begin_row(index row, scale_type scale) const
    {
        for (index i = 0; i < codes_.extent(1); ++i) { codes_(row, i) = 0; }
        scales_(row, 0) = scale;
    }
    void write(index row, index group, const group_parameters<F>& shared) const
    {
        group_scales_(row, group) = static_cast<std::uint8_t>(shared.group_scale);
        each(group, [&](index column) {
            const int code = nearest(static_cast<double>(weights_(row, column)), shared) & 15;
            std::uint8_t& byte = codes_(row, column / 2);
            byte = static_cast<std::uint8_t>(byte | code << 4 * (column % 2));
        });
    }

private:
    template <class Visit>
    void each(index group, const Visit& visit) const
    {
        const index end = smaller((group + 1) * shape_.group, shape_.columns);
        for (index column = group * shape_.group; column < end; ++column) { visit(column); }
    }

    view<const float, 2> weights_;
    view<std::uint8_t, 2> codes_, group_scales_;
    view<scale_type, 2> scales_;
    array_shape shape_;
};

} // namespace detail

/// Writes weights [rows, columns] as codes [rows, ⌈columns / 2⌉], group_scales [rows, ⌈columns / group⌉] and scales [rows, 1] of a
/// two_level_matrix, by rounding to the nearest: the scale of a row lets the group of the largest weight have the largest group scale,
/// 16, others have the group scale nearest to what reaches their largest weight, at least 1. Refuses what two_level_matrix refuses,
/// overlapping operands, and weights that are not finite.
template <row_scaled F>
void encode(const view<const float, 2>& weights, const view<std::uint8_t, 2>& codes, const view<std::uint8_t, 2>& group_scales,
            const view<typename F::scale_type, 2>& scales, const two_level_options& options = {})
{
    const detail::two_level_encoder<F> out(checker("quant::encode"), weights, codes, group_scales, scales, options);
    for (index row = 0; row < out.rows(); ++row) {
        const auto scale = out.row_scale(out.extent_of(row));
        out.begin_row(row, scale);
        for (index g = 0; g < out.groups(); ++g) { out.write(row, g, {scale, 0, out.group_scale(scale, out.extent_of(row, g))}); }
    }
}

/// As `encode`, with the scales whose codes err least by clip_options::importance: of a row's scales for the ratios of its extent that
/// are tried, each with the best group scales, from one above the nearest down to the nearest for `least` of the group's extent. A row's
/// error is not larger than encode's. Costs some ten times (steps + 1) times as much. Refuses what both encode and the other
/// encode_clipped refuse. (One search in place of the two phases of Zhang et al. 2023.)
template <row_scaled F>
void encode_clipped(const view<const float, 2>& weights, const view<std::uint8_t, 2>& codes, const view<std::uint8_t, 2>& group_scales,
                    const view<typename F::scale_type, 2>& scales, const two_level_options& options = {}, const clip_options& clip = {})
{
    const checker check("quant::encode_clipped");
    const detail::two_level_encoder<F> out(check, weights, codes, group_scales, scales, options);
    detail::check_clip(check, out, clip, weights.extent(1));
    for (index row = 0; row < out.rows(); ++row) {
        const double extent = out.extent_of(row);
        const auto group_scale_under = [&](typename F::scale_type scale, index g, double& error) {
            const double reach = out.extent_of(row, g);
            group_parameters<F> best{scale, 0, out.group_scale(scale, reach)};
            error = out.error_of(row, g, best, clip.importance);
            const int most = best.group_scale < F::most_group_scale ? best.group_scale + 1 : F::most_group_scale;
            const int least = out.group_scale(scale, static_cast<double>(clip.least) * reach);
            for (int s = most; s >= least; --s) {
                const double its = out.error_of(row, g, {scale, 0, s}, clip.importance);
                if (its < error) { best.group_scale = s, error = its; }
            }
            return best;
        };
        auto best = out.row_scale(extent);
        double least_error = -1.0;
        for (int step = 0; step <= clip.steps; ++step) {
            const double ratio = step == 0 ? 1.0 : 1.0 + (static_cast<double>(clip.least) - 1.0) * step / clip.steps;
            const auto scale = out.row_scale(extent * ratio);
            double sum = 0.0;
            for (index g = 0; g < out.groups(); ++g) {
                double error = 0.0;
                static_cast<void>(group_scale_under(scale, g, error));
                sum += error;
            }
            if (least_error < 0.0 || sum < least_error) { best = scale, least_error = sum; }
        }
        out.begin_row(row, best);
        for (index g = 0; g < out.groups(); ++g) {
            double error = 0.0;
            out.write(row, g, group_scale_under(best, g, error));
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
