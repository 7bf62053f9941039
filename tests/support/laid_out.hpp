// SPDX-License-Identifier: MIT
#pragma once

#include "guarded.hpp"

#include <seqmix/core/view.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <vector>

// Operands of any strides in guarded memory, and what tests do with all of their elements.

// A namespace, because POSIX has an index of its own in the global one.
namespace test_support {

namespace sm = seqmix;
using sm::bf16;
using sm::index;

/// How much to run: emulated, everything takes some fifty times as long, and some ten times where every access is watched.
#if defined(__aarch64__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool thorough = false;
#else
inline constexpr bool thorough = true;
#endif

template <class T>
inline constexpr const char* type_name = std::is_same_v<T, float>  ? "f32"
                                         : std::is_same_v<T, bf16> ? "bf16"
                                                                   : "f16";

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// How an operand lies in memory; time is its last axis. Last: channels or states are contiguous, as in [B, L, D].
enum class lie { first, last, spaced, spaced_last, padded, time_reversed, last_time_reversed, all_reversed };
inline constexpr lie all_lies[] = {lie::first,
                                   lie::last,
                                   lie::spaced,
                                   lie::spaced_last,
                                   lie::padded,
                                   lie::time_reversed,
                                   lie::last_time_reversed,
                                   lie::all_reversed};

/// Calls body(element, place...) for all of a view.
template <class T, std::size_t Rank, class Body, class... At>
void for_each(const sm::view<T, Rank>& v, const Body& body, At... at)
{
    for (index i = 0; i < v.extent(0); ++i) {
        if constexpr (Rank == 1) {
            body(v(i), at..., i);
        } else {
            for_each(v[i], body, at..., i);
        }
    }
}

/// Guarded memory of a view, NaN to begin with, `skipped` elements off a border of 64 bytes.
template <class T, std::size_t Rank>
class laid_out {
public:
    laid_out() = default;
    laid_out(const std::array<index, Rank>& extents, lie how, std::size_t skipped = 0)
    {
        std::array<std::size_t, Rank> order{}; // the axes, the slowest first
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (Rank > 1 && (how == lie::last || how == lie::spaced_last || how == lie::last_time_reversed)) {
            std::rotate(order.begin() + (Rank > 2 ? 1 : 0), order.end() - 1, order.end());
        }
        std::array<index, Rank> strides{};
        index size = how == lie::spaced ? 3 : how == lie::spaced_last ? 2 : 1;
        for (std::size_t i = Rank; i-- > 0;) {
            strides[order[i]] = size;
            size *= extents[order[i]];
            if (i + 1 == Rank && how == lie::padded && Rank > 1) { size += 5; }
        }
        memory_ = std::make_unique<guarded<T>>(size, skipped * sizeof(T));
        view_ = {memory_->data(), extents, strides};
        if (how == lie::time_reversed || how == lie::last_time_reversed) { view_ = view_.reversed(Rank - 1); }
        for (std::size_t axis = 0; axis < Rank && how == lie::all_reversed; ++axis) { view_ = view_.reversed(axis); }
    }

    /// Null where nothing has been laid out.
    const sm::view<T, Rank>& operator()() const { return view_; }

    template <class Number>
    void fill(const Number& number)
    {
        test_support::for_each(view_, [&](T& x, auto...) { x = static_cast<T>(number()); });
    }
    template <class Other>
    void copy(const Other& from)
    {
        test_support::for_each(view_, [&](T& x, auto... at) { x = static_cast<T>(static_cast<float>(from(at...))); });
    }

    /// Whether what the view does not reach, and only that, is as it was made.
    bool written_exactly() const
    {
        return !memory_ || (memory_->intact() && unwritten() == memory_->size() - view_.size());
    }
    bool untouched() const { return !memory_ || (memory_->intact() && unwritten() == memory_->size()); }

private:
    /// Elements as they were made; -1 if one that the view does not reach is not.
    index unwritten() const
    {
        std::vector<bool> reached(static_cast<std::size_t>(memory_->size()));
        test_support::for_each(view_,
                            [&](T& x, auto...) { reached[static_cast<std::size_t>(&x - memory_->data())] = true; });
        index count = 0;
        for (index i = 0; i < memory_->size(); ++i) {
            const bool as_made = memory_->untouched(i);
            if (!as_made && !reached[static_cast<std::size_t>(i)]) { return -1; }
            count += as_made;
        }
        return count;
    }

    std::unique_ptr<guarded<T>> memory_;
    sm::view<T, Rank> view_;
};

/// Whether two views hold the same bits, any NaN being the same as any other.
template <class T, class U, std::size_t Rank>
bool same_bits(const sm::view<T, Rank>& a, const sm::view<U, Rank>& b)
{
    static_assert(std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>);
    bool same = a.extents() == b.extents();
    if (!same) { return false; }
    for_each(a, [&](const T& x, auto... at) {
        const U& y = b(at...);
        const bool both_nan = std::isnan(static_cast<float>(x)) && std::isnan(static_cast<float>(y));
        same = same && (both_nan || std::memcmp(&x, &y, sizeof x) == 0);
    });
    return same;
}

struct range {
    float low, high;
};

} // namespace test_support
