// SPDX-License-Identifier: MIT
#pragma once

#include "arch_embedding.hpp"

#include <seqmix/attention.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

// Attention over all that was read: as one writes it down, and by seqmix.
namespace {

/// Hands the text to `attend(q, k, v, out, lse)` in blocks of rows.
template <class T, class Attend>
cost predict(const problem& p, const sink& to, index block, const Attend& attend)
{
    memory<T> text(p, block);
    std::vector<float> out(static_cast<std::size_t>(block * p.heads * p.channels));
    std::vector<float> lse(static_cast<std::size_t>(block * p.heads));
    cost spent;
    for (index first = 0; first < p.length; first += block) {
        const index last = std::min(first + block, p.length), rows = last - first;
        const index oldest = p.window > 0 ? std::max(index{0}, first - p.window) : 0;
        text.hold(oldest, last);

        // One key fewer than there are positions: the last row predicts byte last - 1, so it may see up to last - 2.
        // Aligned at the bottom right, every row then ends one before the byte that it predicts.
        const auto start = std::chrono::steady_clock::now();
        attend(text.contexts(first, last), text.contexts(oldest, last - 1), text.values(oldest, last - 1),
               sm::view<float, 4>(out.data(), {index{1}, p.heads, rows, p.channels},
                                  {index{0}, p.channels, p.heads * p.channels, index{1}}),
               sm::view<float, 3>(lse.data(), {index{1}, p.heads, rows}, {index{0}, index{1}, p.heads}));
        spent.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        to.take(to.self, {first, last, out.data(), lse.data()});
    }
    return spent;
}

/// Attention as one writes it down: all scores, then their softmax, then the weighted sum.
cost naive(const problem& p, const sink& to)
{
    std::vector<float> scores;
    cost spent = predict<float>(p, to, p.length, [&](auto q, auto k, auto v, auto out, auto lse) {
        const index queries = q.extent(2), keys = k.extent(2);
        scores.resize(static_cast<std::size_t>(queries * keys));
        const auto s = sm::view(scores.data(), {queries, keys});
        for (index h = 0; h < p.heads; ++h) {
            for (index i = 0; i < queries; ++i) {
                const index seen = i + keys - queries + 1;
                for (index j = 0; j < seen; ++j) {
                    float dot = 0.0f;
                    for (index d = 0; d < recall::key_size; ++d) { dot += q(0, h, i, d) * k(0, h, j, d); }
                    s(i, j) = recall::scale * dot;
                }
            }
            for (index i = 0; i < queries; ++i) {
                const index seen = i + keys - queries + 1;
                float top = -std::numeric_limits<float>::infinity(), sum = 0.0f;
                for (index j = 0; j < seen; ++j) { top = std::max(top, s(i, j)); }
                for (index j = 0; j < seen; ++j) { sum += s(i, j) = std::exp(s(i, j) - top); }
                for (index j = 0; j < seen; ++j) { s(i, j) /= sum; }
                lse(0, h, i) = seen > 0 ? top + std::log(sum) : top;
            }
            for (index i = 0; i < queries; ++i) {
                for (index c = 0; c < p.channels; ++c) { out(0, h, i, c) = 0.0f; }
                for (index j = 0; j < i + keys - queries + 1; ++j) {
                    for (index c = 0; c < p.channels; ++c) { out(0, h, i, c) += s(i, j) * v(0, h, j, c); }
                }
            }
        }
    });
    spent.extra_bytes = scores.size() * sizeof(float);
    return spent;
}

/// The same by seqmix. T is what keys and values are stored in; results are float.
template <class T>
cost tiled(const problem& p, const sink& to)
{
    sm::context on_threads{sm::parallel_for{p.threads, [](int workers, const sm::job& work) {
                                                std::vector<std::thread> others;
                                                for (int i = 1; i < workers; ++i) { others.emplace_back(work, i); }
                                                work(0);
                                                for (std::thread& other : others) { other.join(); }
                                            }}};
    constexpr index block = 2048;
    cost spent = predict<T>(p, to, std::min(block, p.length), [&](auto q, auto k, auto v, auto out, auto lse) {
        sm::attention::forward<arch>(q, k, v, out,
                                     {.scale = recall::scale,
                                      .causal = sm::causal::bottom_right,
                                      .window = {.left = p.window > 0 ? p.window - 1 : -1},
                                      .lse = lse},
                                     on_threads);
    });
    spent.extra_bytes = on_threads.scratch().size();
    spent.threads = p.threads;
    return spent;
}

} // namespace
