// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/scan_order.hpp>
#include <seqmix/ssm/selective_scan.hpp>

#include <initializer_list>

// Scans of one input in several directions, summed: both ways along a sequence (Vision Mamba), four ways over an image (VMamba).
// A direction is another way to walk the same memory: nothing is flipped, transposed or copied.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

using seqmix::scan_order;

/// One direction: its own parameters, laid out as the image is (not in the order of the walk). T is the type of u.
template <class T>
struct scan_route {
    scan_order order = scan_order::rows;
    view<const T, 4> delta{};          ///< [B, D, H, W]
    view<const float, 2> A{};          ///< [D, N]
    view<const T, 5> B{}, C{};         ///< [B, G, N, H, W]
    view<const float, 1> D{};          ///< [D]: adds D u; null: nothing
    view<const float, 1> delta_bias{}; ///< [D]: added to delta, before softplus
};

/// What all directions of a call share.
template <class T>
struct cross_scan_options {
    view<const T, 4> z{};  ///< [B, D, H, W]: out = (sum of directions) silu(z)
    bool softplus = false; ///< delta = log(1 + e^delta)
    ssm::decay decay = ssm::decay::any;
};

/// out = Σ over routes of the selective scan of u along each, times silu(z) if given. u, out [B, D, H, W]; every route brings its
/// own delta, A, B, C, D and bias. Types, strides, errors and error bounds as in selective_scan; the sum is taken in the order of
/// the routes, rounded to out's type in between. States start from zeros and are not kept.
///
/// For images whose channels lie together ([B, H, W, D] as a view with other strides) all four walks are equally fast; where
/// pixels of a row lie together, walks along columns read single numbers and take longer. A block of channels goes through all
/// its routes before the next one, so that u and out are read from cache from the second route on while their pixels fit it.
///
/// Bit-identical for every number of threads. Throws std::invalid_argument, naming the route's number where it is about one.
/// Source: Liu et al. 2024, "VMamba: Visual State Space Model", section 4.2 (SS2D); Zhu et al. 2024, "Vision Mamba", section 3.
template <class Arch = arch::native, class U, class Out>
void cross_scan(const view<U, 4>& u, std::initializer_list<scan_route<std::remove_const_t<U>>> routes, const view<Out, 4>& out,
                const cross_scan_options<std::remove_const_t<U>>& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    using sequence = scan_sequence<T, T, Out>;
    detail::check_scan_types<U, T, T, T, Out>();
    const checker check("ssm::cross_scan");
    const index batch = u.extent(0), channels = u.extent(1), height = u.extent(2), width = u.extent(3);
    check.require(routes.size() > 0, "routes are empty");
    const named_extent of_batch = {"batch", batch, "u's"}, of_channels = {"number of channels", channels, "u's"};
    const named_shape image = of_batch + of_channels + named_extent{"height", height, "u's"} + named_extent{"width", width, "u's"};
    const named_extent numbers = {"length", channels, "u's number of channels"};
    const named_operand input = {"u", u}, written = {"out", out}, z = {"z", opt.z};
    check_given(check, input, written);
    check_shape(check, written, image);
    check_optional(check, z, image);
    check_apart(check, written, input, z);
    index number = 0, most_states = 0, groups = 1;
    for (const scan_route<T>& route : routes) {
        const named_operand delta = {"delta", route.delta}, A = {"A", route.A}, B = {"B", route.B}, C = {"C", route.C};
        const named_operand D = {"D", route.D}, delta_bias = {"delta_bias", route.delta_bias};
        check_given(check, delta, A, B, C);
        check_shape(check, delta, image);
        check.require(route.A.extent(0) == channels, "A of route ", number, " has ", route.A.extent(0), " channels, but u has ", channels);
        const index states = route.A.extent(1);
        groups = number == 0 ? route.B.extent(1) : groups;
        check_groups(check, "B", groups, "u's", channels, "channels");
        const index want[] = {batch, groups, states, height, width};
        constexpr const char* axes[] = {"batch", "number of groups", "number of states", "height", "width"};
        for (std::size_t axis = 0; axis < 5; ++axis) {
            for (const named_operand* o : {&B, &C}) {
                check.require(o->extent(axis) == want[axis], o->name(), " of route ", number, " has ", axes[axis], " ",
                              o->extent(axis), ", but ", want[axis], " is meant");
            }
        }
        check_optional(check, D, numbers);
        check_optional(check, delta_bias, numbers);
        detail::check_decay(check, route.A, opt.decay);
        check_apart(check, written, delta, A, B, C, D, delta_bias);
        most_states = larger(most_states, states), ++number;
    }
    if (out.empty()) { return; }

    const view<const T, 4> inputs = u;
    const index of_group = channels / groups;
    scan_blocking<Arch> sizes(u.stride(1) == 1 && u.stride(3) != 1, of_group, most_states,
                              group_blocks::wanted(ctx.concurrency(), batch, groups));
    // Few enough channels that their pixels stay in L2 from route to route; at least a tile's.
    const index tile_channels = sizes.groups * simd::lanes<Arch>, bytes = 4 * height * width * static_cast<index>(sizeof(T));
    sizes.channels = larger(tile_channels, smaller(sizes.channels, tile::level2_bytes / bytes / tile_channels * tile_channels));
    const group_blocks cut = {batch, groups, of_group, sizes.channels};
    arena measure;
    static_cast<void>(scan_scratch<Arch>(measure, sizes, most_states));
    ctx.for_each(cut.pieces(), measure.used(), [&](index task, std::byte* memory) {
        const auto [item, first, count] = cut[task];
        bool first_route = true;
        for (const scan_route<T>& route : routes) {
            const bool last_route = &route + 1 == routes.end();
            const sequence walk = {
                .u = walked(inputs[item], route.order, 1),
                .delta = walked(route.delta[item], route.order, 1),
                .A = route.A,
                .B = walked(route.B[item], route.order, 2),
                .C = walked(route.C[item], route.order, 2),
                .z = opt.z && last_route ? walked(opt.z[item], route.order, 1) : view<const T, 3>{},
                .out = walked(out[item], route.order, 1),
                .D = route.D,
                .delta_bias = route.delta_bias,
                .softplus = opt.softplus,
                .decay = opt.decay,
                .accumulate = !first_route,
                .how = tile::store::kept,
                .gate_sum = true,
                .snapshots = {},
                .snapshot_interval = 1,
            };
            arena carve(memory);
            const scan_scratch<Arch> scratch(carve, sizes, route.A.extent(1));
            channel_scan<Arch, T, T, Out> scan(walk, sizes, first, count, scratch);
            scan.start_from_zero();
            scan.run(0, walk.tokens());
            first_route = false;
        }
    });
}

} // namespace ssm
SEQMIX_NAMESPACE_END
