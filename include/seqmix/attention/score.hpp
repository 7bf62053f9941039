// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/attention/panel.hpp>
#include <seqmix/simd/math.hpp>

#include <tuple>

// What happens to a score between the product of query and key and the exponential: a list of parts, each a small type
// that answers two questions. `prepare` says what a run of keys looks like to a panel of queries before anything of it is
// read (and may lay out a tile of its own); `apply` changes one register of scores. A part of the caller's goes to
// attention::forward_with in the same way.

SEQMIX_NAMESPACE_BEGIN
namespace attention {

/// c · tanh(score / c) (Gemma 2).
struct softcapped {
    static constexpr bool prepares_tile = false;
    float cap;

    template <class Arch>
    sight prepare(const query_panel<Arch>&, const key_run&, float*) const
    {
        return sight::visible;
    }
    template <class Arch>
    SEQMIX_INLINE simd::f32<Arch> apply(simd::f32<Arch> score, const score_place<Arch>&) const
    {
        using f32 = simd::f32<Arch>;
        if (!(cap > 0.0f)) { return score; }
        return f32::broadcast(cap) * simd::tanh(score * f32::broadcast(1.0f / cap));
    }
};

/// -slope · |i - j|, a slope for each head (Press et al. 2022, "Train Short, Test Long"). Distances are exact to 2^24.
struct linear_biased {
    static constexpr bool prepares_tile = true; // one row: the slope of each lane, then its position
    view<const float, 1> slopes;

    template <class Arch>
    sight prepare(const query_panel<Arch>& panel, const key_run& keys, float* tile) const
    {
        constexpr int columns = query_panel<Arch>::columns;
        for (int lane = 0; slopes && lane < columns; ++lane) {
            tile[lane] = panel.head[lane] < 0 ? 0.0f : slopes(panel.head[lane]);
            tile[columns + lane] = static_cast<float>(panel.position[lane] - keys.first);
        }
        return sight::visible;
    }
    template <class Arch>
    SEQMIX_INLINE simd::f32<Arch> apply(simd::f32<Arch> score, const score_place<Arch>& at) const
    {
        using f32 = simd::f32<Arch>;
        if (!slopes) { return score; }
        const float* lane = at.tile + at.vector * f32::lanes;
        const f32 distance = f32::load(lane + query_panel<Arch>::columns) - f32::broadcast(static_cast<float>(at.step));
        return fnma(f32::load(lane), abs(distance), score);
    }
};

/// Additive bias and bool mask, read once a tile and turned to stand as scores do.
struct biased_and_masked {
    static constexpr bool prepares_tile = true;
    broadcast_view<const float, 4> bias;
    broadcast_view<const bool, 4> mask;

    template <class Arch>
    sight prepare(const query_panel<Arch>& panel, const key_run& keys, float* tile) const
    {
        if (!bias && !mask) { return sight::visible; }
        bool any_kept = false;
        for (int vector = 0; vector < panel.used_vectors; ++vector) {
            float* const columns = tile + vector * simd::lanes<Arch>;
            if (bias) {
                turn<Arch>(bias, panel, vector, keys, columns);
            } else {
                fill<Arch>(columns, keys.count, 0.0f);
            }
            if (mask) { any_kept = hide<Arch>(panel, vector, keys, columns) || any_kept; }
        }
        return mask && !any_kept ? sight::hidden : sight::mixed;
    }
    template <class Arch>
    SEQMIX_INLINE simd::f32<Arch> apply(simd::f32<Arch> score, const score_place<Arch>& at) const
    {
        using f32 = simd::f32<Arch>;
        if (!bias && !mask) { return score; }
        const f32 hidden = f32::broadcast(minus_infinity);
        const f32 added = at.prepared();
        return select(added == hidden, hidden, score + added); // a hidden score may be NaN, and stays hidden
    }

private:
    template <class Arch>
    static void fill(float* columns, index count, float value)
    {
        for (index key = 0; key < count; ++key) {
            simd::f32<Arch>::broadcast(value).store(columns + key * query_panel<Arch>::columns);
        }
    }

    /// Row pointers of one register's lanes into a broadcast operand at the run's first key.
    template <class Arch, class T>
    void rows_of(const broadcast_view<const T, 4>& operand, const query_panel<Arch>& panel, int vector, index key,
                 const T* (&rows)[simd::lanes<Arch>]) const
    {
        for (int lane = 0; lane < simd::lanes<Arch>; ++lane) {
            const int at = vector * simd::lanes<Arch> + lane;
            rows[lane] = panel.head[at] < 0 ? nullptr
                                            : operand.data() + panel.batch * operand.stride(0) +
                                                  panel.head[at] * operand.stride(1) + panel.row[at] * operand.stride(2) +
                                                  key * operand.stride(3);
        }
    }

    template <class Arch>
    void turn(const broadcast_view<const float, 4>& operand, const query_panel<Arch>& panel, int vector,
              const key_run& keys, float* columns) const
    {
        const float* rows[simd::lanes<Arch>];
        rows_of<Arch>(operand, panel, vector, keys.first, rows);
        tile::load_columns<Arch>(rows, operand.stride(3), keys.count, columns, query_panel<Arch>::columns);
    }

    /// Puts -inf where the mask is false; says whether anything is kept.
    template <class Arch>
    bool hide(const query_panel<Arch>& panel, int vector, const key_run& keys, float* columns) const
    {
        const bool* rows[simd::lanes<Arch>];
        rows_of<Arch>(mask, panel, vector, keys.first, rows);
        bool any_kept = false;
        for (int lane = 0; lane < simd::lanes<Arch>; ++lane) {
            if (rows[lane] == nullptr) { continue; }
            for (index key = 0; key < keys.count; ++key) {
                const bool kept = rows[lane][key * mask.stride(3)];
                any_kept = any_kept || kept;
                if (!kept) { columns[key * query_panel<Arch>::columns + lane] = minus_infinity; }
            }
        }
        return any_kept;
    }
};

/// A score: scale · q·k, then the parts in order. With no parts it is the product itself, and the scale is left to the
/// exponential, which takes it for nothing.
template <class... Parts>
struct score {
    static constexpr bool changes = sizeof...(Parts) > 0;
    static constexpr int tiles = (0 + ... + (Parts::prepares_tile ? 1 : 0));

    float scale;
    std::tuple<Parts...> parts;

    /// Asks every part about a run; prepared tiles stand one after another, `tile_size` floats each.
    template <class Arch>
    sight prepare(const query_panel<Arch>& panel, const key_run& keys, float* tiles_of_parts, index tile_size) const
    {
        sight all = sight::visible;
        int used = 0;
        const auto ask = [&](const auto& part) {
            const sight one = part.prepare(panel, keys, tiles_of_parts + used * tile_size);
            used += part.prepares_tile ? 1 : 0;
            if (one == sight::hidden || (one == sight::mixed && all == sight::visible)) { all = one; }
            return one != sight::hidden;
        };
        std::apply([&](const auto&... part) { static_cast<void>((ask(part) && ...)); }, parts);
        return all;
    }

    /// scores(key, lane) := parts(scale · scores(key, lane)) for one run.
    template <class Arch>
    SEQMIX_NOINLINE void change(float* scores, const query_panel<Arch>& panel, const key_run& keys, const float* tiles_of_parts,
                index tile_size) const
    {
        using f32 = simd::f32<Arch>;
        const f32 factor = f32::broadcast(scale);
        for (index step = 0; step < keys.count; ++step) {
            for (int vector = 0; vector < panel.used_vectors; ++vector) {
                float* const at = scores + step * query_panel<Arch>::columns + vector * f32::lanes;
                f32 s = f32::load(at) * factor;
                int used = 0;
                const auto apply = [&](const auto& part) SEQMIX_INLINE_LAMBDA {
                    s = part.apply(s, score_place<Arch>{panel, vector, keys.first + step, step, tiles_of_parts + used * tile_size});
                    used += part.prepares_tile ? 1 : 0;
                };
                std::apply([&](const auto&... part) SEQMIX_INLINE_LAMBDA { (apply(part), ...); }, parts);
                s.store(at);
            }
        }
    }
};

/// Puts -inf where a lane's place doesn't let it see the key.
template <class Arch>
SEQMIX_NOINLINE void hide_invisible(float* scores, const query_panel<Arch>& panel, const key_run& keys)
{
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    const f32 hidden = f32::broadcast(minus_infinity);
    for (int vector = 0; vector < panel.used_vectors; ++vector) {
        std::int32_t first[f32::lanes], last[f32::lanes];
        for (int lane = 0; lane < f32::lanes; ++lane) { // ends relative to the run, clamped to it
            const index from = panel.first[vector * f32::lanes + lane] - keys.first;
            const index to = panel.last[vector * f32::lanes + lane] - keys.first;
            first[lane] = static_cast<std::int32_t>(from < 0 ? 0 : from > keys.count ? keys.count : from);
            last[lane] = static_cast<std::int32_t>(to < -1 ? -1 : to > keys.count ? keys.count : to);
        }
        const i32 from = i32::load(first), to = i32::load(last);
        float* at = scores + vector * f32::lanes;
        for (index step = 0; step < keys.count; ++step, at += query_panel<Arch>::columns) {
            const i32 key = i32::broadcast(static_cast<std::int32_t>(step));
            select((key < from) | (to < key), hidden, f32::load(at)).store(at);
        }
    }
}

} // namespace attention
SEQMIX_NAMESPACE_END
