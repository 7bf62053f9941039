// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <limits>
#include <vector>

// Attention as the papers define it, in double, one row at a time: what the kernels are judged by. Shares no code with
// them; its parameters are the contract's symbols, not the kernel's options.

SEQMIX_NAMESPACE_BEGIN
namespace attention::reference {

/// One row's problem, in the contract's symbols: query position i, key j.
struct row_rule {
    double scale = 1.0;
    double softcap = 0.0; ///< 0: none
    double slope = 0.0;   ///< ALiBi
    double position = 0.0; ///< i
    double sink = -std::numeric_limits<double>::infinity(); ///< -inf: none
    bool sigmoid = false;
    double sigmoid_bias = 0.0;
};

template <class T>
double widened(T x)
{
    return static_cast<double>(static_cast<float>(x));
}

/// out[Dv] and the log-sum-exp (NaN for sigmoid, which has none) of one query q[Dk] over keys [Lk, Dk] and values [Lk, Dv].
/// visible(j) says whether key j is seen, bias(j) what is added to its score; -inf hides it.
template <class T, class Visible, class Bias>
double row(const view<const T, 1>& q, const view<const T, 2>& k, const view<const T, 2>& v, const row_rule& rule,
           const Visible& visible, const Bias& bias, std::vector<double>& out)
{
    constexpr double hidden = -std::numeric_limits<double>::infinity();
    std::vector<double> score(static_cast<std::size_t>(k.extent(0)), hidden);
    double top = rule.sink; // NaN once any score is
    for (index j = 0; j < k.extent(0); ++j) {
        if (!visible(j) || bias(j) == hidden) { continue; }
        double s = 0.0;
        for (index d = 0; d < q.extent(0); ++d) { s += widened(q(d)) * widened(k(j, d)); }
        s *= rule.scale;
        if (rule.softcap > 0.0) { s = rule.softcap * std::tanh(s / rule.softcap); }
        s += bias(j) - rule.slope * std::fabs(rule.position - static_cast<double>(j));
        score[static_cast<std::size_t>(j)] = s;
        if (s > top || std::isnan(s)) { top = s; }
    }
    out.assign(static_cast<std::size_t>(v.extent(1)), 0.0);
    double sum = rule.sink == hidden ? 0.0 : std::exp(rule.sink - top);
    for (index j = 0; j < k.extent(0); ++j) {
        const double s = score[static_cast<std::size_t>(j)];
        if (s == hidden) { continue; }
        const double weight = rule.sigmoid ? 1.0 / (1.0 + std::exp(-(s + rule.sigmoid_bias))) : std::exp(s - top);
        sum += weight;
        for (index d = 0; d < v.extent(1); ++d) { out[static_cast<std::size_t>(d)] += weight * widened(v(j, d)); }
    }
    if (rule.sigmoid) { return std::numeric_limits<double>::quiet_NaN(); }
    if (top == hidden) { return hidden; }
    for (double& x : out) { x /= sum; }
    return top + std::log(sum);
}

} // namespace attention::reference
SEQMIX_NAMESPACE_END
