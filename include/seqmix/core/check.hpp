// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <string>
#if SEQMIX_EXCEPTIONS
#include <stdexcept>
#elif !defined(SEQMIX_ERROR_HANDLER)
#include <cstdio>
#include <cstdlib>
#endif

SEQMIX_NAMESPACE_BEGIN

/// Refuses a call at the public door. Throws std::invalid_argument; where exceptions are off, calls
/// SEQMIX_ERROR_HANDLER(const char*), a function of the program's that does not return, or else prints and aborts.
/// Nothing has been written when this is called: every door checks all that it was given before it touches an output.
[[noreturn]] SEQMIX_NOINLINE inline void refuse(const std::string& message)
{
#if SEQMIX_EXCEPTIONS
    throw std::invalid_argument(message);
#elif defined(SEQMIX_ERROR_HANDLER)
    SEQMIX_ERROR_HANDLER(message.c_str());
#else
    std::fputs(message.c_str(), stderr);
    std::fputc('\n', stderr);
    std::abort();
#endif
}

/// Checks for one public function: `door` is its name, which begins every message.
class checker {
public:
    constexpr explicit checker(const char* door) : door_(door) {}

    /// Refuses with "door: a <x> b <y> c" unless `holds`; the pieces are put together only then.
    template <class... Pieces>
    void require(bool holds, const Pieces&... pieces) const
    {
        if (!holds) [[unlikely]] {
            std::string message = door_;
            message += ": ";
            (append(message, pieces), ...);
            refuse(message);
        }
    }

    /// Two extents that must be the same number.
    void equal(index got, index want, const char* what, const char* of_what) const
    {
        require(got == want, what, " is ", got, ", but ", of_what, " is ", want);
    }

private:
    static void append(std::string& message, const char* text) { message += text; }
    static void append(std::string& message, index number) { message += std::to_string(number); }
    static void append(std::string& message, int number) { message += std::to_string(number); }
    static void append(std::string& message, double number) { message += std::to_string(number); }

    const char* door_;
};

SEQMIX_NAMESPACE_END
