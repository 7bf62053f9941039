// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/fields.hpp>
#include <seqmix/quant/format.hpp>

// GGUF blocks of 32 weights: q4_0, q4_1, q5_0, q5_1, q8_0. Their layouts: README.md.

SEQMIX_NAMESPACE_BEGIN
namespace quant::gguf {

/// What the formats of 32 weights with one f16 scale have in common.
struct block_of_32 {
    static constexpr index block = 32, group = 32;
    static constexpr bool integer_codes = true, two_levels = false, matrix_scale = false;
    static constexpr float unit = 1.0f;
    using scale_type = f16;
};

namespace detail {

/// These blocks add what is stored; a format subtracts its min.
inline f16 negated(f16 x) { return f16::from_bits(static_cast<std::uint16_t>(x.bits ^ 0x8000u)); }

} // namespace detail

/// w = d (q - 8): d, then 16 bytes of nibbles, the low ones of weights 0 to 15.
struct q4_0 : block_of_32 {
    static constexpr const char* name = "q4_0";
    static constexpr index block_bytes = 18;
    static constexpr int bits = 4;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = -8.0f;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code - 8); }
    static void read(const std::byte* stored, stored_block<q4_0>& out)
    {
        out = {};
        out.scales[0] = load<f16>(stored);
        unpack_fields<4, 16>(stored + 2, 16, out.codes);
    }
    static void write(const stored_block<q4_0>& from, std::byte* to)
    {
        store(from.scales[0], to);
        pack_fields<4, 16>(from.codes, 0, to + 2, 16);
    }
};

/// w = d q + m: d, m, nibbles.
struct q4_1 : block_of_32 {
    static constexpr const char* name = "q4_1";
    static constexpr index block_bytes = 20;
    static constexpr int bits = 4;
    static constexpr affine form = affine::scale_and_min;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code); }
    static void read(const std::byte* stored, stored_block<q4_1>& out)
    {
        out = {};
        out.scales[0] = load<f16>(stored);
        out.mins[0] = detail::negated(load<f16>(stored + 2));
        unpack_fields<4, 16>(stored + 4, 16, out.codes);
    }
    static void write(const stored_block<q4_1>& from, std::byte* to)
    {
        store(from.scales[0], to);
        store(detail::negated(from.mins[0]), to + 2);
        pack_fields<4, 16>(from.codes, 0, to + 4, 16);
    }
};

/// w = d (q - 16): d, 32 fifth bits, nibbles.
struct q5_0 : block_of_32 {
    static constexpr const char* name = "q5_0";
    static constexpr index block_bytes = 22;
    static constexpr int bits = 5;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = -16.0f;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code - 16); }
    static void read(const std::byte* stored, stored_block<q5_0>& out)
    {
        out = {};
        out.scales[0] = load<f16>(stored);
        unpack_fields<1, 1>(stored + 2, 4, out.codes, 4);
        unpack_fields<4, 16>(stored + 6, 16, out.codes);
    }
    static void write(const stored_block<q5_0>& from, std::byte* to)
    {
        store(from.scales[0], to);
        pack_fields<1, 1>(from.codes, 4, to + 2, 4);
        pack_fields<4, 16>(from.codes, 0, to + 6, 16);
    }
};

/// w = d q + m: d, m, fifth bits, nibbles.
struct q5_1 : block_of_32 {
    static constexpr const char* name = "q5_1";
    static constexpr index block_bytes = 24;
    static constexpr int bits = 5;
    static constexpr affine form = affine::scale_and_min;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code); }
    static void read(const std::byte* stored, stored_block<q5_1>& out)
    {
        out = {};
        out.scales[0] = load<f16>(stored);
        out.mins[0] = detail::negated(load<f16>(stored + 2));
        unpack_fields<1, 1>(stored + 4, 4, out.codes, 4);
        unpack_fields<4, 16>(stored + 8, 16, out.codes);
    }
    static void write(const stored_block<q5_1>& from, std::byte* to)
    {
        store(from.scales[0], to);
        store(detail::negated(from.mins[0]), to + 2);
        pack_fields<1, 1>(from.codes, 4, to + 4, 4);
        pack_fields<4, 16>(from.codes, 0, to + 8, 16);
    }
};

/// w = d q: d, 32 signed bytes.
struct q8_0 : block_of_32 {
    static constexpr const char* name = "q8_0";
    static constexpr index block_bytes = 34;
    static constexpr int bits = 8;
    static constexpr affine form = affine::scale_only;
    static constexpr float extreme = 127.0f;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(static_cast<std::int8_t>(code)); }
    static void read(const std::byte* stored, stored_block<q8_0>& out)
    {
        out.scales[0] = load<f16>(stored);
        out.mins[0] = {};
        std::memcpy(out.codes, stored + 2, 32);
    }
    static void write(const stored_block<q8_0>& from, std::byte* to)
    {
        store(from.scales[0], to);
        std::memcpy(to + 2, from.codes, 32);
    }
};

} // namespace quant::gguf
SEQMIX_NAMESPACE_END
