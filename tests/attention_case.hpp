// SPDX-License-Identifier: MIT
#pragma once

#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/tolerances.hpp"

#include <seqmix/attention/options.hpp>
#include <seqmix/attention/reference.hpp>
#include <seqmix/core/executor.hpp>
#include <seqmix/tile/blocking.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// One attention problem as a value, its operands in memory, and what exact arithmetic makes of it.

// A namespace, because POSIX has an index of its own in the global one.
namespace attention_test {

namespace sm = seqmix;
using sm::causal;
using test_support::error_record;
using test_support::on_threads;
using test_support::thorough;
using sm::index;
using sm::attention::reference::widened;

inline constexpr index lanes = sm::simd::lanes<test_arch>;
inline constexpr index columns = sm::tile::blocking<test_arch>::columns; ///< query rows in a panel

/// The doors under test. Defined in attention_test.cpp for float, bf16 and f16 alone, so that they are compiled once.
template <class T, class Out>
void run_forward(const sm::view<const T, 4>& q, const sm::view<const T, 4>& k, const sm::view<const T, 4>& v,
                 const sm::view<Out, 4>& out, const sm::attention::options& options, const sm::context_ref& ctx = {});

template <class T>
void run_forward_packed(const sm::view<const T, 3>& q, const sm::view<const T, 3>& k, const sm::view<const T, 3>& v,
                        const sm::view<T, 3>& out, const sm::view<const index, 1>& cu_queries,
                        const sm::view<const index, 1>& cu_keys, const sm::attention::options& options);

template <class T>
inline constexpr const char* type_name = std::is_same_v<T, float>      ? "f32"
                                         : std::is_same_v<T, sm::bf16> ? "bf16"
                                                                       : "f16";

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

struct attention_shape {
    index batch = 1, heads = 1, kv_heads = 1, queries = 1, keys = 1, key_size = 1, value_size = 1;
};

/// How an operand beside q, k and v lies in memory.
enum class lie { dense, spaced, reversed, repeated };

/// Bias or mask: which axes have the full extent (bit 0 is the batch, bit 3 the keys; the others have extent 1).
struct spread_rule {
    bool given = false;
    unsigned axes = 15;
    lie stands = lie::dense;
};

struct attention_rules {
    std::optional<float> scale{};
    sm::causal causal = sm::causal::none;
    sm::attention::window_size window{};
    float softcap = 0.0f;
    bool alibi = false;
    spread_rule bias{}, mask{};
    bool sinks = false;
    bool sigmoid = false;
    float sigmoid_bias = 0.0f;
    std::vector<index> query_offset{}, kv_lengths{};
};

enum class operand { q, k, v, bias };

/// A value put somewhere into an operand before anything is computed; last -1: the whole row.
struct poison {
    operand into = operand::v;
    index batch = 0, head = 0, row = 0, last = -1;
    float value = not_a_number;
};

struct attention_case {
    attention_shape shape{};
    attention_rules rules{};
    std::vector<poison> poisons{};
    float logit_scale = 1.0f; ///< of the queries
    std::uint64_t seed = 1;
};

inline std::ostream& operator<<(std::ostream& out, const attention_case& c)
{
    const attention_shape& s = c.shape;
    const attention_rules& r = c.rules;
    out << "B " << s.batch << " H " << s.heads << '/' << s.kv_heads << " Lq " << s.queries << " Lk " << s.keys << " Dk "
        << s.key_size << " Dv " << s.value_size;
    static constexpr const char* causals[] = {"none", "top_left", "bottom_right", "offset"};
    if (r.causal != sm::causal::none) { out << ", causal " << causals[static_cast<int>(r.causal)]; }
    if (r.window.left >= 0 || r.window.right >= 0) { out << ", window " << r.window.left << ' ' << r.window.right; }
    if (r.scale) { out << ", scale " << *r.scale; }
    if (r.softcap > 0) { out << ", softcap " << r.softcap; }
    if (r.alibi) { out << ", alibi"; }
    if (r.bias.given) { out << ", bias " << r.bias.axes << '/' << static_cast<int>(r.bias.stands); }
    if (r.mask.given) { out << ", mask " << r.mask.axes << '/' << static_cast<int>(r.mask.stands); }
    if (r.sinks) { out << ", sinks"; }
    if (r.sigmoid) { out << ", sigmoid " << r.sigmoid_bias; }
    for (index x : r.query_offset) { out << ", offset " << x; }
    for (index x : r.kv_lengths) { out << ", length " << x; }
    for (const poison& p : c.poisons) {
        out << ", " << p.value << " in "
            << "qkvb"[static_cast<int>(p.into)] << '[' << p.batch << ' ' << p.head << ' ' << p.row << ' ' << p.last
            << ']';
    }
    return out << ", seed " << c.seed;
}

/// Memory of a view that may be spaced, reversed or repeated; what lies between its elements is `filler`.
template <class T, std::size_t Rank>
class laid_out {
public:
    laid_out() = default;
    laid_out(const std::array<index, Rank>& extents, lie stands, T filler)
    {
        const index step = stands == lie::spaced ? 3 : 1;
        std::array<index, Rank> strides{};
        index size = step;
        for (std::size_t axis = Rank; axis-- > 0;) {
            const bool repeats = stands == lie::repeated && (axis == 0 || axis + 2 == Rank);
            strides[axis] = repeats ? 0 : size;
            if (!repeats) { size *= extents[axis]; }
        }
        memory_.reset(new T[static_cast<std::size_t>(size) + 1]);
        for (index i = 0; i <= size; ++i) { memory_[static_cast<std::size_t>(i)] = filler; }
        T* data = memory_.get();
        if (stands == lie::reversed) {
            for (std::size_t axis = 0; axis < Rank; ++axis) {
                data += strides[axis] * (extents[axis] > 0 ? extents[axis] - 1 : 0);
                strides[axis] = -strides[axis];
            }
        }
        view_ = sm::view<T, Rank>(data, extents, strides);
    }
    const sm::view<T, Rank>& view() const { return view_; }

private:
    std::unique_ptr<T[]> memory_; // not a vector: that of bool has no elements to point at
    sm::view<T, Rank> view_;
};

/// What is wanted, and how far a result may be from it.
struct expectation {
    std::vector<double> out, lse;
    std::vector<double> out_tolerance, lse_tolerance;
};

template <class T>
class attention_problem {
public:
    explicit attention_problem(const attention_case& c)
        : case_(c), q_(c.shape.batch * c.shape.heads * c.shape.queries * c.shape.key_size),
          k_(c.shape.batch * c.shape.kv_heads * c.shape.keys * c.shape.key_size),
          v_(c.shape.batch * c.shape.kv_heads * c.shape.keys * c.shape.value_size)
    {
        const attention_shape& s = c.shape;
        const attention_rules& r = c.rules;
        random_source random(c.seed * 7919 + 13);
        for (T& x : q_) { x = static_cast<T>(c.logit_scale * random.normal()); }
        for (T& x : k_) { x = static_cast<T>(random.normal()); }
        for (T& x : v_) { x = static_cast<T>(random.normal()); }
        const lie odd = c.seed % 3 == 0 ? lie::spaced : c.seed % 3 == 1 ? lie::dense : lie::reversed;
        if (r.alibi) {
            slopes_ = laid_out<float, 1>({s.heads}, odd, not_a_number);
            for (index h = 0; h < s.heads; ++h) { slopes_.view()(h) = std::ldexp(1.0f, -static_cast<int>(h % 8)); }
        }
        if (r.sinks) {
            sinks_ = laid_out<float, 1>({s.heads}, odd, not_a_number);
            for (index h = 0; h < s.heads; ++h) { sinks_.view()(h) = 2.0f * random.normal(); }
        }
        const auto numbers = [&](laid_out<index, 1>& to, const std::vector<index>& from) {
            if (from.empty()) { return; }
            to = laid_out<index, 1>({static_cast<index>(from.size())}, odd, -77);
            for (std::size_t i = 0; i < from.size(); ++i) { to.view()(static_cast<index>(i)) = from[i]; }
        };
        numbers(query_offset_, r.query_offset);
        numbers(kv_lengths_, r.kv_lengths);
        if (r.bias.given) {
            bias_ = laid_out<float, 4>(extents(r.bias), r.bias.stands, not_a_number);
            for_each(bias_.view(),
                     [&](float& x, index) { x = random.unit() < 0.125f ? -infinity : 2.0f * random.normal(); });
        }
        if (r.mask.given) {
            mask_ = laid_out<bool, 4>(extents(r.mask), r.mask.stands, true);
            bool row_is_dead = false;
            for_each(mask_.view(), [&](bool& x, index key) {
                if (key == 0) { row_is_dead = random.unit() < 0.1f; }
                x = !row_is_dead && random.unit() < 0.75f;
            });
        }
        for (const poison& p : c.poisons) { apply(p); }
    }

    const attention_case& the_case() const { return case_; }
    sm::view<const T, 4> q() const { return q_view(q_.data()); }
    sm::view<const T, 4> k() const { return k_view(k_.data()); }
    sm::view<const T, 4> v() const { return v_view(v_.data()); }
    const sm::view<float, 4>& bias() const { return bias_.view(); }
    const sm::view<bool, 4>& mask() const { return mask_.view(); }
    const sm::view<float, 1>& sinks() const { return sinks_.view(); }

    template <class U>
    sm::view<U, 4> out_view(U* data) const
    {
        const attention_shape& s = case_.shape;
        return {data, {s.batch, s.heads, s.queries, s.value_size}};
    }
    sm::view<float, 3> lse_view(float* data) const
    {
        return {data, {case_.shape.batch, case_.shape.heads, case_.shape.queries}};
    }
    index out_size() const { return out_view<T>(nullptr).size(); }
    index lse_size() const { return lse_view(nullptr).size(); }

    /// Everything but lse.
    sm::attention::options options() const
    {
        const attention_rules& r = case_.rules;
        sm::attention::options o;
        o.scale = r.scale;
        o.causal = r.causal;
        o.window = r.window;
        o.softcap = r.softcap;
        o.alibi_slopes = slopes_.view();
        o.bias = bias_.view();
        o.mask = mask_.view();
        o.sinks = sinks_.view();
        o.weighting = r.sigmoid ? sm::attention::weighting::sigmoid : sm::attention::weighting::softmax;
        o.sigmoid_bias = r.sigmoid_bias;
        o.query_offset = query_offset_.view();
        o.kv_lengths = kv_lengths_.view();
        return o;
    }

    index keys_of(index b) const { return kv_lengths_.view() ? kv_lengths_.view()(b) : case_.shape.keys; }

    /// Position of the first query.
    index offset_of(index b) const
    {
        if (query_offset_.view()) { return query_offset_.view()(query_offset_.view().extent(0) == 1 ? 0 : b); }
        return case_.rules.causal == sm::causal::bottom_right ? keys_of(b) - case_.shape.queries : 0;
    }

    /// The contract's masks, word for word.
    bool visible(index b, index h, index i, index j) const
    {
        const attention_rules& r = case_.rules;
        const index at = offset_of(b) + i;
        if (j >= keys_of(b)) { return false; }
        if (r.causal != sm::causal::none && j > at) { return false; }
        if (r.window.left >= 0 && j < at - r.window.left) { return false; }
        if (r.window.right >= 0 && j > at + r.window.right) { return false; }
        if (mask_.view() && !spread(mask_.view(), b, h, i, j)) { return false; }
        return !(bias_.view() && spread(bias_.view(), b, h, i, j) == -infinity);
    }

    template <class Out = T>
    expectation expect() const;

private:
    struct elements : std::vector<T> {
        explicit elements(index n) : std::vector<T>(static_cast<std::size_t>(n)) {}
    };

    sm::view<const T, 4> q_view(const T* data) const
    {
        return {data, {case_.shape.batch, case_.shape.heads, case_.shape.queries, case_.shape.key_size}};
    }
    sm::view<const T, 4> k_view(const T* data) const
    {
        return {data, {case_.shape.batch, case_.shape.kv_heads, case_.shape.keys, case_.shape.key_size}};
    }
    sm::view<const T, 4> v_view(const T* data) const
    {
        return {data, {case_.shape.batch, case_.shape.kv_heads, case_.shape.keys, case_.shape.value_size}};
    }

    std::array<index, 4> extents(const spread_rule& rule) const
    {
        const attention_shape& s = case_.shape;
        const index full[] = {s.batch, s.heads, s.queries, s.keys};
        std::array<index, 4> e{};
        for (std::size_t axis = 0; axis < 4; ++axis) { e[axis] = rule.axes >> axis & 1u ? full[axis] : 1; }
        return e;
    }

    template <class U, class Body>
    static void for_each(const sm::view<U, 4>& v, const Body& body)
    {
        for (index b = 0; b < v.extent(0); ++b) {
            for (index h = 0; h < v.extent(1); ++h) {
                for (index i = 0; i < v.extent(2); ++i) {
                    for (index j = 0; j < v.extent(3); ++j) { body(v(b, h, i, j), j); }
                }
            }
        }
    }

    template <class U>
    static U spread(const sm::view<U, 4>& v, index b, index h, index i, index j)
    {
        return v(v.extent(0) == 1 ? 0 : b, v.extent(1) == 1 ? 0 : h, v.extent(2) == 1 ? 0 : i,
                 v.extent(3) == 1 ? 0 : j);
    }

    void apply(const poison& p)
    {
        if (p.into == operand::bias) {
            bias_.view()(p.batch, p.head, p.row, p.last) = p.value;
            return;
        }
        const bool query = p.into == operand::q;
        std::vector<T>& numbers = query ? q_ : p.into == operand::k ? k_ : v_;
        const index heads = query ? case_.shape.heads : case_.shape.kv_heads;
        const index rows = query ? case_.shape.queries : case_.shape.keys;
        const index width = p.into == operand::v ? case_.shape.value_size : case_.shape.key_size;
        for (index d = 0; d < width; ++d) {
            if (p.last >= 0 && p.last != d) { continue; }
            numbers[static_cast<std::size_t>(((p.batch * heads + p.head) * rows + p.row) * width + d)] =
                static_cast<T>(p.value);
        }
    }

    static double norm_of(const sm::view<const T, 1>& x)
    {
        double sum = 0.0;
        for (index d = 0; d < x.extent(0); ++d) { sum += widened(x(d)) * widened(x(d)); }
        return std::sqrt(sum);
    }

    static std::vector<double> norms_of(const sm::view<const T, 2>& rows)
    {
        std::vector<double> norms;
        for (index j = 0; j < rows.extent(0); ++j) { norms.push_back(norm_of(rows[j])); }
        return norms;
    }

    /// Values [Lk, Dv] beside their magnitudes, [Lk, 2 Dv]: the reference then gives A beside each result.
    class with_magnitudes {
    public:
        explicit with_magnitudes(const sm::view<const T, 2>& values)
            : numbers_(2 * values.size()), rows_(values.extent(0)), width_(values.extent(1))
        {
            for (index j = 0; j < rows_; ++j) {
                for (index d = 0; d < width_; ++d) {
                    const float magnitude = std::fabs(static_cast<float>(values(j, d)));
                    numbers_[static_cast<std::size_t>(2 * j * width_ + d)] = values(j, d);
                    numbers_[static_cast<std::size_t>((2 * j + 1) * width_ + d)] = static_cast<T>(magnitude);
                    if (magnitude < infinity) { largest_ = std::max(largest_, static_cast<double>(magnitude)); }
                }
            }
        }
        sm::view<const T, 2> view() const { return {numbers_.data(), {rows_, 2 * width_}}; }
        double largest() const { return largest_; }

    private:
        elements numbers_;
        index rows_, width_;
        double largest_ = 0.0;
    };

    double bias_at(index b, index h, index i, index j) const
    {
        return case_.rules.bias.given ? static_cast<double>(spread(bias_.view(), b, h, i, j)) : 0.0;
    }

    sm::attention::reference::row_rule rule_of(index b, index h, index i) const
    {
        const attention_rules& r = case_.rules;
        const index key_size = case_.shape.key_size;
        sm::attention::reference::row_rule rule;
        if (key_size > 0) { rule.scale = 1.0 / std::sqrt(static_cast<double>(key_size)); }
        if (r.scale) { rule.scale = static_cast<double>(*r.scale); }
        rule.softcap = static_cast<double>(r.softcap);
        if (r.alibi) { rule.slope = static_cast<double>(slopes_.view()(h)); }
        rule.position = static_cast<double>(offset_of(b) + i);
        if (r.sinks) { rule.sink = static_cast<double>(sinks_.view()(h)); }
        rule.sigmoid = r.sigmoid;
        rule.sigmoid_bias = static_cast<double>(r.sigmoid_bias);
        return rule;
    }

    attention_case case_;
    elements q_, k_, v_;
    laid_out<float, 1> slopes_, sinks_;
    laid_out<index, 1> query_offset_, kv_lengths_;
    laid_out<float, 4> bias_;
    laid_out<bool, 4> mask_;
};

/// Tolerances, from a rounding analysis to first order in u = 2^-24. For one row let
///     S = |scale| ‖q‖ max ‖k_j‖ >= |scale| Σ|q_d k_jd|       over the keys that it sees,
///     M = S + slope · max|i - j| + max|bias| + |sink|          the largest number that a score passes through
///                                                              (with sigmoid weights, their bias in place of the
///                                                              sink),
///     A = Σ_j w_j |v_j|                                        with the exact weights w.
/// A score's product is off by at most u (Dk + 2) S, and what follows it (scale, softcap with |d/ds| <= 1, ALiBi, bias,
/// the step to units of log 2, the difference to the maximum) by u (10 S + 8 M). An exponential adds 4 u, and each
/// tile's correction of the earlier ones 6 u; tiles have at least 64 keys. So every weight, before it is divided by
/// their sum, is relatively off by at most
///     e = u ((Dk + 12) S + 8 M + 6 (Lk / 64 + 1) + 16).
/// Sums of Lk terms add u Lk, in the numerator and in the denominator:
///     |out - exact| <= A (2 e + 2 u (Lk + 4)),   |lse - exact| <= e + u (Lk + 4 + 4 M).
/// Sigmoid weights are not divided by a sum, and their slope is at most 1 relative to them: the same bound holds.
/// Where the instruction set multiplies bf16, a weight is rounded to it in the numerator: A 2^-8 more. Rounding the
/// result adds unit_roundoff<Out> of it, and numbers below the type's normal range their spacing.
template <class T>
template <class Out>
expectation attention_problem<T>::expect() const
{
    const attention_shape& s = case_.shape;
    constexpr double u = sm::unit_roundoff<float>;
    constexpr double tiny = std::is_same_v<Out, sm::f16> ? 0x1p-25 : 0x1p-126;
    constexpr bool rounds_weights = std::is_same_v<T, sm::bf16> && sm::simd::backend<test_arch>::has_bf16_dot;
    constexpr double weight_rounding = rounds_weights ? sm::unit_roundoff<sm::bf16> : 0.0;
    const double sum_rounding = u * static_cast<double>(s.keys + 4);

    expectation e;
    std::vector<double> row;
    for (index b = 0; b < s.batch; ++b) {
        for (index h = 0; h < s.heads; ++h) {
            const index kv_head = h / (s.heads / s.kv_heads);
            const with_magnitudes values(v()[b][kv_head]);
            const std::vector<double> norms = norms_of(k()[b][kv_head]);
            for (index i = 0; i < s.queries; ++i) {
                const sm::attention::reference::row_rule rule = rule_of(b, h, i);
                const auto sees = [&](index j) { return visible(b, h, i, j); };
                const auto bias_of = [&](index j) { return bias_at(b, h, i, j); };
                const double lse = sm::attention::reference::row<T>(q()[b][h][i], k()[b][kv_head], values.view(), rule,
                                                                    sees, bias_of, row);
                double longest = 0.0, farthest = 0.0, largest_bias = 0.0;
                for (index j = 0; j < s.keys; ++j) {
                    if (!sees(j)) { continue; }
                    longest = std::max(longest, norms[static_cast<std::size_t>(j)]);
                    farthest = std::max(farthest, std::fabs(rule.position - static_cast<double>(j)));
                    largest_bias = std::max(largest_bias, std::fabs(bias_of(j)));
                }
                const double products = std::fabs(rule.scale) * norm_of(q()[b][h][i]) * longest;
                const double added = rule.slope * farthest + largest_bias + std::fabs(rule.sigmoid_bias);
                const double logits = products + added + (std::isfinite(rule.sink) ? std::fabs(rule.sink) : 0.0);
                const double weight_error = u * (static_cast<double>(s.key_size + 12) * products + 8 * logits +
                                                 6 * (static_cast<double>(s.keys) / 64 + 1) + 16);
                e.lse.push_back(lse);
                e.lse_tolerance.push_back(weight_error + sum_rounding + 4 * u * logits);
                for (index d = 0; d < s.value_size; ++d) {
                    const double want = row[static_cast<std::size_t>(d)];
                    const double magnitude = row[static_cast<std::size_t>(s.value_size + d)];
                    const double computed = magnitude * (2 * weight_error + 2 * sum_rounding + weight_rounding) +
                                            0x1p-126 * static_cast<double>(s.keys) * (1.0 + values.largest());
                    const double rounding = std::is_same_v<Out, float> ? 0.0 : sm::unit_roundoff<Out>;
                    e.out.push_back(want);
                    e.out_tolerance.push_back(computed + rounding * (std::fabs(want) + computed) + tiny);
                }
            }
        }
    }
    return e;
}

/// The largest error in units of what is tolerated. What is wanted to be infinite or NaN must be just that, except that
/// an infinite value may come out as NaN: its weight may be a zero.
template <class Got>
worst_error worst_in_tolerances(const Got* got, const std::vector<double>& want, const std::vector<double>& tolerance,
                                bool infinity_may_be_nan = false)
{
    worst_error worst;
    for (std::size_t i = 0; i < want.size(); ++i) {
        const auto g = static_cast<double>(static_cast<float>(got[i]));
        if (infinity_may_be_nan && std::isinf(want[i]) && std::isnan(g)) { continue; }
        const double error = absolute_error(g, want[i]);
        const double ratio = error == 0.0 ? 0.0 : error / tolerance[i];
        worst.see(std::isnan(ratio) ? static_cast<double>(infinity) : ratio, static_cast<index>(i), g, want[i]);
    }
    return worst;
}

template <class T>
inline error_record largest_error{type_name<T>};

/// Runs a problem and compares all of its outputs with the reference.
template <class T, class Out = T>
void check_problem(const attention_problem<T>& p)
{
    const attention_case& c = p.the_case();
    const attention_shape& s = c.shape;
    guarded<Out> out(p.out_size(), sizeof(Out));
    guarded<float> lse(p.lse_size(), sizeof(float));
    sm::attention::options options = p.options();
    const bool wants_lse = !c.rules.sigmoid && c.seed % 5 != 0;
    if (wants_lse) { options.lse = p.lse_view(lse.data()); }
    run_forward<T, Out>(p.q(), p.k(), p.v(), p.out_view(out.data()), options);

    const expectation want = p.template expect<Out>();
    std::ostringstream place;
    place << c;
    const worst_error worst = worst_in_tolerances(out.data(), want.out, want.out_tolerance, true);
    if (worst.at >= 0) {
        const index row = worst.at / s.value_size;
        place << ": out[" << row / (s.queries * s.heads) << ' ' << row / s.queries % s.heads << ' ' << row % s.queries
              << ' ' << worst.at % s.value_size << "] is " << worst.got << ", want " << worst.want << ", tolerance "
              << want.out_tolerance[static_cast<std::size_t>(worst.at)];
    }
    worst_error worst_lse;
    if (wants_lse) { worst_lse = worst_in_tolerances(lse.data(), want.lse, want.lse_tolerance); }
    INFO(type_name<T> << " on " << test_arch::name << ", " << place.str());
    INFO("lse: " << worst_lse);
    CHECK(worst.error <= 1.0);
    CHECK(worst_lse.error <= 1.0);
    CHECK(out.intact());
    CHECK(lse.intact());
    largest_error<T>.see(worst.error, place.str());
}

template <class T, class Out = T>
void check_case(const attention_case& c)
{
    check_problem<T, Out>(attention_problem<T>(c));
}

inline void check_all_types(const attention_case& c)
{
    check_case<float>(c);
    check_case<sm::bf16>(c);
    check_case<sm::f16>(c);
}

/// Any options at once, on small odd shapes.
inline attention_case random_case(std::uint64_t seed)
{
    random_source random(seed);
    const auto pick = [&](std::initializer_list<index> from) {
        return from.begin()[random.integer(0, static_cast<index>(from.size()) - 1)];
    };
    const auto one_in = [&](index n) { return random.integer(1, n) == 1; };
    attention_case c;
    c.seed = seed;
    attention_shape& s = c.shape;
    s.batch = random.integer(1, 3);
    s.kv_heads = random.integer(1, 2);
    s.heads = s.kv_heads * pick({1, 1, 2, 3, 8});
    s.queries = pick({1, 1, 2, 5, lanes, columns - 1, columns + 1, 23});
    s.keys = pick({0, 1, lanes + 1, 17, 64, 65, 100, 193, 259});
    s.key_size = pick({1, 3, 8, 16, 21});
    s.value_size = pick({1, 5, 8, 16, 19});

    attention_rules& r = c.rules;
    const auto offsets = [&] {
        r.query_offset.resize(static_cast<std::size_t>(one_in(3) ? 1 : s.batch));
        for (index& x : r.query_offset) { x = random.integer(-s.queries - 5, s.keys + 10); }
    };
    r.causal = static_cast<sm::causal>(random.integer(0, 3));
    if (r.causal == sm::causal::offset || (r.causal == sm::causal::none && one_in(3))) { offsets(); }
    if (one_in(2)) { r.window = {pick({-1, 0, 1, 7, 70, 1000}), pick({-1, 0, 1, 7, 70, 1000})}; }
    if (one_in(4)) { r.softcap = random.uniform(0.5f, 10.0f); }
    if (one_in(4)) { r.scale = random.uniform(-1.0f, 1.0f); }
    r.alibi = one_in(4);
    const auto spread = [&] {
        return spread_rule{one_in(3), static_cast<unsigned>(random.integer(0, 15)),
                           static_cast<lie>(random.integer(0, 3))};
    };
    r.bias = spread();
    r.mask = spread();
    if (one_in(4)) {
        r.kv_lengths.resize(static_cast<std::size_t>(s.batch));
        for (index& x : r.kv_lengths) { x = random.integer(0, s.keys); }
    }
    r.sigmoid = one_in(5);
    r.sigmoid_bias = r.sigmoid ? -2.0f : 0.0f;
    r.sinks = !r.sigmoid && one_in(4);
    return c;
}

template <class T>
bool same_bits(const guarded<T>& a, const guarded<T>& b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0;
}

/// Runs body once for each storage type, with a value of it.
template <class Body>
void for_all_types(const Body& body)
{
    body(0.0f);
    body(sm::bf16{});
    body(sm::f16{});
}

/// What a call writes.
template <class T>
struct result {
    explicit result(const attention_problem<T>& p) : out(p.out_size()), lse(p.lse_size()) {}
    guarded<T> out;
    guarded<float> lse;
    /// The same bits, or both NaN.
    friend bool operator==(const result& a, const result& b)
    {
        const auto same = [](const auto& x, const auto& y) {
            return std::equal(x.data(), x.data() + x.size(), y.data(), [](auto one, auto other) {
                return std::memcmp(&one, &other, sizeof one) == 0 ||
                       (std::isnan(static_cast<float>(one)) && std::isnan(static_cast<float>(other)));
            });
        };
        return same(a.out, b.out) && same(a.lse, b.lse);
    }
};

} // namespace attention_test
