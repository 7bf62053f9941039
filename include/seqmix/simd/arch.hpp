// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/config.hpp>

// Instruction sets as types. What a set lacks it inherits, so a kernel names one type and gets the best verbs below it.

SEQMIX_NAMESPACE_BEGIN
namespace arch {

/// Plain C++: one lane. Compiled everywhere, and the slowest.
struct scalar {
    static constexpr const char* name = "scalar";
};

#if SEQMIX_HAS_AVX2
/// x86-64 with AVX2, FMA and F16C (Haswell, Zen 1 and newer).
struct avx2 {
    static constexpr const char* name = "avx2";
};
#endif

#if SEQMIX_HAS_AVX2_VNNI
/// The same with dot products of int8, AVX-VNNI (Alder Lake, Sierra Forest, Zen 5 and newer).
struct avx2_vnni : avx2 {
    static constexpr const char* name = "avx2_vnni";
};
#endif

#if SEQMIX_HAS_AVX512
/// x86-64 with AVX-512 F, BW, DQ and VL (Skylake-SP, Zen 4 and newer).
struct avx512 {
    static constexpr const char* name = "avx512";
};
#endif

#if SEQMIX_HAS_AVX512_VNNI
/// The same with dot products of int8, VNNI (Cascade Lake, Ice Lake and newer).
struct avx512_vnni : avx512 {
    static constexpr const char* name = "avx512_vnni";
};
#endif

#if SEQMIX_HAS_AVX512_BF16
/// The same with dot products of BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and newer).
struct avx512_bf16 : avx512_vnni {
    static constexpr const char* name = "avx512_bf16";
};
#endif

#if SEQMIX_HAS_NEON
/// AArch64, ARMv8.0.
struct neon {
    static constexpr const char* name = "neon";
};
#endif

#if SEQMIX_HAS_NEON_I8MM
/// The same with dot products, BF16 and I8MM (Neoverse V1/N2, Apple M2 and newer).
struct neon_i8mm : neon {
    static constexpr const char* name = "neon_i8mm";
};
#endif

/// The best set that this translation unit may use.
#if SEQMIX_HAS_AVX512_BF16
using native = avx512_bf16;
#elif SEQMIX_HAS_AVX512_VNNI
using native = avx512_vnni;
#elif SEQMIX_HAS_AVX512
using native = avx512;
#elif SEQMIX_HAS_AVX2_VNNI
using native = avx2_vnni;
#elif SEQMIX_HAS_AVX2
using native = avx2;
#elif SEQMIX_HAS_NEON_I8MM
using native = neon_i8mm;
#elif SEQMIX_HAS_NEON
using native = neon;
#else
using native = scalar;
#endif

} // namespace arch
SEQMIX_NAMESPACE_END
