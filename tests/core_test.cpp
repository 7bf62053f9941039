// SPDX-License-Identifier: MIT

// core/: number types against their definitions in double arithmetic, views, scratch, executors.

#include "support/catch.hpp"
#include "support/guarded.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/core/state.hpp>
#include <seqmix/core/view.hpp>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using seqmix::bf16;
using seqmix::broadcast_view;
using seqmix::e8m0;
using seqmix::f16;
using seqmix::fp4_e2m1;
using seqmix::fp6_e2m3;
using seqmix::fp6_e3m2;
using seqmix::fp8_e4m3;
using seqmix::fp8_e5m2;
using seqmix::overflow;
using seqmix::view;

namespace {

std::atomic<int> aligned_allocations{0};

}

// Only scratch asks for aligned memory, so these count what it allocates. Not under clang's thread sanitizer, whose own
// operators can't be replaced.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SEQMIX_TEST_COUNTS 0
#endif
#endif
#ifndef SEQMIX_TEST_COUNTS
#define SEQMIX_TEST_COUNTS 1
void* operator new(std::size_t bytes, std::align_val_t alignment)
{
    ++aligned_allocations;
    const auto a = static_cast<std::size_t>(alignment);
    if (void* const p = std::aligned_alloc(a, (bytes + a - 1) / a * a)) { return p; }
    throw std::bad_alloc();
}
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif

namespace {

/// Whether scratch has been allocated n times since the count was set to 0.
bool allocated(int n) { return !SEQMIX_TEST_COUNTS || aligned_allocations == n; }

/// A floating-point format as its standard defines it: codes below `infinity_or_end` are finite.
struct format {
    int exponent_bits, mantissa_bits;
    unsigned end; ///< the first positive code that is no finite number

    int bias() const { return (1 << (exponent_bits - 1)) - 1; }
    /// The number of a positive code, by the definition; `end` counts on as if the format did.
    double value(unsigned code) const
    {
        const int exponent = static_cast<int>(code >> mantissa_bits);
        const double fraction = std::ldexp(static_cast<double>(code & ((1u << mantissa_bits) - 1u)), -mantissa_bits);
        return exponent == 0 ? std::ldexp(fraction, 1 - bias()) : std::ldexp(1.0 + fraction, exponent - bias());
    }
    /// The code nearest to x >= 0, ties to the even code; `end` for what rounds beyond the largest number.
    unsigned nearest(double x) const
    {
        unsigned low = 0, high = end;
        if (x >= value(end)) { return end; }
        while (high - low > 1) {
            const unsigned middle = (low + high) / 2;
            (value(middle) <= x ? low : high) = middle;
        }
        const double below = x - value(low), above = value(high) - x;
        return below < above || (below == above && low % 2 == 0) ? low : high;
    }
};

constexpr format e4m3{4, 3, 0x7f}, e5m2{5, 2, 0x7c}, half{5, 10, 0x7c00}, brain{8, 7, 0x7f80};

/// The numbers of a format, the middles between them, the floats beside both, and beyond: all positive.
std::vector<float> tricky(const format& f)
{
    std::vector<float> x{0x1p-149f, 0x1.fffffcp-127f, 0x1p-126f, 0x1.fffffep127f, HUGE_VALF, 1e30f};
    for (unsigned code = 0; code < f.end; ++code) {
        for (const double v : {f.value(code), 0.5 * (f.value(code) + f.value(code + 1))}) {
            const auto exact = static_cast<float>(v);
            x.push_back(exact);
            x.push_back(std::nextafter(exact, HUGE_VALF));
            if (exact > 0.0f) { x.push_back(std::nextafter(exact, 0.0f)); }
        }
    }
    return x;
}

/// Encodes every tricky number of both signs; `beyond` is the code of what is too large. Returns how many are wrong.
template <class Encode>
int wrong_codes(const format& f, unsigned sign, unsigned beyond, Encode encode)
{
    int wrong = 0;
    for (const float x : tricky(f)) {
        unsigned want = f.nearest(static_cast<double>(x));
        if (want == f.end) { want = beyond; }
        wrong += encode(x) != want;
        wrong += encode(-x) != (want | sign);
    }
    return wrong;
}

template <class T>
int wrong_values(const format& f, unsigned sign)
{
    using bits = decltype(T{}.bits);
    int wrong = 0;
    for (unsigned code = 0; code < f.end; ++code) {
        wrong += static_cast<double>(static_cast<float>(T::from_bits(static_cast<bits>(code)))) != f.value(code);
        const auto negative = static_cast<float>(T::from_bits(static_cast<bits>(code | sign)));
        wrong += static_cast<double>(-negative) != f.value(code) || !std::signbit(negative);
        wrong += T(static_cast<float>(T::from_bits(static_cast<bits>(code)))).bits != code;
        wrong += T(negative).bits != (code | sign);
    }
    return wrong;
}

/// All NaN codes of T from `first` to `last`, both signs: the float is a NaN, and so is what it is stored as.
template <class T>
int lost_nans(unsigned first, unsigned last, unsigned sign)
{
    using bits = decltype(T{}.bits);
    int lost = 0;
    for (unsigned code = first; code <= last; ++code) {
        for (const unsigned s : {0u, sign}) {
            const auto x = static_cast<float>(T::from_bits(static_cast<bits>(code | s)));
            lost += !std::isnan(x) || !std::isnan(static_cast<float>(T(x)));
        }
    }
    return lost;
}

} // namespace

TEST_CASE("bf16 and f16 convert by their definition", "[core]")
{
    CHECK(wrong_values<bf16>(brain, 0x8000) == 0);
    CHECK(wrong_values<f16>(half, 0x8000) == 0);
    CHECK(wrong_codes(brain, 0x8000, 0x7f80, [](float x) { return unsigned{bf16(x).bits}; }) == 0);
    CHECK(wrong_codes(half, 0x8000, 0x7c00, [](float x) { return unsigned{f16(x).bits}; }) == 0);
    CHECK(lost_nans<bf16>(0x7f81, 0x7fff, 0x8000) == 0);
    CHECK(lost_nans<f16>(0x7c01, 0x7fff, 0x8000) == 0);
    CHECK(static_cast<float>(f16::from_bits(0x7c00)) == HUGE_VALF);
    CHECK(static_cast<float>(bf16::from_bits(0xff80)) == -HUGE_VALF);
    // A payload in the lower bits alone must not become infinity.
    CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
    CHECK(std::isnan(static_cast<float>(f16(std::bit_cast<float>(0xff800001u)))));
    // A signalling NaN becomes a quiet one, as in the hardware's conversions.
    CHECK(std::bit_cast<std::uint32_t>(static_cast<float>(f16::from_bits(0xfc01))) == 0xffc02000u);
    static_assert(bf16(1.0f).bits == 0x3f80 && f16(-2.0f).bits == 0xc000); // usable at compile time
}

TEST_CASE("FP8 converts by its definition, and overflows as asked", "[core]")
{
    CHECK(e4m3.value(0x7e) == 448.0);
    CHECK(e5m2.value(0x7b) == 57344.0);
    CHECK(wrong_values<fp8_e4m3>(e4m3, 0x80) == 0);
    CHECK(wrong_values<fp8_e5m2>(e5m2, 0x80) == 0);
    const auto a = [](float x) { return unsigned{fp8_e4m3(x).bits}; };
    const auto b = [](float x) { return unsigned{fp8_e4m3(x, overflow::to_nan).bits}; };
    const auto c = [](float x) { return unsigned{fp8_e5m2(x).bits}; };
    const auto d = [](float x) { return unsigned{fp8_e5m2(x, overflow::to_nan).bits}; };
    CHECK(wrong_codes(e4m3, 0x80, 0x7e, a) == 0);
    CHECK(wrong_codes(e4m3, 0x80, 0x7f, b) == 0);
    CHECK(wrong_codes(e5m2, 0x80, 0x7b, c) == 0);
    CHECK(wrong_codes(e5m2, 0x80, 0x7c, d) == 0);
    CHECK(lost_nans<fp8_e4m3>(0x7f, 0x7f, 0x80) == 0);
    CHECK(lost_nans<fp8_e5m2>(0x7d, 0x7f, 0x80) == 0);
    CHECK(static_cast<float>(fp8_e5m2::from_bits(0x7c)) == HUGE_VALF);
}

TEST_CASE("numbers below 8 bits convert by their definition, and saturate", "[core]")
{
    const format e2m1{2, 1, 8}, e2m3{2, 3, 32}, e3m2{3, 2, 32};
    CHECK(e2m1.value(7) == 6.0);
    CHECK(e2m3.value(31) == 7.5);
    CHECK(e3m2.value(31) == 28.0);
    CHECK(wrong_values<fp4_e2m1>(e2m1, 8) == 0);
    CHECK(wrong_values<fp6_e2m3>(e2m3, 32) == 0);
    CHECK(wrong_values<fp6_e3m2>(e3m2, 32) == 0);
    CHECK(wrong_codes(e2m1, 8, 7, [](float x) { return unsigned{fp4_e2m1(x).bits}; }) == 0);
    CHECK(wrong_codes(e2m3, 32, 31, [](float x) { return unsigned{fp6_e2m3(x).bits}; }) == 0);
    CHECK(wrong_codes(e3m2, 32, 31, [](float x) { return unsigned{fp6_e3m2(x).bits}; }) == 0);
    for (const float nan : {std::nanf(""), -std::nanf("")}) {
        CHECK(fp4_e2m1(nan).bits == 7);
        CHECK(fp6_e3m2(nan).bits == 31);
    }
    // Bits beyond the format's are not looked at.
    CHECK(static_cast<float>(fp6_e2m3::from_bits(0xdf)) == 7.5f);
    static_assert(fp4_e2m1(0.75f).bits == 2 && static_cast<float>(fp4_e2m1::from_bits(9)) == -0.5f);
}

TEST_CASE("e8m0 holds powers of two, the nearest to what is stored", "[core]")
{
    int wrong = 0;
    for (unsigned code = 0; code < 255; ++code) {
        const auto bits = static_cast<std::uint8_t>(code);
        const double power = std::ldexp(1.0, static_cast<int>(code) - 127);
        wrong += static_cast<double>(static_cast<float>(e8m0::from_bits(bits))) != power;
        wrong += e8m0(static_cast<float>(power)).bits != code;
        if (code == 254) { continue; }
        const auto middle = static_cast<float>(1.5 * power);
        wrong += e8m0(middle).bits != code + code % 2; // a tie, to the even code
        wrong += e8m0(std::nextafter(middle, 0.0f)).bits != code;
        wrong += e8m0(std::nextafter(middle, HUGE_VALF)).bits != code + 1;
        wrong += e8m0(std::nextafter(static_cast<float>(power), HUGE_VALF)).bits != code;
    }
    CHECK(wrong == 0);
    CHECK(e8m0(0x1p-149f).bits == 0);
    CHECK(e8m0(0x1.fffffep127f).bits == 254);
    CHECK(std::isnan(static_cast<float>(e8m0::from_bits(255))));
    for (const float x : {0.0f, -0.0f, -1.0f, HUGE_VALF, std::nanf("")}) { CHECK(e8m0(x).bits == 255); }
}

TEST_CASE("views address, slice and turn without moving anything", "[core]")
{
    int data[24];
    for (int i = 0; i < 24; ++i) { data[i] = i; }
    const view v(data, {2, 3, 4});
    CHECK(v.size() == 24);
    CHECK(v(1, 2, 3) == 23);
    CHECK(v[1](0, 2) == 14);
    CHECK(v.select(1, 2)(1, 3) == 23);
    CHECK(v.slice(2, 1, 3).extent(2) == 2);
    CHECK(v.slice(2, 1, 3)(1, 1, 0) == 17);
    CHECK(v.transposed(0, 2)(3, 1, 0) == 7);
    CHECK(v.transposed(0, 2).extent(0) == 4);
    const view backwards(data + 23, {24}, {-1});
    CHECK(backwards(0) == 23);
    CHECK(backwards(23) == 0);
    const view<const int, 3> reads = v;
    CHECK(reads(0, 1, 0) == 4);
    CHECK(!view<int, 2>());
    CHECK(view<int, 2>().empty());
    CHECK(view(data, {3, 0}).empty());
}

TEST_CASE("views run backwards along an axis, and back", "[core]")
{
    int data[24];
    for (int i = 0; i < 24; ++i) { data[i] = i; }
    const view v(data, {2, 3, 4});
    for (std::size_t axis = 0; axis < 3; ++axis) {
        const auto turned = v.reversed(axis);
        CHECK(turned.extents() == v.extents());
        CHECK(turned.stride(axis) == -v.stride(axis));
        int wrong = 0;
        for (int i = 0; i < 24; ++i) {
            const int at[] = {i / 12, i / 4 % 3, i % 4};
            const auto other = [&](std::size_t a) { return a == axis ? static_cast<int>(v.extent(a)) - 1 - at[a] : at[a]; };
            wrong += turned(at[0], at[1], at[2]) != v(other(0), other(1), other(2));
        }
        CHECK(wrong == 0);
        CHECK(turned.reversed(axis).data() == data);
        CHECK(turned.reversed(axis).strides() == v.strides());
        CHECK(reach(turned).begin == reach(v).begin);
        CHECK(reach(turned).end == reach(v).end);
    }
    CHECK(v.slice(2, 1, 3).reversed(2)(0, 0, 0) == 2);
    CHECK(v.reversed(2).slice(2, 1, 3)(0, 0, 0) == 2);
    const auto empty = v.slice(1, 1, 1).reversed(1); // points where it did
    CHECK(empty.data() == data + 4);
    CHECK(empty.empty());
    static_assert(view<int, 1>(nullptr, {0}).reversed(0).data() == nullptr);
}

TEST_CASE("a leading axis of one element changes no place", "[core]")
{
    float data[12] = {};
    const view v(data + 11, {3, 4}, {-4, -1});
    const view<float, 3> one = with_leading_axis(v);
    CHECK(one.extents() == std::array<seqmix::index, 3>{1, 3, 4});
    CHECK(&one(0, 2, 3) == data);
    CHECK(one[0].data() == v.data());
    CHECK(one[0].strides() == v.strides());
    CHECK(reach(one).begin == reach(v).begin);
    CHECK(reach(one).end == reach(v).end);
    CHECK(!with_leading_axis(view<float, 2>()));
    CHECK(with_leading_axis(view(data, {0, 4})).empty());
}

TEST_CASE("a state is a view of float or of bf16, or not given", "[core]")
{
    using seqmix::state_view;
    float wide[6] = {};
    bf16 narrow[6];
    const state_view<2> none, in_float = view(wide, {2, 3}), in_bf16 = view(narrow, {3, 2});
    CHECK((!none && in_float && in_bf16));
    CHECK((!none.is_bf16() && !in_float.is_bf16() && in_bf16.is_bf16()));
    CHECK((in_float.extent(0) == 2 && in_float.extent(1) == 3));
    CHECK((in_bf16.extent(0) == 3 && in_bf16.extent(1) == 2));
    CHECK(in_float.as_float().data() == wide);
    CHECK(in_bf16.as_bf16().data() == narrow);
    CHECK(!in_float.as_bf16());
    const auto size = [](const auto& v) { return sizeof(*v.data()); };
    CHECK(in_float.visit(size) == 4);
    CHECK(in_bf16.visit(size) == 2);
    CHECK(reach(in_float).end - reach(in_float).begin == sizeof wide);
    CHECK(reach(in_bf16).end - reach(in_bf16).begin == sizeof narrow);
    CHECK(!reach(none).overlaps(reach(in_float)));
    CHECK(!state_view<2>(view<bf16, 2>()));

    static_assert(std::is_copy_constructible_v<state_view<2>> && std::is_copy_assignable_v<state_view<2>>);
    using reads = seqmix::const_state_view<2>;
    static_assert(std::is_copy_constructible_v<reads> && std::is_convertible_v<state_view<2>, reads>);
    static_assert(!std::is_convertible_v<reads, state_view<2>>);
    const reads read = in_bf16, read_wide = view<const float, 2>(wide, {2, 3});
    CHECK((read.is_bf16() && read.as_bf16().data() == narrow && read_wide.as_float().data() == wide));
    CHECK(in_float[1].as_float().data() == wide + 3);
    CHECK((in_bf16[2].as_bf16().data() == narrow + 4 && in_bf16[2].is_bf16()));
    CHECK(!none[7]);
}

TEST_CASE("broadcast views repeat axes that are missing or 1", "[core]")
{
    float data[6] = {};
    const view v(data, {2, 1, 3});
    const broadcast_view<const float, 4> b = v;
    CHECK(b.extent(0) == 1);
    CHECK(b.stride(0) == 0);
    CHECK(b.stride(1) == 3);
    CHECK(b.stride(2) == 0);
    CHECK(b.stride(3) == 1);
    CHECK(b.fits({5, 2, 7, 3}));
    CHECK(!b.fits({5, 3, 7, 3}));
    CHECK(!b.fits({5, 2, 7, 4}));
    CHECK(!broadcast_view<float, 2>());
}

TEST_CASE("reach is what a view can touch", "[core]")
{
    float data[24] = {};
    const auto at = [&](int i) { return reinterpret_cast<std::uintptr_t>(data + i); };
    const auto all = reach(view(data, {4, 6}));
    CHECK(all.begin == at(0));
    CHECK(all.end == at(24));
    const auto column = reach(view(data + 2, {4, 1}, {6, 1}));
    CHECK(column.begin == at(2));
    CHECK(column.end == at(21));
    const auto turned = reach(view(data + 23, {4, 6}, {-6, -1}));
    CHECK(turned.begin == at(0));
    CHECK(turned.end == at(24));
    CHECK(reach(view(data, {12})).overlaps(reach(view(data + 11, {13}))));
    CHECK(!reach(view(data, {12})).overlaps(reach(view(data + 12, {12}))));
    CHECK(!reach(view(data, {0, 6})).overlaps(all));
    CHECK(!reach(view<float, 2>()).overlaps(all));
}

TEST_CASE("checks name the door and both values, and put nothing together when they hold", "[core]")
{
    const seqmix::checker check("attention");
    CHECK_NOTHROW(check.equal(3, 3, "k length", "v length"));
    try {
        check.equal(3, 4, "k length", "v length");
        FAIL("not refused");
    } catch (const std::invalid_argument& e) {
        CHECK(std::string(e.what()) == "attention: k length is 3, but v length is 4");
    }
}

namespace {

template <class Check>
void check_refused(const std::string& want, const Check& check)
{
    std::string message = "(nothing thrown)";
    try {
        check(seqmix::checker("door"));
    } catch (const std::invalid_argument& e) {
        message = e.what();
    }
    CHECK(message == want);
}

} // namespace

TEST_CASE("operands must be given, fit and stand apart, or messages say what does not", "[core]")
{
    float data[24] = {};
    const view v(data, {2, 3, 4});
    using checker = seqmix::checker;
    const checker good("door");
    CHECK_NOTHROW(check_given(good, v, "u"));
    CHECK_NOTHROW(check_given(good, view<float, 2>(), "u"));
    CHECK_NOTHROW(check_given(good, view<float, 2>(nullptr, {3, 0}), "u"));
    check_refused("door: u is null, but its shape has 6 elements",
                  [&](const checker& c) { check_given(c, view<float, 2>(nullptr, {2, 3}), "u"); });
    check_refused("door: u has a negative extent: -2", [&](const checker& c) { check_given(c, view(data, {3, -2}), "u"); });

    CHECK_NOTHROW(check_extent(good, v, "k", 1, "length", 3, "q's"));
    check_refused("door: k's length is 3, but q's is 4",
                  [&](const checker& c) { check_extent(c, v, "k", 1, "length", 4, "q's"); });

    const view first(data, {12}), second(data + 12, {12}), across(data + 11, {2});
    CHECK_NOTHROW(check_apart(good, reach(first), "out", second, "u"));
    CHECK_NOTHROW(check_apart(good, reach(first), "out", view<float, 3>(), "z"));
    CHECK_NOTHROW(check_apart(good, reach(view<float, 1>()), "state", first, "u"));
    for (const view<float, 1>& writes : {first, second}) {
        check_refused("door: out overlaps u: its memory from first to last element must be apart",
                      [&](const checker& c) { check_apart(c, reach(writes), "out", across, "u"); });
    }
    check_refused("door: out overlaps h: its memory from first to last element must be apart",
                  [&](const checker& c) { check_apart(c, reach(first), "out", seqmix::state_view<1>(across), "h"); });

    // The same of lists, whatever their types.
    using seqmix::named_extent, seqmix::named_operand;
    const seqmix::state_view<2> state(view(data, {2, 3}));
    const named_extent rows = {"number of rows", 2, "q's"}, columns = {"length", 3, "k's"};
    const named_operand cube = {"u", v}, of_first = {"out", first}, of_second = {"u", second}, nothing = {"z", view<float, 3>()};
    const named_operand stored = {"h", seqmix::state_view<1>(across)};
    CHECK_NOTHROW(check_given(good, cube, nothing, named_operand("state", state)));
    CHECK_NOTHROW(check_given(good, {cube, nothing, {"state", state}}));
    check_refused("door: z has a negative extent: -2", [&](const checker& c) { check_given(c, {cube, {"z", view(data, {3, -2})}}); });
    check_refused("door: out overlaps h: its memory from first to last element must be apart",
                  [&](const checker& c) { check_apart(c, of_first, {of_second, stored}); });
    check_refused("door: z is null, but its shape has 6 elements",
                  [&](const checker& c) { check_given(c, cube, named_operand("z", view<float, 2>(nullptr, {2, 3}))); });
    check_refused("door: z has a negative extent: -2",
                  [&](const checker& c) { check_given(c, cube, named_operand("z", view(data, {3, -2}))); });
    CHECK_NOTHROW(check_shape(good, {"state", state}, rows + columns));
    CHECK_NOTHROW(check_shape(good, {"u", v}, rows)); // the axes that are named
    check_refused("door: state's length is 3, but k's is 4",
                  [&](const checker& c) { check_shape(c, {"state", state}, rows + named_extent{"length", 4, "k's"}); });
    check_refused("door: x's number of rows is 0, but q's is 2",
                  [&](const checker& c) { check_shape(c, {"x", view<float, 2>()}, rows + columns); });
    CHECK_NOTHROW(check_optional(good, {"x", view<float, 2>()}, rows + columns));
    check_refused("door: x's number of rows is 3, but q's is 2",
                  [&](const checker& c) { check_optional(c, {"x", view(data, {3, 3})}, rows + columns); });
    CHECK_NOTHROW(check_apart(good, of_first, of_second, nothing));
    check_refused("door: out overlaps h: its memory from first to last element must be apart",
                  [&](const checker& c) { check_apart(c, of_first, of_second, stored); });
    CHECK_NOTHROW(check_groups(good, "B", 2, "x's", 4, "heads"));
    CHECK_NOTHROW(check_groups(good, "B", 0, "x's", 0, "heads"));
    for (const seqmix::index groups : {0, 3, 8, -2}) {
        check_refused("door: B has " + std::to_string(groups) + " groups, which does not divide x's 4 heads",
                      [&](const checker& c) { check_groups(c, "B", groups, "x's", 4, "heads"); });
    }

    const auto offsets = [](const checker& c, const std::vector<seqmix::index>& x) {
        check_offsets(c, view<const seqmix::index, 1>(x.data(), {x.size()}), "cu", 5, "u");
    };
    CHECK_NOTHROW(offsets(good, {0, 5}));
    CHECK_NOTHROW(offsets(good, {0, 0, 2, 2, 5, 5}));
    CHECK_NOTHROW(check_offsets(good, view<const seqmix::index, 1>(std::array<seqmix::index, 1>{0}.data(), {1}), "cu", 0, "u"));
    check_refused("door: cu is empty", [&](const checker& c) { offsets(c, {}); });
    check_refused("door: cu starts at 1, not at 0", [&](const checker& c) { offsets(c, {1, 5}); });
    check_refused("door: cu decreases from 4 to 3", [&](const checker& c) { offsets(c, {0, 4, 3, 5}); });
    check_refused("door: cu ends at 4, but u has length 5", [&](const checker& c) { offsets(c, {0, 4}); });
    check_refused("door: cu ends at 6, but u has length 5", [&](const checker& c) { offsets(c, {0, 6}); });
    check_refused("door: cu is empty", [&](const checker& c) { check_offsets(c, {}, "cu", 0, "u"); });
}

TEST_CASE("a workspace grows, keeps what it has, and is aligned", "[core]")
{
    seqmix::workspace w;
    aligned_allocations = 0;
    std::byte* const first = w.reserve(1000);
    CHECK(reinterpret_cast<std::uintptr_t>(first) % seqmix::scratch_alignment == 0);
    CHECK(w.reserve(1000) == first);
    CHECK(w.reserve(1) == first);
    CHECK(allocated(1));
    CHECK(w.size() >= 1000);
    w.reserve(5000);
    CHECK(allocated(2));
    seqmix::workspace moved = std::move(w);
    moved.reserve(5000);
    CHECK(allocated(2));
    seqmix::workspace assigned;
    assigned = std::move(moved);
    assigned.reserve(5000);
    CHECK(allocated(2));
}

TEST_CASE("a workspace on the caller's memory never allocates and refuses what does not fit, with both numbers",
          "[core]")
{
    for (const std::size_t misaligned : {0u, 1u, 63u}) {
        guarded<std::byte> memory(256, misaligned);
        seqmix::workspace w(memory.data(), 256);
        aligned_allocations = 0;
        const std::size_t skip = misaligned == 0 ? 0 : 64 - misaligned;
        std::byte* const p = w.reserve(256 - skip);
        CHECK(reinterpret_cast<std::uintptr_t>(p) % seqmix::scratch_alignment == 0);
        CHECK(p + (256 - skip) <= memory.data() + 256);
        CHECK(p >= memory.data());
        try {
            w.reserve(257 - skip);
            FAIL("not refused");
        } catch (const std::invalid_argument& e) {
            const std::string message = e.what();
            INFO(message);
            CHECK(message.find("256") != std::string::npos);
            CHECK(message.find("257") != std::string::npos);
        }
        CHECK(allocated(0));
        CHECK(memory.intact());
    }
}

TEST_CASE("an arena counts on nothing what it hands out on memory", "[core]")
{
    alignas(64) std::byte block[1024];
    seqmix::arena counted, real(block);
    for (seqmix::arena* a : {&counted, &real}) {
        const auto* const x = a->take<float>(3);
        const auto* const y = a->take<double>(9);
        const auto* const z = a->take<std::byte>(0);
        if (a == &real) {
            CHECK(static_cast<const void*>(x) == static_cast<const void*>(block));
            CHECK(static_cast<const void*>(y) == static_cast<const void*>(block + 64));
            CHECK(static_cast<const void*>(z) == static_cast<const void*>(block + 192));
        } else {
            CHECK(x == nullptr);
            CHECK(y == nullptr);
        }
    }
    CHECK(counted.used() == 192);
    CHECK(real.used() == 192);
}

namespace {

/// Each task once; no two tasks that run at the same time share scratch.
void check_for_each(const seqmix::context_ref& ctx)
{
    for (const seqmix::index tasks : {0, 1, 2, 3, 17, 1000}) {
        std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
        std::atomic<int> strays{0};
        ctx.for_each(tasks, 100, [&](seqmix::index task, std::byte* scratch) {
            if (task < 0 || task >= tasks || reinterpret_cast<std::uintptr_t>(scratch) % 64 != 0) { ++strays; }
            ++runs[static_cast<std::size_t>(task)];
            const auto mark = static_cast<unsigned char>(task);
            std::memset(scratch, mark, 100);
            std::this_thread::yield();
            for (int i = 0; i < 100; ++i) { strays += std::to_integer<unsigned char>(scratch[i]) != mark; }
        });
        INFO(tasks << " tasks");
        CHECK(strays.load() == 0);
        for (const auto& count : runs) { CHECK(count.load() == 1); }
    }
}

} // namespace

TEST_CASE("for_each runs each task once: serial", "[core]")
{
    check_for_each({});
    seqmix::context ctx{seqmix::serial{}};
    check_for_each(ctx);
    aligned_allocations = 0;
    check_for_each(ctx); // its scratch is there already
    CHECK(allocated(0));
}

TEST_CASE("for_each runs each task once: threads through a callable", "[core]")
{
    std::atomic<int> calls{0};
    auto threads = [&](int count, auto body) {
        ++calls;
        std::vector<std::thread> pool;
        for (int worker = 0; worker < count; ++worker) {
            pool.emplace_back([=] { body(worker); });
        }
        for (std::thread& t : pool) { t.join(); }
    };
    for (const int workers : {1, 2, 4}) {
        seqmix::context ctx{seqmix::parallel_for{workers, threads}};
        CHECK(seqmix::context_ref(ctx).concurrency() == workers);
        check_for_each(ctx);
    }
    CHECK(calls.load() > 0);
}

TEST_CASE("for_each refuses scratch that is too small before any task runs", "[core]")
{
    alignas(64) std::byte memory[64];
    seqmix::context ctx{seqmix::serial{}, seqmix::workspace(memory, sizeof memory)};
    int ran = 0;
    CHECK_THROWS_AS(seqmix::context_ref(ctx).for_each(3, 65, [&](seqmix::index, std::byte*) { ++ran; }),
                    std::invalid_argument);
    CHECK(ran == 0);
}

namespace {

/// Phases in their order, on shared scratch that keeps what it holds; a worker's own scratch lies elsewhere.
void check_phases(const seqmix::context_ref& ctx)
{
    constexpr seqmix::index most = 40;
    constexpr std::size_t own = 100, shared = most * sizeof(int) + 4;
    int entered = 0;
    std::atomic<int> strays{0};
    std::vector<std::atomic<int>> runs(4 * most);
    ctx.in_phases(most, own, shared, [&](std::byte* memory, const auto& phase) {
        ++entered;
        strays += reinterpret_cast<std::uintptr_t>(memory) % 64 != 0;
        auto* const numbers = reinterpret_cast<int*>(memory);
        const auto run = [&](int which, seqmix::index tasks, auto body) {
            phase(tasks, [&, which, tasks](seqmix::index task, std::byte* scratch) {
                strays += task < 0 || task >= tasks || reinterpret_cast<std::uintptr_t>(scratch) % 64 != 0;
                strays += scratch < memory + shared; // both ways: never before, nor within
                std::memset(scratch, 0xff, own);
                ++runs[static_cast<std::size_t>(which * most + task)];
                body(task);
            });
        };
        run(0, most, [&](seqmix::index task) { numbers[task] = static_cast<int>(task) + 1; });
        run(1, 1, [&](seqmix::index) {
            for (seqmix::index i = 1; i < most; ++i) { numbers[i] += numbers[i - 1]; } // needs all of the phase before
        });
        run(2, 0, [&](seqmix::index) { ++strays; });
        run(3, 7, [&](seqmix::index task) { strays += numbers[most - 1 - task] != static_cast<int>((most - task) * (most - task + 1) / 2); });
    });
    CHECK(entered == 1);
    CHECK(strays.load() == 0);
    const seqmix::index tasks[] = {most, 1, 0, 7};
    for (int which = 0; which < 4; ++which) {
        for (seqmix::index task = 0; task < most; ++task) {
            CHECK(runs[static_cast<std::size_t>(which * most + task)].load() == (task < tasks[which] ? 1 : 0));
        }
    }
}

} // namespace

TEST_CASE("phases run one after another on shared scratch", "[core]")
{
    check_phases({});
    seqmix::context ctx{seqmix::serial{}};
    check_phases(ctx);
    aligned_allocations = 0;
    check_phases(ctx);
    CHECK(allocated(0));
    CHECK(ctx.scratch().size() == 192 + 128); // 164 and 100 bytes in whole lines
    auto threads = [](int count, auto body) {
        std::vector<std::thread> pool;
        for (int worker = 0; worker < count; ++worker) {
            pool.emplace_back([=] { body(worker); });
        }
        for (std::thread& t : pool) { t.join(); }
    };
    for (const int workers : {1, 2, 4, 64}) {
        seqmix::context many{seqmix::parallel_for{workers, threads}};
        check_phases(many);
        CHECK(many.scratch().size() == 192 + 128 * static_cast<std::size_t>(workers < 40 ? workers : 40));
    }
}

TEST_CASE("no tasks are no phases, and scratch that is too small is refused before any", "[core]")
{
    int entered = 0;
    const auto work = [&](std::byte*, const auto&) { ++entered; };
    seqmix::context_ref().in_phases(0, 64, 64, work);
    alignas(64) std::byte memory[128];
    seqmix::context ctx{seqmix::serial{}, seqmix::workspace(memory, sizeof memory)};
    CHECK_THROWS_AS(seqmix::context_ref(ctx).in_phases(3, 64, 65, work), std::invalid_argument);
    CHECK(entered == 0);
    seqmix::context_ref(ctx).in_phases(3, 64, 64, work);
    CHECK(entered == 1);
}

#if defined(_OPENMP)
TEST_CASE("for_each runs each task once: OpenMP", "[core]")
{
    seqmix::context ctx{seqmix::openmp{4}};
    check_for_each(ctx);
}
#endif
