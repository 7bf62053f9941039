// SPDX-License-Identifier: MIT
#pragma once

#include "layer.hpp"

namespace quantize_layer {

/// Weights in a format, by a quantizer.
struct encoding {
    std::string name;
    format kind{};
    size group = 0; ///< columns that share a scale, of arrays
    std::vector<unsigned char> codes;
    std::vector<float> scales;
    std::vector<std::uint8_t> zeros; ///< or group scales
    std::vector<std::int32_t> order;
    std::vector<float> channel_scales; ///< by which weights were multiplied and activations are to be divided; empty: none
    std::vector<float> decoded;        ///< [rows, columns], of what is stored

    double bits_a_weight() const;
};

/// All that there are; formats in blocks that the columns are no multiple of are left out.
std::vector<encoding> encode_all(const layer& l);

} // namespace quantize_layer
