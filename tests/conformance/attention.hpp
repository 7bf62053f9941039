// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/attention.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view attention_metadata =
    "scale causal window_left window_right softcap score sigmoid_bias";

namespace detail {

inline causal causal_named(const case_reader& c)
{
    const char* const text = c.text("causal");
    const std::string_view name = text == nullptr ? "none" : text;
    if (name == "none") { return causal::none; }
    if (name == "top_left") { return causal::top_left; }
    if (name == "bottom_right") { return causal::bottom_right; }
    if (name == "explicit") { return causal::offset; }
    throw unsupported("causal '" + std::string(name) + "'");
}

inline attention::weighting weighting_named(const case_reader& c)
{
    const char* const text = c.text("score");
    const std::string_view name = text == nullptr ? "softmax" : text;
    if (name == "softmax") { return attention::weighting::softmax; }
    if (name == "sigmoid") { return attention::weighting::sigmoid; }
    throw unsupported("score '" + std::string(name) + "'");
}

template <class T, class Arch>
void run_attention_as(const case_reader& c, judge& verdicts)
{
    const array<T> q_numbers = read<T>(c.get("q")), k_numbers = read<T>(c.get("k")), v_numbers = read<T>(c.get("v"));
    const view<const T, 4> q = q_numbers.template as<4>("q"), k = k_numbers.template as<4>("k"),
                           v = v_numbers.template as<4>("v");
    attention::options options;
    options.causal = causal_named(c);
    options.weighting = weighting_named(c);
    options.window = {c.whole("window_left", -1), c.whole("window_right", -1)};
    options.softcap = static_cast<float>(c.number("softcap", 0.0));
    options.sigmoid_bias = static_cast<float>(c.number("sigmoid_bias", 0.0));
    if (c.text("scale") != nullptr) { options.scale = static_cast<float>(c.number("scale", 0.0)); }

    array<float> bias, alibi, sinks;
    array<bool> mask;
    array<index> query_offset, kv_lengths;
    if (const auto* t = c.find("bias")) { options.bias = (bias = read<float>(*t)).template padded<4>("bias"); }
    if (const auto* t = c.find("mask")) { options.mask = (mask = read<bool>(*t)).template padded<4>("mask"); }
    if (const auto* t = c.find("alibi")) { options.alibi_slopes = (alibi = read<float>(*t)).template as<1>("alibi"); }
    if (const auto* t = c.find("sinks")) { options.sinks = (sinks = read<float>(*t)).template as<1>("sinks"); }
    if (const auto* t = c.find("query_offset")) {
        options.query_offset = (query_offset = read<index>(*t)).template as<1>("query_offset");
    }
    if (const auto* t = c.find("kv_lengths")) {
        options.kv_lengths = (kv_lengths = read<index>(*t)).template as<1>("kv_lengths");
    }
    if (options.query_offset && (options.causal == causal::top_left || options.causal == causal::bottom_right)) {
        throw unsupported("query_offset beside a causal mask that places the queries");
    }

    const index batch = q.extent(0), heads = q.extent(1), queries = q.extent(2), value_size = v.extent(3);
    // NaN: what the kernel leaves out can't pass for a zero.
    std::vector<T> out(static_cast<std::size_t>(batch * heads * queries * value_size), static_cast<T>(std::nanf("")));
    std::vector<float> lse(static_cast<std::size_t>(batch * heads * queries), std::nanf(""));
    const plain_tensor* const want_lse = c.find("expect.lse");
    if (want_lse != nullptr) { options.lse = view(lse.data(), {batch, heads, queries}); }
    attention::forward<Arch>(q, k, v, view(out.data(), {batch, heads, queries, value_size}), options);

    std::vector<float> widened(out.size());
    for (std::size_t i = 0; i < out.size(); ++i) { widened[i] = static_cast<float>(out[i]); }
    verdicts.compare("out", view<const float, 1>(widened.data(), {widened.size()}), {batch, heads, queries, value_size},
                     c.get("expect.out"));
    if (want_lse != nullptr) {
        verdicts.compare("lse", view<const float, 1>(lse.data(), {lse.size()}), {batch, heads, queries}, *want_lse);
    }
}

} // namespace detail

template <class Arch>
void run_attention(const case_reader& c, judge& verdicts)
{
    c.require_known_tensors("q k v bias mask alibi sinks query_offset kv_lengths d_out "
                            "expect.out expect.lse expect.dq expect.dk expect.dv");
    for (const char* name : {"d_out", "expect.dq", "expect.dk", "expect.dv"}) {
        if (c.find(name) != nullptr) { throw unsupported("the backward pass is not built"); }
    }
    const std::string_view dtype = c.get("q").dtype;
    if (dtype != c.get("k").dtype || dtype != c.get("v").dtype) { throw unsupported("q, k and v of different types"); }
    if (dtype == "F32") { return detail::run_attention_as<float, Arch>(c, verdicts); }
    if (dtype == "F16") { return detail::run_attention_as<f16, Arch>(c, verdicts); }
    if (dtype == "BF16") { return detail::run_attention_as<bf16, Arch>(c, verdicts); }
    throw unsupported("q of dtype " + std::string(dtype));
}

} // namespace conformance
SEQMIX_NAMESPACE_END
