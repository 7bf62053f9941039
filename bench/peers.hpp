// SPDX-License-Identifier: MIT
#pragma once

#include "arch.hpp"
#include "problems.hpp"

namespace bench {

// oneDNN chooses an instruction set itself, so it is compiled once.
maker onednn_gemm;
const char* onednn_version();
// FFTW likewise.
maker fftw_long_conv;       ///< channel by channel: padded, transformed, multiplied, transformed back
maker fftw_image;           ///< images channel by channel, padded to twice their sides
maker fftw_three_passes;    ///< each of these for all channels before the next, as tensor libraries do
const char* fftw_version();

} // namespace bench

namespace bench::SEQMIX_BENCH_ARCH {

maker eigen_attention;
maker eigen_gemm;
maker eigen_map;
maker openblas_attention;
maker openblas_gemm;
maker openblas_monarch;
maker xsimd_map;

const char* eigen_version();
const char* openblas_version();

/// For attention over a stored score matrix: turns one head's products [queries, keys] into weights.
void weigh(const attention_problem& p, float slope, float* scores);

/// For test-time training over stored products: up *= silu(gate); and what a token's gate, up and down = W1ᵀ v become, the factors of its
/// gradients of W0, W2 and W1.
void multiply_by_silu(std::int64_t count, const float* gate, float* up);
void differentiate_swiglu(std::int64_t count, float rate, float* gate, float* up, float* down);

inline constexpr peer eigen_attention_peer = {"eigen", eigen_attention, false};
inline constexpr peer eigen_gemm_peer = {"eigen", eigen_gemm, false};
inline constexpr peer eigen_map_peer = {"eigen", eigen_map, false};
#if defined(SEQMIX_BENCH_OPENBLAS)
inline constexpr peer openblas_attention_peer = {"openblas", openblas_attention, true};
inline constexpr peer openblas_gemm_peer = {"openblas", openblas_gemm, true};
inline constexpr peer openblas_monarch_peer = {"openblas", openblas_monarch, true};
#else
inline constexpr peer openblas_attention_peer = {}, openblas_gemm_peer = {}, openblas_monarch_peer = {};
#endif
#if defined(SEQMIX_BENCH_ONEDNN)
inline constexpr peer onednn_gemm_peer = {"onednn", onednn_gemm, true};
#else
inline constexpr peer onednn_gemm_peer = {};
#endif
#if defined(SEQMIX_BENCH_FFTW)
inline constexpr peer fftw_long_conv_peer = {"fftw", fftw_long_conv, true}, fftw_three_passes_peer = {"fftw in three passes", fftw_three_passes, true};
inline constexpr peer fftw_image_peer = {"fftw", fftw_image, true};
#else
inline constexpr peer fftw_long_conv_peer = {}, fftw_three_passes_peer = {}, fftw_image_peer = {};
#endif
#if defined(SEQMIX_BENCH_XSIMD)
inline constexpr peer xsimd_map_peer = {"xsimd", xsimd_map, false};
#else
inline constexpr peer xsimd_map_peer = {};
#endif

/// Where a row of q, k, v or out of [B, H, L, D] starts.
struct layout {
    std::int64_t batch, head, time;

    constexpr layout(const attention_problem& p, std::int64_t heads, std::int64_t length)
        : batch(heads * length * p.dim), head(p.heads_inside ? p.dim : length * p.dim),
          time(p.heads_inside ? heads * p.dim : p.dim)
    {
    }
};

} // namespace bench::SEQMIX_BENCH_ARCH
