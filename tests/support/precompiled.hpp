// SPDX-License-Identifier: MIT
#pragma once

// What nearly every test includes and what takes longest to read. A file names what it uses all the same.
#include "catch.hpp"
#include "random.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/simd/math.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>
