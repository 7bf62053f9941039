// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/block.hpp>

#include <complex>

// What the time-invariant state spaces share: complex numbers as pairs of floats and in double, and rows as tiles.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

using complex = std::complex<float>;

namespace lti {

/// The two floats of each complex number, as the standard lays them out ([complex.numbers.general]). No member of
/// std::complex is called: its code would be shared with units of other flags.
inline const float* parts_of(const complex* z) { return reinterpret_cast<const float*>(z); }
inline float* parts_of(complex* z) { return reinterpret_cast<float*>(z); }

/// A complex number in double.
struct wide {
    double re, im;

    static wide of(const complex& z)
    {
        return {static_cast<double>(parts_of(&z)[0]), static_cast<double>(parts_of(&z)[1])};
    }
    void store(complex& to) const { parts_of(&to)[0] = static_cast<float>(re), parts_of(&to)[1] = static_cast<float>(im); }

    friend wide operator*(wide a, wide b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
    friend wide operator*(double a, wide b) { return {a * b.re, a * b.im}; }
    /// a / b for |b|² within double's range.
    friend wide operator/(wide a, wide b)
    {
        const double square = b.re * b.re + b.im * b.im;
        return {(a.re * b.re + a.im * b.im) / square, (a.im * b.re - a.re * b.im) / square};
    }
};

/// Rows to tiles, so that the row is the lane: to(s, lane) = rows(lane, s), token s at to + s · to_stride, and every
/// further register of rows group_stride on. Lanes beyond the rows are zero. Unit stride of either axis is fast.
template <class Arch, class T>
void load_tile(const view<const T, 2>& rows, float* to, index to_stride, index group_stride)
{
    const tile::block<const T> from = {rows.data(), rows.stride(1), rows.stride(0), rows.extent(1), rows.extent(0)};
    tile::load_block<Arch>(from, tile::lane_groups{to, to_stride, group_stride});
}

/// Back, rounded to T.
template <class Arch, class T>
void store_tile(float* from, index from_stride, index group_stride, const view<T, 2>& rows)
{
    const tile::block<T> to = {rows.data(), rows.stride(1), rows.stride(0), rows.extent(1), rows.extent(0)};
    tile::store_block<Arch>(tile::lane_groups{from, from_stride, group_stride}, to);
}

/// Tokens of a tile: its inputs and outputs stay in L1 while blocks of states pass over them.
inline constexpr index tile_tokens = 32;

template <class T, class Out>
constexpr void check_types()
{
    static_assert(storage<T>, "seqmix: u is float, bf16 or f16");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of u, or float");
}

} // namespace lti

} // namespace ssm
SEQMIX_NAMESPACE_END
