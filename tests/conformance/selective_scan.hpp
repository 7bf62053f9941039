// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/ssm/selective_scan.hpp>

#include <algorithm>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view selective_scan_metadata = "delta_softplus";

namespace detail {

/// A, D, delta_bias and states of any type are widened to float; the result is float, so that it is judged before any
/// rounding.
template <class T, class Arch>
void run_selective_scan_as(const case_reader& c, judge& verdicts)
{
    const array<T> u_numbers = read<T>(c.get("u")), delta_numbers = read<T>(c.get("delta"));
    const array<T> b_numbers = read<T>(c.get("B")), c_numbers = read<T>(c.get("C"));
    const array<float> a_numbers = read<float>(c.get("A"));
    const view<const T, 3> u = u_numbers.template as<3>("u"), delta = delta_numbers.template as<3>("delta");
    const view<const T, 4> B = b_numbers.template as<4>("B"), C = c_numbers.template as<4>("C");
    const view<const float, 2> A = a_numbers.template as<2>("A");
    const index batch = u.extent(0), channels = u.extent(1), length = u.extent(2), states = A.extent(1);

    ssm::scan_options<T> options;
    options.softplus = c.truth("delta_softplus");
    array<float> D, delta_bias;
    array<T> z;
    if (const auto* t = c.find("D")) { options.D = (D = read<float>(*t)).template as<1>("D"); }
    if (const auto* t = c.find("z")) { options.z = (z = read<T>(*t)).template as<3>("z"); }
    if (const auto* t = c.find("delta_bias")) {
        options.delta_bias = (delta_bias = read<float>(*t)).template as<1>("delta_bias");
    }
    std::vector<float> state(static_cast<std::size_t>(batch * channels * states));
    if (const auto* t = c.find("initial_state")) {
        const array<float> given = read<float>(*t);
        if (given.shape != std::vector<index>{batch, channels, states}) {
            throw std::runtime_error("initial_state has another shape than u and A ask for");
        }
        std::copy(given.numbers.get(), given.numbers.get() + state.size(), state.begin());
    }
    options.state = view<float, 3>(state.data(), {batch, channels, states});

    // NaN: what the kernel leaves out can't pass for a zero.
    std::vector<float> out(static_cast<std::size_t>(batch * channels * length), std::nanf(""));
    ssm::selective_scan<Arch>(u, delta, A, B, C, view<float, 3>(out.data(), {batch, channels, length}), options);
    verdicts.compare("out", view<const float, 1>(out.data(), {out.size()}), {batch, channels, length},
                     c.get("expect.out"));
    if (const auto* want = c.find("expect.final_state")) {
        verdicts.compare("final_state", view<const float, 1>(state.data(), {state.size()}), {batch, channels, states},
                         *want);
    }
}

} // namespace detail

template <class Arch>
void run_selective_scan(const case_reader& c, judge& verdicts)
{
    c.require_known_tensors(
        "u delta A B C D z delta_bias initial_state d_out expect.out expect.final_state expect.du expect.ddelta "
        "expect.dA expect.dB expect.dC expect.dD expect.dz expect.ddelta_bias expect.dinitial_state");
    for (const char* name : {"d_out", "expect.du", "expect.ddelta", "expect.dA", "expect.dB", "expect.dC", "expect.dD",
                             "expect.dz", "expect.ddelta_bias", "expect.dinitial_state"}) {
        if (c.find(name) != nullptr) { throw unsupported("the backward pass is not built"); }
    }
    const std::string_view dtype = c.get("u").dtype;
    for (const char* name : {"delta", "B", "C"}) {
        if (dtype != c.get(name).dtype) { throw unsupported("u and " + std::string(name) + " of different types"); }
    }
    // Narrow numbers are widened: no golden vector of this operation has them, and kernels that read them have tests of their own.
    if (dtype == "F32" || dtype == "F16" || dtype == "BF16") { return detail::run_selective_scan_as<float, Arch>(c, verdicts); }
    throw unsupported("u of dtype " + std::string(dtype));
}

} // namespace conformance
SEQMIX_NAMESPACE_END
