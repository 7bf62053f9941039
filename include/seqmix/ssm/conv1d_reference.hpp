// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <vector>

// The causal depthwise convolution as it is defined, in double, one channel: what the kernels are judged by.

SEQMIX_NAMESPACE_BEGIN
namespace ssm::reference {

/// out[t] = Σ_k weight[k] x[t - (W - 1) + k] + bias, then y sigmoid(y) if `silu`; x [L], weight [W]. `state` holds the
/// W - 1 inputs before the first one, the latest last, and afterwards the last W - 1 inputs.
template <class T>
std::vector<double> causal_conv1d(const view<const T, 1>& x, const view<const float, 1>& weight, double bias, bool silu,
                                  std::vector<double>& state)
{
    std::vector<double> out;
    for (index t = 0; t < x.extent(0); ++t) {
        state.push_back(static_cast<double>(static_cast<float>(x(t)))); // now W inputs, x(t) the last
        double sum = bias;
        for (index k = 0; k < weight.extent(0); ++k) {
            sum += static_cast<double>(weight(k)) * state[static_cast<std::size_t>(k)];
        }
        state.erase(state.begin());
        out.push_back(silu ? sum / (1.0 + std::exp(-sum)) : sum);
    }
    return out;
}

} // namespace ssm::reference
SEQMIX_NAMESPACE_END
