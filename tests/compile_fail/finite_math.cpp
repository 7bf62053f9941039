// SPDX-License-Identifier: MIT
// Masked scores are minus infinity; under finite-math hidden keys would leak.
// fail-flags: -ffinite-math-only
// expect: error
// expect: finite
#include <seqmix/config.hpp>
