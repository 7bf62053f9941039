// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/block.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace tile {

namespace detail {

/// Whether `lanes` elements at `line` may be written past the caches: they lie on a multiple of their size.
template <index lanes, class T>
SEQMIX_INLINE bool streamable(const T* line)
{
    return reinterpret_cast<std::uintptr_t>(line) % static_cast<std::uintptr_t>(lanes * static_cast<index>(sizeof(T))) == 0;
}

/// Blocks whose rows are contiguous in `to`: turned in registers first, so that the others need not be.
template <class Arch, class T, class Function, class... Other>
SEQMIX_NOINLINE void combine_turned(const lane_groups& from, const block<T>& to, store how, const Function& function, const block<const Other>&... others)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    // Backwards along the rows is forwards in memory, from the last row.
    const index sign = to.row_stride, start = sign < 0 ? to.rows - 1 : 0;
    for (index c = 0; c < to.columns; c += lanes) {
        const float* const rows = from.base + c / lanes * from.group_stride + start * from.row_stride;
        const index live = smaller(lanes, to.columns - c);
        for (index s = 0; s < to.rows; s += lanes) {
            const index count = to.rows - s;
            f32 square[lanes];
            simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA {
                square[i] = s + i < to.rows ? f32::load(rows + (s + i) * sign * from.row_stride) : f32::zero();
            });
            transpose(square);
            // A loop over memory and not over registers: `function` is long, and would otherwise be compiled once per lane.
            alignas(sizeof(float) * lanes) float turned[lanes * lanes];
            simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA { square[i].store(turned + i * lanes); });
            const index first = start + s * sign;
            for (index i = 0; i < live; ++i) {
                const auto at = [&](const auto& of) { return of.base + (c + i) * of.column_stride + first * of.row_stride; };
                const f32 y = function(f32::load(turned + i * lanes), load_strided<Arch>(at(others), others.row_stride * sign, count)...);
                T* const line = at(to);
                if (how == store::streamed && count >= lanes && streamable<lanes>(line)) {
                    y.stream(line);
                } else {
                    store_strided<Arch>(y, line, 1, count);
                }
            }
        }
    }
}

} // namespace detail

/// For store_combined: on top of what is there. One type for all kernels, which then share the code.
struct add_to {
    template <class F32>
    SEQMIX_INLINE F32 operator()(F32 sum, F32 old) const
    {
        return old + sum;
    }
};

/// to = function(from, others…), register by register, rounded to T: store_block where results depend on further blocks of the same
/// shape, which are then read where they stand and need no copy. They may be `to` itself.
template <class Arch, class T, class Function, class... Other>
SEQMIX_INLINE void store_combined(const lane_groups& from, const block<T>& to, store how, const Function& function,
                                  const block<const Other>&... others)
{
    if (to.column_stride != 1 && (to.row_stride == 1 || to.row_stride == -1)) {
        return detail::combine_turned<Arch>(from, to, how, function, others...);
    }
    using f32 = simd::f32<Arch>;
    constexpr index lanes = f32::lanes;
    const lane_groups in = from;
    const block<T> out = to;
    const bool streamed = how == store::streamed && out.column_stride == 1 && out.row_stride % lanes == 0 && detail::streamable<lanes>(out.base);
    for (index r = 0; r < out.rows; ++r) {
        const float* row = in.base + r * in.row_stride;
        for (index c = 0; c < out.columns; c += lanes, row += in.group_stride) {
            const index count = out.columns - c;
            const auto at = [&](const auto& of) { return of.base + r * of.row_stride + c * of.column_stride; };
            const f32 y = function(f32::load(row), load_strided<Arch>(at(others), others.column_stride, count)...);
            if (streamed && count >= lanes) {
                y.stream(at(out));
            } else {
                store_strided<Arch>(y, at(out), out.column_stride, count);
            }
        }
    }
}

} // namespace tile
SEQMIX_NAMESPACE_END
