// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/refusals.hpp"

#include <seqmix/conv/monarch_causal.hpp>
#include <seqmix/conv/monarch_mixer.hpp>
#include <seqmix/conv/monarch_reference.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace monarch_causal_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;
using numbers = std::vector<double>;
using matrix = conv::monarch_matrix<test_arch>;

numbers of_size(index n) { return numbers(static_cast<std::size_t>(n)); }

/// Weights and parameters of n = b c numbers, N = b p points.
struct operator_case {
    index b, c, p;
    std::vector<float> left, right, w1, w2, v1, v2;

    /// Parameters near the identity, or it.
    operator_case(index b_, index c_, index p_, float spread, std::uint64_t seed) : b(b_), c(c_), p(p_)
    {
        random_source random(seed);
        const auto lower = [&](std::vector<float>& to, index blocks, index size) {
            for (index i = 0; i < blocks * size * size; ++i) {
                const index row = i / size % size, column = i % size;
                const float near = spread * random.normal() / static_cast<float>(size);
                to.push_back(row == column ? 1.0f + near : row > column ? near : 77.0f); // above the diagonal nothing is read
            }
        };
        lower(left, 1, b), lower(right, b, c);
        w1.resize(static_cast<std::size_t>(2 * b * p * c)), w2.resize(static_cast<std::size_t>(4 * p * b * b)), v1 = w2, v2 = w1;
        conv::causal_monarch(sm::view<const float, 2>(left.data(), {b, b}), sm::view<const float, 3>(right.data(), {b, c, c}), first_of(w1), middle_of(w2),
                             middle_of(v1), sm::view<float, 3>(v2.data(), {b, c, 2 * p}));
    }
    sm::view<float, 3> first_of(std::vector<float>& w) const { return {w.data(), {b, 2 * p, c}}; }
    sm::view<float, 3> middle_of(std::vector<float>& w) const { return {w.data(), {p, 2 * b, 2 * b}}; }
    index size() const { return b * c; }
    double l(index m, index j) const { return m < j ? 0.0 : static_cast<double>(left[static_cast<std::size_t>(m * b + j)]); }
    double r(index j0, index m, index j) const { return m < j ? 0.0 : static_cast<double>(right[static_cast<std::size_t>((j0 * c + m) * c + j)]); }

    /// Coefficients of Σ x_j q_j modulo Z^n: products of polynomials, term by term.
    numbers polynomial(const numbers& x) const
    {
        numbers sum = of_size(size());
        for (index j = 0; j < size(); ++j) {
            for (index m = 0; m < c; ++m) {
                for (index k = 0; k < b; ++k) {
                    if (m * b + k < size()) {
                        sum[static_cast<std::size_t>(m * b + k)] += x[static_cast<std::size_t>(j)] * r(j % b, m, j / b) * l(k, j % b);
                    }
                }
            }
        }
        return sum;
    }
    /// The definition: y with Σ y_j q_j = k(Z) u(Z) modulo Z^n, one y after another, since q_j begins with Z^j.
    numbers mixed(const numbers& k, const numbers& u) const
    {
        const numbers K = polynomial(k), U = polynomial(u);
        numbers left_over = of_size(size()), y = left_over;
        for (std::size_t i = 0; i < K.size(); ++i) {
            for (std::size_t j = 0; i + j < K.size(); ++j) { left_over[i + j] += K[i] * U[j]; }
        }
        for (std::size_t j = 0; j < y.size(); ++j) {
            numbers unit = of_size(size());
            unit[j] = 1.0;
            const numbers q = polynomial(unit);
            y[j] = left_over[j] / q[j];
            for (std::size_t i = j; i < q.size(); ++i) { left_over[i] -= y[j] * q[i]; }
        }
        return y;
    }
    /// What the kernels compute for one channel.
    std::vector<float> computed(const std::vector<float>& k, const std::vector<float>& u)
    {
        const matrix forward(first_of(w1), middle_of(w2)), back(middle_of(v1), sm::view<float, 3>(v2.data(), {b, c, 2 * p}));
        std::vector<float> spectrum(static_cast<std::size_t>(2 * b * p)), y(u.size());
        const index one = 1;
        conv::apply(forward, conv::decimated(sm::view<const float, 2>(k.data(), {one, size()}), b), sm::view<float, 3>(spectrum.data(), {one, 2 * b, p}));
        conv::mix_sequence(sm::view<const float, 3>(u.data(), {one, one, size()}), forward,
                           sm::view<const float, 2>(spectrum.data(), {one, 2 * b * p}), back, sm::view<float, 3>(y.data(), {one, one, size()}),
                           {.spectral = true});
        return y;
    }
    /// The largest error that rounding explains, of any output: products of absolute values times so many roundings as any number goes
    /// through, weights' own included.
    double bound(const std::vector<float>& k, const std::vector<float>& u)
    {
        const auto decimated = [](const numbers& x, index blocks) {
            numbers y;
            const index each = static_cast<index>(x.size()) / blocks;
            for (index i = 0; i < blocks; ++i) {
                for (index j = 0; j < each; ++j) { y.push_back(x[static_cast<std::size_t>(j * blocks + i)]); }
            }
            return y;
        };
        const auto product = [](const sm::view<float, 3>& one, const sm::view<float, 3>& two, const numbers& x) {
            numbers y = of_size(two.extent(0) * two.extent(1));
            conv::reference::monarch(sm::view<const double, 2>(x.data(), {index{1}, static_cast<index>(x.size())}), one, two,
                                     sm::view<double, 2>(y.data(), {index{1}, static_cast<index>(y.size())}), true);
            return y;
        };
        const auto spectrum = [&](const std::vector<float>& x) { return product(first_of(w1), middle_of(w2), decimated(numbers(x.begin(), x.end()), b)); };
        const numbers K = spectrum(k), U = spectrum(u);
        numbers both = of_size(2 * b * p);
        const std::size_t half = both.size() / 2;
        for (std::size_t i = 0; i < half; ++i) {
            both[i] = K[i] * U[i] + K[i + half] * U[i + half], both[i + half] = K[i] * U[i + half] + K[i + half] * U[i];
        }
        const numbers y = product(middle_of(v1), sm::view<float, 3>(v2.data(), {b, c, 2 * p}), decimated(both, p));
        const double roundings = static_cast<double>(2 * (c + 2 * b) + 2 * b + 2 * p + 2 + 8);
        return roundings * 0x1p-24 * (y.empty() ? 0.0 : *std::max_element(y.begin(), y.end()));
    }
};

std::vector<float> normals(random_source& random, index n)
{
    std::vector<float> x;
    for (index i = 0; i < n; ++i) { x.push_back(random.normal()); }
    return x;
}

TEST_CASE("causal Monarch matrices multiply polynomials in their bases")
{
    random_source random(3);
    for (const auto& [b, c, p] : {std::array<index, 3>{1, 1, 2}, {1, 5, 10}, {5, 1, 2}, {2, 3, 6}, {4, 4, 8}, {3, 5, 11}, {8, 8, 16}, {16, 7, 14}}) {
        for (const float spread : {0.0f, 1.0f}) {
            operator_case o(b, c, p, spread, static_cast<std::uint64_t>(b + c));
            const std::vector<float> k = normals(random, b * c), u = normals(random, b * c);
            const std::vector<float> y = o.computed(k, u);
            const numbers want = o.mixed(numbers(k.begin(), k.end()), numbers(u.begin(), u.end()));
            double error = 0.0;
            for (std::size_t i = 0; i < y.size(); ++i) { error = std::max(error, std::fabs(static_cast<double>(y[i]) - want[i])); }
            CAPTURE(b, c, p, spread, error, o.bound(k, u));
            CHECK(error <= o.bound(k, u));
            if (spread == 0.0f) { // a causal convolution
                double apart = 0.0;
                for (std::size_t t = 0; t < y.size(); ++t) {
                    double sum = 0.0;
                    for (std::size_t s = 0; s <= t; ++s) { sum += static_cast<double>(k[s]) * static_cast<double>(u[t - s]); }
                    apart = std::max(apart, std::fabs(sum - want[t]));
                }
                CHECK(apart <= 1e-12);
            }
        }
    }
}

TEST_CASE("causal Monarch matrices let no output see a later input")
{
    const index b = 6, c = 5, p = 10, n = b * c;
    random_source random(5);
    operator_case o(b, c, p, 1.0f, 9);
    const std::vector<float> k = normals(random, n), u = normals(random, n), before = o.computed(k, u);
    for (index t = 0; t < n; ++t) {
        std::vector<float> changed = u;
        changed[static_cast<std::size_t>(t)] += 3.0f;
        const std::vector<float> after = o.computed(k, changed);
        const double bound = o.bound(k, u) + o.bound(k, changed);
        double early = 0.0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(t); ++i) { early = std::max(early, static_cast<double>(std::fabs(after[i] - before[i]))); }
        CAPTURE(t, early, bound);
        CHECK(early <= bound);
        CHECK(static_cast<double>(std::fabs(after[static_cast<std::size_t>(t)] - before[static_cast<std::size_t>(t)])) > bound); // and its own it does see
    }
}

struct causal_call {
    std::vector<float> left = minus_ones(4), right = minus_ones(2 * 9), w1 = minus_ones(2 * 12 * 3), w2 = minus_ones(6 * 16), v1 = w2, v2 = w1;
    sm::view<const float, 2> l{left.data(), {2, 2}};
    sm::view<const float, 3> r{right.data(), {2, 3, 3}};
    sm::view<float, 3> a{w1.data(), {2, 12, 3}}, b{w2.data(), {6, 4, 4}}, c{v1.data(), {6, 4, 4}}, d{v2.data(), {2, 3, 12}};

    void call() { conv::causal_monarch(l, r, a, b, c, d); }
    bool untouched() const { return all_minus_ones({&w1, &w2, &v1, &v2}); }
};

TEST_CASE("causal Monarch matrices refuse")
{
    check_refusals<causal_call>(
        "conv::causal_monarch",
        {
            {"null left", [](causal_call& c) { c.l = null(c.l); }, {"left is null", "4"}},
            {"null v2", [](causal_call& c) { c.d = null(c.d); }, {"v2 is null", "72"}},
            {"left", [](causal_call& c) { c.l = resized(c.l, 1, 1); }, {"left's number of columns is 1", "its number of rows is 2"}},
            {"right's blocks", [](causal_call& c) { c.r = resized(c.r, 0, 1); }, {"right's number of blocks is 1", "left's number of rows is 2"}},
            {"right", [](causal_call& c) { c.r = resized(c.r, 2, 2); }, {"right's number of columns is 2", "its number of rows is 3"}},
            {"w1", [](causal_call& c) { c.a = resized(c.a, 1, 11); }, {"w1's number of rows is 11", "twice w2's number of blocks is 12"}},
            {"v1", [](causal_call& c) { c.c = resized(c.c, 2, 3); }, {"v1's number of columns is 3", "is 4"}},
            {"v2", [](causal_call& c) { c.d = resized(c.d, 1, 2); }, {"v2's number of rows is 2", "right's is 3"}},
            {"points",
             [](causal_call& c) { c.a = resized(c.a, 1, 10), c.b = resized(c.b, 0, 5), c.c = resized(c.c, 0, 5), c.d = resized(c.d, 2, 10); },
             {"w2's number of blocks is 5", "6"}},
            {"a zero", [](causal_call& c) { c.right[9 + 4] = 0.0f; }, {"right has 0", "at place 1", "not 0"}},
            {"a NaN", [](causal_call& c) { c.left[3] = std::nanf(""); }, {"left has", "nan", "at place 1"}},
            {"w2 over left", [](causal_call& c) { c.l = {c.w2.data(), {2, 2}}; }, {"w2 overlaps left"}},
            {"v1 over w2", [](causal_call& c) { c.c = c.b; }, {"v1 overlaps w2"}},
        });
}

} // namespace
} // namespace monarch_causal_test
