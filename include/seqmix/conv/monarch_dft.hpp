// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>

#include <cmath>
#include <concepts>

// The discrete Fourier transform as a Monarch matrix.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// Rows [B, k c] as [B, k, c]: block i holds numbers i, i + k, i + 2 k, … What dft_monarch's inputs must be; moves nothing.
template <class T>
view<T, 3> decimated(const view<T, 2>& rows, index k)
{
    checker("conv::decimated").require(k > 0 && rows.extent(1) % k == 0, k, " blocks do not divide rows of ", rows.extent(1));
    return {rows.data(), {rows.extent(0), k, rows.extent(1) / k}, {rows.stride(0), rows.stride(1), k * rows.stride(1)}};
}

/// Fills w1 [k, 2 p, c] and w2 [p, s, 2 k] so that their Monarch matrix is the discrete Fourier transform of N = k p complex numbers:
/// out_m = Σ_n x_n e^(-2πi n m / N), or its inverse (with + in the exponent, and 1 / N).
///
/// Complex numbers are pairs of reals, a row being N real parts and then N imaginary ones: the weights are real, each complex number
/// a + ib of the transform a 2 x 2 block (a -b; b a). In, blocks of the row are decimated: pass decimated(rows, k). Out, order is natural.
/// Of the 2 N numbers, c k are read, the others count as 0; s p are computed: c = p is a real input, c = p / 2 one padded with as many
/// zeros, s = k gives real parts only.
///
/// This is Cooley & Tukey's step for N = k p with n = k c + i, m = p j + a: w1_i = e^(-2πi a (k c + i) / N), twiddle factors
/// included, w2_a = e^(-2πi i j / k). Angles are exact, cosines and sines those of double, then rounded to W, float or double.
///
/// Throws std::invalid_argument, naming the argument and both values.
/// Source: Dao et al. 2022, "Monarch", section 3.2 (that transforms are Monarch matrices up to a permutation).
template <class W>
void dft_monarch(const view<W, 3>& w1, const view<W, 3>& w2, bool inverse = false)
{
    static_assert(std::same_as<W, float> || std::same_as<W, double>, "seqmix: weights are float or double");
    const checker check("conv::dft_monarch");
    const named_operand first("w1", w1), second("w2", w2);
    check_given(check, first, second);
    const index k = w1.extent(0), p = w2.extent(0), size = k * p;
    check_extent(check, w1, "w1", 1, "number of rows", 2 * p, "twice w2's number of blocks");
    check_extent(check, w2, "w2", 2, "number of columns", 2 * k, "twice w1's number of blocks");
    check.require(w1.extent(2) <= 2 * p, "w1's number of columns is ", w1.extent(2), ", but at most ", 2 * p, " is meant");
    check.require(w2.extent(1) <= 2 * k, "w2's number of rows is ", w2.extent(1), ", but at most ", 2 * k, " is meant");
    check_apart(check, first, second);

    // e^(∓2πi turns / size), the real 2 x 2 block's entry: real from real and imaginary from imaginary are the cosine.
    const auto entry = [&](index turns, index to, index from, double scale) {
        const double angle = 2.0 * 3.14159265358979323846 * static_cast<double>(turns % size) / static_cast<double>(size);
        const double cosine = std::cos(angle), sine = inverse ? std::sin(angle) : -std::sin(angle);
        return static_cast<W>(scale * (to == from ? cosine : to == 0 ? -sine : sine));
    };
    for (index i = 0; i < k; ++i) {
        for (index row = 0; row < 2 * p; ++row) {
            for (index column = 0; column < w1.extent(2); ++column) {
                w1(i, row, column) = entry(row % p * (column % p * k + i), row / p, column / p, 1.0);
            }
        }
    }
    const double scale = inverse ? 1.0 / static_cast<double>(size) : 1.0;
    for (index a = 0; a < p; ++a) {
        for (index row = 0; row < w2.extent(1); ++row) {
            for (index column = 0; column < 2 * k; ++column) {
                // Between the factors, block i holds p real parts and then p imaginary ones: 2 i and 2 i + 1 of a.
                w2(a, row, column) = entry(row % k * (column / 2) % k * p, row / k, column % 2, scale);
            }
        }
    }
}

} // namespace conv
SEQMIX_NAMESPACE_END
