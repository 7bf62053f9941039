// SPDX-License-Identifier: MIT
#pragma once

/// Whether this machine, its operating system included, runs the instruction set: "scalar", "avx2", "avx2_vnni",
/// "avx512", "avx512_vnni", "avx512_bf16", "neon" or "neon_i8mm". False for any other name.
bool can_run(const char* arch) noexcept;
