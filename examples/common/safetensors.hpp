// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace formats {

/// A tensor of a file; its bytes stand in the file's buffer, at any alignment, dense and little-endian.
struct tensor {
    std::string name;
    std::string dtype; ///< as the file spells it: "F32", "BOOL", …
    std::vector<std::int64_t> shape;
    std::size_t begin = 0, end = 0; ///< in safetensors::buffer
};

struct safetensors {
    std::vector<std::pair<std::string, std::string>> metadata; ///< the header's __metadata__
    std::vector<tensor> tensors;                               ///< in the order of their data
    std::vector<unsigned char> buffer;
};

/// Reads and checks a file; nothing in it is trusted. Throws std::runtime_error that says what is wrong.
safetensors read_safetensors(const std::string& path);

/// The same for bytes that stand in memory already.
safetensors parse_safetensors(const std::vector<unsigned char>& file);

} // namespace formats
