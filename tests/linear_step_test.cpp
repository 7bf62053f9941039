// SPDX-License-Identifier: MIT
// One token of linear attention for many sequences: every rule against the recurrence, what must be equal to what, what NaN
// reaches, and memory. A rule is a value here, so that only the door is compiled for each of them.
#include "linear_doors.hpp"
#include "support/scratch.hpp"

#include <seqmix/linear/step.hpp>

#include <memory>
#include <numeric>

namespace linear_step_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using linear_test::all_rules;
using linear_test::decays;
using linear_test::decays_of;
using linear_test::features;
using linear_test::is_additive;
using linear_test::is_delta;
using linear_test::lanes;
using linear_test::rule;
using sm::bf16;
using sm::f16;
using sm::index; // POSIX has another in the global namespace

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
    linear_step_test::rule rule = rule::additive;
    linear_step_test::features features = features::given;
    index batch = 2, query_heads = 3, key_heads = 3, heads = 3, size = 5, values = 7;
    lie stands = lie::dense;
    bool normalize = false, bf16_state = false, elsewhere = false;
    float weakest = -0.5f, strongest = 0.0f; ///< log decays
    std::uint64_t seed = 1;

    index keys() const { return features == features::taylor ? 1 + size + size * size : size; }
    index out_heads() const { return std::max(query_heads, heads); }
    index readers() const { return query_heads > heads ? query_heads / heads : 1; }

    friend std::ostream& operator<<(std::ostream& s, const step_case& c)
    {
        return s << linear_test::rule_names[static_cast<int>(c.rule)] << ", features " << static_cast<int>(c.features) << ", "
                 << c.batch << " sequences, heads " << c.query_heads << "/" << c.key_heads << "/" << c.heads << ", size "
                 << c.size << ", values " << c.values << ", lie " << static_cast<int>(c.stands)
                 << (c.normalize ? ", normalized" : "") << (c.bf16_state ? ", bf16 state" : "")
                 << (c.elsewhere ? ", from elsewhere" : "") << ", decays " << c.weakest << " to " << c.strongest
                 << ", seed " << c.seed;
    }
};

/// What a rule takes besides queries, keys and values.
template <class T>
struct step_operands {
    sm::view<const float, 1> head_decay;
    sm::view<const float, 2> token_decay, beta, bonus;
    sm::view<const float, 3> channel_decay;
    sm::view<const T, 3> a, b;
};

template <class Rule, class T, class Out>
SEQMIX_NOINLINE void step_by(const sm::view<const T, 3>& q, const sm::view<const T, 3>& k, const sm::view<const T, 3>& v,
                             const step_operands<T>& in, const sm::view<Out, 3>& out, const linear::step_options& o,
                             const sm::context_ref& ctx)
{
    const auto as_it_is = [](const auto& operand) { return operand; };
    linear::step<Rule, test_arch>(q, k, v, linear_test::inputs_of<Rule, 1, T>(in, as_it_is), out, o, ctx);
}

/// The door. Every rule in float, and what maps features; a narrow type is only widened as it is read and rounded as it is
/// written: of each one rule, that of bf16 and float results the one with most operands.
template <class T, class Out>
void step(rule r, features f, const sm::view<const T, 3>& q, const sm::view<const T, 3>& k, const sm::view<const T, 3>& v,
          const step_operands<T>& in, const sm::view<Out, 3>& out, const linear::step_options& o, const sm::context_ref& ctx)
{
    const auto by = [&]<class Rule>(Rule) { step_by<Rule, T, Out>(q, k, v, in, out, o, ctx); };
    if constexpr (std::is_same_v<T, float>) {
        switch (f) {
        case features::elu_plus_one: return by(linear::mapped<linear::additive, linear::elu_plus_one_map>());
        case features::taylor: return by(linear::mapped<linear::additive, linear::taylor_map>());
        case features::unit_length: return by(linear::mapped<linear::gated_delta, linear::unit_length_map>());
        default: break;
        }
        switch (r) {
        case rule::additive: return by(linear::additive());
        case rule::retention: return by(linear::retention());
        case rule::simple_gla: return by(linear::simple_gla());
        case rule::gla: return by(linear::gla());
        case rule::delta: return by(linear::delta());
        case rule::gated_delta: return by(linear::gated_delta());
        case rule::kda: return by(linear::kda());
        case rule::rwkv6: return by(linear::rwkv6());
        case rule::rwkv7: return by(linear::rwkv7());
        }
    } else {
        constexpr rule of = !std::is_same_v<T, Out> ? rule::rwkv7 : std::is_same_v<T, bf16> ? rule::gla : rule::gated_delta;
        if (r != of || f != features::given) { throw std::logic_error("a rule that is not compiled for this type"); }
        if constexpr (of == rule::rwkv7) { by(linear::rwkv7()); }
        if constexpr (of == rule::gla) { by(linear::gla()); }
        if constexpr (of == rule::gated_delta) { by(linear::gated_delta()); }
    }
}

template <class T, class Out = T>
struct problem {
    explicit problem(const step_case& of)
        : c(of), keys(c.keys()), q({c.batch, c.query_heads, c.size}, c.stands), k({c.batch, c.key_heads, c.size}, c.stands),
          v({c.batch, c.heads, c.values}, c.stands), a({c.batch, c.heads, keys}, c.stands), b({c.batch, c.heads, keys}, c.stands),
          head_decay({c.heads}, c.stands), token_decay({c.batch, c.heads}, c.stands), channel_decay({c.batch, c.heads, keys}, c.stands),
          beta({c.batch, c.heads}, c.stands), u({c.heads, keys}, c.stands), state(states(), c.stands), initial(states(), c.stands),
          narrow(states(), c.stands), narrow_initial(states(), c.stands), z({c.batch, c.heads, keys}, c.stands),
          out({c.batch, c.out_heads(), c.values}, c.stands)
    {
        random_source random(c.seed);
        const auto normal = [&] { return random.normal(); };
        // Keys of about unit length, or states would grow from token to token.
        const auto of_key = [&] { return random.normal() / std::sqrt(static_cast<float>(1 + keys)); };
        const auto of_decay = [&] { return random.uniform(c.weakest, c.strongest); };
        q.fill(normal), k.fill(of_key), v.fill(normal), u.fill(normal), a.fill(of_key), b.fill(of_key);
        head_decay.fill(of_decay), token_decay.fill(of_decay), channel_decay.fill(of_decay), beta.fill([&] { return random.unit(); });
        state.fill(normal), initial.fill(normal), z.fill([&] { return 1.0f + random.unit(); });
        narrow.copy(state()), narrow_initial.copy(initial());
    }

    std::array<index, 4> states() const { return {c.batch, c.heads, keys, c.values}; }
    double log_decay(index item, index head, index i) const
    {
        switch (decays_of(c.rule)) {
        case decays::head: return as_double(head_decay()(head));
        case decays::token: return as_double(token_decay()(item, head));
        case decays::channel: return as_double(channel_decay()(item, head, i));
        default: return 0.0;
        }
    }

    step_operands<T> operands() const
    {
        return {.head_decay = head_decay, .token_decay = token_decay, .beta = beta, .bonus = u, .channel_decay = channel_decay, .a = a, .b = b};
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
    void run(const linear::step_options& o, const sm::context_ref& ctx = {})
    {
        step<T, Out>(c.rule, c.features, q, k, v, operands(), out(), o, ctx);
    }
    void run(const sm::context_ref& ctx = {}) { run(options(), ctx); }

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
    operand<float, 1> head_decay;
    operand<float, 2> token_decay;
    operand<float, 3> channel_decay;
    operand<float, 2> beta, u;
    operand<float, 4> state, initial;
    operand<bf16, 4> narrow, narrow_initial;
    operand<float, 3> z;
    operand<Out, 3> out;
};

template <class T, std::size_t Rank>
std::vector<double> doubles(const sm::view<T, Rank>& from)
{
    std::vector<double> to;
    for_each(from, [&](const T& x, auto...) { to.push_back(as_double(x)); });
    return to;
}

/// A token in double, dense: its operands, the state and the normaliser before it, and what the kernel has made of it.
struct token {
    std::vector<double> q, k, v, a, b, g, beta, u, state, z, got, got_state, got_z;
    double rounded = 0.0, smallest = 0.0; ///< of results' type: their relative error, and half of the smallest number if it matters

    /// Before the call.
    template <class T, class Out>
    explicit token(const problem<T, Out>& p)
        : q(doubles(p.q())), k(doubles(p.k())), v(doubles(p.v())), a(doubles(p.a())), b(doubles(p.b())), beta(doubles(p.beta())),
          u(doubles(p.u())), z(doubles(p.z())), rounded(sm::unit_roundoff<Out>), smallest(std::is_same_v<Out, f16> ? 0x1p-25 : 0x1p-149)
    {
        const step_case& c = p.c;
        const operand<float, 4>& wide = c.elsewhere ? p.initial : p.state;
        const operand<bf16, 4>& narrow = c.elsewhere ? p.narrow_initial : p.narrow;
        state = c.bf16_state ? doubles(narrow()) : doubles(wide());
        for (index item = 0; item < c.batch; ++item) {
            for (index head = 0; head < c.heads; ++head) {
                for (index i = 0; i < p.keys; ++i) { g.push_back(std::min(0.0, p.log_decay(item, head, i))); }
            }
        }
    }
    /// After it.
    template <class T, class Out>
    void see(const problem<T, Out>& p)
    {
        got = doubles(p.out()), got_z = doubles(p.z()), got_state = p.c.bf16_state ? doubles(p.narrow()) : doubles(p.state());
    }
};

/// Token, by the definition, from the state as stored; judges what the kernel has made of it. How far that may be from the
/// recurrence recurrent_token's docstring has.
void check_token(const step_case& c, const token& p)
{
    constexpr double u = sm::unit_roundoff<float>, tiny = 0x1p-149;
    const bool delta = is_delta(c.rule), dplr = c.rule == rule::rwkv7, has_bonus = c.rule == rule::rwkv6;
    const bool fades = decays_of(c.rule) != decays::none;
    const index K = c.keys(), V = c.values;
    const double map_u = linear_test::feature_error(c.features, c.size), Kd = static_cast<double>(K);
    worst_error worst_out, worst_state, worst_z;
    index at = 0;
    for (index item = 0; item < c.batch; ++item) {
        for (index head = 0; head < c.heads; ++head) {
            const auto row = [](const std::vector<double>& from, index place, index size) {
                return std::vector<double>(from.begin() + place * size, from.begin() + (place + 1) * size);
            };
            const index queries = c.readers(), place = item * c.heads + head;
            const index first_query = c.query_heads >= c.heads ? head * queries : head / (c.heads / c.query_heads);
            const index key_head = head / (c.heads / c.key_heads);
            const std::vector<double> k = linear_test::features_of(c.features, row(p.k, item * c.key_heads + key_head, c.size));
            const std::vector<double> v = row(p.v, place, V), g = row(p.g, place, K), a = row(p.a, place, K), b = row(p.b, place, K);
            const std::vector<double> bonus = row(p.u, head, K), S = row(p.state, place, K * V), z = row(p.z, place, K);
            const double beta = delta ? p.beta[static_cast<std::size_t>(place)] : 1.0;

            for (index j = 0; j < queries; ++j) {
                const std::vector<double> q = linear_test::features_of(c.features, row(p.q, item * c.query_heads + first_query + j, c.size));
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
                if (fades) { in.g = as_row(g); }
                if (delta) { in.beta = sm::view<const double, 1>(&beta, {1}); }
                if (dplr) { in.a = as_row(a), in.b = as_row(b); }
                if (has_bonus) { in.u = sm::view<const double, 1>(bonus.data(), {K}); }
                const std::vector<double> want = linear::reference::recurrence(in, wide, [](index, const auto&) {});

                std::vector<double> off(static_cast<std::size_t>(columns)); // of each output
                for (index n = 0; n < columns; ++n) {
                    double y_sum = 0.0, o_sum = 0.0, qk = 0.0, qb = 0.0;
                    for (index i = 0; i < K; ++i) {
                        const auto s = static_cast<std::size_t>(i);
                        const double d = fades ? std::exp(g[s]) : 1.0,
                                     Sin = old[static_cast<std::size_t>(i * columns + n)];
                        const double x = dplr ? a[s] : d * k[s];
                        y_sum += std::fabs(x * Sin);
                        o_sum += std::fabs(scale * q[s] * (has_bonus ? 1.0 : d) * Sin);
                        qk += std::fabs(scale * q[s] * k[s] * (has_bonus ? bonus[s] : 1.0)),
                            qb += std::fabs(scale * q[s] * b[s]);
                    }
                    // Decays have 2 u, the scale and its product 3 u, and one u is for all that is of higher order.
                    const double y_off = y_sum * ((Kd + 4.0) * u + map_u);
                    const double w_most = delta
                                              ? std::fabs(beta) * (std::fabs(values[static_cast<std::size_t>(n)]) + y_sum)
                                              : std::fabs(values[static_cast<std::size_t>(n)]);
                    const double w_off = delta ? std::fabs(beta) * y_off + 3.0 * u * w_most : 0.0;
                    const double b_most = dplr ? y_sum : 0.0,
                                 b_off = dplr ? y_off : 0.0;
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
                            const double got = p.got_z[static_cast<std::size_t>(place * K + i)];
                            worst_z.see(absolute_error(got, exact) / tolerance, at, got, exact);
                            continue;
                        }
                        if (c.bf16_state) {
                            tolerance += sm::unit_roundoff<bf16> * (std::fabs(exact) + tolerance) + 0x1p-134;
                        }
                        const double got = p.got_state[static_cast<std::size_t>((place * K + i) * V + n)];
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
                    tolerance += p.rounded * (std::fabs(exact) + tolerance) + p.smallest;
                    const index written = item * c.out_heads() + (c.query_heads >= c.heads ? first_query + j : head);
                    const double got = p.got[static_cast<std::size_t>(written * V + n)];
                    worst_out.see(absolute_error(got, exact) / tolerance, at, got, exact);
                }
            }
        }
    }
    INFO(c);
    INFO("in tolerances: out " << worst_out << "; state " << worst_state << "; normaliser " << worst_z);
    CHECK((worst_out.error <= 1.0 && worst_state.error <= 1.0 && worst_z.error <= 1.0));
}

/// The next token of a problem.
template <class T, class Out>
void check_next(problem<T, Out>& p)
{
    token t(p);
    p.run();
    t.see(p);
    check_token(p.c, t);
    CHECK(p.written_exactly());
}

template <class T = float, class Out = T>
void check(const step_case& c, int tokens = 2)
{
    problem<T, Out> p(c);
    for (int t = 0; t < tokens; ++t) { check_next(p); }
}

} // namespace

TEST_CASE("linear step: every rule, every size")
{
    for (const rule r : all_rules) {
        std::uint64_t seed = 0;
        for (index values :
             {index{0}, index{1}, lanes - 1, lanes, lanes + 1, 2 * lanes + 3, 7 * lanes + 5, 17 * lanes, index{100}}) {
            for (index size : {0, 1, 3, 17, 33}) {
                check({.rule = r, .batch = 1, .query_heads = 2, .key_heads = 2, .heads = 2, .size = size, .values = values, .seed = ++seed});
            }
        }
        check({.rule = r, .batch = 0}), check({.rule = r, .query_heads = 0, .key_heads = 0, .heads = 0});
        check({.rule = r, .batch = 1, .query_heads = 1, .key_heads = 1, .heads = 1, .size = 128, .values = 128}, 10);
    }
}

TEST_CASE("linear step: every rule with every layout, state and number type")
{
    for (const rule r : all_rules) {
        for (lie stands : all_lies) {
            for (const bool narrow : {false, true}) {
                for (const bool elsewhere : {false, true}) {
                    check({.rule = r, .size = 19, .values = 2 * lanes + 3, .stands = stands, .bf16_state = narrow, .elsewhere = elsewhere});
                }
            }
        }
    }
    for (lie stands : all_lies) {
        step_case c{.query_heads = 6, .size = 19, .values = lanes + 3, .stands = stands, .bf16_state = true};
        c.rule = rule::gla, check<bf16>(c);
        c.rule = rule::gated_delta, check<f16>(c);
        c.rule = rule::rwkv7, check<bf16, float>(c);
    }
}

TEST_CASE("linear step: shared heads")
{
    struct groups {
        index q, k, v;
    };
    for (const groups& heads : {groups{4, 2, 4}, groups{8, 2, 4}, groups{1, 1, 3}, groups{2, 3, 6}, groups{12, 1, 4},
                                groups{10, 2, 2}, groups{3, 1, 1}, groups{1, 2, 4}, groups{1, 1, 1}}) {
        for (const rule r : all_rules) {
            for (lie stands : {lie::dense, lie::turned}) {
                check({.rule = r, .query_heads = heads.q, .key_heads = heads.k, .heads = heads.v, .size = 9, .values = lanes + 3,
                       .stands = stands});
            }
        }
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
        for (const rule of : all_rules) {
            check({.rule = of, .size = 9, .values = lanes + 3, .weakest = r.low, .strongest = r.high}, 5);
        }
    }
    const step_case c{.rule = rule::gla, .size = 9, .values = lanes + 3};
    problem<float> gone(c), anew(c);
    gone.channel_decay.fill([&] { return never; }), anew.state.fill([] { return 0.0f; });
    gone.run(), anew.run();
    CHECK(gone == anew);
}

TEST_CASE("linear step: feature maps and the normaliser")
{
    for (lie stands : all_lies) {
        for (index size : {1, 5, 17}) {
            step_case c{.query_heads = 6, .size = size, .values = lanes + 3, .stands = stands};
            c.features = features::taylor, check(c);
            c.features = features::elu_plus_one, c.normalize = true, check(c, 5);
            c.rule = rule::gated_delta, c.features = features::unit_length, c.normalize = false, check(c, 5);
        }
    }
    // Positive weights without a map. The normaliser takes the bonus too.
    for (const rule r : all_rules) {
        if (!is_additive(r)) { continue; }
        for (lie stands : {lie::dense, lie::turned}) {
            problem<float> p({.rule = r, .query_heads = 6, .size = 17, .values = lanes + 3, .stands = stands, .normalize = true});
            for (auto* x : {&p.q, &p.k}) {
                for_each((*x)(), [](float& y, auto...) { y = 0.1f + std::fabs(y); });
            }
            for_each(p.u(), [](float& y, auto...) { y = 0.1f + std::fabs(y); });
            for (int t = 0; t < 5; ++t) { check_next(p); }
        }
    }
}

TEST_CASE("linear step: an explicit scale")
{
    const step_case c{.rule = rule::gla, .size = 16};
    problem<float> p(c), twice(c);
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
        const step_case c{.rule = rule::kda, .size = 19, .values = 2 * lanes + 3, .stands = stands};
        problem<float> wide(c), down(c), up(c);
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
    for (const rule r : all_rules) {
        const step_case c{.rule = r, .size = 9, .values = lanes + 3, .elsewhere = true};
        problem<float> want(c);
        want.run();
        for (lie read : all_lies) {
            for (lie written : all_lies) {
                problem<float> p(c);
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
    }
}

TEST_CASE("linear step: an initial state elsewhere is left as it was, so that a ring of states rolls back")
{
    const index slots = 4;
    for (const rule r : all_rules) {
        const step_case c{.rule = r, .size = 9, .values = lanes + 3};
        operand<float, 5> ring({slots, c.batch, c.heads, c.size, c.values}, lie::dense);
        ring.fill([] { return 0.5f; });
        problem<float> in_place(c);
        in_place.state.copy(ring()[0]);
        std::vector<std::unique_ptr<problem<float>>> after; // in-place, each token
        for (index t = 0; t < slots - 1; ++t) {
            problem<float> next({.rule = r, .size = 9, .values = lanes + 3, .seed = static_cast<std::uint64_t>(t) + 7});
            auto o = next.options();
            o.initial_state = ring()[t], o.state = ring()[t + 1];
            next.run(o);
            auto same = std::make_unique<problem<float>>(next.c);
            same->state.copy(t == 0 ? in_place.state() : after.back()->state());
            same->run();
            CHECK(same_bits(same->out(), next.out()));
            CHECK(same_bits(same->state(), ring()[t + 1]));
            after.push_back(std::move(same));
        }
        for (index t = 0; t < slots - 1; ++t) {
            CHECK(same_bits(ring()[t], t == 0 ? in_place.state() : after[static_cast<std::size_t>(t) - 1]->state()));
        }
    }
}

TEST_CASE("linear step: the same bits for every number of threads and every batch")
{
    for (const rule r : all_rules) {
        const step_case c{.rule = r, .batch = 7, .query_heads = 6, .key_heads = 1, .heads = 3, .size = 17, .values = 3 * lanes + 5};
        problem<float> alone(c);
        alone.run();
        for (int workers : {1, 2, 3, 5}) {
            problem<float> shared(c);
            sm::context ctx{sm::parallel_for{workers, test_support::on_threads{}}};
            shared.run(ctx);
            INFO(workers << " workers");
            CHECK(shared == alone);
        }
        problem<float> singly(c);
        for (index b = 0; b < c.batch; ++b) {
            const auto one = [b](const auto& v) { return v.slice(0, b, b + 1); };
            auto in = singly.operands();
            in.token_decay = one(in.token_decay), in.channel_decay = one(in.channel_decay), in.beta = one(in.beta);
            in.a = one(in.a), in.b = one(in.b);
            auto o = singly.options();
            o.state = one(singly.state());
            step<float, float>(r, features::given, one(singly.q()), one(singly.k()), one(singly.v()), in, one(singly.out()), o, {});
        }
        CHECK(singly == alone);
    }
}

TEST_CASE("linear step: NaN and infinities stay where they are read")
{
    for (const rule r : all_rules) {
        const step_case c{.rule = r, .query_heads = 3, .size = 9, .values = lanes + 5};
        problem<float> clean(c);
        clean.run();
        // Put into sequence 1, head 1: key channel 2, value channel 4. Everything of the head's, one column, or its outputs
        // alone.
        enum class reach { head, column, outputs };
        const auto spreads = [&](const char* name, reach how, float bad, void (*put)(problem<float>&, float)) {
            problem<float> p(c);
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
            spreads("q", reach::outputs, bad, [](problem<float>& p, float x) { p.q()(1, 1, 2) = x; });
            spreads("k", reach::head, bad, [](problem<float>& p, float x) { p.k()(1, 1, 2) = x; });
            spreads("v", reach::column, bad, [](problem<float>& p, float x) { p.v()(1, 1, 4) = x; });
            spreads("state", reach::column, bad, [](problem<float>& p, float x) { p.state()(1, 1, 2, 4) = x; });
            if (is_delta(r)) {
                spreads("beta", reach::head, bad, [](problem<float>& p, float x) { p.beta()(1, 1) = x; });
            }
            if (r == rule::rwkv7) {
                spreads("a", reach::head, bad, [](problem<float>& p, float x) { p.a()(1, 1, 2) = x; });
                spreads("b", reach::head, bad, [](problem<float>& p, float x) { p.b()(1, 1, 2) = x; });
            }
        }
        const float nan = std::numeric_limits<float>::quiet_NaN();
        if (decays_of(r) == decays::token) {
            spreads("log_decay", reach::head, nan, [](problem<float>& p, float x) { p.token_decay()(1, 1) = x; });
        }
        if (decays_of(r) == decays::channel && r != rule::rwkv6) {
            spreads("log_decay", reach::head, nan, [](problem<float>& p, float x) { p.channel_decay()(1, 1, 2) = x; });
        }
    }
}

TEST_CASE("linear step: nothing is read or written beyond the end of memory")
{
    const auto edge = [](rule r, auto type, auto state_type, index K, index V) {
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
        step_operands<T> in;
        in.head_decay = sm::view<float, 1>(g.data() + K - 1, {1}), in.token_decay = sm::view<float, 2>(g.data() + K - 1, {1, 1});
        in.channel_decay = one(g.data(), K), in.bonus = sm::view<float, 2>(u.data(), {index{1}, K});
        in.beta = sm::view<float, 2>(beta.data(), {1, 1}), in.a = one(a.data(), K), in.b = one(b.data(), K);
        linear::step_options o;
        o.initial_state = sm::view<S, 4>(from.data(), {index{1}, index{1}, K, V});
        o.state = sm::view<S, 4>(to.data(), {index{1}, index{1}, K, V});
        step<T, T>(r, features::given, one(q.data(), K), one(k.data(), K), one(v.data(), V), in, one(out.data(), V), o, {});
        CHECK(as_double(out[0]) != 0.0); // a fault is what fails
    };
    for (index K : {index{1}, index{19}}) {
        for (index V : {index{1}, lanes, lanes + 1, 11 * lanes + 3}) {
            for (const rule r : all_rules) { edge(r, 0.0f, 0.0f, K, V), edge(r, 0.0f, bf16{}, K, V); }
            edge(rule::gla, bf16{}, bf16{}, K, V), edge(rule::gated_delta, f16{}, 0.0f, K, V);
        }
    }
}

TEST_CASE("linear step: scratch is the caller's, exactly, and nothing else is allocated")
{
    for (const rule r : all_rules) {
        for (lie stands : {lie::dense, lie::swapped}) {
            const step_case c{.rule = r, .query_heads = 6, .size = 17, .values = lanes + 3, .stands = stands, .normalize = is_additive(r)};
            sm::context<> ctx;
            test_support::check_scratch([&] { return problem<float>(c); }, [](auto& p, const sm::context_ref& on) { p.run(on); }, ctx);
        }
    }
}

} // namespace linear_step_test
