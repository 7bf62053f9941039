// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/tile/blocking.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// A small dense matrix of floats in scratch. Rows stand `stride` floats apart, a multiple of the lanes, so that verbs work
/// in whole registers: what lies between `columns` and `stride` is padding that they may read and write.
template <class Arch>
struct matrix {
    float* data;
    index rows, columns, stride;

    static constexpr index padded(index columns)
    {
        return (columns + simd::lanes<Arch> - 1) / simd::lanes<Arch> * simd::lanes<Arch>;
    }
    static matrix take(arena& a, index rows, index columns)
    {
        return {a.take<float>(rows * padded(columns)), rows, columns, padded(columns)};
    }

    SEQMIX_INLINE float* row(index r) const { return data + r * stride; }
    SEQMIX_INLINE float& operator()(index r, index c) const { return data[r * stride + c]; }
};

} // namespace tile
SEQMIX_NAMESPACE_END
