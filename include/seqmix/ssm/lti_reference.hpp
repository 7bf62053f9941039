// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <complex>
#include <vector>

// Linear time-invariant state spaces as the papers define them, in double, one token after another: what the kernels are
// judged by. Shares no code with them.

SEQMIX_NAMESPACE_BEGIN
namespace ssm::reference {

using complex_list = std::vector<std::complex<double>>;

/// One channel of S4D: h_n = A_n h_n + u; y = [2] Re Σ CB_n h_n + D u. h [N] goes in and comes out; A and CB are [N].
/// (Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models", section 3)
inline std::vector<double> s4d(const std::vector<double>& u, const complex_list& A, const complex_list& CB, double D,
                               bool conjugate_pairs, complex_list& h)
{
    std::vector<double> y;
    y.reserve(u.size());
    for (const double input : u) {
        double sum = 0.0;
        for (std::size_t n = 0; n < A.size(); ++n) {
            h[n] = A[n] * h[n] + input;
            sum += (CB[n] * h[n]).real();
        }
        y.push_back((conjugate_pairs ? 2.0 * sum : sum) + D * input);
    }
    return y;
}

/// The kernel whose causal convolution with u is the same y from a zero state, but for D u: k_t = [2] Re Σ CB_n A_n^t, each
/// power by the exponential of its logarithm. (the same, section 3)
inline std::vector<double> s4d_kernel(const complex_list& A, const complex_list& CB, std::size_t length,
                                      bool conjugate_pairs)
{
    std::vector<double> k(length, 0.0);
    for (std::size_t n = 0; n < A.size(); ++n) {
        const double log_modulus = std::log(std::abs(A[n])), angle = std::arg(A[n]);
        for (std::size_t t = 0; t < length; ++t) {
            const double time = static_cast<double>(t);
            const std::complex<double> power =
                t == 0 ? std::complex<double>(1.0) : std::polar(std::exp(time * log_modulus), time * angle);
            k[t] += (conjugate_pairs ? 2.0 : 1.0) * (CB[n] * power).real();
        }
    }
    return k;
}

/// y_t = Σ_s k_s u_{t-s}, s <= t, by its definition.
inline std::vector<double> convolution(const std::vector<double>& k, const std::vector<double>& u)
{
    std::vector<double> y(u.size(), 0.0);
    for (std::size_t t = 0; t < u.size(); ++t) {
        for (std::size_t s = 0; s <= t && s < k.size(); ++s) { y[t] += k[s] * u[t - s]; }
    }
    return y;
}

/// (e^z - 1) / z by its series, summed until it stands still; for |z| of a few units at most.
inline std::complex<double> exponential_quotient(std::complex<double> z)
{
    std::complex<double> sum = 0.0, term = 1.0;
    for (int k = 2; k < 120; ++k) {
        sum += term;
        term *= z / static_cast<double>(k);
    }
    return sum;
}

/// The continuous Legendre Memory Unit, theta dm/dt = A m + B u: A [q · q] and B [q].
/// (Voelker, Kajić & Eliasmith 2019, "Legendre Memory Units", equations 1 and 2)
struct legendre_system {
    std::vector<double> A, B;

    explicit legendre_system(std::size_t q) : A(q * q), B(q)
    {
        for (std::size_t i = 0; i < q; ++i) {
            const double odd = 2.0 * static_cast<double>(i) + 1.0;
            B[i] = i % 2 == 0 ? odd : -odd;
            for (std::size_t j = 0; j < q; ++j) { A[i * q + j] = i < j || (i - j) % 2 == 0 ? -odd : odd; }
        }
    }
};

/// The same held over one token: m(1) of the system with A / theta and B / theta, from every unit vector at u = 0, and from
/// zero at u = 1; each by short steps of its Taylor series.
inline legendre_system held(const legendre_system& continuous, double theta)
{
    const std::size_t q = continuous.B.size();
    const auto steps = static_cast<std::size_t>(std::ceil(4.0 * static_cast<double>(q * q) / theta)) + 1;
    const double length = 1.0 / (theta * static_cast<double>(steps));
    legendre_system out = continuous;
    for (std::size_t column = 0; column <= q; ++column) {
        const double u = column == q ? 1.0 : 0.0;
        std::vector<double> m(q, 0.0);
        if (column < q) { m[column] = 1.0; }
        for (std::size_t step = 0; step < steps; ++step) {
            std::vector<double> term = m;
            for (int k = 1; k < 25; ++k) { // term_k = (length / k) (A term_{k-1} + B u where k is 1)
                std::vector<double> next(q, 0.0);
                for (std::size_t i = 0; i < q; ++i) {
                    next[i] = k == 1 ? continuous.B[i] * u : 0.0;
                    for (std::size_t j = 0; j < q; ++j) { next[i] += continuous.A[i * q + j] * term[j]; }
                    next[i] *= length / k;
                }
                term = next;
                for (std::size_t i = 0; i < q; ++i) { m[i] += term[i]; }
            }
        }
        for (std::size_t i = 0; i < q; ++i) { (column < q ? out.A[i * q + column] : out.B[i]) = m[i]; }
    }
    return out;
}

/// m <- A m + B u for one channel. A [q · q], B and m [q]. (the same, section 2)
inline void legendre_step(const std::vector<double>& A, const std::vector<double>& B, double u, std::vector<double>& m)
{
    const std::size_t q = B.size();
    const std::vector<double> before = m;
    for (std::size_t i = 0; i < q; ++i) {
        double sum = B[i] * u;
        for (std::size_t j = 0; j < q; ++j) { sum += A[i * q + j] * before[j]; }
        m[i] = sum;
    }
}

} // namespace ssm::reference
SEQMIX_NAMESPACE_END
