// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

SEQMIX_NAMESPACE_BEGIN

/// How the sums over time of a recurrence are arranged.
enum class form {
    automatic, ///< whichever costs less
    recurrent, ///< token by token
    chunked,   ///< chunks of tokens by matrix products
};

/// The state of a recurrence in the caller's memory: a view of float, or of bf16 where memory is dear (the state is then rounded
/// once whenever it is stored, 2^-8 relative). Null stands for "not given". `Float` and `Bf16` are both const or neither.
template <class Float, class Bf16, std::size_t Rank>
class basic_state_view {
public:
    constexpr basic_state_view() = default;
    constexpr basic_state_view(const view<Float, Rank>& v) : float_(v) {}
    constexpr basic_state_view(const view<Bf16, Rank>& v) : bf16_(v), is_bf16_(true) {}
    /// One that may write, or a view that may, serves where one that only reads is asked for.
    constexpr basic_state_view(const view<std::remove_const_t<Float>, Rank>& v)
        requires std::is_const_v<Float>
        : float_(v)
    {
    }
    constexpr basic_state_view(const view<std::remove_const_t<Bf16>, Rank>& v)
        requires std::is_const_v<Float>
        : bf16_(v), is_bf16_(true)
    {
    }
    template <class F, class B>
        requires(std::is_const_v<Float> && std::is_same_v<const F, Float> && std::is_same_v<const B, Bf16>)
    constexpr basic_state_view(const basic_state_view<F, B, Rank>& v)
        : float_(v.as_float()), bf16_(v.as_bf16()), is_bf16_(v.is_bf16())
    {
    }

    constexpr explicit operator bool() const { return is_bf16_ ? bool(bf16_) : bool(float_); }
    constexpr bool is_bf16() const { return is_bf16_; }
    constexpr index extent(std::size_t axis) const { return is_bf16_ ? bf16_.extent(axis) : float_.extent(axis); }
    constexpr const view<Float, Rank>& as_float() const { return float_; }
    constexpr const view<Bf16, Rank>& as_bf16() const { return bf16_; }

    /// Calls body with the view that it is.
    template <class Body>
    constexpr decltype(auto) visit(Body&& body) const
    {
        return is_bf16_ ? body(bf16_) : body(float_);
    }

    /// The state of one sequence; null if this is.
    constexpr basic_state_view<Float, Bf16, Rank - 1> operator[](index item) const
        requires(Rank >= 2)
    {
        if (!*this) { return {}; }
        return is_bf16_ ? basic_state_view<Float, Bf16, Rank - 1>(bf16_[item]) : basic_state_view<Float, Bf16, Rank - 1>(float_[item]);
    }

private:
    view<Float, Rank> float_;
    view<Bf16, Rank> bf16_;
    bool is_bf16_ = false;
};

template <std::size_t Rank>
using state_view = basic_state_view<float, bf16, Rank>;
template <std::size_t Rank>
using const_state_view = basic_state_view<const float, const bf16, Rank>;

template <class Float, class Bf16, std::size_t Rank>
byte_range reach(const basic_state_view<Float, Bf16, Rank>& v)
{
    return v.visit([](const auto& stored) { return reach(stored); });
}

SEQMIX_NAMESPACE_END
