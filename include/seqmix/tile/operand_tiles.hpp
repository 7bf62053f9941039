// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/mma.hpp>

// Tiles of floats as operands of products. Mixers compute their tiles in float, decays and all, and round them on the way into
// a product where the backend multiplies something narrower.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// A tile of floats as an operand of products: itself, or rounded to the element that the backend multiplies.
template <class Arch, class Element>
struct operand_tiles {
    using product = tile::product<Arch, Element>;
    using word = typename product::word;
    static constexpr bool as_it_is = product::group == 1;

    /// A left operand whose depth runs along the tile's rows of `stride` floats (whole registers): rounds `count` of them, where
    /// words need it. Words take half the floats' room; a depth that ends within a word needs a 0 behind it.
    static left_operand rows(const float* from, index count, index stride, word* scratch)
    {
        if constexpr (!as_it_is) {
            auto* to = reinterpret_cast<Element*>(scratch);
            for (index i = 0; i < count * stride; i += simd::lanes<Arch>) { simd::f32<Arch>::load(from + i).store(to + i); }
        }
        return left_of(from, stride, scratch);
    }
    /// The same, of what `rows` has rounded before.
    static left_operand left_of([[maybe_unused]] const float* from, index stride, [[maybe_unused]] const word* scratch)
    {
        if constexpr (as_it_is) {
            return left_operand::of(from, stride, 1);
        } else {
            return left_operand::of(scratch, stride / product::group, 1);
        }
    }
    /// A left operand whose rows are the tile's columns, of what `joined` has rounded before.
    static left_operand turned_left_of([[maybe_unused]] const float* from, index stride, [[maybe_unused]] const word* scratch)
    {
        if constexpr (as_it_is) {
            return left_operand::of(from, 1, stride);
        } else {
            return left_operand::of(scratch, 1, stride);
        }
    }

    /// A right operand, words along the depth, which runs down the tile's rows: `count` rows of `columns`, rounded up to whole
    /// registers. Words take depth_words(count) rows of `stride`.
    static const word* joined(const float* from, [[maybe_unused]] index count, [[maybe_unused]] index stride,
                              [[maybe_unused]] index columns, [[maybe_unused]] word* scratch)
    {
        if constexpr (as_it_is) {
            return from;
        } else {
            using f32 = simd::f32<Arch>;
            for (index r = 0; r < count; r += 2) {
                for (index c = 0; c < columns; c += f32::lanes) {
                    const f32 second = r + 1 < count ? f32::load(from + (r + 1) * stride + c) : f32::zero();
                    simd::backend<Arch>::join_bf16(f32::load(from + r * stride + c), second).store(scratch + r / 2 * stride + c);
                }
            }
            return scratch;
        }
    }
};

} // namespace tile
SEQMIX_NAMESPACE_END
