// SPDX-License-Identifier: MIT
#pragma once

#include "measure.hpp"

#include <string>
#include <vector>

namespace bench {

/// What this program holds, and what of it this machine runs.
class catalog {
public:
    /// Asks nothing of a set that the machine doesn't run, not even its name.
    catalog();

    const std::vector<const instruction_set*>& sets() const { return sets_; }
    const std::vector<std::string>& left_out() const { return left_out_; }
    const std::vector<place>& rows() const { return rows_; }

    struct found {
        enum { a_row, absent, unknown } what;
        place row;
        std::string why; ///< absent
    };
    /// `family/row` on the best set, or `family/set_row`; absent where the set is.
    found find(const std::string& name) const;

    /// Whether all was compiled with optimisation and without assertions.
    bool optimised() const { return optimised_; }

private:
    std::vector<const instruction_set*> sets_; ///< ascending
    std::vector<std::string> left_out_;
    std::vector<place> rows_;
    bool optimised_ = true;
};

} // namespace bench
