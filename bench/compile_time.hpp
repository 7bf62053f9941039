// SPDX-License-Identifier: MIT
#pragma once

#include "row.hpp"

#include <optional>

namespace bench {

/// The name of the row; it belongs to no instruction set's table.
inline constexpr const char* compile_row = "attention/compile_seconds";

/// Processor seconds (user and system, best of three) for compiling a file that includes <seqmix/attention.hpp> and
/// makes one call on floats, at -O2 for the instruction set, with the compiler that built this program. Empty if it
/// can't be run.
std::optional<double> compile_seconds(const instruction_set& set);

} // namespace bench
