// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/avx2_lanes.hpp>

#if SEQMIX_HAS_AVX2

// AVX2, and by inheritance with AVX-VNNI: products, verbs over bytes.

SEQMIX_NAMESPACE_BEGIN
namespace simd {

template <>
struct backend<arch::avx2> : without_narrow_products<avx2_lanes::f32, avx2_lanes::i32> {
    using f32 = avx2_lanes::f32;
    using i32 = avx2_lanes::i32;
    using mask = avx2_lanes::mask;
    static constexpr int registers = 16;

    /// A sum as it is. GCC would add the products of many steps as a tree, and keep all of them in memory for it.
    static SEQMIX_INLINE i32 in_order(i32 sum)
    {
#if defined(__GNUC__) && !defined(__clang__)
        __asm__("" : "+x"(sum.v));
#endif
        return sum;
    }

    /// Through 16-bit halves: products of two int8 summed in pairs stay below 2^16, so nothing saturates.
    static SEQMIX_INLINE i32 dot4(i32 acc, i32 a, i32 b)
    {
        const __m256i even_a = _mm256_srai_epi16(_mm256_slli_epi16(a.v, 8), 8), odd_a = _mm256_srai_epi16(a.v, 8);
        const __m256i even_b = _mm256_srai_epi16(_mm256_slli_epi16(b.v, 8), 8), odd_b = _mm256_srai_epi16(b.v, 8);
        return in_order(acc + i32{_mm256_madd_epi16(even_a, even_b)} + i32{_mm256_madd_epi16(odd_a, odd_b)});
    }

    static constexpr bool has_short_sums = true;
    static SEQMIX_INLINE i32 dot_short(i32 acc, i32 codes, i32 b)
    {
        return in_order({_mm256_add_epi16(acc.v, _mm256_maddubs_epi16(codes.v, b.v))});
    }
    static SEQMIX_INLINE i32 sum_short(i32 acc) { return {_mm256_madd_epi16(acc.v, _mm256_set1_epi16(1))}; }

    using byte_table = i32;
    static SEQMIX_INLINE byte_table table_of(const std::uint8_t* entries)
    {
        return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(entries)))};
    }
    static SEQMIX_INLINE byte_table tables_of(const std::uint8_t* entries)
    {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(entries))};
    }
    static SEQMIX_INLINE i32 lookup(byte_table table, i32 codes) { return {_mm256_shuffle_epi8(table.v, codes.v)}; }

    static SEQMIX_INLINE i32 load_turned(const std::uint8_t* block)
    {
        const auto row = [&](int i) SEQMIX_INLINE_LAMBDA { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 16 * i)); };
        const __m128i first = _mm_unpacklo_epi8(row(0), row(1)), second = _mm_unpacklo_epi8(row(2), row(3));
        return {_mm256_set_m128i(_mm_unpackhi_epi16(first, second), _mm_unpacklo_epi16(first, second))};
    }
    static SEQMIX_INLINE void turn_block(const std::uint8_t* block, i32 (&parts)[2])
    {
        const __m256i squares = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        const __m256i pairs = _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7);
        __m256i half[2];
        unroll<2>([&](auto i) SEQMIX_INLINE_LAMBDA {
            const __m256i rows = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 32 * i));
            half[i] = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(rows, squares), pairs);
        });
        parts[0].v = _mm256_unpacklo_epi64(half[0], half[1]);
        parts[1].v = _mm256_unpackhi_epi64(half[0], half[1]);
    }

    /// Pairs of bytes as they are, wrapping, and their upper ones: the lower ones' sum is the difference.
    struct byte_sums {
        __m256i pairs, upper;
    };
    static SEQMIX_INLINE byte_sums no_bytes() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static SEQMIX_INLINE byte_sums add_bytes(byte_sums sums, i32 bytes)
    {
        return {_mm256_add_epi16(sums.pairs, bytes.v), _mm256_add_epi16(sums.upper, _mm256_srli_epi16(bytes.v, 8))};
    }
    static SEQMIX_INLINE void store_sums(const byte_sums& sums, std::int32_t* to)
    {
        const auto add_halves = [](__m256i x) SEQMIX_INLINE_LAMBDA {
            return _mm_add_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        };
        const __m128i lower = add_halves(_mm256_sub_epi16(sums.pairs, _mm256_slli_epi16(sums.upper, 8))), upper = add_halves(sums.upper);
        i32{_mm256_cvtepu16_epi32(_mm_unpacklo_epi16(lower, upper))}.store(to);
        i32{_mm256_cvtepu16_epi32(_mm_unpackhi_epi16(lower, upper))}.store(to + 8);
    }
};

#if SEQMIX_HAS_AVX2_VNNI
template <>
struct backend<arch::avx2_vnni> : backend<arch::avx2> {
    static constexpr int left_int8_offset = 128;
    static constexpr bool has_short_sums = false;

    /// Assembly for GCC: see avx512_vnni. Where no encoding is named, assemblers take that of AVX-512.
    static SEQMIX_INLINE i32 dot4(i32 acc, i32 a, i32 b)
    {
#if defined(__GNUC__) && !defined(__clang__)
#if SEQMIX_TAG_AVXVNNI
        __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc.v) : "x"(a.v), "x"(b.v));
#else
        __asm__("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(a.v), "v"(b.v));
#endif
        return acc;
#else
        return {_mm256_dpbusd_epi32(acc.v, a.v, b.v)};
#endif
    }
};
#endif

} // namespace simd
SEQMIX_NAMESPACE_END

#endif
