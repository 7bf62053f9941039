// SPDX-License-Identifier: MIT
#pragma once

// Long convolutions: whole sequences by plans, streams token by token; Hyena; images; Monarch matrices; butterfly factors.
#include <seqmix/conv/apply.hpp>
#include <seqmix/conv/butterfly_factors.hpp>
#include <seqmix/conv/hyena.hpp>
#include <seqmix/conv/image_apply.hpp>
#include <seqmix/conv/kernels.hpp>
#include <seqmix/conv/monarch.hpp>
#include <seqmix/conv/monarch_causal.hpp>
#include <seqmix/conv/monarch_dft.hpp>
#include <seqmix/conv/monarch_mixer.hpp>
#include <seqmix/conv/monarch_projection.hpp>
#include <seqmix/conv/stream.hpp>
