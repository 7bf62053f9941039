// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/quant/code_tile.hpp>

#include <atomic>
#include <cmath>

SEQMIX_NAMESPACE_BEGIN
namespace quant {

struct pack_options {
    bool any_scales = false; ///< scales and minima that are infinite or no numbers are packed as they are, and not refused
};

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
    bool permuted = source.order() != nullptr;
    for (index g = 0; g < groups; ++g) { permuted = permuted || source.first(g) != g * padded; }
    return {source.rows(), source.columns(), padded, groups, permuted};
}

/// What a panel has besides codes, as it is put there; finds out whether all scales are finite.
template <format F>
class panel_scales {
    using layout = packed_layout<F>;
    using scale = typename F::scale_type;

public:
    /// Given a `check`, refuses the first scale that is not finite.
    panel_scales(const layout& of, std::byte* panel, index first_row, const checker* check)
        : scales_(panel + of.scales_at()), mins_(panel + of.mins_at()), sub_scales_(panel + of.sub_scales_at()),
          sub_mins_(panel + of.sub_mins_at()), zeros_(panel + of.zeros_at()), first_row_(first_row), check_(check)
    {
        std::memset(scales_, 0, static_cast<std::size_t>(of.panel_bytes() - of.scales_at()));
    }

    bool all_finite() const { return all_finite_; }

    void put_scale(index row, index at, scale s) { put_finite("scale", scales_, row, at, s); }
    void put_min(index row, index at, scale s) { put_finite("minimum", mins_, row, at, s); }
    void put_sub_scale(index row, index group, std::int8_t s) { put(sub_scales_, row, group, s); }
    void put_sub_min(index row, index group, std::uint8_t s) { put(sub_mins_, row, group, s); }
    void put_zero(index row, index group, std::int8_t s) { put(zeros_, row, group, s); }

private:
    template <class T>
    static void put(std::byte* numbers, index row, index at, T value)
    {
        std::memcpy(numbers + (at * layout::panel_rows + row) * static_cast<index>(sizeof(T)), &value, sizeof(T));
    }
    void put_finite(const char* what, std::byte* numbers, index row, index at, scale s)
    {
        const float number = static_cast<float>(s);
        if (!std::isfinite(number)) [[unlikely]] {
            all_finite_ = false;
            if (check_ != nullptr) {
                check_->require(false, what, " of row ", first_row_ + row, F::two_levels ? ", block " : ", group ", at, " is ",
                                static_cast<double>(number), ", but must be finite unless any_scales is set");
            }
        }
        put(numbers, row, at, widened(s));
    }

    std::byte *scales_, *mins_, *sub_scales_, *sub_mins_, *zeros_;
    index first_row_;
    const checker* check_;
    bool all_finite_ = true;
};

template <block_format F>
void pack_scales(const stored_block<F>& from, index row, index block, panel_scales<F>& to)
{
    constexpr bool has_min = packed_layout<F>::has_min;
    if constexpr (F::two_levels) {
        to.put_scale(row, block, from.scale);
        if constexpr (has_min) { to.put_min(row, block, from.min); }
    }
    constexpr index groups = F::block / F::group;
    for (index g = 0; g < groups; ++g) {
        const index at = block * groups + g;
        if constexpr (F::two_levels) {
            to.put_sub_scale(row, at, from.sub_scales[g]);
            if constexpr (has_min) { to.put_sub_min(row, at, from.sub_mins[g]); }
        } else {
            to.put_scale(row, at, from.scales[g]);
            if constexpr (has_min) { to.put_min(row, at, from.mins[g]); }
        }
    }
}

template <block_source S>
void pack_panel(const S& source, const packed_layout<typename S::format>& layout, std::byte* panel, index first_row,
                panel_scales<typename S::format>& scales)
{
    using F = typename S::format;
    using where = packed_layout<F>;
    constexpr index together = F::block % where::chunk == 0 ? 1 : 2; // blocks that fill whole chunks
    const index rows = smaller(layout.panel_rows, layout.rows - first_row);
    code_tile<F, together * F::block> tile;
    stored_block<F> unpacked[where::panel_rows];
    for (index first = 0; first < source.blocks(); first += together) {
        const index blocks = smaller(together, source.blocks() - first);
        if (blocks < together) { tile.clear(); }
        for (index block = first; block < first + blocks; ++block) {
            // All rows are read before any of them is copied: bytes that were just written in smaller pieces are slow to load.
            for (index row = 0; row < rows; ++row) { source.read(first_row + row, block, unpacked[row]); }
            for (index row = 0; row < rows; ++row) {
                std::uint8_t* const codes = tile.row(row) + (block - first) * F::block;
                std::memcpy(codes, unpacked[row].codes, F::block);
                to_stored<F>(codes, F::block);
                pack_scales<F>(unpacked[row], row, block, scales);
            }
        }
        const index chunk = first * F::block / layout.chunk;
        tile.write((blocks * F::block + layout.chunk - 1) / layout.chunk, panel + chunk * layout.chunk_bytes);
    }
}

template <group_source S>
void pack_panel(const S& source, const packed_layout<typename S::format>& layout, std::byte* panel, index first_row,
                panel_scales<typename S::format>& scales)
{
    using F = typename S::format;
    constexpr index positions = 256;
    const index rows = smaller(layout.panel_rows, layout.rows - first_row);
    code_tile<F, positions> tile;
    for (index begin = 0; begin < layout.depth(); begin += positions) {
        const index end = smaller(begin + positions, layout.depth());
        const auto read = [&](index position, index stored_position, index count) {
            const index at = position - begin;
            for (index row = 0; row < rows; ++row) { source.codes(first_row + row, stored_position, count, tile.row(row) + at); }
            for (index row = 0; row < rows; ++row) { to_stored<F>(tile.row(row) + at, count); }
        };
        tile.clear();
        if (layout.permuted) {
            for (index g = begin / layout.group; g < layout.groups && g * layout.group < end; ++g) {
                const index group = g * layout.group, first = source.first(g), from = larger(begin, group),
                            to = smaller(end, group + source.first(g + 1) - first);
                if (from < to) { read(from, first + from - group, to - from); }
            }
        } else if (begin < source.columns()) {
            read(begin, begin, smaller(end, source.columns()) - begin);
        }
        tile.write((end - begin) / layout.chunk, panel + begin / layout.chunk * layout.chunk_bytes);
    }
    for (index g = 0; g < layout.groups; ++g) {
        if (source.first(g) == source.first(g + 1)) { continue; }
        for (index row = 0; row < rows; ++row) {
            const group_parameters<F> shared = source.parameters(first_row + row, g);
            scales.put_scale(row, row_scaled<F> ? 0 : g, shared.scale);
            if constexpr (row_scaled<F>) { scales.put_sub_scale(row, g, static_cast<std::int8_t>(shared.group_scale)); }
            if constexpr (packed_layout<F>::has_zero) { scales.put_zero(row, g, static_cast<std::int8_t>(shared.zero)); }
        }
    }
}

/// The column at each position, where positions are no columns.
template <group_source S>
void write_order(const S& source, packed_matrix<typename S::format>& packed)
{
    const auto& layout = packed.layout();
    std::int32_t* const order = packed.order();
    if (order == nullptr) { return; }
    for (index p = 0; p < layout.depth(); ++p) { order[p] = -1; }
    for (index g = 0; g < layout.groups; ++g) {
        for (index p = source.first(g); p < source.first(g + 1); ++p) {
            const std::int32_t column = source.order() != nullptr ? source.order()[p] : static_cast<std::int32_t>(p);
            order[g * layout.group + p - source.first(g)] = column;
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

/// Packs a stored matrix for matmul: once. Into memory of its own, or into the caller's, quant::pack(source, workspace(memory,
/// bytes)), of packed_bytes(source) on a border of scratch_alignment, or 63 bytes more; what is there is overwritten. The stored
/// matrix is not needed any more afterwards. `ctx` says who packs: panels of 16 rows are tasks, and what is packed does not depend on
/// the number of workers. Refuses memory that is too small; and, unless opt.any_scales, a scale, a minimum or a matrix_scale that is
/// infinite or NaN as its type converts to float: what the memory holds is then unspecified. Scales of 0 and subnormal ones are scales
/// as any other; so are those of groups without columns, which are not packed.
template <source S>
packed_matrix<typename S::format> pack(const S& source, workspace memory = {}, const pack_options& opt = {},
                                       const context_ref& ctx = {})
{
    using F = typename S::format;
    const checker check("quant::pack");
    const packed_layout<F> layout = detail::layout_of(source);
    float matrix_scale = 1.0f;
    if constexpr (group_source<S>) { matrix_scale = source.matrix_scale(); }
    check.require(opt.any_scales || std::isfinite(matrix_scale), "matrix_scale is ", static_cast<double>(matrix_scale),
                  ", but must be finite unless any_scales is set");
    packed_matrix<F> packed(layout, matrix_scale, std::move(memory));
    const auto pack_panel = [&](index p, const checker* refusing) {
        detail::panel_scales<F> scales(layout, packed.panel(p), p * layout.panel_rows, refusing);
        detail::pack_panel(source, layout, packed.panel(p), p * layout.panel_rows, scales);
        return scales.all_finite();
    };
    // A worker cannot throw where others run: it says which panel is to be refused, and the first one of them is.
    std::atomic<index> first_refused{layout.panels()};
    ctx.for_each(layout.panels(), 0, [&](index p, std::byte*) {
        if (pack_panel(p, nullptr) || opt.any_scales) { return; }
        index known = first_refused.load();
        while (p < known && !first_refused.compare_exchange_weak(known, p)) {}
    });
    if (first_refused < layout.panels()) { pack_panel(first_refused, &check); }
    if constexpr (group_source<S>) { detail::write_order(source, packed); }
    packed.find_most_code();
    return packed;
}

} // namespace quant
SEQMIX_NAMESPACE_END
