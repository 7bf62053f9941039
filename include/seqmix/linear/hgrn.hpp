// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/core/time_segments.hpp>
#include <seqmix/linear/hgrn_walk.hpp>

// The doors of gated recurrences without a key: linear::hgrn and mlgru, packed, and token by token.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// D channels, each with a state of one number.
struct hgrn_options {
    state_view<2> state{};               ///< [B, D], read at the start and written at the end
    const_state_view<2> initial_state{}; ///< [B, D], instead of what state holds; null: state, or zeros
    bool accumulate = false;             ///< out += result: sums of directions without a copy
    index time_segments = 1;             ///< > 1: each sequence is cut into so many pieces that threads share, at twice the
                                         ///< arithmetic; rounding depends on this number alone
};

/// One token. Writing `state` elsewhere than `initial_state` keeps the former as a snapshot without a copy.
struct hgrn_step_options {
    state_view<2> state{};               ///< [B, D], read and written; must be given
    const_state_view<2> initial_state{}; ///< [B, D], read instead of state where it is given
};

namespace detail {

/// Spreads items x blocks of channels (x segments of time) over the workers. `sequence_of(item)` describes one.
template <class Arch, class Cell, class Out, class... In, class SequenceOf>
void walk_elements(index items, index channels, const hgrn_options& opt, const SequenceOf& sequence_of, const context_ref& ctx)
{
    using walk = element_walk<Arch, Cell, Out, In...>;
    // As wide as rows are read at one go, but enough blocks for everybody: what a channel yields does not depend on its block.
    const index wanted = ctx.concurrency() <= 1 ? 1 : (2 * ctx.concurrency() + items - 1) / larger(items, 1);
    const index share = (channels + wanted - 1) / wanted, step = walk::channel_step;
    const index width = larger(1, (smaller(walk::most_channels, share) + step - 1) / step) * step;
    const index blocks = (channels + width - 1) / width;
    arena measure;
    static_cast<void>(walk(measure, width));
    run_in_segments(ctx, items * blocks, opt.time_segments, walk::carried(width), measure.used(),
                    [&](index task, std::byte* memory, const auto& body) {
                        const index item = task / blocks, first = task % blocks * width;
                        const typename walk::sequence sequence = sequence_of(item);
                        if (sequence.tokens() == 0) { return; } // leaves its state as it is
                        arena carve(memory);
                        walk one(carve, width);
                        one.choose(sequence, first, smaller(width, channels - first));
                        body(one, sequence.tokens(), state_ends<1>{opt.initial_state[item], opt.state[item]});
                    });
}

/// An operand [B, L, D] as the door names it.
template <class Number>
struct named_elements {
    view<Number, 3> operand;
    const char* name;
};

/// What every door asks; `items` sequences have states. Shapes are those of the first operand, which is `of_first`: "x's".
inline void check_elements(const checker& check, const hgrn_options& opt, index items, const named_operand& out, const char* of_first,
                           std::initializer_list<named_operand> in)
{
    check_given(check, in), check_given(check, out);
    const named_operand& first = *in.begin();
    const named_extent channels = {"number of channels", first.extent(2), of_first};
    const named_shape shape = named_extent{"batch", first.extent(0), of_first} + named_extent{"length", first.extent(1), of_first} + channels;
    for (const named_operand& operand : in) { check_shape(check, operand, shape); }
    check_shape(check, out, shape);
    const named_operand state("state", opt.state), initial_state("initial_state", opt.initial_state);
    const named_shape states = named_extent{"batch", items, "the number of sequences"} + channels;
    check_optional(check, state, states), check_optional(check, initial_state, states);
    check.require(opt.time_segments >= 1 && opt.time_segments <= 4096, "time_segments is ", opt.time_segments, ", but must be from 1 to ", 4096);
    for (const named_operand& written : {out, state}) {
        check_apart(check, written, in), check_apart(check, written, initial_state);
    }
    check_apart(check, state, out);
}

template <class Arch, class Cell, class Out, class... In>
void run_elements(const checker& check, const hgrn_options& opt, const view<Out, 3>& out, const char* of_first, const context_ref& ctx,
                  const named_elements<const In>&... in)
{
    check_elements(check, opt, out.extent(0), {"out", out}, of_first, {named_operand(in.name, in.operand)...});
    if (out.empty()) { return; }
    walk_elements<Arch, Cell, Out, In...>(
        out.extent(0), out.extent(2), opt,
        [&](index item) {
            return element_sequence<Out, In...>{{in.operand[item]...}, out[item], opt.accumulate, tile::store_of(out)};
        },
        ctx);
}

/// `out` [1, T, D] and operands likewise hold packed sequences.
template <class Arch, class Cell, class Out, class... In>
void run_packed_elements(const checker& check, const hgrn_options& opt, const view<Out, 3>& out, const view<const index, 1>& cu_seqlens,
                         const char* of_first, const context_ref& ctx, const named_elements<const In>&... in)
{
    check_offsets(check, cu_seqlens, "cu_seqlens", out.extent(1), "out");
    for (const named_operand& written : {named_operand("out", out), named_operand("state", opt.state)}) {
        check_apart(check, written, named_operand("cu_seqlens", cu_seqlens));
    }
    const index sequences = cu_seqlens.extent(0) - 1;
    check_elements(check, opt, sequences, {"out", out}, of_first, {named_operand(in.name, in.operand)...});
    if (out.empty()) { return; }
    walk_elements<Arch, Cell, Out, In...>(
        sequences, out.extent(2), opt,
        [&](index item) {
            const auto part = [&](const auto& v) { return v.slice(0, cu_seqlens(item), cu_seqlens(item + 1)); };
            return element_sequence<Out, In...>{{part(in.operand[0])...}, part(out[0]), opt.accumulate, tile::store_of(out)};
        },
        ctx);
}

/// [B, D] as sequences of one token.
template <class T>
view<T, 3> one_token(const view<T, 2>& v)
{
    return with_leading_axis(v).transposed(0, 1);
}

template <class Arch, class Cell, class Out, class... In>
void run_step(const checker& check, const hgrn_step_options& opt, const view<Out, 2>& out, const char* of_first, const context_ref& ctx,
              const named_elements<const In>&... in)
{
    check.require(bool(opt.state) || out.empty(), "state is not given");
    run_elements<Arch, Cell>(check, {.state = opt.state, .initial_state = opt.initial_state}, one_token(out), of_first, ctx, in...);
}

template <class T, class Out>
constexpr void check_element_types()
{
    static_assert(storage<T>, "seqmix: gated recurrences read float, bf16 or f16");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of the input, or float");
}

/// Calls run(cell, operands...) for an HGRN's operands, [B, L, D] all.
template <class X, class G, class Out, class Run>
void with_hgrn(const view<X, 3>& x, const view<G, 3>& g, const view<Out, 3>&, const Run& run)
{
    using T = std::remove_const_t<X>;
    using Decay = std::remove_const_t<G>;
    check_element_types<T, Out>();
    static_assert(std::is_same_v<Decay, T> || std::is_same_v<Decay, float>, "seqmix: g has the type of x, or float");
    run(log_decay_cell{}, named_elements<const T>{x, "x"}, named_elements<const Decay>{g, "g"});
}
/// And for the MatMul-free LM's.
template <class F, class C, class G, class Out, class Run>
void with_mlgru(const view<F, 3>& forget, const view<C, 3>& candidate, const view<G, 3>& gate, const view<Out, 3>&, const Run& run)
{
    using T = std::remove_const_t<F>;
    check_element_types<T, Out>();
    static_assert(std::is_same_v<std::remove_const_t<C>, T> && std::is_same_v<std::remove_const_t<G>, T>,
                  "seqmix: forget, candidate and gate have one type");
    const named_elements<const T> f{forget, "forget"}, c{candidate, "candidate"};
    gate ? run(gated_mlgru_cell{}, f, c, named_elements<const T>{gate, "gate"}) : run(mlgru_cell{}, f, c);
}

} // namespace detail

/// The recurrence of HGRN, for every channel by itself:
///
///     h_t = e^(g_t) h_{t-1} + x_t        out_t = h_t
///
/// x, g, out [B, L, D], g being log decays (<= 0; what is above grows). x float, bf16 or f16; g and out the same or float. Any strides;
/// fast where channels or time are contiguous: [B, D, L] in memory is a view with other strides, and time that runs backwards one with
/// a negative one. `options` says the rest; `ctx` who runs it, on what scratch. Zero sizes are legal: L = 0 leaves the state as it is.
/// Bound by memory, 12 bytes a channel and token in float; scratch does not grow with L.
///
/// Results are bit-identical for every number of threads, for every layout, and for every cut of time whose parts pass the state on
/// in float. NaN and infinities reach the outputs of their channel from their token on, and no others.
///
/// Error against exact arithmetic on the given numbers, u = 2^-24: a token adds (4 + 2.3 |g_t|) u of the decayed state and 1 u of the
/// new one, and what is there already decays as the state does, so that errors are bounded by what the state remembers and not by L.
/// With time_segments each border adds (5 n + 2.3 Σ|g|) u of the state before it, decayed over the n tokens behind it. accumulate
/// adds 1 u. Below 2^-126 each rounding is 2^-150. bf16 and f16 are widened exactly, and only the output is rounded.
///
/// Throws std::invalid_argument, naming the argument and both values, with outputs untouched.
/// Source: Qin et al. 2023, "Hierarchically Gated Recurrent Neural Network for Sequence Modeling", equation 5.
template <class Arch = arch::native, class X, class G, class Out>
void hgrn(const view<X, 3>& x, const view<G, 3>& g, const view<Out, 3>& out, const hgrn_options& opt = {}, const context_ref& ctx = {})
{
    detail::with_hgrn(x, g, out, [&](auto cell, const auto&... in) {
        detail::run_elements<Arch, decltype(cell)>(checker("linear::hgrn"), opt, out, "x's", ctx, in...);
    });
}

/// The same for packed sequences of different lengths: x, g, out [T, D] hold one sequence after another; sequence n has tokens
/// cu_seqlens[n] to cu_seqlens[n + 1] (from 0, not decreasing, to T) and row n of options::state and initial_state, [sequences, D].
template <class Arch = arch::native, class X, class G, class Out>
void hgrn_packed(const view<X, 2>& x, const view<G, 2>& g, const view<Out, 2>& out, const view<const index, 1>& cu_seqlens,
                 const hgrn_options& opt = {}, const context_ref& ctx = {})
{
    const view<Out, 3> packed = with_leading_axis(out);
    detail::with_hgrn(with_leading_axis(x), with_leading_axis(g), packed, [&](auto cell, const auto&... in) {
        detail::run_packed_elements<Arch, decltype(cell)>(checker("linear::hgrn_packed"), opt, packed, cu_seqlens, "x's", ctx, in...);
    });
}

/// One token of many sequences, with the bits that hgrn gives it: x, g, out [B, D].
template <class Arch = arch::native, class X, class G, class Out>
void hgrn_step(const view<X, 2>& x, const view<G, 2>& g, const view<Out, 2>& out, const hgrn_step_options& opt, const context_ref& ctx = {})
{
    detail::with_hgrn(detail::one_token(x), detail::one_token(g), detail::one_token(out), [&](auto cell, const auto&... in) {
        detail::run_step<Arch, decltype(cell)>(checker("linear::hgrn_step"), opt, out, "x's", ctx, in...);
    });
}

/// The gated unit of the MatMul-free LM (MLGRU), without its products and norms, in one pass:
///
///     f_t = σ(forget_t)        h_t = f_t h_{t-1} + (1 - f_t) silu(candidate_t)        out_t = h_t σ(gate_t)
///
/// forget, candidate, gate, out [B, L, D], all before their activations; gate may be null: out = h. The inputs float, bf16 or f16, all
/// alike; out the same or float. Everything else is as in hgrn.
///
/// Error: a token adds 5 u of the decayed state, (5 f + 9 (1 - f)) u |silu(candidate)| and 1 u of the new state; the gate 6 u of the
/// output. With time_segments each border adds 6 n u of the state before it, decayed over the n tokens behind it. (From forget = 18 on,
/// where σ is 1 in float, nothing decays and nothing enters.)
///
/// Source: Zhu et al. 2024, "Scalable MatMul-free Language Modeling", section 3.3.1.
template <class Arch = arch::native, class F, class C, class G, class Out>
void mlgru(const view<F, 3>& forget, const view<C, 3>& candidate, const view<G, 3>& gate, const view<Out, 3>& out,
           const hgrn_options& opt = {}, const context_ref& ctx = {})
{
    detail::with_mlgru(forget, candidate, gate, out, [&](auto cell, const auto&... in) {
        detail::run_elements<Arch, decltype(cell)>(checker("linear::mlgru"), opt, out, "forget's", ctx, in...);
    });
}

/// The same for packed sequences, as hgrn_packed: forget, candidate, gate, out [T, D].
template <class Arch = arch::native, class F, class C, class G, class Out>
void mlgru_packed(const view<F, 2>& forget, const view<C, 2>& candidate, const view<G, 2>& gate, const view<Out, 2>& out,
                  const view<const index, 1>& cu_seqlens, const hgrn_options& opt = {}, const context_ref& ctx = {})
{
    const view<Out, 3> packed = with_leading_axis(out);
    detail::with_mlgru(with_leading_axis(forget), with_leading_axis(candidate), with_leading_axis(gate), packed,
                       [&](auto cell, const auto&... in) {
                           detail::run_packed_elements<Arch, decltype(cell)>(checker("linear::mlgru_packed"), opt, packed, cu_seqlens,
                                                                             "forget's", ctx, in...);
                       });
}

/// One token of many sequences, with the bits that mlgru gives it: forget, candidate, gate, out [B, D].
template <class Arch = arch::native, class F, class C, class G, class Out>
void mlgru_step(const view<F, 2>& forget, const view<C, 2>& candidate, const view<G, 2>& gate, const view<Out, 2>& out,
                const hgrn_step_options& opt, const context_ref& ctx = {})
{
    detail::with_mlgru(detail::one_token(forget), detail::one_token(candidate), detail::one_token(gate), detail::one_token(out),
                       [&](auto cell, const auto&... in) {
                           detail::run_step<Arch, decltype(cell)>(checker("linear::mlgru_step"), opt, out, "forget's", ctx, in...);
                       });
}

} // namespace linear
SEQMIX_NAMESPACE_END
