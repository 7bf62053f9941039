// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/linear/forward.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view linear_attention_metadata = "rule gate normalize scale";

namespace detail {

/// The rule's operands besides q, k and v, [B, L, …]: decays, strengths and bonuses of any type are widened to float.
template <class T, class Rule>
class rule_operands {
public:
    typename Rule::template inputs<T> in;

    explicit rule_operands(const case_reader& c)
    {
        if constexpr (requires { in.log_decay; }) { take_decays(c, in.log_decay); }
        if constexpr (requires { in.beta; }) { in.beta = (beta_ = read<float>(c.get("beta"))).template as<3>("beta"); }
        if constexpr (requires { in.bonus; }) { in.bonus = (bonus_ = read<float>(c.get("u"))).template as<2>("u"); }
        if constexpr (requires { in.a; }) {
            in.a = (a_ = read<T>(c.get("a"))).template as<4>("a"), in.b = (b_ = read<T>(c.get("b"))).template as<4>("b");
        }
    }

    /// Beside what every rule has.
    static std::string known_tensors()
    {
        using inputs = typename Rule::template inputs<T>;
        std::string names;
        if constexpr (requires(inputs i) { i.log_decay; }) { names += " g"; }
        if constexpr (requires(inputs i) { i.beta; }) { names += " beta"; }
        if constexpr (requires(inputs i) { i.bonus; }) { names += " u"; }
        if constexpr (requires(inputs i) { i.a; }) { names += " a b"; }
        return names;
    }

private:
    template <std::size_t Rank>
    void take_decays(const case_reader& c, view<const float, Rank>& decays)
    {
        g_ = read<float>(c.get("g"));
        if constexpr (Rank > 1) {
            decays = g_.template as<Rank>("g");
        } else { // one a head, which files repeat for every token
            const view<const float, 3> g = g_.template as<3>("g");
            for (index b = 0; b < g.extent(0); ++b) {
                for (index t = 0; t < g.extent(1); ++t) {
                    for (index h = 0; h < g.extent(2); ++h) {
                        if (g(b, t, h) != g(0, 0, h)) { throw unsupported("gate 'head', but g changes from token to token"); }
                    }
                }
            }
            if (g.empty()) { throw unsupported("gate 'head' of no tokens"); }
            decays = g[0][0];
        }
    }

    array<float> g_, beta_, bonus_;
    array<T> a_, b_;
};

/// The result is float, so that it is judged before any rounding. Both forms are run, and both must be right.
template <class T, class Rule, class Arch>
void run_linear_rule(const case_reader& c, judge& verdicts)
{
    c.require_known_tensors("q k v initial_state expect.out expect.final_state" + rule_operands<T, Rule>::known_tensors());
    const array<T> q_numbers = read<T>(c.get("q")), k_numbers = read<T>(c.get("k")), v_numbers = read<T>(c.get("v"));
    const view<const T, 4> q = q_numbers.template as<4>("q"), k = k_numbers.template as<4>("k"), v = v_numbers.template as<4>("v");
    const rule_operands<T, Rule> operands(c);
    const index batch = v.extent(0), length = v.extent(1), state_heads = v.extent(2), values = v.extent(3), keys = k.extent(3);
    const index heads = larger(q.extent(2), state_heads);

    linear::options options;
    options.normalize = c.truth("normalize");
    if (c.text("scale") != nullptr) { options.scale = static_cast<float>(c.number("scale", 0.0)); }
    array<float> initial_state;
    if (const auto* t = c.find("initial_state")) {
        options.initial_state = (initial_state = read<float>(*t)).template as<4>("initial_state");
    }

    for (const form form : {form::recurrent, form::chunked}) {
        options.form = form;
        // NaN in out: what the kernel leaves out can't pass for a zero.
        std::vector<float> state(static_cast<std::size_t>(batch * state_heads * keys * values));
        std::vector<float> out(static_cast<std::size_t>(batch * length * heads * values), std::nanf(""));
        options.state = view<float, 4>(state.data(), {batch, state_heads, keys, values});
        linear::forward<Rule, Arch>(q, k, v, operands.in, view<float, 4>(out.data(), {batch, length, heads, values}), options);
        const char* const names[] = {"out, token by token", "final_state, token by token", "out in chunks", "final_state in chunks"};
        const std::size_t first = form == form::recurrent ? 0 : 2;
        verdicts.compare(names[first], view<const float, 1>(out.data(), {out.size()}), {batch, length, heads, values}, c.get("expect.out"));
        if (const auto* want = c.find("expect.final_state")) {
            verdicts.compare(names[first + 1], view<const float, 1>(state.data(), {state.size()}), {batch, state_heads, keys, values},
                             *want);
        }
    }
}

template <class T, class Arch>
void run_linear_attention_as(const case_reader& c, judge& verdicts)
{
    const auto text = [&](const char* key) {
        const char* const value = c.text(key);
        if (value == nullptr) { throw std::runtime_error("metadata '" + std::string(key) + "' is missing"); }
        return std::string(value);
    };
    struct known_rule {
        std::string_view rule, gate;
        void (*run)(const case_reader&, judge&);
    };
    constexpr known_rule rules[] = {
        {"linear", "none", run_linear_rule<T, linear::additive, Arch>},
        {"gated", "head", run_linear_rule<T, linear::retention, Arch>},
        {"gated", "scalar", run_linear_rule<T, linear::simple_gla, Arch>},
        {"gated", "vector", run_linear_rule<T, linear::gla, Arch>},
        {"delta", "none", run_linear_rule<T, linear::delta, Arch>},
        {"gated_delta", "scalar", run_linear_rule<T, linear::gated_delta, Arch>},
        {"gated_delta", "vector", run_linear_rule<T, linear::kda, Arch>},
        {"rwkv6", "vector", run_linear_rule<T, linear::rwkv6, Arch>},
        {"rwkv7", "vector", run_linear_rule<T, linear::rwkv7, Arch>},
    };
    const std::string rule = text("rule"), gate = text("gate");
    for (const known_rule& known : rules) {
        if (known.rule == rule && known.gate == gate) { return known.run(c, verdicts); }
    }
    throw unsupported("rule '" + rule + "' with gate '" + gate + "'");
}

} // namespace detail

template <class Arch>
void run_linear_attention(const case_reader& c, judge& verdicts)
{
    for (const char* name : {"d_out", "expect.dq", "expect.dk", "expect.dv", "expect.dg", "expect.dbeta", "expect.du", "expect.da",
                             "expect.db", "expect.dinitial_state"}) {
        if (c.find(name) != nullptr) { throw unsupported("the backward pass is not built"); }
    }
    const std::string_view dtype = c.get("q").dtype;
    for (const char* name : {"k", "v"}) {
        if (dtype != c.get(name).dtype) { throw unsupported("q and " + std::string(name) + " of different types"); }
    }
    // Narrow numbers are widened: no golden vector of this operation has them, and kernels that read them have tests of their own.
    if (dtype == "F32" || dtype == "F16" || dtype == "BF16") { return detail::run_linear_attention_as<float, Arch>(c, verdicts); }
    throw unsupported("q of dtype " + std::string(dtype));
}

} // namespace conformance
SEQMIX_NAMESPACE_END
