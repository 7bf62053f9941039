// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/arch.hpp>

#include <string>

SEQMIX_NAMESPACE_BEGIN

/// What this translation unit was compiled with, for bug reports and the head of a benchmark:
/// "seqmix 0.1.0; instruction sets scalar avx2, native avx2; GCC 12.2.0". It tells of this unit alone: another one with
/// other flags answers differently.
inline std::string build_info()
{
    std::string info = "seqmix " SEQMIX_VERSION_STRING "; instruction sets ";
    info += arch::scalar::name;
    const auto also = [&](const char* name) { (info += ' ') += name; };
#if SEQMIX_HAS_AVX2
    also(arch::avx2::name);
#endif
#if SEQMIX_HAS_AVX2_VNNI
    also(arch::avx2_vnni::name);
#endif
#if SEQMIX_HAS_AVX512
    also(arch::avx512::name);
#endif
#if SEQMIX_HAS_AVX512_VNNI
    also(arch::avx512_vnni::name);
#endif
#if SEQMIX_HAS_AVX512_BF16
    also(arch::avx512_bf16::name);
#endif
#if SEQMIX_HAS_NEON
    also(arch::neon::name);
#endif
#if SEQMIX_HAS_NEON_I8MM
    also(arch::neon_i8mm::name);
#endif
    static_cast<void>(also);
    info += ", native ";
    info += arch::native::name;
#if defined(__clang__)
    info += "; clang " __clang_version__;
#elif defined(__GNUC__)
    info += "; GCC " __VERSION__;
#elif defined(_MSC_VER)
    info += "; MSVC " + std::to_string(_MSC_VER);
#else
    info += "; unknown compiler";
#endif
    return info;
}

SEQMIX_NAMESPACE_END
