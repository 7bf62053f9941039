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

/// Causal depthwise convolution: operands x, weight [channels, width], then bias and state [batch, channels, width - 1]
/// where the problem has them, out. x and out lie as [batch, channels, length], or as [batch, length, channels] with
/// `channels_inside`. `steps`: token by token, of which there is one, the state kept between runs.
struct conv1d_problem {
    element type = element::f32;
    std::int64_t batch = 1, channels = 2048, length = 4096, width = 4;
    bool channels_inside = false;
    bool silu = false; ///< and bias
    bool steps = false;
    bool state_rows = false; ///< the state lies as [batch, width - 1, channels]
};

enum class function { exp2, exp, log, tanh };

/// y = f(x)
struct map_problem {
    function f;
    std::int64_t count;
};

enum class lti_kind { s4d, s4d_step, s4d_kernel, lru, lmu };

/// A linear time-invariant state space. Operands u, out: [B, D, L] (S4D; or [B, L, D] with `channel_last`; the kernel has out
/// alone, [D, L]), [B, L, N] of complex numbers (LRU), [B, D, L] and [B, D, L, N] (Legendre memory, of order N). Layers are
/// made in place.
struct lti_problem {
    lti_kind what = lti_kind::s4d;
    element type = element::f32;
    std::int64_t batch = 1, channels = 512, length = 2048, states = 32;
    bool channel_last = false;
};

/// The selective scan. Operands u, delta, z [B, D, L] (or [B, L, D] with `channels_inside`), B, C [B, 1, N, L] (or [B, L, 1, N]), A
/// [D, N], skip, bias [D], out as u. With `step`: one token, whose state is kept between runs.
struct scan_problem {
    element type = element::f32;
    std::int64_t batch = 1, channels = 2048, length = 2048, states = 16;
    bool channels_inside = false;
    bool step = false;
};

/// State-space duality. Operands x [B, L, H, P], dt [B, L, H], A [H], B, C [B, L, 1, N], out as x. With `step`: one token, whose
/// state is kept between runs.
struct ssd_problem {
    element type = element::f32;
    std::int64_t batch = 1, length = 2048, heads = 32, channels = 64, states = 128;
    bool step = false;
};

/// A causal long convolution. Operands u [channels, length], kernels [channels, taps], out as u. With `of_parts`, only the first of so many parts of
/// the spectra is kept.
struct long_conv_problem {
    std::int64_t channels = 4096, length = 1024, taps = 1024;
    std::int64_t of_parts = 0;
};

/// A causal convolution of images. Operands u [channels, height, width], kernels [channels, rows, columns], out as u.
struct image_problem {
    std::int64_t channels = 64, height = 128, width = 128, rows = 128, columns = 128;
};

/// HGRN (two inputs: x, g) and the MatMul-free LM's unit (three: candidate, forget, gate), then out; all [B, L, D], or [B, D, L] with
/// `time_inside`. With `step`: one token, whose state is kept between runs. `segments` pieces of time are shared by `threads`.
struct hgrn_problem {
    element type = element::f32;
    std::int64_t inputs = 2, batch = 1, channels = 2048, length = 4096;
    bool time_inside = false;
    bool step = false;
    std::int64_t segments = 1;
    int threads = 1;
};

/// Test-time training of a SwiGLU network with `hidden` units, keys and values of `dim` channels each, one head. Operands q, k, v [L, dim],
/// rates [L] and weights, W0, W1, W2 one after another, to be scaled as training_inputs does; out as v.
struct training_problem {
    element type = element::f32;
    std::int64_t length = 8192, dim = 512, hidden = 512, chunk = 2048;
    int threads = 1;
};

/// Products of levels of butterflies, strides 1, 2, 4, … Operands x [batch, size], factors [log2 size, size / 2, 2, 2], out as x.
struct butterfly_problem {
    std::int64_t batch = 256, size = 1024;
};

/// The product with a Monarch matrix. Operands x [batch, k p], w1 [k, q, p], w2 [l, s, r], out [batch, l s].
struct monarch_problem {
    std::int64_t batch = 256, k = 32, q = 32, p = 32, l = 32, s = 32, r = 32;
};

} // namespace bench
