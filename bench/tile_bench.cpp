// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/tile/gemm.hpp>

#include <iterator>
#include <type_traits>

namespace bench::SEQMIX_BENCH_ARCH {

family tile_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;

template <class T>
class gemm_call {
    using sum = std::conditional_t<std::is_same_v<T, std::int8_t>, std::int32_t, float>;

public:
    gemm_call(const gemm_problem& p, void* const* data)
        : a_(static_cast<const T*>(data[0]), {p.m, p.k}), b_(static_cast<const T*>(data[1]), {p.k, p.n}),
          c_(static_cast<sum*>(data[2]), {p.m, p.n})
    {
    }
    void run() { seqmix::tile::gemm<set>(a_, b_, c_, scratch_); }

private:
    seqmix::view<const T, 2> a_, b_;
    seqmix::view<sum, 2> c_;
    seqmix::workspace scratch_;
};

call make(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const gemm_problem*>(problem);
    switch (p.type) {
    case element::f32:
        return call_of(new gemm_call<float>(p, data));
    case element::bf16:
        return call_of(new gemm_call<seqmix::bf16>(p, data));
    case element::s8:
        return call_of(new gemm_call<std::int8_t>(p, data));
    default:
        return {};
    }
}

struct one_case {
    const char* name;
    const char* shape;
    gemm_problem problem;
    spread_over where = spread_over::best;
};

constexpr one_case cases[] = {
    {"gemm_f32_512", "512 x 512 x 512", {element::f32, 512, 512, 512}, spread_over::all},
    {"gemm_f32_2048", "2048 x 2048 x 2048", {element::f32, 2048, 2048, 2048}, spread_over::vectors},
    {"gemm_bf16_512", "512 x 512 x 512", {element::bf16, 512, 512, 512}, spread_over::all},
    {"gemm_bf16_2048", "2048 x 2048 x 2048", {element::bf16, 2048, 2048, 2048}, spread_over::vectors},
    {"gemm_int8_512", "512 x 512 x 512", {element::s8, 512, 512, 512}, spread_over::all},
    {"gemm_int8_2048", "2048 x 2048 x 2048", {element::s8, 2048, 2048, 2048}, spread_over::vectors},
};

constexpr row row_of(const one_case& c)
{
    const gemm_problem& p = c.problem;
    const bool whole = p.type == element::s8;
    const filling fill = whole ? filling::bytes : filling::normal;
    return {
        .name = c.name,
        .shape = c.shape,
        .of = whole                     ? limit::int8
              : p.type == element::bf16 ? limit::bf16
                                        : limit::f32,
        .unit = whole ? "OP" : "FLOP",
        .work = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k),
        .where = c.where,
        .operands = {{p.type, p.m * p.k, fill},
                     {p.type, p.k * p.n, fill},
                     {whole ? element::s32 : element::f32, p.m * p.n}},
        .problem = &c.problem,
        .make = make,
        // Eigen multiplies integers so slowly that one large product would take longer than everything else.
        .peers = {whole && p.m > 512 ? peer{} : eigen_gemm_peer, onednn_gemm_peer,
                  p.type == element::f32 ? openblas_gemm_peer : peer{}},
    };
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family tile_rows() { return {"tile", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
