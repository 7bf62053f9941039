// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/arrays.hpp>
#include <seqmix/quant/integer.hpp>

// Integers of four bits with two levels of scales that become integers of eight bits while they are unpacked (DGQ: Zhang et al. 2023).

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// w = scale · (group scale · q): q a nibble in two's complement, the group scale an integer up to 16, so that group scale · q fits a
/// signed byte. The scale is a row's: products of bytes have none between groups.
template <class Scale>
struct two_level_int4 : signed_integer<4, Scale, false> {
    static constexpr const char* name = "two-level int4";
    static constexpr bool two_levels = true;
    static constexpr int most_group_scale = 16;
};

/// What the arrays of a matrix with two levels of scales do not say themselves.
struct two_level_options {
    index group = 128;  ///< columns that share a group scale
    index columns = -1; ///< unless given, two a byte of codes
};

namespace detail {

/// Checks the three arrays of two levels. Shapes: codes [rows, bytes], group_scales [rows, groups], scales [rows, 1].
inline array_shape two_level_shape(const checker& check, const named_operand& codes, index code_stride, const named_operand& group_scales,
                                   const named_operand& scales, const two_level_options& options)
{
    check.require(options.group > 0, "group is ", options.group, ", but must be positive");
    array_shape shape;
    shape.tile = per_group(options.group), shape.stored_bits = 4;
    shape.check(check, codes, group_scales, 4, options.columns);
    check_given(check, scales);
    check_shape(check, scales, named_extent{"rows", shape.rows, "codes'"} + named_extent{"columns", 1, "one scale a row"});
    check.require(codes.extent(1) < 2 || code_stride == 1, "codes' bytes of a row have stride ", code_stride, ", but must have ", 1);
    return shape;
}

} // namespace detail

/// A view of a matrix [rows, columns]: codes [rows, ⌈columns / 2⌉], the lower nibble first, the last axis of unit stride; group_scales
/// [rows, ⌈columns / group⌉], each up to 16 (a group of 0 is all zeros), and scales [rows, 1], both of any strides. Refuses what does
/// not fit, null, and a group scale beyond 16.
template <class Scale = float>
class two_level_matrix {
public:
    using format = two_level_int4<Scale>;
    using code_type = std::uint8_t;
    using scale_type = Scale;

    two_level_matrix(const view<const std::uint8_t, 2>& codes, const view<const std::uint8_t, 2>& group_scales,
                     const view<const Scale, 2>& scales, const two_level_options& options = {})
        : codes_(codes), group_scales_(group_scales), scales_(scales)
    {
        const checker check("quant::two_level_matrix");
        shape_ = detail::two_level_shape(check, named_operand("codes", codes), codes.stride(1),
                                         named_operand("group_scales", group_scales), named_operand("scales", scales), options);
        for (index row = 0; row < rows(); ++row) {
            for (index g = 0; g < groups(); ++g) {
                check.require(group_scales(row, g) <= format::most_group_scale, "group_scales has a ", index{group_scales(row, g)},
                              ", but codes times more than ", format::most_group_scale, " fit no byte");
            }
        }
    }

    index rows() const { return shape_.rows; }
    index columns() const { return shape_.columns; }
    index group() const { return shape_.group; } ///< columns that share a group scale
    index groups() const { return detail::ceiling(shape_.columns, shape_.group); }
    index first(index group) const { return smaller(group * shape_.group, shape_.columns); }
    const std::int32_t* order() const { return nullptr; }
    float matrix_scale() const { return 1.0f; }
    group_parameters<format> parameters(index row, index group) const { return {scales_(row, 0), 0, group_scales_(row, group)}; }

    void codes(index row, index position, index count, std::uint8_t* to) const
    {
        const auto* const from = reinterpret_cast<const std::byte*>(codes_.data() + row * codes_.stride(0));
        for (index i = 0; i < count; ++i) { to[i] = code_in_stream(from, format::bits, position + i); }
    }

    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, codes_, "codes");
        check_apart(check, written, writer, group_scales_, "group_scales");
        check_apart(check, written, writer, scales_, "scales");
    }

private:
    view<const std::uint8_t, 2> codes_, group_scales_;
    view<const Scale, 2> scales_;
    detail::array_shape shape_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
