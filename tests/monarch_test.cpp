// SPDX-License-Identifier: MIT
// Monarch matrices: products against the definition, projection, the Fourier transform, mixers.
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/laid_out.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/scratch.hpp"
#include "support/tolerances.hpp"

#include <seqmix/conv/monarch_mixer.hpp>
#include <seqmix/conv/monarch_projection.hpp>
#include <seqmix/conv/monarch_reference.hpp>

#include <complex>
#include <sstream>

namespace monarch_test {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using namespace test_support;
using sm::bf16;
using sm::f16;
using sm::index;

namespace {

constexpr double u = 0x1p-24;

struct monarch_case {
    index k, q, p, l, s, r, batch;
    lie stands = lie::first;
    std::size_t skipped = 0;
};
std::ostream& operator<<(std::ostream& out, const monarch_case& c)
{
    return out << "w1 " << c.k << " x " << c.q << " x " << c.p << ", w2 " << c.l << " x " << c.s << " x " << c.r << ", B " << c.batch
               << ", lie " << static_cast<int>(c.stands) << " skipping " << c.skipped;
}

std::vector<double> doubles(index n) { return std::vector<double>(static_cast<std::size_t>(n), std::nan("")); }

template <class T, class W>
struct monarch_problem {
    monarch_case c;
    laid_out<T, 2> x;
    laid_out<W, 3> w1, w2;
    std::vector<double> want, absolute;

    explicit monarch_problem(const monarch_case& the_case)
        : c(the_case), x({c.batch, c.k * c.p}, c.stands, c.skipped), w1({c.k, c.q, c.p}, c.stands, c.skipped),
          w2({c.l, c.s, c.r}, c.stands, c.skipped), want(doubles(c.batch * c.l * c.s)), absolute(want)
    {
        random_source random(static_cast<std::uint64_t>(c.k * 7 + c.q * 31 + c.s * 101 + c.batch));
        const auto normal = [&] { return random.normal(); };
        x.fill(normal), w1.fill(normal), w2.fill(normal);
        conv::reference::monarch(x(), w1(), w2(), sm::view<double, 2>(want.data(), {c.batch, c.l * c.s}));
        conv::reference::monarch(x(), w1(), w2(), sm::view<double, 2>(absolute.data(), {c.batch, c.l * c.s}), true);
    }
    /// As the docstring says, one more for terms of higher order, and the rounding to Out.
    template <class Out>
    std::vector<double> tolerance() const
    {
        std::vector<double> t = absolute;
        for (std::size_t i = 0; i < t.size(); ++i) {
            t[i] *= static_cast<double>(c.p + c.r + 1) * u;
            if (!std::is_same_v<Out, float>) { t[i] += sm::unit_roundoff<Out> * (std::fabs(want[i]) + t[i]) + half_smallest<Out>; }
        }
        return t;
    }
    laid_out<T, 2> result() const { return {{c.batch, c.l * c.s}, c.stands, c.skipped}; }
};

template <class T, class W>
void check_case(const monarch_case& c, error_record& record)
{
    std::ostringstream name;
    name << type_name<T> << " by " << type_name<W> << ", " << c;
    INFO(name.str());
    const monarch_problem<T, W> p(c);
    const std::vector<double> tolerance = p.template tolerance<T>();
    const auto out = p.result(), packed = p.result(), many = p.result();
    conv::monarch<test_arch>(p.x(), p.w1(), p.w2(), out());
    const worst_error worst = worst_in_tolerances(out(), p.want, tolerance);
    INFO(worst);
    CHECK(worst.error <= 1.0);
    record.see(worst.error, name.str());
    CHECK(out.written_exactly());
    const conv::monarch_matrix<test_arch> matrix(p.w1(), p.w2());
    conv::apply(matrix, p.x(), packed());
    CHECK(same_bits(packed(), out()));
    CHECK(packed.written_exactly());
    sm::context threads{sm::parallel_for{3, on_threads{}}};
    conv::monarch<test_arch>(p.x(), p.w1(), p.w2(), many(), threads);
    CHECK(same_bits(many(), out()));
    // A row alone is what it is among others.
    if (c.batch > 1) {
        const auto one = p.result();
        conv::apply(matrix, p.x().slice(0, c.batch - 1, c.batch), one().slice(0, c.batch - 1, c.batch));
        CHECK(same_bits(one()[c.batch - 1], out()[c.batch - 1]));
    }
}

} // namespace

TEST_CASE("monarch: products are those of the definition")
{
    error_record record{"monarch"};
    for (const monarch_case& c : {monarch_case{8, 8, 8, 8, 8, 8, 5}, {32, 32, 32, 32, 32, 32, 7}, {32, 32, 32, 32, 32, 32, 61}, {60, 60, 60, 60, 60, 60, 3},
                                  {7, 13, 5, 13, 9, 7, 37}, {16, 32, 24, 16, 48, 32, 25}, {3, 20, 4, 12, 4, 5, 1}, {4, 7, 3, 2, 33, 14, 13},
                                  {1, 1, 1, 1, 1, 1, 1}, {1, 17, 3, 17, 5, 1, 2}, {17, 1, 31, 1, 19, 17, 6}, {2, 30, 100, 60, 1, 1, 7}, {64, 2, 2, 64, 3, 2, 7},
                                  {2, 50, 9, 4, 70, 25, 8}, {5, 8, 8, 5, 8, 8, 256}, {6, 35, 4, 30, 6, 7, 49}}) {
        check_case<float, float>(c, record);
    }
    for (const lie how : all_lies) {
        check_case<float, float>({7, 13, 5, 13, 9, 7, 19, how, 1}, record);
        check_case<float, float>({3, 8, 4, 2, 20, 12, 7, how, 3}, record);
    }
    for (const monarch_case& c : {monarch_case{16, 16, 16, 16, 16, 16, 11}, {7, 13, 5, 13, 9, 7, 37, lie::last, 1}, {4, 7, 3, 2, 33, 14, 13, lie::spaced}}) {
        check_case<bf16, bf16>(c, record);
        check_case<f16, float>(c, record);
    }
}

TEST_CASE("monarch: rows a page apart are the same as others")
{
    const monarch_problem<float, float> p({32, 64, 32, 64, 4, 32, 9}), few({32, 8, 32, 16, 4, 16, 9});
    for (const auto* one : {&p, &few}) {
        std::vector<float> spread(9 * 2048, not_a_number);
        const sm::view<float, 2> apart(spread.data(), {9, 1024}, {2048, 1});
        for_each(apart, [&](float& x, index b, index n) { x = one->x()(b, n); });
        const auto out = one->result(), want = one->result();
        conv::monarch<test_arch>(one->x(), one->w1(), one->w2(), want());
        conv::monarch<test_arch>(apart, one->w1(), one->w2(), out());
        CHECK(worst_in_tolerances(want(), one->want, one->tolerance<float>()).error <= 1.0);
        CHECK(same_bits(out(), want()));
    }
}

TEST_CASE("monarch: sums of nothing are zero, and empty results are left alone")
{
    for (const monarch_case& c : {monarch_case{3, 4, 0, 4, 2, 3, 5}, {3, 0, 2, 4, 2, 0, 5}, {0, 4, 2, 4, 2, 0, 5}, {3, 4, 2, 4, 2, 3, 0}, {3, 4, 2, 4, 0, 3, 5}, {3, 0, 2, 0, 2, 3, 5}}) {
        INFO(c);
        const monarch_problem<float, float> p(c);
        const auto out = p.result();
        conv::monarch<test_arch>(p.x(), p.w1(), p.w2(), out());
        for_each(out(), [&](float x, auto...) { CHECK(x == 0.0f); });
        CHECK(out.written_exactly());
    }
}

TEST_CASE("monarch: what a NaN or an infinity does not reach is untouched by it")
{
    const monarch_case c = {5, 6, 3, 6, 4, 5, 14};
    monarch_problem<float, float> p(c);
    const auto clean = p.result(), out = p.result();
    conv::monarch<test_arch>(p.x(), p.w1(), p.w2(), clean());
    p.x()(3, 7) = not_a_number, p.x()(8, 0) = infinity;
    p.w2()(2, 1, 0) = not_a_number; // block 2's row 1: column 1 · 6 + 2
    conv::monarch<test_arch>(p.x(), p.w1(), p.w2(), out());
    for_each(out(), [&](float x, index b, index n) {
        if (b == 3 || n == 8) { CHECK(std::isnan(x)); }
        if (b == 8) { CHECK(!std::isfinite(x)); }
        if (b != 3 && b != 8 && n != 8) { CHECK(x == clean()(b, n)); }
    });
}

TEST_CASE("monarch: scratch is one allocation, and does not grow with the batch")
{
    const monarch_problem<float, float> p({8, 8, 8, 8, 8, 8, 300});
    const conv::monarch_matrix<test_arch> matrix(p.w1(), p.w2());
    const auto fresh = [&] { return std::vector<float>(300 * 64, not_a_number); };
    sm::context<> plain, packed, small;
    const auto of = [](std::vector<float>& out) { return sm::view<float, 2>(out.data(), {300, 64}); };
    // operator== of vectors takes NaN for unequal: what is as it was made holds ones instead.
    const auto ones = [] { return std::vector<float>(300 * 64, 1.0f); };
    check_scratch(ones, [&](std::vector<float>& out, const sm::context_ref& ctx) { conv::monarch<test_arch>(p.x(), p.w1(), p.w2(), of(out), ctx); }, plain);
    check_scratch(ones, [&](std::vector<float>& out, const sm::context_ref& ctx) { conv::apply(matrix, p.x(), of(out), ctx); }, packed);
    std::vector<float> out = fresh();
    conv::apply(matrix, p.x().slice(0, 0, 96), of(out).slice(0, 0, 96), small);
    CHECK(small.scratch().size() == packed.scratch().size());
}

namespace {

/// The dense matrix of two factors; or the sums of its absolute terms.
template <class W>
std::vector<double> dense_of(const sm::view<W, 3>& w1, const sm::view<W, 3>& w2, bool absolute = false)
{
    const index inputs = w1.extent(0) * w1.extent(2), outputs = w2.extent(0) * w2.extent(1), q = w1.extent(1), p = w1.extent(2), l = w2.extent(0);
    std::vector<double> dense(static_cast<std::size_t>(inputs * outputs), 0.0);
    for (index f = 0; f < w1.extent(0) * q; ++f) {
        for (index j = 0; j < w2.extent(1); ++j) {
            for (index c = 0; c < p; ++c) {
                const double product = static_cast<double>(w2(f % l, j, f / l)) * static_cast<double>(w1(f / q, f % q, c));
                dense[static_cast<std::size_t>((j * l + f % l) * inputs + f / q * p + c)] += absolute ? std::fabs(product) : product;
            }
        }
    }
    return dense;
}

double distance(const std::vector<double>& a, const std::vector<double>& b)
{
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) { sum += (a[i] - b[i]) * (a[i] - b[i]); }
    return std::sqrt(sum);
}

struct factors {
    index k, q, p, l, s, r;
    std::vector<double> first = doubles(k * q * p), second = doubles(l * s * r);
    sm::view<double, 3> w1() { return {first.data(), {k, q, p}}; }
    sm::view<double, 3> w2() { return {second.data(), {l, s, r}}; }
    index size() const { return k * p * l * s; }
    std::vector<double> project(const std::vector<double>& dense, const sm::context_ref& ctx = {})
    {
        conv::project_monarch(sm::view<const double, 2>(dense.data(), {l * s, k * p}), w1(), w2(), ctx);
        return dense_of(w1(), w2());
    }
};

} // namespace

TEST_CASE("monarch: a Monarch matrix is its own projection")
{
    random_source random(5);
    for (const factors& shape : {factors{4, 4, 4, 4, 4, 4}, {3, 5, 7, 5, 2, 3}, {2, 12, 5, 4, 6, 6}, {6, 2, 3, 4, 3, 3}, {1, 1, 1, 1, 1, 1}, {2, 6, 9, 4, 5, 3}}) {
        factors made = shape, found = shape;
        for (double& x : made.first) { x = static_cast<double>(random.normal()); }
        for (double& x : made.second) { x = static_cast<double>(random.normal()); }
        for (index c = 0; c < shape.p; ++c) { made.w1()(0, 0, c) = 0.0; } // a singular value that is 0
        std::vector<double> dense = dense_of(made.w1(), made.w2());
        const double size = distance(dense, std::vector<double>(dense.size(), 0.0));
        CHECK(distance(found.project(dense), dense) <= 0x1p-45 * size);
        sm::context threads{sm::parallel_for{3, on_threads{}}};
        factors again = shape;
        again.project(dense, threads);
        CHECK(again.first == found.first);
        std::vector<double> large = dense; // squares overflow
        for (double& x : large) { x *= 0x1p700; }
        large = found.project(large);
        for (double& x : large) { x *= 0x1p-700; }
        CHECK(distance(large, dense) <= 0x1p-45 * size);
    }
    factors none{3, 3, 3, 3, 3, 3};
    CHECK(none.project(std::vector<double>(81, 0.0)) == std::vector<double>(81, 0.0));
}

TEST_CASE("monarch: no other Monarch matrix is nearer than the projection")
{
    random_source random(11);
    for (const factors& shape : {factors{3, 3, 2, 3, 2, 3}, {2, 6, 4, 3, 5, 4}, {2, 4, 3, 4, 5, 2}}) {
        factors best = shape;
        std::vector<double> dense(static_cast<std::size_t>(shape.size()));
        for (double& x : dense) { x = static_cast<double>(random.normal()); }
        const double least = distance(best.project(dense), dense);
        for (int trial = 0; trial < 300; ++trial) {
            factors other = best;
            const double step = std::ldexp(1.0, -(trial % 12));
            for (double& x : other.first) { x += step * static_cast<double>(random.normal()); }
            for (double& x : other.second) { x += step * static_cast<double>(random.normal()); }
            CHECK(distance(dense_of(other.w1(), other.w2()), dense) >= least * (1.0 - 0x1p-40));
        }
    }
    // Parts of 2 x 2 have singular values in closed form: what is lost of (a b; c d) is the smaller one, σ² = (F - √(F² - 4 det²)) / 2.
    factors small{3, 3, 2, 3, 2, 3};
    std::vector<double> dense(36);
    for (double& x : dense) { x = static_cast<double>(random.normal()); }
    double lost = 0.0;
    for (index n = 0; n < 3; ++n) {
        for (index i = 0; i < 3; ++i) {
            const auto at = [&](index j, index c) { return dense[static_cast<std::size_t>((j * 3 + i) * 6 + n * 2 + c)]; };
            const double whole = at(0, 0) * at(0, 0) + at(0, 1) * at(0, 1) + at(1, 0) * at(1, 0) + at(1, 1) * at(1, 1);
            const double determinant = at(0, 0) * at(1, 1) - at(0, 1) * at(1, 0);
            lost += (whole - std::sqrt(std::max(0.0, whole * whole - 4.0 * determinant * determinant))) / 2.0;
        }
    }
    CHECK(std::fabs(distance(small.project(dense), dense) - std::sqrt(lost)) <= 0x1p-40);
    // Equal singular values: any of them is best.
    for (std::size_t i = 0; i < 36; ++i) { dense[i] = i / 6 / 3 == i % 2 ? 1.0 : 0.0; }
    CHECK(std::fabs(distance(small.project(dense), dense) - 3.0) <= 0x1p-40);
}

TEST_CASE("monarch: the Fourier transform is a Monarch matrix")
{
    for (const auto& [k, p] : {std::pair<index, index>{4, 4}, {3, 5}, {8, 2}, {1, 7}, {7, 1}, {12, 10}}) {
        INFO(k << " x " << p);
        const index size = k * p;
        factors transform{k, 2 * p, 2 * p, p, 2 * k, 2 * k}, inverse = transform;
        conv::dft_monarch(transform.w1(), transform.w2());
        conv::dft_monarch(inverse.w1(), inverse.w2(), true);
        const auto dense = dense_of(transform.w1(), transform.w2()), back = dense_of(inverse.w1(), inverse.w2());
        double worst = 0.0;
        for (index to = 0; to < 2 * size; ++to) {
            for (index column = 0; column < 2 * size; ++column) {
                const index from = column % (2 * p) * k + column / (2 * p); // decimated: number e of block i is e k + i
                const double angle = 2.0 * std::acos(-1.0) * static_cast<double>(to % size * (from % size) % size) / static_cast<double>(size);
                const std::complex<double> factor = from < size ? std::complex<double>(1.0) : std::complex<double>(0.0, 1.0);
                const std::complex<double> want = factor * std::polar(1.0, -angle), want_back = factor * std::polar(1.0 / static_cast<double>(size), angle);
                const auto at = static_cast<std::size_t>(to * 2 * size + column);
                worst = std::max(worst, std::fabs(dense[at] - (to < size ? want.real() : want.imag())));
                worst = std::max(worst, std::fabs(back[at] - (to < size ? want_back.real() : want_back.imag())));
            }
        }
        CHECK(worst <= 0x1p-49); // angles of up to 2π in double, two factors
    }
}

namespace {

/// A row times a dense matrix.
std::vector<double> times(const std::vector<double>& dense, const std::vector<double>& x)
{
    std::vector<double> y(dense.size() / x.size(), 0.0);
    for (std::size_t i = 0; i < dense.size(); ++i) { y[i / x.size()] += dense[i] * x[i % x.size()]; }
    return y;
}

} // namespace

TEST_CASE("monarch mixer: along the sequence and along the channels")
{
    random_source random(3);
    const auto normal = [&] { return random.normal(); };
    laid_out<float, 3> w1({5, 6, 4}, lie::first), w2({3, 7, 10}, lie::first), w3({7, 4, 3}, lie::first), w4({2, 9, 14}, lie::first);
    w1.fill(normal), w2.fill(normal), w3.fill(normal), w4.fill(normal);
    const conv::monarch_matrix<test_arch> first(w1(), w2()), second(w3(), w4()); // 20 -> 21 -> 18
    const auto dense1 = dense_of(w1(), w2()), dense2 = dense_of(w3(), w4());
    const auto absolute1 = dense_of(w1(), w2(), true), absolute2 = dense_of(w3(), w4(), true);
    const auto magnitude = [](std::vector<double> of) {
        for (double& x : of) { x = std::fabs(x); }
        return of;
    };
    for (const lie how : {lie::first, lie::last, lie::all_reversed}) {
        laid_out<float, 3> x({2, 31, 20}, how), out({2, 31, 18}, how), many({2, 31, 18}, how), mlp({2, 31, 18}, how);
        laid_out<float, 2> kernel({31, 21}, how);
        x.fill(normal), kernel.fill(normal);
        conv::mix_sequence(x(), first, kernel(), second, out());
        sm::context threads{sm::parallel_for{3, on_threads{}}};
        conv::mix_sequence(x(), first, kernel(), second, many(), {}, threads);
        CHECK(same_bits(many(), out()));
        CHECK(out.written_exactly());
        for (const conv::activation f : {conv::activation::none, conv::activation::relu, conv::activation::silu, conv::activation::gelu}) {
            for (index b = 0; b < 2; ++b) { conv::mix_channels(x()[b], first, f, second, mlp()[b]); }
            double worst = 0.0, worst_mlp = 0.0;
            for (index b = 0; b < 2; ++b) {
                for (index d = 0; d < 31; ++d) {
                    std::vector<double> row(20);
                    for (index n = 0; n < 20; ++n) { row[static_cast<std::size_t>(n)] = static_cast<double>(x()(b, d, n)); }
                    const auto middle = times(dense1, row);
                    auto product = middle, large = times(absolute1, magnitude(row)), active = middle, large_active = large;
                    for (std::size_t n = 0; n < middle.size(); ++n) {
                        const double y = middle[n], factor = static_cast<double>(kernel()(d, static_cast<index>(n)));
                        product[n] *= factor, large[n] *= std::fabs(factor);
                        active[n] = f == conv::activation::none   ? y
                                    : f == conv::activation::relu ? std::max(y, 0.0)
                                    : f == conv::activation::silu ? y / (1.0 + std::exp(-y))
                                                                  : y / 2.0 * (1.0 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (y + 0.044715 * y * y * y)));
                    }
                    const auto want = times(dense2, product), bound = times(absolute2, large);
                    const auto want_mlp = times(dense2, active), bound_mlp = times(absolute2, large_active);
                    for (index n = 0; n < 18; ++n) {
                        const auto at = static_cast<std::size_t>(n);
                        // 4 + 10 + 3 + 14 terms, the product, and one for terms of higher order; activations are steeper than 1 by an eighth, and some units off.
                        worst = std::max(worst, std::fabs(static_cast<double>(out()(b, d, n)) - want[at]) / (33.0 * u * bound[at]));
                        worst_mlp = std::max(worst_mlp, std::fabs(static_cast<double>(mlp()(b, d, n)) - want_mlp[at]) / (48.0 * u * bound_mlp[at]));
                    }
                }
            }
            CHECK(worst <= 1.0);
            CHECK(worst_mlp <= 1.0);
        }
    }
}

TEST_CASE("monarch mixer: with transforms it is a causal convolution")
{
    random_source random(17);
    const auto normal = [&] { return random.normal(); };
    const index k = 6, p = 10, length = 30, size = 60; // twice the length
    // Reads the 30 numbers that are there, and computes the 30 that are wanted.
    laid_out<float, 3> w1({k, 2 * p, p / 2}, lie::first), w2({p, 2 * k, 2 * k}, lie::first), v1({k, 2 * p, 2 * p}, lie::first), v2({p, k / 2, 2 * k}, lie::first);
    conv::dft_monarch(w1(), w2()), conv::dft_monarch(v1(), v2(), true);
    const conv::monarch_matrix<test_arch> transform(w1(), w2()), inverse(v1(), v2());
    laid_out<float, 3> x({2, 5, length}, lie::last), out({2, 5, length}, lie::last);
    laid_out<float, 2> taps({5, length}, lie::first), kernel({5, 2 * size}, lie::first);
    x.fill(normal), taps.fill(normal);
    conv::apply(transform, conv::decimated(sm::view<const float, 2>(taps()), k), sm::view<float, 3>(kernel().data(), {index{5}, 2 * k, p}));
    conv::mix_sequence(x(), transform, kernel(), inverse, out(), {.spectral = true});
    CHECK(out.written_exactly());
    double worst = 0.0;
    for_each(out(), [&](float got, index b, index d, index t) {
        double want = 0.0, all_x = 0.0, all_k = 0.0;
        for (index n = 0; n <= t; ++n) { want += static_cast<double>(taps()(d, n)) * static_cast<double>(x()(b, d, t - n)); }
        for (index n = 0; n < length; ++n) {
            all_x += std::fabs(static_cast<double>(x()(b, d, n))), all_k += std::fabs(static_cast<double>(taps()(d, n)));
        }
        // Every spectral number is at most √2 of these sums, 1 / N of N of them; each product adds its depths, 5 + 12 or 20 + 12, and its weights' roundings.
        worst = std::max(worst, std::fabs(static_cast<double>(got) - want) / (2.0 * 70.0 * u * all_x * all_k));
    });
    INFO(worst);
    CHECK(worst <= 1.0);
}

} // namespace monarch_test
