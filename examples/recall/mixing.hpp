// SPDX-License-Identifier: MIT
#pragma once

#include "kernel.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace recall {

/// Turns what the heads say into one distribution of the next byte, and learns how far to trust each. See README.md.
class mixer {
public:
    static constexpr std::size_t symbols = 256;

    mixer(std::size_t heads, std::size_t channels)
        : channels_(channels), seen_(symbols), probability_(symbols), heads_(heads)
    {
        for (std::size_t h = 0; h < heads; ++h) {
            for (std::size_t bucket = 0; bucket < count_buckets; ++bucket) {
                const double count = std::exp2(0.5 * static_cast<double>(bucket));
                heads_[h].trust[bucket].fill(std::log(count / (count + doubt)) +
                                             step_of_head * static_cast<double>(h + 1));
            }
        }
    }

    /// The distribution of the next byte: from one row of each head and `visible`, the number of keys that it saw.
    void predict(const float* out, const float* lse, double visible)
    {
        base_weight_ = std::exp(base_trust_);
        double total = base_weight_;
        for (std::size_t h = 0; h < heads_.size(); ++h) {
            head& one = heads_[h];
            one.row = out + h * channels_;
            one.cell = nullptr;
            const double count = matches(lse[h], visible);
            if (count < 0.5) { continue; }
            const double peak = static_cast<double>(*std::max_element(one.row, one.row + channels_));
            one.cell = &one.trust[bucket_of_count(count)][bucket_of_peak(peak)];
            one.weight = std::exp(*one.cell);
            total += one.weight;
        }

        base_weight_ /= total;
        for (std::size_t s = 0; s < symbols; ++s) { probability_[s] = base_weight_ * base(s); }
        for (head& one : heads_) {
            if (one.cell == nullptr) { continue; }
            one.weight /= total;
            for (std::size_t s = 0; s < channels_; ++s) {
                probability_[s] += one.weight * static_cast<double>(one.row[s]);
            }
        }
        sum_ = 0;
        for (const double p : probability_) { sum_ += p; }
    }

    /// Sums to 1 over all symbols, whatever rounding did to the rows.
    double probability(std::size_t symbol) const { return probability_[symbol] / sum_; }

    /// What the rows' rounding made of the sum.
    double sum() const { return sum_; }

    /// Tells which byte came: each source gains as far as it said so more than the mixture did, and loses otherwise.
    /// This is a step along the gradient of log probability: d log p / d trust = weight · (p_source / p - 1).
    void learn(std::size_t symbol)
    {
        const double p = probability_[symbol];
        base_trust_ += rate * base_weight_ * (base(symbol) / p - 1);
        for (head& one : heads_) {
            if (one.cell != nullptr) {
                *one.cell += rate * one.weight * (static_cast<double>(one.row[symbol]) / p - 1);
            }
        }
        seen_[symbol] += 1;
        length_ += 1;
    }

private:
    // Where learning starts: a head that saw its context once is right about one time in three (1 / (1 + doubt)), and
    // of two heads that know theirs, the more telling one is worth a half more (e^0.4). Nothing here is delicate:
    // halving or doubling any of them costs about 0.01 bits per byte at most.
    static constexpr double doubt = 2.0, step_of_head = 0.4, rate = 0.2;
    static constexpr double unseen = 30.0; // so many bytes' worth of the base is uniform
    static constexpr std::size_t count_buckets = 16, peak_buckets = 8;

    struct head {
        std::array<std::array<double, peak_buckets>, count_buckets> trust;
        double* cell = nullptr;     // of this byte; null: the head does not know the context
        const float* row = nullptr; // of this byte
        double weight = 0;
    };

    /// How often the head met its context, from the sum of exp(score): a match is 1 once e^scale is taken out, any
    /// other key e^(-score_of_bit) for each bit that differs, which every bit does like a tossed coin. See README.md.
    double matches(float lse, double visible) const
    {
        return std::exp(static_cast<double>(lse - scale)) - visible * noise_;
    }

    static std::size_t bucket_of_count(double count)
    {
        return std::min(count_buckets - 1, static_cast<std::size_t>(std::max(0.0, 2.0 * std::log2(count) + 0.5)));
    }

    /// The last bucket is for heads that know one answer only. Borders keep off plain fractions: counts fall on them.
    static std::size_t bucket_of_peak(double peak)
    {
        return peak > 0.9985 ? peak_buckets - 1
                             : std::min(peak_buckets - 2, static_cast<std::size_t>(7 * peak + 0.0137));
    }

    double base(std::size_t symbol) const { return (seen_[symbol] + unseen / symbols) / (length_ + unseen); }

    static constexpr double score_of_bit = 2.0 * static_cast<double>(scale) / key_size;
    double noise_ = std::pow((1 + std::exp(-score_of_bit)) / 2, key_size);
    std::size_t channels_;
    std::vector<double> seen_;
    double length_ = 0;
    double base_trust_ = 0, base_weight_ = 0;
    std::vector<double> probability_;
    double sum_ = 1;
    std::vector<head> heads_;
};

} // namespace recall
