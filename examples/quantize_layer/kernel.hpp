// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>

// What crosses the boundary between the files compiled without -m flags and run_arch.cpp, compiled once per instruction set: plain
// numbers, pointers and functions. examples/dispatch/README.md says why nothing else may.

namespace quantize_layer {

using size = std::ptrdiff_t;

enum class format { int8, fp8, int4, uint4, two_level, q4_0, q8_0, q6_k, q4_k, mxfp4 };

/// A stored matrix. Blocks have their bytes in `codes` and nothing else.
struct stored {
    format kind;
    const void* codes;
    size code_bytes;
    const float* scales;       ///< [rows, ⌈columns / group⌉]
    const std::uint8_t* zeros; ///< the same; of uint4; of two_level group scales, and scales are [rows]
    const std::int32_t* order; ///< [columns]: of GPTQ with act-order; else null
    size group;                ///< columns that share a scale
};

struct problem {
    size tokens, rows, columns;
    const float* x;       ///< [tokens, columns]
    const float* weights; ///< [rows, columns]: what the float product that times are measured by multiplies with
};

struct outcome {
    float *by_floats, *by_int8; ///< [tokens, rows], written
    bool has_int8;              ///< whether the format's codes are integers; by_int8 is left alone if not
    double one_token, all;      ///< processor time over that of a float product: with int8 where there is, else with floats
};

struct backend {
    void (*multiply)(const stored&, const problem&, outcome&);
};

} // namespace quantize_layer
