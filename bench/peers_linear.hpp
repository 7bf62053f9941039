// SPDX-License-Identifier: MIT
#pragma once

#include "problems.hpp"

#include <cstddef>
#include <vector>

// Linear attention as others ship it for CPUs: loops token by token, vectorised over the value channels by the compiler.

namespace bench {

enum class linear_rule { retention, simple_gla, gla, gated_delta };

/// Linear attention of `heads` heads of `dim` key and value channels. Operands q, k, v [B, L, H, D]; log decays [H], [B, L,
/// H] or [B, L, H, D], and weights of the delta rule [B, L, H], to be scaled as linear_inputs does; out as v. With `step`:
/// one token, and the state [B, H, D, D], kept between runs, before out.
struct linear_problem {
    linear_rule rule = linear_rule::gla;
    element type = element::f32;
    std::int64_t batch = 1, length = 2048, heads = 16, dim = 128;
    bool step = false;
    int threads = 1;
};

constexpr std::int64_t linear_tokens(const linear_problem& p) { return p.batch * p.length * p.heads; }
constexpr std::int64_t linear_decays(const linear_problem& p)
{
    return p.rule == linear_rule::retention ? p.heads : linear_tokens(p) * (p.rule == linear_rule::gla ? p.dim : 1);
}

namespace SEQMIX_BENCH_ARCH {

/// Operands in the ranges that layers give them: keys of about unit length, log decays in (-0.1, 0), delta weights in (0,
/// 1).
template <class T>
struct linear_inputs {
    linear_inputs(const linear_problem& p, void* const* data)
        : k(scaled(static_cast<const T*>(data[1]), linear_tokens(p) * p.dim, 0.088f)),
          log_decay(scaled(static_cast<const float*>(data[3]), linear_decays(p), 0.01f)),
          beta(scaled(static_cast<const float*>(data[4]), linear_tokens(p), 0.1f))
    {
    }

    std::vector<T> k;
    std::vector<float> log_decay, beta;

private:
    template <class U>
    static std::vector<U> scaled(const U* from, std::int64_t count, float by)
    {
        std::vector<U> to(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < to.size(); ++i) { to[i] = U(by * static_cast<float>(from[i])); }
        return to;
    }
};

/// Gated linear attention: every token reads and writes its head's state, in one loop over the key channels whose inner
/// loop updates a row and adds it to the output. Exponentials of the decays are not counted: they are taken beforehand.
maker token_loop_gla;

/// The gated delta rule, head after head, each token in four passes over the state: decay, Sᵀk, update, Sᵀq.
maker four_sweeps_gated_delta;

/// Learning rates of a few thousandths, and weights that keep what they are multiplied with about as large as it is.
struct training_inputs {
    training_inputs(const training_problem& p, void* const* data)
        : rates(static_cast<const float*>(data[3]), static_cast<const float*>(data[3]) + p.length),
          weights(static_cast<const float*>(data[4]), static_cast<const float*>(data[4]) + 3 * p.hidden * p.dim)
    {
        for (float& rate : rates) { rate *= 1e-4f; }
        for (float& weight : weights) { weight *= 0.044f; }
    }

    std::vector<float> rates, weights;
};

/// Test-time training by sgemm, with all that it computes of a chunk in memory.
maker openblas_training;
#if defined(SEQMIX_BENCH_OPENBLAS)
inline constexpr peer openblas_training_peer = {"openblas", openblas_training, true};
#else
inline constexpr peer openblas_training_peer = {};
#endif

} // namespace SEQMIX_BENCH_ARCH
} // namespace bench
