// SPDX-License-Identifier: MIT
#pragma once

#include <thread>
#include <vector>

namespace test_support {

/// A thread for each worker.
struct on_threads {
    template <class Body>
    void operator()(int count, const Body& body) const
    {
        std::vector<std::thread> threads;
        for (int i = 0; i < count; ++i) {
            threads.emplace_back([&body, i] { body(i); });
        }
        for (std::thread& t : threads) { t.join(); }
    }
};

} // namespace test_support
