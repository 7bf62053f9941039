// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>

// What crosses from main.cpp, compiled without -m flags, to run_arch.cpp, compiled once per instruction set: pointers
// and numbers. Nothing here has code of its own, so the linker can't take one unit's for another's.

namespace conformance {

struct plain_tensor {
    const char* name;
    const char* dtype;
    const std::int64_t* shape;
    std::size_t rank;
    const unsigned char* data;
    std::size_t bytes;
};

struct plain_entry {
    const char* key;
    const char* value;
};

struct plain_case {
    const plain_entry* metadata;
    std::size_t metadata_count;
    const plain_tensor* tensors;
    std::size_t tensor_count;
};

enum class outcome : int { ok, fail, unsupported };

struct verdict {
    outcome result;
    double worst;     ///< largest relative error; NaN where nothing was compared
    double tolerance; ///< NaN where the file gives none
    char reason[400]; ///< why it is not ok
};

} // namespace conformance
