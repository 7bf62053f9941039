// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

// What plans and calls of long convolutions may be told besides their operands.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// How a convolution is computed.
enum class method {
    automatic, ///< whichever costs less
    direct,    ///< tap by tap: for short kernels
    transform, ///< by products in a ring: one transform of all of a sequence, or of pieces that overlap where the kernel is short
};

struct plan_options {
    index length = 0;                ///< L: the longest sequence; with `causal = false` the length of all
    bool causal = true;              ///< false: modulo L
    view<const float, 2> backward{}; ///< [D, Lb]: y_t += Σ_s backward_s u_(t+1+s), for bidirectional mixers
    conv::method method = conv::method::automatic;
    index points = 0;                ///< of a transform, at least; 0: chosen by cost
    /// [P]: parts of the spectrum that are kept; the others are set to 0, cost nothing and take no memory (Fu et al. 2023, "FlashFFTConv":
    /// frequency-sparse convolutions). With M = plan::points(), inputs and kernel are polynomials modulo t^M - i
    /// (conv/ring.hpp), and the product keeps its residues at t = e^(i (π/2 + 2πm) / M) for which keep(m mod P). P = 2^a 3^b 5^c; 2, 4 and 8
    /// are fastest. What is left is no more a causal convolution: every output may depend on every input. For causal = true, and one
    /// transform of everything.
    view<const bool, 1> keep{};
};

/// T is the type of u.
template <class T>
struct apply_options {
    view<const T, 3> pre_gate{};  ///< [B, D, L]: u is multiplied by it first
    view<const T, 3> post_gate{}; ///< [B, D, L]: the output is multiplied by it
    view<const float, 1> skip{};  ///< [D]: adds skip · (gated) u, before the post-gate
};

} // namespace conv
SEQMIX_NAMESPACE_END
