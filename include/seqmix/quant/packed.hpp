// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/quant/lane_code.hpp>

#include <cstring>
#include <utility>

// The form in which weights are multiplied: made once, the same for every instruction set, and no larger than what was stored.
//
// Rows of the matrix stand in panels of 16, the last one padded with zeros. A panel has codes, then scales:
//
//   codes   chunks of 32 positions of the depth, in planes of 8, 4, 2 or 1 bits that add up to a code's; a plane's 64 bytes are
//           [16 rows][4 positions], and hold as many words of 4 positions one above the other as fit in the bits; of codes of
//           up to 3 bits [4 positions][16 rows], which is how tables want them
//   scales  [groups, blocks or 1][16 rows], then minima, small integers of groups, zero points likewise, as the format has them
//
// so that a register of codes, whatever its width, has four positions of each of its rows in a lane, at once or turned.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// As what a packed matrix holds scales: those of one byte as a wider number that has the same values.
template <class Scale>
struct packed_scale_of {
    using type = Scale;
};
template <class Scale>
    requires(sizeof(Scale) == 1)
struct packed_scale_of<Scale> {
    static constexpr float smallest = [] {
        Scale s{};
        s.bits = 1;
        return static_cast<float>(s);
    }();
    using type = std::conditional_t<(smallest < 0x1p-24f), bf16, f16>; // powers of two reach further than f16
};
template <class Scale>
using packed_scale = typename packed_scale_of<Scale>::type;

template <class Scale>
constexpr packed_scale<Scale> widened(Scale s)
{
    if constexpr (std::is_same_v<packed_scale<Scale>, Scale>) {
        return s;
    } else {
        return packed_scale<Scale>(static_cast<float>(s));
    }
}

/// Where everything stands in a packed matrix.
template <format F>
struct packed_layout {
    static constexpr index panel_rows = 16, chunk = 32;
    static constexpr int bits = lane_code<F>::stored_bits;
    static constexpr index chunk_bytes = bits * 64;
    static constexpr bool turned = bits <= 3; ///< planes are [4 positions][16 rows]
    static constexpr bool has_min = F::form == affine::scale_and_min, has_zero = F::form == affine::scale_and_zero;

    index rows = 0, columns = 0;
    index group = chunk;  ///< positions that share a scale: 16, or a multiple of 32
    index groups = 0;
    bool permuted = false; ///< positions are not columns: a list says which ones

    index panels() const { return (rows + panel_rows - 1) / panel_rows; }
    index depth() const { return (groups * group + chunk - 1) / chunk * chunk; } ///< positions
    index chunks() const { return depth() / chunk; }

    index scale_count() const
    {
        if constexpr (row_scaled<F>) { return groups > 0 ? 1 : 0; }
        return F::two_levels ? groups * group / block() : groups;
    }
    index scales_at() const { return chunks() * chunk_bytes; }
    index mins_at() const { return scales_at() + whole(scale_count() * scale_bytes); }
    index sub_scales_at() const { return mins_at() + (has_min ? whole(scale_count() * scale_bytes) : 0); }
    index sub_mins_at() const { return sub_scales_at() + (F::two_levels ? whole(groups * panel_rows) : 0); }
    index zeros_at() const { return sub_mins_at() + (F::two_levels && has_min ? whole(groups * panel_rows) : 0); }
    index panel_bytes() const { return zeros_at() + (has_zero ? whole(groups * panel_rows) : 0); }
    index order_at() const { return panels() * panel_bytes(); }
    index bytes() const { return order_at() + (permuted ? depth() * 4 : 0); }

    static constexpr index block() { return F::two_levels && F::block > 0 ? F::block : 1; }

    /// Calls take(byte of the panel, bit in it, bit of the code, how many) for each plane that holds a part of a code.
    template <class Take>
    static void for_each_field(index row, index position, const Take& take)
    {
        const index word = position % chunk / 4;
        index plane = position / chunk * chunk_bytes + (turned ? position % 4 * panel_rows + row : row * 4 + position % 4);
        int code_bit = 0;
        for (int width = 8; width > 0; width /= 2) {
            if ((bits & width) == 0) { continue; }
            const index words = 8 / width; // that share the bytes
            take(plane + word / words * 64, static_cast<int>(word % words) * width, code_bit, width);
            plane += width * 64;
            code_bit += width;
        }
    }

private:
    static constexpr index scale_bytes = panel_rows * static_cast<index>(sizeof(packed_scale<typename F::scale_type>));
    static constexpr index whole(index bytes) { return (bytes + 63) / 64 * 64; }
};

/// A packed matrix; moves, and may stand on memory of the caller's.
template <format F>
class packed_matrix {
public:
    using format = F;
    using scale = packed_scale<typename F::scale_type>;

    packed_matrix(const packed_layout<F>& layout, float matrix_scale, workspace&& memory)
        : layout_(layout), matrix_scale_(matrix_scale), memory_(std::move(memory)),
          data_(memory_.reserve(static_cast<std::size_t>(layout.bytes())))
    {
    }

    const packed_layout<F>& layout() const { return layout_; }
    index rows() const { return layout_.rows; }
    index columns() const { return layout_.columns; }
    float matrix_scale() const { return matrix_scale_; }
    index bytes() const { return layout_.bytes(); }

    const std::byte* panel(index p) const { return data_ + p * layout_.panel_bytes(); }
    std::byte* panel(index p) { return data_ + p * layout_.panel_bytes(); }

    /// The largest code that occurs, as kernels count them: codes of 2 bits are mostly ternary, and have no 3.
    int most_code() const { return most_code_; }
    void find_most_code()
    {
        if constexpr (packed_layout<F>::bits == 2) {
            std::byte threes{};
            for (index p = 0; p < layout_.panels(); ++p) {
                for (index i = 0; i < layout_.scales_at(); ++i) { threes |= panel(p)[i] & panel(p)[i] >> 1 & std::byte{0x55}; }
            }
            most_code_ = threes == std::byte{} ? 2 : 3;
        }
    }

    /// The column at each position, -1 where a group is padded; null: position p is column p.
    const std::int32_t* order() const { return layout_.permuted ? reinterpret_cast<const std::int32_t*>(data_ + layout_.order_at()) : nullptr; }
    std::int32_t* order() { return layout_.permuted ? reinterpret_cast<std::int32_t*>(data_ + layout_.order_at()) : nullptr; }

private:
    packed_layout<F> layout_;
    float matrix_scale_;
    int most_code_ = lane_code<F>::largest;
    workspace memory_;
    std::byte* data_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
