// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/blocking.hpp>

#include <cstring>
#include <type_traits>

// Moving rows of user memory into tiles and back: transposing, widening, interleaving. User memory may have any alignment
// and stride; unit stride is the fast path. A tile is dense, in scratch, and its rows are whole registers.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// How many elements share a 32-bit word of an operand.
template <class Element>
inline constexpr int word_group = static_cast<int>(4 / sizeof(Element));

/// Up to one register's elements from a strided row, widened to float; lanes at and beyond `count` are zero.
template <class Arch, class T>
SEQMIX_INLINE simd::f32<Arch> load_strided(const T* from, index stride, index count)
{
    using f32 = simd::f32<Arch>;
    if (stride == 1) { return count >= f32::lanes ? f32::load(from) : f32::load(from, count); }
    float gathered[f32::lanes] = {};
    for (index i = 0; i < count && i < f32::lanes; ++i) { gathered[i] = static_cast<float>(from[i * stride]); }
    return f32::load(gathered);
}

/// And back, rounded to T: the first `count` lanes, as far as there are so many.
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

namespace detail {

/// One register of 32-bit words from a row of narrow elements, each word a group of neighbours, lower first; what is
/// missing of the last word, and words beyond, are zero.
template <class Arch, class Element>
SEQMIX_INLINE simd::i32<Arch> load_words(const Element* from, index stride, index count)
{
    using i32 = simd::i32<Arch>;
    constexpr index most = i32::lanes * word_group<Element>;
    std::int32_t words[i32::lanes] = {};
    const index whole = count < most ? (count > 0 ? count : 0) : most;
    if (stride == 1) {
        if (whole == most) {
            std::memcpy(words, from, sizeof words); // of constant size: one load
        } else {
            std::memcpy(words, from, static_cast<std::size_t>(whole) * sizeof(Element));
        }
    } else {
        Element gathered[most] = {};
        for (index i = 0; i < whole; ++i) { gathered[i] = from[i * stride]; }
        std::memcpy(words, gathered, sizeof words);
    }
    return i32::load(words);
}

/// Elements of a row as lanes that hold one each, zero-extended.
template <class Arch>
SEQMIX_INLINE simd::i32<Arch> load_bits(const bf16* from)
{
    return simd::i32<Arch>::load(&from->bits);
}
template <class Arch>
SEQMIX_INLINE simd::i32<Arch> load_bits(const std::int8_t* from)
{
    return simd::i32<Arch>::load(reinterpret_cast<const std::uint8_t*>(from));
}
SEQMIX_INLINE std::uint32_t bits_of(bf16 x) { return x.bits; }
SEQMIX_INLINE std::uint32_t bits_of(std::int8_t x) { return static_cast<std::uint8_t>(x); }

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
            square[i] = row[i] == nullptr ? f32::zero() : load_strided<Arch>(row[i] + s * stride, stride, count - s);
        });
        transpose(square);
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            if (s + i < count) { square[i].store(tile + (s + i) * tile_stride); }
        });
    }
}

/// The same in words: tile(s, lane) holds the s-th group of row[lane]; `count` counts elements.
template <class Arch, class Element>
    requires(word_group<Element> > 1)
SEQMIX_NOINLINE void load_columns(const Element* const (&row)[simd::lanes<Arch>], index stride, index count,
                                  std::int32_t* tile, index tile_stride)
{
    using i32 = simd::i32<Arch>;
    using f32 = simd::f32<Arch>;
    constexpr int lanes = i32::lanes, group = word_group<Element>;
    const index words = (count + group - 1) / group;
    for (index s = 0; s < words; s += lanes) {
        f32 square[lanes];
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
            square[i] = as_float(row[i] == nullptr ? i32::zero()
                                                   : detail::load_words<Arch>(row[i] + group * s * stride, stride, count - group * s));
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
            if (row[i] != nullptr) { store_strided<Arch>(square[i], row[i] + s * stride, stride, count - s); }
        });
    }
}

/// One row, widened to float and made dense.
template <class Arch, class T>
SEQMIX_NOINLINE void copy_row(const T* from, index stride, index count, float* to)
{
    constexpr int lanes = simd::lanes<Arch>;
    for (index s = 0; s < count; s += lanes) {
        const auto x = load_strided<Arch>(from + s * stride, stride, count - s);
        count - s >= lanes ? x.store(to + s) : x.store(to + s, count - s);
    }
}

/// One row as words of neighbours; `count` counts elements.
template <class Arch, class Element>
    requires(word_group<Element> > 1)
SEQMIX_NOINLINE void copy_row(const Element* from, index stride, index count, std::int32_t* to)
{
    constexpr int lanes = simd::lanes<Arch>, group = word_group<Element>;
    const index words = (count + group - 1) / group;
    for (index s = 0; s < words; s += lanes) {
        detail::load_words<Arch>(from + group * s * stride, stride, count - group * s).store(to + s, words - s);
    }
}

/// A group of rows joined element by element: word to[s] holds element s of each row, the first row lowest. Rows at or
/// beyond `live` count as zero.
template <class Arch, class Element>
    requires(word_group<Element> > 1)
SEQMIX_NOINLINE void join_rows(const Element* rows, index row_stride, index live, index stride, index count, std::int32_t* to)
{
    using i32 = simd::i32<Arch>;
    constexpr int lanes = i32::lanes, group = word_group<Element>, bits = 32 / group;
    index s = 0;
    if (stride == 1 && live >= group) {
        for (; s + lanes <= count; s += lanes) {
            i32 word = detail::load_bits<Arch>(rows + s);
            simd::unroll<group - 1>([&](auto r) SEQMIX_INLINE_LAMBDA {
                constexpr int row = r + 1;
                word = word | shift_left<row * bits>(detail::load_bits<Arch>(rows + row * row_stride + s));
            });
            word.store(to + s);
        }
    }
    for (; s < count; ++s) {
        std::uint32_t word = 0;
        for (index row = 0; row < group && row < live; ++row) {
            word |= detail::bits_of(rows[row * row_stride + s * stride]) << (row * bits);
        }
        to[s] = static_cast<std::int32_t>(word);
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
            sum = fma(load_strided<Arch>(row + c * column_stride, column_stride, columns - c), f32::zero(), sum);
        }
    }
    return all(sum == sum);
}

} // namespace tile
SEQMIX_NAMESPACE_END
