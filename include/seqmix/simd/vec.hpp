// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>
#include <seqmix/simd/arch.hpp>

#include <concepts>
#include <cstddef>
#include <utility>

// The verbs that a backend offers. A backend is a specialisation of backend<Arch> that names three register types,
// float lanes, 32-bit integer lanes and masks, and a few facts; the verbs are members and overloads of those types, so
// that kernels read as arithmetic. The concepts below are the list, and every backend is checked against it.

SEQMIX_NAMESPACE_BEGIN
namespace simd {

/// Specialised per instruction set: f32, i32, mask; registers (how many vector registers the set has);
/// has_bf16_dot (dot2 is one instruction); left_int8_offset (what packing adds to the left operand of dot4, see there).
template <class Arch>
struct backend;

template <class Arch>
using f32 = typename backend<Arch>::f32; ///< a register of floats
template <class Arch>
using i32 = typename backend<Arch>::i32; ///< a register of as many 32-bit integers
template <class Arch>
using mask = typename backend<Arch>::mask; ///< a truth value for each lane

/// Lanes of an f32 or i32 register.
template <class Arch>
inline constexpr int lanes = f32<Arch>::lanes;

/// Calls body(std::integral_constant<int, 0>), …, <N - 1>. Arrays of registers stay in registers only if every index is
/// a constant before the optimiser's first look, which no unrolling pragma promises.
template <int N, class Body>
SEQMIX_INLINE constexpr void unroll(Body&& body)
{
    [&]<int... I>(std::integer_sequence<int, I...>) SEQMIX_INLINE_LAMBDA {
        (body(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

/// Float lanes. Arithmetic is IEEE, fma is fused, comparisons with NaN are false.
/// min and max return the second operand where either is NaN.
template <class V>
concept float_lanes = requires(V a, V (&square)[V::lanes], float* f, const float* cf, bf16* b, const bf16* cb, f16* h,
                               const f16* ch, index n) {
    { V::lanes } -> std::convertible_to<int>;
    { V::zero() } -> std::same_as<V>;
    { V::broadcast(1.0f) } -> std::same_as<V>;
    { V::load(cf) } -> std::same_as<V>; // aligned as one element is, no more; here and below
    { V::load(cf, n) } -> std::same_as<V>; // the first n lanes (0 <= n, n may exceed the lanes); the rest are 0 and not read
    { V::load(cb) } -> std::same_as<V>; // widening, exact
    { V::load(cb, n) } -> std::same_as<V>;
    { V::load(ch) } -> std::same_as<V>;
    { V::load(ch, n) } -> std::same_as<V>;
    a.store(f);
    a.store(f, n); // the first n lanes; nothing else is written
    a.store(b); // narrowing, to nearest even
    a.store(b, n);
    a.store(h);
    a.store(h, n);
    a.stream(f); // past the caches where the set can; p lies on a multiple of the bytes written
    a.stream(b);
    a.stream(h);
    V::stream_fence(); // after the last stream of a thread, before another thread is told
    { a + a } -> std::same_as<V>;
    { a - a } -> std::same_as<V>;
    { a * a } -> std::same_as<V>;
    { a / a } -> std::same_as<V>;
    { -a } -> std::same_as<V>;
    { fma(a, a, a) } -> std::same_as<V>; // a b + c
    { fnma(a, a, a) } -> std::same_as<V>; // c - a b
    { min(a, a) } -> std::same_as<V>;
    { max(a, a) } -> std::same_as<V>;
    { abs(a) } -> std::same_as<V>;
    { sqrt(a) } -> std::same_as<V>;
    { round(a) } -> std::same_as<V>; // to the nearest integer, ties to even; |a| may be anything, infinities too
    { scale_by_power(a, a) } -> std::same_as<V>; // a 2^n, rounded once, for |a| in [1/4, 4] and integers n in [-300, 300]; NaN if either is
    { reduce_add(a) } -> std::same_as<float>;
    { reduce_max(a) } -> std::same_as<float>;
    transpose(square); // a square of registers, rows to columns
};

/// 32-bit integer lanes; arithmetic wraps.
template <class V>
concept integer_lanes = requires(V a, std::int32_t* p, std::uint8_t* bytes, const std::int32_t* cp, const std::uint8_t* u8,
                                 const std::int8_t* s8, const std::uint16_t* u16, index n) {
    { V::zero() } -> std::same_as<V>;
    { V::broadcast(std::int32_t{1}) } -> std::same_as<V>;
    { V::load(cp) } -> std::same_as<V>;
    { V::load(cp, n) } -> std::same_as<V>;
    { V::load(u8) } -> std::same_as<V>; // zero-extended
    { V::load(u8, n) } -> std::same_as<V>;
    { V::load(s8) } -> std::same_as<V>; // sign-extended
    { V::load(s8, n) } -> std::same_as<V>;
    { V::load(u16) } -> std::same_as<V>; // zero-extended
    { V::load(u16, n) } -> std::same_as<V>;
    a.store(p);
    a.store(p, n);
    a.store_bytes(bytes); // the lowest byte of each lane
    { a + a } -> std::same_as<V>;
    { a - a } -> std::same_as<V>;
    { a * a } -> std::same_as<V>;
    { a & a } -> std::same_as<V>;
    { a | a } -> std::same_as<V>;
    { a ^ a } -> std::same_as<V>;
    { shift_left<3>(a) } -> std::same_as<V>;
    { shift_right<3>(a) } -> std::same_as<V>; // zeros come in
    { shift_right_signed<3>(a) } -> std::same_as<V>;
    { min(a, a) } -> std::same_as<V>;
    { max(a, a) } -> std::same_as<V>;
    { reduce_add(a) } -> std::same_as<std::int32_t>;
};

/// Products of blocks of signed bytes, of the sets that have them (has_byte_blocks; their registers are of 16 bytes): a and b are two
/// rows of eight bytes, and dot_blocks(acc, a, b) adds a's row i times b's row j, summed, to lane 2 i + j, exact (wrapping).
template <class Arch>
concept byte_blocks_of = !backend<Arch>::has_byte_blocks || requires(i32<Arch> acc, i32<Arch>& a, i32<Arch>& b) {
    { backend<Arch>::dot_blocks(acc, a, b) } -> std::same_as<i32<Arch>>;
    backend<Arch>::zip_words(a, b); // in place: a0 b0 a1 b1, a2 b2 a3 b3
    backend<Arch>::zip_pairs(a, b); // in place: a0 a1 b0 b1, a2 a3 b2 b3
};

/// All that a backend must offer.
template <class Arch>
concept backend_of = float_lanes<f32<Arch>> && integer_lanes<i32<Arch>> && byte_blocks_of<Arch> &&
                     requires(f32<Arch> x, i32<Arch> i, mask<Arch> m, index n) {
                         { backend<Arch>::registers } -> std::convertible_to<int>;
                         { backend<Arch>::has_bf16_dot } -> std::convertible_to<bool>;
                         { backend<Arch>::left_int8_offset } -> std::convertible_to<int>;
                         { x < x } -> std::same_as<mask<Arch>>;
                         { x <= x } -> std::same_as<mask<Arch>>;
                         { x == x } -> std::same_as<mask<Arch>>;
                         { i < i } -> std::same_as<mask<Arch>>;
                         { i == i } -> std::same_as<mask<Arch>>;
                         { m & m } -> std::same_as<mask<Arch>>;
                         { m | m } -> std::same_as<mask<Arch>>;
                         { !m } -> std::same_as<mask<Arch>>;
                         { any(m) } -> std::same_as<bool>;
                         { all(m) } -> std::same_as<bool>;
                         { select(m, x, x) } -> std::same_as<f32<Arch>>; // first where true
                         { select(m, i, i) } -> std::same_as<i32<Arch>>;
                         { to_float(i) } -> std::same_as<f32<Arch>>;
                         { to_int(x) } -> std::same_as<i32<Arch>>; // to nearest even, for |x| < 2^31; some number for NaN
                         { as_float(i) } -> std::same_as<f32<Arch>>; // the same bits
                         { as_int(x) } -> std::same_as<i32<Arch>>;
                         // Two bf16 in each 32-bit lane, lower half first: acc + a0 b0 + a1 b1. Products are exact; sums
                         // are rounded to float once or twice, and where has_bf16_dot the instruction may flush subnormals.
                         { backend<Arch>::dot2(x, i, i) } -> std::same_as<f32<Arch>>;
                         // Four int8 in each lane: acc + Σ a b, exact (wrapping). The left operand is stored with
                         // left_int8_offset added to every element, as unsigned where that is 128: the caller subtracts
                         // left_int8_offset · Σ b from the result. For left_int8_offset 0 both are signed.
                         { backend<Arch>::dot4(i, i, i) } -> std::same_as<i32<Arch>>;
                         // Sums of products of bytes in 16 bits, where has_short_sums; else dot4 is as fast: dot_short(acc, codes, b)
                         // adds codes (unsigned, at most 127) times signed bytes in pairs, sum_short joins pairs of 16-bit lanes.
                         // The caller sees to it that no 16-bit sum leaves its range.
                         { backend<Arch>::has_short_sums } -> std::convertible_to<bool>;
                         { backend<Arch>::has_byte_blocks } -> std::convertible_to<bool>; // see byte_blocks_of
                         // Sixteen bytes by their number: table_of(entries) once, then every byte of the codes (below 16) is
                         // replaced by the entry that it names. The entries must outlive the table.
                         { backend<Arch>::lookup(backend<Arch>::table_of(std::declval<const std::uint8_t*>()), i) } -> std::same_as<i32<Arch>>;
                         // The same with a table of its own for each 16 bytes of a register, one after another; of a narrower set
                         // the one.
                         { backend<Arch>::lookup(backend<Arch>::tables_of(std::declval<const std::uint8_t*>()), i) } -> std::same_as<i32<Arch>>;
                         // Bytes [4][16], rows to columns: lane r is the four bytes of column r, counted from where the pointer
                         // stands in the first row. turn_block is the inverse, of [16][4], as registers one after another.
                         { backend<Arch>::load_turned(std::declval<const std::uint8_t*>()) } -> std::same_as<i32<Arch>>;
                         backend<Arch>::turn_block(std::declval<const std::uint8_t*>(), std::declval<i32<Arch> (&)[16 / f32<Arch>::lanes]>());
                         // Sums of unsigned bytes, of every sixteenth byte (or of each, where a register has fewer): store_sums
                         // writes them, all of a register and of its 16-byte parts. At most 256 bytes may go into a sum.
                         { backend<Arch>::add_bytes(backend<Arch>::no_bytes(), i) } -> std::same_as<typename backend<Arch>::byte_sums>;
                         backend<Arch>::store_sums(backend<Arch>::no_bytes(), std::declval<std::int32_t*>());
                         // Rounds two rows of floats to bf16 and joins them lane by lane: row0 in the lower halves.
                         { backend<Arch>::join_bf16(x, x) } -> std::same_as<i32<Arch>>;
                     };

} // namespace simd
SEQMIX_NAMESPACE_END
