// SPDX-License-Identifier: MIT
// One small attention problem through the public door, compiled with different flags into one program. Static functions
// and plain arrays only: whatever this file shares with its twins must come from seqmix.
#include <seqmix/attention.hpp>

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

namespace {

constexpr int len = 7, dim = 5;

// Every query is zero, so all visible keys weigh the same: row i is the mean of v's rows 0 to i.
bool mean_of_visible_rows()
{
    float q[len * dim] = {}, k[len * dim], v[len * dim], out[len * dim];
    for (int i = 0; i < len * dim; ++i) {
        k[i] = static_cast<float>(i % 3);
        v[i] = static_cast<float>((i * 7) % 11);
        out[i] = -1;
    }
    seqmix::attention::forward(seqmix::view(q, {1, 1, len, dim}), seqmix::view(k, {1, 1, len, dim}),
                               seqmix::view(v, {1, 1, len, dim}), seqmix::view(out, {1, 1, len, dim}),
                               {.causal = seqmix::causal::bottom_right});
    for (int d = 0; d < dim; ++d) {
        float sum = 0;
        for (int i = 0; i < len; ++i) {
            sum += v[i * dim + d]; // whole numbers: exact
            const float error = out[i * dim + d] - sum / static_cast<float>(i + 1);
            // Values up to 10, at most `len` of them summed: 10 * len ulps.
            if (!(error < 10 * len * 1.2e-7f && error > -10 * len * 1.2e-7f)) { return false; }
        }
    }
    return true;
}

} // namespace

extern "C" bool PASTE(link_order_, SEQMIX_TEST_ARCH)() { return mean_of_visible_rows(); }
