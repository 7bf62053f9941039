// SPDX-License-Identifier: MIT
// Test-time training with large chunks: against its definition; what must be equal to what, bit for bit; memory, and what NaN reaches.
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/laid_out.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/scratch.hpp"
#include "support/tolerances.hpp"

#include <seqmix/linear/test_time_training.hpp>
#include <seqmix/linear/test_time_training_reference.hpp>

#include <sstream>

namespace test_time_training_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
namespace reference = seqmix::linear::reference;
using namespace test_support;
using linear::linear_network;
using linear::swiglu_network;
using linear::update_order;
using sm::bf16;
using sm::f16;
using sm::index;

inline constexpr index lanes = sm::simd::lanes<test_arch>;

namespace {

/// A number and how far the kernel's may be from it: every operation adds its own rounding to what it was given. `size` is the
/// sum of absolute values of what was added up, whatever the order; each addition costs 2 u of it, which bounds any order of n terms of
/// like sizes by n u.
struct bounded {
    static constexpr double u = sm::unit_roundoff<float>, tiny = 0x1p-149;
    static inline double of_operands = 0.0; ///< what rounding the operands of products costs, relative

    double value = 0.0, error = 0.0, size = 0.0;

    bounded() = default;
    explicit bounded(double x) : value(x), size(std::fabs(x)) {}
    bounded(double x, double e, double s) : value(x), error(e), size(s) {}

    double most() const { return std::fabs(value) + error; }
    friend bounded operator+(const bounded& a, const bounded& b)
    {
        const double terms = a.size + b.size;
        return {a.value + b.value, a.error + b.error + 2.0 * u * terms + tiny, terms};
    }
    friend bounded operator-(const bounded& a, const bounded& b) { return a + bounded(-b.value, b.error, b.size); }
    friend bounded operator*(const bounded& a, const bounded& b)
    {
        const double term = a.most() * b.most(), passed = std::fabs(a.value) * b.error + a.error * b.most();
        return {a.value * b.value, passed + (2.0 * u + of_operands) * term + tiny, term};
    }
    friend bounded operator/(const bounded& a, const bounded& b)
    {
        const double x = a.value / b.value, least = std::max(0.0, std::fabs(b.value) - b.error);
        return alone(x, (a.error + std::fabs(x) * b.error) / least + 4.0 * u * std::fabs(x) + tiny);
    }
    friend bounded sqrt(const bounded& a)
    {
        const double least = std::sqrt(std::max(0.0, a.value - a.error));
        return alone(std::sqrt(a.value), std::sqrt(a.value + a.error) * (1.0 + 2.0 * u) - least + tiny);
    }
    friend bounded exp(const bounded& a)
    {
        const double x = std::exp(a.value);
        return alone(x, x * std::expm1(a.error + 8.0 * u) + tiny);
    }

private:
    static bounded alone(double x, double e) { return {x, e, std::fabs(x) + e}; }
};

template <class Network>
inline constexpr index matrix_count = std::is_same_v<Network, linear_network> ? 1 : 3;

/// The n-th matrix.
template <class Matrices>
auto& nth(Matrices& m, index n)
{
    if constexpr (requires { m.w; }) {
        static_cast<void>(n);
        return m.w;
    } else {
        return n == 0 ? m.w0 : n == 1 ? m.w1 : m.w2;
    }
}

struct training_case {
    index batch = 1, heads = 1, length = 1, keys = 1, values = 1, hidden = 1, chunk = 1;
    bool update_first = false, normalize = true, momentum = false;
    bool velocity = false; ///< kept and begun with
    bool initial = false;  ///< initial weights, shared by all batch items
    bool norms_of = false; ///< norms of weights that are not the first
    float weights = 0.5f, rates = 0.05f;
    lie stands = lie::last;
    std::uint64_t seed = 1;
};

std::ostream& operator<<(std::ostream& out, const training_case& c)
{
    return out << "B " << c.batch << " L " << c.length << " heads " << c.heads << " D " << c.keys << " V " << c.values << " H " << c.hidden
               << " chunk " << c.chunk << (c.update_first ? ", update first" : "") << (c.normalize ? ", normalize" : "")
               << (c.momentum ? ", momentum" : "") << (c.velocity ? ", velocity" : "") << (c.initial ? ", initial weights" : "")
               << (c.norms_of ? ", norms_of" : "") << ", weights " << c.weights << ", rates " << c.rates << ", lie " << static_cast<int>(c.stands)
               << ", seed " << c.seed;
}

/// Operands of tokens lie as [B, heads, size, L] or [B, heads, L], so that time is their last axis, and are turned for the door.
template <class T>
sm::view<T, 4> for_door(const sm::view<T, 4>& v)
{
    return v.transposed(1, 3).transposed(2, 3);
}
template <class T>
sm::view<T, 3> for_door(const sm::view<T, 3>& v)
{
    return v.transposed(1, 2);
}

template <class Network, class T>
struct training_problem {
    static constexpr index count = matrix_count<Network>;

    training_case c;
    laid_out<T, 4> q, k, v;
    laid_out<float, 3> rate[count], momentum;
    std::vector<laid_out<float, 4>> initial, norms_of;
    std::vector<std::vector<float>> start, velocity; ///< [B, heads, rows, columns]

    explicit training_problem(const training_case& the_case)
        : c(the_case), q({c.batch, c.heads, c.keys, c.length}, c.stands), k({c.batch, c.heads, c.keys, c.length}, c.stands),
          v({c.batch, c.heads, c.values, c.length}, c.stands)
    {
        random_source random(c.seed * 7919 + 5);
        // Keys, queries and values of about unit length, as layers give them: bounds stay small from chunk to chunk.
        const auto unit = [&](index size) {
            return [&random, by = 1.0f / std::sqrt(static_cast<float>(std::max(size, index{1})))] { return by * random.normal(); };
        };
        const auto weight = [&] { return c.weights * random.normal(); };
        q.fill(unit(c.keys)), k.fill(unit(c.keys)), v.fill(unit(c.values));
        for (laid_out<float, 3>& r : rate) {
            (r = laid_out<float, 3>({c.batch, c.heads, c.length}, c.stands)).fill([&] { return c.rates * random.uniform(-0.2f, 1.0f); });
        }
        if (c.momentum) { (momentum = laid_out<float, 3>({c.batch, c.heads, c.length}, c.stands)).fill([&] { return random.uniform(0.2f, 0.9f); }); }
        for (index n = 0; n < count; ++n) {
            const auto size = static_cast<std::size_t>(c.batch * c.heads * rows(n) * columns(n));
            start.push_back(random.normals(size, c.weights)), velocity.push_back(random.normals(size, c.rates));
            if (c.initial) { initial.emplace_back(std::array<index, 4>{1, c.heads, rows(n), columns(n)}, c.stands), initial.back().fill(weight); }
            if (c.norms_of) { norms_of.emplace_back(shape(n), c.stands), norms_of.back().fill(weight); }
        }
    }

    index rows(index n) const { return count == 1 || n == 1 ? c.values : c.hidden; }
    index columns(index n) const { return n == 1 ? c.hidden : c.keys; }
    std::array<index, 4> shape(index n) const { return {c.batch, c.heads, rows(n), columns(n)}; }
    sm::view<const float, 4> given(const std::vector<std::vector<float>>& of, index n) const
    {
        return {of[static_cast<std::size_t>(n)].data(), {c.batch, c.heads, rows(n), columns(n)}};
    }
    sm::view<const float, 4> initial_view(index n) const
    {
        const sm::view<float, 4>& v4 = initial[static_cast<std::size_t>(n)]();
        return {v4.data(), shape(n), {0, v4.stride(1), v4.stride(2), v4.stride(3)}};
    }

    linear::training_inputs<Network> inputs() const
    {
        linear::training_inputs<Network> in;
        for (index n = 0; n < count; ++n) { nth(in.rate, n) = for_door(rate[n]()); }
        if (c.momentum) { in.momentum = for_door(momentum()); }
        return in;
    }
    linear::training_options<Network> options() const
    {
        linear::training_options<Network> o;
        o.chunk = c.chunk, o.normalize = c.normalize;
        o.order = c.update_first ? update_order::update_then_apply : update_order::apply_then_update;
        for (index n = 0; n < count; ++n) {
            if (c.initial) { nth(o.initial_weights, n) = initial_view(n); }
            if (c.norms_of) { nth(o.norms_of, n) = norms_of[static_cast<std::size_t>(n)](); }
        }
        return o;
    }
};

template <class Network, class Out>
struct training_result {
    static constexpr index count = matrix_count<Network>;
    laid_out<Out, 4> out;
    laid_out<float, 4> weights[count], velocity[count];

    template <class T>
    explicit training_result(const training_problem<Network, T>& p) : out({p.c.batch, p.c.heads, p.c.values, p.c.length}, p.c.stands)
    {
        for (index n = 0; n < count; ++n) {
            (weights[n] = laid_out<float, 4>(p.shape(n), p.c.stands)).copy(p.given(p.start, n));
            if (p.c.velocity) { (velocity[n] = laid_out<float, 4>(p.shape(n), p.c.stands)).copy(p.given(p.velocity, n)); }
        }
    }
    void ask_in(linear::training_options<Network>& o) const
    {
        for (index n = 0; n < count; ++n) {
            nth(o.weights, n) = weights[n]();
            if (velocity[n]()) { nth(o.velocity, n) = velocity[n](); }
        }
    }
    bool written_exactly() const
    {
        bool all = out.written_exactly();
        for (index n = 0; n < count; ++n) { all = all && weights[n].written_exactly() && velocity[n].written_exactly(); }
        return all;
    }
    friend bool operator==(const training_result& a, const training_result& b)
    {
        bool same = same_bits(a.out(), b.out());
        for (index n = 0; n < count; ++n) {
            same = same && same_bits(a.weights[n](), b.weights[n]()) && same_bits(a.velocity[n](), b.velocity[n]());
        }
        return same;
    }
};

template <class Network, class T, class Out>
void run(const training_problem<Network, T>& p, training_result<Network, Out>& r, const sm::context_ref& ctx = {})
{
    linear::training_options<Network> o = p.options();
    r.ask_in(o);
    linear::test_time_training<Network, test_arch>(for_door(p.q()), for_door(p.k()), for_door(p.v()), p.inputs(), for_door(r.out()), o, ctx);
}

template <class View>
std::vector<double> doubles(const View& v)
{
    std::vector<double> all;
    for_each(v, [&](const auto& x, auto...) { all.push_back(as_double(x)); });
    return all;
}

template <class Matrix>
reference::fast_matrix<bounded> bounded_matrix(const Matrix& m)
{
    reference::fast_matrix<bounded> to(m.extent(0), m.extent(1));
    std::size_t i = 0;
    for_each(m, [&](const auto& x, auto...) { to.at[i++] = bounded(as_double(x)); });
    return to;
}

error_record largest_error{"f32"};

/// The worst error in tolerances, and the largest tolerance over the largest number: one that says nothing is found out.
struct judged {
    worst_error worst;
    double loosest = 0.0;

    template <class T>
    void see(const std::vector<T>& got, const std::vector<bounded>& want)
    {
        std::vector<double> values, tolerances;
        double largest = 0.0, size = 0.0;
        for (const bounded& x : want) {
            double error = x.error;
            if (!std::is_same_v<T, float>) { error += sm::unit_roundoff<T> * x.most() + half_smallest<T>; }
            values.push_back(x.value), tolerances.push_back(error);
            largest = std::max(largest, std::isfinite(error) ? error : static_cast<double>(infinity)), size = std::max(size, std::fabs(x.value));
        }
        const worst_error w = worst_in_tolerances(sm::view<const T, 1>(got.data(), {got.size()}), values, tolerances);
        worst.see(w.error, w.at, w.got, w.want);
        if (size > 0.0) { loosest = std::max(loosest, largest / size); }
    }
};

/// The elements of a view as a list.
template <class T, std::size_t Rank>
std::vector<T> listed(const sm::view<T, Rank>& v)
{
    std::vector<T> all;
    for_each(v, [&](const T& x, auto...) { all.push_back(x); });
    return all;
}

template <class Network, class T, class Out>
void check_result(const training_problem<Network, T>& p, const training_result<Network, Out>& r)
{
    const training_case& c = p.c;
    constexpr bool narrow = std::is_same_v<sm::tile::compute_element<test_arch, T>, bf16>;
    bounded::of_operands = narrow ? 0x1.02p-8 : 0.0;
    judged of_out, of_weights, of_velocity;
    for (index b = 0; b < c.batch; ++b) {
        for (index h = 0; h < c.heads; ++h) {
            const auto tokens = [&](const auto& v) { return doubles(for_door(v())[b].select(1, h)); };
            const std::vector<double> q = tokens(p.q), k = tokens(p.k), v = tokens(p.v), momentum = c.momentum ? tokens(p.momentum) : q;
            std::vector<std::vector<double>> rates;
            reference::training in{.q = {q.data(), {c.length, c.keys}}, .k = {k.data(), {c.length, c.keys}}, .v = {v.data(), {c.length, c.values}},
                                   .rate = {}, .momentum = {}, .chunk = c.chunk, .update_first = c.update_first, .normalize = c.normalize};
            if (c.momentum) { in.momentum = {momentum.data(), {c.length}}; }
            std::vector<reference::fast_matrix<bounded>> W, M, norms_of;
            for (index n = 0; n < p.count; ++n) { rates.push_back(tokens(p.rate[n])); }
            for (index n = 0; n < p.count; ++n) {
                in.rate.push_back({rates[static_cast<std::size_t>(n)].data(), {c.length}});
                W.push_back(bounded_matrix((c.initial ? p.initial_view(n) : p.given(p.start, n))[b][h]));
                M.push_back(c.velocity ? bounded_matrix(p.given(p.velocity, n)[b][h]) : reference::fast_matrix<bounded>(p.rows(n), p.columns(n)));
                norms_of.push_back(c.norms_of ? bounded_matrix(p.norms_of[static_cast<std::size_t>(n)]()[b][h]) : W.back());
            }
            const std::vector<bounded> out = reference::test_time_training(in, W, M, norms_of);
            of_out.see(listed(for_door(r.out())[b].select(1, h)), out);
            for (index n = 0; n < p.count && c.length > 0; ++n) {
                of_weights.see(listed(r.weights[n]()[b][h]), W[static_cast<std::size_t>(n)].at);
                if (c.velocity) { of_velocity.see(listed(r.velocity[n]()[b][h]), M[static_cast<std::size_t>(n)].at); }
            }
        }
    }
    std::ostringstream place;
    place << (p.count == 1 ? "linear, " : "swiglu, ") << c;
    INFO(type_name<T> << ", out " << type_name<Out> << " on " << test_arch::name << ", " << place.str());
    INFO("in tolerances, out: " << of_out.worst << "; weights: " << of_weights.worst << "; velocity: " << of_velocity.worst);
    CHECK(of_out.worst.error <= 1.0);
    CHECK(of_weights.worst.error <= 1.0);
    CHECK(of_velocity.worst.error <= 1.0);
    const double loosest = std::max({of_out.loosest, of_weights.loosest, of_velocity.loosest});
    CHECK(loosest <= (narrow ? 0.5 : 0.02));
    CHECK(r.written_exactly());
    if (!narrow && std::is_same_v<Out, float>) {
        largest_error.see(std::max({of_out.worst.error, of_weights.worst.error, of_velocity.worst.error}), place.str());
    }
}

template <class Network, class T = float, class Out = T>
void check_case(const training_case& c)
{
    const training_problem<Network, T> p(c);
    training_result<Network, Out> r(p);
    run(p, r);
    check_result(p, r);
}
void check_both(const training_case& c) { check_case<linear_network>(c), check_case<swiglu_network>(c); }

} // namespace

TEST_CASE("test_time_training: every shape")
{
    for (const index keys : {1, 7, 60, 64, 100}) {
        for (const index values : {1, 7, 49, 64, 100}) {
            training_case c{.length = 21, .keys = keys, .values = values, .hidden = (3 * keys + values) % 101 + 1, .chunk = 8};
            c.seed = static_cast<std::uint64_t>(keys * 1000 + values), c.update_first = (keys + values) % 2 == 1, c.momentum = values > 7;
            check_both(c);
        }
    }
    for (const index hidden : {index{1}, lanes - 1, lanes, lanes + 1, 2 * lanes + 1, 3 * lanes - 1, 3 * lanes, 3 * lanes + 1, 7 * lanes + 2}) {
        check_case<swiglu_network>({.length = 11, .keys = 5, .values = 6, .hidden = hidden, .chunk = 4, .velocity = false});
        check_case<linear_network>({.length = 11, .keys = 5, .values = hidden, .chunk = 4});
    }
}

TEST_CASE("test_time_training: every length of sequences and chunks")
{
    for (const index length : {1, 2, 8, 9, 63, 300, 600}) {
        for (const index chunk : {1, 7, 40, 299, 512, 1000}) {
            if (length > 5 * chunk) { continue; } // bounds grow with every chunk
            training_case c{.length = length, .keys = 9, .values = 5, .hidden = 6, .chunk = chunk, .update_first = chunk % 2 == 1, .momentum = true};
            c.rates = 1.0f / static_cast<float>(std::min(length, chunk)) / 8.0f;
            check_both(c);
        }
    }
}

TEST_CASE("test_time_training: every choice")
{
    for (int bits = 0; bits < 64; ++bits) {
        const auto bit = [&](int n) { return (bits >> n & 1) != 0; };
        training_case c{.batch = 2,
                        .heads = 2,
                        .length = 20,
                        .keys = 10,
                        .values = 6,
                        .hidden = 7,
                        .chunk = 6,
                        .update_first = bit(0),
                        .normalize = bit(1),
                        .momentum = bit(2),
                        .velocity = bit(3),
                        .initial = bit(4),
                        .norms_of = bit(5)};
        if ((c.velocity && !c.momentum) || (c.norms_of && !c.normalize)) { continue; }
        c.seed = static_cast<std::uint64_t>(bits + 1);
        check_both(c);
        c.weights = 0.003f; // where what is added to norms counts
        check_both(c);
    }
}

TEST_CASE("test_time_training: every layout and type")
{
    for (const lie stands : all_lies) {
        training_case c{.batch = 2, .heads = 3, .length = 23, .keys = 19, .values = 21, .hidden = 18, .chunk = 9, .momentum = true, .velocity = true,
                        .initial = true, .norms_of = true, .stands = stands};
        check_both(c);
        check_case<swiglu_network, f16, float>(c);
        check_case<linear_network, f16>(c);
        c.chunk = 14, c.weights = 0.2f, c.rates = 0.01f; // bounds that bf16's roundings leave something of
        check_case<swiglu_network, bf16>(c);
        check_case<linear_network, bf16, float>(c);
    }
}

TEST_CASE("test_time_training: strong gates")
{
    for (const float weights : {3.0f, 40.0f}) {
        training_case c{.length = 12, .keys = 12, .values = 5, .hidden = 20, .chunk = 12, .normalize = false};
        c.weights = weights, c.rates = 1e-3f;
        check_case<swiglu_network>(c);
        c.normalize = c.update_first = true;
        check_case<swiglu_network>(c);
    }
}

TEST_CASE("test_time_training: sizes of zero")
{
    for (int axis = 0; axis < 6; ++axis) {
        training_case c{.batch = 2, .heads = 2, .length = 5, .keys = 3, .values = 4, .hidden = 6, .chunk = 2, .momentum = true, .velocity = true};
        (axis == 0 ? c.batch : axis == 1 ? c.heads : axis == 2 ? c.length : axis == 3 ? c.keys : axis == 4 ? c.values : c.hidden) = 0;
        check_both(c);
    }
    // Without tokens weights stay as they are.
    const training_problem<swiglu_network, float> p({.batch = 2, .length = 0, .keys = 3, .values = 4, .hidden = 6, .chunk = 2, .initial = true});
    training_result<swiglu_network, float> r(p), as_made(p);
    run(p, r);
    CHECK(r == as_made);
}

namespace {

template <class Network, class T>
void check_threads(const training_case& c)
{
    const training_problem<Network, T> p(c);
    training_result<Network, T> one(p);
    run(p, one);
    for (const int threads : {1, 2, 3, 8}) {
        training_result<Network, T> many(p);
        sm::context ctx{sm::parallel_for{threads, on_threads{}}};
        run(p, many, ctx);
        INFO(threads << " threads, " << c);
        CHECK(many == one);
    }
}

} // namespace

TEST_CASE("test_time_training: the same bits for every number of threads")
{
    for (const index heads : {1, 2, 5}) {
        training_case c{.heads = heads,
                        .length = 700,
                        .keys = 20,
                        .values = 17 * lanes,
                        .hidden = 13 * lanes,
                        .chunk = 400,
                        .update_first = heads == 2,
                        .momentum = true,
                        .velocity = true,
                        .rates = 1e-3f};
        if (!thorough) { c.length = 150, c.chunk = 100; }
        check_threads<linear_network, float>(c);
        check_threads<swiglu_network, float>(c);
        check_threads<swiglu_network, bf16>(c);
    }
}

TEST_CASE("test_time_training: the same bits for every batch")
{
    training_case c{.batch = 3, .heads = 2, .length = 30, .keys = 20, .values = 17, .hidden = 40, .chunk = 12, .momentum = true};
    const training_problem<swiglu_network, float> p(c);
    training_result<swiglu_network, float> all(p), one(p);
    run(p, all);
    linear::training_options<swiglu_network> o = p.options();
    one.ask_in(o);
    for (index b = 0; b < c.batch; ++b) {
        const auto item = [&](const auto& v) { return v.slice(0, b, b + 1); };
        linear::training_inputs<swiglu_network> in = p.inputs();
        in.momentum = item(in.momentum);
        linear::training_options<swiglu_network> part = o;
        for (index n = 0; n < 3; ++n) { nth(in.rate, n) = item(nth(in.rate, n)), nth(part.weights, n) = item(nth(o.weights, n)); }
        linear::test_time_training<swiglu_network, test_arch>(item(for_door(p.q())), item(for_door(p.k())), item(for_door(p.v())), in,
                                                              item(for_door(one.out())), part);
    }
    CHECK(one == all);
}

TEST_CASE("test_time_training: packed sequences have the bits of each alone")
{
    const training_case c{.length = 40, .keys = 10, .values = 7, .hidden = 20, .chunk = 9, .momentum = true, .velocity = true};
    const std::vector<index> offsets{0, 13, 13, 40};
    const training_problem<swiglu_network, float> p(c);
    laid_out<float, 4> packed_weights[3], alone_weights[3];
    laid_out<float, 3> packed_out({40, 1, 7}, lie::first), alone_out({40, 1, 7}, lie::first);
    linear::training_options<swiglu_network> o = p.options();
    linear::training_inputs<swiglu_network, 2> in;
    in.momentum = for_door(p.momentum())[0];
    for (index n = 0; n < 3; ++n) {
        nth(in.rate, n) = for_door(p.rate[n]())[0];
        for (laid_out<float, 4>* weights : {packed_weights, alone_weights}) {
            weights[n] = laid_out<float, 4>({3, 1, p.rows(n), p.columns(n)}, lie::last);
            for (index item = 0; item < 3; ++item) {
                for_each(weights[n]()[item], [&](float& x, auto... at) { x = p.given(p.start, n)[0](at...) * static_cast<float>(item + 1); });
            }
        }
        nth(o.weights, n) = packed_weights[n]();
    }
    linear::test_time_training_packed<swiglu_network, test_arch>(for_door(p.q())[0], for_door(p.k())[0], for_door(p.v())[0], in, packed_out(),
                                                                 {offsets.data(), {offsets.size()}}, o);
    for (index item = 0; item < 3; ++item) {
        const auto part = [&](const auto& v) {
            return v.slice(1, offsets[static_cast<std::size_t>(item)], offsets[static_cast<std::size_t>(item + 1)]);
        };
        linear::training_inputs<swiglu_network> one;
        one.momentum = part(for_door(p.momentum()));
        for (index n = 0; n < 3; ++n) {
            nth(one.rate, n) = part(for_door(p.rate[n]()));
            nth(o.weights, n) = alone_weights[n]().slice(0, item, item + 1);
        }
        linear::test_time_training<swiglu_network, test_arch>(part(for_door(p.q())), part(for_door(p.k())), part(for_door(p.v())), one,
                                                              part(sm::with_leading_axis(alone_out())), o);
    }
    CHECK(same_bits(packed_out(), alone_out()));
    for (index n = 0; n < 3; ++n) { CHECK(same_bits(packed_weights[n](), alone_weights[n]())); }
}

namespace {

template <class Network>
void check_cuts(training_case c)
{
    c.velocity = c.momentum;
    const training_problem<Network, float> p(c);
    training_result<Network, float> whole(p);
    run(p, whole);
    for (const index chunks : {1, 2}) {
        training_result<Network, float> parts(p);
        for (index from = 0; from < c.length; from += chunks * c.chunk) {
            const auto part = [&](const auto& v) { return for_door(v).slice(1, from, std::min(from + chunks * c.chunk, c.length)); };
            linear::training_options<Network> o = p.options();
            parts.ask_in(o);
            linear::training_inputs<Network> in;
            for (index n = 0; n < p.count; ++n) {
                nth(in.rate, n) = part(p.rate[n]());
                if (c.normalize) { nth(o.norms_of, n) = c.initial ? p.initial_view(n) : p.given(p.start, n); }
                if (from > 0) { nth(o.initial_weights, n) = {}; }
            }
            if (c.momentum) { in.momentum = part(p.momentum()); }
            linear::test_time_training<Network, test_arch>(part(p.q()), part(p.k()), part(p.v()), in, part(parts.out()), o);
        }
        INFO(chunks << " chunks a part, " << c);
        CHECK(parts == whole);
    }
}

} // namespace

TEST_CASE("test_time_training: parts that end with their chunks have the bits of the whole")
{
    for (int bits = 0; bits < 16; ++bits) {
        const auto bit = [&](int n) { return (bits >> n & 1) != 0; };
        const training_case c{.batch = 2,
                              .length = 40,
                              .keys = 18,
                              .values = 20,
                              .hidden = 50,
                              .chunk = 9,
                              .update_first = bit(0),
                              .normalize = bit(1),
                              .momentum = bit(2),
                              .initial = bit(3),
                              .rates = 0.01f};
        check_cuts<linear_network>(c), check_cuts<swiglu_network>(c);
    }
}

TEST_CASE("test_time_training: outputs are the same where nobody keeps the weights")
{
    for (const bool update_first : {false, true}) {
        const training_case c{.length = 20, .keys = 6, .values = 7, .hidden = 9, .chunk = 8, .update_first = update_first, .initial = true};
        const training_problem<swiglu_network, float> p(c);
        training_result<swiglu_network, float> kept(p), dropped(p);
        run(p, kept);
        linear::test_time_training<swiglu_network, test_arch>(for_door(p.q()), for_door(p.k()), for_door(p.v()), p.inputs(), for_door(dropped.out()),
                                                              p.options());
        CHECK(same_bits(dropped.out(), kept.out()));
    }
}

TEST_CASE("test_time_training: scratch")
{
    const training_problem<swiglu_network, bf16> p(
        {.batch = 2, .length = 90, .keys = 21, .values = 50, .hidden = 60, .chunk = 40, .momentum = true, .velocity = true});
    const training_problem<linear_network, float> of_linear({.length = 90, .keys = 21, .values = 50, .chunk = 40});
    sm::context<> ctx, ctx_linear;
    check_scratch([&] { return training_result<swiglu_network, bf16>(p); },
                  [&](auto& r, const sm::context_ref& on) { run(p, r, on); }, ctx);
    check_scratch([&] { return training_result<linear_network, float>(of_linear); },
                  [&](auto& r, const sm::context_ref& on) { run(of_linear, r, on); }, ctx_linear);

    // More tokens need no more.
    const auto needed = [](index length, index chunk) {
        const training_problem<swiglu_network, float> long_one({.length = length, .keys = 3, .values = 4, .hidden = 5, .chunk = chunk});
        training_result<swiglu_network, float> r(long_one);
        sm::context<> own;
        run(long_one, r, own);
        return own.scratch().size();
    };
    CHECK(needed(3000, 1500) == needed(10, 5));
}

TEST_CASE("test_time_training: what NaN reaches")
{
    const training_case c{.batch = 2, .heads = 2, .length = 24, .keys = 6, .values = 5, .hidden = 7, .chunk = 8};
    enum class spoiled { query, key, value, rate };
    for (const spoiled what : {spoiled::query, spoiled::key, spoiled::value, spoiled::rate}) {
        training_problem<swiglu_network, float> p(c);
        training_result<swiglu_network, float> clean(p), r(p);
        run(p, clean);
        if (what == spoiled::query) { p.q()(0, 1, 2, 10) = not_a_number; }
        if (what == spoiled::key) { p.k()(0, 1, 2, 10) = not_a_number; }
        if (what == spoiled::value) { p.v()(0, 1, 2, 10) = not_a_number; }
        if (what == spoiled::rate) { p.rate[0]()(0, 1, 10) = not_a_number; }
        run(p, r);
        const auto got = for_door(r.out()), want = for_door(clean.out());
        bool as_it_should = true;
        for_each(got, [&](float x, index b, index t, index h, index v) {
            const bool reached = b == 0 && h == 1 && (what == spoiled::query ? t == 10 : t >= 16);
            as_it_should = as_it_should && (reached ? std::isnan(x) : x == want(b, t, h, v));
        });
        INFO("what " << static_cast<int>(what));
        CHECK(as_it_should);
    }
}

} // namespace test_time_training_test
