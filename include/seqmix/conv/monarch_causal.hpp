// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>

#include <cmath>
#include <complex>
#include <concepts>
#include <vector>

// Causal Monarch matrices: a pair of them between which products of numbers are a causal mixing of the sequence.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

namespace detail {

/// The inverse of a lower triangular matrix, of which nothing above the diagonal is read, by columns: inverse[column][row].
template <class T>
std::vector<double> inverse_of_lower(const view<T, 2>& lower)
{
    const index size = lower.extent(0);
    std::vector<double> inverse(static_cast<std::size_t>(size * size));
    for (index column = 0; column < size; ++column) {
        double* const x = inverse.data() + column * size;
        for (index row = column; row < size; ++row) {
            double sum = row == column ? 1.0 : 0.0;
            for (index k = column; k < row; ++k) { sum -= static_cast<double>(lower(row, k)) * x[k]; }
            x[row] = sum / static_cast<double>(lower(row, row));
        }
    }
    return inverse;
}

/// Refuses what has no inverse.
template <class T>
void check_diagonal(const checker& check, const view<T, 2>& lower, const char* name)
{
    for (index i = 0; i < lower.extent(0); ++i) {
        const double number = static_cast<double>(lower(i, i));
        check.require(std::isfinite(number) && number != 0.0, name, " has ", number, " at place ", i,
                      " of its diagonal, which must be finite and not 0");
    }
}

} // namespace detail

/// Fills w1 [b, 2 p, c], w2 [p, 2 b, 2 b] and v1 [p, 2 b, 2 b], v2 [b, c, 2 p] with two Monarch matrices M and M' such that
///
///     y = M' ((M k) ∘ (M u))        u, k, y of n = b c real numbers, M u of N = b p ≥ 2 n complex ones
///
/// is causal, y_t depending on u_0 … u_t and k_0 … k_t only, whatever `left` and `right` are. With mix_options::spectral, mix_sequence computes it.
///
/// Numbers are coefficients of polynomials in a basis: u stands for u(Z) = Σ_j u_j q_j(Z), where for j = j1 b + j0
///
///     q_j(Z) = ℓ_j0(Z) r_(j0,j1)(Z^b),    ℓ_j0(Z) = Σ_(m ≥ j0) left(m, j0) Z^m,    r_(j0,j1)(Y) = Σ_(m ≥ j1) right(j0, m, j1) Y^m
///
/// M evaluates them at the N-th roots of unity, M' finds the y whose polynomial is k(Z) u(Z) up to terms from Z^n on. q_j has no power below
/// Z^j, so a product with it has none either, and no y_t below j: hence causal. left [b, b] and right [b, c, c] are the parameters, float or double,
/// lower triangular (what is above the diagonal is not read), with no 0 on the diagonals. With both the identity, q_j = Z^j, M and
/// M' are transforms as dft_monarch's, and the operator is the causal convolution.
///
/// Computed in double, then rounded to W, float or double; about 2 N b² + 2 p n c multiply-adds. The error of M' grows with the condition
/// of `left` and `right`: keep what is below the diagonals small, or diagonals large.
///
/// Throws std::invalid_argument, naming the argument and both values, with the weights untouched.
/// Source: Fu et al. 2023, "Monarch Mixer: A Simple Sub-Quadratic GEMM-Based Architecture", section 4 (polynomials with least degrees in order).
template <class P, class W>
void causal_monarch(const view<P, 2>& left, const view<P, 3>& right, const view<W, 3>& w1, const view<W, 3>& w2, const view<W, 3>& v1,
                    const view<W, 3>& v2)
{
    static_assert(std::same_as<W, float> || std::same_as<W, double>, "seqmix: weights are float or double");
    using Parameter = std::remove_const_t<P>;
    static_assert(std::same_as<Parameter, float> || std::same_as<Parameter, double>, "seqmix: parameters are float or double");
    using complex = std::complex<double>;
    const checker check("conv::causal_monarch");
    const named_operand of_left("left", left), of_right("right", right);
    const named_operand written[] = {{"w1", w1}, {"w2", w2}, {"v1", v1}, {"v2", v2}};
    check_given(check, of_left, of_right, written[0], written[1], written[2], written[3]);
    const index b = left.extent(0), c = right.extent(1), p = w2.extent(0), N = b * p;
    check_shape(check, of_left, named_extent{"number of rows", b, "its own"} + named_extent{"number of columns", b, "its number of rows"});
    check_shape(check, of_right, named_extent{"number of blocks", b, "left's number of rows"} + named_extent{"number of rows", c, "its own"} +
                                     named_extent{"number of columns", c, "its number of rows"});
    const named_extent blocks = {"number of blocks", b, "left's number of rows"}, parts = {"number of blocks", p, "w2's"};
    const named_extent twice_b = {"number of rows", 2 * b, "twice left's"}, columns = {"number of columns", 2 * b, "twice left's number of rows"};
    check_shape(check, written[0], blocks + named_extent{"number of rows", 2 * p, "twice w2's number of blocks"} +
                                       named_extent{"number of columns", c, "right's number of rows"});
    check_shape(check, written[1], parts + twice_b + columns);
    check_shape(check, written[2], parts + twice_b + columns);
    check_shape(check, written[3], blocks + named_extent{"number of rows", c, "right's"} +
                                       named_extent{"number of columns", 2 * p, "twice w2's number of blocks"});
    check.require(p >= 2 * c, "w2's number of blocks is ", p, ", but must be at least twice right's number of rows, ", 2 * c);
    detail::check_diagonal(check, left, "left");
    for (index j = 0; j < b; ++j) { detail::check_diagonal(check, right[j], "right"); }
    for (std::size_t i = 0; i < 4; ++i) {
        check_apart(check, written[i], of_left, of_right);
        for (std::size_t other = 0; other < i; ++other) { check_apart(check, written[i], written[other]); }
    }

    std::vector<complex> roots; // e^(-2πi n / N)
    const double angle = -2.0 * 3.14159265358979323846 / static_cast<double>(N);
    for (index n = 0; n < N; ++n) { roots.push_back(std::polar(1.0, angle * static_cast<double>(n))); }
    const auto root = [&](index turns) { return roots[static_cast<std::size_t>(turns % N)]; };
    // A complex number as a real 2 x 2 block.
    const auto entry = [](complex z, index to, index from) { return static_cast<W>(to == from ? z.real() : to == 0 ? -z.imag() : z.imag()); };

    const std::vector<double> left_inverse = detail::inverse_of_lower(left);
    for (index j0 = 0; j0 < b; ++j0) {
        const std::vector<double> right_inverse = detail::inverse_of_lower(right[j0]);
        for (index a = 0; a < p; ++a) {
            for (index j1 = 0; j1 < c; ++j1) {
                complex value = 0.0, interpolated = 0.0;
                for (index m = j1; m < c; ++m) { value += static_cast<double>(right(j0, m, j1)) * root(a * b % N * m); }
                for (index m = 0; m <= j1; ++m) {
                    interpolated += right_inverse[static_cast<std::size_t>(m * c + j1)] * std::conj(root(a * b % N * m));
                }
                interpolated /= static_cast<double>(N);
                for (index part = 0; part < 2; ++part) {
                    w1(j0, part * p + a, j1) = entry(value, part, 0);
                    v2(j0, j1, 2 * a + part) = entry(interpolated, 0, part);
                }
            }
            for (index j = 0; j < b; ++j) {
                complex value = 0.0, interpolated = 0.0;
                for (index m = j0; m < b; ++m) { value += static_cast<double>(left(m, j0)) * root((a + p * j) * m); }
                for (index m = 0; m <= j0; ++m) {
                    interpolated += left_inverse[static_cast<std::size_t>(m * b + j0)] * std::conj(root((a + p * j) * m));
                }
                for (index to = 0; to < 2; ++to) {
                    for (index from = 0; from < 2; ++from) {
                        w2(a, to * b + j, 2 * j0 + from) = entry(value, to, from);
                        v1(a, to * b + j0, from * b + j) = entry(interpolated, to, from);
                    }
                }
            }
        }
    }
}

} // namespace conv
SEQMIX_NAMESPACE_END
