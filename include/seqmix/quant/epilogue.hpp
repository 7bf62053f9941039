// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/options.hpp>
#include <seqmix/simd/erf.hpp>
#include <seqmix/tile/memory.hpp>

// What is done with products while they are in cache.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// activation(x), in lanes. The form of GELU with tanh: Hendrycks & Gimpel 2016, section 2.
template <class V>
SEQMIX_INLINE V activated(V x, activation how)
{
    switch (how) {
    case activation::relu:
        return select(x < V::zero(), V::zero(), x); // NaN stays
    case activation::silu:
        return simd::silu(x);
    case activation::gelu:
        return simd::gelu(x);
    case activation::gelu_tanh: {
        const V inner = fma(x * x * V::broadcast(0.044715f), x, x) * V::broadcast(0.797884561f);
        return V::broadcast(0.5f) * x * (V::broadcast(1.0f) + simd::tanh(inner));
    }
    default:
        return x;
    }
}

namespace detail {

/// Options as kernels take them: biases [groups of rows, N], `up_bias` that of the second of two products.
struct ending {
    view<const float, 2> bias{}, up_bias{};
    quant::activation activation = quant::activation::none;
    view<const float, 2> residual{};
    view<const float, 1> out_scale{};
    view<const std::int8_t, 1> out_zero_point{};
};

} // namespace detail

/// Stores rows of sums [rows, columns] as out = activation(sum · row scale + bias) + residual, of two products
/// activation(…) · (up · row scale + up bias) + residual, where out holds bytes rounded to them.
template <class Arch, class Out>
class epilogue {
    using f32 = simd::f32<Arch>;

public:
    epilogue(const detail::ending& what, const view<Out, 2>& out) : what_(what), out_(out) {}

    /// Columns [first, first + columns) of a row of out, which belongs to a group; `up` is null where there is one product.
    void store(const float* sums, const float* up, index group, index row, index first, index columns, float row_scale) const
    {
        for (index c = 0; c < columns; c += f32::lanes) {
            const index n = smaller(columns - c, f32::lanes), at = first + c;
            const auto linear = [&](const float* from, const view<const float, 2>& bias) SEQMIX_INLINE_LAMBDA {
                const f32 y = f32::load(from + c, n) * f32::broadcast(row_scale);
                return bias ? y + tile::load_strided<Arch>(&bias(group, at), bias.stride(1), n) : y;
            };
            f32 y = activated(linear(sums, what_.bias), what_.activation);
            if (up != nullptr) { y = y * linear(up, what_.up_bias); }
            if (what_.residual) { y = y + tile::load_strided<Arch>(&what_.residual(row, at), what_.residual.stride(1), n); }
            if constexpr (std::is_same_v<Out, std::int8_t>) {
                store_bytes(y, row, at, n);
            } else {
                tile::store_strided<Arch>(y, &out_(row, at), out_.stride(1), n);
            }
        }
    }

private:
    /// As ONNX's QuantizeLinear: saturate(round(y / scale) + zero point), ties to even. NaN, of which it says nothing, becomes
    /// what 0 does.
    void store_bytes(f32 y, index row, index at, index n) const
    {
        const view<const float, 1>& scale = what_.out_scale;
        const view<const std::int8_t, 1>& zero = what_.out_zero_point;
        const bool one = scale.extent(0) == 1;
        f32 q = y / (one ? f32::broadcast(scale(0)) : tile::load_strided<Arch>(&scale(at), scale.stride(0), n));
        q = select(q == q, max(min(q, f32::broadcast(512.0f)), f32::broadcast(-512.0f)),
                   f32::zero()); // beyond any byte less any zero point
        std::int32_t rounded[f32::lanes];
        to_int(q).store(rounded);
        for (index lane = 0; lane < n; ++lane) {
            const index byte = rounded[lane] + (zero ? zero(one ? 0 : at + lane) : 0);
            out_(row, at + lane) = static_cast<std::int8_t>(larger(smaller(byte, 127), -128));
        }
    }

    const detail::ending& what_;
    const view<Out, 2>& out_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
