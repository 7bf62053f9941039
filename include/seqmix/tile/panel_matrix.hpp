// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/block.hpp>
#include <seqmix/tile/operand_tiles.hpp>
#include <seqmix/tile/tile.hpp>

// Matrices that live in scratch in the form of right operands: what multiplies with a matrix again and again, and changes it in
// between, need not pack it each time.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// A matrix of floats in panels of blocking::columns columns, as pack_right leaves it: panel n holds columns [n · width, (n + 1) ·
/// width), a row of them contiguous. Columns that a last register lacks are zero.
template <class Arch>
struct panel_matrix {
    static constexpr index width = blocking<Arch>::columns;

    float* data;
    index rows, columns;

    static panel_matrix take(arena& a, index rows, index columns)
    {
        return {a.take<float>(rows * padded(columns)), rows, columns};
    }
    /// `columns` and what the last panel lacks.
    static constexpr index padded(index columns) { return panels_of(columns) * width; }
    static constexpr index panels_of(index columns) { return (columns + width - 1) / width; }

    index panels() const { return panels_of(columns); }
    /// Columns of panel n.
    index live(index n) const { return smaller(width, columns - n * width); }
    /// Panel n as a tile, its columns whole registers.
    matrix<Arch> panel(index n) const { return {data + n * rows * width, rows, matrix<Arch>::padded(live(n)), width}; }

    /// Copies panel n's columns of somebody's matrix, [rows, columns] with any strides.
    void load(index n, const view<const float, 2>& from) const
    {
        const index first = n * width;
        load_block<Arch>(block<const float>{from.data() + first * from.stride(1), from.stride(0), from.stride(1), rows, live(n)},
                         {panel(n).data, width, simd::lanes<Arch>});
    }
    void store(index n, const view<float, 2>& to) const
    {
        const index first = n * width;
        store_block<Arch>({panel(n).data, width, simd::lanes<Arch>},
                          block<float>{to.data() + first * to.stride(1), to.stride(0), to.stride(1), rows, live(n)});
    }
};

/// The same matrix as the backend multiplies it: itself, or rounded to `Element` in words along the depth.
template <class Arch, class Element>
class panel_operand {
    using tiles = operand_tiles<Arch, Element>;
    using word = typename tiles::word;

public:
    panel_operand(arena& a, const panel_matrix<Arch>& of)
        : of_(of), words_(a.take<word>(tiles::as_it_is ? 0 : words() * of.padded(of.columns)))
    {
    }

    /// Steps of its depth.
    index words() const { return depth_words<typename tiles::product>(of_.rows); }
    /// To be called when panel n has changed.
    void refresh(index n) const { tiles::joined(of_.panel(n).data, of_.rows, of_.width, of_.panel(n).columns, rounded(n)); }
    const word* panel(index n) const
    {
        if constexpr (tiles::as_it_is) {
            return of_.panel(n).data;
        } else {
            return rounded(n);
        }
    }

private:
    word* rounded(index n) const { return words_ + n * words() * of_.width; }

    panel_matrix<Arch> of_;
    word* words_;
};

} // namespace tile
SEQMIX_NAMESPACE_END
