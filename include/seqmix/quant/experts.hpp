// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/matmul.hpp>

#include <iterator>
#include <limits>

// Products of mixtures of experts: each row meets the weights of its expert (Shazeer et al. 2017, "Outrageously large neural
// networks"). From the router's choice: sort_by_expert, products, combine_experts.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// Which rows meet which expert: those of expert 0, then those of expert 1, …
struct expert_rows {
    view<const std::int32_t, 1> counts{}; ///< [E] rows of each; 0 is legal
    view<const std::int32_t, 1> rows{};   ///< [sum of counts] the row of x that each takes, as often as one likes; not given: 0, 1, …
};

/// out [total, N] = activation(x · W[e]ᵀ + bias[e]) + residual, row i for its expert e and its row of x [M, K]; total is the sum
/// of the counts. `weights`: a vector, span or array of packed matrices [N, K], one an expert, all of one format, group and
/// shape; their orders of columns may differ. bias [E, N], residual [total, N]. All else as in matmul; a row of out is what
/// matmul gives for its row of x alone, bit for bit. Experts without rows cost nothing. Refuses also counts below 0 or of another
/// sum, and rows that x does not have.
template <class Arch = arch::native, class T, class Weights, class Out>
void expert_matmul(const view<T, 2>& x, const Weights& weights, const expert_rows& which, const view<Out, 2>& out,
                   const expert_options& opt = {}, const context_ref& ctx = {})
{
    const checker check("quant::expert_matmul");
    const auto experts = static_cast<index>(std::size(weights));
    check_given(check, which.counts, "counts");
    check_extent(check, which.counts, "counts", 0, "length", experts, "the number of experts");
    detail::multiply<Arch>(check, x, std::data(weights), experts, which.counts, which.rows, out, opt, ctx);
}

/// out [total, N] = activation(x · gate[e]ᵀ + gate_bias[e]) · (x · up[e]ᵀ + up_bias[e]) + residual: gated_matmul of experts.
template <class Arch = arch::native, class T, class Weights, class Out>
void gated_expert_matmul(const view<T, 2>& x, const Weights& gate, const Weights& up, const expert_rows& which,
                         const view<Out, 2>& out, const gated_expert_options& opt = {}, const context_ref& ctx = {})
{
    const checker check("quant::gated_expert_matmul");
    const auto experts = static_cast<index>(std::size(gate));
    check.equal(static_cast<index>(std::size(up)), experts, "up's number of experts", "gate's");
    check_given(check, which.counts, "counts");
    check_extent(check, which.counts, "counts", 0, "length", experts, "the number of experts");
    detail::multiply_gated<Arch>(check, x, std::data(gate), std::data(up), experts, which.counts, which.rows, out, opt, ctx);
}

/// From a router's choice: chosen [tokens, k] numbers of experts, negative for none. counts [E] receives how many rows each
/// expert has, rows [tokens · k] the token of each row, grouped by expert and in the order of tokens, and places [tokens, k]
/// where each choice stands among the rows, -1 for none. Returns the number of rows; what is behind in `rows` stays as it is.
/// Refuses experts that there are not.
inline index sort_by_expert(const view<const std::int32_t, 2>& chosen, const view<std::int32_t, 1>& counts,
                            const view<std::int32_t, 1>& rows, const view<std::int32_t, 2>& places)
{
    const checker check("quant::sort_by_expert");
    const index tokens = chosen.extent(0), each = chosen.extent(1), experts = counts.extent(0);
    check_given(check, chosen, "chosen"), check_given(check, counts, "counts"), check_given(check, rows, "rows"),
        check_given(check, places, "places");
    check.require(chosen.size() <= std::numeric_limits<std::int32_t>::max(), "chosen has too many elements: ", chosen.size());
    check_extent(check, rows, "rows", 0, "length", chosen.size(), "chosen's number of elements");
    check_extent(check, places, "places", 0, "number of rows", tokens, "chosen's");
    check_extent(check, places, "places", 1, "number of columns", each, "chosen's");
    check_apart(check, reach(counts), "counts", chosen, "chosen"), check_apart(check, reach(counts), "counts", rows, "rows");
    check_apart(check, reach(rows), "rows", chosen, "chosen"), check_apart(check, reach(rows), "rows", places, "places");
    check_apart(check, reach(places), "places", chosen, "chosen"), check_apart(check, reach(places), "places", counts, "counts");
    for (index t = 0; t < tokens; ++t) {
        for (index j = 0; j < each; ++j) {
            check.require(chosen(t, j) < experts, "chosen has expert ", index{chosen(t, j)}, " at row ", t, ", column ", j,
                          ", but counts has ", experts, " experts");
        }
    }
    const auto each_choice = [&](const auto& body) {
        for (index t = 0; t < tokens; ++t) {
            for (index j = 0; j < each; ++j) { body(t, j, index{chosen(t, j)}); }
        }
    };
    for (index e = 0; e < experts; ++e) { counts(e) = 0; }
    each_choice([&](index t, index j, index e) { places(t, j) = e < 0 ? -1 : counts(e)++; }); // within the expert
    std::int32_t total = 0;
    for (index e = 0; e < experts; ++e) { // until rows are placed, each expert's first row
        const std::int32_t count = counts(e);
        counts(e) = total, total += count;
    }
    each_choice([&](index t, index j, index e) {
        if (e < 0) { return; }
        places(t, j) += counts(e);
        rows(places(t, j)) = static_cast<std::int32_t>(t);
    });
    for (index e = 0; e < experts; ++e) { counts(e) = (e + 1 < experts ? counts(e + 1) : total) - counts(e); }
    return total;
}

/// out [tokens, N] = residual + Σ_j weights[t, j] · y[places[t, j]], in the order of j whatever that of the rows: what experts
/// did to each token, weighted by its router. y [total, N] and out float, bf16 or f16; places [tokens, k] as of sort_by_expert,
/// -1 is left out; weights [tokens, k]; residual may be out. Error: (k + 1) u Σ|weights · y|, u = 2^-24. Refuses places that y
/// does not have.
template <class Arch = arch::native, class T, class Out>
void combine_experts(const view<T, 2>& y, const view<const std::int32_t, 2>& places, const view<const float, 2>& weights,
                     const view<Out, 2>& out, const view<const float, 2>& residual = {}, const context_ref& ctx = {})
{
    static_assert(storage<std::remove_const_t<T>> && storage<Out>, "seqmix: combine_experts reads and writes float, bf16 or f16");
    using f32 = simd::f32<Arch>;
    const checker check("quant::combine_experts");
    const index tokens = places.extent(0), each = places.extent(1), columns = y.extent(1);
    check_given(check, y, "y"), check_given(check, places, "places"), check_given(check, weights, "weights"),
        check_given(check, out, "out");
    check_extent(check, weights, "weights", 0, "number of rows", tokens, "places'");
    check_extent(check, weights, "weights", 1, "number of columns", each, "places'");
    check_extent(check, out, "out", 0, "number of rows", tokens, "places'");
    check_extent(check, out, "out", 1, "number of columns", columns, "y's");
    check_apart(check, reach(out), "out", y, "y"), check_apart(check, reach(out), "out", places, "places");
    check_apart(check, reach(out), "out", weights, "weights");
    detail::check_residual(check, residual, out, tokens, "places'", "y's number of columns");
    for (index t = 0; t < tokens; ++t) {
        for (index j = 0; j < each; ++j) {
            check.require(places(t, j) < y.extent(0), "places has ", index{places(t, j)}, " at row ", t, ", column ", j,
                          ", but y has ", y.extent(0), " rows");
        }
    }
    ctx.for_each(columns > 0 ? tokens : 0, 0, [&](index t, std::byte*) {
        for (index c = 0; c < columns; c += f32::lanes) {
            const index n = smaller(columns - c, f32::lanes);
            f32 sum = residual ? tile::load_strided<Arch>(&residual(t, c), residual.stride(1), n) : f32::zero();
            for (index j = 0; j < each; ++j) {
                if (places(t, j) < 0) { continue; }
                sum = fma(f32::broadcast(weights(t, j)), tile::load_strided<Arch>(&y(places(t, j), c), y.stride(1), n), sum);
            }
            tile::store_strided<Arch>(sum, &out(t, c), out.stride(1), n);
        }
    });
}

} // namespace quant
SEQMIX_NAMESPACE_END
