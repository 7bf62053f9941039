// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/tile.hpp>

// Unit lower triangular tiles, as the delta rules' WY form has them. Only what lies strictly below the diagonal is read.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Solves L X = B in place: b becomes X. L is n x n with ones on its diagonal, b is n x m. Forward substitution, row by row:
/// n² m / 2 multiply-adds in registers along m. Backward error n u |L||X| (Higham 2002, theorem 8.5).
template <class Arch>
void solve_unit_lower(const matrix<Arch>& lower, const matrix<Arch>& b)
{
    using f32 = simd::f32<Arch>;
    for (index c = 0; c < b.columns; c += f32::lanes) {
        for (index r = 1; r < b.rows; ++r) {
            f32 x = f32::load(b.row(r) + c);
            for (index j = 0; j < r; ++j) { x = fnma(f32::broadcast(lower(r, j)), f32::load(b.row(j) + c), x); }
            x.store(b.row(r) + c);
        }
    }
}

/// inverse = L⁻¹, unit lower triangular with zeros above, n x n. `inverse` must not be `lower`.
template <class Arch>
void invert_unit_lower(const matrix<Arch>& lower, const matrix<Arch>& inverse)
{
    for (index r = 0; r < inverse.rows; ++r) {
        for (index c = 0; c < inverse.stride; ++c) { inverse(r, c) = r == c ? 1.0f : 0.0f; }
    }
    solve_unit_lower(lower, inverse);
}

} // namespace tile
SEQMIX_NAMESPACE_END
