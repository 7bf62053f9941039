// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/emulated.hpp>

#if SEQMIX_HAS_AVX512

#include <immintrin.h>

// Lanes of AVX-512 with F, BW, DQ and VL. The zero-masked forms of intrinsics are used
// where the plain ones make GCC 12 warn about its own header's undefined registers (GCC bug 105593); they compile to the
// same instructions.

SEQMIX_NAMESPACE_BEGIN
namespace simd::avx512_lanes {

inline constexpr __mmask16 every = 0xffff;

/// The lowest n of 16 bits; n <= 0 gives none and n >= 16 all.
SEQMIX_INLINE __mmask16 first(index n)
{
    return n >= 16 ? every : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1u);
}

struct mask {
    __mmask16 v;
    friend SEQMIX_INLINE mask operator&(mask a, mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
    friend SEQMIX_INLINE mask operator|(mask a, mask b) { return {static_cast<__mmask16>(a.v | b.v)}; }
    friend SEQMIX_INLINE mask operator!(mask a) { return {static_cast<__mmask16>(~a.v)}; }
    friend SEQMIX_INLINE bool any(mask a) { return a.v != 0; }
    friend SEQMIX_INLINE bool all(mask a) { return a.v == every; }
};

struct i32 {
    static constexpr int lanes = 16;
    __m512i v;

    static SEQMIX_INLINE i32 zero() { return {_mm512_setzero_si512()}; }
    static SEQMIX_INLINE i32 broadcast(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
    static SEQMIX_INLINE i32 load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
    static SEQMIX_INLINE i32 load(const std::int32_t* p, index n) { return {_mm512_maskz_loadu_epi32(first(n), p)}; }
    static SEQMIX_INLINE i32 load(const std::uint8_t* p) { return widen_u8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
    static SEQMIX_INLINE i32 load(const std::uint8_t* p, index n) { return widen_u8(_mm_maskz_loadu_epi8(first(n), p)); }
    static SEQMIX_INLINE i32 load(const std::int8_t* p) { return widen_s8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
    static SEQMIX_INLINE i32 load(const std::int8_t* p, index n) { return widen_s8(_mm_maskz_loadu_epi8(first(n), p)); }
    static SEQMIX_INLINE i32 load(const std::uint16_t* p) { return widen_u16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
    static SEQMIX_INLINE i32 load(const std::uint16_t* p, index n) { return widen_u16(_mm256_maskz_loadu_epi16(first(n), p)); }
    SEQMIX_INLINE void store(std::int32_t* p) const { _mm512_storeu_si512(p, v); }
    SEQMIX_INLINE void store_bytes(std::uint8_t* p) const
    {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(every, v));
    }
    SEQMIX_INLINE void store(std::int32_t* p, index n) const { _mm512_mask_storeu_epi32(p, first(n), v); }

    friend SEQMIX_INLINE i32 operator+(i32 a, i32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator-(i32 a, i32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator*(i32 a, i32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator&(i32 a, i32 b) { return {_mm512_and_si512(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator|(i32 a, i32 b) { return {_mm512_or_si512(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator^(i32 a, i32 b) { return {_mm512_xor_si512(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator<(i32 a, i32 b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator==(i32 a, i32 b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_left(i32 a)
    {
        return {_mm512_maskz_slli_epi32(every, a.v, bits)};
    }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_right(i32 a)
    {
        return {_mm512_maskz_srli_epi32(every, a.v, bits)};
    }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_right_signed(i32 a)
    {
        return {_mm512_maskz_srai_epi32(every, a.v, bits)};
    }
    friend SEQMIX_INLINE i32 min(i32 a, i32 b) { return {_mm512_maskz_min_epi32(every, a.v, b.v)}; }
    friend SEQMIX_INLINE i32 max(i32 a, i32 b) { return {_mm512_maskz_max_epi32(every, a.v, b.v)}; }
    friend SEQMIX_INLINE i32 select(mask m, i32 a, i32 b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }
    /// Lane i: number `index` mod 32 of 32 that stand in two registers. Only this set has it; math.hpp asks.
    friend SEQMIX_INLINE i32 lookup32(i32 low, i32 high, i32 index) { return {_mm512_permutex2var_epi32(low.v, index.v, high.v)}; }
    friend SEQMIX_INLINE std::int32_t reduce_add(i32 a)
    {
        const __m256i half = _mm256_add_epi32(_mm512_maskz_extracti32x8_epi32(0xff, a.v, 0), _mm512_maskz_extracti32x8_epi32(0xff, a.v, 1));
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
        return _mm_cvtsi128_si32(sum);
    }

    static SEQMIX_INLINE i32 widen_u8(__m128i x) { return {_mm512_maskz_cvtepu8_epi32(every, x)}; }
    static SEQMIX_INLINE i32 widen_s8(__m128i x) { return {_mm512_maskz_cvtepi8_epi32(every, x)}; }
    static SEQMIX_INLINE i32 widen_u16(__m256i x) { return {_mm512_maskz_cvtepu16_epi32(every, x)}; }
};

/// The sum of two choices of quarters from a and b. Template parameters: unoptimized builds take no lambda's for immediates.
template <int First, int Second>
SEQMIX_INLINE __m512 add_quarters(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_maskz_shuffle_f32x4(every, a, b, First), _mm512_maskz_shuffle_f32x4(every, a, b, Second));
}

struct f32 {
    static constexpr int lanes = 16;
    static constexpr bool has_scale = true; // scale_by_power is one instruction, for any n, infinities too; math.hpp asks
    __m512 v;

    static SEQMIX_INLINE f32 zero() { return {_mm512_setzero_ps()}; }
    static SEQMIX_INLINE f32 broadcast(float x) { return {_mm512_set1_ps(x)}; }
    static SEQMIX_INLINE f32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static SEQMIX_INLINE f32 load(const float* p, index n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
    static SEQMIX_INLINE f32 load(const bf16* p) { return widen(i32::load(&p->bits)); }
    static SEQMIX_INLINE f32 load(const bf16* p, index n) { return widen(i32::load(&p->bits, n)); }
    static SEQMIX_INLINE f32 load(const f16* p)
    {
        return {_mm512_maskz_cvtph_ps(every, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    static SEQMIX_INLINE f32 load(const f16* p, index n) { return {_mm512_maskz_cvtph_ps(every, _mm256_maskz_loadu_epi16(first(n), p))}; }

    SEQMIX_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
    SEQMIX_INLINE void store(float* p, index n) const { _mm512_mask_storeu_ps(p, first(n), v); }
    SEQMIX_INLINE void store(bf16* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), round_to_bf16()); }
    SEQMIX_INLINE void store(bf16* p, index n) const { _mm256_mask_storeu_epi16(p, first(n), round_to_bf16()); }
    SEQMIX_INLINE void store(f16* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), round_to_f16()); }
    SEQMIX_INLINE void store(f16* p, index n) const { _mm256_mask_storeu_epi16(p, first(n), round_to_f16()); }
    SEQMIX_INLINE void stream(float* p) const { _mm512_stream_ps(p, v); }
    SEQMIX_INLINE void stream(bf16* p) const { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), round_to_bf16()); }
    SEQMIX_INLINE void stream(f16* p) const { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), round_to_f16()); }
    static SEQMIX_INLINE void stream_fence() { _mm_sfence(); }

    friend SEQMIX_INLINE f32 operator+(f32 a, f32 b) { return {_mm512_add_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator-(f32 a, f32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator*(f32 a, f32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator/(f32 a, f32 b) { return {_mm512_div_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator-(f32 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
    friend SEQMIX_INLINE f32 fma(f32 a, f32 b, f32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
    friend SEQMIX_INLINE f32 fnma(f32 a, f32 b, f32 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
    friend SEQMIX_INLINE f32 min(f32 a, f32 b) { return {_mm512_maskz_min_ps(every, a.v, b.v)}; }
    friend SEQMIX_INLINE f32 max(f32 a, f32 b) { return {_mm512_maskz_max_ps(every, a.v, b.v)}; }
    friend SEQMIX_INLINE f32 abs(f32 a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
    friend SEQMIX_INLINE f32 sqrt(f32 a) { return {_mm512_maskz_sqrt_ps(every, a.v)}; }
    friend SEQMIX_INLINE f32 round(f32 a)
    {
        return {_mm512_maskz_roundscale_ps(every, a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    }
    friend SEQMIX_INLINE f32 scale_by_power(f32 a, f32 n) { return {_mm512_maskz_scalef_ps(every, a.v, n.v)}; }
    friend SEQMIX_INLINE mask operator<(f32 a, f32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
    friend SEQMIX_INLINE mask operator<=(f32 a, f32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
    friend SEQMIX_INLINE mask operator==(f32 a, f32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
    friend SEQMIX_INLINE f32 select(mask m, f32 a, f32 b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
    friend SEQMIX_INLINE i32 as_int(f32 a) { return {_mm512_castps_si512(a.v)}; }
    friend SEQMIX_INLINE float reduce_add(f32 a)
    {
        const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, a.v, 0), _mm512_maskz_extractf32x8_ps(0xff, a.v, 1));
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
    }
    friend SEQMIX_INLINE float reduce_max(f32 a)
    {
        const __m256 half = _mm256_max_ps(_mm512_maskz_extractf32x8_ps(0xff, a.v, 0), _mm512_maskz_extractf32x8_ps(0xff, a.v, 1));
        __m128 top = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        top = _mm_max_ps(top, _mm_movehl_ps(top, top));
        return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
    }

    /// Lane i: the sum over the lanes of register i. Four rounds of exchanges and sums, each of half as many registers as the one
    /// before: 30 shuffles and 15 sums.
    friend SEQMIX_INLINE f32 reduce_add_rows(const f32 (&row)[16])
    {
        __m512 pair[8], four[4];
        unroll<8>([&](auto i) SEQMIX_INLINE_LAMBDA {
            const __m512 a = row[2 * i].v, b = row[2 * i + 1].v;
            pair[i] = _mm512_add_ps(_mm512_maskz_unpacklo_ps(every, a, b), _mm512_maskz_unpackhi_ps(every, a, b));
        });
        unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
            const __m512 a = pair[2 * i], b = pair[2 * i + 1];
            four[i] = _mm512_add_ps(_mm512_maskz_shuffle_ps(every, a, b, 0x44), _mm512_maskz_shuffle_ps(every, a, b, 0xee));
        });
        const __m512 low = add_quarters<0x44, 0xee>(four[0], four[1]), high = add_quarters<0x44, 0xee>(four[2], four[3]);
        return {add_quarters<0x88, 0xdd>(low, high)};
    }

    /// Four rounds of two-way exchanges at distances 1, 2, 4 and 8: 64 shuffles for 256 elements.
    friend SEQMIX_INLINE void transpose(f32 (&row)[16])
    {
        __m512 t[16], u[16];
        unroll<8>([&](auto i) SEQMIX_INLINE_LAMBDA {
            t[2 * i] = _mm512_maskz_unpacklo_ps(every, row[2 * i].v, row[2 * i + 1].v);
            t[2 * i + 1] = _mm512_maskz_unpackhi_ps(every, row[2 * i].v, row[2 * i + 1].v);
        });
        unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
            u[4 * i + 0] = _mm512_maskz_shuffle_ps(every, t[4 * i], t[4 * i + 2], 0x44);
            u[4 * i + 1] = _mm512_maskz_shuffle_ps(every, t[4 * i], t[4 * i + 2], 0xee);
            u[4 * i + 2] = _mm512_maskz_shuffle_ps(every, t[4 * i + 1], t[4 * i + 3], 0x44);
            u[4 * i + 3] = _mm512_maskz_shuffle_ps(every, t[4 * i + 1], t[4 * i + 3], 0xee);
        });
        unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
            t[i] = _mm512_maskz_shuffle_f32x4(every, u[i], u[i + 4], 0x88);
            t[i + 4] = _mm512_maskz_shuffle_f32x4(every, u[i], u[i + 4], 0xdd);
            t[i + 8] = _mm512_maskz_shuffle_f32x4(every, u[i + 8], u[i + 12], 0x88);
            t[i + 12] = _mm512_maskz_shuffle_f32x4(every, u[i + 8], u[i + 12], 0xdd);
        });
        unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
            row[i].v = _mm512_maskz_shuffle_f32x4(every, t[i], t[i + 8], 0x88);
            row[i + 4].v = _mm512_maskz_shuffle_f32x4(every, t[i + 4], t[i + 12], 0x88);
            row[i + 8].v = _mm512_maskz_shuffle_f32x4(every, t[i], t[i + 8], 0xdd);
            row[i + 12].v = _mm512_maskz_shuffle_f32x4(every, t[i + 4], t[i + 12], 0xdd);
        });
    }

    static SEQMIX_INLINE f32 widen(i32 bits) { return {_mm512_castsi512_ps(shift_left<16>(bits).v)}; }
    SEQMIX_INLINE __m256i round_to_f16() const { return _mm512_maskz_cvtps_ph(every, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    SEQMIX_INLINE __m256i round_to_bf16() const { return _mm512_maskz_cvtepi32_epi16(every, simd::bf16_bits(*this).v); }
};

SEQMIX_INLINE f32 to_float(i32 a) { return {_mm512_maskz_cvtepi32_ps(every, a.v)}; }
SEQMIX_INLINE i32 to_int(f32 a) { return {_mm512_maskz_cvtps_epi32(every, a.v)}; }
SEQMIX_INLINE f32 as_float(i32 a) { return {_mm512_castsi512_ps(a.v)}; }

} // namespace simd::avx512_lanes
SEQMIX_NAMESPACE_END

#endif
