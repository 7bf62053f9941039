// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>
#include <seqmix/linear/feature_map.hpp>

// The family: what a token does to the state S [K, V]. A rule is a type that says which gate and which update it has and which
// operands it takes besides queries, keys and values; one engine computes them all.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// What is left of the state when the next token comes: e^(log decay), log decay <= 0.
enum class gate {
    none,    ///< all
    head,    ///< one decay a head, for all tokens
    token,   ///< one a head and token
    channel, ///< one a head, token and key channel
};

/// What a token adds to what is left.
enum class update {
    additive, ///< k vᵀ
    delta,    ///< β k (v - Sᵀk)ᵀ: what k recalls is replaced by v, as far as β says
    dplr,     ///< b (aᵀS_before) + k vᵀ: a diagonal plus a matrix of rank one acts on the state
};

namespace detail {

template <linear::gate Gate, linear::update Update, bool Bonus = false>
struct rule {
    static constexpr linear::gate gate = Gate;
    static constexpr linear::update update = Update;
    /// The output reads the state before the token, and besides (q ∘ u)·k v.
    static constexpr bool bonus = Bonus;
    using features = identity_map;
};

} // namespace detail

// H is the number of heads that have a state; K the size of a key after the feature map. T is the type of q, k and v. Axes are those
// of sequences and tokens: B and L, or one of both where there is one only (one token a sequence, packed sequences).

/// S += k vᵀ (Katharopoulos et al. 2020, "Transformers are RNNs", equations 16 to 20).
struct additive : detail::rule<gate::none, update::additive> {
    template <class T, std::size_t Axes = 2>
    struct inputs {};
};

/// S = e^g S + k vᵀ, g a constant of the head (Sun et al. 2023, "Retentive Network", equation 6; Qin et al. 2024, "Lightning
/// Attention-2").
struct retention : detail::rule<gate::head, update::additive> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, 1> log_decay; ///< [H]
    };
};

/// S = e^g_t S + k vᵀ (Yang et al. 2024, "Gated Linear Attention", section 4.4's simplification; Mamba-2's decay).
struct simple_gla : detail::rule<gate::token, update::additive> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, Axes + 1> log_decay; ///< [B, L, H]
    };
};

/// S = diag(e^g_t) S + k vᵀ (Yang et al. 2024, equation 3).
struct gla : detail::rule<gate::channel, update::additive> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, Axes + 2> log_decay; ///< [B, L, H, K]
    };
};

/// S += β k (v - Sᵀk)ᵀ (Schlag et al. 2021; Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule").
struct delta : detail::rule<gate::none, update::delta> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, Axes + 1> beta; ///< [B, L, H]: how much of the old value is replaced
    };
};

/// S = e^g_t S, then delta (Yang et al. 2025, "Gated Delta Networks", equation 10).
struct gated_delta : detail::rule<gate::token, update::delta> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, Axes + 1> log_decay; ///< [B, L, H]
        view<const float, Axes + 1> beta;      ///< [B, L, H]
    };
};

/// S = diag(e^g_t) S, then delta (Kimi Team 2025, "Kimi Linear", equation 1: Kimi Delta Attention).
struct kda : detail::rule<gate::channel, update::delta> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, Axes + 2> log_decay; ///< [B, L, H, K]
        view<const float, Axes + 1> beta;      ///< [B, L, H]
    };
};

/// o = q (S_before + diag(u) k vᵀ), S = diag(e^g_t) S_before + k vᵀ (Peng et al. 2024, "Eagle and Finch", equations 17 to 19).
struct rwkv6 : detail::rule<gate::channel, update::additive, true> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, Axes + 2> log_decay; ///< [B, L, H, K]
        view<const float, 2> bonus;            ///< u [H, K]
    };
};

/// S = diag(e^g_t) S + b (aᵀ S) + k vᵀ, S on the right being the state before (Peng et al. 2025, "RWKV-7 Goose", equation 17).
struct rwkv7 : detail::rule<gate::channel, update::dplr> {
    template <class T, std::size_t Axes = 2>
    struct inputs {
        view<const float, Axes + 2> log_decay; ///< [B, L, H, K]
        view<const T, Axes + 2> a, b;          ///< [B, L, H, K]
    };
};

/// A rule whose queries and keys go through a feature map first.
template <class Rule, class Map>
struct mapped : Rule {
    using features = Map;
};

} // namespace linear
SEQMIX_NAMESPACE_END
