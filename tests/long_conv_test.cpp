// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"

#include <seqmix/conv/apply.hpp>
#include <seqmix/conv/reference.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <thread>
#include <vector>

namespace long_conv_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::bf16;
using sm::index;
using conv::method;
using test_support::on_threads;
using plan = conv::plan<test_arch>;

constexpr index lanes = sm::simd::lanes<test_arch>;
constexpr double unit_roundoff = 0x1p-24;

/// One call. Operands [B, D, L] lie one after another, or with the channels inside, or backwards in time.
struct problem {
    index batch = 1, channels = 1, length = 1, taps = 1, backward = 0;
    bool causal = true, pre = false, post = false, skip = false, own_kernels = false;
    conv::method how = method::automatic;
    index points = 0, planned = 0; ///< a plan for longer sequences
    int lie = 0;
    double round = 0.0; ///< of the output's type
};

std::ostream& operator<<(std::ostream& to, const problem& p)
{
    return to << "B " << p.batch << " D " << p.channels << " L " << p.length << " Lk " << p.taps << " Lb " << p.backward << (p.causal ? " causal" : " circular")
              << (p.pre ? " pre" : "") << (p.post ? " post" : "") << (p.skip ? " skip" : "") << " method " << static_cast<int>(p.how) << " points " << p.points
              << " planned " << p.planned << " lie " << p.lie;
}

template <class T>
sm::view<T, 3> laid(T* data, const problem& p)
{
    const index B = p.batch, D = p.channels, L = p.length, one = 1;
    sm::view<T, 3> v(data, {B, D, L});
    if (p.lie == 1) { v = sm::view<T, 3>(data, {B, D, L}, {D * L, one, D}); }
    if (p.lie == 2) { v = v.reversed(2); }
    return v;
}

template <class T>
struct operands {
    problem p;
    std::vector<float> kernel, backward, skip;
    std::vector<T> u, pre, post;

    explicit operands(const problem& problem_, std::uint64_t seed) : p(problem_)
    {
        random_source random(seed);
        const auto floats = [&](index n) {
            std::vector<float> x(static_cast<std::size_t>(n));
            for (float& number : x) { number = random.normal(); }
            return x;
        };
        const auto numbers = [&](index n) {
            std::vector<T> x;
            for (float number : floats(n)) { x.push_back(static_cast<T>(number)); }
            return x;
        };
        const index all = p.batch * p.channels * p.length;
        kernel = floats((p.own_kernels ? p.batch : 1) * p.channels * p.taps), backward = floats(p.channels * p.backward), skip = floats(p.channels);
        u = numbers(all), pre = numbers(all), post = numbers(all);
    }

    plan make() const
    {
        conv::plan_options opt{.length = std::max(p.length, p.planned), .causal = p.causal, .method = p.how, .points = p.points};
        if (p.backward > 0) { opt.backward = sm::view<const float, 2>(backward.data(), {p.channels, p.backward}); }
        if (p.own_kernels) { return plan(sm::view<const float, 3>(kernel.data(), {p.batch, p.channels, p.taps}), opt); }
        return plan(sm::view<const float, 2>(kernel.data(), {p.channels, p.taps}), opt);
    }
    conv::apply_options<T> options() const
    {
        conv::apply_options<T> opt;
        if (p.pre) { opt.pre_gate = laid(pre.data(), p); }
        if (p.post) { opt.post_gate = laid(post.data(), p); }
        if (p.skip) { opt.skip = sm::view<const float, 1>(skip.data(), {p.channels}); }
        return opt;
    }
};

/// The largest error in the root mean square over a channel, relative to what is tolerated.
///
/// A transform's error is relative to the whole: 3 · 2^-23 log2(2M) |u| |k|₁ (Higham 2002, section 24.1, for each of the three
/// transforms log2(2M) times a few roundings; the spectrum's largest number is at most |k|₁). Direct sums: (taps + 2) u Σ|k u|. The gates and the
/// skip: 4 roundings of what they make.
template <class T, class Out>
double worst(const operands<T>& o, const plan& plan_, const sm::view<Out, 3>& out)
{
    const problem& p = o.p;
    const auto u = laid(o.u.data(), p), pre = laid(o.pre.data(), p), post = laid(o.post.data(), p);
    double result = 0.0;
    for (index b = 0; b < p.batch; ++b) {
        for (index d = 0; d < p.channels; ++d) {
            std::vector<double> x, k, backward;
            double norm_u = 0.0, norm_k = 0.0, most_post = 1.0;
            for (index t = 0; t < p.length; ++t) {
                const double input = static_cast<double>(static_cast<float>(u(b, d, t)));
                x.push_back(p.pre ? input * static_cast<double>(static_cast<float>(pre(b, d, t))) : input);
                norm_u += x.back() * x.back();
                if (p.post) { most_post = std::max(most_post, std::fabs(static_cast<double>(static_cast<float>(post(b, d, t))))); }
            }
            for (index s = 0; s < p.taps; ++s) {
                k.push_back(static_cast<double>(o.kernel[static_cast<std::size_t>(((p.own_kernels ? b : 0) * p.channels + d) * p.taps + s)]));
                norm_k += std::fabs(k.back());
            }
            for (index s = 0; s < p.backward; ++s) {
                backward.push_back(static_cast<double>(o.backward[static_cast<std::size_t>(d * p.backward + s)]));
                norm_k += std::fabs(backward.back());
            }
            const std::vector<double> y = conv::reference::convolve(x, k, backward, !p.causal);
            double error = 0.0, rounded = 0.0;
            for (index t = 0; t < p.length; ++t) {
                const std::size_t at = static_cast<std::size_t>(t);
                const double skipped = p.skip ? static_cast<double>(o.skip[static_cast<std::size_t>(d)]) * x[at] : 0.0;
                const double gate = p.post ? static_cast<double>(static_cast<float>(post(b, d, t))) : 1.0, want = gate * (y[at] + skipped);
                const double off = static_cast<double>(static_cast<float>(out(b, d, t))) - want;
                error += off * off;
                const double of_want = 4.0 * unit_roundoff * std::fabs(gate) * (std::fabs(y[at]) + std::fabs(skipped)) + p.round * std::fabs(want);
                rounded += of_want * of_want;
            }
            const double of_gate = p.pre ? unit_roundoff : 0.0;
            const double of_sums = plan_.method() == method::transform
                                       ? 3.0 * 0x1p-23 * std::log2(2.0 * static_cast<double>(plan_.points()))
                                       : unit_roundoff * static_cast<double>(p.taps + p.backward + 2);
            const double bound = std::sqrt(rounded) + most_post * (of_sums + of_gate) * std::sqrt(norm_u) * norm_k * (1.0 + p.round);
            result = std::max(result, error == 0.0 ? 0.0 : std::isfinite(error) ? std::sqrt(error) / bound : 1e30);
        }
    }
    return result;
}

template <class T, class Out>
void check(const problem& p, std::uint64_t seed)
{
    CAPTURE(p, seed);
    const operands<T> o(p, seed);
    const plan plan_ = o.make();
    CAPTURE(plan_.points(), plan_.step());
    guarded<Out> memory(p.batch * p.channels * p.length);
    const sm::view<Out, 3> out = laid(memory.data(), p);
    conv::apply(plan_, laid(o.u.data(), p), out, o.options());
    CHECK(worst(o, plan_, out) <= 1.0);
    CHECK(memory.intact());
}

TEST_CASE("long convolutions: every length from 1 to 300")
{
    random_source random(3);
    for (index length = 1; length <= 300; ++length) {
        problem p{.length = length, .taps = static_cast<index>(random.integer(1, 320)), .causal = random.integer(0, 3) > 0};
        for (const method how : {method::direct, method::transform}) {
            p.how = how;
            check<float, float>(p, static_cast<std::uint64_t>(length));
        }
    }
}

TEST_CASE("long convolutions: random pairs of lengths, options and layouts")
{
    random_source random(5);
    const auto yes = [&] { return random.integer(0, 1) == 1; };
    for (std::uint64_t seed = 0; seed < 120; ++seed) {
        problem p{.batch = static_cast<index>(random.integer(1, 2)), .channels = static_cast<index>(random.integer(1, 3)),
                  .length = static_cast<index>(random.integer(1, yes() ? 3000 : 200)), .taps = static_cast<index>(random.integer(1, yes() ? 3000 : 100))};
        p.backward = yes() ? static_cast<index>(random.integer(1, 500)) : 0;
        p.causal = yes(), p.pre = yes(), p.post = yes(), p.skip = yes(), p.own_kernels = yes();
        p.how = static_cast<method>(random.integer(0, 2)), p.lie = static_cast<int>(random.integer(0, 2));
        if (p.causal && yes()) { p.planned = p.length + static_cast<index>(random.integer(0, 300)); }
        check<float, float>(p, seed);
    }
}

TEST_CASE("long convolutions: transforms of every radix, and pieces that overlap")
{
    for (const index leaves : {1, 2, 3, 4, 5, 6, 8, 9, 10, 15, 16, 24, 25, 64, 128}) {
        const index points = leaves * 16 * lanes;
        check<float, float>({.length = 2 * points - 7, .taps = 5, .how = method::transform, .points = points}, 11);
        if (leaves <= 10) { check<float, float>({.length = points, .taps = points, .how = method::transform}, 12); }
    }
    // Short kernels of long sequences, where cutting pays.
    for (const index taps : {5 * lanes, 20 * lanes + 1}) {
        for (const bool causal : {true, false}) {
            const problem p{.length = 4000 * lanes + 3, .taps = taps, .backward = causal ? 31 : 0, .causal = causal, .skip = true, .how = method::transform};
            CHECK(operands<float>(p, 13).make().step() < p.length);
            check<float, float>(p, 13);
        }
    }
}

TEST_CASE("long convolutions: other types")
{
    for (const int lie : {0, 1}) {
        for (const method how : {method::direct, method::transform}) {
            const problem p{.batch = 2, .channels = 3, .length = 301, .taps = 100, .pre = true, .post = true, .skip = true, .how = how, .lie = lie};
            check<bf16, float>(p, 1), check<sm::f16, float>(p, 2);
            problem rounded = p;
            rounded.round = 0x1p-8, check<bf16, bf16>(rounded, 3);
            rounded.round = 0x1p-11, check<sm::f16, sm::f16>(rounded, 4);
        }
    }
}

TEST_CASE("long convolutions: relative to the output, under 3 eps log2 N")
{
    for (const index length : {index{64}, index{1000}, index{6000}}) {
        const problem p{.length = length, .taps = length, .how = method::transform};
        const operands<float> o(p, 17);
        const plan plan_ = o.make();
        std::vector<float> out(static_cast<std::size_t>(length));
        conv::apply(plan_, laid(o.u.data(), p), laid(out.data(), p));
        const std::vector<double> y =
            conv::reference::convolve({o.u.begin(), o.u.end()}, {o.kernel.begin(), o.kernel.end()}, {}, false);
        double error = 0.0, all = 0.0;
        for (std::size_t t = 0; t < y.size(); ++t) { error += std::pow(static_cast<double>(out[t]) - y[t], 2), all += y[t] * y[t]; }
        CAPTURE(length, std::sqrt(error / all));
        CHECK(std::sqrt(error / all) <= 3.0 * 0x1p-23 * std::log2(2.0 * static_cast<double>(length)));
    }
}

TEST_CASE("long convolutions: an impulse gives the kernel, a later one the kernel later")
{
    const index length = 777;
    for (const index at : {index{0}, index{1}, index{500}, length - 1}) {
        problem p{.length = length, .taps = length, .how = method::transform};
        operands<float> o(p, 23);
        std::fill(o.u.begin(), o.u.end(), 0.0f);
        o.u[static_cast<std::size_t>(at)] = 1.0f;
        std::vector<float> out(static_cast<std::size_t>(length));
        conv::apply(o.make(), laid(o.u.data(), p), laid(out.data(), p));
        double largest = 0.0;
        for (index t = 0; t < length; ++t) {
            const float want = t < at ? 0.0f : o.kernel[static_cast<std::size_t>(t - at)];
            largest = std::max(largest, static_cast<double>(std::fabs(out[static_cast<std::size_t>(t)] - want)));
        }
        CAPTURE(at);
        CHECK(largest <= 3.0 * 0x1p-23 * 11.0 * 4.0); // numbers of at most about 4
    }
}

TEST_CASE("long convolutions: the same bits for every number of threads, and from several threads at once")
{
    for (const int lie : {0, 1}) {
        const problem p{.batch = 2, .channels = 19, .length = 700, .taps = 500, .pre = true, .skip = true, .how = method::transform, .lie = lie};
        const operands<float> o(p, 29);
        const plan plan_ = o.make();
        std::vector<float> alone(o.u.size()), spread(o.u.size());
        conv::apply(plan_, laid(o.u.data(), p), laid(alone.data(), p), o.options());
        sm::context many{sm::parallel_for{3, on_threads{}}};
        conv::apply(plan_, laid(o.u.data(), p), laid(spread.data(), p), o.options(), many);
        CHECK(std::memcmp(alone.data(), spread.data(), alone.size() * sizeof(float)) == 0);

        std::vector<std::vector<float>> several(3, std::vector<float>(o.u.size()));
        std::vector<std::thread> threads;
        for (std::vector<float>& mine : several) {
            threads.emplace_back([&] { conv::apply(plan_, laid(o.u.data(), p), laid(mine.data(), p), o.options()); });
        }
        for (std::thread& t : threads) { t.join(); }
        for (const std::vector<float>& mine : several) { CHECK(mine == alone); }
    }
}

TEST_CASE("long convolutions: nothing to do")
{
    for (const problem& p : {problem{.batch = 0}, problem{.channels = 0}, problem{.length = 0}, problem{.length = 5, .taps = 0}}) {
        for (const bool causal : {true, false}) {
            problem q = p;
            q.causal = causal;
            check<float, float>(q, 1);
        }
    }
}

} // namespace
} // namespace long_conv_test
