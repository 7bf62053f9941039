// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/reduce.hpp>

// Products of rows with rows, A Bᵀ, where both stand in scratch with their depth contiguous: sums stay spread over the lanes and are
// added up at the end, so neither operand is turned. For depths of a head's size; panels (mma.hpp) are better for longer ones.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Rows of floats, `stride` apart, padded with zeros to whole registers.
struct row_block {
    const float* base;
    index stride, rows;
};

/// Where a product's elements go: (i, j) at base + i · row_stride + j · column_stride.
struct element_block {
    float* base;
    index row_stride, column_stride;
};

namespace detail {

/// Rows x columns = lanes products at a time: as many sums as a register has lanes.
template <class Arch>
inline constexpr int row_product_columns = simd::lanes<Arch> >= 8 ? 4 : simd::lanes<Arch> >= 4 ? 2 : 1;
template <class Arch>
inline constexpr int row_product_rows = simd::lanes<Arch> / row_product_columns<Arch>;

/// out(i, j) for `Rows` x `Columns` pairs; what lies beyond the rows is left out.
template <class Arch>
SEQMIX_INLINE void row_products_at(const row_block& left, index i, const row_block& right, index j, index depth, const element_block& out)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes, Rows = row_product_rows<Arch>, Columns = row_product_columns<Arch>;
    const float *a[Rows], *b[Columns];
    simd::unroll<Rows>([&](auto r) SEQMIX_INLINE_LAMBDA { a[r] = left.base + smaller(i + r, left.rows - 1) * left.stride; });
    simd::unroll<Columns>([&](auto c) SEQMIX_INLINE_LAMBDA { b[c] = right.base + smaller(j + c, right.rows - 1) * right.stride; });
    f32 sum[lanes];
    simd::unroll<lanes>([&](auto n) SEQMIX_INLINE_LAMBDA { sum[n] = f32::zero(); });
    for (index d = 0; d < depth; d += lanes) {
        f32 y[Columns];
        simd::unroll<Columns>([&](auto c) SEQMIX_INLINE_LAMBDA { y[c] = f32::load(b[c] + d); });
        simd::unroll<Rows>([&](auto r) SEQMIX_INLINE_LAMBDA {
            const f32 x = f32::load(a[r] + d);
            simd::unroll<Columns>([&](auto c) SEQMIX_INLINE_LAMBDA { sum[r * Columns + c] = fma(x, y[c], sum[r * Columns + c]); });
        });
    }
    float sums[lanes];
    row_sums<Arch>(sum).store(sums);
    const index rows = smaller(Rows, left.rows - i), columns = smaller(Columns, right.rows - j);
    for (index r = 0; r < rows; ++r) {
        for (index c = 0; c < columns; ++c) {
            out.base[(i + r) * out.row_stride + (j + c) * out.column_stride] = sums[r * Columns + c];
        }
    }
}

} // namespace detail

/// out(i, j) = Σ_d left(i, d) right(j, d). Error (depth / lanes + log2 lanes) u Σ|left right|.
template <class Arch>
SEQMIX_NOINLINE void row_products(const row_block& left, const row_block& right, index depth, const element_block& out)
{
    for (index i = 0; i < left.rows; i += detail::row_product_rows<Arch>) {
        for (index j = 0; j < right.rows; j += detail::row_product_columns<Arch>) {
            detail::row_products_at<Arch>(left, i, right, j, depth, out);
        }
    }
}

/// The same where only j <= i is wanted; some that lie just above the diagonal are written too.
template <class Arch>
SEQMIX_NOINLINE void lower_row_products(const row_block& left, const row_block& right, index depth, const element_block& out)
{
    for (index i = 0; i < left.rows; i += detail::row_product_rows<Arch>) {
        for (index j = 0; j < right.rows && j < i + detail::row_product_rows<Arch>; j += detail::row_product_columns<Arch>) {
            detail::row_products_at<Arch>(left, i, right, j, depth, out);
        }
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
