// SPDX-License-Identifier: MIT
#pragma once

#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/laid_out.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/tolerances.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/ssm/options.hpp>
#include <seqmix/ssm/reference.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

// One selective scan as a value, its operands in memory, and what exact arithmetic makes of it.

// A namespace, because POSIX has an index of its own in the global one.
namespace scan_test {

using namespace test_support;
namespace sm = seqmix;
namespace ssm = seqmix::ssm;
using sm::bf16;
using sm::f16;
using sm::index;
using ssm::reference::widened;

inline constexpr index lanes = sm::simd::lanes<test_arch>;

/// The doors under test. Defined in scan_test.cpp for a few types alone, so that they are compiled once.
template <class T, class Delta, class Out>
void run_scan(const sm::view<const T, 3>& u, const sm::view<const Delta, 3>& delta, const sm::view<const float, 2>& A,
              const sm::view<const T, 4>& B, const sm::view<const T, 4>& C, const sm::view<Out, 3>& out,
              const ssm::scan_options<T>& options, const sm::context_ref& ctx = {});
template <class T>
void run_packed(const sm::view<const T, 2>& u, const sm::view<const T, 2>& delta, const sm::view<const float, 2>& A,
                const sm::view<const T, 3>& B, const sm::view<const T, 3>& C, const sm::view<T, 2>& out,
                const sm::view<const index, 1>& cu_seqlens, const ssm::scan_options<T>& options,
                const sm::context_ref& ctx = {});

struct scan_case {
    index batch = 1, channels = 1, groups = 1, states = 1, length = 1;
    bool D = false, z = false, bias = false, softplus = false, s4d = false;
    bool initial = false;    ///< initial_state is given
    bool state = false;      ///< state is given; it begins the sequence unless initial_state does
    bool bf16_state = false; ///< in bf16
    bool reverse = false, accumulate = false;
    index segments = 1;
    index snapshots = 0; ///< every so many tokens; 0: none
    lie stands = lie::first;
    std::size_t skipped = 0;
    range delta{0.0f, 0.5f}, A{-4.0f, -0.1f};
    double smallest = 0x1p-149; ///< where numbers end: the smallest subnormal, or 2^-126 where those are flushed
    std::uint64_t seed = 1;

    /// The same with everything that may be asked for.
    scan_case with_all() const
    {
        scan_case c = *this;
        c.D = c.z = c.bias = c.softplus = c.state = true;
        c.delta = {-5.0f, 1.0f};
        return c;
    }
};

inline std::ostream& operator<<(std::ostream& out, const scan_case& c)
{
    out << "B " << c.batch << " D " << c.channels << " G " << c.groups << " N " << c.states << " L " << c.length;
    const std::pair<bool, const char*> words[] = {{c.D, "D"},
                                                  {c.z, "z"},
                                                  {c.bias, "bias"},
                                                  {c.softplus, "softplus"},
                                                  {c.s4d, "s4d_real"},
                                                  {c.initial, "initial_state"},
                                                  {c.state, "state"},
                                                  {c.bf16_state, "bf16 state"},
                                                  {c.reverse, "reverse"},
                                                  {c.accumulate, "accumulate"}};
    for (const auto& [given, word] : words) {
        if (given) { out << ", " << word; }
    }
    return out << ", segments " << c.segments << ", snapshots " << c.snapshots << ", lie " << static_cast<int>(c.stands)
               << ", delta " << c.delta.low << ".." << c.delta.high << ", A " << c.A.low << ".." << c.A.high
               << ", seed " << c.seed;
}

/// The operands.
template <class T, class Delta = T>
struct scan_problem {
    scan_case c;
    laid_out<T, 3> u, z;
    laid_out<Delta, 3> delta;
    laid_out<float, 2> A;
    laid_out<T, 4> B, C;
    laid_out<float, 1> D, bias;
    laid_out<float, 3> initial;
    std::vector<float> start, before; ///< what state and, to be added to, out hold when the call begins

    explicit scan_problem(const scan_case& the_case)
        : c(the_case), u(sequence(), c.stands, c.skipped), delta(sequence(), c.stands, c.skipped),
          A({c.channels, c.states}, c.stands), B(coefficients(), c.stands, c.skipped),
          C(coefficients(), c.stands, c.skipped)
    {
        random_source random(c.seed * 7919 + 13);
        const auto normal = [&] { return random.normal(); };
        u.fill(normal), B.fill(normal), C.fill(normal);
        delta.fill([&] { return random.uniform(c.delta.low, c.delta.high); });
        A.fill([&] { return random.uniform(c.A.low, c.A.high); });
        if (c.s4d) {
            for_each(A(), [](float& a, index, index n) { a = -static_cast<float>(n + 1); });
        }
        if (c.z) { (z = laid_out<T, 3>(sequence(), c.stands, c.skipped)).fill(normal); }
        if (c.D) { (D = laid_out<float, 1>({c.channels}, c.stands)).fill(normal); }
        if (c.bias) {
            (bias = laid_out<float, 1>({c.channels}, c.stands)).fill([&] { return random.unit(); });
        }
        if (c.initial) { (initial = laid_out<float, 3>(states(), c.stands)).fill(normal); }
        start = random.normals(static_cast<std::size_t>(c.batch * c.channels * c.states));
        before = random.normals(static_cast<std::size_t>(c.batch * c.channels * c.length));
    }

    std::array<index, 3> sequence() const { return {c.batch, c.channels, c.length}; }
    std::array<index, 3> states() const { return {c.batch, c.channels, c.states}; }
    std::array<index, 4> coefficients() const { return {c.batch, c.groups, c.states, c.length}; }
    std::array<index, 4> snapshots() const { return {c.batch, c.length / c.snapshots, c.channels, c.states}; }
    sm::view<const float, 3> start_view() const
    {
        return {start.data(), states(), {c.channels * c.states, c.states, 1}};
    }
    sm::view<const float, 3> before_view() const
    {
        return {before.data(), sequence(), {c.channels * c.length, c.length, 1}};
    }

    /// All but what is written: state and snapshots.
    ssm::scan_options<T> options() const
    {
        ssm::scan_options<T> o;
        o.D = D(), o.z = z(), o.delta_bias = bias(), o.initial_state = initial();
        o.softplus = c.softplus, o.accumulate = c.accumulate, o.time_segments = c.segments;
        o.decay = c.s4d ? ssm::decay::s4d_real : ssm::decay::any;
        o.direction = c.reverse ? ssm::direction::reverse : ssm::direction::forward;
        return o;
    }
};

/// What a call writes, prepared for it.
template <class Out>
struct scan_result {
    laid_out<Out, 3> out;
    laid_out<float, 3> state;
    laid_out<bf16, 3> narrow_state;
    laid_out<float, 4> snapshots;

    template <class T, class Delta>
    explicit scan_result(const scan_problem<T, Delta>& p) : out(p.sequence(), p.c.stands, p.c.skipped)
    {
        const scan_case& c = p.c;
        if (c.accumulate) { out.copy(p.before_view()); }
        if (c.state && c.bf16_state) { (narrow_state = laid_out<bf16, 3>(p.states(), c.stands)).copy(p.start_view()); }
        if (c.state && !c.bf16_state) { (state = laid_out<float, 3>(p.states(), c.stands)).copy(p.start_view()); }
        if (c.snapshots > 0) { snapshots = laid_out<float, 4>(p.snapshots(), c.stands); }
    }
    template <class T>
    void ask_in(ssm::scan_options<T>& o, index interval) const
    {
        if (state()) { o.state = state(); }
        if (narrow_state()) { o.state = narrow_state(); }
        if (snapshots()) { o.snapshots = snapshots(), o.snapshot_interval = interval; }
    }
    friend bool operator==(const scan_result& a, const scan_result& b)
    {
        return same_bits(a.out(), b.out()) && same_bits(a.state(), b.state()) &&
               same_bits(a.narrow_state(), b.narrow_state()) && same_bits(a.snapshots(), b.snapshots());
    }
};

template <class T, class Delta, class Out>
void run(const scan_problem<T, Delta>& p, scan_result<Out>& r, const sm::context_ref& ctx = {})
{
    ssm::scan_options<T> options = p.options();
    r.ask_in(options, p.c.snapshots);
    run_scan<T, Delta, Out>(p.u(), p.delta(), p.A(), p.B(), p.C(), r.out(), options, ctx);
}

/// The error bound of one channel, carried from token to token as the errors are: the figures of selective_scan's
/// docstring, in units of u = 2^-24, with second-order terms and underflow beside them.
class running_bound {
public:
    static constexpr double u = sm::unit_roundoff<float>;

    running_bound(const scan_case& c, const std::vector<double>& start)
        : c_(c), h_(start), size_(start), error_(start.size()), size_before_(start.size()), rate_(start.size())
    {
        for (double& x : size_) { x = std::fabs(x); }
        size_before_ = size_;
    }

    struct step {
        double delta, error; ///< after bias and softplus
    };
    /// delta + bias is rounded once; softplus is off by 2.09 ulp and passes the sum's rounding on.
    static step step_of(const scan_case& c, double delta, double bias)
    {
        const double x = delta + bias, rounding = c.bias ? u * std::fabs(x) : 0.0;
        if (!c.softplus) { return {x, rounding}; }
        const double y = ssm::reference::softplus(x);
        return {y, 4.2 * u * y + rounding / (1.0 + std::exp(-x)) + 3.0 * c.smallest};
    }

    /// Token t, after which the states are h; how far y may be off then, `skipped` being |D u|.
    template <class T>
    double advance(index t, step dt, double input, const sm::view<const float, 1>& A, const sm::view<const T, 2>& B,
                   const sm::view<const T, 2>& C, const std::vector<double>& h, double skipped)
    {
        const double tiny = c_.smallest;
        double carried = 0.0, sum = skipped;
        time_ += std::fabs(dt.delta), ++tokens_;
        for (index n = 0; n < c_.states; ++n) {
            const auto i = static_cast<std::size_t>(n);
            const double a = widened(A(n)), b = widened(B(n, t)), x = std::fabs(dt.delta * a),
                         decay = std::exp(dt.delta * a);
            const double power = static_cast<double>(n + 1);
            const double relative =
                (c_.s4d ? 4.3 * power + 3.0 + 1.3 * x : 4.0 + 2.3 * x) * u + std::fabs(a) * dt.error;
            const double wrong =
                relative < 1.0 ? decay * relative * (1.0 + relative) : std::exp(dt.delta * a + relative) - decay;
            const double decay_error = wrong + (c_.s4d ? 4.0 * power : 4.0) * tiny;
            const double entering = dt.delta * input * b;
            const double enters =
                2.0 * u * std::fabs(entering) + dt.error * std::fabs(input * b) + (std::fabs(b) + 1.0) * tiny;
            const double before = cut() ? size_[i] : std::fabs(h_[i]);
            size_[i] = decay * size_[i] + std::fabs(entering);
            const double now = cut() ? size_[i] : std::fabs(h[i]);
            const double passed = decay * error_[i] + decay_error * (before + error_[i]) + enters + tiny;
            error_[i] = passed + u * (now + passed);
            const double c = std::fabs(widened(C(n, t)));
            carried += c * error_[i], sum += c * (std::fabs(h[i]) + error_[i]);
            rate_[i] += dt.delta * a;
        }
        h_ = h;
        if (cut() && t + 1 == border_after(t)) { pass_border(A); }
        // N sums are rounded, and the first is of D u: what is small beside it is off by as much as it.
        const double roundings = static_cast<double>(c_.states + 2);
        return carried + roundings * (u * (sum + carried) + tiny);
    }

    const std::vector<double>& errors() const { return error_; }

private:
    bool cut() const { return c_.segments > 1; }
    index border_after(index t) const
    {
        for (index s = 1;; ++s) {
            const index begin = c_.length / c_.segments * s + std::min(c_.length % c_.segments, s);
            if (begin > t) { return begin; }
        }
    }
    /// Where time is cut, what stood at the border before is decayed over all of the piece by one exponential of the
    /// sum of its steps, which is rounded once a token. Sizes count instead of states: the piece has begun with zeros.
    void pass_border(const sm::view<const float, 1>& A)
    {
        for (std::size_t i = 0; i < error_.size(); ++i) {
            const double x = time_ * std::fabs(widened(A(static_cast<index>(i)))),
                         roundings = static_cast<double>(tokens_);
            const double keep = std::exp(rate_[i]), relative = (4.0 + (2.3 + roundings) * x) * u;
            error_[i] += (std::exp(rate_[i] + relative) - keep + 4.0 * c_.smallest) * size_before_[i] + u * size_[i] +
                         c_.smallest;
            size_before_[i] = size_[i], rate_[i] = 0.0;
        }
        time_ = 0.0, tokens_ = 0;
    }

    const scan_case& c_;
    std::vector<double> h_, size_, error_, size_before_, rate_;
    double time_ = 0.0;
    index tokens_ = 0;
};

/// What is wanted, and how far a result may be from it; all in logical order.
struct expectation {
    std::vector<double> out, out_tolerance, state, state_tolerance, snapshots, snapshots_tolerance;
};

template <class Out, class T, class Delta>
expectation expect(const scan_problem<T, Delta>& p)
{
    constexpr double u = running_bound::u;
    const scan_case& c = p.c;
    expectation e;
    const auto places = static_cast<std::size_t>(c.batch * c.channels);
    e.out.resize(places * static_cast<std::size_t>(c.length)), e.out_tolerance = e.out;
    const index shots = c.snapshots > 0 ? c.length / c.snapshots : 0;
    e.snapshots.resize(places * static_cast<std::size_t>(shots * c.states)), e.snapshots_tolerance = e.snapshots;
    const auto in_time = [&](const auto& v) { return c.reverse ? v.reversed(v.rank - 1) : v; };
    for (index b = 0; b < c.batch; ++b) {
        for (index d = 0; d < c.channels; ++d) {
            const index group = d / (c.channels / c.groups);
            const sm::view<const T, 1> inputs = in_time(p.u()[b][d]);
            const sm::view<const T, 1> z = c.z ? in_time(p.z()[b][d]) : sm::view<const T, 1>{};
            const sm::view<const T, 2> B = in_time(p.B()[b][group]), C = in_time(p.C()[b][group]);
            const sm::view<const float, 1> A = p.A()[d];
            const auto deltas = in_time(p.delta()[b][d]);
            std::vector<running_bound::step> steps;
            std::vector<double> delta, h;
            for (index t = 0; t < c.length; ++t) {
                steps.push_back(running_bound::step_of(c, widened(deltas(t)), c.bias ? widened(p.bias()(d)) : 0.0));
                delta.push_back(steps.back().delta);
            }
            for (index n = 0; n < c.states; ++n) {
                const float started = p.start_view()(b, d, n);
                h.push_back(c.initial ? widened(p.initial()(b, d, n))
                            : c.state ? (c.bf16_state ? widened(bf16(started)) : widened(started))
                                      : 0.0);
            }
            running_bound bound(c, h);
            std::vector<double> y_error;
            const double D = c.D ? widened(p.D()(d)) : 0.0;
            const std::vector<double> y =
                ssm::reference::scan<T>(inputs, delta, A, B, C, D, z, h, [&](index t, const std::vector<double>& now) {
                    const double input = widened(inputs(t));
                    y_error.push_back(bound.advance(t, steps[static_cast<std::size_t>(t)], input, A, B, C, now,
                                                    std::fabs(D * input)));
                    if (c.snapshots == 0 || (t + 1) % c.snapshots != 0) { return; }
                    for (index n = 0; n < c.states; ++n) {
                        const auto at =
                            static_cast<std::size_t>(((b * shots + t / c.snapshots) * c.channels + d) * c.states + n);
                        e.snapshots[at] = now[static_cast<std::size_t>(n)];
                        e.snapshots_tolerance[at] = bound.errors()[static_cast<std::size_t>(n)];
                    }
                });
            for (index t = 0; t < c.length; ++t) {
                double want = y[static_cast<std::size_t>(t)], error = y_error[static_cast<std::size_t>(t)];
                if (c.z) { // silu is off by at most 3.9 u of itself, and the product is rounded
                    const double gate = std::fabs(ssm::reference::silu(widened(z(t))));
                    const double sum = gate == 0.0 ? 0.0 : std::fabs(want) / gate;
                    error = error * gate + (sum + error) * (5.0 * u * gate + 4.0 * c.smallest) + c.smallest;
                }
                const index at = c.reverse ? c.length - 1 - t : t;
                if (c.accumulate) {
                    want += widened(Out(p.before_view()(b, d, at)));
                    error += u * (std::fabs(want) + error);
                }
                if (!std::is_same_v<Out, float>) {
                    error += sm::unit_roundoff<Out> * (std::fabs(want) + error) + half_smallest<Out>;
                }
                const auto to = static_cast<std::size_t>((b * c.channels + d) * c.length + at);
                e.out[to] = want, e.out_tolerance[to] = error;
            }
            for (std::size_t n = 0; n < h.size(); ++n) {
                double error = bound.errors()[n];
                if (c.bf16_state) {
                    error += sm::unit_roundoff<bf16> * (std::fabs(h[n]) + error) + half_smallest<bf16>;
                }
                e.state.push_back(h[n]), e.state_tolerance.push_back(error);
            }
        }
    }
    return e;
}

template <class T>
inline error_record largest_error{type_name<T>};

/// Compares all that a call has written with the reference.
template <class T, class Delta, class Out>
void check_result(const scan_problem<T, Delta>& p, const scan_result<Out>& r)
{
    const scan_case& c = p.c;
    const expectation want = expect<Out>(p);
    std::ostringstream place;
    place << c;
    const worst_error out = worst_in_tolerances(r.out(), want.out, want.out_tolerance);
    worst_error state, snapshots;
    if (r.state()) { state = worst_in_tolerances(r.state(), want.state, want.state_tolerance); }
    if (r.narrow_state()) { state = worst_in_tolerances(r.narrow_state(), want.state, want.state_tolerance); }
    if (r.snapshots()) { snapshots = worst_in_tolerances(r.snapshots(), want.snapshots, want.snapshots_tolerance); }
    INFO(type_name<T> << " on " << test_arch::name << ", " << place.str());
    if (out.at >= 0) {
        INFO("out of batch item " << out.at / c.length / c.channels << ", channel " << out.at / c.length % c.channels
                                  << ", token " << out.at % c.length);
        INFO(out << ", in units of " << want.out_tolerance[static_cast<std::size_t>(out.at)]);
        CHECK(out.error <= 1.0);
    }
    INFO("state: " << state << "; snapshots: " << snapshots);
    CHECK(state.error <= 1.0);
    CHECK(snapshots.error <= 1.0);
    CHECK(r.out.written_exactly());
    CHECK((r.state.written_exactly() && r.narrow_state.written_exactly() && r.snapshots.written_exactly()));
    largest_error<T>.see(std::max({out.error, state.error, snapshots.error}), place.str());
}

template <class T, class Delta = T, class Out = T>
void check_case(const scan_case& c)
{
    const scan_problem<T, Delta> p(c);
    scan_result<Out> r(p);
    run(p, r);
    check_result(p, r);
}

inline void check_all_types(const scan_case& c)
{
    check_case<float>(c);
    check_case<bf16>(c);
    check_case<f16>(c);
}

} // namespace scan_test
