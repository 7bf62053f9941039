// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/format.hpp>

#include <cmath>
#include <vector>

// How the error of a row of weights becomes an error of outputs: |X e|² = eᵀ H e, H = Xᵀ X.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

template <storage T>
void check_finite_activations(const checker& check, const view<const T, 2>& x)
{
    for (index row = 0; row < x.extent(0); ++row) {
        for (index column = 0; column < x.extent(1); ++column) {
            const float number = static_cast<float>(x(row, column));
            check.require(std::isfinite(number), "x has ", static_cast<double>(number), " at row ", row, ", column ", column);
        }
    }
}

/// The strict upper triangle of T [size, size] with H⁻¹ = Tᵀ D⁻¹ T, T of unit diagonal: row j is row j of the Cholesky factor of
/// H⁻¹ over its diagonal, which is what GPTQ multiplies errors by. It comes without an inverse of H: H = V D Vᵀ with V upper and of
/// unit diagonal, by elimination from the last column, and T = V⁻¹. 2/3 size³ operations, half of them for V.
/// `matrix` holds the upper triangle of H, row after row, and receives T's. Returns the column whose pivot is not positive, but for
/// rounding; -1: none.
inline index invert_for_feedback(std::vector<double>& matrix, index size)
{
    const auto row_of = [&](index row) { return matrix.data() + row * size; };
    std::vector<double> line(static_cast<std::size_t>(size)), diagonal(line);
    for (index i = 0; i < size; ++i) { diagonal[static_cast<std::size_t>(i)] = row_of(i)[i]; }
    double* const v = line.data();
    for (index k = size; k-- > 0;) {
        const double pivot = row_of(k)[k];
        if (!(pivot > static_cast<double>(size) * 0x1p-52 * diagonal[static_cast<std::size_t>(k)])) { return k; }
        for (index i = 0; i < k; ++i) { v[i] = row_of(i)[k] / pivot; }
        for (index i = 0; i < k; ++i) {
            double* const row = row_of(i);
            const double factor = row[k];
            row[k] = v[i];
            for (index j = i; j < k; ++j) { row[j] -= factor * v[j]; }
        }
    }
    for (index i = size; i-- > 0;) { // from V to T, the rows below done
        double* const row = row_of(i);
        for (index j = i + 1; j < size; ++j) { v[j] = row[j], row[j] = -row[j]; }
        for (index k = i + 1; k < size; ++k) {
            const double* const done = row_of(k);
            for (index j = k + 1; j < size; ++j) { row[j] -= v[k] * done[j]; }
        }
    }
    return -1;
}

} // namespace detail

/// hessian [K, K] += Xᵀ X of calibration data x [M, K], float, bf16 or f16: one batch after another, from zeros. Its diagonal over
/// the number of rows is the mean square of each channel. Exactly symmetric if it was. Any strides; M K² operations in double, one
/// thread. Refuses shapes that do not fit, null, memory that overlaps, x that is not finite.
template <class T>
void accumulate_hessian(const view<T, 2>& x, const view<double, 2>& hessian)
{
    using X = std::remove_const_t<T>;
    static_assert(storage<X>);
    const checker check("quant::accumulate_hessian");
    check_given(check, x, "x"), check_given(check, hessian, "hessian");
    check_extent(check, hessian, "hessian", 0, "number of rows", x.extent(1), "x's number of columns");
    check_extent(check, hessian, "hessian", 1, "number of columns", x.extent(1), "x's number of columns");
    check_apart(check, reach(hessian), "hessian", x, "x");
    detail::check_finite_activations<X>(check, x);
    const index size = x.extent(1);
    std::vector<double> row(static_cast<std::size_t>(size));
    for (index m = 0; m < x.extent(0); ++m) {
        for (index k = 0; k < size; ++k) { row[static_cast<std::size_t>(k)] = static_cast<double>(static_cast<float>(x(m, k))); }
        for (index i = 0; i < size; ++i) {
            const double at = row[static_cast<std::size_t>(i)];
            for (index j = 0; j < size; ++j) { hessian(i, j) += at * row[static_cast<std::size_t>(j)]; }
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
