// SPDX-License-Identifier: MIT
// There is no attention of integers; quantized keys and values need a format, and this is not one.
// expect: attention reads float, bf16 or f16
#include <seqmix/attention.hpp>

#ifdef SEQMIX_POSITIVE_CONTROL
using element = float;
#else
using element = int;
#endif

void attend(seqmix::view<const element, 4> x, seqmix::view<element, 4> out)
{
    seqmix::attention::forward(x, x, x, out);
}
