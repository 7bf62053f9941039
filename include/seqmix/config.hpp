// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/features.hpp>
#include <seqmix/version.hpp>

// The compiler's spellings, the ABI-tag namespace, and the guards.

#if defined(_MSVC_LANG) ? _MSVC_LANG < 202002L : __cplusplus < 202002L
#error "seqmix needs C++20 (GCC 12, clang 14 or newer)"
#endif

// Masked scores are minus infinity: under finite-math the compiler may assume that there are none, and hidden keys leak.
#if !defined(SEQMIX_ALLOW_FINITE_MATH)
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0
#error "seqmix needs infinities and NaN: compile without -ffast-math or add -fno-finite-math-only (last) "
#endif
#if defined(_M_FP_FAST)
#error "seqmix needs infinities and NaN: compile without /fp:fast, finite math only breaks its masks"
#endif
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define SEQMIX_INLINE __forceinline
#define SEQMIX_INLINE_LAMBDA
#define SEQMIX_NOINLINE __declspec(noinline)
#define SEQMIX_RESTRICT __restrict
#else
#define SEQMIX_INLINE inline __attribute__((always_inline))
#define SEQMIX_INLINE_LAMBDA __attribute__((always_inline))
#define SEQMIX_NOINLINE __attribute__((noinline))
#define SEQMIX_RESTRICT __restrict__
#endif

#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define SEQMIX_EXCEPTIONS 1
#else
#define SEQMIX_EXCEPTIONS 0
#endif

// All code stands in an inline namespace whose name spells every flag that changes generated code (features.hpp says
// why). Our types can't cross a boundary between units compiled with different flags: cross it with pointers and sizes.
#ifndef SEQMIX_ABI_TAG
#define SEQMIX_PASTE_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z) \
    abi_##a##_##b##_##c##_##d##e##f##g##h##i##j##k##l##m##n##o##p##q##r##s##t##u##v##w##x##_##y##z
#define SEQMIX_PASTE(...) SEQMIX_PASTE_(__VA_ARGS__)
#define SEQMIX_ABI_TAG                                                                                              \
    SEQMIX_PASTE(SEQMIX_VERSION_MAJOR, SEQMIX_VERSION_MINOR, SEQMIX_VERSION_PATCH, SEQMIX_TAG_SSE2,                 \
                 SEQMIX_TAG_SSE42, SEQMIX_TAG_AVX, SEQMIX_TAG_AVX2, SEQMIX_TAG_FMA, SEQMIX_TAG_F16C,                \
                 SEQMIX_TAG_BMI2, SEQMIX_TAG_AVXVNNI, SEQMIX_TAG_AVX512F, SEQMIX_TAG_AVX512BW, SEQMIX_TAG_AVX512DQ, \
                 SEQMIX_TAG_AVX512VL, SEQMIX_TAG_AVX512VNNI, SEQMIX_TAG_AVX512BF16, SEQMIX_TAG_AVX512FP16,          \
                 SEQMIX_TAG_NEON, SEQMIX_TAG_DOTPROD, SEQMIX_TAG_I8MM, SEQMIX_TAG_ARMBF16, SEQMIX_TAG_ARMFP16,      \
                 SEQMIX_TAG_SVE, SEQMIX_MAX_ISA, SEQMIX_EXCEPTIONS)
#endif

#define SEQMIX_NAMESPACE_BEGIN \
    namespace seqmix {         \
    inline namespace SEQMIX_ABI_TAG {
#define SEQMIX_NAMESPACE_END \
    }                        \
    }
