// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/math.hpp>

// Functions of the normal distribution over the verbs; bounds and fits as in math.hpp.

SEQMIX_NAMESPACE_BEGIN
namespace simd {
namespace detail {

/// t Φ(-t) for t in [0, 15], Φ the normal distribution: Φ(-t) = e^(-t²/2) P(q) / (t + 7/2) with q = (t - 7/2) / (t + 7/2), which
/// maps all t >= 0 to [-1, 1), so that one polynomial serves everywhere: 2^-25.3 relative on [0, 15].
template <float_lanes V>
SEQMIX_INLINE V times_upper_tail(V t)
{
    const V one = V::broadcast(1.0f), minus_half = V::broadcast(-0.5f);
    const V reciprocal = one / (t + V::broadcast(3.5f));
    // q as 2 t / (t + 7/2) - 1: next to t = 0, where P is steepest, that is rounded once.
    const V p = polynomial(fma(t + t, reciprocal, -one),
                           {0x1.7d241ap-1f, -0x1.219152p-1f, 0x1.42ff04p-2f, -0x1.db58bap-4f, 0x1.1d1048p-6f, 0x1.a8f030p-8f,
                            -0x1.9d84e6p-9f, -0x1.f1204ep-12f, 0x1.a7f998p-12f, 0x1.888240p-14f});
    // t² in two parts: an error of its last bit would be one of 2^-18 in the exponential.
    const V square = t * t, rest = fma(t, t, -square);
    const reduced<V> e(minus_half * square);
    const V r = fma(minus_half, rest, e.r);
    return scale(t * (reciprocal * p * exp_reduced(r)), e.n);
}

} // namespace detail

/// The Gaussian error linear unit, x Φ(x) = x/2 (1 + erf(x / √2)) (Hendrycks & Gimpel 2016, section 2). 4.4 ulp, for very
/// negative x too, where 1 + erf would cancel. -infinity gives -0, infinity itself.
template <float_lanes V>
SEQMIX_INLINE V gelu(V x)
{
    const V t = min(V::broadcast(15.0f), abs(x)); // of a NaN and a bound, the second; at 15 the tail has rounded to zero
    const V tail = detail::times_upper_tail(t);
    return select(x < V::zero(), -tail, x - tail);
}

} // namespace simd
SEQMIX_NAMESPACE_END
