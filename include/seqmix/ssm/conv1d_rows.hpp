// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/state.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/simd/prefetch.hpp>
#include <seqmix/ssm/options.hpp>
#include <seqmix/tile/memory.hpp>

#include <algorithm>
#include <cstdint>

// The sums of a causal depthwise convolution, along time and across channels. Every one is
//   fma(w[W-1], x[t], … fma(w[1], x[t-W+2], fma(w[0], x[t-W+1], bias)) …)
// in this order whatever the layout and however a sequence is cut, so all ways give the same bits.

SEQMIX_NAMESPACE_BEGIN
namespace ssm::detail {

/// Widths whose loops are unrolled; 0 stands for any other.
template <int Width>
inline constexpr int register_taps = Width > 0 ? Width : 1;

/// Where a row of results goes: through the caches, or past them. Streamed rows start on a register's border.
enum class destination { cached, streamed };

template <class Arch, class Out>
SEQMIX_INLINE void put(simd::f32<Arch> y, Out* to, destination where)
{
    where == destination::streamed ? y.stream(to) : y.store(to);
}

/// Elements from `p` to the next border at which a register of them may be streamed; 0 on one.
template <class Arch, class Out>
index to_border(const Out* p)
{
    constexpr std::uintptr_t bytes = simd::lanes<Arch> * sizeof(Out);
    const std::uintptr_t beyond = reinterpret_cast<std::uintptr_t>(p) % bytes;
    return beyond == 0 ? 0 : static_cast<index>((bytes - beyond) / sizeof(Out));
}

/// The filter of one channel.
struct channel_filter {
    const float* weight; ///< [W]
    index width;
    float bias;
    activation act;
};

/// Memory to ask for while a row is convolved, `element` bytes for each output: what follows a page later, where the
/// processor's own reading ahead has stopped at the page's end. Null: none.
struct lookahead {
    const void* from;
    index element;
};

/// One channel: out[t] = act(bias + Σ_k weight[k] x[t + k]), t < count; x begins W - 1 inputs before the first output.
/// Vectors run along time. Each output costs W loads (all but one of them off the register's border, from L1) and W
/// multiply-adds; four registers in flight hide the latency of the chain of multiply-adds.
template <class Arch, int Width, class Out>
SEQMIX_NOINLINE void channel_sums(const float* x, const channel_filter& filter, Out* out, index count, destination where,
                                  const lookahead& ahead)
{
    using f32 = simd::f32<Arch>;
    using simd::unroll;
    constexpr index lanes = f32::lanes;
    constexpr int vectors = 4;
    const f32 first = f32::broadcast(filter.bias);
    const float* const weight = filter.weight;
    const index width = filter.width;
    const activation act = filter.act;
    f32 w[register_taps<Width>];
    unroll<Width>([&](auto k) SEQMIX_INLINE_LAMBDA { w[k] = f32::broadcast(weight[k]); });
    // load(v, k) is register v of the inputs under tap k.
    const auto sum = [&]<int Count>(f32(&acc)[Count], const auto& load) SEQMIX_INLINE_LAMBDA {
        unroll<Count>([&](auto v) SEQMIX_INLINE_LAMBDA { acc[v] = first; });
        if constexpr (Width > 0) {
            unroll<Width>([&](auto k) SEQMIX_INLINE_LAMBDA {
                unroll<Count>([&](auto v) SEQMIX_INLINE_LAMBDA { acc[v] = fma(w[k], load(v, k), acc[v]); });
            });
        } else {
            for (index k = 0; k < width; ++k) {
                const f32 tap = f32::broadcast(weight[k]);
                unroll<Count>([&](auto v) SEQMIX_INLINE_LAMBDA { acc[v] = fma(tap, load(v, k), acc[v]); });
            }
        }
        if (act == activation::silu) {
            unroll<Count>([&](auto v) SEQMIX_INLINE_LAMBDA { acc[v] = simd::silu(acc[v]); });
        }
    };

    index t = 0;
    for (; t + vectors * lanes <= count; t += vectors * lanes) {
        for (index byte = 0; ahead.from != nullptr && byte < vectors * lanes * ahead.element; byte += simd::cache_line) {
            simd::prefetch(static_cast<const char*>(ahead.from) + t * ahead.element + byte);
        }
        f32 acc[vectors];
        sum(acc, [&](index v, index k) SEQMIX_INLINE_LAMBDA { return f32::load(x + t + v * lanes + k); });
        unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { put<Arch>(acc[v], out + t + v * lanes, where); });
    }
    for (; t + lanes <= count; t += lanes) {
        f32 acc[1];
        sum(acc, [&](index, index k) SEQMIX_INLINE_LAMBDA { return f32::load(x + t + k); });
        put<Arch>(acc[0], out + t, where);
    }
    if (t < count) {
        f32 acc[1];
        sum(acc, [&](index, index k) SEQMIX_INLINE_LAMBDA { return f32::load(x + t + k, count - t); });
        acc[0].store(out + t, count - t);
    }
}

/// Calls body with the width as a constant where its loops are unrolled.
template <class Body>
SEQMIX_INLINE void with_width(index width, const Body& body)
{
    switch (width) {
    case 2:
        return body(std::integral_constant<int, 2>{});
    case 3:
        return body(std::integral_constant<int, 3>{});
    case 4:
        return body(std::integral_constant<int, 4>{});
    default:
        return body(std::integral_constant<int, 0>{});
    }
}

/// channel_sums of any width.
template <class Arch, class Out>
void convolve_channel(const float* x, const channel_filter& filter, Out* out, index count, destination where,
                      const lookahead& ahead)
{
    with_width(filter.width, [&](auto constant) {
        channel_sums<Arch, decltype(constant)::value>(x, filter, out, count, where, ahead);
    });
}

/// The filter of a block of channels with taps outermost: weight(k, c) = [k · pitch + c], bias[c]; rows are whole
/// registers, zero behind the last channel.
struct packed_filter {
    float* weight;
    float* bias;
    index pitch;
    index width;
};

inline void pack_filter(const view<const float, 2>& weight, const view<const float, 1>& bias, index channel, index channels,
                        const packed_filter& to)
{
    for (index k = 0; k < to.width; ++k) {
        float* const row = to.weight + k * to.pitch;
        for (index c = 0; c < channels; ++c) { row[c] = weight(channel + c, k); }
        std::fill(row + channels, row + to.pitch, 0.0f);
    }
    for (index c = 0; c < channels; ++c) { to.bias[c] = bias ? bias(channel + c) : 0.0f; }
    std::fill(to.bias + channels, to.bias + to.pitch, 0.0f);
}

/// Rows of channels: out(r, c) = act(bias[c] + Σ_k weight(k, c) x(r + k, c)), r < rows, c < channels; x begins W - 1 rows
/// before the first output. Vectors run across channels, four rows at a time, so that W + 3 loads of x and W of the filter
/// make four registers of results, and the W - 1 rows that groups share come from L1 or L2, where the sweep left them.
template <class Arch, int Width, class X, class Out>
SEQMIX_NOINLINE void row_sums(const X* x, index x_stride, const packed_filter& filter, activation act, Out* out,
                              index out_stride, index rows, index channels, destination where)
{
    using f32 = simd::f32<Arch>;
    using simd::unroll;
    constexpr index lanes = f32::lanes;
    // Registers of `Rows` rows from column c on; load(p) and store(y, p) know how much of a register there is.
    const auto column = [&]<int Rows>(std::integral_constant<int, Rows>, index r, index c, const auto& load,
                                      const auto& store) SEQMIX_INLINE_LAMBDA {
        const X* const from = x + r * x_stride + c;
        f32 acc[Rows];
        unroll<Rows>([&](auto i) SEQMIX_INLINE_LAMBDA { acc[i] = f32::load(filter.bias + c); });
        const auto add_tap = [&](auto k) SEQMIX_INLINE_LAMBDA {
            const f32 tap = f32::load(filter.weight + k * filter.pitch + c);
            unroll<Rows>([&](auto i) SEQMIX_INLINE_LAMBDA { acc[i] = fma(tap, load(from + (i + k) * x_stride), acc[i]); });
        };
        if constexpr (Width > 0) {
            unroll<Width>(add_tap);
        } else {
            for (index k = 0; k < filter.width; ++k) { add_tap(k); }
        }
        if (act == activation::silu) {
            unroll<Rows>([&](auto i) SEQMIX_INLINE_LAMBDA { acc[i] = simd::silu(acc[i]); });
        }
        unroll<Rows>([&](auto i) SEQMIX_INLINE_LAMBDA { store(acc[i], out + (r + i) * out_stride + c); });
    };
    const index whole = channels / lanes * lanes;
    const auto sweep = [&](auto group, index r) SEQMIX_INLINE_LAMBDA {
        for (index c = 0; c < whole; c += lanes) {
            column(
                group, r, c, [](const X* p) SEQMIX_INLINE_LAMBDA { return f32::load(p); },
                [&](f32 y, Out* p) SEQMIX_INLINE_LAMBDA { put<Arch>(y, p, where); });
        }
    };
    index r = 0;
    for (; r + 4 <= rows; r += 4) { sweep(std::integral_constant<int, 4>{}, r); }
    for (; r < rows; ++r) { sweep(std::integral_constant<int, 1>{}, r); }
    if (const index rest = channels - whole; rest > 0) {
        for (r = 0; r < rows; ++r) {
            column(
                std::integral_constant<int, 1>{}, r, whole,
                [&](const X* p) SEQMIX_INLINE_LAMBDA { return f32::load(p, rest); },
                [&](f32 y, Out* p) SEQMIX_INLINE_LAMBDA { y.store(p, rest); });
        }
    }
}

/// row_sums of any width.
template <class Arch, class X, class Out>
void convolve_rows(const X* x, index x_stride, const packed_filter& filter, activation act, Out* out, index out_stride,
                   index rows, index channels, destination where)
{
    with_width(filter.width, [&](auto constant) {
        row_sums<Arch, decltype(constant)::value>(x, x_stride, filter, act, out, out_stride, rows, channels, where);
    });
}

/// Calls body(count, channel stride, time stride) of a state [D, W - 1], as constants for the state that nearly all models
/// have: width 4, dense. A step moves more state than anything else.
template <class State, class Body>
SEQMIX_INLINE void with_state_shape(const State& stored, const Body& body)
{
    const index past = stored.extent(1);
    if (past == 3 && stored.stride(0) == 3 && stored.stride(1) == 1) {
        body(std::integral_constant<index, 3>{}, std::integral_constant<index, 3>{}, std::integral_constant<index, 1>{});
    } else {
        body(past, stored.stride(0), stored.stride(1));
    }
}

/// The W - 1 inputs before a sequence's first of a block of channels, widened: to[j · pitch + c] = state(channel + c, j);
/// zeros where there is no state. Unit stride of channels is the fast path: whole registers move.
template <class Arch>
void read_state(const state_view<2>& state, index channel, index channels, index past, float* to, index pitch)
{
    state.visit([&](const auto& stored) {
        if (!stored) {
            for (index j = 0; j < past; ++j) { std::fill(to + j * pitch, to + j * pitch + channels, 0.0f); }
            return;
        }
        const auto* const from = stored.data() + channel * stored.stride(0);
        if (stored.stride(0) == 1) {
            for (index j = 0; j < past; ++j) {
                tile::copy_row<Arch>(from + j * stored.stride(1), index{1}, channels, to + j * pitch);
            }
            return;
        }
        with_state_shape(stored, [&](auto count, auto channel_stride, auto time_stride) {
            for (index c = 0; c < channels; ++c) {
                for (index j = 0; j < count; ++j) {
                    to[j * pitch + c] = static_cast<float>(from[c * channel_stride + j * time_stride]);
                }
            }
        });
    });
}

/// The same of one channel, from the state's input `from` on: to[j] = state(channel, from + j), j < count.
inline void read_state_of(const state_view<2>& state, index channel, index from, index count, float* to)
{
    state.visit([&](const auto& stored) {
        for (index j = 0; j < count; ++j) { to[j] = stored ? static_cast<float>(stored(channel, from + j)) : 0.0f; }
    });
}

/// Leaves the last W - 1 of what has been seen, the state's own inputs among it where x [D, L] is shorter than that. In
/// place: what moves only moves to the front.
template <class Arch, class X>
void write_state(const state_view<2>& state, const view<const X, 2>& x, index channel, index channels)
{
    const index length = x.extent(1), x_channel = x.stride(0), x_time = x.stride(1);
    if (!state || length == 0) { return; }
    state.visit([&](const auto& stored) {
        using S = typename std::remove_cvref_t<decltype(stored)>::element;
        S* const to = stored.data() + channel * stored.stride(0);
        const X* const seen = x.data() + channel * x_channel;
        if (std::is_same_v<S, float> && stored.stride(0) == 1) {
            const index past = stored.extent(1), kept = std::max(past - length, index{0});
            for (index j = 0; j < past; ++j) {
                S* const row = to + j * stored.stride(1);
                if (j < kept) {
                    std::copy_n(row + length * stored.stride(1), channels, row);
                } else if constexpr (std::is_same_v<S, float>) {
                    tile::copy_row<Arch>(seen + (length - past + j) * x_time, x_channel, channels, row);
                }
            }
            return;
        }
        with_state_shape(stored, [&](auto past, auto channel_stride, auto time_stride) {
            const index kept = std::max(past - length, index{0});
            for (index c = 0; c < channels; ++c) {
                S* const row = to + c * channel_stride;
                if (kept == past - 1) { // a step: the usual case, with as many moves as are known
                    for (index j = 0; j < past - 1; ++j) { row[j * time_stride] = row[(j + 1) * time_stride]; }
                } else {
                    for (index j = 0; j < kept; ++j) { row[j * time_stride] = row[(j + length) * time_stride]; }
                }
                for (index j = kept; j < past; ++j) {
                    const X input = seen[c * x_channel + (length - past + j) * x_time];
                    row[j * time_stride] = static_cast<S>(static_cast<float>(input));
                }
            }
        });
    });
}

} // namespace ssm::detail
SEQMIX_NAMESPACE_END
