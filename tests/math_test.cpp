// SPDX-License-Identifier: MIT

// The functions of simd/math.hpp, swept over the bit patterns of float against the double precision of the C library.
// Every 1021st pattern is tried (a prime, so that all low bits take part), or, where SEQMIX_EXHAUSTIVE is set in the
// environment, every one; the bounds hold for all of them.

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/lanes.hpp"
#include "support/random.hpp"

#include <seqmix/simd/erf.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace simd = seqmix::simd;

namespace {

struct range {
    float low = -infinity, high = infinity;
};

/// A NaN must stay one and nothing else become one: both count as an infinite error.
template <class Function, class Reference>
void sweep(const char* name, double bound, Function function, Reference reference, range in = {})
{
    const std::uint64_t step = std::getenv("SEQMIX_EXHAUSTIVE") != nullptr ? 1 : 1021;
    worst_error worst;
    float x[L], y[L];
    int filled = 0;
    const auto flush = [&] {
        function(F::load(x, filled)).store(y, filled);
        for (int i = 0; i < filled; ++i) {
            const double want = reference(static_cast<double>(x[i]));
            worst.see(ulp_error(y[i], want), bits_of(x[i]), static_cast<double>(y[i]), want);
        }
        filled = 0;
    };
    for (std::uint64_t bits = 0; bits < 1ull << 32; bits += step) {
        const float v = float_of(static_cast<std::uint32_t>(bits));
        if (v < in.low || v > in.high) { continue; }
        x[filled++] = v;
        if (filled == L) { flush(); }
    }
    flush();
    const float at = float_of(static_cast<std::uint32_t>(worst.at));
    std::printf("%-16s worst error %.4f ulp (bound %.2f) at %a = %.9g on %s\n", name, worst.error, bound,
                static_cast<double>(at), static_cast<double>(at), test_arch::name);
    INFO(name << ": " << worst << ", where the argument is " << at);
    CHECK(worst.error <= bound);
}

double sigmoid_of(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double silu_of(double x) { return x == -HUGE_VAL ? -0.0 : x * sigmoid_of(x); }
double gelu_of(double x) { return x == -HUGE_VAL ? -0.0 : x == HUGE_VAL ? x : 0.5 * x * std::erfc(x * -0.70710678118654752440); }
double softplus_of(double x) { return x > 0.0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

/// function(x), which must come out the same in every lane.
template <class Function>
float at(Function function, float x)
{
    const floats y = lanewise(function, floats(std::size_t{L}, x));
    for (const float v : y) { CHECK((bits_of(v) == bits_of(y[0]) || (v != v && y[0] != y[0]))); }
    return y[0];
}

} // namespace

TEST_CASE("elementary functions keep their bounds over the floats", "[math]")
{
    SECTION("exp2")
    {
        const auto reference = [](double x) { return std::exp2(x); };
        sweep(
            "exp2", 1.79, [](F x) { return simd::exp2(x); }, reference);
        sweep("exp2_nonpositive", 1.79, [](F x) { return simd::exp2_nonpositive(x); }, reference, {-126.0f, 0.0f});
    }
    SECTION("exp")
    {
        sweep(
            "exp", 0.92, [](F x) { return simd::exp(x); }, [](double x) { return std::exp(x); });
    }
    SECTION("log")
    {
        sweep(
            "log", 0.93, [](F x) { return simd::log(x); }, [](double x) { return std::log(x); });
    }
    SECTION("sigmoid")
    {
        sweep(
            "sigmoid", 2.41, [](F x) { return simd::sigmoid(x); }, sigmoid_of);
    }
    SECTION("silu")
    {
        sweep(
            "silu", 3.35, [](F x) { return simd::silu(x); }, silu_of);
    }
    SECTION("gelu")
    {
        sweep(
            "gelu", 4.4, [](F x) { return simd::gelu(x); }, gelu_of);
    }
    SECTION("softplus")
    {
        sweep(
            "softplus", 2.09, [](F x) { return simd::softplus(x); }, softplus_of);
    }
    SECTION("tanh")
    {
        sweep(
            "tanh", 3.33, [](F x) { return simd::tanh(x); }, [](double x) { return std::tanh(x); });
    }
}

/// For |a b| <= 125, the product as it is rounded: exact in double, as both have 24 bits.
TEST_CASE("exp2 of a product keeps its bound, whatever the product is made of", "[math]")
{
    constexpr double bound = 1.96;
    for (const float b : {1.0f, -1.0f, 0x1.715476p+0f, 0.1f, -3.0f, 1e-20f, 1e20f}) { // of all a
        const float most = std::fmin(125.0f / std::fabs(b), std::numeric_limits<float>::max());
        // NaN as arithmetic makes it: no other is promised.
        const auto of = [b](F x) { return simd::exp2_of_product(select(x == x, x, F::broadcast(nan_value)), F::broadcast(b)); };
        sweep("exp2_of_product", bound, of,
              [b](double x) { return std::exp2(x * static_cast<double>(b)); }, {-most, most});
    }
    // Of all a, at random distances from the integers and close to their middles, where the exponent changes.
    const std::uint64_t step = std::getenv("SEQMIX_EXHAUSTIVE") != nullptr ? 7 : 1021;
    random_source random(1);
    worst_error worst;
    float worst_a = 0.0f, worst_b = 0.0f, a[L], b[L], y[L];
    int filled = 0;
    for (std::uint64_t bits = 0; bits < 1ull << 32; bits += step) {
        const float any = float_of(static_cast<std::uint32_t>(bits));
        if (!(std::fabs(any) > 0x1p-100f && std::fabs(any) < 0x1p100f)) { continue; }
        const double whole = static_cast<double>(random.integer(-124, 124));
        const double product = bits % 2 == 0 ? static_cast<double>(random.uniform(-125.0f, 125.0f))
                                             : whole + 0.5 + std::ldexp(static_cast<double>(random.normal()), -8);
        a[filled] = any, b[filled] = static_cast<float>(product / static_cast<double>(any));
        if (!(std::fabs(a[filled] * b[filled]) <= 125.0f)) { continue; }
        if (++filled < L) { continue; }
        filled = 0;
        simd::exp2_of_product(F::load(a), F::load(b)).store(y);
        for (int i = 0; i < L; ++i) {
            const double want = std::exp2(static_cast<double>(a[i]) * static_cast<double>(b[i])), before = worst.error;
            worst.see(ulp_error(y[i], want), 0, static_cast<double>(y[i]), want);
            if (worst.error != before) { worst_a = a[i], worst_b = b[i]; }
        }
    }
    std::printf("%-16s worst error %.4f ulp (bound %.2f) at %a * %a on %s\n", "exp2_of_product", worst.error, bound,
                static_cast<double>(worst_a), static_cast<double>(worst_b), test_arch::name);
    INFO(worst << ", where the factors are " << worst_a << " and " << worst_b);
    CHECK(worst.error <= bound);
}

TEST_CASE("exp2 of a product is exact for integers, and NaN for the NaN of arithmetic", "[math]")
{
    const auto of = [](float x, float b) { return at([b](F v) { return simd::exp2_of_product(v, F::broadcast(b)); }, x); };
    for (int n = -125; n <= 125; ++n) {
        CHECK(of(static_cast<float>(n), 1.0f) == std::ldexp(1.0f, n));
        CHECK(of(-0.25f, -4.0f * static_cast<float>(n)) == std::ldexp(1.0f, n));
        CHECK(of(0x1p100f * static_cast<float>(n), 0x1p-100f) == std::ldexp(1.0f, n));
    }
    for (const float zero : {0.0f, -0.0f, 0x1p-149f}) {
        CHECK(of(zero, 1000.0f) == 1.0f);
        CHECK(of(-125.0f, zero) == 1.0f);
    }
    for (const float nan : {nan_value, -nan_value}) {
        CHECK(std::isnan(of(nan, 1.0f)));
        CHECK(std::isnan(of(0.0f, nan)));
    }
    CHECK(std::isnan(of(infinity, 0.0f)));
}

TEST_CASE("a decay and an addition keep their bound", "[math]")
{
    const std::uint64_t rounds = std::getenv("SEQMIX_EXHAUSTIVE") != nullptr ? 1u << 26 : 1u << 18;
    random_source random(3);
    double worst = 0.0; // over the bound
    float a[L], b[L], h[L], c[L], y[L];
    for (std::uint64_t round = 0; round < rounds; round += L) {
        for (int i = 0; i < L; ++i) {
            a[i] = std::ldexp(random.uniform(1.0f, 2.0f), static_cast<int>(random.integer(-10, 10)));
            // Half of them close to the borders between the steps of 1/32, where tables change.
            const float product = round % 2 == 0 ? random.uniform(-125.0f, 125.0f)
                                                 : (static_cast<float>(random.integer(-3999, 3998)) + 0.5f) / 32.0f + 1e-4f * random.normal();
            b[i] = product / a[i];
            h[i] = random.normal(), c[i] = i % 4 == 0 ? 0.0f : random.normal();
        }
        simd::decay_and_add(F::load(a), F::load(b), F::load(h), F::load(c)).store(y);
        for (int i = 0; i < L; ++i) {
            const double decayed = std::exp2(static_cast<double>(a[i]) * static_cast<double>(b[i])) * static_cast<double>(h[i]);
            const double want = decayed + static_cast<double>(c[i]);
            const double bound = 3.9 * 0x1p-24 * std::fabs(decayed) + 0x1p-149 + 0.51 * unit_in_last_place(want);
            worst = std::fmax(worst, absolute_error(static_cast<double>(y[i]), want) / bound);
        }
    }
    std::printf("decay_and_add    worst error %.4f of its bound on %s\n", worst, test_arch::name);
    CHECK(worst <= 1.0);
    CHECK(worst > 0.3); // a bound that nothing comes near says nothing
    for (int n = -125; n <= 125; ++n) {
        const auto of = [&](float x) { return simd::decay_and_add(F::broadcast(x), F::broadcast(0.5f), F::broadcast(3.0f), F::zero()); };
        of(2.0f * static_cast<float>(n)).store(y);
        CHECK(y[0] == std::ldexp(3.0f, n));
    }
}

TEST_CASE("exp2 is exact for integers and at its ends", "[math]")
{
    const auto f = [](F x) { return simd::exp2(x); };
    for (int n = -149; n <= 127; ++n) { CHECK(at(f, static_cast<float>(n)) == std::ldexp(1.0f, n)); }
    CHECK(bits_of(at(f, -infinity)) == 0u);
    CHECK(at(f, -150.0f) == 0.0f); // a tie, to even
    CHECK(at(f, -149.99f) == 0x1p-149f);
    CHECK(at(f, -1000.0f) == 0.0f);
    CHECK(at(f, -3.4e38f) == 0.0f);
    CHECK(at(f, 128.0f) == infinity);
    CHECK(at(f, 0x1.fffffep6f) < infinity);
    CHECK(at(f, 3.4e38f) == infinity);
    CHECK(at(f, infinity) == infinity);
    CHECK(at(f, 0.0f) == 1.0f);
    CHECK(at(f, -0.0f) == 1.0f);
    CHECK(std::isnan(at(f, nan_value)));
    CHECK(std::isnan(at(f, -nan_value)));
}

TEST_CASE("exp2_nonpositive gives 0 for minus infinity, keeps NaN, and is exp2 above 2^-126", "[math]")
{
    const auto f = [](F x) { return simd::exp2_nonpositive(x); };
    CHECK(bits_of(at(f, -infinity)) == 0u);
    CHECK(bits_of(at(f, -3.4e38f)) == 0u);
    CHECK(bits_of(at(f, -151.0f)) == 0u);
    CHECK(at(f, 0.0f) == 1.0f);
    CHECK(at(f, -0.0f) == 1.0f);
    CHECK(std::isnan(at(f, nan_value)));
    for (int n = -126; n <= 0; ++n) { CHECK(at(f, static_cast<float>(n)) == std::ldexp(1.0f, n)); }
    for (float x = -126.0f; x > -153.0f; x -= 0.01f) { // the subnormal, or 0 where that is cheaper
        const float y = at(f, x);
        INFO(x);
        CHECK((ulp_error(y, std::exp2(static_cast<double>(x))) <= 1.80 || (x < -126.5f && y == 0.0f)));
    }
}

TEST_CASE("exp, log and softplus at their ends", "[math]")
{
    const auto e = [](F x) { return simd::exp(x); };
    CHECK(bits_of(at(e, -infinity)) == 0u);
    CHECK(bits_of(at(e, -104.0f)) == 0u);
    CHECK(at(e, -103.9f) == 0x1p-149f);
    CHECK(at(e, 0.0f) == 1.0f);
    CHECK(at(e, 0x1.62e42ep6f) < infinity); // the last float below ln(largest float)
    CHECK(at(e, 0x1.62e430p6f) == infinity);
    CHECK(at(e, infinity) == infinity);
    CHECK(std::isnan(at(e, nan_value)));

    const auto l = [](F x) { return simd::log(x); };
    CHECK(bits_of(at(l, 1.0f)) == 0u);
    CHECK(at(l, 0.0f) == -infinity);
    CHECK(at(l, -0.0f) == -infinity);
    CHECK(at(l, infinity) == infinity);
    CHECK(std::isnan(at(l, -infinity)));
    CHECK(std::isnan(at(l, -1.0f)));
    CHECK(std::isnan(at(l, -0x1p-149f)));
    CHECK(std::isnan(at(l, nan_value)));

    const auto s = [](F x) { return simd::softplus(x); };
    CHECK(bits_of(at(s, -infinity)) == 0u);
    CHECK(at(s, -103.0f) == at(e, -103.0f));
    CHECK(at(s, 1e30f) == 1e30f);
    CHECK(at(s, infinity) == infinity);
    CHECK(std::isnan(at(s, nan_value)));
}

TEST_CASE("sigmoid, silu, gelu and tanh saturate", "[math]")
{
    const auto s = [](F x) { return simd::sigmoid(x); };
    CHECK(at(s, 0.0f) == 0.5f);
    CHECK(bits_of(at(s, -infinity)) == 0u);
    CHECK(at(s, 20.0f) == 1.0f);
    CHECK(at(s, infinity) == 1.0f);
    CHECK(std::isnan(at(s, nan_value)));

    const auto u = [](F x) { return simd::silu(x); };
    CHECK(at(u, 0.0f) == 0.0f);
    CHECK(at(u, -infinity) == 0.0f);
    CHECK(at(u, -3.4e38f) == 0.0f);
    CHECK(at(u, 3.4e38f) == 3.4e38f);
    CHECK(at(u, infinity) == infinity);
    CHECK(std::isnan(at(u, nan_value)));

    const auto g = [](F x) { return simd::gelu(x); };
    CHECK(bits_of(at(g, 0.0f)) == 0u);
    CHECK(at(g, -infinity) == 0.0f);
    CHECK(at(g, -15.0f) == 0.0f);
    CHECK(at(g, -14.0f) < 0.0f); // a subnormal
    CHECK(at(g, 3.4e38f) == 3.4e38f);
    CHECK(at(g, -3.4e38f) == 0.0f);
    CHECK(at(g, infinity) == infinity);
    CHECK(std::isnan(at(g, nan_value)));
    CHECK(std::isnan(at(g, -nan_value)));

    const auto t = [](F x) { return simd::tanh(x); };
    CHECK(bits_of(at(t, 0.0f)) == 0u);
    CHECK(bits_of(at(t, -0.0f)) == 0x80000000u);
    CHECK(at(t, 0x1p-149f) == 0x1p-149f);
    CHECK(at(t, 9.02f) == 1.0f);
    CHECK(at(t, -9.02f) == -1.0f);
    CHECK(at(t, infinity) == 1.0f);
    CHECK(at(t, -infinity) == -1.0f);
    CHECK(std::isnan(at(t, nan_value)));
}

TEST_CASE("every instruction set gives the same bits", "[math]")
{
    floats x;
    for (std::uint32_t i = 0; i < 1u << 16; ++i) { x.push_back(float_of(i * 65521u)); }
    std::uint32_t sum = 0;
    const auto add = [&](auto function) {
        for (const float y : lanewise(function, x)) { sum = (sum ^ (y == y ? bits_of(y) : 0u)) * 16777619u; }
    };
    add([](F v) { return simd::exp2(v); });
    add([](F v) { return simd::exp(v); });
    add([](F v) { return simd::log(v); });
    add([](F v) { return simd::sigmoid(v); });
    add([](F v) { return simd::silu(v); });
    add([](F v) { return simd::softplus(v); });
    add([](F v) { return simd::tanh(v); });
    add([](F v) { return simd::gelu(v); });
    // Taken from a run on AVX2. A change to a polynomial changes it; a change to a backend must not.
    CHECK(sum == 0xf0f81b36u);
}

TEST_CASE("every instruction set gives the same bits of exp2 of a product", "[math]")
{
    random_source random(2);
    floats a, b;
    while (a.size() < std::size_t{1} << 16) {
        const float fraction = random.uniform(1.0f, 2.0f); // on a line of its own: arguments have no order
        const float x = std::ldexp(fraction, static_cast<int>(random.integer(-60, 60)));
        const float y = random.uniform(-125.0f, 125.0f) / x;
        if (std::fabs(x * y) <= 125.0f) { a.push_back(x), b.push_back(y); }
    }
    std::uint32_t sum = 0;
    for (const float y : lanewise([](F x, F y) { return simd::exp2_of_product(x, y); }, a, b)) { sum = (sum ^ bits_of(y)) * 16777619u; }
    // As above.
    CHECK(sum == 0xb868a84bu);
}

TEST_CASE("functions never leave their range and do not jump where pieces meet", "[math]")
{
    for (float x = -20.0f; x < 20.0f; x += 0x1p-9f) {
        const float s = at([](F v) { return simd::sigmoid(v); }, x), t = at([](F v) { return simd::tanh(v); }, x);
        CHECK((s >= 0.0f && s <= 1.0f && t >= -1.0f && t <= 1.0f));
        CHECK(at([](F v) { return simd::tanh(v); }, -x) == -t);
    }
}
