// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/attention/options.hpp>

// Which keys a query sees for its place alone. Causal masks, windows and key lengths all come down to one interval of keys
// a query, so a single comparison with both ends serves them, and hidden tiles are skipped by looking at the ends.

SEQMIX_NAMESPACE_BEGIN
namespace attention {

/// Keys first, …, last; none where last < first.
struct key_interval {
    index first = 0;
    index last = -1;
};

/// The rule of one batch item.
class visibility {
public:
    /// `queries` and `keys` are the lengths of this item, `offset` the given position of query row 0 where there is one.
    visibility(const options& opt, index queries, index keys, std::optional<index> offset) : keys_(keys)
    {
        if (opt.causal == causal::bottom_right) { offset_ = keys - queries; }
        if (offset) { offset_ = *offset; }
        if (opt.window.left >= 0 && opt.window.left < unlimited) { left_ = opt.window.left; }
        if (opt.window.right >= 0 && opt.window.right < unlimited) { right_ = opt.window.right; }
        if (opt.causal != causal::none) { right_ = 0; }
    }

    index position(index row) const { return row + offset_; }

    key_interval of(index row) const
    {
        const index at = position(row);
        const index first = at - left_, last = at + right_;
        return {first < 0 ? 0 : first, last < keys_ ? last : keys_ - 1};
    }

    index keys() const { return keys_; }

    /// Beyond any length, and small enough that positions plus or minus it do not overflow.
    static constexpr index unlimited = index{1} << 60;

private:
    index keys_;
    index offset_ = 0;
    index left_ = unlimited;
    index right_ = unlimited;
};

} // namespace attention
SEQMIX_NAMESPACE_END
