// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/plan.hpp>
#include <seqmix/core/executor.hpp>
#include <seqmix/tile/block.hpp>

// The door of long convolutions.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

namespace detail {

/// Numbers of one channel whose times lie together, times a gate; outside of them zeros, or they go round.
template <class Arch, class T>
struct gated_row {
    using f32 = simd::f32<Arch>;
    const T *u, *gate; ///< gate may be null
    index length;
    bool circular;

    SEQMIX_INLINE f32 operator()(index t) const
    {
        if (inside(t)) [[likely]] { return loaded(t); }
        return at_an_end(t);
    }

private:
    bool inside(index t) const { return t >= 0 && t + f32::lanes <= length; }
    SEQMIX_INLINE f32 loaded(index t) const
    {
        const f32 x = f32::load(u + t);
        return gate != nullptr ? x * f32::load(gate + t) : x;
    }
    SEQMIX_NOINLINE f32 at_an_end(index t) const
    {
        if (!circular && (t >= length || t <= -f32::lanes)) { return f32::zero(); }
        const index once_round = t < 0 ? t + length : t - length;
        if (circular && inside(once_round)) { return loaded(once_round); }
        float x[f32::lanes];
        for (index i = 0; i < f32::lanes; ++i) {
            index from = t + i;
            if (circular) {
                from %= length;
                from += from < 0 ? length : 0;
            }
            const bool there = from >= 0 && from < length;
            x[i] = !there ? 0.0f : gate != nullptr ? static_cast<float>(u[from]) * static_cast<float>(gate[from]) : static_cast<float>(u[from]);
        }
        return f32::load(x);
    }
};

/// y = post (sum + skip · input)
template <class Arch, class In, class Gate, class Out>
struct gated_result {
    using f32 = simd::f32<Arch>;
    Out* y;
    const Gate* post; ///< may be null
    gated_row<Arch, In> input;
    float skip;

    SEQMIX_INLINE void operator()(index t, f32 sum) const
    {
        const index count = input.length - t;
        if (skip != 0.0f && count > 0) { sum = fma(f32::broadcast(skip), input(t), sum); }
        if (count >= f32::lanes) {
            if (post != nullptr) { sum = sum * f32::load(post + t); }
            sum.store(y + t);
        } else if (count > 0) {
            if (post != nullptr) { sum = sum * f32::load(post + t, count); }
            sum.store(y + t, count);
        }
    }
};

/// Rows [count, length] as dense floats; null: nothing.
template <class Arch, class T>
void load_rows(const view<const T, 2>& from, float* to, index stride)
{
    load_block<Arch>(tile::block<const T>{from.data(), from.stride(0), from.stride(1), from.extent(0), from.extent(1)},
                     tile::lane_groups{to, stride, simd::lanes<Arch>});
}

} // namespace detail

/// out = post_gate (conv(pre_gate u) + skip · pre_gate u) with the plan's kernels; u, out [B, D, L] of float, bf16 or f16, out of that type or
/// float. Causal plans take any L up to plan::length(), the others exactly so many. Any strides; where the numbers of a channel
/// lie together they are read and written where they stand. Else as many channels as a register has lanes are copied to scratch together.
///
/// Scratch of a thread: one transform (2 M floats), or for strided operands also 2 or 3 copies of those channels; whatever D is. Zero sizes are
/// legal. Bit-identical for every number of threads. Error as the plan says, and one rounding for each gate and for the output's type.
/// An infinity or a NaN in u may reach all outputs of its channel where transforms are used.
///
/// Throws std::invalid_argument, naming the argument and both values, with outputs untouched.
template <class Arch, class U, class Out>
void apply(const plan<Arch>& plan, const view<U, 3>& u, const view<Out, 3>& out, const apply_options<std::remove_const_t<U>>& opt = {},
           const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    static_assert(storage<T>, "seqmix: long convolutions read float, bf16 or f16");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of u, or float");
    constexpr index lanes = simd::lanes<Arch>;
    const checker check("conv::apply");
    const index length = u.extent(2), channels = u.extent(1);
    const named_operand input("u", u), written("out", out), pre("pre_gate", opt.pre_gate), post("post_gate", opt.post_gate), skip("skip", opt.skip);
    const named_shape shape = named_extent{"batch", u.extent(0), "u's"} + named_extent{"number of channels", channels, "u's"} +
                              named_extent{"length", length, "u's"};
    check_given(check, input, written);
    check.require(channels == plan.channels(), "u has ", channels, " channels, but the plan has ", plan.channels());
    check.require(plan.items() == 0 || plan.items() == u.extent(0), "u has ", u.extent(0), " batch items, but the plan has ", plan.items());
    check.require(plan.causal() ? length <= plan.length() : length == plan.length(), "u's length is ", length, ", but the plan's is ", plan.length());
    check_shape(check, written, shape);
    check_optional(check, pre, shape);
    check_optional(check, post, shape);
    check_optional(check, skip, named_extent{"number of channels", channels, "u's"});
    check_apart(check, written, input, pre, post, skip);
    if (out.empty()) { return; }

    const auto contiguous = [](const auto& v) { return !v || v.stride(2) == 1; };
    const view<const T, 3> from = u;
    const auto skip_of = [&](index channel) { return opt.skip ? opt.skip(channel) : 0.0f; };
    if (contiguous(u) && contiguous(out) && contiguous(opt.pre_gate) && contiguous(opt.post_gate)) {
        ctx.for_each(u.extent(0) * channels, static_cast<std::size_t>(plan.scratch()) * sizeof(float), [&](index task, std::byte* memory) {
            const index item = task / channels, channel = task % channels;
            const auto row = [&](const auto& v) { return v ? &v(item, channel, 0) : nullptr; };
            const detail::gated_row<Arch, T> source = {row(from), row(opt.pre_gate), length, !plan.causal()};
            plan.convolve(item, channel, length, source,
                          detail::gated_result<Arch, T, T, Out>{row(out), row(opt.post_gate), source, skip_of(channel)},
                          reinterpret_cast<float*>(memory));
        });
        return;
    }
    const index stride = (length + lanes - 1) / lanes * lanes, blocks = (channels + lanes - 1) / lanes;
    struct copies {
        float *in, *gate, *result, *row;
        copies(arena& a, index floats, bool gated, index of_row)
            : in(a.take<float>(floats)), gate(a.take<float>(gated ? floats : 0)), result(a.take<float>(floats)), row(a.take<float>(of_row))
        {
        }
    };
    arena measure;
    const bool gated = opt.pre_gate || opt.post_gate;
    static_cast<void>(copies(measure, lanes * stride, gated, plan.scratch()));
    ctx.for_each(u.extent(0) * blocks, measure.used(), [&](index task, std::byte* memory) {
        const index item = task / blocks, first = task % blocks * lanes, count = smaller(lanes, channels - first);
        arena carve(memory);
        const copies at(carve, lanes * stride, gated, plan.scratch());
        const auto block = [&](const auto& v) { return v[item].slice(0, first, first + count); };
        detail::load_rows<Arch, T>(block(from), at.in, stride);
        if (opt.pre_gate) {
            detail::load_rows<Arch, T>(block(opt.pre_gate), at.gate, stride);
            for (index i = 0; i < count * stride; i += lanes) {
                (simd::f32<Arch>::load(at.in + i) * simd::f32<Arch>::load(at.gate + i)).store(at.in + i);
            }
        }
        if (opt.post_gate) { detail::load_rows<Arch, T>(block(opt.post_gate), at.gate, stride); }
        for (index c = 0; c < count; ++c) {
            const detail::gated_row<Arch, float> source = {at.in + c * stride, nullptr, length, !plan.causal()};
            plan.convolve(item, first + c, length, source,
                          detail::gated_result<Arch, float, float, float>{at.result + c * stride, opt.post_gate ? at.gate + c * stride : nullptr,
                                                                          source, skip_of(first + c)},
                          at.row);
        }
        const view<Out, 2> to = block(out);
        store_block<Arch>(tile::lane_groups{at.result, stride, lanes}, tile::block<Out>{to.data(), to.stride(0), to.stride(1), count, length});
    });
}

} // namespace conv
SEQMIX_NAMESPACE_END
