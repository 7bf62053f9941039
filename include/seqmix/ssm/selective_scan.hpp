// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/time_segments.hpp>
#include <seqmix/ssm/operands.hpp>
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
    const scan_blocking<Arch> sizes(channels_contiguous, of_group, states, group_blocks::wanted(ctx.concurrency(), items, groups));
    const group_blocks cut = {items, groups, of_group, sizes.channels};
    arena measure;
    static_cast<void>(scan_scratch<Arch>(measure, sizes, states));
    run_in_segments(ctx, cut.pieces(), segments, scan_scratch<Arch>::carried(sizes.channels, states), measure.used(),
                    [&](index task, std::byte* memory, const auto& body) {
                        const auto [item, first, count] = cut[task];
                        arena carve(memory);
                        const scan_scratch<Arch> scratch(carve, sizes, states);
                        const scan_sequence<T, Delta, Out> sequence = sequence_of(item);
                        if (sequence.tokens() == 0) { return; } // leaves its state as it is
                        scan one(sequence, sizes, first, count, scratch);
                        body(one, sequence.tokens(), ends_of(item));
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
    const named_operand state("state", opt.state), initial_state("initial_state", opt.initial_state), snapshots("snapshots", opt.snapshots);
    const scan_operands o = {{"u", u}, {"delta", delta}, {"A", A},         {"B", B}, {"C", C}, {"out", out},
                             {"z", opt.z}, {"D", opt.D}, {"delta_bias", opt.delta_bias}, state, initial_state};
    check_scan_operands(check, o, {"batch", items, "the number of sequences"});
    check.require(opt.snapshot_interval >= 1, "snapshot_interval is ", opt.snapshot_interval, ", but must be at least ", 1);
    check.require(opt.time_segments >= 1 && opt.time_segments <= 4096, "time_segments is ", opt.time_segments, ", but must be from 1 to ", 4096);
    if (opt.snapshots) {
        check.equal(opt.snapshots.extent(0), u.extent(0), "snapshots' batch", "u's");
        check.equal(opt.snapshots.extent(1), u.extent(2) / opt.snapshot_interval, "snapshots' number", "length / snapshot_interval");
        check.equal(opt.snapshots.extent(2), u.extent(1), "snapshots's number of channels", "u's");
        check.equal(opt.snapshots.extent(3), A.extent(1), "snapshots's number of states", "A's");
    }
    check_decay(check, A, opt.decay);
    check_apart(check, snapshots, o.u, o.delta, o.A, o.B, o.C, o.z, o.D, o.delta_bias, initial_state, o.out, state);
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
