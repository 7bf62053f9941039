// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace recall {

/// What the heads look at before a byte, the least telling first: so many preceding bytes, or the word so far.
inline constexpr int word_so_far = 0;
inline constexpr std::array<int, 6> head_contexts = {1, 2, 3, 4, word_so_far, 6};

/// One step of a hash in which every bit of the result depends on all that went in (the finaliser of splitmix64): a
/// key's components are bits of the hash, and those of different contexts must be independent.
constexpr std::uint64_t stir(std::uint64_t hash, std::uint64_t with)
{
    hash += with + 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ hash >> 27) * 0x94d049bb133111ebu;
    return hash ^ hash >> 31;
}

/// Letters as in ASCII; bytes above belong to words in UTF-8 and in the Latin encodings.
constexpr bool in_word(unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80; }
constexpr unsigned char lower(unsigned char c) { return c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c + 32) : c; }

/// [length][heads]: hash of what each head looks at before each byte. Nothing at or after the byte goes into it. Before
/// the text stand zeros.
inline std::vector<std::uint64_t> hash_contexts(const std::string& bytes, std::size_t length)
{
    std::vector<std::uint64_t> hashes;
    hashes.reserve(length * head_contexts.size());
    std::uint64_t word = 0;
    for (std::size_t at = 0; at < length; ++at) {
        const auto before = [&](std::size_t n) { return static_cast<unsigned char>(n <= at ? bytes[at - n] : '\0'); };
        if (at > 0) { word = in_word(before(1)) ? stir(word, lower(before(1))) : 0; }
        for (const int context : head_contexts) {
            std::uint64_t hash = stir(0, static_cast<std::uint64_t>(context));
            if (context == word_so_far) { hash = stir(hash, word); }
            for (std::size_t n = 1; n <= static_cast<std::size_t>(context); ++n) { hash = stir(hash, before(n)); }
            hashes.push_back(hash);
        }
    }
    return hashes;
}

} // namespace recall
