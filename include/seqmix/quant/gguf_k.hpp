// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/fields.hpp>
#include <seqmix/quant/format.hpp>

// GGUF K-quants: blocks of 256 weights in groups of 16 or 32, whose scales (and mins) are small integers times an f16 of the block.

SEQMIX_NAMESPACE_BEGIN
namespace quant::gguf {

struct block_of_256 {
    static constexpr index block = 256;
    static constexpr bool integer_codes = true, matrix_scale = false;
    static constexpr float unit = 1.0f;
    using scale_type = f16;
};
struct k_block : block_of_256 {
    static constexpr bool two_levels = true;
};

/// w = d s q - dmin m: 16 bytes of s (low nibbles) and m, 64 of codes, d, dmin.
struct q2_k : k_block {
    static constexpr const char* name = "q2_k";
    static constexpr index block_bytes = 84, group = 16;
    static constexpr int bits = 2;
    static constexpr affine form = affine::scale_and_min;
    static constexpr int most_sub_scale = 15;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code); }
    static void read(const std::byte* stored, stored_block<q2_k>& out)
    {
        out = {};
        for (index g = 0; g < 16; ++g) {
            const auto both = std::to_integer<unsigned>(stored[g]);
            out.sub_scales[g] = static_cast<std::int8_t>(both & 15u);
            out.sub_mins[g] = static_cast<std::uint8_t>(both >> 4);
        }
        unpack_fields<2, 32>(stored + 16, 64, out.codes);
        out.scale = load<f16>(stored + 80);
        out.min = load<f16>(stored + 82);
    }
    static void write(const stored_block<q2_k>& from, std::byte* to)
    {
        for (index g = 0; g < 16; ++g) {
            to[g] = static_cast<std::byte>((static_cast<unsigned>(from.sub_scales[g]) & 15u) |
                                           static_cast<unsigned>(from.sub_mins[g]) << 4);
        }
        pack_fields<2, 32>(from.codes, 0, to + 16, 64);
        store(from.scale, to + 80);
        store(from.min, to + 82);
    }
};

/// w = d (s - 32) (q - 4): 32 bytes of third bits, 64 of the lower two, 12 of 6-bit s, d.
struct q3_k : k_block {
    static constexpr const char* name = "q3_k";
    static constexpr index block_bytes = 110, group = 16;
    static constexpr int bits = 3;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = -4.0f;
    static constexpr int most_sub_scale = 31;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code - 4); }
    static void read(const std::byte* stored, stored_block<q3_k>& out)
    {
        out = {};
        unpack_fields<1, 32>(stored, 32, out.codes, 2);
        unpack_fields<2, 32>(stored + 32, 64, out.codes);
        std::uint8_t scales[16] = {};
        unpack_fields<4, 8>(stored + 96, 8, scales);
        unpack_fields<2, 4>(stored + 104, 4, scales, 4);
        for (index g = 0; g < 16; ++g) { out.sub_scales[g] = static_cast<std::int8_t>(scales[g] - 32); }
        out.scale = load<f16>(stored + 108);
    }
    static void write(const stored_block<q3_k>& from, std::byte* to)
    {
        pack_fields<1, 32>(from.codes, 2, to, 32);
        pack_fields<2, 32>(from.codes, 0, to + 32, 64);
        std::uint8_t scales[16];
        for (index g = 0; g < 16; ++g) { scales[g] = static_cast<std::uint8_t>(from.sub_scales[g] + 32); }
        pack_fields<4, 8>(scales, 0, to + 96, 8);
        pack_fields<2, 4>(scales, 4, to + 104, 4);
        store(from.scale, to + 108);
    }
};

namespace detail {

/// Eight 6-bit scales and mins in 12 bytes: 0 to 3 of each in the lower bits of bytes 0 to 3 and 4 to 7; of 4 to 7 the lower four
/// bits are nibbles of bytes 8 to 11, and the upper two stand above those of bytes 0 to 3 and 4 to 7.
template <class Block>
void read_scales_and_mins(const std::byte* stored, Block& out)
{
    const auto byte = [&](index at) { return std::to_integer<unsigned>(stored[at]); };
    for (index g = 0; g < 4; ++g) {
        out.sub_scales[g] = static_cast<std::int8_t>(byte(g) & 63u);
        out.sub_mins[g] = static_cast<std::uint8_t>(byte(g + 4) & 63u);
        out.sub_scales[g + 4] = static_cast<std::int8_t>((byte(g + 8) & 15u) | byte(g) >> 6 << 4);
        out.sub_mins[g + 4] = static_cast<std::uint8_t>(byte(g + 8) >> 4 | byte(g + 4) >> 6 << 4);
    }
}
template <class Block>
void write_scales_and_mins(const Block& from, std::byte* to)
{
    for (index g = 0; g < 4; ++g) {
        const auto low_scale = static_cast<unsigned>(from.sub_scales[g]), scale = static_cast<unsigned>(from.sub_scales[g + 4]);
        const unsigned low_min = from.sub_mins[g], min = from.sub_mins[g + 4];
        to[g] = static_cast<std::byte>((low_scale & 63u) | (scale >> 4 & 3u) << 6);
        to[g + 4] = static_cast<std::byte>((low_min & 63u) | (min >> 4 & 3u) << 6);
        to[g + 8] = static_cast<std::byte>((scale & 15u) | (min & 15u) << 4);
    }
}

} // namespace detail

/// w = d s q - dmin m: d, dmin, 12 bytes of 6-bit s and m, 128 of nibbles.
struct q4_k : k_block {
    static constexpr const char* name = "q4_k";
    static constexpr index block_bytes = 144, group = 32;
    static constexpr int bits = 4;
    static constexpr affine form = affine::scale_and_min;
    static constexpr int most_sub_scale = 63;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code); }
    static void read(const std::byte* stored, stored_block<q4_k>& out)
    {
        out = {};
        out.scale = load<f16>(stored);
        out.min = load<f16>(stored + 2);
        detail::read_scales_and_mins(stored + 4, out);
        unpack_fields<4, 32>(stored + 16, 128, out.codes);
    }
    static void write(const stored_block<q4_k>& from, std::byte* to)
    {
        store(from.scale, to);
        store(from.min, to + 2);
        detail::write_scales_and_mins(from, to + 4);
        pack_fields<4, 32>(from.codes, 0, to + 16, 128);
    }
};

/// As q4_k with 32 bytes of fifth bits before the nibbles.
struct q5_k : k_block {
    static constexpr const char* name = "q5_k";
    static constexpr index block_bytes = 176, group = 32;
    static constexpr int bits = 5;
    static constexpr affine form = affine::scale_and_min;
    static constexpr int most_sub_scale = 63;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code); }
    static void read(const std::byte* stored, stored_block<q5_k>& out)
    {
        out = {};
        out.scale = load<f16>(stored);
        out.min = load<f16>(stored + 2);
        detail::read_scales_and_mins(stored + 4, out);
        unpack_fields<1, 32>(stored + 16, 32, out.codes, 4);
        unpack_fields<4, 32>(stored + 48, 128, out.codes);
    }
    static void write(const stored_block<q5_k>& from, std::byte* to)
    {
        store(from.scale, to);
        store(from.min, to + 2);
        detail::write_scales_and_mins(from, to + 4);
        pack_fields<1, 32>(from.codes, 4, to + 16, 32);
        pack_fields<4, 32>(from.codes, 0, to + 48, 128);
    }
};

/// w = d s (q - 32): 128 bytes of the lower four bits, 64 of the upper two, 16 signed s, d.
struct q6_k : k_block {
    static constexpr const char* name = "q6_k";
    static constexpr index block_bytes = 210, group = 16;
    static constexpr int bits = 6;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = -32.0f;
    static constexpr int most_sub_scale = 127;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code - 32); }
    static void read(const std::byte* stored, stored_block<q6_k>& out)
    {
        out = {};
        unpack_fields<4, 64>(stored, 128, out.codes);
        unpack_fields<2, 32>(stored + 128, 64, out.codes, 4);
        std::memcpy(out.sub_scales, stored + 192, 16);
        out.scale = load<f16>(stored + 208);
    }
    static void write(const stored_block<q6_k>& from, std::byte* to)
    {
        pack_fields<4, 64>(from.codes, 0, to, 128);
        pack_fields<2, 32>(from.codes, 4, to + 128, 64);
        std::memcpy(to + 192, from.sub_scales, 16);
        store(from.scale, to + 208);
    }
};

} // namespace quant::gguf
SEQMIX_NAMESPACE_END
