// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/linear/fast_weights_training.hpp>

// The door of test-time training with large chunks (LaCT), and how heads, panels of weights and blocks of tokens become tasks.

SEQMIX_NAMESPACE_BEGIN
namespace linear {
namespace detail {

/// How the operands of one matrix are called.
struct matrix_names {
    const char *rate, *weights, *initial_weights, *velocity, *norms_of;
};
/// Calls body(of, names, rows, columns) for each matrix of a network, of(matrices) being the one that is meant.
template <class Network, class Body>
void for_each_matrix(const training_sizes& s, const Body& body)
{
    const named_extent keys = {"", s.keys, "k's head size"}, values = {"", s.values, "v's head size"}, hidden = {"", s.hidden, "w0's number of rows"};
    if constexpr (std::is_same_v<Network, linear_network>) {
        body(
            [](auto& m) -> auto& { return m.w; }, matrix_names{"rate.w", "weights.w", "initial_weights.w", "velocity.w", "norms_of.w"}, values, keys);
    } else {
        body(
            [](auto& m) -> auto& { return m.w0; }, matrix_names{"rate.w0", "weights.w0", "initial_weights.w0", "velocity.w0", "norms_of.w0"}, hidden,
            keys);
        body(
            [](auto& m) -> auto& { return m.w1; }, matrix_names{"rate.w1", "weights.w1", "initial_weights.w1", "velocity.w1", "norms_of.w1"}, values,
            hidden);
        body(
            [](auto& m) -> auto& { return m.w2; }, matrix_names{"rate.w2", "weights.w2", "initial_weights.w2", "velocity.w2", "norms_of.w2"}, hidden,
            keys);
    }
}

/// H: rows of W0.
template <class Network>
index hidden_of(const training_options<Network>& opt)
{
    if constexpr (std::is_same_v<Network, linear_network>) {
        return 0;
    } else {
        return opt.initial_weights.w0 ? opt.initial_weights.w0.extent(2) : opt.weights.w0.extent(2);
    }
}

/// `items`: how many networks there must be, and what tells so.
template <class Network>
void check_training(const checker& check, const named_operand& q, const named_operand& k, const named_operand& v, const training_inputs<Network>& in,
                    const named_operand& out, const training_options<Network>& opt, const training_sizes& sizes, const named_extent& items)
{
    check_given(check, q, k, v, out);
    const named_extent batch = {"batch", v.extent(0), "v's"}, length = {"length", v.extent(1), "v's"},
                       heads = {"number of heads", v.extent(2), "v's"};
    const named_shape tokens = batch + length + heads;
    check_shape(check, q, tokens + named_extent{"head size", sizes.keys, "k's"});
    check_shape(check, k, tokens + named_extent{"head size", sizes.keys, "k's"});
    check_shape(check, out, tokens + named_extent{"head size", sizes.values, "v's"});
    check_optional(check, {"momentum", in.momentum}, tokens);
    check.require(opt.chunk >= 1, "chunk is ", opt.chunk, ", but must be at least ", 1);

    for_each_matrix<Network>(sizes, [&](auto of, const matrix_names& names, named_extent rows, named_extent columns) {
        rows.name = "number of rows", columns.name = "number of columns";
        const named_shape shape = items + heads + rows + columns;
        const named_operand rate(names.rate, of(in.rate)), weights(names.weights, of(opt.weights)),
            initial(names.initial_weights, of(opt.initial_weights)), velocity(names.velocity, of(opt.velocity)),
            norms_of(names.norms_of, of(opt.norms_of));
        check_given(check, {rate, weights, initial, velocity, norms_of});
        check_shape(check, rate, tokens);
        for (const named_operand& matrix : {weights, initial, velocity, norms_of}) { check_optional(check, matrix, shape); }
        check.require(weights.given() || initial.given() || items.extent * heads.extent * rows.extent * columns.extent == 0, "neither ",
                      names.weights, " nor ", names.initial_weights, " is given");
        check.require(!velocity.given() || bool(in.momentum), names.velocity, " is given, but momentum is not");
        check.require(!norms_of.given() || opt.normalize, names.norms_of, " is given, but normalize is false");
    });

    const auto apart = [&](const named_operand& written) {
        check_apart(check, written, q, k, v, named_operand("momentum", in.momentum));
        for_each_matrix<Network>(sizes, [&](auto of, const matrix_names& names, const named_extent&, const named_extent&) {
            check_apart(check, written, named_operand(names.rate, of(in.rate)), named_operand(names.initial_weights, of(opt.initial_weights)),
                        named_operand(names.norms_of, of(opt.norms_of)));
            for (const named_operand& other : {named_operand(names.weights, of(opt.weights)), named_operand(names.velocity, of(opt.velocity))}) {
                if (other.name() != written.name()) { check_apart(check, written, other); }
            }
        });
    };
    apart(out);
    for_each_matrix<Network>(sizes, [&](auto of, const matrix_names& names, const named_extent&, const named_extent&) {
        apart({names.weights, of(opt.weights)}), apart({names.velocity, of(opt.velocity)});
    });
}

/// One head from its first chunk to its last. phase(tasks, body) calls body(task, scratch) for every task, on whatever threads.
template <class Network, class Arch, class T, class Out, class Phase>
void train_head(const network_training<Network, Arch, T, Out>& head, const training_sequence<Network, T, Out>& in, const training_sizes& sizes,
                const training_options<Network>& opt, int workers, const Phase& phase)
{
    using training = network_training<Network, Arch, T, Out>;
    // Keys and values are read once for a group of panels.
    const index panels = training::panels(sizes), wanted = workers <= 1 ? 1 : 2 * workers;
    const index group = larger(1, (panels + wanted - 1) / wanted), groups = (panels + group - 1) / group, length = in.k.extent(0);
    const auto last_of = [&](index g) { return smaller((g + 1) * group, panels); };
    const auto settle = [&](const auto* begun) {
        phase(training::settling(sizes), [&](index n, std::byte* memory) { head.settle(n, begun, memory); });
    };
    if (length == 0) { return; } // leaves its weights as they are
    bool kept = false;
    for_each_matrix<Network>(sizes, [&](auto of, const auto&...) { kept = kept || of(in.to) || of(in.velocity); });

    phase(groups, [&](index g, std::byte*) {
        for (index n = g * group; n < last_of(g); ++n) { head.load(n, in); }
    });
    settle(&in);
    for (index from = 0; from < length; from += opt.chunk) {
        const index to = from + smaller(opt.chunk, length - from);
        const auto part = [&](const auto& operand) { return operand.slice(0, from, to); };
        const auto apply = [&] {
            const index block = training::apply_tokens(sizes);
            phase((to - from + block - 1) / block, [&](index n, std::byte* memory) {
                const index begin = from + n * block, end = smaller(begin + block, to);
                head.apply(in.q.slice(0, begin, end), in.out.slice(0, begin, end), memory);
            });
        };
        const bool causal = opt.order == update_order::apply_then_update;
        if (causal) { apply(); }
        if (causal && !kept && to == length) { return; } // nobody would see this update
        training_sequence<Network, T, Out> chunk = in;
        chunk.k = part(in.k), chunk.v = part(in.v);
        for_each_matrix<Network>(sizes, [&](auto of, const auto&...) { of(chunk.rate) = part(of(in.rate)); });
        double momentum = 0.0;
        for (index t = from; in.momentum && t < to; ++t) { momentum += static_cast<double>(in.momentum(t)); }
        const float mean = static_cast<float>(momentum / static_cast<double>(to - from));
        phase(groups, [&](index g, std::byte* memory) { head.update(g * group, last_of(g), chunk, mean, memory); });
        settle(static_cast<const training_sequence<Network, T, Out>*>(nullptr));
        if (!causal) { apply(); }
    }
    phase(groups, [&](index g, std::byte*) {
        for (index n = g * group; n < last_of(g); ++n) { head.store(n, in); }
    });
}

/// Heads that fill all workers are a task each. What remains of them goes one after another, its panels and tokens being tasks.
template <class Network, class Arch, class T, class Out, class SequenceOf>
void train_heads(index heads, index length, const training_sizes& sizes, const training_options<Network>& opt, const SequenceOf& sequence_of,
                 const context_ref& ctx)
{
    using training = network_training<Network, Arch, T, Out>;
    const int workers = static_cast<int>(larger(1, ctx.concurrency()));
    const index whole = heads / workers * workers, block = training::apply_tokens(sizes);
    arena state;
    static_cast<void>(training(state, sizes));
    const std::size_t of_state = state.used(), scratch = training::scratch(sizes);
    const index in_parts = larger(larger(training::panels(sizes), training::settling(sizes)), (smaller(opt.chunk, length) + block - 1) / block);
    ctx.in_phases(larger(whole, whole < heads ? in_parts : 0), scratch + (whole > 0 ? of_state : 0), whole < heads ? of_state : 0,
                  [&](std::byte* shared, const auto& phase) {
                      const auto some = [&](index tasks, const auto& body) {
                          if (tasks > 0) { phase(tasks, body); }
                      };
                      some(whole, [&](index head, std::byte* memory) {
                          arena carve(memory);
                          const training one(carve, sizes);
                          train_head(one, sequence_of(head), sizes, opt, 1, [&](index tasks, const auto& body) {
                              for (index task = 0; task < tasks; ++task) { body(task, memory + of_state); }
                          });
                      });
                      for (index head = whole; head < heads; ++head) {
                          arena carve(shared);
                          const training one(carve, sizes);
                          train_head(one, sequence_of(head), sizes, opt, workers, some);
                      }
                  });
}

/// Everything of one head. part(operand) is an item's share of what tokens have, [L, heads, …].
template <class Network, class T, class Out, class Part>
training_sequence<Network, T, Out> sequence_of(const view<const T, 4>& q, const view<const T, 4>& k, const view<const T, 4>& v,
                                               const training_inputs<Network>& in, const view<Out, 4>& out, const training_options<Network>& opt,
                                               const training_sizes& sizes, index item, index head, const Part& part)
{
    const auto tokens = [&](const auto& operand) { return part(operand).select(1, head); };
    training_sequence<Network, T, Out> one{tokens(q), tokens(k), tokens(v), tokens(out), {}, {}, {}, {}, {}, {}};
    if (in.momentum) { one.momentum = tokens(in.momentum); }
    for_each_matrix<Network>(sizes, [&](auto of, const auto&...) {
        const auto given = [&](const auto& matrix, auto& to) {
            if (matrix) { to = matrix[item][head]; }
        };
        of(one.rate) = tokens(of(in.rate));
        given(of(opt.weights), of(one.to)), given(of(opt.velocity), of(one.velocity));
        given(of(opt.weights), of(one.from)), given(of(opt.initial_weights), of(one.from));
        if (opt.normalize) { of(one.norms_of) = of(one.from), given(of(opt.norms_of), of(one.norms_of)); }
    });
    return one;
}

template <class Q, class K, class V, class Out>
constexpr void check_training_types()
{
    using T = std::remove_const_t<Q>;
    static_assert(storage<T>, "seqmix: test-time training reads float, bf16 or f16");
    static_assert(std::is_same_v<std::remove_const_t<K>, T> && std::is_same_v<std::remove_const_t<V>, T>, "seqmix: q, k and v have one type");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of the input, or float");
}

} // namespace detail

/// Test-time training with large chunks (LaCT): each head has a small network f, whose weights are its state. A chunk of tokens
/// changes them by one gradient step that makes f(k) · v larger, and its queries are answered by f(q):
///
///     G = Σ_i η_i ∂(f(k_i) · v_i) / ∂W      over the chunk, at the weights before it, for each matrix W of the network
///     M = mean(m) M + G                     with momentum m_i, averaged over the chunk; else M = G
///     W = W + M,    each row then times its norm in the first weights over (its norm now + 1e-5), with options::normalize
///
/// `Network` is linear_network or swiglu_network (fast_weights.hpp). q, k [B, L, heads, D], v [B, L, heads, V], all float, bf16 or f16; out
/// [B, L, heads, V] of that type or float. `in` holds the learning rates of tokens, of any sign, for each matrix, and their
/// momentum; `opt` the weights, float [B, heads, rows, columns], the chunk's length, and whether queries see the weights before or after their own
/// chunk's update; `ctx` who runs it, on what scratch. The last chunk may be shorter than the others and updates as they do, so that the
/// weights at the end have seen every token. Any strides. Zero sizes are legal: L = 0 leaves weights as they are, and copies none.
///
/// A sequence may be cut where chunks end: give each part the weights and the velocity that the one before has left, and norms_of
/// the first weights. The parts together have the bits of the whole. Results are bit-identical for every number of threads and for every batch.
///
/// A token and head cost 2 D V multiply-adds, or with SwiGLU 6 D H + 3 H V; a chunk reads and writes weights and steps besides. Threads
/// share heads, or, where these are fewer, panels of hidden units and blocks of tokens. Scratch: for each head under way two to three
/// times its weights, with bf16 half as much again, and a block of tokens a thread; it does not grow with L or the chunk.
///
/// Error against exact arithmetic on the given numbers, u = 2^-24: products n u of their absolute values, n being the depth (D, V
/// or H; tokens of the chunk for G); silu 7 u of itself, its derivative 7 u σ (1 + 2 |W0 k|); norms (n / 2 + 3) u. Where the
/// instruction set multiplies bf16 and q, k, v are bf16, all products take operands rounded to it (2^-8 relative), weights and
/// hidden activations too; weights themselves, steps and norms stay float. NaN reaches the outputs of its own query, and, from keys,
/// values, rates or momentum, the weights of its head and what they answer after that.
///
/// Throws std::invalid_argument, naming the argument and both values, with outputs untouched.
/// Source: Zhang et al. 2025, "Test-Time Training Done Right", section 3.
template <class Network, class Arch = arch::native, class Q, class K, class V, class Out>
void test_time_training(const view<Q, 4>& q, const view<K, 4>& k, const view<V, 4>& v, const training_inputs<Network>& in, const view<Out, 4>& out,
                        const training_options<Network>& opt, const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_training_types<Q, K, V, Out>();
    const view<const T, 4> queries = q, keys = k, values = v;
    const detail::training_sizes sizes = {k.extent(3), v.extent(3), detail::hidden_of(opt), opt.normalize};
    detail::check_training(checker("linear::test_time_training"), {"q", queries}, {"k", keys}, {"v", values}, in, {"out", out}, opt, sizes,
                           {"batch", v.extent(0), "v's"});
    const index heads = v.extent(2);
    if (v.extent(0) * v.extent(1) * heads == 0) { return; }
    detail::train_heads<Network, Arch, T, Out>(
        v.extent(0) * heads, v.extent(1), sizes, opt,
        [&](index n) {
            const index item = n / heads;
            return detail::sequence_of<Network, T>(queries, keys, values, in, out, opt, sizes, item, n % heads,
                                                   [&](const auto& operand) { return operand[item]; });
        },
        ctx);
}

/// The same for packed sequences of different lengths: q, k, v, out [T, heads, size], rates and momentum [T, heads] hold one sequence after
/// another; sequence n has tokens cu_seqlens[n] to cu_seqlens[n + 1] (from 0, not decreasing, to T), and row n of all matrices. Chunks start
/// with their sequence; the weights of one without tokens stay as they are. Everything else is as in test_time_training.
template <class Network, class Arch = arch::native, class Q, class K, class V, class Out>
void test_time_training_packed(const view<Q, 3>& q, const view<K, 3>& k, const view<V, 3>& v, const training_inputs<Network, 2>& packed_in,
                               const view<Out, 3>& packed_out, const view<const index, 1>& cu_seqlens, const training_options<Network>& opt,
                               const context_ref& ctx = {})
{
    using T = std::remove_const_t<Q>;
    detail::check_training_types<Q, K, V, Out>();
    const checker check("linear::test_time_training_packed");
    check_offsets(check, cu_seqlens, "cu_seqlens", v.extent(0), "v");
    const index sequences = cu_seqlens.extent(0) - 1, heads = v.extent(1);
    const view<const T, 4> queries = with_leading_axis(q), keys = with_leading_axis(k), values = with_leading_axis(v);
    const view<Out, 4> out = with_leading_axis(packed_out);
    const detail::training_sizes sizes = {k.extent(2), v.extent(2), detail::hidden_of(opt), opt.normalize};
    training_inputs<Network> in{.rate = {}, .momentum = with_leading_axis(packed_in.momentum)};
    detail::for_each_matrix<Network>(sizes, [&](auto of, const auto&...) { of(in.rate) = with_leading_axis(of(packed_in.rate)); });
    detail::check_training(check, {"q", queries}, {"k", keys}, {"v", values}, in, {"out", out}, opt, sizes,
                           {"batch", sequences, "the number of sequences"});
    const named_operand offsets("cu_seqlens", cu_seqlens);
    check_apart(check, named_operand("out", out), offsets);
    detail::for_each_matrix<Network>(sizes, [&](auto of, const detail::matrix_names& names, const auto&...) {
        check_apart(check, named_operand(names.weights, of(opt.weights)), offsets),
            check_apart(check, named_operand(names.velocity, of(opt.velocity)), offsets);
    });
    if (v.extent(0) * heads == 0) { return; }
    index longest = 0;
    for (index n = 0; n < sequences; ++n) { longest = larger(longest, cu_seqlens(n + 1) - cu_seqlens(n)); }
    detail::train_heads<Network, Arch, T, Out>(
        sequences * heads, longest, sizes, opt,
        [&](index n) {
            const index item = n / heads;
            return detail::sequence_of<Network, T>(queries, keys, values, in, out, opt, sizes, item, n % heads, [&](const auto& operand) {
                return operand[0].slice(0, cu_seqlens(item), cu_seqlens(item + 1));
            });
        },
        ctx);
}

} // namespace linear
SEQMIX_NAMESPACE_END
