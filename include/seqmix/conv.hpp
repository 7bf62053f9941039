// SPDX-License-Identifier: MIT
#pragma once

// Long convolutions: whole sequences by plans, streams token by token.
#include <seqmix/conv/apply.hpp>
#include <seqmix/conv/stream.hpp>
