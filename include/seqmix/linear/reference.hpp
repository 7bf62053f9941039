// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <vector>

// Linear attention and its relatives as the papers define them, in double: what the kernels are judged by. Shares no code with
// them; its parameters are the contract's symbols, not the kernels' options.

SEQMIX_NAMESPACE_BEGIN
namespace linear::reference {

/// The operands of one head, features already mapped. What all tokens, or all key channels, have in common is a view with strides
/// of 0; a null view is a term that the rule does not have. Of rules in the contract's table: gated takes g; delta beta;
/// gated_delta both; rwkv6 g and u; rwkv7 g, a and b.
struct head {
    view<const double, 2> q, k; ///< [L, K]
    view<const double, 2> v;    ///< [L, V]
    view<const double, 2> g;    ///< [L, K]
    view<const double, 1> beta; ///< [L]
    view<const double, 2> a, b; ///< [L, K]
    view<const double, 1> u;    ///< [K]
    double scale = 1.0;
};

/// Token by token. With D = diag(e^g) and what is not given left out,
///
///     S' = D S                                                decayed
///     w = β (v - S'ᵀk)                                        what is written under k; v without β
///     S_t = S' + b (aᵀS) + k wᵀ,   o = scale qᵀS_t            with u: o = scale qᵀ(S + diag(u) k vᵀ)
///
/// S [K · V] goes in and comes out, o [L · V]. after(t, S) sees the state after each token. (The columns of S never meet. So the
/// normalizer Σk is the column that a value of 1 leaves, and q·Σk its output.)
template <class After>
std::vector<double> recurrence(const head& in, std::vector<double>& S, const After& after)
{
    const index keys = in.k.extent(1), values = in.v.extent(1);
    std::vector<double> o(static_cast<std::size_t>(in.v.size()));
    const auto state = [&](index i, index j) -> double& { return S[static_cast<std::size_t>(i * values + j)]; };
    for (index t = 0; t < in.v.extent(0); ++t) {
        for (index j = 0; j < values; ++j) {
            double recalled = 0.0, erased = 0.0, sum = 0.0;
            for (index i = 0; i < keys; ++i) {
                if (in.u) { sum += in.q(t, i) * (state(i, j) + in.u(i) * in.k(t, i) * in.v(t, j)); }
                if (in.a) { erased += in.a(t, i) * state(i, j); }
                if (in.g) { state(i, j) *= std::exp(in.g(t, i)); }
                recalled += in.k(t, i) * state(i, j);
            }
            const double written = in.beta ? in.beta(t) * (in.v(t, j) - recalled) : in.v(t, j);
            for (index i = 0; i < keys; ++i) {
                state(i, j) += in.k(t, i) * written + (in.b ? in.b(t, i) * erased : 0.0);
                if (!in.u) { sum += in.q(t, i) * state(i, j); }
            }
            o[static_cast<std::size_t>(t * values + j)] = in.scale * sum;
        }
        after(t, S);
    }
    return o;
}

/// The same sums as a matrix of weights between tokens, as attention has it: no state but S [K · V], the initial one. What token s
/// has written under its keys reaches token t through the decays in between; the written values of the delta rules and of rwkv7
/// are the solution of a unit triangular system, token after token. Quadratic in L. (Yang et al. 2024, "Gated Linear Attention",
/// equation 4; Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule", section 3.2)
inline std::vector<double> dual(const head& in, const std::vector<double>& S)
{
    const index length = in.v.extent(0), keys = in.k.extent(1), values = in.v.extent(1);
    std::vector<double> o(static_cast<std::size_t>(in.v.size())), written(o.size()), erased(o.size());
    // Σ_i r_i e^(decays of tokens s + 1 to now) S(i, j), over what tokens s < count have left, and over S.
    const auto recall = [&](const view<const double, 2>& r, index count, index now, index t, index j) {
        double sum = 0.0;
        for (index i = 0; i < keys; ++i) {
            double log_decay = 0.0;
            for (index s = now; s >= 0; --s) {
                const auto at = static_cast<std::size_t>(s * values + j);
                const double left = in.k(s, i) * written[at] + (in.b ? in.b(s, i) * erased[at] : 0.0);
                if (s < count) { sum += r(t, i) * std::exp(log_decay) * left; }
                if (in.g) { log_decay += in.g(s, i); }
            }
            sum += r(t, i) * std::exp(log_decay) * S[static_cast<std::size_t>(i * values + j)];
        }
        return sum;
    };
    for (index t = 0; t < length; ++t) {
        for (index j = 0; j < values; ++j) {
            const auto at = static_cast<std::size_t>(t * values + j);
            erased[at] = in.a ? recall(in.a, t, t - 1, t, j) : 0.0;
            written[at] = in.beta ? in.beta(t) * (in.v(t, j) - recall(in.k, t, t, t, j)) : in.v(t, j);
            double bonus = 0.0;
            for (index i = 0; in.u && i < keys; ++i) { bonus += in.q(t, i) * in.u(i) * in.k(t, i) * in.v(t, j); }
            o[at] = in.scale * (in.u ? recall(in.q, t, t - 1, t, j) + bonus : recall(in.q, t + 1, t, t, j));
        }
    }
    return o;
}

/// h_t = e^(g_t) h_{t-1} + x_t of one channel; gives all h. (Qin et al. 2023, "Hierarchically Gated Recurrent Neural Network for
/// Sequence Modeling", equation 5, the decay as its logarithm)
inline std::vector<double> hgrn(const view<const double, 1>& x, const view<const double, 1>& g, double h)
{
    std::vector<double> all;
    for (index t = 0; t < x.extent(0); ++t) { all.push_back(h = std::exp(g(t)) * h + x(t)); }
    return all;
}

/// The MatMul-free LM's unit on one channel, before any activation: f = σ(forget), h_t = f h_{t-1} + (1 - f) silu(candidate); gives
/// all h. The output is h σ(gate). (Zhu et al. 2024, "Scalable MatMul-free Language Modeling", section 3.3.1)
inline std::vector<double> mlgru(const view<const double, 1>& forget, const view<const double, 1>& candidate, double h)
{
    std::vector<double> all;
    for (index t = 0; t < forget.extent(0); ++t) {
        const double f = 1.0 / (1.0 + std::exp(-forget(t))), c = candidate(t) / (1.0 + std::exp(-candidate(t)));
        all.push_back(h = f * h + (1.0 - f) * c);
    }
    return all;
}

} // namespace linear::reference
SEQMIX_NAMESPACE_END
