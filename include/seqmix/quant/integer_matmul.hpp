// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/quant/activations.hpp>
#include <seqmix/quant/panel_lanes.hpp>
#include <seqmix/simd/prefetch.hpp>

#include <numeric>

// Products of bytes with packed weights. Many rows: codes are unpacked block by block, into cache, for all rows of a block. Few
// rows: codes are unpacked into registers, and weights pass by once.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// How a format is multiplied on a set.
template <class Arch, format F>
struct integer_product {
    static constexpr index positions_of_word = 4;
    static constexpr bool short_sums = simd::backend<Arch>::has_short_sums && !lane_code<F>::wide &&
                                       code_product<Arch, code_range::narrow>::most_words(lane_code<F>::largest) >= 4;
    static constexpr code_range range = short_sums ? code_range::narrow : code_range::wide;
    using product = code_product<Arch, range>;
    static constexpr bool has_min = F::form != affine::scale_only;

    /// Positions of the depth whose codes stay in L1 beside the activations'.
    static constexpr index depth_block = 1024;

    /// Blocks of activations do not depend on the set, segments do.
    static depth_cut cut(const packed_layout<F>& w, activation_scales scales)
    {
        const bool one_scale = w.groups <= 1;
        const bool rows = scales == activation_scales::rows || (scales == activation_scales::automatic && one_scale);
        const index shared = one_scale ? w.depth() : w.group;
        const index block = rows ? larger(w.depth(), 1) : part_of(shared, 128, one_scale);
        const index most = smaller(depth_block, product::most_words(lane_code<F>::largest) * positions_of_word / 16 * 16);
        return {w.depth(), block, part_of(rows ? shared : smaller(block, shared), most, one_scale && rows)};
    }

private:
    /// The largest multiple of 16 up to `most` that divides `whole`, or that need not.
    static index part_of(index whole, index most, bool any)
    {
        if (whole <= most) { return larger(whole, 16); }
        index part = most / 16 * 16;
        while (!any && whole % part != 0) { part -= 16; }
        return part;
    }
};

namespace detail {

/// What a group's codes are multiplied by, and what it subtracts.
template <class Arch, format F>
struct group_factors {
    simd::f32<Arch> scale, min;

    SEQMIX_INLINE group_factors(const panel_lanes<Arch, F>& w, index group, float unit)
    {
        scale = w.scale(group) * simd::f32<Arch>::broadcast(unit);
        min = simd::f32<Arch>::zero();
        if constexpr (F::form == affine::scale_and_min) { min = w.min(group); }
        if constexpr (F::form == affine::scale_and_zero) { min = scale * w.zero_point(group); }
    }
};

template <class Arch, format F>
float unit_of(const packed_matrix<F>& w)
{
    return F::unit * w.matrix_scale();
}

/// A block of panels, unpacked for the micro-kernel.
template <class Arch, format F>
class unpacked_block {
    using kind = integer_product<Arch, F>;
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    static constexpr index lanes = f32::lanes, width = tile::blocking<Arch>::columns, vectors = tile::blocking<Arch>::vectors;

public:
    static constexpr index panels = 4; ///< that activations are read for at a time
    static constexpr index columns = panels * width;

    unpacked_block(arena& a, const depth_cut& cut) : cut_(cut)
    {
        const index step = std::lcm(cut.segment, packed_layout<F>::chunk);
        depth_ = larger(kind::depth_block / step * step, step);
        codes_ = a.take<std::int32_t>(panels * depth_ / 4 * width);
        segments_ = depth_ / cut.segment;
        scales_ = a.take<float>(panels * segments_ * width);
        mins_ = a.take<float>(kind::has_min ? panels * segments_ * width : 0);
    }

    index depth() const { return depth_; }

    /// Panels from register `first` on, positions [from, end).
    void unpack(const packed_matrix<F>& w, index first, index live_panels, index from, index end) const
    {
        const index registers = w.layout().panels() * panel_lanes<Arch, F>::registers;
        for (index v = 0; v < live_panels * vectors; ++v) {
            const index column = v % vectors * lanes, panel = v / vectors;
            if (first + v < registers) {
                unpack(panel_lanes<Arch, F>::of(w, first + v), unit_of<Arch>(w), w.layout().group, panel, column, from, end);
            } else {
                clear(panel, column, end - from);
            }
        }
    }

    code_panel panel(index p, index segment, index words) const
    {
        const index at = (p * segments_ + segment) * width;
        return {codes_ + p * depth_ / 4 * width + segment * cut_.segment / 4 * width, scales_ + at, kind::has_min ? mins_ + at : nullptr, words};
    }

private:
    SEQMIX_NOINLINE void unpack(const panel_lanes<Arch, F>& w, float unit, index group, index panel, index column, index from, index end) const
    {
        constexpr index chunk = packed_layout<F>::chunk;
        std::int32_t* to = codes_ + panel * depth_ / 4 * width + column;
        for (index c = from / chunk; c * chunk < end; ++c) {
            const std::byte* const at = w.chunk(c);
            simd::unroll<chunk / 4>([&](auto word) SEQMIX_INLINE_LAMBDA { w.template codes<word>(at).store(to + word * width); });
            to += chunk / 4 * width;
        }
        for (index at = from; at < end; at += cut_.segment) {
            const group_factors<Arch, F> factors(w, at / group, unit);
            const index place = (panel * segments_ + (at - from) / cut_.segment) * width + column;
            factors.scale.store(scales_ + place);
            if constexpr (kind::has_min) { factors.min.store(mins_ + place); }
        }
    }

    void clear(index panel, index column, index depth) const
    {
        for (index word = 0; word < depth / 4; ++word) { i32::zero().store(codes_ + (panel * depth_ / 4 + word) * width + column); }
        for (index s = 0; s * cut_.segment < depth; ++s) {
            f32::zero().store(scales_ + (panel * segments_ + s) * width + column);
            if constexpr (kind::has_min) { f32::zero().store(mins_ + (panel * segments_ + s) * width + column); }
        }
    }

    depth_cut cut_;
    index depth_, segments_;
    std::int32_t* codes_;
    float* scales_;
    float* mins_;
};

} // namespace detail

/// sums [rows, block of columns] = products of activations with the weights' rows from register `first` on; `rows` is a multiple of
/// the micro-kernel's.
template <class Arch, format F>
void multiply_block(const activation_codes& x, const depth_cut& cut, index first_row, index rows, const packed_matrix<F>& w, index first,
                    index live_panels, const detail::unpacked_block<Arch, F>& block, float* sums)
{
    using kind = integer_product<Arch, F>;
    constexpr index width = tile::blocking<Arch>::columns, columns = detail::unpacked_block<Arch, F>::columns;
    for (index i = 0; i < rows * columns; ++i) { sums[i] = 0.0f; }
    for (index from = 0; from < cut.depth; from += block.depth()) {
        const index end = smaller(from + block.depth(), cut.depth);
        block.unpack(w, first, live_panels, from, end);
        const index whole = (end - from) / cut.segment, rest = (end - from) % cut.segment; // the last segment may be shorter
        for (index p = 0; p < live_panels; ++p) {
            const auto multiply = [&](index segment, index count, index positions) {
                const code_panel panel = block.panel(p, segment, positions / 4);
                const index at = from / cut.segment + segment;
                if (x.scale != nullptr) {
                    multiply_codes<Arch, kind::range, true, kind::has_min>(x, first_row, rows, at, count, cut.segment, panel, sums + p * width, columns);
                } else {
                    multiply_codes<Arch, kind::range, false, kind::has_min>(x, first_row, rows, at, count, cut.segment, panel, sums + p * width, columns);
                }
            };
            multiply(0, whole, cut.segment);
            if (rest > 0) { multiply(whole, 1, rest); }
        }
    }
}

/// Registers of weights that few rows are multiplied with at a time.
inline constexpr int few_registers = 2;

/// sums [Rows][few_registers][lanes] = the same for few rows, straight from the packed codes of registers `first` and `second`.
template <class Arch, format F, int Rows>
SEQMIX_NOINLINE void multiply_rows(const activation_codes& x, const depth_cut& cut, index first_row, const packed_matrix<F>& w, index first,
                                   index second, float* sums)
{
    constexpr int registers = few_registers;
    using kind = integer_product<Arch, F>;
    using lanes_of = panel_lanes<Arch, F>;
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    constexpr index chunk = packed_layout<F>::chunk, ahead = 1024;
    const lanes_of panel[registers] = {lanes_of::of(w, first), lanes_of::of(w, second)};
    const float unit = detail::unit_of<Arch>(w);
    f32 total[Rows][registers];
    simd::unroll<Rows * registers>([&](auto i) SEQMIX_INLINE_LAMBDA { total[i / registers][i % registers] = f32::zero(); });

    for (index s = 0, from = 0; from < cut.depth; ++s, from += cut.segment) {
        const index end = smaller(from + cut.segment, cut.depth), at = s * x.rows + first_row;
        i32 sum[Rows][registers];
        simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
            const i32 start = kind::short_sums ? i32::zero() : i32::broadcast(x.start[at + m]);
            simd::unroll<registers>([&](auto r) SEQMIX_INLINE_LAMBDA { sum[m][r] = start; });
        });
        const std::int8_t* left = x.codes + first_row * x.stride + from;
        const auto words = [&](index c, auto first_word, auto count) SEQMIX_INLINE_LAMBDA {
            simd::unroll<count>([&](auto i) SEQMIX_INLINE_LAMBDA {
                constexpr int word = first_word + i;
                simd::unroll<registers>([&](auto r) SEQMIX_INLINE_LAMBDA {
                    const i32 codes = lanes_of::template codes<word>(panel[r].chunk(c));
                    simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
                        std::int32_t bytes;
                        std::memcpy(&bytes, left + m * x.stride + 4 * i, 4);
                        sum[m][r] = kind::product::multiply_add(i32::broadcast(bytes), codes, sum[m][r]);
                    });
                });
            });
            left += 4 * count;
        };
        if (cut.segment == chunk / 2) {
            if (from % chunk == 0) {
                words(from / chunk, std::integral_constant<int, 0>{}, std::integral_constant<int, 4>{});
            } else {
                words(from / chunk, std::integral_constant<int, 4>{}, std::integral_constant<int, 4>{});
            }
        } else {
            for (index c = from / chunk; c * chunk < end; ++c) {
                simd::unroll<registers>([&](auto r) SEQMIX_INLINE_LAMBDA {
                    for (index line = 0; line < packed_layout<F>::chunk_bytes; line += simd::cache_line) {
                        simd::prefetch(panel[r].chunk(c) + line + ahead);
                    }
                });
                words(c, std::integral_constant<int, 0>{}, std::integral_constant<int, 8>{});
            }
        }
        simd::unroll<registers>([&](auto r) SEQMIX_INLINE_LAMBDA {
            const detail::group_factors<Arch, F> factors(panel[r], from / w.layout().group, unit);
            simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
                i32 whole = kind::product::total(sum[m][r]);
                if constexpr (kind::short_sums) { whole = whole + i32::broadcast(x.start[at + m]); }
                // As multiply_codes does it, so that a row's result does not depend on how many rows there are.
                f32 y = to_float(whole);
                y = x.scale != nullptr ? fma(y * factors.scale, f32::broadcast(x.scale[at + m]), total[m][r]) : fma(y, factors.scale, total[m][r]);
                if constexpr (kind::has_min) { y = fnma(factors.min, f32::broadcast(x.sum[at + m]), y); }
                total[m][r] = y;
            });
        });
    }
    simd::unroll<Rows * registers>([&](auto i) SEQMIX_INLINE_LAMBDA { total[i / registers][i % registers].store(sums + i * f32::lanes); });
}

/// sums [rows, few_registers · lanes] for any number of rows; the weights come from memory for the first of them.
template <class Arch, format F>
void multiply_few(const activation_codes& x, const depth_cut& cut, index rows, const packed_matrix<F>& w, index first, index second, float* sums)
{
    constexpr int at_once = 4; // accumulators, products in flight and codes fit 16 registers
    for (index row = 0; row < rows; row += at_once) {
        float* const to = sums + row * few_registers * simd::lanes<Arch>;
        if (rows - row == 1) {
            multiply_rows<Arch, F, 1>(x, cut, row, w, first, second, to);
        } else {
            multiply_rows<Arch, F, at_once>(x, cut, row, w, first, second, to); // rows are padded to as many
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
