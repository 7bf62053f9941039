// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace recall {

/// A file's bytes, and the same as symbols: the byte that appears first is symbol 0, the next new one symbol 1, … A
/// reader who knows the past knows these numbers, and a text needs only as many channels as it has different bytes.
struct text {
    std::string bytes;
    std::vector<std::uint8_t> symbols;
    int distinct = 0;
};

inline text number_symbols(std::string bytes)
{
    text t{std::move(bytes), {}, 0};
    std::array<int, 256> symbol_of;
    symbol_of.fill(-1);
    t.symbols.reserve(t.bytes.size());
    for (const char c : t.bytes) {
        int& symbol = symbol_of[static_cast<unsigned char>(c)];
        if (symbol < 0) { symbol = t.distinct++; }
        t.symbols.push_back(static_cast<std::uint8_t>(symbol));
    }
    return t;
}

inline text load_text(const std::string& path)
{
    std::error_code error;
    if (!std::filesystem::exists(path, error)) { throw std::runtime_error(path + ": no such file"); }
    if (std::filesystem::is_directory(path, error)) { throw std::runtime_error(path + " is a folder, not a file"); }
    std::ifstream file(path, std::ios::binary);
    std::string bytes;
    std::array<char, 65536> some;
    while (file.read(some.data(), some.size()), file.gcount() > 0) {
        bytes.append(some.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (!file.eof()) { throw std::runtime_error(path + ": cannot be read"); }
    if (bytes.empty()) { throw std::runtime_error(path + " is empty: there is nothing to predict"); }
    return number_symbols(std::move(bytes));
}

/// Bits per byte of the first `length` bytes if each is coded by how often it occurs there.
inline double order0_entropy(const text& t, std::size_t length)
{
    std::array<double, 256> count{};
    for (std::size_t i = 0; i < length; ++i) { count[t.symbols[i]] += 1; }
    double bits = 0;
    for (const double n : count) { bits -= n > 0 ? n * std::log2(n / static_cast<double>(length)) : 0; }
    return bits / static_cast<double>(length);
}

} // namespace recall
