// SPDX-License-Identifier: MIT
// Memory.
#include "attention_case.hpp"
#include "support/count_allocations.hpp"

#include <cstdlib>
#include <functional>

namespace attention_test {

namespace {

/// Scratch that a call takes.
template <class T, class Run>
std::size_t scratch_of(const attention_problem<T>& p, guarded<T>& out, int workers, const Run& run)
{
    sm::context ctx{sm::parallel_for{workers, on_threads{}}};
    run(p, out, sm::context_ref(ctx));
    return ctx.scratch().size();
}

} // namespace

TEST_CASE("attention: scratch is the caller's, is reused, and does not grow with the lengths")
{
    attention_case c;
    c.shape = {
        .batch = 1, .heads = 2, .kv_heads = 1, .queries = 2 * columns, .keys = 300, .key_size = 20, .value_size = 24};
    c.rules.bias.given = true;
    for_all_types([&](auto type) {
        using T = decltype(type);
        const auto run = [](const attention_problem<T>& p, guarded<T>& out, const sm::context_ref& ctx) {
            run_forward<T, T>(p.q(), p.k(), p.v(), p.out_view(out.data()), p.options(), ctx);
        };
        const attention_problem<T> p(c);
        guarded<T> want(p.out_size()), got(p.out_size());
        run(p, want, {});

        sm::context<> ctx;
        long before = allocations;
        run(p, got, ctx);
        CHECK(allocations - before == 1);
        before = allocations;
        run(p, got, ctx);
        CHECK(allocations == before);
        CHECK(same_bits(got, want));
        before = allocations;
        run(p, got, {});
        CHECK(allocations - before == 1);

        const std::size_t bytes = ctx.scratch().size();
        guarded<unsigned char> memory(static_cast<index>(bytes));
        sm::context<> exact{sm::serial{}, sm::workspace(memory.data(), bytes)};
        guarded<T> on_mine(p.out_size());
        before = allocations;
        run(p, on_mine, exact);
        CHECK(allocations == before);
        CHECK(same_bits(on_mine, want));
        CHECK(memory.intact());

        guarded<unsigned char> odd(static_cast<index>(bytes + sm::scratch_alignment - 1),
                                   1); // where alignment costs most
        sm::context<> misaligned{sm::serial{}, sm::workspace(odd.data(), bytes + sm::scratch_alignment - 1)};
        guarded<T> on_odd(p.out_size());
        run(p, on_odd, misaligned);
        CHECK(same_bits(on_odd, want));
        CHECK(odd.intact());

        guarded<T> untouched(p.out_size());
        sm::context<> short_of_one{sm::serial{}, sm::workspace(memory.data(), bytes - 1)};
        std::string message;
        try {
            run(p, untouched, short_of_one);
        } catch (const std::invalid_argument& e) {
            message = e.what();
        }
        INFO(message);
        CHECK(message.find(std::to_string(bytes)) != std::string::npos);
        CHECK(message.find(std::to_string(bytes - 1)) != std::string::npos);
        for (index i = 0; i < untouched.size(); ++i) { REQUIRE(untouched.untouched(i)); }

        // A block takes as many panels as fit the cache, fewer where there are not so many rows; more than that it
        // never takes.
        attention_case sized = c;
        sized.rules.bias.given = false;
        sized.shape.heads = sized.shape.kv_heads = 1;
        sized.rules.window = {4, 4}; // the scratch is the same, and this is quick
        for (int workers : {1, 3}) {
            const auto taken = [&](index queries, index keys) {
                sized.shape.queries = queries;
                sized.shape.keys = keys;
                const attention_problem<T> q(sized);
                guarded<T> out(q.out_size());
                return scratch_of(q, out, workers, run);
            };
            // Half of it gives four blocks of eight panels, the most, to each of three workers.
            constexpr index far = 2 * (3 * 4 * 8) * columns;
            const std::size_t most = taken(far, far);
            CHECK(taken(100, 100) <= most);
            CHECK(taken(far / 2, far / 2) == most);
            CHECK(taken(1, far) == taken(1, 100));
            CHECK(taken(100, far) == taken(100, 100));
        }
    });
}

} // namespace attention_test
