// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <vector>

// The definition of products of butterfly factors, in double.

SEQMIX_NAMESPACE_BEGIN
namespace conv::reference {

/// One factor of stride `stride` in place: x_i and x_(i + stride), where i has no `stride` in it, become two sums of both with the pair's block of
/// `factor` [N / 2, 2, 2]; pairs are counted by i. Where `absolute`, of absolute values: what rounding errors are measured by.
inline void butterfly_factor(std::vector<double>& x, const view<const float, 3>& factor, index stride, bool absolute = false)
{
    index pair = 0;
    for (index i = 0; i < static_cast<index>(x.size()); ++i) {
        if (i / stride % 2 != 0) { continue; }
        double &first = x[static_cast<std::size_t>(i)], &second = x[static_cast<std::size_t>(i + stride)];
        const auto number = [&](index row, index column) {
            const double c = static_cast<double>(factor(pair, row, column));
            return absolute ? std::fabs(c) : c;
        };
        const double sum = number(0, 0) * first + number(0, 1) * second;
        second = number(1, 0) * first + number(1, 1) * second;
        first = sum, ++pair;
    }
}

} // namespace conv::reference
SEQMIX_NAMESPACE_END
