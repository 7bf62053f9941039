// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/conv/apply.hpp>
#include <seqmix/conv/stream.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

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

/// All tokens of a sequence, one after another. u and out lie as [length, channels].
class stream_call {
public:
    stream_call(const long_conv_problem& p, void* const* data)
        : p_(p), u_(static_cast<const float*>(data[0])), out_(static_cast<float*>(data[2])),
          plan_(seqmix::view<const float, 2>(static_cast<const float*>(data[1]), {p.channels, p.taps})), stream_(plan_, 1)
    {
    }
    void run()
    {
        stream_.restart();
        for (index t = 0; t < p_.length; ++t) {
            stream_.step(seqmix::view<const float, 2>(u_ + t * p_.channels, {index{1}, index{p_.channels}}),
                         seqmix::view<float, 2>(out_ + t * p_.channels, {index{1}, index{p_.channels}}), {}, own_);
        }
    }

private:
    long_conv_problem p_;
    const float* u_;
    float* out_;
    conv::stream_plan<set> plan_;
    conv::stream<set> stream_;
    seqmix::context<> own_;
};

/// The same by a dot product of the kernel with all inputs so far, for every token and channel: kernels turned round, inputs of a channel
/// together, so that both are read as they lie.
class token_loop_call {
public:
    token_loop_call(const long_conv_problem& p, void* const* data)
        : p_(p), u_(static_cast<const float*>(data[0])), out_(static_cast<float*>(data[2])),
          turned_(static_cast<const float*>(data[1]), static_cast<const float*>(data[1]) + p.channels * p.taps), inputs_(turned_.size())
    {
        for (auto k = turned_.begin(); k != turned_.end(); k += p.taps) { std::reverse(k, k + p.taps); }
    }
    void run()
    {
        for (index t = 0; t < p_.length; ++t) {
            for (index d = 0; d < p_.channels; ++d) {
                float* const inputs = inputs_.data() + d * p_.taps;
                inputs[t] = u_[t * p_.channels + d];
                out_[t * p_.channels + d] = dot(turned_.data() + (d + 1) * p_.taps - (t + 1), inputs, t + 1);
            }
        }
    }

private:
    /// In registers: compilers make ten times less of a plain loop.
    static float dot(const float* a, const float* b, index count)
    {
        using f32 = seqmix::simd::f32<set>;
        constexpr int sums = 4;
        f32 sum[sums];
        seqmix::simd::unroll<sums>([&](auto i) { sum[i] = f32::zero(); });
        index n = 0;
        for (; n + sums * f32::lanes <= count; n += sums * f32::lanes) {
            seqmix::simd::unroll<sums>([&](auto i) {
                sum[i] = fma(f32::load(a + n + i * f32::lanes), f32::load(b + n + i * f32::lanes), sum[i]);
            });
        }
        for (; n < count; n += f32::lanes) { sum[0] = fma(f32::load(a + n, count - n), f32::load(b + n, count - n), sum[0]); }
        return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }

    long_conv_problem p_;
    const float* u_;
    float* out_;
    std::vector<float> turned_, inputs_;
};

template <class Call>
call make_of(const void* problem, void* const* data)
{
    return call_of(new Call(*static_cast<const long_conv_problem*>(problem), data));
}

call make(const void* problem, void* const* data) { return call_of(new long_conv_call(*static_cast<const long_conv_problem*>(problem), data)); }

constexpr long_conv_problem short_rows = {}, rows4k = {1024, 4096, 4096}, rows16k = {256, 16384, 16384}, rows1M = {4, 1048576, 1048576};
constexpr long_conv_problem tokens64k = {4, 65536, 65536};
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

/// Token by token: work is tokens, of all channels.
constexpr row stream_row(const char* name, const char* shape, const long_conv_problem& p)
{
    row r = over(row_of(name, shape, p), make_of<token_loop_call>, p);
    r.of = limit::none, r.unit = "token", r.make = make_of<stream_call>;
    r.work = r.reference_work = static_cast<double>(p.length);
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
    stream_row("stream_over_token_loop", "4 channels x 65536, token by token; speed over a dot product with all inputs so far", tokens64k),
};

} // namespace

family long_conv_rows() { return {"long_conv", rows, static_cast<int>(std::size(rows))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
