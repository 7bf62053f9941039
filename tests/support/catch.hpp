// SPDX-License-Identifier: MIT
#pragma once

// Catch2 of either major version. Assertions without a try block of their own compile faster: whoever throws where nothing may be
// thrown ends the test case, which fails.
#define CATCH_CONFIG_FAST_COMPILE
#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_message.hpp>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#else
#include <catch2/catch.hpp>
#endif
