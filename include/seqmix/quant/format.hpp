// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

// What a stored format is: numbers that small codes stand for, and how a weight comes from one.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// How a weight comes from the value of its code and from what its group shares. Every operation rounds to float once, in this order.
enum class affine {
    scale_only,     ///< w = scale · value
    scale_and_min,  ///< w = scale · value - min
    scale_and_zero, ///< w = scale · (value - zero), zero an integer
};

/// A format: `bits` a code, the number value(code) that a code stands for (exact), what a group shares.
/// Where `integer_codes`, value(code) = unit · an integer in [-128, 127], and unit is a power of two.
/// Where `two_levels`, a block has one scale (and min), and each of its groups a small integer to multiply it by; of formats without
/// blocks a row has one scale.
/// Where `matrix_scale`, the weight is multiplied by a number of the whole matrix at last.
template <class F>
concept format = requires(std::uint8_t code) {
    { F::name } -> std::convertible_to<const char*>;
    { F::bits } -> std::convertible_to<int>;
    { F::integer_codes } -> std::convertible_to<bool>;
    { F::unit } -> std::convertible_to<float>;
    { F::form } -> std::convertible_to<affine>;
    { F::two_levels } -> std::convertible_to<bool>;
    { F::matrix_scale } -> std::convertible_to<bool>;
    { F::value(code) } -> std::same_as<float>;
    { static_cast<float>(typename F::scale_type{}) } -> std::same_as<float>;
    { F::block } -> std::convertible_to<index>;
};

/// One scale a row, and for each group a small integer: w = scale · (group scale · value). What is in brackets
/// fits a signed byte.
template <class F>
concept row_scaled = format<F> && F::two_levels && F::block == 0;

namespace detail {

/// What the groups of a block share, as stored.
template <class F, bool two_levels>
struct scales_of_block {
    static constexpr index groups = F::block / F::group;

    typename F::scale_type scales[groups]{};
    typename F::scale_type mins[groups]{}; ///< zeros unless scale_and_min

    bool operator==(const scales_of_block&) const = default;
};
template <class F>
struct scales_of_block<F, true> {
    static constexpr index groups = F::block / F::group;

    typename F::scale_type scale{};
    typename F::scale_type min{}; ///< zero, as sub_mins, unless scale_and_min
    std::int8_t sub_scales[groups]{};
    std::uint8_t sub_mins[groups]{};

    bool operator==(const scales_of_block&) const = default;
};

} // namespace detail

/// One block of a row, unpacked: a byte a code, scales as they are stored.
template <class F>
struct stored_block : detail::scales_of_block<F, F::two_levels> {
    std::uint8_t codes[F::block]{};

    bool operator==(const stored_block&) const = default;
};

/// A format whose rows are stored as blocks of `block` weights in `block_bytes` bytes, `group` of which share a scale. `read` takes a
/// block apart, `write` puts it together; neither asks for alignment. Of other formats `block` is 0, and the matrix knows the group.
template <class F>
concept block_format = format<F> && F::block > 0 && F::block % F::group == 0 &&
                       requires(const std::byte* from, std::byte* to, stored_block<F>& unpacked, const stored_block<F>& given) {
                           { F::block_bytes } -> std::convertible_to<index>;
                           F::read(from, unpacked);
                           F::write(given, to);
                       };

/// What a group shares where the matrix keeps codes and scales apart.
template <class F>
struct group_parameters {
    typename F::scale_type scale{};
    int zero = 0;        ///< 0 unless scale_and_zero
    int group_scale = 1; ///< 1 unless the format is row_scaled
};

/// The scale of a group in the unit of its values. Of two levels the product rounds to float.
template <block_format F>
float group_scale(const stored_block<F>& block, index group)
{
    if constexpr (F::two_levels) {
        return static_cast<float>(block.scale) * static_cast<float>(block.sub_scales[group]);
    } else {
        return static_cast<float>(block.scales[group]);
    }
}

/// What a group subtracts; 0 unless scale_and_min.
template <block_format F>
float group_min(const stored_block<F>& block, index group)
{
    if constexpr (F::form != affine::scale_and_min) {
        return 0.0f;
    } else if constexpr (F::two_levels) {
        return static_cast<float>(block.min) * static_cast<float>(block.sub_mins[group]);
    } else {
        return static_cast<float>(block.mins[group]);
    }
}

/// The definition of a weight: `subtracted` is the group's min or zero, `matrix_scale` the matrix's number where the format has one.
template <format F>
float dequantize(std::uint8_t code, float scale, float subtracted = 0.0f, float matrix_scale = 1.0f)
{
    if constexpr (F::form == affine::scale_and_min) {
        // f16 times a small integer times a code is exact in float, so a compiler that fuses the two operations changes nothing.
        static_assert(std::is_same_v<typename F::scale_type, f16> && 11 + (F::two_levels ? 8 : 0) + F::bits <= 24);
        return scale * F::value(code) - subtracted;
    } else if constexpr (F::form == affine::scale_and_zero) {
        return scale * (F::value(code) - subtracted);
    } else if constexpr (F::matrix_scale) {
        return scale * F::value(code) * matrix_scale;
    } else {
        return scale * F::value(code);
    }
}

/// The same for a weight of a group.
template <format F>
float dequantize(std::uint8_t code, const group_parameters<F>& shared, float matrix_scale)
{
    const auto scale = static_cast<float>(shared.scale);
    if constexpr (row_scaled<F>) {
        return scale * (static_cast<float>(shared.group_scale) * F::value(code));
    } else {
        return dequantize<F>(code, scale, static_cast<float>(shared.zero), matrix_scale);
    }
}

/// A matrix [rows, columns] in blocks.
template <class S>
concept block_source = block_format<typename S::format> && requires(const S& s, index at, stored_block<typename S::format>& out) {
    { s.rows() } -> std::same_as<index>;
    { s.columns() } -> std::same_as<index>;
    { s.group() } -> std::same_as<index>;
    { s.blocks() } -> std::same_as<index>;
    s.read(at, at, out);
};

/// A matrix [rows, columns] whose codes and scales are kept apart. Positions are columns unless order() is given: then position p of
/// every row holds column order()[p]. Group g has positions first(g) to first(g + 1).
template <class S>
concept group_source = format<typename S::format> && requires(const S& s, index at, std::uint8_t* to) {
    { s.rows() } -> std::same_as<index>;
    { s.columns() } -> std::same_as<index>;
    { s.group() } -> std::same_as<index>;
    { s.groups() } -> std::same_as<index>;
    { s.first(at) } -> std::same_as<index>;
    { s.order() } -> std::same_as<const std::int32_t*>;
    { s.parameters(at, at) } -> std::same_as<group_parameters<typename S::format>>;
    { s.matrix_scale() } -> std::same_as<float>;
    s.codes(at, at, at, to);
};

template <class S>
concept source = block_source<S> || group_source<S>;

} // namespace quant
SEQMIX_NAMESPACE_END
