// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/config.hpp>

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

SEQMIX_NAMESPACE_BEGIN

/// Lengths, positions and strides: 64-bit and signed, so that differences and negative strides are ordinary numbers.
using index = std::int64_t;

/// The smaller and the larger of two, ours so that no weak copy of std::min from a unit with other flags is ever called.
constexpr index smaller(index a, index b) { return b < a ? b : a; }
constexpr index larger(index a, index b) { return a < b ? b : a; }

namespace detail {

/// Rounds the magnitude of a float to a narrower format with `exponent_bits` and `mantissa_bits`, to nearest even, with
/// subnormals; overflow gives the code after the largest finite one (what that code means is the caller's business).
/// NaN must have been sorted out before. Works on integers alone: exact, and the same under every rounding mode.
template <int exponent_bits, int mantissa_bits>
constexpr std::uint32_t round_magnitude(std::uint32_t magnitude)
{
    constexpr int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = static_cast<int>(magnitude >> 23) - 127;
    std::uint32_t significand = magnitude & 0x7fffffu;
    int shift = 23 - mantissa_bits;
    std::uint32_t code = 0;
    if (exponent >= 1 - bias) {
        code = static_cast<std::uint32_t>(exponent + bias) << mantissa_bits;
    } else {
        if (magnitude < 0x800000u) { return 0; } // a float subnormal is below half of every narrower format's smallest
        significand |= 0x800000u;
        shift += 1 - bias - exponent;
        if (shift > 24) { return 0; }
    }
    const std::uint32_t kept = significand >> shift;
    const std::uint32_t rest = significand & ((1u << shift) - 1u);
    const std::uint32_t half = 1u << (shift - 1);
    const std::uint32_t up = rest > half || (rest == half && (kept & 1u)) ? 1u : 0u;
    return code + kept + up; // a carry out of the mantissa moves the exponent up, as it should
}

/// The float of a narrower format's magnitude code that is neither infinite nor NaN.
template <int exponent_bits, int mantissa_bits>
constexpr float widen_magnitude(std::uint32_t code)
{
    constexpr int bias = (1 << (exponent_bits - 1)) - 1;
    const std::uint32_t mantissa = code & ((1u << mantissa_bits) - 1u);
    const std::uint32_t exponent = code >> mantissa_bits;
    if (exponent == 0) { // subnormal: mantissa · 2^(1 - bias - mantissa_bits), exact in float
        const auto unit = static_cast<std::uint32_t>(127 + 1 - bias - mantissa_bits) << 23;
        return static_cast<float>(mantissa) * std::bit_cast<float>(unit);
    }
    return std::bit_cast<float>((exponent + static_cast<std::uint32_t>(127 - bias)) << 23 |
                                mantissa << (23 - mantissa_bits));
}

} // namespace detail

/// bfloat16: the upper half of a float. Storage only; conversions round to nearest even and keep NaN.
struct bf16 {
    std::uint16_t bits = 0;

    bf16() = default;
    constexpr explicit bf16(float x)
    {
        const auto u = std::bit_cast<std::uint32_t>(x);
        bits = (u & 0x7fffffffu) > 0x7f800000u ? static_cast<std::uint16_t>(u >> 16 | 0x40u)
                                               : static_cast<std::uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
    }
    constexpr explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
    static constexpr bf16 from_bits(std::uint16_t b)
    {
        bf16 x;
        x.bits = b;
        return x;
    }
    friend constexpr bool operator==(bf16, bf16) = default; ///< equality of bits, as for every storage type here
};

/// IEEE binary16. Storage only; conversions round to nearest even, overflow to infinity, keep NaN and subnormals.
struct f16 {
    std::uint16_t bits = 0;

    f16() = default;
    constexpr explicit f16(float x)
    {
        const auto u = std::bit_cast<std::uint32_t>(x);
        const std::uint32_t magnitude = u & 0x7fffffffu;
        std::uint32_t code = 0;
        if (magnitude > 0x7f800000u) {
            code = 0x7e00u | (magnitude >> 13 & 0x3ffu);
        } else if (magnitude >= 0x47800000u) {
            code = 0x7c00u;
        } else {
            code = detail::round_magnitude<5, 10>(magnitude);
        }
        bits = static_cast<std::uint16_t>(u >> 16 & 0x8000u) | static_cast<std::uint16_t>(code);
    }
    constexpr explicit operator float() const
    {
        const std::uint32_t code = bits & 0x7fffu;
        const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
        if (code >= 0x7c00u) { // a signalling NaN is made quiet, as the hardware's conversions do
            const std::uint32_t quiet = code > 0x7c00u ? 0x400000u : 0u;
            return std::bit_cast<float>(sign | 0x7f800000u | quiet | (code & 0x3ffu) << 13);
        }
        return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(detail::widen_magnitude<5, 10>(code)));
    }
    static constexpr f16 from_bits(std::uint16_t b)
    {
        f16 x;
        x.bits = b;
        return x;
    }
    friend constexpr bool operator==(f16, f16) = default;
};

/// What a number beyond the largest finite value of an FP8 format becomes.
enum class overflow {
    saturate, ///< the largest finite value of that sign
    to_nan,   ///< the format's infinity where it has one (E5M2), else NaN (E4M3FN)
};

/// FP8 E4M3FN (OCP 8-bit floating point, revision 1.0): no infinity, one NaN code a sign, largest value 448.
struct fp8_e4m3 {
    std::uint8_t bits = 0;

    fp8_e4m3() = default;
    constexpr explicit fp8_e4m3(float x, overflow mode = overflow::saturate)
    {
        const auto u = std::bit_cast<std::uint32_t>(x);
        const std::uint32_t magnitude = u & 0x7fffffffu;
        std::uint32_t code = magnitude > 0x7f800000u ? 0x7fu : 0xffu;
        if (magnitude < 0x7f800000u) { code = magnitude < 0x44000000u ? detail::round_magnitude<4, 3>(magnitude) : 0xffu; }
        if (magnitude <= 0x7f800000u && code > 0x7eu) { code = mode == overflow::saturate ? 0x7eu : 0x7fu; }
        bits = static_cast<std::uint8_t>((u >> 24 & 0x80u) | code);
    }
    constexpr explicit operator float() const
    {
        const std::uint32_t code = bits & 0x7fu;
        const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80u) << 24;
        const float magnitude =
            code == 0x7fu ? std::numeric_limits<float>::quiet_NaN() : detail::widen_magnitude<4, 3>(code);
        return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
    }
    static constexpr fp8_e4m3 from_bits(std::uint8_t b)
    {
        fp8_e4m3 x;
        x.bits = b;
        return x;
    }
    friend constexpr bool operator==(fp8_e4m3, fp8_e4m3) = default;
};

/// FP8 E5M2 (OCP 8-bit floating point, revision 1.0): infinities and NaN as in IEEE, largest value 57344.
struct fp8_e5m2 {
    std::uint8_t bits = 0;

    fp8_e5m2() = default;
    constexpr explicit fp8_e5m2(float x, overflow mode = overflow::saturate)
    {
        const auto u = std::bit_cast<std::uint32_t>(x);
        const std::uint32_t magnitude = u & 0x7fffffffu;
        std::uint32_t code = 0x7eu;
        if (magnitude <= 0x7f800000u) {
            code = magnitude < 0x47800000u ? detail::round_magnitude<5, 2>(magnitude) : 0x7cu;
            if (code >= 0x7cu) { code = mode == overflow::saturate ? 0x7bu : 0x7cu; }
        }
        bits = static_cast<std::uint8_t>((u >> 24 & 0x80u) | code);
    }
    constexpr explicit operator float() const
    {
        const std::uint32_t code = bits & 0x7fu;
        const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80u) << 24;
        const float magnitude = code >= 0x7cu ? std::bit_cast<float>(0x7f800000u | (code & 3u) << 21)
                                              : detail::widen_magnitude<5, 2>(code);
        return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
    }
    static constexpr fp8_e5m2 from_bits(std::uint8_t b)
    {
        fp8_e5m2 x;
        x.bits = b;
        return x;
    }
    friend constexpr bool operator==(fp8_e5m2, fp8_e5m2) = default;
};

/// The elements below 8 bits of the OCP Microscaling formats, revision 1.0, in the lower bits of a byte: no infinity and no NaN. Larger
/// numbers become the largest of their sign, and so do infinities; NaN has no code and becomes the largest positive number.
template <int exponent_bits, int mantissa_bits>
struct microscaling_float {
    static constexpr int width = 1 + exponent_bits + mantissa_bits;
    static constexpr std::uint8_t sign = 1u << (width - 1);
    std::uint8_t bits = 0;

    microscaling_float() = default;
    constexpr explicit microscaling_float(float x)
    {
        const auto u = std::bit_cast<std::uint32_t>(x);
        const std::uint32_t magnitude = u & 0x7fffffffu, largest = sign - 1u;
        std::uint32_t code = largest;
        if (magnitude < 0x7f800000u) { code = detail::round_magnitude<exponent_bits, mantissa_bits>(magnitude); }
        if (code > largest) { code = largest; }
        const bool negative = u >> 31 != 0 && magnitude <= 0x7f800000u;
        bits = static_cast<std::uint8_t>(negative ? code | sign : code);
    }
    constexpr explicit operator float() const
    {
        const float magnitude = detail::widen_magnitude<exponent_bits, mantissa_bits>(bits & (sign - 1u));
        return (bits & sign) != 0 ? -magnitude : magnitude;
    }
    static constexpr microscaling_float from_bits(std::uint8_t b)
    {
        microscaling_float x;
        x.bits = b;
        return x;
    }
    friend constexpr bool operator==(microscaling_float, microscaling_float) = default;
};

using fp4_e2m1 = microscaling_float<2, 1>; ///< largest value 6
using fp6_e2m3 = microscaling_float<2, 3>; ///< largest value 7.5
using fp6_e3m2 = microscaling_float<3, 2>; ///< largest value 28

/// E8M0 block scale (OCP Microscaling formats, revision 1.0): 2^(bits - 127), 255 is NaN; no sign, no zero.
struct e8m0 {
    std::uint8_t bits = 127;

    e8m0() = default;
    /// The nearest power of two, ties to the even code; NaN for what is not positive and finite.
    constexpr explicit e8m0(float x)
    {
        const auto u = std::bit_cast<std::uint32_t>(x);
        if (u == 0 || u >= 0x7f800000u) {
            bits = 255;
        } else if (u < 0x800000u) { // a float subnormal lies nearest to 2^-127 (code 0) up to the middle below 2^-126
            bits = u > 0x600000u ? 1 : 0;
        } else {
            const std::uint32_t rounded = (u + 0x3fffffu + (u >> 23 & 1u)) >> 23;
            bits = static_cast<std::uint8_t>(rounded > 254u ? 254u : rounded);
        }
    }
    constexpr explicit operator float() const
    {
        if (bits == 255) { return std::numeric_limits<float>::quiet_NaN(); }
        return std::bit_cast<float>(bits == 0 ? 0x400000u : static_cast<std::uint32_t>(bits) << 23);
    }
    static constexpr e8m0 from_bits(std::uint8_t b)
    {
        e8m0 x;
        x.bits = b;
        return x;
    }
    friend constexpr bool operator==(e8m0, e8m0) = default;
};

/// Number types that a mixer reads and writes.
template <class T>
concept storage = std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// Half the distance from 1 to the next number: the relative error of one rounding to nearest.
template <class T>
inline constexpr double unit_roundoff = 0x1p-24;
template <>
inline constexpr double unit_roundoff<bf16> = 0x1p-8;
template <>
inline constexpr double unit_roundoff<f16> = 0x1p-11;
template <>
inline constexpr double unit_roundoff<double> = 0x1p-53;

SEQMIX_NAMESPACE_END
