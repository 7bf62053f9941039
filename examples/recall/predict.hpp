// SPDX-License-Identifier: MIT
#pragma once

#include "contexts.hpp"
#include "kernel.hpp"
#include "mixing.hpp"
#include "progress.hpp"
#include "text.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace recall {

/// A line of the table before it is run.
struct plan {
    const char* backend;
    const recall::method* method;
    std::ptrdiff_t length; ///< of the text's beginning
    std::ptrdiff_t window; ///< 0: everything before
    int threads;
};

/// And after.
struct result {
    recall::plan plan;
    std::vector<double> bits{}; ///< [length]: -log2 of what each byte's probability was
    double seconds = 0;         ///< everything: embeddings, method, mixing
    recall::cost cost{};        ///< the method alone
    double flops = 0;     ///< useful ones: 2 (key size + different bytes) a head and pair of query and key; for a state
                          ///< method::state_flops · key size · different bytes a head and byte
    double worst_sum = 0; ///< the largest |sum of a distribution - 1|

    double bits_per_byte(std::ptrdiff_t of_first) const
    {
        double total = 0;
        for (std::ptrdiff_t i = 0; i < of_first; ++i) { total += bits[static_cast<std::size_t>(i)]; }
        return total / static_cast<double>(of_first);
    }
    double bits_per_byte() const { return bits_per_byte(plan.length); }
};

/// Pairs of a query and a key that it sees, when `rows` bytes are predicted.
inline double pairs_seen(std::ptrdiff_t rows, std::ptrdiff_t window)
{
    const auto grow = static_cast<double>(window > 0 ? std::min(window, rows) : rows);
    return grow * (grow - 1) / 2 + (static_cast<double>(rows) - grow) * grow;
}

inline result predict(const text& t, const plan& how)
{
    const auto start = std::chrono::steady_clock::now();
    const std::vector<std::uint64_t> contexts = hash_contexts(t.bytes, static_cast<std::size_t>(how.length));
    const problem p{.length = how.length,
                    .heads = std::ssize(head_contexts),
                    .channels = (t.distinct + 15) / 16 * 16, // whole vectors are a little faster
                    .window = how.window,
                    .threads = how.threads,
                    .contexts = contexts.data(),
                    .symbols = t.symbols.data()};

    struct state {
        const problem& p;
        mixer mix;
        progress shown;
        result done;
    } all{p, mixer(head_contexts.size(), static_cast<std::size_t>(p.channels)),
          progress(std::string(how.method->name) + " " + how.method->numbers + ", " + how.backend),
          result{.plan = how}};
    all.done.bits.reserve(static_cast<std::size_t>(how.length));

    const auto take = [](void* self, const rows& some) {
        state& s = *static_cast<state*>(self);
        for (std::ptrdiff_t i = some.first; i < some.last; ++i) {
            const std::ptrdiff_t row = (i - some.first) * s.p.heads;
            const auto seen = static_cast<double>(s.p.window > 0 ? std::min(i, s.p.window) : i);
            s.mix.predict(some.out + row * s.p.channels, some.lse + row, seen);
            s.done.worst_sum = std::max(s.done.worst_sum, std::fabs(s.mix.sum() - 1));
            s.done.bits.push_back(-std::log2(s.mix.probability(s.p.symbols[i])));
            s.mix.learn(s.p.symbols[i]); // from here on the byte is known
        }
        s.shown.at(pairs_seen(some.last, s.p.window) / pairs_seen(s.p.length, s.p.window));
    };
    all.done.cost = how.method->run(p, {&all, take});
    all.done.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    all.done.flops =
        how.method->answer == predicts::on_its_own
            ? static_cast<double>(how.method->state_flops * key_size * t.distinct * p.heads * p.length)
            : 2.0 * static_cast<double>((key_size + t.distinct) * p.heads) * pairs_seen(p.length, p.window);
    return std::move(all.done);
}

} // namespace recall
