// SPDX-License-Identifier: MIT
#pragma once

#include "arch_embedding.hpp"
#include "arch_gates.hpp"

#include <seqmix/linear/forward.hpp>
#include <seqmix/simd/denormals.hpp>
#include <seqmix/ssm/ssd.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

// One matrix [key_size, channels] a head instead of all keys and values: a recurrence takes each byte in, and the next
// byte's query reads it. README.md says what is lost.
namespace {

/// What a head reads from its state, made a row: the scores of the channels become a distribution, and their sum a
/// number of matches, by `matches_of`, that the log-sum-exp tells as attention's does.
template <class MatchesOf>
void as_row(float* scores, index channels, float& lse, const MatchesOf& matches_of)
{
    float sum = 0.0f, positive = 0.0f;
    for (index c = 0; c < channels; ++c) {
        sum += scores[c];
        scores[c] = std::max(scores[c], 0.0f);
        positive += scores[c];
    }
    for (index c = 0; c < channels && positive > 0.0f; ++c) { scores[c] /= positive; }
    const float matches = matches_of(sum);
    lse = matches > 0.0f ? recall::scale + std::log(matches) : -std::numeric_limits<float>::infinity();
}

/// Hands the text to `recur(q, k, v, out, state, ctx)` in blocks of rows, all [1, L, heads, …], with the numbers of
/// the states of all heads, zeros at first.
template <class Recur, class MatchesOf>
cost read_states(const problem& p, const sink& to, const Recur& recur, const MatchesOf& matches_of)
{
    constexpr index block = 2048;
    memory<float> text(p, std::min(block, p.length));
    std::vector<float> out(static_cast<std::size_t>(block * p.heads * p.channels));
    std::vector<float> lse(static_cast<std::size_t>(block * p.heads));
    std::vector<float> state(static_cast<std::size_t>(p.heads * p.channels * recall::key_size));
    sm::context<> ctx;
    cost spent;
    for (index first = 0; first < p.length; first += block) {
        // The state that row i reads has byte i - 1 for its last, so keys and values lag behind queries by one, and row
        // 0 has nothing to read.
        const index last = std::min(first + block, p.length), from = std::max(first, index{1});
        const index skipped = (from - first) * p.heads, rows = (last - first) * p.heads;
        text.hold(from - 1, last);
        std::fill_n(out.begin(), skipped * p.channels, 0.0f);
        std::fill_n(lse.begin(), skipped, -std::numeric_limits<float>::infinity());

        const auto by_time = [](auto operand) { return operand.transposed(1, 2); }; // [B, H, L, …] to [B, L, H, …]
        const auto start = std::chrono::steady_clock::now();
        {
            const sm::scoped_flush_denormals fading; // what has not been met for 90 horizons
            recur(by_time(text.contexts(from, last)), by_time(text.contexts(from - 1, last - 1)),
                  by_time(text.values(from - 1, last - 1)),
                  sm::view(out.data() + skipped * p.channels, {index{1}, last - from, p.heads, p.channels}),
                  state.data(), ctx);
        }
        for (index row = skipped; row < rows; ++row) {
            as_row(out.data() + row * p.channels, p.channels, lse[static_cast<std::size_t>(row)], matches_of);
        }
        spent.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        to.take(to.self, {first, last, out.data(), lse.data()});
    }
    spent.extra_bytes = ctx.scratch().size() + state.size() * sizeof(float);
    return spent;
}

/// Values are one-hot, so what is read of all channels together is the sum of q·k, 1 for a match.
constexpr auto sum_of_products = [](float sum) { return sum; };

/// S = decay S + value ⊗ key: ssm::ssd with x = values, B = keys, C = queries.
cost state_space(const problem& p, const sink& to)
{
    const float step = 1.0f, decay = -1.0f / 4000.0f;
    return read_states(
        p, to,
        [&](auto q, auto k, auto v, auto out, float* state, auto& ctx) {
            sm::ssm::ssd<arch>(v, sm::view(&step, {index{1}, v.extent(1), p.heads}, {0, 0, 0}),
                               sm::view(&decay, {p.heads}, {0}), k, q, out,
                               {.state = sm::view(state, {index{1}, p.heads, p.channels, recall::key_size})}, ctx);
        },
        sum_of_products);
}

/// The same by a rule of linear attention, its gates the same for every byte.
template <class Rule, class MatchesOf>
cost linear_rule(const problem& p, const sink& to, const gates& g, const MatchesOf& matches_of)
{
    const constant_inputs<Rule> inputs(g);
    return read_states(
        p, to,
        [&](auto q, auto k, auto v, auto out, float* state, auto& ctx) {
            sm::linear::forward<Rule, arch>(
                q, k, v, inputs.over(1, v.extent(1), p.heads), out,
                {.scale = 1.0f, .state = sm::view(state, {index{1}, p.heads, recall::key_size, p.channels})}, ctx);
        },
        matches_of);
}

cost gla(const problem& p, const sink& to)
{
    return linear_rule<sm::linear::gla>(p, to, {.horizon = 4000.0f, .spread = 4.0f}, sum_of_products);
}

/// Each meeting replaces so much of what the state recalls.
constexpr float replaced = 1.0f / recall::key_size;

/// After n meetings the sum is 1 - (1 - replaced)^n, whatever the values were. Hence n, up to where the sum is 0.9.
constexpr auto meetings = [](float sum) { return std::log(std::max(1.0f - sum, 0.1f)) / std::log(1.0f - replaced); };

cost delta(const problem& p, const sink& to)
{
    return linear_rule<sm::linear::delta>(p, to, {.beta = replaced}, meetings);
}

cost gated_delta(const problem& p, const sink& to)
{
    return linear_rule<sm::linear::gated_delta>(p, to, {.horizon = 16000.0f, .beta = replaced}, meetings);
}

} // namespace
