// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <optional>

SEQMIX_NAMESPACE_BEGIN

/// Where the diagonal of a causal mask lies. A query at position i sees keys j <= i; its position is its row plus an offset.
enum class causal {
    none,         ///< no causal mask; positions (for windows and ALiBi) start at 0 unless query_offset is given
    top_left,     ///< offset 0: row 0 sees key 0
    bottom_right, ///< offset keys - queries: the last row sees the last key, as with a cache of past keys
    offset,       ///< offset given by options::query_offset
};

namespace attention {

/// Keys that a query at position i may see: i - left <= j <= i + right. Negative means unlimited.
struct window_size {
    index left = -1;
    index right = -1;
};

/// What becomes of a score to make it a weight.
enum class weighting {
    softmax, ///< exp(score - lse) over the visible keys
    sigmoid, ///< sigmoid(score + sigmoid_bias), not normalised (Ramapuram et al. 2024, "Theory, Analysis, and Best
             ///< Practices for Sigmoid Self-Attention")
};

/// Everything about an attention call but its operands. The order of work on a score is fixed:
/// scale -> softcap -> ALiBi and bias -> masks (causal, window, lengths, mask). H is the number of query heads.
struct options {
    std::optional<float> scale{};                    ///< factor of the products; default 1 / sqrt(Dk)
    seqmix::causal causal = seqmix::causal::none;    ///< see seqmix::causal
    window_size window{};                            ///< sliding window around the query's position
    float softcap = 0.0f;                            ///< c > 0: score becomes c · tanh(score / c); 0: none
    view<const float, 1> alibi_slopes{};             ///< [H]: score -= slope · |i - j| (Press et al. 2022)
    broadcast_view<const float, 4> bias{};           ///< added to the score; broadcasts to [B, H, Lq, Lk]; -inf hides
    broadcast_view<const bool, 4> mask{};            ///< true keeps, false hides; broadcasts to [B, H, Lq, Lk]
    view<const float, 1> sinks{};                    ///< [H]: one more logit in the softmax's denominator only
    seqmix::attention::weighting weighting = seqmix::attention::weighting::softmax; ///< see attention::weighting
    float sigmoid_bias = 0.0f;                       ///< b of sigmoid weighting; -log(Lk) is usual
    view<const index, 1> query_offset{};             ///< [B] or [1]: position of the first query row
    view<const index, 1> kv_lengths{};               ///< [B]: only the first so many keys of a batch item exist
    view<float, 3> lse{};                            ///< [B, H, Lq], written: natural log of the sum of exponentials
};

} // namespace attention
SEQMIX_NAMESPACE_END
