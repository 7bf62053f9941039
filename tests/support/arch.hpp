// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/backends.hpp>

#include <string>

// The build names the instruction set that a test program is for: -DSEQMIX_TEST_ARCH=avx2.

using test_arch = seqmix::arch::SEQMIX_TEST_ARCH;

inline std::string test_arch_name() { return test_arch::name; }
