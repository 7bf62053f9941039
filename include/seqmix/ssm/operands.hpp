// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>

// What the doors of state spaces ask of their operands, of whole sequences or of one token.

SEQMIX_NAMESPACE_BEGIN
namespace ssm::detail {

/// The scan: u, delta, out, z [B, D, (L)]; A [D, N]; B, C [B, G, N, (L)]; states [items, D, N].
struct scan_operands {
    named_operand u, delta, A, B, C, out, z, D, delta_bias, state, initial_state;
};

/// The duality: x, out, z [B, (L), H, P]; dt [B, (L), H]; A [H]; B, C [B, (L), G, N]; states [items, H, P, N].
struct ssd_operands {
    named_operand x, dt, A, B, C, out, z, D, dt_bias, state, initial_state;
};

/// `items`: how many states there must be, and what tells so.
inline void check_scan_operands(const checker& check, const scan_operands& o, const named_extent& items)
{
    check_given(check, o.u, o.delta, o.A, o.B, o.C, o.out);
    const named_extent batch = {"batch", o.u.extent(0), "u's"}, channels = {"number of channels", o.u.extent(1), "u's"};
    const named_extent groups = {"number of groups", o.B.extent(1), "B's"}, states = {"number of states", o.A.extent(1), "A's"};
    const named_extent of_channels = {"length", channels.extent, "u's number of channels"};
    const auto in_time = [&](const named_shape& token) {
        return o.u.rank() == 3 ? token + named_extent{"length", o.u.extent(2), "u's"} : token;
    };
    const named_shape like_u = in_time(batch + channels), coefficients = in_time(batch + groups + states);
    check_shape(check, o.delta, like_u);
    check_shape(check, o.out, like_u);
    check_shape(check, o.A, channels + states);
    check_shape(check, o.B, coefficients);
    check_shape(check, o.C, coefficients);
    check_groups(check, "B", groups.extent, "u's", channels.extent, "channels");
    check_optional(check, o.z, like_u);
    check_optional(check, o.D, of_channels);
    check_optional(check, o.delta_bias, of_channels);
    check_optional(check, o.state, items + channels + states);
    check_optional(check, o.initial_state, items + channels + states);
    check_apart(check, o.out, o.u, o.delta, o.A, o.B, o.C, o.z, o.D, o.delta_bias, o.initial_state);
    check_apart(check, o.state, o.u, o.delta, o.A, o.B, o.C, o.z, o.D, o.delta_bias, o.initial_state, o.out);
}

/// The same of the duality.
inline void check_ssd_operands(const checker& check, const ssd_operands& o, const named_extent& items)
{
    check_given(check, o.x, o.dt, o.A, o.B, o.C, o.out);
    const std::size_t head_axis = o.x.rank() - 2;
    const named_extent batch = {"batch", o.x.extent(0), "x's"}, length = {"length", o.x.extent(1), "x's"};
    const named_extent heads = {"number of heads", o.x.extent(head_axis), "x's"}, size = {"head size", o.x.extent(head_axis + 1), "x's"};
    const named_extent groups = {"number of groups", o.B.extent(head_axis), "B's"};
    const named_extent states = {"number of states", o.B.extent(head_axis + 1), "B's"};
    const named_extent of_heads = {"length", heads.extent, "x's number of heads"};
    const named_shape tokens = head_axis == 2 ? batch + length : named_shape(batch);
    check_shape(check, o.dt, tokens + heads);
    check_shape(check, o.out, tokens + heads + size);
    check_shape(check, o.A, of_heads);
    check_shape(check, o.B, tokens + groups + states);
    check_shape(check, o.C, tokens + groups + states);
    check_groups(check, "B", groups.extent, "x's", heads.extent, "heads");
    check_optional(check, o.z, tokens + heads + size);
    check_optional(check, o.D, of_heads);
    check_optional(check, o.dt_bias, of_heads);
    check_optional(check, o.state, items + heads + size + states);
    check_optional(check, o.initial_state, items + heads + size + states);
    check_apart(check, o.out, o.x, o.dt, o.A, o.B, o.C, o.z, o.D, o.dt_bias, o.initial_state);
    check_apart(check, o.state, o.x, o.dt, o.A, o.B, o.C, o.z, o.D, o.dt_bias, o.initial_state, o.out);
}

} // namespace ssm::detail
SEQMIX_NAMESPACE_END
