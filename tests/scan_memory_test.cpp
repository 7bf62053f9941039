// SPDX-License-Identifier: MIT
// Memory, and what NaN and infinities reach.
#include "scan_case.hpp"
#include "support/scratch.hpp"

#include <bit>
#include <cstdlib>
#include <functional>

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
                sm::context<> ctx;
                check_scratch([&] { return scan_result<T>(p); }, [&](auto& r, const sm::context_ref& on) { run(p, r, on); }, ctx);
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

} // namespace scan_test
