// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

// Images as sequences: an order of walking one is another view of the same memory.

SEQMIX_NAMESPACE_BEGIN

/// How an image [H, W] is walked.
enum class scan_order {
    rows,             ///< row after row, each from the left
    rows_reversed,    ///< the same from the last pixel to the first
    columns,          ///< column after column, each from the top
    columns_reversed, ///< the same from the last pixel to the first
};

/// The two axes of an image, `height` and the one behind it, as the lines of a walk and the pixels of a line.
template <class T, std::size_t Rank>
constexpr view<T, Rank> walked(const view<T, Rank>& image, scan_order order, std::size_t height)
{
    const std::size_t width = height + 1;
    view<T, Rank> v = image;
    if (order == scan_order::rows_reversed || order == scan_order::columns_reversed) { v = v.reversed(height).reversed(width); }
    if (order == scan_order::columns || order == scan_order::columns_reversed) { v = v.transposed(height, width); }
    return v;
}

/// The same walk [lines, pixels, …] as one line, if one stride leads through all of it; otherwise as it is.
template <class T, std::size_t Rank>
constexpr view<T, Rank> joined(const view<T, Rank>& walk)
{
    if (walk.extent(1) == 1) { return walk.transposed(0, 1); }
    if (walk.extent(0) == 1 || walk.stride(0) != walk.extent(1) * walk.stride(1)) { return walk; }
    auto extents = walk.extents();
    extents[1] *= extents[0], extents[0] = 1;
    return {walk.data(), extents, walk.strides()};
}

SEQMIX_NAMESPACE_END
