// SPDX-License-Identifier: MIT
// One token of many sequences: what the definitions make of it, what must be equal to what, and what NaN reaches.
// Problems, and the bounds that are judged by, are those of the whole sequences' tests.
#include "scan_case.hpp"
#include "ssd_case.hpp"
#include "support/scratch.hpp"

#include <seqmix/ssm/step.hpp>

#include <cstdlib>
#include <functional>
#include <stdexcept>

namespace step_test {

using namespace ssd_test;
using scan_test::all_lies;
using scan_test::scan_case;
using scan_test::scan_problem;
using scan_test::scan_result;
using sm::index; // POSIX has another in the global namespace

namespace {

// The doors, compiled once for each list of types: float; and since narrow types are only widened as they are read and rounded as
// they are written, of each of them all operands in the one family and, beside float, weights and inputs in the other.
template <class T, class Delta, class Out>
SEQMIX_NOINLINE void scan_door(const sm::view<const T, 2>& u, const sm::view<const Delta, 2>& delta,
                               const sm::view<const float, 2>& A, const sm::view<const T, 3>& B,
                               const sm::view<const T, 3>& C, const sm::view<Out, 2>& out,
                               const ssm::scan_step_options<T>& o, const sm::context_ref& ctx = {})
{
    ssm::selective_step<test_arch>(u, delta, A, B, C, out, o, ctx);
}
template <class T, class Dt, class Out>
SEQMIX_NOINLINE void ssd_door(const sm::view<const T, 3>& x, const sm::view<const Dt, 2>& dt,
                              const sm::view<const float, 1>& A, const sm::view<const T, 3>& B,
                              const sm::view<const T, 3>& C, const sm::view<Out, 3>& out, const ssm::ssd_step_options<T>& o,
                              const sm::context_ref& ctx = {})
{
    ssm::ssd_step<test_arch>(x, dt, A, B, C, out, o, ctx);
}

template <class T, class Delta>
ssm::scan_step_options<T> options_at(const scan_problem<T, Delta>& p, index t)
{
    ssm::scan_step_options<T> o;
    o.D = p.D(), o.delta_bias = p.bias(), o.softplus = p.c.softplus;
    if (p.c.z) { o.z = p.z().select(2, t); }
    return o;
}
template <class T, class Dt>
ssm::ssd_step_options<T> options_at(const ssd_problem<T, Dt>& p, index t)
{
    ssm::ssd_step_options<T> o;
    o.D = p.D(), o.dt_bias = p.bias(), o.softplus = p.c.softplus;
    if (p.c.z) { o.z = p.z().select(1, t); }
    return o;
}

/// Token t of a problem.
template <class T, class Delta, class Out>
void step_at(const scan_problem<T, Delta>& p, index t, const sm::view<Out, 3>& out, const ssm::scan_step_options<T>& o,
             const sm::context_ref& ctx = {})
{
    scan_door<T, Delta, Out>(p.u().select(2, t), p.delta().select(2, t), p.A(), p.B().select(3, t), p.C().select(3, t),
                             out.select(2, t), o, ctx);
}
template <class T, class Dt, class Out>
void step_at(const ssd_problem<T, Dt>& p, index t, const sm::view<Out, 4>& out, const ssm::ssd_step_options<T>& o,
             const sm::context_ref& ctx = {})
{
    ssd_door<T, Dt, Out>(p.x().select(1, t), p.dt().select(1, t), p.A(), p.B().select(1, t), p.C().select(1, t),
                         out.select(1, t), o, ctx);
}

/// All tokens of a problem, one after another.
template <class Problem, class Result>
void run_steps(const Problem& p, Result& r, const sm::context_ref& ctx = {})
{
    for (index t = 0; t < p.c.length; ++t) {
        auto o = options_at(p, t);
        if (p.c.bf16_state) { o.state = r.narrow_state(); }
        if (!p.c.bf16_state) { o.state = r.state(); }
        if (t == 0 && p.c.initial) { o.initial_state = p.initial(); }
        step_at(p, t, r.out(), o, ctx);
    }
}

template <class T, class Delta = T, class Out = T>
void check_steps(scan_case c)
{
    c.state = true;
    const scan_problem<T, Delta> p(c);
    scan_result<Out> r(p);
    run_steps(p, r);
    check_result(p, r);
}
template <class T, class Dt = T, class Out = T>
void check_steps(ssd_case c)
{
    c.state = true, c.form = form::recurrent;
    const ssd_problem<T, Dt> p(c);
    ssd_result<Out> r(p);
    run_steps(p, r);
    check_result(p, r);
}

/// The shortest sequence, and everything asked for.
scan_case one_token(index batch, index channels, index states, index groups = 1)
{
    return scan_case{.batch = batch, .channels = channels, .groups = groups, .states = states, .length = 1}.with_all();
}
ssd_case one_token_of_heads(index batch, index heads, index channels, index states, index groups = 1)
{
    return ssd_case{.batch = batch, .heads = heads, .groups = groups, .channels = channels, .states = states, .length = 1}
        .with_all()
        .as(form::recurrent);
}

const std::initializer_list<index> state_counts = {0,  1,  2,  3,  lanes, 2 * lanes, 2 * lanes + 1,
                                                   16, 17, 31, 33, 64,    100,       128};

} // namespace

TEST_CASE("step: every number of states, plain and with everything")
{
    for (index states : state_counts) {
        for (lie stands : all_lies) {
            scan_case c = one_token(2, lanes + 3, states);
            c.stands = stands, c.seed = static_cast<std::uint64_t>(states + 1);
            check_steps<float>(c);
            c.bf16_state = true;
            check_steps<float>(c);
            check_steps<bf16, float, float>(c);
            check_steps<f16>(scan_case{.batch = 2, .channels = lanes + 3, .states = states, .length = 1, .stands = stands});
        }
        for (const stand& s : all_stands) {
            ssd_case c = one_token_of_heads(2, 3, lanes + 3, states);
            c.stands = s, c.seed = static_cast<std::uint64_t>(states + 1);
            check_steps<float>(c);
            c.bf16_state = true;
            check_steps<float>(c);
            check_steps<bf16>(c);
            check_steps<f16, float, float>(
                ssd_case{.batch = 2, .heads = 3, .channels = lanes + 3, .states = states, .length = 1, .stands = s});
        }
    }
}

TEST_CASE("step: every number of channels to a register and one more, and many")
{
    std::vector<index> counts = {0, 63, 100, 2048, 2049, 4100};
    for (index channels = 1; channels <= lanes + 1; ++channels) { counts.push_back(channels); }
    for (index channels : counts) {
        if (!thorough && channels > 100) { continue; }
        check_steps<float>(one_token(2, channels, 5));
        check_steps<bf16, float, float>(one_token(1, channels, 16));
        check_steps<float>(one_token_of_heads(2, 2, channels, 5));
        check_steps<f16, float, float>(one_token_of_heads(1, 2, channels, 16));
    }
}

TEST_CASE("step: batches and groups")
{
    for (index batch : {0, 1, 2, 7, 64, 65}) {
        for (index groups : {1, 2, 3}) {
            check_steps<float>(one_token(batch, groups * (lanes + 1), 16, groups));
            check_steps<bf16, float, float>(one_token(batch, groups * 2, 3, groups));
            check_steps<float>(one_token_of_heads(batch, groups * 2, 5, 16, groups));
            check_steps<bf16>(one_token_of_heads(batch, groups, lanes + 1, 3, groups));
        }
    }
    check_steps<float>(one_token(2, 6, 4, 6));
    check_steps<float>(one_token_of_heads(2, 0, 4, 4));
}

TEST_CASE("step: off every border")
{
    for (std::size_t skipped : {1u, 2u, 3u}) {
        scan_case c = one_token(3, 2 * lanes + 1, 19);
        c.skipped = skipped;
        check_steps<float>(c), check_steps<bf16, float, float>(c), check_steps<f16>(c);
        ssd_case heads = one_token_of_heads(3, 2, 2 * lanes + 1, 19);
        heads.stands.skipped = skipped;
        check_steps<float>(heads), check_steps<bf16>(heads), check_steps<f16, float, float>(heads);
    }
}

TEST_CASE("step: steps and rates at their extremes")
{
    for (const range& A :
         {range{-4.0f, -0.1f}, range{-1000.0f, 0.0f}, range{0.0f, 0.0f}, range{-0x1p-140f, 0.0f}, range{-1e30f, -1e30f}}) {
        for (const range& step : {range{0.0f, 0.0f}, range{1e-8f, 1e-8f}, range{50.0f, 50.0f}, range{0.0f, 50.0f}}) {
            check_steps<float>(scan_case{.channels = lanes + 3, .states = 19, .length = 4, .delta = step, .A = A});
            check_steps<float>(ssd_case{.heads = 3, .channels = lanes + 3, .states = 19, .length = 4, .dt = step, .A = A});
        }
        for (const range& step : {range{-100.0f, -80.0f}, range{-100.0f, 50.0f}, range{20.0f, 50.0f}}) {
            scan_case c = one_token(2, lanes + 3, 19);
            c.delta = step, c.A = A;
            check_steps<float>(c);
            ssd_case heads = one_token_of_heads(2, 3, lanes + 3, 19);
            heads.dt = step, heads.A = A;
            check_steps<float>(heads);
        }
    }
    // Subnormal states.
    scan_problem<float> fading(scan_case{.channels = lanes + 3, .states = 19, .length = 5, .state = true});
    ssd_problem<float> heads(
        ssd_case{.heads = 2, .channels = lanes + 3, .states = 19, .length = 5, .state = true, .form = form::recurrent});
    for (auto* start : {&fading.start, &heads.start}) {
        for (float& h : *start) { h *= 0x1p-140f; }
    }
    for_each(fading.u(), [](float& u, auto...) { u *= 0x1p-140f; });
    for_each(heads.x(), [](float& x, auto...) { x *= 0x1p-140f; });
    scan_result<float> faded(fading);
    ssd_result<float> faded_heads(heads);
    run_steps(fading, faded), run_steps(heads, faded_heads);
    check_result(fading, faded), check_result(heads, faded_heads);
}

TEST_CASE("step: many steps from a zero state are what the whole sequence is")
{
    // The forward calls are judged by the same definition and bounds.
    const index L = thorough ? 60 : 20;
    for (index states : {3, 16, 40}) {
        for (const bool initial : {false, true}) {
            const scan_case c{.batch = 2, .channels = 2 * (lanes + 1), .groups = 2, .states = states, .length = L, .initial = initial};
            scan_problem<float> p(c.with_all());
            const ssd_case heads{.batch = 2, .heads = 4, .groups = 2, .channels = lanes + 1, .states = states, .length = L, .initial = initial};
            ssd_problem<float> q(heads.with_all().as(form::recurrent));
            for (auto* start : {&p.start, &q.start}) { std::fill(start->begin(), start->end(), 0.0f); }
            scan_result<float> steps(p);
            ssd_result<float> head_steps(q);
            run_steps(p, steps), run_steps(q, head_steps);
            check_result(p, steps), check_result(q, head_steps);
        }
    }
}

TEST_CASE("step: an initial state elsewhere is left as it was, so that a ring of states rolls back")
{
    const index slots = 4, tokens = 9;
    const auto check = [&](auto& p, auto&& ring_of, auto&& again_of) { // rank differs
        auto ring = ring_of();
        auto again = again_of();
        using Result = std::remove_reference_t<decltype(again)>;
        ring.fill([] { return 0.0f; });
        const auto slot = [&](index t) { return ring().select(0, t % slots); };
        Result outs = again_of();
        for (index t = 0; t < tokens; ++t) {
            Result kept = again_of();
            kept.state.copy(slot(t));
            auto o = options_at(p, t);
            o.initial_state = slot(t), o.state = slot(t + 1);
            step_at(p, t, outs.out(), o);
            CHECK(same_bits(slot(t), kept.state()));
        }
        // Back by three tokens, and forth again.
        Result last = again_of();
        last.state.copy(slot(tokens));
        for (index t = tokens - 3; t < tokens; ++t) {
            auto o = options_at(p, t);
            o.initial_state = slot(t), o.state = slot(t + 1);
            step_at(p, t, again.out(), o);
            bool same = true;
            for_each(again.out(), [&](float& y, auto... at) { same = same && (std::isnan(y) || y == outs.out()(at...)); });
            CHECK(same);
        }
        CHECK(same_bits(slot(tokens), last.state()));
    };
    scan_problem<float> p(scan_case{.batch = 3, .channels = lanes + 3, .states = 17, .length = tokens}.with_all());
    check(
        p,
        [&] {
            return laid_out<float, 4>({slots, 3, lanes + 3, 17}, lie::first);
        },
        [&] { return scan_result<float>(p); });
    ssd_problem<float> q(
        ssd_case{.batch = 3, .heads = 2, .channels = lanes + 3, .states = 17, .length = tokens}.with_all());
    check(
        q,
        [&] {
            return laid_out<float, 5>({slots, 3, 2, lanes + 3, 17}, lie::first);
        },
        [&] { return ssd_result<float>(q); });
}

namespace {

template <class Problem, class Result>
void check_same_everywhere(const Problem& p, const Result& alone)
{
    for (int workers : {1, 2, 3, 4, 5}) {
        Result shared(p);
        sm::context ctx{sm::parallel_for{workers, on_threads{}}};
        run_steps(p, shared, ctx);
        INFO(p.c << ", " << workers << " workers");
        CHECK(shared == alone);
    }
}

} // namespace

TEST_CASE("step: the same bits for every number of threads, every layout and every batch")
{
    for (index states : {3, 16, 33}) {
        scan_case c = one_token(9, 3 * (lanes + 1), states, 3);
        const scan_problem<float> p(c);
        scan_result<float> alone(p);
        run_steps(p, alone);
        check_same_everywhere(p, alone);
        for (index b = 0; b < c.batch; ++b) {
            const auto one = [b](const auto& v) { return v.slice(0, b, b + 1); };
            scan_result<float> single(p);
            auto o = options_at(p, 0);
            o.z = one(o.z), o.state = one(single.state());
            scan_door<float, float, float>(one(p.u().select(2, 0)), one(p.delta().select(2, 0)), p.A(),
                                           one(p.B().select(3, 0)), one(p.C().select(3, 0)), one(single.out().select(2, 0)),
                                           o);
            CHECK(same_bits(one(single.out()), one(alone.out())));
            CHECK(same_bits(one(single.state()), one(alone.state())));
        }
        // Where N is not contiguous, rows of many states are summed in other parts, but lane by lane in the same order.
        for (lie stands : all_lies) {
            scan_case other = c;
            other.stands = stands;
            const scan_problem<float> q(other);
            scan_result<float> r(q);
            run_steps(q, r);
            INFO(other);
            CHECK(r == alone);
        }

        ssd_case heads = one_token_of_heads(9, 6, lanes + 1, states, 3);
        const ssd_problem<float> hp(heads);
        ssd_result<float> head_alone(hp);
        run_steps(hp, head_alone);
        check_same_everywhere(hp, head_alone);
        for (index b = 0; b < heads.batch; ++b) {
            const auto one = [b](const auto& v) { return v.slice(0, b, b + 1); };
            ssd_result<float> single(hp);
            auto o = options_at(hp, 0);
            o.z = one(o.z), o.state = one(single.state());
            ssd_door<float, float, float>(one(hp.x().select(1, 0)), one(hp.dt().select(1, 0)), hp.A(),
                                          one(hp.B().select(1, 0)), one(hp.C().select(1, 0)),
                                          one(single.out().select(1, 0)), o);
            CHECK(same_bits(one(single.out()), one(head_alone.out())));
            CHECK(same_bits(one(single.state()), one(head_alone.state())));
        }
        for (const stand& s : all_stands) {
            ssd_case other = heads;
            other.stands = s;
            const ssd_problem<float> q(other);
            ssd_result<float> r(q);
            run_steps(q, r);
            INFO(other);
            CHECK(r == head_alone);
        }
    }
}

TEST_CASE("step: states in bf16 are widened before and rounded after, whichever of the two are")
{
    const auto check = [](auto& p, auto&& result_of, auto&& narrow_of) {
        for (const bool narrow_from : {false, true}) {
            for (const bool narrow_to : {false, true}) {
                auto want = result_of(), got = result_of();
                auto before = narrow_of(), narrow = narrow_of();
                auto o = options_at(p, 0);
                before.copy(p.start_view());
                auto wide_before = result_of(); // what bf16 holds, or not
                if (narrow_from) { wide_before.state.copy(before()); }
                o.initial_state = wide_before.state();
                o.state = want.state();
                step_at(p, 0, want.out(), o);
                if (narrow_from) { o.initial_state = before(); }
                if (narrow_to) { o.state = narrow(); }
                if (!narrow_to) { o.state = got.state(); }
                step_at(p, 0, got.out(), o);
                INFO("from " << (narrow_from ? "bf16" : "f32") << ", to " << (narrow_to ? "bf16" : "f32"));
                CHECK(same_bits(got.out(), want.out()));
                if (!narrow_to) { CHECK(same_bits(got.state(), want.state())); }
                bool rounded = true;
                for_each(narrow(),
                         [&](bf16& h, auto... at) { rounded = rounded && (!narrow_to || h == bf16(want.state()(at...))); });
                CHECK(rounded);
                CHECK((!narrow_to || narrow.written_exactly()));
            }
        }
    };
    for (index states : {3, 16, 50}) {
        for (lie stands : {lie::first, lie::last}) {
            scan_case c = one_token(2, lanes + 3, states);
            c.stands = stands;
            const scan_problem<float> p(c);
            check(
                p, [&] { return scan_result<float>(p); }, [&] { return laid_out<bf16, 3>(p.states(), stands); });
            ssd_case heads = one_token_of_heads(2, 2, lanes + 3, states);
            heads.stands = {stands};
            const ssd_problem<float> q(heads);
            check(
                q, [&] { return ssd_result<float>(q); }, [&] { return placed<bf16, 4>(q.states(), {stands}); });
        }
    }
}

TEST_CASE("step: nothing is read or written beyond the end of memory")
{
    for (index states : {3, 16, 19, 40}) {
        const index D = lanes + 3;
        const auto check = [&](auto type, auto state_type) {
            using T = decltype(type);
            using S = decltype(state_type);
            using of_scan = std::conditional_t<std::is_same_v<T, bf16>, float, T>; // steps and results, as the doors are compiled
            using of_ssd = std::conditional_t<std::is_same_v<T, f16>, float, T>;
            at_the_edge<T> u(D), z(D), B(states), C(states);
            at_the_edge<of_scan> delta(D), out(D);
            at_the_edge<of_ssd> dt(1), head_out(D);
            at_the_edge<float> A(D * states), skip(D), bias(D);
            at_the_edge<S> from(D * states), to(D * states);
            for (index i = 0; i < D; ++i) { u[i] = z[i] = T(0.5f), delta[i] = of_scan(0.5f), skip[i] = bias[i] = 0.5f; }
            dt[0] = of_ssd(0.5f);
            for (index i = 0; i < states; ++i) { B[i] = C[i] = T(0.5f); }
            for (index i = 0; i < D * states; ++i) { A[i] = -1.0f, from[i] = S(0.5f); }
            const auto row = [](auto* data, index n) { return sm::view(data, {index{1}, n}); };
            const auto group = [&](T* data) { return sm::view<T, 3>(data, {index{1}, index{1}, states}); };
            ssm::scan_step_options<T> o;
            o.D = sm::view<float, 1>(skip.data(), {D}), o.delta_bias = sm::view<float, 1>(bias.data(), {D}),
            o.z = row(z.data(), D);
            o.initial_state = sm::view<S, 3>(from.data(), {index{1}, D, states}),
            o.state = sm::view<S, 3>(to.data(), {index{1}, D, states});
            scan_door<T, of_scan, of_scan>(row(u.data(), D), row(delta.data(), D), sm::view<const float, 2>(A.data(), {D, states}),
                               group(B.data()), group(C.data()), row(out.data(), D), o);
            CHECK(widened(out[0]) > 0.0); // a fault is what fails
            ssm::ssd_step_options<T> ho;
            const auto one_head = [&](auto* data) { return sm::view<std::remove_pointer_t<decltype(data)>, 3>(data, {index{1}, index{1}, D}); };
            ho.z = one_head(z.data()), ho.softplus = true;
            ho.initial_state = sm::view<S, 4>(from.data(), {index{1}, index{1}, D, states});
            ho.state = sm::view<S, 4>(to.data(), {index{1}, index{1}, D, states});
            ssd_door<T, of_ssd, of_ssd>(one_head(u.data()), row(dt.data(), 1),
                              sm::view<const float, 1>(A.data() + D * states - 1, {1}), group(B.data()), group(C.data()),
                              one_head(head_out.data()), ho);
            CHECK(widened(head_out[0]) > 0.0);
        };
        check(0.0f, 0.0f), check(0.0f, bf16{}), check(bf16{}, bf16{}), check(f16{}, 0.0f);
    }
}

TEST_CASE("step: scratch is the caller's, exactly, and nothing else is allocated")
{
    const scan_problem<float> p(one_token(3, lanes + 3, 33));
    const ssd_problem<bf16> q(one_token_of_heads(3, 2, lanes + 3, 33));
    const auto check = [](const auto& problem, auto&& result_of) {
        sm::context<> ctx;
        check_scratch(result_of, [&](auto& r, const sm::context_ref& on) { run_steps(problem, r, on); }, ctx);
    };
    check(p, [&] { return scan_result<float>(p); });
    check(q, [&] { return ssd_result<bf16>(q); });
}

namespace {

/// What a bad number must reach: `out` and `state` say where, of batch item 1 or of all.
template <class Problem>
struct spread {
    const char* name;
    std::function<void(Problem&, float)> put;
    std::function<bool(index, index)> out;          ///< scan: channel, 0; ssd: head, channel
    std::function<bool(index, index, index)> state; ///< the same and n
    bool every_item = false;
};

struct counts {
    index lost = 0, spilt = 0;
    void see(float x, float clean, bool reached, float value)
    {
        lost += reached && (std::isnan(value) ? !std::isnan(x) : std::isfinite(x));
        spilt += !reached && std::memcmp(&x, &clean, sizeof x) != 0;
    }
};

} // namespace

TEST_CASE("step: NaN and infinities reach what they must and nothing else")
{
    for (index N : {5, 16, 35}) {
        for (float value : {not_a_number, infinity}) {
            const index of_group = lanes + 1, D = 3 * of_group, d0 = of_group + 2, n0 = N - 1;
            using scan_spread = spread<scan_problem<float>>;
            const auto mine = [=](index d, index) { return d == d0; };
            const auto group = [=](index d, index) { return d / of_group == 1; };
            const auto my_states = [=](index d, index, index) { return d == d0; };
            const auto my_state = [=](index d, index, index n) { return d == d0 && n == n0; };
            const auto none = [](index, index, index) { return false; };
            // clang-format off
            const scan_spread scan_spreads[] = {
                {"u", [=](auto& p, float v) { p.u()(1, d0, 0) = v; }, mine, my_states},
                {"delta", [=](auto& p, float v) { p.delta()(1, d0, 0) = v; }, mine, my_states},
                {"z", [=](auto& p, float v) { p.z()(1, d0, 0) = v; }, mine, none},
                {"B", [=](auto& p, float v) { p.B()(1, 1, n0, 0) = v; }, group, [=](index d, index, index n) { return d / of_group == 1 && n == n0; }},
                {"C", [=](auto& p, float v) { p.C()(1, 1, n0, 0) = v; }, group, none},
                {"A", [=](auto& p, float v) { p.A()(d0, n0) = v; }, mine, my_state, true},
                {"D", [=](auto& p, float v) { p.D()(d0) = v; }, mine, none, true},
                {"delta_bias", [=](auto& p, float v) { p.bias()(d0) = v; }, mine, my_states, true},
                {"state", [=](auto& p, float v) { p.start[static_cast<std::size_t>((D + d0) * N + n0)] = v; }, mine, my_state},
            };
            // clang-format on
            const scan_problem<float> clean(one_token(3, D, N, 3));
            scan_result<float> want(clean);
            run_steps(clean, want);
            for (const scan_spread& s : scan_spreads) {
                scan_problem<float> p(one_token(3, D, N, 3));
                s.put(p, value);
                scan_result<float> got(p);
                run_steps(p, got);
                counts c;
                for_each(got.out(), [&](float y, index b, index d, index) {
                    c.see(y, want.out()(b, d, 0), (b == 1 || s.every_item) && s.out(d, 0), value);
                });
                for_each(got.state(), [&](float h, index b, index d, index n) {
                    c.see(h, want.state()(b, d, n), (b == 1 || s.every_item) && s.state(d, 0, n), value);
                });
                INFO("scan: " << s.name << " is " << value << ", N " << N);
                CHECK(c.lost == 0);
                CHECK(c.spilt == 0);
            }

            const index H = 6, P = lanes + 3, h0 = 3, p0 = lanes;
            using ssd_spread = spread<ssd_problem<float>>;
            const auto head = [=](index h, index) { return h == h0; };
            const auto channel = [=](index h, index p) { return h == h0 && p == p0; };
            const auto heads_of_group = [=](index h, index) { return h / 2 == h0 / 2; };
            // clang-format off
            const ssd_spread ssd_spreads[] = {
                {"x", [=](auto& p, float v) { p.x()(1, 0, h0, p0) = v; }, channel, [=](index h, index p, index) { return h == h0 && p == p0; }},
                {"dt", [=](auto& p, float v) { p.dt()(1, 0, h0) = v; }, head, [=](index h, index, index) { return h == h0; }},
                {"z", [=](auto& p, float v) { p.z()(1, 0, h0, p0) = v; }, channel, none},
                {"B", [=](auto& p, float v) { p.B()(1, 0, h0 / 2, n0) = v; }, heads_of_group, [=](index h, index, index n) { return h / 2 == h0 / 2 && n == n0; }},
                {"C", [=](auto& p, float v) { p.C()(1, 0, h0 / 2, n0) = v; }, heads_of_group, none},
                {"A", [=](auto& p, float v) { p.A()(h0) = v; }, head, [=](index h, index, index) { return h == h0; }, true},
                {"D", [=](auto& p, float v) { p.D()(h0) = v; }, head, none, true},
                {"dt_bias", [=](auto& p, float v) { p.bias()(h0) = v; }, head, [=](index h, index, index) { return h == h0; }, true},
                {"state", [=](auto& p, float v) { p.start[static_cast<std::size_t>(((H + h0) * P + p0) * N + n0)] = v; }, channel,
                 [=](index h, index p, index n) { return h == h0 && p == p0 && n == n0; }},
            };
            // clang-format on
            const ssd_problem<float> clean_heads(one_token_of_heads(3, H, P, N, 3));
            ssd_result<float> want_heads(clean_heads);
            run_steps(clean_heads, want_heads);
            for (const ssd_spread& s : ssd_spreads) {
                ssd_problem<float> p(one_token_of_heads(3, H, P, N, 3));
                s.put(p, value);
                ssd_result<float> got(p);
                run_steps(p, got);
                counts c;
                for_each(got.out(), [&](float y, index b, index t, index h, index i) {
                    c.see(y, want_heads.out()(b, t, h, i), (b == 1 || s.every_item) && s.out(h, i), value);
                });
                for_each(got.state(), [&](float x, index b, index h, index i, index n) {
                    c.see(x, want_heads.state()(b, h, i, n), (b == 1 || s.every_item) && s.state(h, i, n), value);
                });
                INFO("ssd: " << s.name << " is " << value << ", N " << N);
                CHECK(c.lost == 0);
                CHECK(c.spilt == 0);
            }
        }
    }
}

TEST_CASE("step: an infinity stays one where nothing makes it a NaN")
{
    for (index N : {index{1}, index{3}, lanes, lanes + 1}) {
        scan_problem<float> p(
            scan_case{.channels = lanes + 3, .states = N, .length = 1, .state = true, .delta = {0.1f, 0.5f}});
        ssd_problem<float> q(ssd_case{.channels = lanes + 3, .states = N, .length = 1, .state = true, .dt = {0.1f, 0.5f}});
        for_each(p.B(), [](float& x, auto...) { x = 1.0f; }), for_each(p.C(), [](float& x, auto...) { x = 1.0f; });
        for_each(q.B(), [](float& x, auto...) { x = 1.0f; }), for_each(q.C(), [](float& x, auto...) { x = 1.0f; });
        p.u()(0, 2, 0) = q.x()(0, 0, 0, 2) = infinity;
        scan_result<float> r(p);
        ssd_result<float> s(q);
        run_steps(p, r), run_steps(q, s);
        INFO("N " << N);
        CHECK(r.out()(0, 2, 0) == infinity);
        CHECK(s.out()(0, 0, 0, 2) == infinity);
    }
}

} // namespace step_test
