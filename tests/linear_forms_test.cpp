// SPDX-License-Identifier: MIT
// Narrow types; what must be equal to what, bit for bit: threads, cuts of time, packed sequences, layouts, snapshots, states that are
// given in one way or another; memory; and what NaN reaches.
#include "linear_doors.hpp"
#include "support/scratch.hpp"

#include <functional>
#include <stdexcept>

namespace linear_test {

template forward_door<bf16, bf16> run_forward;
template forward_door<bf16, float> run_forward;
template forward_door<f16, f16> run_forward;
template packed_door<bf16> run_packed;
// linear_test.cpp has these.
extern template forward_door<float, float> run_forward;
extern template packed_door<float> run_packed;

namespace {

constexpr form both_forms[] = {form::recurrent, form::chunked};

/// One problem in parts of time that pass states on; gives whether all bits are those of the whole.
template <class T>
bool run_in_parts(const linear_problem<T>& p, const std::vector<index>& cuts, linear_result<T>& parts)
{
    linear_result<T> whole(p);
    run(p, whole);
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const auto part = [&](const auto& v) { return v.slice(1, cuts[i], cuts[i + 1]); };
        linear::options o = p.options();
        parts.ask_in(o);
        if (i > 0) { o.initial_state = {}; }
        run_forward<T, T>(p.c.rule, p.c.features, part(p.q()), part(p.k()), part(p.v()), parts_of(p.operands(), part), part(parts.out()), o);
    }
    return parts == whole;
}

template <class T>
void check_equal_cut(const linear_problem<T>& p, const std::vector<index>& cuts)
{
    linear_result<T> parts(p);
    INFO(type_name<T> << ", " << p.c << ", cut at " << cuts[1]);
    CHECK(run_in_parts(p, cuts, parts));
}

/// Passes everything on that it can: states and normalisers.
linear_case passing(rule r)
{
    linear_case c{.rule = r, .batch = 2, .heads = 2, .query_heads = 4, .size = 7, .values = lanes + 3, .length = 70};
    c.normalize = c.normalizer = r == rule::retention || r == rule::gla;
    c.state = true;
    return c;
}

/// Sums of weights that pass through a random state may vanish: with a normaliser, states begin as it does.
template <class T>
linear_problem<T> problem_of(const linear_case& c)
{
    linear_problem<T> p(c);
    if (c.normalize) {
        for (float& x : p.start) { x = std::fabs(x); }
    }
    return p;
}

} // namespace

TEST_CASE("linear: narrow types against the definition")
{
    for (rule r : all_rules) {
        for (index chunk : {0, 7, 16, 24}) {
            const linear_case c{.rule = r, .heads = 2, .query_heads = chunk == 7 ? 4 : 1, .size = 9, .values = lanes + 3, .length = 45,
                                .state = true, .bf16_state = chunk == 16, .accumulate = chunk == 24};
            for (form how : both_forms) {
                if (is_built<bf16>(r)) { check_case<bf16>(c.as(how, chunk)); }
                if (is_built<bf16, float>(r)) { check_case<bf16, float>(c.as(how, chunk)); }
                if (is_built<f16>(r)) { check_case<f16>(c.as(how, chunk)); }
            }
        }
        for (const range& g : {range{0.0f, 0.0f}, range{-30.0f, -30.0f}, range{-1e4f, 0.0f}}) {
            if (!is_built<bf16>(r)) { continue; }
            check_case<bf16>({.rule = r, .size = 5, .values = 6, .length = 45, .state = true, .chunk = 24, .g = g});
        }
    }
}

TEST_CASE("linear: token by token, time may be cut anywhere; in chunks, at their multiples")
{
    for (rule r : all_rules) {
        const linear_case c = passing(r);
        const auto alone = problem_of<float>(c.as(form::recurrent));
        for (index cut : {1, 13, 24, 69}) { check_equal_cut(alone, {0, cut, cut, 70}); }
        if (is_built<bf16>(r)) { check_equal_cut(problem_of<bf16>(c.as(form::recurrent)), {0, 1, 2, 33, 70}); }
        for (index chunk : {8, 9, 24}) {
            const auto p = problem_of<float>(c.as(form::chunked, chunk));
            check_equal_cut(p, {0, chunk, 70}), check_equal_cut(p, {0, 2 * chunk, 2 * chunk, 70});
            check_equal_cut(problem_of<float>(c.as(form::automatic, chunk)), {0, 2 * chunk, 70});
            if (is_built<bf16>(r)) { check_equal_cut(problem_of<bf16>(c.as(form::chunked, chunk)), {0, 2 * chunk, 70}); }
        }
    }
}

TEST_CASE("linear: random lengths, chunks and cuts are within the bound")
{
    for (std::uint64_t seed = 1; seed <= (thorough ? 60 : 10); ++seed) {
        random_source random(seed);
        linear_case c{.rule = all_rules[seed % 9], .heads = 2, .size = random.integer(1, 9), .values = random.integer(1, 2 * lanes),
                      .length = random.integer(2, 80), .state = true, .form = random.integer(0, 2) == 0 ? form::automatic : form::chunked,
                      .chunk = random.integer(0, 40), .g = {random.uniform(-3.0f, -0.5f), 0.0f}, .seed = seed};
        linear_problem<float> p(c);
        const index one = random.integer(0, c.length), other = random.integer(one, c.length);
        linear_result<float> parts(p);
        run_in_parts(p, {0, one, other, c.length}, parts);
        p.c.form = form::automatic; // chunks that begin anywhere
        check_result(p, parts);
    }
}

TEST_CASE("linear: snapshots are the states that parts of time leave")
{
    for (rule r : all_rules) {
        for (form how : both_forms) {
            for (index interval : {1, 8, 16, 23, 45}) {
                const linear_case c{.rule = r, .batch = 2, .heads = 3, .size = 5, .values = lanes + 1, .length = 45, .form = how, .chunk = 8, .snapshots = interval};
                const linear_problem<float> p(c);
                linear_result<float> r_with(p);
                run(p, r_with);
                check_result(p, r_with);
                linear_problem<float> parts(c);
                parts.c.snapshots = 0, parts.c.state = true;
                for (float& x : parts.start) { x = 0.0f; }
                linear_result<float> state(parts);
                bool same = true;
                for (index n = 0; n < c.length / interval; ++n) {
                    const auto part = [&](const auto& v) { return v.slice(1, n * interval, (n + 1) * interval); };
                    linear::options o = parts.options();
                    state.ask_in(o);
                    run_forward<float, float>(r, features::given, part(p.q()), part(p.k()), part(p.v()), parts_of(p.operands(), part), part(state.out()), o);
                    same = same && same_bits(r_with.snapshots().select(1, n), state.state());
                }
                INFO(c);
                CHECK(same);
            }
        }
    }
}

TEST_CASE("linear: packed sequences are as each alone, and empty ones leave their states alone")
{
    const auto check = [](auto type, const linear_case& c, const std::vector<index>& offsets) {
        using T = decltype(type);
        const linear_problem<T> p(c);
        const auto sequences = static_cast<index>(offsets.size()) - 1;
        linear_case of_each = c;
        of_each.batch = sequences, of_each.length = 0, of_each.state = true, of_each.normalizer = c.normalize;
        const linear_problem<T> each = problem_of<T>(of_each);
        linear_result<T> want(each), got(each);
        placed<T, 4> out(p.outputs(), c.stands), alone(p.outputs(), c.stands);
        linear::options o = p.options();
        got.ask_in(o);
        sm::context ctx{sm::parallel_for{3, on_threads{}}};
        run_packed<T>(c.rule, p.q(), p.k(), p.v(), p.operands(), out(), sm::view<const index, 1>(offsets.data(), {offsets.size()}), o, ctx);
        for (index n = 0; n < sequences; ++n) {
            const auto part = [&](const auto& v) { return v.slice(1, offsets[static_cast<std::size_t>(n)], offsets[static_cast<std::size_t>(n) + 1]); };
            linear::options one = p.options();
            one.state = want.state().slice(0, n, n + 1);
            if (c.normalize) { one.normalizer = want.normalizer().slice(0, n, n + 1); }
            run_forward<T, T>(c.rule, c.features, part(p.q()), part(p.k()), part(p.v()), parts_of(p.operands(), part), part(alone()), one);
        }
        INFO(type_name<T> << ", " << c);
        CHECK(same_bits(out(), alone()));
        CHECK(got == want);
        CHECK((out.written_exactly() && got.written_exactly()));
    };
    for (rule r : all_rules) {
        for (const std::vector<index>& offsets : {std::vector<index>{0, 0, 31, 31, 40, 55, 55}, {0, 55}, {0, 1, 2, 55}}) {
            for (form how : {form::chunked, form::recurrent, form::automatic}) {
                linear_case c = passing(r);
                c.batch = 1, c.length = 55, c.form = how, c.chunk = 16, c.stands = {lie::first, axes::swap12};
                check(0.0f, c, offsets);
                if (how == form::chunked && is_built<bf16>(r)) { check(bf16{}, c, offsets); }
            }
        }
    }
    check(0.0f, {.heads = 2, .size = 3, .values = 2, .length = 0}, {0, 0, 0});
}

TEST_CASE("linear: results are the same for every number of threads")
{
    for (rule r : all_rules) {
        for (form how : both_forms) {
            for (index heads : {1, 6}) {
                linear_case c{.rule = r, .batch = heads == 1 ? 5 : 2, .heads = heads, .key_heads = heads == 1 ? 1 : 3, .query_heads = heads * 2, .size = 9,
                              .values = lanes + 3, .length = 41, .state = true, .form = how, .chunk = 16};
                const linear_problem<float> p(c);
                linear_result<float> alone(p);
                run(p, alone);
                for (int workers : {2, 3, 7}) {
                    linear_result<float> shared(p);
                    sm::context ctx{sm::parallel_for{workers, on_threads{}}};
                    run(p, shared, ctx);
                    INFO(c << ", " << workers << " workers");
                    CHECK(shared == alone);
                }
            }
        }
    }
}

TEST_CASE("linear: layouts, and types that are widened, give the same bits")
{
    for (rule r : all_rules) {
        for (form how : both_forms) {
            linear_case c = passing(r).as(how, 24);
            c.values = 2 * lanes + 3;
            const auto first = problem_of<float>(c);
            linear_result<float> want(first);
            run(first, want);
            for (const stand& s : all_stands) {
                linear_case other = c;
                other.stands = s;
                const auto p = problem_of<float>(other);
                linear_result<float> result(p);
                run(p, result);
                INFO(other);
                CHECK(result == want);
            }
            if (!is_built<bf16, float>(r) || (narrow_products<bf16> && how == form::chunked)) { continue; }
            c.query_heads = c.heads, c.normalize = c.normalizer = false;
            const linear_problem<bf16> narrow(c);
            linear_problem<float> wide(c);
            wide.q.copy(narrow.q()), wide.k.copy(narrow.k()), wide.v.copy(narrow.v());
            if (r == rule::rwkv7) { wide.a.copy(narrow.a()), wide.b.copy(narrow.b()); }
            linear_result<float> of_narrow(narrow), of_wide(wide);
            run(narrow, of_narrow), run(wide, of_wide);
            INFO(c);
            CHECK(of_narrow == of_wide);
        }
    }
}

TEST_CASE("linear: states in bf16 are widened at the start, rounded at the end, and nowhere else")
{
    for (rule r : {rule::additive, rule::gla, rule::gated_delta, rule::rwkv7}) {
        for (form how : both_forms) {
            for (stand s : {stand{}, stand{lie::last}, stand{lie::all_reversed, axes::swap13}}) {
                linear_case c{.rule = r, .batch = 2, .heads = 2, .size = 6, .values = lanes + 3, .length = 53, .state = true, .bf16_state = true, .form = how,
                              .chunk = 24, .stands = s};
                const linear_problem<float> p(c);
                linear_result<float> narrow(p);
                run(p, narrow);
                check_result(p, narrow);
                linear_problem<float> wide(c);
                wide.c.bf16_state = false;
                for (float& x : wide.start) { x = static_cast<float>(bf16(x)); }
                linear_result<float> exact(wide);
                run(wide, exact);
                CHECK(same_bits(narrow.out(), exact.out()));
                bool rounded = true;
                for_each(exact.state(), [&](float x, auto... at) { rounded = rounded && bf16(x) == narrow.narrow_state()(at...); });
                CHECK(rounded);
            }
        }
    }
}

TEST_CASE("linear: an initial state goes before state, which is then only written")
{
    for (rule r : all_rules) {
        for (form how : both_forms) {
            linear_case c{.rule = r, .heads = 2, .size = 6, .values = lanes + 3, .length = 20, .initial = true, .state = true, .form = how};
            linear_problem<float> p(c);
            linear_result<float> first(p);
            run(p, first);
            for (float& x : p.start) { x = not_a_number; }
            linear_result<float> second(p);
            run(p, second);
            CHECK(first == second);
            p.c.state = false;
            linear_result<float> without(p);
            run(p, without);
            CHECK(same_bits(without.out(), first.out()));
            c.length = 0;
            const linear_problem<float> nothing(c);
            linear_result<float> left(nothing);
            run(nothing, left);
            CHECK(same_bits(left.state(), sm::view<const float, 4>(nothing.start_view())));
        }
    }
}

TEST_CASE("linear: recurrent results do not depend on the chunk, and sums are added last")
{
    for (rule r : all_rules) {
        const auto run_of = [](const linear_case& c) {
            const linear_problem<float> p(c);
            linear_result<float> result(p);
            run(p, result);
            return result;
        };
        linear_case c{.rule = r, .heads = 2, .size = 5, .values = lanes + 3, .length = 50, .state = true};
        const linear_result<float> alone = run_of(c.as(form::recurrent)), chunked = run_of(c.as(form::chunked, 24));
        for (index chunk : {1, 7, 1024}) { CHECK(run_of(c.as(form::recurrent, chunk)) == alone); }
        CHECK(run_of(c.as(form::chunked, 50)) == run_of(c.as(form::chunked, 1024)));
        c.accumulate = true;
        const linear_problem<float> p(c);
        for (form how : both_forms) {
            const linear_result<float> sum = run_of(c.as(how, 24));
            bool same = true;
            for_each((how == form::recurrent ? alone : chunked).out(),
                     [&](float y, auto... at) { same = same && sum.out()(at...) == p.before_view()(at...) + y; });
            CHECK(same);
        }
    }
}

TEST_CASE("linear: scratch is the caller's, is reused, and does not grow with the length")
{
    for (rule r : all_rules) {
        for (form how : both_forms) {
            linear_case c = passing(r).as(how, 24);
            const auto p = problem_of<float>(c);
            INFO(c);
            sm::context<> ctx;
            check_scratch([&] { return linear_result<float>(p); }, [&](auto& result, const sm::context_ref& on) { run(p, result, on); }, ctx);
            c.length = 300;
            const auto longer = problem_of<float>(c);
            linear_result<float> result(longer);
            const long before = allocations;
            run(longer, result, ctx);
            CHECK(allocations == before);
        }
    }
}

TEST_CASE("linear: nothing is read or written beyond the end of memory")
{
    const auto at_edges = [](auto type, rule r, form how, bool heads_first, bool turned) {
        using T = decltype(type);
        const index one = 1, L = 31, H = 2, K = lanes + 3, V = lanes + 5;
        at_the_edge<T> q(L * H * K), k(L * H * K), v(L * H * V), out(L * H * V), a(L * H * K), b(L * H * K);
        at_the_edge<float> g(L * H * K), beta(L * H), bonus(H * K), state(H * K * V);
        for (index i = 0; i < L * H * K; ++i) { q[i] = k[i] = T(0.25f), a[i] = T(-0.1f), b[i] = T(0.1f), g[i] = -0.5f; }
        for (index i = 0; i < L * H * V; ++i) { v[i] = T(0.5f); }
        for (index i = 0; i < L * H; ++i) { beta[i] = 0.5f; }
        for (index i = 0; i < H * K; ++i) { bonus[i] = 0.5f; }
        for (index i = 0; i < H * K * V; ++i) { state[i] = 0.0f; }
        const auto rows = [&](auto* data, index size) {
            using number = std::remove_pointer_t<decltype(data)>;
            const sm::view<number, 4> w = heads_first ? sm::view<number, 4>(data, {one, H, L, size}).transposed(1, 2) : sm::view<number, 4>(data, {one, L, H, size});
            return turned ? w.reversed(1).reversed(3) : w;
        };
        const auto numbers = [&](float* data) {
            return heads_first ? sm::view<float, 3>(data, {one, H, L}).transposed(1, 2) : sm::view<float, 3>(data, {one, L, H});
        };
        rule_operands<T> in;
        // Where a decay or a head has fewer numbers, the last ones of memory.
        in.head_decay = {g.data() + L * H * K - H, {H}}, in.token_decay = numbers(g.data() + L * H * K - L * H), in.channel_decay = rows(g.data(), K);
        in.beta = numbers(beta.data()), in.bonus = {bonus.data(), {H, K}}, in.a = rows(a.data(), K), in.b = rows(b.data(), K);
        linear::options o;
        o.state = sm::view<float, 4>(state.data(), {one, H, K, V}), o.form = how, o.chunk = 24;
        run_forward<T, T>(r, features::given, rows(q.data(), K), rows(k.data(), K), rows(v.data(), V), in, rows(out.data(), V), o);
        CHECK(std::isfinite(as_double(out[L * H * V - 1]))); // a fault is what fails
    };
    for (rule r : all_rules) {
        for (form how : both_forms) {
            for (const bool heads_first : {false, true}) {
                for (const bool turned : {false, true}) {
                    at_edges(0.0f, r, how, heads_first, turned);
                    if (is_built<bf16>(r)) { at_edges(bf16{}, r, how, heads_first, turned); }
                }
            }
        }
    }
}

namespace {

/// Where one bad number is put, and what it may reach of its batch item and head: outputs (channel, token) and states (i, j).
struct spread {
    const char* name;
    std::function<void(linear_problem<float>&, float)> put;
    std::function<bool(index j, index t)> out;
    std::function<bool(index i, index j)> state;
};

} // namespace

TEST_CASE("linear: NaN and infinities reach the outputs that depend on them, and no others")
{
    const index at = 17, j = lanes + 1, i = 2, head = 1;
    for (rule r : all_rules) {
        const bool mixes = !is_additive(r); // rows of the state
        std::vector<spread> spreads = {
            {"q", [&](auto& p, float bad) { p.q()(1, at, head, i) = bad; }, [&](index, index t) { return t == at; }, [](index, index) { return false; }},
            {"k", [&](auto& p, float bad) { p.k()(1, at, head, i) = bad; }, [&](index, index t) { return t >= at; },
             [&](index row, index) { return mixes || row == i; }},
            {"v", [&](auto& p, float bad) { p.v()(1, at, head, j) = bad; }, [&](index column, index t) { return column == j && t >= at; },
             [&](index, index column) { return column == j; }},
        };
        const auto whole_head = [&](index, index t) { return t >= at; };
        const auto all = [](index, index) { return true; };
        if (decays_of(r) == decays::token) { spreads.push_back({"g", [&](auto& p, float bad) { p.token_decay()(1, at, head) = bad; }, whole_head, all}); }
        if (decays_of(r) == decays::channel) { // rwkv6 reads the state before its token decays it
            const auto reads = [&](index, index t) { return r == rule::rwkv6 ? t > at : t >= at; };
            spreads.push_back({"g", [&](auto& p, float bad) { p.channel_decay()(1, at, head, i) = bad; }, reads, [&](index row, index) { return mixes || row == i; }});
        }
        if (is_delta(r)) { spreads.push_back({"beta", [&](auto& p, float bad) { p.beta()(1, at, head) = bad; }, whole_head, all}); }
        if (r == rule::rwkv7) {
            spreads.push_back({"a", [&](auto& p, float bad) { p.a()(1, at, head, i) = bad; }, whole_head, all});
            spreads.push_back({"b", [&](auto& p, float bad) { p.b()(1, at, head, i) = bad; }, whole_head, all});
        }
        for (form how : both_forms) {
            for (index chunk : {8, 24, 64}) {
                const linear_case c{.rule = r, .batch = 2, .heads = 3, .size = 5, .values = 2 * lanes + 3, .length = 40, .state = true, .form = how, .chunk = chunk};
                const linear_problem<float> clean(c);
                linear_result<float> want(clean);
                run(clean, want);
                for (const spread& s : spreads) {
                    for (const float bad : {not_a_number, infinity, -infinity}) {
                        linear_problem<float> p(c);
                        s.put(p, bad);
                        linear_result<float> result(p);
                        run(p, result);
                        // What it does not reach keeps its value; in its head chunks may have been computed token by token, to other roundings.
                        index others = 0, unreached = 0;
                        const auto judge = [&](bool same_head, bool reached, float got, float was, double tolerance) {
                            if (!same_head) { others += got != was; }
                            if (same_head && !reached) { others += !(std::fabs(as_double(got) - as_double(was)) <= tolerance); }
                            if (same_head && reached && std::isnan(bad)) { unreached += !std::isnan(got); }
                        };
                        const linear_problem<float> wide(c.as(form::automatic));
                        static expectation bound;
                        static std::string bound_of;
                        std::ostringstream name;
                        name << wide.c;
                        if (name.str() != bound_of) { bound = expect<float>(wide), bound_of = name.str(); }
                        std::size_t n = 0;
                        for_each(result.out(), [&](float y, index b, index t, index h, index column) {
                            judge(b == 1 && h == head, s.out(column, t), y, want.out()(b, t, h, column), 2.0 * bound.out_tolerance[n++]);
                        });
                        n = 0;
                        for_each(result.state(), [&](float y, index b, index h, index row, index column) {
                            judge(b == 1 && h == head, s.state(row, column), y, want.state()(b, h, row, column), 2.0 * bound.state_tolerance[n++]);
                        });
                        INFO(c << ", " << bad << " in " << s.name);
                        CHECK(others == 0);
                        CHECK(unreached == 0);
                    }
                }
            }
        }
    }
}

} // namespace linear_test
