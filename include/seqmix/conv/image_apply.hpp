// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/apply.hpp>
#include <seqmix/conv/image_plan.hpp>

// The door of convolutions of images.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// T is the type of u.
template <class T>
struct image_apply_options {
    view<const T, 4> pre_gate{};  ///< [B, D, H, W]: u is multiplied by it first
    view<const T, 4> post_gate{}; ///< [B, D, H, W]: the output is multiplied by it
    view<const float, 1> skip{};  ///< [D]: adds skip · (gated) u, before the post-gate
};

namespace detail {

/// Some channels of an image: as many as a register has lanes where their columns lie apart, so that memory is read along the channels; else one.
template <class Arch, class T, class Out>
struct image_channels {
    using f32 = simd::f32<Arch>;
    static constexpr index lanes = f32::lanes;

    image_layout layout;
    view<const T, 3> u, pre, post; ///< [count, H, W]; gates may be null
    view<Out, 3> out;
    const float* skip; ///< of these channels, `skip_stride` apart; may be null
    index skip_stride;
    float* spare; ///< [count][whole registers of a row]
    index spare_stride;
    bool dense; ///< one channel whose columns lie together in all operands

    /// Rows first … last - 1 as they lie in the sequence, the gate multiplied in, into `to` of each channel; rows outside of the image are
    /// zeros, or the image's other end. Writes less than a register beyond the last.
    void load(index first, index last, float* to, index of_channel) const
    {
        const index height = layout.rows.extent, width = layout.columns.extent, count = u.extent(0), left = layout.left;
        for (index h = first; h < last; ++h, to += layout.pitch) {
            const index row = layout.rows.kind == border::circular ? (h % height + height) % height : h;
            const auto all = [&](const auto& body) {
                for (index c = 0; c < count; ++c) { body(to + c * of_channel, c); }
            };
            if (row < 0 || row >= height) {
                all([&](float* at, index) { std::fill_n(at, layout.pitch, 0.0f); });
                continue;
            }
            if (dense) {
                load_dense(row, to);
                continue;
            }
            load_block<Arch>(block_of(u, row), tile::lane_groups{to + left, of_channel, lanes});
            if (pre) {
                load_block<Arch>(block_of(pre, row), tile::lane_groups{spare, spare_stride, lanes});
                all([&](float* at, index c) {
                    for (index w = 0; w < width; w += lanes) {
                        (f32::load(at + left + w) * f32::load(spare + c * spare_stride + w)).store(at + left + w);
                    }
                });
            }
            all([&](float* at, index) {
                std::copy_n(at + width, left, at); // from the row's own end: place left + width - left
                std::fill_n(at + left + width, layout.pitch - left - width, 0.0f);
            });
        }
    }

    /// `sum` of the places w and on of row h, to the output; `input` is what was read there. For dense channels.
    SEQMIX_INLINE void put(index h, index w, f32 sum, const float* input) const
    {
        const index count = layout.columns.extent - w;
        if (skip != nullptr) { sum = fma(f32::broadcast(*skip), f32::load(input), sum); }
        if (post) { sum = sum * tile::load_strided<Arch>(post.data() + h * post.stride(1) + w, 1, count); }
        tile::store_strided<Arch>(sum, out.data() + h * out.stride(1) + w, 1, count);
    }

    /// Row h of the output from sums, and from the inputs at the same places.
    void finish(index h, float* sums, index of_sums, const float* inputs, index of_inputs) const
    {
        const index width = layout.columns.extent, count = u.extent(0);
        if (dense) {
            for (index w = 0; w < width; w += lanes) { put(h, w, f32::load(sums + w), inputs + w); }
            return;
        }
        if (post) { load_block<Arch>(block_of(post, h), tile::lane_groups{spare, spare_stride, lanes}); }
        for (index c = 0; (post || skip != nullptr) && c < count; ++c) {
            const f32 factor = f32::broadcast(skip != nullptr ? skip[c * skip_stride] : 0.0f);
            for (index w = 0; w < width; w += lanes) {
                float* const at = sums + c * of_sums + w;
                f32 sum = f32::load(at);
                if (skip != nullptr) { sum = fma(factor, f32::load(inputs + c * of_inputs + w), sum); }
                if (post) { sum = sum * f32::load(spare + c * spare_stride + w); }
                sum.store(at, width - w); // the next row may lie behind
            }
        }
        store_block<Arch>(tile::lane_groups{sums, of_sums, lanes}, block_of(out, h));
    }

private:
    SEQMIX_INLINE void load_dense(index row, float* to) const
    {
        const index width = layout.columns.extent, left = layout.left, pitch = layout.pitch;
        const T* const from = u.data() + row * u.stride(1);
        const T* const gate = pre ? pre.data() + row * pre.stride(1) : nullptr;
        index w = 0;
        for (; w < width; w += lanes) {
            f32 x = tile::load_strided<Arch>(from + w, 1, width - w);
            if (gate != nullptr) { x = x * tile::load_strided<Arch>(gate + w, 1, width - w); }
            x.store(to + left + w);
        }
        for (; w < pitch - left; w += lanes) { f32::zero().store(to + left + w); }
        for (index i = 0; i < left; ++i) { to[i] = to[width + i]; }
    }
    template <class E>
    static tile::block<E> block_of(const view<E, 3>& v, index row)
    {
        return {v.data() + row * v.stride(1), v.stride(0), v.stride(2), v.extent(0), v.extent(2)};
    }
};

/// Scratch of a worker: inputs and sums of some channels, from row to row `pitch` and `sums_pitch`.
template <class Arch>
struct image_scratch {
    static constexpr index lanes = simd::lanes<Arch>;
    static constexpr index whole(index n) { return (n + lanes - 1) / lanes * lanes; }

    index margin = 0; ///< zeros before the first row
    index band;       ///< rows of outputs at a time
    index of_channel, of_sums, sums_pitch, spare_stride;
    float *inputs, *sums, *spare, *row;

    image_scratch(arena& a, const image_plan<Arch>& plan, index channels)
    {
        const image_layout& l = plan.layout();
        spare_stride = whole(l.columns.extent);
        if (plan.sequences() != nullptr) {
            band = l.rows.extent, sums_pitch = l.pitch;
            of_channel = of_sums = whole(l.rows.extent * l.pitch) + lanes;
        } else {
            using direct = image_direct<Arch>;
            constexpr index in_cache = 8192; // floats of a band: L1 with what is made of them
            margin = whole(l.columns.behind), sums_pitch = spare_stride;
            band = larger(16, in_cache / l.pitch / direct::rows * direct::rows);
            band = smaller(band, l.rows.extent);
            of_channel = margin + whole((band + larger(l.rows.taps, 1) - 1 + direct::rows - 1) * l.pitch) + direct::beyond + whole(l.columns.taps);
            of_sums = band * sums_pitch;
        }
        inputs = a.take<float>(channels * of_channel), sums = a.take<float>(channels * of_sums);
        spare = a.take<float>(channels * spare_stride), row = a.take<float>(plan.sequences() != nullptr ? plan.sequences()->scratch() : 0);
    }
};

/// All of some channels, by the plan of sequences. `first` is the number of the first.
template <class Arch, class T, class Out>
void convolve_sequences(const image_plan<Arch>& plan, index first, const image_channels<Arch, T, Out>& c, const image_scratch<Arch>& s)
{
    const image_layout& l = plan.layout();
    c.load(0, l.rows.extent, s.inputs, s.of_channel);
    for (index n = 0; n < c.u.extent(0); ++n) {
        const gated_row<Arch, float> source = {s.inputs + n * s.of_channel, nullptr, l.length(), l.rows.kind == border::circular};
        float* const sums = s.sums + n * s.of_sums;
        plan.sequences()->convolve(0, first + n, l.length(), source, [=](index t, simd::f32<Arch> y) SEQMIX_INLINE_LAMBDA {
            if (t < l.length()) { y.store(sums + t); }
        }, s.row);
    }
    for (index h = 0; h < l.rows.extent; ++h) {
        c.finish(h, s.sums + h * l.pitch + l.left, s.of_sums, s.inputs + h * l.pitch + l.left, s.of_channel);
    }
}

/// A band of rows of some channels, tap by tap.
template <class Arch, class T, class Out>
void convolve_band(const image_plan<Arch>& plan, index first, index from, const image_channels<Arch, T, Out>& c, const image_scratch<Arch>& s)
{
    const image_layout& l = plan.layout();
    const index height = smaller(s.band, l.rows.extent - from), loaded = height + larger(1, l.rows.taps) - 1;
    float* const rows = s.inputs + s.margin;
    c.load(from - l.rows.behind, from - l.rows.behind + loaded, rows, s.of_channel);
    for (index n = 0; n < c.u.extent(0); ++n) {
        float *const channel = s.inputs + n * s.of_channel, *const sums = s.sums + n * s.of_sums;
        std::fill_n(channel, s.margin, 0.0f);
        std::fill(channel + s.margin + loaded * l.pitch, channel + s.of_channel, 0.0f);
        const auto run = [&](const auto& sink) {
            image_direct<Arch>::run(channel + s.margin + l.left - l.columns.behind, l.pitch, plan.taps(first + n), l.rows.taps,
                                    l.columns.taps, height, l.columns.extent, sink);
        };
        const float* const places = rows + l.rows.behind * l.pitch + l.left; // of the outputs
        const index pitch = l.pitch, sums_pitch = s.sums_pitch;
        if (c.dense) {
            run([=](index h, index w, simd::f32<Arch> y) SEQMIX_INLINE_LAMBDA { c.put(from + h, w, y, places + h * pitch + w); });
            return;
        }
        run([=](index h, index w, simd::f32<Arch> y) SEQMIX_INLINE_LAMBDA { y.store(sums + h * sums_pitch + w); });
    }
    for (index h = 0; h < height; ++h) {
        c.finish(from + h, s.sums + h * s.sums_pitch, s.of_sums, rows + (h + l.rows.behind) * l.pitch + l.left, s.of_channel);
    }
}

} // namespace detail

/// out = post_gate (conv(pre_gate u) + skip · pre_gate u) with the plan's kernels; u, out [B, D, H, W] of float, bf16 or f16, out of that type or
/// float, H and W the plan's. Any strides: where a row's numbers lie together one channel is done at a time, else ([B, H, W, D], say)
/// as many as a register has lanes. Zero sizes are legal.
///
/// Scratch of a thread: copies of 2 channels and a transform, or in the direct form of a band of rows; of so many channels where columns lie apart.
/// Bit-identical for every number of threads. Error as the plan says, and one rounding for each gate and for the output's type. An
/// infinity or a NaN in u may reach all outputs of its channel where transforms are used.
///
/// Throws std::invalid_argument, naming the argument and both values, with outputs untouched.
template <class Arch, class U, class Out>
void apply(const image_plan<Arch>& plan, const view<U, 4>& u, const view<Out, 4>& out, const image_apply_options<std::remove_const_t<U>>& opt = {},
           const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    static_assert(storage<T>, "seqmix: convolutions read float, bf16 or f16");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of u, or float");
    const checker check("conv::apply");
    const named_operand input("u", u), written("out", out), pre("pre_gate", opt.pre_gate), post("post_gate", opt.post_gate), skip("skip", opt.skip);
    const named_extent channels = {"number of channels", plan.channels(), "the plan's"};
    const named_shape shape = named_extent{"batch", u.extent(0), "u's"} + channels + named_extent{"height", plan.height(), "the plan's"} +
                              named_extent{"width", plan.width(), "the plan's"};
    check_given(check, input, written);
    check_shape(check, input, shape);
    check_shape(check, written, shape);
    check_optional(check, pre, shape);
    check_optional(check, post, shape);
    check_optional(check, skip, channels);
    check_apart(check, written, input, pre, post, skip);
    if (out.empty()) { return; }

    const auto contiguous = [](const auto& v) { return !v || v.stride(3) == 1; };
    const bool alone = contiguous(u) && contiguous(out) && contiguous(opt.pre_gate) && contiguous(opt.post_gate);
    const index together = alone ? 1 : smaller(simd::lanes<Arch>, plan.channels()), groups = (plan.channels() + together - 1) / together;
    arena measure;
    const index band = detail::image_scratch<Arch>(measure, plan, together).band, bands = (plan.height() + band - 1) / band;
    ctx.for_each(u.extent(0) * groups * bands, measure.used(), [&](index task, std::byte* memory) {
        arena carve(memory);
        const detail::image_scratch<Arch> scratch(carve, plan, together);
        const index item = task / bands / groups, first = task / bands % groups * together, last = smaller(first + together, plan.channels());
        const auto of = [&](const auto& v) { return v ? v[item].slice(0, first, last) : std::remove_cvref_t<decltype(v[item])>{}; };
        const detail::image_channels<Arch, T, Out> some = {
            plan.layout(), of(view<const T, 4>(u)), of(opt.pre_gate), of(opt.post_gate), of(out),
            opt.skip ? &opt.skip(first) : nullptr, opt.skip.stride(0), scratch.spare, scratch.spare_stride, alone};
        if (plan.sequences() != nullptr) {
            detail::convolve_sequences(plan, first, some, scratch);
        } else {
            detail::convolve_band(plan, first, task % bands * band, some, scratch);
        }
    });
}

} // namespace conv
SEQMIX_NAMESPACE_END
