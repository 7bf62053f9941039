// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/integer.hpp>

#include <vector>

// Weights as GPTQ's checkpoints hold them (Frantar et al. 2022; the packing is that of AutoGPTQ).

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// How a checkpoint stores zero points.
enum class gptq_zeros {
    minus_one, ///< the classic format: less one, so that of bits all set the zero point is 0
    as_is,     ///< "gptq_v2"
};

struct gptq_options {
    index group = 0; ///< input channels that share a scale; 0: all
    gptq_zeros zeros = gptq_zeros::minus_one;
    view<const std::int32_t, 1> g_idx{}; ///< the group of each input channel (act-order); not given: channel / group
};

/// A view of a matrix [rows, columns] (outputs, inputs): w = scale · (q - zero), q of 2, 3, 4 or 8 bits.
/// qweight [columns · bits / 32, rows]: codes of a row stand one after another in the 32-bit words of its column, lowest bits
/// first. qzeros [groups, ⌈rows · bits / 32⌉]: zero points of a group likewise; not given: 2^(bits-1). scales [groups, rows]. Any
/// strides. With g_idx that is not channel / group, columns are sorted by group, stably, and that order is kept: it allocates
/// columns numbers. Refuses shapes that do not fit and groups that there are not.
template <int bits = 4, class Scale = f16>
class gptq_matrix {
    static_assert(bits == 2 || bits == 3 || bits == 4 || bits == 8);

public:
    /// Of 8 bits the format is signed: codes and zero points come out less 128.
    using format = std::conditional_t < bits == 8, signed_integer<8, Scale, true>, unsigned_integer<bits<8 ? bits : 4, Scale>>;

    gptq_matrix(const view<const std::int32_t, 2>& qweight, const view<const std::int32_t, 2>& qzeros,
                const view<const Scale, 2>& scales, const gptq_options& options = {})
        : qweight_(qweight), qzeros_(qzeros), scales_(scales), g_idx_(options.g_idx), zeros_(options.zeros)
    {
        const checker check("quant::gptq_matrix");
        check_given(check, qweight, "qweight");
        check_given(check, scales, "scales");
        rows_ = qweight.extent(1);
        check.require(qweight.extent(0) <= std::numeric_limits<index>::max() / 64,
                      "qweight has too many words a row: ", qweight.extent(0));
        check.require(qweight.extent(0) * 32 % bits == 0, "qweight has ", qweight.extent(0),
                      " words a row, which hold no whole number of codes of ", bits, " bits");
        columns_ = qweight.extent(0) * 32 / bits;
        check.require(columns_ <= std::numeric_limits<std::int32_t>::max(), "qweight has too many columns: ", columns_);
        check_extent(check, scales, "scales", 1, "number of rows", rows_, "qweight's");
        const index groups = scales.extent(0);
        if (qzeros_) {
            check_given(check, qzeros, "qzeros");
            check_extent(check, qzeros, "qzeros", 0, "number of groups", groups, "scales'");
            check_extent(check, qzeros, "qzeros", 1, "number of words", detail::ceiling(rows_ * bits, 32), "what rows ask for");
        }
        check.require(options.group >= 0, "group is negative: ", options.group);
        group_ = options.group > 0      ? options.group
                 : g_idx_ && groups > 0 ? larger(detail::ceiling(columns_, groups), 1)
                                        : larger(columns_, 1);
        if (g_idx_) {
            check_given(check, g_idx_, "g_idx");
            check_extent(check, g_idx_, "g_idx", 0, "length", columns_, "the number of columns");
            for (index column = 0; column < columns_; ++column) {
                check.require(g_idx_(column) >= 0 && g_idx_(column) < groups, "g_idx has group ",
                              static_cast<index>(g_idx_(column)), ", but scales has ", groups, " groups");
            }
            sort();
        } else {
            check.equal(groups, detail::ceiling(columns_, group_), "scales' number of groups", "what columns and group ask for");
        }
    }

    index rows() const { return rows_; }
    index columns() const { return columns_; }
    index group() const { return group_; }
    index groups() const { return scales_.extent(0); }
    index first(index group) const
    {
        return order_.empty() ? smaller(group * group_, columns_) : first_[static_cast<std::size_t>(group)];
    }
    const std::int32_t* order() const { return order_.empty() ? nullptr : order_.data(); }
    float matrix_scale() const { return 1.0f; }

    group_parameters<format> parameters(index row, index group) const
    {
        constexpr int most = (1 << bits) - 1;
        int zero = 1 << (bits - 1);
        if (qzeros_) {
            zero = code([&](index word) { return qzeros_(group, word); }, row);
            if (zeros_ == gptq_zeros::minus_one) { zero = (zero + 1) & most; }
        }
        return {scales_(group, row), zero - offset};
    }

    void codes(index row, index position, index count, std::uint8_t* to) const
    {
        for (index i = position; i < position + count; ++i) {
            const index column = order_.empty() ? i : order_[static_cast<std::size_t>(i)];
            *to++ = static_cast<std::uint8_t>(code([&](index word) { return qweight_(word, row); }, column) - offset);
        }
    }

    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, qweight_, "qweight");
        check_apart(check, written, writer, qzeros_, "qzeros");
        check_apart(check, written, writer, scales_, "scales");
        check_apart(check, written, writer, g_idx_, "g_idx");
    }

private:
    static constexpr int offset = bits == 8 ? 128 : 0;

    /// Number `at` of a stream of 32-bit words.
    template <class Words>
    static int code(const Words& words, index at)
    {
        const index first = at * bits;
        const int shift = static_cast<int>(first % 32);
        std::uint32_t found = static_cast<std::uint32_t>(words(first / 32)) >> shift;
        if (shift + bits > 32) { found |= static_cast<std::uint32_t>(words(first / 32 + 1)) << (32 - shift); }
        return static_cast<int>(found & ((1u << bits) - 1u));
    }

    /// By counting; nothing is kept where channels are in the order of their groups already, as many a group as `group_`.
    void sort()
    {
        bool in_order = groups() == detail::ceiling(columns_, group_);
        for (index column = 0; column < columns_; ++column) { in_order = in_order && g_idx_(column) == column / group_; }
        if (in_order) { return; }
        first_.assign(static_cast<std::size_t>(groups()) + 1, 0);
        for (index column = 0; column < columns_; ++column) { ++first_[static_cast<std::size_t>(g_idx_(column)) + 1]; }
        for (std::size_t g = 1; g < first_.size(); ++g) { first_[g] += first_[g - 1]; }
        order_.resize(static_cast<std::size_t>(columns_));
        std::vector<index> next = first_;
        for (index column = 0; column < columns_; ++column) {
            const auto g = static_cast<std::size_t>(g_idx_(column));
            order_[static_cast<std::size_t>(next[g]++)] = static_cast<std::int32_t>(column);
        }
    }

    view<const std::int32_t, 2> qweight_, qzeros_;
    view<const Scale, 2> scales_;
    view<const std::int32_t, 1> g_idx_;
    gptq_zeros zeros_;
    index rows_ = 0, columns_ = 0, group_ = 1;
    std::vector<std::int32_t> order_; ///< the column of each position; empty: the same
    std::vector<index> first_;        ///< the first position of each group, and the number of columns
};

} // namespace quant
SEQMIX_NAMESPACE_END
