// SPDX-License-Identifier: MIT
#pragma once

#include "arch.hpp"

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

// Registers of the instruction set under test, and how to run a verb over a list of any length.

using F = seqmix::simd::f32<test_arch>;
using I = seqmix::simd::i32<test_arch>;
using M = seqmix::simd::mask<test_arch>;
using B = seqmix::simd::backend<test_arch>;
inline constexpr int L = F::lanes;

using floats = std::vector<float>;
using integers = std::vector<std::int32_t>;

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

inline std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

/// A register of the first n elements at p.
template <class T>
auto load(const T* p, seqmix::index n)
{
    if constexpr (std::is_same_v<T, std::int32_t>) {
        return I::load(p, n);
    } else {
        return F::load(p, n);
    }
}

/// verb over the lists, a register at a time; a mask becomes 1 and 0.
template <class Verb, class T, class... More>
auto lanewise(Verb verb, const std::vector<T>& a, const std::vector<More>&... more)
{
    using result = decltype(verb(load(a.data(), 0), load(more.data(), 0)...));
    std::vector<std::conditional_t<std::is_same_v<result, F>, float, std::int32_t>> out(a.size());
    for (std::size_t at = 0; at < a.size(); at += std::size_t{L}) {
        const auto n = static_cast<seqmix::index>(a.size() - at);
        const result r = verb(load(a.data() + at, n), load(more.data() + at, n)...);
        if constexpr (std::is_same_v<result, M>) {
            select(r, I::broadcast(1), I::zero()).store(out.data() + at, n);
        } else {
            r.store(out.data() + at, n);
        }
    }
    return out;
}

/// Where the two lists first differ in bits, any NaN being the same as any other; -1 where nowhere.
inline seqmix::index first_difference(const floats& got, const floats& want)
{
    for (std::size_t i = 0; i < want.size(); ++i) {
        const bool both_nan = got[i] != got[i] && want[i] != want[i];
        if (!both_nan && bits_of(got[i]) != bits_of(want[i])) { return static_cast<seqmix::index>(i); }
    }
    return -1;
}
inline seqmix::index first_difference(const integers& got, const integers& want)
{
    for (std::size_t i = 0; i < want.size(); ++i) {
        if (got[i] != want[i]) { return static_cast<seqmix::index>(i); }
    }
    return -1;
}

/// All pairs of the list with itself, as two lists.
template <class T>
std::pair<std::vector<T>, std::vector<T>> pairs(const std::vector<T>& x)
{
    std::pair<std::vector<T>, std::vector<T>> p;
    for (T a : x) {
        for (T b : x) {
            p.first.push_back(a);
            p.second.push_back(b);
        }
    }
    return p;
}

/// The scalar expectation over the lists.
template <class Expect, class T, class... More>
auto expected(Expect expect, const std::vector<T>& a, const std::vector<More>&... more)
{
    std::vector<decltype(expect(a[0], more[0]...))> out(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) { out[i] = expect(a[i], more[i]...); }
    return out;
}
