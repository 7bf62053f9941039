// SPDX-License-Identifier: MIT
#pragma once

#include "arch_embedding.hpp"

#include <seqmix/linear/rules.hpp>

#include <array>
#include <cmath>
#include <cstddef>

namespace {

/// The same for every token and head; a rule takes of it what it has.
struct gates {
    float horizon = 1.0f; ///< tokens after which the first key channel has 1/e left
    float spread = 1.0f;  ///< the last key channel's horizon over the first one's, where each has its own
    float beta = 1.0f;    ///< how much of what a key recalls is replaced
};

/// What `Rule` takes besides queries, keys and values.
template <class Rule>
class constant_inputs {
public:
    explicit constant_inputs(const gates& of) : beta_(of.beta)
    {
        for (std::size_t c = 0; c < log_decay_.size(); ++c) {
            const float part = static_cast<float>(c) / static_cast<float>(log_decay_.size() - 1);
            log_decay_[c] = -1.0f / (of.horizon * std::pow(of.spread, part));
        }
    }

    /// Strides of 0: nothing is copied.
    typename Rule::template inputs<float> over(index items, index length, index heads) const
    {
        typename Rule::template inputs<float> in;
        if constexpr (Rule::gate == sm::linear::gate::channel) {
            in.log_decay = sm::view(log_decay_.data(), {items, length, heads, recall::key_size}, {0, 0, 0, 1});
        } else if constexpr (Rule::gate == sm::linear::gate::token) {
            in.log_decay = sm::view(log_decay_.data(), {items, length, heads}, {0, 0, 0});
        }
        if constexpr (Rule::update == sm::linear::update::delta) {
            in.beta = sm::view(&beta_, {items, length, heads}, {0, 0, 0});
        }
        return in;
    }

private:
    std::array<float, recall::key_size> log_decay_;
    float beta_;
};

} // namespace
