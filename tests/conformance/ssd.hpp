// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/ssm/ssd.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view ssd_metadata = "dt_softplus";

namespace detail {

/// A, D, dt_bias and states of any type are widened to float; the result is float, so that it is judged before any
/// rounding. Both forms are run, and both must be right.
template <class T, class Arch>
void run_ssd_as(const case_reader& c, judge& verdicts)
{
    const array<T> x_numbers = read<T>(c.get("x")), dt_numbers = read<T>(c.get("dt"));
    const array<T> b_numbers = read<T>(c.get("B")), c_numbers = read<T>(c.get("C"));
    const array<float> a_numbers = read<float>(c.get("A"));
    const view<const T, 4> x = x_numbers.template as<4>("x"), B = b_numbers.template as<4>("B"),
                           C = c_numbers.template as<4>("C");
    const view<const T, 3> dt = dt_numbers.template as<3>("dt");
    const view<const float, 1> A = a_numbers.template as<1>("A");
    const index batch = x.extent(0), length = x.extent(1), heads = x.extent(2), channels = x.extent(3),
                states = B.extent(3);
    const std::vector<index> state_shape = {batch, heads, channels, states};

    ssm::ssd_options<T> options;
    options.softplus = c.truth("dt_softplus");
    array<float> D, dt_bias, initial_state;
    array<T> z;
    if (const auto* t = c.find("D")) { options.D = (D = read<float>(*t)).template as<1>("D"); }
    if (const auto* t = c.find("z")) { options.z = (z = read<T>(*t)).template as<4>("z"); }
    if (const auto* t = c.find("dt_bias")) { options.dt_bias = (dt_bias = read<float>(*t)).template as<1>("dt_bias"); }
    if (const auto* t = c.find("initial_state")) {
        options.initial_state = (initial_state = read<float>(*t)).template as<4>("initial_state");
    }

    for (const ssm::form form : {ssm::form::recurrent, ssm::form::chunked}) {
        options.form = form;
        // NaN in out: what the kernel leaves out can't pass for a zero.
        std::vector<float> state(static_cast<std::size_t>(batch * heads * channels * states));
        std::vector<float> out(static_cast<std::size_t>(x.size()), std::nanf(""));
        options.state = view<float, 4>(state.data(), {batch, heads, channels, states});
        ssm::ssd<Arch>(x, dt, A, B, C, view<float, 4>(out.data(), {batch, length, heads, channels}), options);
        const char* const names[] = {"out, token by token", "final_state, token by token", "out in chunks",
                                     "final_state in chunks"};
        const std::size_t first = form == ssm::form::recurrent ? 0 : 2;
        verdicts.compare(names[first], view<const float, 1>(out.data(), {out.size()}), {batch, length, heads, channels},
                         c.get("expect.out"));
        if (const auto* want = c.find("expect.final_state")) {
            verdicts.compare(names[first + 1], view<const float, 1>(state.data(), {state.size()}), state_shape, *want);
        }
    }
}

} // namespace detail

template <class Arch>
void run_ssd(const case_reader& c, judge& verdicts)
{
    c.require_known_tensors(
        "x dt A B C D z dt_bias initial_state d_out expect.out expect.final_state expect.dx expect.ddt expect.dA "
        "expect.dB expect.dC expect.dD expect.dz expect.ddt_bias expect.dinitial_state");
    for (const char* name : {"d_out", "expect.dx", "expect.ddt", "expect.dA", "expect.dB", "expect.dC", "expect.dD",
                             "expect.dz", "expect.ddt_bias", "expect.dinitial_state"}) {
        if (c.find(name) != nullptr) { throw unsupported("the backward pass is not built"); }
    }
    const std::string_view dtype = c.get("x").dtype;
    for (const char* name : {"dt", "B", "C"}) {
        if (dtype != c.get(name).dtype) { throw unsupported("x and " + std::string(name) + " of different types"); }
    }
    // Narrow numbers are widened: no golden vector of this operation has them, and kernels that read them have tests of their own.
    if (dtype == "F32" || dtype == "F16" || dtype == "BF16") { return detail::run_ssd_as<float, Arch>(c, verdicts); }
    throw unsupported("x of dtype " + std::string(dtype));
}

} // namespace conformance
SEQMIX_NAMESPACE_END
