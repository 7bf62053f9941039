// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/mma.hpp>

// A tile that stays in registers while one product after another is added to it: for mixers whose outputs are sums of small
// products, with decays in between.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Register blocking of small products with few columns: 6 rows of 4 or 2 registers.
///
/// | registers | rows x vectors | accumulators + right + left | loads : multiply-adds a step |
/// |---|---|---|---|
/// | 32 | 6 x 4 | 24 + 4 + 1 = 29 | 10 : 24 |
/// | 16 | 6 x 2 | 12 + 2 + 1 = 15 |  8 : 12 |
///
/// Four registers of 16 lanes are a head of 64 channels, the usual size, without a remainder.
template <class Arch>
struct small_blocking {
    static constexpr int rows = 6;
    static constexpr int vectors = simd::backend<Arch>::registers >= 32 ? 4 : 2;
    static constexpr int columns = vectors * simd::lanes<Arch>;
};

template <class Product, int Vectors>
class register_tile {
    using accumulator = typename Product::accumulator;
    static constexpr int rows = small_blocking<typename Product::arch>::rows, lanes = accumulator::lanes;

public:
    /// Zeros.
    SEQMIX_INLINE register_tile()
    {
        each([&](auto m, auto v) SEQMIX_INLINE_LAMBDA { sum_[m][v] = accumulator::zero(); });
    }

    /// The first `live` rows of a dense tile in scratch, and zeros.
    SEQMIX_INLINE register_tile(const float* from, index stride, index live)
    {
        each([&](auto m, auto v) SEQMIX_INLINE_LAMBDA {
            sum_[m][v] = m < live ? accumulator::load(from + m * stride + v * lanes) : accumulator::zero();
        });
    }

    /// += left(row …, ·) · right(·, …), `depth` steps; `live` rows from `row` on exist. Operands may be of another element than the
    /// tile's usual one.
    template <class Operands = Product>
    SEQMIX_INLINE void add_product(const left_operand& left, index row, index live,
                                   const right_panel<typename Operands::word>& right, index depth)
    {
        micro_kernel<Operands>(sum_, left, row, live, right, depth);
    }

    SEQMIX_INLINE void scale(float factor)
    {
        const accumulator by = accumulator::broadcast(factor);
        each([&](auto m, auto v) SEQMIX_INLINE_LAMBDA { sum_[m][v] = sum_[m][v] * by; });
    }

    /// Row m times factor[m]; reads as many factors as the tile has rows.
    SEQMIX_INLINE void scale_rows(const float* factor)
    {
        each([&](auto m, auto v) SEQMIX_INLINE_LAMBDA { sum_[m][v] = sum_[m][v] * accumulator::broadcast(factor[m]); });
    }

    /// += diag(factor) rows, of a dense tile in scratch; the first `live` rows exist.
    SEQMIX_INLINE void add_rows(const float* from, index stride, index live, const float* factor)
    {
        each([&](auto m, auto v) SEQMIX_INLINE_LAMBDA {
            if (m < live) {
                sum_[m][v] = fma(accumulator::broadcast(factor[m]), accumulator::load(from + m * stride + v * lanes), sum_[m][v]);
            }
        });
    }

    /// Row m += Σ_{j < m} lower(m, j) row j, one row after another: solves (1 - lower) X = this. Reads as many rows as the tile has.
    SEQMIX_INLINE void substitute(const float* lower, index row_stride, index column_stride)
    {
        simd::unroll<rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
            simd::unroll<m>([&](auto j) SEQMIX_INLINE_LAMBDA {
                const accumulator factor = accumulator::broadcast(lower[m * row_stride + j * column_stride]);
                simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { sum_[m][v] = fma(factor, sum_[j][v], sum_[m][v]); });
            });
        });
    }

    /// The first `live` rows.
    SEQMIX_INLINE void store(float* to, index stride, index live) const
    {
        each([&](auto m, auto v) SEQMIX_INLINE_LAMBDA {
            if (m < live) { sum_[m][v].store(to + m * stride + v * lanes); }
        });
    }

private:
    template <class Body>
    static SEQMIX_INLINE void each(const Body& body)
    {
        simd::unroll<rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { body(m, v); });
        });
    }

    accumulator sum_[rows][Vectors];
};

/// Calls body(std::integral_constant<int, n>) for n registers, 1 <= n <= small_blocking::vectors.
template <class Arch, class Body>
SEQMIX_INLINE void with_vectors(index n, const Body& body)
{
    simd::unroll<small_blocking<Arch>::vectors>([&](auto i) SEQMIX_INLINE_LAMBDA {
        if (n == i + 1) { body(std::integral_constant<int, i + 1>{}); }
    });
}

} // namespace tile
SEQMIX_NAMESPACE_END
