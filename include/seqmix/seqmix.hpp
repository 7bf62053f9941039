// SPDX-License-Identifier: MIT
#pragma once

// Every public header, except references and interop.
#include <seqmix/attention.hpp>
#include <seqmix/conv.hpp>
#include <seqmix/linear.hpp>
#include <seqmix/quant.hpp>
#include <seqmix/simd/build_info.hpp>
#include <seqmix/simd/denormals.hpp>
#include <seqmix/ssm.hpp>
#include <seqmix/tile/block.hpp>
#include <seqmix/tile/gemm.hpp>
#include <seqmix/tile/map.hpp>
#include <seqmix/tile/reduce.hpp>
#include <seqmix/tile/register_tile.hpp>
#include <seqmix/tile/triangular.hpp>
#include <seqmix/version.hpp>
