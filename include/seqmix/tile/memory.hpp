// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/blocking.hpp>

#include <cstring>
#include <type_traits>

// Moving rows of user memory into tiles and back: transposing, widening, interleaving. User memory may have any alignment
// and stride; unit stride is the fast path. A tile is dense, in scratch, and its rows are whole registers.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

namespace detail {

/// Up to one register's elements from a strided row, widened; the rest is zero.
template <class Arch, class T>
SEQMIX_INLINE simd::f32<Arch> load_strided(const T* from, index stride, index count)
{
    using f32 = simd::f32<Arch>;
    if (stride == 1) { return count >= f32::lanes ? f32::load(from) : f32::load(from, count); }
    float gathered[f32::lanes] = {};
    for (index i = 0; i < count && i < f32::lanes; ++i) { gathered[i] = static_cast<float>(from[i * stride]); }
    return f32::load(gathered);
}

template <class Arch, class T>
SEQMIX_INLINE void store_strided(simd::f32<Arch> x, T* to, index stride, index count)
{
    using f32 = simd::f32<Arch>;
    if (stride == 1) {
        count >= f32::lanes ? x.store(to) : x.store(to, count);
        return;
    }
    T scattered[f32::lanes];
    x.store(scattered);
    for (index i = 0; i < count && i < f32::lanes; ++i) { to[i * stride] = scattered[i]; }
}

/// The 32-bit words of a row of bf16, two elements each, lower first; an odd last element is joined by zero.
template <class Arch>
SEQMIX_INLINE simd::i32<Arch> load_pairs(const bf16* from, index stride, index count)
{
    using i32 = simd::i32<Arch>;
    std::int32_t words[i32::lanes] = {};
    if (stride == 1) {
        const index whole = count >= 2 * i32::lanes ? 2 * i32::lanes : count;
        std::memcpy(words, from, static_cast<std::size_t>(whole) * sizeof(bf16));
    } else {
        bf16 gathered[2 * i32::lanes] = {};
        for (index i = 0; i < count && i < 2 * i32::lanes; ++i) { gathered[i] = from[i * stride]; }
        std::memcpy(words, gathered, sizeof words);
    }
    return i32::load(words);
}

} // namespace detail

/// Rows to columns: tile(s, lane) = row[lane][s · stride] for s < count, widened to float; a null row gives zeros. One
/// register's width of rows. Costs two moves and about four shuffles a register of elements.
template <class Arch, class T>
SEQMIX_NOINLINE void load_columns(const T* const (&row)[simd::lanes<Arch>], index stride, index count, float* tile, index tile_stride)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    for (index s = 0; s < count; s += lanes) {
        f32 square[lanes];
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            square[i] = row[i] == nullptr ? f32::zero() : detail::load_strided<Arch>(row[i] + s * stride, stride, count - s);
        });
        transpose(square);
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            if (s + i < count) { square[i].store(tile + (s + i) * tile_stride); }
        });
    }
}

/// The same in words of two bf16: tile(s, lane) holds elements 2s and 2s + 1 of row[lane].
template <class Arch>
SEQMIX_NOINLINE void load_columns(const bf16* const (&row)[simd::lanes<Arch>], index stride, index count, std::int32_t* tile,
                  index tile_stride)
{
    using i32 = simd::i32<Arch>;
    using f32 = simd::f32<Arch>;
    constexpr int lanes = i32::lanes;
    const index words = (count + 1) / 2;
    for (index s = 0; s < words; s += lanes) {
        f32 square[lanes];
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            square[i] = as_float(row[i] == nullptr
                                     ? i32::zero()
                                     : detail::load_pairs<Arch>(row[i] + 2 * s * stride, stride, count - 2 * s));
        });
        transpose(square);
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            if (s + i < words) { as_int(square[i]).store(tile + (s + i) * tile_stride); }
        });
    }
}

/// Columns to rows: row[lane][s · stride] = tile(s, lane) · scale(lane), rounded to T; a null row is left out.
template <class Arch, class T>
SEQMIX_NOINLINE void store_columns(const float* tile, index tile_stride, index count, simd::f32<Arch> scale,
                   T* const (&row)[simd::lanes<Arch>], index stride)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    for (index s = 0; s < count; s += lanes) {
        f32 square[lanes];
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            square[i] = s + i < count ? f32::load(tile + (s + i) * tile_stride) * scale : f32::zero();
        });
        transpose(square);
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            if (row[i] != nullptr) { detail::store_strided<Arch>(square[i], row[i] + s * stride, stride, count - s); }
        });
    }
}

/// One row, widened to float and made dense.
template <class Arch, class T>
SEQMIX_NOINLINE void copy_row(const T* from, index stride, index count, float* to)
{
    constexpr int lanes = simd::lanes<Arch>;
    for (index s = 0; s < count; s += lanes) {
        const auto x = detail::load_strided<Arch>(from + s * stride, stride, count - s);
        count - s >= lanes ? x.store(to + s) : x.store(to + s, count - s);
    }
}

/// One row of bf16 as words of two neighbours.
template <class Arch>
SEQMIX_NOINLINE void copy_row(const bf16* from, index stride, index count, std::int32_t* to)
{
    constexpr int lanes = simd::lanes<Arch>;
    const index words = (count + 1) / 2;
    for (index s = 0; s < words; s += lanes) {
        detail::load_pairs<Arch>(from + 2 * s * stride, stride, count - 2 * s).store(to + s, words - s);
    }
}

/// Two rows of bf16 joined element by element: to[s] holds row0's in the lower and row1's in the upper half. A null row1
/// gives zeros.
template <class Arch>
SEQMIX_NOINLINE void join_rows(const bf16* row0, const bf16* row1, index stride, index count, std::int32_t* to)
{
    using i32 = simd::i32<Arch>;
    constexpr int lanes = i32::lanes;
    index s = 0;
    if (stride == 1 && row1 != nullptr) {
        for (; s + lanes <= count; s += lanes) {
            (i32::load(&row0[s].bits) | shift_left<16>(i32::load(&row1[s].bits))).store(to + s);
        }
    }
    for (; s < count; ++s) {
        const std::uint32_t upper = row1 == nullptr ? 0u : row1[s * stride].bits;
        to[s] = static_cast<std::int32_t>(row0[s * stride].bits | upper << 16);
    }
}

/// Whether every element of a strided block is finite. One multiply-add an element: 0 · x is NaN for what is not.
template <class Arch, class T>
SEQMIX_NOINLINE bool all_finite(const T* base, index rows, index row_stride, index columns, index column_stride)
{
    using f32 = simd::f32<Arch>;
    f32 sum = f32::zero();
    for (index r = 0; r < rows; ++r) {
        const T* row = base + r * row_stride;
        for (index c = 0; c < columns; c += f32::lanes) {
            sum = fma(detail::load_strided<Arch>(row + c * column_stride, column_stride, columns - c), f32::zero(), sum);
        }
    }
    return all(sum == sum);
}

} // namespace tile
SEQMIX_NAMESPACE_END
