// SPDX-License-Identifier: MIT
#pragma once

// How operands of four axes stand in memory is as in the tests of the state-space duality.
#include "ssd_case.hpp"

#include <seqmix/linear/options.hpp>
#include <seqmix/linear/reference.hpp>
#include <seqmix/linear/rules.hpp>

#include <optional>

// One linear attention as a value, its operands in memory, and what exact arithmetic makes of it. What a rule is stands here as a
// value too, so that tests are compiled once for all rules.

namespace linear_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using namespace test_support;
using sm::bf16;
using sm::f16;
using sm::form;
using sm::index;
using ssd_test::all_stands;
using ssd_test::axes;
using ssd_test::narrow_products;
using ssd_test::placed;
using ssd_test::stand;

inline constexpr index lanes = sm::simd::lanes<test_arch>;

enum class rule { additive, retention, simple_gla, gla, delta, gated_delta, kda, rwkv6, rwkv7 };
inline constexpr rule all_rules[] = {rule::additive,    rule::retention, rule::simple_gla, rule::gla,  rule::delta,
                                     rule::gated_delta, rule::kda,       rule::rwkv6,      rule::rwkv7};
inline constexpr const char* rule_names[] = {"additive", "retention", "simple_gla", "gla", "delta", "gated_delta", "kda", "rwkv6", "rwkv7"};

enum class decays { none, head, token, channel };
inline decays decays_of(rule r)
{
    switch (r) {
    case rule::additive:
    case rule::delta: return decays::none;
    case rule::retention: return decays::head;
    case rule::simple_gla:
    case rule::gated_delta: return decays::token;
    default: return decays::channel;
    }
}
inline bool is_delta(rule r) { return r == rule::delta || r == rule::gated_delta || r == rule::kda; }
inline bool is_additive(rule r) { return !is_delta(r) && r != rule::rwkv7; }

/// Features of queries and keys.
enum class features { given, elu_plus_one, relu, exp, taylor, unit_length };

/// What a rule takes besides queries, keys and values; null where it does not.
template <class T>
struct rule_operands {
    sm::view<const float, 1> head_decay;
    sm::view<const float, 3> token_decay;
    sm::view<const float, 4> channel_decay;
    sm::view<const float, 3> beta;
    sm::view<const float, 2> bonus;
    sm::view<const T, 4> a, b;
};

/// The doors under test. Defined in linear_doors.hpp, and for a few types and rules each in one file, so that they are compiled once.
template <class T, class Out>
void run_forward(rule r, features f, const sm::view<const T, 4>& q, const sm::view<const T, 4>& k, const sm::view<const T, 4>& v,
                 const rule_operands<T>& in, const sm::view<Out, 4>& out, const linear::options& options, const sm::context_ref& ctx = {});
template <class T>
void run_packed(rule r, const sm::view<const T, 4>& q, const sm::view<const T, 4>& k, const sm::view<const T, 4>& v,
                const rule_operands<T>& in, const sm::view<T, 4>& out, const sm::view<const index, 1>& cu_seqlens,
                const linear::options& options, const sm::context_ref& ctx = {});

struct linear_case {
    linear_test::rule rule = rule::additive;
    linear_test::features features = features::given;
    index batch = 1, heads = 1;
    index key_heads = 0, query_heads = 0; ///< 0: as many as heads
    index size = 1, values = 1, length = 1;
    bool initial = false;    ///< initial_state is given
    bool state = false;      ///< state is given; it begins the sequence unless initial_state does
    bool bf16_state = false; ///< in bf16
    bool normalize = false;
    bool normalizer = false; ///< is given
    bool accumulate = false;
    sm::form form = form::chunked;
    index chunk = 0, snapshots = 0; ///< every so many tokens; 0: none
    std::optional<float> scale{};
    stand stands{};
    range g{-1.0f, -0.01f}, beta{0.0f, 1.0f};
    std::uint64_t seed = 1;

    index of_keys() const { return key_heads == 0 ? heads : key_heads; }
    index of_queries() const { return query_heads == 0 ? heads : query_heads; }
    index out_heads() const { return std::max(of_queries(), heads); }
    index keys() const { return features == features::taylor ? 1 + size + size * size : size; }
    linear_case as(sm::form f, index of_chunk = 0) const
    {
        linear_case c = *this;
        c.form = f, c.chunk = of_chunk;
        return c;
    }
    linear_case of(linear_test::rule r) const
    {
        linear_case c = *this;
        c.rule = r;
        return c;
    }
};

inline std::ostream& operator<<(std::ostream& out, const linear_case& c)
{
    const char* const forms[] = {"automatic", "recurrent", "chunked"};
    out << rule_names[static_cast<int>(c.rule)] << ", features " << static_cast<int>(c.features) << ", B " << c.batch << " L " << c.length
        << " H " << c.of_queries() << '/' << c.of_keys() << '/' << c.heads << " D " << c.size << " V " << c.values;
    const std::pair<bool, const char*> words[] = {{c.initial, "initial_state"}, {c.state, "state"},           {c.bf16_state, "bf16 state"},
                                                  {c.normalize, "normalize"},   {c.normalizer, "normalizer"}, {c.accumulate, "accumulate"}};
    for (const auto& [given, word] : words) {
        if (given) { out << ", " << word; }
    }
    return out << ", " << forms[static_cast<int>(c.form)] << ", chunk " << c.chunk << ", snapshots " << c.snapshots << ", lie "
               << static_cast<int>(c.stands.how) << " of axes " << static_cast<int>(c.stands.order) << " skipping " << c.stands.skipped
               << ", g " << c.g.low << ".." << c.g.high << ", beta " << c.beta.low << ".." << c.beta.high << ", seed " << c.seed;
}

/// The operands. Keys of delta rules have unit length, as have the vectors of rwkv7, which erase as far as a number from beta's range
/// says; sums of weights that are divided by are of positive numbers.
template <class T>
struct linear_problem {
    linear_case c;
    placed<T, 4> q, k, v, a, b;
    placed<float, 1> head_decay;
    placed<float, 3> token_decay, beta;
    placed<float, 4> channel_decay, initial;
    placed<float, 2> bonus;
    std::vector<float> start, start_normalizer, before; ///< what state, normalizer and out hold when the call begins

    explicit linear_problem(const linear_case& the_case)
        : c(the_case), q({c.batch, c.length, c.of_queries(), c.size}, c.stands), k({c.batch, c.length, c.of_keys(), c.size}, c.stands),
          v({c.batch, c.length, c.heads, c.values}, c.stands)
    {
        random_source random(c.seed * 7919 + 13);
        const auto normal = [&] { return random.normal(); };
        const auto decay = [&] { return random.uniform(c.g.low, c.g.high); };
        const auto strength = [&] { return random.uniform(c.beta.low, c.beta.high); };
        const bool positive = c.normalize && c.features == features::given;
        const auto weight = [&] { return positive ? std::fabs(random.normal()) : random.normal(); };
        q.fill(weight), k.fill(weight), v.fill(normal);
        if (is_delta(c.rule)) { make_unit(k()); }
        const std::array<index, 4> channels{c.batch, c.length, c.heads, c.keys()};
        const std::array<index, 3> tokens{c.batch, c.length, c.heads};
        switch (decays_of(c.rule)) {
        case decays::head: (head_decay = placed<float, 1>({c.heads}, c.stands)).fill(decay); break;
        case decays::token: (token_decay = placed<float, 3>(tokens, c.stands)).fill(decay); break;
        case decays::channel: (channel_decay = placed<float, 4>(channels, c.stands)).fill(decay); break;
        case decays::none: break;
        }
        if (is_delta(c.rule)) { (beta = placed<float, 3>(tokens, c.stands)).fill(strength); }
        if (c.rule == rule::rwkv6) { (bonus = placed<float, 2>({c.heads, c.keys()}, c.stands)).fill(normal); }
        if (c.rule == rule::rwkv7) {
            (a = placed<T, 4>(channels, c.stands)).fill(normal);
            make_unit(a());
            b = placed<T, 4>(channels, c.stands);
            for_each(b(), [&](T& x, auto... at) { x = T(-strength() * static_cast<float>(a()(at...))); });
        }
        if (c.initial) { (initial = placed<float, 4>(states(), c.stands)).fill(normal); }
        start = random.normals(static_cast<std::size_t>(c.batch * c.heads * c.keys() * c.values));
        start_normalizer = random.uniforms(static_cast<std::size_t>(c.batch * c.heads * c.keys()), 0.5f, 1.0f);
        before = random.normals(static_cast<std::size_t>(c.batch * c.length * c.out_heads() * c.values));
    }

    std::array<index, 4> outputs() const { return {c.batch, c.length, c.out_heads(), c.values}; }
    std::array<index, 4> states() const { return {c.batch, c.heads, c.keys(), c.values}; }
    std::array<index, 3> normalizers() const { return {c.batch, c.heads, c.keys()}; }
    std::array<index, 5> snapshots() const { return {c.batch, c.length / c.snapshots, c.heads, c.keys(), c.values}; }
    sm::view<const float, 4> start_view() const { return {start.data(), {c.batch, c.heads, c.keys(), c.values}}; }
    sm::view<const float, 3> normalizer_view() const { return {start_normalizer.data(), {c.batch, c.heads, c.keys()}}; }
    sm::view<const float, 4> before_view() const { return {before.data(), {c.batch, c.length, c.out_heads(), c.values}}; }

    rule_operands<T> operands() const
    {
        rule_operands<T> o;
        const auto give = [](auto& to, const auto& from) {
            if (from.given()) { to = from(); }
        };
        give(o.head_decay, head_decay), give(o.token_decay, token_decay), give(o.channel_decay, channel_decay), give(o.beta, beta);
        give(o.bonus, bonus), give(o.a, a), give(o.b, b);
        return o;
    }
    /// All but what is written.
    linear::options options() const
    {
        linear::options o;
        o.scale = c.scale, o.normalize = c.normalize, o.form = c.form, o.chunk = c.chunk, o.accumulate = c.accumulate;
        if (c.initial) { o.initial_state = initial(); }
        return o;
    }

private:
    static void make_unit(const sm::view<T, 4>& rows)
    {
        for (index b = 0; b < rows.extent(0); ++b) {
            for (index t = 0; t < rows.extent(1); ++t) {
                for (index h = 0; h < rows.extent(2); ++h) {
                    double sum = 0.0;
                    for_each(rows[b][t][h], [&](T& x, index) { sum += as_double(x) * as_double(x); });
                    for_each(rows[b][t][h], [&](T& x, index) { x = T(static_cast<float>(as_double(x) / std::sqrt(sum))); });
                }
            }
        }
    }
};

/// The shares of a call's operands: part(operand) of those that have tokens.
template <class T, class Part>
rule_operands<T> parts_of(rule_operands<T> o, const Part& part)
{
    const auto cut = [&](auto& operand) {
        if (operand) { operand = part(operand); }
    };
    cut(o.token_decay), cut(o.channel_decay), cut(o.beta), cut(o.a), cut(o.b);
    return o;
}

/// What a call writes, prepared for it.
template <class Out>
struct linear_result {
    placed<Out, 4> out;
    placed<float, 4> state;
    placed<bf16, 4> narrow_state;
    placed<float, 3> normalizer;
    placed<float, 5> snapshots;

    template <class T>
    explicit linear_result(const linear_problem<T>& p) : out(p.outputs(), p.c.stands)
    {
        const linear_case& c = p.c;
        if (c.accumulate) { out.copy(p.before_view()); }
        if (c.state && c.bf16_state) { (narrow_state = placed<bf16, 4>(p.states(), c.stands)).copy(p.start_view()); }
        if (c.state && !c.bf16_state) { (state = placed<float, 4>(p.states(), c.stands)).copy(p.start_view()); }
        if (c.normalizer) { (normalizer = placed<float, 3>(p.normalizers(), c.stands)).copy(p.normalizer_view()); }
        if (c.snapshots > 0) { snapshots = placed<float, 5>(p.snapshots(), c.stands); }
    }
    void ask_in(linear::options& o, index interval = 0) const
    {
        if (state.given()) { o.state = state(); }
        if (narrow_state.given()) { o.state = narrow_state(); }
        if (normalizer.given()) { o.normalizer = normalizer(); }
        if (interval > 0) { o.snapshots = snapshots(), o.snapshot_interval = interval; }
    }
    bool written_exactly() const
    {
        return out.written_exactly() && state.written_exactly() && narrow_state.written_exactly() && normalizer.written_exactly() &&
               snapshots.written_exactly();
    }
    friend bool operator==(const linear_result& a, const linear_result& b)
    {
        return same_bits(a.out(), b.out()) && same_bits(a.state(), b.state()) && same_bits(a.narrow_state(), b.narrow_state()) &&
               same_bits(a.normalizer(), b.normalizer()) && same_bits(a.snapshots(), b.snapshots());
    }
};

template <class T, class Out>
void run(const linear_problem<T>& p, linear_result<Out>& r, const sm::context_ref& ctx = {})
{
    linear::options options = p.options();
    r.ask_in(options, p.c.snapshots);
    run_forward<T, Out>(p.c.rule, p.c.features, p.q(), p.k(), p.v(), p.operands(), r.out(), options, ctx);
}

/// The features of a row, and how far each may be off, relatively.
inline std::vector<double> features_of(features f, const std::vector<double>& x)
{
    std::vector<double> y = x;
    double sum = 0.0;
    for (double& z : y) {
        sum += z * z;
        if (f == features::elu_plus_one) { z = z > 0.0 ? z + 1.0 : std::exp(z); }
        if (f == features::relu) { z = std::max(z, 0.0); }
        if (f == features::exp) { z = std::exp(z); }
    }
    for (double& z : y) {
        if (f == features::unit_length) { z /= std::sqrt(sum + static_cast<double>(1e-6f)); }
    }
    if (f == features::taylor) {
        const double factor = std::pow(static_cast<double>(x.size()), -0.25);
        y = {1.0};
        for (double z : x) { y.push_back(z * factor); }
        for (double z : x) {
            for (double w : x) { y.push_back(z * factor * w * factor / std::sqrt(2.0)); }
        }
    }
    return y;
}
inline double feature_error(features f, index size)
{
    constexpr double u = sm::unit_roundoff<float>;
    switch (f) {
    case features::elu_plus_one:
    case features::exp: return 2.0 * u; // 0.92 ulp of an exponential
    case features::unit_length: return (static_cast<double>(size) / 2.0 + 5.0) * u; // half of the sum's, a root, a quotient, a product
    case features::taylor: return 10.0 * u; // two roots and a quotient make a factor, which goes in twice, and so does half a root
    default: return 0.0;
    }
}

/// One state and one query head that reads it, in double. With `normalize` a last column has values of 1.
struct head_numbers {
    index length, keys, columns;
    std::vector<double> q, k, v, g, beta, a, b, u, start;
    double scale;

    template <class T>
    head_numbers(const linear_problem<T>& p, index item, index head, index query)
        : length(p.c.length), keys(p.c.keys()), columns(p.c.values + (p.c.normalize ? 1 : 0)),
          scale(p.c.scale ? as_double(*p.c.scale) : p.c.size > 0 ? 1.0 / std::sqrt(static_cast<double>(p.c.size)) : 1.0)
    {
        const linear_case& c = p.c;
        const index key_head = head / std::max<index>(c.heads / std::max<index>(c.of_keys(), 1), 1);
        const auto row = [](const auto& from) {
            std::vector<double> to;
            for_each(from, [&](const auto& x, index) { to.push_back(as_double(x)); });
            return to;
        };
        const auto append = [](std::vector<double>& to, const std::vector<double>& more) { to.insert(to.end(), more.begin(), more.end()); };
        for (index t = 0; t < length; ++t) {
            append(q, features_of(c.features, row(p.q()[item][t][query])));
            append(k, features_of(c.features, row(p.k()[item][t][key_head])));
            append(v, row(p.v()[item][t][head]));
            if (c.normalize) { v.push_back(1.0); }
            for (index i = 0; i < keys; ++i) {
                if (p.head_decay.given()) { g.push_back(as_double(p.head_decay()(head))); }
                if (p.token_decay.given()) { g.push_back(as_double(p.token_decay()(item, t, head))); }
                if (p.channel_decay.given()) { g.push_back(as_double(p.channel_decay()(item, t, head, i))); }
            }
            if (p.beta.given()) { beta.push_back(as_double(p.beta()(item, t, head))); }
            if (p.a.given()) { append(a, row(p.a()[item][t][head])), append(b, row(p.b()[item][t][head])); }
        }
        if (p.bonus.given()) { u = row(p.bonus()[head]); }
        for (index i = 0; i < keys; ++i) {
            for (index j = 0; j < c.values; ++j) {
                const float started = p.start_view()(item, head, i, j);
                start.push_back(c.initial ? as_double(p.initial()(item, head, i, j))
                                : !c.state ? 0.0
                                : c.bf16_state ? as_double(bf16(started))
                                               : as_double(started));
            }
            if (c.normalize) { start.push_back(c.normalizer ? as_double(p.normalizer_view()(item, head, i)) : 0.0); }
        }
    }

    /// The view of one token, or of all.
    linear::reference::head tokens(index first, index count) const
    {
        const auto rows = [&](const std::vector<double>& of, index width) {
            return of.empty() ? sm::view<const double, 2>() : sm::view<const double, 2>(of.data() + first * width, {count, width});
        };
        linear::reference::head h;
        h.q = rows(q, keys), h.k = rows(k, keys), h.v = rows(v, columns), h.g = rows(g, keys), h.a = rows(a, keys), h.b = rows(b, keys);
        if (q.empty()) { h.q = h.k = {nullptr, {count, keys}}; }
        if (v.empty()) { h.v = {nullptr, {count, columns}}; }
        if (!beta.empty()) { h.beta = {beta.data() + first, {count}}; }
        if (!u.empty()) { h.u = {u.data(), {keys}}; }
        h.scale = scale;
        return h;
    }
};

/// The error bound of one state and of what a query reads of it; u = 2^-24.
///
/// What a token reads of the state (queries, and what the delta rules and rwkv7 ask for) is a sum whose terms' absolute values add up
/// to `gross`: they count from the start of the chunk, with what has been written since. It is off by
///   - K + q + 8 roundings after q tokens of a chunk; token by token K + 6;
///   - the error of decays: of cumulated ones 4 u, (2^-46 + q 2^-53) of all that is cumulated, of products of q decays (3 + 3 q) u; 2.3 u
///     |log decay| (`weighted`); what is below 2^-100 is 0 (`undecayed`);
///   - where products are of bf16, the rounding of both operands.
/// What is written is off by what it has read, times beta, and by 2 u. The state at the end of a chunk (token by token: of each token)
/// is off by q + 8 roundings (3) and decays likewise. All these are local errors: they enter the exact recurrence, which says what
/// becomes of them. So each is followed to the outputs: for decays alone by decaying it, with the delta rules and rwkv7 by
/// taking the query back through the tokens, r = Aᵀr for S = A S: a bound of the absolute values of A would double with every token.
class linear_bound {
public:
    static constexpr double u = sm::unit_roundoff<float>;

    linear_bound(const linear_case& c, const head_numbers& n, bool bf16_products)
        : c_(c), n_(n), recurrent_(c.form == form::recurrent), any_chunk_(c.form == form::automatic || (!recurrent_ && c.chunk == 0)),
          narrow_(bf16_products && !recurrent_), tiny_(narrow_ ? 0x1p-126 : 0x1p-149), entries_(n.start.size()), error_(n.start.size())
    {
    }

    /// Token t turned the states `before` into `after`: how far sums over them for the query may be off, in output_error.
    void advance(index t, const std::vector<double>& before, const std::vector<double>& after)
    {
        const auto K = static_cast<std::size_t>(n_.keys), V = static_cast<std::size_t>(n_.columns), T = static_cast<std::size_t>(t);
        const bool chunk_ends = tokens_ == c_.chunk || (c_.snapshots > 0 && t % c_.snapshots == 0);
        if (tokens_ == 0 || recurrent_ || (!any_chunk_ && chunk_ends)) {
            for (std::size_t i = 0; i < entries_.size(); ++i) {
                const double size = std::fabs(before[i]);
                entries_[i] = {size, 0.0, size, 0.0};
            }
            tokens_ = 0, cumulated_ = 0.0;
        }
        ++tokens_;
        const double q = static_cast<double>(tokens_), pair = narrow_ ? 2.0 : 1.0;
        double strongest = 0.0;
        for (std::size_t i = 0; i < K && !n_.g.empty(); ++i) { strongest = std::max(strongest, std::fabs(n_.g[T * K + i])); }
        cumulated_ += std::min(strongest, 256.0);
        const double of_decays = n_.g.empty() ? 0.0
                                 : decays_of(c_.rule) == decays::channel
                                     ? (3.0 + 3.0 * q) * u
                                     : (recurrent_ ? 2.0 * u : 4.0 * u + (0x1p-46 + q * 0x1p-53) * cumulated_);
        const double rounded = narrow_ ? 2.0 * sm::unit_roundoff<bf16> : 0.0;
        const double reads = (recurrent_ ? static_cast<double>(K) + 6.0 : pair * (static_cast<double>(K) + q) + 8.0) * u + of_decays + rounded;
        const double keeps = (recurrent_ ? 2.0 : pair * q + 8.0) * u + of_decays, forgotten = q * 0x1p-100;
        const double of_features = feature_error(c_.features, c_.size), of_query = of_features + (c_.scale ? u : 3.0 * u);
        const auto seen = [&](double weight, const entry& e, double relative) {
            return std::fabs(weight) * (relative * e.gross + e.weighted + forgotten * e.undecayed) +
                   8.0 * tiny_ * (1.0 + std::fabs(weight)) * (1.0 + e.undecayed);
        };
        injected_.assign(entries_.size(), 0.0), output_error.assign(V, 0.0);
        const std::vector<double> error_before = error_;
        for (std::size_t j = 0; j < V; ++j) {
            double erased = 0.0, erased_error = 0.0, recalled = 0.0, recalled_error = 0.0, own = 0.0;
            for (std::size_t i = 0; i < K; ++i) {
                entry& e = entries_[i * V + j];
                const std::size_t at = T * K + i;
                if (!n_.u.empty()) {
                    output_error[j] += seen(n_.q[at], e, reads + of_query) + std::fabs(n_.q[at]) * error_before[i * V + j];
                    own += std::fabs(n_.q[at] * n_.u[i] * n_.k[at]);
                }
                if (!n_.a.empty()) { erased += n_.a[at] * before[i * V + j], erased_error += seen(n_.a[at], e, reads); }
                const double g = n_.g.empty() ? 0.0 : n_.g[at], keep = std::exp(g);
                e.weighted = keep == 0.0 ? 0.0 : keep * (e.weighted + 2.3 * u * std::fabs(g) * e.gross);
                e.gross *= keep, e.inside *= keep, error_[i * V + j] *= keep;
                if (!n_.beta.empty()) { recalled += n_.k[at] * keep * before[i * V + j], recalled_error += seen(n_.k[at], e, reads + of_features); }
            }
            const double value = n_.v[T * V + j], beta = n_.beta.empty() ? 1.0 : n_.beta[T];
            const double written = n_.beta.empty() ? value : beta * (value - recalled);
            const double written_error =
                n_.beta.empty() ? 0.0 : std::fabs(beta) * recalled_error + 2.0 * u * (std::fabs(written) + std::fabs(beta * value)) + 4.0 * tiny_;
            output_error[j] += own * (reads + of_query + of_features) * std::fabs(written);
            for (std::size_t i = 0; i < K; ++i) {
                entry& e = entries_[i * V + j];
                const std::size_t at = T * K + i;
                const double key = std::fabs(n_.k[at]), eraser = n_.b.empty() ? 0.0 : std::fabs(n_.b[at]);
                const double enters = key * std::fabs(written) + eraser * std::fabs(erased);
                e.gross += enters, e.inside += enters, e.undecayed += enters;
                double& local = injected_[i * V + j];
                local = key * (written_error + of_features * std::fabs(written)) + eraser * erased_error;
                const bool stored = recurrent_ || any_chunk_ || tokens_ == c_.chunk || t + 1 == c_.length ||
                                    (c_.snapshots > 0 && (t + 1) % c_.snapshots == 0);
                if (stored) {
                    local += keeps * e.gross + e.weighted + forgotten * e.undecayed + rounded * e.inside + u * std::fabs(after[i * V + j]) +
                             8.0 * tiny_ * (1.0 + key) * (1.0 + e.undecayed);
                }
                error_[i * V + j] += local;
                if (n_.u.empty()) { output_error[j] += seen(n_.q[at], e, reads + of_query); }
                if (n_.u.empty() && diagonal()) { output_error[j] += std::fabs(n_.q[at]) * error_[i * V + j]; }
            }
        }
        if (!diagonal()) {
            history_.push_back(injected_);
            follow(t, std::vector<double>(n_.q.begin() + t * n_.keys, n_.q.begin() + (t + 1) * n_.keys), output_error);
        }
        const double second_order = narrow_ ? 1.0 + 0x1p-5 : 1.0 + 0x1p-10;
        for (double& e : output_error) { e *= second_order * std::fabs(n_.scale); }
    }

    /// Of the states after token t.
    std::vector<double> state_error(index t) const
    {
        if (diagonal() || t < 0) { return error_; }
        std::vector<double> all;
        for (index i = 0; i < n_.keys; ++i) {
            std::vector<double> r(static_cast<std::size_t>(n_.keys)), row(static_cast<std::size_t>(n_.columns));
            r[static_cast<std::size_t>(i)] = 1.0;
            follow(t, r, row);
            all.insert(all.end(), row.begin(), row.end());
        }
        return all;
    }

    std::vector<double> output_error;

private:
    struct entry {
        double gross = 0.0;     ///< absolute values of all that the state is a sum of, decayed
        double weighted = 0.0;  ///< gross times the relative error that the logarithms of its decays bring
        double undecayed = 0.0; ///< gross, had nothing decayed
        double inside = 0.0;    ///< gross without what has been carried in
    };
    bool diagonal() const { return is_additive(c_.rule); }

    /// Adds to `sum` what the local errors of tokens up to t do to r·S_t.
    void follow(index t, std::vector<double> r, std::vector<double>& sum) const
    {
        const auto K = static_cast<std::size_t>(n_.keys), V = static_cast<std::size_t>(n_.columns);
        for (auto s = static_cast<std::size_t>(t) + 1; s-- > 0;) {
            for (std::size_t i = 0; i < K; ++i) {
                for (std::size_t j = 0; j < V; ++j) { sum[j] += std::fabs(r[i]) * history_[s][i * V + j]; }
            }
            double at_key = 0.0, at_b = 0.0;
            for (std::size_t i = 0; i < K; ++i) {
                at_key += n_.k[s * K + i] * r[i];
                if (!n_.b.empty()) { at_b += n_.b[s * K + i] * r[i]; }
            }
            for (std::size_t i = 0; i < K; ++i) {
                const double keep = n_.g.empty() ? 1.0 : std::exp(n_.g[s * K + i]);
                if (!n_.beta.empty()) { r[i] -= n_.beta[s] * at_key * n_.k[s * K + i]; }
                r[i] = keep * r[i] + (n_.a.empty() ? 0.0 : at_b * n_.a[s * K + i]);
            }
        }
    }

    const linear_case& c_;
    const head_numbers& n_;
    bool recurrent_, any_chunk_, narrow_;
    double tiny_, cumulated_ = 0.0;
    index tokens_ = 0;
    std::vector<entry> entries_;
    std::vector<double> error_, injected_;
    std::vector<std::vector<double>> history_; ///< local errors of each token
};

/// What is wanted, and how far a result may be from it; all in logical order.
struct expectation {
    std::vector<double> out, out_tolerance, state, state_tolerance, normalizer, normalizer_tolerance, snapshots, snapshots_tolerance;
};

template <class Out, class T>
expectation expect(const linear_problem<T>& p)
{
    constexpr double u = linear_bound::u;
    const linear_case& c = p.c;
    expectation e;
    const auto size_of = [](auto... extents) { return static_cast<std::size_t>((extents * ...)); };
    const index shots = c.snapshots > 0 ? c.length / c.snapshots : 0, keys = c.keys();
    e.out.resize(size_of(c.batch, c.length, c.out_heads(), c.values)), e.out_tolerance = e.out;
    e.snapshots.resize(size_of(c.batch, shots, c.heads, keys, c.values)), e.snapshots_tolerance = e.snapshots;
    for (index item = 0; item < c.batch; ++item) {
        for (index o = 0; o < c.out_heads(); ++o) {
            const index readers = c.out_heads() / c.heads, head = o / readers, query = o / (c.out_heads() / c.of_queries());
            const head_numbers n(p, item, head, query);
            const bool first_reader = o % readers == 0;
            linear_bound bound(c, n, narrow_products<T>);
            std::vector<double> S = n.start;
            const auto columns = static_cast<std::size_t>(n.columns);
            for (index t = 0; t < c.length; ++t) {
                const std::vector<double> before = S;
                const std::vector<double> y = linear::reference::recurrence(n.tokens(t, 1), S, [](index, const auto&) {});
                bound.advance(t, before, S);
                for (index j = 0; j < c.values; ++j) {
                    double want = y[static_cast<std::size_t>(j)], error = bound.output_error[static_cast<std::size_t>(j)];
                    if (c.normalize) {
                        const double sum = std::fabs(y[columns - 1]), sum_error = bound.output_error[columns - 1];
                        want /= y[columns - 1];
                        error = sum_error < sum ? (error + std::fabs(want) * sum_error) / (sum - sum_error) : static_cast<double>(infinity);
                        error += 2.0 * u * (std::fabs(want) + error);
                    }
                    const index at = ((item * c.length + t) * c.out_heads() + o) * c.values + j;
                    if (c.accumulate) {
                        want += as_double(Out(p.before[static_cast<std::size_t>(at)]));
                        error += u * (std::fabs(want) + error);
                    }
                    if (!std::is_same_v<Out, float>) { error += sm::unit_roundoff<Out> * (std::fabs(want) + error) + half_smallest<Out>; }
                    e.out[static_cast<std::size_t>(at)] = want, e.out_tolerance[static_cast<std::size_t>(at)] = error;
                }
                if (!first_reader || shots == 0 || (t + 1) % c.snapshots != 0) { continue; }
                const std::vector<double> errors = bound.state_error(t);
                for (index i = 0; i < keys * c.values; ++i) {
                    const auto from = static_cast<std::size_t>(i / std::max<index>(c.values, 1)) * columns + static_cast<std::size_t>(i % c.values);
                    const auto to = size_of(((item * shots + t / c.snapshots) * c.heads + head), keys, c.values) + static_cast<std::size_t>(i);
                    e.snapshots[to] = S[from], e.snapshots_tolerance[to] = errors[from];
                }
            }
            if (!first_reader || (!c.state && !c.normalizer)) { continue; } // nobody asks, and it takes its time
            const std::vector<double> errors = bound.state_error(c.length - 1);
            for (std::size_t i = 0; i < S.size(); ++i) {
                if (c.normalize && i % columns == columns - 1) {
                    e.normalizer.push_back(S[i]), e.normalizer_tolerance.push_back(errors[i]);
                    continue;
                }
                double error = errors[i] * (1.0 + 0x1p-5);
                if (c.bf16_state && c.length > 0) { error += sm::unit_roundoff<bf16> * (std::fabs(S[i]) + error) + half_smallest<bf16>; }
                e.state.push_back(S[i]), e.state_tolerance.push_back(error);
            }
        }
    }
    return e;
}

template <class T>
inline error_record largest_error{type_name<T>};

/// Compares all that a call has written with the reference.
template <class T, class Out>
void check_result(const linear_problem<T>& p, const linear_result<Out>& r)
{
    const linear_case& c = p.c;
    const expectation want = expect<Out>(p);
    std::ostringstream place;
    place << c;
    const worst_error out = worst_in_tolerances(r.out(), want.out, want.out_tolerance);
    worst_error state, normalizer, snapshots;
    if (r.state.given()) { state = worst_in_tolerances(r.state(), want.state, want.state_tolerance); }
    if (r.narrow_state.given()) { state = worst_in_tolerances(r.narrow_state(), want.state, want.state_tolerance); }
    if (r.normalizer.given()) { normalizer = worst_in_tolerances(r.normalizer(), want.normalizer, want.normalizer_tolerance); }
    if (r.snapshots.given()) { snapshots = worst_in_tolerances(r.snapshots(), want.snapshots, want.snapshots_tolerance); }
    INFO(type_name<T> << ", out " << type_name<Out> << " on " << test_arch::name << ", " << place.str());
    if (out.at >= 0) {
        INFO("out of batch item " << out.at / c.values / c.out_heads() / c.length << ", token " << out.at / c.values / c.out_heads() % c.length
                                  << ", head " << out.at / c.values % c.out_heads() << ", channel " << out.at % c.values);
        INFO(out << ", in units of " << want.out_tolerance[static_cast<std::size_t>(out.at)]);
        CHECK(out.error <= 1.0);
    }
    INFO("state: " << state << "; normalizer: " << normalizer << "; snapshots: " << snapshots);
    CHECK(state.error <= 1.0);
    CHECK(normalizer.error <= 1.0);
    CHECK(snapshots.error <= 1.0);
    CHECK(r.written_exactly());
    // The rounding of a narrow result, which comes near to its bound easily, would hide everything else.
    if (std::is_same_v<Out, float> && !c.bf16_state) {
        largest_error<T>.see(std::max({out.error, state.error, normalizer.error, snapshots.error}), place.str());
    }
}

template <class T, class Out = T>
void check_case(const linear_case& c)
{
    const linear_problem<T> p(c);
    linear_result<Out> r(p);
    run(p, r);
    check_result(p, r);
}

} // namespace linear_test
