// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/simd/prefetch.hpp>
#include <seqmix/ssm/operands.hpp>
#include <seqmix/ssm/options.hpp>
#include <seqmix/tile/memory.hpp>
#include <seqmix/tile/reduce.hpp>

#include <type_traits>

// One token of many sequences: ssm::selective_step and ssd_step. States stand in lanes as they lie in memory, since reading and
// writing them is all the work there is; channels are taken a register at a time, so that steps and gates are computed in lanes.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// The states [channels, N] that a step reads and writes.
template <class From, class To>
struct stepped_states {
    const From* from;
    To* to;
    index from_channel, from_state, to_channel, to_state;

    bool contiguous() const { return from_state == 1 && to_state == 1; }
};
template <class FromView, class ToView>
stepped_states<std::remove_const_t<typename FromView::element>, typename ToView::element> stepped(const FromView& from, const ToView& to)
{
    return {from.data(), to.data(), from.stride(0), from.stride(1), to.stride(0), to.stride(1)};
}

/// A register of channels of one sequence through one token: h = decay(i, n, count) h + x_i B for channel first + i; gives Σ C h.
/// B and C are dense floats. Rows of few states are taken channel after channel with B and C in registers, long ones state after
/// state, as memory has them.
template <class Arch, class From, class To, class Decay>
SEQMIX_INLINE simd::f32<Arch> step_states(const stepped_states<From, To>& states_at, index first, index live, index states,
                                          const Decay& decay, simd::f32<Arch> x, const float* B, const float* C)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    const stepped_states<From, To> at = states_at;
    const From* const from = at.from + first * at.from_channel;
    To* const to = at.to + first * at.to_channel;
    alignas(64) float input[lanes];
    x.store(input);
    f32 partial[lanes]; // Σ C h of a channel, by lanes
    for (int i = 0; i < lanes; ++i) { partial[i] = f32::zero(); }
    // So many channels ahead that a page is always on its way: hardware starts anew at each.
    const index row_bytes = larger(1, states) * static_cast<index>(sizeof(From)), ahead = (4096 + row_bytes - 1) / row_bytes;
    const auto whole = [&](index i, index n, f32 b, f32 c) SEQMIX_INLINE_LAMBDA {
        const f32 h = fma(decay(i, n, lanes), f32::load(from + i * at.from_channel + n), f32::broadcast(input[i]) * b);
        h.store(to + i * at.to_channel + n);
        simd::prefetch(from + (i + ahead) * at.from_channel + n);
        partial[i] = fma(h, c, partial[i]);
    };
    index n = 0;
    if (at.contiguous() && states <= 2 * lanes) {
        for (; n + lanes <= states; n += lanes) {
            const f32 b = f32::load(B + n), c = f32::load(C + n);
            for (index i = 0; i < live; ++i) { whole(i, n, b, c); }
        }
    } else if (at.contiguous()) {
        n = states / lanes * lanes;
        for (index i = 0; i < live; ++i) {
            for (index k = 0; k < n; k += lanes) { whole(i, k, f32::load(B + k), f32::load(C + k)); }
        }
    }
    for (; n < states; n += lanes) {
        const index count = states - n;
        const f32 b = f32::load(B + n, count), c = f32::load(C + n, count);
        for (index i = 0; i < live; ++i) {
            const f32 before = tile::load_strided<Arch>(from + i * at.from_channel + n * at.from_state, at.from_state, count);
            const f32 h = fma(decay(i, n, count), before, f32::broadcast(input[i]) * b);
            tile::store_strided<Arch>(h, to + i * at.to_channel + n * at.to_state, at.to_state, count);
            alignas(64) float live_states[lanes];
            h.store(live_states); // lanes beyond the states hold an infinite input times 0
            partial[i] = fma(f32::load(live_states, count), c, partial[i]);
        }
    }
    return tile::row_sums<Arch>(partial);
}

/// The states that a step reads and writes, whichever of float and bf16 they are.
template <std::size_t Rank, class Body>
void with_states(const const_state_view<Rank>& initial, const state_view<Rank>& state, const Body& body)
{
    const const_state_view<Rank> before = initial ? initial : const_state_view<Rank>(state);
    before.visit([&](const auto& from) { state.visit([&](const auto& to) { body(from, to); }); });
}

template <class Arch, class T>
void dense_row(const view<const T, 1>& from, float* to)
{
    tile::copy_row<Arch>(from.data(), from.stride(0), from.extent(0), to);
}

template <class T, class Delta, class Out>
constexpr void check_step_types()
{
    static_assert(storage<T>, "seqmix: steps read float, bf16 or f16");
    static_assert(std::is_same_v<Delta, T> || std::is_same_v<Delta, float>, "seqmix: delta has the type of u, or float");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of u, or float");
}

} // namespace detail

/// One token of the selective scan for many sequences: what selective_scan does to it, but for rounding. u, delta, out [B, D];
/// A [D, N]; B, C [B, G, N]; options::state [B, D, N] is updated, or written from options::initial_state. Types as in
/// selective_scan; any strides, the state's are best with N contiguous. Bound by reading and writing the state.
///
/// Bit-identical for every number of threads and for every batch. NaN and infinities reach the channels that depend on them.
/// Error: that of one token in selective_scan, the sum over states in another order.
///
/// Throws std::invalid_argument, naming the argument and both values, with out and state untouched.
/// Source: Gu & Dao 2023, "Mamba", section 3.3.
template <class Arch = arch::native, class U, class Delta, class A, class B, class C, class Out>
void selective_step(const view<U, 2>& u, const view<Delta, 2>& delta, const view<A, 2>& decay_rates, const view<B, 3>& input_weights,
                    const view<C, 3>& output_weights, const view<Out, 2>& out,
                    const scan_step_options<std::remove_const_t<U>>& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    using f32 = simd::f32<Arch>;
    detail::check_step_types<T, std::remove_const_t<Delta>, Out>();
    const view<const T, 2> us = u;
    const view<const std::remove_const_t<Delta>, 2> deltas = delta;
    const view<const T, 3> b = input_weights, c = output_weights;
    const view<const float, 2> a = decay_rates;
    const index batch = u.extent(0), channels = u.extent(1), states = a.extent(1), groups = b.extent(1);

    const checker check("ssm::selective_step");
    detail::check_scan_operands(check,
                                {{"u", u}, {"delta", delta}, {"A", a}, {"B", b}, {"C", c}, {"out", out}, {"z", opt.z}, {"D", opt.D},
                                 {"delta_bias", opt.delta_bias}, {"state", opt.state}, {"initial_state", opt.initial_state}},
                                {"batch", batch, "u's"});
    check.require(bool(opt.state) || batch * channels * states == 0, "state is not given");
    if (out.empty()) { return; }

    // A block of channels' A stays in cache for all sequences; its states are one run of pages of each.
    constexpr index block = 2048;
    const index of_group = channels / groups, blocks_of_group = (of_group + block - 1) / block, blocks = groups * blocks_of_group;
    const bool soft = opt.softplus;
    arena measure;
    measure.take<float>(2 * states);
    detail::with_states(opt.initial_state, opt.state, [&](const auto& from, const auto& to) {
        ctx.for_each(blocks * batch, measure.used(), [&](index task, std::byte* memory) {
            const index item = task % batch, group = task / batch / blocks_of_group;
            const index first = group * of_group + task / batch % blocks_of_group * block;
            const index last = smaller(first + block, (group + 1) * of_group);
            float* const B_row = arena(memory).take<float>(2 * states);
            float* const C_row = B_row + states;
            detail::dense_row<Arch>(b[item][group], B_row), detail::dense_row<Arch>(c[item][group], C_row);
            const auto states_at = detail::stepped(from[item], to[item]);
            const float* const rates = a.data();
            const index rate_channel = a.stride(0), rate_state = a.stride(1);
            for (index at = first; at < last; at += f32::lanes) {
                const index live = smaller(f32::lanes, last - at);
                const auto numbers = [&](const auto& of) SEQMIX_INLINE_LAMBDA {
                    return tile::load_strided<Arch>(of.data() + at * of.stride(0), of.stride(0), live);
                };
                f32 dt = numbers(deltas[item]);
                if (opt.delta_bias) { dt = dt + numbers(opt.delta_bias); }
                if (soft) { dt = simd::softplus(dt); }
                const f32 inputs = numbers(us[item]);
                alignas(64) float exponent[f32::lanes];
                (dt * f32::broadcast(0x1.715476p+0f)).store(exponent); // exponentials are powers of two
                f32 y = detail::step_states<Arch>(
                    states_at, at, live, states,
                    [&](index i, index n, index count) SEQMIX_INLINE_LAMBDA {
                        const float* const row = rates + (at + i) * rate_channel + n * rate_state;
                        return simd::exp2(f32::broadcast(exponent[i]) * tile::load_strided<Arch>(row, rate_state, count));
                    },
                    dt * inputs, B_row, C_row);
                if (opt.D) { y = fma(numbers(opt.D), inputs, y); }
                if (opt.z) { y = y * simd::silu(numbers(opt.z[item])); }
                tile::store_strided<Arch>(y, &out(item, at), out.stride(1), live);
            }
        });
    });
}

/// One token of the state-space duality for many sequences: what ssd does to it, but for rounding. x, out [B, H, P]; dt [B, H]; A [H];
/// B, C [B, G, N]; options::state [B, H, P, N] is updated, or written from options::initial_state. Types as in ssd; any strides, the
/// state's are best with N contiguous. Bound by reading and writing the state.
///
/// Bit-identical for every number of threads and for every batch. NaN and infinities reach the outputs that depend on them.
/// Error: that of one token in ssd's recurrent form, the sum over states in another order.
///
/// Throws std::invalid_argument, naming the argument and both values, with out and state untouched.
/// Source: Dao & Gu 2024, "Transformers are SSMs", section 3.
template <class Arch = arch::native, class X, class Dt, class A, class B, class C, class Out>
void ssd_step(const view<X, 3>& x, const view<Dt, 2>& dt, const view<A, 1>& decay_rates, const view<B, 3>& input_weights,
              const view<C, 3>& output_weights, const view<Out, 3>& out, const ssd_step_options<std::remove_const_t<X>>& opt = {},
              const context_ref& ctx = {})
{
    using T = std::remove_const_t<X>;
    using f32 = simd::f32<Arch>;
    detail::check_step_types<T, std::remove_const_t<Dt>, Out>();
    const view<const T, 3> xs = x, b = input_weights, c = output_weights;
    const view<const float, 1> a = decay_rates;
    const index batch = x.extent(0), heads = x.extent(1), channels = x.extent(2), groups = b.extent(1), states = b.extent(2);

    const checker check("ssm::ssd_step");
    detail::check_ssd_operands(check,
                               {{"x", x}, {"dt", dt}, {"A", a}, {"B", b}, {"C", c}, {"out", out}, {"z", opt.z}, {"D", opt.D},
                                {"dt_bias", opt.dt_bias}, {"state", opt.state}, {"initial_state", opt.initial_state}},
                               {"batch", batch, "x's"});
    check.require(bool(opt.state) || batch * heads * channels * states == 0, "state is not given");
    if (out.empty()) { return; }

    arena measure;
    measure.take<float>(2 * states);
    detail::with_states(opt.initial_state, opt.state, [&](const auto& from, const auto& to) {
        ctx.for_each(batch * heads, measure.used(), [&](index task, std::byte* memory) {
            const index item = task / heads, head = task % heads, group = head / (heads / groups);
            float* const B_row = arena(memory).take<float>(2 * states);
            float* const C_row = B_row + states;
            detail::dense_row<Arch>(b[item][group], B_row), detail::dense_row<Arch>(c[item][group], C_row);
            const float bias = opt.dt_bias ? opt.dt_bias(head) : 0.0f, skip = opt.D ? opt.D(head) : 0.0f;
            f32 step = f32::broadcast(static_cast<float>(dt(item, head)) + bias);
            if (opt.softplus) { step = simd::softplus(step); }
            const f32 keep = simd::exp2(step * f32::broadcast(a(head) * 0x1.715476p+0f));
            const auto states_at = detail::stepped(from[item][head], to[item][head]);
            for (index at = 0; at < channels; at += f32::lanes) {
                const index live = smaller(f32::lanes, channels - at);
                const auto numbers = [&](const view<const T, 1>& of) SEQMIX_INLINE_LAMBDA {
                    return tile::load_strided<Arch>(of.data() + at * of.stride(0), of.stride(0), live);
                };
                const f32 inputs = numbers(xs[item][head]);
                f32 y = detail::step_states<Arch>(
                    states_at, at, live, states, [keep](index, index, index) SEQMIX_INLINE_LAMBDA { return keep; }, step * inputs, B_row,
                    C_row);
                if (opt.D) { y = fma(f32::broadcast(skip), inputs, y); }
                if (opt.z) { y = y * simd::silu(numbers(opt.z[item][head])); }
                tile::store_strided<Arch>(y, &out(item, head, at), out.stride(2), live);
            }
        });
    });
}

} // namespace ssm
SEQMIX_NAMESPACE_END
