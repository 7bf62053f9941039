// SPDX-License-Identifier: MIT
#pragma once

// Linear attention and its relatives: gated, delta and DPLR rules by one chunkwise engine, in several directions, their steps; HGRN;
// test-time training.
#include <seqmix/linear/cross_scan.hpp>
#include <seqmix/linear/forward.hpp>
#include <seqmix/linear/hgrn.hpp>
#include <seqmix/linear/step.hpp>
#include <seqmix/linear/test_time_training.hpp>
