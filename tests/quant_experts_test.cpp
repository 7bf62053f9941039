// SPDX-License-Identifier: MIT
// Gated products, products of experts and their way there and back, against the definition in double and against plain products,
// whose bits they have.
#include "quant_case.hpp"
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/scratch.hpp"

#include <seqmix/quant/reference.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

namespace quant_experts_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using namespace quant_case;
using quant::activation;
using quant::compute;
using sm::index;
using test_support::on_threads;

namespace {

std::vector<compute> computes(bool integers)
{
    return integers ? std::vector<compute>{compute::floats, compute::int8} : std::vector<compute>{compute::floats};
}

double activated(double x, activation how)
{
    switch (how) {
    case activation::relu:
        return x < 0 ? 0 : x;
    case activation::silu:
        return x / (1 + std::exp(-x));
    case activation::gelu:
        return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case activation::gelu_tanh:
        return x / 2 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    default:
        return x;
    }
}

/// As the kernels do it.
std::vector<float> activated(const std::vector<float>& x, activation how)
{
    using f32 = sm::simd::f32<test_arch>;
    std::vector<float> y(x.size());
    for (std::size_t i = 0; i < x.size(); i += f32::lanes) {
        const auto n = static_cast<index>(x.size() - i);
        quant::activated(f32::load(x.data() + i, n), how).store(y.data() + i, n);
    }
    return y;
}

/// out = activation(x gateᵀ + bias) · (x upᵀ + bias) + residual with gate and up as floats, in double, and a bound of the error.
struct gated_reference {
    std::vector<double> value, bound;

    gated_reference(const std::vector<float>& x, index depth, const std::vector<float>& gate, const std::vector<float>& up,
                    const std::vector<float>& gate_bias, const std::vector<float>& up_bias, activation how,
                    const std::vector<float>& residual)
    {
        const auto outputs = static_cast<index>(gate_bias.size()), rows = static_cast<index>(x.size()) / depth;
        std::vector<double> a(residual.size()), b(a), size_a(a), size_b(a);
        const auto identity = [](double sum) { return sum; };
        quant::reference::matmul(matrix(x, depth), matrix(gate, depth), list(gate_bias), {}, identity, matrix(a, outputs),
                                 matrix(size_a, outputs));
        quant::reference::matmul(matrix(x, depth), matrix(up, depth), list(up_bias), {}, identity, matrix(b, outputs),
                                 matrix(size_b, outputs));
        CHECK(rows * outputs == static_cast<index>(a.size()));
        for (std::size_t i = 0; i < a.size(); ++i) {
            // Errors of the sums; of the activation by its slope, at most 1.13, and its own 8 units (of its terms: gelu_tanh
            // cancels).
            const double error_a = static_cast<double>(depth + 4) * u * size_a[i],
                         error_b = static_cast<double>(depth + 4) * u * size_b[i];
            const double left = activated(a[i], how), error_left = 1.13 * error_a + 8 * u * std::abs(a[i]),
                         r = static_cast<double>(residual[i]);
            value.push_back(left * b[i] + r);
            bound.push_back(error_left * std::abs(b[i]) + (std::abs(left) + error_left) * error_b +
                            2 * u * (std::abs(left * b[i]) + std::abs(r)));
        }
    }
};

template <class F>
void check_gated(index rows, index outputs, index depth)
{
    INFO(F::name << ", " << rows << " rows");
    const auto gate = packed<F>(1, outputs, depth), up = packed<F>(2, outputs, depth);
    const std::vector<float> x = normals(3, rows * depth), gate_bias = normals(4, outputs), up_bias = normals(5, outputs);
    const std::vector<float> residual = normals(6, rows * outputs);
    for (activation how : {activation::silu, activation::gelu, activation::none}) {
        for (compute c : computes(F::integer_codes)) {
            guarded<float> out(rows * outputs);
            quant::gated_matmul<test_arch>(matrix(x, depth), gate, up, sm::view<float, 2>(out.data(), {rows, outputs}),
                                           {.gate_bias = list(gate_bias),
                                            .up_bias = list(up_bias),
                                            .activation = how,
                                            .residual = matrix(residual, outputs),
                                            .compute = c});
            CHECK(out.intact());
            const std::vector<float> got(out.begin(), out.end());
            // What two products give, one after the other, bit for bit.
            std::vector<float> left(got.size()), right(got.size()), want(got.size());
            quant::matmul<test_arch>(matrix(x, depth), gate, matrix(left, outputs),
                                     {.bias = list(gate_bias), .activation = how, .compute = c});
            quant::matmul<test_arch>(matrix(x, depth), up, matrix(right, outputs), {.bias = list(up_bias), .compute = c});
            for (std::size_t i = 0; i < want.size(); ++i) { want[i] = left[i] * right[i] + residual[i]; }
            CHECK(same_bits(got, want));
            if (c == compute::floats) {
                const gated_reference definition(x, depth, decoded(gate), decoded(up), gate_bias, up_bias, how, residual);
                for (std::size_t i = 0; i < got.size(); ++i) {
                    REQUIRE(std::abs(static_cast<double>(got[i]) - definition.value[i]) <= definition.bound[i]);
                }
            }
        }
    }
}

} // namespace

TEST_CASE("quant: activations of a product")
{
    constexpr index rows = 4, outputs = 40, depth = 32;
    const auto w = packed<int4>(1, outputs, depth);
    const std::vector<float> x = normals(2, rows * depth);
    std::vector<float> plain(rows * outputs), got(plain.size());
    quant::matmul<test_arch>(matrix(x, depth), w, matrix(plain, outputs));
    for (activation how : {activation::relu, activation::silu, activation::gelu, activation::gelu_tanh}) {
        quant::matmul<test_arch>(matrix(x, depth), w, matrix(got, outputs), {.activation = how});
        CHECK(same_bits(got, activated(plain, how)));
        for (std::size_t i = 0; i < got.size(); ++i) {
            const auto z = static_cast<double>(plain[i]);
            REQUIRE(std::abs(static_cast<double>(got[i]) - activated(z, how)) <= 8 * u * std::abs(z));
        }
    }
}

TEST_CASE("quant: gated products are two products and what is between")
{
    for (index rows : {1, 9, 19}) { check_gated<int4>(rows, 75, 96); }
    for (index rows : {3, 13}) { check_gated<gguf::q4_k>(rows, 33, 256), check_gated<fp8>(rows, 20, 64); }
    check_gated<int4>(260, 50, 32); // more rows than are multiplied at once
    const auto nothing = packed<int4>(1, 5, 0);
    const std::vector<float> bias(5, 3.0f);
    for (compute c : {compute::floats, compute::int8}) {
        for (index rows : {0, 2, 9}) {
            std::vector<float> out(static_cast<std::size_t>(rows * 5));
            quant::gated_matmul<test_arch>(sm::view<const float, 2>(bias.data(), {rows, index{0}}), nothing, nothing, matrix(out, 5),
                                           {.gate_bias = list(bias), .up_bias = list(bias), .activation = activation::none, .compute = c});
            CHECK(out == std::vector<float>(out.size(), 9.0f));
        }
    }
}

namespace {

/// Tokens and which expert each row of out belongs to.
struct routing {
    std::string name;
    std::vector<std::int32_t> counts;
    std::vector<std::int32_t> rows; ///< empty: none, or not given
};

/// Many kinds of groups: few rows and many, none, all at one.
std::vector<routing> routings(index tokens)
{
    random_source random(9);
    const auto any = [&](std::size_t n) {
        std::vector<std::int32_t> rows(n);
        for (auto& r : rows) { r = static_cast<std::int32_t>(random.integer(0, tokens - 1)); }
        return rows;
    };
    return {{"mixed", {3, 0, 17, 1, 8, 9}, any(38)},
            {"all at one", {0, 0, 0, 0, 300, 0}, any(300)},
            {"one each", {1, 1, 1, 1, 1, 1}, any(6)},
            {"in the order of x", {0, 5, 0, 0, 0, 18}, {}},
            {"none", {0, 0, 0, 0, 0, 0}, any(0)}};
}

template <class F>
void check_experts(index outputs, index depth)
{
    constexpr index tokens = 23, experts = 6;
    const auto w = experts_of<F>(20, experts, outputs, depth), up = experts_of<F>(40, experts, outputs, depth);
    const std::vector<float> x = normals(7, tokens * depth), bias = normals(8, experts * outputs),
                             up_bias = normals(9, experts * outputs);
    for (const routing& route : routings(tokens)) {
        INFO(F::name << ", " << route.name);
        const bool given = route.name != "in the order of x";
        const index total = std::accumulate(route.counts.begin(), route.counts.end(), index{0});
        const quant::expert_rows which{list(route.counts), list(route.rows)};
        const std::vector<float> residual = normals(10, total * outputs);
        for (compute c : computes(F::integer_codes)) {
            std::vector<float> want(static_cast<std::size_t>(total * outputs)), want_gated(want);
            index at = 0;
            for (std::size_t e = 0; e < route.counts.size(); ++e) {
                const auto first = static_cast<index>(e) * outputs;
                const sm::view<const float, 1> b(bias.data() + first, {outputs}), ub(up_bias.data() + first, {outputs});
                for (std::int32_t i = 0; i < route.counts[e]; ++i, ++at) {
                    const index token = given ? route.rows[static_cast<std::size_t>(at)] : at;
                    const sm::view<const float, 2> row(x.data() + token * depth, {index{1}, depth}),
                        r(residual.data() + at * outputs, {index{1}, outputs});
                    quant::matmul<test_arch>(row, w[e], sm::view<float, 2>(want.data() + at * outputs, {index{1}, outputs}),
                                             {.bias = b, .activation = activation::relu, .residual = r, .compute = c});
                    quant::gated_matmul<test_arch>(row, w[e], up[e],
                                                   sm::view<float, 2>(want_gated.data() + at * outputs, {index{1}, outputs}),
                                                   {.gate_bias = b, .up_bias = ub, .residual = r, .compute = c});
                }
            }
            sm::context threads{sm::parallel_for{3, on_threads{}}};
            sm::context<> alone;
            for (sm::context_ref ctx : {sm::context_ref(alone), sm::context_ref(threads)}) {
                guarded<float> out(total * outputs), gated(total * outputs);
                quant::expert_matmul<test_arch>(matrix(x, depth), w, which, sm::view<float, 2>(out.data(), {total, outputs}),
                                                {.bias = matrix(bias, outputs),
                                                 .activation = activation::relu,
                                                 .residual = matrix(residual, outputs),
                                                 .compute = c},
                                                ctx);
                quant::gated_expert_matmul<test_arch>(matrix(x, depth), w, up, which,
                                                      sm::view<float, 2>(gated.data(), {total, outputs}),
                                                      {.gate_bias = matrix(bias, outputs),
                                                       .up_bias = matrix(up_bias, outputs),
                                                       .residual = matrix(residual, outputs),
                                                       .compute = c},
                                                      ctx);
                CHECK(same_bits(std::vector<float>(out.begin(), out.end()), want));
                CHECK(same_bits(std::vector<float>(gated.begin(), gated.end()), want_gated));
                CHECK((out.intact() && gated.intact()));
            }
        }
    }
}

} // namespace

TEST_CASE("quant: rows of experts are what their expert makes of each alone")
{
    check_experts<int4>(100, 96);
    check_experts<gguf::q4_k>(20, 256);
    check_experts<fp8>(70, 64);
}

TEST_CASE("quant: experts whose columns have orders of their own")
{
    constexpr index tokens = 11, outputs = 24, depth = 64, experts = 3;
    random_source random(4);
    std::vector<quant::packed_matrix<int4>> w;
    for (index e = 0; e < experts; ++e) {
        const std::vector<float> numbers = normals(static_cast<std::uint64_t>(e), outputs * depth);
        std::vector<std::uint8_t> codes(outputs * depth / 2);
        std::vector<float> scales(outputs * 2);
        const sm::view<std::uint8_t, 2> c(codes.data(), {outputs, depth / 2});
        const sm::view<float, 2> s(scales.data(), {outputs, index{2}});
        quant::encode<int4>(matrix(numbers, depth), c, s, {.tile = quant::per_group(32)});
        std::vector<std::int32_t> order(depth);
        std::iota(order.begin(), order.end(), 0);
        for (std::size_t i = order.size(); i > 1; --i) {
            std::swap(order[i - 1], order[static_cast<std::size_t>(random.integer(0, static_cast<index>(i) - 1))]);
        }
        w.push_back(quant::pack(quant::permuted_matrix(quant::int4_matrix<>(c, s, {.tile = quant::per_group(32)}), list(order))));
    }
    const std::vector<float> x = normals(7, tokens * depth);
    const std::vector<std::int32_t> counts = {2, 0, 9};
    for (compute c : {compute::floats, compute::int8}) {
        std::vector<float> out(tokens * outputs), want(out);
        quant::expert_matmul<test_arch>(matrix(x, depth), w, {list(counts)}, matrix(out, outputs), {.compute = c});
        for (index t = 0; t < tokens; ++t) {
            quant::matmul<test_arch>(matrix(x, depth).slice(0, t, t + 1), w[t < 2 ? 0 : 2],
                                     matrix(want, outputs).slice(0, t, t + 1), {.compute = c});
        }
        CHECK(same_bits(out, want));
    }
}

TEST_CASE("quant: scratch of experts")
{
    const auto gate = experts_of<int4>(1, 4, 70, 64), up = experts_of<int4>(5, 4, 70, 64);
    const std::vector<float> x = normals(2, 6 * 64);
    const std::vector<std::int32_t> counts = {1, 0, 12, 2}, rows = {5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 0};
    for (compute c : {compute::floats, compute::int8}) {
        sm::context<> ctx;
        test_support::check_scratch([] { return std::vector<float>(15 * 70, -1.0f); },
                                    [&](std::vector<float>& out, const sm::context_ref& with) {
                                        quant::gated_expert_matmul<test_arch>(matrix(x, 64), gate, up, {list(counts), list(rows)},
                                                                              matrix(out, 70), {.compute = c}, with);
                                    },
                                    ctx);
    }
}

TEST_CASE("quant: choices are sorted by expert, and combined in the order of choices")
{
    const std::vector<std::int32_t> chosen = {2, 0, -1, 2, 0, 3, 2, 2};
    std::vector<std::int32_t> counts(5, 7), rows(8, -7), places(8);
    const sm::view<std::int32_t, 1> to_counts(counts.data(), {5}), to_rows(rows.data(), {8});
    CHECK(quant::sort_by_expert(matrix(chosen, 2), to_counts, to_rows, matrix(places, 2)) == 7);
    CHECK(counts == std::vector<std::int32_t>{2, 0, 4, 1, 0});
    CHECK(rows == std::vector<std::int32_t>{0, 2, 0, 1, 3, 3, 2, -7});
    CHECK(places == std::vector<std::int32_t>{2, 0, -1, 3, 1, 6, 4, 5});

    for (index columns : {1, 19, 40}) {
        std::vector<float> y = normals(1, 7 * columns), weights = normals(2, 8), residual = normals(3, 4 * columns),
                           out(residual.size());
        quant::combine_experts<test_arch>(matrix(y, columns), matrix(std::as_const(places), 2), matrix(std::as_const(weights), 2),
                                          matrix(out, columns), matrix(std::as_const(residual), columns));
        for (index t = 0; t < 4; ++t) {
            for (index c = 0; c < columns; ++c) {
                double sum = static_cast<double>(residual[static_cast<std::size_t>(t * columns + c)]), size = std::abs(sum);
                for (index j = 0; j < 2; ++j) {
                    const auto i = static_cast<std::size_t>(2 * t + j);
                    if (places[i] < 0) { continue; }
                    const double product = static_cast<double>(weights[i]) *
                                           static_cast<double>(y[static_cast<std::size_t>(places[i] * columns + c)]);
                    sum += product, size += std::abs(product);
                }
                REQUIRE(std::abs(static_cast<double>(out[static_cast<std::size_t>(t * columns + c)]) - sum) <= 3 * u * size);
            }
        }
        // Rows in another order, on threads, in place: the same bits.
        std::vector<float> turned(y.size()), again = residual;
        std::vector<std::int32_t> turned_places = places;
        for (index i = 0; i < 7; ++i) { std::copy_n(y.begin() + i * columns, columns, turned.begin() + (6 - i) * columns); }
        for (auto& p : turned_places) { p = p < 0 ? p : 6 - p; }
        sm::context ctx{sm::parallel_for{3, on_threads{}}};
        quant::combine_experts<test_arch>(matrix(turned, columns), matrix(std::as_const(turned_places), 2),
                                          matrix(std::as_const(weights), 2), matrix(again, columns),
                                          matrix(std::as_const(again), columns), ctx);
        CHECK(same_bits(out, again));
    }
}

// The text of docs/quant.md.
TEST_CASE("quant: a layer of experts")
{
    constexpr index tokens = 30, model = 64, inner = 96, experts = 8, each = 2;
    random_source random(12);
    const std::vector<float> x_memory = normals(1, tokens * model), router = random.uniforms(tokens * each, 0, 1);
    std::vector<float> out_memory = x_memory;
    std::vector<std::int32_t> choice;
    for (index t = 0; t < tokens; ++t) {
        const auto first = static_cast<std::int32_t>(random.integer(0, experts - 1));
        choice.push_back(first), choice.push_back((first + static_cast<std::int32_t>(random.integer(1, experts - 1))) % experts);
    }
    const auto gate = experts_of<int4>(100, experts, inner, model), up = experts_of<int4>(200, experts, inner, model);
    const auto down = experts_of<int4>(300, experts, model, inner);
    const sm::view<const float, 2> x = matrix(x_memory, model), weights = matrix(router, each);
    const sm::view<const std::int32_t, 2> chosen = matrix(choice, each);
    const sm::view<float, 2> out = matrix(out_memory, model);

    std::vector<std::int32_t> counts(experts), rows(tokens * each), places(tokens * each);
    const index total = quant::sort_by_expert(chosen, {counts.data(), {experts}}, {rows.data(), {tokens * each}},
                                              {places.data(), {tokens, each}});
    const quant::expert_rows there{{counts.data(), {experts}}, {rows.data(), {total}}}, back{{counts.data(), {experts}}};

    std::vector<float> hidden_memory(static_cast<std::size_t>(total * inner)), y_memory(static_cast<std::size_t>(total * model));
    const sm::view<float, 2> hidden(hidden_memory.data(), {total, inner}), y(y_memory.data(), {total, model});
    quant::gated_expert_matmul<test_arch>(x, gate, up, there, hidden, {.compute = compute::int8});
    quant::expert_matmul<test_arch>(hidden, down, back, y, {.compute = compute::int8});
    quant::combine_experts<test_arch>(y, sm::view<const std::int32_t, 2>(places.data(), {tokens, each}), weights, out, out);

    // Token by token, expert by expert.
    for (index t = 0; t < tokens; ++t) {
        std::vector<double> want(x_memory.begin() + t * model, x_memory.begin() + (t + 1) * model), size(model, 0.0);
        for (index j = 0; j < each; ++j) {
            const auto e = static_cast<std::size_t>(chosen(t, j));
            std::vector<float> h(inner), z(model);
            quant::gated_matmul<test_arch>(x.slice(0, t, t + 1), gate[e], up[e], matrix(h, inner), {.compute = compute::int8});
            quant::matmul<test_arch>(matrix(h, inner), down[e], matrix(z, model), {.compute = compute::int8});
            for (std::size_t n = 0; n < want.size(); ++n) {
                const double term = static_cast<double>(weights(t, j)) * static_cast<double>(z[n]);
                want[n] += term, size[n] += std::abs(term) + std::abs(want[n]);
            }
        }
        for (index n = 0; n < model; ++n) {
            const auto i = static_cast<std::size_t>(n);
            REQUIRE(std::abs(static_cast<double>(out(t, n)) - want[i]) <= 3 * u * size[i]);
        }
    }
}

} // namespace quant_experts_test
