// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/conv/apply.hpp>
#include <seqmix/conv/reference.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace long_conv_sparse_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;
using plan = conv::plan<test_arch>;

constexpr index lanes = sm::simd::lanes<test_arch>, leaf = 16 * lanes;

struct problem {
    index length, taps, backward, parts;
};

std::vector<float> normals(random_source& random, index count)
{
    std::vector<float> x(static_cast<std::size_t>(count));
    for (float& number : x) { number = random.normal(); }
    return x;
}

/// Two channels. The error, in the root of the sum of its squares, is that of a whole convolution: 3 · 2^-23 log2(2M) |u| Σ|k|, what is set to 0 being
/// without any.
void check(const problem& p, const std::vector<bool>& kept, std::uint64_t seed)
{
    CAPTURE(p.length, p.taps, p.backward, p.parts, seed);
    random_source random(seed);
    const std::vector<float> kernel = normals(random, 2 * p.taps), backward = normals(random, 2 * p.backward), u = normals(random, 2 * p.length);
    std::array<bool, 64> keep{};
    std::copy(kept.begin(), kept.end(), keep.begin());
    conv::plan_options opt{.length = p.length, .keep = sm::view<const bool, 1>(keep.data(), {p.parts})};
    if (p.backward > 0) { opt.backward = sm::view<const float, 2>(backward.data(), {index{2}, p.backward}); }
    const plan plan_(sm::view<const float, 2>(kernel.data(), {index{2}, p.taps}), opt);
    const index points = plan_.points();
    CAPTURE(points);
    REQUIRE(points / leaf % p.parts == 0);
    guarded<float> memory(2 * p.length);
    const sm::view<float, 3> out(memory.data(), {index{1}, index{2}, p.length});
    conv::apply(plan_, sm::view<const float, 3>(u.data(), {index{1}, index{2}, p.length}), out);
    CHECK(memory.intact());
    for (index d = 0; d < 2; ++d) {
        const auto row = [&](const std::vector<float>& of, index count) {
            return std::vector<double>(of.begin() + d * count, of.begin() + (d + 1) * count);
        };
        std::vector<double> x = row(u, p.length), k = row(kernel, p.taps), ahead = row(backward, p.backward);
        k.resize(static_cast<std::size_t>(std::min(p.taps, p.length)));
        ahead.resize(static_cast<std::size_t>(std::min(p.backward, p.length - 1))); // taps that reach beyond the ends are left out
        double norm_u = 0.0, norm_k = 0.0, error = 0.0;
        for (const double number : x) { norm_u += number * number; }
        if (!ahead.empty()) { k.resize(static_cast<std::size_t>(2 * points)); }
        for (std::size_t s = 0; s < ahead.size(); ++s) { k[k.size() - 1 - s] -= ahead[s]; } // t^(2M) = -1
        for (const double tap : k) { norm_k += std::fabs(tap); }
        const std::vector<double> y = conv::reference::ring_product(x, k, points, kept, p.length);
        for (index t = 0; t < p.length; ++t) { error += std::pow(static_cast<double>(out(0, d, t)) - y[static_cast<std::size_t>(t)], 2); }
        const double bound = 3.0 * 0x1p-23 * std::log2(2.0 * static_cast<double>(points)) * std::sqrt(norm_u) * norm_k;
        CAPTURE(d, std::sqrt(error) / bound);
        CHECK(std::sqrt(error) <= bound);
    }
}

TEST_CASE("long convolutions: parts of the spectrum, each by itself")
{
    // The last one's halves of the sequence lie in both parts of the complex numbers.
    for (const problem& p : {problem{leaf, leaf, 0, 4}, problem{leaf + 3, 7, 0, 6}, problem{3 * leaf, 20, 0, 2}}) {
        for (index part = 0; part < p.parts; ++part) {
            std::vector<bool> kept(static_cast<std::size_t>(p.parts), false);
            kept[static_cast<std::size_t>(part)] = true;
            check(p, kept, static_cast<std::uint64_t>(part));
        }
    }
}

TEST_CASE("long convolutions: random parts of the spectrum")
{
    random_source random(7);
    // Few points for the reference, which takes their square; parts that are blocks, that fall apart into leaves, and all leaves.
    const index parts[] = {1, 2, 3, 4, 5, 6, 8, 9, 10, 12};
    for (std::uint64_t seed = 0; seed < 24; ++seed) {
        const index count = parts[seed % std::size(parts)];
        std::vector<bool> kept;
        for (index part = 0; part < count; ++part) { kept.push_back(random.integer(0, 1) == 1); }
        check({static_cast<index>(random.integer(1, static_cast<int>(3 * leaf))), static_cast<index>(random.integer(1, static_cast<int>(leaf))),
               random.integer(0, 1) == 1 ? static_cast<index>(random.integer(1, static_cast<int>(leaf))) : 0, count},
              kept, seed);
    }
}

TEST_CASE("long convolutions: all parts are the whole, and none are nothing, of one plan and several gates")
{
    random_source random(9);
    const index length = 5 * leaf + 1;
    const std::vector<float> kernel = normals(random, length), u = normals(random, length), gate = normals(random, length), skip = {0.5f};
    const auto given = [&](const std::vector<float>& of) { return sm::view<const float, 3>(of.data(), {index{1}, index{1}, length}); };
    const auto result = [&](const conv::plan_options& opt) {
        std::vector<float> out(u.size(), NAN);
        const plan plan_(sm::view<const float, 2>(kernel.data(), {index{1}, length}), opt);
        conv::apply(plan_, given(u), sm::view<float, 3>(out.data(), {index{1}, index{1}, length}),
                    {.pre_gate = given(gate), .post_gate = given(gate), .skip = sm::view<const float, 1>(skip.data(), {index{1}})});
        return out;
    };
    const bool all[4] = {true, true, true, true}, none[4] = {};
    const index points = conv::ring<test_arch>::good_points(8 * leaf);
    const conv::plan_options whole{.length = length, .method = conv::method::transform, .points = points};
    conv::plan_options some = whole;
    some.keep = sm::view<const bool, 1>(all, {index{4}});
    CHECK(result(some) == result(whole));
    some.keep = sm::view<const bool, 1>(none, {index{4}});
    const std::vector<float> nothing = result(some);
    for (std::size_t t = 0; t < u.size(); ++t) {
        const float gated = u[t] * gate[t];
        CHECK(nothing[t] == 0.5f * gated * gate[t]);
    }
}

} // namespace
} // namespace long_conv_sparse_test
