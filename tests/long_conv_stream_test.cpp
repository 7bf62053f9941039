// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"

#include <seqmix/conv/reference.hpp>
#include <seqmix/conv/stream.hpp>

#include <cmath>
#include <vector>

namespace long_conv_stream_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::bf16;
using sm::index;
using plan = conv::stream_plan<test_arch>;
using stream = conv::stream<test_arch>;

template <class T>
std::vector<T> normals(random_source& random, index n)
{
    std::vector<T> x;
    for (index i = 0; i < n; ++i) { x.push_back(static_cast<T>(random.normal())); }
    return x;
}

struct sizes {
    index batch, channels, length, taps;
};

/// Outputs token by token, with gates and skip, are those of the definition, relative to the whole: a block's error is that of a transform of
/// at most 2 Lk points, 3 · 2^-23 log2(4 Lk), or of direct sums, and an output is a sum of at most log2 Lk blocks.
template <class T, class Out>
void check(const sizes& n, bool gated, double round)
{
    CAPTURE(n.batch, n.channels, n.length, n.taps, gated);
    random_source random(41);
    const index all = n.batch * n.channels * n.length;
    const std::vector<T> u = normals<T>(random, all), pre = normals<T>(random, all), post = normals<T>(random, all);
    const std::vector<float> kernel = normals<float>(random, n.channels * n.taps), skip = normals<float>(random, n.channels);
    const auto whole = [&](auto* data) { return sm::view<std::remove_pointer_t<decltype(data)>, 3>(data, {n.batch, n.channels, n.length}); };
    conv::apply_options<T> opt;
    if (gated) { opt = {.pre_gate = whole(pre.data()), .post_gate = whole(post.data()), .skip = {skip.data(), {n.channels}}}; }

    const plan plan_(sm::view<const float, 2>(kernel.data(), {n.channels, n.taps}));
    stream tokens(plan_, n.batch);
    std::vector<Out> out(static_cast<std::size_t>(all));
    tokens.append(whole(u.data()), whole(out.data()), opt);
    CHECK(tokens.position() == n.length);

    const double bound = 3.0 * 0x1p-23 * (std::log2(4.0 * static_cast<double>(n.taps)) + 4.0);
    for (index row = 0; row < n.batch * n.channels; ++row) {
        const index d = row % n.channels;
        std::vector<double> x, k;
        double norm_u = 0.0, norm_k = 0.0, error = 0.0, rounded = 0.0, most = 1.0;
        const auto number = [&](const std::vector<T>& of, index t) { return static_cast<double>(static_cast<float>(of[static_cast<std::size_t>(row * n.length + t)])); };
        for (index t = 0; t < n.length; ++t) {
            x.push_back(number(u, t) * (gated ? number(pre, t) : 1.0)), norm_u += x.back() * x.back();
            most = gated ? std::max(most, std::fabs(number(post, t))) : most;
        }
        for (index s = 0; s < n.taps; ++s) { k.push_back(static_cast<double>(kernel[static_cast<std::size_t>(d * n.taps + s)])), norm_k += std::fabs(k.back()); }
        const std::vector<double> y = conv::reference::convolve(x, k, {}, false);
        for (index t = 0; t < n.length; ++t) {
            const std::size_t at = static_cast<std::size_t>(t);
            const double skipped = gated ? static_cast<double>(skip[static_cast<std::size_t>(d)]) * x[at] : 0.0, gate = gated ? number(post, t) : 1.0;
            const double want = gate * (y[at] + skipped), got = static_cast<double>(static_cast<float>(out[static_cast<std::size_t>(row * n.length + t)]));
            const double of_want = 4.0 * 0x1p-24 * std::fabs(gate) * (std::fabs(y[at]) + std::fabs(skipped)) + round * std::fabs(want);
            error += (got - want) * (got - want), rounded += of_want * of_want;
        }
        CAPTURE(row, std::sqrt(error));
        CHECK(std::sqrt(error) <= std::sqrt(rounded) + most * bound * std::sqrt(norm_u) * norm_k);
    }
}

TEST_CASE("streams of long convolutions: token by token as the whole")
{
    for (const index taps : {1, 31, 32, 33, 34, 65, 300, 1025}) {
        for (const index length : {1, 32, 100, 700}) { check<float, float>({2, 3, length, taps}, taps % 2 == 0, 0.0); }
    }
    check<float, float>({1, 19, 2100, 2048}, true, 0.0); // transforms on every instruction set
    check<bf16, float>({1, 5, 300, 300}, true, 0.0), check<bf16, bf16>({1, 5, 300, 300}, true, 0x1p-8);
    check<sm::f16, sm::f16>({1, 5, 300, 300}, true, 0x1p-11);
}

TEST_CASE("streams of long convolutions: any cut gives the same bits, on any number of threads, and after a new start")
{
    random_source random(43);
    const index batch = 2, channels = 7, length = 900;
    const std::vector<float> u = normals<float>(random, batch * channels * length), kernel = normals<float>(random, channels * length);
    const plan plan_(sm::view<const float, 2>(kernel.data(), {channels, length}));
    const sm::view<const float, 3> in(u.data(), {batch, channels, length});
    std::vector<float> whole(u.size()), cut(u.size());
    stream tokens(plan_, batch);
    tokens.append(in, sm::view<float, 3>(whole.data(), {batch, channels, length}));
    for (int again = 0; again < 2; ++again) {
        tokens.restart();
        sm::context many{sm::parallel_for{3, test_support::on_threads{}}};
        const sm::view<float, 3> out(cut.data(), {batch, channels, length});
        for (index t = 0; t < length;) {
            const index n = std::min(length - t, static_cast<index>(random.integer(0, 70)));
            tokens.append(in.slice(2, t, t + n), out.slice(2, t, t + n), {}, many);
            t += n;
        }
        CHECK(whole == cut);
        std::fill(cut.begin(), cut.end(), 0.0f);
    }
}

TEST_CASE("streams of long convolutions: a NaN reaches later tokens of its channel only")
{
    const index channels = 2, length = 100;
    std::vector<float> u(static_cast<std::size_t>(channels * length), 1.0f), out(u.size());
    const std::vector<float> kernel(u.size(), 1.0f);
    u[50] = std::nanf("");
    const plan plan_(sm::view<const float, 2>(kernel.data(), {channels, length}));
    stream tokens(plan_, 1);
    tokens.append(sm::view<const float, 3>(u.data(), {index{1}, channels, length}), sm::view<float, 3>(out.data(), {index{1}, channels, length}));
    for (index t = 0; t < length; ++t) {
        CHECK(std::isnan(out[static_cast<std::size_t>(t)]) == (t >= 50));
        // The bound above for ones: |u| = sqrt(length), |k|₁ = length.
        const double bound = 3.0 * 0x1p-23 * (std::log2(4.0 * 100.0) + 4.0) * std::sqrt(100.0) * 100.0;
        CHECK(std::fabs(static_cast<double>(out[static_cast<std::size_t>(length + t)]) - static_cast<double>(t + 1)) <= bound);
    }
}

} // namespace
} // namespace long_conv_stream_test
