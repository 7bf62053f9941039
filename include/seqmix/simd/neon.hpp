// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/neon_lanes.hpp>

#if SEQMIX_HAS_NEON

// AArch64, and by inheritance with DOTPROD, BF16 and I8MM: products, verbs over bytes.

SEQMIX_NAMESPACE_BEGIN
namespace simd {

template <>
struct backend<arch::neon> : without_narrow_products<neon_lanes::f32, neon_lanes::i32> {
    using f32 = neon_lanes::f32;
    using i32 = neon_lanes::i32;
    using mask = neon_lanes::mask;
    static constexpr int registers = 32;

    /// Products of two int8 have at most 15 bits, (-128)² included; they are summed in pairs in 32 bits, so nothing
    /// wraps.
    static SEQMIX_INLINE i32 dot4(i32 acc, i32 a, i32 b)
    {
        const int8x16_t a8 = vreinterpretq_s8_s32(a.v), b8 = vreinterpretq_s8_s32(b.v);
        const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a8), vget_low_s8(b8)));
        const int32x4_t high = vpaddlq_s16(vmull_high_s8(a8, b8));
        return {vaddq_s32(acc.v, vpaddq_s32(low, high))};
    }

    using byte_table = i32;
    static SEQMIX_INLINE byte_table table_of(const std::uint8_t* entries) { return {vreinterpretq_s32_u8(vld1q_u8(entries))}; }
    static SEQMIX_INLINE byte_table tables_of(const std::uint8_t* entries) { return table_of(entries); }
    static SEQMIX_INLINE i32 lookup(byte_table table, i32 codes)
    {
        return {vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(table.v), vreinterpretq_u8_s32(codes.v)))};
    }

    static SEQMIX_INLINE i32 load_turned(const std::uint8_t* block)
    {
        std::uint32_t row[4];
        for (int i = 0; i < 4; ++i) { std::memcpy(&row[i], block + 16 * i, 4); }
        const uint8x8_t first = vreinterpret_u8_u32(vset_lane_u32(row[1], vdup_n_u32(row[0]), 1));
        const uint8x8_t second = vreinterpret_u8_u32(vset_lane_u32(row[3], vdup_n_u32(row[2]), 1));
        const uint8x16_t square = vcombine_u8(first, second);
        constexpr std::uint8_t turned[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
        return {vreinterpretq_s32_u8(vqtbl1q_u8(square, vld1q_u8(turned)))};
    }
    static SEQMIX_INLINE void turn_block(const std::uint8_t* block, i32 (&parts)[4])
    {
        const uint8x16x4_t columns = vld4q_u8(block);
        unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA { parts[i].v = vreinterpretq_s32_u8(columns.val[i]); });
    }

    struct byte_sums {
        uint16x8_t first, second;
    };
    static SEQMIX_INLINE byte_sums no_bytes() { return {vdupq_n_u16(0), vdupq_n_u16(0)}; }
    static SEQMIX_INLINE byte_sums add_bytes(byte_sums sums, i32 bytes)
    {
        const uint8x16_t b = vreinterpretq_u8_s32(bytes.v);
        return {vaddw_u8(sums.first, vget_low_u8(b)), vaddw_high_u8(sums.second, b)};
    }
    static SEQMIX_INLINE void store_sums(const byte_sums& sums, std::int32_t* to)
    {
        unroll<2>([&](auto i) SEQMIX_INLINE_LAMBDA {
            const uint16x8_t half = i == 0 ? sums.first : sums.second;
            i32{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(half)))}.store(to + 8 * i);
            i32{vreinterpretq_s32_u32(vmovl_high_u16(half))}.store(to + 8 * i + 4);
        });
    }
};

#if SEQMIX_HAS_NEON_I8MM
template <>
struct backend<arch::neon_i8mm> : backend<arch::neon> {
    static constexpr bool has_bf16_dot = true;

    /// BFDOT, whatever FPCR says: the products (exact), their sum and the addition to acc are each rounded to odd (an
    /// inexact result gets its last bit set, an error below one unit of the last place, unlike half a unit to nearest),
    /// and subnormals going in or coming out are zero. Where FEAT_EBF16 is there and a program sets FPCR.EBF, the sum
    /// is fused instead and follows FPCR.
    static SEQMIX_INLINE f32 dot2(f32 acc, i32 a, i32 b)
    {
        return {vbfdotq_f32(acc.v, vreinterpretq_bf16_s32(a.v), vreinterpretq_bf16_s32(b.v))};
    }

    static SEQMIX_INLINE i32 dot4(i32 acc, i32 a, i32 b)
    {
        return {vdotq_s32(acc.v, vreinterpretq_s8_s32(a.v), vreinterpretq_s8_s32(b.v))};
    }

    static constexpr bool has_byte_blocks = true;
    static SEQMIX_INLINE i32 dot_blocks(i32 acc, i32 a, i32 b)
    {
        return {vmmlaq_s32(acc.v, vreinterpretq_s8_s32(a.v), vreinterpretq_s8_s32(b.v))};
    }
    static SEQMIX_INLINE void zip_words(i32& a, i32& b)
    {
        const i32 lower{vzip1q_s32(a.v, b.v)};
        b.v = vzip2q_s32(a.v, b.v), a = lower;
    }
    static SEQMIX_INLINE void zip_pairs(i32& a, i32& b)
    {
        const int64x2_t first = vreinterpretq_s64_s32(a.v), second = vreinterpretq_s64_s32(b.v);
        a.v = vreinterpretq_s32_s64(vzip1q_s64(first, second)), b.v = vreinterpretq_s32_s64(vzip2q_s64(first, second));
    }
};
#endif

} // namespace simd
SEQMIX_NAMESPACE_END

#endif
