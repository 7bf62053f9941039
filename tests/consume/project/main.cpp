// SPDX-License-Identifier: MIT
// What a user writes first. Built four ways by `run`.
#include <seqmix/attention.hpp>
#include <seqmix/version.hpp>

#include <cstdio>
#include <vector>

int main()
{
    const int heads = 2, len = 33, dim = 16;
    std::vector<float> q(heads * len * dim, 0.0f), k(q), v(heads * len * dim, 1.0f), out(q);
    seqmix::attention::forward(
        seqmix::view(q.data(), {1, heads, len, dim}), seqmix::view(k.data(), {1, heads, len, dim}),
        seqmix::view(v.data(), {1, heads, len, dim}), seqmix::view(out.data(), {1, heads, len, dim}),
        {.causal = seqmix::causal::bottom_right});
    // The mean of ones is one, up to the rounding of a sum of len terms.
    for (float x : out) {
        if (!(x > 1 - len * 1.2e-7f && x < 1 + len * 1.2e-7f)) { return 1; }
    }
    std::puts("seqmix " SEQMIX_VERSION_STRING);
}
