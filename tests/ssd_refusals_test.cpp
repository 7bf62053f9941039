// SPDX-License-Identifier: MIT
// Memory, what NaN and infinities reach, and what is refused.
#include "ssd_case.hpp"
#include "support/count_allocations.hpp"

#include <cstdlib>
#include <functional>
#include <stdexcept>

namespace ssd_test {

namespace {

template <class T>
std::size_t scratch_of(const ssd_case& c, int workers = 1)
{
    const ssd_problem<T> p(c);
    ssd_result<T> r(p);
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

TEST_CASE("ssd: scratch is the caller's, and is reused")
{
    for (const form how : {form::chunked, form::recurrent}) {
        for (stand s : {stand{}, stand{lie::first, axes::swap13}}) {
            for (index chunk : {1, 7, 24, 70}) {
                ssd_case c{.batch = 2,
                           .heads = 3,
                           .channels = 4 * lanes + 3,
                           .states = 7,
                           .length = 70,
                           .form = how,
                           .chunk = chunk,
                           .stands = s};
                c = c.with_all();
                const auto check = [&](auto type) {
                    using T = decltype(type);
                    const ssd_problem<T> p(c);
                    ssd_result<T> want(p), got(p), again(p), alone(p);
                    run(p, want);
                    INFO(type_name<T> << ", " << c);

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
                    ssd_result<T> on_mine(p);
                    before = allocations;
                    run(p, on_mine, exact);
                    CHECK(allocations == before);
                    CHECK(on_mine == want);
                    CHECK(memory.intact());

                    guarded<unsigned char> odd(static_cast<index>(bytes + sm::scratch_alignment - 1),
                                               1); // where alignment costs most
                    sm::context<> misaligned{sm::serial{}, sm::workspace(odd.data(), bytes + sm::scratch_alignment - 1)};
                    ssd_result<T> on_odd(p);
                    run(p, on_odd, misaligned);
                    CHECK(on_odd == want);
                    CHECK(odd.intact());

                    ssd_result<T> unwritten(p);
                    const ssd_result<T> as_made(p);
                    sm::context<> short_of_one{sm::serial{}, sm::workspace(memory.data(), bytes - 1)};
                    const std::string message = message_of([&] { run(p, unwritten, short_of_one); });
                    check_message("scratch", message, {std::to_string(bytes).c_str(), std::to_string(bytes - 1).c_str()});
                    CHECK(unwritten == as_made);
                };
                check(0.0f);
                check(bf16{});
                check(f16{});
            }
        }
    }
}

TEST_CASE("ssd: scratch does not grow with the length, nor beyond a block with the heads")
{
    for (int workers : {1, 3}) {
        ssd_case c{.heads = 4, .channels = 20, .states = 9, .length = 300};
        const std::size_t at_300 = scratch_of<float>(c, workers);
        c.length = 1500;
        CHECK(scratch_of<float>(c, workers) == at_300);
        c.length = 5;
        CHECK(scratch_of<float>(c, workers) <= at_300);
        c.channels = 64, c.states = 128, c.heads = 32 * workers; // blocks are full
        const std::size_t full = scratch_of<float>(c, workers);
        c.heads *= 2;
        CHECK(scratch_of<float>(c, workers) == full);
    }
}

namespace {

/// What one bad number reaches: outputs (head, channel, token) and states (head, channel, n) of batch item 1, or of all of
/// them.
struct spread {
    const char* name;
    std::function<void(ssd_problem<float>&, float)> put;
    std::function<bool(index h, index p, index t)> out;
    std::function<bool(index h, index p, index n)> state;
    std::function<bool(index h)> heads; ///< in which other numbers may be rounded otherwise: as in the other form
    bool every_item = false;
};

} // namespace

TEST_CASE("ssd: NaN and infinities reach what they must and nothing else")
{
    const index H = 6, of_group = 2, P = lanes + 3, N = 5, L = 70, h0 = 3, p0 = lanes, n0 = 3;
    for (index t0 : {17, 23, 24, 47, 69}) { // chunks of 24 begin at 24 and 48
        const auto never = [](index, index, index) { return false; };
        const auto no_head = [](index) { return false; };
        const auto of_the_group = [=](index h) { return h / of_group == h0 / of_group; };
        const auto head = [=](index h, index, index) { return h == h0; };
        const auto channel = [=](index h, index p, index) { return h == h0 && p == p0; };
        const auto this_state = [=](index h, index p, index n) { return h == h0 && p == p0 && n == n0; };
        // clang-format off
        const std::vector<spread> spreads = {
            {"x", [=](auto& p, float v) { p.x()(1, t0, h0, p0) = v; }, [=](index h, index p, index t) { return h == h0 && p == p0 && t >= t0; },
             channel, [=](index h) { return h == h0; }},
            {"dt", [=](auto& p, float v) { p.dt()(1, t0, h0) = v; }, [=](index h, index, index t) { return h == h0 && t >= t0; }, head, no_head},
            {"z", [=](auto& p, float v) { p.z()(1, t0, h0, p0) = v; }, [=](index h, index p, index t) { return h == h0 && p == p0 && t == t0; },
             never, no_head},
            {"B", [=](auto& p, float v) { p.B()(1, t0, h0 / of_group, n0) = v; },
             [=](index h, index, index t) { return of_the_group(h) && t >= t0; },
             [=](index h, index, index n) { return of_the_group(h) && n == n0; }, no_head},
            {"C", [=](auto& p, float v) { p.C()(1, t0, h0 / of_group, n0) = v; },
             [=](index h, index, index t) { return of_the_group(h) && t == t0; }, never, no_head},
            {"A", [=](auto& p, float v) { p.A()(h0) = v; }, head, head, no_head, true},
            {"D", [=](auto& p, float v) { p.D()(h0) = v; }, head, never, no_head, true},
            {"dt_bias", [=](auto& p, float v) { p.bias()(h0) = v; }, head, head, no_head, true},
            {"initial_state", [=](auto& p, float v) { p.initial()(1, h0, p0, n0) = v; }, channel, this_state, no_head},
            {"state", [=](auto& p, float v) { p.start[static_cast<std::size_t>(((H + h0) * P + p0) * N + n0)] = v; }, channel, this_state, no_head},
        };
        // clang-format on
        for (const spread& s : spreads) {
            for (const form how : {form::chunked, form::recurrent}) {
                for (stand lies : {stand{}, stand{lie::first, axes::swap13}}) {
                    ssd_case c{.batch = 2,
                               .heads = H,
                               .groups = H / of_group,
                               .channels = P,
                               .states = N,
                               .length = L,
                               .form = how,
                               .chunk = 24,
                               .stands = lies};
                    c = c.with_all();
                    c.initial = std::string(s.name) == "initial_state";
                    ssd_problem<float> clean(c);
                    ssd_result<float> want(clean);
                    run(clean, want);
                    clean.c.form = form::automatic; // the bound of any form
                    const expectation bounds = expect<float>(clean);
                    for (float value : {not_a_number, infinity, -infinity}) {
                        // Where decays are NaN in one form and 0 in the other: an output need not be finite, and that is
                        // all.
                        ssd_problem<float> p(c);
                        s.put(p, value);
                        ssd_result<float> got(p);
                        run(p, got);
                        INFO(s.name << " of token " << t0 << " is " << value << ", " << c);
                        index lost = 0, spilt = 0;
                        const auto judge = [&](float x, float before, double exact, double tolerance, bool mine,
                                               bool reached, index h) {
                            const bool must = mine && reached;
                            if (must && std::isinf(value)) { return; }
                            lost += must && !std::isnan(x);
                            const bool near = absolute_error(widened(x), exact) <= tolerance;
                            spilt += !must && !(mine && s.heads(h) ? near : std::memcmp(&x, &before, sizeof x) == 0);
                        };
                        std::size_t i = 0;
                        for_each(got.out(), [&](float x, index b, index t, index h, index channel_of_it) {
                            judge(x, want.out()(b, t, h, channel_of_it), bounds.out[i], bounds.out_tolerance[i],
                                  b == 1 || s.every_item, s.out(h, channel_of_it, t), h);
                            ++i;
                        });
                        CHECK(lost == 0);
                        CHECK(spilt == 0);
                        lost = spilt = 0, i = 0;
                        for_each(got.state(), [&](float x, index b, index h, index channel_of_it, index n) {
                            judge(x, want.state()(b, h, channel_of_it, n), bounds.state[i], bounds.state_tolerance[i],
                                  b == 1 || s.every_item, s.state(h, channel_of_it, n), h);
                            ++i;
                        });
                        INFO("(states)");
                        CHECK(lost == 0);
                        CHECK(spilt == 0);
                    }
                }
            }
        }
    }
}

TEST_CASE("ssd: NaN in bf16 and f16 stays in its channel, and behind its token")
{
    const auto check = [&](auto type) {
        using T = decltype(type);
        for (index t0 : {0, 5, 30, 31, 32, 69}) {
            const ssd_case c{.heads = 2, .channels = lanes + 3, .states = 6, .length = 70, .state = true, .chunk = 16};
            ssd_problem<T> p(c);
            const expectation bounds = (p.c.form = form::automatic, expect<T>(p));
            p.c.form = form::chunked;
            p.x()(0, t0, 1, 2) = T(not_a_number);
            ssd_result<T> r(p);
            run(p, r);
            index wrong = 0;
            std::size_t i = 0;
            for_each(r.out(), [&](T y, index, index t, index h, index channel) {
                const bool reached = h == 1 && channel == 2 && t >= t0;
                wrong += reached ? !std::isnan(widened(y))
                                 : !(absolute_error(widened(y), bounds.out[i]) <= bounds.out_tolerance[i]);
                ++i;
            });
            INFO(type_name<T> << ", token " << t0);
            CHECK(wrong == 0);

            ssd_problem<T> of_B(c);
            of_B.B()(0, t0, 0, 4) = T(not_a_number);
            ssd_result<T> spoilt(of_B);
            run(of_B, spoilt);
            wrong = 0;
            for_each(spoilt.out(),
                     [&](T y, index, index t, index, index) { wrong += std::isnan(widened(y)) != (t >= t0); });
            for_each(spoilt.state(), [&](float h, index, index, index, index n) { wrong += std::isnan(h) != (n == 4); });
            CHECK(wrong == 0);

            ssd_problem<T> of_C(c);
            of_C.C()(0, t0, 0, 4) = T(not_a_number);
            ssd_result<T> one_token(of_C);
            run(of_C, one_token);
            wrong = 0;
            for_each(one_token.out(),
                     [&](T y, index, index t, index, index) { wrong += std::isnan(widened(y)) != (t == t0); });
            for_each(one_token.state(), [&](float h, auto...) { wrong += std::isnan(h); });
            CHECK(wrong == 0);
        }
    };
    check(bf16{});
    check(f16{});
}

TEST_CASE("ssd: an infinity stays one where nothing makes it a NaN")
{
    for (const form how : {form::chunked, form::recurrent}) {
        const ssd_case c{.channels = lanes + 3, .states = 1, .length = 40, .form = how, .chunk = 16, .dt = {0.1f, 0.5f}};
        ssd_problem<float> p(c);
        p.x()(0, 20, 0, 2) = infinity;
        ssd_result<float> r(p);
        run(p, r);
        index wrong = 0;
        for_each(r.out(), [&](float y, index, index t, index, index channel) {
            const bool reached = channel == 2 && t >= 20;
            wrong += reached ? y != std::copysign(infinity, p.B()(0, 20, 0, 0) * p.C()(0, t, 0, 0)) : !std::isfinite(y);
        });
        CHECK(wrong == 0);
    }
}

TEST_CASE("ssd: NaN does not cross the border of a pack")
{
    const index offsets[] = {0, 20, 40, 70};
    const ssd_case c{.heads = 2, .channels = lanes + 3, .states = 5, .length = 70, .chunk = 16};
    ssd_problem<float> pack(c);
    placed<float, 4> out(pack.sequence(), {}), spoilt(pack.sequence(), {});
    const auto call = [&](const auto& to) {
        run_packed<float>(pack.x()[0], pack.dt()[0], pack.A(), pack.B()[0], pack.C()[0], to()[0],
                          sm::view<const index, 1>(offsets, {4}), pack.options());
    };
    call(out);
    pack.B()(0, 33, 0, 2) = not_a_number;
    call(spoilt);
    index wrong = 0;
    for_each(spoilt(), [&](float y, index b, index t, index h, index p) {
        wrong += t >= 33 && t < 40 ? !std::isnan(y) : y != out()(b, t, h, p);
    });
    CHECK(wrong == 0);
}

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, L 5, H 4, P 3, G 2, N 3.
struct door {
    guarded<float> out_memory{120}, state_memory{72};
    std::vector<float> x_memory = filled(120), dt_memory = filled(40), a_memory = filled(4), b_memory = filled(60),
                       c_memory = filled(60), z_memory = filled(120), d_memory = filled(4), bias_memory = filled(4),
                       initial_memory = filled(72);
    sm::view<const float, 4> x{x_memory.data(), {2, 5, 4, 3}}, B{b_memory.data(), {2, 5, 2, 3}},
        C{c_memory.data(), {2, 5, 2, 3}};
    sm::view<const float, 3> dt{dt_memory.data(), {2, 5, 4}};
    sm::view<const float, 1> A{a_memory.data(), {4}};
    sm::view<float, 4> out{out_memory.data(), {2, 5, 4, 3}};
    ssm::ssd_options<float> o;

    door()
    {
        o.D = {d_memory.data(), {4}}, o.dt_bias = {bias_memory.data(), {4}};
        o.z = {z_memory.data(), {2, 5, 4, 3}}, o.initial_state = initial(2, 4, 3, 3);
        o.state = state_at(state_memory.data());
    }
    sm::view<const float, 4> initial(index b, index h, index p, index n) const
    {
        return {initial_memory.data(), {b, h, p, n}};
    }
    sm::view<float, 4> state(index b, index h, index p, index n) { return {state_memory.data(), {b, h, p, n}}; }
    sm::view<float, 4> state_at(float* data) const { return {data, {2, 4, 3, 3}, {0, 0, 0, 1}}; }
    sm::view<float, 4> out_at(float* data) const { return {data, {2, 5, 4, 3}, {0, 0, 0, 1}}; }

    void call() const { run_ssd<float, float, float>(x, dt, A, B, C, out, o); }

    bool untouched() const
    {
        for (const auto* memory : {&x_memory, &dt_memory, &a_memory, &b_memory, &c_memory, &z_memory, &d_memory,
                                   &bias_memory, &initial_memory}) {
            if (*memory != filled(memory->size())) { return false; }
        }
        for (const auto* memory : {&out_memory, &state_memory}) {
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
    {"x is null", [](door& d) { d.x = null(d.x); }, {"x is null", "120"}},
    {"dt is null", [](door& d) { d.dt = null(d.dt); }, {"dt is null", "40"}},
    {"A is null", [](door& d) { d.A = null(d.A); }, {"A is null", "4"}},
    {"B is null", [](door& d) { d.B = null(d.B); }, {"B is null", "60"}},
    {"C is null", [](door& d) { d.C = null(d.C); }, {"C is null", "60"}},
    {"out is null", [](door& d) { d.out = null(d.out); }, {"out is null", "120"}},
    {"negative length", [](door& d) { d.x = resized(d.x, 1, -5); }, {"x has a negative extent", "-5"}},
    {"negative states", [](door& d) { d.B = resized(d.B, 3, -3); }, {"B has a negative extent", "-3"}},

    {"dt's batch", [](door& d) { d.dt = resized(d.dt, 0, 1); }, {"dt's batch is 1", "x's is 2"}},
    {"dt's length", [](door& d) { d.dt = resized(d.dt, 1, 4); }, {"dt's length is 4", "x's is 5"}},
    {"dt's heads", [](door& d) { d.dt = resized(d.dt, 2, 3); }, {"dt's number of heads is 3", "x's is 4"}},
    {"out's batch", [](door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1", "x's is 2"}},
    {"out's length", [](door& d) { d.out = resized(d.out, 1, 0); }, {"out's length is 0", "x's is 5"}},
    {"out's heads", [](door& d) { d.out = resized(d.out, 2, 3); }, {"out's number of heads is 3", "x's is 4"}},
    {"out's head size", [](door& d) { d.out = resized(d.out, 3, 2); }, {"out's head size is 2", "x's is 3"}},
    {"A's length", [](door& d) { d.A = resized(d.A, 0, 3); }, {"A's length is 3", "x's number of heads is 4"}},
    {"B's batch", [](door& d) { d.B = resized(d.B, 0, 1); }, {"B's batch is 1", "x's is 2"}},
    {"B's length", [](door& d) { d.B = resized(d.B, 1, 4); }, {"B's length is 4", "x's is 5"}},
    {"C's batch", [](door& d) { d.C = resized(d.C, 0, 1); }, {"C's batch is 1", "x's is 2"}},
    {"C's length", [](door& d) { d.C = resized(d.C, 1, 6); }, {"C's length is 6", "x's is 5"}},
    {"C's groups", [](door& d) { d.C = resized(d.C, 2, 1); }, {"C's number of groups is 1", "B's is 2"}},
    {"C's states", [](door& d) { d.C = resized(d.C, 3, 4); }, {"C's number of states is 4", "B's is 3"}},
    {"groups do not divide", [](door& d) { d.B = resized(d.B, 2, 3), d.C = resized(d.C, 2, 3); }, {"B has 3 groups", "x's 4"}},
    {"more groups than heads", [](door& d) { d.B = resized(d.B, 2, 8), d.C = resized(d.C, 2, 8); }, {"B has 8 groups", "x's 4"}},
    {"no groups", [](door& d) { d.B = resized(d.B, 2, 0), d.C = resized(d.C, 2, 0); }, {"B has 0 groups", "x's 4"}},
    {"z's batch", [](door& d) { d.o.z = resized(d.o.z, 0, 3); }, {"z's batch is 3", "x's is 2"}},
    {"z's length", [](door& d) { d.o.z = resized(d.o.z, 1, 4); }, {"z's length is 4", "x's is 5"}},
    {"z's heads", [](door& d) { d.o.z = resized(d.o.z, 2, 3); }, {"z's number of heads is 3", "x's is 4"}},
    {"z's head size", [](door& d) { d.o.z = resized(d.o.z, 3, 4); }, {"z's head size is 4", "x's is 3"}},
    {"D's length", [](door& d) { d.o.D = resized(d.o.D, 0, 3); }, {"D's length is 3", "x's number of heads is 4"}},
    {"dt_bias' length", [](door& d) { d.o.dt_bias = resized(d.o.dt_bias, 0, 5); }, {"dt_bias's length is 5", "x's number of heads is 4"}},
    {"state's batch", [](door& d) { d.o.state = d.state(1, 4, 3, 3); }, {"state's batch is 1", "the number of sequences is 2"}},
    {"state's heads", [](door& d) { d.o.state = d.state(2, 3, 3, 3); }, {"state's number of heads is 3", "x's is 4"}},
    {"state's head size", [](door& d) { d.o.state = d.state(2, 4, 2, 3); }, {"state's head size is 2", "x's is 3"}},
    {"state's states", [](door& d) { d.o.state = d.state(2, 4, 3, 2); }, {"state's number of states is 2", "B's is 3"}},
    {"initial_state's batch", [](door& d) { d.o.initial_state = d.initial(1, 4, 3, 3); }, {"initial_state's batch is 1", "the number of sequences is 2"}},
    {"initial_state's heads", [](door& d) { d.o.initial_state = d.initial(2, 3, 3, 3); }, {"initial_state's number of heads is 3", "x's is 4"}},
    {"initial_state's head size", [](door& d) { d.o.initial_state = d.initial(2, 4, 4, 3); }, {"initial_state's head size is 4", "x's is 3"}},
    {"initial_state's states", [](door& d) { d.o.initial_state = d.initial(2, 4, 3, 1); }, {"initial_state's number of states is 1", "B's is 3"}},
    {"a chunk below 0", [](door& d) { d.o.chunk = -1; }, {"chunk is -1", "from 0", "1024"}},
    {"a chunk too long", [](door& d) { d.o.chunk = 1025; }, {"chunk is 1025", "from 0", "1024"}},

    {"out on x", [](door& d) { d.out = d.out_at(d.x_memory.data() + 119); }, {"out overlaps x"}},
    {"out on dt", [](door& d) { d.out = d.out_at(d.dt_memory.data() + 1); }, {"out overlaps dt"}},
    {"out on A", [](door& d) { d.out = d.out_at(d.a_memory.data() + 3); }, {"out overlaps A"}},
    {"out on B", [](door& d) { d.out = d.out_at(d.b_memory.data()); }, {"out overlaps B"}},
    {"out on C", [](door& d) { d.out = d.out_at(d.c_memory.data() + 59); }, {"out overlaps C"}},
    {"out on z", [](door& d) { d.out = d.out_at(d.z_memory.data()); }, {"out overlaps z"}},
    {"out on D", [](door& d) { d.out = d.out_at(d.d_memory.data() + 3); }, {"out overlaps D"}},
    {"out on dt_bias", [](door& d) { d.out = d.out_at(d.bias_memory.data()); }, {"out overlaps dt_bias"}},
    {"out on initial_state", [](door& d) { d.out = d.out_at(d.initial_memory.data()); }, {"out overlaps initial_state"}},
    {"state on x", [](door& d) { d.o.state = d.state_at(d.x_memory.data() + 119); }, {"state overlaps x"}},
    {"state on dt", [](door& d) { d.o.state = d.state_at(d.dt_memory.data()); }, {"state overlaps dt"}},
    {"state on A", [](door& d) { d.o.state = d.state_at(d.a_memory.data()); }, {"state overlaps A"}},
    {"state on B", [](door& d) { d.o.state = d.state_at(d.b_memory.data()); }, {"state overlaps B"}},
    {"state on C", [](door& d) { d.o.state = d.state_at(d.c_memory.data()); }, {"state overlaps C"}},
    {"state on z", [](door& d) { d.o.state = d.state_at(d.z_memory.data()); }, {"state overlaps z"}},
    {"state on D", [](door& d) { d.o.state = d.state_at(d.d_memory.data()); }, {"state overlaps D"}},
    {"state on dt_bias", [](door& d) { d.o.state = d.state_at(d.bias_memory.data() + 3); }, {"state overlaps dt_bias"}},
    {"state on initial_state", [](door& d) { d.o.state = d.state_at(d.initial_memory.data() + 71); }, {"state overlaps initial_state"}},
    {"state in bf16 on x", [](door& d) { d.o.state = sm::view<bf16, 4>(reinterpret_cast<bf16*>(d.x_memory.data()), {2, 4, 3, 3}); }, {"state overlaps x"}},
    {"state on out", [](door& d) { d.o.state = d.state_at(d.out_memory.data() + 117); }, {"state overlaps out"}},
};
// clang-format on

} // namespace

TEST_CASE("ssd: what does not fit is refused, and nothing is written")
{
    door right;
    right.o.state = right.state(2, 4, 3, 3);
    CHECK_NOTHROW(right.call());
    for (const auto* memory : {&right.out_memory, &right.state_memory}) {
        for (index i = 0; i < memory->size(); ++i) { CHECK(std::isfinite((*memory)[i])); }
        CHECK(memory->intact());
    }
    for (const refusal& r : refusals) {
        door d;
        r.spoil(d);
        std::vector<const char*> texts = r.message;
        texts.push_back("ssm::ssd: ");
        check_message(r.name, message_of([&] { d.call(); }), texts);
        INFO(r.name);
        CHECK(d.untouched());
    }
}

TEST_CASE("ssd: packed sequences that do not fit are refused, and nothing is written")
{
    struct packed_refusal {
        const char* name;
        std::vector<index> offsets;
        std::function<void(ssm::ssd_options<float>&)> spoil;
        std::vector<const char*> message;
    };
    static float numbers[400] = {};
    const auto nothing = [](auto&) {};
    const packed_refusal cases[] = {
        {"do not start at 0", {1, 3, 5}, nothing, {"cu_seqlens starts at 1", "not at 0"}},
        {"decrease", {0, 6, 5}, nothing, {"cu_seqlens decreases from 6 to 5"}},
        {"end early", {0, 3, 4}, nothing, {"cu_seqlens ends at 4", "x has length 5"}},
        {"end late", {0, 3, 7}, nothing, {"cu_seqlens ends at 7", "x has length 5"}},
        {"no offsets at all", {}, nothing, {"cu_seqlens is empty"}},
        {"state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.state = sm::view<float, 4>(numbers, {1, 4, 3, 3});
         },
         {"state's batch is 1", "the number of sequences is 2"}},
        {"initial_state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.initial_state = sm::view<const float, 4>(numbers, {3, 4, 3, 3});
         },
         {"initial_state's batch is 3", "the number of sequences is 2"}},
        {"z's batch",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {2, 5, 4, 3}};
         },
         {"z's batch is 2", "x's is 1"}},
        {"z's length",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {1, 3, 4, 3}};
         },
         {"z's length is 3", "x's is 5"}},
        {"chunk", {0, 3, 5}, [](auto& o) { o.chunk = 2000; }, {"chunk is 2000", "1024"}},
    };
    std::vector<float> x(60, 1.0f), dt(20, 1.0f), a(4, -1.0f), b(30, 1.0f);
    const auto call = [&](float* to, const ssm::ssd_options<float>& options, const index* offsets, std::size_t count,
                          bool spread_out) {
        const sm::view<float, 3> out =
            spread_out ? sm::view<float, 3>(to, {5, 4, 3}) : sm::view<float, 3>(to, {5, 4, 3}, {0, 0, 0});
        run_packed<float>(sm::view<const float, 3>(x.data(), {5, 4, 3}), sm::view<const float, 2>(dt.data(), {5, 4}),
                          sm::view<const float, 1>(a.data(), {4}), sm::view<const float, 3>(b.data(), {5, 2, 3}),
                          sm::view<const float, 3>(b.data(), {5, 2, 3}), out, sm::view<const index, 1>(offsets, {count}),
                          options);
    };
    for (const packed_refusal& r : cases) {
        guarded<float> out(60);
        ssm::ssd_options<float> options;
        r.spoil(options);
        std::vector<const char*> texts = r.message;
        texts.push_back("ssm::ssd_packed: ");
        check_message(r.name, message_of([&] { call(out.data(), options, r.offsets.data(), r.offsets.size(), true); }),
                      texts);
        INFO(r.name);
        for (index i = 0; i < out.size(); ++i) { CHECK(out.untouched(i)); }
        CHECK(out.intact());
    }

    index offsets[] = {0, 3, 5};
    auto* const on_offsets = reinterpret_cast<float*>(offsets + 2);
    guarded<float> out(60);
    ssm::ssd_options<float> on_state;
    on_state.state = sm::view<float, 4>(on_offsets, {2, 4, 3, 3}, {0, 0, 0, 0});
    check_message("out on cu_seqlens", message_of([&] { call(on_offsets, {}, offsets, 3, false); }),
                  {"out overlaps cu_seqlens"});
    check_message("state on cu_seqlens", message_of([&] { call(out.data(), on_state, offsets, 3, true); }),
                  {"state overlaps cu_seqlens"});
    CHECK((offsets[1] == 3 && offsets[2] == 5));
    for (index i = 0; i < out.size(); ++i) { CHECK(out.untouched(i)); }
}

} // namespace ssd_test
