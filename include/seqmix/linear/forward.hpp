// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/state_ends.hpp>
#include <seqmix/linear/chunk.hpp>

// The doors of whole sequences: linear::forward and forward_packed.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

namespace detail {

/// Tokens of a chunk. Per token and head a chunk of q tokens costs 2 K V multiply-adds for what is carried in and out (3 K V for rules
/// that ask the state), q / 2 (K + V) for what lies inside (q (K + V)), and per chunk about 3 K V for reading and writing the state. The sum
/// is least at q = sqrt(6 K V / (K + V)), or sqrt(3 …), and flat there. Whole register tiles, and whole blocks of channel_decays.
template <class Rule>
index chunk_length(index keys, index values)
{
    const double inside = (Rule::update == update::additive ? 1.0 : 2.0) * static_cast<double>(keys + values + 1);
    const double best = std::sqrt(6.0 * static_cast<double>(keys * values) / inside);
    return static_cast<index>(24.0 * std::ceil((best < 24.0 ? 24.0 : best < 96.0 ? best : 96.0) / 24.0));
}

/// Spreads items x blocks of heads over the workers: body(item, heads_of), heads_of(sequence) being that block's heads of one. No
/// more than `most` heads are a block.
template <class Rule, class Arch, class T, class Out, class Body>
void for_each_heads(index items, index heads, index most, const chunk_sizes<Arch>& sizes, const context_ref& ctx, const Body& body)
{
    using scan = linear_heads<Rule, Arch, T, Out>;
    // As many heads as have their states in L2 together go through a chunk before the next one: what they read of a token lies
    // together. No more than leave work for everybody.
    const index bytes = sizes.state().floats() * static_cast<index>(sizeof(float));
    const index wanted = ctx.concurrency() <= 1 ? 1 : (2 * ctx.concurrency() + items - 1) / items;
    const index fit = smaller(most, tile::level2_bytes / larger(1, bytes));
    const index block = larger(1, smaller(fit, (heads + wanted - 1) / wanted));
    const index blocks = (heads + block - 1) / block;
    constexpr bool mapped = !std::is_same_v<typename Rule::features, identity_map>;
    arena measure;
    static_cast<void>(typename scan::scratch(measure, sizes, block, mapped));
    ctx.for_each(items * blocks, measure.used(), [&](index task, std::byte* memory) {
        const index first = task % blocks * block;
        arena carve(memory);
        typename scan::scratch scratch(carve, sizes, block, mapped);
        body(task / blocks, [&](const linear_sequence<Rule, T, Out>& sequence) {
            return scan(sequence, sizes, first, smaller(block, heads - first), scratch);
        });
    });
}

/// Of sequences up to `longest` tokens; `asked`: a chunk's, 0 leaves them to the cost.
template <class Rule, class Arch>
chunk_sizes<Arch> sizes_of(index asked, index longest, index size, index values, index queries)
{
    const index keys = Rule::features::features(size), chunk = asked > 0 ? asked : chunk_length<Rule>(keys, values);
    return {larger(1, smaller(chunk, longest)), size, keys, values, queries};
}

/// One sequence an item.
template <class Rule, class Arch, class T, class Out, class SequenceOf>
void linear_items(index items, index longest, index heads, index size, index values, const shared_heads& shared, const options& opt,
                  const SequenceOf& sequence_of, const context_ref& ctx)
{
    const chunk_sizes<Arch> sizes = sizes_of<Rule, Arch>(opt.chunk, longest, size, values, shared.queries);
    for_each_heads<Rule, Arch, T, Out>(items, heads, heads, sizes, ctx, [&](index item, const auto& heads_of) {
        const linear_sequence<Rule, T, Out> sequence = sequence_of(item);
        if (sequence.length() == 0) { return; } // leaves its state as it is
        auto some = heads_of(sequence);
        const state_ends<3> ends = {opt.initial_state[item], opt.state[item]};
        load_initial(some, ends);
        if (opt.normalizer) { some.load_normalizer(opt.normalizer[item]); }
        some.run(opt.form);
        store_final(some, ends);
        if (opt.normalizer) { some.store_normalizer(opt.normalizer[item]); }
    });
}

/// What any call is told besides its operands.
inline void check_numbers(const checker& check, const std::optional<float>& scale, index chunk)
{
    check.require(!scale || std::isfinite(*scale), "scale is not finite");
    check.require(chunk >= 0 && chunk <= 1024, "chunk is ", chunk, ", but must be from 0 (chosen by cost) to ", 1024);
}

/// What forward asks besides check_linear.
inline void check_options(const checker& check, const options& opt, const named_shape& state, index length)
{
    check_numbers(check, opt.scale, opt.chunk);
    if (!opt.snapshots) { return; }
    check.require(opt.snapshot_interval >= 1, "snapshot_interval is ", opt.snapshot_interval, ", but must be at least ", 1);
    check_shape(check, {"snapshots", opt.snapshots},
                state.axes[0] + named_extent{"number of snapshots", length / opt.snapshot_interval, "length / snapshot_interval"} + state.axes[1] +
                    state.axes[2] + state.axes[3]);
}

} // namespace detail

/// Linear attention by `Rule` (rules.hpp): o_t = scale · S_tᵀ φ(q_t), S being what the rule makes of the state with every token.
///
/// q [B, L, Hq, D], k [B, L, Hk, D], v [B, L, H, V], all float, bf16 or f16; out [B, L, max(Hq, H), V] of that type or float. `in` holds
/// what the rule takes besides. H states [K, V], K being the features of D numbers (D itself unless the rule is `mapped`). Hk divides H:
/// consecutive states share a key head. Hq is a multiple of H, consecutive query heads reading one state, or divides it, as Hk does.
/// Any strides; unit stride of the last axis is the fast path. `opt` says the rest; `ctx` who runs it, on what scratch. Zero sizes are legal: L = 0
/// leaves states as they are. Scratch does not grow with L.
///
/// Computed in chunks of options::chunk tokens by matrix products, or token by token (options::form). A log decay above 0 counts as 0.
/// No decay above 1 is ever computed, and nothing is divided by one. Results are bit-identical for every number of threads, and for
/// every cut of time at multiples of the chunk whose parts pass the state on in float. A snapshot ends a chunk.
///
/// NaN and infinities reach the outputs that depend on them, and no others. (A chunk with such a key, value, gate or beta is computed
/// token by token.) With delta rules, sums that overflow may reach outputs of up to five earlier tokens.
///
/// Error against exact arithmetic on the given numbers, u = 2^-24, for float, in chunks of q tokens: decays as cumulated_decays and
/// channel_decays say; products (K + q + 8) u of their absolute values, the state (q + 8) u a chunk, which is then carried on decayed;
/// what delta rules write (K + q + 8) u times the solution of the triangular system of absolute values (Higham 2002, theorem 8.5).
/// Token by token: as recurrent_token. Where the instruction set multiplies bf16, operands of the products with the state, and of
/// the weights with the values, are rounded to it (2^-8 relative); products between rows, what is solved, and the state are float.
/// The output is rounded to its type.
///
/// Throws std::invalid_argument, naming the argument and both values, with outputs untouched.
/// Source: the rules' papers, see rules.hpp; the chunkwise form's, see chunk.hpp.
template <class Rule, class Arch = arch::native, class Q, class K, class V, class Out>
void forward(const view<Q, 4>& q, const view<K, 4>& k, const view<V, 4>& v, const typename Rule::template inputs<std::remove_const_t<Q>>& in,
             const view<Out, 4>& out, const options& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_linear_types<Q, K, V, Out>();
    const view<const T, 4> queries = q, keys = k, values = v;
    const checker check("linear::forward");
    const named_extent items = {"batch", v.extent(0), "v's"};
    const shared_heads shared = detail::check_linear(
        check,
        {{"q", queries}, {"k", keys}, {"v", values}, {"out", out}, {"state", opt.state}, {"initial_state", opt.initial_state},
         {"normalizer", opt.normalizer}, {"snapshots", opt.snapshots}},
        detail::operands_of<Rule>(in, k.extent(3)), opt.normalize, items);
    detail::check_options(check, opt, detail::state_shape<Rule>(items, k.extent(3), v.extent(2), v.extent(3)), v.extent(1));
    if (v.extent(0) * v.extent(1) * v.extent(2) == 0) { return; }
    detail::linear_items<Rule, Arch, T, Out>(
        v.extent(0), v.extent(1), v.extent(2), k.extent(3), v.extent(3), shared, opt,
        [&](index item) {
            const auto part = [&](const auto& operand) { return operand.slice(0, item, item + 1); };
            return linear_sequence<Rule, T, Out>{part(queries), part(keys), part(values), detail::inputs_of<Rule, T>(in, part), part(out), shared,
                                                 detail::scale_of(opt.scale, k.extent(3)), opt.accumulate, opt.normalize, tile::store_of(out),
                                                 opt.snapshots ? opt.snapshots[item] : view<float, 4>{}, opt.snapshot_interval};
        },
        ctx);
}

/// The same for packed sequences of different lengths: q, k, v, out [T, heads, size] and `in`, without the axis of sequences, hold one
/// sequence after another; sequence n has tokens cu_seqlens[n] to cu_seqlens[n + 1] (from 0, not decreasing, to T), and row n of
/// options::state, initial_state and normalizer. No token sees across a border, and chunks start with their sequence. Snapshots are
/// refused. Everything else is as in forward.
template <class Rule, class Arch = arch::native, class Q, class K, class V, class Out>
void forward_packed(const view<Q, 3>& q, const view<K, 3>& k, const view<V, 3>& v,
                    const typename Rule::template inputs<std::remove_const_t<Q>, 1>& in, const view<Out, 3>& out,
                    const view<const index, 1>& cu_seqlens, const options& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_linear_types<Q, K, V, Out>();
    const view<const T, 3> queries = q, keys = k, values = v;
    const checker check("linear::forward_packed");
    check_offsets(check, cu_seqlens, "cu_seqlens", v.extent(0), "v");
    const index sequences = cu_seqlens.extent(0) - 1;
    const named_operand written("out", out);
    const named_extent items = {"batch", sequences, "the number of sequences"};
    const shared_heads shared = detail::check_linear(
        check,
        {{"q", queries}, {"k", keys}, {"v", values}, written, {"state", opt.state}, {"initial_state", opt.initial_state},
         {"normalizer", opt.normalizer}, {"snapshots", opt.snapshots}},
        detail::operands_of<Rule>(in, k.extent(2)), opt.normalize, items);
    for (const named_operand& writes : {written, named_operand("state", opt.state), named_operand("normalizer", opt.normalizer)}) {
        check_apart(check, writes, named_operand("cu_seqlens", cu_seqlens));
    }
    check.require(!opt.snapshots, "snapshots are not for packed sequences");
    detail::check_options(check, opt, {}, v.extent(0));
    if (v.extent(0) * v.extent(1) == 0) { return; }
    index longest = 0;
    for (index n = 0; n < sequences; ++n) { longest = larger(longest, cu_seqlens(n + 1) - cu_seqlens(n)); }
    detail::linear_items<Rule, Arch, T, Out>(
        sequences, longest, v.extent(1), k.extent(2), v.extent(2), shared, opt,
        [&](index item) {
            const auto part = [&](const auto& operand) { return with_leading_axis(operand.slice(0, cu_seqlens(item), cu_seqlens(item + 1))); };
            return linear_sequence<Rule, T, Out>{part(queries), part(keys), part(values), detail::inputs_of<Rule, T>(in, part), part(out), shared,
                                                 detail::scale_of(opt.scale, k.extent(2)), opt.accumulate, opt.normalize, tile::store_of(out),
                                                 view<float, 4>{}, opt.snapshot_interval};
        },
        ctx);
}

} // namespace linear
SEQMIX_NAMESPACE_END
