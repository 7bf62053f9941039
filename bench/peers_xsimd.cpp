// SPDX-License-Identifier: MIT
// xsimd's elementary functions, for the instruction set that this file is compiled for.
#include "peers.hpp"

// GCC 12 warns of undefined registers in its own header (GCC bug 105593), wherever it was inlined into.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>

namespace bench::SEQMIX_BENCH_ARCH {

namespace {

using batch = xsimd::batch<float>;

template <function F>
struct map_call {
    const float* from;
    float* to;
    std::int64_t count;

    void run() const
    {
        constexpr auto lanes = static_cast<std::int64_t>(batch::size);
        for (std::int64_t i = 0; i < count; i += lanes) {
            const batch x = batch::load_unaligned(from + i);
            of(x).store_unaligned(to + i);
        }
    }
    static batch of(const batch& x)
    {
        if constexpr (F == function::exp2) {
            return xsimd::exp2(x);
        } else if constexpr (F == function::exp) {
            return xsimd::exp(x);
        } else if constexpr (F == function::log) {
            return xsimd::log(x);
        } else {
            return xsimd::tanh(x);
        }
    }
};

template <function F>
call make_map(const map_problem& p, void* const* data)
{
    return call_of(new map_call<F>{static_cast<const float*>(data[0]), static_cast<float*>(data[1]), p.count});
}

} // namespace

call xsimd_map(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const map_problem*>(problem);
    switch (p.f) {
    case function::exp2:
        return make_map<function::exp2>(p, data);
    case function::exp:
        return make_map<function::exp>(p, data);
    case function::log:
        return make_map<function::log>(p, data);
    case function::tanh:
        return make_map<function::tanh>(p, data);
    }
    return {};
}

} // namespace bench::SEQMIX_BENCH_ARCH
