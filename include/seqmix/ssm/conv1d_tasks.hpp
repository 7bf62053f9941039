// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/ssm/conv1d_rows.hpp>

#include <algorithm>

// How a causal depthwise convolution is cut into tasks, and what a task does.

SEQMIX_NAMESPACE_BEGIN
namespace ssm::detail {

/// One sequence: x and out [D, L]; state [D, W - 1] or null.
template <class X, class Out>
struct conv1d_sequence {
    view<const X, 2> x;
    view<Out, 2> out;
    state_view<2> state;
};

/// All sequences of a call: x and out [B, D, L], or [1, D, T] with the offsets of packed sequences; state [B, D, W - 1] or
/// null.
template <class X, class Out>
struct conv1d_sequences {
    view<const X, 3> x;
    view<Out, 3> out;
    state_view<3> state;
    view<const index, 1> offsets{};

    index count() const { return offsets ? offsets.extent(0) - 1 : x.extent(0); }
    index longest() const
    {
        index most = offsets ? 0 : x.extent(2);
        for (index n = 0; offsets && n < count(); ++n) { most = std::max(most, offsets(n + 1) - offsets(n)); }
        return most;
    }
    conv1d_sequence<X, Out> operator[](index n) const
    {
        const state_view<2> own = state ? state.visit([&](const auto& stored) { return state_view<2>(stored[n]); })
                                        : state_view<2>{};
        if (!offsets) { return {x[n], out[n], own}; }
        return {x[0].slice(1, offsets(n), offsets(n + 1)), out[0].slice(1, offsets(n), offsets(n + 1)), own};
    }
};

/// What all sequences of a call share: weight [D, W], bias [D] or null.
struct conv1d_filter {
    view<const float, 2> weight;
    view<const float, 1> bias;
    activation act;

    index width() const { return weight.extent(1); }
    index past() const { return width() - 1; } ///< inputs that an output needs before its own
    float bias_of(index channel) const { return bias ? bias(channel) : 0.0f; }
};

/// Whether vectors run across channels, which must have unit stride for that; else they run along time. Short sequences
/// whose channels lie side by side are better off so too: the one-token step first of all.
template <class X, class Out>
bool across_channels(const view<const X, 2>& x, const view<Out, 2>& out, index longest)
{
    constexpr index short_length = 8; // below it a channel's own edge costs more than all its outputs
    const bool unit_times = x.stride(1) == 1 && out.stride(1) == 1;
    return x.stride(0) == 1 && out.stride(0) == 1 && (!unit_times || longest < short_length);
}

/// The extents of a task. Results do not depend on them.
struct conv1d_cut {
    bool across; ///< see across_channels
    index channels, times, sequences;

    /// One channel's outputs at a time, so that inputs made dense stay in L1.
    static constexpr index stretch = 512;
    /// Blocks of channels start on a cache line's border if the first one does.
    static constexpr index channel_step = 64;

    conv1d_cut(bool across_, index sequences_, index channels_, index longest, index past, int concurrency)
        : across(across_)
    {
        // Large tasks, so that streams through memory are long; several a worker, so that none waits for the last.
        constexpr index least = 4096, most = tile::level2_bytes / 4;
        const index total = sequences_ * channels_ * longest;
        const index outputs = concurrency > 1 ? std::clamp(total / (4 * index{concurrency}), least, most) : most;
        if (across) {
            // Half of L2 holds the filter (W rows), the dense edge (2 W) and the rows that groups share.
            const index fit = tile::level2_bytes / 2 / (4 * (3 * past + 8)) / channel_step * channel_step;
            channels = std::min({channels_, std::max(fit, channel_step), outputs / channel_step * channel_step});
            times = std::min(longest, std::max({outputs / channels, past, index{64}}));
        } else {
            times = std::min(longest, outputs);
            channels = std::clamp(outputs / times, index{1}, channels_);
        }
        sequences = times == longest ? std::clamp(outputs / (channels * times), index{1}, sequences_) : 1;
    }
};

/// A worker's scratch.
template <class Out>
struct conv1d_scratch {
    packed_filter filter; ///< of a block of channels; along time, weight alone: one channel's
    float* dense;         ///< inputs and those before them: the edge's rows, of the filter's pitch, or a channel's stretch
    Out* results;         ///< along time: a stretch whose outputs lie apart

    conv1d_scratch(arena& memory, const conv1d_cut& cut, index width, index lanes)
    {
        const index pitch = cut.across ? (cut.channels + lanes - 1) / lanes * lanes : 1;
        filter = {memory.take<float>(width * pitch), memory.take<float>(cut.across ? pitch : 0), pitch, width};
        dense = memory.take<float>((width - 1 + (cut.across ? width - 1 : cut.stretch)) * pitch);
        results = memory.take<Out>(cut.across ? 0 : cut.stretch);
    }
};

/// What lies a page behind the inputs [t, t + count) of a channel, if all of it is input too: the next channel's where that
/// adjoins.
template <class X>
lookahead next_page(const view<const X, 2>& x, index channel, index t, index count)
{
    constexpr index page = 4096 / sizeof(X);
    const index length = x.extent(1), rest = x.stride(0) == length ? (x.extent(0) - channel) * length : length;
    if (x.stride(1) != 1 || t + page + count > rest) { return {nullptr, 0}; }
    return {x.data() + channel * x.stride(0) + t + page, sizeof(X)};
}

/// Outputs [begin, end) of one channel whose filter is in scratch. Floats in a row are read in place; others are widened
/// and made dense a stretch at a time, which costs one load and one store where each of the W taps would widen anew.
template <class Arch, class X, class Out>
void convolve_times(const conv1d_sequence<X, Out>& s, const conv1d_filter& f, const conv1d_scratch<Out>& scratch,
                    index channel, index begin, index end, bool streamed)
{
    const index past = f.past(), x_stride = s.x.stride(1), out_stride = s.out.stride(1);
    const X* const x = s.x.data() + channel * s.x.stride(0);
    Out* const out = s.out.data() + channel * s.out.stride(0);
    const channel_filter filter = {scratch.filter.weight, f.width(), f.bias_of(channel), f.act};
    const bool ready = std::is_same_v<X, float> && x_stride == 1;
    for (index t = begin, count = 0; t < end; t += count) {
        const index before = std::max(past - t, index{0}); // of the inputs, how many are the state's
        count = std::min(end - t, ready && before > 0 ? std::min(before, conv1d_cut::stretch) : conv1d_cut::stretch);
        destination where = destination::cached;
        if (streamed && out_stride == 1) {
            const index border = to_border<Arch>(out + t);
            if (border == 0) { where = destination::streamed; }
            count = std::min(count, border > 0 ? border : count);
        }
        const float* from = scratch.dense;
        if constexpr (std::is_same_v<X, float>) { from = ready && before == 0 ? x + t - past : from; }
        if (from == scratch.dense) {
            read_state_of(s.state, channel, t, before, scratch.dense);
            tile::copy_row<Arch>(x + (t - past + before) * x_stride, x_stride, past - before + count,
                                 scratch.dense + before);
        }
        Out* const to = out_stride == 1 ? out + t : scratch.results;
        convolve_channel<Arch>(from, filter, to, count, where, next_page(s.x, channel, t, count));
        for (index i = 0; to == scratch.results && i < count; ++i) { out[(t + i) * out_stride] = to[i]; }
    }
}

/// Outputs [begin, end) of a block of channels, side by side, whose filter is in scratch.
template <class Arch, class X, class Out>
void convolve_block(const conv1d_sequence<X, Out>& s, const conv1d_filter& f, const conv1d_scratch<Out>& scratch,
                    index channel, index channels, index begin, index end, bool streamed)
{
    const index past = f.past(), pitch = scratch.filter.pitch, x_stride = s.x.stride(1), out_stride = s.out.stride(1);
    const X* const x = s.x.data() + channel;
    Out* const out = s.out.data() + channel;
    index t = begin;
    if (t < past) { // only a sequence's first task begins here: blocks of time are at least as long as that
        const index count = std::min(end, past);
        read_state<Arch>(s.state, channel, channels, past, scratch.dense, pitch);
        for (index r = 0; r < count; ++r) {
            tile::copy_row<Arch>(x + r * x_stride, index{1}, channels, scratch.dense + (past + r) * pitch);
        }
        convolve_rows<Arch, float>(scratch.dense, pitch, scratch.filter, f.act, out, out_stride, count,
                            channels, destination::cached);
        t = count;
    }
    if (t < end) {
        const bool aligned = to_border<Arch>(out + t * out_stride) == 0 && to_border<Arch>(out + (t + 1) * out_stride) == 0;
        convolve_rows<Arch>(x + (t - past) * x_stride, x_stride, scratch.filter, f.act, out + t * out_stride, out_stride,
                            end - t, channels, streamed && aligned ? destination::streamed : destination::cached);
    }
}

/// Spreads sequences x blocks of channels x blocks of time over the workers of a context. States are written by the only
/// task that has read them, or after all tasks.
template <class Arch, class X, class Out>
void convolve(const conv1d_sequences<X, Out>& all, const conv1d_filter& f, const context_ref& ctx)
{
    constexpr index lanes = simd::lanes<Arch>;
    const index sequences = all.count(), channels = all.x.extent(1), longest = all.longest();
    if (all.x.empty()) { return; }
    const conv1d_cut cut(across_channels(all.x[0], all.out[0], longest), sequences, channels, longest, f.past(),
                         ctx.concurrency());
    // A row's first and last line are written in parts, which costs more past the caches: rows of many lines only.
    constexpr index size = sizeof(Out), least_row = 64 * simd::cache_line;
    const bool streamed = all.out.size() * size >= tile::streamed_bytes && (cut.across || longest * size >= least_row);
    const index blocks = (channels + cut.channels - 1) / cut.channels, times = (longest + cut.times - 1) / cut.times,
                groups = (sequences + cut.sequences - 1) / cut.sequences;

    arena measure;
    static_cast<void>(conv1d_scratch<Out>(measure, cut, f.width(), lanes));
    const auto convolve_task = [&](index task, std::byte* memory) {
        arena carve(memory);
        const conv1d_scratch<Out> scratch(carve, cut, f.width(), lanes);
        const index from = task % times * cut.times;
        const index channel = task / times % blocks * cut.channels, count = std::min(cut.channels, channels - channel);
        const index first = task / times / blocks * cut.sequences, beyond = std::min(first + cut.sequences, sequences);
        const auto each = [&](const auto& body) {
            for (index n = first; n < beyond; ++n) {
                const conv1d_sequence<X, Out> s = all[n];
                const index to = std::min(from + cut.times, s.x.extent(1));
                if (from < to) { body(s, to); }
            }
        };
        if (cut.across) {
            pack_filter(f.weight, f.bias, channel, count, scratch.filter);
            each([&](const auto& s, index to) {
                convolve_block<Arch>(s, f, scratch, channel, count, from, to, streamed);
            });
        } else {
            for (index c = channel; c < channel + count; ++c) {
                for (index k = 0; k < f.width(); ++k) { scratch.filter.weight[k] = f.weight(c, k); }
                each([&](const auto& s, index to) {
                    convolve_times<Arch>(s, f, scratch, c, from, to, streamed);
                });
            }
        }
        if (times == 1) {
            each([&](const auto& s, index) { write_state<Arch>(s.state, s.x, channel, count); });
        }
        if (streamed) { simd::f32<Arch>::stream_fence(); }
    };
    ctx.in_phases(groups * blocks * times, measure.used(), 0, [&](std::byte*, const auto& phase) {
        phase(groups * blocks * times, convolve_task);
        if (times > 1 && all.state) {
            phase(sequences, [&](index n, std::byte*) { write_state<Arch>(all[n].state, all[n].x, 0, channels); });
        }
    });
}

} // namespace ssm::detail
SEQMIX_NAMESPACE_END
