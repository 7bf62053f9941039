// SPDX-License-Identifier: MIT
#pragma once

// What this translation unit may execute, from the compiler's macros alone: each feature is 0 or 1 and is asked for by
// itself, never inferred from another. Includes nothing, so that config.hpp can build the ABI tag from it.
//
// SEQMIX_MAX_ISA caps the choice below what the compiler's flags allow.
#define SEQMIX_ISA_SCALAR 0
#define SEQMIX_ISA_AVX2 1
#define SEQMIX_ISA_AVX2_VNNI 2
#define SEQMIX_ISA_AVX512 3
#define SEQMIX_ISA_AVX512_VNNI 4
#define SEQMIX_ISA_AVX512_BF16 5
#define SEQMIX_ISA_NEON 1
#define SEQMIX_ISA_NEON_I8MM 2
#ifndef SEQMIX_MAX_ISA
#define SEQMIX_MAX_ISA 9
#endif

// MSVC defines neither __FMA__ nor __F16C__; its /arch:AVX2 promises both.
#if SEQMIX_MAX_ISA >= SEQMIX_ISA_AVX2 && defined(__AVX2__) && \
    ((defined(__FMA__) && defined(__F16C__)) || (defined(_MSC_VER) && !defined(__clang__)))
#define SEQMIX_HAS_AVX2 1
#else
#define SEQMIX_HAS_AVX2 0
#endif

// By either encoding of the 256-bit instruction: AVX-VNNI's, or that of AVX-512.
#if SEQMIX_HAS_AVX2 && SEQMIX_MAX_ISA >= SEQMIX_ISA_AVX2_VNNI && \
    (defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__)))
#define SEQMIX_HAS_AVX2_VNNI 1
#else
#define SEQMIX_HAS_AVX2_VNNI 0
#endif

#if SEQMIX_HAS_AVX2 && SEQMIX_MAX_ISA >= SEQMIX_ISA_AVX512 && defined(__AVX512F__) && defined(__AVX512BW__) && \
    defined(__AVX512DQ__) && defined(__AVX512VL__)
#define SEQMIX_HAS_AVX512 1
#else
#define SEQMIX_HAS_AVX512 0
#endif

#if SEQMIX_HAS_AVX512 && SEQMIX_MAX_ISA >= SEQMIX_ISA_AVX512_VNNI && defined(__AVX512VNNI__)
#define SEQMIX_HAS_AVX512_VNNI 1
#else
#define SEQMIX_HAS_AVX512_VNNI 0
#endif

#if SEQMIX_HAS_AVX512_VNNI && SEQMIX_MAX_ISA >= SEQMIX_ISA_AVX512_BF16 && defined(__AVX512BF16__)
#define SEQMIX_HAS_AVX512_BF16 1
#else
#define SEQMIX_HAS_AVX512_BF16 0
#endif

#if SEQMIX_MAX_ISA >= SEQMIX_ISA_NEON && defined(__aarch64__) && defined(__ARM_NEON)
#define SEQMIX_HAS_NEON 1
#else
#define SEQMIX_HAS_NEON 0
#endif

#if SEQMIX_HAS_NEON && SEQMIX_MAX_ISA >= SEQMIX_ISA_NEON_I8MM && defined(__ARM_FEATURE_DOTPROD) && \
    defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define SEQMIX_HAS_NEON_I8MM 1
#else
#define SEQMIX_HAS_NEON_I8MM 0
#endif

// Everything that changes the code generated for one and the same inline function, as digits of the ABI tag. Two units
// compiled with different flags then hold different functions, and the linker can't take one for the other.
#if defined(__SSE2__) || defined(_M_X64)
#define SEQMIX_TAG_SSE2 1
#else
#define SEQMIX_TAG_SSE2 0
#endif
#if defined(__SSE4_2__)
#define SEQMIX_TAG_SSE42 1
#else
#define SEQMIX_TAG_SSE42 0
#endif
#if defined(__AVX__)
#define SEQMIX_TAG_AVX 1
#else
#define SEQMIX_TAG_AVX 0
#endif
#if defined(__AVX2__)
#define SEQMIX_TAG_AVX2 1
#else
#define SEQMIX_TAG_AVX2 0
#endif
#if defined(__FMA__)
#define SEQMIX_TAG_FMA 1
#else
#define SEQMIX_TAG_FMA 0
#endif
#if defined(__F16C__)
#define SEQMIX_TAG_F16C 1
#else
#define SEQMIX_TAG_F16C 0
#endif
#if defined(__BMI2__)
#define SEQMIX_TAG_BMI2 1
#else
#define SEQMIX_TAG_BMI2 0
#endif
#if defined(__AVXVNNI__)
#define SEQMIX_TAG_AVXVNNI 1
#else
#define SEQMIX_TAG_AVXVNNI 0
#endif
#if defined(__AVX512F__)
#define SEQMIX_TAG_AVX512F 1
#else
#define SEQMIX_TAG_AVX512F 0
#endif
#if defined(__AVX512BW__)
#define SEQMIX_TAG_AVX512BW 1
#else
#define SEQMIX_TAG_AVX512BW 0
#endif
#if defined(__AVX512DQ__)
#define SEQMIX_TAG_AVX512DQ 1
#else
#define SEQMIX_TAG_AVX512DQ 0
#endif
#if defined(__AVX512VL__)
#define SEQMIX_TAG_AVX512VL 1
#else
#define SEQMIX_TAG_AVX512VL 0
#endif
#if defined(__AVX512VNNI__)
#define SEQMIX_TAG_AVX512VNNI 1
#else
#define SEQMIX_TAG_AVX512VNNI 0
#endif
#if defined(__AVX512BF16__)
#define SEQMIX_TAG_AVX512BF16 1
#else
#define SEQMIX_TAG_AVX512BF16 0
#endif
#if defined(__AVX512FP16__)
#define SEQMIX_TAG_AVX512FP16 1
#else
#define SEQMIX_TAG_AVX512FP16 0
#endif
#if defined(__ARM_NEON)
#define SEQMIX_TAG_NEON 1
#else
#define SEQMIX_TAG_NEON 0
#endif
#if defined(__ARM_FEATURE_DOTPROD)
#define SEQMIX_TAG_DOTPROD 1
#else
#define SEQMIX_TAG_DOTPROD 0
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define SEQMIX_TAG_I8MM 1
#else
#define SEQMIX_TAG_I8MM 0
#endif
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define SEQMIX_TAG_ARMBF16 1
#else
#define SEQMIX_TAG_ARMBF16 0
#endif
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
#define SEQMIX_TAG_ARMFP16 1
#else
#define SEQMIX_TAG_ARMFP16 0
#endif
#if defined(__ARM_FEATURE_SVE)
#define SEQMIX_TAG_SVE 1
#else
#define SEQMIX_TAG_SVE 0
#endif
