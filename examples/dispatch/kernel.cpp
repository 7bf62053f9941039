// SPDX-License-Identifier: MIT
// Compiled once per instruction set, with that set's flags and -DKERNEL_ARCH=<set>.
#include "kernel.hpp"

#include <seqmix/attention.hpp>

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

extern "C" void PASTE(attention_, KERNEL_ARCH)(const float* q, const float* k, const float* v, float* out,
                                               const attention_sizes& s)
{
    seqmix::attention::forward<seqmix::arch::KERNEL_ARCH>(
        seqmix::view(q, {s.batch, s.heads, s.len, s.dim}), seqmix::view(k, {s.batch, s.kv_heads, s.len, s.dim}),
        seqmix::view(v, {s.batch, s.kv_heads, s.len, s.dim}), seqmix::view(out, {s.batch, s.heads, s.len, s.dim}),
        {.causal = seqmix::causal::bottom_right});
}
