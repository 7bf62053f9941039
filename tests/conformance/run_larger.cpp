// SPDX-License-Identifier: MIT
// The operations that take half of the time to compile, so that two cores share it; run_arch.cpp has the rest. Compiled
// once per instruction set, with -DSEQMIX_TEST_ARCH=<its name>.
#include "linear_attention.hpp"
#include "quant_matmul.hpp"

SEQMIX_NAMESPACE_BEGIN
namespace conformance {
template void run_linear_attention<arch::SEQMIX_TEST_ARCH>(const case_reader&, judge&);
template void run_quant_matmul<arch::SEQMIX_TEST_ARCH>(const case_reader&, judge&);
} // namespace conformance
SEQMIX_NAMESPACE_END
