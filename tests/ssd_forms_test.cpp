// SPDX-License-Identifier: MIT
// What must be equal to what, bit for bit: threads, cuts of time, packed sequences, layouts, states that are given in one
// way or another. And cuts between the borders of chunks, which are within the bound.
#include "ssd_case.hpp"

#include <seqmix/tile/register_tile.hpp>

#include <numeric>

namespace ssd_test {

namespace {

/// One problem in parts of time that pass their state on; gives whether all bits are those of the whole.
template <class T>
bool run_in_parts(const ssd_problem<T>& p, const std::vector<index>& cuts, ssd_result<T>& parts)
{
    ssd_result<T> whole(p);
    run(p, whole);
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const auto part = [&](const auto& v) { return v.slice(1, cuts[i], cuts[i + 1]); };
        ssm::ssd_options<T> o = p.options();
        parts.ask_in(o);
        if (o.z) { o.z = part(o.z); }
        if (i > 0) { o.initial_state = {}; }
        run_ssd<T, T, T>(part(p.x()), part(p.dt()), p.A(), part(p.B()), part(p.C()), part(parts.out()), o);
    }
    return parts == whole;
}

/// Any NaN being the same as any other.
template <class T>
bool same_number(T a, T b)
{
    return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(static_cast<float>(a)) && std::isnan(static_cast<float>(b)));
}

std::string listed(const std::vector<index>& cuts)
{
    std::ostringstream place;
    for (index cut : cuts) { place << ' ' << cut; }
    return place.str();
}

template <class T>
void check_equal_cut(const ssd_problem<T>& p, const std::vector<index>& cuts)
{
    ssd_result<T> parts(p);
    INFO(type_name<T> << ", " << p.c << ", cut at" << listed(cuts));
    CHECK(run_in_parts(p, cuts, parts));
}

/// Chunks begin elsewhere: what any chunks may be off by is what these may be.
template <class T>
void check_other_cut(ssd_problem<T>& p, const std::vector<index>& cuts)
{
    ssd_result<T> parts(p);
    INFO("cut at" << listed(cuts));
    run_in_parts(p, cuts, parts);
    const form how = p.c.form;
    p.c.form = form::automatic;
    check_result(p, parts);
    p.c.form = how;
}

template <class T>
void check_threads(const ssd_problem<T>& p)
{
    ssd_result<T> alone(p);
    run(p, alone);
    for (int workers : {1, 2, 3, 4, 5}) {
        ssd_result<T> shared(p);
        sm::context ctx{sm::parallel_for{workers, on_threads{}}};
        run(p, shared, ctx);
        INFO(type_name<T> << ", " << p.c << ", " << workers << " workers");
        CHECK(shared == alone);
    }
}

} // namespace

TEST_CASE("ssd: results are the same for every number of threads")
{
    for (const form how : {form::chunked, form::recurrent}) {
        for (const auto& [batch, heads, groups] : {std::array<index, 3>{1, 7, 1}, {3, 6, 2}, {2, 5, 5}}) {
            ssd_case c{.batch = batch,
                       .heads = heads,
                       .groups = groups,
                       .channels = lanes + 3,
                       .states = 9,
                       .length = 41,
                       .form = how,
                       .chunk = 16};
            check_threads(ssd_problem<float>(c.with_all()));
            check_threads(ssd_problem<bf16>(c.with_all()));
            c = c.with_all();
            c.initial = c.bf16_state = true, c.chunk = 0;
            check_threads(ssd_problem<float>(c));
        }
    }
    ssd_case large{.heads = 24,
                   .channels = 64,
                   .states = thorough ? 128 : 32,
                   .length = 13,
                   .state = true}; // more than one block of heads
    check_threads(ssd_problem<float>(large));
}

TEST_CASE("ssd: time may be cut at multiples of the chunk, bit for bit")
{
    for (stand s : {stand{}, stand{lie::first, axes::swap12}, stand{lie::time_reversed, axes::swap13}}) {
        for (const bool initial : {false, true}) {
            for (index chunk : {5, 6, 24, 31}) {
                ssd_case c{.batch = 2,
                           .heads = 3,
                           .channels = lanes + 3,
                           .states = 13,
                           .length = 4 * chunk + 7,
                           .chunk = chunk,
                           .stands = s};
                c = c.with_all();
                c.initial = initial;
                const auto check = [&](const auto& p) {
                    check_equal_cut(p, {0, chunk, c.length});
                    check_equal_cut(p, {0, 2 * chunk, 3 * chunk, 3 * chunk, c.length});
                    check_equal_cut(p, {0, chunk, 2 * chunk, 3 * chunk, 4 * chunk, c.length});
                };
                check(ssd_problem<float>(c));
                check(ssd_problem<bf16>(c));
                check_equal_cut(ssd_problem<float>(c.as(form::automatic, chunk)), {0, 2 * chunk, c.length});
            }
        }
    }
    ssd_case c{.heads = 2,
               .channels = lanes + 1,
               .states = 5,
               .length = 66,
               .state = true,
               .chunk = 64}; // parts shorter than a tile of rows
    check_equal_cut(ssd_problem<float>(c), {0, 64, 66});
    check_equal_cut(ssd_problem<bf16>(c), {0, 64, 66});
}

TEST_CASE("ssd: time may be cut at multiples of the chunk, however short the parts, and whichever form is chosen")
{
    ssd_case c{
        .heads = 2, .channels = lanes + 1, .states = 5, .length = 66, .state = true, .form = form::automatic, .chunk = 64};
    check_equal_cut(ssd_problem<float>(c), {0, 64, 66});
    c.chunk = 5;
    check_equal_cut(ssd_problem<float>(c), {0, 5, 66});
}

TEST_CASE("ssd: token by token, time may be cut anywhere")
{
    ssd_case c{.batch = 2, .heads = 2, .channels = lanes + 3, .states = 7, .length = 70};
    c = c.with_all().as(form::recurrent);
    for (index chunk : {0, 1, 16, 1024}) {
        c.chunk = chunk;
        const ssd_problem<float> p(c);
        for (index cut : {1, 2, 15, 16, 17, 37, 63, 69}) { check_equal_cut(p, {0, cut, 70}); }
        check_equal_cut(ssd_problem<bf16>(c), {0, 1, 2, 19, 33, 33, 34, 70});
    }
    std::vector<index> every(71);
    std::iota(every.begin(), every.end(), index{0});
    check_equal_cut(ssd_problem<float>(c), every);
}

TEST_CASE("ssd: cuts between the borders of chunks are within the bound")
{
    for (index chunk : {0, 6, 24, 64}) {
        ssd_case c{.batch = 2, .heads = 2, .channels = lanes + 3, .states = 7, .length = 150, .chunk = chunk};
        c = c.with_all();
        for (const form how : {form::chunked, form::automatic}) {
            ssd_problem<float> p(c.as(how, chunk));
            for (index cut : {1, 5, 23, 25, 75, 149}) { check_other_cut(p, {0, cut, 150}); }
            check_other_cut(p, {0, 1, 3, 20, 83, 83, 84, 150});
            ssd_problem<bf16> narrow(c.as(how, chunk));
            check_other_cut(narrow, {0, 17, 101, 150});
        }
    }
}

TEST_CASE("ssd: recurrent results do not depend on the chunk, nor any on how far it exceeds the length")
{
    const ssd_case c = ssd_case{.batch = 2, .heads = 2, .channels = lanes + 3, .states = 7, .length = 70}.with_all();
    const auto same = [&](form how, index chunk, index other) {
        const ssd_problem<float> one(c.as(how, chunk)), two(c.as(how, other));
        ssd_result<float> first(one), second(two);
        run(one, first), run(two, second);
        INFO("chunks " << chunk << " and " << other);
        CHECK(first == second);
    };
    for (index chunk : {1, 6, 24, 1024}) { same(form::recurrent, chunk, 0); }
    same(form::chunked, 70, 71), same(form::chunked, 70, 1024);
}

TEST_CASE("ssd: automatic is by chunks, but for chunks of fewer tokens than a tile has rows")
{
    constexpr index chunk = 20, rows = sm::tile::small_blocking<test_arch>::rows;
    for (index length : {1, 5, 6, 7, 40, 46, 100}) {
        const ssd_case c = ssd_case{.heads = 2, .channels = lanes + 3, .states = 7, .length = length}.with_all();
        const ssd_problem<float> automatic(c.as(form::automatic, chunk)),
            insisted(c.as(length < rows ? form::recurrent : form::chunked, chunk));
        ssd_result<float> chosen(automatic), meant(insisted);
        run(automatic, chosen), run(insisted, meant);
        INFO("length " << length);
        CHECK(chosen == meant);
    }
}

TEST_CASE("ssd: packed sequences are as each alone, and empty ones leave their states alone")
{
    const std::vector<std::vector<index>> packs = {
        {0, 0, 40, 40, 40, 57, 95, 95}, {0, 95}, {0, 0, 0, 95, 95}, {0, 1, 2, 66, 95}, {0, 3, 95}};
    const auto check = [&](auto type, const ssd_case& c, const std::vector<index>& offsets) {
        using T = decltype(type);
        const ssd_problem<T> p(c);
        const auto sequences = static_cast<index>(offsets.size()) - 1;
        const std::array<index, 4> states{sequences, c.heads, c.channels, c.states};
        placed<T, 4> out(p.sequence(), c.stands), alone(p.sequence(), c.stands);
        placed<float, 4> state(states, c.stands), state_alone(states, c.stands), initial(states, c.stands),
            before(states, {});
        random_source random(3);
        initial.fill([&] { return random.normal(); }), before.fill([&] { return random.normal(); });
        state_alone.copy(before());
        for (int workers : {1, 4}) {
            state.copy(before());
            ssm::ssd_options<T> o = p.options();
            o.state = state();
            if (c.initial) { o.initial_state = initial(); }
            sm::context ctx{sm::parallel_for{workers, on_threads{}}};
            run_packed<T>(p.x()[0], p.dt()[0], p.A(), p.B()[0], p.C()[0], out()[0],
                          sm::view<const index, 1>(offsets.data(), {offsets.size()}), o, ctx);
            for (index n = 0; n < sequences && workers == 1; ++n) {
                const index from = offsets[static_cast<std::size_t>(n)], to = offsets[static_cast<std::size_t>(n) + 1];
                const auto part = [&](const auto& v) { return v.slice(1, from, to); };
                ssm::ssd_options<T> one = p.options();
                one.state = state_alone().slice(0, n, n + 1);
                if (c.initial) { one.initial_state = initial().slice(0, n, n + 1); }
                if (one.z) { one.z = part(one.z); }
                run_ssd<T, T, T>(part(p.x()), part(p.dt()), p.A(), part(p.B()), part(p.C()), part(alone()), one);
            }
            INFO(type_name<T> << ", " << p.c << ", at" << listed(offsets) << ", " << workers << " workers");
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
        for (stand s : {stand{}, stand{lie::first, axes::swap12}, stand{lie::all_reversed, axes::swap23}}) {
            for (const form how : {form::chunked, form::recurrent, form::automatic}) {
                ssd_case c{.heads = 4,
                           .groups = 2,
                           .channels = lanes + 1,
                           .states = 5,
                           .length = 95,
                           .form = how,
                           .chunk = 24,
                           .stands = s};
                check(0.0f, c, offsets);
                c = c.with_all();
                c.state = false; // given here, one for each sequence
                c.chunk = 0;
                check(bf16{}, c, offsets);
                c.initial = true;
                check(0.0f, c, offsets);
            }
        }
    }
    ssd_case nothing{.heads = 2, .channels = 3, .states = 2, .length = 0};
    check(0.0f, nothing, {0});
    check(0.0f, nothing, {0, 0, 0});
}

TEST_CASE("ssd: layouts and widened types give the same bits")
{
    for (const form how : {form::chunked, form::recurrent}) {
        ssd_case c{.batch = 2,
                   .heads = 6,
                   .groups = 3,
                   .channels = 2 * lanes + 3,
                   .states = 6,
                   .length = 53,
                   .form = how,
                   .chunk = 24};
        c = c.with_all();
        const ssd_problem<float> first(c);
        ssd_result<float> want(first);
        run(first, want);
        for (const stand& s : all_stands) {
            ssd_case other = c;
            other.stands = s;
            const ssd_problem<float> p(other);
            ssd_result<float> r(p);
            run(p, r);
            INFO(other);
            CHECK(r == want);
        }
        const auto widen = [&](auto type) {
            using T = decltype(type);
            const ssd_problem<T, float> narrow(c);
            ssd_problem<float> wide(c);
            wide.x.copy(narrow.x()), wide.dt.copy(narrow.dt()), wide.z.copy(narrow.z()), wide.B.copy(narrow.B()),
                wide.C.copy(narrow.C());
            ssd_result<float> of_wide(wide);
            run(wide, of_wide);
            if constexpr (std::is_same_v<T, bf16>) {
                ssd_result<float> of_narrow(narrow);
                run(narrow, of_narrow);
                CHECK(of_narrow == of_wide);
            } else {
                ssd_result<T> of_narrow(narrow);
                run(narrow, of_narrow);
                CHECK(same_bits(of_narrow.state(), of_wide.state()));
                bool rounded = true;
                for_each(of_wide.out(),
                         [&](float x, auto... at) { rounded = rounded && same_number(T(x), of_narrow.out()(at...)); });
                CHECK(rounded);
            }
        };
        widen(f16{});
        if (!narrow_products<bf16> || how == form::recurrent) { widen(bf16{}); }
    }
}

TEST_CASE("ssd: a state in bf16 is rounded at the end and nowhere else")
{
    for (const form how : {form::chunked, form::recurrent}) {
        for (stand s :
             {stand{}, stand{lie::last}, stand{lie::first, axes::swap23}, stand{lie::all_reversed, axes::swap13}}) {
            ssd_case c{.batch = 2,
                       .heads = 2,
                       .channels = lanes + 3,
                       .states = 6,
                       .length = 53,
                       .form = how,
                       .chunk = 24,
                       .stands = s};
            c = c.with_all();
            c.bf16_state = true;
            const ssd_problem<float> p(c);
            ssd_result<float> narrow(p);
            run(p, narrow);
            check_result(p, narrow);
            ssd_problem<float> wide(c);
            wide.c.bf16_state = false;
            for (float& x : wide.start) { x = static_cast<float>(bf16(x)); }
            ssd_result<float> exact(wide);
            run(wide, exact);
            CHECK(same_bits(narrow.out(), exact.out()));
            bool rounded = true;
            for_each(exact.state(),
                     [&](float x, auto... at) { rounded = rounded && bf16(x) == narrow.narrow_state()(at...); });
            CHECK(rounded);
        }
    }
}

TEST_CASE("ssd: an initial state in bf16 is widened")
{
    const ssd_case c{
        .batch = 2, .heads = 2, .channels = lanes + 3, .states = 6, .length = 20, .initial = true, .state = true};
    ssd_problem<float> p(c);
    placed<bf16, 4> narrow(p.states(), {lie::last});
    narrow.copy(p.initial());
    p.initial.copy(narrow());
    ssd_result<float> wide(p), of_narrow(p);
    run(p, wide);
    ssm::ssd_options<float> o = p.options();
    of_narrow.ask_in(o);
    o.initial_state = narrow();
    run_ssd<float, float, float>(p.x(), p.dt(), p.A(), p.B(), p.C(), of_narrow.out(), o);
    CHECK(of_narrow == wide);
}

TEST_CASE("ssd: an initial state goes before state, which is then only written")
{
    for (const form how : {form::chunked, form::recurrent}) {
        const ssd_case c{
            .heads = 2, .channels = lanes + 3, .states = 6, .length = 20, .initial = true, .state = true, .form = how};
        ssd_problem<float> p(c);
        ssd_result<float> first(p);
        placed<float, 4> before(p.states(), {});
        before.copy(p.initial());
        run(p, first);
        check_result(p, first);
        CHECK(same_bits(p.initial(), before()));
        for (float& x : p.start) { x = not_a_number; }
        ssd_result<float> second(p);
        run(p, second);
        CHECK(first == second);
        p.c.state = false;
        ssd_result<float> without(p);
        run(p, without);
        CHECK(same_bits(without.out(), first.out()));
    }
}

TEST_CASE("ssd: a result that leaves the caches is the same result")
{
    if (!thorough) { return; }
    const auto check = [](auto type, index length, std::size_t skipped) {
        using T = decltype(type);
        ssd_case c{.batch = 2,
                   .heads = 32,
                   .channels = 64,
                   .states = 2,
                   .length = length,
                   .D = true,
                   .stands = {lie::first, axes::given, skipped}};
        const ssd_problem<T> p(c);
        ssd_result<T> whole(p), items(p); // 16 MB, and twice 8 MB
        run(p, whole);
        for (index b = 0; b < c.batch; ++b) {
            const auto one = [b](const auto& v) { return v.slice(0, b, b + 1); };
            run_ssd<T, T, T>(one(p.x()), one(p.dt()), p.A(), one(p.B()), one(p.C()), one(items.out()), p.options());
        }
        CHECK(same_bits(whole.out(), items.out()));
        CHECK(whole.out.written_exactly());
    };
    check(0.0f, 1024, 0), check(0.0f, 1024, 1);
    check(bf16{}, 2048, 0);
}

TEST_CASE("ssd: no tokens leave the state as it is")
{
    for (const bool initial : {false, true}) {
        const ssd_case c{
            .batch = 2, .heads = 2, .channels = lanes + 3, .states = 6, .length = 0, .initial = initial, .state = true};
        const ssd_problem<float> p(c);
        ssd_result<float> r(p);
        run(p, r);
        CHECK(same_bits(r.state(), sm::view<const float, 4>(p.start_view())));
    }
}

} // namespace ssd_test
