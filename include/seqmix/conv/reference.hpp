// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <vector>

// The long convolution as it is defined, in double, one channel: what the kernels are judged by.

SEQMIX_NAMESPACE_BEGIN
namespace conv::reference {

/// y_t = Σ_s k_s u_(t-s) + Σ_s backward_s u_(t+1+s), numbers outside of u being 0, or u going round if `circular`.
inline std::vector<double> convolve(const std::vector<double>& u, const std::vector<double>& k, const std::vector<double>& backward, bool circular)
{
    const index length = static_cast<index>(u.size());
    const auto at = [&](index t) {
        if (circular) { t = (t % length + length) % length; }
        return t >= 0 && t < length ? u[static_cast<std::size_t>(t)] : 0.0;
    };
    std::vector<double> y(u.size());
    for (index t = 0; t < length; ++t) {
        double sum = 0.0;
        for (std::size_t s = 0; s < k.size(); ++s) { sum += k[s] * at(t - static_cast<index>(s)); }
        for (std::size_t s = 0; s < backward.size(); ++s) { sum += backward[s] * at(t + 1 + static_cast<index>(s)); }
        y[static_cast<std::size_t>(t)] = sum;
    }
    return y;
}

} // namespace conv::reference
SEQMIX_NAMESPACE_END
