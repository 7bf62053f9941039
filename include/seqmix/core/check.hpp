// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <initializer_list>
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

/// A word or a number of a message.
class message_piece {
public:
    constexpr message_piece(const char* text) : text_(text) {}
    constexpr message_piece(index number) : number_(number) {}
    constexpr message_piece(int number) : number_(number) {}
    constexpr message_piece(double number) : real_(number), is_real_(true) {}

    std::string str() const
    {
        return text_ != nullptr ? std::string(text_) : is_real_ ? std::to_string(real_) : std::to_string(number_);
    }

private:
    const char* text_ = nullptr;
    index number_ = 0;
    double real_ = 0.0;
    bool is_real_ = false;
};

/// Checks for one public function: `door` is its name, which begins every message.
class checker {
public:
    constexpr explicit checker(const char* door) : door_(door) {}

    /// For one of several of a kind: messages begin with "door: route 1: ", without a number if that is negative.
    constexpr checker of(const char* part, index number = -1) const
    {
        checker one(door_);
        one.part_ = part, one.number_ = number;
        return one;
    }

    /// Refuses with "door: a <x> b <y> c" unless `holds`; the message is put together only then, and out of the way.
    template <class... Pieces>
    void require(bool holds, const Pieces&... pieces) const
    {
        if (!holds) [[unlikely]] { fail({message_piece(pieces)...}); }
    }

    /// Two extents that must be the same number.
    void equal(index got, index want, const char* what, const char* of_what) const
    {
        require(got == want, what, " is ", got, ", but ", of_what, " is ", want);
    }

private:
    [[noreturn]] SEQMIX_NOINLINE void fail(std::initializer_list<message_piece> pieces) const
    {
        std::string message = door_;
        message += ": ";
        if (part_ != nullptr) {
            message += part_ + (number_ < 0 ? std::string() : " " + std::to_string(number_)) + ": ";
        }
        for (const message_piece& piece : pieces) { message += piece.str(); }
        refuse(message);
    }

    const char* door_;
    const char* part_ = nullptr;
    index number_ = -1;
};

SEQMIX_NAMESPACE_END
