// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/integer.hpp>

// Weights as AWQ's checkpoints hold them (Lin et al. 2023; the packing of its "GEMM" form).

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// A view of a matrix [rows, columns] (outputs, inputs): w = scale · (q - zero), 4 bits.
/// qweight [columns, rows / 8]: nibbles 0 to 7 of a word, lowest bits first, belong to outputs 0, 2, 4, 6, 1, 3, 5, 7 of eight.
/// qzeros [groups, rows / 8] likewise; scales [groups, rows]; `group` inputs share a scale (0: all). Any strides. Refuses shapes
/// that do not fit.
template <class Scale = f16>
class awq_matrix {
public:
    using format = unsigned_integer<4, Scale>;

    awq_matrix(const view<const std::int32_t, 2>& qweight, const view<const std::int32_t, 2>& qzeros,
               const view<const Scale, 2>& scales, index group)
        : qweight_(qweight), qzeros_(qzeros), scales_(scales)
    {
        const checker check("quant::awq_matrix");
        check_given(check, qweight, "qweight");
        check_given(check, qzeros, "qzeros");
        check_given(check, scales, "scales");
        columns_ = qweight.extent(0);
        check.require(qweight.extent(1) <= std::numeric_limits<index>::max() / 8,
                      "qweight has too many words: ", qweight.extent(1));
        rows_ = 8 * qweight.extent(1);
        check.require(group >= 0, "group is negative: ", group);
        group_ = group > 0 ? group : larger(columns_, 1);
        check_extent(check, scales, "scales", 1, "number of rows", rows_, "qweight's");
        check_extent(check, scales, "scales", 0, "number of groups", groups(), "what columns and group ask for");
        check_extent(check, qzeros, "qzeros", 0, "number of groups", groups(), "what columns and group ask for");
        check_extent(check, qzeros, "qzeros", 1, "number of words", qweight.extent(1), "qweight's");
    }

    index rows() const { return rows_; }
    index columns() const { return columns_; }
    index group() const { return group_; }
    index groups() const { return detail::ceiling(columns_, group_); }
    index first(index group) const { return smaller(group * group_, columns_); }
    const std::int32_t* order() const { return nullptr; }
    float matrix_scale() const { return 1.0f; }
    group_parameters<format> parameters(index row, index group) const
    {
        return {scales_(group, row), nibble(qzeros_(group, row / 8), row)};
    }

    void codes(index row, index position, index count, std::uint8_t* to) const
    {
        for (index i = 0; i < count; ++i) { to[i] = static_cast<std::uint8_t>(nibble(qweight_(position + i, row / 8), row)); }
    }

    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, qweight_, "qweight");
        check_apart(check, written, writer, qzeros_, "qzeros");
        check_apart(check, written, writer, scales_, "scales");
    }

private:
    static int nibble(std::int32_t word, index row)
    {
        const index place = row % 2 * 4 + row % 8 / 2;
        return static_cast<int>(static_cast<std::uint32_t>(word) >> (4 * place) & 15u);
    }

    view<const std::int32_t, 2> qweight_, qzeros_;
    view<const Scale, 2> scales_;
    index rows_ = 0, columns_ = 0, group_ = 1;
};

} // namespace quant
SEQMIX_NAMESPACE_END
