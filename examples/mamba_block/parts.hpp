// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/tile/gemm.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

// What a block needs beside state spaces: matrices, projections and norms.

namespace mamba_block {

namespace sm = seqmix;
using sm::index;

/// [tokens, channels], or the weight of a projection; and the same where it is only read.
using matrix = sm::view<float, 2>;
using const_matrix = sm::view<const float, 2>;

template <class T>
sm::view<T, 2> rows(const sm::view<T, 2>& m, index begin, index end)
{
    return m.slice(0, begin, end);
}
template <class T>
sm::view<T, 2> columns(const sm::view<T, 2>& m, index begin, index end)
{
    return m.slice(1, begin, end);
}

/// [L, D] as the [1, D, L] of the kernels: the strides change places, the numbers stay.
inline sm::view<float, 3> channels_first(const matrix& m) { return with_leading_axis(m.transposed(0, 1)); }

inline void copy(const const_matrix& from, const matrix& to)
{
    for (index t = 0; t < from.extent(0); ++t) { std::copy_n(&from(t, 0), from.extent(1), &to(t, 0)); }
}

/// Memory for a matrix; grows, and its numbers last until the next use. (Named after the instruction set, as everything
/// here whose type holds a view: compiled once per set, it must not become one function for all.)
template <class Arch>
class buffer {
public:
    matrix shaped(index of_rows, index of_columns)
    {
        const auto wanted = static_cast<std::size_t>(of_rows * of_columns);
        if (memory_.size() < wanted) { memory_.resize(wanted); }
        return {memory_.data(), {of_rows, of_columns}};
    }
    std::size_t bytes() const { return memory_.size() * sizeof(float); }

private:
    std::vector<float> memory_;
};

/// The checkpoints hold log(-A): A is negative whatever was learned.
inline std::vector<float> negative_exp(const float* log, index count)
{
    std::vector<float> a(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < a.size(); ++i) { a[i] = -std::exp(log[i]); }
    return a;
}

/// out [L, N] = in [L, K] · weightᵀ, or += ; weight [N, K] as checkpoints have it. A single token is a matrix times a
/// vector, and the weight then stands left, where tile::gemm reads it in place: on the right it would be copied first,
/// which only pays for many tokens. Sums over K run in the same order either way, so no token's result depends on how
/// many it came with.
template <class Arch>
void project(const const_matrix& in, const const_matrix& weight, const matrix& out, sm::workspace& scratch,
             bool add = false)
{
    if (in.extent(0) == 1) {
        sm::tile::gemm<Arch>(weight, in.transposed(0, 1), out.transposed(0, 1), scratch, add);
    } else {
        sm::tile::gemm<Arch>(in, weight.transposed(0, 1), out, scratch, add);
    }
}

inline constexpr float norm_epsilon = 1e-5f;

/// RMSNorm of every token: out = in / sqrt(mean(in²) + epsilon) · weight. out may be in. (Zhang & Sennrich 2019)
template <class Arch>
void rms_norm(const const_matrix& in, const float* weight, const matrix& out)
{
    using f32 = sm::simd::f32<Arch>;
    const index width = in.extent(1);
    for (index t = 0; t < in.extent(0); ++t) {
        const float* const from = &in(t, 0);
        f32 squares = f32::zero();
        for (index c = 0; c < width; c += f32::lanes) {
            const f32 x = f32::load(from + c, width - c);
            squares = fma(x, x, squares);
        }
        const float mean = reduce_add(squares) / static_cast<float>(width);
        const f32 scale = f32::broadcast(1.0f / std::sqrt(mean + norm_epsilon));
        for (index c = 0; c < width; c += f32::lanes) {
            const f32 x = f32::load(from + c, width - c), w = f32::load(weight + c, width - c);
            (x * scale * w).store(&out(t, 0) + c, width - c);
        }
    }
}

/// y · silu(z), in y's place.
template <class Arch>
void gate(const matrix& y, const const_matrix& z)
{
    using f32 = sm::simd::f32<Arch>;
    const index width = y.extent(1);
    for (index t = 0; t < y.extent(0); ++t) {
        for (index c = 0; c < width; c += f32::lanes) {
            float* const at = &y(t, 0) + c;
            (f32::load(at, width - c) * sm::simd::silu(f32::load(&z(t, 0) + c, width - c))).store(at, width - c);
        }
    }
}

} // namespace mamba_block
