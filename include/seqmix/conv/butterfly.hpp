// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/complex.hpp>

// Discrete Fourier transforms of 2, 3, 4, 5 and 8 registers, in place: X_k = Σ_j x_j e^(± 2πi jk / R), the sign being + forward.

SEQMIX_NAMESPACE_BEGIN
namespace conv {
namespace detail {

/// x + i y, or x - i y on the way back.
template <bool Inverse, class Complex>
SEQMIX_INLINE Complex add_turned(Complex x, Complex y)
{
    if constexpr (Inverse) {
        return {x.re + y.im, x.im - y.re};
    } else {
        return {x.re - y.im, x.im + y.re};
    }
}

template <bool Inverse, class Complex>
SEQMIX_INLINE void transform4(Complex& a, Complex& b, Complex& c, Complex& d)
{
    const Complex even = a + c, odd = a - c, sum = b + d, difference = b - d;
    a = even + sum, c = even - sum;
    b = add_turned<Inverse>(odd, difference), d = add_turned<!Inverse>(odd, difference);
}

/// Rader's and Winograd's constants for 3 and 5; 8 is two of 4.
template <bool Inverse, int R, class Complex>
SEQMIX_INLINE void transform(Complex (&x)[R])
{
    using f32 = decltype(x[0].re);
    static_assert(R == 1 || R == 2 || R == 3 || R == 4 || R == 5 || R == 8);
    if constexpr (R == 2) {
        const Complex sum = x[0] + x[1];
        x[1] = x[0] - x[1], x[0] = sum;
    } else if constexpr (R == 3) {
        const Complex sum = x[1] + x[2], turn = (x[1] - x[2]) * f32::broadcast(0.86602540378443864676f); // sin 2π/3
        const f32 half = f32::broadcast(0.5f);
        const Complex middle = {fnma(half, sum.re, x[0].re), fnma(half, sum.im, x[0].im)};
        x[0] = x[0] + sum, x[1] = add_turned<Inverse>(middle, turn), x[2] = add_turned<!Inverse>(middle, turn);
    } else if constexpr (R == 4) {
        transform4<Inverse>(x[0], x[1], x[2], x[3]);
    } else if constexpr (R == 5) {
        const f32 cos1 = f32::broadcast(0.30901699437494742410f), cos2 = f32::broadcast(-0.80901699437494742410f);
        const f32 sin1 = f32::broadcast(0.95105651629515357212f), sin2 = f32::broadcast(0.58778525229247312917f);
        const Complex outer = x[1] + x[4], inner = x[2] + x[3], outer_turn = x[1] - x[4], inner_turn = x[2] - x[3];
        const Complex first = {fma(cos1, outer.re, fma(cos2, inner.re, x[0].re)), fma(cos1, outer.im, fma(cos2, inner.im, x[0].im))};
        const Complex second = {fma(cos2, outer.re, fma(cos1, inner.re, x[0].re)), fma(cos2, outer.im, fma(cos1, inner.im, x[0].im))};
        const Complex first_turn = outer_turn * sin1 + inner_turn * sin2, second_turn = outer_turn * sin2 - inner_turn * sin1;
        x[0] = x[0] + outer + inner;
        x[1] = add_turned<Inverse>(first, first_turn), x[4] = add_turned<!Inverse>(first, first_turn);
        x[2] = add_turned<Inverse>(second, second_turn), x[3] = add_turned<!Inverse>(second, second_turn);
    } else if constexpr (R == 8) {
        transform4<Inverse>(x[0], x[2], x[4], x[6]);
        transform4<Inverse>(x[1], x[3], x[5], x[7]);
        const f32 half = f32::broadcast(0.70710678118654752440f);
        const Complex turn1 = add_turned<Inverse>(x[3], x[3]) * half;   // by e^(± iπ/4)
        const Complex turn3 = add_turned<Inverse>(Complex{-x[7].re, -x[7].im}, x[7]) * half; // by e^(± 3iπ/4)
        const Complex even[4] = {x[0], x[2], x[4], x[6]}, turn2 = x[5], one = x[1];
        x[0] = even[0] + one, x[4] = even[0] - one;
        x[1] = even[1] + turn1, x[5] = even[1] - turn1;
        x[2] = add_turned<Inverse>(even[2], turn2), x[6] = add_turned<!Inverse>(even[2], turn2);
        x[3] = even[3] + turn3, x[7] = even[3] - turn3;
    }
}

} // namespace detail
} // namespace conv
SEQMIX_NAMESPACE_END
