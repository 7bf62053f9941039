// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

// What crosses the boundary between main.cpp, compiled without -m flags, and run_arch.cpp, compiled once per
// instruction set: plain numbers, pointers and functions. examples/dispatch/README.md says why nothing else may.

namespace mamba_block {

using size = std::ptrdiff_t;

/// The tensors of a Mamba-1 block, dense, shapes and order of rows as checkpoints have them.
struct mamba1_weights {
    size model, inner, states, rank, width;
    const float* norm;        ///< [model]
    const float* in_proj;     ///< [2 inner, model]: x, z
    const float* conv_weight; ///< [inner, width]
    const float* conv_bias;   ///< [inner]
    const float* x_proj;      ///< [rank + 2 states, inner]: dt, B, C
    const float* dt_proj;     ///< [inner, rank]
    const float* dt_bias;     ///< [inner]
    const float* A_log;       ///< [inner, states]: A = -exp(A_log)
    const float* D;           ///< [inner]
    const float* out_proj;    ///< [model, inner]
};

/// And of a Mamba-2 block; heads have inner / heads channels.
struct mamba2_weights {
    size model, inner, heads, groups, states, width;
    const float* norm;        ///< [model]
    const float* in_proj;     ///< [2 inner + 2 groups states + heads, model]: z, x, B, C, dt
    const float* conv_weight; ///< [inner + 2 groups states, width]: of x, B, C
    const float* conv_bias;   ///< [inner + 2 groups states]
    const float* dt_bias;     ///< [heads]
    const float* A_log;       ///< [heads]: A = -exp(A_log)
    const float* D;           ///< [heads]
    const float* gate_norm;   ///< [inner]
    const float* out_proj;    ///< [model, inner]
};

/// In which calls a sequence goes through a block. All of them give the same output.
struct route {
    size tokens;   ///< of the sequence
    size per_call; ///< tokens that each call of forward() gets; 0: each token by step()
    size slab;     ///< tokens that forward() takes from the convolution to the scan at a time
};

struct cost {
    double seconds;           ///< of processor time, the calls alone
    std::size_t state_bytes;  ///< what is carried from call to call
    std::size_t buffer_bytes; ///< what lies between the steps of the block
};

/// Takes x [tokens, model] to out [tokens, model] by a new block. bound [tokens, model], unless null, gets how far the
/// outputs of any two routes may be apart; it asks for a route of one call and one slab. (bound.hpp)
struct backend {
    cost (*mamba1)(const mamba1_weights&, const route&, const float* x, float* out, float* bound);
    cost (*mamba2)(const mamba2_weights&, const route&, const float* x, float* out, float* bound);
};

} // namespace mamba_block
