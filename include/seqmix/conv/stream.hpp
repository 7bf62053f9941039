// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/direct.hpp>
#include <seqmix/conv/options.hpp>
#include <seqmix/conv/ring.hpp>
#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/tile/block.hpp>

#include <optional>
#include <vector>

// Long causal convolutions token by token, exactly: the next input may depend on the last output, as in generation. After i tokens,
// with U the largest power of two that divides i, the last U inputs are taken to the next U outputs at once, through the taps
// 1 … 2U - 1. So every pair of an input and a later output is met once, and blocks of U come by every 2U tokens. (Oncescu et al. 2024,
// "Flash Inference: Near Linear Time Inference for Long Convolution Sequence Models and Beyond", section 3; van der Hoeven 1997,
// relaxed multiplication.)

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// What streams with the kernels [D, Lk] share; immutable, for any number of streams and threads.
///
/// Holds the kernels, and for blocks of U = 32, 64, … up to Lk, either so many taps or a spectrum of 2U floats a channel: about
/// 4 Lk floats a channel in all.
template <class Arch = arch::native>
class stream_plan {
    static constexpr index lanes = simd::lanes<Arch>;

public:
    /// Tokens whose outputs are summed tap by tap, all channels side by side.
    static constexpr index block = 32;

    explicit stream_plan(const view<const float, 2>& kernel)
        : channels_(kernel.extent(0)), taps_(kernel.extent(1)), padded_channels_((channels_ + lanes - 1) / lanes * lanes)
    {
        check_given(checker("conv::stream_plan"), {named_operand("kernel", kernel)});
        while (longest_ < taps_ - 1) { longest_ *= 2; }
        first_taps_.assign(static_cast<std::size_t>(block * padded_channels_), 0.0f);
        for (index d = 0; d < channels_; ++d) {
            for (index s = 0; s < smaller(block, taps_); ++s) { first_taps_[static_cast<std::size_t>(s * padded_channels_ + d)] = kernel(d, s); }
        }
        for (index size = block; size <= longest_; size *= 2) { levels_.push_back(level_of(kernel, size)); }
    }

    index channels() const { return channels_; }
    /// The largest block.
    index longest() const { return longest_; }
    index padded_channels() const { return padded_channels_; }
    /// Tap s of all channels.
    const float* first_taps(index s) const { return first_taps_.data() + s * padded_channels_; }
    /// Floats of scratch that pass needs.
    index scratch() const { return larger(4 * longest_ + direct_rows<Arch>::beyond, 2 * ring<Arch>::good_points(longest_)); }

    /// What `size` inputs of a channel give to as many next outputs, added to `to`.
    void pass(index channel, index size, const float* inputs, float* to, float* scratch) const
    {
        using f32 = simd::f32<Arch>;
        std::size_t at = 0;
        for (index of = block; of < size; of *= 2) { ++at; }
        const level& l = levels_[at];
        const auto out = [=](index n, f32 y) SEQMIX_INLINE_LAMBDA {
            if (n >= size && n < 2 * size) { (f32::load(to + n - size) + y).store(to + n - size); }
        };
        const float* const numbers = l.numbers.data() + channel * l.of_channel;
        if (!l.ring) {
            // The inputs are the taps, and the kernel what they go over.
            float* const turned = scratch + 3 * size + direct_rows<Arch>::beyond;
            for (index j = 0; j < size; ++j) { turned[j] = inputs[size - 1 - j]; }
            direct_rows<Arch>::run([=](index n) SEQMIX_INLINE_LAMBDA { return f32::load(numbers + n); }, turned, size, size, size, size, 2 * size, out,
                                   scratch);
        } else {
            const auto in = [=](index n) SEQMIX_INLINE_LAMBDA { return n < size ? f32::load(inputs + n) : f32::zero(); };
            l.ring->template multiply<true>(in, numbers, out, scratch);
        }
    }

private:
    /// Blocks of one size; their taps 1 … 2 size - 1 (and 0, which no later output sees).
    struct level {
        std::optional<conv::ring<Arch>> ring; ///< modulo t^size - i, where it pays: what goes round does not reach the outputs
        index of_channel;
        std::vector<float> numbers; ///< the taps of a channel, or their spectrum
    };

    level level_of(const view<const float, 2>& kernel, index size) const
    {
        level l{std::nullopt, 2 * size, {}};
        const auto cost_of_taps = static_cast<double>(size / lanes) * static_cast<double>(size);
        const auto points = static_cast<double>(conv::ring<Arch>::good_points(size));
        if (points / lanes * (8.0 * std::log2(points) + 10.0) + 300.0 < cost_of_taps) {
            l.ring.emplace(size);
            l.of_channel = l.ring->floats();
        }
        l.numbers.assign(static_cast<std::size_t>(channels_ * l.of_channel), 0.0f);
        std::vector<float> around(static_cast<std::size_t>(l.of_channel));
        for (index d = 0; d < channels_; ++d) {
            std::fill(around.begin(), around.end(), 0.0f);
            for (index s = 0; s < smaller(2 * size, taps_); ++s) { around[static_cast<std::size_t>(s)] = kernel(d, s); }
            float* const to = l.numbers.data() + d * l.of_channel;
            if (l.ring) {
                const float* const from = around.data();
                l.ring->forward([=](index n) SEQMIX_INLINE_LAMBDA { return simd::f32<Arch>::load(from + n); }, to);
            } else {
                std::copy(around.begin(), around.end(), to);
            }
        }
        return l;
    }

    index channels_, taps_, padded_channels_, longest_ = block;
    std::vector<float> first_taps_; ///< [block][padded channels]
    std::vector<level> levels_;
};

/// One token. T is the type of u.
template <class T>
struct stream_options {
    view<const T, 2> pre_gate{};  ///< [B, D], as in apply_options; of append [B, D, n]
    view<const T, 2> post_gate{}; ///< [B, D]
    view<const float, 1> skip{};  ///< [D]
};

/// So many sequences on their way through a long causal convolution. Uses the plan, which must outlive it. Holds 2 Lk floats for every
/// sequence and channel (Lk rounded up to a power of two): the inputs so far, and what outputs to come have of them already.
///
/// A token costs O(log² Lk) operations a channel on average, but once in U tokens there is a block of U: spread over time by `step`'s
/// threads only. Outputs are those of the whole convolution, within the error of its plan.
template <class Arch = arch::native>
class stream {
    using f32 = simd::f32<Arch>;
    static constexpr index lanes = f32::lanes, block = stream_plan<Arch>::block;

public:
    stream(const stream_plan<Arch>& plan, index batch)
        : plan_(&plan), batch_(batch), inputs_(numbers(plan.channels() * plan.longest())), pending_(inputs_.size()),
          block_inputs_(numbers(block * plan.padded_channels())), block_outputs_(block_inputs_.size())
    {
    }

    /// Tokens so far.
    index position() const { return position_; }
    /// Back to the beginning.
    void restart()
    {
        position_ = 0;
        for (std::vector<float>* v : {&inputs_, &pending_, &block_inputs_, &block_outputs_}) { std::fill(v->begin(), v->end(), 0.0f); }
    }

    /// out = post_gate (the convolution at this token + skip · pre_gate u); u, out [B, D] of float, bf16 or f16, out of that type or float.
    /// Throws std::invalid_argument, naming the argument and both values; the stream stays as it is.
    template <class U, class Out>
    void step(const view<U, 2>& u, const view<Out, 2>& out, const stream_options<std::remove_const_t<U>>& opt = {}, const context_ref& ctx = {})
    {
        using T = std::remove_const_t<U>;
        static_assert(storage<T>, "seqmix: long convolutions read float, bf16 or f16");
        static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of u, or float");
        const checker check("conv::stream::step");
        const named_operand input("u", u), written("out", out), pre("pre_gate", opt.pre_gate), post("post_gate", opt.post_gate), skip("skip", opt.skip);
        const named_extent channels = {"number of channels", plan_->channels(), "the plan's"};
        const named_shape shape = named_extent{"batch", batch_, "the stream's"} + channels;
        check_given(check, input, written);
        check_shape(check, input, shape);
        check_shape(check, written, shape);
        check_optional(check, pre, shape);
        check_optional(check, post, shape);
        check_optional(check, skip, channels);
        check_apart(check, written, pre, post, skip);
        for (index b = 0; b < batch_; ++b) { one_token<T>(b, u[b], out[b], opt); }
        ++position_;
        if (position_ % block == 0) { pass_blocks(ctx); }
    }

    /// n tokens: u, out [B, D, n]; the same as n steps.
    template <class U, class Out>
    void append(const view<U, 3>& u, const view<Out, 3>& out, const apply_options<std::remove_const_t<U>>& opt = {}, const context_ref& ctx = {})
    {
        using T = std::remove_const_t<U>;
        const checker check("conv::stream::append");
        check.equal(out.extent(2), u.extent(2), "out's length", "u's");
        for (const auto* gate : {&opt.pre_gate, &opt.post_gate}) {
            check.require(!*gate || gate->extent(2) == u.extent(2), "a gate's length is ", gate->extent(2), ", but u's is ", u.extent(2));
        }
        const auto token = [](const auto& v, index t) {
            using E = typename std::remove_cvref_t<decltype(v)>::element;
            return v ? view<E, 2>(v.data() + t * v.stride(2), {v.extent(0), v.extent(1)}, {v.stride(0), v.stride(1)}) : view<E, 2>{};
        };
        for (index t = 0; t < u.extent(2); ++t) {
            step(token(u, t), token(out, t), stream_options<T>{token(opt.pre_gate, t), token(opt.post_gate, t), opt.skip}, ctx);
        }
    }

private:
    std::vector<float> numbers(index of_item) const { return std::vector<float>(static_cast<std::size_t>(batch_ * of_item), 0.0f); }
    /// Of a token in the present block.
    float* row(std::vector<float>& of, index item, index token) const
    {
        return of.data() + (item * block + token) * plan_->padded_channels();
    }
    float* channel(std::vector<float>& of, index item, index d) const { return of.data() + (item * plan_->channels() + d) * plan_->longest(); }

    /// The taps inside the block, on top of what earlier blocks have left.
    template <class T, class U, class Out>
    void one_token(index item, const view<U, 1>& u, const view<Out, 1>& out, const stream_options<T>& opt)
    {
        const index now = position_ % block, channels = plan_->channels();
        float *const input = row(block_inputs_, item, now), *const output = row(block_outputs_, item, now);
        const auto at = [](const auto& v, index c, index count) {
            return tile::load_strided<Arch>(v.data() + c * v.stride(0), v.stride(0), count);
        };
        for (index c = 0; c < channels; c += lanes) {
            const index count = channels - c;
            f32 x = at(view<const T, 1>(u), c, count);
            if (opt.pre_gate) { x = x * at(opt.pre_gate[item], c, count); }
            x.store(input + c);
            f32 sum = f32::load(output + c);
            for (index s = 0; s <= now; ++s) { sum = fma(f32::load(plan_->first_taps(s) + c), f32::load(row(block_inputs_, item, now - s) + c), sum); }
            if (opt.skip) { sum = fma(at(opt.skip, c, count), x, sum); }
            if (opt.post_gate) { sum = sum * at(opt.post_gate[item], c, count); }
            tile::store_strided<Arch>(sum, out.data() + c * out.stride(0), out.stride(0), count);
        }
    }

    /// At the end of a block: its inputs join the others, blocks of U go ahead, and the next block's outputs are fetched.
    void pass_blocks(const context_ref& ctx)
    {
        const index longest = plan_->longest(), channels = plan_->channels(), padded = plan_->padded_channels();
        index size = block;
        while (size < longest && position_ % (2 * size) == 0) { size *= 2; }
        const index from = (position_ - size) % longest, to = position_ % longest;
        for (index b = 0; b < batch_; ++b) {
            store_block<Arch>(tile::lane_groups{row(block_inputs_, b, 0), padded, lanes},
                              tile::block<float>{channel(inputs_, b, 0) + (position_ - block) % longest, 1, longest, block, channels});
        }
        ctx.for_each(batch_ * channels, static_cast<std::size_t>(plan_->scratch()) * sizeof(float), [&](index task, std::byte* memory) {
            const index b = task / channels, d = task % channels;
            plan_->pass(d, size, channel(inputs_, b, d) + from, channel(pending_, b, d) + to, reinterpret_cast<float*>(memory));
        });
        for (index b = 0; b < batch_; ++b) {
            load_block<Arch>(tile::block<const float>{channel(pending_, b, 0) + to, 1, longest, block, channels},
                             tile::lane_groups{row(block_outputs_, b, 0), padded, lanes});
            for (index d = 0; d < channels; ++d) { std::fill_n(channel(pending_, b, d) + to, block, 0.0f); }
        }
    }

    const stream_plan<Arch>* plan_;
    index batch_, position_ = 0;
    std::vector<float> inputs_, pending_;            ///< [B][D][longest], by time modulo longest
    std::vector<float> block_inputs_, block_outputs_; ///< [B][block][padded channels], of the present block
};

} // namespace conv
SEQMIX_NAMESPACE_END
