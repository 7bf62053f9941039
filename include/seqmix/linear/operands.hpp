// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/linear/rules.hpp>

#include <cmath>
#include <optional>

// What the doors of linear attention ask of their operands, of whole sequences or of one token.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// Which heads share what: state head h has key head h / of_key, and query heads [h · queries / of_query, … + queries), one
/// of `queries` and `of_query` being 1.
struct shared_heads {
    index of_key, queries, of_query;
};

namespace detail {

/// Axes of an operand that a rule takes besides queries, keys and values.
enum class axes {
    heads,           ///< [H]
    heads_keys,      ///< [H, K]
    tokens_heads,    ///< [B, L, H], or without what there is one of
    tokens_heads_keys,
};

/// What a rule takes, whatever its type and rank, and what else checks ask of a rule: so that they are compiled once for all rules.
struct rule_operands {
    struct named {
        named_operand operand;
        detail::axes axes;
    };
    named given[3] = {};
    std::size_t count = 0;
    bool additive;
    index features; ///< of a key: K

    const named* begin() const { return given; }
    const named* end() const { return given + count; }
};

template <class Rule, class Inputs>
rule_operands operands_of(const Inputs& in, index size)
{
    rule_operands o{.additive = Rule::update == update::additive, .features = Rule::features::features(size)};
    const auto add = [&](const char* name, const auto& operand, axes what) { o.given[o.count++] = {{name, operand}, what}; };
    if constexpr (Rule::gate == gate::head) { add("log_decay", in.log_decay, axes::heads); }
    if constexpr (Rule::gate == gate::token) { add("log_decay", in.log_decay, axes::tokens_heads); }
    if constexpr (Rule::gate == gate::channel) { add("log_decay", in.log_decay, axes::tokens_heads_keys); }
    if constexpr (Rule::update == update::delta) { add("beta", in.beta, axes::tokens_heads); }
    if constexpr (Rule::bonus) { add("bonus", in.bonus, axes::heads_keys); }
    if constexpr (Rule::update == update::dplr) { add("a", in.a, axes::tokens_heads_keys), add("b", in.b, axes::tokens_heads_keys); }
    return o;
}

/// What a rule takes, part(operand) being what becomes of an operand that has tokens: of one sequence [lines, tokens, …].
template <class Rule, class T, std::size_t Axes = 2, class Inputs, class Part>
typename Rule::template inputs<T, Axes> inputs_of(const Inputs& in, const Part& part)
{
    typename Rule::template inputs<T, Axes> one{};
    if constexpr (Rule::gate == gate::head) { one.log_decay = in.log_decay; }
    if constexpr (Rule::gate == gate::token || Rule::gate == gate::channel) { one.log_decay = part(in.log_decay); }
    if constexpr (Rule::update == update::delta) { one.beta = part(in.beta); }
    if constexpr (Rule::bonus) { one.bonus = in.bonus; }
    if constexpr (Rule::update == update::dplr) { one.a = part(in.a), one.b = part(in.b); }
    return one;
}

/// What q, k, v and out say together.
struct linear_shape {
    named_shape tokens; ///< the axes before the heads'
    named_extent heads, keys, values;
    shared_heads shared;
};

/// q, k [tokens, heads, D], v [tokens, H, V], out [tokens, larger of the heads, V]: of tokens, the axes `named` in order and as many as
/// there are; `features` of D numbers are K.
inline linear_shape check_rows(const checker& check, const named_operand& q, const named_operand& k, const named_operand& v, const named_operand& out,
                               std::initializer_list<const char*> named, index features)
{
    check_given(check, q, k, v, out);
    const std::size_t head_axis = q.rank() - 2;
    const index queries = q.extent(head_axis), key_heads = k.extent(head_axis), states = v.extent(head_axis);
    linear_shape shape = {{},
                          {"number of heads", states, "v's"},
                          {"number of key channels", features, "k's number of features"},
                          {"number of value channels", v.extent(head_axis + 1), "v's head size"},
                          {}};
    for (std::size_t axis = 0; axis < head_axis; ++axis) { shape.tokens = shape.tokens + named_extent{named.begin()[axis], v.extent(axis), "v's"}; }
    const auto rows = [&](index count, const char* of_what, const named_extent& size) {
        return shape.tokens + named_extent{"number of heads", count, of_what} + size;
    };
    check_shape(check, q, rows(queries, "q's", {"head size", k.extent(head_axis + 1), "k's"}));
    check_shape(check, k, rows(key_heads, "k's", {"head size", k.extent(head_axis + 1), "k's"}));
    check.require(states == 0 || (key_heads > 0 && states % key_heads == 0), "k has ", key_heads, " heads, which does not divide v's ", states);
    const bool grouped = states > 0 && queries > 0 && queries % states == 0;
    check.require(states == 0 ? queries == 0 : grouped || (queries > 0 && states % queries == 0), "q has ", queries,
                  " heads, which is neither a multiple nor a divisor of v's ", states);
    check_shape(check, out, rows(larger(queries, states), "the larger one of q's and v's", {"head size", shape.values.extent, "v's"}));
    check_apart(check, out, q, k, v);
    shape.shared = {states == 0 ? 1 : states / key_heads, grouped ? queries / states : 1, grouped || states == 0 ? 1 : states / queries};
    return shape;
}

/// What a rule takes besides; apart from all that is `written`.
inline void check_inputs(const checker& check, const rule_operands& in, const linear_shape& shape, std::initializer_list<named_operand> written)
{
    for (const auto& [operand, what] : in) {
        check_given(check, operand);
        check_shape(check, operand,
                    what == axes::heads               ? named_shape(shape.heads)
                    : what == axes::heads_keys        ? shape.heads + shape.keys
                    : what == axes::tokens_heads      ? shape.tokens + shape.heads
                                                      : shape.tokens + shape.heads + shape.keys);
        for (const named_operand& writes : written) { check_apart(check, writes, operand); }
    }
}

struct linear_operands {
    named_operand q, k, v, out, state, initial_state, normalizer, snapshots; ///< of a step, no snapshots
};

/// Of forward and step; `items`: how many states there must be, and what tells so.
inline shared_heads check_linear(const checker& check, const linear_operands& o, const rule_operands& in, bool normalize, const named_extent& items)
{
    const linear_shape shape = check_rows(check, o.q, o.k, o.v, o.out, {"batch", "length"}, in.features);
    check_inputs(check, in, shape, {o.out, o.state, o.normalizer, o.snapshots});
    check_optional(check, o.state, items + shape.heads + shape.keys + shape.values);
    check_optional(check, o.initial_state, items + shape.heads + shape.keys + shape.values);
    check_optional(check, o.normalizer, items + shape.heads + shape.keys);
    check.require(!normalize || in.additive, "normalize is for additive updates only");
    check.require(normalize || !o.normalizer.given(), "normalizer is given, but normalize is false");
    check_apart(check, o.out, o.initial_state);
    for (const named_operand& written : {o.state, o.normalizer, o.snapshots}) { check_apart(check, written, o.q, o.k, o.v, o.initial_state); }
    check_apart(check, o.state, o.out);
    check_apart(check, o.normalizer, o.out, o.state);
    check_apart(check, o.snapshots, o.out, o.state, o.normalizer);
    return shape.shared;
}

/// Of states [items, H, K, V].
template <class Rule>
named_shape state_shape(const named_extent& items, index size, index heads, index values)
{
    return items + named_extent{"number of heads", heads, "v's"} +
           named_extent{"number of key channels", Rule::features::features(size), "k's number of features"} +
           named_extent{"number of value channels", values, "v's head size"};
}

/// A call's element types.
template <class Q, class K, class V, class Out>
constexpr void check_linear_types()
{
    using T = std::remove_const_t<Q>;
    static_assert(storage<T>, "seqmix: linear attention reads float, bf16 or f16");
    static_assert(std::is_same_v<std::remove_const_t<K>, T> && std::is_same_v<std::remove_const_t<V>, T>, "seqmix: q, k and v have one type");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of q, or float");
}

inline float scale_of(const std::optional<float>& asked, index size)
{
    return asked ? *asked : size > 0 ? 1.0f / std::sqrt(static_cast<float>(size)) : 1.0f;
}

} // namespace detail
} // namespace linear
SEQMIX_NAMESPACE_END
