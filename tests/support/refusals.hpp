// SPDX-License-Identifier: MIT
#pragma once

#include "catch.hpp"
#include "guarded.hpp"

#include <seqmix/core/view.hpp>

#include <array>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

// Calls that must be refused, with messages that say why, and with all memory as it was.

inline std::string message_of(const std::function<void()>& call)
{
    try {
        call();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "(nothing thrown)";
}

inline void check_message(const std::string& name, const std::string& message, const std::vector<const char*>& texts)
{
    INFO(name << ": " << message);
    for (const char* text : texts) {
        INFO("lacks: " << text);
        CHECK(message.find(text) != std::string::npos);
    }
}

/// The call must throw, with all the texts in its message.
inline void check_refused(const std::string& name, const std::vector<const char*>& texts, const std::function<void()>& call)
{
    check_message(name, message_of(call), texts);
}

/// Whether all is still as it was made, and nothing has been written around it.
template <class T>
bool all_untouched(const guarded<T>& memory)
{
    for (seqmix::index i = 0; i < memory.size(); ++i) {
        if (!memory.untouched(i)) { return false; }
    }
    return memory.intact();
}

/// Memory of operands, which calls leave as it is.
inline std::vector<float> minus_ones(std::size_t n) { return std::vector<float>(n, -1.0f); }
inline bool all_minus_ones(std::initializer_list<const std::vector<float>*> memories)
{
    for (const auto* memory : memories) {
        if (*memory != minus_ones(memory->size())) { return false; }
    }
    return true;
}

template <class T, std::size_t Rank>
seqmix::view<T, Rank> null(const seqmix::view<T, Rank>& v)
{
    return {nullptr, v.extents(), v.strides()};
}
template <class T, std::size_t Rank>
seqmix::view<T, Rank> resized(const seqmix::view<T, Rank>& v, std::size_t axis, seqmix::index extent)
{
    std::array<seqmix::index, Rank> extents = v.extents();
    extents[axis] = extent;
    return {v.data(), extents, v.strides()};
}

/// One thing made wrong about a call that is right, and what must be said of it.
template <class Call>
struct refusal {
    const char* name;
    std::function<void(Call&)> spoil;
    std::vector<const char*> message;
};

/// `Call` has call() and untouched(); `door` begins every message.
template <class Call>
void check_refusals(const char* door, const std::vector<refusal<Call>>& refusals)
{
    for (const refusal<Call>& r : refusals) {
        Call c;
        r.spoil(c);
        const std::string message = message_of([&] { c.call(); });
        check_message(r.name, message, r.message);
        INFO(r.name << ": " << message);
        CHECK(message.find(door) == 0);
        CHECK(c.untouched());
    }
}
