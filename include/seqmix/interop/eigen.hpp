// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <Eigen/Core>

// Views of what Eigen holds; nothing is copied, and nothing of Eigen's stands in any other header.

SEQMIX_NAMESPACE_BEGIN
namespace interop {

/// A view [rows, columns] of a dense Eigen matrix, map or block that has memory of its own, in either storage order. The
/// Eigen object must outlive it.
template <class Derived>
auto view_of(Eigen::MatrixBase<Derived>& matrix)
{
    using scalar = typename Derived::Scalar;
    auto& m = matrix.derived();
    return view<scalar, 2>(m.data(), {m.rows(), m.cols()}, {m.rowStride(), m.colStride()});
}

template <class Derived>
auto view_of(const Eigen::MatrixBase<Derived>& matrix)
{
    using scalar = typename Derived::Scalar;
    const auto& m = matrix.derived();
    return view<const scalar, 2>(m.data(), {m.rows(), m.cols()}, {m.rowStride(), m.colStride()});
}

/// An Eigen map of a view [rows, columns] with any strides. Unaligned, as views are.
template <class T>
auto map_of(const view<T, 2>& v)
{
    using matrix = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using target = std::conditional_t<std::is_const_v<T>, const matrix, matrix>;
    using stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
    return Eigen::Map<target, Eigen::Unaligned, stride>(v.data(), v.extent(0), v.extent(1), stride(v.stride(0), v.stride(1)));
}

} // namespace interop
SEQMIX_NAMESPACE_END
