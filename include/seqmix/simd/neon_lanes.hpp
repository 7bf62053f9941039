// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/emulated.hpp>

#if SEQMIX_HAS_NEON

#include <arm_neon.h>

#include <cstring>

// Lanes of AArch64, ARMv8.0. There are no masked loads and stores: partial ones go through a small buffer, as they are edges.

SEQMIX_NAMESPACE_BEGIN
namespace simd::neon_lanes {

/// The first n of 4 elements, the rest zero.
template <class T>
struct padded {
    T element[4] = {};
    SEQMIX_INLINE padded(const T* p, index n)
    {
        for (index i = 0; i < n && i < 4; ++i) { element[i] = p[i]; }
    }
};

template <class T>
SEQMIX_INLINE void copy_first(const T* from, T* to, index n)
{
    for (index i = 0; i < n && i < 4; ++i) { to[i] = from[i]; }
}

/// Four bytes, four 16-bit elements: from and to any address.
SEQMIX_INLINE uint8x8_t four_bytes(const void* p)
{
    std::uint32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return vreinterpret_u8_u32(vdup_n_u32(bits));
}
SEQMIX_INLINE uint16x4_t four_halves(const void* p)
{
    return vreinterpret_u16_u8(vld1_u8(static_cast<const std::uint8_t*>(p)));
}
SEQMIX_INLINE void store_halves(void* p, uint16x4_t x)
{
    vst1_u8(static_cast<std::uint8_t*>(p), vreinterpret_u8_u16(x));
}

struct mask {
    uint32x4_t v; // all ones or all zeros in each lane
    friend SEQMIX_INLINE mask operator&(mask a, mask b) { return {vandq_u32(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator|(mask a, mask b) { return {vorrq_u32(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator!(mask a) { return {vmvnq_u32(a.v)}; }
    friend SEQMIX_INLINE bool any(mask a) { return vmaxvq_u32(a.v) != 0; }
    friend SEQMIX_INLINE bool all(mask a) { return vminvq_u32(a.v) != 0; }
};

struct i32 {
    static constexpr int lanes = 4;
    int32x4_t v;

    static SEQMIX_INLINE i32 zero() { return {vdupq_n_s32(0)}; }
    static SEQMIX_INLINE i32 broadcast(std::int32_t x) { return {vdupq_n_s32(x)}; }
    static SEQMIX_INLINE i32 load(const std::int32_t* p) { return {vld1q_s32(p)}; }
    static SEQMIX_INLINE i32 load(const std::uint8_t* p) { return widen(vget_low_u16(vmovl_u8(four_bytes(p)))); }
    static SEQMIX_INLINE i32 load(const std::int8_t* p)
    {
        return {vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four_bytes(p)))))};
    }
    static SEQMIX_INLINE i32 load(const std::uint16_t* p) { return widen(four_halves(p)); }
    template <class T>
    static SEQMIX_INLINE i32 load(const T* p, index n)
    {
        return load(padded<T>(p, n).element);
    }
    SEQMIX_INLINE void store(std::int32_t* p) const { vst1q_s32(p, v); }
    SEQMIX_INLINE void store_bytes(std::uint8_t* p) const
    {
        const uint16x4_t halves = vmovn_u32(vreinterpretq_u32_s32(v));
        const std::uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(halves, halves))), 0);
        std::memcpy(p, &bytes, sizeof bytes);
    }
    SEQMIX_INLINE void store(std::int32_t* p, index n) const
    {
        std::int32_t all[4];
        store(all);
        copy_first(all, p, n);
    }

    friend SEQMIX_INLINE i32 operator+(i32 a, i32 b) { return {vaddq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator-(i32 a, i32 b) { return {vsubq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator*(i32 a, i32 b) { return {vmulq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator&(i32 a, i32 b) { return {vandq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator|(i32 a, i32 b) { return {vorrq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 operator^(i32 a, i32 b) { return {veorq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator<(i32 a, i32 b) { return {vcltq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator==(i32 a, i32 b) { return {vceqq_s32(a.v, b.v)}; }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_left(i32 a)
    {
        return {vshlq_n_s32(a.v, bits)};
    }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_right(i32 a)
    {
        return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), bits))};
    }
    template <int bits>
    friend SEQMIX_INLINE i32 shift_right_signed(i32 a)
    {
        return {vshrq_n_s32(a.v, bits)};
    }
    friend SEQMIX_INLINE i32 min(i32 a, i32 b) { return {vminq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 max(i32 a, i32 b) { return {vmaxq_s32(a.v, b.v)}; }
    friend SEQMIX_INLINE i32 select(mask m, i32 a, i32 b) { return {vbslq_s32(m.v, a.v, b.v)}; }
    friend SEQMIX_INLINE std::int32_t reduce_add(i32 a) { return vaddvq_s32(a.v); }

    static SEQMIX_INLINE i32 widen(uint16x4_t x) { return {vreinterpretq_s32_u32(vmovl_u16(x))}; }
};

struct f32 {
    static constexpr int lanes = 4;
    float32x4_t v;

    static SEQMIX_INLINE f32 zero() { return {vdupq_n_f32(0.0f)}; }
    static SEQMIX_INLINE f32 broadcast(float x) { return {vdupq_n_f32(x)}; }
    static SEQMIX_INLINE f32 load(const float* p) { return {vld1q_f32(p)}; }
    static SEQMIX_INLINE f32 load(const bf16* p) { return {vreinterpretq_f32_u32(vshll_n_u16(four_halves(p), 16))}; }
    static SEQMIX_INLINE f32 load(const f16* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(four_halves(p)))}; }
    template <class T>
    static SEQMIX_INLINE f32 load(const T* p, index n)
    {
        return load(padded<T>(p, n).element);
    }

    SEQMIX_INLINE void store(float* p) const { vst1q_f32(p, v); }
    SEQMIX_INLINE void store(bf16* p) const { store_halves(p, vmovn_u32(vreinterpretq_u32_s32(simd::bf16_bits(*this).v))); }
    SEQMIX_INLINE void store(f16* p) const { store_halves(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
    template <class T>
    SEQMIX_INLINE void store(T* p, index n) const
    {
        T all[4];
        store(all);
        copy_first(all, p, n);
    }
    /// No instruction that every compiler offers goes past the caches: an ordinary store, and nothing to wait for.
    template <class T>
    SEQMIX_INLINE void stream(T* p) const
    {
        store(p);
    }
    static SEQMIX_INLINE void stream_fence() {}

    friend SEQMIX_INLINE f32 operator+(f32 a, f32 b) { return {vaddq_f32(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator-(f32 a, f32 b) { return {vsubq_f32(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator*(f32 a, f32 b) { return {vmulq_f32(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator/(f32 a, f32 b) { return {vdivq_f32(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 operator-(f32 a) { return {vnegq_f32(a.v)}; }
    friend SEQMIX_INLINE f32 fma(f32 a, f32 b, f32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
    friend SEQMIX_INLINE f32 fnma(f32 a, f32 b, f32 c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
    /// By comparison: the instructions for min and max give NaN where either operand is.
    friend SEQMIX_INLINE f32 min(f32 a, f32 b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
    friend SEQMIX_INLINE f32 max(f32 a, f32 b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
    friend SEQMIX_INLINE f32 abs(f32 a) { return {vabsq_f32(a.v)}; }
    friend SEQMIX_INLINE f32 sqrt(f32 a) { return {vsqrtq_f32(a.v)}; }
    friend SEQMIX_INLINE f32 round(f32 a) { return {vrndnq_f32(a.v)}; }
    /// In two exact powers of nearly half of n, the second multiplication rounding once: 2^n alone may be no float
    /// where a 2^n is one. Beyond ±252 the result is infinite or zero anyway.
    friend SEQMIX_INLINE f32 scale_by_power(f32 a, f32 n)
    {
        const int32x4_t whole = vmaxq_s32(vminq_s32(vcvtnq_s32_f32(n.v), vdupq_n_s32(252)), vdupq_n_s32(-252));
        const int32x4_t half = vshrq_n_s32(whole, 1);
        return a * power(half) * power(vsubq_s32(whole, half));
    }
    friend SEQMIX_INLINE mask operator<(f32 a, f32 b) { return {vcltq_f32(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator<=(f32 a, f32 b) { return {vcleq_f32(a.v, b.v)}; }
    friend SEQMIX_INLINE mask operator==(f32 a, f32 b) { return {vceqq_f32(a.v, b.v)}; }
    friend SEQMIX_INLINE f32 select(mask m, f32 a, f32 b) { return {vbslq_f32(m.v, a.v, b.v)}; }
    friend SEQMIX_INLINE i32 as_int(f32 a) { return {vreinterpretq_s32_f32(a.v)}; }
    friend SEQMIX_INLINE float reduce_add(f32 a) { return vaddvq_f32(a.v); }
    friend SEQMIX_INLINE float reduce_max(f32 a) { return vmaxvq_f32(a.v); }

    friend SEQMIX_INLINE void transpose(f32 (&row)[4])
    {
        const float32x4x2_t t = vtrnq_f32(row[0].v, row[1].v), u = vtrnq_f32(row[2].v, row[3].v);
        row[0].v = vcombine_f32(vget_low_f32(t.val[0]), vget_low_f32(u.val[0]));
        row[1].v = vcombine_f32(vget_low_f32(t.val[1]), vget_low_f32(u.val[1]));
        row[2].v = vcombine_f32(vget_high_f32(t.val[0]), vget_high_f32(u.val[0]));
        row[3].v = vcombine_f32(vget_high_f32(t.val[1]), vget_high_f32(u.val[1]));
    }

    static SEQMIX_INLINE f32 power(int32x4_t n)
    {
        return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23))};
    }
};

SEQMIX_INLINE f32 to_float(i32 a) { return {vcvtq_f32_s32(a.v)}; }
SEQMIX_INLINE i32 to_int(f32 a) { return {vcvtnq_s32_f32(a.v)}; }
SEQMIX_INLINE f32 as_float(i32 a) { return {vreinterpretq_f32_s32(a.v)}; }

} // namespace simd::neon_lanes
SEQMIX_NAMESPACE_END

#endif
