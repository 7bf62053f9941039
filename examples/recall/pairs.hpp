// SPDX-License-Identifier: MIT
#pragma once

#include "contexts.hpp"
#include "kernel.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <utility>
#include <vector>

// How much a state recalls, without a text: N keys that are somewhat alike, each given a new value several times, then
// each asked for its last one. README.md explains.

namespace recall {

inline constexpr std::ptrdiff_t pair_sequences = 32, pair_rounds = 4, pair_values = 64;
inline constexpr std::ptrdiff_t pair_keys[] = {8, 16, 32, 48, 64, 96};

/// Pairs with memory of their own.
struct made_pairs {
    std::vector<std::uint64_t> written, asked;
    std::vector<std::uint8_t> values, answers;
    std::ptrdiff_t keys;

    pairs view() const
    {
        return {.sequences = pair_sequences,
                .writes = pair_rounds * keys,
                .keys = keys,
                .channels = pair_values,
                .written = written.data(),
                .values = values.data(),
                .asked = asked.data(),
                .answers = answers.data()};
    }
};

/// Every round writes all keys, in an order of its own. Always the same pairs for the same N.
inline made_pairs make_pairs(std::ptrdiff_t keys)
{
    made_pairs made{.written = {}, .asked = {}, .values = {}, .answers = {}, .keys = keys};
    std::uint64_t last = static_cast<std::uint64_t>(keys);
    const auto random = [&] { return last = stir(last, 0); };
    std::vector<std::uint64_t> key(static_cast<std::size_t>(keys));
    std::vector<std::uint8_t> value(key.size());
    std::vector<std::size_t> order(key.size());
    for (std::ptrdiff_t sequence = 0; sequence < pair_sequences; ++sequence) {
        const std::uint64_t common = random();
        for (std::size_t n = 0; n < key.size(); ++n) {
            const std::uint64_t own = random(), taken = random();
            key[n] = (common & taken) | (own & ~taken); // half the bits in common: two keys have q·k = 1/4 on average
            order[n] = n;
        }
        for (std::ptrdiff_t round = 0; round < pair_rounds; ++round) {
            for (std::size_t n = order.size(); n > 1; --n) { std::swap(order[n - 1], order[random() % n]); }
            for (const std::size_t n : order) {
                value[n] = static_cast<std::uint8_t>(random() % static_cast<std::uint64_t>(pair_values));
                made.written.push_back(key[n]);
                made.values.push_back(value[n]);
            }
        }
        made.asked.insert(made.asked.end(), key.begin(), key.end());
        made.answers.insert(made.answers.end(), value.begin(), value.end());
    }
    return made;
}

/// Prints what each rule recalls; says whether every rule that replaces recalls more than every one that adds.
inline bool show_pairs(const methods& of)
{
    std::printf("\n%td values each, the last one asked; of so many keys, recalled by a state of %td x %td:\n\n%-14s",
                pair_rounds, key_size, pair_values, "rule");
    std::vector<made_pairs> all;
    for (const std::ptrdiff_t keys : pair_keys) {
        all.push_back(make_pairs(keys));
        std::printf("  %6td", keys);
    }
    std::printf("\n");

    std::vector<std::ptrdiff_t> by_adding(all.size(), 0), by_replacing(all.size(), PTRDIFF_MAX);
    for (std::ptrdiff_t r = 0; r < of.rule_count; ++r) {
        const rule& one = of.rules[r];
        std::printf("%-14s", one.name);
        for (std::size_t n = 0; n < all.size(); ++n) {
            const std::ptrdiff_t right = one.recalls(all[n].view());
            std::printf("  %4.0f %%", 100.0 * static_cast<double>(right) / static_cast<double>(all[n].answers.size()));
            if (one.how == writes_by::adding) {
                by_adding[n] = std::max(by_adding[n], right);
            } else {
                by_replacing[n] = std::min(by_replacing[n], right);
            }
        }
        std::printf("\n");
    }
    bool more = true;
    for (std::size_t n = 0; n < all.size(); ++n) { more = more && by_replacing[n] > by_adding[n]; }
    return more;
}

} // namespace recall
