// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/linear/chunk_gates.hpp>
#include <seqmix/linear/recurrent.hpp>
#include <seqmix/tile/chunk_solve.hpp>
#include <seqmix/tile/operand_tiles.hpp>
#include <seqmix/tile/state_panels.hpp>

// Sizes and memory of the chunkwise form.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// Sizes of a chunk and of its tiles, padded to whole registers. Values stand in panels.
template <class Arch>
struct chunk_sizes {
    static constexpr index lanes = simd::lanes<Arch>, width = tile::panel_width<Arch>;
    static constexpr index tile_rows = tile::small_blocking<Arch>::rows;
    static constexpr index whole(index n, index of) { return (n + of - 1) / of * of; }

    index chunk;   ///< tokens
    index size;    ///< of a query or key as it comes
    index keys;    ///< its features: K
    index values;  ///< V
    index queries; ///< that read one state

    index padded_keys() const { return whole(keys, lanes); }
    tile::state_panels<Arch> state() const { return {keys, values}; }
    index panels() const { return state().panels(); }
    /// Value channels of panel p, and the registers' columns that hold them.
    index live(index p) const { return state().live(p); }
    index columns(index p) const { return whole(live(p), lanes); }
};

/// Decays of tokens or of their key channels.
template <class Rule, class Arch>
using decays_of = std::conditional_t<Rule::gate == gate::channel, channel_decays<Arch>, token_decays<Arch>>;

/// What the state takes in of a token: k vᵀ, and for DPLR b wᵀ besides. Such rows take turns.
template <class Rule>
inline constexpr index writers = Rule::update == update::dplr ? 2 : 1;

template <class Rule, class Arch, class Element>
struct chunk_scratch {
    using matrix = tile::matrix<Arch>;
    using word = typename tile::product<Arch, Element>::word;
    static constexpr bool asks = Rule::update != update::additive; ///< what the state recalls
    static constexpr bool on_rows = decays_of<Rule, Arch>::on_rows;

    reading_rows* reading;
    tile::chunk_reader* readers;                 ///< of each query
    decays_of<Rule, Arch> decays;
    recurrent_token<Rule, Arch> token;
    matrix raw;                                  ///< rows before the feature map
    matrix queries, queries_within, queries_decayed; ///< [queries · chunk, K]
    matrix keys, asking_within, asking_decayed;  ///< [chunk, K]
    matrix a, b;                                 ///< [chunk, K]
    matrix to_end;                               ///< [writers · chunk, K]
    matrix weights, recalls;                     ///< [queries · chunk, writers · chunk], [chunk, …]: of values, in outputs and in what is recalled
    float* values;                               ///< [panels][writers · chunk][width]
    float *written, *weighted;                   ///< [chunk][width]: the delta rules' values; values as the chunk's end sees them
    float* outputs;                              ///< [queries][panels][chunk][width]
    float *beta, *factor;                        ///< [chunk], and room for a factor of each query
    float* bonus;                                ///< [K]
    float* sums;                                 ///< [queries][chunk]: normalisers
    float *state, *normalizer;                   ///< [heads][panels][K][width], [heads][K]
    word *query_words, *asking_words, *weight_words, *key_words, *value_words, *weighted_words, *state_words;

    chunk_scratch(arena& s, const chunk_sizes<Arch>& n, index heads, bool mapped)
        : reading(s.take<reading_rows>(n.queries + 1)), readers(s.take<tile::chunk_reader>(n.queries)), decays(s, n.chunk, n.keys, n.padded_keys()), token(s, n.keys, n.queries),
          raw(matrix::take(s, mapped ? n.chunk : 0, n.size)), queries(matrix::take(s, n.queries * n.chunk, n.keys)),
          queries_within(matrix::take(s, on_rows ? n.queries * n.chunk : 0, n.keys)),
          queries_decayed(matrix::take(s, on_rows ? n.queries * n.chunk : 0, n.keys)), keys(matrix::take(s, n.chunk, n.keys)),
          asking_within(matrix::take(s, on_rows && asks ? n.chunk : 0, n.keys)),
          asking_decayed(matrix::take(s, on_rows && asks ? n.chunk : 0, n.keys)),
          a(matrix::take(s, writers<Rule> > 1 ? n.chunk : 0, n.keys)), b(matrix::take(s, writers<Rule> > 1 ? n.chunk : 0, n.keys)),
          to_end(matrix::take(s, on_rows ? writers<Rule> * n.chunk : 0, n.keys)),
          // register_tile::substitute reads a whole tile of rows.
          weights(matrix::take(s, n.queries * n.chunk, writers<Rule> * n.chunk)),
          recalls(matrix::take(s, asks ? n.chunk + n.tile_rows : 0, writers<Rule> * (n.chunk + n.tile_rows)))
    {
        const index panel = n.chunk * n.width, factors = n.chunk + n.tile_rows, row = n.padded_keys();
        values = s.take<float>(n.panels() * writers<Rule> * panel);
        written = s.take<float>(panel), weighted = s.take<float>(on_rows ? 0 : panel);
        outputs = s.take<float>(n.queries * n.panels() * panel);
        beta = s.take<float>(factors), factor = s.take<float>(larger(factors, n.queries)), bonus = s.take<float>(row), sums = s.take<float>(n.queries * n.chunk);
        state = s.take<float>(heads * n.state().floats()), normalizer = s.take<float>(heads * row);
        query_words = asking_words = weight_words = key_words = value_words = weighted_words = state_words = nullptr;
        if constexpr (!tile::operand_tiles<Arch, Element>::as_it_is) {
            const auto pairs = [](index rows) { return (rows + 1) / 2; };
            query_words = s.take<word>(n.queries * n.chunk * row / 2), asking_words = s.take<word>(n.chunk * row / 2);
            weight_words = s.take<word>(n.queries * n.chunk * weights.stride / 2);
            key_words = s.take<word>(pairs(writers<Rule> * n.chunk) * row);
            for (word** w : {&value_words, &weighted_words}) { *w = s.take<word>(pairs(writers<Rule> * n.chunk) * n.width); }
            state_words = s.take<word>(pairs(n.keys) * n.width);
        }
    }
};

} // namespace linear
SEQMIX_NAMESPACE_END
