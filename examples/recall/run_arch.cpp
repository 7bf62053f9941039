// SPDX-License-Identifier: MIT
// The methods, compiled once per instruction set with its flags and -DSEQMIX_RECALL_ARCH=<set>.
#include "kernel.hpp"

#include <seqmix/attention.hpp>
#include <seqmix/simd/denormals.hpp>
#include <seqmix/ssm/ssd.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

// Without a name of its own for every instruction set, the linker would keep one copy for all.
namespace {

namespace sm = seqmix;
using arch = sm::arch::SEQMIX_RECALL_ARCH;
using recall::cost, recall::problem, recall::sink;
using sm::index;

/// A stretch of the text, embedded. Keys serve as queries too: both are what stands before a byte.
template <class T>
class memory {
public:
    memory(const problem& p, index block) : problem_(p)
    {
        const index most = p.window > 0 ? std::min(p.window + block, p.length) : p.length;
        keys_.reserve(static_cast<std::size_t>(most * key_stride()));
        values_.reserve(static_cast<std::size_t>(most * p.channels));
    }

    /// Forgets what lies before `first`, embeds what is new before `last`.
    void hold(index first, index last)
    {
        drop(keys_, (first - first_) * key_stride());
        drop(values_, (first - first_) * problem_.channels);
        first_ = first;
        for (; last_ < last; ++last_) { embed(last_); }
    }

    sm::view<const T, 4> contexts(index first, index last) const
    {
        return {keys_.data() + (first - first_) * key_stride(),
                {index{1}, problem_.heads, last - first, recall::key_size},
                {index{0}, recall::key_size, key_stride(), index{1}}};
    }

    /// All heads look at the same bytes, hence the stride 0.
    sm::view<const T, 4> values(index first, index last) const
    {
        return {values_.data() + (first - first_) * problem_.channels,
                {index{1}, problem_.heads, last - first, problem_.channels},
                {index{0}, index{0}, problem_.channels, index{1}}};
    }

private:
    index key_stride() const { return problem_.heads * recall::key_size; }

    static void drop(std::vector<T>& from, index count) { from.erase(from.begin(), from.begin() + count); }

    void embed(index at)
    {
        for (index head = 0; head < problem_.heads; ++head) {
            const std::uint64_t hash = problem_.contexts[at * problem_.heads + head];
            for (index bit = 0; bit < recall::key_size; ++bit) {
                keys_.push_back(static_cast<T>((hash >> bit & 1) != 0 ? 0.125f : -0.125f));
            }
        }
        values_.resize(values_.size() + static_cast<std::size_t>(problem_.channels), static_cast<T>(0.0f));
        (&values_.back())[1 - problem_.channels + problem_.symbols[at]] = static_cast<T>(1.0f);
    }

    problem problem_;
    index first_ = 0, last_ = 0;
    std::vector<T> keys_;   // [positions][heads][key_size]
    std::vector<T> values_; // [positions][channels]
};

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

/// What a head reads from its state, made a row: the scores of the channels become a distribution, and their sum a
/// number of matches that the log-sum-exp tells as attention's does. README.md says what is lost.
void as_row(float* scores, index channels, float& lse)
{
    float matches = 0.0f, positive = 0.0f;
    for (index c = 0; c < channels; ++c) {
        matches += scores[c]; // values are one-hot, so this is the sum of q·k
        scores[c] = std::max(scores[c], 0.0f);
        positive += scores[c];
    }
    for (index c = 0; c < channels && positive > 0.0f; ++c) { scores[c] /= positive; }
    lse = matches > 0.0f ? recall::scale + std::log(matches) : -std::numeric_limits<float>::infinity();
}

/// One matrix [channels, key_size] a head instead of all keys and values: after each byte it fades a little and takes
/// value ⊗ key in, and the next byte's query reads it. That is ssm::ssd with x = values, B = keys, C = queries.
cost state_space(const problem& p, const sink& to)
{
    constexpr index block = 2048;
    constexpr float horizon = 4000.0f; // bytes after which 1/e is left
    memory<float> text(p, std::min(block, p.length));
    std::vector<float> out(static_cast<std::size_t>(block * p.heads * p.channels));
    std::vector<float> lse(static_cast<std::size_t>(block * p.heads));
    std::vector<float> state(static_cast<std::size_t>(p.heads * p.channels * recall::key_size));
    const float step = 1.0f;
    const std::vector<float> decay(static_cast<std::size_t>(p.heads), -1.0f / horizon);
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
            sm::ssm::ssd<arch>(
                by_time(text.values(from - 1, last - 1)), sm::view(&step, {index{1}, last - from, p.heads}, {0, 0, 0}),
                sm::view(decay.data(), {p.heads}), by_time(text.contexts(from - 1, last - 1)),
                by_time(text.contexts(from, last)),
                sm::view(out.data() + skipped * p.channels, {index{1}, last - from, p.heads, p.channels}),
                {.state = sm::view(state.data(), {index{1}, p.heads, p.channels, recall::key_size})}, ctx);
        }
        for (index row = skipped; row < rows; ++row) {
            as_row(out.data() + row * p.channels, p.channels, lse[static_cast<std::size_t>(row)]);
        }
        spent.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        to.take(to.self, {first, last, out.data(), lse.data()});
    }
    spent.extra_bytes = ctx.scratch().size() + state.size() * sizeof(float);
    return spent;
}

// The scalar backend has one lane, and its line should not hold up the others.
constexpr std::ptrdiff_t no_limit = 0, slow = 4096, limit = std::is_same_v<arch, sm::arch::scalar> ? 2048 : no_limit;

using recall::on, recall::predicts, recall::sees;
constexpr recall::method list[] = {
    {"naive", "f32", naive, on::best_backend, sees::everything_before, predicts::as_attention, slow},
    {"tiled", "f32", tiled<float>, on::every_backend, sees::everything_before, predicts::as_attention, limit},
    {"tiled", "bf16", tiled<sm::bf16>, on::best_backend, sees::everything_before, predicts::as_attention, limit},
    {"sliding window", "f32", tiled<float>, on::best_backend, sees::window, predicts::as_attention, limit},
    {"state space", "f32", state_space, on::best_backend, sees::everything_before, predicts::on_its_own, no_limit},
};

} // namespace

#define RECALL_PASTE_(a, b) a##b
#define RECALL_PASTE(a, b) RECALL_PASTE_(a, b)

extern const recall::methods RECALL_PASTE(recall_methods_, SEQMIX_RECALL_ARCH);
const recall::methods RECALL_PASTE(recall_methods_, SEQMIX_RECALL_ARCH) = {list, std::ssize(list)};
