// SPDX-License-Identifier: MIT
#pragma once

#include "row.hpp"

// For files that are compiled once per instruction set, with -DSEQMIX_BENCH_ARCH=<set>. All that they define stands in
// a namespace of that name, or two sets would define the same function.

namespace bench::SEQMIX_BENCH_ARCH {

/// The call of an object with a member run().
template <class State>
call call_of(State* state)
{
    return {state, [](void* s) { static_cast<State*>(s)->run(); }, [](void* s) { delete static_cast<State*>(s); }};
}

/// The workers of seqmix::parallel_for: the bench's own threads.
struct threads {
    template <class Body>
    void operator()(int count, const Body& body) const
    {
        Body copy = body;
        spread(
            count, [](void* b, int worker) { (*static_cast<Body*>(b))(worker); }, &copy);
    }
};

/// The table of a family: one row per case.
template <int Count>
struct table {
    row rows[Count];
};

template <class Case, int Count>
constexpr table<Count> tabulate(const Case (&cases)[Count], row (*row_of)(const Case&))
{
    table<Count> all{};
    for (int i = 0; i < Count; ++i) { all.rows[i] = row_of(cases[i]); }
    return all;
}

} // namespace bench::SEQMIX_BENCH_ARCH
