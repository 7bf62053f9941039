// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>
#include <seqmix/simd/prefetch.hpp>
#include <seqmix/tile/memory.hpp>

// Blocks of somebody's numbers, with any strides, to dense floats in scratch and back: rows are tokens, columns channels or
// states. Whichever axis is contiguous, memory is read and written along it; a block whose tokens are contiguous is turned
// in registers.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Element (r, c) stands at base + r · row_stride + c · column_stride.
template <class T>
struct block {
    T* base;
    index row_stride, column_stride;
    index rows, columns;

    /// Rows [first, first + count).
    block rows_from(index first, index count) const
    {
        return {base + first * row_stride, row_stride, column_stride, count, columns};
    }
};

/// Where a block's copy goes: register g of row r, columns g · lanes and on, at base + r · row_stride + g · group_stride.
/// Dense rows have group_stride = lanes; with row_stride = lanes each group of columns is a dense panel of its own.
struct lane_groups {
    float* base;
    index row_stride, group_stride;
};

namespace detail {

/// A block whose rows are contiguous, turned so that its columns are.
template <class Arch, class T>
SEQMIX_NOINLINE void turn_block(const block<T>& from, const lane_groups& to)
{
    using number = std::remove_const_t<T>;
    constexpr int lanes = simd::lanes<Arch>;
    // Backwards along the rows is forwards in memory, from the last row.
    const bool backwards = from.row_stride == -1;
    const index first = backwards ? from.rows - 1 : 0;
    for (index c = 0; c < from.columns; c += lanes) {
        const number* line[lanes];
        for (index lane = 0; lane < lanes; ++lane) {
            line[lane] = c + lane < from.columns ? from.base + first * from.row_stride + (c + lane) * from.column_stride : nullptr;
        }
        load_columns<Arch, number>(line, 1, from.rows, to.base + c / lanes * to.group_stride + first * to.row_stride,
                                   backwards ? -to.row_stride : to.row_stride);
    }
}

/// And back.
template <class Arch, class T>
SEQMIX_NOINLINE void turn_block_back(const lane_groups& from, const block<T>& to)
{
    constexpr int lanes = simd::lanes<Arch>;
    const bool backwards = to.row_stride == -1;
    const index first = backwards ? to.rows - 1 : 0;
    for (index c = 0; c < to.columns; c += lanes) {
        T* line[lanes];
        for (index lane = 0; lane < lanes; ++lane) {
            line[lane] = c + lane < to.columns ? to.base + first * to.row_stride + (c + lane) * to.column_stride : nullptr;
        }
        store_columns<Arch>(from.base + c / lanes * from.group_stride + first * from.row_stride,
                            backwards ? -from.row_stride : from.row_stride, to.rows, simd::f32<Arch>::broadcast(1.0f), line, 1);
    }
}

} // namespace detail

/// Copies a block, widened to float; columns that a last register lacks are zero. `function(x, group, to)` is applied to every
/// register on the way: x of the `group`-th register of columns, which will be stored at `to`.
template <class Arch, class T, class Function>
SEQMIX_INLINE void load_block(const block<T>& from, const lane_groups& to, const Function& function)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    // Copies, since a store of a register may change anything that is read through a reference.
    const block<T> in = from;
    const lane_groups out = to;
    if (in.column_stride != 1 && (in.row_stride == 1 || in.row_stride == -1)) {
        detail::turn_block<Arch>(in, out);
        for (index c = 0, group = 0; c < in.columns; c += lanes, ++group) {
            float* row = out.base + group * out.group_stride;
            for (index r = 0; r < in.rows; ++r, row += out.row_stride) { function(f32::load(row), group, row).store(row); }
        }
        return;
    }
    for (index r = 0; r < in.rows; ++r) {
        const T* line = in.base + r * in.row_stride;
        float* row = out.base + r * out.row_stride;
        index left = in.columns, group = 0;
        for (; in.column_stride == 1 && left >= lanes; left -= lanes, line += lanes, row += out.group_stride, ++group) {
            function(f32::load(line), group, row).store(row);
        }
        for (; left > 0; left -= lanes, line += lanes * in.column_stride, row += out.group_stride, ++group) {
            function(load_strided<Arch>(line, in.column_stride, left), group, row).store(row);
        }
    }
}

template <class Arch, class T>
SEQMIX_NOINLINE void load_block(const block<T>& from, const lane_groups& to)
{
    if (from.column_stride != 1 && (from.row_stride == 1 || from.row_stride == -1)) { return detail::turn_block<Arch>(from, to); }
    load_block<Arch>(from, to, [](simd::f32<Arch> x, index, const float*) SEQMIX_INLINE_LAMBDA { return x; });
}

/// How a block is written.
enum class store {
    kept,     ///< through the caches
    streamed, ///< past them, where columns are contiguous and registers lie on multiples of their size: for results far larger than
              ///< caches (streamed_bytes). Whoever streams calls f32::stream_fence() before others are told.
};

/// The way back, rounded to T. `function(x, group, from)` is applied to every register on the way: x of the `group`-th register of
/// columns, which stands at `from`. (Where the block is turned, what it gives is also left in the copy.)
template <class Arch, class T, class Function>
SEQMIX_INLINE void store_block(const lane_groups& from, const block<T>& to, const Function& function, store how = store::kept)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    const block<T> out = to;
    const lane_groups in = from;
    if (out.column_stride != 1 && (out.row_stride == 1 || out.row_stride == -1)) {
        for (index c = 0, group = 0; c < out.columns; c += lanes, ++group) {
            float* row = in.base + group * in.group_stride;
            for (index r = 0; r < out.rows; ++r, row += in.row_stride) { function(f32::load(row), group, row).store(row); }
        }
        detail::turn_block_back<Arch>(in, out);
        return;
    }
    constexpr index bytes = lanes * static_cast<index>(sizeof(T));
    const bool aligned = reinterpret_cast<std::uintptr_t>(out.base) % static_cast<std::uintptr_t>(bytes) == 0 && out.row_stride % lanes == 0;
    const index whole = out.column_stride == 1 ? out.columns / lanes : 0;
    for (index r = 0; r < out.rows; ++r) {
        T* line = out.base + r * out.row_stride;
        const float* row = in.base + r * in.row_stride;
        index group = 0;
        if (aligned && how == store::streamed) {
            for (; group < whole; ++group, line += lanes, row += in.group_stride) { function(f32::load(row), group, row).stream(line); }
        }
        for (; group < whole; ++group, line += lanes, row += in.group_stride) { function(f32::load(row), group, row).store(line); }
        for (; group * lanes < out.columns; ++group, line += lanes * out.column_stride, row += in.group_stride) {
            store_strided<Arch>(function(f32::load(row), group, row), line, out.column_stride, out.columns - group * lanes);
        }
    }
}

template <class Arch, class T>
SEQMIX_NOINLINE void store_block(const lane_groups& from, const block<T>& to, store how = store::kept)
{
    if (to.column_stride != 1 && (to.row_stride == 1 || to.row_stride == -1)) { return detail::turn_block_back<Arch>(from, to); }
    store_block<Arch>(from, to, [](simd::f32<Arch> x, index, const float*) SEQMIX_INLINE_LAMBDA { return x; }, how);
}

/// For a result of this shape.
template <class T, std::size_t Rank>
store store_of(const view<T, Rank>& result)
{
    return result.size() * static_cast<index>(sizeof(T)) >= streamed_bytes ? store::streamed : store::kept;
}

/// The lines of a block of one register's columns, one for each of its rows: where columns are contiguous each row's line, else the
/// columns' first lines, then their second ones, and so on. For asking ahead while something else is done.
template <class Arch>
struct block_lines {
    const std::byte* at = nullptr;
    index step = 0, turn = 0; ///< to the next line; and besides, after as many as there are lanes

    template <class T>
    static block_lines of(const block<T>& what)
    {
        constexpr index size = static_cast<index>(sizeof(T)), lanes = simd::lanes<Arch>;
        const auto* const base = reinterpret_cast<const std::byte*>(what.base);
        if (what.column_stride == 1) { return {base, what.row_stride * size, 0}; }
        const index column = what.column_stride * size;
        return {base, column, (what.row_stride < 0 ? -simd::cache_line : simd::cache_line) - lanes * column};
    }

    /// The line of row `row`; to be called for each row in turn.
    SEQMIX_INLINE void ask_for(index row)
    {
        simd::prefetch(at);
        at += step;
        if (row % simd::lanes<Arch> == simd::lanes<Arch> - 1) { at += turn; }
    }
};

} // namespace tile
SEQMIX_NAMESPACE_END
