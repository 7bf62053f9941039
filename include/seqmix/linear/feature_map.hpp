// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/math.hpp>

#include <cmath>

// Feature maps of queries and keys. A map says how many features a vector of `size` numbers has, and writes them; rows stand in
// scratch, padded with zeros to whole registers, and are mapped after they have been widened.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// Each number for itself: function(register) -> register.
template <class Function>
struct elementwise_map {
    static constexpr index features(index size) { return size; }

    /// Padding stays zero, since sums run over whole registers.
    template <class Arch>
    static void apply(const float* from, index size, float* to)
    {
        using f32 = simd::f32<Arch>;
        for (index c = 0; c < size; c += f32::lanes) {
            const f32 y = Function::template of<f32>(f32::load(from + c));
            (size - c >= f32::lanes ? y : first_lanes(y, size - c)).store(to + c);
        }
    }

private:
    template <class V>
    static V first_lanes(V y, index count)
    {
        float lanes[V::lanes];
        y.store(lanes);
        return V::load(lanes, count);
    }
};

namespace detail {
struct elu_plus_one {
    template <class V>
    static SEQMIX_INLINE V of(V x)
    {
        return select(V::zero() < x, x + V::broadcast(1.0f), simd::exp(x));
    }
};
struct rectified {
    template <class V>
    static SEQMIX_INLINE V of(V x)
    {
        return max(V::zero(), x); // of a NaN, the second: x
    }
};
struct exponential {
    template <class V>
    static SEQMIX_INLINE V of(V x)
    {
        return simd::exp(x);
    }
};
} // namespace detail

/// x
struct identity_map {
    static constexpr index features(index size) { return size; }
};
/// elu(x) + 1 (Katharopoulos et al. 2020, equation 7).
using elu_plus_one_map = elementwise_map<detail::elu_plus_one>;
/// max(x, 0)
using relu_map = elementwise_map<detail::rectified>;
/// e^x
using exp_map = elementwise_map<detail::exponential>;

/// x / sqrt(Σx² + 1e-6): what delta rules ask of keys, and Gated DeltaNet of queries too.
struct unit_length_map {
    static constexpr index features(index size) { return size; }

    template <class Arch>
    static void apply(const float* from, index size, float* to)
    {
        using f32 = simd::f32<Arch>;
        f32 sum = f32::zero();
        for (index c = 0; c < size; c += f32::lanes) { sum = fma(f32::load(from + c), f32::load(from + c), sum); }
        const f32 factor = f32::broadcast(1.0f / std::sqrt(reduce_add(sum) + 1e-6f));
        for (index c = 0; c < size; c += f32::lanes) { (f32::load(from + c) * factor).store(to + c); }
    }
};

/// 1, x, x ⊗ x / sqrt(2), of x / size^(1/4): products of features are the second Taylor polynomial of e^(q·k / sqrt(size)).
/// (Arora et al. 2024, "Simple linear attention language models balance the recall-throughput tradeoff", section 4.1: Based)
struct taylor_map {
    static constexpr index features(index size) { return 1 + size + size * size; }

    template <class Arch>
    static void apply(const float* from, index size, float* to)
    {
        const float factor = 1.0f / std::sqrt(std::sqrt(static_cast<float>(size))), half = std::sqrt(0.5f);
        const index count = features(size), padded = (count + simd::lanes<Arch> - 1) / simd::lanes<Arch> * simd::lanes<Arch>;
        to[0] = 1.0f;
        for (index i = 0; i < size; ++i) {
            const float x = from[i] * factor;
            to[1 + i] = x;
            for (index j = 0; j < size; ++j) { to[1 + size + i * size + j] = half * x * (from[j] * factor); }
        }
        for (index i = count; i < padded; ++i) { to[i] = 0.0f; }
    }
};

} // namespace linear
SEQMIX_NAMESPACE_END
