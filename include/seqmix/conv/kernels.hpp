// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>

#include <cmath>
#include <vector>

// What long kernels go through before a plan is made of them: plain functions on [D, Lk], in place, computed in double and rounded once.
// Any strides. They run once for every set of weights, so they are written for reading.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// kernel(d, s) *= e^(-rate(d) s / unit) + shift: Hyena's window. The kernel's distant taps fade, each channel's at its own rate, down to
/// `shift` of what they were.
///
/// kernel [D, Lk]; rate [D], of any sign; unit > 0: the taps after which a channel of rate 1 has faded to 1/e, Lk if it is 0. (HyenaDNA's
/// and safari's code count from 0 to 1 over all taps, so that unit = Lk - 1.)
///
/// Error: 2^-24 of each result and some 2^-50 more. Throws std::invalid_argument, naming the argument and both values.
/// Source: Poli et al. 2023, "Hyena Hierarchy" (a filter is a window times a network of the position).
inline void decay_window(const view<float, 2>& kernel, const view<const float, 1>& rate, float shift = 0.0f, index unit = 0)
{
    const checker check("conv::decay_window");
    const named_operand changed("kernel", kernel), rates("rate", rate);
    check_given(check, changed, rates);
    check_shape(check, rates, named_extent{"number of channels", kernel.extent(0), "kernel's"});
    check_apart(check, changed, rates);
    check.require(unit >= 0, "unit is ", unit, ", but must be at least ", 0);
    const double per_tap = -1.0 / static_cast<double>(unit > 0 ? unit : larger(1, kernel.extent(1)));
    for (index d = 0; d < kernel.extent(0); ++d) {
        for (index s = 0; s < kernel.extent(1); ++s) {
            const double factor = std::exp(static_cast<double>(rate(d)) * static_cast<double>(s) * per_tap) + static_cast<double>(shift);
            kernel(d, s) = static_cast<float>(static_cast<double>(kernel(d, s)) * factor);
        }
    }
}

/// Rates for decay_window as Hyena's code starts with: evenly spaced, so that the first channel has faded to a hundredth after 1.5 units and the
/// last one after 0.3.
inline std::vector<float> hyena_rates(index channels)
{
    std::vector<float> rate(static_cast<std::size_t>(larger(0, channels)));
    const double slow = std::log(100.0) / 1.5, fast = std::log(100.0) / 0.3;
    for (std::size_t d = 0; d < rate.size(); ++d) {
        const double part = channels > 1 ? static_cast<double>(d) / static_cast<double>(channels - 1) : 0.0;
        rate[d] = static_cast<float>(slow + part * (fast - slow));
    }
    return rate;
}

/// kernel = sign(kernel) max(|kernel| - threshold, 0): small taps become 0, others come nearer to it. Exact but for one rounding; a NaN stays.
///
/// kernel [D, Lk]; threshold >= 0. Throws std::invalid_argument, naming the argument and both values.
/// Source: Fu et al. 2023, "Simple Hardware-Efficient Long Convolutions for Sequence Modeling" ("squash").
inline void squash(const view<float, 2>& kernel, float threshold)
{
    const checker check("conv::squash");
    check_given(check, {named_operand("kernel", kernel)});
    check.require(threshold >= 0.0f, "threshold is ", static_cast<double>(threshold), ", but must be at least ", 0);
    for (index d = 0; d < kernel.extent(0); ++d) {
        for (index s = 0; s < kernel.extent(1); ++s) {
            float& tap = kernel(d, s);
            tap = tap > threshold ? tap - threshold : tap < -threshold ? tap + threshold : tap != tap ? tap : 0.0f;
        }
    }
}

/// Every tap becomes the mean of the 2 width + 1 taps around it, those beyond the ends being 0. Error: 2^-24 of each result and
/// (2 width + 1) 2^-53 of the mean magnitude. O(D Lk width).
///
/// kernel [D, Lk]; width >= 0. Throws std::invalid_argument, naming the argument and both values.
/// Source: Fu et al. 2023, as above ("smooth").
inline void smooth(const view<float, 2>& kernel, index width)
{
    const checker check("conv::smooth");
    check_given(check, {named_operand("kernel", kernel)});
    check.require(width >= 0, "width is ", width, ", but must be at least ", 0);
    const index taps = kernel.extent(1);
    std::vector<double> before(static_cast<std::size_t>(taps));
    for (index d = 0; d < kernel.extent(0); ++d) {
        for (index s = 0; s < taps; ++s) { before[static_cast<std::size_t>(s)] = static_cast<double>(kernel(d, s)); }
        for (index s = 0; s < taps; ++s) {
            const index first = s > width ? s - width : 0, last = width < taps - 1 - s ? s + width : taps - 1;
            double sum = 0.0;
            for (index i = first; i <= last; ++i) { sum += before[static_cast<std::size_t>(i)]; }
            kernel(d, s) = static_cast<float>(sum / (2.0 * static_cast<double>(width) + 1.0));
        }
    }
}

} // namespace conv
SEQMIX_NAMESPACE_END
