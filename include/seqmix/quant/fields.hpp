// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

// How small numbers stand in bytes.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// Fields of `bits` bits in runs of `width` bytes: field f of byte b of a run belongs to number f · width + b. (Width 1 is a stream
/// of numbers, lowest bits first.) They are put at bit `at` of the codes, beside what is there.
template <int bits, index width>
void unpack_fields(const std::byte* from, index bytes, std::uint8_t* codes, int at = 0)
{
    constexpr unsigned mask = (1u << bits) - 1u;
    for (index run = 0; run < bytes; run += width) {
        for (int field = 0; field < 8 / bits; ++field) {
            for (index b = 0; b < width; ++b) {
                const unsigned number = std::to_integer<unsigned>(from[run + b]) >> (bits * field) & mask;
                *codes = static_cast<std::uint8_t>(*codes | number << at);
                ++codes;
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

/// The inverse; other bits stay.
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
