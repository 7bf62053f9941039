// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/conv/image_apply.hpp>

#include <cmath>
#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family image_conv_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;
namespace conv = seqmix::conv;

class image_call {
public:
    image_call(const image_problem& p, void* const* data)
        : u_(static_cast<const float*>(data[0]), {index{1}, index{p.channels}, index{p.height}, index{p.width}}),
          out_(static_cast<float*>(data[2]), {index{1}, index{p.channels}, index{p.height}, index{p.width}}),
          plan_(seqmix::view<const float, 3>(static_cast<const float*>(data[1]), {p.channels, p.rows, p.columns}),
                {.height = p.height, .width = p.width})
    {
    }
    void run() { conv::apply(plan_, u_, out_, {}, own_); }

private:
    seqmix::view<const float, 4> u_;
    seqmix::view<float, 4> out_;
    conv::image_plan<set> plan_;
    seqmix::context<> own_;
};

call make(const void* problem, void* const* data) { return call_of(new image_call(*static_cast<const image_problem*>(problem), data)); }

constexpr image_problem long_kernel = {}, small_kernel = {64, 56, 56, 7, 7};

constexpr row row_of(const char* name, const char* shape, const image_problem& p, double work)
{
    return {
        .name = name,
        .shape = shape,
        .of = limit::f32,
        .unit = "FLOP",
        .work = work,
        .where = spread_over::best,
        .operands = {{element::f32, p.channels * p.height * p.width, filling::normal},
                     {element::f32, p.channels * p.rows * p.columns, filling::normal},
                     {element::f32, p.channels * p.height * p.width}},
        .problem = &p,
        .make = make,
        .peers = {},
    };
}

/// Counted as others do: two real transforms of twice the sides, 5/2 N log2 N operations each.
constexpr double work_of_transforms(const image_problem& p)
{
    double stages = 0.0;
    const std::int64_t points = 4 * p.height * p.width;
    for (std::int64_t n = points; n > 1; n /= 2) { stages += 1.0; }
    return 2.0 * 2.5 * static_cast<double>(points * p.channels) * stages;
}
constexpr double work_of_taps(const image_problem& p) { return 2.0 * static_cast<double>(p.channels * p.height * p.width * p.rows * p.columns); }

constexpr row long_row()
{
    row r = row_of("f32_64x128x128", "64 channels x 128 x 128, kernels as large, causal", long_kernel, work_of_transforms(long_kernel));
    r.peers[0] = fftw_image_peer;
    return r;
}

#if defined(SEQMIX_BENCH_FFTW)
constexpr row over_fftw()
{
    row r = row_of("over_fftw_64x128x128", "the same; speed over FFTW in two dimensions, measured plans", long_kernel, work_of_transforms(long_kernel));
    r.says = figure::speed_up, r.reference = fftw_image_peer.make, r.reference_problem = &long_kernel, r.reference_work = r.work;
    return r;
}
#endif

constexpr row rows[] = {
    long_row(),
#if defined(SEQMIX_BENCH_FFTW)
    over_fftw(),
#endif
    row_of("f32_7x7_64x56x56", "64 channels x 56 x 56, 7 x 7; all taps count", small_kernel, work_of_taps(small_kernel)),
};

} // namespace

family image_conv_rows() { return {"image_conv", rows, static_cast<int>(std::size(rows))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
