// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/conv/apply.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view long_conv_metadata = "causal";

/// Operands of any type are widened to float.
template <class Arch>
void run_long_conv(const case_reader& c, judge& verdicts)
{
    if (c.find("d_out") != nullptr) { throw unsupported("the backward pass is not built"); }
    c.require_known_tensors("u k skip pre_gate post_gate expect.out");
    const char* const text = c.text("causal");
    const std::string_view causal = text == nullptr ? "true" : text;
    if (causal != "true" && causal != "false") { throw std::runtime_error("metadata 'causal' is neither true nor false"); }
    const array<float> u_numbers = read<float>(c.get("u")), k_numbers = read<float>(c.get("k"));
    const view<const float, 3> u = u_numbers.template as<3>("u");
    const view<const float, 2> k = k_numbers.template as<2>("k");

    conv::apply_options<float> options;
    array<float> skip, pre_gate, post_gate;
    if (const auto* t = c.find("skip")) { options.skip = (skip = read<float>(*t)).template as<1>("skip"); }
    if (const auto* t = c.find("pre_gate")) { options.pre_gate = (pre_gate = read<float>(*t)).template as<3>("pre_gate"); }
    if (const auto* t = c.find("post_gate")) { options.post_gate = (post_gate = read<float>(*t)).template as<3>("post_gate"); }

    // NaN: what the kernel leaves out can't pass for a zero.
    std::vector<float> out(static_cast<std::size_t>(u.size()), std::nanf(""));
    for (const conv::method how : {conv::method::direct, conv::method::transform}) {
        const conv::plan<Arch> plan(k, {.length = u.extent(2), .causal = causal == "true", .method = how});
        conv::apply(plan, u, view<float, 3>(out.data(), {u.extent(0), u.extent(1), u.extent(2)}), options);
        verdicts.compare("out", view<const float, 1>(out.data(), {out.size()}), {u.extent(0), u.extent(1), u.extent(2)}, c.get("expect.out"));
    }
}

} // namespace conformance
SEQMIX_NAMESPACE_END
