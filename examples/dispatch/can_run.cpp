// SPDX-License-Identifier: MIT
#include "can_run.hpp"

#include <cstring>

// Compile this file without any -m flag: it runs before one knows what the machine can do.

#if defined(__x86_64__)
#include <cpuid.h>

namespace {

struct leaf {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

leaf cpuid(unsigned function, unsigned sub)
{
    leaf r;
    if (__get_cpuid_count(function, sub, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) { return {}; }
    return r;
}

bool all(unsigned word, unsigned bits) { return (word & bits) == bits; }

// Which registers the operating system saves. A CPU may know an instruction whose registers would be lost at the next
// context switch; such an instruction traps.
unsigned saved_registers()
{
    constexpr unsigned osxsave = 1u << 27;
    if (!all(cpuid(1, 0).ecx, osxsave)) { return 0; }
    unsigned low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); // not _xgetbv: it would need -mxsave
    return low;
}

/// How many of a chain of sets, each with all of the one before; and beside the chain, AVX-VNNI.
struct x86_sets {
    int level = 0;
    bool avx_vnni = false;
};

x86_sets x86_runs()
{
    constexpr unsigned ymm_saved = 0x06, zmm_saved = 0xe6;
    constexpr unsigned fma = 1u << 12, avx = 1u << 28, f16c = 1u << 29;           // 1: ecx
    constexpr unsigned avx2 = 1u << 5;                                            // 7.0: ebx
    constexpr unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31; // 7.0: ebx
    constexpr unsigned vnni = 1u << 11;                                           // 7.0: ecx
    constexpr unsigned avx_vnni = 1u << 4, bf16 = 1u << 5;                        // 7.1: eax
    const unsigned saved = saved_registers();
    const leaf one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = seven.eax >= 1 ? cpuid(7, 1) : leaf{};
    if (!all(saved, ymm_saved) || !all(one.ecx, fma | avx | f16c) || !all(seven.ebx, avx2)) { return {}; }
    const bool with_avx_vnni = all(seven_one.eax, avx_vnni);
    if (!all(saved, zmm_saved) || !all(seven.ebx, f | dq | bw | vl)) { return {1, with_avx_vnni}; }
    if (!all(seven.ecx, vnni)) { return {2, with_avx_vnni}; }
    return {all(seven_one.eax, bf16) ? 4 : 3, with_avx_vnni};
}

} // namespace

bool can_run(const char* arch) noexcept
{
    static const x86_sets runs = x86_runs();
    if (std::strcmp(arch, "avx2_vnni") == 0) { return runs.avx_vnni; }
    const char* const names[] = {"scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16"};
    for (int i = 0; i <= runs.level; ++i) {
        if (std::strcmp(arch, names[i]) == 0) { return true; }
    }
    return false;
}

#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace {

bool has_i8mm()
{
#if defined(__linux__)
    constexpr unsigned long dotprod = 1ul << 20;                // AT_HWCAP
    constexpr unsigned long i8mm = 1ul << 13, bf16 = 1ul << 14; // AT_HWCAP2
    const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    return (one & dotprod) != 0 && (two & i8mm) != 0 && (two & bf16) != 0;
#elif defined(__APPLE__)
    for (const char* name :
         {"hw.optional.arm.FEAT_DotProd", "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_BF16"}) {
        int value = 0;
        std::size_t size = sizeof value;
        if (sysctlbyname(name, &value, &size, nullptr, 0) != 0 || value == 0) { return false; }
    }
    return true;
#else
    return false;
#endif
}

} // namespace

bool can_run(const char* arch) noexcept
{
    return std::strcmp(arch, "scalar") == 0 || std::strcmp(arch, "neon") == 0 ||
           (std::strcmp(arch, "neon_i8mm") == 0 && has_i8mm());
}

#else

bool can_run(const char* arch) noexcept { return std::strcmp(arch, "scalar") == 0; }

#endif
