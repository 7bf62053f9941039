// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/linear/chunk_scratch.hpp>
#include <seqmix/linear/operands.hpp>
#include <seqmix/linear/options.hpp>
#include <seqmix/tile/combine.hpp>
#include <seqmix/tile/map.hpp>

// The chunkwise form of all rules (Yang et al. 2024, "Gated Linear Attention Transformers", section 4; "Parallelizing Linear
// Transformers with the Delta Rule", section 3.2; Yang et al. 2025, section 3.3): inside a chunk the sum over time is a masked matrix
// product, as attention is; from chunk to chunk a state is carried. With b the running log decay, R_ij = x_i · y_j e^(b_i - b_j):
//
//     W = V;  delta: (1 + β R_kk) W = β (V - (K e^b) S);  DPLR: (1 - R_ab) W = (A e^b) S + R_ak V, written under b
//     O = (Q e^b) S + R_qk W                        [DPLR: R_qk V + R_qb W]
//     S = e^(b_last) S + (K e^(b_last - b))ᵀ W      [DPLR: … V + (B e^(b_last - b))ᵀ W]

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// One sequence of L tokens, line after line: q [lines, tokens, Hq, D], k [.., .., Hk, D], v [.., .., H, V], out [.., .., max(Hq, H), V].
/// Each operand has lines of its own, as long as its tokens have one stride; most have one line.
template <class Rule, class T, class Out>
struct linear_sequence {
    view<const T, 4> q, k, v;
    typename Rule::template inputs<T, 2> in;
    view<Out, 4> out;
    shared_heads heads;
    float scale;
    bool accumulate, normalize;
    tile::store how;          ///< out is written
    view<float, 4> snapshots; ///< [S, H, K, V]
    index snapshot_interval;

    index length() const { return q.extent(0) * q.extent(1); }
};

/// The heads [first_head, first_head + heads) of one sequence, through time.
template <class Rule, class Arch, class T, class Out>
class linear_heads {
    using f32 = simd::f32<Arch>;
    using element = tile::compute_element<Arch, T>;
    using product = tile::product<Arch, element>;
    using floats = tile::product<Arch, float>;
    using word = typename product::word;
    using operands = tile::operand_tiles<Arch, element>;
    using sizes = chunk_sizes<Arch>;
    using matrix = tile::matrix<Arch>;
    using map = typename Rule::features;
    static constexpr index lanes = f32::lanes, width = sizes::width;
    static constexpr index writers = linear::writers<Rule>;
    static constexpr bool mapped = !std::is_same_v<map, identity_map>;
    static constexpr bool asks = Rule::update != update::additive, dplr = Rule::update == update::dplr;
    static constexpr bool on_rows = decays_of<Rule, Arch>::on_rows;

public:
    using scratch = chunk_scratch<Rule, Arch, element>;

    linear_heads(const linear_sequence<Rule, T, Out>& s, const sizes& n, index first_head, index heads, scratch& at)
        : s_(s), n_(n), first_head_(first_head), heads_(heads), at_(at)
    {
    }

    void start_from_zero()
    {
        n_.state().clear(at_.state, heads_);
        for (index i = 0; i < heads_ * n_.padded_keys(); ++i) { at_.normalizer[i] = 0.0f; }
    }
    /// [H, K, V]
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
    /// [H, K]
    void load_normalizer(const view<float, 2>& from) { load_block<Arch>(normalizers<const float>(from), normalizer_rows()); }
    void store_normalizer(const view<float, 2>& to) const { store_block<Arch>(normalizer_rows(), normalizers<float>(to)); }

    /// All tokens, in chunks from the first one on; a chunk ends at a snapshot.
    void run(form how)
    {
        const index length = s_.length(), interval = s_.snapshots ? s_.snapshot_interval : 0;
        const auto from = [&](index t) {
            index count = smaller(n_.chunk, length - t);
            if (interval > 0) { count = smaller(count, interval - t % interval); }
            return span{t, count};
        };
        for (span now = from(0), next; now.tokens > 0; now = next) {
            next = from(now.first + now.tokens);
            // In so few tokens, tiles of rows stay too empty for products to pay.
            const bool token_by_token = how == form::recurrent || (how == form::automatic && now.tokens < sizes::tile_rows);
            for (index h = 0; h < heads_; ++h) {
                const bool finite = fetch(h, now);
                // A zero weight would not keep a NaN or an infinity from the tokens before it.
                token_by_token || !finite ? recur(h, now) : multiply(h, now, next);
                for (index j = 0; j < n_.queries; ++j) { finish(h, j, now); }
            }
            const index end = now.first + now.tokens;
            if (interval > 0 && end % interval == 0) { store_state(s_.snapshots[end / interval - 1]); }
        }
        f32::stream_fence();
    }

private:
    /// Tokens [first, first + tokens): a chunk.
    struct span {
        index first, tokens;
    };
    float* state_of(index head, index panel) const { return n_.state().at(at_.state, head, panel); }
    float* values_of(index panel) const { return at_.values + panel * writers * n_.chunk * width; }
    float* outputs_of(index query, index panel) const { return at_.outputs + (query * n_.panels() + panel) * n_.chunk * width; }
    float* queries_of(const matrix& of, index query) const { return of.row(query * n_.chunk); }

    /// States of these heads.
    template <class State>
    view<State, 3> own(const view<State, 3>& all) const
    {
        return all.slice(0, first_head_, first_head_ + heads_);
    }
    template <class Number>
    tile::block<Number> normalizers(const view<float, 2>& of) const
    {
        return {of.data() + first_head_ * of.stride(0), of.stride(0), of.stride(1), heads_, n_.keys};
    }
    tile::lane_groups normalizer_rows() const { return {at_.normalizer, n_.padded_keys(), lanes}; }

    /// Calls body(first token, its row in the chunk, tokens) for each line of an operand [lines, tokens, heads, …] that a chunk lies on.
    template <class Number, std::size_t Rank, class Body>
    static SEQMIX_INLINE void for_each_piece(const view<Number, Rank>& of, const span& now, const Body& body)
    {
        const index length = of.extent(1);
        index line = of.extent(0) == 1 ? 0 : now.first / length, token = now.first - line * length;
        for (index row = 0, count; row < now.tokens; row += count, ++line, token = 0) {
            count = smaller(now.tokens - row, length - token);
            body(of.data() + line * of.stride(0) + token * of.stride(1), row, count);
        }
    }
    /// The same with a head's block of `columns` from `column` on: body(block, its first row in the chunk).
    template <class Number, class Body>
    static SEQMIX_INLINE void for_each_block(const view<Number, 4>& of, index head, const span& now, index column, index columns, const Body& body)
    {
        for_each_piece(of, now, [&](Number* first, index row, index count) SEQMIX_INLINE_LAMBDA {
            body(tile::block<Number>{first + head * of.stride(2) + column * of.stride(3), of.stride(1), of.stride(3), count, columns}, row);
        });
    }
    template <class Number, class Function>
    static SEQMIX_INLINE void load_rows(const view<Number, 4>& of, index head, const span& now, index column, index columns,
                                        const tile::lane_groups& to, const Function& function)
    {
        for_each_block(of, head, now, column, columns, [&](const tile::block<Number>& from, index row) SEQMIX_INLINE_LAMBDA {
            load_block<Arch>(from, rows_from(to, row), function);
        });
    }
    template <class Number, class Function>
    static SEQMIX_INLINE void load_rows(const view<Number, 4>& of, index head, const span& now, const tile::lane_groups& to, const Function& function)
    {
        load_rows(of, head, now, 0, of.extent(3), to, function);
    }
    static tile::lane_groups rows_from(const tile::lane_groups& all, index row)
    {
        return {all.base + row * all.row_stride, all.row_stride, all.group_stride};
    }
    index query_head(index head, index query) const { return head * s_.heads.queries / s_.heads.of_query + query; }

    /// Operands of a head as dense rows; whether all but its queries are finite.
    bool fetch(index head, const span& now)
    {
        const index at = first_head_ + head;
        f32 nothing = f32::zero(); // NaN once a number is not finite
        const auto checked = [&](f32 x, index, const float*) SEQMIX_INLINE_LAMBDA {
            nothing = fma(x, f32::zero(), nothing);
            return x;
        };
        const auto rows = [](const matrix& to, index from = 0) { return tile::lane_groups{to.row(from), to.stride, lanes}; };
        const f32 scale = f32::broadcast(s_.scale);
        for (index j = 0; j < n_.queries; ++j) {
            if constexpr (mapped) {
                load_mapped(s_.q, query_head(at, j), now, at_.queries, j * n_.chunk);
                float* const row = queries_of(at_.queries, j);
                for (index i = 0; i < now.tokens * at_.queries.stride; i += lanes) { (f32::load(row + i) * scale).store(row + i); }
            } else {
                load_rows(s_.q, query_head(at, j), now, rows(at_.queries, j * n_.chunk),
                          [=](f32 x, index, const float*) SEQMIX_INLINE_LAMBDA { return x * scale; });
            }
        }
        const index key_head = at / s_.heads.of_key;
        if constexpr (mapped) {
            load_mapped(s_.k, key_head, now, at_.keys, 0);
            for (index i = 0; i < now.tokens * at_.keys.stride; i += lanes) { checked(f32::load(at_.keys.data + i), 0, nullptr); }
        } else {
            load_rows(s_.k, key_head, now, rows(at_.keys), checked);
        }
        for (index p = 0; p < n_.panels(); ++p) {
            load_rows(s_.v, at, now, p * width, n_.live(p), tile::lane_groups{values_of(p), writers * width, lanes}, checked);
        }
        const auto numbers = [&](const view<const float, 3>& of, float* to) {
            for_each_piece(of, now, [&](const float* first, index row, index count) {
                tile::copy_row<Arch>(first + at * of.stride(2), of.stride(1), count, to + row);
            });
            load_block<Arch>(tile::block<const float>{to, 0, 1, 1, now.tokens}, tile::lane_groups{to, 0, lanes}, checked);
        };
        if constexpr (Rule::gate == gate::none || Rule::gate == gate::head) {
            f32 g = f32::zero();
            if constexpr (Rule::gate == gate::head) { g = f32::broadcast(s_.in.log_decay(at)); }
            for (index i = 0; i < now.tokens; i += lanes) { checked(g, 0, nullptr).store(at_.decays.log_decay() + i); }
        } else if constexpr (Rule::gate == gate::token) {
            numbers(s_.in.log_decay, at_.decays.log_decay());
        } else {
            load_rows(s_.in.log_decay, at, now, tile::lane_groups{at_.decays.log_decay(), n_.padded_keys(), lanes}, checked);
        }
        if constexpr (Rule::update == update::delta) { numbers(s_.in.beta, at_.beta); }
        if constexpr (dplr) {
            load_rows(s_.in.a, at, now, rows(at_.a), checked);
            load_rows(s_.in.b, at, now, rows(at_.b), checked);
        }
        at_.decays.begin(now.tokens);
        return all(nothing == nothing);
    }

    /// Features of a head's rows, from `first_row` of `to` on.
    void load_mapped(const view<const T, 4>& of, index head, const span& now, const matrix& to, index first_row)
    {
        for_each_block(of, head, now, 0, n_.size, [&](const tile::block<const T>& from, index row) {
            load_block<Arch>(from, tile::lane_groups{at_.raw.data, at_.raw.stride, lanes});
            for (index i = 0; i < from.rows; ++i) { map::template apply<Arch>(at_.raw.row(i), n_.size, to.row(first_row + row + i)); }
        });
    }

    /// The recurrent form of one head: the state is read and written for every token.
    void recur(index head, const span& now)
    {
        const scratch& at = at_;
        for (index t = 0; t < now.tokens; ++t) {
            token_operands in{.queries = at.queries.row(t), .query_stride = n_.chunk * at.queries.stride, .key = at.keys.row(t),
                              .decay = at.decays.own(t)};
            if constexpr (Rule::update == update::delta) { in.beta = at.beta[t]; }
            if constexpr (Rule::bonus) { in.bonus = bonus_row(head); }
            if constexpr (dplr) { in.a = at.a.row(t), in.b = at.b.row(t); }
            at_.token.prepare(in);
            for (index p = 0; p < n_.panels(); ++p) {
                float* const S = state_of(head, p);
                at.token.template apply<float>({S, width}, {S, width}, n_.columns(p), values_of(p) + t * writers * width,
                                               outputs_of(0, p) + t * width, n_.panels() * n_.chunk * width);
            }
            if constexpr (!asks) {
                if (s_.normalize) {
                    float* const one = at_.factor; // of each query
                    at_.token.normalizer(at.normalizer + head * n_.padded_keys(), one);
                    for (index j = 0; j < n_.queries; ++j) { at.sums[j * n_.chunk + t] = one[j]; }
                }
            }
        }
    }

    /// u [K] of a head, dense.
    const float* bonus_row(index head)
    {
        const view<const float, 1> u = s_.in.bonus[first_head_ + head];
        load_block<Arch>(tile::block<const float>{u.data(), 0, u.stride(0), 1, n_.keys}, tile::lane_groups{at_.bonus, 0, lanes});
        return at_.bonus;
    }

    /// The chunked form of one head.
    void multiply(index head, const span& now, const span& then)
    {
        decay_and_weigh(head, now);
        if constexpr (!asks) {
            if (s_.normalize) { sum_weights(head, now); }
        }
        const index tokens = now.tokens, keys = n_.keys, written_rows = tokens * writers;
        const matrix& reading = on_rows ? at_.queries_decayed : at_.queries;
        const matrix& asking = on_rows ? at_.asking_decayed : at_.keys;
        const matrix& writing = on_rows ? at_.to_end : at_.keys;
        operands::joined(writing.data, written_rows, writing.stride, writing.stride, at_.key_words);
        const tile::left_operand turned_K = operands::turned_left_of(writing.data, writing.stride, at_.key_words);
        const auto query_words = [&](index j) { return at_.query_words + j * n_.chunk * reading.stride / 2; };
        const auto weight_words = [&](index j) { return at_.weight_words + j * n_.chunk * at_.weights.stride / 2; };
        for (index j = 0; j < n_.queries; ++j) {
            operands::rows(queries_of(reading, j), tokens, reading.stride, query_words(j));
            operands::rows(queries_of(at_.weights, j), tokens, at_.weights.stride, weight_words(j));
        }
        if constexpr (asks) { operands::rows(asking.data, tokens, asking.stride, at_.asking_words); }

        tile::lines_ahead ahead = lines_of_next(head, now, then);
        for (index p = 0; p < n_.panels(); ++p) {
            const index columns = n_.columns(p);
            float* const S = state_of(head, p);
            float* W = values_of(p);
            if constexpr (asks) {
                const tile::right_panel<word> before = {operands::joined(S, keys, width, columns, at_.state_words), width};
                W = solve(p, before, operands::left_of(asking.data, asking.stride, at_.asking_words), tokens, columns, ahead);
            }
            const tile::right_panel<word> values = {operands::joined(W, written_rows, width, columns, at_.value_words), width};
            tile::right_panel<word> to_end = values;
            if constexpr (!on_rows) {
                // Values as the end of the chunk sees them.
                tile::map_rows<Arch>({at_.weighted, tokens, columns, width}, [](f32 w, f32 left) SEQMIX_INLINE_LAMBDA { return w * left; },
                                     {W, tokens, columns, width}, at_.decays.to_end());
                to_end = {operands::joined(at_.weighted, tokens, width, columns, at_.weighted_words), width};
            }
            for (index j = 0; j < n_.queries; ++j) {
                at_.readers[j] = {operands::left_of(queries_of(reading, j), reading.stride, query_words(j)),
                                  operands::left_of(queries_of(at_.weights, j), at_.weights.stride, weight_words(j)), outputs_of(j, p)};
            }
            tile::pass_chunk<operands>(at_.readers, n_.queries, at_.decays.from_start(), {values, writers, turned_K, to_end}, tokens,
                                       at_.decays.state(), keys, columns, S, at_.state_words, &ahead);
        }
    }

    /// Rows as the chunk's ends see them, and their products with the decays between.
    void decay_and_weigh(index head, const span& now)
    {
        constexpr reads when = Rule::bonus ? reads::before : reads::after;
        reading_rows* const reading = at_.reading;
        for (index j = 0; j < n_.queries; ++j) {
            reading[j] = {queries_of(at_.queries, j), when, queries_of(at_.weights, j), at_.weights.stride,
                          on_rows ? queries_of(at_.queries_within, j) : nullptr, on_rows ? queries_of(at_.queries_decayed, j) : nullptr};
        }
        writing_rows writing[writers];
        writing[0] = {at_.keys.data, at_.to_end.data, writers * at_.to_end.stride};
        index readers = n_.queries;
        if constexpr (asks) {
            reading[readers++] = {dplr ? at_.a.data : at_.keys.data, dplr ? reads::before : reads::after, at_.recalls.data, at_.recalls.stride,
                                  at_.asking_within.data, at_.asking_decayed.data};
        }
        if constexpr (dplr) { writing[1] = {at_.b.data, at_.to_end.data + at_.to_end.stride, writers * at_.to_end.stride}; }
        at_.decays.run(reading, readers, writing, writers);
        if constexpr (Rule::bonus) { weigh_own(head, now); }
        if constexpr (Rule::update == update::delta) {
            for (index i = 0; i < now.tokens; ++i) {
                float* const row = at_.recalls.row(i);
                const f32 beta = f32::broadcast(-at_.beta[i]);
                for (index c = 0; c < i; c += lanes) { (f32::load(row + c) * beta).store(row + c); }
                if constexpr (on_rows) {
                    at_.factor[i] = -at_.beta[i];
                } else {
                    at_.factor[i] = -at_.beta[i] * at_.decays.from_start()[i];
                }
            }
        }
    }

    /// weights(i, i) = q_i · (u ∘ k_i)
    void weigh_own(index head, const span& now)
    {
        const float* const u = bonus_row(head);
        for (index j = 0; j < n_.queries; ++j) {
            for (index i = 0; i < now.tokens; ++i) {
                const float *const q = at_.queries.row(j * n_.chunk + i), *const k = at_.keys.row(i);
                f32 sum = f32::zero();
                for (index c = 0; c < n_.padded_keys(); c += lanes) { sum = fma(f32::load(q + c) * f32::load(u + c), f32::load(k + c), sum); }
                at_.weights(j * n_.chunk + i, i) = reduce_add(sum);
            }
        }
    }

    /// What the delta rules write: W, for DPLR in turns with V.
    float* solve(index p, const tile::right_panel<word>& S, const tile::left_operand& asking, index tokens, index columns,
                       tile::lines_ahead& ahead)
    {
        float* const V = values_of(p);
        const float *const recalls = at_.recalls.data, *const factor = at_.factor, *const beta = at_.beta;
        const index stride = at_.recalls.stride;
        if constexpr (dplr) {
            tile::chunk_solve<product>(
                asking, S, n_.keys,
                [=](auto& sum, index row, index live) SEQMIX_INLINE_LAMBDA {
                    sum.template add_product<floats>(tile::left_operand::of(recalls, stride, writers), row, live, {V, writers * width}, row + live);
                },
                {recalls + 1, stride, writers}, tokens, columns, values_of(p) + width, writers * width, &ahead);
            return V;
        } else {
            tile::chunk_solve<product>(
                asking, S, n_.keys,
                [=](auto& sum, index row, index live) SEQMIX_INLINE_LAMBDA {
                    sum.scale_rows(factor + row);
                    sum.add_rows(V + row * width, width, live, beta + row);
                },
                {recalls, stride, 1}, tokens, columns, at_.written, width, &ahead);
            return at_.written;
        }
    }

    /// Normalisers are the outputs of values that are 1: sums of weights, and what the state's own recalls.
    void sum_weights(index head, const span& now)
    {
        const index keys = n_.padded_keys(), tokens = now.tokens;
        float* const z = at_.normalizer + head * keys;
        for (index j = 0; j < n_.queries; ++j) {
            for (index i = 0; i < tokens; ++i) {
                const float* const q = (on_rows ? at_.queries_decayed : at_.queries).row(j * n_.chunk + i);
                f32 recalled = f32::zero(), inside = f32::zero();
                for (index c = 0; c < keys; c += lanes) { recalled = fma(f32::load(q + c), f32::load(z + c), recalled); }
                if constexpr (!on_rows) { recalled = recalled * f32::broadcast(at_.decays.from_start()[i]); }
                const float* const row = at_.weights.row(j * n_.chunk + i);
                for (index c = 0; c <= i; c += lanes) { inside = inside + f32::load(row + c, i + 1 - c); }
                at_.sums[j * n_.chunk + i] = reduce_add(recalled + inside);
            }
        }
        for (index c = 0; c < keys; c += lanes) {
            f32 sum = f32::load(z + c);
            if constexpr (on_rows) {
                sum = sum * f32::load(at_.decays.state() + c);
                for (index i = 0; i < tokens; ++i) { sum = sum + f32::load(at_.to_end.row(i) + c); }
            } else {
                sum = sum * f32::broadcast(at_.decays.state());
                for (index i = 0; i < tokens; ++i) { sum = fma(f32::broadcast(at_.decays.to_end()[i]), f32::load(at_.keys.row(i) + c), sum); }
            }
            sum.store(z + c);
        }
    }

    /// Lines of the head that comes next.
    tile::lines_ahead lines_of_next(index head, const span& now, const span& then) const
    {
        const bool last = head + 1 == heads_;
        const index next = first_head_ + (last ? 0 : head + 1);
        const span& tokens = last ? then : now;
        tile::lines_ahead lines;
        const auto add = [&](const auto& of, index of_head) {
            for_each_block(of, of_head, tokens, 0, of.extent(3), [&](const auto& rows, index) { lines.add(rows); });
        };
        add(s_.k, next / s_.heads.of_key), add(s_.v, next), add(s_.q, query_head(next, 0));
        if constexpr (Rule::gate == gate::channel) { add(s_.in.log_decay, next); }
        if constexpr (dplr) { add(s_.in.a, next), add(s_.in.b, next); }
        const index of_solve = asks ? tile::asks_of_solve<product>(n_.keys, now.tokens) : 0;
        lines.spread_over(n_.panels() * (of_solve + tile::asks_of_pass<Arch>(n_.keys, now.tokens, n_.queries)));
        return lines;
    }

    /// out = the outputs, normalised, on top of what is there where the caller sums.
    void finish(index head, index query, const span& now)
    {
        for (index p = 0; p < n_.panels(); ++p) {
            float* const y = outputs_of(query, p);
            for (index i = 0; s_.normalize && i < now.tokens; ++i) {
                const f32 sum = f32::broadcast(at_.sums[query * n_.chunk + i]);
                for (index c = 0; c < n_.columns(p); c += lanes) { (f32::load(y + i * width + c) / sum).store(y + i * width + c); }
            }
            const tile::lane_groups all = {y, width, lanes};
            const index to = (first_head_ + head) * n_.queries + query;
            for_each_block(s_.out, to, now, p * width, n_.live(p), [&](const tile::block<Out>& out, index row) {
                const tile::lane_groups from = rows_from(all, row);
                if (!s_.accumulate) {
                    store_block<Arch>(from, out, s_.how);
                } else {
                    store_combined<Arch>(from, out, s_.how, tile::add_to(),
                                         tile::block<const Out>{out.base, out.row_stride, out.column_stride, out.rows, out.columns});
                }
            });
        }
    }

    const linear_sequence<Rule, T, Out>& s_;
    sizes n_;
    index first_head_, heads_;
    scratch& at_;
};

} // namespace linear
SEQMIX_NAMESPACE_END
