// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/fields.hpp>
#include <seqmix/quant/format.hpp>

#include <limits>

// Matrices whose codes, scales and zero points are arrays of their own.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// The tile of weights that share a scale; 0 stands for all rows or all columns.
struct scale_tile {
    index rows = 1, columns = 0;
};
inline constexpr scale_tile per_tensor{0, 0}, per_channel{1, 0};
constexpr scale_tile per_group(index size) { return {1, size}; }
constexpr scale_tile per_block(index rows, index columns) { return {rows, columns}; }

template <format F>
struct array_options {
    scale_tile tile = F::tile;
    /// One a scale, of formats with zero points. Not given: 2^(bits-1) of unsigned codes, else 0.
    view<const typename F::zero_type, 2> zeros{};
    float matrix_scale = 1.0f; ///< of formats that have one
    index columns = -1;        ///< unless given, as many as the codes' bytes hold
    int stored_bits = F::bits; ///< of a code: F::bits, in a stream with the lowest bits first, or 8, one in a byte's lower bits
};

namespace detail {

constexpr index ceiling(index a, index b) { return a / b + (a % b != 0 ? 1 : 0); }

/// What array_matrix knows and checks that depends on the format by numbers alone.
struct array_shape {
    index rows = 0, columns = 0, group = 1;
    scale_tile tile;
    int stored_bits = 8;

    void check(const checker& check, const named_operand& codes, const named_operand& scales, int bits, index given_columns)
    {
        check_given(check, codes, scales);
        check.require(stored_bits == bits || stored_bits == 8, "stored_bits is ", stored_bits, ", but must be ", bits, " or ", 8);
        check.require(tile.rows >= 0, "tile's rows is negative: ", tile.rows);
        check.require(tile.columns >= 0, "tile's columns is negative: ", tile.columns);
        rows = codes.extent(0);
        const index bytes = codes.extent(1), most = std::numeric_limits<index>::max() / 16;
        check.require(bytes <= most, "codes has too many bytes a row: ", bytes);
        columns = given_columns < 0 ? bytes * 8 / stored_bits : given_columns;
        check.require(columns <= most, "columns is too large: ", columns);
        check.equal(bytes, ceiling(columns * stored_bits, 8), "codes' bytes a row", "what columns ask for");
        group = tile.columns > 0 ? tile.columns : columns > 0 ? columns : 1;
        check_shape(check, scales, scale_shape());
    }
    named_shape scale_shape() const
    {
        const index down = tile.rows > 0 ? ceiling(rows, tile.rows) : 1,
                    across = tile.columns > 0 ? ceiling(columns, tile.columns) : 1;
        return named_extent{"tiles of rows", down, "the number that rows and tile ask for"} +
               named_extent{"tiles of columns", across, "the number that columns and tile ask for"};
    }
};

} // namespace detail

/// A view of a matrix [rows, columns]: codes [rows, bytes], the last axis of unit stride; scales (and zeros) of any strides,
/// [1 or ⌈rows / tile.rows⌉, 1 or ⌈columns / tile.columns⌉]. Refuses what does not fit, and zero points that no code stands for.
template <format F>
class array_matrix {
public:
    using format = F;
    using code_type = typename F::code_type; ///< of one byte
    using scale_type = typename F::scale_type;

    array_matrix(const view<const code_type, 2>& codes, const view<const scale_type, 2>& scales,
                 const array_options<F>& options = {})
        : codes_(codes), scales_(scales), zeros_(options.zeros), matrix_scale_(options.matrix_scale)
    {
        static_assert(sizeof(code_type) == 1 && !row_scaled<F>);
        const checker check("quant::array_matrix");
        shape_.tile = options.tile, shape_.stored_bits = options.stored_bits;
        shape_.check(check, named_operand("codes", codes), named_operand("scales", scales), F::bits, options.columns);
        check.require(codes.extent(1) < 2 || codes.stride(1) == 1, "codes' bytes of a row have stride ", codes.stride(1),
                      ", but must have ", 1);
        check.require(F::matrix_scale || matrix_scale_ == 1.0f, "matrix_scale is ", static_cast<double>(matrix_scale_),
                      ", but the format has none");
        if (zeros_) { check_zeros(check); }
    }

    index rows() const { return shape_.rows; }
    index columns() const { return shape_.columns; }
    index group() const { return shape_.group; } ///< columns that share a scale
    index groups() const { return detail::ceiling(shape_.columns, shape_.group); }
    index first(index group) const { return smaller(group * shape_.group, shape_.columns); }
    const std::int32_t* order() const { return nullptr; }
    float matrix_scale() const { return matrix_scale_; }

    group_parameters<F> parameters(index row, index group) const
    {
        const index tile = shape_.tile.rows > 0 ? row / shape_.tile.rows : 0;
        return {scales_(tile, group), zeros_ ? static_cast<int>(zeros_(tile, group)) : F::usual_zero};
    }

    void codes(index row, index position, index count, std::uint8_t* to) const
    {
        const auto* const from = reinterpret_cast<const std::byte*>(codes_.data() + row * codes_.stride(0));
        if (shape_.stored_bits == 8) {
            constexpr unsigned mask = (1u << F::bits) - 1u;
            for (index i = 0; i < count; ++i) { to[i] = static_cast<std::uint8_t>(std::to_integer<unsigned>(from[position + i]) & mask); }
        } else if constexpr (F::bits < 8) {
            unpack_stream<F::bits>(from, position, count, to);
        }
    }

    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, codes_, "codes");
        check_apart(check, written, writer, scales_, "scales");
        check_apart(check, written, writer, zeros_, "zeros");
    }

private:
    void check_zeros(const checker& check) const
    {
        check.require(F::form == affine::scale_and_zero, "zeros are given, but the format has none");
        check_given(check, zeros_, "zeros");
        check_shape(check, named_operand("zeros", zeros_), shape_.scale_shape());
        for (index i = 0; i < zeros_.extent(0); ++i) {
            for (index j = 0; j < zeros_.extent(1); ++j) {
                const int zero = static_cast<int>(zeros_(i, j));
                check.require(zero >= F::least_zero && zero <= F::most_zero, "zeros has a ", zero, ", which is outside ",
                              F::least_zero, " to ", F::most_zero);
            }
        }
    }

    view<const code_type, 2> codes_;
    view<const scale_type, 2> scales_;
    view<const typename F::zero_type, 2> zeros_;
    float matrix_scale_;
    detail::array_shape shape_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
