// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/check.hpp>
#include <seqmix/core/view.hpp>

#include <cmath>

SEQMIX_NAMESPACE_BEGIN
namespace attention {

/// Combines two partial results over disjoint sets of keys into the result over both: with w_a = exp(lse_a - lse) and
/// lse = log(exp(lse_a) + exp(lse_b)), out = w_a out_a + w_b out_b. Exact but for rounding: split-key decoding, shared
/// prefixes, ring attention and several machines rest on it. Sinks belong into one of the two.
///
/// out_a, out_b, out [B, H, L, D]; lse_a, lse_b, lse [B, H, L], natural logs. The result may be written over either part
/// (the same view); any other overlap is the caller's error. A part with lse -inf counts for nothing, whatever its out
/// holds. lse may be null. Throws std::invalid_argument. Error: 4 units in the last place of the larger part.
template <class T, class A, class B>
void merge(const view<A, 4>& out_a, const view<const float, 3>& lse_a, const view<B, 4>& out_b,
           const view<const float, 3>& lse_b, const view<T, 4>& out, const view<float, 3>& lse = {})
{
    const checker check("attention::merge");
    constexpr const char* names[] = {"batch", "number of heads", "length", "head size"};
    for (std::size_t axis = 0; axis < 4; ++axis) {
        const index want = out.extent(axis);
        check.require(out_a.extent(axis) == want, "out_a's ", names[axis], " is ", out_a.extent(axis), ", but out's is ", want);
        check.require(out_b.extent(axis) == want, "out_b's ", names[axis], " is ", out_b.extent(axis), ", but out's is ", want);
        if (axis == 3) { break; }
        check.require(lse_a.extent(axis) == want, "lse_a's ", names[axis], " is ", lse_a.extent(axis), ", but out's is ", want);
        check.require(lse_b.extent(axis) == want, "lse_b's ", names[axis], " is ", lse_b.extent(axis), ", but out's is ", want);
        check.require(!lse || lse.extent(axis) == want, "lse's ", names[axis], " is ", lse.extent(axis), ", but out's is ", want);
    }
    if (!out.empty()) {
        check.require(out_a && out_b && lse_a && lse_b && out, "a view is null, but the shape has ", out.size(), " elements");
    }
    for (index b = 0; b < out.extent(0); ++b) {
        for (index h = 0; h < out.extent(1); ++h) {
            for (index i = 0; i < out.extent(2); ++i) {
                const float a = lse_a(b, h, i), c = lse_b(b, h, i);
                const float top = a > c || std::isnan(a) ? a : c;
                const bool none = top == -std::numeric_limits<float>::infinity();
                const float weight_a = none ? 0.0f : std::exp(a - top), weight_b = none ? 0.0f : std::exp(c - top);
                const float total = weight_a + weight_b;
                for (index d = 0; d < out.extent(3); ++d) {
                    float x = 0.0f;
                    if (weight_a != 0.0f) { x += weight_a / total * static_cast<float>(out_a(b, h, i, d)); }
                    if (weight_b != 0.0f) { x += weight_b / total * static_cast<float>(out_b(b, h, i, d)); }
                    out(b, h, i, d) = static_cast<T>(x);
                }
                if (lse) { lse(b, h, i) = none ? top : top + std::log(total); }
            }
        }
    }
}

} // namespace attention
SEQMIX_NAMESPACE_END
