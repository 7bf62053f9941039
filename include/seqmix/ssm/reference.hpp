// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <vector>

// State spaces as the papers define them, in double, one token after another: what the kernels are judged by. Shares no
// code with them; its parameters are the contract's symbols, not the kernels' options.

SEQMIX_NAMESPACE_BEGIN
namespace ssm::reference {

template <class T>
double widened(T x)
{
    return static_cast<double>(static_cast<float>(x));
}

inline double softplus(double x) { return x > 0.0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
inline double silu(double x) { return x / (1.0 + std::exp(-x)); }

/// One channel of a selective scan: h_n = exp(delta A_n) h_n + delta B_n u; y = Σ C_n h_n + D u, times silu(z).
/// u, delta, z [L] (z may be null), A [N], B, C [N, L]; h [N] goes in and comes out. delta is what is added up: bias and
/// softplus are done. after(t, h) sees the state after each token. (Gu & Dao 2023, equation 2, section 3.3.2's B̄ = ΔB)
template <class T, class After>
std::vector<double> scan(const view<const T, 1>& u, const std::vector<double>& delta, const view<const float, 1>& A,
                         const view<const T, 2>& B, const view<const T, 2>& C, double D, const view<const T, 1>& z,
                         std::vector<double>& h, const After& after)
{
    std::vector<double> y(static_cast<std::size_t>(u.extent(0)));
    for (index t = 0; t < u.extent(0); ++t) {
        const double dt = delta[static_cast<std::size_t>(t)], input = widened(u(t));
        double sum = D * input;
        for (index n = 0; n < A.extent(0); ++n) {
            double& state = h[static_cast<std::size_t>(n)];
            state = std::exp(dt * widened(A(n))) * state + dt * input * widened(B(n, t));
            sum += widened(C(n, t)) * state;
        }
        y[static_cast<std::size_t>(t)] = z ? sum * silu(widened(z(t))) : sum;
        after(t, h);
    }
    return y;
}

/// One head of the state-space duality: h = exp(dt A) h + dt x ⊗ B; y = h C + D x, times silu(z). x, z [L, P] (z may be
/// null), dt [L], B, C [L, N], h [P · N] in and out, y [L · P]. (Dao & Gu 2024, section 3, equation 3 with A scalar)
template <class T>
std::vector<double> ssd(const view<const T, 2>& x, const std::vector<double>& dt, double A, const view<const T, 2>& B,
                        const view<const T, 2>& C, double D, const view<const T, 2>& z, std::vector<double>& h)
{
    const index length = x.extent(0), channels = x.extent(1), states = B.extent(1);
    std::vector<double> y(static_cast<std::size_t>(length * channels));
    for (index t = 0; t < length; ++t) {
        const double step = dt[static_cast<std::size_t>(t)], keep = std::exp(step * A);
        for (index p = 0; p < channels; ++p) {
            double sum = D * widened(x(t, p));
            for (index n = 0; n < states; ++n) {
                double& state = h[static_cast<std::size_t>(p * states + n)];
                state = keep * state + step * widened(x(t, p)) * widened(B(t, n));
                sum += widened(C(t, n)) * state;
            }
            y[static_cast<std::size_t>(t * channels + p)] = z ? sum * silu(widened(z(t, p))) : sum;
        }
    }
    return y;
}

/// The same sum as a matrix: y_t = Σ_{s <= t} (C_t · B_s) exp(A (dt_{s+1} + … + dt_t)) dt_s x_s, from a zero state; without
/// D and z. (Dao & Gu 2024, equation 16: the dual, attention-like form)
template <class T>
std::vector<double> ssd_dual(const view<const T, 2>& x, const std::vector<double>& dt, double A, const view<const T, 2>& B,
                             const view<const T, 2>& C)
{
    const index length = x.extent(0), channels = x.extent(1);
    std::vector<double> y(static_cast<std::size_t>(length * channels));
    for (index t = 0; t < length; ++t) {
        double log_decay = 0.0;
        for (index s = t; s >= 0; --s) {
            double weight = 0.0;
            for (index n = 0; n < B.extent(1); ++n) { weight += widened(C(t, n)) * widened(B(s, n)); }
            weight *= std::exp(log_decay) * dt[static_cast<std::size_t>(s)];
            for (index p = 0; p < channels; ++p) { y[static_cast<std::size_t>(t * channels + p)] += weight * widened(x(s, p)); }
            log_decay += A * dt[static_cast<std::size_t>(s)];
        }
    }
    return y;
}

} // namespace ssm::reference
SEQMIX_NAMESPACE_END
