// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/ssm/causal_conv1d.hpp>

#include <algorithm>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view causal_conv1d_metadata = "activation";

namespace detail {

inline ssm::activation activation_named(const case_reader& c)
{
    const char* const text = c.text("activation");
    const std::string_view name = text == nullptr ? "none" : text;
    if (name == "none") { return ssm::activation::none; }
    if (name == "silu") { return ssm::activation::silu; }
    throw unsupported("activation '" + std::string(name) + "'");
}

/// Weight, bias and state of any type are widened to float; the result is float, so that it is judged before any rounding.
template <class T, class Arch>
void run_causal_conv1d_as(const case_reader& c, judge& verdicts)
{
    const array<T> x_numbers = read<T>(c.get("x"));
    const array<float> weight_numbers = read<float>(c.get("weight"));
    const view<const T, 3> x = x_numbers.template as<3>("x");
    const view<const float, 2> weight = weight_numbers.template as<2>("weight");
    const index batch = x.extent(0), channels = x.extent(1), length = x.extent(2), past = weight.extent(1) - 1;

    ssm::conv1d_options options;
    options.activation = activation_named(c);
    array<float> bias;
    if (const auto* t = c.find("bias")) { options.bias = (bias = read<float>(*t)).template as<1>("bias"); }
    std::vector<float> state(static_cast<std::size_t>(batch * channels * past));
    if (const auto* t = c.find("initial_state")) {
        const array<float> given = read<float>(*t);
        if (given.shape != std::vector<index>{batch, channels, past}) {
            throw std::runtime_error("initial_state has another shape than x and weight ask for");
        }
        std::copy(given.numbers.get(), given.numbers.get() + state.size(), state.begin());
    }
    options.state = view<float, 3>(state.data(), {batch, channels, past});

    // NaN: what the kernel leaves out can't pass for a zero.
    std::vector<float> out(static_cast<std::size_t>(batch * channels * length), std::nanf(""));
    ssm::causal_conv1d<Arch>(x, weight, view<float, 3>(out.data(), {batch, channels, length}), options);
    verdicts.compare("out", view<const float, 1>(out.data(), {out.size()}), {batch, channels, length}, c.get("expect.out"));
    if (const auto* want = c.find("expect.final_state")) {
        verdicts.compare("final_state", view<const float, 1>(state.data(), {state.size()}), {batch, channels, past}, *want);
    }
}

} // namespace detail

template <class Arch>
void run_causal_conv1d(const case_reader& c, judge& verdicts)
{
    c.require_known_tensors("x weight bias initial_state expect.out expect.final_state");
    const std::string_view dtype = c.get("x").dtype;
    if (dtype == "F32") { return detail::run_causal_conv1d_as<float, Arch>(c, verdicts); }
    if (dtype == "F16") { return detail::run_causal_conv1d_as<f16, Arch>(c, verdicts); }
    if (dtype == "BF16") { return detail::run_causal_conv1d_as<bf16, Arch>(c, verdicts); }
    throw unsupported("x of dtype " + std::string(dtype));
}

} // namespace conformance
SEQMIX_NAMESPACE_END
