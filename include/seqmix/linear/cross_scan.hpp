// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/scan_order.hpp>
#include <seqmix/linear/forward.hpp>

#include <initializer_list>

// Linear attention in several directions, summed: both ways along a sequence, up to four ways over an image (ViG). Queries, keys and
// values are shared, gates are a direction's own. A direction is another way to walk the same memory: nothing is flipped, transposed
// or copied.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// One direction over an image: what the rule takes besides, laid out as the image is (not in the order of the walk). [B, H, W] stand
/// where rules.hpp has B and L. T is the type of q.
template <class Rule, class T>
struct scan_route {
    scan_order order = scan_order::rows;
    typename Rule::template inputs<T, 3> in{};
};

/// What all directions of a call share.
struct cross_scan_options {
    std::optional<float> scale{}; ///< of the queries; default 1 / sqrt(K before the feature map)
    seqmix::form form = seqmix::form::automatic;
    index chunk = 0;              ///< tokens of a chunk; 0: chosen by cost
    bool accumulate = false;      ///< out += the sum
};

namespace detail {

/// out = Σ over routes. All views are images [B, height, width, …], checked. A block of heads goes through all routes.
template <class Rule, class Arch, class T, class Out>
void sum_routes(const view<const T, 5>& q, const view<const T, 5>& k, const view<const T, 5>& v, std::initializer_list<scan_route<Rule, T>> routes,
                const view<Out, 5>& out, const shared_heads& shared, const cross_scan_options& opt, const context_ref& ctx)
{
    if (v.extent(0) * v.extent(1) * v.extent(2) * v.extent(3) == 0) { return; }
    const index items = v.extent(0), tokens = v.extent(1) * v.extent(2), heads = v.extent(3), size = k.extent(4), values = v.extent(4);
    const chunk_sizes<Arch> sizes = sizes_of<Rule, Arch>(opt.chunk, tokens, size, values, shared.queries);
    // So few heads that what they read and write stays in L2 from route to route, if one head's does.
    const index bytes = tokens * ((shared.queries + 1) * (size * static_cast<index>(sizeof(T)) + values * static_cast<index>(sizeof(Out))));
    const index stay = tile::level2_bytes / larger(1, bytes);
    for_each_heads<Rule, Arch, T, Out>(items, heads, stay > 0 ? stay : heads, sizes, ctx, [&](index item, const auto& heads_of) {
        bool accumulate = opt.accumulate;
        for (const scan_route<Rule, T>& route : routes) {
            const auto along = [&](const auto& image) { return joined(walked(image[item], route.order, 0)); };
            const linear_sequence<Rule, T, Out> walk = {along(q), along(k), along(v), inputs_of<Rule, T>(route.in, along), along(out), shared,
                                                        scale_of(opt.scale, size), accumulate, false, tile::store::kept, {}, 1};
            auto some = heads_of(walk);
            some.start_from_zero();
            some.run(opt.form);
            accumulate = true;
        }
    });
}

/// [B, L, …] as images of one row.
template <class T, std::size_t Rank>
view<T, Rank + 1> as_row(const view<T, Rank>& sequences)
{
    return with_leading_axis(sequences).transposed(0, 1);
}

} // namespace detail

/// out = Σ over routes of linear attention by `Rule` along each: every pixel reads, along every route, itself and the pixels before it.
/// (So a pixel's own k vᵀ counts once for each route.)
///
/// q [B, height, width, Hq, D], k [.., .., .., Hk, D], v [.., .., .., H, V], out [.., .., .., max(Hq, H), V]. A walk is one sequence of
/// height · width tokens: its state goes on from line to line, and so do its chunks. States start from zeros and are not kept. Types,
/// heads, strides, errors and error bounds as in forward; the sum is taken in the order of the routes, rounded to out's type in between
/// (let out be float, where q is not, to have it rounded once). There is no `normalize`: a quotient of sums is not a sum of quotients;
/// give v another channel of ones, and divide by what comes out of it.
///
/// A block of heads goes through all its routes before the next one, so that what it reads and writes comes from cache from the second
/// route on while it fits. Where one stride leads through all of a walk (rows of a dense image) its bits are those of forward.
///
/// Bit-identical for every number of threads. Throws std::invalid_argument, naming the route's number where it is about one.
/// Source: Liao et al. 2024, "ViG: Linear-complexity Visual Sequence Learning with Gated Linear Attention", section 3.
template <class Rule, class Arch = arch::native, class Q, class K, class V, class Out>
void cross_scan(const view<Q, 5>& q, const view<K, 5>& k, const view<V, 5>& v,
                std::initializer_list<scan_route<Rule, std::remove_const_t<Q>>> routes, const view<Out, 5>& out, const cross_scan_options& opt = {},
                const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_linear_types<Q, K, V, Out>();
    const view<const T, 5> queries = q, keys = k, values = v;
    const checker check("linear::cross_scan");
    check.require(routes.size() > 0, "routes are empty");
    const named_operand written = {"out", out};
    const detail::linear_shape shape = detail::check_rows(check, {"q", queries}, {"k", keys}, {"v", values}, written, {"batch", "height", "width"},
                                                          Rule::features::features(k.extent(4)));
    index number = 0;
    for (const scan_route<Rule, T>& route : routes) {
        detail::check_inputs(check.of("route", number++), detail::operands_of<Rule>(route.in, k.extent(4)), shape, {written});
    }
    detail::check_numbers(check, opt.scale, opt.chunk);
    detail::sum_routes<Rule, Arch, T, Out>(queries, keys, values, routes, out, shape.shared, opt, ctx);
}

/// Both ways along sequences: out = linear attention by `Rule` from the first token on, by the gates `ahead`, plus the same from the
/// last token back, by the gates `back` (both in the order of memory; they may be the same). Every token counts in both directions.
/// q, k, v, out, `ahead` and `back` as forward's; everything else as in cross_scan, for an image of one row.
template <class Rule, class Arch = arch::native, class Q, class K, class V, class Out>
void bidirectional(const view<Q, 4>& q, const view<K, 4>& k, const view<V, 4>& v, const typename Rule::template inputs<std::remove_const_t<Q>>& ahead,
                   const typename Rule::template inputs<std::remove_const_t<Q>>& back, const view<Out, 4>& out, const cross_scan_options& opt = {},
                   const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_linear_types<Q, K, V, Out>();
    const view<const T, 4> queries = q, keys = k, values = v;
    const checker check("linear::bidirectional");
    const named_operand written = {"out", out};
    const detail::linear_shape shape = detail::check_rows(check, {"q", queries}, {"k", keys}, {"v", values}, written, {"batch", "length"},
                                                          Rule::features::features(k.extent(3)));
    detail::check_inputs(check.of("ahead"), detail::operands_of<Rule>(ahead, k.extent(3)), shape, {written});
    detail::check_inputs(check.of("back"), detail::operands_of<Rule>(back, k.extent(3)), shape, {written});
    detail::check_numbers(check, opt.scale, opt.chunk);
    const auto row = [](const auto& operand) { return detail::as_row(operand); };
    detail::sum_routes<Rule, Arch, T, Out>(row(queries), row(keys), row(values),
                                           {{scan_order::rows, detail::inputs_of<Rule, T, 3>(ahead, row)},
                                            {scan_order::rows_reversed, detail::inputs_of<Rule, T, 3>(back, row)}},
                                           row(out), shape.shared, opt, ctx);
}

} // namespace linear
SEQMIX_NAMESPACE_END
