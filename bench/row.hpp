// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

// What crosses between main.cpp, compiled without -m flags, and the files that are compiled once per instruction set:
// pointers, numbers and plain functions. Nothing here has code of its own, so the linker can't take one unit's for
// another's.

namespace bench {

enum class element { f32, bf16, f16, s8, s32 };

enum class filling {
    none,
    normal,
    positive, ///< in (0, 10)
    negative, ///< in (-10, 0)
    slopes,   ///< 2^(-8 (h + 1) / H), the usual ALiBi slopes
    bytes,    ///< every value of an int8
};

struct operand {
    element type;
    std::int64_t count = 0; ///< 0: there is no such operand
    filling fill = filling::none;
};

/// Something to be timed. `run` null: not on offer.
struct call {
    void* state = nullptr;
    void (*run)(void* state) = nullptr;
    void (*destroy)(void* state) = nullptr;
};

/// Makes a call that reads and writes the row's operands, which the caller owns; data[i] is operand i.
using maker = call(const void* problem, void* const* data);

struct peer {
    const char* name;
    maker* make;
    bool any_set; ///< chooses its instruction set itself: compared with the best backend only
};

/// The measured peak that a row is a fraction of.
enum class limit { f32, bf16, int8, exp2, read, copy, none };
inline constexpr int limit_count = 6, loop_count = 4; ///< the first four are loops in registers

/// What is held against the floor.
enum class figure {
    peak_fraction,
    time_over_share, ///< time / (reference's time · work / reference's work)
    speed_up,        ///< reference's time / time
};

/// On which instruction sets a row runs, besides the best one.
enum class spread_over { best, vectors, all };

inline constexpr int most_operands = 9, most_peers = 3;

/// One line of the results.
struct row {
    const char* name; ///< without the family
    const char* shape;
    limit of;
    const char* unit; ///< of work: "FLOP", "OP", "B", "element"
    double work;      ///< useful work of one run
    spread_over where;
    operand operands[most_operands]; ///< the last that is there is the output
    const void* problem;
    maker* make;
    peer peers[most_peers]; ///< those with a name
    figure says = figure::peak_fraction;
    const void* reference_problem = nullptr; ///< for figures that compare the kernel with itself, or with `reference`
    double reference_work = 0;
    maker* reference = nullptr; ///< what `reference_problem` is given to; null: make
};

struct family {
    const char* name;
    const row* rows;
    int count;
};

/// `run(rounds)` keeps `rounds` rounds of `work` operations in registers.
struct peak_loop {
    void (*run)(std::int64_t rounds);
    double work;
};

struct instruction_set {
    const char* name;
    const char* build_info;
    const char* flags;      ///< all that its files were compiled with
    const char* arch_flags; ///< those for the instruction set
    const char* peers;      ///< names and versions
    bool optimised;
    bool has_bf16_dot;
    peak_loop peaks[loop_count]; ///< f32, bf16, int8, exp2; without bf16 dot products the second is the first
    void (*read)(const void* from, std::int64_t bytes);
    const family* families;
    int family_count;
};

/// Calls job(state, 0), …, job(state, count - 1), each on a thread of its own but the first.
void spread(int count, void (*job)(void* state, int worker), void* state);

} // namespace bench
