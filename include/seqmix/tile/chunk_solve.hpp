// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/chunk_products.hpp>

// What the delta rules write in a chunk: rows that depend on the rows before them, found by forward substitution. (Yang et al. 2024,
// "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", section 3.2: the WY representation with the state
// at hand, which makes one solve of the two.)

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// A triangular matrix of floats: element (i, j) at base + i · row_stride + j · column_stride. Only what is strictly below the diagonal
/// is used; whole register tiles of rows and columns are read.
struct lower_operand {
    const float* base;
    index row_stride, column_stride;
};

/// Depth of products after which lines are asked for ahead, and how often a solve does so.
inline constexpr index ahead_words = 32;
template <class Product>
constexpr index asks_of_solve(index states, index tokens)
{
    constexpr index rows = small_blocking<typename Product::arch>::rows;
    return (tokens + rows - 1) / rows * ((depth_words<Product>(states) + ahead_words - 1) / ahead_words);
}

namespace detail {

/// register_tile::add_product, in pieces between which lines are asked for.
template <class Product, int Vectors>
SEQMIX_INLINE void add_product_asking(register_tile<Product, Vectors>& sum, const left_operand& left, index row, index live,
                                      const right_panel<typename Product::word>& right, index depth, lines_ahead* ahead)
{
    for (index d = 0; d < depth; d += ahead_words) {
        sum.add_product({left.base + d * left.depth_stride, left.row_stride, left.depth_stride}, row, live,
                        {right.base + d * right.stride, right.stride}, smaller(ahead_words, depth - d));
        if (ahead != nullptr) { ahead->ask(); }
    }
}

template <class Product, int Vectors, class Start>
SEQMIX_NOINLINE void chunk_solve(const left_operand& K, const right_panel<typename Product::word>& S, index states, const Start& start,
                                 const lower_operand& lower, index tokens, float* X, index x_stride, lines_ahead* ahead)
{
    using arch = typename Product::arch;
    using floats = product<arch, float>;
    constexpr index rows = small_blocking<arch>::rows;
    for (index row = 0; row < tokens; row += rows) {
        const index live = smaller(rows, tokens - row);
        register_tile<Product, Vectors> sum;
        add_product_asking(sum, K, row, live, S, depth_words<Product>(states), ahead);
        start(sum, row, live);
        // The rows found so far, in float whatever the other products are in: errors here would go on from row to row.
        sum.template add_product<floats>(left_operand::of(lower.base, lower.row_stride, lower.column_stride), row, live, {X, x_stride}, row);
        sum.substitute(lower.base + row * (lower.row_stride + lower.column_stride), lower.row_stride, lower.column_stride);
        sum.store(X + row * x_stride, x_stride, live);
    }
}

} // namespace detail

/// (1 - lower) X = K S + start for one panel of `columns` columns: X [tokens] rows of panel_width floats, x_stride apart. K [tokens,
/// states] is a left operand, S a right one. start(tile, row, live) adds to, or changes, the rows of K S in a register_tile.
template <class Product, class Start>
void chunk_solve(const left_operand& K, const right_panel<typename Product::word>& S, index states, const Start& start, const lower_operand& lower,
                 index tokens, index columns, float* X, index x_stride, lines_ahead* ahead = nullptr)
{
    detail::with_columns<typename Product::arch>(columns, [&](auto vectors) SEQMIX_INLINE_LAMBDA {
        detail::chunk_solve<Product, vectors>(K, S, states, start, lower, tokens, X, x_stride, ahead);
    });
}

} // namespace tile
SEQMIX_NAMESPACE_END
