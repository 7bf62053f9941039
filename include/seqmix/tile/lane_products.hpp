// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/mma.hpp>
#include <seqmix/tile/register_tile.hpp>

// Products of as many small matrices as a register has lanes, each lane its own: for block-diagonal matrices whose blocks are
// interleaved in memory, which then need no permutation.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// A left operand whose elements are registers, one matrix a lane: (row, step) stands at base + row · row_stride + step · depth_stride.
struct lane_operand {
    const float* base;
    index row_stride, depth_stride;
};

/// sum(row, column) = Σ left(row, step) right(step, column), lane by lane: `rows` rows, `Columns` columns, `depth` steps.
/// Step s of the right operand holds its `Columns` registers at base + s · stride. end(row, column, sum) takes each register of sums
/// while it is one; it is not called for rows that do not exist. Register blocking is small_blocking's, with columns for its vectors,
/// and loads of whole registers where the micro-kernel broadcasts: as many of them for as many multiply-adds.
template <class Arch, int Columns, class End>
SEQMIX_INLINE void lane_mma(index rows, index depth, const lane_operand& left, const right_panel<float>& right, const End& end)
{
    using f32 = simd::f32<Arch>;
    constexpr int block = small_blocking<Arch>::rows, lanes = f32::lanes;
    static_assert(Columns <= small_blocking<Arch>::vectors);
    for (index row = 0; row < rows; row += block) {
        const index live = smaller(block, rows - row);
        f32 sum[block][Columns];
        simd::unroll<block * Columns>([&](auto i) SEQMIX_INLINE_LAMBDA { sum[i / Columns][i % Columns] = f32::zero(); });
        // Rows that do not exist repeat the last one, so that nothing outside the operand is read.
        const float* a[block];
        simd::unroll<block>([&](auto m) SEQMIX_INLINE_LAMBDA { a[m] = left.base + (row + smaller(m, live - 1)) * left.row_stride; });
        const float* b = right.base;
        for (index step = 0, at = 0; step < depth; ++step, at += left.depth_stride, b += right.stride) {
            f32 column[Columns];
            simd::unroll<Columns>([&](auto n) SEQMIX_INLINE_LAMBDA { column[n] = f32::load(b + n * lanes); });
            simd::unroll<block>([&](auto m) SEQMIX_INLINE_LAMBDA {
                const f32 element = f32::load(a[m] + at);
                simd::unroll<Columns>([&](auto n) SEQMIX_INLINE_LAMBDA { sum[m][n] = fma(element, column[n], sum[m][n]); });
            });
        }
        simd::unroll<block>([&](auto m) SEQMIX_INLINE_LAMBDA {
            if (m < live) {
                simd::unroll<Columns>([&](auto n) SEQMIX_INLINE_LAMBDA { end(row + m, n, sum[m][n]); });
            }
        });
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
