// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace recall {

/// How far a long run is, on stderr: one changing line on a terminal, else a line now and then. Short runs say nothing.
class progress {
public:
    explicit progress(std::string what) : what_(std::move(what)) {}
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;
    ~progress()
    {
        if (shown_ && terminal()) { std::fprintf(stderr, "\r\033[K"); }
    }

    /// `done` goes from 0 to 1 as time goes.
    void at(double done)
    {
        const auto now = clock::now();
        if (now < next_ || !(done > 0 && done < 1)) { return; }
        const double spent = std::chrono::duration<double>(now - start_).count();
        std::fprintf(stderr, "%s%s: %2.0f %%, %.0f s left%s", terminal() ? "\r" : "", what_.c_str(), 100 * done,
                     spent / done - spent, terminal() ? "\033[K" : "\n");
        std::fflush(stderr);
        shown_ = true;
        next_ = now + (terminal() ? std::chrono::milliseconds(500) : std::chrono::milliseconds(10000));
    }

private:
    using clock = std::chrono::steady_clock;

    static bool terminal()
    {
#if __has_include(<unistd.h>)
        static const bool is = isatty(STDERR_FILENO) == 1;
        return is;
#else
        return false;
#endif
    }

    std::string what_;
    clock::time_point start_ = clock::now(), next_ = start_ + std::chrono::seconds(2);
    bool shown_ = false;
};

} // namespace recall
