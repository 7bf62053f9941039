// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/state.hpp>

#include <optional>

// What a call of linear attention may be told besides its operands.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// H heads have a state of K key channels (after the feature map) times V value channels.
struct options {
    std::optional<float> scale{};           ///< of the queries; default 1 / sqrt(K before the feature map)
    bool normalize = false;                 ///< out = qS / (q·Σk), Σ being decayed as the state is; additive updates only
    state_view<4> state{};                  ///< [B, H, K, V], read at the start and written at the end
    const_state_view<4> initial_state{};    ///< [B, H, K, V], instead of what state holds; null: state, or zeros
    view<float, 3> normalizer{};            ///< [B, H, K]: Σk, read at the start and written at the end; only with normalize
    view<float, 5> snapshots{};             ///< [B, S, H, K, V], written: the state after every snapshot_interval tokens,
                                            ///< S = L / snapshot_interval
    index snapshot_interval = 1;            ///< tokens
    seqmix::form form = seqmix::form::automatic;
    index chunk = 0;                        ///< tokens of a chunk; 0: chosen by cost
    bool accumulate = false;                ///< out += result: sums of directions, or with window attention, without a copy
};

/// One token, for many sequences. Writing `state` elsewhere than `initial_state` keeps the former as a snapshot without a copy: a
/// ring of states serves speculative decoding, and rolling back is choosing another one of them.
struct step_options {
    std::optional<float> scale{};        ///< as in options
    bool normalize = false;              ///< as in options
    state_view<4> state{};               ///< [B, H, K, V], read and written; must be given
    const_state_view<4> initial_state{}; ///< [B, H, K, V], read instead of state where it is given
    view<float, 3> normalizer{};         ///< [B, H, K], read and written; must be given with normalize
};

} // namespace linear
SEQMIX_NAMESPACE_END
