// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/state.hpp>

SEQMIX_NAMESPACE_BEGIN

/// Where the states of one sequence begin and end.
template <std::size_t Rank>
struct state_ends {
    const_state_view<Rank> initial; ///< null: see final
    state_view<Rank> final;         ///< null: from zeros, and not kept
};

template <class Scan, std::size_t Rank>
void load_initial(Scan& scan, const state_ends<Rank>& ends)
{
    scan.start_from_zero();
    const const_state_view<Rank> from = ends.initial ? ends.initial : const_state_view<Rank>(ends.final);
    if (from) { from.visit([&](const auto& stored) { scan.load_state(stored); }); }
}

template <class Scan, std::size_t Rank>
void store_final(const Scan& scan, const state_ends<Rank>& ends)
{
    if (ends.final) { ends.final.visit([&](const auto& to) { scan.store_state(to); }); }
}

SEQMIX_NAMESPACE_END
