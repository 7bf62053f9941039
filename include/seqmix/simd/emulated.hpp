// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/vec.hpp>

// Verbs built from other verbs, for instruction sets without an instruction of their own.

SEQMIX_NAMESPACE_BEGIN
namespace simd {

/// The bf16 codes of the lanes, in their lower halves: to nearest even, NaN kept and made quiet. By integers also where
/// there is an instruction: x86's flushes subnormals, and storage keeps them.
template <class F>
SEQMIX_INLINE auto bf16_bits(F x)
{
    const auto bits = as_int(x);
    using i32 = decltype(as_int(x));
    const i32 upper = shift_right<16>(bits);
    const i32 rounded = shift_right<16>(bits + i32::broadcast(0x7fff) + (upper & i32::broadcast(1)));
    return select(x == x, rounded, upper | i32::broadcast(0x40));
}

/// What a backend inherits that multiplies bf16 as floats, and int8 with signs on both sides.
template <class F, class I>
struct without_narrow_products {
    static constexpr bool has_bf16_dot = false;
    static constexpr int left_int8_offset = 0;
    static constexpr bool has_short_sums = false;
    static constexpr bool has_byte_blocks = false;

    static SEQMIX_INLINE F dot2(F acc, I a, I b)
    {
        const I upper = I::broadcast(static_cast<std::int32_t>(0xffff0000u));
        acc = fma(as_float(shift_left<16>(a)), as_float(shift_left<16>(b)), acc);
        return fma(as_float(a & upper), as_float(b & upper), acc);
    }

    static SEQMIX_INLINE I join_bf16(F row0, F row1) { return bf16_bits(row0) | shift_left<16>(bf16_bits(row1)); }
};

} // namespace simd
SEQMIX_NAMESPACE_END
