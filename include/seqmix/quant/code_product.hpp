// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/block_product.hpp>
#include <seqmix/tile/mma.hpp>

#include <atomic>

// Products of weights' codes with activations' bytes, integer inside a segment of the depth, scaled between segments.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// What a code may be, for the multiply-add that suits it.
enum class code_range {
    narrow, ///< 0 to 127
    wide,   ///< any byte: value + simd::backend::left_int8_offset, as unsigned where that is 128
};

/// tile::product for codes on the right (panels) and signed bytes on the left (broadcasts). Narrow codes are summed in 16 bits where
/// the set has no dot product of bytes.
template <class Arch, code_range Range>
struct code_product {
    using arch = Arch;
    using word = std::int32_t;
    using operand = simd::i32<Arch>;
    using accumulator = simd::i32<Arch>;
    static constexpr int group = 4;
    static constexpr bool short_sums = Range == code_range::narrow && simd::backend<Arch>::has_short_sums;

    static SEQMIX_INLINE accumulator multiply_add(operand activations, operand codes, accumulator sum)
    {
        if constexpr (short_sums) {
            return simd::backend<Arch>::dot_short(sum, codes, activations);
        } else {
            return simd::backend<Arch>::dot4(sum, codes, activations);
        }
    }

    static SEQMIX_INLINE accumulator total(accumulator sum)
    {
        if constexpr (short_sums) {
            return simd::backend<Arch>::sum_short(sum);
        } else {
            return sum;
        }
    }

    /// Words that may be summed before `total`, for codes up to `largest` and activations within ±127.
    static constexpr index most_words(int largest)
    {
        return short_sums ? 32767 / (2 * 127 * largest) : 2147483647 / (4 * 127 * 255);
    }
};

/// An integer within ±2^22 added to these bits makes a float that is as much larger than this one: the conversion costs nothing, and
/// (y - float_of_bits) · scale is one fused operation.
inline constexpr std::int32_t float_bits = 0x4b400000;
inline constexpr float float_of_bits = 0x1.8p23f;

/// Activations as bytes, and for each segment and row the scale and what the codes' zero adds (−zero · Σ codes). All that a block of
/// rows needs lies together, in the order in which the micro-kernel reads it. Blocks are padded with anything; results there are to be
/// dropped.
template <class Arch>
struct activation_codes {
    static constexpr index block_rows = tile::blocking<Arch>::rows;
    static constexpr index run = simd::backend<Arch>::has_byte_blocks ? 8 : 4; ///< bytes of a row that lie together
    static constexpr index step = run * block_rows;                            ///< bytes from a run of a row to its next one

    const std::int8_t* codes;  ///< blocks of block_rows rows: [depth / run][row][run]
    index depth;               ///< of the codes
    const std::int32_t* start; ///< blocks again, [segment][row]; here and below
    const float* scale;        ///< null: one scale a row, applied by the caller; else start has float_bits added
    const float* below;        ///< -float_of_bits · scale, exact; null with it
    const float* sum;          ///< scale · Σ codes, for weights with a minimum
    index segments;

    /// A row's bytes from where a run begins.
    SEQMIX_INLINE const std::int8_t* words(index row, index position) const
    {
        return codes + row / block_rows * block_rows * depth + position * block_rows + row % block_rows * run;
    }
    /// Bytes from there to the row's word that comes `count` words later.
    static constexpr index later(index count) { return count * 4 / run * step + count * 4 % run; }

    SEQMIX_INLINE index at(index segment, index row) const { return (row / block_rows * segments + segment) * block_rows + row % block_rows; }
};

/// Weights of one panel, unpacked: segments of `words` words; [word][column] codes and [segment][column] scales and minima.
/// Where the set multiplies blocks of bytes, words 2 i and 2 i + 1 of each register are zipped.
struct code_panel {
    const std::int32_t* codes;
    const float* scale;
    const float* min; ///< null: none
    index words;      ///< of a segment
};

/// Panels that activations are read for at a time; rows of their sums lie one after the other.
inline constexpr index panels_at_once = 4;

/// sums [rows, panels_at_once panels], one of them += Σ over segments first … first + count of (Σ codes · activations) · scales − min ·
/// Σ activations. Segment s of the panel meets segment first + s of the activations, which starts at position (first + s) · segment.
/// Segments of `Words` words, where that is not 0, are unrolled: between short ones there is much to do, and a loop would be in the way.
/// Not so blocks of bytes, see there.
template <class Arch, code_range Range, bool BlockScales, bool HasMin, int Words>
SEQMIX_NOINLINE void multiply_codes(const activation_codes<Arch>& x, index first_row, index rows, index first, index count, index segment,
                                    const code_panel& w, float* sums)
{
    using product = code_product<Arch, Range>;
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    constexpr int block = tile::blocking<Arch>::rows, vectors = tile::blocking<Arch>::vectors;
    constexpr int lanes = f32::lanes, width = tile::blocking<Arch>::columns, stride = panels_at_once * width;
    constexpr bool blocks = simd::backend<Arch>::has_byte_blocks;
    const index words = w.words;
    if (words <= 0) { return; }
    const activation_codes<Arch> own = x; // so that no store of a sum may change it
    for (index row = first_row; row < first_row + rows; row += block) {
        float* to = sums + (row - first_row) * stride;
        for (index s = 0; s < count; ++s) {
            const index at = own.at(first + s, row);
            i32 sum[block][vectors];
            if constexpr (!blocks) {
                simd::unroll<block>([&](auto m) SEQMIX_INLINE_LAMBDA {
                    const i32 start = product::short_sums ? i32::zero() : i32::broadcast(own.start[at + m]);
                    simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { sum[m][v] = start; });
                });
            }
            const std::int8_t* const left = own.words(row, (first + s) * segment);
            const std::int32_t* const right = w.codes + s * words * width;
            const auto multiply = [&](index from, index how_many) SEQMIX_INLINE_LAMBDA {
                tile::micro_kernel<product>(sum, tile::left_operand::of(left + from * own.step, own.run, own.step), 0, block,
                                            {right + from * width, width}, how_many);
            };
            if constexpr (blocks) {
                multiply_byte_blocks<Arch>(own.start + at, left, right, words, sum);
            } else if constexpr (Words > 0) {
                simd::unroll<Words>([&](auto word) SEQMIX_INLINE_LAMBDA { multiply(word, 1); });
            } else {
                multiply(0, words);
            }
            f32 scale[vectors], min[vectors];
            simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                scale[v] = f32::load(w.scale + s * width + v * lanes);
                if constexpr (HasMin) { min[v] = f32::load(w.min + s * width + v * lanes); }
            });
            simd::unroll<block>([&](auto m) SEQMIX_INLINE_LAMBDA {
                const f32 by = f32::broadcast(BlockScales ? own.scale[at + m] : 1.0f), below = f32::broadcast(BlockScales ? own.below[at + m] : 0.0f);
                const f32 less = f32::broadcast(HasMin ? own.sum[at + m] : 0.0f);
                simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                    float* const element = to + m * stride + v * lanes;
                    i32 total = product::total(sum[m][v]);
                    if constexpr (product::short_sums) { total = total + i32::broadcast(own.start[at + m]); }
                    f32 y = BlockScales ? fma(as_float(total), by, below) : to_float(total);
                    y = fma(y, scale[v], f32::load(element));
                    if constexpr (HasMin) { y = fnma(min[v], less, y); }
                    y.store(element);
                });
            });
            // Or the compiler would keep the sums of a block in registers from segment to segment, and not have enough of them.
            std::atomic_signal_fence(std::memory_order_seq_cst);
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
