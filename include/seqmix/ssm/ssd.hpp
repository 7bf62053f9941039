// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/state_ends.hpp>
#include <seqmix/ssm/blocking.hpp>
#include <seqmix/ssm/operands.hpp>
#include <seqmix/ssm/ssd_chunk.hpp>

#include <cmath>

// The doors: ssm::ssd and ssd_packed.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

namespace detail {

/// Tokens of a chunk. Per token and head a chunk of q tokens costs N P multiply-adds for what is carried in and N P for what is
/// carried out, (q / 2) P for what lies inside and (q / 2) N / (heads of the group) for its scores; and per chunk about 3 N P for
/// reading and writing the state. The sum of what depends on q is least at q = sqrt(6 N P / (P + N / heads)). Whole tiles of rows.
template <class Arch>
index chunk_length(index heads_of_group, index channels, index states)
{
    constexpr double rows = tile::small_blocking<Arch>::rows;
    const double per_token = static_cast<double>(channels) + static_cast<double>(states) / static_cast<double>(larger(heads_of_group, 1));
    const double best = std::sqrt(6.0 * static_cast<double>(states * channels) / (per_token + 1.0));
    return static_cast<index>(rows * std::ceil((best < 12.0 ? 12.0 : best < 96.0 ? best : 96.0) / rows));
}

/// Spreads items x groups x blocks of heads over the workers.
template <class Arch, class T, class Dt, class Out, class SequenceOf>
void ssd_items(index items, index longest, index heads, index groups, index channels, index states, const ssd_options<T>& opt,
               const SequenceOf& sequence_of, const context_ref& ctx)
{
    using scan = ssd_heads<Arch, T, Dt, Out>;
    const index of_group = heads / groups;
    const index asked = opt.chunk > 0 ? opt.chunk : chunk_length<Arch>(of_group, channels, states);
    const ssd_sizes<Arch> sizes = {larger(1, smaller(asked, longest)), states, channels};
    // As many heads as have their states in L2 together share the products of B and C; no more than leave work for everybody.
    const index bytes = sizes.state().floats() * static_cast<index>(sizeof(float));
    const index wanted = group_blocks::wanted(ctx.concurrency(), items, groups);
    const index block = larger(1, smaller(tile::level2_bytes / larger(1, bytes), (of_group + wanted - 1) / wanted));
    const group_blocks cut = {items, groups, of_group, block};
    arena measure;
    static_cast<void>(typename scan::scratch(measure, sizes, block));
    ctx.for_each(cut.pieces(), measure.used(), [&](index task, std::byte* memory) {
        const auto [item, first, count] = cut[task];
        const ssd_sequence<T, Dt, Out> sequence = sequence_of(item);
        const index length = sequence.x.extent(0);
        if (length == 0) { return; } // leaves its state as it is
        arena carve(memory);
        const typename scan::scratch scratch(carve, sizes, block);
        scan some(sequence, sizes, first, count, scratch);
        const state_ends<3> ends = {opt.initial_state[item], opt.state[item]};
        load_initial(some, ends);
        some.run(opt.form);
        store_final(some, ends);
    });
}

/// A door's element types.
template <class X, class Dt, class B, class C, class Out>
constexpr void check_ssd_types()
{
    using T = std::remove_const_t<X>;
    static_assert(storage<T>, "seqmix: ssd reads float, bf16 or f16");
    static_assert(std::is_same_v<std::remove_const_t<B>, T> && std::is_same_v<std::remove_const_t<C>, T>,
                  "seqmix: x, B and C have one type");
    static_assert(std::is_same_v<std::remove_const_t<Dt>, T> || std::is_same_v<std::remove_const_t<Dt>, float>,
                  "seqmix: dt has the type of x, or float");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of x, or float");
}

/// What every door of the duality asks; `items` sequences have states.
template <class T, class Dt, class Out>
void check_ssd(const checker& check, const view<const T, 4>& x, const view<const Dt, 3>& dt, const view<const float, 1>& A,
               const view<const T, 4>& B, const view<const T, 4>& C, const view<Out, 4>& out, const ssd_options<T>& opt, index items)
{
    check_ssd_operands(check,
                       {{"x", x}, {"dt", dt}, {"A", A}, {"B", B}, {"C", C}, {"out", out}, {"z", opt.z}, {"D", opt.D},
                        {"dt_bias", opt.dt_bias}, {"state", opt.state}, {"initial_state", opt.initial_state}},
                       {"batch", items, "the number of sequences"});
    check.require(opt.chunk >= 0 && opt.chunk <= 1024, "chunk is ", opt.chunk, ", but must be from 0 (chosen by cost) to ", 1024);
}

} // namespace detail

/// The state-space duality of Mamba-2: with dt' = softplus(dt + dt_bias) as far as asked for, for every batch item and head
///
///     h_t = exp(dt'_t A) h_{t-1} + dt'_t x_t ⊗ B_t        y_t = h_t C_t + D x_t        out_t = y_t silu(z_t)
///
/// x, out [B, L, H, P]; dt [B, L, H]; A [H] with dt' A <= 0 (decays, no growth); B, C [B, L, G, N], G dividing H: consecutive heads share a group. x, B, C
/// float, bf16 or f16, all alike; dt and out the same or float. Any strides; unit stride of the last axis is the fast path.
/// `options` says the rest; `ctx` who runs it, on what scratch. Zero sizes are legal: L = 0 leaves the state as it is. Scratch does
/// not grow with L.
///
/// Computed in chunks of options::chunk tokens by matrix products, or token by token (options::form). Only differences of
/// cumulated log decays are exponentiated, and none is above 0; nothing is divided by a decay. Results are bit-identical for every
/// number of threads, and for every cut of time at multiples of the chunk whose parts pass the state on in float.
///
/// NaN and infinities reach the outputs that depend on them, and no others. (A chunk with such an x is computed token by token.)
///
/// Error against exact arithmetic on the given numbers, with u = 2^-24, for float; that of dt' as in selective_scan. Token by token: as
/// in selective_scan. In chunks of q tokens: each decay between two tokens (4 + 2 |log decay|) u, |log decay| times that of the dt' in
/// between, and (2^-46 + q 2^-53) times what the chunk has cumulated (below 2^-100 a decay is 0); sums (N + q + 8) u of their absolute
/// values, the state (q + 8) u a chunk, which is then carried on decayed. Where the instruction set multiplies bf16, bf16 operands of
/// the products are rounded to it (2^-8 relative): weights C·B exp(…) dt, inputs weighted for the state, and the state as it is read;
/// their sums, 2 u a term, and the state that is carried are float, and subnormals may be flushed. Elsewhere bf16 and f16 are widened
/// exactly. The output is rounded to its type.
///
/// Throws std::invalid_argument, naming the argument and both values, with outputs untouched.
/// Source: Dao & Gu 2024, "Transformers are SSMs", equation 16 and section 6.
template <class Arch = arch::native, class X, class Dt, class A, class B, class C, class Out>
void ssd(const view<X, 4>& x, const view<Dt, 3>& dt, const view<A, 1>& decay_rates, const view<B, 4>& input_weights,
         const view<C, 4>& output_weights, const view<Out, 4>& out, const ssd_options<std::remove_const_t<X>>& opt = {},
         const context_ref& ctx = {})
{
    using T = std::remove_const_t<X>;
    using D = std::remove_const_t<Dt>;
    detail::check_ssd_types<X, Dt, B, C, Out>();
    const view<const T, 4> inputs = x, b = input_weights, c = output_weights;
    const view<const D, 3> steps = dt;
    const view<const float, 1> a = decay_rates;
    detail::check_ssd<T, D, Out>(checker("ssm::ssd"), inputs, steps, a, b, c, out, opt, x.extent(0));
    if (out.empty()) { return; }
    detail::ssd_items<Arch, T, D, Out>(
        x.extent(0), x.extent(1), x.extent(2), b.extent(2), x.extent(3), b.extent(3), opt,
        [&](index item) {
            return ssd_sequence<T, D, Out>{inputs[item], steps[item], a, b[item], c[item], opt.z ? opt.z[item] : view<const T, 3>{},
                                           out[item], opt.D, opt.dt_bias, opt.softplus, tile::store_of(out)};
        },
        ctx);
}

/// The same for packed sequences of different lengths: x, out [T, H, P], dt [T, H] and B, C [T, G, N] hold one sequence after
/// another; sequence n has tokens cu_seqlens[n] to cu_seqlens[n + 1] (from 0, not decreasing, to T), z [1, T, H, P], and row n of
/// options::state and initial_state, [sequences, H, P, N]. No token sees across a border, and chunks start with their sequence.
/// Everything else is as in ssd.
template <class Arch = arch::native, class X, class Dt, class A, class B, class C, class Out>
void ssd_packed(const view<X, 3>& x, const view<Dt, 2>& dt, const view<A, 1>& decay_rates, const view<B, 3>& input_weights,
                const view<C, 3>& output_weights, const view<Out, 3>& out, const view<const index, 1>& cu_seqlens,
                const ssd_options<std::remove_const_t<X>>& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<X>;
    using D = std::remove_const_t<Dt>;
    detail::check_ssd_types<X, Dt, B, C, Out>();
    const view<const T, 3> inputs = x, b = input_weights, c = output_weights;
    const view<const D, 2> steps = dt;
    const view<const float, 1> a = decay_rates;
    const checker check("ssm::ssd_packed");
    check_offsets(check, cu_seqlens, "cu_seqlens", x.extent(0), "x");
    check_apart(check, reach(out), "out", cu_seqlens, "cu_seqlens");
    check_apart(check, reach(opt.state), "state", cu_seqlens, "cu_seqlens");
    const index sequences = cu_seqlens.extent(0) - 1;
    detail::check_ssd<T, D, Out>(check, with_leading_axis(inputs), with_leading_axis(steps), a, with_leading_axis(b),
                                 with_leading_axis(c), with_leading_axis(out), opt, sequences);
    if (out.empty()) { return; }
    index longest = 0;
    for (index n = 0; n < sequences; ++n) { longest = larger(longest, cu_seqlens(n + 1) - cu_seqlens(n)); }
    detail::ssd_items<Arch, T, D, Out>(
        sequences, longest, x.extent(1), b.extent(1), x.extent(2), b.extent(2), opt,
        [&](index item) {
            const auto part = [&](const auto& v) { return v.slice(0, cu_seqlens(item), cu_seqlens(item + 1)); };
            return ssd_sequence<T, D, Out>{part(inputs), part(steps), a, part(b), part(c), opt.z ? part(opt.z[0]) : view<const T, 3>{},
                                           part(out), opt.D, opt.dt_bias, opt.softplus, tile::store_of(out)};
        },
        ctx);
}

} // namespace ssm
SEQMIX_NAMESPACE_END
