// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/state.hpp>

// What a call of each family of state spaces may be told besides its operands.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// What is known of A beforehand.
enum class decay {
    any,     ///< nothing
    s4d_real ///< A[d, n] = -(n + 1) (Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space
             ///< Models", S4D-Real; Mamba's initialisation): one exponential for all N states, its powers by products.
             ///< The door makes sure that A is so.
};

/// From which end time runs.
enum class direction {
    forward,
    reverse, ///< from the last token to the first: the initial state stands behind the last token
};

/// Selective scan. T is the type of u; D is the number of channels, N of states a channel.
template <class T>
struct scan_options {
    view<const float, 1> D{};                          ///< [D]: out += D u
    view<const T, 3> z{};                              ///< [B, D, L]: out = y silu(z)
    view<const float, 1> delta_bias{};                 ///< [D]: added to delta, before softplus
    bool softplus = false;                             ///< delta = log(1 + e^delta)
    ssm::decay decay = ssm::decay::any;                ///< see ssm::decay
    state_view<3> state{};                             ///< [B, D, N], read at the start and written at the end
    const_state_view<3> initial_state{};               ///< [B, D, N], instead of what state holds; null: state, or zeros
    view<float, 4> snapshots{};                        ///< [B, S, D, N], written: the state after every
                                                       ///< snapshot_interval tokens, S = L / snapshot_interval
    index snapshot_interval = 1;                       ///< tokens
    ssm::direction direction = ssm::direction::forward; ///< see ssm::direction
    bool accumulate = false;                           ///< out += result: sums of directions without a copy
    index time_segments = 1;                           ///< > 1: each sequence is cut into so many pieces that threads share,
                                                       ///< at twice the arithmetic; rounding depends on this number alone
};

using seqmix::form;

/// State-space duality. T is the type of x; H heads of P channels, N states.
template <class T>
struct ssd_options {
    view<const float, 1> D{};             ///< [H]: out += D x
    view<const T, 4> z{};                 ///< [B, L, H, P]: out = y silu(z)
    view<const float, 1> dt_bias{};       ///< [H]: added to dt, before softplus
    bool softplus = false;                ///< dt = log(1 + e^dt)
    state_view<4> state{};                ///< [B, H, P, N], read at the start and written at the end
    const_state_view<4> initial_state{};  ///< [B, H, P, N], instead of what state holds; null: state, or zeros
    ssm::form form = ssm::form::automatic;
    index chunk = 0;                      ///< tokens of a chunk; 0: chosen by cost
};

/// One token of a selective scan, for many sequences. Writing `state` elsewhere than `initial_state` keeps the former as a snapshot
/// without a copy: a ring of states serves speculative decoding, and rolling back is choosing another one of them.
template <class T>
struct scan_step_options {
    view<const float, 1> D{};             ///< [D]: out += D u
    view<const T, 2> z{};                 ///< [B, D]: out = y silu(z)
    view<const float, 1> delta_bias{};    ///< [D]: added to delta, before softplus
    bool softplus = false;                ///< delta = log(1 + e^delta)
    state_view<3> state{};                ///< [B, D, N], read and written; must be given
    const_state_view<3> initial_state{};  ///< [B, D, N], read instead of state where it is given
};

/// One token of the state-space duality, likewise.
template <class T>
struct ssd_step_options {
    view<const float, 1> D{};             ///< [H]: out += D x
    view<const T, 3> z{};                 ///< [B, H, P]: out = y silu(z)
    view<const float, 1> dt_bias{};       ///< [H]: added to dt, before softplus
    bool softplus = false;                ///< dt = log(1 + e^dt)
    state_view<4> state{};                ///< [B, H, P, N], read and written; must be given
    const_state_view<4> initial_state{};  ///< [B, H, P, N], read instead of state where it is given
};

/// What follows a convolution.
enum class activation {
    none,
    silu, ///< y sigmoid(y)
};

/// Causal depthwise convolution of width W.
struct conv1d_options {
    view<const float, 1> bias{};                          ///< [D]: added to every sum
    ssm::activation activation = ssm::activation::none;   ///< of the sum
    state_view<3> state{};                                ///< [B, D, W - 1]: the last W - 1 inputs, the latest last; read at the
                                                          ///< start and written at the end; null: zeros
};

} // namespace ssm
SEQMIX_NAMESPACE_END
