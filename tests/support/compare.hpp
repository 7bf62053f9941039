// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <type_traits>

// How far results are from what they should be, and where.

/// The distance between `want` and its neighbours among floats, below 2^-126 that of subnormals, beyond the largest
/// float that of the largest.
inline double unit_in_last_place(double want)
{
    if (want == 0.0 || !std::isfinite(want)) { return want == 0.0 ? 0x1p-149 : 0x1p104; }
    return std::ldexp(1.0, std::clamp(std::ilogb(want) - 23, -149, 104));
}

/// |got - want|, where a NaN is as far as can be from anything but a NaN, and an infinity from anything but itself.
inline double absolute_error(double got, double want)
{
    if (std::isnan(got) || std::isnan(want)) {
        return std::isnan(got) && std::isnan(want) ? 0.0 : std::numeric_limits<double>::infinity();
    }
    return got == want ? 0.0 : std::fabs(got - want);
}

/// Relative to |want|; a zero must be met exactly.
inline double relative_error(double got, double want)
{
    const double error = absolute_error(got, want);
    return error == 0.0 ? 0.0 : error / std::fabs(want);
}

/// In units of the last place of the float that `want` would be. Overflow counts from the largest float, so that the
/// threshold may be missed by the function's error but not by more.
inline double ulp_error(float got, double want)
{
    if (static_cast<double>(got) == want) { return 0.0; }
    constexpr double largest = std::numeric_limits<float>::max();
    if (std::isinf(got) || std::fabs(want) > largest) {
        if (std::isnan(got) || std::isnan(want)) { return std::numeric_limits<double>::infinity(); }
        const double beyond = largest + 0x1p104; // where the next float would stand
        const double g = std::clamp(static_cast<double>(got), -beyond, beyond), w = std::clamp(want, -beyond, beyond);
        return std::fabs(g - w) / 0x1p104;
    }
    return absolute_error(static_cast<double>(got), want) / unit_in_last_place(want);
}

/// The worst of many errors.
struct worst_error {
    double error = 0.0;
    seqmix::index at = -1;
    double got = 0.0, want = 0.0;

    void see(double e, seqmix::index i, double g, double w)
    {
        if (!(e <= error)) {
            error = e;
            at = i;
            got = g;
            want = w;
        }
    }
    friend std::ostream& operator<<(std::ostream& out, const worst_error& w)
    {
        if (w.at < 0) { return out << "no error"; }
        return out << "error " << w.error << " at " << w.at << ": got " << w.got << ", want " << w.want;
    }
};

/// Any number of the library or the language.
template <class T>
double as_double(T x)
{
    if constexpr (std::is_arithmetic_v<T>) {
        return static_cast<double>(x);
    } else {
        return static_cast<double>(static_cast<float>(x));
    }
}

/// The worst of error(got[i], want[i]).
template <class Error, class Got, class Want>
worst_error worst_of(Error error, const Got* got, const Want* want, seqmix::index n)
{
    worst_error worst;
    for (seqmix::index i = 0; i < n; ++i) {
        const double g = as_double(got[i]), w = as_double(want[i]);
        worst.see(error(g, w), i, g, w);
    }
    return worst;
}

template <class Got, class Want>
worst_error worst_absolute(const Got* got, const Want* want, seqmix::index n)
{
    return worst_of(absolute_error, got, want, n);
}
template <class Got, class Want>
worst_error worst_relative(const Got* got, const Want* want, seqmix::index n)
{
    return worst_of(relative_error, got, want, n);
}

/// The absolute error over the largest |want|: what an error bound on a matrix product or a recurrence is about.
template <class Got, class Want>
worst_error worst_normwise(const Got* got, const Want* want, seqmix::index n)
{
    worst_error worst = worst_absolute(got, want, n);
    double norm = 0.0;
    for (seqmix::index i = 0; i < n; ++i) { norm = std::max(norm, std::fabs(as_double(want[i]))); }
    if (worst.error > 0.0) { worst.error /= norm; }
    return worst;
}
template <class Want>
worst_error worst_ulp(const float* got, const Want* want, seqmix::index n)
{
    return worst_of([](double g, double w) { return ulp_error(static_cast<float>(g), w); }, got, want, n);
}
