// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/lines_ahead.hpp>
#include <seqmix/tile/operand_tiles.hpp>
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

/// Rows of a state that go through a chunk together: 12 kB of a panel, besides as much again of the operands.
template <class Arch>
inline constexpr index pass_rows = 8 * small_blocking<Arch>::rows;

/// One that reads the state in a chunk: out = from_start (Q S) + M V. Q [tokens, states], M [tokens, tokens · of_token].
struct chunk_reader {
    left_operand Q, M;
    float* out; ///< [tokens] rows of panel_width floats
};

/// What is written in a chunk: `V` as the readers see it, with of_token rows for each token, `to_end` as the state does, under the
/// keys of `turned_K` [states, tokens · of_token].
template <class Word>
struct chunk_writer {
    right_panel<Word> V;
    index of_token;
    left_operand turned_K;
    right_panel<Word> to_end;
};

/// How often pass_chunk asks for lines ahead.
template <class Arch>
constexpr index asks_of_pass(index states, index tokens, index readers)
{
    constexpr index rows = small_blocking<Arch>::rows, block = pass_rows<Arch>;
    return (states + block - 1) / block * readers * ((tokens + rows - 1) / rows) + (states + rows - 1) / rows;
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

template <class Operands, int Vectors, class FromStart, class Decay>
SEQMIX_NOINLINE void pass_chunk(const chunk_reader* readers, index count, FromStart from_start, const chunk_writer<typename Operands::word>& written,
                                index tokens, Decay decay, index states, float* S, typename Operands::word* words, lines_ahead* ahead)
{
    using product = typename Operands::product;
    using arch = typename product::arch;
    constexpr index rows = small_blocking<arch>::rows, width = panel_width<arch>, block = pass_rows<arch>;
    static_assert(block % product::group == 0);
    for (index first = 0; first == 0 || first < states; first += block) { // once where there are no states: outputs have values still
        const index deep = smaller(block, states - first);
        const bool last = first + deep == states;
        const right_panel<typename product::word> before = {
            Operands::joined(S + first * width, deep, width, Vectors * simd::lanes<arch>, words), width};
        for (index r = 0; r < count; ++r) {
            const chunk_reader& reader = readers[r];
            const left_operand Q = {reader.Q.base + first / product::group * reader.Q.depth_stride, reader.Q.row_stride, reader.Q.depth_stride};
            for (index row = 0; row < tokens; row += rows) {
                const index live = smaller(rows, tokens - row);
                float* const out = reader.out + row * width;
                register_tile<product, Vectors> sum;
                if (first > 0) { sum = register_tile<product, Vectors>(out, width, live); }
                sum.add_product(Q, row, live, before, depth_words<product>(deep));
                if (last) {
                    decay_rows(sum, from_start, row);
                    sum.add_product(reader.M, row, live, written.V, depth_words<product>((row + live) * written.of_token));
                }
                sum.store(out, width, live);
                if (ahead != nullptr) { ahead->ask(); }
            }
        }
        for (index row = first; row < first + deep; row += rows) {
            const index live = smaller(rows, states - row);
            register_tile<product, Vectors> sum(S + row * width, width, live);
            decay_rows(sum, decay, row);
            sum.add_product(written.turned_K, row, live, written.to_end, depth_words<product>(tokens * written.of_token));
            sum.store(S + row * width, width, live);
            if (ahead != nullptr) { ahead->ask(); }
        }
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

/// A chunk's outputs, and what it leaves of the state, for one panel of `columns` columns:
///
///     out = from_start (Q S) + M V for each of `count` readers, S being the state before the chunk;  then S = decay S + Kᵀ to_end
///
/// S has `states` rows of panel_width floats, as every out. `from_start` and `decay` are a float, or a const float* to a factor for each
/// token and for each of the states, of which whole tiles of rows are read. M is lower triangular, so a row's depth ends with the
/// tile of its own token: M must be 0 that far. `words`: room for pass_rows rows of S, where products are of words.
template <class Operands, class FromStart, class Decay>
void pass_chunk(const chunk_reader* readers, index count, FromStart from_start, const chunk_writer<typename Operands::word>& written,
                index tokens, Decay decay, index states, index columns, float* S, typename Operands::word* words, lines_ahead* ahead = nullptr)
{
    detail::with_columns<typename Operands::product::arch>(columns, [&](auto vectors) SEQMIX_INLINE_LAMBDA {
        detail::pass_chunk<Operands, vectors>(readers, count, from_start, written, tokens, decay, states, S, words, ahead);
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
