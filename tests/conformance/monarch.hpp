// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/conv/monarch.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view monarch_metadata = "";

namespace detail {

/// The result is float, so that it is judged before any rounding. Weights packed by the call and before it.
template <class T, class Arch>
void run_monarch_as(const case_reader& c, judge& verdicts)
{
    const array<T> x_numbers = read<T>(c.get("x"));
    const array<float> w1_numbers = read<float>(c.get("w1")), w2_numbers = read<float>(c.get("w2"));
    const view<const T, 2> x = x_numbers.template as<2>("x");
    const view<const float, 3> w1 = w1_numbers.template as<3>("w1"), w2 = w2_numbers.template as<3>("w2");
    const index batch = x.extent(0), outputs = w2.extent(0) * w2.extent(1);
    for (const bool packed : {false, true}) {
        // NaN in out: what the kernel leaves out can't pass for a zero.
        std::vector<float> out(static_cast<std::size_t>(batch * outputs), std::nanf(""));
        const view<float, 2> to(out.data(), {batch, outputs});
        packed ? conv::apply(conv::monarch_matrix<Arch>(w1, w2), x, to) : conv::monarch<Arch>(x, w1, w2, to);
        verdicts.compare(packed ? "out, of packed weights" : "out", view<const float, 1>(out.data(), {out.size()}), {batch, outputs},
                         c.get("expect.out"));
    }
}

} // namespace detail

template <class Arch>
void run_monarch(const case_reader& c, judge& verdicts)
{
    c.require_known_tensors("x w1 w2 expect.out");
    const std::string_view dtype = c.get("x").dtype;
    if (dtype == "F32") { return detail::run_monarch_as<float, Arch>(c, verdicts); }
    if (dtype == "F16") { return detail::run_monarch_as<f16, Arch>(c, verdicts); }
    if (dtype == "BF16") { return detail::run_monarch_as<bf16, Arch>(c, verdicts); }
    throw unsupported("x of dtype " + std::string(dtype));
}

} // namespace conformance
SEQMIX_NAMESPACE_END
