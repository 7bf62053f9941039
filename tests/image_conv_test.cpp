// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"

#include <seqmix/conv/image_apply.hpp>
#include <seqmix/conv/reference.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace image_conv_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using conv::border;
using conv::method;
using sm::index;
using test_support::on_threads;
using plan = conv::image_plan<test_arch>;

constexpr index lanes = sm::simd::lanes<test_arch>;
constexpr double unit_roundoff = 0x1p-24;

/// One call. Operands [B, D, H, W] lie one after another, or with the channels inside, or upside down and mirrored.
struct problem {
    index batch = 1, channels = 1, height = 1, width = 1, rows = 1, columns = 1;
    border vertical = border::causal, horizontal = border::causal;
    bool pre = false, post = false, skip = false;
    conv::method how = method::automatic;
    index points = 0;
    int lie = 0;
    double round = 0.0; ///< of the output's type
};

std::ostream& operator<<(std::ostream& to, const problem& p)
{
    return to << "B " << p.batch << " D " << p.channels << " H " << p.height << " W " << p.width << " Hk " << p.rows << " Wk " << p.columns << " borders "
              << static_cast<int>(p.vertical) << static_cast<int>(p.horizontal) << (p.pre ? " pre" : "") << (p.post ? " post" : "")
              << (p.skip ? " skip" : "") << " method " << static_cast<int>(p.how) << " points " << p.points << " lie " << p.lie;
}

template <class T>
sm::view<T, 4> laid(T* data, const problem& p)
{
    const index B = p.batch, D = p.channels, H = p.height, W = p.width, one = 1;
    sm::view<T, 4> v(data, {B, D, H, W});
    if (p.lie == 1) { v = sm::view<T, 4>(data, {B, D, H, W}, {D * H * W, one, W * D, D}); }
    if (p.lie == 2) { v = v.reversed(2).reversed(3); }
    return v;
}

template <class T>
struct operands {
    problem p;
    std::vector<float> kernel, skip;
    std::vector<T> u, pre, post;

    operands(const problem& problem_, std::uint64_t seed) : p(problem_)
    {
        random_source random(seed);
        const auto fill = [&](auto& x, index n) {
            using E = typename std::remove_reference_t<decltype(x)>::value_type;
            for (index i = 0; i < n; ++i) { x.push_back(static_cast<E>(random.normal())); }
        };
        const index all = p.batch * p.channels * p.height * p.width;
        fill(kernel, p.channels * p.rows * p.columns), fill(skip, p.channels), fill(u, all), fill(pre, all), fill(post, all);
    }
    plan make() const
    {
        return plan(sm::view<const float, 3>(kernel.data(), {p.channels, p.rows, p.columns}),
                    {.height = p.height, .width = p.width, .rows = p.vertical, .columns = p.horizontal, .method = p.how, .points = p.points});
    }
    conv::image_apply_options<T> options() const
    {
        conv::image_apply_options<T> opt;
        if (p.pre) { opt.pre_gate = laid(pre.data(), p); }
        if (p.post) { opt.post_gate = laid(post.data(), p); }
        if (p.skip) { opt.skip = sm::view<const float, 1>(skip.data(), {p.channels}); }
        return opt;
    }
};

conv::reference::image_axis_kind kind(border b) { return {b == border::centred, b == border::circular}; }

/// The largest error in the root mean square over a channel of an image, relative to what is tolerated: as for sequences (long_conv_test).
template <class T, class Out>
double worst(const operands<T>& o, const plan& plan_, const sm::view<Out, 4>& out)
{
    const problem& p = o.p;
    const auto u = laid(o.u.data(), p), pre = laid(o.pre.data(), p), post = laid(o.post.data(), p);
    const auto number = [](auto x) { return static_cast<double>(static_cast<float>(x)); };
    const index taps = p.rows * p.columns;
    double result = 0.0;
    for (index b = 0; b < p.batch; ++b) {
        for (index d = 0; d < p.channels; ++d) {
            std::vector<double> x, k(o.kernel.begin() + d * taps, o.kernel.begin() + (d + 1) * taps);
            double norm_u = 0.0, norm_k = 0.0, most_post = 1.0;
            for (index i = 0; i < p.height * p.width; ++i) {
                const index h = i / p.width, w = i % p.width;
                x.push_back(number(u(b, d, h, w)) * (p.pre ? number(pre(b, d, h, w)) : 1.0));
                norm_u += x.back() * x.back();
                if (p.post) { most_post = std::max(most_post, std::fabs(number(post(b, d, h, w)))); }
            }
            for (double tap : k) { norm_k += std::fabs(tap); }
            const std::vector<double> y =
                conv::reference::convolve_image(x, p.height, p.width, k, p.rows, p.columns, kind(p.vertical), kind(p.horizontal));
            double error = 0.0, rounded = 0.0;
            for (index i = 0; i < p.height * p.width; ++i) {
                const index h = i / p.width, w = i % p.width;
                const std::size_t at = static_cast<std::size_t>(i);
                const double skipped = p.skip ? number(o.skip[static_cast<std::size_t>(d)]) * x[at] : 0.0;
                const double gate = p.post ? number(post(b, d, h, w)) : 1.0, want = gate * (y[at] + skipped);
                error += std::pow(number(out(b, d, h, w)) - want, 2);
                rounded += std::pow(4.0 * unit_roundoff * std::fabs(gate) * (std::fabs(y[at]) + std::fabs(skipped)) + p.round * std::fabs(want), 2);
            }
            const double of_sums = plan_.method() == method::transform
                                       ? 3.0 * 0x1p-23 * std::log2(2.0 * static_cast<double>(plan_.points()))
                                       : unit_roundoff * static_cast<double>(taps + 2);
            const double bound = std::sqrt(rounded) + most_post * (of_sums + (p.pre ? unit_roundoff : 0.0)) * std::sqrt(norm_u) * norm_k * (1.0 + p.round);
            result = std::max(result, error == 0.0 ? 0.0 : std::isfinite(error) ? std::sqrt(error) / bound : 1e30);
        }
    }
    return result;
}

template <class T, class Out>
bool good(const problem& p, std::uint64_t seed)
{
    const operands<T> o(p, seed);
    const plan plan_ = o.make();
    guarded<Out> memory(p.batch * p.channels * p.height * p.width);
    const sm::view<Out, 4> out = laid(memory.data(), p);
    conv::apply(plan_, laid(o.u.data(), p), out, o.options());
    return worst(o, plan_, out) <= 1.0 && memory.intact();
}

template <class T, class Out>
void check(const problem& p, std::uint64_t seed)
{
    CAPTURE(p, seed);
    CHECK(good<T, Out>(p, seed));
}

TEST_CASE("convolutions of images: all small sizes, borders and kernels")
{
    std::uint64_t seed = 0;
    for (const border vertical : {border::causal, border::centred, border::circular}) {
        for (const border horizontal : {border::causal, border::centred, border::circular}) {
            for (index sizes = 0; sizes < 5 * 5 * 7 * 7; ++sizes) {
                const problem p{.height = 1 + sizes % 5, .width = 1 + sizes / 5 % 5, .rows = 1 + sizes / 25 % 7, .columns = 1 + sizes / 175,
                                .vertical = vertical, .horizontal = horizontal, .how = sizes % 3 == 0 ? method::transform : method::direct};
                if (!good<float, float>(p, ++seed)) { check<float, float>(p, seed); }
            }
        }
    }
}

TEST_CASE("convolutions of images: random sizes, options and layouts")
{
    random_source random(5);
    const auto upto = [&](int most) { return static_cast<index>(random.integer(1, most)); };
    const auto yes = [&] { return random.integer(0, 1) == 1; };
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
        const int most = yes() ? 70 : 20, taps = yes() ? 9 : 40;
        problem p{.batch = upto(2), .channels = upto(3), .height = upto(most), .width = upto(most), .rows = upto(taps), .columns = upto(taps)};
        p.vertical = static_cast<border>(random.integer(0, 2)), p.horizontal = static_cast<border>(random.integer(0, 2));
        p.pre = yes(), p.post = yes(), p.skip = yes(), p.how = static_cast<method>(random.integer(0, 2)), p.lie = static_cast<int>(random.integer(0, 2));
        if (p.lie == 1 && yes()) { p.channels = lanes + upto(3); }
        check<float, float>(p, seed);
    }
}

TEST_CASE("convolutions of images: pieces that overlap, bands of rows, other types")
{
    check<float, float>({.height = 60, .width = 40 * lanes + 1, .rows = 3, .columns = 3, .vertical = border::centred, .how = method::transform}, 1);
    check<float, float>({.height = 300, .width = 50, .rows = 5, .columns = 7, .vertical = border::centred, .skip = true, .how = method::direct}, 2);
    check<float, float>({.height = 131, .width = 70, .rows = 4, .columns = 3, .vertical = border::circular, .how = method::direct}, 3);
    for (const method how : {method::direct, method::transform}) {
        for (const int lie : {0, 1}) {
            problem p{.batch = 2, .channels = 3, .height = 19, .width = 37, .rows = 5, .columns = 6, .vertical = border::centred,
                      .horizontal = border::circular, .pre = true, .post = true, .skip = true, .how = how, .lie = lie};
            check<sm::bf16, float>(p, 4);
            p.round = 0x1p-8;
            check<sm::bf16, sm::bf16>(p, 5);
        }
    }
}

TEST_CASE("convolutions of images: an impulse gives the kernel there, and a shift of it a shift")
{
    for (const method how : {method::direct, method::transform}) {
        const index H = 23, W = 31, K = 5;
        problem p{.height = H, .width = W, .rows = K, .columns = K, .how = how};
        operands<float> o(p, 7);
        for (const index at : {index{0}, 4 * W + 3, (H - 1) * W, H * W - 1}) {
            std::fill(o.u.begin(), o.u.end(), 0.0f);
            o.u[static_cast<std::size_t>(at)] = 1.0f;
            std::vector<float> out(o.u.size());
            conv::apply(o.make(), laid(o.u.data(), p), laid(out.data(), p));
            double largest = 0.0;
            for (index i = 0; i < H * W; ++i) {
                const index a = i / W - at / W, b = i % W - at % W;
                const bool inside = a >= 0 && a < K && b >= 0 && b < K;
                const float want = inside ? o.kernel[static_cast<std::size_t>(a * K + b)] : 0.0f;
                largest = std::max(largest, static_cast<double>(std::fabs(out[static_cast<std::size_t>(i)] - want)));
            }
            CAPTURE(at, how);
            CHECK(largest <= (how == method::direct ? 0.0 : 3.0 * 0x1p-23 * 11.0 * 4.0)); // numbers of at most about 4
        }
    }
}

TEST_CASE("convolutions of images: the method goes by cost")
{
    const auto method_of = [](index taps) {
        return operands<float>({.height = 256, .width = 256, .rows = taps, .columns = taps, .vertical = border::centred, .horizontal = border::centred}, 1)
            .make()
            .method();
    };
    CHECK(method_of(3) == method::direct);
    CHECK(method_of(7) == method::direct);
    CHECK(method_of(127) == method::transform);
}

TEST_CASE("convolutions of images: the same bits for every number of threads")
{
    for (const method how : {method::direct, method::transform}) {
        for (const int lie : {0, 1}) {
            const problem p{.batch = 2, .channels = 19, .height = 41, .width = 30, .rows = 5, .columns = 3, .vertical = border::centred, .pre = true,
                            .post = true, .skip = true, .how = how, .lie = lie};
            const operands<float> o(p, 29);
            const plan plan_ = o.make();
            std::vector<float> alone(o.u.size()), spread(o.u.size());
            conv::apply(plan_, laid(o.u.data(), p), laid(alone.data(), p), o.options());
            sm::context many{sm::parallel_for{3, on_threads{}}};
            conv::apply(plan_, laid(o.u.data(), p), laid(spread.data(), p), o.options(), many);
            CHECK(std::memcmp(alone.data(), spread.data(), alone.size() * sizeof(float)) == 0);
        }
    }
}

TEST_CASE("convolutions of images: nothing to do")
{
    for (const border b : {border::causal, border::centred, border::circular}) {
        for (const method how : {method::direct, method::transform}) {
            for (int nothing = 0; nothing < 6; ++nothing) {
                problem p{.batch = 2, .channels = 2, .height = 3, .width = 4, .rows = 2, .columns = 2,
                          .vertical = b, .horizontal = b, .skip = true, .how = how};
                index* const extents[] = {&p.batch, &p.channels, &p.height, &p.width, &p.rows, &p.columns};
                *extents[nothing] = 0;
                check<float, float>(p, 1);
            }
        }
    }
}

} // namespace
} // namespace image_conv_test
