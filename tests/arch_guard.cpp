// SPDX-License-Identifier: MIT
#include <can_run.hpp>

#include <cstdio>
#include <cstdlib>

// Linked into every program of an instruction set, and compiled without its flags. Runs before all other initialisers,
// which are already compiled with them, so that a machine without the set reports a skipped test and not a crash.

#define SEQMIX_STRING_(x) #x
#define SEQMIX_STRING(x) SEQMIX_STRING_(x)

__attribute__((constructor(101))) static void skip_where_it_cannot_run()
{
    if (!can_run(SEQMIX_STRING(SEQMIX_TEST_ARCH))) {
        std::puts("seqmix: skipped, this machine does not run " SEQMIX_STRING(SEQMIX_TEST_ARCH));
        std::fflush(stdout);
        std::_Exit(77);
    }
}
