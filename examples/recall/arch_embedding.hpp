// SPDX-License-Identifier: MIT
#pragma once

#include "kernel.hpp"

#include <seqmix/core/view.hpp>
#include <seqmix/simd/arch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

// Keys and values of a text. This header and the other arch_*.hpp are parts of run_arch.cpp, for SEQMIX_RECALL_ARCH.
// Without a name of its own for every instruction set, the linker would keep one copy for all: hence no name at all.
namespace {

namespace sm = seqmix;
using arch = sm::arch::SEQMIX_RECALL_ARCH;
using recall::cost, recall::problem, recall::sink;
using sm::index;

/// Appends the key of a hash: the bits as signs.
template <class T>
void append_key(std::uint64_t hash, std::vector<T>& keys)
{
    for (index bit = 0; bit < recall::key_size; ++bit) {
        keys.push_back(static_cast<T>((hash >> bit & 1) != 0 ? 0.125f : -0.125f));
    }
}

/// Appends the value of a symbol: 1 in its channel, 0 in the others.
template <class T>
void append_one_hot(index symbol, index channels, std::vector<T>& values)
{
    values.resize(values.size() + static_cast<std::size_t>(channels), static_cast<T>(0.0f));
    (&values.back())[1 - channels + symbol] = static_cast<T>(1.0f);
}

/// A stretch of the text, embedded. Keys serve as queries too: both are what stands before a byte.
template <class T>
class memory {
public:
    memory(const problem& p, index block) : problem_(p)
    {
        const index most = p.window > 0 ? std::min(p.window + block, p.length) : p.length;
        keys_.reserve(static_cast<std::size_t>(most * key_stride()));
        values_.reserve(static_cast<std::size_t>(most * p.channels));
    }

    /// Forgets what lies before `first`, embeds what is new before `last`.
    void hold(index first, index last)
    {
        drop(keys_, (first - first_) * key_stride());
        drop(values_, (first - first_) * problem_.channels);
        first_ = first;
        for (; last_ < last; ++last_) { embed(last_); }
    }

    sm::view<const T, 4> contexts(index first, index last) const
    {
        return {keys_.data() + (first - first_) * key_stride(),
                {index{1}, problem_.heads, last - first, recall::key_size},
                {index{0}, recall::key_size, key_stride(), index{1}}};
    }

    /// All heads look at the same bytes, hence the stride 0.
    sm::view<const T, 4> values(index first, index last) const
    {
        return {values_.data() + (first - first_) * problem_.channels,
                {index{1}, problem_.heads, last - first, problem_.channels},
                {index{0}, index{0}, problem_.channels, index{1}}};
    }

private:
    index key_stride() const { return problem_.heads * recall::key_size; }

    static void drop(std::vector<T>& from, index count) { from.erase(from.begin(), from.begin() + count); }

    void embed(index at)
    {
        for (index head = 0; head < problem_.heads; ++head) {
            append_key(problem_.contexts[at * problem_.heads + head], keys_);
        }
        append_one_hot(problem_.symbols[at], problem_.channels, values_);
    }

    problem problem_;
    index first_ = 0, last_ = 0;
    std::vector<T> keys_;   // [positions][heads][key_size]
    std::vector<T> values_; // [positions][channels]
};

} // namespace
