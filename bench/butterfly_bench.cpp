// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/conv/butterfly_factors.hpp>

#include <algorithm>
#include <bit>
#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family butterfly_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;

constexpr index levels_of(index size) { return std::countr_zero(static_cast<std::uint64_t>(size)); }

/// Coefficients are packed beforehand, as a layer's would be.
class butterfly_call {
public:
    butterfly_call(const butterfly_problem& p, void* const* data)
        : matrix_(seqmix::view<const float, 4>(static_cast<const float*>(data[1]), {levels_of(p.size), p.size / 2, index{2}, index{2}})),
          x_(static_cast<const float*>(data[0]), {p.batch, p.size}), out_(static_cast<float*>(data[2]), {p.batch, p.size})
    {
    }
    void run() { seqmix::conv::apply(matrix_, x_, out_, ctx_); }

private:
    seqmix::conv::butterfly_matrix<set> matrix_;
    seqmix::view<const float, 2> x_;
    seqmix::view<float, 2> out_;
    seqmix::context<> ctx_;
};

/// Factor by factor and pair by pair, each row in its place.
class level_loop_call {
public:
    level_loop_call(const butterfly_problem& p, void* const* data)
        : p_(p), x_(static_cast<const float*>(data[0])), factors_(static_cast<const float*>(data[1])), out_(static_cast<float*>(data[2]))
    {
    }
    void run()
    {
        std::copy(x_, x_ + p_.batch * p_.size, out_);
        for (index level = 0; level < levels_of(p_.size); ++level) {
            const index stride = index{1} << level;
            for (index b = 0; b < p_.batch; ++b) {
                const float* c = factors_ + level * 2 * p_.size;
                for (float* block = out_ + b * p_.size; block < out_ + (b + 1) * p_.size; block += 2 * stride) {
                    for (index i = 0; i < stride; ++i, c += 4) {
                        const float first = block[i], second = block[i + stride];
                        block[i] = c[0] * first + c[1] * second, block[i + stride] = c[2] * first + c[3] * second;
                    }
                }
            }
        }
    }

private:
    butterfly_problem p_;
    const float *x_, *factors_;
    float* out_;
};

template <class Call>
call make(const void* problem, void* const* data)
{
    return call_of(new Call(*static_cast<const butterfly_problem*>(problem), data));
}

constexpr butterfly_problem of_1024 = {}, of_4096 = {256, 4096};

constexpr row row_of(const char* name, const char* shape, const butterfly_problem& p)
{
    return {
        .name = name,
        .shape = shape,
        .of = limit::f32,
        .unit = "FLOP",
        .work = 3.0 * static_cast<double>(p.batch * p.size * levels_of(p.size)),
        .where = spread_over::best,
        .operands = {{element::f32, p.batch * p.size, filling::normal},
                     {element::f32, 2 * p.size * levels_of(p.size), filling::normal},
                     {element::f32, p.batch * p.size}},
        .problem = &p,
        .make = make<butterfly_call>,
        .peers = {},
    };
}

constexpr row over_level_loop()
{
    row r = row_of("over_level_loop", "1024, batch 256; speed over a loop factor by factor", of_1024);
    r.says = figure::speed_up, r.reference = make<level_loop_call>, r.reference_problem = &of_1024, r.reference_work = r.work;
    return r;
}

constexpr row rows[] = {
    row_of("f32_1024", "1024, 10 factors, batch 256", of_1024),
    row_of("f32_4096", "4096, 12 factors, batch 256", of_4096),
    over_level_loop(),
};

} // namespace

family butterfly_rows() { return {"butterfly", rows, static_cast<int>(std::size(rows))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
