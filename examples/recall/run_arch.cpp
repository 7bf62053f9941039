// SPDX-License-Identifier: MIT
// The methods, compiled once per instruction set with its flags and -DSEQMIX_RECALL_ARCH=<set>.
#include "arch_attention.hpp"
#include "arch_convolution.hpp"
#include "arch_pairs.hpp"
#include "arch_states.hpp"
#include "kernel.hpp"

#include <iterator>
#include <type_traits>

namespace {

// The scalar backend has one lane, and its line should not hold up the others.
constexpr std::ptrdiff_t no_limit = 0, slow = 4096, limit = std::is_same_v<arch, sm::arch::scalar> ? 2048 : no_limit;

using recall::on, recall::predicts, recall::sees;
constexpr recall::method list[] = {
    {"naive", "f32", naive, on::best_backend, sees::everything_before, predicts::as_attention, slow},
    {"tiled", "f32", tiled<float>, on::every_backend, sees::everything_before, predicts::as_attention, limit},
    {"tiled", "bf16", tiled<sm::bf16>, on::best_backend, sees::everything_before, predicts::as_attention, limit},
    {"sliding window", "f32", tiled<float>, on::best_backend, sees::window, predicts::as_attention, limit},
    {"state space", "f32", state_space, on::best_backend, sees::everything_before, predicts::on_its_own, no_limit},
    {"long conv", "f32", long_convolution, on::best_backend, sees::everything_before, predicts::on_its_own, no_limit, 4},
    {"gla", "f32", gla, on::best_backend, sees::everything_before, predicts::on_its_own, no_limit},
    {"delta", "f32", delta, on::best_backend, sees::everything_before, predicts::on_its_own, no_limit, 6},
    {"gated delta", "f32", gated_delta, on::best_backend, sees::everything_before, predicts::on_its_own, no_limit, 6},
};

using recall::writes_by;
constexpr recall::rule rules[] = {
    {"linear", additive_recalls, writes_by::adding},
    {"gla", gla_recalls, writes_by::adding},
    {"delta", delta_recalls, writes_by::replacing},
    {"gated delta", gated_delta_recalls, writes_by::replacing},
};

} // namespace

#define RECALL_PASTE_(a, b) a##b
#define RECALL_PASTE(a, b) RECALL_PASTE_(a, b)

extern const recall::methods RECALL_PASTE(recall_methods_, SEQMIX_RECALL_ARCH);
const recall::methods RECALL_PASTE(recall_methods_, SEQMIX_RECALL_ARCH) = {list, std::ssize(list), rules,
                                                                           std::ssize(rules)};
