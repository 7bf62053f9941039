// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/attention/visible.hpp>
#include <seqmix/tile/memory.hpp>

#include <limits>

// Queries stand in lanes: a panel is a few registers wide and holds one query row a lane, from one or several heads of the
// group that shares a key/value head. Scores are kept as Sᵀ (a row a key), outputs as Oᵀ (a row a channel). So keys and
// values are the broadcast operand of both products and are used where they stand in user memory; row maxima and row sums
// are registers without any sum across lanes; and each lane's arithmetic is the same whatever its neighbours are, which is
// why results don't depend on how many queries come at once, on the batch, or on threads.

SEQMIX_NAMESPACE_BEGIN
namespace attention {

inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// A run of keys [first, first + count), all within one tile of the fixed key grid.
struct key_run {
    index first;
    index count;
    index end() const { return first + count; }
};

/// What one part of a score says of a run of keys before anything of it has been read.
enum class sight {
    hidden,  ///< no query of the panel sees any of them: the run is skipped
    visible, ///< every query sees all of them
    mixed,   ///< it must be asked score by score
};

template <class Arch>
struct query_panel {
    static constexpr int columns = tile::blocking<Arch>::columns;
    static constexpr int vectors = tile::blocking<Arch>::vectors;

    index batch;         ///< batch item, or number of the packed sequence
    index head[columns]; ///< query head of the lane; negative: the lane is empty
    index row[columns];
    index position[columns];
    index first[columns], last[columns]; ///< keys that the lane's place lets it see
    index any_first, any_last;           ///< keys that some lane sees lie in here
    index all_first, all_last;           ///< keys that every lane sees
    int used_vectors;                    ///< registers that hold at least one query

    /// Lanes for `columns` rows from `first_row` of the group's rows; `rows_per_head` rows belong to each head, of which
    /// the first `queries` exist.
    void place(index first_row, index first_head, index heads, index rows_per_head, index queries, const visibility& sees)
    {
        constexpr index far = std::numeric_limits<index>::max();
        any_first = far, any_last = -1, all_first = 0, all_last = far, used_vectors = 0;
        for (int lane = 0; lane < columns; ++lane) {
            const index at = first_row + lane;
            const index member = at / rows_per_head;
            row[lane] = at % rows_per_head;
            const bool live = member < heads && row[lane] < queries;
            head[lane] = live ? first_head + member : -1;
            position[lane] = live ? sees.position(row[lane]) : 0;
            const key_interval keys = live ? sees.of(row[lane]) : key_interval{0, -1};
            first[lane] = keys.first, last[lane] = keys.last;
            if (!live) { continue; }
            used_vectors = lane / simd::lanes<Arch> + 1;
            all_first = keys.first > all_first ? keys.first : all_first;
            all_last = keys.last < all_last ? keys.last : all_last;
            if (keys.last < keys.first) { continue; }
            any_first = keys.first < any_first ? keys.first : any_first;
            any_last = keys.last > any_last ? keys.last : any_last;
        }
    }

    bool sees_all_of(const key_run& keys) const { return all_first <= keys.first && keys.end() - 1 <= all_last; }
};

/// Where a register of scores stands: for the parts of a score.
template <class Arch>
struct score_place {
    const query_panel<Arch>& panel;
    int vector;         ///< which register of the panel
    index key;          ///< absolute
    index step;         ///< key, counted from the first of the run
    const float* tile;  ///< the part's prepared tile, run's keys x panel's columns; null if it prepares none

    SEQMIX_INLINE simd::f32<Arch> prepared() const
    {
        return simd::f32<Arch>::load(tile + step * query_panel<Arch>::columns + vector * simd::lanes<Arch>);
    }
};

} // namespace attention
SEQMIX_NAMESPACE_END
