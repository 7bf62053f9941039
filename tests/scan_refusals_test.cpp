// SPDX-License-Identifier: MIT
// Memory, what NaN and infinities reach, and what is refused.
#include "scan_case.hpp"
#include "support/count_allocations.hpp"

#include <bit>
#include <cstdlib>
#include <functional>
#include <stdexcept>

namespace scan_test {

namespace {

/// Runs body once for each storage type, with a value of it.
template <class Body>
void for_all_types(const Body& body)
{
    body(0.0f);
    body(bf16{});
    body(f16{});
}

template <class T>
std::size_t scratch_of(const scan_case& c, int workers = 1)
{
    const scan_problem<T> p(c);
    scan_result<T> r(p);
    sm::context ctx{sm::parallel_for{workers, on_threads{}}};
    run(p, r, ctx);
    return ctx.scratch().size();
}

std::string message_of(const std::function<void()>& call)
{
    try {
        call();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "(nothing thrown)";
}

void check_message(const std::string& name, const std::string& message, const std::vector<const char*>& texts)
{
    INFO(name << ": " << message);
    for (const char* text : texts) {
        INFO("lacks: " << text);
        CHECK(message.find(text) != std::string::npos);
    }
}

} // namespace

TEST_CASE("scan: scratch is the caller's, and is reused")
{
    for (index segments : {1, 3}) {
        for (lie stands : {lie::first, lie::last}) {
            scan_case c{.batch = 2,
                        .channels = 2 * lanes + 3,
                        .states = 7,
                        .length = 100,
                        .segments = segments,
                        .stands = stands};
            c = c.with_all();
            c.accumulate = segments == 3, c.snapshots = 9;
            for_all_types([&](auto type) {
                using T = decltype(type);
                const scan_problem<T> p(c);
                scan_result<T> want(p), got(p), again(p), alone(p);
                run(p, want);

                sm::context<> ctx;
                long before = allocations;
                run(p, got, ctx);
                CHECK(allocations - before == 1);
                CHECK(got == want);
                before = allocations;
                run(p, again, ctx);
                CHECK(allocations == before);
                CHECK(again == want);
                before = allocations;
                run(p, alone, {});
                CHECK(allocations - before == 1);

                const std::size_t bytes = ctx.scratch().size();
                guarded<unsigned char> memory(
                    static_cast<index>(bytes)); // ones: NaN where scratch is read before it is written
                sm::context<> exact{sm::serial{}, sm::workspace(memory.data(), bytes)};
                scan_result<T> on_mine(p);
                before = allocations;
                run(p, on_mine, exact);
                CHECK(allocations == before);
                CHECK(on_mine == want);
                CHECK(memory.intact());

                guarded<unsigned char> odd(static_cast<index>(bytes + sm::scratch_alignment - 1),
                                           1); // where alignment costs most
                sm::context<> misaligned{sm::serial{}, sm::workspace(odd.data(), bytes + sm::scratch_alignment - 1)};
                scan_result<T> on_odd(p);
                run(p, on_odd, misaligned);
                CHECK(on_odd == want);
                CHECK(odd.intact());

                scan_result<T> unwritten(p);
                const scan_result<T> as_made(p);
                sm::context<> short_of_one{sm::serial{}, sm::workspace(memory.data(), bytes - 1)};
                const std::string message = message_of([&] { run(p, unwritten, short_of_one); });
                check_message("scratch", message, {std::to_string(bytes).c_str(), std::to_string(bytes - 1).c_str()});
                CHECK(unwritten == as_made);
            });
        }
    }
}

TEST_CASE("scan: scratch does not grow with the length, nor beyond a block with the channels")
{
    for (int workers : {1, 3}) {
        for (lie stands : {lie::first, lie::last}) {
            scan_case c{.channels = 70, .states = 4, .length = 600, .stands = stands};
            const std::size_t at_600 = scratch_of<float>(c, workers);
            c.length = 3000;
            CHECK(scratch_of<float>(c, workers) == at_600);
            c.length = 5;
            CHECK(scratch_of<float>(c, workers) == at_600);
            c.segments = 7;
            const std::size_t cut = scratch_of<float>(c, workers);
            c.length = 3000;
            CHECK(scratch_of<float>(c, workers) <= cut);
            c.length = 2, c.segments = 1, c.channels = 4096 * workers; // blocks are full
            const std::size_t full = scratch_of<float>(c, workers);
            CHECK(full >= at_600);
            c.channels *= 2;
            CHECK(scratch_of<float>(c, workers) == full);
        }
    }
}

namespace {

/// What one bad number reaches.
struct spread {
    const char* name;
    std::function<void(scan_problem<float>&, float)> put;
    std::function<bool(index d, index t)> out; ///< of batch item 1; item 0 is never reached
    std::function<bool(index d, index n)> state;
    bool infinite_too = true;
    bool every_item = false;
};

} // namespace

TEST_CASE("scan: NaN and infinities reach what they must and nothing else")
{
    const index of_group = lanes + 1, D = 3 * of_group, N = 5, L = 70, d0 = of_group + 1, n0 = 3, t0 = 17;
    const auto never = [](index, index) { return false; };
    const auto mine = [=](index d, index) { return d == d0; };
    const auto from_here = [=](index d, index t) { return d == d0 && t >= t0; };
    const auto of_the_group = [=](index d) { return d / of_group == 1; };
    const std::vector<spread> spreads = {
        {"u", [=](auto& p, float x) { p.u()(1, d0, t0) = x; }, from_here, mine},
        {"delta", [=](auto& p, float x) { p.delta()(1, d0, t0) = x; }, from_here, mine},
        {"z", [=](auto& p, float x) { p.z()(1, d0, t0) = x; }, [=](index d, index t) { return d == d0 && t == t0; },
         never},
        {"B", [=](auto& p, float x) { p.B()(1, 1, n0, t0) = x; },
         [=](index d, index t) { return of_the_group(d) && t >= t0; },
         [=](index d, index n) { return of_the_group(d) && n == n0; }},
        {"C", [=](auto& p, float x) { p.C()(1, 1, n0, t0) = x; },
         [=](index d, index t) { return of_the_group(d) && t == t0; }, never},
        {"A", [=](auto& p, float x) { p.A()(d0, n0) = x; }, mine, [=](index d, index n) { return d == d0 && n == n0; },
         true, true},
        {"D", [=](auto& p, float x) { p.D()(d0) = x; }, mine, never, true, true},
        {"delta_bias", [=](auto& p, float x) { p.bias()(d0) = x; }, mine, mine, true, true},
        {"initial_state", [=](auto& p, float x) { p.initial()(1, d0, n0) = x; }, mine,
         [=](index d, index n) { return d == d0 && n == n0; }},
        {"state", [=](auto& p, float x) { p.start[static_cast<std::size_t>((D + d0) * N + n0)] = x; }, mine,
         [=](index d, index n) { return d == d0 && n == n0; }},
    };
    const std::uint32_t nans[] = {0x7fc00000u, 0xffc00000u, 0x7fc00001u, 0x7fc000ffu,
                                  0x7fc001ffu, 0xffffffffu, 0x7f800001u, 0x7fa00055u};
    for (const spread& s : spreads) {
        const bool initial = std::string(s.name) == "initial_state";
        for (lie stands : {lie::first, lie::last}) {
            for (index segments : {1, 3}) {
                scan_case c{.batch = 2,
                            .channels = D,
                            .groups = 3,
                            .states = N,
                            .length = L,
                            .segments = segments,
                            .stands = stands};
                c = c.with_all();
                c.initial = initial;
                scan_problem<float> clean(c);
                scan_result<float> want(clean);
                run(clean, want);
                std::vector<float> values = {infinity};
                for (std::uint32_t bits : nans) { values.push_back(std::bit_cast<float>(bits)); }
                for (float value : values) {
                    if (std::isinf(value) && !s.infinite_too) { continue; }
                    scan_problem<float> p(c);
                    s.put(p, value);
                    scan_result<float> got(p);
                    run(p, got);
                    INFO(s.name << " is " << value << " (" << std::hex << std::bit_cast<std::uint32_t>(value)
                                << std::dec << "), " << c);
                    index lost = 0, spilt = 0;
                    for_each(got.out(), [&](float x, index b, index d, index t) {
                        const bool reached = (b == 1 || s.every_item) && s.out(d, t),
                                   clean_here = x == want.out()(b, d, t);
                        lost += reached && (std::isnan(value) ? !std::isnan(x) : std::isfinite(x)),
                            spilt += !reached && !clean_here;
                    });
                    CHECK(lost == 0);
                    CHECK(spilt == 0);
                    index lost_states = 0, spilt_states = 0;
                    for_each(got.state(), [&](float x, index b, index d, index n) {
                        const bool reached = (b == 1 || s.every_item) && s.state(d, n),
                                   clean_here = x == want.state()(b, d, n);
                        lost_states += reached && (std::isnan(value) ? !std::isnan(x) : std::isfinite(x));
                        spilt_states += !reached && !clean_here;
                    });
                    CHECK(lost_states == 0);
                    CHECK(spilt_states == 0);
                }
            }
        }
    }
}

TEST_CASE("scan: an infinity stays one where nothing makes it a NaN")
{
    for (lie stands : {lie::first, lie::last}) {
        const scan_case c{.channels = lanes + 3, .states = 1, .length = 70, .stands = stands, .delta = {0.1f, 0.5f}};
        scan_problem<float> p(c);
        p.u()(0, 2, 20) = infinity; // no D: nothing may be multiplied by a zero that stands for it
        scan_result<float> r(p);
        run(p, r);
        index wrong = 0;
        for_each(r.out(), [&](float x, index, index d, index t) {
            wrong += d == 2 && t >= 20 ? x != std::copysign(infinity, p.B()(0, 0, 0, 20) * p.C()(0, 0, 0, t))
                                       : !std::isfinite(x);
        });
        CHECK(wrong == 0);
    }
}

TEST_CASE("scan: NaN from the last token on where time is reversed, and not across the border of a pack")
{
    scan_case c{.channels = lanes + 3, .states = 5, .length = 70, .state = true, .reverse = true};
    scan_problem<float> p(c);
    scan_result<float> clean(p), got(p);
    run(p, clean);
    p.u()(0, 3, 33) = not_a_number;
    run(p, got);
    index wrong = 0;
    for_each(got.out(), [&](float x, index b, index d, index t) {
        wrong += d == 3 && t <= 33 ? !std::isnan(x) : x != clean.out()(b, d, t);
    });
    CHECK(wrong == 0);

    const index offsets[] = {0, 20, 40, 70};
    for (index segments : {1, 2}) {
        c.reverse = false, c.state = false, c.segments = segments;
        scan_problem<float> pack(c);
        laid_out<float, 3> out(pack.sequence(), lie::first), spoilt(pack.sequence(), lie::first);
        const auto call = [&](const auto& to) {
            run_packed<float>(pack.u()[0], pack.delta()[0], pack.A(), pack.B()[0], pack.C()[0], to()[0],
                              sm::view<const index, 1>(offsets, {4}), pack.options());
        };
        call(out);
        pack.u()(0, 3, 33) = infinity;
        call(spoilt);
        wrong = 0;
        for_each(spoilt(), [&](float x, index b, index d, index t) {
            wrong += d == 3 && t >= 33 && t < 40 ? std::isfinite(x) : x != out()(b, d, t);
        });
        CHECK(wrong == 0);
    }
}

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, D 4, G 2, N 3, L 5.
struct door {
    guarded<float> out_memory{40}, state_memory{24}, snapshot_memory{48};
    std::vector<float> u_memory = filled(40), delta_memory = filled(40), a_memory = filled(12), b_memory = filled(60),
                       c_memory = filled(60), z_memory = filled(40), d_memory = filled(4), bias_memory = filled(4),
                       initial_memory = filled(24);
    std::vector<float> numbers = filled(1000);
    sm::view<const float, 3> u{u_memory.data(), {2, 4, 5}}, delta{delta_memory.data(), {2, 4, 5}};
    sm::view<const float, 2> A{a_memory.data(), {4, 3}};
    sm::view<const float, 4> B{b_memory.data(), {2, 2, 3, 5}}, C{c_memory.data(), {2, 2, 3, 5}};
    sm::view<float, 3> out{out_memory.data(), {2, 4, 5}};
    ssm::scan_options<float> o;

    door()
    {
        o.D = {d_memory.data(), {4}}, o.delta_bias = {bias_memory.data(), {4}};
        o.z = {z_memory.data(), {2, 4, 5}}, o.initial_state = initial(2, 4, 3);
        o.state = state_at(state_memory.data());
        o.snapshots = snapshots_at(snapshot_memory.data()), o.snapshot_interval = 2;
    }
    sm::view<const float, 3> initial(index b, index d, index n) const { return {initial_memory.data(), {b, d, n}}; }
    sm::view<float, 3> state(index b, index d, index n) { return {state_memory.data(), {b, d, n}}; }
    sm::view<float, 4> snapshots(index b, index s, index d, index n) { return {snapshot_memory.data(), {b, s, d, n}}; }
    sm::view<float, 3> state_at(float* data) const { return {data, {2, 4, 3}, {0, 0, 1}}; }
    sm::view<float, 4> snapshots_at(float* data) const { return {data, {2, 2, 4, 3}, {0, 0, 0, 1}}; }
    sm::view<float, 3> out_at(float* data) const { return {data, {2, 4, 5}, {0, 0, 1}}; }

    void call() const { run_scan<float, float, float>(u, delta, A, B, C, out, o); }

    bool untouched() const
    {
        for (const auto* memory : {&u_memory, &delta_memory, &a_memory, &b_memory, &c_memory, &z_memory, &d_memory,
                                   &bias_memory, &initial_memory}) {
            if (*memory != filled(memory->size())) { return false; }
        }
        for (const auto* memory : {&out_memory, &state_memory, &snapshot_memory}) {
            for (index i = 0; i < memory->size(); ++i) {
                if (!memory->untouched(i)) { return false; }
            }
            if (!memory->intact()) { return false; }
        }
        return true;
    }

private:
    static std::vector<float> filled(std::size_t n) { return std::vector<float>(n, -1.0f); }
};

template <class T, std::size_t Rank>
sm::view<T, Rank> null(const sm::view<T, Rank>& v)
{
    return {nullptr, v.extents(), v.strides()};
}
template <class T, std::size_t Rank>
sm::view<T, Rank> resized(const sm::view<T, Rank>& v, std::size_t axis, index extent)
{
    std::array<index, Rank> extents = v.extents();
    extents[axis] = extent;
    return {v.data(), extents, v.strides()};
}

struct refusal {
    const char* name;
    std::function<void(door&)> spoil;
    std::vector<const char*> message;
};

// clang-format off
const std::vector<refusal> refusals = {
    {"u is null", [](door& d) { d.u = null(d.u); }, {"u is null", "40"}},
    {"delta is null", [](door& d) { d.delta = null(d.delta); }, {"delta is null", "40"}},
    {"A is null", [](door& d) { d.A = null(d.A); }, {"A is null", "12"}},
    {"B is null", [](door& d) { d.B = null(d.B); }, {"B is null", "60"}},
    {"C is null", [](door& d) { d.C = null(d.C); }, {"C is null", "60"}},
    {"out is null", [](door& d) { d.out = null(d.out); }, {"out is null", "40"}},
    {"negative length", [](door& d) { d.u = resized(d.u, 2, -5); }, {"u has a negative extent", "-5"}},
    {"negative states", [](door& d) { d.A = resized(d.A, 1, -3); }, {"A has a negative extent", "-3"}},

    {"delta's batch", [](door& d) { d.delta = resized(d.delta, 0, 1); }, {"delta's batch is 1", "u's is 2"}},
    {"delta's channels", [](door& d) { d.delta = resized(d.delta, 1, 3); }, {"delta's number of channels is 3", "u's is 4"}},
    {"delta's length", [](door& d) { d.delta = resized(d.delta, 2, 4); }, {"delta's length is 4", "u's is 5"}},
    {"out's batch", [](door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1", "u's is 2"}},
    {"out's channels", [](door& d) { d.out = resized(d.out, 1, 2); }, {"out's number of channels is 2", "u's is 4"}},
    {"out's length", [](door& d) { d.out = resized(d.out, 2, 0); }, {"out's length is 0", "u's is 5"}},
    {"A's channels", [](door& d) { d.A = resized(d.A, 0, 3); }, {"A's number of channels is 3", "u's is 4"}},
    {"B's batch", [](door& d) { d.B = resized(d.B, 0, 1); }, {"B's batch is 1", "u's is 2"}},
    {"B's states", [](door& d) { d.B = resized(d.B, 2, 2); }, {"B's number of states is 2", "A's is 3"}},
    {"B's length", [](door& d) { d.B = resized(d.B, 3, 4); }, {"B's length is 4", "u's is 5"}},
    {"C's batch", [](door& d) { d.C = resized(d.C, 0, 1); }, {"C's batch is 1", "u's is 2"}},
    {"C's groups", [](door& d) { d.C = resized(d.C, 1, 1); }, {"C's number of groups is 1", "B's is 2"}},
    {"C's states", [](door& d) { d.C = resized(d.C, 2, 4); }, {"C's number of states is 4", "A's is 3"}},
    {"C's length", [](door& d) { d.C = resized(d.C, 3, 6); }, {"C's length is 6", "u's is 5"}},
    {"groups do not divide", [](door& d) { d.B = resized(d.B, 1, 3), d.C = resized(d.C, 1, 3); }, {"B has 3 groups", "u's 4"}},
    {"more groups than channels", [](door& d) { d.B = resized(d.B, 1, 8), d.C = resized(d.C, 1, 8); }, {"B has 8 groups", "u's 4"}},
    {"no groups", [](door& d) { d.B = resized(d.B, 1, 0), d.C = resized(d.C, 1, 0); }, {"B has 0 groups", "u's 4"}},
    {"z's batch", [](door& d) { d.o.z = resized(d.o.z, 0, 3); }, {"z's batch is 3", "u's is 2"}},
    {"z's channels", [](door& d) { d.o.z = resized(d.o.z, 1, 3); }, {"z's number of channels is 3", "u's is 4"}},
    {"z's length", [](door& d) { d.o.z = resized(d.o.z, 2, 4); }, {"z's length is 4", "u's is 5"}},
    {"D's length", [](door& d) { d.o.D = resized(d.o.D, 0, 3); }, {"D's length is 3", "u's number of channels is 4"}},
    {"delta_bias' length", [](door& d) { d.o.delta_bias = resized(d.o.delta_bias, 0, 5); }, {"delta_bias's length is 5", "u's number of channels is 4"}},
    {"state's batch", [](door& d) { d.o.state = d.state(1, 4, 3); }, {"state's batch is 1", "the number of sequences is 2"}},
    {"state's channels", [](door& d) { d.o.state = d.state(2, 3, 3); }, {"state's number of channels is 3", "u's is 4"}},
    {"state's states", [](door& d) { d.o.state = d.state(2, 4, 2); }, {"state's number of states is 2", "A's is 3"}},
    {"initial_state's batch", [](door& d) { d.o.initial_state = d.initial(1, 4, 3); }, {"initial_state's batch is 1", "the number of sequences is 2"}},
    {"initial_state's channels", [](door& d) { d.o.initial_state = d.initial(2, 3, 3); }, {"initial_state's number of channels is 3", "u's is 4"}},
    {"initial_state's states", [](door& d) { d.o.initial_state = d.initial(2, 4, 4); }, {"initial_state's number of states is 4", "A's is 3"}},
    {"snapshots' batch", [](door& d) { d.o.snapshots = d.snapshots(1, 2, 4, 3); }, {"snapshots' batch is 1", "u's is 2"}},
    {"snapshots' number", [](door& d) { d.o.snapshots = d.snapshots(2, 3, 4, 3); }, {"snapshots' number is 3", "length / snapshot_interval is 2"}},
    {"snapshots' channels", [](door& d) { d.o.snapshots = d.snapshots(2, 2, 3, 3); }, {"snapshots's number of channels is 3", "u's is 4"}},
    {"snapshots' states", [](door& d) { d.o.snapshots = d.snapshots(2, 2, 4, 2); }, {"snapshots's number of states is 2", "A's is 3"}},
    {"no interval", [](door& d) { d.o.snapshot_interval = 0; }, {"snapshot_interval is 0", "at least 1"}},
    {"an interval below 0", [](door& d) { d.o.snapshot_interval = -2, d.o.snapshots = {}; }, {"snapshot_interval is -2", "at least 1"}},
    {"no segments", [](door& d) { d.o.time_segments = 0; }, {"time_segments is 0", "from 1 to 4096"}},
    {"too many segments", [](door& d) { d.o.time_segments = 4097; }, {"time_segments is 4097", "from 1 to 4096"}},
    {"rates that are not s4d_real", [](door& d) { d.o.decay = ssm::decay::s4d_real; }, {"decay is s4d_real", "-1.000000", "state 1", "channel 0", "-2"}},

    {"out on u", [](door& d) { d.out = d.out_at(d.u_memory.data() + 39); }, {"out overlaps u"}},
    {"out on delta", [](door& d) { d.out = d.out_at(d.delta_memory.data() + 1); }, {"out overlaps delta"}},
    {"out on A", [](door& d) { d.out = d.out_at(d.a_memory.data() + 11); }, {"out overlaps A"}},
    {"out on B", [](door& d) { d.out = d.out_at(d.b_memory.data()); }, {"out overlaps B"}},
    {"out on C", [](door& d) { d.out = d.out_at(d.c_memory.data() + 59); }, {"out overlaps C"}},
    {"out on z", [](door& d) { d.out = d.out_at(d.z_memory.data()); }, {"out overlaps z"}},
    {"out on D", [](door& d) { d.out = d.out_at(d.d_memory.data() + 3); }, {"out overlaps D"}},
    {"out on delta_bias", [](door& d) { d.out = d.out_at(d.bias_memory.data()); }, {"out overlaps delta_bias"}},
    {"out on initial_state", [](door& d) { d.out = d.out_at(d.initial_memory.data()); }, {"out overlaps initial_state"}},
    {"state on u", [](door& d) { d.o.state = d.state_at(d.u_memory.data() + 39); }, {"state overlaps u"}},
    {"state on delta", [](door& d) { d.o.state = d.state_at(d.delta_memory.data()); }, {"state overlaps delta"}},
    {"state on A", [](door& d) { d.o.state = d.state_at(d.a_memory.data()); }, {"state overlaps A"}},
    {"state on B", [](door& d) { d.o.state = d.state_at(d.b_memory.data()); }, {"state overlaps B"}},
    {"state on C", [](door& d) { d.o.state = d.state_at(d.c_memory.data()); }, {"state overlaps C"}},
    {"state on z", [](door& d) { d.o.state = d.state_at(d.z_memory.data()); }, {"state overlaps z"}},
    {"state on D", [](door& d) { d.o.state = d.state_at(d.d_memory.data()); }, {"state overlaps D"}},
    {"state on delta_bias", [](door& d) { d.o.state = d.state_at(d.bias_memory.data() + 3); }, {"state overlaps delta_bias"}},
    {"state on initial_state", [](door& d) { d.o.state = d.state_at(d.initial_memory.data() + 23); }, {"state overlaps initial_state"}},
    {"state in bf16 on u", [](door& d) { d.o.state = sm::view<bf16, 3>(reinterpret_cast<bf16*>(d.u_memory.data()), {2, 4, 3}); }, {"state overlaps u"}},
    {"state on out", [](door& d) { d.o.state = d.state_at(d.out_memory.data() + 39); }, {"state overlaps out"}},
    {"snapshots on u", [](door& d) { d.o.snapshots = d.snapshots_at(d.u_memory.data()); }, {"snapshots overlaps u"}},
    {"snapshots on A", [](door& d) { d.o.snapshots = d.snapshots_at(d.a_memory.data()); }, {"snapshots overlaps A"}},
    {"snapshots on C", [](door& d) { d.o.snapshots = d.snapshots_at(d.c_memory.data()); }, {"snapshots overlaps C"}},
    {"snapshots on initial_state", [](door& d) { d.o.snapshots = d.snapshots_at(d.initial_memory.data()); }, {"snapshots overlaps initial_state"}},
    {"snapshots on out", [](door& d) { d.o.snapshots = d.snapshots_at(d.out_memory.data()); }, {"snapshots overlaps out"}},
    {"snapshots on state", [](door& d) { d.o.snapshots = d.snapshots_at(d.state_memory.data() + 2); }, {"snapshots overlaps state"}},
};
// clang-format on

} // namespace

TEST_CASE("scan: what does not fit is refused, and nothing is written")
{
    door right;
    right.o.state = right.state(2, 4, 3), right.o.snapshots = right.snapshots(2, 2, 4, 3);
    CHECK_NOTHROW(right.call());
    for (const auto* memory : {&right.out_memory, &right.state_memory, &right.snapshot_memory}) {
        for (index i = 0; i < memory->size(); ++i) { CHECK(std::isfinite((*memory)[i])); }
        CHECK(memory->intact());
    }
    for (const refusal& r : refusals) {
        door d;
        r.spoil(d);
        std::vector<const char*> texts = r.message;
        texts.push_back("ssm::selective_scan: ");
        check_message(r.name, message_of([&] { d.call(); }), texts);
        INFO(r.name);
        CHECK(d.untouched());
    }
}

TEST_CASE("scan: packed sequences that do not fit are refused, and nothing is written")
{
    struct packed_refusal {
        const char* name;
        std::vector<index> offsets;
        std::function<void(ssm::scan_options<float>&)> spoil;
        std::vector<const char*> message;
    };
    static float numbers[400] = {};
    const auto nothing = [](auto&) {};
    const packed_refusal cases[] = {
        {"do not start at 0", {1, 3, 5}, nothing, {"cu_seqlens starts at 1", "not at 0"}},
        {"decrease", {0, 6, 5}, nothing, {"cu_seqlens decreases from 6 to 5"}},
        {"end early", {0, 3, 4}, nothing, {"cu_seqlens ends at 4", "u has length 5"}},
        {"end late", {0, 3, 7}, nothing, {"cu_seqlens ends at 7", "u has length 5"}},
        {"no offsets at all", {}, nothing, {"cu_seqlens is empty"}},
        {"snapshots",
         {0, 3, 5},
         [](auto& o) {
             o.snapshots = {numbers, {1, 5, 4, 3}};
         },
         {"snapshots are given", "packed"}},
        {"state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.state = sm::view<float, 3>(numbers, {1, 4, 3});
         },
         {"state's batch is 1", "the number of sequences is 2"}},
        {"initial_state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.initial_state = sm::view<const float, 3>(numbers, {3, 4, 3});
         },
         {"initial_state's batch is 3", "the number of sequences is 2"}},
        {"z's batch",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {2, 4, 5}};
         },
         {"z's batch is 2", "u's is 1"}},
        {"z's length",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {1, 4, 3}};
         },
         {"z's length is 3", "u's is 5"}},
        {"segments", {0, 3, 5}, [](auto& o) { o.time_segments = -1; }, {"time_segments is -1", "from 1 to 4096"}},
    };
    for (const packed_refusal& r : cases) {
        guarded<float> u(20), a(12), b(30), out(20);
        ssm::scan_options<float> options;
        r.spoil(options);
        std::vector<const char*> texts = r.message;
        texts.push_back("ssm::selective_scan_packed: ");
        const auto call = [&] {
            run_packed<float>(sm::view<const float, 2>(u.data(), {4, 5}), sm::view<const float, 2>(u.data(), {4, 5}),
                              sm::view<const float, 2>(a.data(), {4, 3}), sm::view<const float, 3>(b.data(), {2, 3, 5}),
                              sm::view<const float, 3>(b.data(), {2, 3, 5}), sm::view<float, 2>(out.data(), {4, 5}),
                              sm::view<const index, 1>(r.offsets.data(), {r.offsets.size()}), options);
        };
        check_message(r.name, message_of(call), texts);
        INFO(r.name);
        for (index i = 0; i < out.size(); ++i) { CHECK(out.untouched(i)); }
        CHECK(out.intact());
    }

    guarded<float> u(20), a(12), b(30), out(20);
    const auto call = [&](float* to, float* state, const index* offsets) {
        ssm::scan_options<float> options;
        if (state != nullptr) { options.state = sm::view<float, 3>(state, {2, 4, 3}, {0, 0, 0}); }
        run_packed<float>(sm::view<const float, 2>(u.data(), {4, 5}), sm::view<const float, 2>(u.data(), {4, 5}),
                          sm::view<const float, 2>(a.data(), {4, 3}), sm::view<const float, 3>(b.data(), {2, 3, 5}),
                          sm::view<const float, 3>(b.data(), {2, 3, 5}), sm::view<float, 2>(to, {4, 5}, {0, 0}),
                          sm::view<const index, 1>(offsets, {3}), options);
    };
    index offsets[] = {0, 3, 5};
    auto* const on_offsets = reinterpret_cast<float*>(offsets + 2);
    check_message("out on cu_seqlens", message_of([&] { call(on_offsets, nullptr, offsets); }),
                  {"out overlaps cu_seqlens"});
    check_message("state on cu_seqlens", message_of([&] { call(out.data(), on_offsets, offsets); }),
                  {"state overlaps cu_seqlens"});
    CHECK((offsets[1] == 3 && offsets[2] == 5));
    for (index i = 0; i < out.size(); ++i) { CHECK(out.untouched(i)); }
}

} // namespace scan_test
