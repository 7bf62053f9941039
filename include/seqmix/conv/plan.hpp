// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/direct.hpp>
#include <seqmix/conv/options.hpp>
#include <seqmix/conv/ring.hpp>
#include <seqmix/core/operands.hpp>

#include <algorithm>
#include <optional>
#include <vector>

// What is known of a convolution before its inputs come: how it is cut, and the kernels' spectra.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

namespace detail {

/// How a sequence is cut: pieces of `step` outputs, each from `history` inputs before its own and `ahead` behind them. Multiples of
/// the lanes.
struct cut {
    index step, history, ahead;

    index inputs() const { return step + history + ahead; }
    index pieces(index length) const { return (length + step - 1) / step; }
};

} // namespace detail

/// A long convolution with the kernels [D, Lk] of D channels, for sequences of up to `length` numbers: y_t = Σ_s kernel_s u_(t-s).
/// Immutable; any number of threads may use one plan at the same time. `apply` uses it.
///
/// Holds what the chosen method reads: the taps, or a spectrum of 2 M floats a channel, M being about (L + Lk) / 2 or less, and about as
/// much again of twiddles once for all channels; with plan_options::keep only what is kept of the spectra. Taps that reach farther than
/// the sequence (causal) are left out; modulo `length` they go round.
///
/// Error of an output, for float: method::direct (Lk + 2) u Σ|k u|, u = 2^-24; method::transform relative to the whole in the root mean
/// square, 3 · 2^-23 log2(2M).
///
/// Throws std::invalid_argument where shapes do not fit.
/// Source: conv/ring.hpp for the transform; overlap-save, Oppenheim & Schafer, section 8.7.3.
template <class Arch = arch::native>
class plan {
    static constexpr index lanes = simd::lanes<Arch>;

public:
    /// kernel [D, Lk]
    plan(const view<const float, 2>& kernel, const plan_options& opt)
        : plan(view<const float, 3>(kernel.data(), {index{1}, kernel.extent(0), kernel.extent(1)}, {index{0}, kernel.stride(0), kernel.stride(1)}),
               opt, false)
    {
    }
    /// kernel [B, D, Lk]: every batch item has its own (Karami & Ghodsi 2024, "Orchid").
    plan(const view<const float, 3>& kernel, const plan_options& opt) : plan(kernel, opt, true) {}

    index channels() const { return channels_; }
    index length() const { return length_; }
    bool causal() const { return causal_; }
    /// Of batch items that have kernels of their own; 0 where all share one.
    index items() const { return own_kernels_ ? items_ : 0; }
    conv::method method() const { return ring_ ? conv::method::transform : conv::method::direct; }
    /// Complex numbers of a transform; 0 where there is none.
    index points() const { return ring_ ? ring_->points() : 0; }
    /// Outputs of a piece.
    index step() const { return cut_.step; }
    /// Floats of scratch that a row needs.
    index scratch() const { return ring_ ? ring_->floats() : cut_.inputs() + direct_rows<Arch>::beyond; }

    /// One channel: sink(t, …) = the convolution of source, which is asked for lanes of u from t on, t from -history to length + ahead;
    /// t are multiples of the lanes.
    template <class Source, class Sink>
    void convolve(index item, index channel, index length, const Source& source, const Sink& sink, float* scratch) const
    {
        const float* const numbers = numbers_begin_ + ((own_kernels_ ? item : 0) * channels_ + channel) * row_;
        const detail::cut c = cut_;
        for (index first = 0; first < length; first += c.step) {
            const index shift = first - c.history;
            const auto in = [=](index n) SEQMIX_INLINE_LAMBDA { return source(n + shift); };
            const auto out = [=](index n, simd::f32<Arch> y) SEQMIX_INLINE_LAMBDA {
                if (n >= c.history && n < c.history + c.step) { sink(n + shift, y); }
            };
            if (!ring_) {
                const index step = smaller(c.step, whole(length - first)), inputs = c.history + step + c.ahead;
                direct_rows<Arch>::run(in, numbers, taps_, forward_, c.history, step, inputs, out, scratch);
            } else if (halves_) {
                ring_->template multiply<true>(in, numbers, out, scratch, kept_before());
            } else {
                ring_->template multiply<false>(in, numbers, out, scratch, kept_before());
            }
        }
    }

private:
    /// Numbers of whole registers.
    static constexpr index whole(index n) { return (n + lanes - 1) / lanes * lanes; }

    plan(const view<const float, 3>& kernel, const plan_options& opt, bool own_kernels)
        : items_(kernel.extent(0)), channels_(kernel.extent(1)), length_(opt.length), causal_(opt.causal), own_kernels_(own_kernels)
    {
        const checker check("conv::plan");
        check_given(check, {named_operand("kernel", kernel)});
        check.require(opt.length >= 0, "length is ", opt.length, ", but must be at least ", 0);
        check.require(opt.points >= 0, "points is ", opt.points, ", but must be at least ", 0);
        if (opt.backward) {
            check.require(opt.backward.extent(0) == channels_, "backward has ", opt.backward.extent(0), " channels, but kernel has ", channels_);
        }
        if (opt.keep) {
            index parts = opt.keep.extent(0);
            check.require(parts >= 1, "keep has ", parts, " parts, but must have at least ", 1);
            for (const int factor : {2, 3, 5}) {
                while (parts % factor == 0) { parts /= factor; }
            }
            check.require(parts == 1, "keep has ", opt.keep.extent(0), " parts, but must have 2^a 3^b 5^c; left over is ", parts);
            check.require(causal_, "keep is given for ", opt.keep.extent(0), " parts, but causal is ", 0);
            check.require(opt.method != method::direct, "keep is given for ", opt.keep.extent(0), " parts, but method is direct, which has ", 0);
        }
        // Modulo L taps that look ahead are taps of the past, and there may be one for every distance.
        const index back = causal_ && opt.backward ? smaller(opt.backward.extent(1), larger(0, length_ - 1)) : 0;
        forward_ = !causal_ && opt.backward ? length_ : smaller(kernel.extent(2), length_), taps_ = forward_ + back;
        choose(back, opt);
        if (ring_ && opt.keep) { kept_before_ = ring_->kept_before(opt.keep); }
        row_ = !ring_ ? taps_ : kept_before_.empty() ? ring_->floats() : kept_before_.back() * ring<Arch>::leaf_floats;
        numbers_begin_ = reinterpret_cast<float*>(
            numbers_.reserve(static_cast<std::size_t>(larger(1, items_ * channels_ * row_)) * sizeof(float)));
        std::vector<float> taps(static_cast<std::size_t>(taps_));
        std::vector<float> around(static_cast<std::size_t>(ring_ ? ring_->floats() : 0));
        workspace all_leaves;
        for (index item = 0; item < items_; ++item) {
            for (index channel = 0; channel < channels_; ++channel) {
                taps_of(kernel[item][channel], opt.backward ? opt.backward[channel] : view<const float, 1>{}, taps);
                float* const to = numbers_begin_ + (item * channels_ + channel) * row_;
                if (!ring_) {
                    std::copy(taps.begin(), taps.end(), to);
                    continue;
                }
                // Tap s at s, and those that look ahead at their negative index, which is the same as 2M more with the sign changed.
                std::fill(around.begin(), around.end(), 0.0f);
                for (index s = 0; s < forward_; ++s) { around[static_cast<std::size_t>(s)] = taps[static_cast<std::size_t>(forward_ - 1 - s)]; }
                for (index s = forward_; s < taps_; ++s) {
                    around[around.size() - 1 - static_cast<std::size_t>(s - forward_)] = -taps[static_cast<std::size_t>(s)];
                }
                const float* const from = around.data();
                float* spectrum = to;
                if (!kept_before_.empty()) { spectrum = reinterpret_cast<float*>(all_leaves.reserve(around.size() * sizeof(float))); }
                ring_->forward([=](index n) SEQMIX_INLINE_LAMBDA { return simd::f32<Arch>::load(from + n); }, spectrum);
                for (std::size_t l = 0; l + 1 < kept_before_.size(); ++l) {
                    if (kept_before_[l] == kept_before_[l + 1]) { continue; }
                    constexpr index floats = ring<Arch>::leaf_floats;
                    std::copy_n(spectrum + static_cast<index>(l) * floats, floats, to + kept_before_[l] * floats);
                }
            }
        }
    }

    /// y_t = Σ_j taps_j u_(t - forward + 1 + j)
    void taps_of(const view<const float, 1>& kernel, const view<const float, 1>& backward, std::vector<float>& taps) const
    {
        std::fill(taps.begin(), taps.end(), 0.0f);
        if (taps.empty()) { return; }
        const auto tap = [&](index j) -> float& { return taps[static_cast<std::size_t>(j)]; };
        const index reach = causal_ ? forward_ : kernel.extent(0);
        for (index s = 0; s < reach; ++s) { tap(forward_ - 1 - (causal_ ? s : s % length_)) += kernel(s); }
        if (!backward) { return; }
        if (causal_) {
            for (index s = 0; forward_ + s < taps_; ++s) { tap(forward_ + s) = backward(s); }
        } else {
            for (index s = 0; s < backward.extent(0); ++s) { tap(s % length_) += backward(s); }
        }
    }

    /// Method, size of the transform, and the cut. Costs are cycles, as measured where registers have 16 lanes; only their ratios matter.
    void choose(index back, const plan_options& opt)
    {
        const index history = whole(larger(0, forward_ - 1)), ahead = whole(back);
        constexpr index piece = 4096; // floats of input in L1
        const double outputs = static_cast<double>(length_) / static_cast<double>(lanes);
        const detail::cut tap_by_tap = {whole(smaller(larger(1, length_), piece)), history, ahead};
        if (opt.method == method::direct || taps_ == 0 || length_ == 0) {
            cut_ = tap_by_tap;
            return;
        }
        // All at once. Modulo L the history is the sequence's own end; else what is before it is 0 and need not be there.
        const index history_of_all = causal_ ? 0 : history;
        const index reach = causal_ ? length_ + larger(forward_ - 1, back) : history + length_;
        index best = larger(opt.points, (reach + 1) / 2);
        const auto cost = [&](index points, double pieces) {
            constexpr double a_stage = 8.0, a_vector = 10.0, a_piece = 300.0;
            return pieces * (static_cast<double>(points / lanes) * (a_stage * std::log2(static_cast<double>(points)) + a_vector) + a_piece);
        };
        best = ring<Arch>::good_points(best);
        if (opt.keep) {
            while (best / ring<Arch>::leaf_points % opt.keep.extent(0) != 0) { best = ring<Arch>::good_points(best + 1); }
        }
        double least = cost(best, 1.0);
        cut_ = {whole(length_), history_of_all, causal_ ? 0 : 2 * best - history_of_all - whole(length_)};
        halves_ = !(history_of_all == 0 && back == 0 && length_ <= best);
        if (opt.keep) {
            ring_.emplace(best);
            return;
        }
        // In pieces.
        const auto next = [](index points) { return ring<Arch>::good_points(points + 1); };
        for (index points = next((history + ahead) / 2); opt.points == 0 && points < best; points = next(points)) {
            const index step = 2 * points - history - ahead;
            if (step < lanes) { continue; }
            const double now = cost(points, std::ceil(static_cast<double>(length_) / static_cast<double>(step)));
            if (now < least) { least = now, best = points, cut_ = {step, history, ahead}, halves_ = true; }
        }
        if (opt.method == method::automatic && outputs * (static_cast<double>(taps_) + 4.0) < least) {
            cut_ = tap_by_tap;
            return;
        }
        ring_.emplace(best);
    }

    /// Null where all is kept.
    const index* kept_before() const { return kept_before_.empty() ? nullptr : kept_before_.data(); }

    index items_, channels_, length_, forward_ = 0, taps_ = 0, row_ = 0;
    bool causal_, own_kernels_, halves_ = true;
    detail::cut cut_{};
    std::optional<ring<Arch>> ring_;
    std::vector<index> kept_before_; ///< see ring; empty where all of the spectrum is kept
    workspace numbers_;
    float* numbers_begin_ = nullptr;
};

} // namespace conv
SEQMIX_NAMESPACE_END
