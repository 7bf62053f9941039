// SPDX-License-Identifier: MIT
#pragma once

// Tiled exact attention: attention::forward, forward_packed, merge.
#include <seqmix/attention/forward.hpp>
#include <seqmix/attention/merge.hpp>
