// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/gguf_k.hpp>
#include <seqmix/quant/gguf_legacy.hpp>

// GGUF blocks whose 4-bit codes are places in a table: iq4_nl, iq4_xs, mxfp4, nvfp4.

SEQMIX_NAMESPACE_BEGIN
namespace quant::gguf {

/// Denser near zero, as weights are.
inline constexpr std::int8_t nonlinear_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/// Twice the numbers of E2M1: integers. There is no -0 here.
inline constexpr std::int8_t doubled_e2m1_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// w = d · table[q]: as q4_0.
struct iq4_nl : block_of_32 {
    static constexpr const char* name = "iq4_nl";
    static constexpr index block_bytes = 18;
    static constexpr int bits = 4;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = -127.0f;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(nonlinear_values[code & 15]); }
    static void read(const std::byte* stored, stored_block<iq4_nl>& out)
    {
        out = {};
        out.scales[0] = load<f16>(stored);
        unpack_fields<4, 16>(stored + 2, 16, out.codes);
    }
    static void write(const stored_block<iq4_nl>& from, std::byte* to)
    {
        store(from.scales[0], to);
        pack_fields<4, 16>(from.codes, 0, to + 2, 16);
    }
};

/// w = d (s - 32) · table[q]: d, 16 bits of the upper two of s, 4 bytes of their lower four, 128 of nibbles.
struct iq4_xs : k_block {
    static constexpr const char* name = "iq4_xs";
    static constexpr index block_bytes = 136, group = 32;
    static constexpr int bits = 4;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = -127.0f;
    static constexpr int most_sub_scale = 31;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(nonlinear_values[code & 15]); }
    static void read(const std::byte* stored, stored_block<iq4_xs>& out)
    {
        out = {};
        out.scale = load<f16>(stored);
        std::uint8_t scales[8] = {};
        unpack_fields<2, 1>(stored + 2, 2, scales, 4);
        unpack_fields<4, 1>(stored + 4, 4, scales);
        for (index g = 0; g < 8; ++g) { out.sub_scales[g] = static_cast<std::int8_t>(scales[g] - 32); }
        unpack_fields<4, 16>(stored + 8, 128, out.codes);
    }
    static void write(const stored_block<iq4_xs>& from, std::byte* to)
    {
        store(from.scale, to);
        std::uint8_t scales[8];
        for (index g = 0; g < 8; ++g) { scales[g] = static_cast<std::uint8_t>(from.sub_scales[g] + 32); }
        pack_fields<2, 1>(scales, 4, to + 2, 2);
        pack_fields<4, 1>(scales, 0, to + 4, 4);
        pack_fields<4, 16>(from.codes, 0, to + 8, 128);
    }
};

/// Half of an E8M0 scale, 2^(bits - 128), as the doubled values of mxfp4 ask for. ggml has no NaN here: 255 is 2^127.
struct half_e8m0 {
    std::uint8_t bits = 0;

    constexpr explicit operator float() const
    {
        return std::bit_cast<float>(bits < 2 ? 0x200000u << bits : static_cast<std::uint32_t>(bits - 1) << 23);
    }
    friend constexpr bool operator==(half_e8m0, half_e8m0) = default;
};

/// Half of an E4M3 scale without sign, as nvfp4's doubled values ask for. As in ggml, 0x7f is 0, and the eighth bit is passed over
/// (but for 0xff, which is 240).
struct half_ue4m3 {
    std::uint8_t bits = 0;

    constexpr explicit operator float() const
    {
        return bits == 0x7f ? 0.0f : 0.5f * seqmix::detail::widen_magnitude<4, 3>(bits & 0x7fu);
    }
    friend constexpr bool operator==(half_ue4m3, half_ue4m3) = default;
};

/// w = 2^(e - 128) · table[q]: e, 16 bytes of nibbles as of q4_0.
struct mxfp4 : block_of_32 {
    static constexpr const char* name = "mxfp4";
    static constexpr index block_bytes = 17;
    static constexpr int bits = 4;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = 12.0f;
    using scale_type = half_e8m0;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(doubled_e2m1_values[code & 15]); }
    static void read(const std::byte* stored, stored_block<mxfp4>& out)
    {
        out = {};
        out.scales[0] = load<half_e8m0>(stored);
        unpack_fields<4, 16>(stored + 1, 16, out.codes);
    }
    static void write(const stored_block<mxfp4>& from, std::byte* to)
    {
        store(from.scales[0], to);
        pack_fields<4, 16>(from.codes, 0, to + 1, 16);
    }
};

/// w = d/2 · table[q] in groups of 16: four scales of a byte, then 8 bytes of nibbles a group, the low ones of its weights 0 to 7.
struct nvfp4 : block_of_32 {
    static constexpr const char* name = "nvfp4";
    static constexpr index block = 64, block_bytes = 36, group = 16;
    static constexpr int bits = 4;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = 12.0f;
    using scale_type = half_ue4m3;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(doubled_e2m1_values[code & 15]); }
    static void read(const std::byte* stored, stored_block<nvfp4>& out)
    {
        out = {};
        for (index g = 0; g < 4; ++g) { out.scales[g] = load<half_ue4m3>(stored + g); }
        unpack_fields<4, 8>(stored + 4, 32, out.codes);
    }
    static void write(const stored_block<nvfp4>& from, std::byte* to)
    {
        for (index g = 0; g < 4; ++g) { store(from.scales[g], to + g); }
        pack_fields<4, 8>(from.codes, 0, to + 4, 32);
    }
};

} // namespace quant::gguf
SEQMIX_NAMESPACE_END
