// SPDX-License-Identifier: MIT
// What must be equal to what, bit for bit: threads, cuts of time, snapshots, directions, packed sequences, views. And
// what the forms that round otherwise (s4d_real, pieces of time, a bf16 state) are worth.
#include "scan_case.hpp"

namespace scan_test {

namespace {

/// Where one problem is called in parts and must come out the same.
template <class T>
void check_cut(const scan_problem<T>& p, const std::vector<index>& cuts)
{
    scan_result<T> whole(p), parts(p);
    run(p, whole);
    const auto part = [&](const auto& v, index from, index to) { // counted in the direction of time
        const index length = v.extent(v.rank - 1);
        return p.c.reverse ? v.slice(v.rank - 1, length - to, length - from) : v.slice(v.rank - 1, from, to);
    };
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const index from = cuts[i], to = cuts[i + 1];
        ssm::scan_options<T> o = p.options();
        parts.ask_in(o, 1);
        if (o.z) { o.z = part(o.z, from, to); }
        if (i > 0) { o.initial_state = {}; }
        run_scan<T, T, T>(part(p.u(), from, to), part(p.delta(), from, to), p.A(), part(p.B(), from, to),
                          part(p.C(), from, to), part(parts.out(), from, to), o);
    }
    std::ostringstream place;
    for (index cut : cuts) { place << ' ' << cut; }
    INFO(type_name<T> << ", " << p.c << ", cut at" << place.str());
    CHECK(same_bits(parts.out(), whole.out()));
    CHECK(same_bits(parts.state(), whole.state()));
}

template <class T>
void check_threads(const scan_problem<T>& p)
{
    scan_result<T> alone(p);
    run(p, alone);
    for (int workers : {2, 3, 4, 9}) {
        scan_result<T> shared(p);
        sm::context ctx{sm::parallel_for{workers, on_threads{}}};
        run(p, shared, ctx);
        INFO(type_name<T> << ", " << p.c << ", " << workers << " workers");
        CHECK(shared == alone);
    }
}

/// Snapshots are what a call of so many tokens leaves, and change nothing.
template <class T>
void check_snapshots(scan_problem<T>& p, index interval)
{
    p.c.snapshots = 0;
    scan_result<T> without(p);
    run(p, without);
    p.c.snapshots = interval;
    scan_result<T> with(p);
    run(p, with);
    INFO(type_name<T> << ", " << p.c);
    CHECK(same_bits(with.out(), without.out()));
    CHECK(same_bits(with.state(), without.state()));
    CHECK(with.snapshots.written_exactly());
    for (index s = 0; s < p.c.length / interval; ++s) {
        const index tokens = (s + 1) * interval;
        const auto begin = [&](const auto& v) {
            const index length = v.extent(v.rank - 1);
            return p.c.reverse ? v.slice(v.rank - 1, length - tokens, length) : v.slice(v.rank - 1, 0, tokens);
        };
        scan_result<T> fresh(p);
        ssm::scan_options<T> o = p.options();
        o.state = fresh.state();
        if (o.z) { o.z = begin(o.z); }
        run_scan<T, T, T>(begin(p.u()), begin(p.delta()), p.A(), begin(p.B()), begin(p.C()), begin(fresh.out()), o);
        CHECK(same_bits(fresh.state(), with.snapshots().select(1, s)));
    }
}

/// All that must not change what a number is, on one problem.
void check_same_bits_everywhere(scan_problem<float>& p)
{
    check_threads(p);
    check_cut(p, {0, 37, p.c.length});
    check_snapshots(p, 7);
    p.c.snapshots = 0;
}

} // namespace

TEST_CASE("scan: rates and steps that are large in one place change bits nowhere else")
{
    for (lie stands : {lie::first, lie::last}) {
        const scan_case c{.channels = 256, .states = 16, .length = 100, .state = true, .stands = stands};
        scan_problem<float> clean(c), rate(c), step(c), both(c);
        rate.A()(5, 3) = both.A()(5, 3) = -1000.0f;
        step.delta()(0, 5, 50) = both.delta()(0, 5, 50) = 90.0f;
        for (scan_problem<float>* p : {&clean, &rate, &step, &both}) { check_same_bits_everywhere(*p); }

        scan_result<float> without(clean);
        run(clean, without);
        for (const scan_problem<float>* p : {&rate, &step, &both}) { // the other channels
            scan_result<float> with(*p);
            run(*p, with);
            check_result(*p, with);
            CHECK(same_bits(with.out().slice(1, 0, 5), without.out().slice(1, 0, 5)));
            CHECK(same_bits(with.out().slice(1, 6, 256), without.out().slice(1, 6, 256)));
        }
        // Whatever the product of the two largest is: on both sides of where a cheaper exponential ends.
        for (float large : {124.0f, 124.999f, 125.0f, 125.001f, 126.0f, 127.0f, 149.0f, 150.0f, 1e6f}) {
            if (!thorough && large != 125.001f) { continue; }
            scan_problem<float> p(c);
            p.A()(5, 3) = -large, p.A()(200, 0) = -1.0f;
            p.delta()(0, 5, 50) = std::log(2.0f), p.delta()(0, 5, 51) = 1.0f,
                            p.delta()(0, 200, 80) = std::log(2.0f) * large;
            check_same_bits_everywhere(p);
        }
        // Where nothing enters, states show the last bit of the smallest decays: token 45 asks for the dearer
        // exponential, and token 50 is with it or without.
        scan_problem<float> fading(c);
        fading.delta()(0, 5, 45) = 90.0f, fading.delta()(0, 5, 50) = 0.69f;
        for (index n = 0; n < c.states; ++n) { fading.A()(5, n) = -60.0f - 4.0f * static_cast<float>(n) - 0.3f; }
        for (index t = 50; t < c.length; ++t) {
            fading.u()(0, 5, t) = 0.0f, fading.delta()(0, 5, t) *= t == 50 ? 1.0f : 0x1p-10f;
        }
        check_same_bits_everywhere(fading);
        check_cut(fading, {0, 48, c.length});
        check_snapshots(fading, 48);
        // Decays beyond 1 may be as large.
        scan_problem<float> growing(c);
        growing.A()(5, 3) = 86.0f, growing.delta()(0, 5, 50) = 1.02f;
        for_each(growing.delta().select(1, 5), [](float& x, index, index t) { x = t == 50 ? x : 0.001f; });
        check_same_bits_everywhere(growing);
    }
}

TEST_CASE("scan: empty sequences of a pack leave their states alone")
{
    const std::vector<std::vector<index>> packs = {
        {0, 0, 40, 40, 40, 57, 131, 131}, {0, 131}, {0, 0, 0, 131, 131}, {0, 1, 2, 66, 131}};
    const auto check = [&](auto type, const scan_case& c, const std::vector<index>& offsets) {
        using T = decltype(type);
        const scan_problem<T> p(c);
        const auto sequences = static_cast<index>(offsets.size()) - 1;
        laid_out<T, 3> out(p.sequence(), c.stands), alone(p.sequence(), c.stands);
        if (c.accumulate) { out.copy(p.before_view()), alone.copy(p.before_view()); }
        laid_out<float, 3> state({sequences, c.channels, c.states}, c.stands),
            state_alone({sequences, c.channels, c.states}, c.stands);
        laid_out<float, 3> initial({sequences, c.channels, c.states}, c.stands);
        random_source random(3);
        initial.fill([&] { return random.normal(); });
        state.fill([&] { return random.normal(); }), state_alone.copy(state());
        laid_out<float, 3> before({sequences, c.channels, c.states}, lie::first);
        before.copy(state());

        for (int workers : {1, 4}) {
            if (workers > 1 && c.accumulate) { out.copy(p.before_view()); }
            state.copy(before());
            ssm::scan_options<T> o = p.options();
            o.state = state();
            if (c.initial) { o.initial_state = initial(); }
            sm::context ctx{sm::parallel_for{workers, on_threads{}}};
            run_packed<T>(p.u()[0], p.delta()[0], p.A(), p.B()[0], p.C()[0], out()[0],
                          sm::view<const index, 1>(offsets.data(), {offsets.size()}), o, ctx);
            for (index n = 0; n < sequences && workers == 1; ++n) {
                const index from = offsets[static_cast<std::size_t>(n)], to = offsets[static_cast<std::size_t>(n) + 1];
                const auto part = [&](const auto& v) { return v.slice(v.rank - 1, from, to); };
                ssm::scan_options<T> one = p.options();
                one.state = state_alone().slice(0, n, n + 1);
                if (c.initial) { one.initial_state = initial().slice(0, n, n + 1); }
                if (one.z) { one.z = part(one.z); }
                run_scan<T, T, T>(part(p.u()), part(p.delta()), p.A(), part(p.B()), part(p.C()), part(alone()), one);
            }
            INFO(type_name<T> << ", " << p.c << ", " << sequences << " sequences, " << workers << " workers");
            CHECK(same_bits(out(), alone()));
            CHECK(same_bits(state(), state_alone()));
            for (index n = 0; n < sequences; ++n) {
                if (offsets[static_cast<std::size_t>(n)] != offsets[static_cast<std::size_t>(n) + 1]) { continue; }
                CHECK(same_bits(state().select(0, n), before().select(0, n)));
            }
            CHECK((out.written_exactly() && state.written_exactly()));
        }
    };
    for (const std::vector<index>& offsets : packs) {
        for (lie stands : {lie::first, lie::last, lie::all_reversed}) {
            for (index segments : {1, 3}) {
                scan_case c{.channels = 2 * (lanes + 1),
                            .groups = 2,
                            .states = 5,
                            .length = 131,
                            .segments = segments,
                            .stands = stands};
                check(0.0f, c, offsets);
                c = c.with_all();
                c.initial = true, c.reverse = segments == 3;
                check(0.0f, c, offsets);
                check(bf16{}, c, offsets);
                c.initial = false, c.accumulate = true, c.reverse = segments == 1;
                check(0.0f, c, offsets);
            }
        }
    }
    scan_case nothing{.channels = 3, .states = 2, .length = 0, .state = true};
    check(0.0f, nothing, {0});
    check(0.0f, nothing, {0, 0, 0});
}

TEST_CASE("scan: time may be cut anywhere")
{
    for (lie stands : {lie::first, lie::last, lie::time_reversed}) {
        for (const bool s4d : {false, true}) {
            for (const bool reverse : {false, true}) {
                scan_case c{.batch = 2, .channels = lanes + 3, .states = 13, .length = 150};
                c = c.with_all();
                c.s4d = s4d, c.reverse = reverse, c.initial = !reverse, c.stands = stands;
                const scan_problem<float> p(c);
                for (index cut : {1, 2, 15, 16, 17, 37, 63, 64, 65, 127, 149}) { check_cut(p, {0, cut, 150}); }
                check_cut(p, {0, 1, 2, 19, 83, 83, 84, 150});
                check_cut(scan_problem<bf16>(c), {0, 17, 64, 101, 150});
                check_cut(scan_problem<f16>(c), {0, 31, 150});
            }
        }
    }
    std::vector<index> every(71);
    std::iota(every.begin(), every.end(), index{0});
    for (lie stands : {lie::first, lie::last}) {
        scan_case c{.channels = 2 * lanes + 1, .states = 7, .length = 70, .stands = stands};
        check_cut(scan_problem<float>(c.with_all()), every);
    }
    scan_case slab{.channels = lanes + 1, .states = 3, .length = 700, .state = true};
    check_cut(scan_problem<float>(slab), {0, 511, 513, 700});
}

TEST_CASE("scan: results are the same for every number of threads")
{
    for (lie stands : {lie::first, lie::last}) {
        for (index segments : {1, 2, 3, 7, 50}) {
            scan_case c{.batch = 2,
                        .channels = 12 * lanes + 3,
                        .states = 5,
                        .length = 41,
                        .segments = segments,
                        .stands = stands};
            c = c.with_all();
            check_threads(scan_problem<float>(c));
            check_threads(scan_problem<bf16>(c));
            c.groups = 3, c.channels = 3 * (4 * lanes + 1), c.initial = c.bf16_state = c.accumulate = true,
            c.snapshots = 10;
            check_threads(scan_problem<float>(c));
            c.s4d = c.reverse = true;
            check_threads(scan_problem<float>(c));
        }
    }
    scan_case wide{.channels = thorough ? 2100 : 300, .states = 4, .length = 20, .state = true};
    check_threads(scan_problem<float>(wide));
    wide.stands = lie::last;
    check_threads(scan_problem<float>(wide));
}

TEST_CASE("scan: pieces of time that threads share are within the bound")
{
    for (lie stands : {lie::first, lie::last}) {
        for (index segments : {2, 3, 7, 40, 41, 100, 4096}) {
            for (const bool s4d : {false, true}) {
                scan_case c{.batch = 2, .channels = lanes + 2, .states = 9, .length = 41};
                c = c.with_all();
                c.segments = segments, c.s4d = s4d, c.stands = stands, c.seed = static_cast<std::uint64_t>(segments);
                c.snapshots = 4;
                check_case<float>(c);
                c.initial = c.reverse = true;
                check_case<float>(c);
                c.bf16_state = true;
                check_case<bf16>(c);
                c = {.channels = lanes + 2,
                     .states = 3,
                     .length = 300,
                     .s4d = s4d,
                     .segments = segments,
                     .stands = stands,
                     .delta = {0.0f, 0.05f},
                     .A = {-0.5f, 0.0f}}; // little is forgotten
                c.state = true;
                check_case<float>(c);
            }
        }
    }
    scan_case one{.channels = 3, .states = 4, .length = 1, .state = true, .segments = 5};
    check_case<float>(one);
    one.length = 0;
    check_case<float>(one);
}

TEST_CASE("scan: the structured rates and any others are the same scan")
{
    for (index states : {1, 3, 4, 5, 8, 16, 17, 40, 64, 256}) {
        for (const range& delta : {range{0.0f, 0.5f}, range{0.0f, 20.0f}, range{0.0f, 1e-6f}}) {
            scan_case c{
                .channels = lanes + 3, .states = states, .length = 40, .s4d = true, .state = true, .delta = delta};
            const scan_problem<float> p(c);
            scan_result<float> powers(p);
            run(p, powers);
            check_result(p, powers);
            scan_problem<float> plain(c);
            plain.c.s4d = false;
            scan_result<float> exponentials(plain);
            run(plain, exponentials);
            check_result(plain, exponentials);
        }
    }
}

TEST_CASE("scan: from the last token to the first is the scan of what is turned by hand")
{
    for (lie stands : all_lies) {
        scan_case c{.batch = 2,
                    .channels = lanes + 3,
                    .states = 6,
                    .length = 83,
                    .accumulate = true,
                    .snapshots = 9,
                    .stands = stands};
        c = c.with_all();
        c.reverse = true;
        const scan_problem<float> p(c);
        scan_result<float> result(p), by_hand(p);
        run(p, result);
        ssm::scan_options<float> o = p.options();
        by_hand.ask_in(o, c.snapshots);
        o.direction = ssm::direction::forward;
        o.z = o.z.reversed(2);
        run_scan<float, float, float>(p.u().reversed(2), p.delta().reversed(2), p.A(), p.B().reversed(3),
                                      p.C().reversed(3), by_hand.out().reversed(2), o);
        INFO(c);
        CHECK(result == by_hand);
        check_result(p, result);
    }
}

TEST_CASE("scan: both directions may be summed in one output")
{
    for (lie stands : {lie::first, lie::last}) {
        scan_case c{.channels = lanes + 3, .states = 6, .length = 83, .stands = stands};
        c = c.with_all();
        c.state = false;
        scan_problem<float> p(c);
        scan_result<float> forward(p), backward(p), sum(p);
        run(p, forward);
        p.c.reverse = true;
        run(p, backward);
        sum.out.copy(forward.out());
        p.c.accumulate = true;
        run(p, sum);
        bool summed = true;
        for_each(sum.out(),
                 [&](float x, auto... at) { summed = summed && x == forward.out()(at...) + backward.out()(at...); });
        CHECK(summed);
        CHECK(sum.out.written_exactly());
    }
}

TEST_CASE("scan: snapshots are what so many tokens leave")
{
    for (lie stands : {lie::first, lie::last}) {
        for (index interval : {1, 7, 16, 20, 64, 70, 71}) {
            scan_case c{.batch = 2, .channels = lanes + 3, .states = 5, .length = 70, .stands = stands};
            c = c.with_all();
            scan_problem<float> p(c);
            check_snapshots(p, interval);
            c.reverse = true, c.s4d = true;
            scan_problem<float> turned(c);
            check_snapshots(turned, interval);
        }
    }
}

TEST_CASE("scan: a state in bf16 is rounded at the end and nowhere else")
{
    for (lie stands : {lie::first, lie::last, lie::all_reversed}) {
        scan_case c{.batch = 2, .channels = lanes + 3, .states = 6, .length = 83, .stands = stands};
        c = c.with_all();
        c.bf16_state = true;
        const scan_problem<float> p(c);
        scan_result<float> narrow(p);
        run(p, narrow);
        check_result(p, narrow);
        scan_problem<float> wide(c);
        wide.c.bf16_state = false;
        for (float& x : wide.start) { x = static_cast<float>(bf16(x)); }
        scan_result<float> exact(wide);
        run(wide, exact);
        CHECK(same_bits(narrow.out(), exact.out()));
        bool rounded = true;
        for_each(exact.state(),
                 [&](float x, auto... at) { rounded = rounded && bf16(x) == narrow.narrow_state()(at...); });
        CHECK(rounded);
    }
}

TEST_CASE("scan: an initial state in bf16 is widened")
{
    const scan_case c{.batch = 2, .channels = lanes + 3, .states = 6, .length = 20, .initial = true, .state = true};
    scan_problem<float> p(c);
    laid_out<bf16, 3> narrow(p.states(), lie::last);
    narrow.copy(p.initial());
    p.initial.copy(narrow());
    scan_result<float> wide(p), widened(p);
    run(p, wide);
    ssm::scan_options<float> o = p.options();
    widened.ask_in(o, 1);
    o.initial_state = narrow();
    run_scan<float, float, float>(p.u(), p.delta(), p.A(), p.B(), p.C(), widened.out(), o);
    CHECK(widened == wide);
}

TEST_CASE("scan: an initial state goes before state, which is then only written")
{
    scan_case c{.channels = lanes + 3, .states = 6, .length = 20, .initial = true, .state = true};
    scan_problem<float> p(c);
    scan_result<float> first(p);
    run(p, first);
    check_result(p, first);
    for (float& x : p.start) { x = not_a_number; }
    scan_result<float> second(p);
    run(p, second);
    CHECK(first == second);
    p.c.state = false;
    scan_result<float> without(p);
    run(p, without);
    CHECK(same_bits(without.out(), first.out()));
}

TEST_CASE("scan: no tokens leave the state as it is")
{
    for (const bool initial : {false, true}) {
        const scan_case c{
            .batch = 2, .channels = lanes + 3, .states = 6, .length = 0, .initial = initial, .state = true};
        const scan_problem<float> p(c);
        scan_result<float> r(p);
        run(p, r);
        CHECK(same_bits(r.state(), sm::view<const float, 3>(p.start_view())));
    }
}

// (Behrouz et al. 2024, "MambaMixer": selective channel mixing)
TEST_CASE("scan: the scan across channels is the scan of transposed views")
{
    const index batch = 2, tokens = lanes + 5, width = 37, states = 6; // channels of the image are the scan's time
    random_source random(9);
    for (lie stands : {lie::first, lie::last, lie::spaced}) {
        const std::array<index, 3> shape{batch, width, tokens};
        laid_out<float, 3> u(shape, stands), delta(shape, stands), z(shape, stands), out(shape, stands);
        laid_out<float, 4> B({batch, 1, width, states}, stands), C({batch, 1, width, states}, stands);
        laid_out<float, 2> A({tokens, states}, lie::first);
        const auto normal = [&] { return random.normal(); };
        u.fill(normal), z.fill(normal), B.fill(normal), C.fill(normal);
        delta.fill([&] { return random.uniform(0.0f, 0.5f); }), A.fill([&] { return random.uniform(-2.0f, 0.0f); });
        const auto turned = [](const auto& operand) {
            return operand().transposed(operand().rank - 2, operand().rank - 1);
        };
        ssm::scan_options<float> o;
        o.z = turned(z);
        run_scan<float, float, float>(turned(u), turned(delta), A(), turned(B), turned(C), turned(out), o);

        scan_case c{.batch = batch, .channels = tokens, .states = states, .length = width, .z = true};
        scan_problem<float> copies(c);
        copies.u.copy(turned(u)), copies.delta.copy(turned(delta)), copies.z.copy(turned(z)), copies.A.copy(A());
        copies.B.copy(turned(B)), copies.C.copy(turned(C));
        scan_result<float> r(copies);
        run(copies, r);
        check_result(copies, r);
        CHECK(same_bits(turned(out), r.out()));
        CHECK(out.written_exactly());
    }
}

TEST_CASE("scan: layouts and widened types give the same bits")
{
    scan_case c{.batch = 2, .channels = 3 * (lanes + 3), .groups = 3, .states = 6, .length = 83, .snapshots = 10};
    c = c.with_all();
    const scan_problem<float> first(c);
    scan_result<float> want(first);
    run(first, want);
    for (lie stands : all_lies) {
        scan_case other = c;
        other.stands = stands;
        const scan_problem<float> p(other);
        scan_result<float> r(p);
        run(p, r);
        CHECK(r == want);
    }
    const scan_problem<bf16> narrow(c);
    scan_problem<float> wide(c);
    wide.u.copy(narrow.u()), wide.delta.copy(narrow.delta()), wide.z.copy(narrow.z()), wide.B.copy(narrow.B()),
        wide.C.copy(narrow.C());
    scan_result<float> of_narrow(narrow), of_wide(wide);
    run(narrow, of_narrow);
    run(wide, of_wide);
    CHECK(of_narrow == of_wide);
}

} // namespace scan_test
