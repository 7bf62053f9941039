// SPDX-License-Identifier: MIT
#pragma once

// The one place where the version stands; CMake reads it from here.
#define SEQMIX_VERSION_MAJOR 0
#define SEQMIX_VERSION_MINOR 1
#define SEQMIX_VERSION_PATCH 0
#define SEQMIX_VERSION (SEQMIX_VERSION_MAJOR * 10000 + SEQMIX_VERSION_MINOR * 100 + SEQMIX_VERSION_PATCH)
#define SEQMIX_VERSION_STRING "0.1.0"
