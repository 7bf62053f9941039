// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/config.hpp>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

// Replaces the program's operator new by one that counts. For one file of a program: these can't be inline.

inline std::atomic<long> allocations{0};

inline void* counted(std::size_t bytes, std::size_t alignment)
{
    ++allocations;
    void* const p = std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
    if (p == nullptr) { throw std::bad_alloc(); }
    return p;
}

// Out of line: inlined, one half of a pair looks like a mismatch.
SEQMIX_NOINLINE void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
SEQMIX_NOINLINE void* operator new(std::size_t bytes, std::align_val_t alignment)
{
    return counted(bytes, static_cast<std::size_t>(alignment));
}
SEQMIX_NOINLINE void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept
{
    try {
        return counted(bytes, alignof(std::max_align_t));
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
SEQMIX_NOINLINE void operator delete(void* p) noexcept { std::free(p); }
SEQMIX_NOINLINE void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
SEQMIX_NOINLINE void operator delete(void* p, std::size_t) noexcept { std::free(p); }
SEQMIX_NOINLINE void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
SEQMIX_NOINLINE void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
