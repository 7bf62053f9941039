// SPDX-License-Identifier: MIT
// Gated recurrences without a key, HGRN and the MatMul-free LM's unit: against their definitions; what must be equal to what, bit for
// bit; memory, and what NaN reaches.
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/laid_out.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/scratch.hpp"
#include "support/tolerances.hpp"

#include <seqmix/linear/hgrn.hpp>
#include <seqmix/linear/reference.hpp>

#include <sstream>
#include <stdexcept>

namespace hgrn_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using namespace test_support;
using sm::bf16;
using sm::f16;
using sm::index;

inline constexpr index lanes = sm::simd::lanes<test_arch>;

namespace {

enum class cell { hgrn, mlgru, gated };
constexpr cell all_cells[] = {cell::hgrn, cell::mlgru, cell::gated};

struct hgrn_case {
    cell kind = cell::hgrn;
    index batch = 1, channels = 1, length = 1;
    bool initial = false, state = true, bf16_state = false, accumulate = false;
    index segments = 1;
    lie stands = lie::first;
    std::size_t skipped = 0;
    range gates{-1.0f, -0.01f}; ///< g; or forget, and gate
    std::uint64_t seed = 1;
};

std::ostream& operator<<(std::ostream& out, const hgrn_case& c)
{
    const char* const names[] = {"hgrn", "mlgru", "gated mlgru"};
    return out << names[static_cast<int>(c.kind)] << ", B " << c.batch << " L " << c.length << " D " << c.channels
               << (c.initial ? ", initial_state" : "") << (c.state ? ", state" : "") << (c.bf16_state ? " in bf16" : "")
               << (c.accumulate ? ", accumulate" : "") << ", segments " << c.segments << ", lie " << static_cast<int>(c.stands)
               << " skipping " << c.skipped << ", gates " << c.gates.low << ".." << c.gates.high << ", seed " << c.seed;
}

/// Operands lie as [B, D, L], and are [B, L, D] for the door.
template <class T, std::size_t Rank>
sm::view<T, Rank> for_door(const sm::view<T, Rank>& v)
{
    return v.transposed(Rank - 2, Rank - 1);
}

/// x and g; or forget, candidate, gate: `gates` is g or forget.
template <class T, class G = T>
struct hgrn_problem {
    hgrn_case c;
    laid_out<T, 3> x, gate;
    laid_out<G, 3> gates;
    laid_out<float, 2> initial;
    std::vector<float> start, before;

    explicit hgrn_problem(const hgrn_case& the_case)
        : c(the_case), x(sequence(), c.stands, c.skipped), gates(sequence(), c.stands, c.skipped)
    {
        random_source random(c.seed * 7919 + 13);
        const auto normal = [&] { return random.normal(); };
        const auto of_range = [&] { return random.uniform(c.gates.low, c.gates.high); };
        x.fill(normal), gates.fill(of_range);
        if (c.kind == cell::gated) { (gate = laid_out<T, 3>(sequence(), c.stands, c.skipped)).fill(of_range); }
        if (c.initial) { (initial = laid_out<float, 2>({c.batch, c.channels}, c.stands)).fill(normal); }
        start = random.normals(static_cast<std::size_t>(c.batch * c.channels));
        before = random.normals(static_cast<std::size_t>(c.batch * c.channels * c.length));
    }
    std::array<index, 3> sequence() const { return {c.batch, c.channels, c.length}; }
    sm::view<const float, 2> start_view() const { return {start.data(), {c.batch, c.channels}}; }
    sm::view<const float, 3> before_view() const { return {before.data(), {c.batch, c.channels, c.length}}; }
    linear::hgrn_options options() const
    {
        linear::hgrn_options o;
        o.accumulate = c.accumulate, o.time_segments = c.segments;
        if (c.initial) { o.initial_state = initial(); }
        return o;
    }
};

template <class Out>
struct hgrn_result {
    laid_out<Out, 3> out;
    laid_out<float, 2> state;
    laid_out<bf16, 2> narrow_state;

    template <class T, class G>
    explicit hgrn_result(const hgrn_problem<T, G>& p) : out(p.sequence(), p.c.stands, p.c.skipped)
    {
        const hgrn_case& c = p.c;
        if (c.accumulate) { out.copy(p.before_view()); }
        if (c.state && c.bf16_state) { (narrow_state = laid_out<bf16, 2>({c.batch, c.channels}, c.stands)).copy(p.start_view()); }
        if (c.state && !c.bf16_state) { (state = laid_out<float, 2>({c.batch, c.channels}, c.stands)).copy(p.start_view()); }
    }
    template <class Options>
    void ask_in(Options& o) const
    {
        if (state()) { o.state = state(); }
        if (narrow_state()) { o.state = narrow_state(); }
    }
    friend bool operator==(const hgrn_result& a, const hgrn_result& b)
    {
        return same_bits(a.out(), b.out()) && same_bits(a.state(), b.state()) && same_bits(a.narrow_state(), b.narrow_state());
    }
};

/// Any views of a problem's operands through the door that is meant. Both doors in float; since narrow types are only widened as they
/// are read and rounded as they are written, the unit in bf16 alone, hgrn in f16 with gates of either type.
template <class T>
constexpr bool is_built(cell kind)
{
    return std::is_same_v<T, float> || (kind == cell::hgrn) == std::is_same_v<T, f16>;
}
template <class T, class G, class Out>
void call(cell kind, const sm::view<const T, 3>& x, const sm::view<const G, 3>& gates, const sm::view<const T, 3>& gate,
          const sm::view<Out, 3>& out, const linear::hgrn_options& o, const sm::context_ref& ctx = {})
{
    if (!is_built<T>(kind)) { throw std::logic_error("a cell that is not compiled for this type"); }
    if constexpr (std::is_same_v<T, G> && is_built<T>(cell::mlgru)) {
        if (kind != cell::hgrn) { return linear::mlgru<test_arch>(gates, x, gate, out, o, ctx); }
    }
    if constexpr (is_built<T>(cell::hgrn)) { linear::hgrn<test_arch>(x, gates, out, o, ctx); }
}

template <class T, class G, class Out>
void run(const hgrn_problem<T, G>& p, hgrn_result<Out>& r, const sm::context_ref& ctx = {})
{
    linear::hgrn_options o = p.options();
    r.ask_in(o);
    call<T, G, Out>(p.c.kind, for_door(p.x()), for_door(p.gates()), p.c.kind == cell::gated ? for_door(p.gate()) : p.gate(), for_door(r.out()),
                    o, ctx);
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

/// The error of one channel's state, carried from token to token as the errors are: the figures of the docstrings, in units of u,
/// second-order terms and underflow beside them.
class running_bound {
public:
    static constexpr double u = sm::unit_roundoff<float>, tiny = 0x1p-149;

    running_bound(const hgrn_case& c, double start) : c_(c), h_(start), size_(std::fabs(start)), size_before_(size_) {}

    void advance(index t, double x, double gate, double h)
    {
        const bool decays = c_.kind == cell::hgrn;
        const double keep = decays ? std::exp(gate) : sigmoid(gate), c = std::fabs(decays ? x : x * sigmoid(x));
        const double relative = (decays ? 4.0 + 2.3 * std::fabs(gate) : 5.0) * u;
        const double add = decays ? c : (1.0 - keep) * c;
        const double add_error = decays ? 0.0 : (5.0 * keep + 9.0 * (1.0 - keep)) * u * c + 8.0 * tiny * (1.0 + c);
        const double before = cut() ? size_ : std::fabs(h_);
        size_ = keep * size_ + add, h_ = h;
        const double now = cut() ? size_ : std::fabs(h);
        const double wrong = keep * std::expm1(relative) + 4.0 * tiny;
        const double passed = keep * error_ + wrong * (before + error_) + add_error + tiny;
        error_ = passed + u * (now + passed);
        // What of the state at the last border has been kept is a product of decays, each of them rounded once more.
        kept_ *= keep, of_kept_ += relative + u, underflow_ = underflow_ * keep + 5.0 * tiny;
        if (cut() && t + 1 == border_after(t)) {
            error_ += (kept_ * std::expm1(of_kept_) + underflow_) * size_before_ + u * size_ + tiny;
            size_before_ = size_, kept_ = 1.0, of_kept_ = underflow_ = 0.0;
        }
    }
    double error() const { return error_; }

private:
    bool cut() const { return c_.segments > 1; }
    index border_after(index t) const
    {
        for (index s = 1;; ++s) {
            const index begin = c_.length / c_.segments * s + std::min(c_.length % c_.segments, s);
            if (begin > t) { return begin; }
        }
    }

    const hgrn_case& c_;
    double h_, size_, size_before_, error_ = 0.0, kept_ = 1.0, of_kept_ = 0.0, underflow_ = 0.0;
};

template <class T>
std::vector<double> doubles(const sm::view<const T, 1>& from)
{
    std::vector<double> to;
    for (index i = 0; i < from.extent(0); ++i) { to.push_back(as_double(from(i))); }
    return to;
}
sm::view<const double, 1> viewed(const std::vector<double>& v) { return {v.data(), {v.size()}}; }

error_record largest_error{"f32"};

template <class T, class G, class Out>
void check_result(const hgrn_problem<T, G>& p, const hgrn_result<Out>& r)
{
    constexpr double u = running_bound::u, tiny = running_bound::tiny;
    const hgrn_case& c = p.c;
    std::vector<double> out, out_tolerance, state, state_tolerance;
    for (index b = 0; b < c.batch; ++b) {
        for (index d = 0; d < c.channels; ++d) {
            const float started = p.start_view()(b, d);
            double h = c.initial ? as_double(p.initial()(b, d)) : !c.state ? 0.0 : c.bf16_state ? as_double(bf16(started)) : as_double(started);
            const std::vector<double> x = doubles<T>(p.x()[b][d]), gates = doubles<G>(p.gates()[b][d]);
            const std::vector<double> all =
                c.kind == cell::hgrn ? linear::reference::hgrn(viewed(x), viewed(gates), h) : linear::reference::mlgru(viewed(gates), viewed(x), h);
            running_bound bound(c, h);
            for (std::size_t t = 0; t < all.size(); ++t) {
                h = all[t];
                bound.advance(static_cast<index>(t), x[t], gates[t], h);
                double want = h, error = bound.error();
                if (c.kind == cell::gated) {
                    const double gate = sigmoid(as_double(p.gate()(b, d, static_cast<index>(t))));
                    error = gate * error + (std::fabs(h) + error) * (6.0 * u * gate + 4.0 * tiny) + tiny;
                    want *= gate;
                }
                if (c.accumulate) {
                    want += as_double(Out(p.before_view()(b, d, static_cast<index>(t))));
                    error += u * (std::fabs(want) + error);
                }
                if (!std::is_same_v<Out, float>) {
                    error += sm::unit_roundoff<Out> * (std::fabs(want) + error) + half_smallest<Out>;
                }
                out.push_back(want), out_tolerance.push_back(error);
            }
            double error = bound.error();
            if (c.bf16_state) { error += sm::unit_roundoff<bf16> * (std::fabs(h) + error) + half_smallest<bf16>; }
            state.push_back(h), state_tolerance.push_back(error);
        }
    }
    const worst_error of_out = worst_in_tolerances(r.out(), out, out_tolerance);
    worst_error of_state;
    if (r.state()) { of_state = worst_in_tolerances(r.state(), state, state_tolerance); }
    if (r.narrow_state()) { of_state = worst_in_tolerances(r.narrow_state(), state, state_tolerance); }
    std::ostringstream place;
    place << c;
    INFO(type_name<T> << ", gates " << type_name<G> << ", out " << type_name<Out> << " on " << test_arch::name << ", " << place.str());
    INFO("in tolerances, out: " << of_out << "; state: " << of_state);
    CHECK(of_out.error <= 1.0);
    CHECK(of_state.error <= 1.0);
    CHECK((r.out.written_exactly() && r.state.written_exactly() && r.narrow_state.written_exactly()));
    if (std::is_same_v<Out, float> && !c.bf16_state) { largest_error.see(std::max(of_out.error, of_state.error), place.str()); }
}

template <class T, class G = T, class Out = T>
void check_case(const hgrn_case& c)
{
    const hgrn_problem<T, G> p(c);
    hgrn_result<Out> r(p);
    run(p, r);
    check_result(p, r);
}
void check_all_types(const hgrn_case& c)
{
    check_case<float>(c);
    if (c.kind == cell::hgrn) { check_case<f16>(c), check_case<f16, float, float>(c); }
    if (c.kind != cell::hgrn) { check_case<bf16>(c); }
}

} // namespace

TEST_CASE("hgrn: every shape, with channels contiguous and with time")
{
    for (const cell kind : all_cells) {
        for (const lie stands : {lie::first, lie::last}) {
            for (index channels : {index{0}, index{1}, lanes - 1, lanes, lanes + 1, 4 * lanes - 1, 4 * lanes, 4 * lanes + 1, 9 * lanes + 2}) {
                for (index length : {0, 1, 2, 7, 8, 9, 63, 64, 65, 131}) {
                    hgrn_case c{.kind = kind, .batch = length < 10 ? 2 : 1, .channels = channels, .length = length, .stands = stands};
                    c.seed = static_cast<std::uint64_t>(channels * 1000 + length + 1);
                    check_case<float>(c);
                }
            }
            check_case<float>({.kind = kind, .batch = 0, .channels = 3, .length = 7, .stands = stands});
        }
    }
}

TEST_CASE("hgrn: every layout, every type, off every border")
{
    for (const cell kind : all_cells) {
        for (const lie stands : all_lies) {
            for (std::size_t skipped : {0u, 1u, 3u}) {
                hgrn_case c{.kind = kind, .batch = 2, .channels = 5 * lanes + 3, .length = 70, .initial = skipped == 1, .stands = stands,
                            .skipped = skipped};
                check_all_types(c);
                c.accumulate = true, c.segments = 1 + static_cast<index>(skipped), c.bf16_state = skipped == 3;
                check_all_types(c);
            }
        }
    }
}

TEST_CASE("hgrn: operands of different layouts")
{
    random_source random(5);
    const auto any = [&] { return all_lies[random.integer(0, static_cast<index>(std::size(all_lies)) - 1)]; };
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        hgrn_case c{.kind = all_cells[seed % 3], .batch = 2, .channels = 2 * lanes + 3, .length = 75, .accumulate = seed % 2 == 0, .seed = seed};
        hgrn_problem<float> p(c);
        const auto move = [&](auto& operand) {
            if (!operand()) { return; }
            std::remove_reference_t<decltype(operand)> moved(p.sequence(), any(), seed % 4);
            moved.copy(operand());
            operand = std::move(moved);
        };
        move(p.x), move(p.gates), move(p.gate);
        hgrn_result<float> r(p);
        move(r.out);
        run(p, r);
        check_result(p, r);
    }
}

TEST_CASE("hgrn: gates at their extremes")
{
    for (const cell kind : all_cells) {
        for (const range gates : {range{0.0f, 0.0f}, range{-1e-8f, -1e-8f}, range{-30.0f, -30.0f}, range{-1e4f, -1e4f}, range{-1e4f, 0.0f},
                                  range{-110.0f, -80.0f}, range{-1e-3f, 0.0f}, range{-infinity, -infinity}}) {
            for (index segments : {1, 5}) {
                const hgrn_case c{.kind = kind, .channels = lanes + 3, .length = 150, .segments = segments, .gates = gates};
                if (gates.low == -infinity && kind != cell::hgrn) { continue; }
                hgrn_problem<float> p(c);
                if (gates.low == -infinity) { p.gates.fill([] { return -infinity; }); }
                hgrn_result<float> r(p);
                run(p, r);
                check_result(p, r);
            }
        }
    }
    for (const range gates : {range{-200.0f, 200.0f}, range{5.0f, 20.0f}, range{100.0f, 100.0f}, range{-1e30f, 1e30f}}) {
        check_case<float>({.kind = cell::mlgru, .channels = lanes + 3, .length = 150, .gates = gates});
        check_case<float>({.kind = cell::gated, .channels = lanes + 3, .length = 150, .segments = 4, .gates = gates});
    }
    check_case<float>({.kind = cell::hgrn, .channels = lanes + 3, .length = 60, .gates = {0.0f, 1.0f}}); // growth, while it lasts
}

TEST_CASE("hgrn: an open forget gate keeps the state to the last bit, and a convex combination stays in its range")
{
    const hgrn_case c{.kind = cell::mlgru, .channels = lanes + 3, .length = 1000, .gates = {18.0f, 60.0f}};
    const hgrn_problem<float> p(c);
    hgrn_result<float> r(p);
    run(p, r);
    CHECK(same_bits(r.state(), p.start_view()));

    hgrn_case any = c;
    any.gates = {-6.0f, 17.0f};
    hgrn_problem<float> q(any);
    q.x.fill([] { return 3.0f; });
    for (float& x : q.start) { x = 0.0f; }
    hgrn_result<float> s(q);
    run(q, s);
    const double most = 3.0 * sigmoid(3.0);
    bool inside = true;
    for_each(s.out(), [&](float h, auto...) { inside = inside && h >= 0.0f && as_double(h) <= most * (1.0 + 9.0 * running_bound::u); });
    CHECK(inside);
}

TEST_CASE("hgrn: a hundred thousand tokens are no further off than the bound")
{
    const index length = thorough ? 100000 : 5000;
    for (const cell kind : all_cells) {
        for (const lie stands : {lie::first, lie::last}) {
            for (index segments : {1, 7}) {
                check_case<float>({.kind = kind, .channels = 3, .length = length, .segments = segments, .stands = stands,
                                   .gates = kind == cell::hgrn ? range{-0.1f, -0.001f} : range{-2.0f, 6.0f}});
            }
        }
    }
}

TEST_CASE("hgrn: results are the same for every number of threads")
{
    for (const cell kind : all_cells) {
        for (const lie stands : {lie::first, lie::last}) {
            for (const auto& [batch, segments] : {std::pair<index, index>{1, 1}, {3, 1}, {1, 6}, {2, 3}, {2, 100}}) {
                const hgrn_case c{.kind = kind, .batch = batch, .channels = 20 * lanes + 3, .length = 85, .segments = segments, .stands = stands};
                const hgrn_problem<float> p(c);
                hgrn_result<float> alone(p);
                run(p, alone);
                check_result(p, alone);
                for (int workers : {2, 3, 5}) {
                    hgrn_result<float> shared(p);
                    sm::context ctx{sm::parallel_for{workers, on_threads{}}};
                    run(p, shared, ctx);
                    INFO(c << ", " << workers << " workers");
                    CHECK(shared == alone);
                }
            }
        }
    }
    const hgrn_case wide{.channels = 5000, .length = 3, .stands = lie::last}; // more than one block
    check_case<float>(wide);
}

TEST_CASE("hgrn: layouts, cuts of time, steps and packed sequences give the same bits")
{
    for (const cell kind : all_cells) {
        for (const lie stands : all_lies) {
            const hgrn_case c{.kind = kind, .batch = 2, .channels = 5 * lanes + 3, .length = 77, .initial = true, .stands = stands};
            const hgrn_problem<float> p(c);
            hgrn_case plain = c;
            plain.stands = lie::first;
            const hgrn_problem<float> usual(plain);
            hgrn_result<float> want(usual), whole(p), parts(p), steps(p), packed(p);
            run(usual, want), run(p, whole);
            INFO(c);
            CHECK(whole == want);

            const auto gate = [&](const auto& part) { return kind == cell::gated ? part(p.gate()) : p.gate(); };
            linear::hgrn_options o = p.options();
            parts.ask_in(o);
            for (const auto& [from, to] : {std::pair<index, index>{0, 1}, {1, 30}, {30, 30}, {30, 77}}) {
                const auto part = [from = from, to = to](const auto& v) { return for_door(v.slice(2, from, to)); };
                call<float, float, float>(kind, part(p.x()), part(p.gates()), gate(part), part(parts.out()), o);
                o.initial_state = {};
            }
            CHECK(parts == want);

            linear::hgrn_step_options so{.initial_state = p.initial()};
            steps.ask_in(so);
            for (index t = 0; t < c.length; ++t) {
                const auto token = [t](const auto& v) { return v.select(2, t); };
                using row = sm::view<const float, 2>;
                kind == cell::hgrn ? linear::hgrn_step<test_arch>(row(token(p.x())), row(token(p.gates())), token(steps.out()), so)
                                   : linear::mlgru_step<test_arch>(row(token(p.gates())), row(token(p.x())),
                                                                   kind == cell::gated ? row(token(p.gate())) : row(), token(steps.out()), so);
                so.initial_state = {};
            }
            CHECK(steps == want);

            // Batch item 1, packed as two sequences of which the second goes on where the first ends.
            const index offsets[] = {0, 0, 40, 77};
            std::vector<float> states(static_cast<std::size_t>(3 * c.channels), 7.0f);
            const auto item = [](const auto& v) { return for_door(v[1]); };
            const auto all = [&](const linear::hgrn_options& with) {
                const sm::view<const index, 1> cu(offsets, {4});
                const auto gates = kind == cell::gated ? sm::view<const float, 2>(item(p.gate())) : sm::view<const float, 2>();
                kind == cell::hgrn ? linear::hgrn_packed<test_arch>(sm::view<const float, 2>(item(p.x())), sm::view<const float, 2>(item(p.gates())),
                                                                    item(packed.out()), cu, with)
                                   : linear::mlgru_packed<test_arch>(sm::view<const float, 2>(item(p.gates())), sm::view<const float, 2>(item(p.x())),
                                                                     gates, item(packed.out()), cu, with);
            };
            std::vector<float> at_start(states);
            for_each(p.initial()[1], [&](float h, index d) {
                at_start[static_cast<std::size_t>(c.channels + d)] = h; // sequence 1; sequence 2 has to wait for it
                at_start[static_cast<std::size_t>(2 * c.channels + d)] = kind == cell::gated ? 0.0f : want.out()(1, d, 39);
            });
            linear::hgrn_options with;
            with.initial_state = sm::view<const float, 2>(at_start.data(), {index{3}, c.channels});
            with.state = sm::view<float, 2>(states.data(), {index{3}, c.channels});
            all(with);
            bool same = true;
            for_each(want.out()[1], [&](float h, index d, index t) {
                same = same && (t >= 40 && kind == cell::gated ? true : h == packed.out()(1, d, t));
            });
            for (index d = 0; d < c.channels; ++d) {
                same = same && states[static_cast<std::size_t>(d)] == 7.0f; // an empty sequence leaves its state as it is
                same = same && (kind == cell::gated || states[static_cast<std::size_t>(2 * c.channels + d)] == want.state()(1, d));
            }
            CHECK(same);
        }
    }
}

TEST_CASE("hgrn: narrow inputs give the bits of widened ones, and narrow states are rounded at the end")
{
    const auto check = [](auto type, cell kind, lie stands) {
        using T = decltype(type);
        hgrn_case c{.kind = kind, .batch = 2, .channels = 5 * lanes + 3, .length = 70, .stands = stands};
        const hgrn_problem<T> narrow(c);
        hgrn_problem<float> wide(c);
        wide.x.copy(narrow.x()), wide.gates.copy(narrow.gates());
        if (kind == cell::gated) { wide.gate.copy(narrow.gate()); }
        hgrn_result<T> of_narrow(narrow);
        hgrn_result<float> of_wide(wide);
        run(narrow, of_narrow), run(wide, of_wide);
        bool same = same_bits(of_narrow.state(), of_wide.state());
        for_each(of_wide.out(), [&](float h, auto... at) { same = same && as_double(T(h)) == as_double(of_narrow.out()(at...)); });
        CHECK(same);

        wide.c.bf16_state = true;
        hgrn_result<float> in_bf16(wide);
        run(wide, in_bf16);
        for (float& h : wide.start) { h = static_cast<float>(bf16(h)); }
        wide.c.bf16_state = false;
        hgrn_result<float> exact(wide);
        run(wide, exact);
        same = same_bits(exact.out(), in_bf16.out());
        for_each(exact.state(), [&](float h, auto... at) { same = same && bf16(h) == in_bf16.narrow_state()(at...); });
        CHECK(same);
    };
    for (const cell kind : all_cells) {
        for (const lie stands : {lie::first, lie::last}) { kind == cell::hgrn ? check(f16{}, kind, stands) : check(bf16{}, kind, stands); }
    }
}

TEST_CASE("hgrn: a result that leaves the caches is the same result")
{
    if (!thorough) { return; }
    for (const lie stands : {lie::first, lie::last}) {
        for (std::size_t skipped : {0u, 1u}) {
            const hgrn_case c{.batch = 2, .channels = 1024 + (skipped == 0 ? 0 : 3), .length = 2100, .stands = stands, .skipped = skipped};
            const hgrn_problem<float> p(c);
            hgrn_result<float> whole(p), items(p); // 17 MB, and twice 8.6 MB
            run(p, whole);
            for (index b = 0; b < c.batch; ++b) {
                const auto one = [b](const auto& v) { return v.slice(0, b, b + 1); };
                linear::hgrn_options o;
                o.state = one(items.state());
                call<float, float, float>(c.kind, for_door(one(p.x())), for_door(one(p.gates())), {}, for_door(one(items.out())), o);
            }
            CHECK(whole == items);
            CHECK(whole.out.written_exactly());
        }
    }
}

TEST_CASE("hgrn: NaN and infinities reach the outputs of their channel from their token on, and no others")
{
    for (const cell kind : all_cells) {
        for (const lie stands : {lie::first, lie::last}) {
            for (index segments : {1, 4}) {
                const hgrn_case c{.kind = kind, .batch = 2, .channels = 4 * lanes + 3, .length = 70, .segments = segments, .stands = stands};
                const hgrn_problem<float> clean(c);
                hgrn_result<float> want(clean);
                run(clean, want);
                for (const float bad : {not_a_number, infinity, -infinity}) {
                    for (index channel : {index{0}, lanes, 4 * lanes + 2}) {
                        for (int where = 0; where < (kind == cell::gated ? 3 : 2); ++where) {
                            hgrn_problem<float> p(c);
                            (where == 0 ? p.x : where == 1 ? p.gates : p.gate)()(1, channel, 37) = bad;
                            hgrn_result<float> r(p);
                            run(p, r);
                            index others = 0, clean_nan = 0;
                            for_each(r.out(), [&](float h, index b, index d, index t) {
                                const bool reached = b == 1 && d == channel && (where == 2 ? t == 37 : t >= 37);
                                others += !reached && h != want.out()(b, d, t);
                                clean_nan += reached && std::isnan(bad) && !std::isnan(h);
                            });
                            for_each(r.state(), [&](float h, index b, index d) {
                                others += !(b == 1 && d == channel && where < 2) && h != want.state()(b, d);
                            });
                            INFO(c << ", " << bad << " in operand " << where << " of channel " << channel);
                            CHECK(others == 0);
                            CHECK(clean_nan == 0);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("hgrn: scratch is the caller's, is reused, and does not grow with the length")
{
    for (const lie stands : {lie::first, lie::last}) {
        for (index segments : {1, 3}) {
            const hgrn_case c{.kind = cell::gated, .batch = 2, .channels = 4 * lanes + 3, .length = 70, .segments = segments, .stands = stands};
            const hgrn_problem<float> p(c);
            sm::context<> ctx;
            check_scratch([&] { return hgrn_result<float>(p); }, [&](auto& r, const sm::context_ref& on) { run(p, r, on); }, ctx);

            hgrn_case longer = c;
            longer.length = 700;
            const hgrn_problem<float> q(longer);
            hgrn_result<float> r(q);
            const long before = allocations;
            run(q, r, ctx);
            CHECK(allocations == before);
        }
    }
}

TEST_CASE("hgrn: nothing is read or written beyond the end of memory")
{
    const auto at_edges = [](auto type, cell kind, bool time_contiguous, bool backwards) {
        using T = decltype(type);
        const index L = 67, D = 2 * lanes + 3;
        at_the_edge<T> x(L * D), gates(L * D), gate(L * D), out(L * D);
        at_the_edge<float> state(D);
        for (index i = 0; i < L * D; ++i) { x[i] = gate[i] = T(0.5f), gates[i] = T(-0.5f); }
        for (index i = 0; i < D; ++i) { state[i] = 0.0f; }
        const auto as = [&](T* data) {
            const sm::view<T, 3> v = time_contiguous ? sm::view<T, 3>(data, {index{1}, D, L}).transposed(1, 2) : sm::view<T, 3>(data, {index{1}, L, D});
            return backwards ? v.reversed(1).reversed(2) : v;
        };
        linear::hgrn_options o;
        o.state = sm::view<float, 2>(state.data(), {index{1}, D}), o.accumulate = false;
        call<T, T, T>(kind, as(x.data()), as(gates.data()), kind == cell::gated ? as(gate.data()) : sm::view<T, 3>(), as(out.data()), o);
        CHECK(as_double(out[0]) > 0.0); // a fault is what fails
    };
    for (const cell kind : all_cells) {
        for (const bool time_contiguous : {false, true}) {
            for (const bool backwards : {false, true}) {
                at_edges(0.0f, kind, time_contiguous, backwards);
                kind == cell::hgrn ? at_edges(f16{}, kind, time_contiguous, backwards) : at_edges(bf16{}, kind, time_contiguous, backwards);
            }
        }
    }
}

} // namespace hgrn_test
