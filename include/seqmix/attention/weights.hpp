// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/attention/score.hpp>

// From scores to weights: the running softmax of FlashAttention, and the sigmoid. Both turn a tile of scores into weights
// in place and keep what they need of the past in registers' worth of state for each lane.

SEQMIX_NAMESPACE_BEGIN
namespace attention {

inline constexpr float log2_e = 1.44269504088896340736f;

/// Running maximum m of the scores as they stand in tiles, running sum of exponentials l, and what the last tile did to the
/// outputs so far.
template <class Arch>
struct lane_state {
    static constexpr int columns = query_panel<Arch>::columns;
    float maximum[columns];
    float sum[columns];
    float correction[columns];

    void reset()
    {
        for (int lane = 0; lane < columns; ++lane) {
            maximum[lane] = minus_infinity;
            sum[lane] = 0.0f;
            correction[lane] = 1.0f;
        }
    }
};

/// Online softmax (Milakov & Gimelshein 2018; Dao 2023, algorithm 1, lines 9 and 10), weights exp2((s - m) · unit · log2 e).
/// The difference is taken first: it is exactly 0 for the largest score, however large that is.
template <class Arch>
struct softmax_weights {
    using f32 = simd::f32<Arch>;
    static constexpr int columns = query_panel<Arch>::columns;

    float unit; ///< what a score as it stands in the tile is worth: 1, or the scale where that is still to come

    /// m' = max(m, row max), P = exp2(S - m'), l' = l · c + row sum of P with c = exp2(m - m').
    /// A lane that has seen nothing keeps m = -inf; it subtracts 0 instead, so that no inf - inf arises.
    template <int Vectors>
    SEQMIX_NOINLINE void absorb(float* scores, index keys, lane_state<Arch>& state) const
    {
        const f32 to_power = f32::broadcast(unit * log2_e);
        f32 top[Vectors], sum[Vectors], shift[Vectors];
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { top[v] = f32::broadcast(minus_infinity); });
        const float* score = scores;
        for (index key = 0; key < keys; ++key, score += columns) {
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { top[v] = max(top[v], f32::load(score + v * f32::lanes)); });
        }
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
            float* const maximum = state.maximum + v * f32::lanes;
            const f32 before = f32::load(maximum);
            const f32 after = max(before, top[v]);
            shift[v] = select(after == f32::broadcast(minus_infinity), f32::zero(), after);
            after.store(maximum);
            simd::exp2_nonpositive((before - shift[v]) * to_power).store(state.correction + v * f32::lanes);
            sum[v] = f32::zero(); // of this tile alone: long sums stay accurate, see README.md
        });
        float* weight = scores;
        for (index key = 0; key < keys; ++key, weight += columns) {
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                const f32 p = simd::exp2_nonpositive((f32::load(weight + v * f32::lanes) - shift[v]) * to_power);
                sum[v] = sum[v] + p;
                p.store(weight + v * f32::lanes);
            });
        }
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
            float* const total = state.sum + v * f32::lanes;
            fma(f32::load(total), f32::load(state.correction + v * f32::lanes), sum[v]).store(total);
        });
    }

    /// What turns each lane's accumulated outputs into its result, 1 / l with the sink added to the denominator (0 for a
    /// lane that saw nothing), and m + log l in natural units, -inf for no logit at all.
    SEQMIX_NOINLINE void finish(const lane_state<Arch>& state, const float (&sinks)[columns], float (&factor_of)[columns],
                float (&lse)[columns]) const
    {
        for (int lane = 0; lane < columns; lane += f32::lanes) {
            const f32 before = f32::load(state.maximum + lane) * f32::broadcast(unit);
            const f32 sink = f32::load(sinks + lane);
            const f32 top = max(before, sink);
            const f32 shift = select(top == f32::broadcast(minus_infinity), f32::zero(), top);
            const f32 correction = simd::exp(before - shift);
            const f32 total = fma(f32::load(state.sum + lane), correction, simd::exp(sink - shift));
            (shift + simd::log(total)).store(lse + lane);
            // A total of 0: nothing seen, not even NaN.
            select(total == f32::zero(), f32::zero(), correction / total).store(factor_of + lane);
        }
    }
};

/// Weights sigmoid(score + bias); no state, no normalisation.
template <class Arch>
struct sigmoid_weights {
    using f32 = simd::f32<Arch>;
    static constexpr int columns = query_panel<Arch>::columns;

    float bias;

    template <int Vectors>
    SEQMIX_NOINLINE void absorb(float* scores, index keys, lane_state<Arch>&) const
    {
        float* at = scores;
        for (index key = 0; key < keys; ++key, at += columns) {
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                simd::sigmoid(f32::load(at + v * f32::lanes) + f32::broadcast(bias)).store(at + v * f32::lanes);
            });
        }
    }

    SEQMIX_NOINLINE void finish(const lane_state<Arch>&, const float (&)[columns], float (&factor_of)[columns], float (&lse)[columns]) const
    {
        for (float& factor : factor_of) { factor = 1.0f; }
        for (float& none : lse) { none = minus_infinity; }
    }
};

/// Either of them, chosen at run time: a branch a tile, and half the kernels to compile.
template <class Arch>
struct either_weights {
    softmax_weights<Arch> softmax;
    sigmoid_weights<Arch> sigmoid;
    weighting chosen;

    template <int Vectors>
    void absorb(float* scores, index keys, lane_state<Arch>& state) const
    {
        chosen == weighting::softmax ? softmax.template absorb<Vectors>(scores, keys, state)
                                     : sigmoid.template absorb<Vectors>(scores, keys, state);
    }

    template <class... Arguments>
    void finish(Arguments&&... arguments) const
    {
        chosen == weighting::softmax ? softmax.finish(arguments...) : sigmoid.finish(arguments...);
    }
};

} // namespace attention
SEQMIX_NAMESPACE_END
