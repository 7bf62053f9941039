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

/// One line of the table: a way to compute the rows. To add one, write a function and enter it in run_arch.cpp.
struct method {
    const char* name;
    const char* numbers; ///< type of keys and values
    cost (*run)(const problem&, const sink&);
    on where;
    sees reach;
    predicts answer;
    std::ptrdiff_t at_most; ///< bytes: what is slow is shown on the text's beginning; 0: no limit
    int state_flops = 4;    ///< of each number of a state for one byte; 6 where it is asked before it is written
};

/// Sequences of pairs, each key written several times, and then asked for the value that it had last. See pairs.hpp.
struct pairs {
    std::ptrdiff_t sequences = 0;
    std::ptrdiff_t writes = 0;              ///< of each sequence
    std::ptrdiff_t keys = 0;                ///< of each sequence, asked once each
    std::ptrdiff_t channels = 0;            ///< values are one-hot in so many channels
    const std::uint64_t* written = nullptr; ///< [sequences][writes]: hashes of keys
    const std::uint8_t* values = nullptr;   ///< [sequences][writes]: channels
    const std::uint64_t* asked = nullptr;   ///< [sequences][keys]: hashes of keys
    const std::uint8_t* answers = nullptr;  ///< [sequences][keys]: channels
};

enum class writes_by { adding, replacing };

/// One line of the table of pairs.
struct rule {
    const char* name;
    std::ptrdiff_t (*recalls)(const pairs&); ///< how many right answers
    writes_by how;
};

struct methods {
    const method* list;
    std::ptrdiff_t count;
    const rule* rules;
    std::ptrdiff_t rule_count;
};

} // namespace recall
