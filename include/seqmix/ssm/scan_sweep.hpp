// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/math.hpp>
#include <seqmix/tile/block.hpp>

// The innermost loop of the selective scan: some states of one register of channels through a tile of tokens.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// The state of a block of channels, as the sweeps have it: for each register of channels, for each state, one register.
template <class Arch>
struct lane_states {
    float* data;
    index states;
    SEQMIX_INLINE float* at(index group, index state) const { return data + (group * states + state) * simd::lanes<Arch>; }
};

/// The lines that the next tile has for a register of channels, asked for while this one is computed: channels stand a page
/// apart, or tokens do, and hardware foresees neither.
template <class Arch>
struct read_ahead {
    static constexpr int most_streams = 4;
    tile::block_lines<Arch> stream[most_streams];
    index rows = 0;
    tile::block_lines<Arch> B = {}, C = {}; ///< of the same tokens of the next slab: as many streams as there are states
    index coefficient_rows = 0;

    SEQMIX_INLINE void operator()(index row)
    {
        if (row < rows) {
            simd::unroll<most_streams>([&](auto i) SEQMIX_INLINE_LAMBDA { stream[i].ask_for(row); });
        }
        if (row < coefficient_rows) { B.ask_for(row), C.ask_for(row); }
    }
};

/// What the sweeps of one register of channels read and write in a tile. (Loops copy it: the compiler must think that a store
/// of a register may change what a pointer points at, and would read it anew for every token.)
template <class Arch>
struct scan_tile {
    const float *step, *input;
    float *output, *power;
    const float *B, *C;
    index tokens, states_stride;
    read_ahead<Arch> ahead;
};

/// h = 2^(delta A) h + (delta u) B for |delta A| <= 125, where A has been multiplied by log2(e).
struct bounded_decay {
    template <class V>
    static SEQMIX_INLINE V step(V dt, V a, V h, V add)
    {
        return simd::decay_and_add(dt, a, h, add);
    }
};
/// The same for any numbers, and with the same bits where the other is right: which of the two computes a tile depends on what
/// else is in it.
struct any_decay {
    template <class V>
    static SEQMIX_INLINE V step(V dt, V a, V h, V add)
    {
        const V x = dt * a;
        return select(abs(x) <= V::broadcast(125.0f), simd::decay_and_add(dt, a, h, add), fma(simd::exp2(x), h, add));
    }
};

/// `States` states of one register of channels through a tile; they stay in registers. Per token and state: the exponential,
/// a product and two multiply-adds, two broadcasts of B and C. (Gu & Dao 2023, equation 2)
template <class Arch, int States, class Decay>
SEQMIX_NOINLINE void sweep(const scan_tile<Arch>& tile, float* h, const float* a, index first_state)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    f32 state[States];
    simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA { state[n] = f32::load(h + n * lanes); });
    scan_tile<Arch> at = tile;
    const float *B = at.B + first_state, *C = at.C + first_state;
    for (index t = 0; t < at.tokens; ++t, B += at.states_stride, C += at.states_stride) {
        const f32 dt = f32::load(at.step + t * lanes), x = f32::load(at.input + t * lanes);
        f32 y = f32::load(at.output + t * lanes);
        simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA {
            state[n] = Decay::step(dt, f32::load(a + n * lanes), state[n], x * f32::broadcast(B[n]));
            y = fma(state[n], f32::broadcast(C[n]), y);
        });
        y.store(at.output + t * lanes);
        at.ahead(t);
    }
    simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA { state[n].store(h + n * lanes); });
}

/// The same where A[d, n] = -(n + 1): e^(delta A_n) is the (n + 1)-th power of e^-delta, which stands in `step`. Four chains
/// of products, each by the fourth power, so that none is long.
template <class Arch, int States>
SEQMIX_NOINLINE void sweep_powers(const scan_tile<Arch>& tile, float* h, index first_state)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes, chains = States < 4 ? States : 4;
    f32 state[States];
    simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA { state[n] = f32::load(h + n * lanes); });
    scan_tile<Arch> at = tile;
    const float *B = at.B + first_state, *C = at.C + first_state;
    for (index t = 0; t < at.tokens; ++t, B += at.states_stride, C += at.states_stride) {
        const f32 decay = f32::load(at.step + t * lanes), x = f32::load(at.input + t * lanes);
        f32 power[chains];
        power[0] = f32::load(at.power + t * lanes) * decay;
        simd::unroll<chains - 1>([&](auto i) SEQMIX_INLINE_LAMBDA { power[i + 1] = power[i] * decay; });
        const f32 square = decay * decay, fourth = square * square;
        f32 y = f32::load(at.output + t * lanes);
        simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA {
            constexpr int chain = n % chains;
            if constexpr (n >= chains) { power[chain] = power[chain] * fourth; }
            state[n] = fma(power[chain], state[n], x * f32::broadcast(B[n]));
            y = fma(state[n], f32::broadcast(C[n]), y);
        });
        y.store(at.output + t * lanes);
        power[(States - 1) % chains].store(at.power + t * lanes);
        at.ahead(t);
    }
    simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA { state[n].store(h + n * lanes); });
}

} // namespace ssm
SEQMIX_NAMESPACE_END
