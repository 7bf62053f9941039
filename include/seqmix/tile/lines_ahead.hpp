// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/simd/prefetch.hpp>
#include <seqmix/tile/block.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace tile {

/// Blocks of rows that will be wanted next, asked for little by little while products are computed. Their rows are a page or more
/// apart, which hardware does not foresee; and a burst of requests would keep the products' own lines waiting (a core has some 16
/// lines under way at a time, and each is a few hundred cycles on its way from memory).
class lines_ahead {
public:
    /// Takes a block whose columns lie together, up to six of them; others are left to their luck.
    template <class Number>
    void add(const block<Number>& rows)
    {
        if (rows.column_stride != 1 || rows.rows <= 0 || rows.columns <= 0 || count_ == most) { return; }
        constexpr index size = static_cast<index>(sizeof(Number));
        const index of_row = (rows.columns * size + simd::cache_line - 1) / simd::cache_line;
        lines_[count_++] = {reinterpret_cast<const std::byte*>(rows.base), rows.row_stride * size, of_row, rows.rows};
        total_ += of_row * rows.rows;
    }

    /// How often ask() will be called.
    void spread_over(index calls) { share_ = calls > 0 ? (total_ + calls - 1) / calls : 0; }

    /// One share of the lines.
    SEQMIX_INLINE void ask()
    {
        for (index n = 0; n < share_ && at_ < count_; ++n) {
            const lines& now = lines_[at_];
            simd::prefetch(now.base + row_ * now.row_stride + line_ * simd::cache_line);
            if (++line_ == now.of_row) { line_ = 0, ++row_; }
            if (row_ == now.rows) { row_ = 0, ++at_; }
        }
    }

private:
    struct lines {
        const std::byte* base;
        index row_stride, of_row, rows;
    };
    static constexpr index most = 6;
    lines lines_[most] = {};
    index count_ = 0, total_ = 0, share_ = 0;
    index at_ = 0, row_ = 0, line_ = 0; ///< what comes next
};

} // namespace tile
SEQMIX_NAMESPACE_END
