// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>
#include <seqmix/simd/backends.hpp>

// All blocking parameters, in one table, with the budgets that they must fit.

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Register blocking of the micro-kernel: `rows` broadcasts of the left operand times `vectors` registers of the right one.
///
/// | registers | rows x vectors | accumulators + right + left | loads : multiply-adds a step | independent chains |
/// |---|---|---|---|---|
/// | 32 (AVX-512, NEON) | 8 x 3 | 24 + 3 + 1 = 28 | 11 : 24 | 24, of which latency 4 at two a cycle needs 8 |
/// | 16 (AVX2, scalar)  | 4 x 3 | 12 + 3 + 1 = 16 |  7 : 12 | 12 |
///
/// Eight rows divide the usual head sizes, and two loads a cycle keep ahead of two multiply-adds a cycle.
template <class Arch>
struct blocking {
    static constexpr int registers = simd::backend<Arch>::registers;
    static constexpr int rows = registers >= 32 ? 8 : 4;
    static constexpr int vectors = 3;
    static constexpr int columns = vectors * simd::lanes<Arch>;
    static_assert(rows * vectors + vectors + 1 <= registers);
};

/// What a tile may take of the caches. Conservative figures of the cores of the last ten years (L1 32 to 48 kB, L2 256 kB
/// to 2 MB a core); a tile that is a little small costs per cent, one that is too large falls off a cliff.
inline constexpr index level1_bytes = 32 * 1024;
inline constexpr index level2_bytes = 512 * 1024;

/// Rows this far apart (in bytes) all fall into one set of L1, where the eight rows of a micro-kernel and a panel can't stay
/// together, and each lies on a page of its own: better copied than used in place.
constexpr bool crowded(index row_stride_bytes) { return row_stride_bytes != 0 && row_stride_bytes % 4096 == 0; }

/// Results of this many bytes and more are written past the caches (f32::stream): an ordinary store reads its line first,
/// half as much traffic again where as much is read as written, and so large a result has left the caches of most
/// processors anyhow before it is read. Measured: 8.4 million floats, convolved, in 2.5 ms instead of 4.0.
inline constexpr index streamed_bytes = 16 * 1024 * 1024;

/// Matrix product: depth of a packed block (a micro-panel of the right operand, depth x columns, stays in L1 with the left
/// one streaming past), rows of a packed left block (rows x depth stays in L2), columns of a packed right block (L3).
template <class Arch>
struct gemm_blocking {
    static constexpr index depth_words = 256;
    static constexpr index rows = 192;
    static constexpr index columns = 4080 / blocking<Arch>::columns * blocking<Arch>::columns;
};

} // namespace tile
SEQMIX_NAMESPACE_END
