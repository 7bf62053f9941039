// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/avx512_lanes.hpp>

#if SEQMIX_HAS_AVX512

// AVX-512, and by inheritance with VNNI and BF16: products, verbs over bytes.

SEQMIX_NAMESPACE_BEGIN
namespace simd {

template <>
struct backend<arch::avx512> : without_narrow_products<avx512_lanes::f32, avx512_lanes::i32> {
    using f32 = avx512_lanes::f32;
    using i32 = avx512_lanes::i32;
    using mask = avx512_lanes::mask;
    static constexpr int registers = 32;

    /// A sum as it is. GCC would add the products of many steps as a tree, and keep all of them in memory for it.
    static SEQMIX_INLINE i32 in_order(i32 sum)
    {
#if defined(__GNUC__) && !defined(__clang__)
        __asm__("" : "+v"(sum.v));
#endif
        return sum;
    }

    /// Through 16-bit halves: products of two int8 summed in pairs stay below 2^16, so nothing saturates.
    static SEQMIX_INLINE i32 dot4(i32 acc, i32 a, i32 b)
    {
        const __m512i even_a = _mm512_srai_epi16(_mm512_slli_epi16(a.v, 8), 8), odd_a = _mm512_srai_epi16(a.v, 8);
        const __m512i even_b = _mm512_srai_epi16(_mm512_slli_epi16(b.v, 8), 8), odd_b = _mm512_srai_epi16(b.v, 8);
        return in_order(acc + i32{_mm512_madd_epi16(even_a, even_b)} + i32{_mm512_madd_epi16(odd_a, odd_b)});
    }

    static constexpr bool has_short_sums = true;
    static SEQMIX_INLINE i32 dot_short(i32 acc, i32 codes, i32 b)
    {
        return in_order({_mm512_add_epi16(acc.v, _mm512_maddubs_epi16(codes.v, b.v))});
    }
    static SEQMIX_INLINE i32 sum_short(i32 acc) { return {_mm512_madd_epi16(acc.v, _mm512_set1_epi16(1))}; }

    using byte_table = i32;
    static SEQMIX_INLINE byte_table table_of(const std::uint8_t* entries)
    {
        return {_mm512_maskz_broadcast_i32x4(avx512_lanes::every, _mm_loadu_si128(reinterpret_cast<const __m128i*>(entries)))};
    }
    static SEQMIX_INLINE byte_table tables_of(const std::uint8_t* entries) { return {_mm512_loadu_si512(entries)}; }
    static SEQMIX_INLINE i32 lookup(byte_table table, i32 codes) { return {_mm512_shuffle_epi8(table.v, codes.v)}; }

    static SEQMIX_INLINE i32 load_turned(const std::uint8_t* block)
    {
        return {_mm512_shuffle_epi8(turn_words(_mm512_loadu_si512(block)), square_of_bytes())};
    }
    static SEQMIX_INLINE void turn_block(const std::uint8_t* block, i32 (&parts)[1])
    {
        parts[0].v = turn_words(_mm512_shuffle_epi8(_mm512_loadu_si512(block), square_of_bytes()));
    }

    /// Pairs of bytes as they are, wrapping, and their upper ones: the lower ones' sum is the difference.
    struct byte_sums {
        __m512i pairs, upper;
    };
    static SEQMIX_INLINE byte_sums no_bytes() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
    static SEQMIX_INLINE byte_sums add_bytes(byte_sums sums, i32 bytes)
    {
        return {_mm512_add_epi16(sums.pairs, bytes.v), _mm512_add_epi16(sums.upper, _mm512_srli_epi16(bytes.v, 8))};
    }
    static SEQMIX_INLINE void store_sums(const byte_sums& sums, std::int32_t* to)
    {
        const auto add_quarters = [](__m512i x) SEQMIX_INLINE_LAMBDA {
            const __m256i half = _mm256_add_epi16(_mm512_maskz_extracti64x4_epi64(0xff, x, 0), _mm512_maskz_extracti64x4_epi64(0xff, x, 1));
            return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        };
        const __m128i lower = add_quarters(_mm512_sub_epi16(sums.pairs, _mm512_slli_epi16(sums.upper, 8))), upper = add_quarters(sums.upper);
        const __m256i rows = _mm256_set_m128i(_mm_unpackhi_epi16(lower, upper), _mm_unpacklo_epi16(lower, upper));
        i32{_mm512_maskz_cvtepu16_epi32(avx512_lanes::every, rows)}.store(to);
    }

private:
    /// Four by four words, and four by four bytes of each quarter, rows to columns.
    static SEQMIX_INLINE __m512i turn_words(__m512i x)
    {
        return _mm512_maskz_permutexvar_epi32(avx512_lanes::every, _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
    }
    static SEQMIX_INLINE __m512i square_of_bytes()
    {
        return _mm512_maskz_broadcast_i32x4(avx512_lanes::every, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    }
};

#if SEQMIX_HAS_AVX512_VNNI
template <>
struct backend<arch::avx512_vnni> : backend<arch::avx512> {
    static constexpr int left_int8_offset = 128;
    static constexpr bool has_short_sums = false;

    /// GCC holds what its intrinsic returns as sixteen integers and an __m512i as eight, in loops both at once: of 24 accumulators it
    /// then keeps half in memory. Assembly has one type.
    static SEQMIX_INLINE i32 dot4(i32 acc, i32 a, i32 b)
    {
#if defined(__GNUC__) && !defined(__clang__)
        __asm__("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(a.v), "v"(b.v));
        return acc;
#else
        return {_mm512_dpbusd_epi32(acc.v, a.v, b.v)};
#endif
    }
};
#endif

#if SEQMIX_HAS_AVX512_BF16
template <>
struct backend<arch::avx512_bf16> : backend<arch::avx512_vnni> {
    static constexpr bool has_bf16_dot = true;

    static SEQMIX_INLINE f32 dot2(f32 acc, i32 a, i32 b)
    {
        return {_mm512_dpbf16_ps(acc.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
    }

    /// One narrowing instruction for both rows, then a shuffle of 16-bit halves. Subnormals become zero, as they do in
    /// the dot product that reads them.
    static SEQMIX_INLINE i32 join_bf16(f32 row0, f32 row1)
    {
        const __m512i rows = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(row1.v, row0.v));
        const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                             5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        return {_mm512_maskz_permutexvar_epi16(0xffffffffu, zip, rows)};
    }
};
#endif

} // namespace simd
SEQMIX_NAMESPACE_END

#endif
