// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/core/state_ends.hpp>
#include <seqmix/ssm/scan_channels.hpp>

// The doors: ssm::selective_scan and selective_scan_packed.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

namespace detail {

/// Spreads items x blocks of channels (none of which crosses a group's border) over the workers. `sequence_of(item)` and
/// `ends_of(item)` describe one.
template <class Arch, class T, class Delta, class Out, class SequenceOf, class EndsOf>
void scan_items(index items, index channels, index groups, index states, bool channels_contiguous, index segments,
                const SequenceOf& sequence_of, const EndsOf& ends_of, const context_ref& ctx)
{
    using scan = channel_scan<Arch, T, Delta, Out>;
    const index of_group = channels / groups;
    const index wanted = ctx.concurrency() <= 1 ? 1 : (2 * ctx.concurrency() + items * groups - 1) / (items * groups);
    const scan_blocking<Arch> sizes(channels_contiguous, of_group, states, wanted);
    const index width = sizes.channels;
    const index blocks_of_group = (of_group + width - 1) / width, blocks = groups * blocks_of_group;
    const auto on_block = [&](index task, std::byte* memory, const auto& body) {
        const index item = task / blocks, group = task % blocks / blocks_of_group, first = task % blocks_of_group * width;
        arena carve(memory);
        const scan_scratch<Arch> scratch(carve, sizes, states);
        const scan_sequence<T, Delta, Out> sequence = sequence_of(item);
        if (sequence.tokens() == 0) { return; } // leaves its state as it is
        scan one(sequence, sizes, group * of_group + first, smaller(width, of_group - first), scratch);
        body(one, sequence.tokens(), ends_of(item), scratch);
    };
    arena measure;
    static_cast<void>(scan_scratch<Arch>(measure, sizes, states));
    if (segments <= 1) {
        ctx.for_each(items * blocks, measure.used(), [&](index task, std::byte* memory) {
            on_block(task, memory, [](scan& one, index tokens, const state_ends<2>& ends, const auto&) {
                load_initial(one, ends);
                one.run(0, tokens);
                store_final(one, ends);
            });
        });
        return;
    }
    // Cut along time: what every segment leaves if it begins with zeros (the first begins as it should, and is done with); from
    // these, in order, what stands at the borders; then every other segment with outputs.
    const index carried = scan_scratch<Arch>::carried(width, states), tasks = items * blocks;
    const std::size_t shared = static_cast<std::size_t>(tasks * segments * carried) * sizeof(float);
    ctx.in_phases(tasks * segments, measure.used(), shared, [&](std::byte* memory, const auto& phase) {
        const auto border = [&](index task, index segment) {
            return reinterpret_cast<float*>(memory) + (task * segments + segment) * carried;
        };
        const auto copy = [&](const float* from, float* to) {
            for (index i = 0; i < carried; ++i) { to[i] = from[i]; }
        };
        const auto begin = [&](index tokens, index segment) { return tokens / segments * segment + smaller(tokens % segments, segment); };
        phase(tasks * segments, [&](index at, std::byte* own) {
            const index task = at / segments, segment = at % segments;
            on_block(task, own, [&](scan& one, index tokens, const state_ends<2>& ends, const auto& scratch) {
                segment == 0 ? load_initial(one, ends) : one.start_from_zero();
                one.keep_time();
                one.run(begin(tokens, segment), begin(tokens, segment + 1), segment == 0);
                copy(scratch.h.data, border(task, segment));
            });
        });
        phase(tasks, [&](index task, std::byte* own) {
            on_block(task, own, [&](scan& one, index tokens, const state_ends<2>&, const auto& scratch) {
                for (index segment = 1; segment < segments; ++segment) {
                    const bool empty = begin(tokens, segment) == begin(tokens, segment + 1);
                    copy(border(task, segment), scratch.h.data);
                    if (!empty) { one.add_decayed(border(task, segment - 1)); }
                    copy(empty ? border(task, segment - 1) : scratch.h.data, border(task, segment));
                }
            });
        });
        phase(tasks * (segments - 1), [&](index at, std::byte* own) {
            const index task = at / (segments - 1), segment = at % (segments - 1) + 1;
            on_block(task, own, [&](scan& one, index tokens, const state_ends<2>& ends, const auto& scratch) {
                copy(border(task, segment - 1), scratch.h.data);
                one.run(begin(tokens, segment), begin(tokens, segment + 1));
                if (segment == segments - 1) { store_final(one, ends); }
            });
        });
    });
}

/// A door's element types.
template <class U, class Delta, class B, class C, class Out>
constexpr void check_scan_types()
{
    using T = std::remove_const_t<U>;
    static_assert(storage<T>, "seqmix: selective_scan reads float, bf16 or f16");
    static_assert(std::is_same_v<std::remove_const_t<B>, T> && std::is_same_v<std::remove_const_t<C>, T>,
                  "seqmix: u, B and C have one type");
    static_assert(std::is_same_v<std::remove_const_t<Delta>, T> || std::is_same_v<std::remove_const_t<Delta>, float>,
                  "seqmix: delta has the type of u, or float");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of u, or float");
}

/// That A is what the caller says it is.
inline void check_decay(const checker& check, const view<const float, 2>& A, decay known)
{
    for (index d = 0; known == decay::s4d_real && d < A.extent(0); ++d) {
        for (index n = 0; n < A.extent(1); ++n) {
            check.require(A(d, n) == -static_cast<float>(n + 1), "decay is s4d_real, but A holds ", static_cast<double>(A(d, n)),
                          " for state ", n, " of channel ", d, ", not ", -(n + 1));
        }
    }
}

/// What every door of the scan asks of [items, channels, length] operands and their options. `u_name` and so on as the door has
/// them; `items` sequences have states.
template <class T, class Delta, class Out>
void check_scan(const checker& check, const view<const T, 3>& u, const view<const Delta, 3>& delta, const view<const float, 2>& A,
                const view<const T, 4>& B, const view<const T, 4>& C, const view<Out, 3>& out, const scan_options<T>& opt,
                index items)
{
    check_given(check, u, "u"), check_given(check, delta, "delta"), check_given(check, A, "A"), check_given(check, B, "B");
    check_given(check, C, "C"), check_given(check, out, "out");
    const index batch = u.extent(0), channels = u.extent(1), length = u.extent(2), states = A.extent(1), groups = B.extent(1);
    const auto of_u = [&](const auto& operand, const char* name) {
        check_extent(check, operand, name, 0, "batch", batch, "u's");
        check_extent(check, operand, name, 1, "number of channels", channels, "u's");
        check_extent(check, operand, name, 2, "length", length, "u's");
    };
    of_u(delta, "delta"), of_u(out, "out");
    check_extent(check, A, "A", 0, "number of channels", channels, "u's");
    const auto coefficients = [&](const auto& operand, const char* name) {
        check_extent(check, operand, name, 0, "batch", batch, "u's");
        check_extent(check, operand, name, 1, "number of groups", groups, "B's");
        check_extent(check, operand, name, 2, "number of states", states, "A's");
        check_extent(check, operand, name, 3, "length", length, "u's");
    };
    coefficients(B, "B"), coefficients(C, "C");
    check.require(channels == 0 || (groups > 0 && channels % groups == 0), "B has ", groups, " groups, which does not divide u's ",
                  channels, " channels");
    if (opt.z) { of_u(opt.z, "z"); }
    if (opt.D) { check_extent(check, opt.D, "D", 0, "length", channels, "u's number of channels"); }
    if (opt.delta_bias) { check_extent(check, opt.delta_bias, "delta_bias", 0, "length", channels, "u's number of channels"); }
    const auto states_of = [&](const auto& operand, const char* name, std::size_t first) {
        check.require(operand.extent(first) == channels, name, "'s number of channels is ", operand.extent(first), ", but u's is ", channels);
        check.require(operand.extent(first + 1) == states, name, "'s number of states is ", operand.extent(first + 1), ", but A's is ", states);
    };
    if (opt.state) {
        check.equal(opt.state.extent(0), items, "state's batch", "the number of sequences");
        states_of(opt.state, "state", 1);
    }
    if (opt.initial_state) {
        check.equal(opt.initial_state.extent(0), items, "initial_state's batch", "the number of sequences");
        states_of(opt.initial_state, "initial_state", 1);
    }
    check.require(opt.snapshot_interval >= 1, "snapshot_interval is ", opt.snapshot_interval, ", but must be at least ", 1);
    check.require(opt.time_segments >= 1 && opt.time_segments <= 4096, "time_segments is ", opt.time_segments, ", but must be from 1 to ", 4096);
    if (opt.snapshots) {
        check.equal(opt.snapshots.extent(0), batch, "snapshots' batch", "u's");
        check.equal(opt.snapshots.extent(1), length / opt.snapshot_interval, "snapshots' number", "length / snapshot_interval");
        states_of(opt.snapshots, "snapshots", 2);
    }
    check_decay(check, A, opt.decay);
    const auto apart = [&](const auto& written, const char* writer) {
        const byte_range reached = reach(written);
        check_apart(check, reached, writer, u, "u"), check_apart(check, reached, writer, delta, "delta");
        check_apart(check, reached, writer, A, "A"), check_apart(check, reached, writer, B, "B");
        check_apart(check, reached, writer, C, "C"), check_apart(check, reached, writer, opt.z, "z");
        check_apart(check, reached, writer, opt.D, "D"), check_apart(check, reached, writer, opt.delta_bias, "delta_bias");
        check_apart(check, reached, writer, opt.initial_state, "initial_state");
    };
    apart(out, "out"), apart(opt.state, "state"), apart(opt.snapshots, "snapshots");
    check_apart(check, reach(opt.state), "state", out, "out");
    check_apart(check, reach(opt.snapshots), "snapshots", out, "out");
    check_apart(check, reach(opt.snapshots), "snapshots", opt.state, "state");
}

/// A sequence of one time axis as the kernel wants it, with that axis' direction done.
template <class T, std::size_t Rank>
view<T, Rank + 1> with_outer_time(const view<T, Rank>& v, direction way)
{
    const view<T, Rank> run = way == direction::reverse ? v.reversed(Rank - 1) : v;
    std::array<index, Rank + 1> extents{}, strides{};
    for (std::size_t axis = 0; axis < Rank; ++axis) {
        const std::size_t to = axis + 1 < Rank ? axis : Rank;
        extents[to] = run.extent(axis), strides[to] = run.stride(axis);
    }
    extents[Rank - 1] = 1;
    return {run.data(), extents, strides};
}

/// Operands [D, L] and [G, N, L] of one sequence.
template <class T, class Delta, class Out>
scan_sequence<T, Delta, Out> sequence_of(tile::store how, const view<const T, 2>& u, const view<const Delta, 2>& delta, const view<const float, 2>& A,
                                         const view<const T, 3>& B, const view<const T, 3>& C, const view<Out, 2>& out,
                                         const view<const T, 2>& z, const view<float, 3>& snapshots, const scan_options<T>& opt)
{
    const direction way = opt.direction;
    return {with_outer_time(u, way), with_outer_time(delta, way), A, with_outer_time(B, way), with_outer_time(C, way),
            z ? with_outer_time(z, way) : view<const T, 3>{}, with_outer_time(out, way), opt.D, opt.delta_bias, opt.softplus,
            opt.decay, opt.accumulate, opt.accumulate ? tile::store::kept : how, false, snapshots, opt.snapshot_interval};
}

} // namespace detail

/// The selective scan of Mamba, in one pass: with delta' = softplus(delta + delta_bias) as far as asked for,
///
///     h_t = exp(delta'_t A) h_{t-1} + delta'_t u_t B_t        y_t = C_t · h_t + D u_t        out_t = y_t silu(z_t)
///
/// for every batch item and channel. u, delta, out [B, D, L]; A [D, N]; B, C [B, G, N, L], G dividing D: consecutive channels
/// share a group. u, B, C float, bf16 or f16, all alike; delta and out the same or float; A float, usually negative. Any
/// strides; fast where time or channels are contiguous, alike: channel-last operands [B, L, D] are views with other strides.
/// `options` says the rest; `ctx` who runs it, on what scratch. Zero sizes are legal: L = 0 leaves the state as it is. Nothing
/// of size L · D · N is stored; scratch does not grow with L. Results are bit-identical for every number of threads, and
/// for every cut of time whose parts pass the state on in float.
///
/// NaN and infinities reach the outputs of their channel from their token on (those in B and C: of all channels of the group),
/// and no others.
///
/// Error against exact arithmetic on the given numbers, with u = 2^-24, for float. Relative errors of one token:
///   - of delta': 0, or with a bias 1 u of its sum, which for softplus at x = delta + bias is (4.2 + |x| σ(x) / softplus(x)) u;
///   - of a decay: (4 + 2.3 |delta' A|) u and |delta' A| times that of delta'; for s4d_real, state n (from 0) being a power,
///     (4.3 (n + 1) + 3 + 1.3 |delta' A|) u;
///   - of what enters the state: 2 u and that of delta'.
/// A state carries these decayed, as it does what they came from, and 1 u of itself a token: errors are bounded by what the state
/// remembers, not by L. y adds (N + 2) u (Σ|C h| + |D u|), z 5 u and accumulate 1 u. With time_segments each border adds
/// (4 + (2.3 + n) |A| Σ|delta'|) u of the decayed state before it, n being the tokens of the segment. Below 2^-126 each rounding
/// is 2^-150. bf16 and f16 are widened exactly, and only the output is rounded.
///
/// Throws std::invalid_argument, naming the argument and both values, with outputs untouched.
/// Source: Gu & Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", algorithm 2 and section 3.3.
template <class Arch = arch::native, class U, class Delta, class A, class B, class C, class Out>
void selective_scan(const view<U, 3>& u, const view<Delta, 3>& delta, const view<A, 2>& decay_rates, const view<B, 4>& input_weights,
                    const view<C, 4>& output_weights, const view<Out, 3>& out,
                    const scan_options<std::remove_const_t<U>>& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    using D = std::remove_const_t<Delta>;
    detail::check_scan_types<U, Delta, B, C, Out>();
    const view<const T, 3> inputs = u;
    const view<const D, 3> steps = delta;
    const view<const float, 2> a = decay_rates;
    const view<const T, 4> b = input_weights, c = output_weights;
    detail::check_scan<T, D, Out>(checker("ssm::selective_scan"), inputs, steps, a, b, c, out, opt, u.extent(0));
    if (out.empty()) { return; }
    detail::scan_items<Arch, T, D, Out>(
        u.extent(0), u.extent(1), b.extent(1), a.extent(1), u.stride(1) == 1 && u.stride(2) != 1, opt.time_segments,
        [&](index item) {
            return detail::sequence_of<T, D, Out>(tile::store_of(out), inputs[item], steps[item], a, b[item], c[item], out[item],
                                                  opt.z ? opt.z[item] : view<const T, 2>{},
                                                  opt.snapshots ? opt.snapshots[item] : view<float, 3>{}, opt);
        },
        [&](index item) {
            return state_ends<2>{opt.initial_state[item], opt.state[item]};
        },
        ctx);
}

/// The same for packed sequences of different lengths: u, delta, out [D, T] and B, C [G, N, T] hold one sequence after another;
/// sequence n has tokens cu_seqlens[n] to cu_seqlens[n + 1] (from 0, not decreasing, to T), z [1, D, T], and row n of
/// options::state and initial_state, [sequences, D, N]. No token sees across a border. Snapshots are for single sequences and
/// are refused. Everything else is as in selective_scan.
template <class Arch = arch::native, class U, class Delta, class A, class B, class C, class Out>
void selective_scan_packed(const view<U, 2>& u, const view<Delta, 2>& delta, const view<A, 2>& decay_rates,
                           const view<B, 3>& input_weights, const view<C, 3>& output_weights, const view<Out, 2>& out,
                           const view<const index, 1>& cu_seqlens, const scan_options<std::remove_const_t<U>>& opt = {},
                           const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    using D = std::remove_const_t<Delta>;
    detail::check_scan_types<U, Delta, B, C, Out>();
    const view<const T, 2> inputs = u;
    const view<const D, 2> steps = delta;
    const view<const float, 2> a = decay_rates;
    const view<const T, 3> b = input_weights, c = output_weights;
    const checker check("ssm::selective_scan_packed");
    check_offsets(check, cu_seqlens, "cu_seqlens", u.extent(1), "u");
    check_apart(check, reach(out), "out", cu_seqlens, "cu_seqlens");
    check_apart(check, reach(opt.state), "state", cu_seqlens, "cu_seqlens");
    check.require(!opt.snapshots, "snapshots are given, but packed sequences take none");
    const index sequences = cu_seqlens.extent(0) - 1;
    detail::check_scan<T, D, Out>(check, with_leading_axis(inputs), with_leading_axis(steps), a, with_leading_axis(b),
                                  with_leading_axis(c), with_leading_axis(out), opt, sequences);
    if (out.empty()) { return; }
    detail::scan_items<Arch, T, D, Out>(
        sequences, u.extent(0), b.extent(0), a.extent(1), u.stride(0) == 1 && u.stride(1) != 1, opt.time_segments,
        [&](index item) {
            const auto part = [&](const auto& v, std::size_t time) { return v.slice(time, cu_seqlens(item), cu_seqlens(item + 1)); };
            return detail::sequence_of<T, D, Out>(tile::store_of(out), part(inputs, 1), part(steps, 1), a, part(b, 2), part(c, 2), part(out, 1),
                                                  opt.z ? part(opt.z[0], 1) : view<const T, 2>{}, view<float, 3>{}, opt);
        },
        [&](index item) {
            return state_ends<2>{opt.initial_state[item], opt.state[item]};
        },
        ctx);
}

} // namespace ssm
SEQMIX_NAMESPACE_END
