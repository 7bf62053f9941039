// SPDX-License-Identifier: MIT
// Shapes, types, layouts, and numbers that hurt, against the definition. scan_forms_test.cpp has what must be equal to
// what, scan_refusals_test.cpp memory, what NaN reaches, and refusals.
#include "scan_case.hpp"

#include <seqmix/simd/denormals.hpp>
#include <seqmix/ssm/selective_scan.hpp>

namespace scan_test {

template <class T, class Delta, class Out>
void run_scan(const sm::view<const T, 3>& u, const sm::view<const Delta, 3>& delta, const sm::view<const float, 2>& A,
              const sm::view<const T, 4>& B, const sm::view<const T, 4>& C, const sm::view<Out, 3>& out,
              const ssm::scan_options<T>& options, const sm::context_ref& ctx)
{
    ssm::selective_scan<test_arch>(u, delta, A, B, C, out, options, ctx);
}
template <class T>
void run_packed(const sm::view<const T, 2>& u, const sm::view<const T, 2>& delta, const sm::view<const float, 2>& A,
                const sm::view<const T, 3>& B, const sm::view<const T, 3>& C, const sm::view<T, 2>& out,
                const sm::view<const index, 1>& cu_seqlens, const ssm::scan_options<T>& options,
                const sm::context_ref& ctx)
{
    ssm::selective_scan_packed<test_arch>(u, delta, A, B, C, out, cu_seqlens, options, ctx);
}

template <class T, class Delta, class Out>
using scan_door = void(const sm::view<const T, 3>&, const sm::view<const Delta, 3>&, const sm::view<const float, 2>&,
                       const sm::view<const T, 4>&, const sm::view<const T, 4>&, const sm::view<Out, 3>&,
                       const ssm::scan_options<T>&, const sm::context_ref&);
template scan_door<float, float, float> run_scan;
template scan_door<bf16, bf16, bf16> run_scan;
template scan_door<f16, f16, f16> run_scan;
template scan_door<bf16, float, bf16> run_scan;
template scan_door<bf16, bf16, float> run_scan;
template scan_door<f16, float, float> run_scan;

template <class T>
using packed_door = void(const sm::view<const T, 2>&, const sm::view<const T, 2>&, const sm::view<const float, 2>&,
                         const sm::view<const T, 3>&, const sm::view<const T, 3>&, const sm::view<T, 2>&,
                         const sm::view<const index, 1>&, const ssm::scan_options<T>&, const sm::context_ref&);
template packed_door<float> run_packed;
template packed_door<bf16> run_packed;

TEST_CASE("scan: shapes that hurt, one axis at a time")
{
    scan_case c{.batch = 2, .channels = 2 * lanes + 1, .states = 5, .length = 19};
    for (index states : {0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 64, 100, 256}) {
        scan_case s = c.with_all();
        s.states = states, s.channels = states > 40 ? lanes + 1 : c.channels,
        s.seed = static_cast<std::uint64_t>(states + 1);
        check_case<float>(s);
        s.s4d = true;
        check_case<float>(s);
    }
    for (index channels : {index{0}, index{1}, index{2}, index{3}, lanes - 1, lanes, lanes + 1, index{61}, index{63},
                           index{64}, index{65}, 4 * lanes, 4 * lanes + 3}) {
        for (lie stands : {lie::first, lie::last}) {
            scan_case s = c.with_all();
            s.channels = channels, s.stands = stands, s.seed = static_cast<std::uint64_t>(channels + 1);
            check_all_types(s);
        }
    }
    for (index length : {0, 1, 2, 13, 15, 16, 17, 61, 63, 64, 65, 127, 131, 600}) {
        for (lie stands : {lie::first, lie::last}) {
            scan_case s = c.with_all();
            s.length = length, s.channels = length > 100 ? lanes + 3 : c.channels, s.batch = 1, s.stands = stands;
            s.seed = static_cast<std::uint64_t>(length + 1);
            check_all_types(s);
        }
    }
    for (index batch : {0, 1, 5}) {
        scan_case s = c.with_all();
        s.batch = batch;
        check_case<float>(s);
    }
}

TEST_CASE("scan: many channels and a slab of tokens more")
{
    for (lie stands : {lie::first, lie::last}) {
        scan_case c{.channels = thorough ? 2100 : 200, .states = 3, .length = 35, .stands = stands};
        check_case<float>(c.with_all());
        c = {.channels = lanes + 1, .states = 40, .length = thorough ? 1100 : 560, .stands = stands};
        check_case<float>(c.with_all());
    }
}

TEST_CASE("scan: channels that share B and C")
{
    for (index of_group : {index{1}, index{2}, lanes - 1, lanes, lanes + 1, index{67}}) {
        for (index groups : {index{1}, index{3}, of_group == 1 ? index{7} : index{2}}) {
            for (lie stands : {lie::first, lie::last}) {
                scan_case c{.batch = 2,
                            .channels = groups * of_group,
                            .groups = groups,
                            .states = 6,
                            .length = 21,
                            .stands = stands};
                check_case<float>(c.with_all());
                check_case<bf16>(c);
            }
        }
    }
}

TEST_CASE("scan: every layout, every type, off every border")
{
    for (lie stands : all_lies) {
        for (std::size_t skipped : {0u, 1u, 3u}) {
            scan_case c{
                .batch = 2, .channels = lanes + 3, .states = 5, .length = 67, .stands = stands, .skipped = skipped};
            c = c.with_all();
            c.seed = skipped + 1;
            check_all_types(c);
            if (skipped == 1) { continue; }
            check_case<bf16, float>(c);
            check_case<bf16, bf16, float>(c);
            check_case<f16, float, float>(c);
        }
    }
}

TEST_CASE("scan: operands of different layouts")
{
    random_source random(5);
    const auto any = [&] { return all_lies[random.integer(0, static_cast<index>(std::size(all_lies)) - 1)]; };
    for (std::uint64_t seed = 1; seed <= (thorough ? 60 : 12); ++seed) {
        const scan_case c{.batch = 2, .channels = lanes + 3, .states = 6, .length = 37, .seed = seed};
        scan_problem<float> p(c.with_all());
        const auto move = [&](auto& operand, const auto& extents) {
            std::remove_reference_t<decltype(operand)> moved(extents, any(),
                                                             static_cast<std::size_t>(random.integer(0, 3)));
            moved.copy(operand());
            operand = std::move(moved);
        };
        move(p.u, p.sequence()), move(p.delta, p.sequence()), move(p.z, p.sequence());
        move(p.B, p.coefficients()), move(p.C, p.coefficients());
        move(p.A, std::array<index, 2>{c.channels, c.states});
        scan_result<float> r(p);
        r.out = laid_out<float, 3>(p.sequence(), any());
        move(r.state, p.states());
        run(p, r);
        check_result(p, r);
    }
}

namespace {

/// Any options at once, on small odd shapes.
scan_case random_case(std::uint64_t seed)
{
    random_source random(seed);
    const auto pick = [&](std::initializer_list<index> from) {
        return from.begin()[random.integer(0, static_cast<index>(from.size()) - 1)];
    };
    const auto one_in = [&](index n) { return random.integer(1, n) == 1; };
    scan_case c;
    c.seed = seed;
    c.batch = random.integer(1, 3), c.groups = pick({1, 1, 2, 3});
    c.channels = c.groups * pick({1, 2, lanes - 1, lanes, lanes + 1, 19});
    c.states = pick({1, 2, 4, 5, 8, 9, 16, 17, 21});
    c.length = pick({1, 2, 15, 16, 17, 40, 64, 65, 100, 131});
    c.D = one_in(2), c.z = one_in(2), c.bias = one_in(2), c.softplus = one_in(2), c.s4d = one_in(4);
    c.initial = one_in(3), c.state = one_in(2), c.bf16_state = one_in(3), c.reverse = one_in(3),
    c.accumulate = one_in(3);
    c.segments = one_in(3) ? pick({2, 3, 7, 50, 4096}) : 1;
    if (one_in(3)) { c.snapshots = pick({1, 2, 7, 16, 64, 100, 500}); }
    c.stands = all_lies[random.integer(0, static_cast<index>(std::size(all_lies)) - 1)];
    c.skipped = static_cast<std::size_t>(random.integer(0, 3));
    if (c.softplus) { c.delta = {-6.0f, 2.0f}; }
    if (one_in(5)) { c.A = {-300.0f, 0.0f}; }
    return c;
}

} // namespace

TEST_CASE("scan: everything at random")
{
    for (std::uint64_t seed = 1; seed <= (thorough ? 200 : 40); ++seed) {
        const scan_case c = random_case(seed);
        check_case<float>(c);
        if (seed % 4 == 0) { check_case<bf16>(c); }
        if (seed % 4 == 1) { check_case<f16>(c); }
        if (seed % 4 == 2) { check_case<bf16, float>(c); }
        if (seed % 8 == 3) { check_case<bf16, bf16, float>(c); }
        if (seed % 8 == 7) { check_case<f16, float, float>(c); }
    }
}

TEST_CASE("scan: nothing is read or written beyond the end of memory")
{
    const index B = 1, D = lanes + 3, N = 5, L = 37;
    for (const bool last : {false, true}) {
        for (const bool turned : {false, true}) {
            const auto run_at_the_edge = [&](auto type) {
                using T = decltype(type);
                at_the_edge<T> u(D * L), delta(D * L), z(D * L), out(D * L), b(N * L), c(N * L);
                at_the_edge<float> a(D * N), state(D * N), skip(D), bias(D);
                for (index i = 0; i < D * L; ++i) { u[i] = delta[i] = z[i] = T(0.5f); }
                for (index i = 0; i < N * L; ++i) { b[i] = c[i] = T(0.5f); }
                for (index i = 0; i < D * N; ++i) { a[i] = -1.0f, state[i] = 0.0f; }
                for (index i = 0; i < D; ++i) { skip[i] = bias[i] = 0.5f; }
                const auto sequence = [&](T* data) {
                    const sm::view<T, 3> v =
                        last ? sm::view<T, 3>(data, {B, D, L}, {D * L, index{1}, D}) : sm::view<T, 3>(data, {B, D, L});
                    return turned ? v.reversed(2) : v;
                };
                const auto coefficients = [&](T* data) {
                    const sm::view<T, 4> v = last ? sm::view<T, 4>(data, {B, B, N, L}, {N * L, N * L, index{1}, N})
                                                  : sm::view<T, 4>(data, {B, B, N, L});
                    return turned ? v.reversed(3) : v;
                };
                ssm::scan_options<T> o;
                o.D = sm::view<float, 1>(skip.data(), {D}), o.delta_bias = sm::view<float, 1>(bias.data(), {D});
                o.z = sequence(z.data()), o.softplus = true, o.state = sm::view<float, 3>(state.data(), {B, D, N});
                run_scan<T, T, T>(sequence(u.data()), sequence(delta.data()),
                                  sm::view<const float, 2>(a.data(), {D, N}), coefficients(b.data()),
                                  coefficients(c.data()), sequence(out.data()), o);
                CHECK(widened(out[0]) > 0.0); // a fault is what fails
            };
            run_at_the_edge(0.0f);
            run_at_the_edge(bf16{});
            run_at_the_edge(f16{});
        }
    }
}

TEST_CASE("scan: steps and rates at their extremes")
{
    const range steps[] = {{0.0f, 0.0f}, {1e-8f, 1e-8f}, {50.0f, 50.0f}, {0.0f, 50.0f}, {0.0f, 0.125f}, {-0.1f, 0.1f}};
    const range rates[] = {{-4.0f, -0.1f}, {-1000.0f, -1000.0f}, {-1000.0f, 0.0f},
                           {0.0f, 0.0f},   {-0x1p-140f, 0.0f},   {-1e30f, -1e30f}};
    for (lie stands : {lie::first, lie::last}) {
        for (const range& delta : steps) {
            for (const range& A : rates) {
                scan_case c{.channels = lanes + 3,
                            .states = 9,
                            .length = 70,
                            .state = true,
                            .stands = stands,
                            .delta = delta,
                            .A = A};
                if (delta.low < 0.0f && A.low < -100.0f) { continue; } // beyond the largest float
                check_case<float>(c);
            }
            scan_case c{.channels = lanes + 3,
                        .states = 17,
                        .length = 70,
                        .s4d = true,
                        .state = true,
                        .stands = stands,
                        .delta = delta};
            check_case<float>(c);
        }
        for (const range& delta :
             {range{-100.0f, -80.0f}, range{-100.0f, 50.0f}, range{20.0f, 50.0f}, range{0.0f, 0.0f}}) {
            for (const range& A : rates) {
                scan_case c{.channels = lanes + 3, .states = 9, .length = 70, .stands = stands};
                c = c.with_all();
                c.delta = delta, c.A = A;
                check_case<float>(c);
            }
        }
        // Steps back along rates that grow decay as well.
        check_case<float>({.channels = lanes + 3,
                           .states = 9,
                           .length = 70,
                           .state = true,
                           .stands = stands,
                           .delta = {-2.0f, -0.1f},
                           .A = {1.0f, 300.0f}});
        // States that grow, to about e^20 and to nearly the largest float.
        for (const range& A : {range{0.1f, 2.0f}, range{5.0f, 5.0f}}) {
            scan_case c{.channels = lanes + 3,
                        .states = 9,
                        .length = 33,
                        .state = true,
                        .stands = stands,
                        .delta = {0.0f, 0.5f},
                        .A = A};
            check_case<float>(c);
        }
    }
}

TEST_CASE("scan: a rate of minus infinity forgets all")
{
    const scan_case c{.channels = lanes + 3, .states = 6, .length = 70, .state = true, .delta = {0.01f, 0.5f}};
    scan_problem<float> p(c);
    scan_result<float> infinite(p), huge(p);
    p.A()(3, 2) = -infinity;
    run(p, infinite);
    p.A()(3, 2) = -1e30f;
    run(p, huge);
    check_result(p, huge);
    CHECK(infinite == huge);
}

TEST_CASE("scan: states that are small beside what is skipped to the output")
{
    for (lie stands : {lie::first, lie::last}) {
        const scan_case c{.channels = lanes + 3, .states = 256, .length = 20, .D = true, .stands = stands};
        scan_problem<float> p(c);
        for_each(p.D(), [](float& x, index) { x = 1.5f; });
        for_each(p.u(), [](float& x, auto...) { x = 1.0f; });
        for_each(p.B(), [](float& x, auto...) { x = 1.0f; });
        for_each(p.C(), [](float& x, auto...) { x = 0x1p-25f; }); // each less than half a unit in the last place
        scan_result<float> r(p);
        run(p, r);
        check_result(p, r);
    }
}

TEST_CASE("scan: states that decay into subnormals, kept or flushed")
{
    for (lie stands : {lie::first, lie::last}) {
        for (const bool s4d : {false, true}) {
            scan_case c{.channels = lanes + 3,
                        .states = 5,
                        .length = 600,
                        .s4d = s4d,
                        .state = true,
                        .stands = stands,
                        .delta = {0.4f, 0.6f},
                        .A = {-3.0f, -0.3f}};
            const auto fade = [](scan_problem<float>& p) {
                for_each(p.u(), [](float& x, index, index, index t) {
                    x = t < 3 ? x : t == 300 ? 0x1p-120f : t > 300 ? x * 0x1p-140f : 0.0f;
                });
            };
            scan_problem<float> p(c);
            fade(p);
            scan_result<float> r(p);
            run(p, r);
            check_result(p, r);
            int subnormal = 0;
            for_each(r.out(), [&](float x, auto...) { subnormal += x != 0.0f && std::fabs(x) < 0x1p-126f; });
            CHECK(subnormal > 0);

            c.smallest = 0x1p-126;
            scan_problem<float> flushed(c);
            fade(flushed);
            scan_result<float> zeros(flushed);
            {
                const sm::scoped_flush_denormals flush;
                run(flushed, zeros);
            }
            check_result(flushed, zeros);
            for_each(zeros.out(), [&](float x, auto...) { subnormal -= x != 0.0f && std::fabs(x) < 0x1p-126f; });
            CHECK(subnormal > 0);
        }
    }
}

TEST_CASE("scan: a million tokens are no further off than a thousand")
{
    const index longest = !thorough ? 20000 : lanes > 4 ? 1000000 : 200000, near = 1000;
    for (const bool s4d : {false, true}) {
        const index length = s4d ? longest / 10 : longest;
        const scan_case c{
            .channels = 2, .states = 2, .length = length, .s4d = s4d, .delta = {0.001f, 0.1f}, .A = {-1.0f, -0.1f}};
        const scan_problem<float> p(c);
        scan_result<float> r(p);
        run(p, r);
        const expectation want = expect<float>(p);
        worst_error all, first, last;
        double first_bound = 0.0, last_bound = 0.0;
        std::size_t i = 0;
        for_each(r.out(), [&](float got, index, index, index t) {
            const double exact = want.out[i], bound = want.out_tolerance[i],
                         error = absolute_error(widened(got), exact);
            ++i;
            all.see(error / bound, t, widened(got), exact);
            if (t < near) { first.see(error, t, widened(got), exact), first_bound = std::max(first_bound, bound); }
            if (t >= length - near) {
                last.see(error, t, widened(got), exact), last_bound = std::max(last_bound, bound);
            }
        });
        std::printf(
            "scan of %lld tokens on %s%s: error %.3g in the first %lld, %.3g in the last; bounds %.3g and %.3g\n",
            static_cast<long long>(length), test_arch::name, s4d ? ", s4d_real" : "", first.error,
            static_cast<long long>(near), last.error, first_bound, last_bound);
        INFO(all);
        CHECK(all.error <= 1.0);
        CHECK(last.error <= 2.0 * first.error); // what accumulated would be a thousand times as large, or thirty
        CHECK(last_bound <= 2.0 * first_bound);
    }
}

} // namespace scan_test
