// SPDX-License-Identifier: MIT
// Shapes, types, layouts, chunks, and numbers that hurt, against the definition. ssd_forms_test.cpp has what must be equal
// to what, ssd_refusals_test.cpp memory, what NaN reaches, and refusals.
#include "ssd_case.hpp"

#include <seqmix/ssm/ssd.hpp>

namespace ssd_test {

template <class T, class Dt, class Out>
void run_ssd(const sm::view<const T, 4>& x, const sm::view<const Dt, 3>& dt, const sm::view<const float, 1>& A,
             const sm::view<const T, 4>& B, const sm::view<const T, 4>& C, const sm::view<Out, 4>& out,
             const ssm::ssd_options<T>& options, const sm::context_ref& ctx)
{
    ssm::ssd<test_arch>(x, dt, A, B, C, out, options, ctx);
}
template <class T>
void run_packed(const sm::view<const T, 3>& x, const sm::view<const T, 2>& dt, const sm::view<const float, 1>& A,
                const sm::view<const T, 3>& B, const sm::view<const T, 3>& C, const sm::view<T, 3>& out,
                const sm::view<const index, 1>& cu_seqlens, const ssm::ssd_options<T>& options, const sm::context_ref& ctx)
{
    ssm::ssd_packed<test_arch>(x, dt, A, B, C, out, cu_seqlens, options, ctx);
}

template <class T, class Dt, class Out>
using ssd_door = void(const sm::view<const T, 4>&, const sm::view<const Dt, 3>&, const sm::view<const float, 1>&,
                      const sm::view<const T, 4>&, const sm::view<const T, 4>&, const sm::view<Out, 4>&,
                      const ssm::ssd_options<T>&, const sm::context_ref&);
template ssd_door<float, float, float> run_ssd;
template ssd_door<bf16, bf16, bf16> run_ssd;
template ssd_door<f16, f16, f16> run_ssd;
template ssd_door<bf16, float, float> run_ssd;
template ssd_door<f16, float, f16> run_ssd;

template <class T>
using packed_door = void(const sm::view<const T, 3>&, const sm::view<const T, 2>&, const sm::view<const float, 1>&,
                         const sm::view<const T, 3>&, const sm::view<const T, 3>&, const sm::view<T, 3>&,
                         const sm::view<const index, 1>&, const ssm::ssd_options<T>&, const sm::context_ref&);
template packed_door<float> run_packed;
template packed_door<bf16> run_packed;

namespace {

/// One problem in every form.
template <class T, class Dt = T, class Out = T>
void check_forms(const ssd_case& c, std::initializer_list<index> chunks)
{
    check_case<T, Dt, Out>(c.as(form::recurrent));
    for (index chunk : chunks) { check_case<T, Dt, Out>(c.as(form::chunked, chunk)); }
}

} // namespace

TEST_CASE("ssd: the two references agree")
{
    for (index states : {1, 7}) {
        for (const range& A : {range{-4.0f, -0.1f}, range{-100.0f, 0.0f}, range{0.0f, 0.0f}}) {
            ssd_case c{.heads = 2, .channels = 3, .states = states, .length = 90, .A = A};
            const ssd_problem<float> p(c);
            ssd_problem<float> sizes(c);
            for (auto* operand : {&sizes.x, &sizes.B, &sizes.C}) {
                for_each((*operand)(), [](float& x, auto...) { x = std::fabs(x); });
            }
            for (index head = 0; head < c.heads; ++head) {
                const double rate = widened(p.A()(head));
                std::vector<double> dt, h(static_cast<std::size_t>(3 * states));
                for (index t = 0; t < c.length; ++t) { dt.push_back(widened(p.dt()(0, t, head))); }
                const auto of = [&](const auto& operand, index i) {
                    return sm::view<const float, 2>(operand()[0].select(1, i));
                };
                const auto recurrence =
                    ssm::reference::ssd<float>(of(p.x, head), dt, rate, of(p.B, 0), of(p.C, 0), 0.0, {}, h);
                const auto dual = ssm::reference::ssd_dual<float>(of(p.x, head), dt, rate, of(p.B, 0), of(p.C, 0));
                const auto gross =
                    ssm::reference::ssd_dual<float>(of(sizes.x, head), dt, rate, of(sizes.B, 0), of(sizes.C, 0));
                double cumulated = 0.0;
                bool agree = true;
                for (std::size_t i = 0; i < dual.size(); ++i) {
                    const std::size_t t = i / 3;
                    if (i % 3 == 0) { cumulated += std::fabs(rate * dt[t]); }
                    // Each of both: N and t additions, t decays of a rounding each and of one exponential, t sums of
                    // logarithms.
                    const double steps = static_cast<double>(states) + static_cast<double>(t + 1) * (6.0 + cumulated) + 8.0;
                    agree = agree && std::fabs(recurrence[i] - dual[i]) <= 2.0 * steps * 0x1p-53 * gross[i];
                }
                CHECK(agree);
            }
        }
    }
}

TEST_CASE("ssd: every chunk on every length")
{
    for (index length : {0, 1, 2, 5, 6, 7, 8, 15, 16, 17, 29, 30, 31, 35, 51, 63, 64, 65, 100, 131, 257}) {
        if (!thorough && length > 70) { continue; }
        ssd_case c{.heads = 2, .channels = lanes + 1, .states = 7, .length = length};
        c = c.with_all();
        c.seed = static_cast<std::uint64_t>(length + 1);
        check_forms<float>(c, {0, 1, 2, 5, 6, 7, 16, 24, 30, 64, 100, 1024});
        check_forms<bf16>(c, {0, 1, 2, 5, 6, 7, 16, 24, 30, 64, 100, 1024});
        check_case<f16>(c.as(form::chunked, 24));
        check_case<float>(c.as(form::automatic));
        check_case<bf16>(c.as(form::automatic, 16));
    }
}

TEST_CASE("ssd: around whole chunks")
{
    for (index chunk : {index{5}, index{6}, index{24}, lanes, index{30}, index{64}}) {
        for (index length : {chunk - 1, chunk, chunk + 1, 2 * chunk - 1, 2 * chunk, 2 * chunk + 1, 2 * chunk + 3}) {
            ssd_case c{.heads = 3, .channels = lanes + 3, .states = 9, .length = length};
            check_case<float>(c.with_all().as(form::chunked, chunk));
            check_case<bf16>(c.with_all().as(form::chunked, chunk));
        }
    }
}

TEST_CASE("ssd: channels of a head")
{
    for (index channels : {index{0}, index{1}, index{2}, index{3}, index{8}, lanes - 1, lanes, lanes + 1, index{16},
                           index{20}, index{63}, index{64}, index{65}, index{100}, index{128}, 4 * lanes + 1}) {
        ssd_case c{.batch = 2, .heads = 2, .channels = channels, .states = 5, .length = 27};
        c = c.with_all();
        c.seed = static_cast<std::uint64_t>(channels + 1);
        check_forms<float>(c, {24});
        check_case<bf16>(c.as(form::chunked, 7));
        check_case<f16>(c.as(form::chunked, 16));
    }
}

TEST_CASE("ssd: states")
{
    for (index states : {0, 1, 2, 3, 5, 6, 7, 15, 16, 17, 31, 32, 33, 64, 65, 66, 67, 100, 128, 129, 256}) {
        ssd_case c{.heads = 2, .channels = lanes + 1, .states = states, .length = 27};
        c = c.with_all();
        c.seed = static_cast<std::uint64_t>(states + 1);
        check_forms<float>(c, {24});
        check_case<bf16>(c.as(form::chunked, 7));
        check_case<f16>(c.as(form::chunked, 16));
        c.channels = 4 * lanes; // a full panel, of which so many states stay in cache together
        check_case<float>(c.as(form::chunked, 13));
        check_case<bf16>(c.as(form::chunked, 13));
    }
}

TEST_CASE("ssd: heads that share B and C")
{
    for (index heads : {1, 2, 3, 6, 12}) {
        for (index groups : {index{1}, index{2}, index{3}, heads}) {
            if (heads % groups != 0) { continue; }
            for (index batch : {1, 3}) {
                ssd_case c{.batch = batch, .heads = heads, .groups = groups, .channels = 5, .states = 6, .length = 19};
                check_forms<float>(c.with_all(), {6});
                check_case<bf16>(c.with_all().as(form::chunked, 6));
            }
        }
    }
    check_case<float>(ssd_case{.batch = 0, .heads = 2, .channels = 3, .states = 4, .length = 7}.with_all());
    check_case<float>(ssd_case{.heads = 0, .channels = 3, .states = 4, .length = 7}.with_all());
}

TEST_CASE("ssd: heads whose states do not fit a cache together")
{
    if (!thorough) { return; }
    ssd_case c{.heads = 20, .channels = 64, .states = 128, .length = 9};
    check_case<float>(c.with_all().as(form::chunked, 6));
    c.groups = 2;
    check_case<bf16>(c.with_all().as(form::chunked, 6));
}

TEST_CASE("ssd: every layout, every type, off every border")
{
    for (stand s : all_stands) {
        for (std::size_t skipped : {0u, 1u, 3u}) {
            s.skipped = skipped;
            ssd_case c{.batch = 2, .heads = 3, .channels = lanes + 3, .states = 7, .length = 37, .chunk = 24, .stands = s};
            c = c.with_all();
            c.seed = skipped + 1;
            check_all_types(c);
            check_case<bf16, float, float>(c);
            check_case<f16, float, f16>(c);
            if (skipped == 1) { check_case<float>(c.as(form::recurrent)); }
        }
    }
}

TEST_CASE("ssd: operands of different layouts")
{
    random_source random(5);
    const auto any = [&] {
        stand s = all_stands[random.integer(0, static_cast<index>(std::size(all_stands)) - 1)];
        s.skipped = static_cast<std::size_t>(random.integer(0, 3));
        return s;
    };
    for (std::uint64_t seed = 1; seed <= (thorough ? 60 : 12); ++seed) {
        ssd_case c{.batch = 2,
                   .heads = 4,
                   .groups = 2,
                   .channels = 2 * lanes + 3,
                   .states = 6,
                   .length = 29,
                   .chunk = 12,
                   .seed = seed};
        ssd_problem<float> p(c.with_all());
        const auto move = [&](auto& operand, const auto& extents) {
            std::remove_reference_t<decltype(operand)> moved(extents, any());
            moved.copy(operand());
            operand = std::move(moved);
        };
        move(p.x, p.sequence()), move(p.z, p.sequence()), move(p.B, p.coefficients()), move(p.C, p.coefficients());
        move(p.dt, std::array<index, 3>{c.batch, c.length, c.heads});
        ssd_result<float> r(p);
        r.out = placed<float, 4>(p.sequence(), any());
        move(r.state, p.states());
        run(p, r);
        check_result(p, r);
    }
}

namespace {

/// Any options at once, on small odd shapes.
ssd_case random_case(std::uint64_t seed)
{
    random_source random(seed);
    const auto pick = [&](std::initializer_list<index> from) {
        return from.begin()[random.integer(0, static_cast<index>(from.size()) - 1)];
    };
    const auto one_in = [&](index n) { return random.integer(1, n) == 1; };
    ssd_case c;
    c.seed = seed;
    c.batch = random.integer(1, 3), c.groups = pick({1, 1, 2, 3});
    c.heads = c.groups * pick({1, 2, 5});
    c.channels = pick({1, 2, lanes - 1, lanes, lanes + 1, 19, 4 * lanes, 4 * lanes + 1});
    c.states = pick({1, 2, 4, 5, 8, 9, 16, 17, 21});
    c.length = pick({1, 2, 6, 15, 16, 17, 40, 64, 65, 100});
    c.D = one_in(2), c.z = one_in(2), c.bias = one_in(2), c.softplus = one_in(2);
    c.initial = one_in(3), c.state = one_in(2), c.bf16_state = one_in(3);
    c.form = one_in(3) ? form::recurrent : one_in(3) ? form::automatic : form::chunked;
    c.chunk = pick({0, 1, 3, 6, 7, 16, 24, 31, 50, 1024});
    c.stands = all_stands[random.integer(0, static_cast<index>(std::size(all_stands)) - 1)];
    c.stands.skipped = static_cast<std::size_t>(random.integer(0, 3));
    if (c.softplus) { c.dt = {-6.0f, 2.0f}; }
    if (one_in(5)) { c.A = {-300.0f, 0.0f}; }
    return c;
}

} // namespace

TEST_CASE("ssd: everything at random")
{
    for (std::uint64_t seed = 1; seed <= (thorough ? 300 : 60); ++seed) {
        const ssd_case c = random_case(seed);
        check_case<float>(c);
        check_case<bf16>(c);
        if (seed % 3 == 0) { check_case<f16>(c); }
        if (seed % 3 == 1) { check_case<bf16, float, float>(c); }
        if (seed % 3 == 2) { check_case<f16, float, f16>(c); }
    }
}

TEST_CASE("ssd: nothing is read or written beyond the end of memory")
{
    const index b = 1, L = 31, H = 2, P = lanes + 3, N = 5;
    for (const bool heads_first : {false, true}) {
        for (const bool turned : {false, true}) {
            for (const form how : {form::chunked, form::recurrent}) {
                const auto run_at_the_edge = [&](auto type) {
                    using T = decltype(type);
                    at_the_edge<T> x(L * H * P), dt(L * H), z(L * H * P), out(L * H * P), B(L * N), C(L * N);
                    at_the_edge<float> A(H), state(H * P * N), D(H), bias(H);
                    for (index i = 0; i < L * H * P; ++i) { x[i] = z[i] = T(0.5f); }
                    for (index i = 0; i < L * N; ++i) { B[i] = C[i] = T(0.5f); }
                    for (index i = 0; i < L * H; ++i) { dt[i] = T(0.5f); }
                    for (index i = 0; i < H * P * N; ++i) { state[i] = 0.0f; }
                    for (index i = 0; i < H; ++i) { A[i] = -1.0f, D[i] = bias[i] = 0.5f; }
                    const auto sequence = [&](T* data) {
                        const sm::view<T, 4> v = heads_first ? sm::view<T, 4>(data, {b, H, L, P}).transposed(1, 2)
                                                             : sm::view<T, 4>(data, {b, L, H, P});
                        return turned ? v.reversed(1).reversed(3) : v;
                    };
                    const sm::view<T, 3> steps = heads_first ? sm::view<T, 3>(dt.data(), {b, H, L}).transposed(1, 2)
                                                             : sm::view<T, 3>(dt.data(), {b, L, H});
                    const auto coefficients = [&](T* data) {
                        const sm::view<T, 4> v = heads_first
                                                     ? sm::view<T, 4>(data, {b, b, N, L}).transposed(1, 3).transposed(2, 3)
                                                     : sm::view<T, 4>(data, {b, L, b, N});
                        return turned ? v.reversed(1) : v;
                    };
                    ssm::ssd_options<T> o;
                    o.D = sm::view<float, 1>(D.data(), {H}), o.dt_bias = sm::view<float, 1>(bias.data(), {H});
                    o.z = sequence(z.data()), o.softplus = true, o.state = sm::view<float, 4>(state.data(), {b, H, P, N});
                    o.form = how;
                    run_ssd<T, T, T>(sequence(x.data()), steps, sm::view<const float, 1>(A.data(), {H}),
                                     coefficients(B.data()), coefficients(C.data()), sequence(out.data()), o);
                    CHECK(widened(out[0]) > 0.0); // a fault is what fails
                };
                run_at_the_edge(0.0f);
                run_at_the_edge(bf16{});
                run_at_the_edge(f16{});
            }
        }
    }
}

TEST_CASE("ssd: steps and rates at their extremes")
{
    const range steps[] = {{0.0f, 0.0f}, {1e-8f, 1e-8f}, {50.0f, 50.0f}, {0.0f, 50.0f}, {0.0f, 0.125f}};
    const range rates[] = {{-4.0f, -0.1f}, {-1000.0f, -1000.0f}, {-1000.0f, 0.0f},
                           {0.0f, 0.0f},   {-0x1p-140f, 0.0f},   {-1e30f, -1e30f}};
    for (const range& A : rates) {
        for (const range& dt : steps) {
            ssd_case c{.heads = 2, .channels = lanes + 3, .states = 9, .length = 70, .state = true, .dt = dt, .A = A};
            check_forms<float>(c, {0, 6, 64});
            check_case<bf16>(c.as(form::chunked, 30));
        }
        for (const range& dt : {range{-100.0f, -80.0f}, range{-100.0f, 50.0f}, range{20.0f, 50.0f}, range{0.0f, 0.0f}}) {
            ssd_case c{.heads = 2, .channels = lanes + 3, .states = 9, .length = 70};
            c = c.with_all();
            c.dt = dt, c.A = A;
            if (A.low == -1e30f && dt.high > dt.low + 30.0f) { continue; } // below
            check_forms<float>(c, {0, 6, 64});
            check_case<bf16>(c.as(form::chunked, 30));
        }
    }
}

// Some tokens keep everything and others nothing: what is cumulated exceeds the weakest decay by more than two floats hold.
TEST_CASE("ssd: rates so large that tokens keep all or nothing")
{
    ssd_case c{.heads = 2, .channels = lanes + 3, .states = 9, .length = 70};
    c = c.with_all();
    c.dt = {-100.0f, 50.0f}, c.A = {-1e30f, -1e30f};
    check_case<float>(c.as(form::recurrent));
    check_case<float>(c.as(form::chunked, 64));
}

// Cumulated in float, what decays behind a strong decay would be off by 2^-24 of all that came before: by about 1 here.
TEST_CASE("ssd: strong decays do not blur the weak ones behind them")
{
    for (index chunk : {24, 100, 1024}) {
        for (index every : {1, 2, 7, 500}) {
            ssd_case c{.heads = 2,
                       .channels = lanes + 3,
                       .states = 5,
                       .length = thorough ? 1100 : 200,
                       .state = true,
                       .chunk = chunk,
                       .A = {-1.0f, -1.0f}};
            for (const float strong : {30.0f, 3e3f, 1e6f}) {
                ssd_problem<float> p(c);
                for_each(p.dt(), [&](float& dt, index, index t, index head) {
                    dt = (t + head) % every == 0 ? strong : dt * 0.02f;
                });
                // Inputs of steps so large would hide everything behind them.
                for_each(p.x(), [&](float& x, index, index t, index head, index) {
                    x = (t + head) % every == 0 && every > 1 ? 0.0f : x;
                });
                ssd_result<float> r(p);
                run(p, r);
                check_result(p, r);
                if (strong > 30.0f || chunk > 100) { continue; }
                ssd_problem<bf16> narrow(c);
                narrow.dt.copy(p.dt()), narrow.x.copy(p.x());
                ssd_result<bf16> narrow_result(narrow);
                run(narrow, narrow_result);
                check_result(narrow, narrow_result);
            }
        }
    }
}

TEST_CASE("ssd: states that decay into subnormals, and inputs that begin there")
{
    for (const form how : {form::recurrent, form::chunked}) {
        for (index chunk : {6, 24}) {
            ssd_case c{.heads = 2,
                       .channels = lanes + 3,
                       .states = 5,
                       .length = 200,
                       .state = true,
                       .form = how,
                       .chunk = chunk,
                       .dt = {0.4f, 0.6f},
                       .A = {-3.0f, -1.0f}};
            ssd_problem<float> p(c);
            for_each(p.x(), [](float& x, index, index t, index, index) { x = t < 3 ? x : t > 150 ? x * 0x1p-140f : 0.0f; });
            ssd_result<float> r(p);
            run(p, r);
            check_result(p, r);
            int subnormal = 0;
            for_each(r.out(), [&](float y, auto...) { subnormal += y != 0.0f && std::fabs(y) < 0x1p-126f; });
            CHECK(subnormal > 0);

            c.length = 20; // nothing enters: what was given decays
            ssd_problem<float> given(c);
            for (float& h : given.start) { h *= 0x1p-138f; }
            for_each(given.x(), [](float& x, auto...) { x = 0.0f; });
            ssd_result<float> faded(given);
            run(given, faded);
            check_result(given, faded);
        }
    }
}

TEST_CASE("ssd: a hundred thousand tokens are no further off than a thousand")
{
    const index length = thorough ? 100000 : 6000, near = 1000;
    const auto check = [&](auto type, form how, index chunk) {
        using T = decltype(type);
        const ssd_case c{.channels = 2,
                         .states = 2,
                         .length = length,
                         .form = how,
                         .chunk = chunk,
                         .dt = {0.001f, 0.1f},
                         .A = {-1.0f, -0.5f}};
        const ssd_problem<T, float> p(c);
        ssd_result<float> r(p);
        run(p, r);
        const expectation want = expect<float>(p);
        worst_error all, first, last;
        double first_bound = 0.0, last_bound = 0.0;
        std::size_t i = 0;
        for_each(r.out(), [&](float got, index, index t, auto...) {
            const double exact = want.out[i], bound = want.out_tolerance[i], error = absolute_error(widened(got), exact);
            ++i;
            all.see(error / bound, t, widened(got), exact);
            if (t < near) { first.see(error, t, widened(got), exact), first_bound = std::max(first_bound, bound); }
            if (t >= length - near) { last.see(error, t, widened(got), exact), last_bound = std::max(last_bound, bound); }
        });
        std::printf(
            "ssd of %lld tokens on %s, %s, %s: error %.3g in the first %lld, %.3g in the last; bounds %.3g and %.3g\n",
            static_cast<long long>(length), test_arch::name, type_name<T>, how == form::recurrent ? "recurrent" : "chunked",
            first.error, static_cast<long long>(near), last.error, first_bound, last_bound);
        INFO(all);
        CHECK(all.error <= 1.0);
        CHECK(last.error <= 3.0 * first.error); // what accumulated would be a hundred times as large, or ten
        CHECK(last_bound <= 2.0 * first_bound);
    };
    check(0.0f, form::recurrent, 0);
    check(0.0f, form::chunked, 64);
    check(bf16{}, form::chunked, 64);
}

} // namespace ssd_test
