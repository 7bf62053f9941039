// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/awq.hpp>
#include <seqmix/quant/block_float.hpp>
#include <seqmix/quant/channel_scales.hpp>
#include <seqmix/quant/decode.hpp>
#include <seqmix/quant/encode_arrays.hpp>
#include <seqmix/quant/encode_blocks.hpp>
#include <seqmix/quant/encode_clipped.hpp>
#include <seqmix/quant/encode_gptq.hpp>
#include <seqmix/quant/encode_two_level.hpp>
#include <seqmix/quant/experts.hpp>
#include <seqmix/quant/float8.hpp>
#include <seqmix/quant/gguf.hpp>
#include <seqmix/quant/gptq.hpp>
#include <seqmix/quant/hessian.hpp>
#include <seqmix/quant/integer.hpp>
#include <seqmix/quant/matmul.hpp>
#include <seqmix/quant/microscaling.hpp>
#include <seqmix/quant/pack.hpp>
#include <seqmix/quant/permuted.hpp>
#include <seqmix/quant/ternary.hpp>
#include <seqmix/quant/two_level.hpp>
#include <seqmix/quant/unpack.hpp>
