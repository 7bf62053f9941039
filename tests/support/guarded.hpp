// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#include <unistd.h>
#endif

// Memory that notices what should not happen to it.

/// n elements between canaries, filled with ones: NaN in every float format, -1 in every integer. `misaligned` bytes
/// beyond a 64-byte border; a multiple of alignof(T), or the elements are no objects.
template <class T>
class guarded {
public:
    explicit guarded(seqmix::index n, std::size_t misaligned = 0)
        : bytes_(static_cast<std::size_t>(n) * sizeof(T)), memory_(3 * margin + misaligned + bytes_, canary)
    {
        void* at = memory_.data();
        std::size_t space = memory_.size();
        std::align(margin, 1, at, space);
        data_ = static_cast<unsigned char*>(at) + margin + misaligned;
        std::memset(data_, 0xff, bytes_);
    }
    guarded(const guarded&) = delete;
    guarded& operator=(const guarded&) = delete;

    T* data() { return reinterpret_cast<T*>(data_); }
    const T* data() const { return reinterpret_cast<const T*>(data_); }
    T& operator[](seqmix::index i) { return data()[i]; }
    const T& operator[](seqmix::index i) const { return data()[i]; }
    seqmix::index size() const { return static_cast<seqmix::index>(bytes_ / sizeof(T)); }
    T* begin() { return data(); }
    T* end() { return data() + size(); }

    /// Whether nothing has been written before the elements or behind them.
    bool intact() const
    {
        const auto untouched = [](unsigned char byte) { return byte == canary; };
        const unsigned char* const first = memory_.data();
        return std::all_of(first, static_cast<const unsigned char*>(data_), untouched) &&
               std::all_of(static_cast<const unsigned char*>(data_) + bytes_, first + memory_.size(), untouched);
    }

    /// Whether element i is still as it was made.
    bool untouched(seqmix::index i) const
    {
        const unsigned char* const at = data_ + static_cast<std::size_t>(i) * sizeof(T);
        return std::all_of(at, at + sizeof(T), [](unsigned char byte) { return byte == 0xff; });
    }

private:
    static constexpr unsigned char canary = 0xa5;
    static constexpr std::size_t margin = 64;

    std::size_t bytes_;
    std::vector<unsigned char> memory_;
    unsigned char* data_ = nullptr;
};

/// n elements that end where memory ends: reading one more is a fault. (Where there is no mmap, only a sanitizer sees
/// it.)
template <class T>
class at_the_edge {
public:
    explicit at_the_edge(seqmix::index n)
    {
        const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(T);
#if __has_include(<sys/mman.h>)
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t readable = (bytes + page - 1) / page * page + page;
        size_ = readable + page;
        void* const memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) { throw std::bad_alloc(); }
        block_ = static_cast<unsigned char*>(memory);
        if (mprotect(block_ + readable, page, PROT_NONE) != 0) { throw std::bad_alloc(); }
        data_ = reinterpret_cast<T*>(block_ + readable - bytes);
#else
        memory_.resize(bytes);
        data_ = reinterpret_cast<T*>(memory_.data());
#endif
    }
    at_the_edge(const at_the_edge&) = delete;
    at_the_edge& operator=(const at_the_edge&) = delete;
#if __has_include(<sys/mman.h>)
    ~at_the_edge() { munmap(block_, size_); }
#endif

    T* data() { return data_; }
    T& operator[](seqmix::index i) { return data_[i]; }

private:
#if __has_include(<sys/mman.h>)
    unsigned char* block_ = nullptr;
    std::size_t size_ = 0;
#else
    std::vector<unsigned char> memory_;
#endif
    T* data_ = nullptr;
};
