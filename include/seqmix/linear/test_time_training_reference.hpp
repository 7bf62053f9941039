// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <vector>

// Test-time training with large chunks as Zhang et al. 2025, "Test-Time Training Done Right" (LaCT), section 3, define it: what the
// kernel is judged by. Shares no code with it.

SEQMIX_NAMESPACE_BEGIN
namespace linear::reference {

/// A matrix [rows, columns]. Numbers are double; or a type that does the same arithmetic and bounds its error.
template <class Number>
struct fast_matrix {
    index rows = 0, columns = 0;
    std::vector<Number> at{};

    fast_matrix() {}
    fast_matrix(index r, index c) : rows(r), columns(c), at(static_cast<std::size_t>(r * c), Number(0.0)) {}
    Number& operator()(index r, index c) { return at[static_cast<std::size_t>(r * columns + c)]; }
    const Number& operator()(index r, index c) const { return at[static_cast<std::size_t>(r * columns + c)]; }

    Number norm_of_row(index r) const
    {
        using std::sqrt;
        Number sum(0.0);
        for (index c = 0; c < columns; ++c) { sum = sum + (*this)(r, c) * (*this)(r, c); }
        return sqrt(sum);
    }
};

/// One head. The linear network has one matrix W [V, D]; SwiGLU has W0, W1, W2: [H, D], [V, H], [H, D].
struct training {
    view<const double, 2> q, k;           ///< [L, D]
    view<const double, 2> v;              ///< [L, V]
    std::vector<view<const double, 1>> rate; ///< [L] for each matrix: η
    view<const double, 1> momentum;       ///< [L]; null: none
    index chunk = 1;
    bool update_first = false, normalize = true;
};

namespace detail {

/// Σ_j W(i, j) x_j
template <class Number, class X>
Number row_times(const fast_matrix<Number>& W, index i, const X& x)
{
    Number sum(0.0);
    for (index j = 0; j < W.columns; ++j) { sum = sum + W(i, j) * x(j); }
    return sum;
}

/// One hidden unit of SwiGLU at x: silu(g) u, and silu'(g).
template <class Number>
struct hidden_unit {
    Number u, silu, slope;

    template <class X>
    hidden_unit(const std::vector<fast_matrix<Number>>& W, index n, const X& x) : u(row_times(W[2], n, x))
    {
        using std::exp;
        const Number one(1.0), g = row_times(W[0], n, x), sigma = one / (one + exp(Number(0.0) - g));
        silu = g * sigma;
        slope = sigma * (one + g * (one - sigma));
    }
};

} // namespace detail

/// f(x) for weights W.
template <class Number, class X>
std::vector<Number> network(const std::vector<fast_matrix<Number>>& W, const X& x)
{
    std::vector<Number> y;
    if (W.size() == 1) {
        for (index i = 0; i < W[0].rows; ++i) { y.push_back(detail::row_times(W[0], i, x)); }
        return y;
    }
    std::vector<Number> h;
    for (index n = 0; n < W[0].rows; ++n) {
        const detail::hidden_unit<Number> unit(W, n, x);
        h.push_back(unit.silu * unit.u);
    }
    for (index i = 0; i < W[1].rows; ++i) {
        y.push_back(detail::row_times(W[1], i, [&](index n) { return h[static_cast<std::size_t>(n)]; }));
    }
    return y;
}

/// G += η ∂(f(k) · v) / ∂W for one token.
template <class Number, class Key, class Value>
void add_gradient(const std::vector<fast_matrix<Number>>& W, const Key& k, const Value& v, const std::vector<Number>& rate,
                  std::vector<fast_matrix<Number>>& G)
{
    const auto add_outer = [](fast_matrix<Number>& to, index i, const Number& of_row, const auto& x) {
        for (index j = 0; j < to.columns; ++j) { to(i, j) = to(i, j) + of_row * x(j); }
    };
    if (W.size() == 1) {
        for (index i = 0; i < W[0].rows; ++i) { add_outer(G[0], i, rate[0] * v(i), k); }
        return;
    }
    for (index n = 0; n < W[0].rows; ++n) {
        const detail::hidden_unit<Number> unit(W, n, k);
        Number dh(0.0); // W1ᵀ v
        for (index i = 0; i < W[1].rows; ++i) { dh = dh + W[1](i, n) * v(i); }
        add_outer(G[0], n, rate[0] * dh * unit.u * unit.slope, k);
        add_outer(G[2], n, rate[2] * dh * unit.silu, k);
        for (index i = 0; i < W[1].rows; ++i) { G[1](i, n) = G[1](i, n) + rate[1] * unit.silu * unit.u * v(i); }
    }
}

/// Chunk by chunk. Weights W and velocities M go in and come out; rows keep the norms of `norms_of`'s rows. Gives all outputs [L · V].
template <class Number>
std::vector<Number> test_time_training(const training& in, std::vector<fast_matrix<Number>>& W, std::vector<fast_matrix<Number>>& M,
                                       const std::vector<fast_matrix<Number>>& norms_of)
{
    const index length = in.k.extent(0);
    std::vector<Number> out;
    const auto row = [](const view<const double, 2>& of, index t) { return [&of, t](index i) { return Number(of(t, i)); }; };
    for (index from = 0; from < length; from += in.chunk) {
        const index to = from + (in.chunk < length - from ? in.chunk : length - from);
        const auto apply = [&] {
            for (index t = from; t < to; ++t) {
                for (const Number& y : network(W, row(in.q, t))) { out.push_back(y); }
            }
        };
        if (!in.update_first) { apply(); }
        std::vector<fast_matrix<Number>> G;
        for (const auto& w : W) { G.emplace_back(w.rows, w.columns); }
        double momentum = 0.0;
        for (index t = from; t < to; ++t) {
            std::vector<Number> rate;
            for (const auto& of_matrix : in.rate) { rate.push_back(Number(of_matrix(t))); }
            add_gradient(W, row(in.k, t), row(in.v, t), rate, G);
            momentum += in.momentum ? in.momentum(t) : 0.0;
        }
        for (std::size_t n = 0; n < W.size(); ++n) {
            for (std::size_t i = 0; i < W[n].at.size(); ++i) {
                M[n].at[i] = Number(momentum / static_cast<double>(to - from)) * M[n].at[i] + G[n].at[i];
                W[n].at[i] = W[n].at[i] + M[n].at[i];
            }
            for (index r = 0; in.normalize && r < W[n].rows; ++r) {
                const Number factor = norms_of[n].norm_of_row(r) / (W[n].norm_of_row(r) + Number(1e-5));
                for (index c = 0; c < W[n].columns; ++c) { W[n](r, c) = W[n](r, c) * factor; }
            }
        }
        if (in.update_first) { apply(); }
    }
    return out;
}

} // namespace linear::reference
SEQMIX_NAMESPACE_END
