// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

// What crosses the boundary between files compiled with different flags: pointers, sizes and plain functions. A seqmix
// type can't (the linker would not find the function), and a std:: container should not: its inline functions may be
// compiled with instructions that the other side does not have.

struct attention_sizes {
    std::ptrdiff_t batch, heads, kv_heads, len, dim;
};

/// q and out: batch x heads x len x dim, k and v: batch x kv_heads x len x dim, all contiguous; causal.
using attention_kernel = void(const float* q, const float* k, const float* v, float* out, const attention_sizes& sizes);

extern "C" {
attention_kernel attention_scalar;
attention_kernel attention_avx2;
attention_kernel attention_avx2_vnni;
attention_kernel attention_avx512;
attention_kernel attention_avx512_vnni;
attention_kernel attention_avx512_bf16;
attention_kernel attention_neon;
attention_kernel attention_neon_i8mm;
}
