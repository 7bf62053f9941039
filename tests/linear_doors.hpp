// SPDX-License-Identifier: MIT
#pragma once

#include "linear_case.hpp"

#include <seqmix/linear/forward.hpp>

// The doors under test. A file that includes this says for which types it compiles them; for which rules, `is_built`.

namespace linear_test {

template <class Rule, std::size_t Axes, class T, class Operands, class Part>
typename Rule::template inputs<T, Axes> inputs_of(const Operands& from, const Part& part)
{
    typename Rule::template inputs<T, Axes> in;
    if constexpr (Rule::gate == linear::gate::head) { in.log_decay = from.head_decay; }
    if constexpr (Rule::gate == linear::gate::token) { in.log_decay = part(from.token_decay); }
    if constexpr (Rule::gate == linear::gate::channel) { in.log_decay = part(from.channel_decay); }
    if constexpr (Rule::update == linear::update::delta) { in.beta = part(from.beta); }
    if constexpr (Rule::bonus) { in.bonus = from.bonus; }
    if constexpr (Rule::update == linear::update::dplr) { in.a = part(from.a), in.b = part(from.b); }
    return in;
}

/// Every rule in float, and in bf16 where products are computed of bf16 operands. Elsewhere narrow types are only widened as they are
/// read and rounded as they are written: one rule of each way to read operands. Feature maps in float.
template <class T, class Out = T>
constexpr bool is_built(rule r)
{
    const bool all = std::is_same_v<T, float> || (narrow_products<T> && std::is_same_v<T, Out>);
    return all || r == rule::simple_gla || r == rule::kda || r == rule::rwkv6 || r == rule::rwkv7;
}

/// Calls body(Rule()) for the rule that is meant.
template <class T, class Out, class Body>
void with_rule(rule r, features f, const Body& body)
{
    const auto of = [&]<rule Which, class Rule>(std::integral_constant<rule, Which>, Rule rule) {
        if constexpr (is_built<T, Out>(Which)) { body(rule); }
    };
    const auto mapped = [&](auto rule) {
        if constexpr (std::is_same_v<T, float>) { body(rule); }
    };
    switch (f) {
    case features::elu_plus_one: return mapped(linear::mapped<linear::additive, linear::elu_plus_one_map>());
    case features::relu: return mapped(linear::mapped<linear::simple_gla, linear::relu_map>());
    case features::exp: return mapped(linear::mapped<linear::additive, linear::exp_map>());
    case features::taylor: return mapped(linear::mapped<linear::additive, linear::taylor_map>());
    case features::unit_length: return mapped(linear::mapped<linear::gated_delta, linear::unit_length_map>());
    case features::given: break;
    }
    switch (r) {
    case rule::additive: return of(std::integral_constant<rule, rule::additive>(), linear::additive());
    case rule::retention: return of(std::integral_constant<rule, rule::retention>(), linear::retention());
    case rule::simple_gla: return of(std::integral_constant<rule, rule::simple_gla>(), linear::simple_gla());
    case rule::gla: return of(std::integral_constant<rule, rule::gla>(), linear::gla());
    case rule::delta: return of(std::integral_constant<rule, rule::delta>(), linear::delta());
    case rule::gated_delta: return of(std::integral_constant<rule, rule::gated_delta>(), linear::gated_delta());
    case rule::kda: return of(std::integral_constant<rule, rule::kda>(), linear::kda());
    case rule::rwkv6: return of(std::integral_constant<rule, rule::rwkv6>(), linear::rwkv6());
    case rule::rwkv7: return of(std::integral_constant<rule, rule::rwkv7>(), linear::rwkv7());
    }
}

template <class T, class Out>
void run_forward(rule r, features f, const sm::view<const T, 4>& q, const sm::view<const T, 4>& k, const sm::view<const T, 4>& v,
                 const rule_operands<T>& in, const sm::view<Out, 4>& out, const linear::options& options, const sm::context_ref& ctx)
{
    with_rule<T, Out>(r, f, [&](auto rule) {
        using Rule = decltype(rule);
        linear::forward<Rule, test_arch>(q, k, v, inputs_of<Rule, 2, T>(in, [](const auto& o) { return o; }), out, options, ctx);
    });
}

template <class T>
void run_packed(rule r, const sm::view<const T, 4>& q, const sm::view<const T, 4>& k, const sm::view<const T, 4>& v,
                const rule_operands<T>& in, const sm::view<T, 4>& out, const sm::view<const index, 1>& cu_seqlens,
                const linear::options& options, const sm::context_ref& ctx)
{
    with_rule<T, T>(r, features::given, [&](auto rule) {
        using Rule = decltype(rule);
        linear::forward_packed<Rule, test_arch>(q[0], k[0], v[0], inputs_of<Rule, 1, T>(in, [](const auto& o) { return o[0]; }), out[0],
                                                cu_seqlens, options, ctx);
    });
}

template <class T, class Out>
using forward_door = void(rule, features, const sm::view<const T, 4>&, const sm::view<const T, 4>&, const sm::view<const T, 4>&,
                          const rule_operands<T>&, const sm::view<Out, 4>&, const linear::options&, const sm::context_ref&);
template <class T>
using packed_door = void(rule, const sm::view<const T, 4>&, const sm::view<const T, 4>&, const sm::view<const T, 4>&, const rule_operands<T>&,
                         const sm::view<T, 4>&, const sm::view<const index, 1>&, const linear::options&, const sm::context_ref&);

} // namespace linear_test
