// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/integer.hpp>

// FP8 with scales: w = scale · number (OCP 8-bit floating point, revision 1.0).

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// Element is fp8_e4m3 or fp8_e5m2.
template <class Element, class Scale>
struct float8 : run_time_group<Scale> {
    static constexpr bool is_e4m3 = std::is_same_v<Element, fp8_e4m3>;
    static_assert(is_e4m3 || std::is_same_v<Element, fp8_e5m2>);
    static constexpr const char* name = is_e4m3 ? "fp8_e4m3" : "fp8_e5m2";
    static constexpr int bits = 8;
    static constexpr bool integer_codes = false;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = is_e4m3 ? 448.0f : 57344.0f;
    using code_type = Element;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(Element::from_bits(code)); }
};

/// codes [rows, columns] of Element; one scale a tensor, a channel, a group, or a block of 128 x 128 as in DeepSeek-V3.
template <class Element, class Scale = float>
using fp8_matrix = array_matrix<float8<Element, Scale>>;

} // namespace quant
SEQMIX_NAMESPACE_END
