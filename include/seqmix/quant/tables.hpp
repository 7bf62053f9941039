// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/quant/activations.hpp>
#include <seqmix/quant/options.hpp>
#include <seqmix/quant/packed.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

// Activations as tables: what every nibble of packed codes may add to a product, so that a product is looked up and summed.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// Formats whose codes have tables.
template <class F>
concept tabulated = format<F> && F::integer_codes && packed_layout<F>::bits <= 4;

/// What the tables of a format hold. A nibble of a plane of w bits has the codes of 4 / w positions, 4 apart, and its table the 16
/// sums of (code - centre) · x; of codes in several planes each plane has a part of the centre. `most_code`: the largest that occurs;
/// larger ones are looked up as if they were smaller.
template <tabulated F>
class table_terms {
    using layout = packed_layout<F>;

public:
    static constexpr index block_bytes = 128; ///< tables for 64 bytes of codes: [lower or upper nibbles][4 positions][16]
    static constexpr index chunk_bytes = layout::bits * block_bytes;

    explicit table_terms(int most_code) : most_(static_cast<float>(most_code)) {}

    /// code - zero = (code - centre) + this.
    float centre_less_zero() const
    {
        float centre = 0.0f;
        for_each_plane([&](index, auto width, int bit) { centre += centre_of(width, bit); });
        return centre - static_cast<float>(lane_code<F>::zero);
    }

    /// The largest sum of a table for 32 positions.
    float largest(const float* x) const
    {
        float most = 0.0f;
        for_each_plane([&](index, auto width, int bit) {
            constexpr index positions = 4 / width;
            float sum = 0.0f;
            for (index word = 0; word < layout::chunk / 4; word += positions) {
                for (index p = 0; p < 4; ++p) {
                    float here = 0.0f;
                    for (index i = 0; i < positions; ++i) { here += std::fabs(x[(word + i) * 4 + p]); }
                    sum = std::max(sum, here);
                }
            }
            most = std::max(most, sum * reach_of(width, bit));
        });
        return most;
    }

    /// Tables for 32 positions: sums times `factor`, rounded, and 128 more.
    template <class Arch>
    void write(const float* x, float factor, std::uint8_t* to) const
    {
        using f32 = simd::f32<Arch>;
        using i32 = simd::i32<Arch>;
        constexpr int lanes = f32::lanes;
        for_each_plane([&](index block, auto width, int bit) {
            constexpr index positions = 4 / width;
            float terms[positions][16];
            for (int nibble = 0; nibble < 16; ++nibble) {
                for (index i = 0; i < positions; ++i) { terms[i][nibble] = term((nibble >> i * width) & ((1 << width) - 1), width, bit); }
            }
            std::uint8_t* table = to + block * block_bytes;
            for (index word = 0; word < layout::chunk / 4; word += positions) {
                for (index p = 0; p < 4; ++p, table += 16) {
                    f32 scaled[positions];
                    simd::unroll<positions>([&](auto i) SEQMIX_INLINE_LAMBDA { scaled[i] = f32::broadcast(x[(word + i) * 4 + p] * factor); });
                    simd::unroll<16 / lanes>([&](auto v) SEQMIX_INLINE_LAMBDA {
                        f32 sum = scaled[0] * f32::load(terms[0] + v * lanes);
                        simd::unroll<positions - 1>([&](auto i) SEQMIX_INLINE_LAMBDA {
                            sum = fma(scaled[i + 1], f32::load(terms[i + 1] + v * lanes), sum);
                        });
                        const i32 entry = to_int(max(min(sum, f32::broadcast(127.0f)), f32::broadcast(-127.0f)));
                        (entry + i32::broadcast(128)).store_bytes(table + v * lanes);
                    });
                }
            }
        });
    }

private:
    static constexpr bool one_plane = layout::bits == 1 || layout::bits == 2 || layout::bits == 4;

    /// Calls take(block of 64 bytes in a chunk, width, bit of the code) for each plane.
    template <class Take>
    static void for_each_plane(const Take& take)
    {
        index block = 0;
        int bit = 0;
        simd::unroll<3>([&](auto i) {
            constexpr int width = 4 >> i;
            if constexpr ((layout::bits & width) != 0) {
                take(block, std::integral_constant<int, width>{}, bit);
                block += width;
                bit += width;
            }
        });
    }

    float centre_of(int width, int bit) const
    {
        if (lane_code<F>::looked_up) { return static_cast<float>(lane_code<F>::zero); }
        return (one_plane ? most_ : static_cast<float>(((1 << width) - 1) << bit)) / 2.0f;
    }
    float term(int field, int width, int bit) const
    {
        const int code = lane_code<F>::looked_up ? lane_code<F>::table.byte[field] : field << bit;
        return static_cast<float>(code) - centre_of(width, bit);
    }
    float reach_of(int width, int bit) const
    {
        if (!lane_code<F>::looked_up) { return centre_of(width, bit); }
        float reach = 0.0f;
        for (int code = 0; code < 16; ++code) { reach = std::max(reach, std::fabs(term(code, width, bit))); }
        return reach;
    }

    float most_;
};

/// How the depth is cut for tables: `block` positions share a scale of their tables; sums of a segment fit 16 bits.
template <tabulated F>
depth_cut cut_for_tables(const packed_layout<F>& w, activation_scales scales)
{
    constexpr index sums = 32 * packed_layout<F>::chunk / packed_layout<F>::bits, step = packed_layout<F>::chunk;
    const bool one_scale = w.groups <= 1, rows = scales == activation_scales::rows;
    const index shared = one_scale ? w.depth() : w.group;
    const index segment = detail::part_of(shared, rows ? sums : smaller(index{512}, sums), step, one_scale);
    return {w.depth(), rows ? larger(w.depth(), 1) : segment, segment};
}

/// The rows of one call as tables, and for each segment and row their scale and Σ x.
template <tabulated F>
class activation_tables {
public:
    activation_tables(arena& a, index rows, const depth_cut& cut, int most_code)
        : terms_(most_code), cut_(cut), rows_(rows), stride_(cut.depth / packed_layout<F>::chunk * table_terms<F>::chunk_bytes)
    {
        tables_ = a.take<std::uint8_t>(rows_ * stride_);
        scale_ = a.take<float>(cut.segments() * rows_);
        sum_ = a.take<float>(cut.segments() * rows_);
    }

    /// Row `row` from x [depth], padded with zeros to whole chunks. A block that holds an infinity or NaN gets the scale NaN.
    template <class Arch>
    void tabulate(index row, const float* x) const
    {
        constexpr index chunk = packed_layout<F>::chunk;
        for (index from = 0; from < cut_.depth; from += cut_.block) {
            const index end = smaller(from + cut_.block, cut_.depth);
            float most = 0.0f;
            for (index p = from; p < end; p += chunk) { most = std::max(most, terms_.largest(x + p)); }
            const float scale = sum_of<Arch>(x, from, end, 0.0f) == 0.0f ? most / 127.0f : std::numeric_limits<float>::quiet_NaN();
            const float factor = scale > 0.0f ? 1.0f / scale : 0.0f;
            for (index first = from; first < end; first += cut_.segment) {
                const index last = smaller(first + cut_.segment, end), at = first / cut_.segment * rows_ + row;
                scale_[at] = scale;
                sum_[at] = sum_of<Arch>(x, first, last, 1.0f);
                for (index p = first; p < last; p += chunk) {
                    terms_.template write<Arch>(x + p, factor, tables_ + row * stride_ + p / chunk * table_terms<F>::chunk_bytes);
                }
            }
        }
    }

    const std::uint8_t* tables(index row, index position) const
    {
        return tables_ + row * stride_ + position / packed_layout<F>::chunk * table_terms<F>::chunk_bytes;
    }
    float scale(index row, index segment) const { return scale_[segment * rows_ + row]; }
    float sum(index row, index segment) const { return sum_[segment * rows_ + row]; }
    float centre_less_zero() const { return terms_.centre_less_zero(); }

private:
    /// Σ factor · x over whole chunks; with 0 it is NaN where one of them is infinite or NaN.
    template <class Arch>
    static float sum_of(const float* x, index from, index end, float factor)
    {
        using f32 = simd::f32<Arch>;
        f32 sum = f32::zero();
        for (index p = from; p < end; p += f32::lanes) { sum = fma(f32::load(x + p), f32::broadcast(factor), sum); }
        return reduce_add(sum);
    }

    table_terms<F> terms_;
    depth_cut cut_;
    index rows_, stride_;
    std::uint8_t* tables_;
    float* scale_;
    float* sum_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
