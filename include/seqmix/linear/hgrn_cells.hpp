// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/math.hpp>

// Cells of elementwise linear recurrences: what a token's numbers make of the state, h = keep h + add, and of the output. Errors in
// units of u = 2^-24.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// What a token does to the state: h = keep h + add.
template <class V>
struct cell_terms {
    V keep, add;
};

/// h = e^g h + x, out = h. (Qin et al. 2023, equation 5; the decay as its logarithm)
/// Error of keep: (4 + 2.3 |g|) u of itself, u = 2^-24.
struct log_decay_cell {
    template <class V>
    static SEQMIX_INLINE cell_terms<V> terms(V x, V g)
    {
        return {simd::exp2(g * V::broadcast(0x1.715476p+0f)), x};
    }
    template <class V>
    static SEQMIX_INLINE V output(V h, V, V)
    {
        return h;
    }
};

/// f = σ(forget), h = f h + (1 - f) silu(candidate), out = h. (Zhu et al. 2024, section 3.3.1)
/// f and 1 - f are a convex combination in float too: h never leaves the range of what came in. Error of f: 5 u of itself; of add:
/// (5 f + 9 (1 - f)) u |silu(candidate)|.
struct mlgru_cell {
    template <class V>
    static SEQMIX_INLINE cell_terms<V> terms(V forget, V candidate)
    {
        const V f = simd::sigmoid(forget);
        return {f, (V::broadcast(1.0f) - f) * simd::silu(candidate)};
    }
    template <class V>
    static SEQMIX_INLINE V output(V h, V, V)
    {
        return h;
    }
};

/// The same with out = h σ(gate), off by 6 u of itself more.
struct gated_mlgru_cell {
    template <class V>
    static SEQMIX_INLINE cell_terms<V> terms(V forget, V candidate, V)
    {
        return mlgru_cell::terms(forget, candidate);
    }
    template <class V>
    static SEQMIX_INLINE V output(V h, V, V, V gate)
    {
        return h * simd::sigmoid(gate);
    }
};

} // namespace linear
SEQMIX_NAMESPACE_END
