// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/attention/blocking.hpp>
#include <seqmix/attention/operands.hpp>
#include <seqmix/attention/weights.hpp>
#include <seqmix/core/workspace.hpp>

// The kernel: one block of query rows of one key/value head against all keys that it can see. FlashAttention-2's loop order
// (Dao 2023, algorithm 1): rows outside, keys inside, exact, with extra memory that does not grow with either length.

SEQMIX_NAMESPACE_BEGIN
namespace attention {

/// One call's operands of one batch item and one key/value head. Query rows of the heads that share it are numbered through,
/// `rows_per_head` numbers to each.
template <class T, class Out>
struct head_group {
    view<const T, 3> q;    ///< [H, Lq, Dk], all heads of the batch item
    view<const T, 2> k;    ///< [Lk, Dk]
    view<const T, 2> v;    ///< [Lk, Dv]
    view<Out, 3> out;      ///< [H, Lq, Dv]
    view<float, 2> lse;    ///< [H, Lq] or null
    view<const float, 1> sinks; ///< [H] or null
    index batch;
    index first_head, heads;
    index rows_per_head;
};

/// Scratch of one worker, all of it.
template <class Arch, class T>
struct row_scratch {
    using product = tile::product<Arch, tile::compute_element<Arch, T>>;
    using word = typename product::word;
    static constexpr int columns = query_panel<Arch>::columns;

    index tile_keys;
    query_panel<Arch>* panels;
    lane_state<Arch>* states;
    word* queries;  ///< panels x key words x columns
    float* outputs; ///< panels x value size x columns
    float* scores;  ///< tile x columns; weights after absorb
    word* weights;  ///< the same as words, where words are not floats
    float* parts;   ///< tiles that the parts of the score prepare
    float* visible; ///< tile x columns; used only where values that some lanes don't see are not finite
    word* keys;
    word* values;

    row_scratch(arena& a, index block_panels, index key_size, index value_size, int part_tiles)
    {
        tile_keys = keys_per_tile(key_size, value_size);
        panels = a.take<query_panel<Arch>>(block_panels);
        states = a.take<lane_state<Arch>>(block_panels);
        queries = a.take<word>(block_panels * key_source<Arch, T>::words(key_size) * columns);
        outputs = a.take<float>(block_panels * value_size * columns);
        scores = a.take<float>(tile_keys * columns);
        weights = a.take<word>(product::group > 1 ? tile::depth_words<product>(tile_keys) * columns : 0);
        parts = a.take<float>(part_tiles * part_size());
        visible = a.take<float>(tile_keys * columns);
        keys = a.take<word>(key_source<Arch, T>::scratch_words(tile_keys, key_size));
        values = a.take<word>(value_source<Arch, T>::scratch_words(tile_keys, value_size));
    }

    index part_size() const { return tile_keys * columns; }
};

/// A block of panels and what is done with it, whatever the score: everything here is compiled once a storage type.
template <class Arch, class T, class Out>
class panel_block {
    using f32 = simd::f32<Arch>;
    using product = tile::product<Arch, tile::compute_element<Arch, T>>;
    using word = typename product::word;
    static constexpr int lanes = f32::lanes;
    static constexpr int columns = query_panel<Arch>::columns;

public:
    panel_block(const head_group<T, Out>& operands, const visibility& sees, row_scratch<Arch, T>& scratch)
        : io_(operands), sees_(sees), s_(scratch), key_size_(operands.q.extent(2)), value_size_(operands.v.extent(1))
    {
    }

    /// Queries to panels, outputs to zero; returns the keys that some row sees.
    SEQMIX_NOINLINE key_run begin(index first_row, index panels)
    {
        index first = sees_.keys(), last = -1;
        for (index p = 0; p < panels; ++p) {
            query_panel<Arch>& panel = s_.panels[p];
            panel.batch = io_.batch;
            panel.place(first_row + p * columns, io_.first_head, io_.heads, io_.rows_per_head, io_.q.extent(1), sees_);
            first = panel.any_first < first ? panel.any_first : first;
            last = panel.any_last > last ? panel.any_last : last;
            s_.states[p].reset();
            word* const queries = s_.queries + p * key_source<Arch, T>::words(key_size_) * columns;
            for (int vector = 0; vector < panel.used_vectors; ++vector) {
                const T* rows[lanes];
                rows_of(io_.q, panel, vector, rows);
                tile::load_columns<Arch>(rows, io_.q.stride(2), key_size_, queries + vector * lanes, columns);
            }
            float* const out = s_.outputs + p * value_size_ * columns;
            for (index i = 0; i < value_size_ * columns; i += lanes) { f32::zero().store(out + i); }
        }
        return {first, last < first ? 0 : last + 1 - first};
    }

    /// The part of a tile that some lane of a panel sees; its start stays on the grid of words.
    static key_run trimmed(const key_run& tile, const query_panel<Arch>& panel)
    {
        const index hidden = panel.any_first > tile.first ? panel.any_first - tile.first : 0;
        const index skipped = hidden / product::group * product::group;
        const index end = panel.any_last + 1 < tile.end() ? panel.any_last + 1 : tile.end();
        return {tile.first + skipped, end - tile.first - skipped};
    }

    /// Sᵀ = K Qᵀ for a panel of which `Used` registers hold queries.
    template <int Used>
    SEQMIX_NOINLINE void multiply_queries(index p, const key_run& run, const key_source<Arch, T>& keys, const read_ahead<T>& ahead)
    {
        const index words = key_source<Arch, T>::words(key_size_);
        float* const scores = s_.scores;
        tile::mma<product, Used>(
            run.count, words, keys.operand(run.first), {s_.queries + p * words * columns, columns},
            [scores, &ahead](index key, int v, f32 sum) SEQMIX_INLINE_LAMBDA {
                if (v == 0) { ahead(key); }
                sum.store(scores + key * columns + v * lanes);
            });
    }

    /// Oᵀ = Oᵀ · c + Vᵀ Pᵀ.
    template <int Used>
    SEQMIX_NOINLINE void add_values(index p, const key_run& run, const value_source<Arch, T>& values)
    {
        f32 correction[Used];
        simd::unroll<Used>([&](auto v) SEQMIX_INLINE_LAMBDA { correction[v] = f32::load(s_.states[p].correction + v * lanes); });
        float* const out = s_.outputs + p * value_size_ * columns;
        const word* const weights = weight_words<Used>(run.count);
        tile::mma<product, Used>(
            value_size_, tile::depth_words<product>(run.count), values.operand(run.first), {weights, columns},
            [&](index channel, int v, f32 sum) SEQMIX_INLINE_LAMBDA {
                float* const at = out + channel * columns + v * lanes;
                fma(f32::load(at), correction[v], sum).store(at);
            });
    }

    /// Which scores are hidden, before they become weights and a hidden one can't be told from a small one.
    SEQMIX_NOINLINE void note_visible(const key_run& run)
    {
        for (index i = 0; i < run.count * columns; i += lanes) {
            const auto hidden = f32::load(s_.scores + i) == f32::broadcast(minus_infinity);
            select(hidden, f32::zero(), f32::broadcast(1.0f)).store(s_.visible + i);
        }
    }

    /// add_values a key at a time, leaving out what is hidden: values that a lane does not see must not reach it, and
    /// 0 · inf is NaN. Slow, and only for tiles that hold NaN or infinities and of which something is hidden.
    SEQMIX_NOINLINE void add_visible_values(index p, const key_run& run, const value_source<Arch, T>& values)
    {
        for (index channel = 0; channel < value_size_; ++channel) {
            for (int vector = 0; vector < s_.panels[p].used_vectors; ++vector) {
                float* const at = s_.outputs + (p * value_size_ + channel) * columns + vector * lanes;
                f32 sum = f32::zero();
                for (index key = 0; key < run.count; ++key) {
                    const index place = key * columns + vector * lanes;
                    const f32 value = f32::broadcast(values.at(run.first + key, channel));
                    const f32 more = fma(value, f32::load(s_.scores + place), sum);
                    sum = select(f32::load(s_.visible + place) == f32::zero(), sum, more);
                }
                fma(f32::load(at), f32::load(s_.states[p].correction + vector * lanes), sum).store(at);
            }
        }
    }

    /// O · factor and the log-sum-exp to the caller's rows.
    SEQMIX_NOINLINE void finish(index p, const float (&factor)[columns], const float (&lse)[columns])
    {
        const query_panel<Arch>& panel = s_.panels[p];
        for (int vector = 0; vector < panel.used_vectors; ++vector) {
            Out* rows[lanes];
            rows_of(io_.out, panel, vector, rows);
            tile::store_columns<Arch>(s_.outputs + p * value_size_ * columns + vector * lanes, columns, value_size_,
                                      f32::load(factor + vector * lanes), rows, io_.out.stride(2));
        }
        for (int lane = 0; io_.lse && lane < columns; ++lane) {
            if (panel.head[lane] >= 0) { io_.lse(panel.head[lane], panel.row[lane]) = lse[lane]; }
        }
    }

    /// The sink of each lane, -inf for none.
    void sinks_of(index p, float (&sinks)[columns]) const
    {
        for (int lane = 0; lane < columns; ++lane) {
            const index head = s_.panels[p].head[lane];
            sinks[lane] = io_.sinks && head >= 0 ? io_.sinks(head) : minus_infinity;
        }
    }

    const head_group<T, Out>& operands() const { return io_; }
    row_scratch<Arch, T>& scratch() { return s_; }

private:
    /// Weights as words of the product: as they are, or two rows joined.
    template <int Used>
    const word* weight_words(index keys)
    {
        if constexpr (product::group == 1) {
            return s_.scores;
        } else {
            for (index key = 0; key < keys; key += 2) {
                const float* const row = s_.scores + key * columns;
                word* const to = s_.weights + key / 2 * columns;
                const bool paired = key + 1 < keys;
                simd::unroll<Used>([&](auto v) SEQMIX_INLINE_LAMBDA {
                    const f32 upper = paired ? f32::load(row + columns + v * lanes) : f32::zero();
                    simd::backend<Arch>::join_bf16(f32::load(row + v * lanes), upper).store(to + v * lanes);
                });
            }
            return s_.weights;
        }
    }

    template <class U>
    static void rows_of(const view<U, 3>& rows, const query_panel<Arch>& panel, int vector, U* (&pointers)[lanes])
    {
        for (int lane = 0; lane < lanes; ++lane) {
            const int at = vector * lanes + lane;
            pointers[lane] = panel.head[at] < 0
                                 ? nullptr
                                 : rows.data() + panel.head[at] * rows.stride(0) + panel.row[at] * rows.stride(1);
        }
    }

    const head_group<T, Out>& io_;
    const visibility& sees_;
    row_scratch<Arch, T>& s_;
    index key_size_, value_size_;
};

/// One block of query rows, `panels` panels from row `first_row` of the group, against all keys that it can see. Reads each
/// visible key and value once a panel (from memory once a block) and writes each output once.
template <class Arch, class T, class Out, class Score, class Weights>
void forward_rows(panel_block<Arch, T, Out> block, const Score& score, const Weights& weigh, index first_row, index panels)
{
    row_scratch<Arch, T>& s = block.scratch();
    const key_run seen = block.begin(first_row, panels);                 // m = -inf, l = 0, O = 0
    key_source<Arch, T> keys(block.operands().k, s.keys, panels > 1);
    value_source<Arch, T> values(block.operands().v, s.values, panels > 1);

    for (index first = seen.first / s.tile_keys * s.tile_keys; first < seen.end(); first += s.tile_keys) {
        const key_run tile = {first, seen.end() - first < s.tile_keys ? seen.end() - first : s.tile_keys};
        keys.fetch(tile);
        values.fetch(tile);
        const key_run next = {tile.end(), seen.end() - tile.end() < s.tile_keys ? seen.end() - tile.end() : s.tile_keys};
        std::optional<bool> finite;                                      // of the tile's values; asked if it matters
        for (index p = 0; p < panels; ++p) {
            const query_panel<Arch>& panel = s.panels[p];
            const key_run run = block.trimmed(tile, panel);
            if (run.count <= 0) { continue; }                            // hidden by place: not touched
            const sight look = score.prepare(panel, run, s.parts, s.part_size());
            if (look == sight::hidden) { continue; }                     // hidden by the mask: not touched
            const bool all_by_place = panel.sees_all_of(run);
            const bool careful = (!all_by_place || look == sight::mixed) &&
                                 !(finite ? *finite : *(finite = values.all_finite(tile)));

            const auto attend = [&](auto used) {
                const read_ahead<T> ahead = {block.operands().k, block.operands().v, next, p, panels};
                block.template multiply_queries<used>(p, run, keys, ahead); // S = Q Kᵀ
                if constexpr (Score::changes) { score.change(s.scores, panel, run, s.parts, s.part_size()); }
                if (!all_by_place) { hide_invisible(s.scores, panel, run); }
                if (careful) { block.note_visible(run); }
                weigh.template absorb<used>(s.scores, run.count, s.states[p]); // m', P = exp(S - m'), l' = l c + rowsum P
                careful ? block.add_visible_values(p, run, values)
                        : block.template add_values<used>(p, run, values);     // O = O c + P V
            };
            panel.used_vectors == 1 ? attend(std::integral_constant<int, 1>{})
                                    : attend(std::integral_constant<int, query_panel<Arch>::vectors>{});
        }
    }
    for (index p = 0; p < panels; ++p) {                                 // O / l, m + log l
        float sinks[query_panel<Arch>::columns], factor[query_panel<Arch>::columns], lse[query_panel<Arch>::columns];
        block.sinks_of(p, sinks);
        weigh.finish(s.states[p], sinks, factor, lse);
        block.finish(p, factor, lse);
    }
}

} // namespace attention
SEQMIX_NAMESPACE_END
