// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/emulated.hpp>

#if SEQMIX_HAS_AVX2

#include <immintrin.h>

// Lanes of AVX2 with FMA and F16C. Partial loads and stores of 16-bit and 8-bit elements go through a small buffer: they are edges,
// and AVX2 has no byte masks.

SEQMIX_NAMESPACE_BEGIN
namespace simd::avx2_lanes {

struct mask {
    __m256i v; // all ones or all zeros in each lane
    friend SEQMIX_INLINE mask operator&(mask a, mask b) { return {_mm256_and_si256(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator|(mask a, mask b) { return {_mm256_or_si256(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator!(mask a) { return {_mm256_xor_si256(a.v, _mm256_set1_epi32(-1))}; }
    friend SEQMIX_INLINE bool any(mask a) { return _mm256_movemask_ps(_mm256_castsi256_ps(a.v)) != 0; }
    friend SEQMIX_INLINE bool all(mask a) { return _mm256_movemask_ps(_mm256_castsi256_ps(a.v)) == 0xff; }
};

SEQMIX_INLINE __m256i first(index n)
{
    const int live = static_cast<int>(n > 8 ? 8 : n < 0 ? 0 : n);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(live), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// The first n of 8 elements, the rest zero.
template <class T>
struct padded {
    T element[8] = {};
    SEQMIX_INLINE padded(const T* p, index n)
    {
        for (index i = 0; i < n && i < 8; ++i) { element[i] = p[i]; }
    }
};

template <class T>
SEQMIX_INLINE void copy_first(const T* from, T* to, index n)
{
    for (index i = 0; i < n && i < 8; ++i) { to[i] = from[i]; }
}

struct i32 {
    static constexpr int lanes = 8;
    __m256i v;

    static SEQMIX_INLINE i32 zero() { return {_mm256_setzero_si256()}; }
    static SEQMIX_INLINE i32 broadcast(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
    static SEQMIX_INLINE i32 load(const std::int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
    static SEQMIX_INLINE i32 load(const std::int32_t* p, index n) { return {_mm256_maskload_epi32(reinterpret_cast<const int*>(p), first(n))}; }
    static SEQMIX_INLINE i32 load(const std::uint8_t* p) { return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))}; }
    static SEQMIX_INLINE i32 load(const std::uint8_t* p, index n) { return load(padded<std::uint8_t>(p, n).element); }
    static SEQMIX_INLINE i32 load(const std::int8_t* p) { return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))}; }
    static SEQMIX_INLINE i32 load(const std::int8_t* p, index n) { return load(padded<std::int8_t>(p, n).element); }
    static SEQMIX_INLINE i32 load(const std::uint16_t* p) { return {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
    static SEQMIX_INLINE i32 load(const std::uint16_t* p, index n) { return load(padded<std::uint16_t>(p, n).element); }
    SEQMIX_INLINE void store(std::int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
    SEQMIX_INLINE void store_bytes(std::uint8_t* p) const
    {
        const __m256i first = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1,
                                               -1, -1, -1);
        const __m256i bytes = _mm256_shuffle_epi8(v, first);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_or_si128(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
    }
    SEQMIX_INLINE void store(std::int32_t* p, index n) const { _mm256_maskstore_epi32(reinterpret_cast<int*>(p), first(n), v); }

    friend SEQMIX_INLINE i32 operator+(i32 a, i32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator-(i32 a, i32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator*(i32 a, i32 b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator&(i32 a, i32 b) { return {_mm256_and_si256(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator|(i32 a, i32 b) { return {_mm256_or_si256(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator^(i32 a, i32 b) { return {_mm256_xor_si256(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator<(i32 a, i32 b) { return {_mm256_cmpgt_epi32(b.v, a.v)}; }
    friend SEQMIX_INLINE mask operator==(i32 a, i32 b) { return {_mm256_cmpeq_epi32(a.v, b.v)}; }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_left(i32 a)
    {
        return {_mm256_slli_epi32(a.v, bits)};
    }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_right(i32 a)
    {
        return {_mm256_srli_epi32(a.v, bits)};
    }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_right_signed(i32 a)
    {
        return {_mm256_srai_epi32(a.v, bits)};
    }
    friend SEQMIX_INLINE i32 min(i32 a, i32 b) { return {_mm256_min_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 max(i32 a, i32 b) { return {_mm256_max_epi32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 select(mask m, i32 a, i32 b) { return {_mm256_blendv_epi8(b.v, a.v, m.v)}; }
    friend SEQMIX_INLINE std::int32_t reduce_add(i32 a)
    {
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
        return _mm_cvtsi128_si32(sum);
    }
};

struct f32 {
    static constexpr int lanes = 8;
    __m256 v;

    static SEQMIX_INLINE f32 zero() { return {_mm256_setzero_ps()}; }
    static SEQMIX_INLINE f32 broadcast(float x) { return {_mm256_set1_ps(x)}; }
    static SEQMIX_INLINE f32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
    static SEQMIX_INLINE f32 load(const float* p, index n) { return {_mm256_maskload_ps(p, first(n))}; }
    static SEQMIX_INLINE f32 load(const bf16* p) { return widen(i32::load(&p->bits)); }
    static SEQMIX_INLINE f32 load(const bf16* p, index n) { return load(padded<bf16>(p, n).element); }
    static SEQMIX_INLINE f32 load(const f16* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
    static SEQMIX_INLINE f32 load(const f16* p, index n) { return load(padded<f16>(p, n).element); }

    SEQMIX_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
    SEQMIX_INLINE void store(float* p, index n) const { _mm256_maskstore_ps(p, first(n), v); }
    SEQMIX_INLINE void store(bf16* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), round_to_bf16()); }
    SEQMIX_INLINE void store(bf16* p, index n) const
    {
        bf16 all[8];
        store(all);
        copy_first(all, p, n);
    }
    SEQMIX_INLINE void store(f16* p) const
    {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), round_to_f16());
    }
    SEQMIX_INLINE void store(f16* p, index n) const
    {
        f16 all[8];
        store(all);
        copy_first(all, p, n);
    }
    SEQMIX_INLINE void stream(float* p) const { _mm256_stream_ps(p, v); }
    SEQMIX_INLINE void stream(bf16* p) const { _mm_stream_si128(reinterpret_cast<__m128i*>(p), round_to_bf16()); }
    SEQMIX_INLINE void stream(f16* p) const { _mm_stream_si128(reinterpret_cast<__m128i*>(p), round_to_f16()); }
    static SEQMIX_INLINE void stream_fence() { _mm_sfence(); }

    friend SEQMIX_INLINE f32 operator+(f32 a, f32 b) { return {_mm256_add_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator-(f32 a, f32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator*(f32 a, f32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator/(f32 a, f32 b) { return {_mm256_div_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator-(f32 a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))}; }
    friend SEQMIX_INLINE f32 fma(f32 a, f32 b, f32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
    friend SEQMIX_INLINE f32 fnma(f32 a, f32 b, f32 c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
    friend SEQMIX_INLINE f32 min(f32 a, f32 b) { return {_mm256_min_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 max(f32 a, f32 b) { return {_mm256_max_ps(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 abs(f32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
    friend SEQMIX_INLINE f32 sqrt(f32 a) { return {_mm256_sqrt_ps(a.v)}; }
    friend SEQMIX_INLINE f32 round(f32 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
    /// In two exact powers, the second multiplication rounding once: 2^n alone may be no float where a 2^n is one. The
    /// first takes what can't make the value subnormal, so that only the second can round.
    friend SEQMIX_INLINE f32 scale_by_power(f32 a, f32 n)
    {
        const __m256i whole = _mm256_cvtps_epi32(n.v);
        const __m256i once = _mm256_max_epi32(_mm256_min_epi32(whole, _mm256_set1_epi32(100)), _mm256_set1_epi32(-100));
        const __m256i rest = _mm256_sub_epi32(whole, once);
        const __m256i mid = _mm256_max_epi32(_mm256_min_epi32(rest, _mm256_set1_epi32(100)), _mm256_set1_epi32(-100));
        return a * power(once) * power(mid) * power(_mm256_sub_epi32(rest, mid));
    }
    friend SEQMIX_INLINE mask operator<(f32 a, f32 b) { return {_mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))}; }
    friend SEQMIX_INLINE mask operator<=(f32 a, f32 b) { return {_mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ))}; }
    friend SEQMIX_INLINE mask operator==(f32 a, f32 b) { return {_mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ))}; }
    friend SEQMIX_INLINE f32 select(mask m, f32 a, f32 b) { return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(m.v))}; }
    friend SEQMIX_INLINE i32 as_int(f32 a) { return {_mm256_castps_si256(a.v)}; }
    friend SEQMIX_INLINE float reduce_add(f32 a)
    {
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
    }
    friend SEQMIX_INLINE float reduce_max(f32 a)
    {
        __m128 top = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
        top = _mm_max_ps(top, _mm_movehl_ps(top, top));
        return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
    }

    friend SEQMIX_INLINE void transpose(f32 (&row)[8])
    {
        __m256 t[8], u[8];
        unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
            t[2 * i] = _mm256_unpacklo_ps(row[2 * i].v, row[2 * i + 1].v);
            t[2 * i + 1] = _mm256_unpackhi_ps(row[2 * i].v, row[2 * i + 1].v);
        });
        unroll<2>([&](auto i) SEQMIX_INLINE_LAMBDA {
            u[4 * i + 0] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
            u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
            u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
            u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
        });
        unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
            row[i].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
            row[i + 4].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
        });
    }

    static SEQMIX_INLINE f32 power(__m256i n)
    {
        return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23))};
    }
    static SEQMIX_INLINE f32 widen(i32 bits) { return {_mm256_castsi256_ps(shift_left<16>(bits).v)}; }
    SEQMIX_INLINE __m128i round_to_bf16() const
    {
        const __m256i bits = simd::bf16_bits(*this).v;
        return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    }
    SEQMIX_INLINE __m128i round_to_f16() const { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
};

SEQMIX_INLINE f32 to_float(i32 a) { return {_mm256_cvtepi32_ps(a.v)}; }
SEQMIX_INLINE i32 to_int(f32 a) { return {_mm256_cvtps_epi32(a.v)}; }
SEQMIX_INLINE f32 as_float(i32 a) { return {_mm256_castsi256_ps(a.v)}; }

} // namespace simd::avx2_lanes
SEQMIX_NAMESPACE_END

#endif
