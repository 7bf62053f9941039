// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/tile.hpp>

// Elementwise verbs on tiles of one shape; a function of registers is applied to every register, padding included.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// out(r, c) = function(in(r, c), …). The output may be one of the inputs.
template <class Arch, class Function, class... In>
SEQMIX_INLINE void map(const matrix<Arch>& out, const Function& function, const In&... in)
{
    using f32 = simd::f32<Arch>;
    for (index r = 0; r < out.rows; ++r) {
        for (index c = 0; c < out.columns; c += f32::lanes) { function(f32::load(in.row(r) + c)...).store(out.row(r) + c); }
    }
}

/// out(r, c) = function(in(r, c), column[r]): one number a row, as decays and step sizes are.
template <class Arch, class Function>
SEQMIX_INLINE void map_rows(const matrix<Arch>& out, const Function& function, const matrix<Arch>& in, const float* of_row)
{
    using f32 = simd::f32<Arch>;
    for (index r = 0; r < out.rows; ++r) {
        const f32 number = f32::broadcast(of_row[r]);
        for (index c = 0; c < out.columns; c += f32::lanes) { function(f32::load(in.row(r) + c), number).store(out.row(r) + c); }
    }
}

/// out(r, c) = function(in(r, c), row[c]): one number a column; reads whole registers of them.
template <class Arch, class Function>
SEQMIX_INLINE void map_columns(const matrix<Arch>& out, const Function& function, const matrix<Arch>& in, const float* of_column)
{
    using f32 = simd::f32<Arch>;
    for (index r = 0; r < out.rows; ++r) {
        for (index c = 0; c < out.columns; c += f32::lanes) {
            function(f32::load(in.row(r) + c), f32::load(of_column + c)).store(out.row(r) + c);
        }
    }
}

template <class Arch>
void fill(const matrix<Arch>& out, float value)
{
    map(out, [value]() SEQMIX_INLINE_LAMBDA { return simd::f32<Arch>::broadcast(value); });
}

} // namespace tile
SEQMIX_NAMESPACE_END
