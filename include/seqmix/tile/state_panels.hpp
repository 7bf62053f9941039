// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/block.hpp>
#include <seqmix/tile/chunk_products.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// A state [rows, columns] as chunk_products wants it: panels of panel_width columns one after another, each of whole register tiles of
/// rows. The states of several heads stand one after another.
template <class Arch>
struct state_panels {
    static constexpr index width = panel_width<Arch>, lanes = simd::lanes<Arch>;

    index rows, columns;

    index panels() const { return (columns + width - 1) / width; }
    /// Columns of panel p.
    index live(index p) const { return smaller(width, columns - p * width); }
    /// Floats of one panel, and of one state.
    index panel() const
    {
        constexpr index of = small_blocking<Arch>::rows;
        return (rows + of - 1) / of * of * width;
    }
    index floats() const { return panels() * panel(); }
    float* at(float* states, index head, index p) const { return states + head * floats() + p * panel(); }

    void clear(float* states, index heads) const
    {
        for (index i = 0; i < heads * floats(); ++i) { states[i] = 0.0f; }
    }
    /// [heads, rows, columns]
    template <class State>
    void load(const view<State, 3>& from, float* states) const
    {
        for_panels(from, [&](const block<State>& panel, index head, index p) {
            load_block<Arch>(panel, lane_groups{at(states, head, p), width, lanes});
        });
    }
    template <class State>
    void store(float* states, const view<State, 3>& to) const
    {
        for_panels(to, [&](const block<State>& panel, index head, index p) {
            store_block<Arch>(lane_groups{at(states, head, p), width, lanes}, panel);
        });
    }

private:
    template <class State, class Body>
    void for_panels(const view<State, 3>& states, const Body& body) const
    {
        for (index head = 0; head < states.extent(0); ++head) {
            const view<State, 2> one = states[head];
            for (index p = 0; p < panels(); ++p) {
                body(block<State>{one.data() + p * width * one.stride(1), one.stride(0), one.stride(1), rows, live(p)}, head, p);
            }
        }
    }
};

} // namespace tile
SEQMIX_NAMESPACE_END
