// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>

#include <cmath>
#include <concepts>

// Dense matrices to Monarch form, in double. Names no instruction set: it is done once a matrix.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

namespace detail {

/// One-sided Jacobi: turns `columns` columns of `rows` numbers each, one after another in `g`, until they are orthogonal; v, as many
/// columns of `columns` numbers, is what they were multiplied with. Then g's columns are u σ, v's are v. Converges for any matrix,
/// zero and repeated singular values among them; each sweep costs 3 rows columns² multiply-adds, and some ten are enough.
/// (Hestenes 1958; Demmel & Veselić 1992, algorithm 4.1.)
inline void jacobi(double* g, double* v, index rows, index columns)
{
    constexpr int most_sweeps = 60; // only NaN gets there
    for (index i = 0; i < columns * columns; ++i) { v[i] = i / columns == i % columns ? 1.0 : 0.0; }
    for (int sweep = 0; sweep < most_sweeps; ++sweep) {
        bool turned = false;
        for (index a = 0; a < columns; ++a) {
            for (index b = a + 1; b < columns; ++b) {
                double* const x = g + a * rows;
                double* const y = g + b * rows;
                double xx = 0.0, yy = 0.0, xy = 0.0;
                for (index i = 0; i < rows; ++i) { xx += x[i] * x[i], yy += y[i] * y[i], xy += x[i] * y[i]; }
                if (!(std::fabs(xy) > 1e-15 * std::sqrt(xx) * std::sqrt(yy))) { continue; }
                turned = true;
                const double zeta = (yy - xx) / (2.0 * xy);
                const double tangent = (zeta < 0.0 ? -1.0 : 1.0) / (std::fabs(zeta) + std::sqrt(1.0 + zeta * zeta));
                const double cosine = 1.0 / std::sqrt(1.0 + tangent * tangent), sine = cosine * tangent;
                const auto turn = [&](double* p, double* q, index count) {
                    for (index i = 0; i < count; ++i) {
                        const double from = p[i];
                        p[i] = cosine * from - sine * q[i];
                        q[i] = sine * from + cosine * q[i];
                    }
                };
                turn(x, y, rows), turn(v + a * columns, v + b * columns, columns);
            }
        }
        if (!turned) { return; }
    }
}

template <class T>
double to_double(T x)
{
    if constexpr (std::floating_point<T>) {
        return static_cast<double>(x);
    } else {
        return static_cast<double>(static_cast<float>(x));
    }
}

} // namespace detail

/// The Monarch matrix nearest to a dense one: w1, w2 such that the sum of squares of `dense` minus their product is least.
///
/// dense [l s, k p], float, double, bf16 or f16; w1 [k, q, p], w2 [l, s, r] with l r = k q, float or double, written. Any strides. Zero
/// sizes are legal.
///
/// Rows j l + i and columns of block n of the matrix, [s, p] for every i and n, are a sum of outer products of a column of w2's block i
/// with a row of w1's block n: of as many as numbers between the two factors belong to both blocks, which is one where q = l, and no two such sums
/// share a number. So each is a truncated singular value decomposition (Eckart & Young 1936) of its own; each of the two vectors gets the
/// root of the singular value. Computed in double: the product is the nearest but for some 2^-50 of the largest number of the part, then the rounding of w1
/// and w2. NaN and infinities stay in their part. About 30 s p min(s, p) multiply-adds a part; parts are shared by the threads, whose
/// number changes no result.
///
/// Throws std::invalid_argument, naming the argument and both values, with w1 and w2 untouched.
/// Source: Dao et al. 2022, "Monarch: Expressive Structured Matrices for Efficient and Accurate Training", section 3.3 and algorithm 1.
template <class D, class W>
void project_monarch(const view<D, 2>& dense, const view<W, 3>& w1, const view<W, 3>& w2, const context_ref& ctx = {})
{
    static_assert(std::same_as<W, float> || std::same_as<W, double>, "seqmix: weights are float or double");
    const checker check("conv::project_monarch");
    const named_operand from("dense", dense), first("w1", w1), second("w2", w2);
    check_given(check, from, first, second);
    const index k = w1.extent(0), q = w1.extent(1), p = w1.extent(2), l = w2.extent(0), s = w2.extent(1), r = w2.extent(2);
    check.equal(l * r, k * q, "the number of w2's inputs, l r,", "that of w1's outputs, k q,");
    check_shape(check, from, named_extent{"number of rows", l * s, "w2's l s"} + named_extent{"number of columns", k * p, "w1's k p"});
    check_apart(check, first, from, second), check_apart(check, second, from);

    const bool turned = p > s; // the shorter side is orthogonalised
    const index columns = turned ? s : p, rows = turned ? p : s;
    arena measure;
    static_cast<void>(measure.take<double>(columns * rows)), static_cast<void>(measure.take<double>(columns * columns));
    ctx.for_each(k * l, measure.used(), [&](index task, std::byte* memory) {
        const index n = task / l, i = task % l;
        const index first_of_part = (i - n * q % l + l) % l; // the first a with (n q + a) mod l = i
        if (first_of_part >= q) { return; }
        arena carve(memory);
        double* const g = carve.take<double>(columns * rows);
        double* const v = carve.take<double>(columns * columns);
        double largest = 0.0;
        for (index j = 0; j < s; ++j) {
            for (index c = 0; c < p; ++c) {
                const double x = detail::to_double(dense(j * l + i, n * p + c));
                (turned ? g[j * rows + c] : g[c * rows + j]) = x;
                if (std::fabs(x) > largest) { largest = std::fabs(x); }
            }
        }
        // So that squares neither overflow nor vanish.
        const double scale = largest > 0.0 && std::isfinite(largest) ? largest : 1.0;
        for (index e = 0; e < columns * rows; ++e) { g[e] /= scale; }
        detail::jacobi(g, v, rows, columns);
        const auto square = [&](index column) {
            double sum = 0.0;
            for (index e = 0; e < rows; ++e) { sum += g[column * rows + e] * g[column * rows + e]; }
            return sum;
        };
        for (index a = first_of_part; a < q; a += l) {
            index best = -1;
            double most = 0.0;
            for (index column = 0; column < columns; ++column) {
                const double now = square(column);
                if (!(now <= most)) { best = column, most = now; } // NaN counts as most
                if (std::isnan(now)) { break; }
            }
            const double sigma = std::sqrt(most), root = std::sqrt(sigma) * std::sqrt(scale);
            double* const u_sigma = best < 0 ? nullptr : g + best * rows;
            const double* const along = best < 0 ? nullptr : v + best * columns;
            const auto left = [&](index e) { return best < 0 ? 0.0 : u_sigma[e] / sigma * root; };
            const auto right = [&](index e) { return best < 0 ? 0.0 : along[e] * root; };
            for (index c = 0; c < p; ++c) { w1(n, a, c) = static_cast<W>(turned ? left(c) : right(c)); }
            for (index j = 0; j < s; ++j) { w2(i, j, (n * q + a) / l) = static_cast<W>(turned ? right(j) : left(j)); }
            for (index e = 0; best >= 0 && e < rows; ++e) { u_sigma[e] = 0.0; } // taken
        }
    });
}

} // namespace conv
SEQMIX_NAMESPACE_END
