// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/backends.hpp>

// Convolution tap by tap, for kernels so short that transforms don't pay.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

template <class Arch>
struct direct_rows {
    using f32 = simd::f32<Arch>;
    static constexpr int lanes = f32::lanes;
    static constexpr int vectors = simd::backend<Arch>::registers >= 32 ? 8 : 4; ///< of outputs at a time: a tap is broadcast for all
    static constexpr index beyond = vectors * lanes; ///< floats behind the inputs that are read and not used

    /// sink(n, …) = Σ_j taps_j source(n - forward + 1 + j) for `count` taps and n from history to history + step, of `inputs` numbers of
    /// source. forward - 1 <= history. `scratch` holds inputs + beyond floats.
    template <class Source, class Sink>
    static SEQMIX_NOINLINE void run(const Source& source, const float* taps, index count, index forward, index history, index step, index inputs,
                                    const Sink& sink, float* scratch)
    {
        for (index n = 0; n < inputs; n += lanes) { source(n).store(scratch + n); }
        for (index n = inputs; n < inputs + beyond; n += lanes) { f32::zero().store(scratch + n); }
        for (index n = history; n < history + step; n += vectors * lanes) {
            const float* const from = scratch + n - (forward - 1);
            f32 sum[vectors];
            simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { sum[v] = f32::zero(); });
            for (index j = 0; j < count; ++j) {
                const f32 tap = f32::broadcast(taps[j]);
                simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { sum[v] = fma(tap, f32::load(from + j + v * lanes), sum[v]); });
            }
            simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { sink(n + v * lanes, sum[v]); });
        }
    }
};

} // namespace conv
SEQMIX_NAMESPACE_END
