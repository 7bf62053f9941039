// SPDX-License-Identifier: MIT
// Products from bytes and to bytes, against the definition in double.
#include "quant_case.hpp"
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"

#include <seqmix/quant/reference.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace quant_bytes_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
using namespace quant_case;
using quant::activation;
using quant::compute;
using sm::index;

TEST_CASE("quant: outputs as bytes")
{
    constexpr index outputs = 50, depth = 64;
    const auto w = packed<int4>(1, outputs, depth);
    for (index rows : {3, 12}) {
        const std::vector<float> x = normals(2, rows * depth), bias = normals(3, outputs), residual = normals(4, rows * outputs);
        std::vector<float> scales = random_source(5).uniforms(outputs, 0.01f, 0.2f), y(static_cast<std::size_t>(rows * outputs));
        std::vector<std::int8_t> zeros(outputs);
        for (std::size_t i = 0; i < zeros.size(); ++i) { zeros[i] = static_cast<std::int8_t>(5 * i - 128); }
        quant::matmul<test_arch>(matrix(x, depth), w, matrix(y, outputs),
                                 {.bias = list(bias), .activation = activation::gelu, .residual = matrix(residual, outputs)});
        for (std::size_t length : {std::size_t{1}, std::size_t{outputs}}) {
            for (bool with_zeros : {false, true}) {
                guarded<std::int8_t> out(rows * outputs);
                const sm::view<const float, 1> scale(scales.data(), {length});
                const sm::view<const std::int8_t, 1> zero(with_zeros ? zeros.data() : nullptr, {with_zeros ? length : 0});
                quant::matmul<test_arch>(matrix(x, depth), w, sm::view<std::int8_t, 2>(out.data(), {rows, outputs}),
                                         {.bias = list(bias),
                                          .activation = activation::gelu,
                                          .residual = matrix(residual, outputs),
                                          .out_scale = scale,
                                          .out_zero_point = zero});
                for (index i = 0; i < rows * outputs; ++i) {
                    const auto at = static_cast<std::size_t>(i), column = length == 1 ? 0 : at % std::size_t{outputs};
                    const double want =
                        std::nearbyint(static_cast<double>(y[at] / scales[column])) + (with_zeros ? zeros[column] : 0);
                    REQUIRE(static_cast<double>(out[i]) == std::fmin(std::fmax(want, -128), 127));
                }
                CHECK(out.intact());
            }
        }
    }
    // Ties, overflow, NaN: a row of x makes every output its first number.
    std::vector<float> one(16 * 32, 0.0f);
    for (std::size_t n = 0; n < 16; ++n) { one[32 * n] = 1.0f; }
    std::vector<sm::fp8_e4m3> codes;
    for (float v : one) { codes.emplace_back(v); }
    const std::vector<float> unit(16, 1.0f), scale = {0.5f};
    const auto first = quant::pack(quant::fp8_matrix<sm::fp8_e4m3>(matrix(codes, 32), matrix(unit, 1)));
    const std::vector<float> numbers = {0.25f, 0.75f, -0.25f, -0.75f, 1.25f, 1e30f, -HUGE_VALF, std::nanf(""), 60.0f, -61.75f};
    const std::vector<int> bytes = {10, 12, 10, 8, 12, 127, -128, 10, 127, -114};
    const std::vector<std::int8_t> ten = {10};
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        std::vector<float> x(32, 0.0f);
        std::vector<std::int8_t> out(16);
        x[0] = numbers[i];
        if (!std::isfinite(numbers[i])) { std::fill(x.begin(), x.end(), 0.0f), x[0] = numbers[i]; }
        quant::matmul<test_arch>(matrix(x, 32), first, matrix(out, 16), {.out_scale = list(scale), .out_zero_point = list(ten)});
        INFO(numbers[i]);
        CHECK(out == std::vector<std::int8_t>(16, static_cast<std::int8_t>(bytes[i])));
    }
}

TEST_CASE("quant: bytes as inputs are taken as they are")
{
    constexpr index outputs = 70, depth = 320;
    const auto w = packed<int4>(1, outputs, depth);
    const std::vector<float> numbers = decoded(w);
    for (index rows : {2, 21}) {
        random_source random(3);
        std::vector<std::int8_t> x(static_cast<std::size_t>(rows * depth));
        std::vector<float> scales = random.uniforms(static_cast<std::size_t>(rows), 0.01f, 0.1f), as_float(x.size()),
                           out(static_cast<std::size_t>(rows * outputs));
        for (auto& b : x) { b = static_cast<std::int8_t>(random.integer(-128, 127)); }
        std::fill_n(x.begin(), depth, std::int8_t{-128});
        for (std::size_t length : {std::size_t{1}, scales.size()}) {
            std::transform(x.begin(), x.end(), as_float.begin(), [](std::int8_t b) { return static_cast<float>(b); });
            quant::matmul<test_arch>(matrix(x, depth), w, matrix(out, outputs),
                                     {.compute = compute::int8, .x_scale = {scales.data(), {length}}});
            std::vector<double> want(out.size()), size(out.size());
            quant::reference::matmul(
                matrix(std::as_const(as_float), depth), matrix(numbers, depth), {}, {}, [](double sum) { return sum; },
                matrix(want, outputs), matrix(size, outputs));
            for (std::size_t i = 0; i < out.size(); ++i) {
                const auto scale = static_cast<double>(scales[length == 1 ? 0 : i / std::size_t{outputs}]);
                // A rounding a group, of partial sums, and one at the end.
                REQUIRE(std::abs(static_cast<double>(out[i]) - scale * want[i]) <=
                        static_cast<double>(depth / 32 + 2) * u * scale * size[i]);
            }
        }
    }
    // The largest codes times the least byte, where sums in 16 bits are fullest.
    for (std::int8_t byte : {std::int8_t{-128}, std::int8_t{127}}) {
        std::vector<std::uint8_t> codes(16 * 128, 0x77);
        const std::vector<float> ones(16, 1.0f), scale = {1.0f};
        const auto largest = quant::pack(quant::int4_matrix<>(matrix(codes, 128), matrix(ones, 1)));
        for (index rows : {1, 10}) {
            const std::vector<std::int8_t> x(static_cast<std::size_t>(rows * 256), byte);
            std::vector<float> out(static_cast<std::size_t>(rows * 16));
            quant::matmul<test_arch>(matrix(x, 256), largest, matrix(out, 16),
                                     {.compute = compute::int8, .x_scale = list(scale)});
            CHECK(out == std::vector<float>(out.size(), 7.0f * 256.0f * static_cast<float>(byte)));
        }
    }
    // A chain: bytes between two products.
    const auto second = packed<int4>(2, 30, 96), before = packed<int4>(3, 96, 64);
    const std::vector<float> x = normals(4, 5 * 64), scale = {0.25f};
    std::vector<std::int8_t> between(5 * 96);
    std::vector<float> out(5 * 30), middle(5 * 96), want(out);
    quant::matmul<test_arch>(matrix(x, 64), before, matrix(between, 96), {.compute = compute::int8, .out_scale = list(scale)});
    quant::matmul<test_arch>(matrix(between, 96), second, matrix(out, 30), {.compute = compute::int8, .x_scale = list(scale)});
    for (std::size_t i = 0; i < middle.size(); ++i) { middle[i] = 0.25f * static_cast<float>(between[i]); }
    const std::vector<float> weights = decoded(second);
    std::vector<double> exact(out.size()), size(out.size());
    quant::reference::matmul(
        matrix(std::as_const(middle), 96), matrix(weights, 96), {}, {}, [](double sum) { return sum; }, matrix(exact, 30),
        matrix(size, 30));
    for (std::size_t i = 0; i < out.size(); ++i) { REQUIRE(std::abs(static_cast<double>(out[i]) - exact[i]) <= 6 * u * size[i]); }
}

TEST_CASE("quant: bytes of experts, in and out")
{
    constexpr index tokens = 5, outputs = 30, depth = 64;
    const std::vector<quant::packed_matrix<int4>> w = [] {
        std::vector<quant::packed_matrix<int4>> all;
        for (std::uint64_t e = 0; e < 3; ++e) { all.push_back(packed<int4>(e, outputs, depth)); }
        return all;
    }();
    random_source random(3);
    std::vector<std::int8_t> x(tokens * depth), got(14 * outputs), want(got);
    for (auto& b : x) { b = static_cast<std::int8_t>(random.integer(-128, 127)); }
    const std::vector<float> scales = random.uniforms(tokens, 0.01f, 0.1f), out_scale = random.uniforms(outputs, 1.0f, 2.0f);
    const std::vector<std::int32_t> counts = {2, 3, 9}, rows = {4, 0, 1, 1, 3, 2, 4, 0, 0, 1, 2, 3, 4, 2};
    quant::expert_matmul<test_arch>(matrix(std::as_const(x), depth), w, {list(counts), list(rows)}, matrix(got, outputs),
                                    {.compute = compute::int8, .x_scale = list(scales), .out_scale = list(out_scale)});
    for (index i = 0; i < 14; ++i) {
        const index row = rows[static_cast<std::size_t>(i)];
        quant::matmul<test_arch>(matrix(std::as_const(x), depth).slice(0, row, row + 1),
                                 w[i < 2   ? 0
                                   : i < 5 ? 1
                                           : 2],
                                 matrix(want, outputs).slice(0, i, i + 1),
                                 {.compute = compute::int8, .x_scale = {scales.data() + row, {1}}, .out_scale = list(out_scale)});
    }
    CHECK(same_bits(got, want));
}

TEST_CASE("quant: activations too small for a scale become zeros")
{
    const auto w = packed<int4>(1, 16, 64);
    for (float tiny : {0x1p-149f, 1e-40f, 0x1p-126f, 1e-37f, 0x1p-119f}) {
        std::vector<float> x(64, 0.0f);
        x[5] = tiny;
        const std::vector<float> numbers = decoded(w);
        std::vector<float> out(16);
        std::vector<double> want(16), size(16);
        quant::matmul<test_arch>(matrix(x, 64), w, matrix(out, 16), {.compute = compute::int8});
        quant::reference::matmul(
            matrix(std::as_const(x), 64), matrix(numbers, 64), {}, {}, [](double sum) { return sum; }, matrix(want, 16),
            matrix(size, 16));
        for (std::size_t i = 0; i < out.size(); ++i) {
            REQUIRE(std::abs(static_cast<double>(out[i]) - want[i]) <= (tiny < 0x1.fcp-120f ? 1.0 : 1.0 / 254 + 8 * u) * size[i]);
        }
    }
}

} // namespace quant_bytes_test
