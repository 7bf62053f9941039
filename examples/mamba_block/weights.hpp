// SPDX-License-Identifier: MIT
#pragma once

#include "kernel.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace mamba_block {

struct tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
};

/// The tensors of one block by their names in the checkpoint, which begin with the layer's prefix: "norm.weight" before
/// the block, "mixer.in_proj.weight" and so on in it.
using tensors = std::map<std::string, tensor>;

/// Pseudo-random, the same everywhere, of the scale that training starts from (Gu & Dao 2023, section 3.6; PyTorch's
/// defaults for the projections), but for a larger x_proj and a smaller D, so that states weigh in the output as they
/// do in trained blocks. Shapes by the rules of the public checkpoints: inner = 2 model, width 4; for Mamba-1 16 states
/// and a rank of model / 16; for Mamba-2 128 states, one group and heads of 64 channels.
tensors random_mamba1(size model);
tensors random_mamba2(size model);

/// Those of a .safetensors file whose names begin with `prefix`, which is taken off; F32, F16 and BF16 are read. Throws
/// std::runtime_error that says what is wrong.
tensors read_tensors(const std::string& path, const std::string& prefix);

/// The weights as the blocks take them, of tensors that must outlive them. Sizes follow from the shapes, except for the
/// number of groups, which no shape tells. Throws std::runtime_error, naming the tensor and both values, where one is
/// missing or does not fit. Null if this is the other kind of block.
std::optional<mamba1_weights> as_mamba1(const tensors& all);
std::optional<mamba2_weights> as_mamba2(const tensors& all, size groups);

/// [count] about normally distributed numbers.
std::vector<float> random_tokens(size count);

} // namespace mamba_block
