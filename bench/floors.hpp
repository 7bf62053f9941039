// SPDX-License-Identifier: MIT
#pragma once

#include "catalog.hpp"

#include <string>

namespace bench {

/// Measures the rows of a floors file whose names contain `pattern`, and prints `ok|short|absent ROW MEASURED FLOOR`
/// for each. Returns 0, 1 if any is short, 2 if the file can't be read, is malformed or has no such row.
int check_floors(const catalog& all, const std::string& file, const std::string& pattern, const effort& how);

} // namespace bench
