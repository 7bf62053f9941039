// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/attention/forward_rows.hpp>
#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>

#include <cmath>

// The doors: attention::forward, forward_packed and forward_with.

SEQMIX_NAMESPACE_BEGIN
namespace attention {

namespace detail {

/// One batch item: what a sequence of its own looks like.
template <class T, class Out>
struct item {
    view<const T, 3> q, k, v;
    view<Out, 3> out;
    view<float, 2> lse;
    visibility sees;
};

/// Spreads items x key/value heads x blocks of rows over the workers of a context. `items` items, the longest with
/// `queries` rows; item_of(b) describes one. Tasks with the most keys (the last rows, under a causal mask) come first.
template <class Arch, class T, class Out, class Score, class Weights, class ItemOf>
void forward_items(index items, index queries, const view<const T, 3>& shape_q, const view<const T, 3>& shape_v,
                   const view<const float, 1>& sinks, const Score& score, const Weights& weights,
                   const ItemOf& item_of, const context_ref& ctx)
{
    constexpr index columns = query_panel<Arch>::columns;
    const index heads = shape_q.extent(0), kv_heads = shape_v.extent(0);
    const index key_size = shape_q.extent(2), value_size = shape_v.extent(2);
    const index heads_of_group = heads / kv_heads;
    // Long sequences start each head on a panel of its own; short ones (decoding) let heads share panels.
    const index rows_per_head = queries >= columns ? (queries + columns - 1) / columns * columns : queries;
    const index panels = (heads_of_group * rows_per_head + columns - 1) / columns;
    const index wanted = (4 * ctx.concurrency() + items * kv_heads - 1) / (items * kv_heads);
    const index block = panels_per_block<Arch>(panels, key_size, value_size, ctx.concurrency() > 1 ? wanted : 1);
    const index blocks = (panels + block - 1) / block;

    arena measure;
    static_cast<void>(row_scratch<Arch, T>(measure, block, key_size, value_size, Score::tiles));
    ctx.for_each(items * kv_heads * blocks, measure.used(), [&](index task, std::byte* memory) {
        const index b = task / kv_heads % items, kv_head = task % kv_heads, at = blocks - 1 - task / (kv_heads * items);
        const item<T, Out> one = item_of(b);
        const head_group<T, Out> group = {one.q, one.k[kv_head], one.v[kv_head], one.out,       one.lse,
                                          sinks, b,              kv_head * heads_of_group, heads_of_group, rows_per_head};
        arena carve(memory);
        row_scratch<Arch, T> scratch(carve, block, key_size, value_size, Score::tiles);
        const index first_panel = at * block;
        forward_rows(panel_block<Arch, T, Out>(group, one.sees, scratch), score, weights, first_panel * columns,
                     panels - first_panel < block ? panels - first_panel : block);
    });
}

/// Chooses the kernel from the options: the bare product under softmax, or all parts at once under either weighting (what a
/// part that is not asked for costs is a branch a register). Parts of the caller's come after the library's.
template <class Arch, class T, class Out, class ItemOf, class... Parts>
void forward_any(index items, index queries, const view<const T, 3>& shape_q, const view<const T, 3>& shape_v,
                 const options& opt, const ItemOf& item_of, const context_ref& ctx, const Parts&... parts)
{
    const index key_size = shape_q.extent(2);
    const float scale = opt.scale ? *opt.scale : key_size > 0 ? 1.0f / std::sqrt(static_cast<float>(key_size)) : 1.0f;
    const auto run = [&](const auto& score, const auto& weights) {
        forward_items<Arch, T, Out>(items, queries, shape_q, shape_v, opt.sinks, score, weights, item_of, ctx);
    };
    const score<softcapped, linear_biased, biased_and_masked, Parts...> every_part = {
        scale, {softcapped{opt.softcap}, linear_biased{opt.alibi_slopes}, biased_and_masked{opt.bias, opt.mask}, parts...}};
    const bool bare = sizeof...(Parts) == 0 && opt.weighting == weighting::softmax && opt.softcap == 0.0f &&
                      !opt.alibi_slopes && !opt.bias && !opt.mask && scale > 0.0f;
    if (!bare) {
        run(every_part, either_weights<Arch>{{1.0f}, {opt.sigmoid_bias}, opt.weighting});
    } else if constexpr (sizeof...(Parts) == 0) {
        run(score<>{scale, {}}, softmax_weights<Arch>{scale});
    }
}

/// What every door asks of its operands; `rank` 4 for [B, H, L, D], 3 for packed [T, H, D].
template <std::size_t Rank, class T, class Out>
void check_operands(const checker& check, const view<const T, Rank>& q, const view<const T, Rank>& k,
                    const view<const T, Rank>& v, const view<Out, Rank>& out, std::size_t head_axis, std::size_t time_axis,
                    const options& opt)
{
    constexpr std::size_t last = Rank - 1;
    check_given(check, q, "q"), check_given(check, k, "k"), check_given(check, v, "v"), check_given(check, out, "out");
    const index heads = q.extent(head_axis), kv_heads = k.extent(head_axis);
    check.require(heads == 0 || (kv_heads > 0 && heads % kv_heads == 0), "k has ", kv_heads,
                  " heads, which does not divide q's ", heads);
    check.equal(v.extent(head_axis), kv_heads, "v's number of heads", "k's");
    check.equal(k.extent(last), q.extent(last), "k's head size", "q's");
    check.equal(v.extent(time_axis), k.extent(time_axis), "v's length", "k's");
    check.equal(out.extent(head_axis), heads, "out's number of heads", "q's");
    check.equal(out.extent(time_axis), q.extent(time_axis), "out's length", "q's");
    check.equal(out.extent(last), v.extent(last), "out's head size", "v's");

    const auto apart = [&](const byte_range& written, const char* writer, const auto& operand, const char* name) {
        check_apart(check, written, writer, operand, name);
    };
    const auto apart_from_all = [&](const byte_range& written, const char* writer) {
        apart(written, writer, q, "q"), apart(written, writer, k, "k"), apart(written, writer, v, "v");
        apart(written, writer, opt.bias, "bias"), apart(written, writer, opt.mask, "mask");
        apart(written, writer, opt.sinks, "sinks"), apart(written, writer, opt.alibi_slopes, "alibi_slopes");
    };
    apart_from_all(reach(out), "out");
    apart_from_all(reach(opt.lse), "lse");
    apart(reach(opt.lse), "lse", out, "out");
    check.require(!(opt.softcap < 0.0f) && opt.softcap <= std::numeric_limits<float>::max(), "softcap is ",
                  static_cast<double>(opt.softcap), ", but must be finite and at least ", 0);
    check.require(!opt.scale || std::isfinite(*opt.scale), "scale is not finite");
    if (opt.alibi_slopes) { check.equal(opt.alibi_slopes.extent(0), heads, "alibi_slopes' length", "q's number of heads"); }
    if (opt.sinks) { check.equal(opt.sinks.extent(0), heads, "sinks' length", "q's number of heads"); }
    const bool sigmoid = opt.weighting == weighting::sigmoid;
    check.require(!(sigmoid && opt.sinks), "sinks are given, but sigmoid weighting has no denominator for them");
    check.require(!(sigmoid && opt.lse), "lse is given, but sigmoid weighting has no log-sum-exp");
    check.require(opt.causal != causal::offset || opt.query_offset, "causal is offset, but query_offset is not given");
    for (index b = 0; opt.query_offset && b < opt.query_offset.extent(0); ++b) {
        const index offset = opt.query_offset(b);
        check.require(offset > -visibility::unlimited && offset < visibility::unlimited, "query_offset holds ", offset,
                      ", but must lie within ±", visibility::unlimited);
    }
    check.require(!opt.query_offset || opt.causal == causal::none || opt.causal == causal::offset,
                  "query_offset is given, but causal already places the queries: use causal::offset");
}

/// The given position of a batch item's or sequence's first query, if any.
inline std::optional<index> given_offset(const options& opt, index item)
{
    if (!opt.query_offset) { return {}; }
    return opt.query_offset(opt.query_offset.extent(0) == 1 ? 0 : item);
}

/// A door's element types.
template <class Q, class K, class V, class Out>
constexpr void check_types()
{
    using T = std::remove_const_t<Q>;
    static_assert(storage<T>, "seqmix: attention reads float, bf16 or f16");
    static_assert(std::is_same_v<std::remove_const_t<K>, T> && std::is_same_v<std::remove_const_t<V>, T>,
                  "seqmix: q, k and v have one type");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of q, or float");
}

template <class Arch, class T, class Out, class... Parts>
void forward_batch(const char* door, const view<const T, 4>& q, const view<const T, 4>& k, const view<const T, 4>& v,
                   const view<Out, 4>& out, const options& opt, const context_ref& ctx, const Parts&... parts)
{
    const checker check(door);
    check_operands<4, T, Out>(check, q, k, v, out, 1, 2, opt);
    const index batch = q.extent(0), heads = q.extent(1), queries = q.extent(2), keys = k.extent(2);
    check.equal(k.extent(0), batch, "k's batch", "q's");
    check.equal(v.extent(0), batch, "v's batch", "q's");
    check.equal(out.extent(0), batch, "out's batch", "q's");
    const auto spreads = [&](const auto& operand, const char* name) {
        const std::array<index, 4> scores = {batch, heads, queries, keys};
        for (std::size_t axis = 0; operand && axis < 4; ++axis) {
            check.require(operand.extent(axis) == 1 || operand.extent(axis) == scores[axis], name, " has extent ",
                          operand.extent(axis), " on axis ", static_cast<index>(axis), ", but the scores have ", scores[axis]);
        }
    };
    spreads(opt.bias, "bias"), spreads(opt.mask, "mask");
    if (opt.lse) {
        check.equal(opt.lse.extent(0), batch, "lse's batch", "q's");
        check.equal(opt.lse.extent(1), heads, "lse's number of heads", "q's");
        check.equal(opt.lse.extent(2), queries, "lse's length", "q's");
    }
    if (opt.query_offset && opt.query_offset.extent(0) != 1) {
        check.equal(opt.query_offset.extent(0), batch, "query_offset's length", "q's batch");
    }
    if (opt.kv_lengths) {
        check.equal(opt.kv_lengths.extent(0), batch, "kv_lengths' length", "q's batch");
        for (index b = 0; b < batch; ++b) {
            check.require(opt.kv_lengths(b) >= 0 && opt.kv_lengths(b) <= keys, "kv_lengths holds ", opt.kv_lengths(b),
                          ", but k has ", keys, " keys");
        }
    }
    if (batch == 0 || heads == 0 || queries == 0) { return; }

    const auto item_of = [&](index b) {
        return item<T, Out>{q[b],
                            k[b],
                            v[b],
                            out[b],
                            opt.lse ? opt.lse[b] : view<float, 2>{},
                            visibility(opt, queries, opt.kv_lengths ? opt.kv_lengths(b) : keys, given_offset(opt, b))};
    };
    forward_any<Arch, T, Out>(batch, queries, q[0], v[0], opt, item_of, ctx, parts...);
}

} // namespace detail

/// Exact attention, tiled: out = softmax(score(scale · q kᵀ)) v, without ever storing a score matrix.
///
/// q [B, H, Lq, Dk], k [B, Hkv, Lk, Dk], v [B, Hkv, Lk, Dv], out [B, H, Lq, Dv]; float, bf16 or f16, q, k and v alike, out
/// the same type or float. Any strides; unit stride of the last axis is the fast path. H is a multiple of Hkv, and query
/// head h reads key head h / (H / Hkv). Zero sizes are legal. `options` says the rest; `ctx` who runs it, on what scratch.
/// Extra memory does not grow with Lq or Lk. Results are bit-identical for every number of threads, and for every way to
/// cut the queries of a call into several (but for bf16 products on tiles that hold NaN or infinities, where rows that see
/// none of them may be rounded otherwise).
///
/// A row that sees no key gives 0 (and lse -inf, or the sink where there is one). NaN and infinities reach the rows that
/// see them and no others.
///
/// Error against exact arithmetic on the given numbers, for float, with u = 2^-24 and s the largest |scale| · Σ|q k|:
/// |out - exact| <= u (2 Dk s + 2 Lk + 16) max|v| in the row, in practice far less. For bf16 where the instruction set
/// multiplies bf16, weights are rounded to bf16 (2^-8 relative) first; elsewhere bf16 and f16 are widened exactly and only
/// the output is rounded.
///
/// Throws std::invalid_argument, naming the argument and both values, with the output untouched.
/// Source: Dao 2023, "FlashAttention-2", algorithm 1.
template <class Arch = arch::native, class Q, class K, class V, class Out>
void forward(const view<Q, 4>& q, const view<K, 4>& k, const view<V, 4>& v, const view<Out, 4>& out,
             const options& opt = {}, const context_ref& ctx = {})
{
    detail::check_types<Q, K, V, Out>();
    detail::forward_batch<Arch, std::remove_const_t<Q>, Out>("attention::forward", q, k, v, out, opt, ctx);
}

/// The same with parts of the caller's after the options' own: each a type with `prepares_tile`, `prepare` and `apply` as
/// those in score.hpp have. A part may hide scores (-inf) and whole runs of keys (sight::hidden), which are then not touched.
template <class Arch = arch::native, class Q, class K, class V, class Out, class... Parts>
void forward_with(const std::tuple<Parts...>& parts, const view<Q, 4>& q, const view<K, 4>& k, const view<V, 4>& v,
                  const view<Out, 4>& out, const options& opt = {}, const context_ref& ctx = {})
{
    static_assert(sizeof...(Parts) > 0, "seqmix: forward_with needs a part; without one it is forward");
    detail::check_types<Q, K, V, Out>();
    std::apply(
        [&](const Parts&... part) {
            detail::forward_batch<Arch, std::remove_const_t<Q>, Out>("attention::forward_with", q, k, v, out, opt, ctx, part...);
        },
        parts);
}

/// The same for packed sequences of different lengths: q [Tq, H, Dk], k [Tk, Hkv, Dk], v [Tk, Hkv, Dv], out [Tq, H, Dv], one
/// sequence after another along the first axis. Sequence n has rows cu_queries[n] to cu_queries[n + 1] of q and out, and
/// cu_keys likewise of k and v; both start at 0, do not decrease, and end at Tq and Tk. No row sees across a border.
/// options::lse is [1, H, Tq]; options::kv_lengths and query_offset go by sequence; bias and mask are not for packed
/// sequences and are refused. Everything else is as in forward.
template <class Arch = arch::native, class Q, class K, class V, class Out>
void forward_packed(const view<Q, 3>& q, const view<K, 3>& k, const view<V, 3>& v, const view<Out, 3>& out,
                    const view<const index, 1>& cu_queries, const view<const index, 1>& cu_keys, const options& opt = {},
                    const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_types<Q, K, V, Out>();
    const checker check("attention::forward_packed");
    detail::check_operands<3, T, Out>(check, q, k, v, out, 1, 0, opt);
    check.require(!opt.bias && !opt.mask, "bias or mask is given, but packed sequences take neither");
    check_offsets(check, cu_queries, "cu_queries", q.extent(0), "q");
    check_offsets(check, cu_keys, "cu_keys", k.extent(0), "k");
    check.equal(cu_keys.extent(0), cu_queries.extent(0), "cu_keys' length", "cu_queries'");
    const index sequences = cu_queries.extent(0) - 1, heads = q.extent(1);
    index longest = 0;
    for (index n = 0; n < sequences; ++n) {
        const index rows = cu_queries(n + 1) - cu_queries(n), keys = cu_keys(n + 1) - cu_keys(n);
        longest = rows > longest ? rows : longest;
        if (opt.kv_lengths && n == 0) { check.equal(opt.kv_lengths.extent(0), sequences, "kv_lengths' length", "the number of sequences"); }
        check.require(!opt.kv_lengths || (opt.kv_lengths(n) >= 0 && opt.kv_lengths(n) <= keys), "kv_lengths holds ",
                      opt.kv_lengths ? opt.kv_lengths(n) : 0, ", but the sequence has ", keys, " keys");
    }
    if (opt.query_offset && opt.query_offset.extent(0) != 1) {
        check.equal(opt.query_offset.extent(0), sequences, "query_offset's length", "the number of sequences");
    }
    if (opt.lse) {
        check.equal(opt.lse.extent(0), 1, "lse's first extent", "the one of packed sequences");
        check.equal(opt.lse.extent(1), heads, "lse's number of heads", "q's");
        check.equal(opt.lse.extent(2), q.extent(0), "lse's length", "q's");
    }
    if (sequences == 0 || heads == 0 || longest == 0) { return; }

    const view<const T, 3> qh = view<const T, 3>(q).transposed(0, 1), kh = view<const T, 3>(k).transposed(0, 1),
                           vh = view<const T, 3>(v).transposed(0, 1);
    const view<Out, 3> outh = out.transposed(0, 1);
    const auto item_of = [&](index n) {
        const index q0 = cu_queries(n), q1 = cu_queries(n + 1), k0 = cu_keys(n), k1 = cu_keys(n + 1);
        return detail::item<T, Out>{qh.slice(1, q0, q1),
                                    kh.slice(1, k0, k1),
                                    vh.slice(1, k0, k1),
                                    outh.slice(1, q0, q1),
                                    opt.lse ? opt.lse[0].slice(1, q0, q1) : view<float, 2>{},
                                    visibility(opt, q1 - q0, opt.kv_lengths ? opt.kv_lengths(n) : k1 - k0, detail::given_offset(opt, n))};
    };
    detail::forward_any<Arch, T, Out>(sequences, longest, qh, vh, opt, item_of, ctx);
}

} // namespace attention
SEQMIX_NAMESPACE_END
