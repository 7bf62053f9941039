// SPDX-License-Identifier: MIT
#pragma once

// Every backend that this translation unit may use, each checked against the list of verbs.

#include <seqmix/simd/avx2.hpp>
#include <seqmix/simd/avx512.hpp>
#include <seqmix/simd/neon.hpp>
#include <seqmix/simd/scalar.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace simd {
static_assert(backend_of<arch::scalar>);
static_assert(backend_of<arch::native>);
} // namespace simd
SEQMIX_NAMESPACE_END
