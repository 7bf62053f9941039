// SPDX-License-Identifier: MIT
#pragma once

// Quantized weight matrices: stored formats, their decoders and encoders.
#include <seqmix/quant/awq.hpp>
#include <seqmix/quant/block_float.hpp>
#include <seqmix/quant/decode.hpp>
#include <seqmix/quant/encode_arrays.hpp>
#include <seqmix/quant/encode_blocks.hpp>
#include <seqmix/quant/float8.hpp>
#include <seqmix/quant/gguf.hpp>
#include <seqmix/quant/gptq.hpp>
#include <seqmix/quant/microscaling.hpp>
#include <seqmix/quant/ternary.hpp>
