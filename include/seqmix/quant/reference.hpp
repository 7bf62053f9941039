// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>

// The product with a matrix of weights as it is defined, in double: what the kernels are judged by.

SEQMIX_NAMESPACE_BEGIN
namespace quant::reference {

/// out [M, N] = activation(Σ_k x [M, k] · weight [N, k] + bias [N]) + residual [M, N]; bias and residual may be null, activation is
/// a function of a double. Shapes fit; nothing is checked. `absolute` (may be null) receives Σ |x · weight| + |bias|: what rounding
/// errors before the activation are measured by.
template <class X, class Activation>
void matmul(const view<X, 2>& x, const view<const float, 2>& weight, const view<const float, 1>& bias,
            const view<const float, 2>& residual, const Activation& activation, const view<double, 2>& out,
            const view<double, 2>& absolute = {})
{
    for (index m = 0; m < x.extent(0); ++m) {
        for (index n = 0; n < weight.extent(0); ++n) {
            double sum = bias ? static_cast<double>(bias(n)) : 0.0, size = std::fabs(sum);
            for (index k = 0; k < x.extent(1); ++k) {
                const double product = static_cast<double>(static_cast<float>(x(m, k))) * static_cast<double>(weight(n, k));
                sum += product, size += std::fabs(product);
            }
            out(m, n) = activation(sum) + (residual ? static_cast<double>(residual(m, n)) : 0.0);
            if (absolute) { absolute(m, n) = size; }
        }
    }
}

/// Without activation and residual.
template <class X>
void matmul(const view<X, 2>& x, const view<const float, 2>& weight, const view<const float, 1>& bias, const view<double, 2>& out)
{
    matmul(
        x, weight, bias, view<const float, 2>{}, [](double sum) { return sum; }, out);
}

} // namespace quant::reference
SEQMIX_NAMESPACE_END
