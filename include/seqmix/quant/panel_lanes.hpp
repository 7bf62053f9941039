// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/packed.hpp>
#include <seqmix/tile/blocking.hpp>

#include <bit>
#include <limits>

// A packed panel as registers: some of its rows in the lanes.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// As many rows of one panel as a register has lanes.
template <class Arch, format F>
class panel_lanes {
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;
    using layout = packed_layout<F>;
    using scale_type = packed_scale<typename F::scale_type>;

public:
    static constexpr index lanes = f32::lanes, registers = layout::panel_rows / lanes;
    static_assert(layout::panel_rows % lanes == 0);

    /// Register r of a matrix: rows r · lanes and so on.
    static panel_lanes of(const packed_matrix<F>& w, index r) { return {w.layout(), w.panel(r / registers), r % registers * lanes}; }

    panel_lanes(const layout& where, const std::byte* panel, index row)
        : codes_(panel + row * (layout::turned ? 1 : 4)), scales_(panel + where.scales_at() + row * scale_bytes),
          mins_(panel + where.mins_at() + row * scale_bytes), sub_scales_(panel + where.sub_scales_at() + row), sub_mins_(panel + where.sub_mins_at() + row),
          zeros_(panel + where.zeros_at() + row), groups_of_block_(F::two_levels && F::block > 0 ? F::block / where.group : 1)
    {
    }

    const std::byte* chunk(index c) const { return codes_ + c * layout::chunk_bytes; }

    /// Word `Word` of a chunk: the lane codes of four positions.
    template <int Word>
    static SEQMIX_INLINE i32 bytes(const std::byte* chunk)
    {
        i32 word = fields<Word, 8, 0>(chunk);
        if constexpr (lane_code<F>::looked_up) {
            word = simd::backend<Arch>::lookup(simd::backend<Arch>::table_of(lane_code<F>::table.byte), word);
        }
        return word;
    }

    /// Wide codes are unsigned where products take them so, else they lose what was added to them.
    static constexpr bool signed_products = lane_code<F>::wide_product && simd::backend<Arch>::left_int8_offset == 0;
    static constexpr int zero = signed_products ? 0 : lane_code<F>::product_zero; ///< of the bytes that are multiplied

    /// The numbers that one byte of each lane stands for, exact.
    template <int Byte>
    static SEQMIX_INLINE f32 values(i32 bytes)
    {
        const i32 code = shifted<8 * Byte>(bytes) & i32::broadcast(255);
        if constexpr (F::integer_codes) {
            const f32 number = to_float(code - i32::broadcast(lane_code<F>::zero));
            return F::unit == 1.0f ? number : number * f32::broadcast(F::unit);
        } else {
            return small_float(code);
        }
    }

    /// Of row_scaled formats the row's.
    SEQMIX_INLINE f32 scale(index group) const
    {
        if constexpr (row_scaled<F>) {
            return number(scales_, 0);
        } else if constexpr (F::two_levels) {
            return number(scales_, group / groups_of_block_) * to_float(i32::load(reinterpret_cast<const std::int8_t*>(sub_scales_) + group * layout::panel_rows));
        } else {
            return number(scales_, group);
        }
    }

    /// Of row_scaled formats.
    SEQMIX_INLINE i32 group_scale(index group) const
    {
        return i32::load(reinterpret_cast<const std::uint8_t*>(sub_scales_) + group * layout::panel_rows);
    }

    /// What a group subtracts, of formats with minima.
    SEQMIX_INLINE f32 min(index group) const
    {
        if constexpr (F::two_levels) {
            return number(mins_, group / groups_of_block_) * to_float(i32::load(reinterpret_cast<const std::uint8_t*>(sub_mins_) + group * layout::panel_rows));
        } else {
            return number(mins_, group);
        }
    }

    SEQMIX_INLINE f32 zero_point(index group) const
    {
        return to_float(i32::load(reinterpret_cast<const std::int8_t*>(zeros_) + group * layout::panel_rows));
    }

private:
    static constexpr index scale_bytes = static_cast<index>(sizeof(scale_type));

    static SEQMIX_INLINE f32 number(const std::byte* from, index at)
    {
        return f32::load(reinterpret_cast<const scale_type*>(from) + at * layout::panel_rows);
    }

    /// FP8 and FP6: sign, exponent, mantissa. Numbers with exponent 0 are computed as if they were normal, twice, less the one that
    /// was not there; that takes no subnormal floats, which some programs have flushed.
    static SEQMIX_INLINE f32 small_float(i32 code)
    {
        constexpr int sign = 1 << (F::bits - 1);
        constexpr int mantissa_bits = mantissa_bits_of();
        constexpr int least_normal = static_cast<int>(std::bit_cast<std::uint32_t>(F::value(1 << mantissa_bits)) >> 23);
        const i32 magnitude = code & i32::broadcast(sign - 1);
        f32 x = as_float(shift_left<23 - mantissa_bits>(magnitude) + i32::broadcast((least_normal - 1) << 23));
        const f32 least = f32::broadcast(std::bit_cast<float>(static_cast<std::uint32_t>(least_normal) << 23));
        x = select(magnitude < i32::broadcast(1 << mantissa_bits), x + x - least, x);
        // Infinity and NaN: the codes from the first one on that stands for no number have the bits of a float's.
        constexpr int first_special = first_special_code();
        if constexpr (first_special < sign) {
            constexpr bool infinite = F::value(first_special) == std::numeric_limits<float>::infinity();
            const f32 not_a_number = f32::broadcast(std::numeric_limits<float>::quiet_NaN());
            const f32 infinity = f32::broadcast(std::numeric_limits<float>::infinity());
            x = select(magnitude < i32::broadcast(first_special), x, not_a_number);
            if constexpr (infinite) { x = select(magnitude == i32::broadcast(first_special), infinity, x); }
        }
        return as_float(as_int(x) | shift_left<32 - F::bits>(code & i32::broadcast(sign)));
    }

    /// Numbers up to the first normal one are as far apart as it is large in units of the smallest.
    static constexpr int mantissa_bits_of()
    {
        int bits = 1;
        while (F::value(static_cast<std::uint8_t>((1 << bits) + 1)) - F::value(static_cast<std::uint8_t>(1 << bits)) ==
                   F::value(static_cast<std::uint8_t>(1)) &&
               F::value(static_cast<std::uint8_t>(2 << bits)) == 2.0f * F::value(static_cast<std::uint8_t>(1 << bits)) &&
               F::value(static_cast<std::uint8_t>((2 << bits) + 1)) - F::value(static_cast<std::uint8_t>(2 << bits)) ==
                   F::value(static_cast<std::uint8_t>(1))) {
            ++bits;
        }
        return bits;
    }
    static constexpr int first_special_code()
    {
        int code = 0;
        while (code < (1 << (F::bits - 1)) && F::value(static_cast<std::uint8_t>(code)) <= std::numeric_limits<float>::max()) { ++code; }
        return code;
    }

    static SEQMIX_INLINE i32 load_words(const std::byte* from)
    {
        if constexpr (layout::turned) {
            return simd::backend<Arch>::load_turned(reinterpret_cast<const std::uint8_t*>(from));
        } else {
            return i32::load(reinterpret_cast<const std::int32_t*>(from));
        }
    }

    template <int Shift>
    static SEQMIX_INLINE i32 shifted(i32 a)
    {
        if constexpr (Shift > 0) {
            return shift_right<Shift>(a);
        } else if constexpr (Shift < 0) {
            return shift_left<-Shift>(a);
        } else {
            return a;
        }
    }

    /// The planes' fields of a word, put together: planes of `Width` bits and less, from bit `Bit` of the code on.
    template <int Word, int Width, int Bit>
    static SEQMIX_INLINE i32 fields(const std::byte* plane)
    {
        if constexpr ((layout::bits & Width) == 0) {
            return fields<Word, Width / 2, Bit>(plane);
        } else {
            constexpr int words = 8 / Width;
            i32 field = load_words(plane + Word / words * 64);
            if constexpr (Width < 8) {
                constexpr std::uint32_t mask = ((1u << Width) - 1u) << Bit;
                field = shifted<Word % words * Width - Bit>(field) & i32::broadcast(static_cast<std::int32_t>(mask * 0x01010101u));
            }
            if constexpr (((layout::bits & (Width - 1)) == 0)) {
                return field;
            } else {
                return field | fields<Word, Width / 2, Bit + Width>(plane + Width * 64);
            }
        }
    }

    const std::byte* codes_;
    const std::byte* scales_;
    const std::byte* mins_;
    const std::byte* sub_scales_;
    const std::byte* sub_mins_;
    const std::byte* zeros_;
    index groups_of_block_;
};

/// The bytes that products take for codes of a panel, one half of a chunk after another from `position`, a multiple of 16.
template <class Arch, format F>
class product_codes {
    using i32 = simd::i32<Arch>;
    using lanes_of = panel_lanes<Arch, F>;

public:
    SEQMIX_INLINE product_codes(const lanes_of& panel, index group, index position)
        : panel_(panel), size_(group), group_(position > 0 ? position / group : 0), next_half_(position), next_group_(position)
    {
    }

    /// Before each half.
    SEQMIX_INLINE void next_half()
    {
        if constexpr (row_scaled<F>) {
            if (next_half_ == next_group_) { look_up(); }
            next_half_ += 16;
        }
    }

    template <int Word>
    SEQMIX_INLINE i32 word(const std::byte* chunk) const
    {
        i32 bytes = lanes_of::template bytes<Word>(chunk);
        if constexpr (row_scaled<F>) { bytes = bytes * scale_ + rest_; }
        if constexpr (lanes_of::signed_products) { bytes = bytes ^ i32::broadcast(static_cast<std::int32_t>(0x80808080u)); }
        return bytes;
    }

private:
    struct nothing {};
    template <class T>
    using where_scaled = std::conditional_t<row_scaled<F>, T, nothing>;

    /// Four bytes are multiplied at once: group scale · code is at most 16 · 15, so that no byte carries into the next one, nor does
    /// group scale · (code - zero) + 128.
    SEQMIX_INLINE void look_up()
    {
        constexpr auto zero_of = [](int code) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(code) * 0x01010101u); };
        scale_ = panel_.group_scale(group_++);
        next_group_ = group_ * size_;
        rest_ = i32::broadcast(zero_of(lane_code<F>::product_zero)) - scale_ * i32::broadcast(zero_of(lane_code<F>::zero));
    }

    const lanes_of& panel_;
    index size_, group_, next_half_, next_group_; ///< of groups in positions; the next group; positions
    where_scaled<i32> scale_{}, rest_{};
};

} // namespace quant
SEQMIX_NAMESPACE_END
