// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <version>

// Views of std::mdspan, where the standard library has it (C++23).

#if defined(__cpp_lib_mdspan)
#include <mdspan>

SEQMIX_NAMESPACE_BEGIN
namespace interop {

/// A view of a strided mdspan of any layout that has strides; the memory must outlive it.
template <class T, class Extents, class Layout>
    requires(Layout::template mapping<Extents>::is_always_strided())
auto view_of(const std::mdspan<T, Extents, Layout>& span)
{
    std::array<index, Extents::rank()> extents{}, strides{};
    for (std::size_t axis = 0; axis < Extents::rank(); ++axis) {
        extents[axis] = static_cast<index>(span.extent(axis));
        strides[axis] = static_cast<index>(span.stride(axis));
    }
    return view<T, Extents::rank()>(span.data_handle(), extents, strides);
}

} // namespace interop
SEQMIX_NAMESPACE_END
#endif
