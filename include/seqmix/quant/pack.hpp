// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/packed.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

template <block_source S>
packed_layout<typename S::format> layout_of(const S& source)
{
    using F = typename S::format;
    static_assert(F::group == 16 || F::group % 32 == 0);
    return {source.rows(), source.columns(), F::group, source.blocks() * (F::block / F::group), false};
}

template <group_source S>
packed_layout<typename S::format> layout_of(const S& source)
{
    const index groups = source.columns() > 0 ? source.groups() : 0;
    index group = 0;
    for (index g = 0; g < groups; ++g) { group = larger(group, source.first(g + 1) - source.first(g)); }
    const index padded = group <= 16 && groups > 1 ? 16 : (group + 31) / 32 * 32;
    return {source.rows(), source.columns(), padded, groups, source.order() != nullptr || (groups > 1 && padded != group)};
}

/// One row of a panel.
template <class F>
class row_writer {
public:
    static constexpr index panel_rows = packed_layout<F>::panel_rows;

    row_writer(const packed_layout<F>& layout, std::byte* panel, index row) : layout_(layout), panel_(panel), row_(row) {}

    void code(index position, std::uint8_t code) const
    {
        const unsigned stored = lane_code<F>::stored(code);
        packed_layout<F>::for_each_field(row_, position, [&](index byte, int bit, int code_bit, int width) {
            panel_[byte] |= static_cast<std::byte>((stored >> code_bit & ((1u << width) - 1u)) << bit);
        });
    }
    void put_scale(index at, typename F::scale_type s) const { put(layout_.scales_at(), at, widened(s)); }
    void put_min(index at, typename F::scale_type s) const { put(layout_.mins_at(), at, widened(s)); }
    void put_sub_scale(index group, std::int8_t s) const { put(layout_.sub_scales_at(), group, s); }
    void put_sub_min(index group, std::uint8_t s) const { put(layout_.sub_mins_at(), group, s); }
    void put_zero(index group, std::int8_t s) const { put(layout_.zeros_at(), group, s); }

private:
    template <class T>
    void put(index base, index at, T value) const
    {
        std::memcpy(panel_ + base + (at * panel_rows + row_) * static_cast<index>(sizeof(T)), &value, sizeof(T));
    }

    const packed_layout<F>& layout_;
    std::byte* panel_;
    index row_;
};

template <block_source S>
void pack_row(const S& source, index row, const row_writer<typename S::format>& to)
{
    using F = typename S::format;
    constexpr index groups = F::block / F::group;
    stored_block<F> unpacked;
    for (index block = 0; block < source.blocks(); ++block) {
        source.read(row, block, unpacked);
        for (index i = 0; i < F::block; ++i) { to.code(block * F::block + i, unpacked.codes[i]); }
        if constexpr (F::two_levels) { to.put_scale(block, unpacked.scale); }
        if constexpr (F::two_levels && packed_layout<F>::has_min) { to.put_min(block, unpacked.min); }
        for (index g = 0; g < groups; ++g) {
            if constexpr (F::two_levels) {
                to.put_sub_scale(block * groups + g, unpacked.sub_scales[g]);
                if constexpr (packed_layout<F>::has_min) { to.put_sub_min(block * groups + g, unpacked.sub_mins[g]); }
            } else {
                to.put_scale(block * groups + g, unpacked.scales[g]);
                if constexpr (packed_layout<F>::has_min) { to.put_min(block * groups + g, unpacked.mins[g]); }
            }
        }
    }
}

template <group_source S>
void pack_row(const S& source, index row, const row_writer<typename S::format>& to, index group_size)
{
    using F = typename S::format;
    constexpr index piece = 256;
    std::uint8_t codes[piece];
    for (index group = 0; group < source.groups(); ++group) {
        const index first = source.first(group), end = source.first(group + 1);
        if (first == end) { continue; }
        const group_parameters<F> shared = source.parameters(row, group);
        to.put_scale(row_scaled<F> ? 0 : group, shared.scale);
        if constexpr (row_scaled<F>) { to.put_sub_scale(group, static_cast<std::int8_t>(shared.group_scale)); }
        if constexpr (packed_layout<F>::has_zero) { to.put_zero(group, static_cast<std::int8_t>(shared.zero)); }
        for (index from = first; from < end; from += piece) {
            const index count = smaller(piece, end - from);
            source.codes(row, from, count, codes);
            for (index i = 0; i < count; ++i) { to.code(group * group_size + from - first + i, codes[i]); }
        }
    }
}

} // namespace detail

/// Bytes that pack asks of memory.
template <source S>
index packed_bytes(const S& source)
{
    return detail::layout_of(source).bytes();
}

/// Packs a stored matrix for matmul: once, by one thread. Into memory of its own, or into the caller's, quant::pack(source,
/// workspace(memory, bytes)), of packed_bytes(source) on a border of scratch_alignment, or 63 bytes more; what is there is
/// overwritten. Refuses memory that is too small. The stored matrix is not needed any more afterwards.
template <source S>
packed_matrix<typename S::format> pack(const S& source, workspace memory = {})
{
    using F = typename S::format;
    const packed_layout<F> layout = detail::layout_of(source);
    float matrix_scale = 1.0f;
    if constexpr (group_source<S>) { matrix_scale = source.matrix_scale(); }
    packed_matrix<F> packed(layout, matrix_scale, std::move(memory));
    if (layout.bytes() > 0) { std::memset(packed.panel(0), 0, static_cast<std::size_t>(layout.bytes())); }
    for (index row = 0; row < layout.rows; ++row) {
        const detail::row_writer<F> to(layout, packed.panel(row / layout.panel_rows), row % layout.panel_rows);
        if constexpr (group_source<S>) {
            detail::pack_row(source, row, to, layout.group);
        } else {
            detail::pack_row(source, row, to);
        }
    }
    if constexpr (group_source<S>) {
        if (std::int32_t* const order = packed.order(); order != nullptr) {
            for (index p = 0; p < layout.depth(); ++p) { order[p] = -1; }
            for (index g = 0; g < layout.groups; ++g) {
                for (index p = source.first(g); p < source.first(g + 1); ++p) {
                    order[g * layout.group + p - source.first(g)] = source.order() != nullptr ? source.order()[p] : static_cast<std::int32_t>(p);
                }
            }
        }
    }
    packed.find_most_code();
    return packed;
}

} // namespace quant
SEQMIX_NAMESPACE_END
