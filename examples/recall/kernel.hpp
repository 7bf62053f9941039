// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>

// What crosses the boundary between main.cpp, compiled without -m flags, and run_arch.cpp, compiled once per
// instruction set: plain numbers, pointers and functions. examples/dispatch/README.md says why nothing else may.

namespace recall {

/// A context is known by a 64-bit hash, and its embedding has one component per bit: +1/8 or -1/8, of norm 1. Then
/// q·k = 1 - hamming / 32 and score = scale · q·k = 32 - hamming: the same context scores 32, exactly.
inline constexpr std::ptrdiff_t key_size = 64;
inline constexpr float scale = 32.0f;

/// Predict `length` bytes, each from what stands before it.
struct problem {
    std::ptrdiff_t length = 0;
    std::ptrdiff_t heads = 0;
    std::ptrdiff_t channels = 0; ///< values are one-hot in so many channels
    std::ptrdiff_t window = 0;   ///< row i sees keys i - window, …, i - 1; 0: all keys before i
    int threads = 1;
    const std::uint64_t* contexts = nullptr; ///< [length][heads]: hash of what head h looks at before byte i
    const std::uint8_t* symbols = nullptr;   ///< [length]: the channel of byte i
};

/// What the heads say about bytes first, …, last - 1. Byte i has not been looked at for row i.
struct rows {
    std::ptrdiff_t first, last;
    const float* out; ///< [rows][heads][channels]: what followed where the head looked, as a distribution
    const float* lse; ///< [rows][heads]: natural log of the sum of exp(score) over the keys seen
};

/// Who takes the rows, from the first to the last.
struct sink {
    void* self;
    void (*take)(void* self, const rows& some);
};

struct cost {
    double seconds = 0;          ///< in the method itself, without embeddings and mixing
    std::size_t extra_bytes = 0; ///< memory beside keys, values and results
    int threads = 1;             ///< as many as it used
};

enum class on { best_backend, every_backend };
enum class sees { everything_before, window };
enum class predicts {
    as_attention, ///< what every other such method predicts that sees the same
    on_its_own,
};

/// One line of the table: a way to compute the rows. To add one, write a function in run_arch.cpp and enter it there.
struct method {
    const char* name;
    const char* numbers; ///< type of keys and values
    cost (*run)(const problem&, const sink&);
    on where;
    sees reach;
    predicts answer;
    std::ptrdiff_t at_most; ///< bytes: what is slow is shown on the text's beginning; 0: no limit
};

struct methods {
    const method* list;
    std::ptrdiff_t count;
};

} // namespace recall
