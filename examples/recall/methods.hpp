// SPDX-License-Identifier: MIT
#pragma once

#include "kernel.hpp"

#include <can_run.hpp>

#include <vector>

// Each compiled instruction set has its own list of methods (run_arch.cpp): plain data, so that nothing of a set runs
// before it is chosen.
#define SEQMIX_ARCH(name) extern const recall::methods recall_methods_##name;
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

namespace recall {

struct backend {
    const char* name;
    const recall::methods* methods;
};

/// The compiled instruction sets that this machine can run, the best one last.
inline std::vector<backend> usable_backends()
{
    std::vector<backend> usable;
#define SEQMIX_ARCH(name)                                                                                              \
    if (can_run(#name)) { usable.push_back({#name, &recall_methods_##name}); }
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH
    return usable;
}

} // namespace recall
