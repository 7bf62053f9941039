// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/ssm/options.hpp>
#include <seqmix/tile/block.hpp>
#include <seqmix/tile/register_tile.hpp>

// State-space duality, a chunk of tokens at a time, for the heads of a group that share B and C. Inside a chunk the sum over
// time is a masked matrix product, as attention is; from chunk to chunk a state is carried. (Dao & Gu 2024, section 6.)

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// One sequence. x, z, out [L, H, P]; dt [L, H]; B, C [L, G, N].
template <class T, class Dt, class Out>
struct ssd_sequence {
    view<const T, 3> x;
    view<const Dt, 2> dt;
    view<const float, 1> A;
    view<const T, 3> B, C;
    view<const T, 3> z;
    view<Out, 3> out;
    view<const float, 1> D, dt_bias;
    bool softplus;
    tile::store how; ///< out is written
};

/// Sizes of a chunk and of its tiles, padded to whole registers; channels stand in panels of small_blocking::columns.
template <class Arch>
struct ssd_sizes {
    static constexpr index lanes = simd::lanes<Arch>, width = tile::small_blocking<Arch>::columns;
    static constexpr index whole(index n, index of) { return (n + of - 1) / of * of; }

    index chunk, states, channels;
    index padded_chunk() const { return whole(chunk, lanes); }
    index padded_states() const { return whole(states, lanes); }
    index panels() const { return (channels + width - 1) / width; }
    /// Floats of one panel of x or y, and of one panel of the state.
    index panel() const { return chunk * width; }
    index state_panel() const { return whole(states, tile::small_blocking<Arch>::rows) * width; }
    index state() const { return panels() * state_panel(); }
    /// Registers of panel p that hold channels.
    index vectors(index p) const { return (smaller(width, channels - p * width) + lanes - 1) / lanes; }
};

/// A tile of floats as an operand of products: itself, or rounded to the element that the backend multiplies.
template <class Arch, class Element>
struct operand_tiles {
    using product = tile::product<Arch, Element>;
    using word = typename product::word;
    static constexpr bool as_it_is = product::group == 1;

    /// A left operand whose depth runs along the tile's rows of `stride` floats (whole registers): rounds, where words need it.
    static tile::left_operand rows(const float* from, index count, index stride, word* scratch)
    {
        if constexpr (!as_it_is) {
            auto* to = reinterpret_cast<Element*>(scratch);
            for (index i = 0; i < count * stride; i += simd::lanes<Arch>) { simd::f32<Arch>::load(from + i).store(to + i); }
        }
        return left_of(from, stride, scratch);
    }
    /// The same, of what `rows` has rounded before.
    static tile::left_operand left_of(const float* from, index stride, const word* scratch)
    {
        if constexpr (as_it_is) {
            static_cast<void>(scratch);
            return tile::left_operand::of(from, stride, 1);
        } else {
            static_cast<void>(from);
            return tile::left_operand::of(scratch, stride / product::group, 1);
        }
    }
    /// A left operand whose rows are the tile's columns, of what `joined` has rounded before.
    static tile::left_operand turned_left_of(const float* from, index stride, const word* scratch)
    {
        if constexpr (as_it_is) {
            static_cast<void>(scratch);
            return tile::left_operand::of(from, 1, stride);
        } else {
            static_cast<void>(from);
            return tile::left_operand::of(scratch, 1, stride);
        }
    }

    /// Words along the depth, which runs down the tile's rows: `count` rows of `columns`.
    static const word* joined(const float* from, index count, index stride, index columns, word* scratch)
    {
        if constexpr (as_it_is) {
            static_cast<void>(count), static_cast<void>(stride), static_cast<void>(columns), static_cast<void>(scratch);
            return from;
        } else {
            using f32 = simd::f32<Arch>;
            for (index r = 0; r < count; r += 2) {
                for (index c = 0; c < columns; c += f32::lanes) {
                    const f32 second = r + 1 < count ? f32::load(from + (r + 1) * stride + c) : f32::zero();
                    simd::backend<Arch>::join_bf16(f32::load(from + r * stride + c), second).store(scratch + r / 2 * stride + c);
                }
            }
            return scratch;
        }
    }
};

template <class Arch, class Element>
struct ssd_scratch {
    using word = typename tile::product<Arch, Element>::word;

    float *x, *weighted, *y;     ///< [panels][chunk][width]
    float *B, *C;                ///< [chunk][padded states]
    float* turned_B;             ///< [states][padded chunk]
    float *scores, *weights;     ///< [chunk][padded chunk]: C Bᵀ of the group; the same with the decays and steps of a head
    float* dt;                   ///< [heads][padded chunk]: steps
    float *high, *low;           ///< [padded chunk]: cumulated log2 decays, as unevaluated sums of two floats
    float *from_start, *to_end;  ///< [padded chunk]: decay from the chunk's start to a token; step times decay from it to the end
    float* state;                ///< [heads][panels][padded states][width]
    word *C_words, *B_words, *turned_B_words, *weights_words, *x_words, *weighted_words, *state_words;

    ssd_scratch(arena& a, const ssd_sizes<Arch>& s, index heads)
    {
        const index tokens = s.chunk, states = s.padded_states(), padded = s.padded_chunk(), tile_size = s.panels() * s.panel();
        for (float** t : {&x, &weighted, &y}) { *t = a.take<float>(tile_size); }
        for (float** t : {&B, &C}) { *t = a.take<float>(tokens * states); }
        turned_B = a.take<float>(s.states * padded);
        for (float** t : {&scores, &weights}) { *t = a.take<float>(tokens * padded); }
        dt = a.take<float>(heads * padded);
        // register_tile::scale_rows reads a whole tile's factors.
        for (float** t : {&high, &low, &from_start, &to_end}) { *t = a.take<float>(padded + tile::small_blocking<Arch>::rows); }
        state = a.take<float>(heads * s.state());
        if constexpr (!operand_tiles<Arch, Element>::as_it_is) {
            const index pairs = (tokens + 1) / 2;
            C_words = a.take<word>(tokens * states), B_words = a.take<word>(pairs * states);
            turned_B_words = a.take<word>((s.states + 1) / 2 * padded), weights_words = a.take<word>(tokens * padded);
            for (word** t : {&x_words, &weighted_words}) { *t = a.take<word>(tile_size + s.width); }
            state_words = a.take<word>(s.state());
        } else {
            C_words = B_words = turned_B_words = weights_words = x_words = weighted_words = state_words = nullptr;
        }
    }
};

/// The lines of a panel that will be wanted next, asked for row by row while products are computed. Only of panels whose channels
/// lie together: rows are then a page or more apart, which hardware does not foresee.
struct panel_lines {
    const std::byte* base = nullptr;
    index row_stride = 0, rows = 0, row_bytes = 0;

    template <class Number>
    static panel_lines of(const tile::block<Number>& panel)
    {
        if (panel.column_stride != 1) { return {}; }
        constexpr index size = static_cast<index>(sizeof(Number));
        return {reinterpret_cast<const std::byte*>(panel.base), panel.row_stride * size, panel.rows, panel.columns * size};
    }

    /// Rows [first, first + count), as far as there are so many.
    SEQMIX_INLINE void ask_for(index first, index count) const
    {
        const std::byte* row = base + first * row_stride;
        for (index r = first; r < smaller(first + count, rows); ++r, row += row_stride) {
            for (index at = 0; at < row_bytes; at += simd::cache_line) { simd::prefetch(row + at); }
        }
    }
};

namespace detail {

/// Y = diag(from_start) (C S) + M X for one panel. M is lower triangular, so a row's depth ends with its own token.
template <class Product, int Vectors>
SEQMIX_NOINLINE void chunk_outputs(const tile::left_operand& C, const tile::right_panel<typename Product::word>& S, index states,
                                   const float* from_start, const tile::left_operand& M,
                                   const tile::right_panel<typename Product::word>& X, index tokens, float* y,
                                   const panel_lines& ahead)
{
    constexpr int rows = tile::small_blocking<typename Product::arch>::rows, width = tile::small_blocking<typename Product::arch>::columns;
    for (index row = 0; row < tokens; row += rows) {
        const index live = smaller(rows, tokens - row);
        tile::register_tile<Product, Vectors> sum;
        sum.add_product(C, row, live, S, tile::depth_words<Product>(states));
        sum.scale_rows(from_start + row);
        sum.add_product(M, row, live, X, tile::depth_words<Product>(row + live));
        sum.store(y + row * width, width, live);
        ahead.ask_for(row, rows);
    }
}

/// S = decay S + Bᵀ X for one panel, X being weighted with what the end of the chunk still sees of each token.
template <class Product, int Vectors>
SEQMIX_NOINLINE void chunk_state(const tile::left_operand& turned_B, const tile::right_panel<typename Product::word>& X, index tokens,
                                 float decay, index states, float* S, const panel_lines& ahead)
{
    constexpr int rows = tile::small_blocking<typename Product::arch>::rows, width = tile::small_blocking<typename Product::arch>::columns;
    for (index row = 0; row < states; row += rows) {
        const index live = smaller(rows, states - row);
        tile::register_tile<Product, Vectors> sum(S + row * width, width, live);
        sum.scale(decay);
        sum.add_product(turned_B, row, live, X, tile::depth_words<Product>(tokens));
        sum.store(S + row * width, width, live);
        ahead.ask_for(row, rows);
    }
}

/// The lower triangle of C Bᵀ, and whatever else falls into its tiles: the columns of `Vectors` registers from `column` on.
template <class Product, int Vectors>
SEQMIX_NOINLINE void chunk_scores(const tile::left_operand& C, const typename Product::word* turned_B, index padded, index states,
                                  index tokens, index column, float* scores)
{
    constexpr int rows = tile::small_blocking<typename Product::arch>::rows;
    for (index row = column / rows * rows; row < tokens; row += rows) {
        const index live = smaller(rows, tokens - row);
        tile::register_tile<Product, Vectors> sum;
        sum.add_product(C, row, live, {turned_B + column, padded}, tile::depth_words<Product>(states));
        sum.store(scores + row * padded + column, padded, live);
    }
}

} // namespace detail

/// The heads [first_head, first_head + heads) of one sequence, all of one group, through time.
template <class Arch, class T, class Dt, class Out>
class ssd_heads {
    using f32 = simd::f32<Arch>;
    using element = tile::compute_element<Arch, T>;
    using product = tile::product<Arch, element>;
    using word = typename product::word;
    using operands = operand_tiles<Arch, element>;
    using sizes = ssd_sizes<Arch>;
    static constexpr index lanes = f32::lanes, width = sizes::width;

public:
    using scratch = ssd_scratch<Arch, element>;

    ssd_heads(const ssd_sequence<T, Dt, Out>& s, const sizes& n, index first_head, index heads, const scratch& at)
        : s_(s), n_(n), first_head_(first_head), heads_(heads),
          group_(first_head / (s.x.extent(1) / s.B.extent(1))), at_(at)
    {
    }

    void start_from_zero()
    {
        for (index i = 0; i < heads_ * n_.state(); ++i) { at_.state[i] = 0.0f; }
    }
    /// [H, P, N]
    template <class State>
    void load_state(const view<State, 3>& from)
    {
        for_state_panels(from, [](const auto& block, float* panel) { load_block<Arch>(block, tile::lane_groups{panel, width, lanes}); });
    }
    template <class State>
    void store_state(const view<State, 3>& to) const
    {
        for_state_panels(to, [](const auto& block, float* panel) { store_block<Arch>(tile::lane_groups{panel, width, lanes}, block); });
    }

    /// All tokens, in chunks from the first one on.
    void run(form how)
    {
        const index length = s_.x.extent(0);
        for (index t = 0; t < length; t += n_.chunk) {
            const span now = {t, smaller(n_.chunk, length - t)}, next = {t + now.tokens, smaller(n_.chunk, length - t - now.tokens)};
            // In so few tokens, tiles of rows stay too empty for products to pay.
            const bool token_by_token = how == form::recurrent || (how == form::automatic && now.tokens < tile::small_blocking<Arch>::rows);
            fetch_group(now, !token_by_token);
            fetch_steps(now);
            for (index h = 0; h < heads_; ++h) {
                const bool finite = fetch_head(h, now);
                // A zero weight would not keep a NaN or an infinity from the tokens before it.
                token_by_token || !finite ? recur(h, now) : multiply(h, now, next);
                finish(h, now);
            }
        }
        f32::stream_fence();
    }

private:
    /// Tokens [first, first + tokens): a chunk.
    struct span {
        index first, tokens;
    };
    float* steps_of(index head) const { return at_.dt + head * n_.padded_chunk(); }
    float* state_of(index head, index panel) const { return at_.state + (head * n_.panels() + panel) * n_.state_panel(); }
    /// Columns of panel p that are computed: whole registers.
    index live_columns(index p) const { return n_.vectors(p) * lanes; }

    template <class State, class Body>
    void for_state_panels(const view<State, 3>& state, const Body& body) const
    {
        for (index h = 0; h < heads_; ++h) {
            for (index p = 0; p < n_.panels(); ++p) {
                const view<State, 2> one = state[first_head_ + h];
                body(tile::block<State>{one.data() + p * width * one.stride(0), one.stride(1), one.stride(0), n_.states,
                                        smaller(width, n_.channels - p * width)},
                     state_of(h, p));
            }
        }
    }

    /// Panel p of tokens [t, t + tokens) of a head of x, z or out.
    template <class Number>
    tile::block<Number> panel_of(const view<Number, 3>& of, index head, index p, index t, index tokens) const
    {
        return {of.data() + t * of.stride(0) + (first_head_ + head) * of.stride(1) + p * width * of.stride(2), of.stride(0), of.stride(2),
                tokens, smaller(width, n_.channels - p * width)};
    }

    /// B and C of the group, and their products, which all its heads share.
    void fetch_group(const span& now, bool with_scores)
    {
        const index states = n_.padded_states(), padded = n_.padded_chunk();
        const auto rows = [&](const view<const T, 3>& of) {
            return tile::block<const T>{of.data() + now.first * of.stride(0) + group_ * of.stride(1), of.stride(0), of.stride(2), now.tokens,
                                        n_.states};
        };
        load_block<Arch>(rows(s_.B), tile::lane_groups{at_.B, states, lanes});
        load_block<Arch>(rows(s_.C), tile::lane_groups{at_.C, states, lanes});
        if (!with_scores) { return; }
        const tile::block<const T> B = rows(s_.B);
        load_block<Arch>(tile::block<const T>{B.base, B.column_stride, B.row_stride, B.columns, B.rows},
                         tile::lane_groups{at_.turned_B, padded, lanes});
        const tile::left_operand C = operands::rows(at_.C, now.tokens, states, at_.C_words);
        operands::joined(at_.B, now.tokens, states, states, at_.B_words);
        const word* const turned = operands::joined(at_.turned_B, n_.states, padded, padded, at_.turned_B_words);
        for (index column = 0; column < now.tokens; column += width) {
            tile::with_vectors<Arch>((smaller(width, now.tokens - column) + lanes - 1) / lanes, [&](auto vectors) SEQMIX_INLINE_LAMBDA {
                detail::chunk_scores<product, vectors>(C, turned, padded, n_.states, now.tokens, column, at_.scores);
            });
        }
    }

    /// The steps of all heads: tokens stand in lanes.
    void fetch_steps(const span& now)
    {
        const tile::block<const Dt> steps = {s_.dt.data() + now.first * s_.dt.stride(0) + first_head_ * s_.dt.stride(1), s_.dt.stride(1),
                                             s_.dt.stride(0), heads_, now.tokens};
        load_block<Arch>(steps, tile::lane_groups{at_.dt, n_.padded_chunk(), lanes});
        for (index h = 0; h < heads_; ++h) {
            const f32 bias = f32::broadcast(s_.dt_bias ? s_.dt_bias(first_head_ + h) : 0.0f);
            float* const dt = steps_of(h);
            for (index i = 0; i < now.tokens; i += lanes) {
                const f32 sum = f32::load(dt + i) + bias;
                (s_.softplus ? simd::softplus(sum) : sum).store(dt + i);
            }
        }
    }

    /// Decays and inputs of a head; whether all inputs are finite.
    bool fetch_head(index head, const span& now)
    {
        // Cumulated in double and kept as two floats: a strong decay must not blur the differences behind it.
        const double rate = static_cast<double>(s_.A(first_head_ + head)) * 1.4426950408889634;
        double sum = 0.0;
        const float* const dt = steps_of(head);
        float *const high = at_.high, *const low = at_.low;
        for (index i = 0; i < now.tokens; ++i) {
            // Nothing is left of what has decayed by 2^-256; more than that would only blur the sum.
            const double log_decay = rate * static_cast<double>(dt[i]);
            sum += log_decay < -256.0 ? -256.0 : log_decay;
            high[i] = static_cast<float>(sum);
            low[i] = static_cast<float>(sum - static_cast<double>(high[i]));
        }
        f32 nothing = f32::zero(); // NaN once an input is not finite
        for (index p = 0; p < n_.panels(); ++p) {
            load_block<Arch>(panel_of(s_.x, head, p, now.first, now.tokens), tile::lane_groups{at_.x + p * n_.panel(), width, lanes},
                             [&](f32 x, index, const float*) SEQMIX_INLINE_LAMBDA {
                                 nothing = fma(x, f32::zero(), nothing);
                                 return x;
                             });
        }
        return all(nothing == nothing);
    }

    /// 2^b, or 0 where that is below 2^-100: what has decayed so far would only bring subnormal products, which many processors
    /// multiply a hundred times slower.
    static SEQMIX_INLINE f32 decayed(f32 b)
    {
        const f32 least = f32::broadcast(-100.0f);
        return select(b < least, f32::zero(), simd::exp2(max(least, b))); // of a NaN and a bound, the second
    }

    /// 2^(b_i - b_j) for cumulated log2 decays b.
    static SEQMIX_INLINE f32 decay_between(f32 high_i, f32 low_i, f32 high_j, f32 low_j)
    {
        return decayed((high_i - high_j) + (low_i - low_j));
    }

    /// weights = scores ∘ decays ∘ steps below and on the diagonal, 0 above it as far as products read.
    void weigh(index head, const span& now)
    {
        constexpr int rows = tile::small_blocking<Arch>::rows;
        const index padded = n_.padded_chunk(), tokens = now.tokens;
        const scratch at = at_;
        const float *const dt = steps_of(head), *const scores = at_.scores;
        for (index i = 0; i < tokens; ++i) {
            const f32 high = f32::broadcast(at.high[i]), low = f32::broadcast(at.low[i]);
            const index read = i / rows * rows + rows; // by the row's tile
            for (index j = 0; j < read && j < padded; j += lanes) {
                const index seen = i + 1 - j; // loads leave out what is not: it may be NaN
                const auto get = [&](const float* from) SEQMIX_INLINE_LAMBDA {
                    return seen >= lanes ? f32::load(from + j) : f32::load(from + j, seen < 0 ? 0 : seen);
                };
                f32 decay = decay_between(high, low, get(at.high), get(at.low));
                (get(scores + i * padded) * (decay * get(dt))).store(at.weights + i * padded + j);
            }
        }
    }

    /// This head's share of the lines of B and C in the next chunk.
    void ask_for_group(index head, const span& next) const
    {
        if (s_.B.stride(2) != 1 || s_.C.stride(2) != 1) { return; }
        constexpr index of_line = simd::cache_line / static_cast<index>(sizeof(T));
        for (index t = next.tokens * head / heads_; t < next.tokens * (head + 1) / heads_; ++t) {
            for (index n = 0; n < n_.states; n += of_line) {
                simd::prefetch(&s_.B(next.first + t, group_, n));
                simd::prefetch(&s_.C(next.first + t, group_, n));
            }
        }
    }

    /// The chunked form of one head.
    void multiply(index head, const span& now, const span& next)
    {
        const index tokens = now.tokens;
        weigh(head, now);
        ask_for_group(head, next);
        const f32 last_high = f32::broadcast(at_.high[tokens - 1]), last_low = f32::broadcast(at_.low[tokens - 1]);
        for (index i = 0; i < tokens; i += lanes) {
            const f32 high = f32::load(at_.high + i), low = f32::load(at_.low + i);
            decayed(high + low).store(at_.from_start + i);
            (decay_between(last_high, last_low, high, low) * f32::load(steps_of(head) + i)).store(at_.to_end + i);
        }
        const index padded = n_.padded_chunk(), states = n_.states;
        const tile::left_operand C = operands::left_of(at_.C, n_.padded_states(), at_.C_words);
        const tile::left_operand turned_B = operands::turned_left_of(at_.B, n_.padded_states(), at_.B_words);
        const tile::left_operand M = operands::rows(at_.weights, tokens, padded, at_.weights_words);
        for (index p = 0; p < n_.panels(); ++p) {
            const index columns = live_columns(p);
            float *const x = at_.x + p * n_.panel(), *const weighted = at_.weighted, *const S = state_of(head, p);
            for (index i = 0; i < tokens; ++i) {
                const f32 factor = f32::broadcast(at_.to_end[i]);
                for (index c = 0; c < columns; c += lanes) { (f32::load(x + i * width + c) * factor).store(weighted + i * width + c); }
            }
            const tile::right_panel<word> X = {operands::joined(x, tokens, width, columns, at_.x_words), width};
            const tile::right_panel<word> weighted_X = {operands::joined(weighted, tokens, width, columns, at_.weighted_words), width};
            const bool last_head = head + 1 == heads_;
            const span& then = last_head ? next : now;
            const auto x_ahead = panel_lines::of(panel_of(s_.x, last_head ? 0 : head + 1, p, then.first, then.tokens));
            const auto out_ahead =
                s_.how == tile::store::streamed ? panel_lines{} : panel_lines::of(panel_of(s_.out, head, p, now.first, tokens));
            const tile::right_panel<word> before = {operands::joined(S, states, width, columns, at_.state_words), width};
            tile::with_vectors<Arch>(n_.vectors(p), [&](auto vectors) SEQMIX_INLINE_LAMBDA {
                detail::chunk_outputs<product, vectors>(C, before, states, at_.from_start, M, X, tokens, at_.y + p * n_.panel(), x_ahead);
                detail::chunk_state<product, vectors>(turned_B, weighted_X, tokens, at_.from_start[tokens - 1], states, S, out_ahead);
            });
        }
    }

    /// The recurrent form of one head: the state is read and written once a token.
    void recur(index head, const span& now)
    {
        const float rate = s_.A(first_head_ + head) * 0x1.715476p+0f;
        const scratch at = at_;
        const float *const dt = steps_of(head), *const B = at_.B, *const C = at_.C;
        for (index p = 0; p < n_.panels(); ++p) {
            const index columns = live_columns(p), states = n_.states, padded = n_.padded_states();
            float* const S = state_of(head, p);
            for (index t = 0; t < now.tokens; ++t) {
                const f32 keep = simd::exp2(f32::broadcast(rate * dt[t])), step = f32::broadcast(dt[t]);
                for (index c = 0; c < columns; c += lanes) {
                    const f32 input = step * f32::load(at.x + p * n_.panel() + t * width + c);
                    f32 y = f32::zero();
                    for (index n = 0; n < states; ++n) {
                        float* const h = S + n * width + c;
                        const f32 state = fma(keep, f32::load(h), input * f32::broadcast(B[t * padded + n]));
                        state.store(h);
                        y = fma(state, f32::broadcast(C[t * padded + n]), y);
                    }
                    y.store(at.y + p * n_.panel() + t * width + c);
                }
            }
        }
    }

    /// out = (y + D x) silu(z)
    void finish(index head, const span& now)
    {
        const index t = now.first, tokens = now.tokens;
        const f32 skip = f32::broadcast(s_.D ? s_.D(first_head_ + head) : 0.0f);
        for (index p = 0; p < n_.panels(); ++p) {
            float* const y = at_.y + p * n_.panel();
            const tile::lane_groups from = {y, width, lanes};
            const auto out = panel_of(s_.out, head, p, t, tokens);
            if (s_.z) { load_block<Arch>(panel_of(s_.z, head, p, t, tokens), tile::lane_groups{at_.weighted, width, lanes}); }
            const index to_x = at_.x - at_.y, to_z = at_.weighted - y;
            const auto skipped = [=](f32 sum, const float* at) SEQMIX_INLINE_LAMBDA { return fma(skip, f32::load(at + to_x), sum); };
            const auto gated = [=](f32 sum, const float* at) SEQMIX_INLINE_LAMBDA { return sum * simd::silu(f32::load(at + to_z)); };
            if (s_.D && s_.z) {
                store_block<Arch>(from, out, [=](f32 sum, index, const float* at) SEQMIX_INLINE_LAMBDA { return gated(skipped(sum, at), at); }, s_.how);
            } else if (s_.D) {
                store_block<Arch>(from, out, [=](f32 sum, index, const float* at) SEQMIX_INLINE_LAMBDA { return skipped(sum, at); }, s_.how);
            } else if (s_.z) {
                store_block<Arch>(from, out, [=](f32 sum, index, const float* at) SEQMIX_INLINE_LAMBDA { return gated(sum, at); }, s_.how);
            } else {
                store_block<Arch>(from, out, s_.how);
            }
        }
    }

    const ssd_sequence<T, Dt, Out>& s_;
    sizes n_;
    index first_head_, heads_, group_;
    scratch at_;
};

} // namespace ssm
SEQMIX_NAMESPACE_END
