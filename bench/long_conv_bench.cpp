// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/conv/apply.hpp>

#include <cmath>
#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family long_conv_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;
namespace conv = seqmix::conv;

class long_conv_call {
public:
    long_conv_call(const long_conv_problem& p, void* const* data)
        : u_(static_cast<const float*>(data[0]), {index{1}, index{p.channels}, index{p.length}}),
          out_(static_cast<float*>(data[2]), {index{1}, index{p.channels}, index{p.length}}),
          plan_(seqmix::view<const float, 2>(static_cast<const float*>(data[1]), {p.channels, p.taps}),
                {.length = p.length, .keep = p.of_parts > 0 ? seqmix::view<const bool, 1>(first, {index{p.of_parts}}) : seqmix::view<const bool, 1>{}})
    {
    }
    void run() { conv::apply(plan_, u_, out_, {}, own_); }

private:
    static constexpr bool first[8] = {true};

    seqmix::view<const float, 3> u_;
    seqmix::view<float, 3> out_;
    conv::plan<set> plan_;
    seqmix::context<> own_;
};

call make(const void* problem, void* const* data) { return call_of(new long_conv_call(*static_cast<const long_conv_problem*>(problem), data)); }

constexpr long_conv_problem short_rows = {}, rows4k = {1024, 4096, 4096}, rows16k = {256, 16384, 16384}, rows1M = {4, 1048576, 1048576};
constexpr long_conv_problem short_kernel = {256, 16384, 2048}, quarter_spectrum = {256, 16384, 16384, 4};

/// Counted as others do: two real transforms of twice the length, 5/2 N log2 N operations each.
constexpr double work(const long_conv_problem& p)
{
    double stages = 1.0;
    for (std::int64_t n = p.length; n > 1; n /= 2) { stages += 1.0; }
    return 2.0 * 2.5 * 2.0 * static_cast<double>(p.length * p.channels) * stages;
}

constexpr row row_of(const char* name, const char* shape, const long_conv_problem& p, spread_over where = spread_over::best)
{
    return {
        .name = name,
        .shape = shape,
        .of = limit::f32,
        .unit = "FLOP",
        .work = work(p),
        .where = where,
        .operands = {{element::f32, p.channels * p.length, filling::normal},
                     {element::f32, p.channels * p.length, filling::normal}, // of as many taps, for the whole kernel too
                     {element::f32, p.channels * p.length}},
        .problem = &p,
        .make = make,
        .peers = {fftw_long_conv_peer},
    };
}

/// Speed over another way to do the same, or over the whole kernel.
constexpr row over(row r, maker* reference, const long_conv_problem& with)
{
    r.says = figure::speed_up;
    r.reference_problem = &with;
    r.reference_work = work(with);
    r.reference = reference;
    r.peers[0] = {};
    return r;
}

constexpr row rows[] = {
    row_of("f32_4096x1024", "4096 channels x 1024, causal", short_rows, spread_over::all),
    row_of("f32_1024x4096", "1024 channels x 4096, causal", rows4k, spread_over::vectors),
    row_of("f32_256x16384", "256 channels x 16384, causal", rows16k),
    row_of("f32_4x1M", "4 channels x 1048576, causal", rows1M),
#if defined(SEQMIX_BENCH_FFTW)
    over(row_of("over_fftw_4096x1024", "the same; speed over FFTW, measured plans", short_rows), fftw_long_conv_peer.make, short_rows),
    over(row_of("over_fftw_1024x4096", "the same", rows4k), fftw_long_conv_peer.make, rows4k),
    over(row_of("over_fftw_256x16384", "the same", rows16k), fftw_long_conv_peer.make, rows16k),
    over(row_of("over_fftw_4x1M", "the same", rows1M), fftw_long_conv_peer.make, rows1M),
    over(row_of("over_three_passes", "4096 channels x 1024; speed over FFTW in three passes over all channels", short_rows),
         fftw_three_passes_peer.make, short_rows),
#endif
    over(row_of("eighth_of_kernel", "256 channels x 16384, kernel of 2048; speed over the whole kernel", short_kernel), nullptr, rows16k),
    over(row_of("three_quarters_skipped", "256 channels x 16384, a quarter of the spectra kept; speed over whole ones", quarter_spectrum), nullptr, rows16k),
};

} // namespace

family long_conv_rows() { return {"long_conv", rows, static_cast<int>(std::size(rows))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
