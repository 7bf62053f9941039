// SPDX-License-Identifier: MIT
// One instruction set: its peaks, and the rows of every family.
#include "peers.hpp"

#include <seqmix/simd/backends.hpp>
#include <seqmix/simd/build_info.hpp>
#include <seqmix/simd/math.hpp>

#include <cstdio>
#include <cstring>
#include <type_traits>

namespace bench::SEQMIX_BENCH_ARCH {

#define SEQMIX_BENCH_FAMILY(name) family name##_rows();
#include <seqmix_bench_families.inc>
#undef SEQMIX_BENCH_FAMILY

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using backend = seqmix::simd::backend<set>;
using f32 = backend::f32;
using i32 = backend::i32;
constexpr int lanes = f32::lanes;

// Takes a register as used and forgets what is known of it: work on a loop's constants can't be moved out of the loop,
// and results that nobody asks for are still computed.
template <class Register>
SEQMIX_INLINE void forget(Register& r)
{
    if constexpr (std::is_same_v<Register, seqmix::simd::scalar_lanes::i32>) {
        __asm__ volatile("" : "+r"(r.v));
    } else {
#if defined(__x86_64__)
        __asm__ volatile("" : "+v"(r.v));
#elif defined(__aarch64__)
        __asm__ volatile("" : "+w"(r.v));
#else
        __asm__ volatile("" : "+m"(r.v));
#endif
    }
}

// The accumulators of the micro-kernel with operands that are always there: as many independent chains as registers
// allow. bf16 dot products have a latency of 6 at two a cycle on Zen 4 and 5, so 12 chains would not do where 24 fit.
constexpr int rows = backend::registers >= 32 ? 8 : 4;
constexpr int vectors = 3;
// Where a dot product of int8 is made of several instructions, their operands need registers too.
constexpr int int8_vectors = 2;

template <int Vectors, class Acc, class Operand, class Step>
SEQMIX_INLINE void spin(std::int64_t rounds, Acc first, Operand left, Operand right, const Step& step)
{
    using seqmix::simd::unroll;
    Acc acc[rows * Vectors];
    Operand b[Vectors];
    unroll<rows * Vectors>([&](auto i) SEQMIX_INLINE_LAMBDA {
        forget(first); // equal chains would be computed once, here and below
        acc[i] = first;
    });
    unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
        forget(right);
        b[v] = right;
    });
    for (std::int64_t round = 0; round < rounds; ++round) {
        unroll<rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
            forget(left);
            unroll<Vectors>(
                [&](auto v) SEQMIX_INLINE_LAMBDA { acc[m * Vectors + v] = step(acc[m * Vectors + v], left, b[v]); });
        });
    }
    unroll<rows * Vectors>([&](auto i) SEQMIX_INLINE_LAMBDA {
        Acc sum = acc[i]; // an element of an array of integer registers that meets assembly keeps GCC's array in memory
        forget(sum);
    });
}

void spin_f32(std::int64_t rounds)
{
    spin<vectors>(rounds, f32::zero(), f32::broadcast(0.5f), f32::broadcast(0.25f),
                  [](f32 acc, f32 a, f32 b) SEQMIX_INLINE_LAMBDA { return fma(a, b, acc); });
}

[[maybe_unused]] void spin_bf16(std::int64_t rounds)
{
    const i32 halves = i32::broadcast(0x3f003f00);
    spin<vectors>(rounds, f32::zero(), halves, halves,
                  [](f32 acc, i32 a, i32 b) SEQMIX_INLINE_LAMBDA { return backend::dot2(acc, a, b); });
}

void spin_int8(std::int64_t rounds)
{
    const i32 bytes = i32::broadcast(0x01020304);
    spin<int8_vectors>(rounds, i32::zero(), bytes, bytes,
                       [](i32 acc, i32 a, i32 b) SEQMIX_INLINE_LAMBDA { return backend::dot4(acc, a, b); });
}

/// As many values as accumulators, so that their latency is hidden; each goes in anew.
void spin_exp2(std::int64_t rounds)
{
    constexpr int values = backend::registers / 4;
    f32 x[values];
    seqmix::simd::unroll<values>([&](auto i) SEQMIX_INLINE_LAMBDA { x[i] = f32::broadcast(-0.37f * (i + 1)); });
    for (std::int64_t round = 0; round < rounds; ++round) {
        seqmix::simd::unroll<values>([&](auto i) SEQMIX_INLINE_LAMBDA {
            forget(x[i]);
            f32 y = seqmix::simd::exp2_nonpositive(x[i]);
            forget(y);
        });
    }
}

void read(const void* from, std::int64_t bytes)
{
    constexpr int streams = 8;
    const auto* words = static_cast<const std::int32_t*>(from);
    const std::int64_t count = bytes / 4;
    i32 seen[streams];
    seqmix::simd::unroll<streams>([&](auto i) SEQMIX_INLINE_LAMBDA { seen[i] = i32::zero(); });
    for (std::int64_t at = 0; at + streams * lanes <= count; at += streams * lanes) {
        seqmix::simd::unroll<streams>(
            [&](auto i) SEQMIX_INLINE_LAMBDA { seen[i] = seen[i] | i32::load(words + at + i * lanes); });
    }
    seqmix::simd::unroll<streams>([&](auto i) SEQMIX_INLINE_LAMBDA { forget(seen[i]); });
}

#if defined(NDEBUG) && defined(__OPTIMIZE__)
constexpr bool optimised = true;
#else
constexpr bool optimised = false;
#endif

} // namespace

const instruction_set& describe();

const instruction_set& describe()
{
    static char info[200], peers[400];
    std::snprintf(info, sizeof info, "%s", seqmix::build_info().c_str());
    const char* const versions[] = {
        eigen_version(),
#if defined(SEQMIX_BENCH_OPENBLAS)
        openblas_version(),
#endif
#if defined(SEQMIX_BENCH_ONEDNN)
        onednn_version(),
#endif
#if defined(SEQMIX_BENCH_FFTW)
        fftw_version(),
#endif
    };
    for (const char* version : versions) {
        const std::size_t used = std::strlen(peers);
        std::snprintf(peers + used, sizeof peers - used, "%s%s", used > 0 ? "; " : "", version);
    }
    static const family families[] = {
#define SEQMIX_BENCH_FAMILY(name) name##_rows(),
#include <seqmix_bench_families.inc>
#undef SEQMIX_BENCH_FAMILY
    };
    constexpr peak_loop f32_loop = {spin_f32, 2.0 * rows * vectors * lanes};
    constexpr peak_loop bf16_loop = {spin_bf16, 4.0 * rows * vectors * lanes};
    static const instruction_set self = {
        .name = set::name,
        .build_info = info,
        .flags = SEQMIX_BENCH_COMPILER_FLAGS,
        .arch_flags = SEQMIX_BENCH_ARCH_FLAGS,
        .peers = peers,
        .optimised = optimised,
        .has_bf16_dot = backend::has_bf16_dot,
        .peaks = {f32_loop,
                  backend::has_bf16_dot ? bf16_loop : f32_loop,
                  {spin_int8, 8.0 * rows * int8_vectors * lanes},
                  {spin_exp2, 1.0 * (backend::registers / 4) * lanes}},
        .read = read,
        .families = families,
        .family_count = sizeof families / sizeof *families,
    };
    return self;
}

} // namespace bench::SEQMIX_BENCH_ARCH
