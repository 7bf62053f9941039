// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/ssm/conv1d_tasks.hpp>

// The doors: ssm::causal_conv1d, causal_conv1d_packed and causal_conv1d_step.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

namespace detail {

/// A door's element types.
template <class X, class Out>
constexpr void check_conv1d_types()
{
    using T = std::remove_const_t<X>;
    static_assert(storage<T>, "seqmix: causal_conv1d reads float, bf16 or f16");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of x, or float");
}

/// What every door asks of its operands; `channel_axis` is that of x and out.
template <std::size_t Rank, class X, class Out>
void check_conv1d(const checker& check, const view<const X, Rank>& x, const view<const float, 2>& weight,
                  const view<Out, Rank>& out, const conv1d_options& opt, std::size_t channel_axis)
{
    check_given(check, x, "x"), check_given(check, weight, "weight"), check_given(check, out, "out");
    const index channels = x.extent(channel_axis), width = weight.extent(1);
    check_extent(check, weight, "weight", 0, "number of channels", channels, "x's");
    check.require(width >= 1, "weight's width is ", width, ", but must be at least ", 1);
    check_extent(check, out, "out", channel_axis, "number of channels", channels, "x's");
    if (opt.bias) { check.equal(opt.bias.extent(0), channels, "bias' length", "x's number of channels"); }
    const auto apart_from_inputs = [&](const byte_range& written, const char* writer) {
        check_apart(check, written, writer, x, "x");
        check_apart(check, written, writer, weight, "weight");
        check_apart(check, written, writer, opt.bias, "bias");
    };
    apart_from_inputs(reach(out), "out");
    apart_from_inputs(reach(opt.state), "state");
    check_apart(check, reach(opt.state), "state", out, "out");
}

/// state [sequences, D, W - 1], if given.
inline void check_conv1d_state(const checker& check, const state_view<3>& state, index sequences, const char* of_sequences,
                               index channels, index width)
{
    if (!state) { return; }
    check.equal(state.extent(0), sequences, "state's number of sequences", of_sequences);
    check.equal(state.extent(1), channels, "state's number of channels", "x's");
    check.equal(state.extent(2), width - 1, "state's length", "weight's width - 1");
}

template <class Arch, class X, class Out>
void convolve_batch(const char* door, const view<const X, 3>& x, const view<const float, 2>& weight,
                    const view<Out, 3>& out, const conv1d_options& opt, const context_ref& ctx)
{
    const checker check(door);
    check_conv1d<3>(check, x, weight, out, opt, 1);
    const index batch = x.extent(0), length = x.extent(2);
    check_extent(check, out, "out", 0, "batch", batch, "x's");
    check_extent(check, out, "out", 2, "length", length, "x's");
    check_conv1d_state(check, opt.state, batch, "x's batch", x.extent(1), weight.extent(1));
    convolve<Arch>(conv1d_sequences<X, Out>{x, out, opt.state}, {weight, opt.bias, opt.activation}, ctx);
}

} // namespace detail

/// Causal depthwise convolution, the short one in front of a selective scan:
///   out[b, d, t] = act(bias[d] + Σ_k weight[d, k] x[b, d, t - (W - 1) + k]), k < W,
/// where inputs before t = 0 are the state's, or zero.
///
/// x [B, D, L] float, bf16 or f16; weight [D, W], W >= 1, tap W - 1 meets the token itself; out [B, D, L] of x's type or
/// float. `options`: bias [D]; activation; state [B, D, W - 1], float or bf16: the inputs before the first token, the
/// latest last, replaced by the last W - 1 inputs that have been seen (fewer tokens than that shift it, none leave it
/// alone). Any strides. Fast are unit stride of time (channel-first) and unit stride of channels (channel-last, [B, L, D]
/// in memory, time running either way); other layouts are gathered a channel at a time. Zero sizes are legal. out and
/// state must not overlap anything else that is given. Large results are written past the caches (tile::streamed_bytes).
/// Scratch depends on W, and on D up to some thousand channels, not on B or L.
///
/// Results are bit-identical for every number of threads, every layout, and every way to cut a sequence into calls, steps
/// among them, as long as the state holds the inputs exactly (a bf16 state rounds float and f16 inputs, 2^-8 relative).
/// NaN and infinities reach the W outputs of their channel that see them and no others.
///
/// Error against exact arithmetic on the given numbers, with u = 2^-24: |sum - exact| <= (W + 2) u (|bias| + Σ|weight x|)
/// before the activation (W fused multiply-adds round once each); SiLU, whose slope is below 1.1, adds 3.35 ulp of its
/// result. bf16 and f16 results are rounded once more.
///
/// Throws std::invalid_argument, naming the argument and both values, with out and state untouched.
/// Source: Gu & Dao 2023, "Mamba", section 3.4 and figure 3 (the convolution of the block).
template <class Arch = arch::native, class X, class Out>
void causal_conv1d(const view<X, 3>& x, const view<const float, 2>& weight, const view<Out, 3>& out,
                   const conv1d_options& options = {}, const context_ref& ctx = {})
{
    detail::check_conv1d_types<X, Out>();
    detail::convolve_batch<Arch, std::remove_const_t<X>, Out>("ssm::causal_conv1d", x, weight, out, options, ctx);
}

/// The same for packed sequences of different lengths: x and out [D, T], one sequence after another along time; sequence n
/// has tokens cu_seqlens[n] to cu_seqlens[n + 1], offsets that start at 0, do not decrease, and end at T. No token sees
/// across a border. options::state is [S, D, W - 1], S the number of sequences. Everything else as in causal_conv1d.
template <class Arch = arch::native, class X, class Out>
void causal_conv1d_packed(const view<X, 2>& x, const view<const float, 2>& weight, const view<Out, 2>& out,
                          const view<const index, 1>& cu_seqlens, const conv1d_options& options = {},
                          const context_ref& ctx = {})
{
    using T = std::remove_const_t<X>;
    detail::check_conv1d_types<X, Out>();
    const checker check("ssm::causal_conv1d_packed");
    const view<const T, 2> in = x;
    detail::check_conv1d<2>(check, in, weight, out, options, 0);
    check_extent(check, out, "out", 1, "length", x.extent(1), "x's");
    check_offsets(check, cu_seqlens, "cu_seqlens", x.extent(1), "x");
    check_apart(check, reach(out), "out", cu_seqlens, "cu_seqlens");
    check_apart(check, reach(options.state), "state", cu_seqlens, "cu_seqlens");
    const index sequences = cu_seqlens.extent(0) - 1;
    detail::check_conv1d_state(check, options.state, sequences, "the number of sequences", x.extent(0), weight.extent(1));
    detail::convolve<Arch>(
        detail::conv1d_sequences<T, Out>{with_leading_axis(in), with_leading_axis(out), options.state, cu_seqlens},
        {weight, options.bias, options.activation}, ctx);
}

/// One token of many sequences: x and out [B, D], options::state [B, D, W - 1] is shifted in place. The same bits as that
/// token of causal_conv1d. Fast where channels have unit stride. Everything else as in causal_conv1d.
template <class Arch = arch::native, class X, class Out>
void causal_conv1d_step(const view<X, 2>& x, const view<const float, 2>& weight, const view<Out, 2>& out,
                        const conv1d_options& options = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<X>;
    detail::check_conv1d_types<X, Out>();
    const auto one_token = []<class U>(const view<U, 2>& v) {
        return view<U, 3>(v.data(), {v.extent(0), v.extent(1), index{1}}, {v.stride(0), v.stride(1), index{1}});
    };
    detail::convolve_batch<Arch, T, Out>("ssm::causal_conv1d_step", one_token(view<const T, 2>(x)), weight, one_token(out),
                                         options, ctx);
}

} // namespace ssm
SEQMIX_NAMESPACE_END
