// SPDX-License-Identifier: MIT
#pragma once

#include "problems.hpp"

// State spaces as others ship them for CPUs: no library has a fast one, so the loops that they have are written here.

namespace bench::SEQMIX_BENCH_ARCH {

/// Per token and channel a scalar loop over the states with expf. Operands of a scan_problem with `channels_inside`, float.
maker scalar_scan;

/// Token by token, vectorised over N by the compiler; each token reads and writes its head's state. Operands of an ssd_problem,
/// float or bf16.
maker token_loop_ssd;

} // namespace bench::SEQMIX_BENCH_ARCH
