// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/refusals.hpp"

#include <seqmix/conv/butterfly_factors.hpp>
#include <seqmix/conv/butterfly_reference.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace butterfly_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;
using matrix = conv::butterfly_matrix<test_arch>;

constexpr index lanes = sm::simd::lanes<test_arch>;

std::vector<float> normals(random_source& random, index n)
{
    std::vector<float> x(static_cast<std::size_t>(n));
    for (float& number : x) { number = random.normal(); }
    return x;
}
sm::view<const float, 4> factors_of(const std::vector<float>& numbers, index size)
{
    const index one = 2 * size;
    return {numbers.data(), {static_cast<index>(numbers.size()) / one, size / 2, index{2}, index{2}}};
}
sm::view<const index, 1> as_view(const std::vector<index>& strides) { return {strides.data(), {static_cast<index>(strides.size())}}; }

/// Rows lie one after another, or in columns, or backwards.
template <class T>
sm::view<T, 2> laid(T* data, index batch, index size, int lie)
{
    sm::view<T, 2> v(data, {batch, size});
    if (lie == 1) { v = sm::view<T, 2>(data, {size, batch}).transposed(0, 1); }
    if (lie == 2) { v = v.reversed(1); }
    return v;
}

/// Every number within 2 S u of the product of absolute values, and `round` of itself.
template <class T, class Out>
void check(index batch, index size, const std::vector<index>& strides, bool given, bool decreasing, int lie, double round, std::uint64_t seed)
{
    CAPTURE(batch, size, strides, given, decreasing, lie);
    random_source random(seed);
    const std::vector<float> numbers = normals(random, 2 * size * static_cast<index>(strides.size()));
    std::vector<T> x;
    for (float number : normals(random, batch * size)) { x.push_back(static_cast<T>(number)); }
    guarded<Out> memory(batch * size);
    const sm::view<const T, 2> from = laid<const T>(x.data(), batch, size, lie);
    const sm::view<Out, 2> out = laid(memory.data(), batch, size, lie);
    const sm::view<const float, 4> factors = factors_of(numbers, size);
    conv::butterfly_options opt{.decreasing = decreasing};
    if (given) { opt.strides = as_view(strides); }
    conv::apply(matrix(factors, opt), from, out);
    double largest = 0.0;
    for (index b = 0; b < batch; ++b) {
        std::vector<double> y, bound;
        for (index i = 0; i < size; ++i) { y.push_back(static_cast<double>(static_cast<float>(from(b, i)))), bound.push_back(std::fabs(y.back())); }
        for (std::size_t f = 0; f < strides.size(); ++f) {
            conv::reference::butterfly_factor(y, factors[static_cast<index>(f)], strides[f]);
            conv::reference::butterfly_factor(bound, factors[static_cast<index>(f)], strides[f], true);
        }
        for (index i = 0; i < size; ++i) {
            const double want = y[static_cast<std::size_t>(i)], error = std::fabs(static_cast<double>(static_cast<float>(out(b, i))) - want);
            const double of_sums = 2.0 * static_cast<double>(strides.size()) * 0x1p-24 * bound[static_cast<std::size_t>(i)];
            const double allowed = of_sums * (1.0 + round) + round * std::fabs(want);
            largest = std::max(largest, error == 0.0 ? 0.0 : std::isfinite(error) ? error / allowed : 1e30);
        }
    }
    CHECK(largest <= 1.0);
    CHECK(memory.intact());
}

TEST_CASE("butterflies: all sizes, from either end, and as far as they go")
{
    std::uint64_t seed = 0;
    for (index size = 2; size <= 512; size *= 2) {
        for (const bool decreasing : {false, true}) {
            std::vector<index> strides;
            for (index s = 1; s <= size; s *= 2) {
                const index batch = 1 + static_cast<index>(seed * 7 % static_cast<std::uint64_t>(3 * lanes));
                check<float, float>(batch, size, strides, false, decreasing, static_cast<int>(seed % 3), 0.0, seed);
                ++seed, strides.push_back(decreasing ? size / 2 / s : s);
            }
        }
    }
}

TEST_CASE("butterflies: any order of strides, repeated ones too; other types; nothing to do")
{
    random_source random(3);
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        const index levels = random.integer(1, 8);
        std::vector<index> strides;
        for (index count = random.integer(0, 9); count > 0; --count) { strides.push_back(index{1} << random.integer(0, levels - 1)); }
        check<float, float>(random.integer(0, 40), index{1} << levels, strides, !strides.empty(), false, static_cast<int>(seed % 3), 0.0, seed);
    }
    for (const int lie : {0, 1}) {
        check<sm::bf16, sm::bf16>(5, 64, {1, 2, 4, 8, 16, 32}, false, false, lie, 0x1p-8, 1);
        check<sm::f16, float>(5, 64, {32, 16, 8, 4}, false, true, lie, 0.0, 2);
    }
}

/// A factor of every pair the same.
std::vector<float> repeated(index size, index count, const std::vector<float>& block)
{
    std::vector<float> numbers;
    for (index i = 0; i < count * size / 2; ++i) { numbers.insert(numbers.end(), block.begin(), block.end()); }
    return numbers;
}

TEST_CASE("butterflies: the identity, and Hadamard's transform by either order")
{
    const index size = 128, levels = 7, batch = lanes + 3;
    random_source random(5);
    const std::vector<float> x = normals(random, batch * size);
    std::vector<float> y(x.size());
    conv::apply(matrix(factors_of(repeated(size, levels, {1, 0, 0, 1}), size)), laid(x.data(), batch, size, 0), laid(y.data(), batch, size, 0));
    CHECK(x == y);
    for (const bool decreasing : {false, true}) {
        // Of small integers, exactly.
        std::vector<float> whole(x.size());
        for (float& number : whole) { number = static_cast<float>(random.integer(-9, 9)); }
        conv::apply(matrix(factors_of(repeated(size, levels, {1, 1, 1, -1}), size), {.decreasing = decreasing}),
                    laid<const float>(whole.data(), batch, size, 0), laid(y.data(), batch, size, 0));
        bool same = true;
        for (index b = 0; b < batch; ++b) {
            for (index i = 0; i < size; ++i) {
                float sum = 0.0f;
                for (index j = 0; j < size; ++j) {
                    const bool odd = std::popcount(static_cast<unsigned>(i & j)) % 2 == 1;
                    sum += (odd ? -1.0f : 1.0f) * whole[static_cast<std::size_t>(b * size + j)];
                }
                same = same && sum == y[static_cast<std::size_t>(b * size + i)];
            }
        }
        CHECK(same);
    }
}

TEST_CASE("butterflies: rows of unit vectors give the product of dense matrices")
{
    const index size = 16;
    const std::vector<index> strides = {4, 1, 2, 8, 1};
    random_source random(9);
    const std::vector<float> numbers = normals(random, 2 * size * 5);
    const sm::view<const float, 4> factors = factors_of(numbers, size);
    std::vector<double> product(256);
    for (std::size_t i = 0; i < 16; ++i) { product[i * 17] = 1.0; }
    for (index f = 0; f < 5; ++f) {
        // Dense: out = F product.
        std::vector<double> dense(256), next(256);
        const index s = strides[static_cast<std::size_t>(f)];
        for (index j = 0; j < size / 2; ++j) {
            const index i = j / s * 2 * s + j % s;
            for (index r = 0; r < 2; ++r) {
                for (index c = 0; c < 2; ++c) {
                    dense[static_cast<std::size_t>((i + r * s) * size + i + c * s)] = static_cast<double>(factors(f, j, r, c));
                }
            }
        }
        for (std::size_t i = 0; i < 16; ++i) {
            for (std::size_t j = 0; j < 16; ++j) {
                for (std::size_t k = 0; k < 16; ++k) { next[i * 16 + j] += dense[i * 16 + k] * product[k * 16 + j]; }
            }
        }
        product = next;
    }
    std::vector<float> unit(256), out(256);
    for (std::size_t i = 0; i < 16; ++i) { unit[i * 17] = 1.0f; }
    conv::apply(matrix(factors, {.strides = as_view(strides)}), laid<const float>(unit.data(), size, size, 0), laid(out.data(), size, size, 0));
    double largest = 0.0, error = 0.0;
    for (std::size_t i = 0; i < 16; ++i) {
        for (std::size_t j = 0; j < 16; ++j) {
            const double want = product[i * 16 + j];
            largest = std::max(largest, std::fabs(want)), error = std::max(error, std::fabs(static_cast<double>(out[j * 16 + i]) - want));
        }
    }
    CHECK(error <= 16.0 * 10.0 * 0x1p-24 * largest); // at most 2 · 5 roundings of each of up to 16 terms
}

TEST_CASE("butterflies: the same bits for every number of threads and every batch")
{
    const index size = 256, batch = 5 * lanes + 3;
    random_source random(7);
    const std::vector<float> numbers = normals(random, 2 * size * 8), x = normals(random, batch * size);
    const matrix m(factors_of(numbers, size));
    std::vector<float> alone(x.size()), spread(x.size());
    conv::apply(m, laid(x.data(), batch, size, 0), laid(alone.data(), batch, size, 0));
    sm::context many{sm::parallel_for{3, test_support::on_threads{}}};
    conv::apply(m, laid(x.data(), batch, size, 0), laid(spread.data(), batch, size, 0), many);
    CHECK(std::memcmp(alone.data(), spread.data(), alone.size() * sizeof(float)) == 0);
    for (index b = 0; b < batch; ++b) { conv::apply(m, laid(x.data() + b * size, 1, size, 0), laid(spread.data() + b * size, 1, size, 0)); }
    CHECK(alone == spread);
}

struct butterfly_call {
    std::vector<float> numbers = minus_ones(3 * 4 * 4), from = minus_ones(2 * 8), to = from;
    std::vector<index> strides = {1, 2, 4};
    sm::view<const float, 4> factors{numbers.data(), {3, 4, 2, 2}};
    conv::butterfly_options opt{.strides = {strides.data(), {3}}};
    sm::view<const float, 2> x{from.data(), {2, 8}};
    sm::view<float, 2> out{to.data(), {2, 8}};

    void call() { conv::apply(matrix(factors, opt), x, out); }
    bool untouched() const { return all_minus_ones({&numbers, &from, &to}); }
};

TEST_CASE("butterflies refuse")
{
    check_refusals<butterfly_call>(
        "conv::butterfly_matrix",
        {
            {"null", [](butterfly_call& c) { c.factors = null(c.factors); }, {"factors is null", "48"}},
            {"three pairs", [](butterfly_call& c) { c.factors = resized(c.factors, 1, 3); }, {"factors has 3 pairs", "this one would be 6"}},
            {"no pairs", [](butterfly_call& c) { c.factors = resized(c.factors, 1, 0); }, {"factors has 0 pairs", "would be 0"}},
            {"blocks", [](butterfly_call& c) { c.factors = resized(c.factors, 3, 1); }, {"blocks of 2 x 1", "2 x 2"}},
            {"strides", [](butterfly_call& c) { c.opt.strides = {c.strides.data(), {2}}; }, {"strides's number of factors is 2", "factors' is 3"}},
            {"a stride", [](butterfly_call& c) { c.strides[1] = 3; }, {"strides(1) is 3", "below 8"}},
            {"too far", [](butterfly_call& c) { c.strides[2] = 8; }, {"strides(2) is 8", "below 8"}},
            {"negative", [](butterfly_call& c) { c.strides[0] = -1; }, {"strides(0) is -1", "below 8"}},
            {"too many",
             [](butterfly_call& c) { c.opt.strides = {}, c.factors = {c.numbers.data(), {6, 2, 2, 2}}; },
             {"factors has 6 factors", "at most 2"}},
        });
    check_refusals<butterfly_call>("conv::apply",
                                   {
                                       {"null x", [](butterfly_call& c) { c.x = null(c.x); }, {"x is null", "16"}},
                                       {"row of x", [](butterfly_call& c) { c.x = resized(c.x, 1, 7); }, {"x's row length is 7", "the matrix's is 8"}},
                                       {"batch of out", [](butterfly_call& c) { c.out = resized(c.out, 0, 1); }, {"out's batch is 1", "x's is 2"}},
                                       {"out over x", [](butterfly_call& c) { c.out = {c.from.data(), {2, 8}}; }, {"out overlaps x"}},
                                   });
}

} // namespace
} // namespace butterfly_test
