// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/ssm/options.hpp>
#include <seqmix/tile/decay.hpp>
#include <seqmix/tile/map.hpp>
#include <seqmix/tile/operand_tiles.hpp>
#include <seqmix/tile/state_panels.hpp>

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

/// Sizes of a chunk and of its tiles, padded to whole registers; channels stand in panels.
template <class Arch>
struct ssd_sizes {
    static constexpr index lanes = simd::lanes<Arch>, width = tile::panel_width<Arch>;
    static constexpr index whole(index n, index of) { return (n + of - 1) / of * of; }

    index chunk, states, channels;
    index padded_chunk() const { return whole(chunk, lanes); }
    index padded_states() const { return whole(states, lanes); }
    /// The state of a head, N x P.
    tile::state_panels<Arch> state() const { return {states, channels}; }
    index panels() const { return state().panels(); }
    /// Channels of panel p.
    index columns(index p) const { return state().live(p); }
    /// Floats of one panel of x or y.
    index panel() const { return chunk * width; }
};

template <class Arch, class Element>
struct ssd_scratch {
    using word = typename tile::product<Arch, Element>::word;

    float *x, *y;                ///< [panels][chunk][width]
    float* weighted;             ///< [chunk][width]: x of one panel, weighted for the state; or z
    float *B, *C;                ///< [chunk][padded states]
    float* turned_B;             ///< [states][padded chunk]
    float *scores, *weights;     ///< [chunk][padded chunk]: C Bᵀ of the group; the same with the decays and steps of a head
    float* dt;                   ///< [heads][padded chunk]: steps
    tile::cumulated_decays<Arch> decays;
    float *from_start, *to_end;  ///< [padded chunk]: decay from the chunk's start to a token; step times decay from it to the end
    float* state;                ///< [heads][panels][padded states][width]
    word *B_words, *C_words, *turned_B_words, *weights_words; ///< the same in words, where products are of words
    word *x_words, *weighted_words, *state_words;             ///< likewise, of one panel

    ssd_scratch(arena& a, const ssd_sizes<Arch>& s, index heads)
    {
        const index tokens = s.chunk, states = s.padded_states(), padded = s.padded_chunk();
        for (float** t : {&x, &y}) { *t = a.take<float>(s.panels() * s.panel()); }
        weighted = a.take<float>(s.panel());
        for (float** t : {&B, &C}) { *t = a.take<float>(tokens * states); }
        turned_B = a.take<float>(s.states * padded);
        for (float** t : {&scores, &weights}) { *t = a.take<float>(tokens * padded); }
        dt = a.take<float>(heads * padded);
        decays = tile::cumulated_decays<Arch>::take(a, tokens);
        for (float** t : {&from_start, &to_end}) { *t = a.take<float>(decays.padded(tokens)); }
        state = a.take<float>(heads * s.state().floats());
        const auto pairs = [](index n) { return tile::operand_tiles<Arch, Element>::as_it_is ? 0 : (n + 1) / 2; };
        B_words = a.take<word>(pairs(tokens) * states), C_words = a.take<word>(tokens * pairs(states));
        turned_B_words = a.take<word>(pairs(s.states) * padded), weights_words = a.take<word>(tokens * pairs(padded));
        for (word** t : {&x_words, &weighted_words}) { *t = a.take<word>(pairs(tokens) * s.width); }
        state_words = a.take<word>(pairs(s.states) * s.width);
    }
};

/// The heads [first_head, first_head + heads) of one sequence, all of one group, through time.
template <class Arch, class T, class Dt, class Out>
class ssd_heads {
    using f32 = simd::f32<Arch>;
    using element = tile::compute_element<Arch, T>;
    using product = tile::product<Arch, element>;
    using word = typename product::word;
    using operands = tile::operand_tiles<Arch, element>;
    using sizes = ssd_sizes<Arch>;
    static constexpr index lanes = f32::lanes, width = sizes::width;

public:
    using scratch = ssd_scratch<Arch, element>;

    ssd_heads(const ssd_sequence<T, Dt, Out>& s, const sizes& n, index first_head, index heads, const scratch& at)
        : s_(s), n_(n), first_head_(first_head), heads_(heads),
          group_(first_head / (s.x.extent(1) / s.B.extent(1))), at_(at)
    {
    }

    void start_from_zero() { n_.state().clear(at_.state, heads_); }
    /// [H, P, N]
    template <class State>
    void load_state(const view<State, 3>& from)
    {
        n_.state().load(own(from), at_.state);
    }
    template <class State>
    void store_state(const view<State, 3>& to) const
    {
        n_.state().store(at_.state, own(to));
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
    float* state_of(index head, index panel) const { return n_.state().at(at_.state, head, panel); }
    /// States of these heads, [heads, N, P].
    template <class State>
    view<State, 3> own(const view<State, 3>& all) const
    {
        return all.slice(0, first_head_, first_head_ + heads_).transposed(1, 2);
    }

    /// Panel p of tokens [t, t + tokens) of a head of x, z or out.
    template <class Number>
    tile::block<Number> panel_of(const view<Number, 3>& of, index head, index p, index t, index tokens) const
    {
        return {of.data() + t * of.stride(0) + (first_head_ + head) * of.stride(1) + p * width * of.stride(2), of.stride(0), of.stride(2),
                tokens, n_.columns(p)};
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
        const tile::right_panel<word> turned_B = {operands::joined(at_.turned_B, n_.states, padded, padded, at_.turned_B_words), padded};
        tile::chunk_scores<product>(C, turned_B, n_.states, now.tokens, at_.scores);
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
        at_.decays.cumulate(steps_of(head), static_cast<double>(s_.A(first_head_ + head)) * 1.4426950408889634, now.tokens);
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

    /// Lines of x for the head that comes next, and those that this one's output goes to.
    tile::lines_ahead lines_of_next(index head, const span& now, const span& next) const
    {
        const bool last = head + 1 == heads_;
        const span& then = last ? next : now;
        tile::lines_ahead lines;
        for (index p = 0; p < n_.panels(); ++p) { lines.add(panel_of(s_.x, last ? 0 : head + 1, p, then.first, then.tokens)); }
        for (index p = 0; s_.how != tile::store::streamed && p < n_.panels(); ++p) {
            lines.add(panel_of(s_.out, head, p, now.first, now.tokens));
        }
        lines.spread_over(n_.panels() * tile::asks_of_pass<Arch>(n_.states, now.tokens, 1));
        return lines;
    }

    /// The chunked form of one head.
    void multiply(index head, const span& now, const span& next)
    {
        const index tokens = now.tokens, states = n_.states, padded = n_.padded_chunk();
        const float* const dt = steps_of(head);
        // M = scores ∘ decays ∘ steps
        tile::decay_scores({at_.scores, tokens, tokens, padded}, at_.decays, dt, tile::matrix<Arch>{at_.weights, tokens, tokens, padded});
        ask_for_group(head, next);
        at_.decays.from_start(tokens, at_.from_start);
        at_.decays.to_end(tokens, dt, at_.to_end);
        const tile::left_operand C = operands::left_of(at_.C, n_.padded_states(), at_.C_words);
        const tile::left_operand turned_B = operands::turned_left_of(at_.B, n_.padded_states(), at_.B_words);
        const tile::left_operand M = operands::rows(at_.weights, tokens, padded, at_.weights_words);
        tile::lines_ahead ahead = lines_of_next(head, now, next);
        for (index p = 0; p < n_.panels(); ++p) {
            const index columns = n_.columns(p);
            float *const x = at_.x + p * n_.panel(), *const weighted = at_.weighted, *const S = state_of(head, p);
            tile::map_rows<Arch>({weighted, tokens, columns, width}, [](f32 input, f32 left) SEQMIX_INLINE_LAMBDA { return input * left; },
                                 {x, tokens, columns, width}, at_.to_end);
            const tile::right_panel<word> X = {operands::joined(x, tokens, width, columns, at_.x_words), width};
            const tile::right_panel<word> weighted_X = {operands::joined(weighted, tokens, width, columns, at_.weighted_words), width};
            const tile::chunk_reader reader = {C, M, at_.y + p * n_.panel()};
            tile::pass_chunk<operands>(&reader, 1, at_.from_start, {X, 1, turned_B, weighted_X}, tokens, at_.from_start[tokens - 1], states, columns, S,
                                       at_.state_words, &ahead);
        }
    }

    /// The recurrent form of one head: the state is read and written once a token.
    void recur(index head, const span& now)
    {
        const float rate = s_.A(first_head_ + head) * 0x1.715476p+0f;
        const scratch at = at_;
        const float *const dt = steps_of(head), *const B = at_.B, *const C = at_.C;
        for (index p = 0; p < n_.panels(); ++p) {
            const index columns = n_.columns(p), states = n_.states, padded = n_.padded_states();
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
