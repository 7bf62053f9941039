// SPDX-License-Identifier: MIT
#pragma once

#include "arch_embedding.hpp"
#include "arch_gates.hpp"

#include <seqmix/linear/forward.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

// Pairs of keys and values through a state: how many of the last values it recalls. pairs.hpp makes and counts them.
namespace {

using recall::pairs;

/// Keys of `count` hashes, [sequences, per sequence, 1, key_size].
struct key_rows {
    key_rows(const std::uint64_t* hashes, index sequences, index each) : sequences_(sequences), each_(each)
    {
        for (index n = 0; n < sequences * each; ++n) { append_key(hashes[n], keys_); }
    }
    sm::view<const float, 4> view() const { return {keys_.data(), {sequences_, each_, index{1}, recall::key_size}}; }

private:
    index sequences_, each_;
    std::vector<float> keys_;
};

/// Writes all, then asks: additive attention with values of zero reads a state and leaves it as it is.
template <class Rule>
index recalled(const pairs& p, const gates& g)
{
    const constant_inputs<Rule> inputs(g);
    const key_rows written(p.written, p.sequences, p.writes), asked(p.asked, p.sequences, p.keys);
    std::vector<float> values;
    for (index n = 0; n < p.sequences * p.writes; ++n) { append_one_hot(p.values[n], p.channels, values); }
    std::vector<float> out(static_cast<std::size_t>(p.sequences * std::max(p.writes, p.keys) * p.channels));
    std::vector<float> state(static_cast<std::size_t>(p.sequences * recall::key_size * p.channels));
    const std::vector<float> nothing(static_cast<std::size_t>(p.channels));

    const sm::linear::options opt = {
        .scale = 1.0f, .state = sm::view(state.data(), {p.sequences, index{1}, recall::key_size, p.channels})};
    const auto rows = [&](index each) { return sm::view(out.data(), {p.sequences, each, index{1}, p.channels}); };
    sm::linear::forward<Rule, arch>(
        written.view(), written.view(),
        sm::view<const float, 4>(values.data(), {p.sequences, p.writes, index{1}, p.channels}),
        inputs.over(p.sequences, p.writes, 1), rows(p.writes), opt);
    sm::linear::forward<sm::linear::additive, arch>(
        asked.view(), asked.view(),
        sm::view<const float, 4>(nothing.data(), {p.sequences, p.keys, index{1}, p.channels}, {0, 0, 0, 1}), {},
        rows(p.keys), opt);

    index right = 0;
    for (index n = 0; n < p.sequences * p.keys; ++n) {
        const float* const row = out.data() + n * p.channels;
        right += std::max_element(row, row + p.channels) - row == p.answers[n] ? 1 : 0;
    }
    return right;
}

index additive_recalls(const pairs& p) { return recalled<sm::linear::additive>(p, {}); }
index gla_recalls(const pairs& p) { return recalled<sm::linear::gla>(p, {.horizon = 16.0f, .spread = 4.0f}); }
index delta_recalls(const pairs& p) { return recalled<sm::linear::delta>(p, {}); }
index gated_delta_recalls(const pairs& p) { return recalled<sm::linear::gated_delta>(p, {.horizon = 1000.0f}); }

} // namespace
