// SPDX-License-Identifier: MIT

// Every verb of simd/vec.hpp on one instruction set, against plain scalar arithmetic written out here.

#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/lanes.hpp"
#include "support/random.hpp"

#include <seqmix/simd/build_info.hpp>
#include <seqmix/simd/denormals.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

using seqmix::bf16;
using seqmix::f16;

namespace {

// A verb and what it should give, over one, two or three lists; the place of the first difference is named.
#define CHECK_VERB(verb, expectation, ...)                                                                             \
    do {                                                                                                               \
        const auto got = lanewise(verb, __VA_ARGS__);                                                                  \
        const auto want = expected(expectation, __VA_ARGS__);                                                          \
        const seqmix::index at = first_difference(got, want);                                                          \
        INFO("element " << at << " of " << #__VA_ARGS__);                                                              \
        if (at >= 0) { CHECK(got[static_cast<std::size_t>(at)] == want[static_cast<std::size_t>(at)]); }               \
        CHECK(at == -1);                                                                                               \
    } while (false)

// clang-format off
const floats special{0.0f, -0.0f, 1.0f, -1.0f, infinity, -infinity, nan_value, -nan_value, float_of(0x7f800001u),
                     0x1p-149f, -0x1p-149f, 0x1.fffffcp-127f, 0x1p-126f, -0x1p-126f, 3.4e38f, -3.4e38f,
                     0.1f, 0x1p23f, 0x1p24f, 0x1p-30f, 123.75f};
// clang-format on

std::int32_t wrapped(std::int64_t x) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(x)); }

/// Ordinary numbers of all sizes, and all pairs of special ones.
std::pair<floats, floats> float_pairs(std::uint64_t seed)
{
    auto p = pairs(special);
    random_source random(seed);
    for (int i = 0; i < 2000; ++i) {
        p.first.push_back(float_of(static_cast<std::uint32_t>(random.bits())));
        p.second.push_back(float_of(static_cast<std::uint32_t>(random.bits())));
        p.first.push_back(random.normal());
        p.second.push_back(random.normal());
    }
    return p;
}

std::pair<integers, integers> integer_pairs(std::uint64_t seed)
{
    auto p =
        pairs(integers{0, 1, -1, 2, 255, 256, 65535, 65536, -65537, INT32_MAX, INT32_MIN, INT32_MIN + 1, 0x01234567});
    random_source random(seed);
    for (int i = 0; i < 1000; ++i) {
        p.first.push_back(static_cast<std::int32_t>(random.bits() >> 32));
        p.second.push_back(static_cast<std::int32_t>(random.bits() >> 32));
    }
    return p;
}

} // namespace

TEST_CASE("float arithmetic is IEEE", "[simd]")
{
    const auto [a, b] = float_pairs(1);
    CHECK_VERB([](F x, F y) { return x + y; }, [](float x, float y) { return x + y; }, a, b);
    CHECK_VERB([](F x, F y) { return x - y; }, [](float x, float y) { return x - y; }, a, b);
    CHECK_VERB([](F x, F y) { return x * y; }, [](float x, float y) { return x * y; }, a, b);
    CHECK_VERB([](F x, F y) { return x / y; }, [](float x, float y) { return x / y; }, a, b);
    CHECK_VERB([](F x) { return sqrt(x); }, [](float x) { return std::sqrt(x); }, a);
    CHECK_VERB([](F x) { return as_int(-x); }, [](float x) { return wrapped(bits_of(x) ^ 0x80000000u); }, a);
    CHECK_VERB([](F x) { return as_int(abs(x)); }, [](float x) { return wrapped(bits_of(x) & 0x7fffffffu); }, a);
    CHECK_VERB([](F x) { return as_int(x); }, [](float x) { return wrapped(bits_of(x)); }, a);
}

TEST_CASE("fma is fused", "[simd]")
{
    auto [a, b] = float_pairs(2);
    floats c = a;
    std::rotate(c.begin(), c.begin() + 7, c.end());
    // Rounded twice these give 0.
    for (const float e : {0x1p-12f, 0x1p-13f, 0x1.8p-14f}) {
        a.push_back(1.0f + e);
        b.push_back(1.0f - e);
        c.push_back(-1.0f);
        a.push_back(1.0f + e);
        b.push_back(-1.0f + e);
        c.push_back(1.0f);
    }
    CHECK_VERB([](F x, F y, F z) { return fma(x, y, z); }, [](float x, float y, float z) { return std::fma(x, y, z); },
               a, b, c);
    CHECK_VERB([](F x, F y, F z) { return fnma(x, y, z); },
               [](float x, float y, float z) { return std::fma(-x, y, z); }, a, b, c);
}

TEST_CASE("comparisons with NaN are false, min and max then give the second operand", "[simd]")
{
    const auto [a, b] = float_pairs(3);
    const auto truth = [](bool t) { return std::int32_t{t}; };
    CHECK_VERB([](F x, F y) { return x < y; }, [&](float x, float y) { return truth(x < y); }, a, b);
    CHECK_VERB([](F x, F y) { return x <= y; }, [&](float x, float y) { return truth(x <= y); }, a, b);
    CHECK_VERB([](F x, F y) { return x == y; }, [&](float x, float y) { return truth(x == y); }, a, b);
    // Of two zeros either will do.
    const auto plus_zero = [](F x) { return x + F::zero(); };
    CHECK_VERB([&](F x, F y) { return plus_zero(min(x, y)); }, [](float x, float y) { return (x < y ? x : y) + 0.0f; },
               a, b);
    CHECK_VERB([&](F x, F y) { return plus_zero(max(x, y)); }, [](float x, float y) { return (x > y ? x : y) + 0.0f; },
               a, b);
    const floats numbers(2 * std::size_t{L}, 2.0f), nans(2 * std::size_t{L}, nan_value);
    CHECK(lanewise([](F x, F y) { return min(x, y); }, nans, numbers) == numbers);
    CHECK(lanewise([](F x, F y) { return max(x, y); }, nans, numbers) == numbers);
}

TEST_CASE("round goes to the nearest integer, ties to even, whatever the size", "[simd]")
{
    floats x = special;
    for (int i = -2000; i <= 2000; ++i) { x.push_back(0.25f * static_cast<float>(i)); }
    for (const float base : {0x1p21f, 0x1p22f, 0x1p23f, 0x1p24f, 0x1p31f, 0x1p62f}) {
        float up = base, down = base;
        for (int i = 0; i < 20; ++i) {
            for (const float v : {up, down}) {
                x.push_back(v);
                x.push_back(-v);
            }
            up = std::nextafter(up, infinity);
            down = std::nextafter(down, 0.0f);
        }
    }
    x.push_back(0x1.fffffep-2f); // the float below ½, which adding ½ would round up
    random_source random(4);
    for (int i = 0; i < 2000; ++i) { x.push_back(float_of(static_cast<std::uint32_t>(random.bits()))); }
    // The sign of a zero is free.
    CHECK_VERB([](F v) { return round(v) + F::zero(); }, [](float v) { return std::nearbyint(v) + 0.0f; }, x);

    std::erase_if(x, [](float v) { return !(std::fabs(v) < 0x1p31f); });
    CHECK_VERB([](F v) { return to_int(v); },
               [](float v) { return static_cast<std::int32_t>(std::nearbyint(static_cast<double>(v))); }, x);
}

TEST_CASE("scale_by_power rounds once, into subnormals and into infinity", "[simd]")
{
    floats a, n;
    random_source random(5);
    for (int power = -300; power <= 300; ++power) {
        for (const float v : {0.25f, 4.0f, 1.0f, -1.0f, 0x1.000002p0f, 0x1.800002p0f, -0x1.fffffep-1f, 0x1.fffffep1f}) {
            a.push_back(v);
            n.push_back(static_cast<float>(power));
        }
        for (int i = 0; i < 24; ++i) {
            a.push_back((random.bits() & 1u ? 1.0f : -1.0f) * random.uniform(0.25f, 4.0f));
            n.push_back(static_cast<float>(power));
        }
    }
    CHECK_VERB(
        [](F x, F p) { return scale_by_power(x, p); },
        [](float x, float p) { return static_cast<float>(std::ldexp(static_cast<double>(x), static_cast<int>(p))); }, a,
        n);
    const floats nans(std::size_t{L}, nan_value);
    CHECK_VERB([](F x) { return scale_by_power(x, x); }, [](float x) { return x; }, nans);
}

TEST_CASE("integer arithmetic wraps", "[simd]")
{
    const auto [a, b] = integer_pairs(6);
    using i64 = std::int64_t;
    using s32 = std::int32_t;
    const auto u = [](s32 x) { return static_cast<std::uint32_t>(x); };
    CHECK_VERB([](I x, I y) { return x + y; }, [](s32 x, s32 y) { return wrapped(i64{x} + y); }, a, b);
    CHECK_VERB([](I x, I y) { return x - y; }, [](s32 x, s32 y) { return wrapped(i64{x} - y); }, a, b);
    CHECK_VERB([](I x, I y) { return x * y; }, [](s32 x, s32 y) { return wrapped(i64{x} * y); }, a, b);
    CHECK_VERB([](I x, I y) { return x & y; }, [](s32 x, s32 y) { return x & y; }, a, b);
    CHECK_VERB([](I x, I y) { return x | y; }, [](s32 x, s32 y) { return x | y; }, a, b);
    CHECK_VERB([](I x, I y) { return x ^ y; }, [](s32 x, s32 y) { return x ^ y; }, a, b);
    CHECK_VERB([](I x, I y) { return min(x, y); }, [](s32 x, s32 y) { return x < y ? x : y; }, a, b);
    CHECK_VERB([](I x, I y) { return max(x, y); }, [](s32 x, s32 y) { return x < y ? y : x; }, a, b);
    CHECK_VERB([](I x, I y) { return x < y; }, [](s32 x, s32 y) { return s32{x < y}; }, a, b);
    CHECK_VERB([](I x, I y) { return x == y; }, [](s32 x, s32 y) { return s32{x == y}; }, a, b);
    CHECK_VERB([](I x) { return to_float(x); }, [](s32 x) { return static_cast<float>(x); }, a);
    CHECK_VERB([](I x) { return as_int(as_float(x)); }, [](s32 x) { return x; }, a);
    CHECK_VERB([](I x) { return shift_left<1>(x); }, [&](s32 x) { return wrapped(u(x) << 1); }, a);
    CHECK_VERB([](I x) { return shift_left<31>(x); }, [&](s32 x) { return wrapped(u(x) << 31); }, a);
    CHECK_VERB([](I x) { return shift_right<4>(x); }, [&](s32 x) { return wrapped(u(x) >> 4); }, a);
    CHECK_VERB([](I x) { return shift_right<31>(x); }, [&](s32 x) { return wrapped(u(x) >> 31); }, a);
    CHECK_VERB([](I x) { return shift_right_signed<4>(x); }, [](s32 x) { return x >> 4; }, a);
    CHECK_VERB([](I x) { return shift_right_signed<31>(x); }, [](s32 x) { return x >> 31; }, a);
}

TEST_CASE("masks and selection, lane by lane", "[simd]")
{
    const F zeros = F::zero(), ones = F::broadcast(1.0f);
    const M none = ones < zeros, every = zeros < ones;
    CHECK(!any(none));
    CHECK(!all(none));
    CHECK(any(every));
    CHECK(all(every));
    for (int lane = 0; lane < L; ++lane) {
        floats x(std::size_t{L}, 0.0f);
        x[static_cast<std::size_t>(lane)] = 1.0f;
        const M one = zeros < F::load(x.data());
        CHECK(any(one));
        CHECK(all(one) == (L == 1));
        CHECK(any(!one) == (L > 1));
        CHECK(!all((!one) | none));
        CHECK(all(one | !one));
        CHECK(!any(one & !one));
        CHECK(any(one & every));
        CHECK(!any(!(one | !one)));
        floats f(x.size());
        integers i(x.size());
        select(one, F::broadcast(2.0f), F::broadcast(-nan_value)).store(f.data());
        select(one, I::broadcast(7), I::broadcast(-7)).store(i.data());
        for (int k = 0; k < L; ++k) {
            const auto at = static_cast<std::size_t>(k);
            CHECK((k == lane ? f[at] == 2.0f : f[at] != f[at]));
            CHECK(i[at] == (k == lane ? 7 : -7));
        }
    }
}

TEST_CASE("reductions reach every lane", "[simd]")
{
    floats x(std::size_t{L});
    integers k(std::size_t{L});
    float sum = 0.0f;
    for (int lane = 0; lane < L; ++lane) {
        x[static_cast<std::size_t>(lane)] = static_cast<float>(1 << lane); // a lane left out or taken twice shows
        sum += static_cast<float>(1 << lane);
        k[static_cast<std::size_t>(lane)] = INT32_MAX - (1 << lane);
    }
    CHECK(reduce_add(F::load(x.data())) == sum);
    std::int64_t whole = 0;
    for (const std::int32_t v : k) { whole += v; }
    CHECK(reduce_add(I::load(k.data())) == wrapped(whole));
    for (int lane = 0; lane < L; ++lane) {
        floats y(std::size_t{L}, -infinity);
        CHECK(reduce_max(F::load(y.data())) == -infinity);
        y[static_cast<std::size_t>(lane)] = -3.0f;
        CHECK(reduce_max(F::load(y.data())) == -3.0f);
    }
}

TEST_CASE("transpose exchanges rows and columns", "[simd]")
{
    F row[L];
    floats x(std::size_t{L} * L);
    for (int i = 0; i < L * L; ++i) { x[static_cast<std::size_t>(i)] = static_cast<float>(i); }
    for (int r = 0; r < L; ++r) { row[r] = F::load(x.data() + r * L); }
    transpose(row);
    for (int r = 0; r < L; ++r) {
        row[r].store(x.data() + r * L);
        for (int c = 0; c < L; ++c) { CHECK(x[static_cast<std::size_t>(r * L + c)] == static_cast<float>(c * L + r)); }
    }
}

TEST_CASE("unroll counts in constants", "[simd]")
{
    int seen[5] = {};
    seqmix::simd::unroll<5>([&](auto i) {
        static_assert(decltype(i)::value < 5);
        ++seen[i];
    });
    for (const int count : seen) { CHECK(count == 1); }
}

TEST_CASE("denormals are flushed inside the scope, by this thread alone", "[simd]")
{
    const auto half_of_smallest_normal = [] {
        volatile float tiny = 0x1p-126f;
        return tiny * 0.5f;
    };
    CHECK(half_of_smallest_normal() == 0x1p-127f);
    {
        const seqmix::scoped_flush_denormals flush;
        if (seqmix::scoped_flush_denormals::available) {
            // Compared as bits: the comparison itself would take a subnormal for zero.
            CHECK(bits_of(half_of_smallest_normal()) == 0u);
            {
                const seqmix::scoped_flush_denormals inner;
                CHECK(bits_of(half_of_smallest_normal()) == 0u);
            }
            CHECK(bits_of(half_of_smallest_normal()) == 0u);
        }
    }
    CHECK(half_of_smallest_normal() == 0x1p-127f);
}

TEST_CASE("build_info names the version, the instruction sets and the compiler", "[simd]")
{
    const std::string info = seqmix::build_info();
    INFO(info);
    CHECK(info.find(SEQMIX_VERSION_STRING) != std::string::npos);
    CHECK(info.find("scalar") != std::string::npos);
    CHECK(info.find(test_arch_name()) != std::string::npos);
    CHECK(info.find(std::string("native ") + seqmix::arch::native::name) != std::string::npos);
}
