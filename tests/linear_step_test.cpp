// SPDX-License-Identifier: MIT
// One token of linear attention for many sequences: every rule against the recurrence, what must be equal to what, what NaN
// reaches, memory, and refusals.
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/laid_out.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/scratch.hpp"

#include <seqmix/linear/reference.hpp>
#include <seqmix/linear/step.hpp>

#include <functional>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>

namespace linear_step_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using linear::gate;
using linear::update;
using sm::bf16;
using sm::f16;
using sm::index; // POSIX has another in the global namespace

inline constexpr index lanes = sm::simd::lanes<test_arch>;

namespace {

enum class lie { dense, swapped, turned, spaced, reversed, shifted };
inline constexpr lie all_lies[] = {lie::dense, lie::swapped, lie::turned, lie::spaced, lie::reversed, lie::shifted};

using test_support::for_each;

/// Numbers in guarded memory, NaN to begin with. Swapped: the last axis but one is contiguous; turned: the first one is.
template <class T, std::size_t Rank>
class operand {
public:
    operand(const std::array<index, Rank>& extents, lie how)
    {
        std::array<std::size_t, Rank> order{};
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (how == lie::turned) { std::reverse(order.begin(), order.end()); }
        if (how == lie::swapped && Rank > 1) { std::swap(order[Rank - 1], order[Rank - 2]); }
        std::array<index, Rank> strides{};
        index size = how == lie::spaced ? 3 : 1;
        for (std::size_t i = Rank; i-- > 0;) {
            strides[order[i]] = size;
            size *= extents[order[i]];
            if (how == lie::spaced) { size += 2; }
        }
        memory_ = std::make_unique<guarded<T>>(size, how == lie::shifted ? sizeof(T) : 0);
        view_ = {memory_->data(), extents, strides};
        for (std::size_t axis = 0; axis < Rank && how == lie::reversed; ++axis) { view_ = view_.reversed(axis); }
    }

    const sm::view<T, Rank>& operator()() const { return view_; }
    operator sm::view<const T, Rank>() const { return view_; }

    template <class Number>
    void fill(const Number& number)
    {
        for_each(view_, [&](T& x, auto...) { x = static_cast<T>(number()); });
    }
    template <class Other>
    void copy(const sm::view<Other, Rank>& from)
    {
        for_each(view_, [&](T& x, auto... at) { x = static_cast<T>(static_cast<float>(from(at...))); });
    }

    /// Whether nothing but what the view reaches has been written.
    bool written_exactly() const
    {
        std::vector<bool> reached(static_cast<std::size_t>(memory_->size()));
        for_each(view_, [&](T& x, auto...) { reached[static_cast<std::size_t>(&x - memory_->data())] = true; });
        for (index i = 0; i < memory_->size(); ++i) {
            if (!reached[static_cast<std::size_t>(i)] && !memory_->untouched(i)) { return false; }
        }
        return memory_->intact();
    }
    bool untouched() const
    {
        for (index i = 0; i < memory_->size(); ++i) {
            if (!memory_->untouched(i)) { return false; }
        }
        return memory_->intact();
    }

private:
    std::unique_ptr<guarded<T>> memory_;
    sm::view<T, Rank> view_;
};

template <class T, std::size_t Rank>
bool same_bits(const sm::view<T, Rank>& a, const sm::view<T, Rank>& b)
{
    bool same = true;
    for_each(a, [&](T& x, auto... at) { same = same && std::memcmp(&x, &b(at...), sizeof(T)) == 0; });
    return same;
}

/// Heads of queries, keys and values; numbers of a query; value channels.
struct step_case {
    index batch = 2, query_heads = 3, key_heads = 3, heads = 3, size = 5, values = 7;
    lie stands = lie::dense;
    bool normalize = false, bf16_state = false, elsewhere = false;
    float weakest = -0.5f, strongest = 0.0f; ///< log decays
    std::uint64_t seed = 1;

    index out_heads() const { return std::max(query_heads, heads); }
    index readers() const { return query_heads > heads ? query_heads / heads : 1; }

    friend std::ostream& operator<<(std::ostream& s, const step_case& c)
    {
        return s << c.batch << " sequences, heads " << c.query_heads << "/" << c.key_heads << "/" << c.heads << ", size "
                 << c.size << ", values " << c.values << ", lie " << static_cast<int>(c.stands)
                 << (c.normalize ? ", normalized" : "") << (c.bf16_state ? ", bf16 state" : "")
                 << (c.elsewhere ? ", from elsewhere" : "") << ", decays " << c.weakest << " to " << c.strongest
                 << ", seed " << c.seed;
    }
};

template <class Rule>
inline constexpr std::size_t decay_rank = Rule::gate == gate::head ? 1 : Rule::gate == gate::channel ? 3 : 2;

template <class Rule, class T, class Out = T>
struct problem {
    explicit problem(const step_case& of)
        : c(of), keys(Rule::features::features(of.size)), q({c.batch, c.query_heads, c.size}, c.stands),
          k({c.batch, c.key_heads, c.size}, c.stands), v({c.batch, c.heads, c.values}, c.stands),
          a({c.batch, c.heads, keys}, c.stands), b({c.batch, c.heads, keys}, c.stands), g(decay_shape(), c.stands),
          beta({c.batch, c.heads}, c.stands), u({c.heads, keys}, c.stands), state(states(), c.stands),
          initial(states(), c.stands), narrow(states(), c.stands), narrow_initial(states(), c.stands),
          z({c.batch, c.heads, keys}, c.stands), out({c.batch, c.out_heads(), c.values}, c.stands)
    {
        random_source random(c.seed);
        const auto normal = [&] { return random.normal(); };
        // Keys of about unit length, or states would grow from token to token.
        const auto of_key = [&] { return random.normal() / std::sqrt(static_cast<float>(1 + keys)); };
        q.fill(normal), k.fill(of_key), v.fill(normal), u.fill(normal), a.fill(of_key), b.fill(of_key);
        g.fill([&] { return random.uniform(c.weakest, c.strongest); }), beta.fill([&] { return random.unit(); });
        state.fill(normal), initial.fill(normal), z.fill([&] { return 1.0f + random.unit(); });
        narrow.copy(state()), narrow_initial.copy(initial());
    }

    std::array<index, 4> states() const { return {c.batch, c.heads, keys, c.values}; }
    std::array<index, decay_rank<Rule>> decay_shape() const
    {
        if constexpr (Rule::gate == gate::head) {
            return {c.heads};
        } else if constexpr (Rule::gate == gate::channel) {
            return {c.batch, c.heads, keys};
        } else {
            return {c.batch, c.heads};
        }
    }
    float log_decay([[maybe_unused]] index item, [[maybe_unused]] index head, [[maybe_unused]] index i) const
    {
        if constexpr (Rule::gate == gate::head) { return g()(head); }
        if constexpr (Rule::gate == gate::token) { return g()(item, head); }
        if constexpr (Rule::gate == gate::channel) { return g()(item, head, i); }
        return 0.0f;
    }

    auto inputs() const
    {
        typename Rule::template inputs<T, 1> in;
        if constexpr (Rule::gate != gate::none) { in.log_decay = g(); }
        if constexpr (Rule::update == update::delta) { in.beta = beta(); }
        if constexpr (Rule::bonus) { in.bonus = u(); }
        if constexpr (Rule::update == update::dplr) { in.a = a(), in.b = b(); }
        return in;
    }
    linear::step_options options() const
    {
        linear::step_options o;
        o.normalize = c.normalize;
        if (c.normalize) { o.normalizer = z(); }
        c.bf16_state ? o.state = narrow() : o.state = state();
        if (c.elsewhere) { c.bf16_state ? o.initial_state = narrow_initial() : o.initial_state = initial(); }
        return o;
    }
    void run(const linear::step_options& o, const sm::context_ref& ctx = {}) { door(q, k, v, inputs(), out(), o, ctx); }
    void run(const sm::context_ref& ctx = {}) { run(options(), ctx); }

    /// The door, compiled once for each list of types.
    SEQMIX_NOINLINE static void door(const sm::view<const T, 3>& q, const sm::view<const T, 3>& k,
                                     const sm::view<const T, 3>& v, const typename Rule::template inputs<T, 1>& in,
                                     const sm::view<Out, 3>& out, const linear::step_options& o, const sm::context_ref& ctx)
    {
        linear::step<Rule, test_arch>(q, k, v, in, out, o, ctx);
    }

    bool operator==(const problem& other) const
    {
        return same_bits(out(), other.out()) && same_bits(state(), other.state()) && same_bits(narrow(), other.narrow()) &&
               same_bits(z(), other.z());
    }
    bool written_exactly() const
    {
        return out.written_exactly() && state.written_exactly() && narrow.written_exactly() && z.written_exactly();
    }

    step_case c;
    index keys;
    operand<T, 3> q, k, v, a, b;
    operand<float, decay_rank<Rule>> g;
    operand<float, 2> beta, u;
    operand<float, 4> state, initial;
    operand<bf16, 4> narrow, narrow_initial;
    operand<float, 3> z;
    operand<Out, 3> out;
};

/// A feature map in double, and its kernel's relative error in units of 2^-24: what simd::exp has (2), and the other
/// operations.
template <class Map>
struct exact_map;
template <>
struct exact_map<linear::identity_map> {
    static std::vector<double> of(const std::vector<double>& x) { return x; }
    static double error(index) { return 0.0; }
};
template <>
struct exact_map<linear::elu_plus_one_map> {
    static std::vector<double> of(std::vector<double> x)
    {
        for (double& y : x) { y = y > 0.0 ? y + 1.0 : std::exp(y); }
        return x;
    }
    static double error(index) { return 2.0; }
};
template <>
struct exact_map<linear::unit_length_map> {
    static std::vector<double> of(std::vector<double> x)
    {
        double sum = 0.0;
        for (double y : x) { sum += y * y; }
        for (double& y : x) { y /= std::sqrt(sum + 1e-6); }
        return x;
    }
    /// Half of the sum's; root, quotient and product.
    static double error(index size) { return 0.5 * static_cast<double>(size + 3) + 4.0; }
};
template <>
struct exact_map<linear::taylor_map> {
    static std::vector<double> of(const std::vector<double>& x)
    {
        std::vector<double> y{1.0};
        const double factor = std::pow(static_cast<double>(x.size()), -0.25);
        for (double a : x) { y.push_back(a * factor); }
        for (double a : x) {
            for (double b : x) { y.push_back(a * b * factor * factor / std::sqrt(2.0)); }
        }
        return y;
    }
    /// Twice a factor of two roots and a quotient; a root and three products.
    static double error(index) { return 2.0 * 4.0 + 4.0; }
};

/// How far from the recurrence, as recurrent_token's docstring has it.
struct tolerances {
    double out = 0.0, state = 0.0;
};

/// Token, by the definition, from the state as stored; judges what the kernel has made of it.
template <class Rule, class T, class Out>
void check_token(const problem<Rule, T, Out>& p, const std::vector<double>& before, const std::vector<double>& z_before)
{
    using map = exact_map<typename Rule::features>;
    constexpr double u = sm::unit_roundoff<float>, tiny = 0x1p-149;
    const step_case& c = p.c;
    const index K = p.keys, V = c.values;
    const double map_u = map::error(c.size) * u, Kd = static_cast<double>(K);
    worst_error worst_out, worst_state, worst_z;
    index at = 0;
    for (index item = 0; item < c.batch; ++item) {
        for (index head = 0; head < c.heads; ++head) {
            const auto row = [](const auto& from) {
                std::vector<double> x;
                for_each(from, [&](const auto& y, auto...) { x.push_back(static_cast<double>(static_cast<float>(y))); });
                return x;
            };
            const index queries = c.readers();
            const index first_query = c.query_heads >= c.heads ? head * queries : head / (c.heads / c.query_heads);
            const std::vector<double> k = map::of(row(p.k()[item][head / (c.heads / c.key_heads)])),
                                      v = row(p.v()[item][head]);
            std::vector<double> g, a = row(p.a()[item][head]), b = row(p.b()[item][head]), bonus = row(p.u()[head]);
            for (index i = 0; i < K; ++i) { g.push_back(std::min(0.0, static_cast<double>(p.log_decay(item, head, i)))); }
            const double beta = Rule::update == update::delta ? static_cast<double>(p.beta()(item, head)) : 1.0;
            const auto state_at = (static_cast<std::size_t>(item * c.heads + head)) * static_cast<std::size_t>(K * V);
            const std::vector<double> S(before.begin() + static_cast<std::ptrdiff_t>(state_at),
                                        before.begin() + static_cast<std::ptrdiff_t>(state_at) + K * V);
            const auto z_at = static_cast<std::ptrdiff_t>((item * c.heads + head) * K);
            const std::vector<double> z(z_before.begin() + z_at, z_before.begin() + z_at + K);

            for (index j = 0; j < queries; ++j) {
                const std::vector<double> q = map::of(row(p.q()[item][first_query + j]));
                const double scale = 1.0 / std::sqrt(static_cast<double>(std::max(index{1}, c.size)));
                // One more column, of a value 1: the normaliser.
                const index columns = V + 1;
                std::vector<double> wide, values = v;
                values.push_back(1.0);
                for (index i = 0; i < K; ++i) {
                    for (index n = 0; n < V; ++n) { wide.push_back(S[static_cast<std::size_t>(i * V + n)]); }
                    wide.push_back(z[static_cast<std::size_t>(i)]);
                }
                const std::vector<double> old = wide;
                linear::reference::head in;
                const auto as_row = [](const std::vector<double>& x) {
                    return sm::view<const double, 2>(x.data(), {index{1}, static_cast<index>(x.size())});
                };
                in.q = as_row(q), in.k = as_row(k), in.v = as_row(values), in.scale = scale;
                if (Rule::gate != gate::none) { in.g = as_row(g); }
                if (Rule::update == update::delta) { in.beta = sm::view<const double, 1>(&beta, {1}); }
                if (Rule::update == update::dplr) { in.a = as_row(a), in.b = as_row(b); }
                if (Rule::bonus) { in.u = sm::view<const double, 1>(bonus.data(), {K}); }
                const std::vector<double> want = linear::reference::recurrence(in, wide, [](index, const auto&) {});

                std::vector<double> off(static_cast<std::size_t>(columns)); // of each output
                for (index n = 0; n < columns; ++n) {
                    double y_sum = 0.0, o_sum = 0.0, qk = 0.0, qb = 0.0;
                    for (index i = 0; i < K; ++i) {
                        const auto s = static_cast<std::size_t>(i);
                        const double d = Rule::gate == gate::none ? 1.0 : std::exp(g[s]),
                                     Sin = old[static_cast<std::size_t>(i * columns + n)];
                        const double x = Rule::update == update::dplr ? a[s] : d * k[s];
                        y_sum += std::fabs(x * Sin);
                        o_sum += std::fabs(scale * q[s] * (Rule::bonus ? 1.0 : d) * Sin);
                        qk += std::fabs(scale * q[s] * k[s] * (Rule::bonus ? bonus[s] : 1.0)),
                            qb += std::fabs(scale * q[s] * b[s]);
                    }
                    // Decays have 2 u, the scale and its product 3 u, and one u is for all that is of higher order.
                    const double y_off = y_sum * ((Kd + 4.0) * u + map_u);
                    const double w_most = Rule::update == update::delta
                                              ? std::fabs(beta) * (std::fabs(values[static_cast<std::size_t>(n)]) + y_sum)
                                              : std::fabs(values[static_cast<std::size_t>(n)]);
                    const double w_off = Rule::update == update::delta ? std::fabs(beta) * y_off + 3.0 * u * w_most : 0.0;
                    const double b_most = Rule::update == update::dplr ? y_sum : 0.0,
                                 b_off = Rule::update == update::dplr ? y_off : 0.0;
                    off[static_cast<std::size_t>(n)] =
                        (o_sum + qk * w_most + qb * b_most) * ((Kd + 9.0) * u + 2.0 * map_u) + qk * w_off + qb * b_off +
                        4.0 * (Kd + 1.0) * tiny;
                    if (j > 0) { continue; }
                    for (index i = 0; i < K; ++i) {
                        const auto s = static_cast<std::size_t>(i);
                        const double exact = wide[static_cast<std::size_t>(i * columns + n)];
                        const double left = std::exp(g[s]) * std::fabs(old[static_cast<std::size_t>(i * columns + n)]);
                        double tolerance = 5.0 * u * left + std::fabs(k[s]) * (w_off + w_most * (map_u + u)) +
                                           std::fabs(b[s]) * (b_off + b_most * u) + 2.0 * u * std::fabs(exact) + 4.0 * tiny;
                        if (n == V) {
                            if (!c.normalize) { continue; }
                            const double got = static_cast<double>(p.z()(item, head, i));
                            worst_z.see(absolute_error(got, exact) / tolerance, at, got, exact);
                            continue;
                        }
                        if (c.bf16_state) {
                            tolerance += sm::unit_roundoff<bf16> * (std::fabs(exact) + tolerance) + 0x1p-134;
                        }
                        const double got =
                            c.bf16_state ? as_double(p.narrow()(item, head, i, n)) : as_double(p.state()(item, head, i, n));
                        worst_state.see(absolute_error(got, exact) / tolerance, at, got, exact);
                    }
                }
                const double sum = want[static_cast<std::size_t>(V)], sum_off = off[static_cast<std::size_t>(V)];
                for (index n = 0; n < V; ++n, ++at) {
                    double exact = want[static_cast<std::size_t>(n)], tolerance = off[static_cast<std::size_t>(n)];
                    if (c.normalize) {
                        exact /= sum;
                        tolerance = (tolerance + std::fabs(exact) * sum_off) / (std::fabs(sum) - sum_off) +
                                    2.0 * u * std::fabs(exact);
                    }
                    tolerance += sm::unit_roundoff<Out> * (std::fabs(exact) + tolerance) +
                                 (std::is_same_v<Out, f16> ? 0x1p-25 : tiny);
                    const double got = as_double(p.out()(item, c.query_heads >= c.heads ? first_query + j : head, n));
                    worst_out.see(absolute_error(got, exact) / tolerance, at, got, exact);
                }
            }
        }
    }
    INFO(c);
    INFO("in tolerances: out " << worst_out << "; state " << worst_state << "; normaliser " << worst_z);
    CHECK((worst_out.error <= 1.0 && worst_state.error <= 1.0 && worst_z.error <= 1.0));
    CHECK(p.written_exactly());
}

template <class Rule, class T = float, class Out = T>
void check(const step_case& c, int tokens = 2)
{
    problem<Rule, T, Out> p(c);
    for (int t = 0; t < tokens; ++t) {
        std::vector<double> before, z;
        const auto copy = [&](const auto& from) {
            for_each(from, [&](auto& x, auto...) { before.push_back(as_double(x)); });
        };
        if (c.bf16_state) {
            copy(c.elsewhere ? p.narrow_initial() : p.narrow());
        } else {
            copy(c.elsewhere ? p.initial() : p.state());
        }
        for_each(p.z(), [&](float& x, auto...) { z.push_back(as_double(x)); });
        p.run();
        check_token(p, before, z);
    }
}

/// body(rule) for every rule.
template <class Body>
void for_each_rule(const Body& body)
{
    body(linear::additive{}), body(linear::retention{}), body(linear::simple_gla{}), body(linear::gla{}),
        body(linear::delta{});
    body(linear::gated_delta{}), body(linear::kda{}), body(linear::rwkv6{}), body(linear::rwkv7{});
}

} // namespace

TEST_CASE("linear step: every rule, every size")
{
    for_each_rule([](auto rule) {
        using Rule = decltype(rule);
        std::uint64_t seed = 0;
        for (index values :
             {index{0}, index{1}, lanes - 1, lanes, lanes + 1, 2 * lanes + 3, 7 * lanes + 5, 17 * lanes, index{100}}) {
            for (index size : {0, 1, 3, 17, 33}) {
                check<Rule>({.batch = 1,
                             .query_heads = 2,
                             .key_heads = 2,
                             .heads = 2,
                             .size = size,
                             .values = values,
                             .seed = ++seed});
            }
        }
        check<Rule>({.batch = 0}), check<Rule>({.query_heads = 0, .key_heads = 0, .heads = 0});
        check<Rule>({.batch = 1, .query_heads = 1, .key_heads = 1, .heads = 1, .size = 128, .values = 128}, 10);
    });
}

TEST_CASE("linear step: every rule with every layout, state and number type")
{
    for_each_rule([](auto rule) {
        using Rule = decltype(rule);
        for (lie stands : all_lies) {
            for (const bool narrow : {false, true}) {
                for (const bool elsewhere : {false, true}) {
                    step_case c{.size = 19,
                                .values = 2 * lanes + 3,
                                .stands = stands,
                                .bf16_state = narrow,
                                .elsewhere = elsewhere};
                    check<Rule>(c);
                }
            }
        }
    });
    for (lie stands : all_lies) {
        const step_case c{.query_heads = 6, .size = 19, .values = lanes + 3, .stands = stands, .bf16_state = true};
        check<linear::gla, bf16>(c), check<linear::gated_delta, f16>(c);
        check<linear::rwkv7, bf16, float>(c), check<linear::rwkv7, f16, float>(c);
    }
}

TEST_CASE("linear step: shared heads")
{
    struct groups {
        index q, k, v;
    };
    for (const groups& heads : {groups{4, 2, 4}, groups{8, 2, 4}, groups{1, 1, 3}, groups{2, 3, 6}, groups{12, 1, 4},
                                groups{10, 2, 2}, groups{3, 1, 1}, groups{1, 2, 4}, groups{1, 1, 1}}) {
        for_each_rule([&](auto rule) {
            for (lie stands : {lie::dense, lie::turned}) {
                check<decltype(rule)>({.query_heads = heads.q,
                                       .key_heads = heads.k,
                                       .heads = heads.v,
                                       .size = 9,
                                       .values = lanes + 3,
                                       .stands = stands});
            }
        });
    }
}

TEST_CASE("linear step: decays at their extremes")
{
    const float never = -std::numeric_limits<float>::infinity();
    struct range {
        float low, high;
    };
    for (const range& r : {range{-30.0f, 0.0f}, range{0.0f, 0.0f}, range{-1e30f, -1e-30f}, range{-1e-40f, 0.0f},
                           range{-110.0f, -80.0f}, range{0.0f, 5.0f}}) {
        for_each_rule([&](auto rule) {
            check<decltype(rule)>({.size = 9, .values = lanes + 3, .weakest = r.low, .strongest = r.high}, 5);
        });
    }
    problem<linear::gla, float> gone({.size = 9, .values = lanes + 3}), anew({.size = 9, .values = lanes + 3});
    gone.g.fill([&] { return never; }), anew.state.fill([] { return 0.0f; });
    gone.run(), anew.run();
    CHECK(gone == anew);
}

TEST_CASE("linear step: feature maps and the normaliser")
{
    for (lie stands : all_lies) {
        for (index size : {1, 5, 17}) {
            step_case c{.query_heads = 6, .size = size, .values = lanes + 3, .stands = stands, .normalize = true};
            check<linear::mapped<linear::additive, linear::elu_plus_one_map>>(c, 5);
            check<linear::mapped<linear::gla, linear::elu_plus_one_map>>(c, 5);
            c.normalize = false;
            check<linear::mapped<linear::gated_delta, linear::unit_length_map>>(c, 5);
            check<linear::mapped<linear::additive, linear::taylor_map>>(c);
        }
    }
    // Bonus and positive weights: the normaliser takes the bonus too.
    problem<linear::rwkv6, float> p({.query_heads = 6, .size = 9, .values = 5, .normalize = true});
    for (auto* x : {&p.q, &p.k}) {
        for_each((*x)(), [](float& y, auto...) { y = 0.1f + std::fabs(y); });
    }
    for_each(p.u(), [](float& y, auto...) { y = 0.1f + std::fabs(y); });
    std::vector<double> before, z;
    for_each(p.state(), [&](float& x, auto...) { before.push_back(as_double(x)); });
    for_each(p.z(), [&](float& x, auto...) { z.push_back(as_double(x)); });
    p.run();
    check_token(p, before, z);
}

TEST_CASE("linear step: an explicit scale")
{
    problem<linear::gla, float> p({.size = 16}), twice({.size = 16}), own({.size = 16});
    linear::step_options o = twice.options();
    o.scale = 0.5f; // twice the default
    p.run(), twice.run(o);
    bool doubled = true;
    for_each(p.out(), [&](float y, auto... at) { doubled = doubled && twice.out()(at...) == 2.0f * y; });
    CHECK(doubled);
    CHECK(same_bits(p.state(), twice.state()));
}

TEST_CASE("linear step: states of two types are widened before and rounded after")
{
    for (lie stands : {lie::dense, lie::spaced}) {
        const step_case c{.size = 19, .values = 2 * lanes + 3, .stands = stands};
        problem<linear::kda, float> wide(c), down(c), up(c);
        for (auto* p : {&wide, &down, &up}) { p->initial.copy(p->narrow_initial()); }
        auto o = wide.options();
        o.initial_state = wide.initial(), o.state = wide.state();
        wide.run(o);
        o.initial_state = down.initial(), o.state = down.narrow();
        down.run(o);
        o.initial_state = up.narrow_initial(), o.state = up.state();
        up.run(o);
        CHECK(same_bits(up.out(), wide.out()));
        CHECK(same_bits(up.state(), wide.state()));
        CHECK(same_bits(down.out(), wide.out()));
        bool rounded = true;
        for_each(down.narrow(), [&](bf16& s, auto... at) { rounded = rounded && s == bf16(wide.state()(at...)); });
        CHECK(rounded);
        CHECK(down.written_exactly());
    }
}

TEST_CASE("linear step: the states read and written may lie in different ways, which changes no bit")
{
    for_each_rule([](auto rule) {
        using Rule = decltype(rule);
        const step_case c{.size = 9, .values = lanes + 3, .elsewhere = true};
        problem<Rule, float> want(c);
        want.run();
        for (lie read : all_lies) {
            for (lie written : all_lies) {
                problem<Rule, float> p(c);
                operand<float, 4> from(p.states(), read), to(p.states(), written);
                from.copy(p.initial());
                auto o = p.options();
                o.initial_state = from(), o.state = to();
                p.run(o);
                CHECK(same_bits(p.out(), want.out()));
                CHECK(same_bits(to(), want.state()));
                CHECK(to.written_exactly());
            }
        }
    });
}

TEST_CASE("linear step: an initial state elsewhere is left as it was, so that a ring of states rolls back")
{
    const index slots = 4;
    const step_case c{.size = 9, .values = lanes + 3};
    for_each_rule([&](auto rule) {
        using Rule = decltype(rule);
        operand<float, 5> ring({slots, c.batch, c.heads, c.size, c.values}, lie::dense);
        ring.fill([] { return 0.5f; });
        problem<Rule, float> in_place(c);
        in_place.state.copy(ring()[0]);
        std::vector<std::unique_ptr<problem<Rule, float>>> after; // in-place, each token
        for (index t = 0; t < slots - 1; ++t) {
            problem<Rule, float> token(
                step_case{.size = 9, .values = lanes + 3, .seed = static_cast<std::uint64_t>(t) + 7});
            auto o = token.options();
            o.initial_state = ring()[t], o.state = ring()[t + 1];
            token.run(o);
            auto same = std::make_unique<problem<Rule, float>>(token.c);
            same->state.copy(t == 0 ? in_place.state() : after.back()->state());
            same->run();
            CHECK(same_bits(same->out(), token.out()));
            CHECK(same_bits(same->state(), ring()[t + 1]));
            after.push_back(std::move(same));
        }
        for (index t = 0; t < slots - 1; ++t) {
            CHECK(same_bits(ring()[t], t == 0 ? in_place.state() : after[static_cast<std::size_t>(t) - 1]->state()));
        }
    });
}

TEST_CASE("linear step: the same bits for every number of threads and every batch")
{
    for_each_rule([](auto rule) {
        using Rule = decltype(rule);
        const step_case c{.batch = 7, .query_heads = 6, .key_heads = 1, .heads = 3, .size = 17, .values = 3 * lanes + 5};
        problem<Rule, float> alone(c);
        alone.run();
        for (int workers : {1, 2, 3, 5}) {
            problem<Rule, float> shared(c);
            sm::context ctx{sm::parallel_for{workers, test_support::on_threads{}}};
            shared.run(ctx);
            INFO(workers << " workers");
            CHECK(shared == alone);
        }
        problem<Rule, float> singly(c);
        for (index b = 0; b < c.batch; ++b) {
            const auto one = [b](const auto& v) { return v.slice(0, b, b + 1); };
            auto in = singly.inputs();
            if constexpr (Rule::gate == gate::token || Rule::gate == gate::channel) { in.log_decay = one(in.log_decay); }
            if constexpr (Rule::update == update::delta) { in.beta = one(in.beta); }
            if constexpr (Rule::update == update::dplr) { in.a = one(in.a), in.b = one(in.b); }
            auto o = singly.options();
            o.state = one(singly.state());
            singly.door(one(singly.q()), one(singly.k()), one(singly.v()), in, one(singly.out()), o, {});
        }
        CHECK(singly == alone);
    });
}

TEST_CASE("linear step: NaN and infinities stay where they are read")
{
    const step_case c{.query_heads = 3, .size = 9, .values = lanes + 5};
    for_each_rule([&](auto rule) {
        using Rule = decltype(rule);
        problem<Rule, float> clean(c);
        clean.run();
        // Put into sequence 1, head 1: key channel 2, value channel 4. Everything of the head's, one column, or its outputs
        // alone.
        enum class reach { head, column, outputs };
        const auto spreads = [&](const char* name, reach how, float bad, void (*put)(problem<Rule, float>&, float)) {
            problem<Rule, float> p(c);
            put(p, bad);
            p.run();
            index lost = 0, spilt = 0;
            const auto see = [&](float x, float was, bool reached) {
                lost += reached && std::isfinite(x);
                spilt += !reached && std::memcmp(&x, &was, sizeof x) != 0;
            };
            for_each(p.out(), [&](float& x, index b, index h, index n) {
                see(x, clean.out()(b, h, n), b == 1 && h == 1 && (how != reach::column || n == 4));
            });
            for_each(p.state(), [&](float& x, index b, index h, index i, index n) {
                const bool here = b == 1 && h == 1;
                if (here && how == reach::head) { return; } // some of it, if not all
                see(x, clean.state()(b, h, i, n), false);
                spilt -= here && how == reach::column && n == 4 && !(x == clean.state()(b, h, i, n)); // may be
            });
            INFO(name << " " << bad);
            CHECK(lost == 0);
            CHECK(spilt == 0);
        };
        for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            spreads("q", reach::outputs, bad, [](auto& p, float x) { p.q()(1, 1, 2) = x; });
            spreads("k", reach::head, bad, [](auto& p, float x) { p.k()(1, 1, 2) = x; });
            spreads("v", reach::column, bad, [](auto& p, float x) { p.v()(1, 1, 4) = x; });
            spreads("state", reach::column, bad, [](auto& p, float x) { p.state()(1, 1, 2, 4) = x; });
            if constexpr (Rule::update == update::delta) {
                spreads("beta", reach::head, bad, [](auto& p, float x) { p.beta()(1, 1) = x; });
            }
            if constexpr (Rule::update == update::dplr) {
                spreads("a", reach::head, bad, [](auto& p, float x) { p.a()(1, 1, 2) = x; });
                spreads("b", reach::head, bad, [](auto& p, float x) { p.b()(1, 1, 2) = x; });
            }
        }
        const float nan = std::numeric_limits<float>::quiet_NaN();
        if constexpr (Rule::gate == gate::token) {
            spreads("log_decay", reach::head, nan, [](auto& p, float x) { p.g()(1, 1) = x; });
        }
        if constexpr (Rule::gate == gate::channel && !Rule::bonus) {
            spreads("log_decay", reach::head, nan, [](auto& p, float x) { p.g()(1, 1, 2) = x; });
        }
    });
}

TEST_CASE("linear step: nothing is read or written beyond the end of memory")
{
    const auto edge = [](auto rule, auto type, auto state_type, index K, index V) {
        using Rule = decltype(rule);
        using T = decltype(type);
        using S = decltype(state_type);
        at_the_edge<T> q(K), k(K), v(V), a(K), b(K), out(V);
        at_the_edge<S> from(K * V), to(K * V);
        at_the_edge<float> g(K), u(K), beta(1);
        for (index i = 0; i < K; ++i) { q[i] = k[i] = a[i] = b[i] = T(0.5f), g[i] = -0.5f, u[i] = 0.5f; }
        for (index i = 0; i < V; ++i) { v[i] = T(0.5f); }
        for (index i = 0; i < K * V; ++i) { from[i] = S(0.5f); }
        beta[0] = 0.5f;
        const auto one = [](auto* data, index n) { return sm::view(data, {index{1}, index{1}, n}); };
        typename Rule::template inputs<T, 1> in;
        if constexpr (Rule::gate == gate::channel) { in.log_decay = one(g.data(), K); }
        if constexpr (Rule::gate == gate::head) { in.log_decay = sm::view<float, 1>(g.data() + K - 1, {1}); }
        if constexpr (Rule::gate == gate::token) { in.log_decay = sm::view<float, 2>(g.data() + K - 1, {1, 1}); }
        if constexpr (Rule::update == update::delta) { in.beta = sm::view<float, 2>(beta.data(), {1, 1}); }
        if constexpr (Rule::bonus) { in.bonus = sm::view<float, 2>(u.data(), {index{1}, K}); }
        if constexpr (Rule::update == update::dplr) { in.a = one(a.data(), K), in.b = one(b.data(), K); }
        linear::step_options o;
        o.initial_state = sm::view<S, 4>(from.data(), {index{1}, index{1}, K, V});
        o.state = sm::view<S, 4>(to.data(), {index{1}, index{1}, K, V});
        problem<Rule, T, T>::door(one(q.data(), K), one(k.data(), K), one(v.data(), V), in, one(out.data(), V), o, {});
        CHECK(as_double(out[0]) != 0.0); // a fault is what fails
    };
    for (index K : {index{1}, index{19}}) {
        for (index V : {index{1}, lanes, lanes + 1, 11 * lanes + 3}) {
            for_each_rule([&](auto rule) { edge(rule, 0.0f, 0.0f, K, V), edge(rule, 0.0f, bf16{}, K, V); });
            edge(linear::gla{}, bf16{}, bf16{}, K, V), edge(linear::gated_delta{}, f16{}, 0.0f, K, V);
        }
    }
}

TEST_CASE("linear step: scratch is the caller's, exactly, and nothing else is allocated")
{
    for_each_rule([](auto rule) {
        using Rule = decltype(rule);
        for (lie stands : {lie::dense, lie::swapped}) {
            const step_case c{.query_heads = 6, .size = 17, .values = lanes + 3, .stands = stands,
                              .normalize = Rule::update == update::additive};
            sm::context<> ctx;
            test_support::check_scratch([&] { return problem<Rule, float>(c); }, [](auto& p, const sm::context_ref& on) { p.run(on); }, ctx);
        }
    });
}



TEST_CASE("linear step: what does not fit is refused, with both numbers, and nothing is touched")
{
    if constexpr (std::is_same_v<test_arch, sm::arch::scalar>) {
        const step_case c{.batch = 2, .query_heads = 4, .key_heads = 2, .heads = 4, .size = 5, .values = 7};
        const auto refuses = [&](auto rule, const char* text, const auto& spoil) {
            using Rule = decltype(rule);
            problem<Rule, float> p(c), as_made(c);
            sm::view<const float, 3> q = p.q(), k = p.k(), v = p.v();
            auto out = p.out();
            auto in = p.inputs();
            auto o = p.options();
            spoil(p, q, k, v, in, out, o);
            std::string message = "(nothing thrown)";
            try {
                p.door(q, k, v, in, out, o, {});
            } catch (const std::invalid_argument& e) {
                message = e.what();
            }
            INFO("got:  " << message);
            INFO("want: " << text);
            CHECK(message == "linear::step: " + std::string(text));
            CHECK(p == as_made);
        };
        const linear::gla gla;
#define SPOIL [&]([[maybe_unused]] auto& p, [[maybe_unused]] auto& q, [[maybe_unused]] auto& k, [[maybe_unused]] auto& v, \
                  [[maybe_unused]] auto& in, [[maybe_unused]] auto& out, [[maybe_unused]] auto& o)
        using const3 = sm::view<const float, 3>;
        using float4 = sm::view<float, 4>;
        refuses(gla, "q is null, but its shape has 40 elements", SPOIL { q = const3(nullptr, {2, 4, 5}); });
        refuses(gla, "k is null, but its shape has 20 elements", SPOIL { k = const3(nullptr, {2, 2, 5}); });
        refuses(gla, "v is null, but its shape has 56 elements", SPOIL { v = const3(nullptr, {2, 4, 7}); });
        refuses(gla, "out is null, but its shape has 56 elements", SPOIL { out = sm::view<float, 3>(nullptr, {2, 4, 7}); });
        refuses(
            gla, "log_decay is null, but its shape has 40 elements", SPOIL {
                in.log_decay = const3(nullptr, {2, 4, 5});
            });
        refuses(gla, "v has a negative extent: -7", SPOIL { v = const3(v.data(), {2, 4, -7}); });
        refuses(gla, "q's batch is 1, but v's is 2", SPOIL { q = q.slice(0, 0, 1); });
        refuses(gla, "k's batch is 1, but v's is 2", SPOIL { k = k.slice(0, 0, 1); });
        refuses(gla, "q's head size is 4, but k's is 5", SPOIL { q = q.slice(2, 0, 4); });
        refuses(gla, "k has 3 heads, which does not divide v's 4", SPOIL { k = const3(p.q().data(), {2, 3, 5}); });
        refuses(gla, "k has 0 heads, which does not divide v's 4", SPOIL { k = k.slice(1, 0, 0); });
        refuses(gla, "q has 3 heads, which is neither a multiple nor a divisor of v's 4", SPOIL { q = q.slice(1, 0, 3); });
        refuses(gla, "q has 0 heads, which is neither a multiple nor a divisor of v's 4", SPOIL { q = q.slice(1, 0, 0); });
        refuses(gla, "out's batch is 1, but v's is 2", SPOIL { out = out.slice(0, 0, 1); });
        refuses(
            gla, "out's number of heads is 3, but the larger one of q's and v's is 4", SPOIL { out = out.slice(1, 0, 3); });
        refuses(gla, "out's head size is 6, but v's is 7", SPOIL { out = out.slice(2, 0, 6); });
        refuses(gla, "log_decay's batch is 1, but v's is 2", SPOIL { in.log_decay = in.log_decay.slice(0, 0, 1); });
        refuses(
            gla, "log_decay's number of heads is 3, but v's is 4", SPOIL { in.log_decay = in.log_decay.slice(1, 0, 3); });
        refuses(gla, "log_decay's number of key channels is 4, but k's number of features is 5",
                SPOIL { in.log_decay = in.log_decay.slice(2, 0, 4); });
        refuses(gla, "log_decay's batch is 0, but v's is 2", SPOIL { in.log_decay = {}; });
        refuses(linear::retention{}, "log_decay's number of heads is 3, but v's is 4",
                SPOIL { in.log_decay = in.log_decay.slice(0, 0, 3); });
        refuses(linear::gated_delta{}, "log_decay's number of heads is 3, but v's is 4",
                SPOIL { in.log_decay = in.log_decay.slice(1, 0, 3); });
        refuses(linear::gated_delta{}, "beta's batch is 1, but v's is 2", SPOIL { in.beta = in.beta.slice(0, 0, 1); });
        refuses(
            linear::rwkv6{}, "bonus's number of heads is 3, but v's is 4", SPOIL { in.bonus = in.bonus.slice(0, 0, 3); });
        refuses(linear::rwkv6{}, "bonus's number of key channels is 4, but k's number of features is 5",
                SPOIL { in.bonus = in.bonus.slice(1, 0, 4); });
        refuses(linear::rwkv7{}, "a's number of heads is 3, but v's is 4", SPOIL { in.a = in.a.slice(1, 0, 3); });
        refuses(
            linear::rwkv7{}, "b's number of key channels is 4, but k's number of features is 5",
            SPOIL { in.b = in.b.slice(2, 0, 4); });
        refuses(gla, "state is not given", SPOIL { o.state = {}; });
        refuses(gla, "state's batch is 1, but v's is 2", SPOIL { o.state = p.state().slice(0, 0, 1); });
        refuses(gla, "state's number of heads is 3, but v's is 4", SPOIL { o.state = p.state().slice(1, 0, 3); });
        refuses(
            gla, "state's number of key channels is 4, but k's number of features is 5",
            SPOIL { o.state = p.state().slice(2, 0, 4); });
        refuses(
            gla, "state's number of value channels is 6, but v's head size is 7",
            SPOIL { o.state = p.narrow().slice(3, 0, 6); });
        refuses(gla, "initial_state's number of value channels is 6, but v's head size is 7",
                SPOIL { o.initial_state = p.initial().slice(3, 0, 6); });
        refuses(gla, "normalizer is given, but normalize is false", SPOIL { o.normalizer = p.z(); });
        refuses(gla, "normalizer is not given", SPOIL { o.normalize = true; });
        refuses(gla, "scale is not finite", SPOIL { o.scale = std::numeric_limits<float>::infinity(); });
        refuses(gla, "normalizer's number of key channels is 4, but k's number of features is 5",
                SPOIL { o.normalize = true, o.normalizer = p.z().slice(2, 0, 4); });
        refuses(
            linear::delta{}, "normalize is for additive updates only", SPOIL { o.normalize = true, o.normalizer = p.z(); });
        const char* const apart = ": its memory from first to last element must be apart";
        const auto overlap = [&](const char* what) { return what + std::string(apart); };
        refuses(gla, overlap("out overlaps q").c_str(), SPOIL { out = sm::view<float, 3>(p.q().data(), {2, 4, 7}); });
        refuses(gla, overlap("out overlaps v").c_str(), SPOIL { out = sm::view<float, 3>(p.v().data(), {2, 4, 7}); });
        refuses(
            gla, overlap("out overlaps log_decay").c_str(), SPOIL {
                out = sm::view<float, 3>(p.g().data(), {2, 4, 7});
            });
        refuses(gla, overlap("state overlaps k").c_str(), SPOIL { k = const3(p.state().data(), {2, 2, 5}); });
        refuses(gla, overlap("state overlaps initial_state").c_str(),
                SPOIL { o.initial_state = float4(p.state().data() + 1, {2, 4, 5, 7}); });
        refuses(
            gla, overlap("state overlaps out").c_str(), SPOIL {
                out = sm::view<float, 3>(p.state().data() + 1, {2, 4, 7});
            });
        refuses(gla, overlap("normalizer overlaps q").c_str(), SPOIL { o.normalize = true, o.normalizer = p.q(); });
        refuses(gla, overlap("normalizer overlaps out").c_str(),
                SPOIL { o.normalize = true, o.normalizer = sm::view<float, 3>(p.out().data(), {2, 4, 5}); });
        refuses(gla, overlap("normalizer overlaps state").c_str(),
                SPOIL { o.normalize = true, o.normalizer = sm::view<float, 3>(p.state().data(), {2, 4, 5}); });
#undef SPOIL
    }
}

} // namespace linear_step_test
