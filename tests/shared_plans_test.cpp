// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"

#include <seqmix/conv/butterfly_factors.hpp>
#include <seqmix/conv/image_apply.hpp>
#include <seqmix/conv/stream.hpp>

#include <thread>
#include <vector>

// What is made once and then used by any number of threads at the same time. Small, so that a build that watches threads takes
// little time (.ci/run).

namespace shared_plans_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;

std::vector<float> normals(index n)
{
    static random_source random(3);
    std::vector<float> x(static_cast<std::size_t>(n));
    for (float& number : x) { number = random.normal(); }
    return x;
}

/// `call(out, ctx)` from three threads at once, each of which spreads over two more: all as from one.
template <class Call>
void check_shared(index outputs, const Call& call)
{
    std::vector<float> alone(static_cast<std::size_t>(outputs));
    sm::context<> one;
    call(alone.data(), one);
    std::vector<std::vector<float>> several(3, std::vector<float>(alone.size()));
    std::vector<std::thread> threads;
    for (std::vector<float>& mine : several) {
        threads.emplace_back([&] {
            sm::context own{sm::parallel_for{2, test_support::on_threads{}}};
            call(mine.data(), own);
        });
    }
    for (std::thread& t : threads) { t.join(); }
    for (const std::vector<float>& mine : several) { CHECK(mine == alone); }
}

TEST_CASE("threads share plans of long convolutions and of streams")
{
    const index D = 3, L = 600;
    const std::vector<float> kernel = normals(D * L), u = normals(D * L);
    const sm::view<const float, 2> taps(kernel.data(), {D, L});
    const sm::view<const float, 3> in(u.data(), {index{1}, D, L});
    const conv::plan<test_arch> plan(taps, {.length = L, .method = conv::method::transform});
    check_shared(D * L, [&](float* out, auto& ctx) { conv::apply(plan, in, sm::view<float, 3>(out, {index{1}, D, L}), {}, ctx); });
    const conv::stream_plan<test_arch> kernels(taps);
    check_shared(D * L, [&](float* out, auto& ctx) {
        conv::stream<test_arch> tokens(kernels, 1);
        tokens.append(in, sm::view<float, 3>(out, {index{1}, D, L}), {}, ctx);
    });
}

TEST_CASE("threads share plans of images and butterfly matrices")
{
    const index D = 4, side = 24;
    const std::vector<float> kernel = normals(D * 25), u = normals(D * side * side);
    for (const conv::method how : {conv::method::direct, conv::method::transform}) {
        const conv::image_plan<test_arch> plan(sm::view<const float, 3>(kernel.data(), {D, index{5}, index{5}}),
                                               {.height = side, .width = side, .method = how});
        const sm::view<const float, 4> in(u.data(), {index{1}, D, side, side});
        check_shared(D * side * side, [&](float* out, auto& ctx) { conv::apply(plan, in, sm::view<float, 4>(out, {index{1}, D, side, side}), {}, ctx); });
    }
    const index N = 32, rows = 70;
    const std::vector<float> factors = normals(5 * 2 * N), x = normals(rows * N);
    const conv::butterfly_matrix<test_arch> matrix(sm::view<const float, 4>(factors.data(), {index{5}, N / 2, index{2}, index{2}}));
    check_shared(rows * N, [&](float* out, auto& ctx) {
        conv::apply(matrix, sm::view<const float, 2>(x.data(), {rows, N}), sm::view<float, 2>(out, {rows, N}), ctx);
    });
}

} // namespace
} // namespace shared_plans_test
