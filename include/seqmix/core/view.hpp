// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

SEQMIX_NAMESPACE_BEGIN

/// A window on somebody's numbers: pointer, extents, strides (in elements, any sign). Owns nothing, copies cheaply.
/// Elements need no alignment beyond that of T. A default-constructed view is null and stands for "not given".
template <class T, std::size_t Rank>
class view {
    static_assert(Rank >= 1);

public:
    using element = T;
    static constexpr std::size_t rank = Rank;

    constexpr view() = default;

    /// Contiguous, last axis fastest.
    template <class Extent>
    constexpr view(T* data, const Extent (&extents)[Rank]) : data_(data)
    {
        index stride = 1;
        for (std::size_t axis = Rank; axis-- > 0;) {
            extents_[axis] = static_cast<index>(extents[axis]);
            strides_[axis] = stride;
            stride *= extents_[axis];
        }
    }

    /// Any strides, in elements.
    template <class Extent, class Stride>
    constexpr view(T* data, const Extent (&extents)[Rank], const Stride (&strides)[Rank]) : data_(data)
    {
        for (std::size_t axis = 0; axis < Rank; ++axis) {
            extents_[axis] = static_cast<index>(extents[axis]);
            strides_[axis] = static_cast<index>(strides[axis]);
        }
    }

    constexpr view(T* data, const std::array<index, Rank>& extents, const std::array<index, Rank>& strides)
        : data_(data), extents_(extents), strides_(strides)
    {
    }

    /// A view that may write serves where one that only reads is asked for.
    constexpr operator view<const T, Rank>() const
        requires(!std::is_const_v<T>)
    {
        return {data_, extents_, strides_};
    }

    constexpr T* data() const { return data_; }
    constexpr index extent(std::size_t axis) const { return extents_[axis]; }
    constexpr index stride(std::size_t axis) const { return strides_[axis]; }
    constexpr const std::array<index, Rank>& extents() const { return extents_; }
    constexpr const std::array<index, Rank>& strides() const { return strides_; }
    constexpr explicit operator bool() const { return data_ != nullptr; }

    constexpr index size() const
    {
        index n = 1;
        for (index e : extents_) { n *= e; }
        return n;
    }
    constexpr bool empty() const { return size() == 0; }

    template <class... Index>
        requires(sizeof...(Index) == Rank)
    constexpr T& operator()(Index... at) const
    {
        std::size_t axis = 0;
        index offset = 0;
        ((offset += static_cast<index>(at) * strides_[axis++]), ...);
        return data_[offset];
    }

    /// Fixes `axis` at `at`.
    constexpr view<T, Rank - 1> select(std::size_t axis, index at) const
        requires(Rank >= 2)
    {
        std::array<index, Rank - 1> extents{}, strides{};
        for (std::size_t from = 0, to = 0; from < Rank; ++from) {
            if (from == axis) { continue; }
            extents[to] = extents_[from];
            strides[to++] = strides_[from];
        }
        return {data_ + at * strides_[axis], extents, strides};
    }

    /// Fixes the first axis.
    constexpr view<T, Rank - 1> operator[](index at) const
        requires(Rank >= 2)
    {
        return select(0, at);
    }

    /// Keeps [begin, end) of `axis`.
    constexpr view slice(std::size_t axis, index begin, index end) const
    {
        view v = *this;
        v.data_ += begin * strides_[axis];
        v.extents_[axis] = end - begin;
        return v;
    }

    /// Swaps two axes; moves nothing.
    constexpr view transposed(std::size_t a, std::size_t b) const
    {
        view v = *this;
        v.extents_[a] = extents_[b];
        v.extents_[b] = extents_[a];
        v.strides_[a] = strides_[b];
        v.strides_[b] = strides_[a];
        return v;
    }

    /// Runs through `axis` from its end; moves nothing.
    constexpr view reversed(std::size_t axis) const
    {
        view v = *this;
        if (extents_[axis] > 0) { v.data_ += (extents_[axis] - 1) * strides_[axis]; }
        v.strides_[axis] = -strides_[axis];
        return v;
    }

private:
    T* data_ = nullptr;
    std::array<index, Rank> extents_{};
    std::array<index, Rank> strides_{};
};

template <class T, class Extent, std::size_t Rank>
view(T*, const Extent (&)[Rank]) -> view<T, Rank>;
template <class T, class Extent, class Stride, std::size_t Rank>
view(T*, const Extent (&)[Rank], const Stride (&)[Rank]) -> view<T, Rank>;

/// The same numbers with a first axis of one element.
template <class T, std::size_t Rank>
constexpr view<T, Rank + 1> with_leading_axis(const view<T, Rank>& v)
{
    std::array<index, Rank + 1> extents{1}, strides{0};
    for (std::size_t axis = 0; axis < Rank; ++axis) { extents[axis + 1] = v.extent(axis), strides[axis + 1] = v.stride(axis); }
    return {v.data(), extents, strides};
}

/// An operand that is spread over a larger shape by the usual rule: extents are matched from the last axis, and an axis
/// that is missing or has extent 1 is repeated. Built from a view of any rank up to `Rank`.
template <class T, std::size_t Rank>
class broadcast_view {
public:
    constexpr broadcast_view() = default;

    template <class U, std::size_t From>
        requires(From <= Rank && std::is_convertible_v<U*, T*>)
    constexpr broadcast_view(const view<U, From>& v)
    {
        std::array<index, Rank> extents{}, strides{};
        extents.fill(1);
        for (std::size_t axis = 0; axis < From; ++axis) {
            extents[Rank - From + axis] = v.extent(axis);
            strides[Rank - From + axis] = v.extent(axis) == 1 ? 0 : v.stride(axis);
        }
        view_ = view<T, Rank>(v.data(), extents, strides);
    }

    constexpr explicit operator bool() const { return view_.data() != nullptr; }
    constexpr index extent(std::size_t axis) const { return view_.extent(axis); }
    constexpr index stride(std::size_t axis) const { return view_.stride(axis); }
    constexpr T* data() const { return view_.data(); }
    constexpr const view<T, Rank>& stored() const { return view_; }

    /// Whether this can be spread over `shape`.
    constexpr bool fits(const std::array<index, Rank>& shape) const
    {
        for (std::size_t axis = 0; axis < Rank; ++axis) {
            if (view_.extent(axis) != 1 && view_.extent(axis) != shape[axis]) { return false; }
        }
        return true;
    }

private:
    view<T, Rank> view_;
};

/// The bytes between the first and the last element that a view can reach; empty views reach none.
struct byte_range {
    std::uintptr_t begin = 0, end = 0;
    constexpr bool overlaps(const byte_range& other) const { return begin < other.end && other.begin < end; }
};

template <class T, std::size_t Rank>
byte_range reach(const view<T, Rank>& v)
{
    if (!v || v.empty()) { return {}; }
    index low = 0, high = 0;
    for (std::size_t axis = 0; axis < Rank; ++axis) {
        const index far = (v.extent(axis) - 1) * v.stride(axis);
        (far < 0 ? low : high) += far;
    }
    const auto at = reinterpret_cast<std::uintptr_t>(v.data());
    const auto size = static_cast<index>(sizeof(T));
    return {at + static_cast<std::uintptr_t>(low * size), at + static_cast<std::uintptr_t>((high + 1) * size)};
}

template <class T, std::size_t Rank>
byte_range reach(const broadcast_view<T, Rank>& v)
{
    return v ? reach(v.stored()) : byte_range{};
}

SEQMIX_NAMESPACE_END
