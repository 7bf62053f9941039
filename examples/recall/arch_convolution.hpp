// SPDX-License-Identifier: MIT
#pragma once

#include "arch_states.hpp"

#include <seqmix/conv/apply.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

// No state, but one long filter: what a key has met counts by its age, in a way that no single decay has.
namespace {

/// Age in bytes at which a meeting counts half.
constexpr double half_age = 1000.0;

/// scores_t = Σ_c q_tc Σ_j h(t - j) k_jc value_j, c the components of keys: between two gates, keys and queries, a convolution for each component and
/// channel. That is Hyena's order 2 with outer products for its inner gate. All of the text at once.
cost long_convolution(const problem& p, const sink& to)
{
    const index length = p.length, channels = p.channels;
    const auto numbers = [](index count) { return std::vector<float>(static_cast<std::size_t>(count)); };
    std::vector<float> filter = numbers(length), values = numbers(channels * length), gate = numbers(length);
    std::vector<float> product = numbers(channels * length), scores = numbers(channels * length), out = numbers(length * p.heads * channels);
    std::vector<float> lse = numbers(length * p.heads);
    cost spent;
    const auto start = std::chrono::steady_clock::now();
    // Tap 0 stays 0: a query must not see its own byte.
    for (index age = 1; age < length; ++age) {
        filter[static_cast<std::size_t>(age)] = static_cast<float>(half_age / (half_age + static_cast<double>(age - 1)));
    }
    for (index t = 0; t < length; ++t) { values[static_cast<std::size_t>(p.symbols[t] * length + t)] = 1.0f; }
    // Channels are the batch, so that all share one spectrum.
    const auto rows = [&](auto& of) { return sm::view(of.data(), {channels, index{1}, length}); };
    const sm::conv::plan<arch> plan(sm::view<const float, 2>(filter.data(), {index{1}, length}), {.length = length});
    const sm::view<const float, 3> gates(gate.data(), {channels, index{1}, length}, {index{0}, index{0}, index{1}});
    sm::context<> ctx;
    for (index head = 0; head < p.heads; ++head) {
        std::fill(scores.begin(), scores.end(), 0.0f);
        for (index bit = 0; bit < recall::key_size; ++bit) {
            for (index t = 0; t < length; ++t) {
                gate[static_cast<std::size_t>(t)] = (p.contexts[t * p.heads + head] >> bit & 1) != 0 ? 0.125f : -0.125f;
            }
            sm::conv::apply(plan, rows(values), rows(product), {.pre_gate = gates, .post_gate = gates}, ctx);
            for (std::size_t i = 0; i < scores.size(); ++i) { scores[i] += product[i]; }
        }
        for (index t = 0; t < length; ++t) {
            float* const row = out.data() + (t * p.heads + head) * channels;
            for (index c = 0; c < channels; ++c) { row[c] = scores[static_cast<std::size_t>(c * length + t)]; }
            as_row(row, channels, lse[static_cast<std::size_t>(t * p.heads + head)], sum_of_products);
        }
    }
    spent.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    to.take(to.self, {0, length, out.data(), lse.data()});
    spent.extra_bytes = ctx.scratch().size() + (2 * scores.size() + filter.size() + gate.size()) * sizeof(float);
    return spent;
}

} // namespace
