// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/decay.hpp>
#include <seqmix/tile/row_products.hpp>

// Decays inside a chunk, by what has one: a token, or each key channel of a token. Both answer the same questions: products of
// rows with the decay between their tokens, rows as the chunk's start or end sees them, what is left of the state. Only decays
// <= 1 are ever computed, as powers or as products of such; nothing is divided by one.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// Whether a row reads the state after its own token has decayed it and been written, or before both.
enum class reads { after, before };

/// Rows [tokens, K] that read: queries, keys that ask what the state recalls of them, DPLR's a.
struct reading_rows {
    const float* rows;
    linear::reads reads;
    float* products;         ///< [tokens, tokens of every writer in turn], written
    index products_stride;   ///< from row to row
    float *within, *decayed; ///< [tokens, K], written where decays are on rows: as the start of their block, of the chunk reads them
};

/// Rows [tokens, K] that the state is written under: keys, DPLR's b.
struct writing_rows {
    const float* rows;
    float* to_end;       ///< written where decays are on rows: as the chunk's end sees them,
    index to_end_stride; ///< so far apart
};

/// One decay a token. Rows stay as they are: the decays go to the products, the outputs and the values.
template <class Arch>
class token_decays {
public:
    static constexpr bool on_rows = false;

    /// Rows are `stride` floats apart.
    token_decays(arena& a, index chunk, index /*keys*/, index stride)
        : stride_(stride), log_decay_(a.take<float>(tile::cumulated_decays<Arch>::padded(chunk))),
          own_(a.take<float>(b_.padded(chunk))), b_(tile::cumulated_decays<Arch>::take(a, chunk)),
          from_start_(a.take<float>(b_.padded(chunk))), to_end_(a.take<float>(b_.padded(chunk)))
    {
    }

    /// [tokens]: natural log decays, to be filled in before begin().
    float* log_decay() const { return log_decay_; }

    void begin(index tokens)
    {
        using f32 = simd::f32<Arch>;
        tokens_ = tokens;
        for (index i = 0; i < tokens; i += f32::lanes) {
            const f32 g = min(f32::zero(), f32::load(log_decay_ + i)); // of a NaN and a bound, the second
            g.store(log_decay_ + i);
            simd::exp(g).store(own_ + i);
        }
        b_.cumulate(log_decay_, 1.4426950408889634, tokens);
        b_.from_start(tokens, from_start_);
        b_.to_end(tokens, nullptr, to_end_);
    }

    /// Of one token.
    const float* own(index token) const { return own_ + token; }

    /// products(i, j) = reading i · writing j, decayed from j to i, j <= i; 0 above the diagonal as far as products read.
    void run(const reading_rows* reading, index readers, const writing_rows* writing, index /*writers: one*/) const
    {
        for (index r = 0; r < readers; ++r) {
            const tile::matrix<Arch> out = {reading[r].products, tokens_, tokens_, reading[r].products_stride};
            tile::lower_row_products<Arch>({reading[r].rows, stride_, tokens_}, {writing[0].rows, stride_, tokens_}, stride_,
                                           {out.data, out.stride, 1});
            tile::decay_scores(out, b_, out);
        }
    }

    /// Factors of tokens: of rows of Q S, and of the values that the state takes in. As long as register_tile::scale_rows reads.
    const float* from_start() const { return from_start_; }
    const float* to_end() const { return to_end_; }
    /// What is left of the state.
    float state() const { return from_start_[tokens_ - 1]; }

private:
    index stride_, tokens_ = 0;
    float *log_decay_, *own_;
    tile::cumulated_decays<Arch> b_;
    float *from_start_, *to_end_;
};

/// One decay a token and key channel. The chunk is cut into blocks. Within a block products take the decays pair by pair; a block
/// reads earlier ones by way of its start, up to which their rows have been decayed, and from which its own rows are. (Yang et
/// al. 2024, section 4.3, secondary chunking, but with products of decays in place of differences of their logarithms.)
///
/// Cost a token and key channel: one power, about ten products for the rows, and block + chunk multiply-adds for the products.
/// Error of a decay: (3 + 3 m) u for m tokens between, u = 2^-24; what is below 2^-100 is 0.
template <class Arch>
class channel_decays {
    using f32 = simd::f32<Arch>;
    using matrix = tile::matrix<Arch>;
    static constexpr index lanes = f32::lanes;
    static constexpr int block = 8;

public:
    static constexpr bool on_rows = true;

    channel_decays(arena& a, index chunk, index keys, index stride)
        : stride_(stride), decay_(matrix::take(a, chunk, keys)), to_block_end_(matrix::take(a, chunk, keys)),
          between_(matrix::take(a, (chunk + block - 1) / block, keys)), block_decay_(a.take<float>(stride)),
          since_start_(a.take<float>(stride + tile::small_blocking<Arch>::rows)), sums_(a.take<float>(block * block * lanes))
    {
    }

    /// [tokens, stride]: natural log decays, to be filled in before begin().
    float* log_decay() const { return decay_.data; }

    void begin(index tokens)
    {
        tokens_ = tokens;
        for (index i = 0; i < tokens * stride_; i += lanes) {
            const f32 g = min(f32::zero(), f32::load(decay_.data + i)); // of a NaN and a bound, the second
            tile::decayed(g * f32::broadcast(0x1.715476p+0f)).store(decay_.data + i);
        }
    }

    /// Of one token, [K].
    const float* own(index token) const { return decay_.row(token); }

    void run(const reading_rows* reading, index readers, const writing_rows* writing, index writers) const
    {
        fill(since_start_, 1.0f);
        for (index r = 0; r < readers; ++r) {
            for (index i = 0; i < tokens_; ++i) {
                float* const row = reading[r].products + i * reading[r].products_stride;
                for (index j = 0; j < reading[r].products_stride; j += lanes) { f32::zero().store(row + j); }
            }
        }
        for (index first = 0; first < tokens_; first += block) {
            const index count = smaller(block, tokens_ - first);
            const bool mild = decay_block(first, count);
            for (index r = 0; r < readers; ++r) {
                const reading_rows& x = reading[r];
                x.reads == reads::after ? decay_reading<reads::after>(x, first, count) : decay_reading<reads::before>(x, first, count);
                for (index w = 0; w < writers; ++w) {
                    const writing_rows& y = writing[w];
                    const tile::element_block out = {x.products + first * x.products_stride + w, x.products_stride, writers};
                    tile::row_products<Arch>({x.within + first * stride_, stride_, count}, {y.to_end, y.to_end_stride, first}, stride_, out);
                    const tile::element_block diagonal = {out.base + first * writers, out.row_stride, out.column_stride};
                    if (x.reads == reads::before) {
                        block_products<reads::before, false>(x.rows, y.rows, first, count, diagonal);
                    } else if (mild) {
                        block_products<reads::after, false>(x.rows, y.rows, first, count, diagonal);
                    } else {
                        block_products<reads::after, true>(x.rows, y.rows, first, count, diagonal);
                    }
                }
            }
            pass_block(first, count, writing, writers);
        }
    }

    float from_start() const { return 1.0f; }
    /// What is left of each key channel of the state; as long as register_tile::scale_rows reads.
    const float* state() const { return since_start_; }

private:
    /// A product of decays, or 0 where so little is left that it would only bring subnormal numbers.
    static SEQMIX_INLINE f32 kept(f32 decay) { return select(decay < f32::broadcast(0x1p-100f), f32::zero(), decay); }

    void fill(float* row, float value) const
    {
        for (index c = 0; c < stride_; c += lanes) { f32::broadcast(value).store(row + c); }
    }

    /// Decays from every token to the end of its block, and through all of it; whether the latter are all so large that products
    /// of decays inside the block need no care.
    bool decay_block(index first, index count) const
    {
        f32 least = f32::broadcast(1.0f);
        for (index c = 0; c < stride_; c += lanes) {
            f32 decay = f32::broadcast(1.0f);
            for (index i = first + count - 1; i >= first; --i) {
                decay.store(to_block_end_.row(i) + c);
                decay = kept(decay * f32::load(decay_.row(i) + c));
            }
            decay.store(block_decay_ + c);
            least = min(decay, least);
        }
        return all(f32::broadcast(0x1p-60f) <= least);
    }

    /// within = rows decayed from the start of their block; decayed = from the start of the chunk.
    template <linear::reads Reads>
    void decay_reading(const reading_rows& x, index first, index count) const
    {
        for (index c = 0; c < stride_; c += lanes) {
            const f32 start = f32::load(since_start_ + c);
            f32 decay = f32::broadcast(1.0f);
            for (index i = first; i < first + count; ++i) {
                const index at = i * stride_ + c;
                const f32 own = f32::load(decay_.row(i) + c), row = f32::load(x.rows + at);
                if constexpr (Reads == reads::after) { decay = kept(decay * own); }
                (row * decay).store(x.within + at);
                (row * kept(decay * start)).store(x.decayed + at);
                if constexpr (Reads == reads::before) { decay = kept(decay * own); }
            }
        }
    }

    /// Products inside a block, decay after decay.
    template <linear::reads Reads, bool Careful>
    SEQMIX_NOINLINE void block_products(const float* reading, const float* writing, index first, index count, const tile::element_block& out) const
    {
        const float *x[block], *decay[block];
        simd::unroll<block>([&](auto i) SEQMIX_INLINE_LAMBDA {
            const index row = first + smaller(i, count - 1);
            x[i] = reading + row * stride_, decay[i] = decay_.row(row);
        });
        const index stride = stride_;
        float* const sums = sums_;
        simd::unroll<block>([&](auto j) SEQMIX_INLINE_LAMBDA {
            const float* const y = writing + (first + smaller(j, count - 1)) * stride;
            f32 sum[block];
            simd::unroll<block>([&](auto i) SEQMIX_INLINE_LAMBDA { sum[i] = f32::zero(); });
            for (index c = 0; c < stride; c += lanes) {
                const f32 row = f32::load(y + c);
                f32 seen = row, left = f32::broadcast(1.0f);
                simd::unroll<block - j>([&](auto ahead) SEQMIX_INLINE_LAMBDA {
                    constexpr int i = j + ahead;
                    const auto pass = [&]() SEQMIX_INLINE_LAMBDA {
                        if constexpr (Careful) {
                            left = kept(left * f32::load(decay[i] + c));
                            seen = row * left;
                        } else {
                            seen = seen * f32::load(decay[i] + c);
                        }
                    };
                    if constexpr (Reads == reads::after && ahead > 0) { pass(); }
                    if constexpr (Reads == reads::after || ahead > 0) { sum[i] = fma(f32::load(x[i] + c), seen, sum[i]); }
                    if constexpr (Reads == reads::before && ahead > 0) { pass(); }
                });
            }
            simd::unroll<block>([&](auto i) SEQMIX_INLINE_LAMBDA { sum[i].store(sums + (j * block + i) * lanes); });
        });
        float total[block * block];
        for (index n = 0; n < block * block; n += lanes) {
            f32 square[lanes];
            simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA { square[i] = f32::load(sums + (n + i) * lanes); });
            tile::row_sums<Arch>(square).store(total + n);
        }
        for (index j = 0; j < count; ++j) {
            for (index i = j; i < count; ++i) { out.base[i * out.row_stride + j * out.column_stride] = total[j * block + i]; }
        }
    }

    /// Goes from a block's start to its end: rows written so far decay up to there, and so does what stood before the chunk.
    void pass_block(index first, index count, const writing_rows* writing, index writers) const
    {
        const index now = first / block;
        fill(between_.row(now), 1.0f);
        for (index b = 0; b < now; ++b) { multiply(between_.row(b)); }
        multiply(since_start_);
        for (index w = 0; w < writers; ++w) {
            for (index j = 0; j < first + count; ++j) {
                const float *const row = writing[w].rows + j * stride_, *const left = to_block_end_.row(j), *const after = between_.row(j / block);
                float* const to = writing[w].to_end + j * writing[w].to_end_stride;
                for (index c = 0; c < stride_; c += lanes) {
                    (f32::load(row + c) * kept(f32::load(left + c) * f32::load(after + c))).store(to + c);
                }
            }
        }
    }
    void multiply(float* decay) const
    {
        for (index c = 0; c < stride_; c += lanes) { kept(f32::load(decay + c) * f32::load(block_decay_ + c)).store(decay + c); }
    }

    index stride_, tokens_ = 0;
    matrix decay_, to_block_end_, between_; ///< of a token; from it to its block's end; from a block's end to the present one's start
    float *block_decay_, *since_start_, *sums_;
};

} // namespace linear
SEQMIX_NAMESPACE_END
