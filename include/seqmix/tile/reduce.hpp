// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/tile.hpp>

#include <limits>

// One number a row. The order of sums is fixed by the number of columns alone.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

namespace detail {

template <class Arch, class Combine>
SEQMIX_INLINE simd::f32<Arch> combine_row(const float* row, index columns, float neutral, const Combine& combine)
{
    using f32 = simd::f32<Arch>;
    f32 all = f32::broadcast(neutral);
    index c = 0;
    for (; c + f32::lanes <= columns; c += f32::lanes) { all = combine(all, f32::load(row + c)); }
    if (c < columns) {
        float rest[f32::lanes];
        for (float& x : rest) { x = neutral; }
        for (index i = 0; c + i < columns; ++i) { rest[i] = row[c + i]; }
        all = combine(all, f32::load(rest));
    }
    return all;
}

} // namespace detail

/// sums[r] = Σ_c in(r, c). Error: (columns / lanes + log2 lanes) u Σ|in|.
template <class Arch>
void row_sums(const matrix<Arch>& in, float* sums)
{
    for (index r = 0; r < in.rows; ++r) {
        sums[r] = reduce_add(detail::combine_row<Arch>(in.row(r), in.columns, 0.0f, [](auto a, auto b) { return a + b; }));
    }
}

/// sums[r] += Σ_c in(r, c)², over whole registers: padding counts, and must be zero. Error: (columns / lanes + log2 lanes + 2) u.
template <class Arch>
SEQMIX_NOINLINE void add_row_squares(const matrix<Arch>& in, float* sums)
{
    using f32 = simd::f32<Arch>;
    for (index r = 0; r < in.rows; ++r) {
        f32 all = f32::zero();
        for (index c = 0; c < in.columns; c += f32::lanes) {
            const f32 x = f32::load(in.row(r) + c);
            all = fma(x, x, all);
        }
        sums[r] += reduce_add(all);
    }
}

/// sums[c] = Σ_r in(r, c)², row after row, for whole registers of columns. Error: rows u.
template <class Arch>
SEQMIX_NOINLINE void column_squares(const matrix<Arch>& in, float* sums)
{
    using f32 = simd::f32<Arch>;
    for (index c = 0; c < in.columns; c += f32::lanes) {
        f32 all = f32::zero();
        for (index r = 0; r < in.rows; ++r) {
            const f32 x = f32::load(in.row(r) + c);
            all = fma(x, x, all);
        }
        all.store(sums + c);
    }
}

/// Lane i: the sum over the lanes of register i, by halves. Takes the square apart.
template <class Arch>
SEQMIX_INLINE simd::f32<Arch> row_sums(simd::f32<Arch> (&square)[simd::lanes<Arch>])
{
    constexpr int lanes = simd::lanes<Arch>;
    if constexpr (requires { reduce_add_rows(square); }) {
        return reduce_add_rows(square);
    } else {
        transpose(square);
        for (int half = lanes / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) { square[i] = square[i] + square[i + half]; }
        }
        return square[0];
    }
}

/// maxima[r] = max_c in(r, c), -inf for no columns. A row with NaN gives some number or NaN: sort NaN out before.
template <class Arch>
void row_maxima(const matrix<Arch>& in, float* maxima)
{
    for (index r = 0; r < in.rows; ++r) {
        maxima[r] = reduce_max(detail::combine_row<Arch>(in.row(r), in.columns, -std::numeric_limits<float>::infinity(),
                                                         [](auto a, auto b) { return max(a, b); }));
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
