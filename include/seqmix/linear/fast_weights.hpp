// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

// Networks whose weights are the state of test-time training, and what a call is told of them.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// f(x) = W x, W [V, D].
struct linear_network {
    template <class View>
    struct matrices {
        View w{};
    };
};

/// f(x) = W1 (silu(W0 x) ∘ (W2 x)), W0 and W2 [H, D], W1 [V, H].
struct swiglu_network {
    template <class View>
    struct matrices {
        View w0{}, w1{}, w2{};
    };
};

/// Which weights the queries of a chunk see.
enum class update_order {
    apply_then_update, ///< those that the chunks before have left: causal from chunk to chunk, as in language models
    update_then_apply, ///< those that their own chunk has left too: for sets and images; a chunk of all tokens is the form for both directions
};

/// What training takes besides queries, keys and values. Of packed sequences, Rank = 2: there is no axis of B.
template <class Network, std::size_t Rank = 3>
struct training_inputs {
    typename Network::template matrices<view<const float, Rank>> rate{}; ///< [B, L, heads]: each token's learning rate, for each matrix
    view<const float, Rank> momentum{};                                  ///< [B, L, heads]; null: no momentum
};

/// Matrices of weights are [B, heads, rows, columns], with any strides: what all batch items begin with is a view whose first stride is 0.
template <class Network>
struct training_options {
    typename Network::template matrices<view<float, 4>> weights{};               ///< read at the start and written at the end; null: dropped
    typename Network::template matrices<view<const float, 4>> initial_weights{}; ///< read instead of what weights hold
    typename Network::template matrices<view<float, 4>> velocity{};       ///< M, read at the start and written at the end; null: from zeros,
                                                                          ///< and dropped; only with momentum
    typename Network::template matrices<view<const float, 4>> norms_of{}; ///< the weights whose rows' norms are kept; null: those at the start.
                                                                          ///< Whoever cuts a sequence gives the weights that it started with
    index chunk = 2048;                                                   ///< tokens between two updates
    update_order order = update_order::apply_then_update;
    bool normalize = true; ///< rows keep their norms
};

} // namespace linear
SEQMIX_NAMESPACE_END
