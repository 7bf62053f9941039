// SPDX-License-Identifier: MIT
#pragma once

#include "row.hpp"

#include <array>
#include <string>
#include <vector>

namespace bench {

/// A row on an instruction set.
struct place {
    const instruction_set* set;
    const family* of;
    const row* what;
    const instruction_set* best_set;

    /// Rows of the best set that this machine runs have names without the set.
    bool best() const { return set == best_set; }
    /// Whose peak the row is a fraction of. Products of int8 are all held against the best set's: the wider the code, the more
    /// a set without such products loses.
    const instruction_set& limit_set() const { return of_limit() == limit::int8 ? *best_set : *set; }

    std::string name() const;
    /// bf16 rows of sets without bf16 dot products are fractions of the f32 peak.
    limit of_limit() const;
};

/// Rates of one instruction set, the best seen so far; per second.
struct peak_table {
    std::array<double, limit_count> best{};
};

struct peer_result {
    const char* name;
    double seconds;
};

struct measured {
    double seconds = 0; ///< best run
    double core = 1;    ///< how much of a core that run had: less than 1 where others use the machine
    double peak = 0;    ///< best rate of the limit while the row was measured; 0: none
    double reference_seconds = 0;
    int rounds = 0;
    std::vector<peer_result> peers;
    std::vector<std::string> remarks; ///< peers that are left out, and why

    double figure_of(const row& r) const;
    /// What to say of a run that was disturbed; empty for one that was not.
    std::string disturbance() const;
};

struct effort {
    double seconds = 1;
    bool peers = true;
    bool processor_time = false; ///< instead of the wall clock, but for rows of several threads
};

/// Alternates the peak's loop, the kernel, its reference and its peers, all of which see the same clocks then, and
/// keeps the best of each.
measured measure(const place& at, const effort& how);

/// All peaks of a set, for about a tenth of a second each.
peak_table measure_peaks(const instruction_set& set, bool processor_time);

} // namespace bench
