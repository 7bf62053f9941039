// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>
#include <seqmix/tile/memory.hpp>
#include <seqmix/tile/mma.hpp>

// Packing for matrix products. The right operand always is: panels of blocking::columns columns, a depth step contiguous.
// The left one is broadcast element by element and stands where it is, unless its words can't be read there.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Packs b [depth, columns] into panels: panel n holds columns [n · width, (n + 1) · width), depth_words x width words, the
/// last one padded with zeros.
template <class Product, class Element>
void pack_right(const view<const Element, 2>& b, typename Product::word* panels)
{
    using Arch = typename Product::arch;
    constexpr int lanes = simd::lanes<Arch>, width = blocking<Arch>::columns, group = Product::group;
    const index depth = b.extent(0), words = depth_words<Product>(depth);
    for (index column = 0; column < b.extent(1); column += width, panels += words * width) {
        const index live = b.extent(1) - column < width ? b.extent(1) - column : width;
        if (b.stride(0) == 1 && b.stride(1) != 1) { // columns are contiguous: turn them
            for (index first = 0; first < width; first += lanes) {
                const Element* rows[lanes];
                for (int lane = 0; lane < lanes; ++lane) {
                    rows[lane] = first + lane < live ? &b(0, column + first + lane) : nullptr;
                }
                load_columns<Arch>(rows, 1, depth, panels + first, width);
            }
            continue;
        }
        for (index word = 0; word < words; ++word) {
            auto* const to = panels + word * width;
            if constexpr (group == 1) {
                copy_row<Arch>(&b(word, column), b.stride(1), live, to);
            } else {
                join_rows<Arch>(&b(word * group, column), b.stride(0), depth - word * group, b.stride(1), live, to);
            }
            for (index pad = live; pad < width; ++pad) { to[pad] = {}; }
        }
    }
}

/// Whether the product should read a where it stands: its words must be whole there, and rows not crowd one another.
template <class Product, class Element>
bool serves_in_place(const view<const Element, 2>& a)
{
    const bool as_stored = Product::group != 4 || simd::backend<typename Product::arch>::left_int8_offset == 0;
    const bool whole_words = Product::group == 1 || (a.stride(1) == 1 && a.extent(1) % Product::group == 0);
    return as_stored && whole_words && !crowded(a.stride(0) * static_cast<index>(sizeof(Element)));
}

/// Packs a [rows, depth] as dense rows of words, int8 with the backend's offset.
template <class Product, class Element>
void pack_left(const view<const Element, 2>& a, typename Product::word* rows)
{
    using Arch = typename Product::arch;
    const index words = depth_words<Product>(a.extent(1));
    for (index row = 0; row < a.extent(0); ++row, rows += words) {
        copy_row<Arch>(&a(row, 0), a.stride(1), a.extent(1), rows);
        if constexpr (Product::group == 4 && simd::backend<Arch>::left_int8_offset != 0) {
            for (index word = 0; word < words; ++word) { rows[word] ^= static_cast<std::int32_t>(0x80808080u); } // + 128
        }
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
