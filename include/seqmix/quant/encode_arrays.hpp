// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/arrays.hpp>
#include <seqmix/quant/encode_blocks.hpp>

// Weights into codes and scales in arrays of their own.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

inline e8m0 stored_scale(double largest, e8m0, float extreme) { return e8m0::from_bits(power_of_two_scale(largest, extreme)); }
template <class Scale>
Scale stored_scale(double largest, Scale type, float extreme)
{
    return stored_scale(largest / static_cast<double>(extreme), type);
}

} // namespace detail

template <format F>
struct encode_options {
    scale_tile tile = F::tile;
    view<typename F::zero_type, 2> zeros{}; ///< written: one a scale; of formats with zero points, which need it
    float matrix_scale = 1.0f;              ///< of formats that have one: see usual_matrix_scale
    int stored_bits = F::bits;              ///< as array_options has it
};

/// The number that lets the largest scale of a group be the largest that its type holds.
template <format F>
requires F::matrix_scale float usual_matrix_scale(const view<const float, 2>& weights)
{
    detail::check_finite(checker("quant::usual_matrix_scale"), weights);
    detail::extent_of_group all;
    for (index row = 0; row < weights.extent(0); ++row) {
        for (index column = 0; column < weights.extent(1); ++column) { all.see(weights(row, column)); }
    }
    const double scale = std::fabs(all.largest) / (448.0 * static_cast<double>(F::extreme));
    return scale > 0.0 ? static_cast<float>(scale) : 1.0f;
}

namespace detail {

/// Weights that share a scale.
struct tile_of_weights {
    index down = 0, across = 0, top = 0, bottom = 0, left = 0, right = 0;

    template <class Visit>
    void each(const Visit& visit) const
    {
        for (index row = top; row < bottom; ++row) {
            for (index column = left; column < right; ++column) { visit(row, column); }
        }
    }
};

/// What every encoder writes, and how: checked outputs, the scale of an extent, the nearest code under it.
template <format F>
class encoded_arrays {
public:
    encoded_arrays(const checker& check, const view<const float, 2>& weights, const view<typename F::code_type, 2>& codes,
                   const view<typename F::scale_type, 2>& scales, const encode_options<F>& options)
        : codes_(codes), scales_(scales), zeros_(options.zeros), matrix_scale_(options.matrix_scale), table_(F::value, F::bits)
    {
        static_assert(F::form != affine::scale_and_min && !row_scaled<F>);
        check_given(check, weights, "weights");
        shape_.tile = options.tile, shape_.stored_bits = options.stored_bits;
        shape_.check(check, named_operand("codes", codes), named_operand("scales", scales), F::bits, weights.extent(1));
        check_extent(check, codes, "codes", 0, "number of rows", weights.extent(0), "weights'");
        check.require(codes.extent(1) < 2 || codes.stride(1) == 1, "codes' bytes of a row have stride ", codes.stride(1),
                      ", but must have ", 1);
        if constexpr (F::form == affine::scale_and_zero) {
            check.require(static_cast<bool>(zeros_) || scales.empty(), "zeros is null, but the format has zero points");
            check_shape(check, named_operand("zeros", zeros_), shape_.scale_shape());
            check_apart(check, reach(zeros_), "zeros", codes, "codes");
            check_apart(check, reach(zeros_), "zeros", scales, "scales");
        }
        check.require(std::isfinite(matrix_scale_) && matrix_scale_ > 0.0f, "matrix_scale is ",
                      static_cast<double>(matrix_scale_), ", but must be positive");
        check.require(F::matrix_scale || matrix_scale_ == 1.0f, "matrix_scale is ", static_cast<double>(matrix_scale_),
                      ", but the format has none");
        check_apart(check, reach(codes), "codes", scales, "scales");
        check_apart_from(check, weights, "weights");
        check_finite(check, weights);
    }

    /// Refuses outputs where `operand` is read.
    template <class Operand>
    void check_apart_from(const checker& check, const Operand& operand, const char* name) const
    {
        if constexpr (F::form == affine::scale_and_zero) { check_apart(check, reach(zeros_), "zeros", operand, name); }
        check_apart(check, reach(codes_), "codes", operand, name);
        check_apart(check, reach(scales_), "scales", operand, name);
    }

    index rows() const { return shape_.rows; }
    index columns() const { return shape_.columns; }
    index tall() const { return shape_.tile.rows > 0 ? shape_.tile.rows : larger(shape_.rows, 1); } ///< rows that share a scale

    /// Before the first code: bits beyond the columns are 0.
    void clear() const
    {
        for (index row = 0; row < rows(); ++row) { std::fill_n(bytes_of(row), codes_.extent(1), std::byte{}); }
    }

    /// Tiles of the rows from `top`, which a tile begins with, to `bottom`: visit(tile), column by column of tiles.
    template <class Visit>
    void each_tile(index top, index bottom, const Visit& visit) const
    {
        for (index left = 0, across = 0; left < columns(); left += shape_.group, ++across) {
            for (index row = top; row < bottom; row += tall()) {
                visit(tile_of_weights{row / tall(), across, row, smaller(row + tall(), bottom), left,
                                      smaller(left + shape_.group, columns())});
            }
        }
    }

    /// The scale (and zero point) that reaches all of an extent, as stored.
    group_parameters<F> reaching(extent_of_group extent) const
    {
        group_parameters<F> shared;
        if constexpr (F::form == affine::scale_and_zero) {
            extent.see_zero();
            const double steps = static_cast<double>(table_.most()) - static_cast<double>(table_.least());
            shared.scale = stored_scale((extent.most - extent.least) / steps, typename F::scale_type());
            const auto step = static_cast<double>(static_cast<float>(shared.scale));
            const double zero = static_cast<double>(table_.least()) + (step > 0.0 ? std::nearbyint(-extent.least / step) : 0.0);
            shared.zero = static_cast<int>(within(F::least_zero, zero, F::most_zero));
        } else {
            shared.scale = stored_scale(std::fabs(extent.largest) / static_cast<double>(matrix_scale_), typename F::scale_type(),
                                        F::extreme);
        }
        return shared;
    }

    std::uint8_t nearest(double weight, const group_parameters<F>& shared) const
    {
        const double scale = static_cast<double>(static_cast<float>(shared.scale)) * static_cast<double>(matrix_scale_);
        return table_.nearest(weight / scale + static_cast<double>(shared.zero));
    }
    double decoded(std::uint8_t code, const group_parameters<F>& shared) const
    {
        return static_cast<double>(dequantize<F>(code, shared, matrix_scale_));
    }

    void share(const tile_of_weights& tile, const group_parameters<F>& shared) const
    {
        scales_(tile.down, tile.across) = shared.scale;
        if constexpr (F::form == affine::scale_and_zero) {
            zeros_(tile.down, tile.across) = static_cast<typename F::zero_type>(shared.zero);
        }
    }
    void put(index row, index column, std::uint8_t code) const
    {
        put_code_in_stream(code, shape_.stored_bits, column, bytes_of(row));
    }

private:
    std::byte* bytes_of(index row) const { return reinterpret_cast<std::byte*>(codes_.data() + row * codes_.stride(0)); }

    view<typename F::code_type, 2> codes_;
    view<typename F::scale_type, 2> scales_;
    view<typename F::zero_type, 2> zeros_;
    float matrix_scale_;
    array_shape shape_;
    code_table table_;
};

} // namespace detail

/// Writes weights [rows, columns] as codes [rows, bytes] and scales [tiles of rows, tiles of columns] of an array_matrix<F>, by
/// rounding to the nearest: scales as the blocks' `encode` chooses them; with zero points, from the least to the largest number and
/// 0, which is met exactly. Bits of the last byte of a row beyond the columns are 0. Refuses what array_matrix refuses, and weights
/// that are not finite.
template <format F>
    requires(F::block == 0 && !row_scaled<F>)
void encode(const view<const float, 2>& weights, const view<typename F::code_type, 2>& codes,
            const view<typename F::scale_type, 2>& scales, const encode_options<F>& options = {})
{
    const checker check("quant::encode");
    const detail::encoded_arrays<F> out(check, weights, codes, scales, options);
    out.clear();
    out.each_tile(0, out.rows(), [&](const detail::tile_of_weights& tile) {
        detail::extent_of_group extent;
        tile.each([&](index row, index column) { extent.see(weights(row, column)); });
        const group_parameters<F> shared = out.reaching(extent);
        out.share(tile, shared);
        tile.each([&](index row, index column) {
            out.put(row, column, out.nearest(static_cast<double>(weights(row, column)), shared));
        });
    });
}

} // namespace quant
SEQMIX_NAMESPACE_END
