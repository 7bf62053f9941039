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

/// Writes weights [rows, columns] as codes [rows, bytes] and scales [tiles of rows, tiles of columns] of an array_matrix<F>, by
/// rounding to the nearest: scales as the blocks' `encode` chooses them; with zero points, from the least to the largest number and
/// 0, which is met exactly. Bits of the last byte of a row beyond the columns are 0. Refuses what array_matrix refuses, and weights
/// that are not finite.
template <format F>
    requires(F::block == 0)
void encode(const view<const float, 2>& weights, const view<typename F::code_type, 2>& codes,
            const view<typename F::scale_type, 2>& scales, const encode_options<F>& options = {})
{
    static_assert(F::form != affine::scale_and_min);
    const checker check("quant::encode");
    check_given(check, weights, "weights");
    detail::array_shape shape;
    shape.tile = options.tile, shape.stored_bits = options.stored_bits;
    shape.check(check, named_operand("codes", codes), named_operand("scales", scales), F::bits, weights.extent(1));
    check_extent(check, codes, "codes", 0, "number of rows", weights.extent(0), "weights'");
    check.require(codes.extent(1) < 2 || codes.stride(1) == 1, "codes' bytes of a row have stride ", codes.stride(1),
                  ", but must have ", 1);
    if constexpr (F::form == affine::scale_and_zero) {
        check.require(static_cast<bool>(options.zeros) || scales.empty(), "zeros is null, but the format has zero points");
        check_shape(check, named_operand("zeros", options.zeros), shape.scale_shape());
        check_apart(check, reach(options.zeros), "zeros", weights, "weights");
        check_apart(check, reach(options.zeros), "zeros", codes, "codes");
        check_apart(check, reach(options.zeros), "zeros", scales, "scales");
    }
    check.require(std::isfinite(options.matrix_scale) && options.matrix_scale > 0.0f, "matrix_scale is ",
                  static_cast<double>(options.matrix_scale), ", but must be positive");
    check.require(F::matrix_scale || options.matrix_scale == 1.0f, "matrix_scale is ", static_cast<double>(options.matrix_scale),
                  ", but the format has none");
    check_apart(check, reach(codes), "codes", weights, "weights");
    check_apart(check, reach(scales), "scales", weights, "weights");
    check_apart(check, reach(codes), "codes", scales, "scales");
    detail::check_finite(check, weights);

    const detail::code_table table(F::value, F::bits);
    const auto matrix_scale = static_cast<double>(options.matrix_scale);
    const index rows = weights.extent(0), columns = weights.extent(1),
                tall = shape.tile.rows > 0 ? shape.tile.rows : larger(rows, 1);
    const auto bytes_of = [&](index row) { return reinterpret_cast<std::byte*>(codes.data() + row * codes.stride(0)); };
    for (index row = 0; row < rows; ++row) { std::fill_n(bytes_of(row), codes.extent(1), std::byte{}); }
    for (index top = 0, down = 0; top < rows; top += tall, ++down) {
        for (index left = 0, across = 0; left < columns; left += shape.group, ++across) {
            const auto each = [&](const auto& visit) {
                for (index row = top; row < smaller(top + tall, rows); ++row) {
                    for (index column = left; column < smaller(left + shape.group, columns); ++column) { visit(row, column); }
                }
            };
            detail::extent_of_group tile;
            each([&](index row, index column) { tile.see(weights(row, column)); });
            double zero = 0.0;
            if constexpr (F::form == affine::scale_and_zero) {
                tile.see_zero();
                const double steps = static_cast<double>(table.most()) - static_cast<double>(table.least());
                scales(down, across) = detail::stored_scale((tile.most - tile.least) / steps, typename F::scale_type());
                const auto step = static_cast<double>(static_cast<float>(scales(down, across)));
                zero = static_cast<double>(table.least()) + (step > 0.0 ? std::nearbyint(-tile.least / step) : 0.0);
                zero = detail::within(F::least_zero, zero, F::most_zero);
                options.zeros(down, across) = static_cast<typename F::zero_type>(zero);
            } else {
                scales(down, across) =
                    detail::stored_scale(std::fabs(tile.largest) / matrix_scale, typename F::scale_type(), F::extreme);
            }
            const double scale = static_cast<double>(static_cast<float>(scales(down, across))) * matrix_scale;
            each([&](index row, index column) {
                const std::uint8_t code = table.nearest(static_cast<double>(weights(row, column)) / scale + zero);
                put_code_in_stream(code, shape.stored_bits, column, bytes_of(row));
            });
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
