// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/integer_matmul.hpp>
#include <seqmix/quant/tables.hpp>

// Products by looking up nibbles of packed codes in tables of activations (T-MAC: Wei et al. 2024, section 3). Cost grows with the bits
// of a code, and no code is ever unpacked.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// Panels whose codes are looked up at a time: tables are loaded once for them, and two sums of each stay in registers.
template <class Arch>
inline constexpr int table_panels = simd::backend<Arch>::registers < 32 ? 4 : 8;

namespace detail {

/// sums [table_panels][16 rows] = Σ of what is looked up for `blocks` (at most 32) blocks of 64 bytes of codes, from byte `at` of panels on.
template <class Arch, bool Turned>
SEQMIX_NOINLINE void look_up(const std::byte* const (&panels)[table_panels<Arch>], index at, const std::uint8_t* tables, index blocks, std::int32_t* sums)
{
    using set = simd::backend<Arch>;
    using i32 = simd::i32<Arch>;
    constexpr int bytes = 4 * i32::lanes, parts = 64 / bytes, columns = bytes < 16 ? bytes : 16, accumulators = 16 / columns;
    constexpr index ahead = 1024;
    const i32 nibbles = i32::broadcast(0x0f0f0f0f);
    typename set::byte_sums sum[table_panels<Arch>][accumulators];
    simd::unroll<table_panels<Arch> * accumulators>([&](auto i) SEQMIX_INLINE_LAMBDA { sum[i / accumulators][i % accumulators] = set::no_bytes(); });
    for (index block = 0; block < blocks; ++block, tables += 128) {
        simd::unroll<table_panels<Arch>>([&](auto panel) SEQMIX_INLINE_LAMBDA {
            const std::byte* const from = panels[panel] + at + block * 64;
            simd::prefetch(from + ahead);
            i32 codes[parts];
            if constexpr (Turned) {
                simd::unroll<parts>([&](auto part) SEQMIX_INLINE_LAMBDA {
                    codes[part] = i32::load(reinterpret_cast<const std::int32_t*>(from + part * bytes));
                });
            } else {
                set::turn_block(reinterpret_cast<const std::uint8_t*>(from), codes);
            }
            simd::unroll<parts>([&](auto part) SEQMIX_INLINE_LAMBDA {
                auto& to = sum[panel][part % accumulators];
                const std::uint8_t* const table = tables + part * bytes / 16 * 16;
                to = set::add_bytes(to, set::lookup(set::tables_of(table), codes[part] & nibbles));
                to = set::add_bytes(to, set::lookup(set::tables_of(table + 64), shift_right<4>(codes[part]) & nibbles));
            });
        });
    }
    simd::unroll<table_panels<Arch> * accumulators>([&](auto i) SEQMIX_INLINE_LAMBDA {
        set::store_sums(sum[i / accumulators][i % accumulators], sums + i * columns);
    });
}

} // namespace detail

/// sums [table_panels · 16] = row `row` of x times panels `first` and on; where there are fewer, `last` again.
template <class Arch, tabulated F>
void multiply_by_tables(const activation_tables<F>& x, const depth_cut& cut, index row, const packed_matrix<F>& w, index first, index last,
                        float* sums)
{
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    using layout = packed_layout<F>;
    constexpr int lanes = f32::lanes, registers = layout::panel_rows / lanes;
    const std::byte* panels[table_panels<Arch>];
    for (index i = 0; i < table_panels<Arch>; ++i) { panels[i] = w.panel(smaller(first + i, last)); }
    const float unit = detail::unit_of(w), centre_less_zero = x.centre_less_zero();
    for (index i = 0; i < table_panels<Arch> * layout::panel_rows; ++i) { sums[i] = 0.0f; }
    for (index s = 0, from = 0; from < cut.depth; ++s, from += cut.segment) {
        const index end = smaller(from + cut.segment, cut.depth), blocks = (end - from) / layout::chunk * layout::bits;
        const index at = from / layout::chunk * layout::chunk_bytes;
        std::int32_t found[table_panels<Arch> * layout::panel_rows];
        detail::look_up<Arch, layout::turned>(panels, at, x.tables(row, from), blocks, found);
        // Eight tables go into a sum for each block, and their entries are 128 too large.
        const i32 too_much = i32::broadcast(static_cast<std::int32_t>(8 * 128 * blocks));
        const f32 scale = f32::broadcast(x.scale(row, s)), sum = f32::broadcast(x.sum(row, s)), rest = sum * f32::broadcast(centre_less_zero);
        simd::unroll<table_panels<Arch> * registers>([&](auto i) SEQMIX_INLINE_LAMBDA {
            const auto lanes_of = panel_lanes<Arch, F>(w.layout(), panels[i / registers], i % registers * lanes);
            const detail::group_factors<Arch, F> factors(lanes_of, from / w.layout().group, unit);
            f32 weight_scale = factors.scale;
            if constexpr (row_scaled<F>) { weight_scale = weight_scale * to_float(lanes_of.group_scale(from / w.layout().group)); }
            const f32 product = fma(to_float(i32::load(found + i * lanes) - too_much), scale, rest);
            f32 y = fma(product, weight_scale, f32::load(sums + i * lanes));
            if constexpr (integer_product<Arch, F>::has_min) { y = fnma(factors.min, sum, y); }
            y.store(sums + i * lanes);
        });
    }
}

/// Whether `rows` rows of x are multiplied faster by tables than as bytes, by what bench/ measured: one row, on x86 without dot
/// products of bytes. Elsewhere either they lose or nobody has measured.
template <class Arch, format F>
constexpr bool tables_pay(const packed_matrix<F>& w, index rows)
{
    return tabulated<F> && simd::backend<Arch>::has_short_sums && rows == 1 && (w.layout().group % packed_layout<F>::chunk == 0 || w.layout().groups <= 1);
}

} // namespace quant
SEQMIX_NAMESPACE_END
