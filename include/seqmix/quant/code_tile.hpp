// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/packed.hpp>

// Codes on their way into a panel: as bytes of 16 rows, then in planes, many at once. packed_layout::for_each_field says what is
// where.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// What a packed matrix holds for codes of the file, in place. In most formats that differs in some bits, for all codes the same
/// ones: two's complement counts upwards once its sign is flipped.
template <format F>
void to_stored(std::uint8_t* codes, index count)
{
    using lanes = lane_code<F>;
    constexpr std::uint8_t flipped = lanes::all_stored.byte[0];
    constexpr bool flips = [] {
        for (int code = 0; code < lanes::count; ++code) {
            if (lanes::all_stored.byte[code] != (code ^ flipped)) { return false; }
        }
        return true;
    }();
    if constexpr (!flips) {
        for (index i = 0; i < count; ++i) { codes[i] = lanes::all_stored.byte[codes[i] & (lanes::count - 1)]; }
    } else if constexpr (flipped != 0) {
        for (index i = 0; i < count; ++i) { codes[i] = static_cast<std::uint8_t>(codes[i] ^ flipped); }
    }
}

/// Words of a chunk: four positions of a row in each, those of the 16 rows beside each other.
template <format F>
struct chunk_words {
    using layout = packed_layout<F>;
    static constexpr index rows = layout::panel_rows, count = layout::chunk / 4;

    std::uint32_t word[count][rows];

    /// Writes the planes of `width` bits and less, of bits `code_bit` and up of the codes.
    template <int width, int code_bit>
    void write_planes(std::byte* to) const
    {
        if constexpr ((layout::bits & width) == 0) {
            if constexpr (width > 1) { write_planes<width / 2, code_bit>(to); }
        } else {
            constexpr int above = 8 / width; // words that share the bytes
            constexpr std::uint32_t mask = 0x01010101u * ((1u << width) - 1u);
            for (int part = 0; part < width; ++part) {
                std::uint32_t bytes[rows] = {};
                for (int w = 0; w < above; ++w) {
                    for (index row = 0; row < rows; ++row) {
                        bytes[row] |= (word[part * above + w][row] >> code_bit & mask) << (w * width);
                    }
                }
                write_block(bytes, to + part * 64);
            }
            if constexpr (width > 1) { write_planes<width / 2, code_bit + width>(to + width * 64); }
        }
    }

private:
    static void write_block(const std::uint32_t (&bytes)[rows], std::byte* to)
    {
        if constexpr (layout::turned) {
            for (int position = 0; position < 4; ++position) {
                for (index row = 0; row < rows; ++row) {
                    to[position * rows + row] = static_cast<std::byte>(bytes[row] >> (8 * position));
                }
            }
        } else {
            std::memcpy(to, bytes, sizeof bytes);
        }
    }
};

/// Codes of a panel's rows at `positions` of the depth, a whole number of chunks; of those that nobody puts there all bits are 0.
template <format F, index positions>
class code_tile {
    using layout = packed_layout<F>;
    static_assert(positions % layout::chunk == 0);

public:
    std::uint8_t* row(index r) { return codes_[r]; }

    /// For other positions.
    void clear() { std::memset(codes_, 0, sizeof codes_); }

    void write(index chunks, std::byte* to) const
    {
        for (index chunk = 0; chunk < chunks; ++chunk) {
            chunk_words<F> words;
            for (index r = 0; r < layout::panel_rows; ++r) {
                const std::uint8_t* const codes = codes_[r] + chunk * layout::chunk;
                for (index w = 0; w < words.count; ++w) { std::memcpy(&words.word[w][r], codes + 4 * w, 4); }
            }
            words.template write_planes<8, 0>(to + chunk * layout::chunk_bytes);
        }
    }

private:
    std::uint8_t codes_[layout::panel_rows][positions] = {};
};

} // namespace detail
} // namespace quant
SEQMIX_NAMESPACE_END
