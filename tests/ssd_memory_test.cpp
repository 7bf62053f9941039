// SPDX-License-Identifier: MIT
// Memory, and what NaN and infinities reach.
#include "ssd_case.hpp"
#include "support/scratch.hpp"

#include <cstdlib>
#include <functional>

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
                    INFO(type_name<T> << ", " << c);
                    sm::context<> ctx;
                    check_scratch([&] { return ssd_result<T>(p); }, [&](auto& r, const sm::context_ref& on) { run(p, r, on); }, ctx);
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
        if (!thorough && t0 != 23 && t0 != 24) { continue; }
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

} // namespace ssd_test
