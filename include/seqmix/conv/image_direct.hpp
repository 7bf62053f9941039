// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/backends.hpp>

// Convolution of images tap by tap, for kernels so small that transforms don't pay.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// Tiles of some rows and some registers of outputs. A register of inputs serves as many rows of the tile as the kernel reaches from it, a
/// tap all registers of a row: 4 x 4 loads 8 registers for 16 multiply-adds.
template <class Arch>
struct image_direct {
    using f32 = simd::f32<Arch>;
    static constexpr int lanes = f32::lanes;
    static constexpr int rows = simd::backend<Arch>::registers >= 32 ? 4 : 2, vectors = 4;
    /// Floats behind the last row that are read and not used, besides `rows` - 1 rows.
    static constexpr index beyond = vectors * lanes;

    /// sink(h, w, …) = Σ_ij taps(i, j) x(h + i, w + j) for h < height and the w of whole registers up to width. Row h of x is at
    /// x + h pitch; taps are [tap_rows][tap_columns], dense.
    template <class Sink>
    static SEQMIX_NOINLINE void run(const float* x, index pitch, const float* taps, index tap_rows, index tap_columns, index height, index width,
                                    const Sink& sink)
    {
        for (index h = 0; h < height; h += rows) {
            index w = 0;
            const auto blocks_of = [&](auto count) SEQMIX_INLINE_LAMBDA {
                constexpr index columns = count * lanes;
                for (; width - w > columns - lanes * (count > 1 ? count / 2 : 1); w += columns) {
                    block<count>(x + h * pitch + w, pitch, taps, tap_rows, tap_columns, [&](index r, index v, f32 sum) SEQMIX_INLINE_LAMBDA {
                        if (h + r < height && w + v * lanes < width) { sink(h + r, w + v * lanes, sum); }
                    });
                }
            };
            blocks_of(std::integral_constant<int, vectors>{});
            blocks_of(std::integral_constant<int, vectors / 2>{});
            blocks_of(std::integral_constant<int, 1>{});
        }
    }

private:
    template <int Vectors, class Store>
    static SEQMIX_INLINE void block(const float* x, index pitch, const float* taps, index tap_rows, index tap_columns, const Store& store)
    {
        f32 sum[rows * Vectors];
        simd::unroll<rows * Vectors>([&](auto i) SEQMIX_INLINE_LAMBDA { sum[i] = f32::zero(); });
        for (index i = 0; i < tap_rows + rows - 1; ++i) {
            // Row i of the inputs is met by the kernel's row i - r for the outputs' row r: by those from `first` to `last`.
            const index first = i < tap_rows ? 0 : i - tap_rows + 1, last = i < rows ? i : rows - 1;
            const float *const from = x + i * pitch, *const tap = taps + i * tap_columns;
            simd::unroll<rows>([&](auto low) SEQMIX_INLINE_LAMBDA {
                simd::unroll<rows - low>([&](auto more) SEQMIX_INLINE_LAMBDA {
                    if (first != low || last != low + more) { return; }
                    for (index j = 0; j < tap_columns; ++j) {
                        f32 in[Vectors];
                        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { in[v] = f32::load(from + j + v * lanes); });
                        simd::unroll<more + 1>([&](auto n) SEQMIX_INLINE_LAMBDA {
                            constexpr int r = low + n;
                            const f32 factor = f32::broadcast(tap[j - r * tap_columns]);
                            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                                sum[r * Vectors + v] = fma(factor, in[v], sum[r * Vectors + v]);
                            });
                        });
                    }
                });
            });
        }
        simd::unroll<rows>([&](auto r) SEQMIX_INLINE_LAMBDA {
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { store(index{r}, index{v}, sum[r * Vectors + v]); });
        });
    }
};

} // namespace conv
SEQMIX_NAMESPACE_END
