// SPDX-License-Identifier: MIT
// Several directions over one input: the same scans over copies that are laid out in the order of the walk.
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"

#include <seqmix/ssm/cross_scan.hpp>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace sm = seqmix;
using sm::ssm::scan_order;
using test_support::on_threads;
using route = sm::ssm::scan_route<float>;

struct image_shape {
    sm::index batch, channels, groups, states, height, width;
    bool channels_inside;

    sm::index pixels() const { return height * width; }
    /// [B, D or G·N, H, W], either axis of channels or of pixels inside.
    sm::view<float, 4> of(float* data, sm::index rows) const
    {
        const sm::index whole = rows * pixels();
        return channels_inside ? sm::view<float, 4>(data, {batch, rows, height, width}, {whole, sm::index{1}, width * rows, rows})
                               : sm::view<float, 4>(data, {batch, rows, height, width});
    }
    sm::view<float, 5> coefficients(float* data) const
    {
        const sm::view<float, 4> v = of(data, groups * states);
        return {v.data(), {batch, groups, states, height, width},
                {v.stride(0), states * v.stride(1), v.stride(1), v.stride(2), v.stride(3)}};
    }
};

/// Row and column of step t of a walk.
std::pair<sm::index, sm::index> pixel(const image_shape& s, scan_order order, sm::index t)
{
    const bool back = order == scan_order::rows_reversed || order == scan_order::columns_reversed;
    const sm::index at = back ? s.pixels() - 1 - t : t;
    const bool by_columns = order == scan_order::columns || order == scan_order::columns_reversed;
    return by_columns ? std::pair{at % s.height, at / s.height} : std::pair{at / s.width, at % s.width};
}

struct operands {
    std::vector<float> u, z;
    std::vector<float> delta[4], A[4], B[4], C[4], D[4], bias[4];

    operands(const image_shape& s, std::uint64_t seed)
    {
        random_source random(seed);
        const auto many = [&](sm::index n) { return random.normals(static_cast<std::size_t>(n)); };
        const sm::index numbers = s.batch * s.channels * s.pixels(), rows = s.batch * s.groups * s.states * s.pixels();
        u = many(numbers), z = many(numbers);
        for (int k = 0; k < 4; ++k) {
            delta[k] = many(numbers), B[k] = many(rows), C[k] = many(rows);
            D[k] = many(s.channels), bias[k] = many(s.channels);
            A[k] = random.uniforms(static_cast<std::size_t>(s.channels * s.states), -4.0f, -0.1f);
        }
    }

    route of(const image_shape& s, int k, scan_order order)
    {
        return {order,
                s.of(delta[k].data(), s.channels),
                sm::view<float, 2>(A[k].data(), {s.channels, s.states}),
                s.coefficients(B[k].data()),
                s.coefficients(C[k].data()),
                sm::view<float, 1>(D[k].data(), {s.channels}),
                sm::view<float, 1>(bias[k].data(), {s.channels})};
    }
};

constexpr scan_order orders[] = {scan_order::rows, scan_order::columns, scan_order::rows_reversed, scan_order::columns_reversed};

/// The sum over the routes, each scanned over dense copies in its own order.
std::vector<float> by_copies(const image_shape& s, operands& x)
{
    std::vector<float> sum(x.u.size());
    for (int k = 0; k < 4; ++k) {
        const auto gathered = [&](const sm::view<float, 4>& from, sm::index rows) {
            std::vector<float> to(static_cast<std::size_t>(s.batch * rows * s.pixels()));
            for (sm::index b = 0; b < s.batch; ++b) {
                for (sm::index r = 0; r < rows; ++r) {
                    for (sm::index t = 0; t < s.pixels(); ++t) {
                        const auto [h, w] = pixel(s, orders[k], t);
                        to[static_cast<std::size_t>((b * rows + r) * s.pixels() + t)] = from(b, r, h, w);
                    }
                }
            }
            return to;
        };
        auto u = gathered(s.of(x.u.data(), s.channels), s.channels), delta = gathered(s.of(x.delta[k].data(), s.channels), s.channels);
        auto B = gathered(s.of(x.B[k].data(), s.groups * s.states), s.groups * s.states);
        auto C = gathered(s.of(x.C[k].data(), s.groups * s.states), s.groups * s.states);
        std::vector<float> out(u.size());
        const auto rows = [&](std::vector<float>& v) { return sm::view<float, 3>(v.data(), {s.batch, s.channels, s.pixels()}); };
        const auto states = [&](std::vector<float>& v) { return sm::view<float, 4>(v.data(), {s.batch, s.groups, s.states, s.pixels()}); };
        sm::ssm::selective_scan<test_arch>(rows(u), rows(delta), sm::view<float, 2>(x.A[k].data(), {s.channels, s.states}), states(B),
                                           states(C), rows(out),
                                           {.D = sm::view<float, 1>(x.D[k].data(), {s.channels}),
                                            .delta_bias = sm::view<float, 1>(x.bias[k].data(), {s.channels}),
                                            .softplus = true});
        const auto image = s.of(sum.data(), s.channels);
        for (sm::index b = 0; b < s.batch; ++b) {
            for (sm::index d = 0; d < s.channels; ++d) {
                for (sm::index t = 0; t < s.pixels(); ++t) {
                    const auto [h, w] = pixel(s, orders[k], t);
                    const float y = out[static_cast<std::size_t>((b * s.channels + d) * s.pixels() + t)];
                    image(b, d, h, w) = k == 0 ? y : image(b, d, h, w) + y;
                }
            }
        }
    }
    return sum;
}

std::string refusal(const image_shape& s, operands& x, route bad, float* out)
{
    try {
        sm::ssm::cross_scan<test_arch>(s.of(x.u.data(), s.channels), {x.of(s, 0, scan_order::rows), bad}, s.of(out, s.channels),
                                       {.softplus = true});
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "";
}

constexpr sm::index lanes = sm::simd::lanes<test_arch>;

} // namespace

TEST_CASE("cross_scan: four walks over an image are the scans of four copies, bit for bit")
{
    const std::pair<sm::index, sm::index> sizes[] = {{1, 1}, {1, 9}, {7, 1}, {3, 4}, {5, 70}, {66, 3}};
    for (const auto& [height, width] : sizes) {
        for (bool inside : {false, true}) {
            const image_shape s = {2, lanes + 3, 1, 5, height, width, inside};
            operands x(s, static_cast<std::uint64_t>(height * 100 + width));
            const std::vector<float> want = by_copies(s, x);
            guarded<float> got(static_cast<sm::index>(want.size()), 4);
            const auto run = [&](float* out, const sm::ssm::cross_scan_options<float>& opt, const sm::context_ref& ctx) {
                sm::ssm::cross_scan<test_arch>(s.of(x.u.data(), s.channels),
                                               {x.of(s, 0, orders[0]), x.of(s, 1, orders[1]), x.of(s, 2, orders[2]), x.of(s, 3, orders[3])},
                                               s.of(out, s.channels), opt, ctx);
            };
            run(got.data(), {.softplus = true}, {});
            INFO(height << " x " << width << (inside ? ", channels inside" : ""));
            bool same = true;
            for (sm::index i = 0; i < got.size(); ++i) { same = same && got[i] == want[static_cast<std::size_t>(i)]; }
            CHECK(same);
            CHECK(got.intact());

            // The gate comes once, on the sum: silu's own error and one rounding.
            std::vector<double> gated(want.size());
            for (std::size_t i = 0; i < want.size(); ++i) {
                const double gate = static_cast<double>(x.z[i]);
                gated[i] = static_cast<double>(want[i]) * gate / (1.0 + std::exp(-gate));
            }
            run(got.data(), {.z = s.of(x.z.data(), s.channels), .softplus = true}, {});
            const worst_error worst = worst_ulp(got.data(), gated.data(), got.size());
            INFO(worst);
            CHECK(worst.error <= 2 * 3.35 + 1.0);

            sm::context many{sm::parallel_for{3, on_threads{}}};
            guarded<float> on_many(got.size());
            run(on_many.data(), {.z = s.of(x.z.data(), s.channels), .softplus = true}, many);
            same = true;
            for (sm::index i = 0; i < got.size(); ++i) { same = same && on_many[i] == got[i]; }
            CHECK(same);
        }
    }
}

TEST_CASE("cross_scan: groups, and both ways along a sequence")
{
    const image_shape s = {1, 2 * lanes + 2, 2, 3, 1, 77, false};
    operands x(s, 5);
    std::vector<float> got(x.u.size()), want(x.u.size());
    sm::ssm::cross_scan<test_arch>(s.of(x.u.data(), s.channels), {x.of(s, 0, scan_order::rows), x.of(s, 1, scan_order::rows_reversed)},
                                   s.of(got.data(), s.channels), {.softplus = true});
    const auto rows = [&](std::vector<float>& v) { return sm::view<float, 3>(v.data(), {s.batch, s.channels, s.width}); };
    const auto states = [&](std::vector<float>& v) { return sm::view<float, 4>(v.data(), {s.batch, s.groups, s.states, s.width}); };
    for (int k = 0; k < 2; ++k) {
        sm::ssm::selective_scan<test_arch>(rows(x.u), rows(x.delta[k]), sm::view<float, 2>(x.A[k].data(), {s.channels, s.states}),
                                           states(x.B[k]), states(x.C[k]), rows(want),
                                           {.D = sm::view<float, 1>(x.D[k].data(), {s.channels}),
                                            .delta_bias = sm::view<float, 1>(x.bias[k].data(), {s.channels}),
                                            .softplus = true,
                                            .direction = k == 0 ? sm::ssm::direction::forward : sm::ssm::direction::reverse,
                                            .accumulate = k == 1});
    }
    CHECK(got == want);
}

TEST_CASE("cross_scan: refusals name the route and leave out untouched")
{
    const image_shape s = {1, 4, 1, 3, 2, 5, false};
    operands x(s, 1);
    guarded<float> out(static_cast<sm::index>(x.u.size()));
    const auto refused = [&](route bad, const std::vector<std::string>& words) {
        const std::string message = refusal(s, x, bad, out.data());
        INFO(message);
        CHECK(message.find("ssm::cross_scan: ") == 0);
        for (const std::string& word : words) { CHECK(message.find(word) != std::string::npos); }
        for (sm::index i = 0; i < out.size(); ++i) { REQUIRE(out.untouched(i)); }
    };
    route bad = x.of(s, 1, scan_order::columns);
    bad.A = bad.A.slice(0, 0, 3);
    refused(bad, {"A of route 1", "3", "4"});
    bad = x.of(s, 1, scan_order::columns);
    bad.B = bad.B.slice(4, 0, 4);
    refused(bad, {"B of route 1", "width 4", "5"});
    bad = x.of(s, 1, scan_order::columns);
    bad.C = bad.C.slice(2, 0, 2);
    refused(bad, {"C of route 1", "number of states 2", "3"});
    bad = x.of(s, 1, scan_order::columns);
    bad.delta = s.of(out.data(), s.channels);
    refused(bad, {"out overlaps delta"});
    bad = x.of(s, 1, scan_order::columns);
    bad.D = bad.D.slice(0, 0, 2);
    refused(bad, {"D's length is 2", "4"});
}
