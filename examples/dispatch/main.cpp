// SPDX-License-Identifier: MIT
// One program, several instruction sets: picks the best one that this machine runs. Compiled without any -m flag.
#include "can_run.hpp"
#include "kernel.hpp"

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <limits>
#include <vector>

namespace {

struct choice {
    const char* arch;
    attention_kernel* kernel;
};

// The best set first. Addresses only: nothing of a kernel's file runs before it is chosen.
constexpr choice choices[] = {
#if defined(HAVE_avx512_bf16)
    {"avx512_bf16", attention_avx512_bf16},
#endif
#if defined(HAVE_avx512_vnni)
    {"avx512_vnni", attention_avx512_vnni},
#endif
#if defined(HAVE_avx512)
    {"avx512", attention_avx512},
#endif
#if defined(HAVE_avx2_vnni)
    {"avx2_vnni", attention_avx2_vnni},
#endif
#if defined(HAVE_avx2)
    {"avx2", attention_avx2},
#endif
#if defined(HAVE_neon_i8mm)
    {"neon_i8mm", attention_neon_i8mm},
#endif
#if defined(HAVE_neon)
    {"neon", attention_neon},
#endif
    {"scalar", attention_scalar},
};

const choice& best()
{
    for (const choice& c : choices) {
        if (can_run(c.arch)) { return c; }
    }
    return choices[std::size(choices) - 1];
}

} // namespace

int main()
{
    const attention_sizes sizes{.batch = 1, .heads = 4, .kv_heads = 2, .len = 100, .dim = 64};
    const auto q_size = static_cast<std::size_t>(sizes.batch * sizes.heads * sizes.len * sizes.dim);
    const auto kv_size = static_cast<std::size_t>(sizes.batch * sizes.kv_heads * sizes.len * sizes.dim);
    std::vector<float> q(q_size), k(kv_size), v(kv_size), expected(q_size), out(q_size);
    auto fill = [state = 1u](std::vector<float>& values) mutable {
        for (float& x : values) {
            state = state * 1664525u + 1013904223u;
            x = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
        }
    };
    fill(q);
    fill(k);
    fill(v);

    std::printf("chosen: %s\n", best().arch);
    best().kernel(q.data(), k.data(), v.data(), out.data(), sizes);

    attention_scalar(q.data(), k.data(), v.data(), expected.data(), sizes);
    float worst = 0;
    for (std::size_t i = 0; i < q_size; ++i) { worst = std::fmax(worst, std::fabs(out[i] - expected[i])); }
    std::printf("largest difference from scalar: %g\n", static_cast<double>(worst));
    // |v| <= 1, and each of the two sums of dim and len products errs by an ulp per term at most.
    return worst <= static_cast<float>(sizes.dim + sizes.len) * std::numeric_limits<float>::epsilon() ? 0 : 1;
}
