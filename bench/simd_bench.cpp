// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/simd/backends.hpp>
#include <seqmix/simd/math.hpp>

#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family simd_rows();

namespace {

using f32 = seqmix::simd::f32<seqmix::arch::SEQMIX_BENCH_ARCH>;

template <function F>
struct map_call {
    const float* from;
    float* to;
    std::int64_t count;

    void run() const
    {
        for (std::int64_t i = 0; i < count; i += f32::lanes) { of(f32::load(from + i)).store(to + i); }
    }
    static SEQMIX_INLINE f32 of(f32 x)
    {
        if constexpr (F == function::exp2) {
            return seqmix::simd::exp2(x);
        } else if constexpr (F == function::exp) {
            return seqmix::simd::exp(x);
        } else if constexpr (F == function::log) {
            return seqmix::simd::log(x);
        } else {
            return seqmix::simd::tanh(x);
        }
    }
};

template <function F>
call make_map(const map_problem& p, void* const* data)
{
    return call_of(new map_call<F>{static_cast<const float*>(data[0]), static_cast<float*>(data[1]), p.count});
}

call make(const void* problem, void* const* data)
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

struct one_case {
    const char* name;
    map_problem problem;
};

constexpr std::int64_t count = 4096;
constexpr one_case cases[] = {
    {"exp2_f32", {function::exp2, count}},
    {"exp_f32", {function::exp, count}},
    {"log_f32", {function::log, count}},
    {"tanh_f32", {function::tanh, count}},
};

constexpr row row_of(const one_case& c)
{
    const map_problem& p = c.problem;
    const filling fill = p.f == function::log ? filling::positive : filling::normal;
    return {
        .name = c.name,
        .shape = "4096 numbers in L1",
        .of = limit::none,
        .unit = "element",
        .work = static_cast<double>(p.count),
        .where = spread_over::all,
        .operands = {{element::f32, p.count, fill}, {element::f32, p.count}},
        .problem = &c.problem,
        .make = make,
        .peers = {eigen_map_peer, xsimd_map_peer},
    };
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family simd_rows() { return {"simd", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
