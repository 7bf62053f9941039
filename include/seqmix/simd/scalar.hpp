// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/emulated.hpp>

#include <cmath>
#include <cstring>

// One lane, plain C++: the backend that compiles everywhere and that the others are checked against.

SEQMIX_NAMESPACE_BEGIN
namespace simd::scalar_lanes {

struct mask {
    bool v;
    friend SEQMIX_INLINE mask operator&(mask a, mask b) { return {a.v && b.v}; }
    friend SEQMIX_INLINE mask operator|(mask a, mask b) { return {a.v || b.v}; }
    friend SEQMIX_INLINE mask operator!(mask a) { return {!a.v}; }
    friend SEQMIX_INLINE bool any(mask a) { return a.v; }
    friend SEQMIX_INLINE bool all(mask a) { return a.v; }
};

struct i32 {
    static constexpr int lanes = 1;
    std::int32_t v;

    static SEQMIX_INLINE i32 zero() { return {0}; }
    static SEQMIX_INLINE i32 broadcast(std::int32_t x) { return {x}; }
    static SEQMIX_INLINE i32 load(const std::int32_t* p)
    {
        i32 x;
        std::memcpy(&x.v, p, sizeof x.v);
        return x;
    }
    static SEQMIX_INLINE i32 load(const std::int32_t* p, index n) { return n > 0 ? load(p) : zero(); }
    static SEQMIX_INLINE i32 load(const std::uint8_t* p) { return {*p}; }
    static SEQMIX_INLINE i32 load(const std::uint8_t* p, index n) { return n > 0 ? load(p) : zero(); }
    static SEQMIX_INLINE i32 load(const std::int8_t* p) { return {*p}; }
    static SEQMIX_INLINE i32 load(const std::int8_t* p, index n) { return n > 0 ? load(p) : zero(); }
    static SEQMIX_INLINE i32 load(const std::uint16_t* p) { return {*p}; }
    static SEQMIX_INLINE i32 load(const std::uint16_t* p, index n) { return n > 0 ? load(p) : zero(); }
    SEQMIX_INLINE void store(std::int32_t* p) const { std::memcpy(p, &v, sizeof v); }
    SEQMIX_INLINE void store_bytes(std::uint8_t* p) const { *p = static_cast<std::uint8_t>(v); }
    SEQMIX_INLINE void store(std::int32_t* p, index n) const
    {
        if (n > 0) { store(p); }
    }

    static SEQMIX_INLINE i32 wrap(std::uint32_t x) { return {static_cast<std::int32_t>(x)}; }
    SEQMIX_INLINE std::uint32_t bits() const { return static_cast<std::uint32_t>(v); }
    friend SEQMIX_INLINE i32 operator+(i32 a, i32 b) { return wrap(a.bits() + b.bits()); }
    friend SEQMIX_INLINE i32 operator-(i32 a, i32 b) { return wrap(a.bits() - b.bits()); }
    friend SEQMIX_INLINE i32 operator*(i32 a, i32 b) { return wrap(a.bits() * b.bits()); }
    friend SEQMIX_INLINE i32 operator&(i32 a, i32 b) { return {a.v & b.v}; }
    friend SEQMIX_INLINE i32 operator|(i32 a, i32 b) { return {a.v | b.v}; }
    friend SEQMIX_INLINE i32 operator^(i32 a, i32 b) { return {a.v ^ b.v}; }
    friend SEQMIX_INLINE mask operator<(i32 a, i32 b) { return {a.v < b.v}; }
    friend SEQMIX_INLINE mask operator==(i32 a, i32 b) { return {a.v == b.v}; }
    template <int count>
    friend SEQMIX_INLINE i32 shift_left(i32 a)
    {
        return wrap(a.bits() << count);
    }
    template <int count>
    friend SEQMIX_INLINE i32 shift_right(i32 a)
    {
        return wrap(a.bits() >> count);
    }
    template <int count>
    friend SEQMIX_INLINE i32 shift_right_signed(i32 a)
    {
        return {a.v >> count};
    }
    friend SEQMIX_INLINE i32 min(i32 a, i32 b) { return a.v < b.v ? a : b; }
    friend SEQMIX_INLINE i32 max(i32 a, i32 b) { return b.v < a.v ? a : b; }
    friend SEQMIX_INLINE i32 select(mask m, i32 a, i32 b) { return m.v ? a : b; }
    friend SEQMIX_INLINE std::int32_t reduce_add(i32 a) { return a.v; }
};

struct f32 {
    static constexpr int lanes = 1;
    float v;

    static SEQMIX_INLINE f32 zero() { return {0.0f}; }
    static SEQMIX_INLINE f32 broadcast(float x) { return {x}; }
    static SEQMIX_INLINE f32 load(const float* p)
    {
        f32 x;
        std::memcpy(&x.v, p, sizeof x.v);
        return x;
    }
    static SEQMIX_INLINE f32 load(const float* p, index n) { return n > 0 ? load(p) : zero(); }
    static SEQMIX_INLINE f32 load(const bf16* p) { return {static_cast<float>(*p)}; }
    static SEQMIX_INLINE f32 load(const bf16* p, index n) { return n > 0 ? load(p) : zero(); }
    static SEQMIX_INLINE f32 load(const f16* p) { return {static_cast<float>(*p)}; }
    static SEQMIX_INLINE f32 load(const f16* p, index n) { return n > 0 ? load(p) : zero(); }
    SEQMIX_INLINE void store(float* p) const { std::memcpy(p, &v, sizeof v); }
    SEQMIX_INLINE void store(bf16* p) const { *p = bf16(v); }
    SEQMIX_INLINE void store(f16* p) const { *p = f16(v); }
    template <class T>
    SEQMIX_INLINE void store(T* p, index n) const
    {
        if (n > 0) { store(p); }
    }
    /// No instruction that every compiler offers goes past the caches: an ordinary store, and nothing to wait for.
    template <class T>
    SEQMIX_INLINE void stream(T* p) const
    {
        store(p);
    }
    static SEQMIX_INLINE void stream_fence() {}

    friend SEQMIX_INLINE f32 operator+(f32 a, f32 b) { return {a.v + b.v}; }
    friend SEQMIX_INLINE f32 operator-(f32 a, f32 b) { return {a.v - b.v}; }
    friend SEQMIX_INLINE f32 operator*(f32 a, f32 b) { return {a.v * b.v}; }
    friend SEQMIX_INLINE f32 operator/(f32 a, f32 b) { return {a.v / b.v}; }
    friend SEQMIX_INLINE f32 operator-(f32 a) { return {-a.v}; }
    friend SEQMIX_INLINE f32 fma(f32 a, f32 b, f32 c) { return {fused(a.v, b.v, c.v)}; }
    friend SEQMIX_INLINE f32 fnma(f32 a, f32 b, f32 c) { return {fused(-a.v, b.v, c.v)}; }
    friend SEQMIX_INLINE f32 min(f32 a, f32 b) { return a.v < b.v ? a : b; }
    friend SEQMIX_INLINE f32 max(f32 a, f32 b) { return a.v > b.v ? a : b; }
    friend SEQMIX_INLINE f32 abs(f32 a) { return {std::bit_cast<float>(std::bit_cast<std::uint32_t>(a.v) & 0x7fffffffu)}; }
    friend SEQMIX_INLINE f32 sqrt(f32 a) { return {std::sqrt(a.v)}; }
    /// Adding and taking away 1.5 · 2^23 leaves the integer; beyond 2^22 a float is one already, or near enough to be told.
    friend SEQMIX_INLINE f32 round(f32 a)
    {
        constexpr float shift = 0x1.8p23f;
        const bool small = a.v < 0x1p22f && a.v > -0x1p22f;
        return {small ? (a.v + shift) - shift : std::nearbyint(a.v)};
    }
    friend SEQMIX_INLINE f32 scale_by_power(f32 a, f32 n)
    {
        const std::int32_t whole = n.v == n.v ? static_cast<std::int32_t>(n.v) : 0; // with a NaN comes a NaN a
        const std::int32_t once = clamp100(whole), mid = clamp100(whole - once);
        return {a.v * power(once) * power(mid) * power(whole - once - mid)};
    }
    friend SEQMIX_INLINE mask operator<(f32 a, f32 b) { return {a.v < b.v}; }
    friend SEQMIX_INLINE mask operator<=(f32 a, f32 b) { return {a.v <= b.v}; }
    friend SEQMIX_INLINE mask operator==(f32 a, f32 b) { return {a.v == b.v}; }
    friend SEQMIX_INLINE f32 select(mask m, f32 a, f32 b) { return m.v ? a : b; }
    friend SEQMIX_INLINE i32 as_int(f32 a) { return {std::bit_cast<std::int32_t>(a.v)}; }
    friend SEQMIX_INLINE float reduce_add(f32 a) { return a.v; }
    friend SEQMIX_INLINE float reduce_max(f32 a) { return a.v; }
    friend SEQMIX_INLINE void transpose(f32 (&)[1]) {}

    static SEQMIX_INLINE std::int32_t clamp100(std::int32_t n) { return n > 100 ? 100 : n < -100 ? -100 : n; }
    static SEQMIX_INLINE float power(std::int32_t n) { return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23); }
    /// The product is exact in double; the sum is rounded to double and then to float. Where the hardware has no fused
    /// instruction the library's exact routine costs a hundred times as much, and the second rounding is within 2^-29.
    static SEQMIX_INLINE float fused(float a, float b, float c)
    {
        return static_cast<float>(static_cast<double>(a) * b + c);
    }
};

SEQMIX_INLINE f32 to_float(i32 a) { return {static_cast<float>(a.v)}; }
/// A NaN gives 0, so that elementary functions may convert one and go on; vector instructions give some integer too.
SEQMIX_INLINE i32 to_int(f32 a) { return {a.v == a.v ? static_cast<std::int32_t>(round(a).v) : 0}; }
SEQMIX_INLINE f32 as_float(i32 a) { return {std::bit_cast<float>(a.v)}; }

} // namespace simd::scalar_lanes

namespace simd {

template <>
struct backend<arch::scalar> : without_narrow_products<scalar_lanes::f32, scalar_lanes::i32> {
    using f32 = scalar_lanes::f32;
    using i32 = scalar_lanes::i32;
    using mask = scalar_lanes::mask;
    static constexpr int registers = 16;

    static SEQMIX_INLINE i32 dot4(i32 acc, i32 a, i32 b)
    {
        std::uint32_t sum = acc.bits();
        for (int byte = 0; byte < 32; byte += 8) {
            sum += static_cast<std::uint32_t>(static_cast<std::int8_t>(a.bits() >> byte) *
                                              static_cast<std::int8_t>(b.bits() >> byte));
        }
        return i32::wrap(sum);
    }

    using byte_table = const std::uint8_t*;
    static SEQMIX_INLINE byte_table table_of(const std::uint8_t* entries) { return entries; }
    static SEQMIX_INLINE byte_table tables_of(const std::uint8_t* entries) { return entries; }
    static SEQMIX_INLINE i32 lookup(byte_table table, i32 codes)
    {
        std::uint32_t found = 0;
        for (int byte = 0; byte < 32; byte += 8) { found |= std::uint32_t{table[codes.bits() >> byte & 15u]} << byte; }
        return i32::wrap(found);
    }

    static SEQMIX_INLINE i32 load_turned(const std::uint8_t* block)
    {
        return i32::wrap(block[0] | std::uint32_t{block[16]} << 8 | std::uint32_t{block[32]} << 16 | std::uint32_t{block[48]} << 24);
    }
    static SEQMIX_INLINE void turn_block(const std::uint8_t* block, i32 (&parts)[16])
    {
        for (int i = 0; i < 16; ++i) {
            const std::uint8_t* const row = block + i % 4 * 16 + i / 4; // of the four in this part
            parts[i] = i32::wrap(row[0] | std::uint32_t{row[4]} << 8 | std::uint32_t{row[8]} << 16 | std::uint32_t{row[12]} << 24);
        }
    }

    struct byte_sums {
        std::uint32_t of[4];
    };
    static SEQMIX_INLINE byte_sums no_bytes() { return {}; }
    static SEQMIX_INLINE byte_sums add_bytes(byte_sums sums, i32 bytes)
    {
        for (int i = 0; i < 4; ++i) { sums.of[i] += bytes.bits() >> 8 * i & 255u; }
        return sums;
    }
    static SEQMIX_INLINE void store_sums(const byte_sums& sums, std::int32_t* to)
    {
        for (int i = 0; i < 4; ++i) { to[i] = static_cast<std::int32_t>(sums.of[i]); }
    }
};

} // namespace simd
SEQMIX_NAMESPACE_END
