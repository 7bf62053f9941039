// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/config.hpp>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

SEQMIX_NAMESPACE_BEGIN
namespace simd {

/// The unit in which memory comes to the caches of every processor meant here.
inline constexpr int cache_line = 64;

/// Asks for the line at `p` in L2, some microseconds before it is read. Any address will do; none faults.
SEQMIX_INLINE void prefetch(const void* p)
{
#if !defined(_MSC_VER) || defined(__clang__)
    __builtin_prefetch(p, 0, 2);
#elif defined(_M_X64)
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
#else
    static_cast<void>(p);
#endif
}

} // namespace simd
SEQMIX_NAMESPACE_END
