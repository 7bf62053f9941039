// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/tile/pack.hpp>

// C = A B, or C += A B: the loops around the micro-kernel (Goto & van de Geijn 2008; Van Zee & van de Geijn 2015, BLIS).

SEQMIX_NAMESPACE_BEGIN
namespace tile {

namespace detail {

/// What the left operand's offset adds to every sum of a block, to be taken away again: offset · Σ b over the depth.
template <class Product>
void column_sums(const typename Product::word* panel, index words, std::int32_t (&sums)[blocking<typename Product::arch>::columns])
{
    using Arch = typename Product::arch;
    using i32 = simd::i32<Arch>;
    constexpr int width = blocking<Arch>::columns;
    const i32 one = i32::broadcast(0x01010101);
    for (int column = 0; column < width; column += i32::lanes) {
        i32 sum = i32::zero();
        for (index word = 0; word < words; ++word) {
            sum = simd::backend<Arch>::dot4(sum, one, i32::load(panel + word * width + column));
        }
        sum.store(sums + column);
    }
}

/// One panel of C: rows x the panel's live columns, += or =.
template <class Product, int Used, class Acc>
SEQMIX_NOINLINE void multiply_panel(const left_operand& a, index rows, const typename Product::word* panel, index words,
                                    const view<Acc, 2>& c, bool add_to_c)
{
    using Arch = typename Product::arch;
    using accumulator = typename Product::accumulator;
    constexpr int lanes = accumulator::lanes, width = blocking<Arch>::columns;
    constexpr int offset = simd::backend<Arch>::left_int8_offset;
    const index live = c.extent(1);
    accumulator excess[Used];
    simd::unroll<Used>([&](auto v) SEQMIX_INLINE_LAMBDA { excess[v] = accumulator::zero(); });
    if constexpr (Product::group == 4 && offset != 0) {
        std::int32_t sums[width];
        column_sums<Product>(panel, words, sums);
        simd::unroll<Used>([&](auto v) SEQMIX_INLINE_LAMBDA {
            excess[v] = accumulator::load(sums + v * lanes) * accumulator::broadcast(offset);
        });
    }
    mma<Product, Used>(rows, words, a, {panel, width}, [&](index row, int v, accumulator sum) SEQMIX_INLINE_LAMBDA {
        Acc* const to = &c(row, v * lanes);
        const index count = live - v * lanes;
        sum = sum - excess[v];
        if (add_to_c) { sum = sum + accumulator::load(to, count); }
        count >= lanes ? sum.store(to) : sum.store(to, count);
    });
}

} // namespace detail

/// One panel of a product: c [rows, columns] = a · panel, or += where `add_to_c`; the panel is `words` steps deep and stands as
/// pack_right leaves it. c has no more columns than a panel, and unit stride along them. For mixers that keep operands packed, or
/// compute them in this form.
template <class Product, class Acc>
SEQMIX_INLINE void multiply_panel(const left_operand& a, const typename Product::word* panel, index words, const view<Acc, 2>& c, bool add_to_c)
{
    constexpr index lanes = simd::lanes<typename Product::arch>;
    const index rows = c.extent(0), live = c.extent(1);
    if (live > 2 * lanes) {
        detail::multiply_panel<Product, 3>(a, rows, panel, words, c, add_to_c);
    } else if (live > lanes) {
        detail::multiply_panel<Product, 2>(a, rows, panel, words, c, add_to_c);
    } else {
        detail::multiply_panel<Product, 1>(a, rows, panel, words, c, add_to_c);
    }
}

namespace detail {

/// Both packed blocks, as large as the problem needs them.
template <class Product>
struct gemm_buffers {
    using blocks = gemm_blocking<typename Product::arch>;
    typename Product::word* right;
    typename Product::word* left;

    gemm_buffers(arena& a, index rows, index columns, index depth)
    {
        constexpr index width = blocking<typename Product::arch>::columns;
        const index words = depth_words<Product>(depth) < blocks::depth_words ? depth_words<Product>(depth) : blocks::depth_words;
        const index wide = columns < blocks::columns ? (columns + width - 1) / width * width : blocks::columns;
        right = a.take<typename Product::word>(words * wide);
        left = a.take<typename Product::word>(words * (rows < blocks::rows ? rows : blocks::rows));
    }
};

} // namespace detail

/// Bytes of scratch that gemm asks for.
template <class Arch, class Element>
index gemm_scratch(index rows, index columns, index depth)
{
    arena measure;
    static_cast<void>(detail::gemm_buffers<product<Arch, Element>>(measure, rows, columns, depth));
    return static_cast<index>(measure.used());
}

/// c [M, N] = a [M, K] · b [K, N] (+ c where `accumulate`). Elements float, bf16 (c float) or int8 (c int32, exact, wrapping).
/// Any strides of a and b; c has unit stride along N. Zero sizes are legal. One thread; allocates nothing if `scratch` is
/// large enough already. Error for float: K u Σ|a b|, u = 2^-24; sums run in order along blocks
/// of the depth, which are added in order.
template <class Arch = arch::native, class A, class B, class Acc>
void gemm(const view<A, 2>& a_view, const view<B, 2>& b_view, const view<Acc, 2>& c, workspace& scratch,
          bool accumulate = false)
{
    using Element = std::remove_const_t<A>;
    static_assert(std::is_same_v<Element, std::remove_const_t<B>>, "seqmix: a and b have one type");
    using product = product<Arch, Element>;
    const view<const Element, 2> a = a_view, b = b_view;
    using word = typename product::word;
    using blocks = gemm_blocking<Arch>;
    constexpr int width = blocking<Arch>::columns;
    static_assert(std::is_same_v<Acc, std::conditional_t<product::group == 4, std::int32_t, float>>,
                  "seqmix: products of float and bf16 are float, those of int8 are int32");
    const index rows = a.extent(0), depth = a.extent(1), columns = b.extent(1);
    const checker check("tile::gemm");
    check.equal(b.extent(0), depth, "b's depth", "a's");
    check.equal(c.extent(0), rows, "c's rows", "a's");
    check.equal(c.extent(1), columns, "c's columns", "b's");
    check.require(columns < 2 || c.stride(1) == 1, "c's columns have stride ", c.stride(1), ", but must have ", 1);
    if (rows == 0 || columns == 0) { return; }
    if (depth == 0) {
        for (index row = 0; !accumulate && row < rows; ++row) {
            for (index column = 0; column < columns; ++column) { c(row, column) = Acc{}; }
        }
        return;
    }

    arena carve(scratch.reserve(static_cast<std::size_t>(gemm_scratch<Arch, Element>(rows, columns, depth))));
    const detail::gemm_buffers<product> packed_blocks(carve, rows, columns, depth);
    word* const right = packed_blocks.right;
    word* const left = packed_blocks.left;

    for (index column = 0; column < columns; column += blocks::columns) {
        const index n = columns - column < blocks::columns ? columns - column : blocks::columns;
        for (index from = 0; from < depth; from += blocks::depth_words * product::group) {
            const index k = depth - from < blocks::depth_words * product::group ? depth - from : blocks::depth_words * product::group;
            const index words = depth_words<product>(k);
            pack_right<product>(b.slice(0, from, from + k).slice(1, column, column + n), right);
            for (index row = 0; row < rows; row += blocks::rows) {
                const index m = rows - row < blocks::rows ? rows - row : blocks::rows;
                const auto block = a.slice(0, row, row + m).slice(1, from, from + k);
                left_operand operand = left_operand::of(block.data(), block.stride(0), block.stride(1) * product::group);
                if (!serves_in_place<product>(block)) {
                    pack_left<product>(block, left);
                    operand = left_operand::of(left, words, 1);
                }
                for (index panel = 0; panel < n; panel += width) {
                    const index live = n - panel < width ? n - panel : width;
                    const auto part = c.slice(0, row, row + m).slice(1, column + panel, column + panel + live);
                    multiply_panel<product>(operand, right + panel * words, words, part, accumulate || from > 0);
                }
            }
        }
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
