// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/check.hpp>

#include <cstddef>
#include <new>

SEQMIX_NAMESPACE_BEGIN

/// Scratch starts on a cache line, which is also the widest vector.
inline constexpr std::size_t scratch_alignment = 64;

/// Scratch memory that the caller may own and reuse. Either grows on demand and keeps what it has (the second call of the
/// same size allocates nothing), or stands on memory of the caller's and refuses what does not fit.
class workspace {
public:
    workspace() = default;

    /// Stands on the caller's memory, which must outlive it; never allocates.
    workspace(void* memory, std::size_t bytes) : data_(static_cast<std::byte*>(memory)), size_(bytes), owned_(false) {}

    workspace(workspace&& other) noexcept : data_(other.data_), size_(other.size_), owned_(other.owned_)
    {
        other.data_ = nullptr;
        other.size_ = 0;
    }
    workspace& operator=(workspace&& other) noexcept
    {
        if (this != &other) {
            release();
            data_ = other.data_;
            size_ = other.size_;
            owned_ = other.owned_;
            other.data_ = nullptr;
            other.size_ = 0;
        }
        return *this;
    }
    workspace(const workspace&) = delete;
    workspace& operator=(const workspace&) = delete;
    ~workspace() { release(); }

    /// At least `bytes` of scratch on a scratch_alignment border; what it held before is lost.
    std::byte* reserve(std::size_t bytes)
    {
        if (owned_) {
            if (bytes > size_) {
                release();
                data_ = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{scratch_alignment}));
                size_ = bytes;
            }
            return data_;
        }
        const auto misplaced = reinterpret_cast<std::uintptr_t>(data_) % scratch_alignment;
        const std::size_t skip = misplaced == 0 ? 0 : scratch_alignment - misplaced;
        checker("workspace").require(skip + bytes <= size_, "memory has ", static_cast<index>(size_),
                                     " bytes, but the call needs ", static_cast<index>(skip + bytes));
        return data_ + skip;
    }

    /// Bytes held at present.
    std::size_t size() const { return size_; }

private:
    void release()
    {
        if (owned_ && data_ != nullptr) { ::operator delete(data_, std::align_val_t{scratch_alignment}); }
        data_ = nullptr;
        size_ = 0;
    }

    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    bool owned_ = true;
};

/// Hands out aligned pieces of one block of scratch. Run once on a null block it only adds up what would be needed, so
/// that a kernel states its scratch in one place: a function that takes the pieces.
class arena {
public:
    constexpr explicit arena(std::byte* block = nullptr) : block_(block) {}

    template <class T>
    T* take(index count)
    {
        const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
        auto* piece = block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + used_);
        used_ += (bytes + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
        return piece;
    }

    std::size_t used() const { return used_; }

private:
    std::byte* block_;
    std::size_t used_ = 0;
};

SEQMIX_NAMESPACE_END
