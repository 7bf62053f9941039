// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/gguf_k.hpp>

// GGUF blocks of 256 ternary weights with one f16 scale: tq1_0 (1.69 bits a weight), tq2_0.

SEQMIX_NAMESPACE_BEGIN
namespace quant::gguf {

struct ternary_block : block_of_256 {
    static constexpr index group = 256;
    static constexpr bool two_levels = false;
    static constexpr int bits = 2;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = 1.0f;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code - 1); }
};

namespace detail {

/// `digits` base-3 digits a byte, in runs of `width` bytes: digit n of byte b is number n · width + b. A byte is ⌈256/243 of the
/// number that five digits make⌉, the first the most significant: so its next digit is the integer part of 3/256 of what remains.
template <int digits, index width>
void read_digits(const std::byte* from, std::uint8_t* codes)
{
    for (index b = 0; b < width; ++b) {
        auto rest = std::to_integer<unsigned>(from[b]);
        for (int n = 0; n < digits; ++n) {
            rest *= 3u;
            codes[n * width + b] = static_cast<std::uint8_t>(rest >> 8);
            rest &= 255u;
        }
    }
}
template <int digits, index width>
void write_digits(const std::uint8_t* codes, std::byte* to)
{
    for (index b = 0; b < width; ++b) {
        unsigned number = 0;
        for (int n = 0; n < 5; ++n) { number = 3u * number + (n < digits ? codes[n * width + b] : 0u); }
        to[b] = static_cast<std::byte>((number * 256u + 242u) / 243u);
    }
}

} // namespace detail

/// w = d (q - 1): 32 bytes of five digits, 16 of five, 4 of four, d. Of the 256 bytes 243 are written; the others are read.
struct tq1_0 : ternary_block {
    static constexpr const char* name = "tq1_0";
    static constexpr index block_bytes = 54;

    static void read(const std::byte* stored, stored_block<tq1_0>& out)
    {
        out = {};
        detail::read_digits<5, 32>(stored, out.codes);
        detail::read_digits<5, 16>(stored + 32, out.codes + 160);
        detail::read_digits<4, 4>(stored + 48, out.codes + 240);
        out.scales[0] = load<f16>(stored + 52);
    }
    /// Codes 0 to 2.
    static void write(const stored_block<tq1_0>& from, std::byte* to)
    {
        detail::write_digits<5, 32>(from.codes, to);
        detail::write_digits<5, 16>(from.codes + 160, to + 32);
        detail::write_digits<4, 4>(from.codes + 240, to + 48);
        store(from.scales[0], to + 52);
    }
};

/// w = d (q - 1): 64 bytes of 2-bit codes, d. Code 3 is 2 d.
struct tq2_0 : ternary_block {
    static constexpr const char* name = "tq2_0";
    static constexpr index block_bytes = 66;

    static void read(const std::byte* stored, stored_block<tq2_0>& out)
    {
        out = {};
        unpack_fields<2, 32>(stored, 64, out.codes);
        out.scales[0] = load<f16>(stored + 64);
    }
    static void write(const stored_block<tq2_0>& from, std::byte* to)
    {
        pack_fields<2, 32>(from.codes, 0, to, 64);
        store(from.scales[0], to + 64);
    }
};

} // namespace quant::gguf
SEQMIX_NAMESPACE_END
