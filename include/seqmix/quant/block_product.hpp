// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/blocking.hpp>

#include <atomic>

// Products of bytes by instructions that multiply two rows of eight by two rows of eight.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// sum(m, v) = start(m) + Σ left(m, ·) · right(·, v), the bytes of `words` words, an even number.
/// left [words / 2][row][8]; right [words / 2][2][vector][2 columns][8], lower columns of all vectors first, as zip_words makes them of
/// two words. Eight positions take rows / 2 + 2 vectors loads and rows · vectors products, half as many as word by word, with as many
/// accumulators. Not unrolled: a step is long enough to hide its loop, and compilers would let loads run ahead, sums out to memory.
template <class Arch, int Rows, int Vectors>
SEQMIX_INLINE void multiply_byte_blocks(const std::int32_t* start, const std::int8_t* left, const std::int32_t* right, index words,
                                        simd::i32<Arch> (&sum)[Rows][Vectors])
{
    using set = simd::backend<Arch>;
    using i32 = simd::i32<Arch>;
    constexpr int lanes = i32::lanes;
    static_assert(lanes == 4 && Rows % lanes == 0, "a register holds [2][2] sums, or what four rows start from");
    i32 block[Rows / 2][Vectors][2]; // sums of two rows and two columns
    simd::unroll<Rows / lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
        i32 first = i32::load(start + i * lanes), second = first;
        set::zip_words(first, second);
        simd::unroll<2 * Vectors>([&](auto c) SEQMIX_INLINE_LAMBDA {
            block[2 * i][c / 2][c % 2] = first;
            block[2 * i + 1][c / 2][c % 2] = second;
        });
    });
    for (index word = 0; word < words; word += 2) {
        const auto* const rows = reinterpret_cast<const std::int32_t*>(left) + word * Rows;
        const std::int32_t* const columns = right + word * Vectors * lanes;
        i32 pair[Rows / 2];
        simd::unroll<Rows / 2>([&](auto i) SEQMIX_INLINE_LAMBDA { pair[i] = i32::load(rows + i * lanes); });
        simd::unroll<2 * Vectors>([&](auto c) SEQMIX_INLINE_LAMBDA {
            // Or all columns would be loaded at once, for which there are too few registers.
            if constexpr (c % Vectors == 0) { std::atomic_signal_fence(std::memory_order_seq_cst); }
            const i32 codes = i32::load(columns + c * lanes);
            simd::unroll<Rows / 2>([&](auto i) SEQMIX_INLINE_LAMBDA {
                i32& to = block[i][c % Vectors][c / Vectors];
                to = set::dot_blocks(to, pair[i], codes);
            });
        });
    }
    simd::unroll<Rows / 2>([&](auto i) SEQMIX_INLINE_LAMBDA {
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
            set::zip_pairs(block[i][v][0], block[i][v][1]);
            sum[2 * i][v] = block[i][v][0];
            sum[2 * i + 1][v] = block[i][v][1];
        });
    });
}

} // namespace quant
SEQMIX_NAMESPACE_END
