// SPDX-License-Identifier: MIT
#pragma once

// State spaces: selective scan (Mamba), state-space duality (Mamba-2), their steps and convolutions, time-invariant relatives.
#include <seqmix/ssm/causal_conv1d.hpp>
#include <seqmix/ssm/cross_scan.hpp>
#include <seqmix/ssm/diagonal.hpp>
#include <seqmix/ssm/legendre_memory.hpp>
#include <seqmix/ssm/selective_scan.hpp>
#include <seqmix/ssm/ssd.hpp>
#include <seqmix/ssm/step.hpp>
