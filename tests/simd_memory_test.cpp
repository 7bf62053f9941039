// SPDX-License-Identifier: MIT

// The verbs of simd/vec.hpp that read, write and convert, and the dot products of packed bf16.

#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/lanes.hpp"
#include "support/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

using seqmix::bf16;
using seqmix::f16;

namespace {

template <class T>
T element(int i)
{
    if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>) {
        return T(static_cast<float>(i) + 0.5f);
    } else if constexpr (std::is_same_v<T, std::int32_t>) {
        return -70000 * i - 1;
    } else if constexpr (std::is_same_v<T, float>) {
        return static_cast<float>(i) + 0.25f;
    } else {
        return static_cast<T>(255 - 7 * i); // beyond the range of signed bytes, so that the extension shows
    }
}

/// What a lane holds that was loaded from x.
template <class T>
auto widened(T x)
{
    if constexpr (std::is_integral_v<T>) {
        return std::int32_t{x};
    } else {
        return static_cast<float>(x);
    }
}

template <class T>
using register_of = std::conditional_t<std::is_integral_v<T>, I, F>;
template <class T>
using lane_of = std::conditional_t<std::is_integral_v<T>, std::int32_t, float>;

template <class T>
void check_loads()
{
    using R = register_of<T>;
    for (int n = -1; n <= L + 2; ++n) {
        const int live = std::clamp(n, 0, L);
        at_the_edge<T> memory(live);
        for (int i = 0; i < live; ++i) { memory[i] = element<T>(i); }
        lane_of<T> lane[L];
        R::load(memory.data(), n).store(lane);
        INFO(n << " elements of " << sizeof(T) << " bytes");
        for (int i = 0; i < L; ++i) { CHECK(lane[i] == (i < live ? widened(memory[i]) : lane_of<T>{0})); }
    }
    for (std::size_t offset = 0; offset < 64; offset += sizeof(T)) {
        guarded<T> memory(L, offset);
        for (int i = 0; i < L; ++i) { memory[i] = element<T>(i); }
        lane_of<T> lane[L];
        R::load(memory.data()).store(lane);
        INFO("offset " << offset);
        for (int i = 0; i < L; ++i) { CHECK(lane[i] == widened(memory[i])); }
    }
}

template <class T>
void check_stores()
{
    using R = register_of<T>;
    lane_of<T> lane[L];
    for (int i = 0; i < L; ++i) { lane[i] = widened(element<T>(i)); }
    const R r = R::load(lane);
    for (std::size_t offset = 0; offset < 64; offset += sizeof(T)) {
        for (int n = -1; n <= L + 2; ++n) {
            guarded<T> memory(L, offset);
            r.store(memory.data(), n);
            INFO(n << " elements of " << sizeof(T) << " bytes at offset " << offset);
            CHECK(memory.intact());
            for (int i = 0; i < L; ++i) { CHECK((i < n ? memory[i] == element<T>(i) : memory.untouched(i))); }
        }
        guarded<T> memory(L, offset);
        r.store(memory.data());
        CHECK(memory.intact());
        for (int i = 0; i < L; ++i) { CHECK(memory[i] == element<T>(i)); }
    }
}

/// On every border that a streamed register may lie on: what a store writes, rounded likewise, and nothing else.
template <class T>
void check_streams()
{
    random_source random(11);
    constexpr std::size_t bytes = sizeof(T) * std::size_t{L};
    for (std::size_t offset = 0; offset < 64; offset += bytes) {
        float lane[L];
        for (float& x : lane) { x = random.normal(); }
        lane[0] = nan_value;
        guarded<T> streamed(L, offset), stored(L, offset);
        F::load(lane).stream(streamed.data());
        F::stream_fence();
        F::load(lane).store(stored.data());
        INFO("elements of " << sizeof(T) << " bytes at offset " << offset);
        CHECK(streamed.intact());
        CHECK(std::memcmp(streamed.data(), stored.data(), bytes) == 0);
    }
}

/// Loads and stores all of `codes` and `numbers`, each in every lane's place and, partially, in the first.
template <class T>
void check_conversion(const floats& numbers)
{
    seqmix::index wrong_loads = 0, wrong_stores = 0, wrong_firsts = 0;
    for (std::uint32_t code = 0; code < 65536u; code += std::uint32_t{L}) {
        T memory[L];
        for (int i = 0; i < L; ++i) {
            memory[i] = T::from_bits(static_cast<std::uint16_t>(code + static_cast<unsigned>(i)));
        }
        float lane[L], first[L];
        F::load(memory).store(lane);
        for (int i = 0; i < L; ++i) {
            wrong_loads += bits_of(lane[i]) != bits_of(static_cast<float>(memory[i]));
            F::load(memory + i, 1).store(first);
            wrong_firsts += bits_of(first[0]) != bits_of(static_cast<float>(memory[i]));
        }
    }
    CHECK(wrong_loads == 0);
    CHECK(wrong_firsts == 0);
    std::vector<T> stored(numbers.size());
    for (std::size_t at = 0; at < numbers.size(); at += std::size_t{L}) {
        const auto n = static_cast<seqmix::index>(numbers.size() - at);
        const F x = F::load(numbers.data() + at, n);
        if (n >= L) {
            x.store(stored.data() + at);
        } else {
            x.store(stored.data() + at, n);
        }
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        if (stored[i].bits != T(numbers[i]).bits && wrong_stores++ < 5) {
            INFO("float " << std::hex << bits_of(numbers[i]));
            CHECK(stored[i].bits == T(numbers[i]).bits);
        }
    }
    CHECK(wrong_stores == 0);
}

/// Every number of the format, the middles between neighbours, and the floats beside both; and the edges of float.
template <class T>
floats tricky()
{
    floats x{0x1p-149f,
             0x1.fffffcp-127f,
             0x1.fffffep127f,
             infinity,
             float_of(0x7f800001u),
             float_of(0x7fbfffffu),
             float_of(0x7fc00001u),
             float_of(0x7fffffffu),
             float_of(0x7f80ffffu),
             float_of(0x7f810000u)};
    for (unsigned code = 0; code < 32768u; ++code) {
        const auto value = static_cast<float>(T::from_bits(static_cast<std::uint16_t>(code)));
        if (!(value < infinity)) { break; }
        const float above = static_cast<float>(T::from_bits(static_cast<std::uint16_t>(code + 1)));
        const float middle = above < infinity ? value + 0.5f * (above - value) : value * (1.0f + 0x1p-12f);
        for (const float v : {value, middle}) {
            for (const std::uint32_t bits : {bits_of(v) - 1u, bits_of(v), bits_of(v) + 1u}) {
                if (bits < 0x80000000u) { x.push_back(float_of(bits)); }
            }
        }
    }
    const std::size_t positive = x.size();
    for (std::size_t i = 0; i < positive; ++i) { x.push_back(-x[i]); }
    random_source random(7);
    for (int i = 0; i < 100000; ++i) { x.push_back(float_of(static_cast<std::uint32_t>(random.bits()))); }
    return x;
}

std::int32_t packed_bf16(float low, float high)
{
    return static_cast<std::int32_t>(bf16(low).bits | static_cast<std::uint32_t>(bf16(high).bits) << 16);
}

} // namespace

TEST_CASE("loads read the first n elements and nothing else, from any alignment", "[simd]")
{
    check_loads<float>();
    check_loads<bf16>();
    check_loads<f16>();
    check_loads<std::int32_t>();
    check_loads<std::uint16_t>();
    check_loads<std::uint8_t>();
    check_loads<std::int8_t>();
}

TEST_CASE("stores write the first n elements and nothing else, to any alignment", "[simd]")
{
    check_stores<float>();
    check_stores<bf16>();
    check_stores<f16>();
    check_stores<std::int32_t>();
}

TEST_CASE("streams write what stores write", "[simd]")
{
    check_streams<float>();
    check_streams<bf16>();
    check_streams<f16>();
}

TEST_CASE("bf16 and f16 are converted bit for bit as by their scalar types", "[simd]")
{
    check_conversion<bf16>(tricky<bf16>());
    check_conversion<f16>(tricky<f16>());
}

TEST_CASE("dot2 adds two products of bf16 to a float", "[simd]")
{
    // Small integers: exact however the sums are rounded.
    floats acc, want;
    integers a, b;
    random_source random(9);
    const auto small = [&] { return static_cast<float>(random.integer(-255, 255)); };
    for (int i = 0; i < 2000; ++i) {
        const float a0 = small(), a1 = small(), b0 = small(), b1 = small(), c = small();
        acc.push_back(c);
        a.push_back(packed_bf16(a0, a1));
        b.push_back(packed_bf16(b0, b1));
        want.push_back(c + a0 * b0 + a1 * b1);
    }
    const auto dot = [](F c, I x, I y) { return B::dot2(c, x, y); };
    CHECK(first_difference(lanewise(dot, acc, a, b), want) == -1);

    // Any others: at most two roundings of at most one unit of the last place (to odd; half a unit to nearest) each,
    // hence 2 · 2^-23 of the sum of magnitudes.
    double worst = 0.0;
    for (int i = 0; i < 20000; ++i) {
        const bf16 a0(random.normal()), a1(random.normal()), b0(random.normal()), b1(random.normal());
        const auto value = [](bf16 x) { return static_cast<double>(static_cast<float>(x)); };
        const float c = random.normal();
        const double p0 = value(a0) * value(b0), p1 = value(a1) * value(b1);
        const floats got =
            lanewise(dot, floats{c}, integers{packed_bf16(static_cast<float>(a0), static_cast<float>(a1))},
                     integers{packed_bf16(static_cast<float>(b0), static_cast<float>(b1))});
        const double magnitude = std::fabs(p0) + std::fabs(p1) + std::fabs(static_cast<double>(c));
        worst =
            std::max(worst, std::fabs(static_cast<double>(got[0]) - (p0 + p1 + static_cast<double>(c))) / magnitude);
    }
    INFO("worst " << worst / 0x1p-24 << " · 2^-24 of the magnitudes");
    CHECK(worst <= 0x1p-22);
}

TEST_CASE("join_bf16 puts row 0 into the lower halves, rounded", "[simd]")
{
    const floats low = tricky<bf16>();
    floats high = low;
    std::rotate(high.begin(), high.begin() + 12345, high.end());
    const integers got = lanewise([](F x, F y) { return B::join_bf16(x, y); }, low, high);
    // Where the dot product flushes subnormals this may do so too, and a NaN is any NaN.
    const auto same = [](std::uint32_t code, float x) {
        const std::uint16_t wanted = bf16(x).bits;
        if (x != x) { return (code & 0x7fffu) > 0x7f80u; }
        return code == wanted || (B::has_bf16_dot && std::fabs(x) < 0x1p-126f && code == (wanted & 0x8000u));
    };
    seqmix::index wrong = 0;
    for (std::size_t i = 0; i < low.size(); ++i) {
        const auto bits = static_cast<std::uint32_t>(got[i]);
        wrong += !same(bits & 0xffffu, low[i]) || !same(bits >> 16, high[i]);
    }
    CHECK(wrong == 0);
}
