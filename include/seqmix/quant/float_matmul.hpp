// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/panel_lanes.hpp>
#include <seqmix/tile/gemm.hpp>

// Products of floats (or bf16) with packed weights, which become floats (or bf16) block by block in cache.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// Weights of a group from the numbers of their codes, rounded as the format says.
template <class Arch, format F>
struct affine_lanes {
    using f32 = simd::f32<Arch>;
    f32 scale, other;

    SEQMIX_INLINE affine_lanes(const panel_lanes<Arch, F>& w, index group, float matrix_scale) : scale(w.scale(group)), other(f32::zero())
    {
        if constexpr (F::form == affine::scale_and_min) { other = w.min(group); }
        if constexpr (F::form == affine::scale_and_zero) { other = w.zero_point(group); }
        if constexpr (F::matrix_scale) { other = f32::broadcast(matrix_scale); }
        if constexpr (row_scaled<F>) { other = to_float(w.group_scale(group)); }
    }
    SEQMIX_INLINE f32 operator()(f32 value) const
    {
        if constexpr (F::form == affine::scale_and_min) {
            return scale * value - other;
        } else if constexpr (F::form == affine::scale_and_zero) {
            return scale * (value - other);
        } else if constexpr (F::matrix_scale) {
            return scale * value * other;
        } else if constexpr (row_scaled<F>) {
            return scale * (value * other);
        } else {
            return scale * value;
        }
    }
};

/// Register `which` of a matrix as words of the right operand, positions [from, end), from a multiple of 32.
template <class Arch, class Element, format F>
void decode_register(const void* matrix, index which, index from, index end, typename tile::product<Arch, Element>::word* to)
{
    using f32 = simd::f32<Arch>;
    constexpr index chunk = packed_layout<F>::chunk, width = tile::blocking<Arch>::columns;
    constexpr int group = tile::product<Arch, Element>::group;
    const auto& packed = *static_cast<const packed_matrix<F>*>(matrix);
    const auto w = panel_lanes<Arch, F>::of(packed, which);
    for (index c = from / chunk; c * chunk < end; ++c) {
        const std::byte* const at = w.chunk(c);
        simd::unroll<2>([&](auto half) SEQMIX_INLINE_LAMBDA { // groups have 16 positions or whole chunks
            const affine_lanes<Arch, F> weight(w, (c * chunk + half * 16) / packed.layout().group, packed.matrix_scale());
            simd::unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
                const auto bytes = w.template bytes<half * 4 + i>(at);
                f32 x[4];
                simd::unroll<4>([&](auto b) SEQMIX_INLINE_LAMBDA { x[b] = weight(w.template values<b>(bytes)); });
                simd::unroll<4 / group>([&](auto step) SEQMIX_INLINE_LAMBDA {
                    if constexpr (group == 2) {
                        simd::backend<Arch>::join_bf16(x[2 * step], x[2 * step + 1]).store(to + step * width);
                    } else {
                        x[step].store(to + step * width);
                    }
                });
                to += 4 / group * width;
            });
        });
    }
}

/// Depth of a decoded panel, in words: it stays in L1 or close to it.
inline constexpr index float_depth_words = 256;

} // namespace detail

/// A packed matrix of any format, so that the loops around the kernels are compiled once.
template <class Arch, class Element>
struct float_weights {
    using word = typename tile::product<Arch, Element>::word;

    const void* matrix;
    index rows, depth, used_depth, registers; ///< positions, and how many of them there are columns for
    const std::int32_t* order;
    const std::int32_t* (*order_of)(const void*);
    void (*decode)(const void*, index, index, index, word*);

    template <format F>
    explicit float_weights(const packed_matrix<F>& w)
        : matrix(&w), rows(w.rows()), depth(w.layout().depth()), used_depth(w.order() != nullptr ? depth : w.columns()),
          registers(w.layout().panels() * panel_lanes<Arch, F>::registers), order(w.order()),
          order_of([](const void* m) { return static_cast<const packed_matrix<F>*>(m)->order(); }), decode(detail::decode_register<Arch, Element, F>)
    {
    }

    /// Another matrix of the same shape and format.
    float_weights of(const void* other) const
    {
        float_weights w = *this;
        w.matrix = other, w.order = order_of(other);
        return w;
    }
};

/// sums [rows, up to a panel] = rows of x, `x` its words at position 0, times the weights from register `first` on. `panel` is scratch.
template <class Arch, class Element>
void multiply_decoded(const tile::left_operand& x, const float_weights<Arch, Element>& w, index first,
                      typename tile::product<Arch, Element>::word* panel, const view<float, 2>& sums)
{
    using product = tile::product<Arch, Element>;
    constexpr index most = detail::float_depth_words * product::group, lanes = simd::lanes<Arch>, width = tile::blocking<Arch>::columns;
    for (index from = 0; from < w.used_depth; from += most) {
        const index end = smaller(from + most, w.used_depth), words = tile::depth_words<product>(end - from);
        for (index v = 0; v < tile::blocking<Arch>::vectors; ++v) {
            if (first + v < w.registers) {
                w.decode(w.matrix, first + v, from, end, panel + v * lanes);
            } else {
                for (index step = 0; step < words; ++step) {
                    for (index lane = 0; lane < lanes; ++lane) { panel[step * width + v * lanes + lane] = {}; }
                }
            }
        }
        tile::left_operand left = x;
        left.base += from / product::group * x.depth_stride;
        tile::multiply_panel<product>(left, panel, words, sums, from > 0);
    }
    for (index row = 0; w.used_depth == 0 && row < sums.extent(0); ++row) {
        for (index column = 0; column < sums.extent(1); ++column) { sums(row, column) = 0.0f; }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
