// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/config.hpp>

#include <cstdint>

#if defined(__SSE__) || defined(_M_X64)
#define SEQMIX_FLUSHES_BY_MXCSR 1
#include <xmmintrin.h>
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define SEQMIX_FLUSHES_BY_FPCR 1
#endif

SEQMIX_NAMESPACE_BEGIN

/// While it lives, the thread that made it treats subnormal floats as zero, going in and coming out, and then has its
/// former setting back. States that decay reach subnormals, on which many processors are tens of times slower.
///
/// Nothing in seqmix makes one: results change where subnormals would appear, and that is the program's choice. The
/// setting belongs to the thread, so with an executor every worker needs its own, made inside the job. It holds for
/// calls made while it lives; a compiler may move the arithmetic of the function that declares it across its borders. A
/// state of the processor, not of the language: nothing happens where there is no such switch (`available`).
class scoped_flush_denormals {
public:
#if defined(SEQMIX_FLUSHES_BY_MXCSR) || defined(SEQMIX_FLUSHES_BY_FPCR)
    static constexpr bool available = true;
#else
    static constexpr bool available = false;
#endif

    scoped_flush_denormals() : former_(get()) { set(former_ | flush); }
    ~scoped_flush_denormals() { set(former_); }
    scoped_flush_denormals(const scoped_flush_denormals&) = delete;
    scoped_flush_denormals& operator=(const scoped_flush_denormals&) = delete;

private:
#if defined(SEQMIX_FLUSHES_BY_MXCSR)
    using word = unsigned;
    static constexpr word flush = 0x8040; // flush to zero, denormals are zero
    static word get() { return _mm_getcsr(); }
    static void set(word bits) { _mm_setcsr(bits); }
#elif defined(SEQMIX_FLUSHES_BY_FPCR)
    using word = std::uint64_t;
    static constexpr word flush = word{1} << 24; // FZ: both ways, float and double
    static word get()
    {
        word bits = 0;
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(bits));
        return bits;
    }
    static void set(word bits) { __asm__ __volatile__("msr fpcr, %0" : : "r"(bits) : "memory"); }
#else
    using word = unsigned;
    static constexpr word flush = 0;
    static word get() { return 0; }
    static void set(word) {}
#endif

    word former_;
};

SEQMIX_NAMESPACE_END

#undef SEQMIX_FLUSHES_BY_MXCSR
#undef SEQMIX_FLUSHES_BY_FPCR
