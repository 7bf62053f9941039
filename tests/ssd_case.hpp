// SPDX-License-Identifier: MIT
#pragma once

#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/laid_out.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/tolerances.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/ssm/options.hpp>
#include <seqmix/ssm/reference.hpp>

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string>

// One state-space duality as a value, its operands in memory, and what exact arithmetic makes of it.

namespace ssd_test {

namespace sm = seqmix;
namespace ssm = seqmix::ssm;
using namespace test_support;
using sm::bf16;
using sm::f16;
using sm::index;
using ssm::form;
using ssm::reference::widened;

inline constexpr index lanes = sm::simd::lanes<test_arch>;

/// The doors under test. Defined in ssd_test.cpp for a few types alone, so that they are compiled once.
template <class T, class Dt, class Out>
void run_ssd(const sm::view<const T, 4>& x, const sm::view<const Dt, 3>& dt, const sm::view<const float, 1>& A,
             const sm::view<const T, 4>& B, const sm::view<const T, 4>& C, const sm::view<Out, 4>& out,
             const ssm::ssd_options<T>& options, const sm::context_ref& ctx = {});
template <class T>
void run_packed(const sm::view<const T, 3>& x, const sm::view<const T, 2>& dt, const sm::view<const float, 1>& A,
                const sm::view<const T, 3>& B, const sm::view<const T, 3>& C, const sm::view<T, 3>& out,
                const sm::view<const index, 1>& cu_seqlens, const ssm::ssd_options<T>& options,
                const sm::context_ref& ctx = {});

/// Whether products of T are computed of bf16 operands.
template <class T>
inline constexpr bool narrow_products = sm::simd::backend<test_arch>::has_bf16_dot&& std::is_same_v<T, bf16>;

/// Axes of memory against those of the operand: as they are, or two of them swapped. [B, L, H, P] with 12 swapped lies
/// heads first, with 13 tokens are contiguous, with 23 heads are.
enum class axes { given, swap12, swap13, swap23 };

struct stand {
    lie how = lie::first;
    axes order = axes::given;
    std::size_t skipped = 0;
};
inline constexpr stand all_stands[] = {
    {lie::first, axes::given},         {lie::first, axes::swap12},         {lie::first, axes::swap13},
    {lie::first, axes::swap23},        {lie::last, axes::given},           {lie::spaced, axes::given},
    {lie::spaced_last, axes::swap13},  {lie::padded, axes::swap12},        {lie::padded, axes::given},
    {lie::time_reversed, axes::given}, {lie::time_reversed, axes::swap13}, {lie::all_reversed, axes::given},
    {lie::all_reversed, axes::swap12}, {lie::all_reversed, axes::swap23}};

/// Guarded memory of an operand that lies so.
template <class T, std::size_t Rank>
class placed {
public:
    placed() = default;
    placed(const std::array<index, Rank>& extents, const stand& s)
        : first_(first(s.order)), second_(second(s.order)), memory_(swapped(extents), s.how, s.skipped)
    {
    }

    /// Null where nothing has been placed.
    sm::view<T, Rank> operator()() const { return memory_().transposed(first_, second_); }
    bool given() const { return bool(memory_()); }

    template <class Number>
    void fill(const Number& number)
    {
        for_each((*this)(), [&](T& x, auto...) { x = static_cast<T>(number()); });
    }
    template <class Other>
    void copy(const Other& from)
    {
        for_each((*this)(), [&](T& x, auto... at) { x = static_cast<T>(static_cast<float>(from(at...))); });
    }
    bool written_exactly() const { return memory_.written_exactly(); }
    bool untouched() const { return memory_.untouched(); }

private:
    /// The two axes that are swapped; as many of them as there are.
    static std::size_t first(axes a) { return a == axes::given || Rank < 3 ? 0 : a == axes::swap23 ? last(2) : last(1); }
    static std::size_t second(axes a) { return a == axes::given || Rank < 3 ? 0 : a == axes::swap12 ? last(2) : last(3); }
    static constexpr std::size_t last(std::size_t axis) { return axis < Rank ? axis : Rank - 1; }
    std::array<index, Rank> swapped(std::array<index, Rank> extents) const
    {
        std::swap(extents[first_], extents[second_]);
        return extents;
    }

    std::size_t first_ = 0, second_ = 0;
    laid_out<T, Rank> memory_;
};

struct ssd_case {
    index batch = 1, heads = 1, groups = 1, channels = 1, states = 1, length = 1;
    bool D = false, z = false, bias = false, softplus = false;
    bool initial = false;    ///< initial_state is given
    bool state = false;      ///< state is given; it begins the sequence unless initial_state does
    bool bf16_state = false; ///< in bf16
    ssm::form form = form::chunked;
    index chunk = 0;
    stand stands{};
    range dt{0.0f, 0.5f}, A{-4.0f, -0.1f};
    std::uint64_t seed = 1;

    /// The same with everything that may be asked for.
    ssd_case with_all() const
    {
        ssd_case c = *this;
        c.D = c.z = c.bias = c.softplus = c.state = true;
        c.dt = {-5.0f, 1.0f};
        return c;
    }
    ssd_case as(ssm::form f, index of_chunk = 0) const
    {
        ssd_case c = *this;
        c.form = f, c.chunk = of_chunk;
        return c;
    }
};

inline std::ostream& operator<<(std::ostream& out, const ssd_case& c)
{
    out << "B " << c.batch << " L " << c.length << " H " << c.heads << " G " << c.groups << " P " << c.channels << " N "
        << c.states;
    const std::pair<bool, const char*> words[] = {{c.D, "D"},
                                                  {c.z, "z"},
                                                  {c.bias, "bias"},
                                                  {c.softplus, "softplus"},
                                                  {c.initial, "initial_state"},
                                                  {c.state, "state"},
                                                  {c.bf16_state, "bf16 state"}};
    for (const auto& [given, word] : words) {
        if (given) { out << ", " << word; }
    }
    const char* const form = c.form == form::recurrent ? "recurrent" : c.form == form::chunked ? "chunked" : "automatic";
    return out << ", " << form << ", chunk " << c.chunk << ", lie " << static_cast<int>(c.stands.how) << " of axes "
               << static_cast<int>(c.stands.order) << " skipping " << c.stands.skipped << ", dt " << c.dt.low << ".."
               << c.dt.high << ", A " << c.A.low << ".." << c.A.high << ", seed " << c.seed;
}

/// The operands.
template <class T, class Dt = T>
struct ssd_problem {
    ssd_case c;
    placed<T, 4> x, z, B, C;
    placed<Dt, 3> dt;
    placed<float, 1> A, D, bias;
    placed<float, 4> initial;
    std::vector<float> start; ///< what state holds when the call begins

    explicit ssd_problem(const ssd_case& the_case)
        : c(the_case), x(sequence(), c.stands), B(coefficients(), c.stands), C(coefficients(), c.stands),
          dt({c.batch, c.length, c.heads}, c.stands), A({c.heads}, c.stands)
    {
        random_source random(c.seed * 7919 + 13);
        const auto normal = [&] { return random.normal(); };
        x.fill(normal), B.fill(normal), C.fill(normal);
        dt.fill([&] { return random.uniform(c.dt.low, c.dt.high); });
        A.fill([&] { return random.uniform(c.A.low, c.A.high); });
        if (c.z) { (z = placed<T, 4>(sequence(), c.stands)).fill(normal); }
        if (c.D) { (D = placed<float, 1>({c.heads}, c.stands)).fill(normal); }
        if (c.bias) {
            (bias = placed<float, 1>({c.heads}, c.stands)).fill([&] { return random.unit(); });
        }
        if (c.initial) { (initial = placed<float, 4>(states(), c.stands)).fill(normal); }
        start = random.normals(static_cast<std::size_t>(c.batch * c.heads * c.channels * c.states));
    }

    std::array<index, 4> sequence() const { return {c.batch, c.length, c.heads, c.channels}; }
    std::array<index, 4> coefficients() const { return {c.batch, c.length, c.groups, c.states}; }
    std::array<index, 4> states() const { return {c.batch, c.heads, c.channels, c.states}; }
    sm::view<const float, 4> start_view() const
    {
        const index of_head = c.channels * c.states;
        return {start.data(), states(), {c.heads * of_head, of_head, c.states, 1}};
    }

    /// All but what is written: state.
    ssm::ssd_options<T> options() const
    {
        ssm::ssd_options<T> o;
        if (c.D) { o.D = D(); }
        if (c.z) { o.z = z(); }
        if (c.bias) { o.dt_bias = bias(); }
        if (c.initial) { o.initial_state = initial(); }
        o.softplus = c.softplus, o.form = c.form, o.chunk = c.chunk;
        return o;
    }
};

/// What a call writes, prepared for it.
template <class Out>
struct ssd_result {
    placed<Out, 4> out;
    placed<float, 4> state;
    placed<bf16, 4> narrow_state;

    template <class T, class Dt>
    explicit ssd_result(const ssd_problem<T, Dt>& p) : out(p.sequence(), p.c.stands)
    {
        if (p.c.state && p.c.bf16_state) { (narrow_state = placed<bf16, 4>(p.states(), p.c.stands)).copy(p.start_view()); }
        if (p.c.state && !p.c.bf16_state) { (state = placed<float, 4>(p.states(), p.c.stands)).copy(p.start_view()); }
    }
    template <class Options>
    void ask_in(Options& o) const
    {
        if (state.given()) { o.state = state(); }
        if (narrow_state.given()) { o.state = narrow_state(); }
    }
    friend bool operator==(const ssd_result& a, const ssd_result& b)
    {
        return same_bits(a.out(), b.out()) && same_bits(a.state(), b.state()) &&
               same_bits(a.narrow_state(), b.narrow_state());
    }
};

template <class T, class Dt, class Out>
void run(const ssd_problem<T, Dt>& p, ssd_result<Out>& r, const sm::context_ref& ctx = {})
{
    ssm::ssd_options<T> options = p.options();
    r.ask_in(options);
    run_ssd<T, Dt, Out>(p.x(), p.dt(), p.A(), p.B(), p.C(), r.out(), options, ctx);
}

struct step {
    double dt, error; ///< after bias and softplus
};
/// dt + bias is rounded once; softplus is off by 2.09 ulp and passes the sum's rounding on.
inline step step_of(const ssd_case& c, double dt, double bias)
{
    const double u = sm::unit_roundoff<float>, x = dt + bias, rounding = c.bias ? u * std::fabs(x) : 0.0;
    if (!c.softplus) { return {x, rounding}; }
    const double y = ssm::reference::softplus(x);
    return {y, 4.2 * u * y + rounding / (1.0 + std::exp(-x)) + 0x1p-147};
}

/// The error bound of one head, carried from token to token as the errors are; u = 2^-24.
///
/// Token by token: a decay is off by (4 + 2.3 |dt A|) u relatively, what enters by 2 u, the state by 1 u a token, the sum
/// over states by N u.
///
/// In chunks: a decay between two tokens is off by (4 + 2 |log decay|) u, and by 2^-46 and the roundings of a double of all
/// that is cumulated since the chunk began; below 2^-100 it may be 0. Sums are off by the number of their terms and 8 for
/// the factors, of their absolute values: N for scores and for what has been carried in, one for every token of the chunk
/// so far. All of this from `gross`, the sum of absolute values since the chunk began. Products of bf16 round the weights
/// or the state (2^-8 of all gross) for outputs, inputs (2^-8 of what the chunk has brought) for the state; and a pair's
/// sum and its addition may be rounded to odd, 2 u each.
///
/// Where the chunk is anybody's choice, every token is counted as if it were one, and gross begins with the sequence.
class ssd_bound {
public:
    static constexpr double u = sm::unit_roundoff<float>;

    ssd_bound(const ssd_case& c, bool bf16_products, const std::vector<double>& start)
        : states_(static_cast<std::size_t>(c.states)), chunk_(c.chunk), recurrent_(c.form == form::recurrent),
          any_chunk_(c.form == form::automatic || c.chunk == 0), narrow_(bf16_products && c.form != form::recurrent),
          tiny_(narrow_ ? 0x1p-126 : 0x1p-149), entries_(start.size()), error_(start.size())
    {
    }

    /// After a token that turned the states `before` into `after`: how far the sums over states may be off, in y_error.
    void advance(const step& dt, double A, const std::vector<double>& x, const std::vector<double>& B,
                 const std::vector<double>& C, const std::vector<double>& before, const std::vector<double>& after,
                 std::vector<double>& y_error)
    {
        y_error.assign(x.size(), 0.0);
        recurrent_ ? advance_token(dt, A, x, B, C, before, after, y_error) : advance_chunk(dt, A, x, B, C, before, y_error);
    }
    const std::vector<double>& errors() const { return error_; }

private:
    void advance_token(const step& dt, double A, const std::vector<double>& x, const std::vector<double>& B,
                       const std::vector<double>& C, const std::vector<double>& before, const std::vector<double>& after,
                       std::vector<double>& y_error)
    {
        const double power = std::fabs(dt.dt * A), keep = std::exp(dt.dt * A);
        const double relative = (4.0 + 2.3 * power) * u + std::fabs(A) * dt.error;
        const double wrong =
            (relative < 1.0 ? keep * relative * (1.0 + relative) : std::exp(dt.dt * A + relative)) + 4.0 * tiny_;
        for (std::size_t p = 0; p < x.size(); ++p) {
            double carried = 0.0, sum = 0.0;
            for (std::size_t n = 0; n < states_; ++n) {
                const std::size_t i = p * states_ + n;
                const double input = std::fabs(x[p] * B[n]);
                const double enters =
                    2.0 * u * std::fabs(dt.dt) * input + dt.error * input + (std::fabs(B[n]) + 1.0) * tiny_;
                const double passed = keep * error_[i] + wrong * (std::fabs(before[i]) + error_[i]) + enters + tiny_;
                error_[i] = passed + u * (std::fabs(after[i]) + passed);
                carried += std::fabs(C[n]) * error_[i], sum += std::fabs(C[n]) * (std::fabs(after[i]) + error_[i]);
            }
            y_error[p] = carried + static_cast<double>(states_ + 1) * (u * (sum + carried) + tiny_);
        }
    }

    struct entry {
        double gross = 0.0;     ///< absolute values of all that the state is a sum of, decayed
        double inside = 0.0;    ///< the same without what has been carried in
        double undecayed = 0.0; ///< gross, had nothing decayed
        double carried = 0.0;   ///< the error that has been carried in, decayed
        double weighted = 0.0;  ///< gross times the relative error of its steps and of the logarithms of its decays
        double small = 0.0;     ///< what a smallest number may be multiplied by
    };

    void advance_chunk(const step& dt, double A, const std::vector<double>& x, const std::vector<double>& B,
                       const std::vector<double>& C, const std::vector<double>& before, std::vector<double>& y_error)
    {
        if (tokens_ == 0 || (!any_chunk_ && tokens_ == chunk_)) {
            for (std::size_t i = 0; i < entries_.size(); ++i) {
                const double size = std::fabs(before[i]) + error_[i];
                entries_[i] = {size, 0.0, size, error_[i], 0.0, 1.0 + size};
            }
            tokens_ = 0, cumulated_ = 0.0;
        }
        ++tokens_;
        const double power = std::fabs(dt.dt * A), keep = std::exp(dt.dt * A), q = static_cast<double>(tokens_),
                     N = static_cast<double>(states_);
        cumulated_ += power;
        const double of_log = (any_chunk_ ? 2.3 : 2.0) * power * u + std::fabs(A) * dt.error;
        const double chunks = any_chunk_ ? q : 1.0; // that may have passed
        const double decay = chunks * (4.0 * u + (0x1p-46 + q * 0x1p-53) * cumulated_);
        const double pair = narrow_ ? 2.0 : 1.0, second_order = narrow_ ? 1.0 + 0x1p-6 : 1.0 + 0x1p-12;
        const double of_state = (pair * q + 8.0 * chunks) * u + decay, of_output = of_state + pair * N * u;
        const double rounded = narrow_ ? sm::unit_roundoff<bf16> : 0.0, forgotten = chunks * 0x1p-100;
        for (std::size_t p = 0; p < x.size(); ++p) {
            for (std::size_t n = 0; n < states_; ++n) {
                const std::size_t i = p * states_ + n;
                entry& e = entries_[i];
                const double input = std::fabs(x[p] * B[n]), enters = std::fabs(dt.dt) * input;
                e.weighted = keep * (e.weighted + e.gross * of_log) + dt.error * input;
                e.gross = keep * e.gross + enters, e.inside = keep * e.inside + enters, e.undecayed += enters,
                e.carried *= keep;
                e.small += (1.0 + std::fabs(x[p])) * (1.0 + std::fabs(B[n])) * (1.0 + std::fabs(dt.dt));
                const double both = e.carried + e.weighted + forgotten * e.undecayed + 4.0 * tiny_ * e.small;
                error_[i] = second_order * (both + of_state * e.gross + rounded * e.inside);
                const double outputs_see = both + (of_output + (any_chunk_ ? 2.0 : 1.0) * rounded) * e.gross;
                y_error[p] += second_order * (std::fabs(C[n]) * outputs_see + 4.0 * tiny_ * e.small);
            }
        }
    }

    std::size_t states_;
    index chunk_, tokens_ = 0;
    bool recurrent_, any_chunk_, narrow_;
    double tiny_, cumulated_ = 0.0;
    std::vector<entry> entries_;
    std::vector<double> error_;
};

/// What is wanted, and how far a result may be from it; all in logical order.
struct expectation {
    std::vector<double> out, out_tolerance, state, state_tolerance;
};

/// What D, z and the rounding to Out make of a sum over states and of its error.
template <class Out>
void finish_expectation(double& y, double& error, const double* D_x, const double* z)
{
    constexpr double u = sm::unit_roundoff<float>;
    if (D_x != nullptr) { error += u * (std::fabs(y) + error) + 0x1p-149; } // y is with D x already
    if (z != nullptr) { // silu is off by 3.35 ulp, and the product is rounded
        const double gate = ssm::reference::silu(*z), size = std::fabs(gate);
        error = error * size + (std::fabs(y) + error) * (7.7 * u * size + 0x1p-147) + 0x1p-149;
        y *= gate;
    }
    if (!std::is_same_v<Out, float>) {
        error += sm::unit_roundoff<Out> * (std::fabs(y) + error) + half_smallest<Out>;
    }
}

template <class T>
std::vector<double> doubles(const sm::view<const T, 1>& from)
{
    std::vector<double> to;
    for (index i = 0; i < from.extent(0); ++i) { to.push_back(widened(from(i))); }
    return to;
}

template <class Out, class T, class Dt>
expectation expect(const ssd_problem<T, Dt>& p)
{
    const ssd_case& c = p.c;
    expectation e;
    e.out.resize(static_cast<std::size_t>(c.batch * c.length * c.heads * c.channels)), e.out_tolerance = e.out;
    for (index b = 0; b < c.batch; ++b) {
        for (index head = 0; head < c.heads; ++head) {
            const index group = head / (c.heads / c.groups);
            const sm::view<const T, 2> x = p.x()[b].select(1, head), B = p.B()[b].select(1, group),
                                       C = p.C()[b].select(1, group);
            const double A = widened(p.A()(head)), D = c.D ? widened(p.D()(head)) : 0.0,
                         bias = c.bias ? widened(p.bias()(head)) : 0.0;
            std::vector<double> h;
            for (index channel = 0; channel < c.channels; ++channel) {
                for (index n = 0; n < c.states; ++n) {
                    const float started = p.start_view()(b, head, channel, n);
                    h.push_back(c.initial ? widened(p.initial()(b, head, channel, n))
                                : c.state ? (c.bf16_state ? widened(bf16(started)) : widened(started))
                                          : 0.0);
                }
            }
            ssd_bound bound(c, narrow_products<T>, h);
            std::vector<double> errors;
            for (index t = 0; t < c.length; ++t) {
                const step now = step_of(c, widened(p.dt()(b, t, head)), bias);
                const std::vector<double> before = h;
                const auto token = [t](const auto& v) { return v.slice(0, t, t + 1); };
                std::vector<double> y = ssm::reference::ssd<T>(token(x), {now.dt}, A, token(B), token(C), D, {}, h);
                bound.advance(now, A, doubles<T>(x[t]), doubles<T>(B[t]), doubles<T>(C[t]), before, h, errors);
                for (index channel = 0; channel < c.channels; ++channel) {
                    const auto i = static_cast<std::size_t>(channel);
                    const double skipped = D * widened(x(t, channel)), z = c.z ? widened(p.z()(b, t, head, channel)) : 0.0;
                    finish_expectation<Out>(y[i], errors[i], c.D ? &skipped : nullptr, c.z ? &z : nullptr);
                    const auto to = static_cast<std::size_t>(((b * c.length + t) * c.heads + head) * c.channels + channel);
                    e.out[to] = y[i], e.out_tolerance[to] = errors[i];
                }
            }
            for (std::size_t i = 0; i < h.size(); ++i) {
                double error = bound.errors()[i];
                if (c.bf16_state && c.length > 0) {
                    error += sm::unit_roundoff<bf16> * (std::fabs(h[i]) + error) + half_smallest<bf16>;
                }
                e.state.push_back(h[i]), e.state_tolerance.push_back(error);
            }
        }
    }
    return e;
}

template <class T>
inline error_record largest_error{type_name<T>};

/// Compares all that a call has written with the reference.
template <class T, class Dt, class Out>
void check_result(const ssd_problem<T, Dt>& p, const ssd_result<Out>& r)
{
    const ssd_case& c = p.c;
    const expectation want = expect<Out>(p);
    std::ostringstream place;
    place << c;
    const worst_error out = worst_in_tolerances(r.out(), want.out, want.out_tolerance);
    worst_error state;
    if (r.state.given()) { state = worst_in_tolerances(r.state(), want.state, want.state_tolerance); }
    if (r.narrow_state.given()) {
        state = worst_in_tolerances(r.narrow_state(), want.state, want.state_tolerance);
    }
    INFO(type_name<T> << ", dt " << type_name<Dt> << ", out " << type_name<Out> << " on " << test_arch::name << ", "
                      << place.str());
    if (out.at >= 0) {
        INFO("out of batch item " << out.at / c.channels / c.heads / c.length << ", token "
                                  << out.at / c.channels / c.heads % c.length << ", head " << out.at / c.channels % c.heads
                                  << ", channel " << out.at % c.channels);
        INFO(out << ", in units of " << want.out_tolerance[static_cast<std::size_t>(out.at)]);
        CHECK(out.error <= 1.0);
    }
    INFO("state: " << state);
    CHECK(state.error <= 1.0);
    CHECK(r.out.written_exactly());
    CHECK((r.state.written_exactly() && r.narrow_state.written_exactly()));
    // The rounding of a narrow result, which comes near to its bound easily, would hide everything else.
    if (std::is_same_v<Out, float> && !c.bf16_state) {
        largest_error<T>.see(std::max(out.error, state.error), place.str());
    }
}

template <class T, class Dt = T, class Out = T>
void check_case(const ssd_case& c)
{
    const ssd_problem<T, Dt> p(c);
    ssd_result<Out> r(p);
    run(p, r);
    check_result(p, r);
}

inline void check_all_types(const ssd_case& c)
{
    check_case<float>(c);
    check_case<bf16>(c);
    check_case<f16>(c);
}

} // namespace ssd_test
