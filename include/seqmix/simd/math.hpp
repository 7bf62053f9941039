// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/vec.hpp>

#include <cstdint>
#include <limits>

// Elementary functions over the verbs, one source for every backend. Bounds are the worst errors that
// tests/math_test.cpp finds over all floats on any backend, in units of the last place of the exact result (subnormal
// results included), rounded up; it holds them, and that every backend gives the same bits (exp2_nonpositive below
// 2^-126 aside). NaN gives NaN. Polynomials are minimax fits (Remez, the coefficients rounded to float one by one and
// the rest refitted); the interval and the fit's own error stand beside each.

SEQMIX_NAMESPACE_BEGIN
namespace simd {
namespace detail {

/// Whether scale_by_power is one instruction, which a backend says by f32::has_scale; elsewhere powers are built from
/// integers, and where the argument's range is known that is cheaper than the verb.
template <class V>
inline constexpr bool has_scale = requires
{
    requires V::has_scale;
};

template <float_lanes V>
using integers_of = decltype(to_int(V::zero()));

/// The nearest integer to x, and that integer as an integer where powers are built from it.
template <float_lanes V>
struct whole {
    V value;
    integers_of<V> bits;
};

/// |x| < 2^31 or NaN; a NaN's integer is arbitrary, and is only ever used to scale a NaN.
template <float_lanes V>
SEQMIX_INLINE whole<V> nearest(V x)
{
    if constexpr (has_scale<V>) {
        return {round(x), integers_of<V>::zero()};
    } else {
        const auto n = to_int(x);
        return {to_float(n), n};
    }
}

/// 2^n for n in [-127, 127]; 0 for -127.
template <class I>
SEQMIX_INLINE auto power_of_two(I n)
{
    return as_float(shift_left<23>(n + I::broadcast(127)));
}

/// a 2^n, rounded once, for n in [-252, 252] if a 2^(n/2) is a normal number: two exact powers, since 2^n alone may be
/// no float.
template <float_lanes V>
SEQMIX_INLINE V scale(V a, whole<V> n)
{
    if constexpr (has_scale<V>) {
        return scale_by_power(a, n.value);
    } else {
        const auto half = shift_right_signed<1>(n.bits);
        return a * power_of_two(half) * power_of_two(n.bits - half);
    }
}

/// 2^n for n in [-126, 127].
template <float_lanes V>
SEQMIX_INLINE V power(whole<V> n)
{
    if constexpr (has_scale<V>) {
        return scale_by_power(V::broadcast(1.0f), n.value);
    } else {
        return power_of_two(n.bits);
    }
}

/// c[0] + c[1] x + c[2] x² + … by Horner's rule: the fewest instructions, and the loops that call it hide the latency.
template <int N, float_lanes V>
SEQMIX_INLINE V polynomial(V x, const float (&c)[N])
{
    V sum = V::broadcast(c[N - 1]);
    unroll<N - 1>([&](auto i) SEQMIX_INLINE_LAMBDA { sum = fma(sum, x, V::broadcast(c[N - 2 - i])); });
    return sum;
}

/// 2^r on [-1/2, 1/2]: 1.06 ulp, the price of one coefficient less; exactly 1 at 0.
template <float_lanes V>
SEQMIX_INLINE V exp2_reduced(V r)
{
    return polynomial(r, {1.0f, 0x1.62e424p-1f, 0x1.ebf9b4p-3f, 0x1.c6bad0p-5f, 0x1.3cecfap-7f, 0x1.5a9e28p-10f});
}

/// (e^r - 1) / r on [-0.3466, 0.3466]: 2^-26.0 relative to e^r - 1.
template <float_lanes V>
SEQMIX_INLINE V expm1_quotient(V r)
{
    return polynomial(r, {1.0f, 0x1.fffffep-2f, 0x1.5554aap-3f, 0x1.55579ep-5f, 0x1.122c8ap-7f, 0x1.6ab118p-10f});
}

/// The bits of 2^(j/32), to nearest, less j 2^18: with t 2^18 added, t an integer, those of 2^(t/32) for j = t mod 32.
alignas(64) inline constexpr std::int32_t roots_of_two[32] = {
    0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
    0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
    0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
    0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3,
};

/// e^x = 2^n e^r with |r| <= ln(2)/2. ln(2) in two parts: the first has 15 bits, so that n times it is exact.
template <float_lanes V>
struct reduced {
    whole<V> n;
    V r;
    SEQMIX_INLINE explicit reduced(V x) : n(nearest(x * V::broadcast(0x1.715476p+0f)))
    {
        r = fnma(n.value, V::broadcast(0x1.62e4p-1f), x);
        r = fnma(n.value, V::broadcast(0x1.7f7d1cp-20f), r);
    }
};

template <float_lanes V>
SEQMIX_INLINE V exp_reduced(V r)
{
    return fma(r, expm1_quotient(r), V::broadcast(1.0f));
}

/// x, cut off where e^x and even |x| e^x round to zero: -infinity can't be reduced. max returns a NaN that stands
/// second.
template <float_lanes V>
SEQMIX_INLINE V above_floor(V x)
{
    return max(V::broadcast(-110.0f), x);
}

template <float_lanes V>
SEQMIX_INLINE V negative_magnitude(V x)
{
    return as_float(as_int(x) | as_int(V::broadcast(-0.0f)));
}

/// e^-|x|, a positive number of at most 1.
template <float_lanes V>
SEQMIX_INLINE V exp_negative_magnitude(V x)
{
    const reduced<V> e(above_floor(negative_magnitude(x)));
    return scale(exp_reduced(e.r), e.n);
}

/// log(1 + f) for f = m - 1 with m in [√½, √2], as f + tail, where tail = f² (f P(f) - ½); P of degree 7 is within
/// 2^-27.3 relative to log(1 + f).
template <float_lanes V>
SEQMIX_INLINE V log1p_tail(V f)
{
    const V p = polynomial(f, {0x1.555554p-2f, -0x1.000228p-2f, 0x1.99a034p-3f, -0x1.547234p-3f, 0x1.22d688p-3f,
                               -0x1.0d81f8p-3f, 0x1.0570eap-3f, -0x1.38fa4ep-4f});
    return f * f * fma(f, p, V::broadcast(-0.5f));
}

} // namespace detail

/// 2^x. 1.79 ulp. 2^n is exact for integers n, down to 2^-149; -infinity gives 0; 128 and above give infinity.
template <float_lanes V>
SEQMIX_INLINE V exp2(V x)
{
    if constexpr (detail::has_scale<V>) {
        // The rest of an infinity is NaN, for which any number will do: the power decides. Of a NaN and a bound, the second.
        const V n = round(x);
        return scale_by_power(detail::exp2_reduced(max(x - n, V::broadcast(-0.5f))), n);
    } else {
        const V c = max(V::broadcast(-152.0f), min(V::broadcast(129.0f), x));
        const auto n = detail::nearest(c);
        return detail::scale(detail::exp2_reduced(c - n.value), n);
    }
}

/// 2^x for x <= 0 with fewer instructions: 9 where scale_by_power is one, which is all that exp2 takes too; else 12, and
/// then for x < -126.5 the result is 0 instead of a subnormal. Positive x gives anything.
template <float_lanes V>
SEQMIX_INLINE V exp2_nonpositive(V x)
{
    if constexpr (detail::has_scale<V>) {
        return exp2(x);
    } else {
        const V c = max(V::broadcast(-127.0f), x);
        const auto n = detail::nearest(c);
        return detail::exp2_reduced(c - n.value) * detail::power_of_two(n.bits);
    }
}

/// 2^(a b) for |a b| <= 125, a decay over a step: 10 instructions, the product included, which is not rounded. 1.96 ulp:
/// exp2's, and the rounding of what remains of the exponent, 2^-25 ln(2).
/// Beyond that range any number, infinity or NaN. The NaN of arithmetic gives NaN; one whose lowest 9 bits are set may not.
template <float_lanes V>
SEQMIX_INLINE V exp2_of_product(V a, V b)
{
    // Adding 1.5 · 2^23 leaves the nearest integer in the lowest bits: as a number once that is taken away again, and as
    // an integer ready to be shifted into the exponent, from which all above falls out.
    const V shift = V::broadcast(0x1.8p23f);
    const V shifted = fma(a, b, shift);
    const V negative_rest = fnma(a, b, shifted - shift);
    const V mantissa = detail::polynomial(negative_rest, {1.0f, -0x1.62e424p-1f, 0x1.ebf9b4p-3f, -0x1.c6bad0p-5f,
                                                          0x1.3cecfap-7f, -0x1.5a9e28p-10f}); // exp2_reduced(-x)
    return as_float(as_int(mantissa) + shift_left<23>(as_int(shifted)));
}

/// 2^(a b) h + c for |a b| <= 125: a state that decays and takes something in. 11 instructions; 10 where 32 numbers can be looked
/// up, which leaves a polynomial of degree 2. Error: 3.9 u |2^(a b) h| + 2^-149 and half a unit of the result, u = 2^-24; of NaN and beyond
/// that range as exp2_of_product.
template <float_lanes V>
SEQMIX_INLINE V decay_and_add(V a, V b, V h, V c)
{
    if constexpr (requires(detail::integers_of<V> i) { lookup32(i, i, i); }) {
        using I = detail::integers_of<V>;
        // As in exp2_of_product, but in steps of 1/32: the lowest 5 bits of the integer say which root of two.
        const V shift = V::broadcast(0x1.8p18f);
        const V shifted = fma(a, b, shift);
        const V negative_rest = fnma(a, b, shifted - shift);
        const I steps = as_int(shifted);
        const I power = lookup32(I::load(detail::roots_of_two), I::load(detail::roots_of_two + 16), steps) + shift_left<18>(steps);
        // 2^-r on [-1/64, 1/64]: 2^-24.2.
        const V rest = detail::polynomial(negative_rest, {1.0f, -0x1.62e584p-1f, 0x1.ebfbe0p-3f});
        return fma(h * as_float(power), rest, c);
    } else {
        return fma(exp2_of_product(a, b), h, c);
    }
}

/// e^x. 0.92 ulp. exp(0) is 1; -infinity gives 0; what exceeds the largest float gives infinity.
template <float_lanes V>
SEQMIX_INLINE V exp(V x)
{
    const detail::reduced<V> e(detail::above_floor(min(V::broadcast(89.0f), x)));
    return detail::scale(detail::exp_reduced(e.r), e.n);
}

/// log(x), natural. 0.93 ulp. log(1) is 0; either zero gives -infinity, x < 0 NaN, infinity itself.
template <float_lanes V>
SEQMIX_INLINE V log(V x)
{
    using I = detail::integers_of<V>;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const auto tiny = x < V::broadcast(0x1p-126f); // subnormal, or to be replaced below
    const I bits = as_int(select(tiny, x * V::broadcast(0x1p23f), x));
    const I exponent = shift_right_signed<23>(bits - as_int(V::broadcast(0x1.6a09e6p-1f)));
    const V f = as_float(bits - shift_left<23>(exponent)) - V::broadcast(1.0f);
    const V n = to_float(exponent) - select(tiny, V::broadcast(23.0f), V::zero());
    const V tail = fma(n, V::broadcast(0x1.7f7d1cp-20f), detail::log1p_tail(f));
    V y = fma(n, V::broadcast(0x1.62e4p-1f), f + tail);
    y = select(x < V::broadcast(infinity), y, x); // infinity, and NaN
    y = select(x == V::zero(), V::broadcast(-infinity), y);
    return select(x < V::zero(), V::broadcast(std::numeric_limits<float>::quiet_NaN()), y);
}

/// 1 / (1 + e^-x). 2.41 ulp, for negative x too, where it is nearly e^x; it reaches 0 and 1.
template <float_lanes V>
SEQMIX_INLINE V sigmoid(V x)
{
    const V one = V::broadcast(1.0f);
    const V e = detail::exp_negative_magnitude(x);
    return select(x < V::zero(), e, one) / (one + e);
}

/// x sigmoid(x). 3.35 ulp. -infinity gives -0, infinity itself.
template <float_lanes V>
SEQMIX_INLINE V silu(V x)
{
    const V c = detail::above_floor(detail::negative_magnitude(x));
    const detail::reduced<V> e(c);
    const V m = detail::exp_reduced(e.r);
    // x goes in before the power of two: e^x may be subnormal, and have lost bits, where x e^x is not.
    const V numerator = select(x < V::zero(), detail::scale(c * m, e.n), x);
    return numerator / (V::broadcast(1.0f) + detail::scale(m, e.n));
}

/// log(1 + e^x). 2.09 ulp: nearly e^x for very negative x, and x for large x.
template <float_lanes V>
SEQMIX_INLINE V softplus(V x)
{
    const V e = detail::exp_negative_magnitude(x);
    // log(1 + e) / e on [0, 1]: 2^-27.5 relative.
    const V quotient =
        detail::polynomial(e, {1.0f, -0x1.ffffd2p-2f, 0x1.554dd0p-2f, -0x1.ff23e6p-3f, 0x1.934b54p-3f, -0x1.3a435ep-3f,
                               0x1.b4ae08p-4f, -0x1.d6b08cp-5f, 0x1.4917cep-6f, -0x1.af49cep-9f});
    return fma(e, quotient, max(V::zero(), x));
}

/// tanh(x). 3.33 ulp, for the smallest x too; reaches 1 and -1; keeps the sign of zero.
template <float_lanes V>
SEQMIX_INLINE V tanh(V x)
{
    const auto sign = as_int(x) & as_int(V::broadcast(-0.0f));
    const V magnitude = min(V::broadcast(9.1f), abs(x)); // 1 to the last bit from 9.02 on
    const detail::reduced<V> e(magnitude + magnitude);
    // t = e^2|x| - 1 = 2^n (e^r - 1) + (2^n - 1), which cancels nothing as n >= 0; tanh |x| = t / (t + 2).
    const V one = V::broadcast(1.0f);
    const V power = detail::power(e.n);
    const V t = fma(power, e.r * detail::expm1_quotient(e.r), power - one);
    return as_float(as_int(t / (t + V::broadcast(2.0f))) | sign);
}

} // namespace simd
SEQMIX_NAMESPACE_END
