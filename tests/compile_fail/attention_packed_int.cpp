// SPDX-License-Identifier: MIT
// Packed sequences are of the same types as a batch.
// expect: attention reads float, bf16 or f16
// expect: q, k and v have one type
#include <seqmix/attention.hpp>

#ifdef SEQMIX_POSITIVE_CONTROL
using query_element = float;
#else
using query_element = double;
#endif

void attend(seqmix::view<const query_element, 3> q, seqmix::view<const float, 3> kv, seqmix::view<query_element, 3> out,
            seqmix::view<const seqmix::index, 1> cu)
{
    seqmix::attention::forward_packed(q, kv, kv, out, cu, cu);
}
