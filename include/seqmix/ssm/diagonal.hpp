// SPDX-License-Identifier: MIT
#pragma once

// Diagonal linear time-invariant state spaces with complex eigenvalues.
#include <seqmix/ssm/diagonal_scan.hpp>
#include <seqmix/ssm/discretize.hpp>
#include <seqmix/ssm/s4d.hpp>
#include <seqmix/ssm/s4d_kernel.hpp>
