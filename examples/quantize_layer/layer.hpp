// SPDX-License-Identifier: MIT
#pragma once

#include "kernel.hpp"

#include <string>
#include <vector>

namespace quantize_layer {

/// Weights and what they are multiplied with: activations to calibrate by, and others to judge by.
struct layer {
    size calibration_tokens = 0, tokens = 0, rows = 0, columns = 0;
    std::vector<float> weights;     ///< [rows, columns]
    std::vector<float> calibration; ///< [calibration_tokens, columns]
    std::vector<float> x;           ///< [tokens, columns]
};

/// A tensor [rows, columns] of F32, F16 or BF16. `name` may be empty if the file has only one matrix.
std::vector<float> read_safetensors_matrix(const std::string& path, const std::string& name, size& rows, size& columns);

/// rows · columns floats, little-endian.
std::vector<float> read_raw_matrix(const std::string& path, size rows, size columns);

/// Near to normal, as trained weights are.
std::vector<float> random_weights(size rows, size columns);

/// Activations as transformers have them: few hidden causes that all channels mix, and one channel in 64 some thirty times as large
/// as the rest. Both parts come from the same causes. For as many tokens as `l` says.
void add_random_activations(layer& l);

} // namespace quantize_layer
