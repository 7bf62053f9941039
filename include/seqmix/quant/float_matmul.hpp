// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/panel_lanes.hpp>
#include <seqmix/tile/gemm.hpp>

// Products of floats (or bf16) with packed weights, which become floats (or bf16) block by block in cache.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// A panel of the right operand, decoded.
template <class Arch, format F, class Element>
class decoded_panel {
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    using product = tile::product<Arch, Element>;
    using word = typename product::word;
    static constexpr index lanes = f32::lanes, width = tile::blocking<Arch>::columns, vectors = tile::blocking<Arch>::vectors;
    static constexpr index chunk = packed_layout<F>::chunk;

public:
    static constexpr index depth = 256 * product::group; ///< positions at a time: the panel stays in L1 or close to it

    explicit decoded_panel(arena& a) : words_(a.take<word>(depth / product::group * width)) {}

    /// Registers from `first` on, positions [from, end), from a multiple of 32.
    void decode(const packed_matrix<F>& w, index first, index from, index end) const
    {
        const index registers = w.layout().panels() * panel_lanes<Arch, F>::registers;
        for (index v = 0; v < vectors; ++v) {
            if (first + v < registers) {
                decode(panel_lanes<Arch, F>::of(w, first + v), w.layout().group, w.matrix_scale(), v * lanes, from, end);
            } else {
                for (index step = 0; step < (end - from + product::group - 1) / product::group; ++step) {
                    for (index lane = 0; lane < lanes; ++lane) { words_[step * width + v * lanes + lane] = word{}; }
                }
            }
        }
    }
    const word* words() const { return words_; }

private:
    SEQMIX_NOINLINE void decode(const panel_lanes<Arch, F>& w, index group, float matrix_scale, index column, index from, index end) const
    {
        word* to = words_ + column;
        for (index c = from / chunk; c * chunk < end; ++c) {
            const std::byte* const at = w.chunk(c);
            simd::unroll<2>([&](auto half) SEQMIX_INLINE_LAMBDA { // groups have 16 positions or whole chunks
                const affine_lanes weight(w, (c * chunk + half * 16) / group, matrix_scale);
                simd::unroll<4>([&](auto i) SEQMIX_INLINE_LAMBDA {
                    const i32 bytes = w.template bytes<half * 4 + i>(at);
                    f32 x[4];
                    simd::unroll<4>([&](auto b) SEQMIX_INLINE_LAMBDA { x[b] = weight(w.template values<b>(bytes)); });
                    simd::unroll<4 / product::group>([&](auto step) SEQMIX_INLINE_LAMBDA {
                        if constexpr (product::group == 2) {
                            simd::backend<Arch>::join_bf16(x[2 * step], x[2 * step + 1]).store(to + step * width);
                        } else {
                            x[step].store(to + step * width);
                        }
                    });
                    to += 4 / product::group * width;
                });
            });
        }
    }

    /// Weights of a group from the numbers of their codes, rounded as the format says.
    struct affine_lanes {
        f32 scale, other;

        SEQMIX_INLINE affine_lanes(const panel_lanes<Arch, F>& w, index group, float matrix_scale) : scale(w.scale(group)), other(f32::zero())
        {
            if constexpr (F::form == affine::scale_and_min) { other = w.min(group); }
            if constexpr (F::form == affine::scale_and_zero) { other = w.zero_point(group); }
            if constexpr (F::matrix_scale) { other = f32::broadcast(matrix_scale); }
        }
        SEQMIX_INLINE f32 operator()(f32 value) const
        {
            if constexpr (F::form == affine::scale_and_min) {
                return scale * value - other;
            } else if constexpr (F::form == affine::scale_and_zero) {
                return scale * (value - other);
            } else if constexpr (F::matrix_scale) {
                return scale * value * other;
            } else {
                return scale * value;
            }
        }
    };

    word* words_;
};

} // namespace detail

/// sums [rows, panel] = rows of x, `x` its words at position 0, times the weights from register `first` on.
template <class Arch, class Element, format F>
void multiply_decoded(const tile::left_operand& x, index rows, index depth, const packed_matrix<F>& w, index first,
                      const detail::decoded_panel<Arch, F, Element>& panel, const view<float, 2>& sums)
{
    using product = tile::product<Arch, Element>;
    constexpr index most = detail::decoded_panel<Arch, F, Element>::depth;
    for (index from = 0; from < depth; from += most) {
        const index end = smaller(from + most, depth);
        panel.decode(w, first, from, end);
        tile::left_operand left = x;
        left.base += from / product::group * x.depth_stride;
        tile::multiply_panel<product>(left, panel.words(), tile::depth_words<product>(end - from), sums, from > 0);
    }
    for (index row = 0; depth == 0 && row < rows; ++row) {
        for (index column = 0; column < sums.extent(1); ++column) { sums(row, column) = 0.0f; }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
