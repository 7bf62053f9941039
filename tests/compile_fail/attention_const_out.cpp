// SPDX-License-Identifier: MIT
// The output is written.
// expect: out has the type of q, or float
#include <seqmix/attention.hpp>

#ifdef SEQMIX_POSITIVE_CONTROL
using out_element = float;
#else
using out_element = const float;
#endif

void attend(seqmix::view<const float, 4> x, seqmix::view<out_element, 4> out)
{
    seqmix::attention::forward(x, x, x, out);
}
