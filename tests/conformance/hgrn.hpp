// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/linear/hgrn.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view hgrn_metadata = "";

namespace detail {

/// g and states of any type are widened to float; the result is float, so that it is judged before any rounding.
template <class T, class Arch>
void run_hgrn_as(const case_reader& c, judge& verdicts)
{
    const array<T> x_numbers = read<T>(c.get("x"));
    const array<float> g_numbers = read<float>(c.get("g"));
    const view<const T, 3> x = x_numbers.template as<3>("x");
    const view<const float, 3> g = g_numbers.template as<3>("g");
    const index batch = x.extent(0), length = x.extent(1), channels = x.extent(2);
    array<float> initial_state;
    linear::hgrn_options options;
    if (const auto* t = c.find("initial_state")) {
        options.initial_state = (initial_state = read<float>(*t)).template as<2>("initial_state");
    }
    // NaN in out: what the kernel leaves out can't pass for a zero.
    std::vector<float> state(static_cast<std::size_t>(batch * channels));
    std::vector<float> out(static_cast<std::size_t>(x.size()), std::nanf(""));
    options.state = view<float, 2>(state.data(), {batch, channels});
    linear::hgrn<Arch>(x, g, view<float, 3>(out.data(), {batch, length, channels}), options);
    verdicts.compare("out", view<const float, 1>(out.data(), {out.size()}), {batch, length, channels}, c.get("expect.out"));
    if (const auto* want = c.find("expect.final_state")) {
        verdicts.compare("final_state", view<const float, 1>(state.data(), {state.size()}), {batch, channels}, *want);
    }
}

} // namespace detail

template <class Arch>
void run_hgrn(const case_reader& c, judge& verdicts)
{
    c.require_known_tensors("x g initial_state d_out expect.out expect.final_state expect.dx expect.dg expect.dinitial_state");
    for (const char* name : {"d_out", "expect.dx", "expect.dg", "expect.dinitial_state"}) {
        if (c.find(name) != nullptr) { throw unsupported("the backward pass is not built"); }
    }
    const std::string_view dtype = c.get("x").dtype;
    // Narrow numbers are widened: no golden vector of this operation has them, and kernels that read them have tests of their own.
    if (dtype == "F32" || dtype == "F16" || dtype == "BF16") { return detail::run_hgrn_as<float, Arch>(c, verdicts); }
    throw unsupported("x of dtype " + std::string(dtype));
}

} // namespace conformance
SEQMIX_NAMESPACE_END
