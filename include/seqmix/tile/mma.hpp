// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/blocking.hpp>

#include <cstddef>
#include <cstring>
#include <type_traits>

// The micro-kernel, and the verb over it.
//
//              one panel of the right operand: `Vectors` registers wide, a depth step contiguous
//            +-----------------------------+
//     depth  |                             |     per step: Vectors loads, Rows broadcasts, Rows x Vectors multiply-adds
//            +-----------------------------+
//   +-----+  +-----------------------------+
//   | left|  |  accumulators: Rows x Vectors registers for the whole depth
//   +-----+  +-----------------------------+
//
// The left operand is read by broadcasts, element by element, so it needs no packing: a row-major matrix serves in either
// orientation (rows far apart and depth contiguous, or the reverse). Elements narrower than a float come in groups along
// the depth that fill a 32-bit word; a step is a word.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// The element that a backend multiplies for a storage type: bf16 where it has the dot product, else float.
template <class Arch, class T>
using compute_element = std::conditional_t<std::is_same_v<T, bf16> && simd::backend<Arch>::has_bf16_dot, bf16, float>;

/// How elements of one type are multiplied: the word that a lane holds, how many depth elements a word groups, and the
/// multiply-add of the backend.
template <class Arch, class Element>
struct product;

template <class Arch>
struct product<Arch, float> {
    using arch = Arch;
    using word = float;
    using operand = simd::f32<Arch>;
    using accumulator = simd::f32<Arch>;
    static constexpr int group = 1;
    static SEQMIX_INLINE accumulator multiply_add(operand a, operand b, accumulator c) { return fma(a, b, c); }
};

template <class Arch>
struct product<Arch, bf16> {
    using arch = Arch;
    using word = std::int32_t;
    using operand = simd::i32<Arch>;
    using accumulator = simd::f32<Arch>;
    static constexpr int group = 2;
    static SEQMIX_INLINE accumulator multiply_add(operand a, operand b, accumulator c)
    {
        return simd::backend<Arch>::dot2(c, a, b);
    }
};

template <class Arch>
struct product<Arch, std::int8_t> {
    using arch = Arch;
    using word = std::int32_t;
    using operand = simd::i32<Arch>;
    using accumulator = simd::i32<Arch>;
    static constexpr int group = 4;
    static SEQMIX_INLINE accumulator multiply_add(operand a, operand b, accumulator c)
    {
        return simd::backend<Arch>::dot4(c, a, b);
    }
};

/// Words along the depth.
template <class Product>
constexpr index depth_words(index depth)
{
    return (depth + Product::group - 1) / Product::group;
}

/// A left operand in memory: the word of (row, step) stands at base + row · row_stride + step · depth_stride. Strides are
/// in bytes, and words need no alignment: rows of bf16 in user memory are read as pairs where they stand.
struct left_operand {
    const std::byte* base;
    index row_stride;
    index depth_stride;

    template <class T>
    static SEQMIX_INLINE left_operand of(const T* base, index row_stride, index depth_stride)
    {
        return {reinterpret_cast<const std::byte*>(base), row_stride * static_cast<index>(sizeof(T)),
                depth_stride * static_cast<index>(sizeof(T))};
    }
};

/// A panel of the right operand: step s holds its registers at base + s · stride.
template <class Word>
struct right_panel {
    const Word* base;
    index stride;
};

/// accumulators(m, v) += left(row + m, ·) · right(·, v) over `depth` steps. Rows at or beyond `live` repeat the last live
/// row, so that nothing outside the operand is read; their accumulators are to be dropped.
template <class Product, int Rows, int Vectors>
SEQMIX_INLINE void micro_kernel(typename Product::accumulator (&accumulators)[Rows][Vectors],
                                const left_operand& left, index row, index live,
                                const right_panel<typename Product::word>& right, index depth)
{
    using operand = typename Product::operand;
    constexpr int lanes = operand::lanes;
    index offset[Rows];
    simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA { offset[m] = (m < live ? m : live - 1) * left.row_stride; });

    const auto* a = left.base + row * left.row_stride;
    const auto* b = right.base;
    for (index step = 0; step < depth; ++step) {
        operand right_lanes[Vectors];
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { right_lanes[v] = operand::load(b + v * lanes); });
        simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
            typename Product::word word;
            std::memcpy(&word, a + offset[m], sizeof word);
            const operand left_lane = operand::broadcast(word);
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                accumulators[m][v] = Product::multiply_add(left_lane, right_lanes[v], accumulators[m][v]);
            });
        });
        a += left.depth_stride;
        b += right.stride;
    }
}

/// left · right for one panel: `rows` rows, `depth` steps. end(row, v, sum) takes each register of sums while it is one; it
/// is not called for rows that do not exist.
template <class Product, int Vectors, class End>
SEQMIX_INLINE void mma(index rows, index depth, const left_operand& left, const right_panel<typename Product::word>& right,
                       const End& end)
{
    using accumulator = typename Product::accumulator;
    constexpr int block = blocking<typename Product::arch>::rows;
    for (index row = 0; row < rows; row += block) {
        const index live = rows - row < block ? rows - row : block;
        accumulator sum[block][Vectors];
        simd::unroll<block * Vectors>([&](auto i) SEQMIX_INLINE_LAMBDA { sum[i / Vectors][i % Vectors] = accumulator::zero(); });
        micro_kernel<Product>(sum, left, row, live, right, depth);
        simd::unroll<block>([&](auto m) SEQMIX_INLINE_LAMBDA {
            if (m < live) {
                simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { end(row + m, v, sum[m][v]); });
            }
        });
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
