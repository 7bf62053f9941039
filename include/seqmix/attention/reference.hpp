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

/// One row's problem. Every function gets absolute numbers: query position i, key j.
struct row_rule {
    double scale = 1.0;
    double softcap = 0.0;       ///< 0: none
    double slope = 0.0;         ///< ALiBi
    double position = 0.0;      ///< i
    bool has_sink = false;
    double sink = 0.0;
    bool sigmoid = false;
    double sigmoid_bias = 0.0;
};

/// out[Dv] and the log-sum-exp of one query q[Dk] over keys [Lk, Dk] and values [Lk, Dv]. visible(j) says whether key j
/// is seen, bias(j) what is added to its score.
template <class T, class Visible, class Bias>
double row(const view<const T, 1>& q, const view<const T, 2>& k, const view<const T, 2>& v, const row_rule& rule,
           const Visible& visible, const Bias& bias, std::vector<double>& out)
{
    constexpr double hidden = -std::numeric_limits<double>::infinity();
    const index keys = k.extent(0);
    std::vector<double> score(static_cast<std::size_t>(keys), hidden);
    std::vector<bool> seen(static_cast<std::size_t>(keys), false);
    double top = rule.has_sink ? rule.sink : hidden;
    for (index j = 0; j < keys; ++j) {
        if (!visible(j)) { continue; }
        double s = 0.0;
        for (index d = 0; d < q.extent(0); ++d) { s += static_cast<double>(static_cast<float>(q(d))) * static_cast<double>(static_cast<float>(k(j, d))); }
        s *= rule.scale;
        if (rule.softcap > 0.0) { s = rule.softcap * std::tanh(s / rule.softcap); }
        s += bias(j) - rule.slope * std::fabs(rule.position - static_cast<double>(j));
        const auto at = static_cast<std::size_t>(j);
        score[at] = s;
        seen[at] = s != hidden;
        if (s > top || std::isnan(s)) { top = s; }
    }
    double sum = rule.has_sink ? std::exp(rule.sink - top) : 0.0;
    out.assign(static_cast<std::size_t>(v.extent(1)), 0.0);
    bool any = false;
    for (index j = 0; j < keys; ++j) {
        const auto at = static_cast<std::size_t>(j);
        if (!seen[at]) { continue; }
        any = true;
        const double weight = rule.sigmoid ? 1.0 / (1.0 + std::exp(-(score[at] + rule.sigmoid_bias))) : std::exp(score[at] - top);
        sum += weight;
        for (index d = 0; d < v.extent(1); ++d) { out[static_cast<std::size_t>(d)] += weight * static_cast<double>(static_cast<float>(v(j, d))); }
    }
    if (rule.sigmoid) { return std::numeric_limits<double>::quiet_NaN(); }
    for (double& x : out) { x = any ? x / sum : 0.0; }
    return any || rule.has_sink ? top + std::log(sum) : hidden;
}

} // namespace attention::reference
SEQMIX_NAMESPACE_END
