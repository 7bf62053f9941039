// SPDX-License-Identifier: MIT
#pragma once

#include <sys/resource.h>

namespace bench {

/// User and system seconds of this process (RUSAGE_SELF, all threads) or of its finished children (RUSAGE_CHILDREN).
inline double processor_seconds(int who)
{
    rusage used;
    getrusage(who, &used);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

} // namespace bench
