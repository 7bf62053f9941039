// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/arrays.hpp>

// Integers with a scale, and with a zero point or without.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// What the formats whose group is known to the matrix have in common.
template <class Scale>
struct run_time_group {
    static constexpr index block = 0;
    static constexpr bool two_levels = false, matrix_scale = false;
    static constexpr float unit = 1.0f;
    static constexpr scale_tile tile = per_channel;
    static constexpr int usual_zero = 0, least_zero = 0, most_zero = 0;
    using scale_type = Scale;
    using zero_type = std::uint8_t;
    using code_type = std::uint8_t;
};

/// Two's complement: w = scale · q, or scale · (q - zero) where `with_zero`.
template <int bits_, class Scale, bool with_zero>
struct signed_integer : run_time_group<Scale> {
    static constexpr const char* name = bits_ == 8 ? "int8" : bits_ == 4 ? "int4" : "signed";
    static constexpr int bits = bits_;
    static constexpr bool integer_codes = true;
    static constexpr affine form = with_zero ? affine::scale_and_zero : affine::scale_only;
    static constexpr int least_zero = -(1 << (bits - 1)), most_zero = (1 << (bits - 1)) - 1;
    static constexpr float extreme = static_cast<float>(most_zero);
    using zero_type = std::int8_t;
    using code_type = std::conditional_t<bits == 8, std::int8_t, std::uint8_t>;

    static constexpr float value(std::uint8_t code)
    {
        constexpr int sign = 1 << (bits - 1);
        return static_cast<float>((code ^ sign) - sign);
    }
};

/// Unsigned, of fewer than 8 bits: w = scale · (q - zero).
template <int bits_, class Scale>
struct unsigned_integer : run_time_group<Scale> {
    static_assert(bits_ < 8, "seqmix: codes of 8 bits are signed ones; subtract 128 from codes and zero points");
    static constexpr const char* name = bits_ == 4 ? "uint4" : "unsigned";
    static constexpr int bits = bits_;
    static constexpr bool integer_codes = true;
    static constexpr affine form = affine::scale_and_zero;
    static constexpr int usual_zero = 1 << (bits - 1), least_zero = 0, most_zero = (1 << bits) - 1;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code); }
};

/// codes int8 [rows, columns].
template <class Scale = float>
using int8_matrix = array_matrix<signed_integer<8, Scale, false>>;
/// The same with zeros int8.
template <class Scale = float>
using int8_zero_matrix = array_matrix<signed_integer<8, Scale, true>>;
/// codes of two's complement nibbles, the lower one first.
template <class Scale = float>
using int4_matrix = array_matrix<signed_integer<4, Scale, false>>;
/// codes 0 to 15, the lower nibble first, zeros a byte each; where they are not given, 8.
template <class Scale = float>
using uint4_matrix = array_matrix<unsigned_integer<4, Scale>>;

} // namespace quant
SEQMIX_NAMESPACE_END
