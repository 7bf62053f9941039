// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/integer.hpp>

// Weights -1, 0, 1 with one scale a matrix, as in BitNet b1.58 (Ma et al. 2024).

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// w = scale · (q - 1); code 3 is 2 · scale.
template <class Scale>
struct ternary : run_time_group<Scale> {
    static constexpr const char* name = "ternary";
    static constexpr int bits = 2;
    static constexpr bool integer_codes = true;
    static constexpr float extreme = 1.0f;
    static constexpr affine form = affine::scale_only;
    static constexpr scale_tile tile = per_tensor;

    static constexpr float value(std::uint8_t code) { return static_cast<float>(code - 1); }
};

/// codes [rows, ⌈columns / 4⌉], four a byte of one row, the first in the lowest bits; scales [1, 1].
template <class Scale = float>
using ternary_matrix = array_matrix<ternary<Scale>>;

/// As the checkpoints of BitNet b1.58 hold it: packed [rows / 4, columns], bits 2 i and 2 i + 1 of row r belong to row i · rows / 4
/// + r. One scale, by which weights are multiplied. (Where a checkpoint divides by its weight_scale, give 1 / weight_scale.)
class bitnet_matrix {
public:
    using format = ternary<float>;

    bitnet_matrix(const view<const std::uint8_t, 2>& packed, float scale) : packed_(packed), scale_(scale)
    {
        check_given(checker("quant::bitnet_matrix"), packed, "packed");
    }

    index rows() const { return 4 * packed_.extent(0); }
    index columns() const { return packed_.extent(1); }
    index group() const { return larger(columns(), 1); }
    index groups() const { return columns() > 0 ? 1 : 0; }
    index first(index group) const { return group > 0 ? columns() : 0; }
    const std::int32_t* order() const { return nullptr; }
    float matrix_scale() const { return 1.0f; }
    group_parameters<format> parameters(index, index) const { return {scale_, 0}; }

    void codes(index row, index position, index count, std::uint8_t* to) const
    {
        const index stored = packed_.extent(0), quarter = row / stored;
        for (index i = 0; i < count; ++i) {
            to[i] = static_cast<std::uint8_t>(packed_(row % stored, position + i) >> (2 * quarter) & 3);
        }
    }

    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, packed_, "packed");
    }

private:
    view<const std::uint8_t, 2> packed_;
    float scale_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
