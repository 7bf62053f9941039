// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

// How small numbers stand in bytes.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// Fields of `bits` bits in runs of `width` bytes: field f of byte b of a run belongs to number f · width + b. (Width 1 is a stream
/// of numbers, lowest bits first.) They are put at bit `at` of the codes, beside what is there.
template <int bits, index width>
void unpack_fields(const std::byte* from, index bytes, std::uint8_t* codes, int at = 0)
{
    using word = std::conditional_t<width % 8 == 0, std::uint64_t, std::uint8_t>; // as many bytes as are taken at once
    constexpr index step = sizeof(word);
    constexpr auto mask = static_cast<word>(0x0101010101010101u * ((1u << bits) - 1u));
    for (index run = 0; run < bytes; run += width, codes += 8 / bits * width) {
        for (index b = 0; b < width; b += step) {
            word together, code;
            std::memcpy(&together, from + run + b, step);
            for (int field = 0; field < 8 / bits; ++field) {
                std::uint8_t* const to = codes + field * width + b;
                std::memcpy(&code, to, step);
                code = static_cast<word>(code | (together >> (bits * field) & mask) << at);
                std::memcpy(to, &code, step);
            }
        }
    }
}

/// The inverse: takes `bits` bits from bit `at` of each code.
template <int bits, index width>
void pack_fields(const std::uint8_t* codes, int at, std::byte* to, index bytes)
{
    constexpr unsigned mask = (1u << bits) - 1u;
    for (index run = 0; run < bytes; run += width) {
        for (index b = 0; b < width; ++b) {
            unsigned together = 0;
            for (int field = 0; field < 8 / bits; ++field) {
                together |= (static_cast<unsigned>(codes[field * width + b]) >> at & mask) << (bits * field);
            }
            to[run + b] = static_cast<std::byte>(together);
        }
        codes += 8 / bits * width;
    }
}

/// Code `at` of a stream of codes of `bits` bits, lowest bits first: one read past none of its bytes.
inline std::uint8_t code_in_stream(const std::byte* from, int bits, index at)
{
    const index first = at * bits;
    const int shift = static_cast<int>(first % 8);
    unsigned found = std::to_integer<unsigned>(from[first / 8]) >> shift;
    if (shift + bits > 8) { found |= std::to_integer<unsigned>(from[first / 8 + 1]) << (8 - shift); }
    return static_cast<std::uint8_t>(found & ((1u << bits) - 1u));
}

/// Codes `at` to at + count - 1 of a stream, of fewer than 8 bits: eight at once where they begin with a byte.
template <int bits>
void unpack_stream(const std::byte* from, index at, index count, std::uint8_t* to)
{
    static_assert(bits < 8);
    index i = 0;
    for (; i < count && (at + i) % 8 != 0; ++i) { to[i] = code_in_stream(from, bits, at + i); }
    for (; i + 8 <= count; i += 8) {
        // Eight codes beside each other become two words of four, then four of two, then bytes.
        std::uint64_t codes = 0;
        std::memcpy(&codes, from + (at + i) / 8 * bits, bits);
        constexpr std::uint64_t four = (std::uint64_t{1} << 4 * bits) - 1, two = ((1u << 2 * bits) - 1u) * 0x100000001u,
                                one = ((1u << bits) - 1u) * 0x1000100010001u;
        codes = (codes & four) | (codes >> 4 * bits & four) << 32;
        codes = (codes & two) | (codes >> 2 * bits & two) << 16;
        codes = (codes & one) | (codes >> bits & one) << 8;
        std::memcpy(to + i, &codes, 8);
    }
    for (; i < count; ++i) { to[i] = code_in_stream(from, bits, at + i); }
}

/// The inverse of code_in_stream; other bits stay.
inline void put_code_in_stream(std::uint8_t code, int bits, index at, std::byte* to)
{
    for (int bit = 0; bit < bits; ++bit) {
        const index place = at * bits + bit;
        const auto mask = static_cast<std::byte>(1u << place % 8);
        to[place / 8] = (code >> bit & 1u) != 0 ? to[place / 8] | mask : to[place / 8] & ~mask;
    }
}

/// Numbers of a stored block, at any alignment. Bytes of files are little-endian, and so is every machine that this runs on.
template <class T>
T load(const std::byte* from)
{
    static_assert(std::endian::native == std::endian::little, "seqmix: stored formats are read on little-endian machines");
    T x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
template <class T>
void store(const T& x, std::byte* to)
{
    std::memcpy(to, &x, sizeof x);
}

} // namespace quant
SEQMIX_NAMESPACE_END
