// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/backends.hpp>

// Registers of complex numbers: one of real parts, one of imaginary parts. In memory the two lie side by side, so that a vector of
// complex numbers is one contiguous piece, of which no lane needs to be moved to multiply it.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

template <class Arch>
struct complex_lanes {
    using f32 = simd::f32<Arch>;
    static constexpr int lanes = f32::lanes;
    /// Floats in memory.
    static constexpr int floats = 2 * lanes;

    f32 re, im;

    static SEQMIX_INLINE complex_lanes load(const float* p) { return {f32::load(p), f32::load(p + lanes)}; }
    SEQMIX_INLINE void store(float* p) const { re.store(p), im.store(p + lanes); }
    /// One number p[0] + i p[1] in all lanes.
    static SEQMIX_INLINE complex_lanes broadcast(const float* p) { return {f32::broadcast(p[0]), f32::broadcast(p[1])}; }

    friend SEQMIX_INLINE complex_lanes operator+(complex_lanes a, complex_lanes b) { return {a.re + b.re, a.im + b.im}; }
    friend SEQMIX_INLINE complex_lanes operator-(complex_lanes a, complex_lanes b) { return {a.re - b.re, a.im - b.im}; }
    friend SEQMIX_INLINE complex_lanes operator*(complex_lanes a, complex_lanes b)
    {
        return {fnma(a.im, b.im, a.re * b.re), fma(a.im, b.re, a.re * b.im)};
    }
    /// By a real number.
    friend SEQMIX_INLINE complex_lanes operator*(complex_lanes a, f32 b) { return {a.re * b, a.im * b}; }
    /// a conj(b)
    friend SEQMIX_INLINE complex_lanes times_conjugate(complex_lanes a, complex_lanes b)
    {
        return {fma(a.im, b.im, a.re * b.re), fnma(a.re, b.im, a.im * b.re)};
    }
};

} // namespace tile
SEQMIX_NAMESPACE_END
