// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

// What crosses the boundary between main.cpp, compiled without -m flags, and run_arch.cpp, compiled once per
// instruction set. examples/dispatch/README.md says why nothing else may.

namespace hyena_block {

struct result {
    double whole_seconds = 0, stream_seconds = 0; ///< of processor time
    double difference = 0;                        ///< the largest one, relative to the largest output
    double root_mean_square = 0;                  ///< of all differences, relative to that of the outputs
    double bound = 0;                             ///< on it, from the docstrings
};

/// A block of so many channels, and a sequence through it, whole and token by token.
using backend = result(std::ptrdiff_t tokens, std::ptrdiff_t channels);

} // namespace hyena_block
