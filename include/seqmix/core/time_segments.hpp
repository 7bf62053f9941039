// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/state_ends.hpp>

SEQMIX_NAMESPACE_BEGIN

/// Runs `tasks` linear recurrences through time, each cut into so many segments of time that workers share: the recurrence being
/// linear, what a segment leaves is what it leaves from zeros, plus what it began with, decayed. (The state-passing identity; Dao & Gu
/// 2024, section 6.) Every segment but the first runs twice. Results depend on the number of segments, not on workers.
///
/// on_task(task, memory, body) sets a recurrence up in `scratch_bytes` of memory and calls body(recurrence, tokens, ends), or does
/// nothing where there are no tokens. A recurrence has start_from_zero, load_state and store_state (state_ends); run(first, last);
/// run_states(first, last), the same without outputs, after which carry() are `carried` floats: the state, and what
/// add_decayed(carry of the segment before) takes to add to it what is left of that one's.
template <class OnTask>
void run_in_segments(const context_ref& ctx, index tasks, index segments, index carried, std::size_t scratch_bytes, const OnTask& on_task)
{
    if (segments <= 1) {
        ctx.for_each(tasks, scratch_bytes, [&](index task, std::byte* memory) {
            on_task(task, memory, [](auto& one, index tokens, const auto& ends) {
                load_initial(one, ends);
                one.run(0, tokens);
                store_final(one, ends);
            });
        });
        return;
    }
    // What every segment leaves if it begins with zeros (the first begins as it should, and is done with); from these, in order,
    // what stands at the borders; then every other segment with outputs.
    const std::size_t shared = static_cast<std::size_t>(tasks * segments * carried) * sizeof(float);
    ctx.in_phases(tasks * segments, scratch_bytes, shared, [&](std::byte* memory, const auto& phase) {
        const auto border = [&](index task, index segment) {
            return reinterpret_cast<float*>(memory) + (task * segments + segment) * carried;
        };
        const auto copy = [&](const float* from, float* to) {
            for (index i = 0; i < carried; ++i) { to[i] = from[i]; }
        };
        const auto begin = [&](index tokens, index segment) { return tokens / segments * segment + smaller(tokens % segments, segment); };
        phase(tasks * segments, [&](index at, std::byte* own) {
            const index task = at / segments, segment = at % segments;
            on_task(task, own, [&](auto& one, index tokens, const auto& ends) {
                if (segment == 0) {
                    load_initial(one, ends);
                    one.run(0, begin(tokens, 1));
                } else {
                    one.start_from_zero();
                    one.run_states(begin(tokens, segment), begin(tokens, segment + 1));
                }
                copy(one.carry(), border(task, segment));
            });
        });
        phase(tasks, [&](index task, std::byte* own) {
            on_task(task, own, [&](auto& one, index tokens, const auto&) {
                for (index segment = 1; segment < segments; ++segment) {
                    const bool empty = begin(tokens, segment) == begin(tokens, segment + 1);
                    copy(border(task, segment), one.carry());
                    if (!empty) { one.add_decayed(border(task, segment - 1)); }
                    copy(empty ? border(task, segment - 1) : one.carry(), border(task, segment));
                }
            });
        });
        phase(tasks * (segments - 1), [&](index at, std::byte* own) {
            const index task = at / (segments - 1), segment = at % (segments - 1) + 1;
            on_task(task, own, [&](auto& one, index tokens, const auto& ends) {
                copy(border(task, segment - 1), one.carry());
                one.run(begin(tokens, segment), begin(tokens, segment + 1));
                if (segment == segments - 1) { store_final(one, ends); }
            });
        });
    });
}

SEQMIX_NAMESPACE_END
