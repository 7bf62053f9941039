// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/quant/activations.hpp>
#include <seqmix/quant/options.hpp>
#include <seqmix/quant/panel_lanes.hpp>
#include <seqmix/simd/prefetch.hpp>

#include <numeric>

// Products of bytes with packed weights. Many rows: codes are unpacked block by block, into cache, for all rows of a block. Few
// rows: codes are unpacked into registers, and weights pass by once.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {
/// Positions of the depth whose codes stay in L1, or close to it, beside the activations'.
inline constexpr index integer_depth_block = 512;
} // namespace detail

/// How a format is multiplied on a set.
template <class Arch, format F>
struct integer_product {
    /// Narrow where sums in 16 bits last for a chunk's half at least.
    static constexpr code_range range = simd::backend<Arch>::has_short_sums && !lane_code<F>::wide_product &&
                                                code_product<Arch, code_range::narrow>::most_words(lane_code<F>::largest) >= 4
                                            ? code_range::narrow
                                            : code_range::wide;
    using product = code_product<Arch, range>;
    static constexpr bool has_min = F::form != affine::scale_only;

    /// Blocks of activations do not depend on the set, segments do.
    static depth_cut cut(const packed_layout<F>& w, activation_scales scales)
    {
        const bool one_scale = w.groups <= 1 || row_scaled<F>;
        const bool rows = scales == activation_scales::rows || (scales == activation_scales::automatic && one_scale);
        const index shared = one_scale ? w.depth() : w.group;
        const index block = rows ? larger(w.depth(), 1) : detail::part_of(shared, 128, 16, one_scale);
        const index most = smaller(detail::integer_depth_block, product::most_words(lane_code<F>::largest_product) * product::group);
        return {w.depth(), block, detail::part_of(rows ? shared : smaller(block, shared), most, 16, one_scale && rows)};
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

template <format F>
float unit_of(const packed_matrix<F>& w)
{
    return F::unit * w.matrix_scale();
}

/// One register of panels, unpacked for the micro-kernel: positions [from, end), scales and minima for each segment of them.
template <class Arch, format F>
void unpack_register(const void* matrix, index which, const depth_cut& cut, index from, index end, std::int32_t* codes, float* scales, float* mins)
{
    constexpr index chunk = packed_layout<F>::chunk, width = tile::blocking<Arch>::columns;
    const auto& packed = *static_cast<const packed_matrix<F>*>(matrix);
    const auto w = panel_lanes<Arch, F>::of(packed, which);
    product_codes<Arch, F> bytes(w, packed.layout().group, from);
    for (index c = from / chunk; c * chunk < end; ++c) {
        const std::byte* const at = w.chunk(c);
        simd::unroll<chunk / 8>([&](auto pair) SEQMIX_INLINE_LAMBDA {
            if constexpr (pair % 2 == 0) { bytes.next_half(); }
            simd::i32<Arch> even = bytes.template word<2 * pair>(at), odd = bytes.template word<2 * pair + 1>(at);
            if constexpr (simd::backend<Arch>::has_byte_blocks) { simd::backend<Arch>::zip_words(even, odd); }
            even.store(codes + 2 * pair * width);
            odd.store(codes + (2 * pair + 1) * width);
        });
        codes += chunk / 4 * width;
    }
    for (index at = from; at < end; at += cut.segment) {
        const group_factors<Arch, F> factors(w, at / packed.layout().group, unit_of(packed));
        factors.scale.store(scales);
        scales += width;
        if constexpr (integer_product<Arch, F>::has_min) {
            factors.min.store(mins);
            mins += width;
        }
    }
}

/// A block of panels, unpacked.
template <class Arch>
class unpacked_block {
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    static constexpr index lanes = f32::lanes, width = tile::blocking<Arch>::columns, vectors = tile::blocking<Arch>::vectors;

public:
    static constexpr index columns = panels_at_once * width;

    unpacked_block(arena& a, const depth_cut& cut, bool has_min) : cut_(cut), has_min_(has_min)
    {
        const index step = std::lcm(cut.segment, index{32});
        depth_ = larger(integer_depth_block / step * step, step);
        segments_ = depth_ / cut.segment;
        codes_ = a.take<std::int32_t>(panels_at_once * depth_ / 4 * width);
        scales_ = a.take<float>(panels_at_once * segments_ * width);
        mins_ = a.take<float>(has_min ? panels_at_once * segments_ * width : 0);
    }

    index depth() const { return depth_; } ///< positions at a time

    /// Registers from `first` on, of `registers` that there are.
    template <class Unpack>
    void fill(const Unpack& unpack, index registers, index first, index live_panels, index from, index end) const
    {
        for (index v = 0; v < live_panels * vectors; ++v) {
            const index column = v % vectors * lanes, panel = v / vectors, factors = panel * segments_ * width + column;
            std::int32_t* const codes = codes_ + panel * depth_ / 4 * width + column;
            if (first + v < registers) {
                unpack(first + v, cut_, from, end, codes, scales_ + factors, mins_ + factors);
                continue;
            }
            for (index word = 0; word < (end - from) / 4; ++word) { i32::zero().store(codes + word * width); }
            for (index s = 0; from + s * cut_.segment < end; ++s) {
                f32::zero().store(scales_ + factors + s * width);
                if (has_min_) { f32::zero().store(mins_ + factors + s * width); }
            }
        }
    }

    code_panel panel(index p, index segment, index words) const
    {
        const index at = (p * segments_ + segment) * width;
        return {codes_ + p * depth_ / 4 * width + segment * cut_.segment / 4 * width, scales_ + at, has_min_ ? mins_ + at : nullptr, words};
    }

private:
    depth_cut cut_;
    bool has_min_;
    index depth_, segments_;
    std::int32_t* codes_;
    float* scales_;
    float* mins_;
};

} // namespace detail

/// Registers of weights that few rows are multiplied with at a time.
inline constexpr int few_registers = 2;

/// sums [Rows][few_registers][lanes] = the same for few rows, straight from the packed codes of registers `first` and `second`.
template <class Arch, format F, int Rows>
SEQMIX_NOINLINE void multiply_rows(const activation_codes<Arch>& x, const depth_cut& cut, index first_row, const packed_matrix<F>& w, index first,
                                   index second, float* sums)
{
    constexpr int registers = few_registers;
    using kind = integer_product<Arch, F>;
    using lanes_of = panel_lanes<Arch, F>;
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    constexpr index chunk = packed_layout<F>::chunk, ahead = 1024;
    const lanes_of panel[registers] = {lanes_of::of(w, first), lanes_of::of(w, second)};
    product_codes<Arch, F> bytes_of[registers] = {{panel[0], w.layout().group, 0}, {panel[1], w.layout().group, 0}};
    const float unit = detail::unit_of(w);
    f32 total[Rows][registers];
    simd::unroll<Rows * registers>([&](auto i) SEQMIX_INLINE_LAMBDA { total[i / registers][i % registers] = f32::zero(); });

    for (index s = 0, from = 0; from < cut.depth; ++s, from += cut.segment) {
        const index end = smaller(from + cut.segment, cut.depth);
        index at[Rows];
        simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA { at[m] = x.at(s, first_row + m); });
        i32 sum[Rows][registers];
        simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
            const i32 start = kind::product::short_sums ? i32::zero() : i32::broadcast(x.start[at[m]]);
            simd::unroll<registers>([&](auto r) SEQMIX_INLINE_LAMBDA { sum[m][r] = start; });
        });
        const std::int8_t* left = x.words(first_row, from); // rows of a block: four of them follow each other
        const auto words = [&](index c, auto first_word, auto count) SEQMIX_INLINE_LAMBDA {
            simd::unroll<count>([&](auto i) SEQMIX_INLINE_LAMBDA {
                constexpr int word = first_word + i;
                simd::unroll<registers>([&](auto r) SEQMIX_INLINE_LAMBDA {
                    if constexpr (word % 4 == 0) { bytes_of[r].next_half(); }
                    const i32 codes = bytes_of[r].template word<word>(panel[r].chunk(c));
                    simd::unroll<Rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
                        std::int32_t bytes;
                        std::memcpy(&bytes, left + m * x.run + x.later(i), 4);
                        sum[m][r] = kind::product::multiply_add(i32::broadcast(bytes), codes, sum[m][r]);
                    });
                });
            });
            left += x.later(count);
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
                if constexpr (kind::product::short_sums) { whole = whole + i32::broadcast(x.start[at[m]]); }
                // As multiply_codes does it, so that a row's result does not depend on how many rows there are.
                f32 y = x.scale != nullptr ? fma(as_float(whole), f32::broadcast(x.scale[at[m]]), f32::broadcast(x.below[at[m]])) : to_float(whole);
                y = fma(y, factors.scale, total[m][r]);
                if constexpr (kind::has_min) { y = fnma(factors.min, f32::broadcast(x.sum[at[m]]), y); }
                total[m][r] = y;
            });
        });
    }
    simd::unroll<Rows * registers>([&](auto i) SEQMIX_INLINE_LAMBDA { total[i / registers][i % registers].store(sums + i * f32::lanes); });
}

/// sums [rows, few_registers · lanes] for any number of rows; the weights come from memory for the first of them.
template <class Arch, format F>
void multiply_few(const activation_codes<Arch>& x, const depth_cut& cut, index rows, const packed_matrix<F>& w, index first, index second, float* sums)
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

/// A packed matrix of any format, so that the loops around the kernels are compiled once.
template <class Arch>
struct byte_weights {
    using multiply_codes_function = void(const activation_codes<Arch>&, index, index, index, index, index, const code_panel&, float*);

    const void* matrix;
    index rows, depth, registers;
    const std::int32_t* order;
    const std::int32_t* (*order_of)(const void*);
    int zero; ///< of the codes
    bool has_min;
    depth_cut cut;
    void (*unpack)(const void*, index, const depth_cut&, index, index, std::int32_t*, float*, float*);
    multiply_codes_function* multiply; ///< multiply_codes for the scales of `cut`
    void (*few)(const void*, const activation_codes<Arch>&, const depth_cut&, index, index, index, float*);

    template <format F>
    byte_weights(const packed_matrix<F>& w, activation_scales scales)
        : matrix(&w), rows(w.rows()), depth(w.layout().depth()), registers(w.layout().panels() * panel_lanes<Arch, F>::registers),
          order(w.order()), order_of([](const void* m) { return static_cast<const packed_matrix<F>*>(m)->order(); }),
          zero(panel_lanes<Arch, F>::zero), has_min(integer_product<Arch, F>::has_min),
          cut(integer_product<Arch, F>::cut(w.layout(), scales)), unpack(detail::unpack_register<Arch, F>),
          few([](const void* m, const activation_codes<Arch>& x, const depth_cut& c, index count, index first, index second, float* sums) {
              multiply_few<Arch, F>(x, c, count, *static_cast<const packed_matrix<F>*>(m), first, second, sums);
          })
    {
        using kind = integer_product<Arch, F>;
        constexpr int chunk = packed_layout<F>::chunk, unrolled = simd::backend<Arch>::has_byte_blocks ? 0 : chunk / 4;
        multiply = cut.whole_rows()       ? multiply_codes<Arch, kind::range, false, kind::has_min, 0>
                   : cut.segment == chunk ? multiply_codes<Arch, kind::range, true, kind::has_min, unrolled>
                                          : multiply_codes<Arch, kind::range, true, kind::has_min, 0>;
    }

    /// Another matrix of the same shape and format.
    byte_weights of(const void* other) const
    {
        byte_weights w = *this;
        w.matrix = other, w.order = order_of(other);
        return w;
    }
};

/// sums [rows, block of columns] = products of activations with the weights' rows from register `first` on; `rows` is a multiple of
/// the micro-kernel's.
template <class Arch>
void multiply_block(const activation_codes<Arch>& x, index first_row, index rows, const byte_weights<Arch>& w, index first, index live_panels,
                    const detail::unpacked_block<Arch>& block, float* sums)
{
    constexpr index width = tile::blocking<Arch>::columns, columns = detail::unpacked_block<Arch>::columns;
    const depth_cut& cut = w.cut;
    for (index i = 0; i < rows * columns; ++i) { sums[i] = 0.0f; }
    for (index from = 0; from < cut.depth; from += block.depth()) {
        const index end = smaller(from + block.depth(), cut.depth);
        block.fill([&](index which, auto&&... rest) { w.unpack(w.matrix, which, rest...); }, w.registers, first, live_panels, from, end);
        const index whole = (end - from) / cut.segment, rest = (end - from) % cut.segment; // the last segment may be shorter
        for (index p = 0; p < live_panels; ++p) {
            const index at = from / cut.segment;
            w.multiply(x, first_row, rows, at, whole, cut.segment, block.panel(p, 0, cut.segment / 4), sums + p * width);
            if (rest > 0) { w.multiply(x, first_row, rows, at + whole, 1, cut.segment, block.panel(p, whole, rest / 4), sums + p * width); }
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
