// SPDX-License-Identifier: MIT
#pragma once

#include "row.hpp"

// What the kernels and their peers are asked to do. Plain structs, for the same reason as in row.hpp.

namespace bench {

/// Operands q, k, v, slopes (if alibi), out; contiguous [B, H, L, D], or [B, L, H, D] with `heads_inside`.
struct attention_problem {
    element type = element::f32;
    std::int64_t batch = 1, heads = 8, kv_heads = 8, queries = 2048, keys = 2048, dim = 128;
    bool causal = false; ///< bottom right
    std::int64_t window_left = -1;
    float softcap = 0;
    bool alibi = false;
    bool heads_inside = false;
    int threads = 1;
};

/// c [m, n] = a [m, k] b [k, n]; c is f32, or s32 for s8.
struct gemm_problem {
    element type;
    std::int64_t m, n, k;
};

enum class function { exp2, exp, log, tanh };

/// y = f(x)
struct map_problem {
    function f;
    std::int64_t count;
};

} // namespace bench
