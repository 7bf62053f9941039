// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/linear/operands.hpp>
#include <seqmix/linear/options.hpp>
#include <seqmix/linear/recurrent.hpp>
#include <seqmix/tile/block.hpp>
#include <seqmix/tile/map.hpp>

#include <cmath>
#include <type_traits>

// One token of many sequences. Reading and writing the states is nearly all of the work, so each is asked for while the one
// before it is computed.

SEQMIX_NAMESPACE_BEGIN
namespace linear {
namespace detail {

/// A row of numbers as dense floats in whole registers, the last one filled up with zeros, each register x as function(x).
template <class Arch, class T, class Function>
void padded_row(const view<const T, 1>& from, float* to, const Function& function)
{
    tile::load_block<Arch>(tile::block<const T>{from.data(), 0, from.stride(0), 1, from.extent(0)},
                           {to, 0, simd::lanes<Arch>},
                           [&](simd::f32<Arch> x, index, const float*) SEQMIX_INLINE_LAMBDA { return function(x); });
}
template <class Arch, class T>
void padded_row(const view<const T, 1>& from, float* to)
{
    tile::load_block<Arch>(tile::block<const T>{from.data(), 0, from.stride(0), 1, from.extent(0)},
                           {to, 0, simd::lanes<Arch>});
}

/// What a token brings to one head, on its way from the caller's memory to a recurrent_token and back.
template <class Rule, class Arch>
class head_step {
    using f32 = simd::f32<Arch>;
    using matrix = tile::matrix<Arch>;
    using map = typename Rule::features;
    static constexpr bool mapped = !std::is_same_v<map, identity_map>;
    static constexpr index lanes = f32::lanes;

public:
    /// `size` numbers of a query are `keys` features; `panel` where states do not stand as recurrent_token wants them.
    head_step(arena& scratch, index size, index keys, index values, index queries, bool panel)
        : token_(scratch, keys, queries), queries_(matrix::take(scratch, queries, keys)),
          out_(matrix::take(scratch, queries, values)), features_(matrix::take(scratch, 6, keys)),
          raw_(matrix::take(scratch, 1, size)), value_(matrix::take(scratch, 1, values)),
          sums_(scratch.take<float>(queries)), panel_(matrix::take(scratch, panel ? keys : 0, values))
    {
    }

    /// q [queries, size], k [size], v [V], and the rule's inputs of one sequence's head.
    template <class T, class Inputs>
    void take_in(const view<const T, 2>& q, const view<const T, 1>& k, const view<const T, 1>& v, float scale,
                 const Inputs& in, index item, index head)
    {
        token_operands to{.queries = queries_.data, .query_stride = queries_.stride, .key = features_.row(0)};
        const f32 by = f32::broadcast(scale);
        for (index j = 0; j < q.extent(0); ++j) {
            float* const row = queries_.row(j);
            map_row(q[j], row);
            for (index c = 0; c < queries_.stride; c += lanes) { (f32::load(row + c) * by).store(row + c); }
        }
        map_row(k, features_.row(0));
        padded_row<Arch>(v, value_.data);
        // A log decay above 0 counts as 0; of a NaN and a bound, min gives the second.
        [[maybe_unused]] const auto decay = [](f32 g) SEQMIX_INLINE_LAMBDA { return simd::exp(min(f32::zero(), g)); };
        [[maybe_unused]] const auto row_of = [&](const auto& operand, index slot) {
            padded_row<Arch>(operand, features_.row(slot));
            return features_.row(slot);
        };
        to.decay = Rule::gate == gate::channel ? features_.row(1) : &one_decay_;
        if constexpr (Rule::gate == gate::channel) { padded_row<Arch>(in.log_decay[item][head], features_.row(1), decay); }
        if constexpr (Rule::gate == gate::token) { decay(f32::broadcast(in.log_decay(item, head))).store(&one_decay_, 1); }
        if constexpr (Rule::gate == gate::head) { decay(f32::broadcast(in.log_decay(head))).store(&one_decay_, 1); }
        if constexpr (Rule::update == update::delta) { to.beta = in.beta(item, head); }
        if constexpr (Rule::bonus) { to.bonus = row_of(in.bonus[head], 2); }
        if constexpr (Rule::update == update::dplr) {
            to.a = row_of(in.a[item][head], 3), to.b = row_of(in.b[item][head], 4);
        }
        token_.prepare(to);
    }

    /// `next`: the state that will be read after this one, or null.
    template <class From, class To>
    void pass(const view<const From, 2>& from, const view<To, 2>& to, const From* next)
    {
        const index values = to.extent(1);
        if constexpr (std::is_same_v<From, To>) {
            if (from.stride(1) == 1 && to.stride(1) == 1) {
                token_.template apply<To>({from.data(), from.stride(0)}, {to.data(), to.stride(0)}, values, value_.data,
                                          out_.data, out_.stride, next);
                return;
            }
        }
        const tile::lane_groups dense{panel_.data, panel_.stride, lanes};
        tile::load_block<Arch>(tile::block<const From>{from.data(), from.stride(0), from.stride(1), from.extent(0), values},
                               dense);
        token_.template apply<float>({panel_.data, panel_.stride}, {panel_.data, panel_.stride}, panel_.stride, value_.data,
                                     out_.data, out_.stride);
        tile::store_block<Arch>(dense, tile::block<To>{to.data(), to.stride(0), to.stride(1), to.extent(0), values});
    }

    /// z = decayed z + k, and the outputs over q·z.
    void normalize(const view<float, 1>& normalizer)
    {
        if constexpr (Rule::update == update::additive) {
            float* const z = features_.row(5);
            padded_row<Arch>(view<const float, 1>(normalizer), z);
            token_.normalizer(z, sums_);
            tile::store_block<Arch>(
                {z, 0, lanes}, tile::block<float>{normalizer.data(), 0, normalizer.stride(0), 1, normalizer.extent(0)});
            tile::map_rows(out_, [](f32 o, f32 sum) SEQMIX_INLINE_LAMBDA { return o / sum; }, out_, sums_);
        }
    }

    /// out [queries, V]
    template <class Out>
    void hand_out(const view<Out, 2>& out) const
    {
        tile::store_block<Arch>({out_.data, out_.stride, lanes},
                                tile::block<Out>{out.data(), out.stride(0), out.stride(1), out.extent(0), out.extent(1)});
    }

private:
    template <class T>
    void map_row(const view<const T, 1>& from, float* to)
    {
        padded_row<Arch>(from, mapped ? raw_.data : to);
        if constexpr (mapped) { map::template apply<Arch>(raw_.data, from.extent(0), to); }
    }

    recurrent_token<Rule, Arch> token_;
    matrix queries_, out_, features_, raw_, value_; ///< features: key, decay, bonus, a, b, normaliser
    float one_decay_ = 1.0f;
    float* sums_;
    matrix panel_;
};

} // namespace detail

/// One token of linear attention by `Rule`, for many sequences: what the rule's recurrence does to it.
/// q [B, Hq, D], k [B, Hk, D], v [B, H, V] of one type, float, bf16 or f16; `in` holds what the rule takes besides, without
/// the axis of length; out [B, max(Hq, H), V] of that type or float. The H states of a sequence, [K, V] each, K being the
/// features of D numbers (D itself unless mapped), are read and written in opt.state, or read from opt.initial_state; float
/// or bf16.
///
/// Hk divides H: consecutive states share a key head. Hq is a multiple of H, consecutive query heads reading one state, or
/// divides it, as Hk does. A log decay above 0 counts as 0.
///
/// Bound by reading and writing states: best if they are of one type, float or bf16, and their value channels contiguous;
/// any strides serve. Bit-identical for every number of threads and for every batch; a NaN stays in the heads that read it.
/// Error: that of recurrent_token, where decays have 2 u and mapped queries and keys their maps' errors besides; out is
/// rounded once.
///
/// Throws std::invalid_argument, naming the argument and both values, with out, state and normalizer untouched.
/// Source: the rules' papers, see rules.hpp.
template <class Rule, class Arch = arch::native, class Q, class K, class V, class Out>
void step(const view<Q, 3>& q, const view<K, 3>& k, const view<V, 3>& v,
          const typename Rule::template inputs<std::remove_const_t<Q>, 1>& in, const view<Out, 3>& out,
          const step_options& opt, const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_linear_types<Q, K, V, Out>();
    const view<const T, 3> qs = q, ks = k, vs = v;
    const index size = k.extent(2), keys = Rule::features::features(size), values = v.extent(2), heads = v.extent(1);
    const checker check("linear::step");
    const shared_heads shared = detail::check_linear(
        check,
        {{"q", qs}, {"k", ks}, {"v", vs}, {"out", out}, {"state", opt.state}, {"initial_state", opt.initial_state}, {"normalizer", opt.normalizer},
         {"snapshots", view<float, 5>{}}},
        detail::operands_of<Rule>(in, size), opt.normalize, {"batch", v.extent(0), "v's"});
    check.require(bool(opt.state) || v.extent(0) * heads * keys * values == 0, "state is not given");
    check.require(!opt.normalize || bool(opt.normalizer) || v.extent(0) * heads * keys == 0, "normalizer is not given");
    check.require(!opt.scale || std::isfinite(*opt.scale), "scale is not finite");
    const float scale = detail::scale_of(opt.scale, size);

    const index states = v.extent(0) * heads;
    if (states == 0) { return; }
    const const_state_view<4> before = opt.initial_state ? opt.initial_state : const_state_view<4>(opt.state);
    const bool panel = before.visit([&](const auto& from) {
        return opt.state.visit([&](const auto& to) {
            return from.stride(3) != 1 || to.stride(3) != 1 || before.is_bf16() != opt.state.is_bf16();
        });
    });
    const auto worker = [&](arena& scratch) {
        return detail::head_step<Rule, Arch>(scratch, size, keys, values, shared.queries, panel);
    };
    arena measure;
    worker(measure);
    // Runs of heads: the next one's state is asked for in the caches of who will read it.
    const index run = larger(1, smaller(16, states / (4 * larger(1, ctx.concurrency()))));
    ctx.for_each((states + run - 1) / run, measure.used(), [&](index task, std::byte* memory) {
        arena scratch(memory);
        auto one = worker(scratch);
        for (index n = task * run; n < smaller(states, (task + 1) * run); ++n) {
            const index item = n / heads, head = n % heads, next = smaller(n + 1, states - 1);
            const index query = head * shared.queries / shared.of_query;
            one.take_in(qs[item].slice(0, query, query + shared.queries), ks[item][head / shared.of_key], vs[item][head],
                        scale, in, item, head);
            before.visit([&](const auto& from) {
                opt.state.visit([&](const auto& to) {
                    one.pass(from[item][head], to[item][head], from[next / heads][next % heads].data());
                });
            });
            if (opt.normalize) { one.normalize(opt.normalizer[item][head]); }
            const index first = head * shared.queries;
            one.hand_out(out[item].slice(0, first, first + shared.queries));
        }
    });
}

} // namespace linear
SEQMIX_NAMESPACE_END
