// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/conv/monarch.hpp>

#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family monarch_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;

/// Weights are packed beforehand, as a layer's would be.
class apply_call {
public:
    apply_call(const monarch_problem& p, void* const* data)
        : matrix_(seqmix::view<const float, 3>(static_cast<const float*>(data[1]), {p.k, p.q, p.p}),
                  seqmix::view<const float, 3>(static_cast<const float*>(data[2]), {p.l, p.s, p.r})),
          x_(static_cast<const float*>(data[0]), {p.batch, p.k * p.p}), out_(static_cast<float*>(data[3]), {p.batch, p.l * p.s})
    {
    }
    void run() { seqmix::conv::apply(matrix_, x_, out_, ctx_); }

private:
    seqmix::conv::monarch_matrix<set> matrix_;
    seqmix::view<const float, 2> x_;
    seqmix::view<float, 2> out_;
    seqmix::context<> ctx_;
};

call make(const void* problem, void* const* data)
{
    return call_of(new apply_call(*static_cast<const monarch_problem*>(problem), data));
}

struct one_case {
    const char* name;
    const char* shape;
    monarch_problem problem;
    spread_over where = spread_over::best;
};

constexpr one_case cases[] = {
    {"monarch_f32", "1024 = 32 x 32, batch 256", {}, spread_over::vectors},
    {"monarch_f32_4096", "4096 = 64 x 64, batch 256", {256, 64, 64, 64, 64, 64, 64}},
    {"monarch_f32_wide", "1024 to 4096: 32 x 128 x 32, 128 x 32 x 32, batch 256", {256, 32, 128, 32, 128, 32, 32}},
};

constexpr row row_of(const one_case& c)
{
    const monarch_problem& p = c.problem;
    return {
        .name = c.name,
        .shape = c.shape,
        .of = limit::f32,
        .unit = "FLOP",
        .work = 2.0 * static_cast<double>(p.batch) * static_cast<double>(p.k * p.q * p.p + p.l * p.s * p.r),
        .where = c.where,
        .operands = {{element::f32, p.batch * p.k * p.p, filling::normal},
                     {element::f32, p.k * p.q * p.p, filling::normal},
                     {element::f32, p.l * p.s * p.r, filling::normal},
                     {element::f32, p.batch * p.l * p.s}},
        .problem = &c.problem,
        .make = make,
        .peers = {openblas_monarch_peer},
    };
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family monarch_rows() { return {"conv", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
