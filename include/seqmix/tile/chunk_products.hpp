// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/lines_ahead.hpp>
#include <seqmix/tile/register_tile.hpp>

// The products of a chunk of tokens, for recurrences S_t = decay_t S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t that are computed a chunk at
// a time (Yang et al. 2024, "Gated Linear Attention Transformers", section 4; Dao & Gu 2024, "Transformers are SSMs", section 6):
//
//     scores  A = Q Kᵀ, of which only j <= i is wanted
//     outputs O = diag(decay from the chunk's start) (Q S) + M V,  M = A masked and decayed, see decay.hpp
//     state   S = decay of the chunk S + Kᵀ V,  V weighted with its decay to the chunk's end (or K)
//
// K and Q have `states` columns, V and O stand in panels of at most small_blocking::columns columns, dense and as wide as that, so
// that S, `states` rows of each panel, is read and written in whole register tiles. (In Mamba-2's names Q is C, K is B, V is x.)

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Floats from row to row of a panel.
template <class Arch>
inline constexpr index panel_width = small_blocking<Arch>::columns;

/// Depth of products after which lines are asked for ahead.
inline constexpr index ahead_words = 32;

/// How often the products of a chunk ask for lines ahead.
template <class Product>
constexpr index asks_of_outputs(index states, index tokens)
{
    constexpr index rows = small_blocking<typename Product::arch>::rows;
    return (tokens + rows - 1) / rows * ((depth_words<Product>(states) + ahead_words - 1) / ahead_words);
}
template <class Product>
constexpr index asks_of_state(index states)
{
    constexpr index rows = small_blocking<typename Product::arch>::rows;
    return (states + rows - 1) / rows;
}

namespace detail {

template <class Arch, class Body>
SEQMIX_INLINE void with_columns(index columns, const Body& body)
{
    with_vectors<Arch>((columns + simd::lanes<Arch> - 1) / simd::lanes<Arch>, body);
}

// A decay of rows is one number for all of them, or a pointer to one for each, of which whole register tiles are read.
template <class Tile>
SEQMIX_INLINE void decay_rows(Tile& tile, float factor, index)
{
    tile.scale(factor);
}
template <class Tile>
SEQMIX_INLINE void decay_rows(Tile& tile, const float* factor, index row)
{
    tile.scale_rows(factor + row);
}

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

template <class Product, int Vectors, class Decay>
SEQMIX_NOINLINE void chunk_outputs(const left_operand& Q, const right_panel<typename Product::word>& S, index states, Decay from_start,
                                   const left_operand& M, const right_panel<typename Product::word>& V, index tokens, index of_token,
                                   float* out, lines_ahead* ahead)
{
    constexpr index rows = small_blocking<typename Product::arch>::rows, width = panel_width<typename Product::arch>;
    for (index row = 0; row < tokens; row += rows) {
        const index live = smaller(rows, tokens - row);
        register_tile<Product, Vectors> sum;
        add_product_asking(sum, Q, row, live, S, depth_words<Product>(states), ahead);
        decay_rows(sum, from_start, row);
        sum.add_product(M, row, live, V, depth_words<Product>((row + live) * of_token));
        sum.store(out + row * width, width, live);
    }
}

template <class Product, int Vectors, class Decay>
SEQMIX_NOINLINE void chunk_state(const left_operand& turned_K, const right_panel<typename Product::word>& V, index tokens, Decay decay,
                                 index states, float* S, lines_ahead* ahead)
{
    constexpr index rows = small_blocking<typename Product::arch>::rows, width = panel_width<typename Product::arch>;
    for (index row = 0; row < states; row += rows) {
        const index live = smaller(rows, states - row);
        register_tile<Product, Vectors> sum(S + row * width, width, live);
        decay_rows(sum, decay, row);
        sum.add_product(turned_K, row, live, V, depth_words<Product>(tokens));
        sum.store(S + row * width, width, live);
        if (ahead != nullptr) { ahead->ask(); }
    }
}

/// The columns of `Vectors` registers from `column` on.
template <class Product, int Vectors>
SEQMIX_NOINLINE void chunk_scores(const left_operand& Q, const right_panel<typename Product::word>& turned_K, index states,
                                  index tokens, index column, float* scores)
{
    constexpr index rows = small_blocking<typename Product::arch>::rows;
    for (index row = column / rows * rows; row < tokens; row += rows) {
        const index live = smaller(rows, tokens - row);
        register_tile<Product, Vectors> sum;
        sum.add_product(Q, row, live, {turned_K.base + column, turned_K.stride}, depth_words<Product>(states));
        sum.store(scores + row * turned_K.stride + column, turned_K.stride, live);
    }
}

} // namespace detail

/// O = decay (Q S) + M V for one panel of `columns` columns. Q [tokens, states] and M [tokens, tokens] are left operands, S and V
/// right ones. `from_start` is a float, or a const float* to a factor for each token, of which whole tiles of rows are read. M is
/// lower triangular, so a row's depth ends with the tile of its own token: M must be 0 that far. `out` is dense, panel_width floats
/// a row. V has of_token rows for each token, and M as many columns.
template <class Product, class Decay>
void chunk_outputs(const left_operand& Q, const right_panel<typename Product::word>& S, index states, Decay from_start,
                   const left_operand& M, const right_panel<typename Product::word>& V, index tokens, index columns, float* out,
                   lines_ahead* ahead = nullptr, index of_token = 1)
{
    detail::with_columns<typename Product::arch>(columns, [&](auto vectors) SEQMIX_INLINE_LAMBDA {
        detail::chunk_outputs<Product, vectors>(Q, S, states, from_start, M, V, tokens, of_token, out, ahead);
    });
}

/// S = decay S + Kᵀ V for one panel of `columns` columns, S [states] rows of panel_width floats. `turned_K` is the left operand
/// Kᵀ [states, tokens], V the right one. `decay` is a float, or a const float* to a factor for each of the states, of which whole
/// tiles of rows are read.
template <class Product, class Decay>
void chunk_state(const left_operand& turned_K, const right_panel<typename Product::word>& V, index tokens, Decay decay, index states,
                 index columns, float* S, lines_ahead* ahead = nullptr)
{
    detail::with_columns<typename Product::arch>(columns, [&](auto vectors) SEQMIX_INLINE_LAMBDA {
        detail::chunk_state<Product, vectors>(turned_K, V, tokens, decay, states, S, ahead);
    });
}

/// The lower triangle of A = Q Kᵀ, and whatever else falls into its tiles; the rest is left as it is. Q [tokens, states] is a left
/// operand; turned_K = Kᵀ [states, tokens] a right one, whose stride (whole registers) `scores` has too.
template <class Product>
void chunk_scores(const left_operand& Q, const right_panel<typename Product::word>& turned_K, index states, index tokens, float* scores)
{
    constexpr index width = panel_width<typename Product::arch>;
    for (index column = 0; column < tokens; column += width) {
        detail::with_columns<typename Product::arch>(smaller(width, tokens - column), [&](auto vectors) SEQMIX_INLINE_LAMBDA {
            detail::chunk_scores<Product, vectors>(Q, turned_K, states, tokens, column, scores);
        });
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
