// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/integer.hpp>

// OCP Microscaling formats, revision 1.0, and NVFP4, with codes and scales in arrays of their own.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// Names, largest numbers and units of the elements: the unit is the distance between subnormal numbers.
template <class Element>
struct element_of;
template <>
struct element_of<fp4_e2m1> {
    static constexpr const char* mx_name = "mxfp4";
    static constexpr int bits = 4;
    static constexpr bool integer_codes = true;
    static constexpr float unit = 0.5f, largest = 6.0f;
    using code_type = std::uint8_t;
};
template <>
struct element_of<fp6_e2m3> {
    static constexpr const char* mx_name = "mxfp6_e2m3";
    static constexpr int bits = 6;
    static constexpr bool integer_codes = true;
    static constexpr float unit = 0.125f, largest = 7.5f;
    using code_type = std::uint8_t;
};
template <>
struct element_of<fp6_e3m2> {
    static constexpr const char* mx_name = "mxfp6_e3m2";
    static constexpr int bits = 6;
    static constexpr bool integer_codes = false;
    static constexpr float unit = 1.0f, largest = 28.0f;
    using code_type = std::uint8_t;
};
template <>
struct element_of<fp8_e4m3> {
    static constexpr const char* mx_name = "mxfp8_e4m3";
    static constexpr int bits = 8;
    static constexpr bool integer_codes = false;
    static constexpr float unit = 1.0f, largest = 448.0f;
    using code_type = fp8_e4m3;
};
template <>
struct element_of<fp8_e5m2> {
    static constexpr const char* mx_name = "mxfp8_e5m2";
    static constexpr int bits = 8;
    static constexpr bool integer_codes = false;
    static constexpr float unit = 1.0f, largest = 57344.0f;
    using code_type = fp8_e5m2;
};

} // namespace detail

/// w = 2^(e - 127) · number, in groups of 32; NaN where e is 255. Fractions of a byte stand in a stream, lowest bits first.
template <class Element>
struct microscaling : run_time_group<e8m0> {
    using element = detail::element_of<Element>;
    static constexpr const char* name = element::mx_name;
    static constexpr int bits = element::bits;
    static constexpr bool integer_codes = element::integer_codes;
    static constexpr float unit = element::unit, extreme = element::largest;
    static constexpr affine form = affine::scale_only;
    static constexpr scale_tile tile = per_group(32);
    using code_type = typename element::code_type;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(Element::from_bits(code)); }
};

/// w = scale · number · matrix_scale, E2M1 numbers in groups of 16 with E4M3 scales, multiplied in this order.
struct nvfp4 : run_time_group<fp8_e4m3> {
    using element = detail::element_of<fp4_e2m1>;
    static constexpr const char* name = "nvfp4";
    static constexpr int bits = 4;
    static constexpr bool integer_codes = true, matrix_scale = true;
    static constexpr float unit = element::unit, extreme = element::largest;
    static constexpr affine form = affine::scale_only;
    static constexpr scale_tile tile = per_group(16);

    static constexpr float value(std::uint8_t code) { return static_cast<float>(fp4_e2m1::from_bits(code)); }
};

/// codes [rows, bytes], scales [rows, ⌈columns / 32⌉]; two E2M1 numbers a byte (the lower nibble first), four of 6 bits in three
/// bytes.
template <class Element>
using mx_matrix = array_matrix<microscaling<Element>>;
/// codes [rows, columns / 2], scales [rows, ⌈columns / 16⌉], and matrix_scale.
using nvfp4_matrix = array_matrix<nvfp4>;

} // namespace quant
SEQMIX_NAMESPACE_END
