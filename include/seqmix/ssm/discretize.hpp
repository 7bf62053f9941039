// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/ssm/lti_parts.hpp>

#include <cmath>

// From continuous to discrete time: what a diagonal state space keeps and takes in over one token.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

namespace lti {

/// Channels and states of a discretisation, one at a time, in double.
template <class Rule>
void discretize(const char* door, const view<const complex, 2>& A, const view<const complex, 2>& B,
                const view<const float, 1>& dt, const view<complex, 2>& A_bar, const view<complex, 2>& B_bar,
                const Rule& rule)
{
    const checker check(door);
    check_given(check, A, "A"), check_given(check, B, "B"), check_given(check, dt, "dt");
    check_given(check, A_bar, "A_bar"), check_given(check, B_bar, "B_bar");
    const auto same_shape = [&](const auto& operand, const char* name) {
        check_extent(check, operand, name, 0, "number of channels", A.extent(0), "A's");
        check_extent(check, operand, name, 1, "number of states", A.extent(1), "A's");
    };
    same_shape(B, "B"), same_shape(A_bar, "A_bar"), same_shape(B_bar, "B_bar");
    check_extent(check, dt, "dt", 0, "length", A.extent(0), "A's number of channels");
    const auto apart = [&](const byte_range& written, const char* writer) {
        check_apart(check, written, writer, A, "A"), check_apart(check, written, writer, B, "B");
        check_apart(check, written, writer, dt, "dt");
    };
    apart(reach(A_bar), "A_bar"), apart(reach(B_bar), "B_bar");
    check_apart(check, reach(B_bar), "B_bar", A_bar, "A_bar");
    for (index d = 0; d < A.extent(0); ++d) {
        const double step = static_cast<double>(dt(d));
        for (index n = 0; n < A.extent(1); ++n) {
            wide keep, input; // of A dt: what a state keeps, and what an input of B = 1 gives, over dt
            rule(step * wide::of(A(d, n)), keep, input);
            keep.store(A_bar(d, n)), (step * input * wide::of(B(d, n))).store(B_bar(d, n));
        }
    }
}

} // namespace lti

/// Zero-order hold for diagonal A: A_bar = e^{A dt}, B_bar = (e^{A dt} - 1) / A · B. A, B, A_bar, B_bar [D, N], dt [D]:
/// time between tokens, in the unit of 1 / A. Computed in double and rounded once to float (2^-24 relative in modulus); no
/// cancellation near A dt = 0, where B_bar -> dt B. Throws std::invalid_argument.
/// Source: Gu et al. 2022 (see s4d), section 3.
inline void discretize_zoh(const view<const complex, 2>& A, const view<const complex, 2>& B, const view<const float, 1>& dt,
                           const view<complex, 2>& A_bar, const view<complex, 2>& B_bar)
{
    using lti::wide;
    lti::discretize("ssm::discretize_zoh", A, B, dt, A_bar, B_bar, [](wide z, wide& keep, wide& input) {
        const double growth = std::exp(z.re), half_sine = std::sin(0.5 * z.im);
        keep = {growth * std::cos(z.im), growth * std::sin(z.im)};
        // e^{x + iy} - 1 = (e^x - 1) cos y - 2 sin²(y / 2) + i e^x sin y: small where z is.
        const wide less_one = {std::expm1(z.re) * std::cos(z.im) - 2.0 * half_sine * half_sine, keep.im};
        input = z.re == 0.0 && z.im == 0.0 ? wide{1.0, 0.0} : less_one / z;
    });
}

/// The bilinear rule for diagonal A: A_bar = (1 + A dt / 2) / (1 - A dt / 2), B_bar = dt / (1 - A dt / 2) · B. Operands and
/// accuracy as for discretize_zoh; Re A <= 0 keeps clear of the pole at A dt = 2. (The same source.)
inline void discretize_bilinear(const view<const complex, 2>& A, const view<const complex, 2>& B,
                                const view<const float, 1>& dt, const view<complex, 2>& A_bar,
                                const view<complex, 2>& B_bar)
{
    using lti::wide;
    lti::discretize("ssm::discretize_bilinear", A, B, dt, A_bar, B_bar, [](wide z, wide& keep, wide& input) {
        const wide less = {1.0 - 0.5 * z.re, -0.5 * z.im}, more = {1.0 + 0.5 * z.re, 0.5 * z.im};
        input = wide{1.0, 0.0} / less, keep = more / less;
    });
}

} // namespace ssm
SEQMIX_NAMESPACE_END
