// SPDX-License-Identifier: MIT
// Both blocks, compiled once per instruction set with its flags and -DSEQMIX_MAMBA_ARCH=<set>.
#include "bound.hpp"
#include "kernel.hpp"
#include "mamba1.hpp"
#include "mamba2.hpp"

#include <algorithm>
#include <ctime>

namespace {

using namespace mamba_block;
using sm::index; // not the one of <strings.h>
using arch = sm::arch::SEQMIX_MAMBA_ARCH;

template <class Block, class Weights>
cost run(const Weights& weights, const route& how, const float* x, float* out, float* bound)
{
    Block block(weights);
    block.reserve(std::max(how.per_call, size{1}), how.slab); // fresh memory costs the first who touches it
    const const_matrix input(x, {how.tokens, weights.model});
    const matrix output(out, {how.tokens, weights.model});
    const std::clock_t start = std::clock(); // of this one thread's work, whatever else the machine does
    if (how.per_call == 0) {
        for (index t = 0; t < how.tokens; ++t) { block.step(rows(input, t, t + 1), rows(output, t, t + 1)); }
    } else {
        for (index from = 0; from < how.tokens; from += how.per_call) {
            const index to = std::min(from + how.per_call, how.tokens);
            block.forward(rows(input, from, to), rows(output, from, to), how.slab);
        }
    }
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    if (bound != nullptr) { bound_difference(block, matrix(bound, {how.tokens, weights.model})); }
    return {seconds, block.state_bytes(), block.buffer_bytes()};
}

} // namespace

#define MAMBA_PASTE_(a, b) a##b
#define MAMBA_PASTE(a, b) MAMBA_PASTE_(a, b)

extern const mamba_block::backend MAMBA_PASTE(mamba_block_, SEQMIX_MAMBA_ARCH);
const mamba_block::backend MAMBA_PASTE(mamba_block_, SEQMIX_MAMBA_ARCH) = {run<mamba1<arch>, mamba1_weights>,
                                                                           run<mamba2<arch>, mamba2_weights>};
