// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <vector>

// The definition of the product with a Monarch matrix, in double.

SEQMIX_NAMESPACE_BEGIN
namespace conv::reference {

/// out [B, l s] = the Monarch matrix of w1 [k, q, p] and w2 [l, s, r], l r = k q, times the rows of x [B, k p]: x in k blocks of p, each
/// times its w1; of the result, number c l + i is number c of block i; each block times its w2; row j of block i is out's j l + i.
/// Dao et al. 2022, "Monarch: Expressive Structured Matrices for Efficient and Accurate Training", section 3.1. Shapes fit; nothing is
/// checked. Where `absolute`, of absolute values throughout: what rounding errors are measured by.
template <class X, class W1, class W2>
void monarch(const view<X, 2>& x, const view<W1, 3>& w1, const view<W2, 3>& w2, const view<double, 2>& out, bool absolute = false)
{
    const auto number = [&](auto of) {
        const double value = static_cast<double>(static_cast<float>(of));
        return absolute && value < 0.0 ? -value : value;
    };
    const index k = w1.extent(0), q = w1.extent(1), p = w1.extent(2), l = w2.extent(0), s = w2.extent(1), r = w2.extent(2);
    std::vector<double> between(static_cast<std::size_t>(k * q));
    for (index b = 0; b < x.extent(0); ++b) {
        for (index i = 0; i < k; ++i) {
            for (index a = 0; a < q; ++a) {
                double sum = 0.0;
                for (index c = 0; c < p; ++c) { sum += number(w1(i, a, c)) * number(x(b, i * p + c)); }
                between[static_cast<std::size_t>(i * q + a)] = sum;
            }
        }
        for (index i = 0; i < l; ++i) {
            for (index j = 0; j < s; ++j) {
                double sum = 0.0;
                for (index c = 0; c < r; ++c) { sum += number(w2(i, j, c)) * between[static_cast<std::size_t>(c * l + i)]; }
                out(b, j * l + i) = sum;
            }
        }
    }
}

} // namespace conv::reference
SEQMIX_NAMESPACE_END
