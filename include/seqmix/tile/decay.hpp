// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/tile/register_tile.hpp>
#include <seqmix/tile/tile.hpp>

// Decays between the tokens of a chunk, where every token has one log decay <= 0. Only differences of cumulated log decays are
// exponentiated, none of them above 0, and nothing is divided by a decay. (Dao & Gu 2024, section 6; Yang et al. 2024, section 4)

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// 2^b, or 0 where that is below 2^-100: what has decayed so far would only bring subnormal products, which many processors
/// multiply a hundred times slower.
template <class V>
SEQMIX_INLINE V decayed(V b)
{
    const V least = V::broadcast(-100.0f);
    return select(b < least, V::zero(), simd::exp2(max(least, b))); // of a NaN and a bound, the second
}

/// 2^(b_i - b_j) for cumulated log2 decays b = high + low.
template <class V>
SEQMIX_INLINE V decay_between(V high_i, V low_i, V high_j, V low_j)
{
    return decayed((high_i - high_j) + (low_i - low_j));
}

/// b_i, the sum of the log2 decays of the tokens 0 … i of a chunk, summed in double and kept as an unevaluated sum of two floats:
/// a strong decay must not blur the differences behind it.
///
/// Error of a decay between two tokens: (4 + 2 |log decay|) u, u = 2^-24, and (2^-46 + q 2^-53) times the |log decay| of all q tokens.
template <class Arch>
struct cumulated_decays {
    float *high, *low;

    /// Room for the tokens of a chunk.
    static cumulated_decays take(arena& a, index tokens)
    {
        float* const high = a.take<float>(padded(tokens));
        return {high, a.take<float>(padded(tokens))};
    }
    /// Floats that an array of factors of tokens must have: register_tile::scale_rows reads a whole tile's.
    static constexpr index padded(index tokens) { return matrix<Arch>::padded(tokens) + small_blocking<Arch>::rows; }

    /// log_decay[i] · to_log2 is the log2 decay of token i.
    void cumulate(const float* log_decay, double to_log2, index tokens) const
    {
        double sum = 0.0;
        float *const to_high = high, *const to_low = low;
        for (index i = 0; i < tokens; ++i) {
            // Nothing is left of what has decayed by 2^-256; more than that would only blur the sum.
            const double b = to_log2 * static_cast<double>(log_decay[i]);
            sum += b < -256.0 ? -256.0 : b;
            to_high[i] = static_cast<float>(sum);
            to_low[i] = static_cast<float>(sum - static_cast<double>(to_high[i]));
        }
    }

    /// What is left at token i of what stood before the chunk. `to` is padded(tokens) long.
    void from_start(index tokens, float* to) const
    {
        using f32 = simd::f32<Arch>;
        for (index i = 0; i < tokens; i += f32::lanes) { decayed(f32::load(high + i) + f32::load(low + i)).store(to + i); }
    }

    /// What is left of token i at the last token, times factor[i] where that is given; as long as from_start's.
    void to_end(index tokens, const float* factor, float* to) const
    {
        using f32 = simd::f32<Arch>;
        const f32 last_high = f32::broadcast(high[tokens - 1]), last_low = f32::broadcast(low[tokens - 1]);
        for (index i = 0; i < tokens; i += f32::lanes) {
            const f32 decay = decay_between(last_high, last_low, f32::load(high + i), f32::load(low + i));
            (factor != nullptr ? decay * f32::load(factor + i) : decay).store(to + i);
        }
    }
};

namespace detail {

/// out(i, j) = weight(in(i, j), 2^(b_i - b_j), load), load(p) giving p[j]
template <class Arch, class Weight>
SEQMIX_INLINE void decay_below_diagonal(const matrix<Arch>& in, const cumulated_decays<Arch>& b, const Weight& weight,
                                        const matrix<Arch>& out)
{
    using f32 = simd::f32<Arch>;
    constexpr index lanes = f32::lanes, rows = small_blocking<Arch>::rows;
    const matrix<Arch> from = in, to = out; // copies, since a store may change anything that is read through a reference
    const float *const high = b.high, *const low = b.low;
    for (index i = 0; i < from.rows; ++i) {
        const f32 high_i = f32::broadcast(high[i]), low_i = f32::broadcast(low[i]);
        const index read = i / rows * rows + rows; // by the row's tile
        for (index j = 0; j < read && j < to.stride; j += lanes) {
            const index seen = i + 1 - j; // loads leave out what is not: it may be NaN
            const auto load = [&](const float* row) SEQMIX_INLINE_LAMBDA {
                return seen >= lanes ? f32::load(row + j) : f32::load(row + j, seen < 0 ? 0 : seen);
            };
            weight(load(from.row(i)), decay_between(high_i, low_i, load(high), load(low)), load).store(to.row(i) + j);
        }
    }
}

} // namespace detail

/// out(i, j) = in(i, j) 2^(b_i - b_j) for j <= i; 0 above the diagonal, as far as pass_chunk reads. Square, in place or not.
template <class Arch>
SEQMIX_NOINLINE void decay_scores(const matrix<Arch>& in, const cumulated_decays<Arch>& b, const matrix<Arch>& out)
{
    using f32 = simd::f32<Arch>;
    detail::decay_below_diagonal(in, b, [](f32 score, f32 decay, const auto&) SEQMIX_INLINE_LAMBDA { return score * decay; }, out);
}

/// The same times factor[j].
template <class Arch>
SEQMIX_NOINLINE void decay_scores(const matrix<Arch>& in, const cumulated_decays<Arch>& b, const float* factor, const matrix<Arch>& out)
{
    using f32 = simd::f32<Arch>;
    detail::decay_below_diagonal(
        in, b, [=](f32 score, f32 decay, const auto& load) SEQMIX_INLINE_LAMBDA { return score * (decay * load(factor)); }, out);
}

} // namespace tile
SEQMIX_NAMESPACE_END
