// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/encode_arrays.hpp>
#include <seqmix/quant/hessian.hpp>

#include <algorithm>
#include <numeric>

// GPTQ: columns are encoded one after another, and those that are left make up for the errors made.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

struct gptq_encoding {
    double damping = 0.01; ///< added to the diagonal of H, as a part of its mean
    /// [columns], written: act-order, columns by decreasing diagonal of H. Position p of codes then holds column order(p), and groups
    /// are runs of positions: see permuted_matrix. Not given: columns as they are.
    view<std::int32_t, 1> order{};
};

/// As `encode`, with codes that err less in outputs than in weights (Frantar et al. 2022, GPTQ, algorithm 1): in the order of columns
/// j, for every row,
///
///     e = (w[j] - decoded code) / C[j, j],   w[k] -= e C[j, k] for k > j,   C the upper Cholesky factor of (H + damping)⁻¹,
///
/// and the scales of a tile are chosen when its first column is reached, from weights that have been corrected so far. hessian
/// [columns, columns]: H = Xᵀ X of calibration data (accumulate_hessian), symmetric; a factor before it changes nothing. Channels
/// whose diagonal is 0 take no part in corrections. With a diagonal H the codes are encode's, bit for bit. All arithmetic in double;
/// 2/3 K³ + N K² operations for N rows of K, K² + 16 K numbers allocated (K for each row of a
/// tile, if more), one thread. Refuses what encode refuses, a hessian of
/// another shape or not finite or, with its damping, not positive definite, negative damping, an order of another length.
template <format F>
    requires(F::block == 0)
void encode_gptq(const view<const float, 2>& weights, const view<const double, 2>& hessian,
                 const view<typename F::code_type, 2>& codes, const view<typename F::scale_type, 2>& scales,
                 const encode_options<F>& options = {}, const gptq_encoding& gptq = {})
{
    const checker check("quant::encode_gptq");
    const detail::encoded_arrays<F> out(check, weights, codes, scales, options);
    const index size = weights.extent(1);
    check_given(check, hessian, "hessian");
    check_extent(check, hessian, "hessian", 0, "number of rows", size, "weights' number of columns");
    check_extent(check, hessian, "hessian", 1, "number of columns", size, "weights' number of columns");
    out.check_apart_from(check, hessian, "hessian");
    check.require(std::isfinite(gptq.damping) && gptq.damping >= 0.0, "damping is ", gptq.damping, ", but must not be negative");
    if (gptq.order) {
        check_extent(check, gptq.order, "order", 0, "length", size, "weights' number of columns");
        check.require(size <= std::numeric_limits<std::int32_t>::max(), "order has no numbers for ", size, " columns");
        out.check_apart_from(check, gptq.order, "order");
        check_apart(check, reach(gptq.order), "order", weights, "weights");
        check_apart(check, reach(gptq.order), "order", hessian, "hessian");
    }
    double trace = 0.0;
    for (index i = 0; i < size; ++i) {
        for (index j = 0; j < size; ++j) {
            check.require(std::isfinite(hessian(i, j)), "hessian has ", hessian(i, j), " at row ", i, ", column ", j);
        }
        check.require(hessian(i, i) >= 0.0, "hessian has ", hessian(i, i), " on its diagonal, at column ", i);
        trace += hessian(i, i);
    }

    std::vector<index> order(static_cast<std::size_t>(size));
    std::iota(order.begin(), order.end(), index{0});
    if (gptq.order) {
        std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return hessian(a, a) > hessian(b, b); });
    }
    const auto column_at = [&](index position) { return order[static_cast<std::size_t>(position)]; };
    std::vector<double> feedback(static_cast<std::size_t>(size * size));
    for (index i = 0; i < size; ++i) {
        for (index j = i; j < size; ++j) {
            feedback[static_cast<std::size_t>(i * size + j)] = hessian(column_at(i), column_at(j));
        }
        double& diagonal = feedback[static_cast<std::size_t>(i * size + i)];
        diagonal = diagonal > 0.0 ? diagonal + gptq.damping * (trace / static_cast<double>(size)) : 1.0;
    }
    const index failed = detail::invert_for_feedback(feedback, size);
    check.require(failed < 0, "hessian is not positive definite with damping ", gptq.damping, ": its pivot vanishes at column ",
                  failed < 0 ? failed : column_at(failed));

    out.clear();
    for (index p = 0; p < (gptq.order ? size : 0); ++p) { gptq.order(p) = static_cast<std::int32_t>(column_at(p)); }
    // Several rows, whole tiles of them, for each reading of the factor.
    const index rows = out.rows(), at_once = larger(16 / out.tall(), 1) * out.tall();
    std::vector<double> corrected(static_cast<std::size_t>(smaller(at_once, rows) * size));
    for (index top = 0; top < rows; top += at_once) {
        const index bottom = smaller(top + at_once, rows);
        const auto row_of = [&](index row) { return corrected.data() + (row - top) * size; };
        for (index row = top; row < bottom; ++row) {
            for (index p = 0; p < size; ++p) { row_of(row)[p] = static_cast<double>(weights(row, column_at(p))); }
        }
        out.each_tile(top, bottom, [&](const detail::tile_of_weights& tile) {
            detail::extent_of_group extent;
            tile.each([&](index row, index p) { extent.see(static_cast<float>(row_of(row)[p])); });
            const group_parameters<F> shared = out.reaching(extent);
            out.share(tile, shared);
            for (index p = tile.left; p < tile.right; ++p) {
                const double* const factor = feedback.data() + p * size;
                for (index row = tile.top; row < tile.bottom; ++row) {
                    double* const w = row_of(row);
                    const std::uint8_t code = out.nearest(w[p], shared);
                    const double error = w[p] - out.decoded(code, shared);
                    out.put(row, p, code);
                    for (index later = p + 1; later < size; ++later) { w[later] -= error * factor[later]; }
                }
            }
        });
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
