// SPDX-License-Identifier: MIT
// A result is not rounded to a type that the caller's operands don't have.
// expect: out has the type of q, or float
#include <seqmix/attention.hpp>

#ifdef SEQMIX_POSITIVE_CONTROL
using out_element = float;
#else
using out_element = seqmix::f16;
#endif

void attend(seqmix::view<const float, 4> x, seqmix::view<out_element, 4> out)
{
    seqmix::attention::forward(x, x, x, out);
}
