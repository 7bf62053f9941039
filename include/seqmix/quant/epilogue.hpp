// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/options.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/tile/memory.hpp>

// What is done with a product while it is in cache.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// activation(x), in lanes. GELU is the form with tanh: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))) (Hendrycks & Gimpel 2016).
template <class V>
SEQMIX_INLINE V activated(V x, activation how)
{
    switch (how) {
    case activation::relu:
        return select(x < V::zero(), V::zero(), x); // NaN stays
    case activation::silu:
        return simd::silu(x);
    case activation::gelu: {
        const V inner = fma(x * x * V::broadcast(0.044715f), x, x) * V::broadcast(0.797884561f);
        return V::broadcast(0.5f) * x * (V::broadcast(1.0f) + simd::tanh(inner));
    }
    default:
        return x;
    }
}

/// Stores rows of sums [rows, columns] as out = activation(sum · row scale + bias) + residual; `first_row` and `first` say where they
/// stand in out.
template <class Arch, class Out>
class epilogue {
    using f32 = simd::f32<Arch>;

public:
    epilogue(const options& opt, const view<Out, 2>& out) : opt_(opt), out_(out) {}

    void store(const float* sums, index row, index first, index columns, float row_scale) const
    {
        for (index c = 0; c < columns; c += f32::lanes) {
            const index n = smaller(columns - c, f32::lanes), at = first + c;
            f32 y = f32::load(sums + c, n) * f32::broadcast(row_scale);
            if (opt_.bias) { y = y + tile::load_strided<Arch>(&opt_.bias(at), opt_.bias.stride(0), n); }
            y = activated(y, opt_.activation);
            if (opt_.residual) { y = y + tile::load_strided<Arch>(&opt_.residual(row, at), opt_.residual.stride(1), n); }
            tile::store_strided<Arch>(y, &out_(row, at), out_.stride(1), n);
        }
    }

private:
    const options& opt_;
    const view<Out, 2>& out_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
