// SPDX-License-Identifier: MIT
#pragma once

#include "count_allocations.hpp"
#include "refusals.hpp"

#include <seqmix/core/executor.hpp>

namespace test_support {

/// What every call promises of scratch: one allocation where it brings its own, none where it is there already, none with memory of
/// exactly the size that it asks for, wherever that lies; and it is refused a byte less, with both sizes, and nothing touched.
/// fresh() makes a result as it is before a call, run(result, context) is the call. `ctx` is new, and has its scratch afterwards.
template <class Fresh, class Run>
void check_scratch(const Fresh& fresh, const Run& run, seqmix::context<>& ctx)
{
    namespace sm = seqmix;
    auto want = fresh(), got = fresh(), again = fresh(), alone = fresh(), on_mine = fresh(), on_odd = fresh(), unwritten = fresh();
    const auto as_made = fresh();
    run(want, sm::context_ref{});
    long before = allocations;
    run(got, ctx);
    CHECK(allocations - before == 1);
    CHECK(got == want);
    before = allocations;
    run(again, ctx);
    CHECK(allocations == before);
    CHECK(again == want);
    before = allocations;
    run(alone, sm::context_ref{});
    CHECK(allocations - before == 1);

    const std::size_t bytes = ctx.scratch().size();
    guarded<unsigned char> memory(static_cast<sm::index>(bytes)); // ones: NaN where scratch is read before it is written
    sm::context<> exact{sm::serial{}, sm::workspace(memory.data(), bytes)};
    before = allocations;
    run(on_mine, exact);
    CHECK(allocations == before);
    CHECK(on_mine == want);
    CHECK(memory.intact());

    const std::size_t most = bytes + sm::scratch_alignment - 1;
    guarded<unsigned char> odd(static_cast<sm::index>(most), 1); // where alignment costs most
    sm::context<> misaligned{sm::serial{}, sm::workspace(odd.data(), most)};
    run(on_odd, misaligned);
    CHECK(on_odd == want);
    CHECK(odd.intact());

    sm::context<> short_of_one{sm::serial{}, sm::workspace(memory.data(), bytes - 1)};
    check_refused("scratch", {std::to_string(bytes).c_str(), std::to_string(bytes - 1).c_str()}, [&] { run(unwritten, short_of_one); });
    CHECK(unwritten == as_made);
}

} // namespace test_support
