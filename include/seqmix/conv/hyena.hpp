// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/apply.hpp>

#include <utility>

// Hyena's operator: long convolutions and gates in turns, of one channel after another, so that nothing between them leaves the cache.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

struct hyena_options {
    view<const float, 2> skip{}; ///< [N, D]: adds skip_n z to every convolution of z, before the gate
};

/// Hyena's operator of order N: for n = 1 … N
///
///     z_1 = v,        z_(n+1) = x_n ∘ (h_n * z_n + skip_n z_n),        out = z_(N+1)
///
/// v, out [B, D, L]; gates x [B, N, D, L]; float, bf16 or f16, v and gates alike, out of that type or float. `plan` has the N D kernels h, those of
/// h_1 first: made of [N D, Lk], or of [B, N D, Lk] where items have their own. Causal or circular as the plan says, L up to its length. Any
/// strides, zero sizes too: of order 0 it is a copy. The order-2 operator is the one that Hyena models use.
///
/// The same as N calls of `apply` with post-gates, bit for bit where all is float, but one pass: what is between the convolutions
/// stays float in scratch. Scratch of a thread: one transform and 2 rows, or 3 copies of as many channels as a register has lanes
/// where rows are not contiguous floats. Bit-identical for every number of threads. Error: that of the plan for each convolution, carried through what follows.
///
/// Throws std::invalid_argument, naming the argument and both values, with out untouched.
/// Source: Poli et al. 2023, "Hyena Hierarchy: Towards Larger Convolutional Language Models", section 3.1, definition 3.1.
template <class Arch, class U, class Out>
void hyena(const plan<Arch>& plan, const view<U, 3>& v, const view<const std::remove_const_t<U>, 4>& gates, const view<Out, 3>& out,
           const hyena_options& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    static_assert(storage<T>, "seqmix: long convolutions read float, bf16 or f16");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of v, or float");
    constexpr index lanes = simd::lanes<Arch>;
    const checker check("conv::hyena");
    const index channels = v.extent(1), length = v.extent(2), order = gates.extent(1);
    const named_operand first("v", v), factors("gates", gates), written("out", out), skip("skip", opt.skip);
    const named_extent batch = {"batch", v.extent(0), "v's"}, of_channels = {"number of channels", channels, "v's"};
    const named_extent times = {"length", length, "v's"}, orders = {"order", order, "gates'"};
    check_given(check, first, factors, written);
    check_shape(check, factors, batch + orders + of_channels + times);
    check_shape(check, written, batch + of_channels + times);
    check_optional(check, skip, orders + of_channels);
    check.require(plan.channels() == order * channels, "the plan has ", plan.channels(), " channels, but order times v's channels is ",
                  order * channels);
    check.require(plan.items() == 0 || plan.items() == v.extent(0), "v has ", v.extent(0), " batch items, but the plan has ", plan.items());
    check.require(plan.causal() ? length <= plan.length() : length == plan.length(), "v's length is ", length, ", but the plan's is ", plan.length());
    check_apart(check, written, first, factors, skip);
    if (out.empty()) { return; }

    // Rows of contiguous floats are read and written where they stand.
    constexpr bool floats = std::is_same_v<T, float> && std::is_same_v<Out, float>;
    const bool in_place = floats && order > 0 && v.stride(2) == 1 && gates.stride(3) == 1 && out.stride(2) == 1;
    const index together = in_place ? 1 : smaller(lanes, channels), groups = (channels + together - 1) / together;
    const index stride = (length + lanes - 1) / lanes * lanes;
    struct scratch {
        float *z, *next, *gate, *row;
        scratch(arena& a, index numbers, bool copied, index of_row)
            : z(a.take<float>(numbers)), next(a.take<float>(numbers)), gate(a.take<float>(copied ? numbers : 0)), row(a.take<float>(of_row))
        {
        }
    };
    arena measure;
    static_cast<void>(scratch(measure, together * stride, !in_place, plan.scratch()));
    ctx.for_each(v.extent(0) * groups, measure.used(), [&](index task, std::byte* memory) {
        arena carve(memory);
        scratch at(carve, together * stride, !in_place, plan.scratch());
        const index item = task / groups, from = task % groups * together, count = smaller(together, channels - from);
        const auto copy = [&](const view<const T, 2>& rows, float* to) { detail::load_rows<Arch, T>(rows.slice(0, from, from + count), to, stride); };
        if (!in_place) { copy(view<const T, 3>(v)[item], at.z); }
        for (index n = 0; n < order; ++n) {
            if (!in_place) { copy(gates[item][n], at.gate); }
            for (index c = 0; c < count; ++c) {
                const float *z = at.z + c * stride, *gate = at.gate + c * stride;
                float* y = at.next + c * stride;
                if constexpr (floats) {
                    if (in_place) {
                        gate = &gates(item, n, from, 0);
                        if (n == 0) { z = &v(item, from, 0); }
                        if (n == order - 1) { y = &out(item, from, 0); }
                    }
                }
                const detail::gated_row<Arch, float> source = {z, nullptr, length, !plan.causal()};
                plan.convolve(item, n * channels + from + c, length, source,
                              detail::gated_result<Arch, float, float, float>{y, gate, source, opt.skip ? opt.skip(n, from + c) : 0.0f}, at.row);
            }
            std::swap(at.z, at.next);
        }
        if (in_place) { return; }
        const view<Out, 2> to = out[item].slice(0, from, from + count);
        store_block<Arch>(tile::lane_groups{at.z, stride, lanes}, tile::block<Out>{to.data(), to.stride(0), to.stride(1), count, length});
    });
}

} // namespace conv
SEQMIX_NAMESPACE_END
