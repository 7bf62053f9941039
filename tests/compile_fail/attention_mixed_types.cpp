// SPDX-License-Identifier: MIT
// q, k and v share one product, so they share a type.
// expect: q, k and v have one type
#include <seqmix/attention.hpp>

#ifdef SEQMIX_POSITIVE_CONTROL
using key_element = float;
#else
using key_element = seqmix::bf16;
#endif

void attend(seqmix::view<float, 4> q, seqmix::view<key_element, 4> k, seqmix::view<float, 4> v,
            seqmix::view<float, 4> out)
{
    seqmix::attention::forward(q, k, v, out);
}
