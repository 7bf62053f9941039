// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/linear/rules.hpp>
#include <seqmix/simd/prefetch.hpp>
#include <seqmix/tile/tile.hpp>

#include <type_traits>

// One token of one head, on a state [K, V] in memory whose value channels are contiguous: the recurrent form of all rules.
//
// The outputs never read the state that the token leaves, but the one that it finds. With d = e^g, ∘ along the key
// channels, and S the state before,
//
//     y = Sᵀ(d∘k)  (delta),  Sᵀa  (DPLR)               what the state recalls of the token
//     w = v,  β (v - y)  (delta)                       what is written under its key
//     o = Sᵀ(d∘q) + (q·k) w  [+ (q·b) y  (DPLR)]       with a bonus: Sᵀq + (q·(u∘k)) w
//     S = d∘S + k wᵀ         [+ b yᵀ  (DPLR)]
//
// so that y and all outputs come from one reading of the state, and additive rules read and write it in one sweep, the
// others in two. A sweep runs down all key channels of so many value channels as stay in registers:
//
// | registers | columns, in registers | sums of two rows + state + weights | written: right + state + weights |
// |---|---|---|---|
// | 32 | 8 | 16 + 8 + 2 | 8 (DPLR 16) + 2 + 3; additive: 8 + 8 + 2 + 3 |
// | 16 | 4 | 8 + 4 + 2  | 4 (DPLR 8) + 2 + 3; additive: 4 + 4 + 2 + 3 |
//
// Sums are 8 chains or more, which is what multiply-adds of latency 4, two a cycle, need.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// What a token brings to a head besides its value: dense floats in scratch, rows of K numbers padded with zeros to whole
/// registers.
struct token_operands {
    const float* queries;           ///< scaled, and mapped to features; `query_stride` apart
    index query_stride;
    const float* key;               ///< mapped
    const float* decay = nullptr;   ///< e^(log decay): [K] with gate::channel, one number with gate::head and token
    float beta = 1.0f;              ///< update::delta
    const float* bonus = nullptr;   ///< u, where the rule has one
    const float* a = nullptr;       ///< update::dplr
    const float* b = nullptr;       ///< update::dplr
};

/// Some value channels of a state: element (key channel, value channel) stands at base + key channel · stride + value
/// channel.
template <class Number>
struct state_rows {
    Number* base;
    index stride;
};

namespace detail {

/// Columns of a state on their way through registers. Reads: recalled[r] = Σ_i weight[r][i] S(i, ·), of the state before.
/// Writes: S(i, ·) = keep(i) S(i, ·) + Σ_w left[w][i] right[w].
template <class Number>
struct state_sweep {
    state_rows<const Number> from;
    state_rows<Number> to;
    const Number* next; ///< the same columns of the state that comes after this one
    index rows, columns;
    const float* weight[2];
    float* recalled[2];
    const float* keep;
    index keep_step; ///< 1 for a decay of each row, 0 for one of all
    const float* left[2];
    const float* right[2];
};

/// Which columns of the state that comes next are asked for on the way.
enum class ahead { none, all, first_half, second_half };

template <class Arch, int Vectors, bool Tail, int Reads, int Writes, bool Decays, ahead Ahead, class Number>
SEQMIX_NOINLINE void run(const state_sweep<Number>& sweep)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    // Copies, since a store of a register may change anything that is read through a reference.
    const state_sweep<Number> s = sweep;
    f32 sum[Reads + 1][Vectors], right[Writes + 1][Vectors];
    simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
        simd::unroll<Reads>([&](auto r) SEQMIX_INLINE_LAMBDA { sum[r][v] = f32::zero(); });
        simd::unroll<Writes>([&](auto w) SEQMIX_INLINE_LAMBDA { right[w][v] = f32::load(s.right[w] + v * lanes); });
    });
    const Number* from = s.from.base;
    [[maybe_unused]] Number* to = s.to.base;
    [[maybe_unused]] const Number* next = s.next;
    [[maybe_unused]] const float* keep = s.keep;
    for (index i = 0; i < s.rows; ++i) {
        [[maybe_unused]] f32 weight[Reads + 1], left[Writes + 1], decay;
        simd::unroll<Reads>([&](auto r) SEQMIX_INLINE_LAMBDA { weight[r] = f32::broadcast(s.weight[r][i]); });
        simd::unroll<Writes>([&](auto w) SEQMIX_INLINE_LAMBDA { left[w] = f32::broadcast(s.left[w][i]); });
        if constexpr (Writes > 0 && Decays) { decay = f32::broadcast(*keep); }
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
            const f32 x = Tail ? f32::load(from + v * lanes, s.columns) : f32::load(from + v * lanes);
            if constexpr (Writes > 0) {
                f32 y = x;
                if constexpr (Decays) { y = decay * x; }
                simd::unroll<Writes>([&](auto w) SEQMIX_INLINE_LAMBDA { y = fma(left[w], right[w][v], y); });
                Tail ? y.store(to + v * lanes, s.columns) : y.store(to + v * lanes);
            }
            // After the store, which keeps compilers from loading x twice: ports for loads are what multiply-adds wait for.
            simd::unroll<Reads>([&](auto r) SEQMIX_INLINE_LAMBDA { sum[r][v] = fma(weight[r], x, sum[r][v]); });
            constexpr int bytes = lanes * static_cast<int>(sizeof(Number)), half = (Vectors + 1) / 2;
            constexpr bool asked = Ahead == ahead::all || (Ahead == ahead::first_half && v < half) ||
                                   (Ahead == ahead::second_half && v >= half);
            if constexpr (asked && v * bytes % simd::cache_line < bytes) { simd::prefetch(next + v * lanes); }
        });
        from += s.from.stride;
        if constexpr (Writes > 0) { to += s.to.stride; }
        if constexpr (Writes > 0 && Decays) { keep += s.keep_step; }
        if constexpr (Ahead != ahead::none) { next += s.from.stride; }
    }
    simd::unroll<Reads>([&](auto r) SEQMIX_INLINE_LAMBDA {
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { sum[r][v].store(s.recalled[r] + v * lanes); });
    });
}

/// Value channels that one sweep holds.
template <class Arch>
inline constexpr int sweep_vectors = tile::blocking<Arch>::registers >= 32 ? 8 : 4;

/// Cuts columns into blocks of whole registers, as many as a sweep holds and then halves of that, and a last, partly filled
/// one: body(first column, std::integral_constant of registers, std::bool_constant of whether the last is partly filled).
template <class Arch, int Vectors = sweep_vectors<Arch>, class Body>
SEQMIX_INLINE void for_column_blocks(index at, index columns, const Body& body)
{
    constexpr index width = Vectors * simd::lanes<Arch>;
    for (; columns - at >= width; at += width) { body(at, std::integral_constant<int, Vectors>{}, std::false_type{}); }
    if constexpr (Vectors > 1) {
        for_column_blocks<Arch, Vectors / 2>(at, columns, body);
    } else if constexpr (width > 1) {
        if (at < columns) { body(at, std::integral_constant<int, 1>{}, std::true_type{}); }
    }
}

/// A recurrent_token's way through the columns of a state. Apart from it because all rules of one update, with decays or without, share
/// the code, which is most of what a rule compiles to.
template <linear::update Update, bool Decays, class Arch>
class token_columns {
public:
    /// Reads columns [0, columns) of `from`, writes them to `to`, which may be the same, and writes the outputs of query j
    /// to out + j · out_stride. `value` and the rows of `out` are padded to whole registers; states need no padding.
    /// `next`, where it is given, is the state that will be read after this one, with the stride of `from`: it is asked for
    /// on the way.
    template <class Number>
    void apply(const state_rows<const Number>& from, const state_rows<Number>& to, index columns, const float* value,
               float* out, index out_stride, const Number* next = nullptr) const
    {
        for_column_blocks<Arch>(0, columns, [&](index at, auto vectors, auto tail) SEQMIX_INLINE_LAMBDA {
            state_sweep<Number> s{};
            s.from = {from.base + at, from.stride}, s.to = {to.base + at, to.stride},
            s.next = next == nullptr ? nullptr : next + at;
            s.rows = keys_, s.columns = columns - at;
            if (next == nullptr) {
                this->template block<vectors, tail, false>(s, value + at, out + at, out_stride);
            } else {
                this->template block<vectors, tail, true>(s, value + at, out + at, out_stride);
            }
        });
    }

protected:
    using f32 = simd::f32<Arch>;
    static constexpr int lanes = f32::lanes;
    static constexpr bool additive = Update == linear::update::additive, dplr = Update == linear::update::dplr;
    static constexpr bool decays = Decays;
    static constexpr index before_queries = additive ? 0 : 1; ///< the row whose sum is y

    token_columns(arena& scratch, index keys, index queries)
        : keys_(keys), queries_(queries), weights_(tile::matrix<Arch>::take(scratch, before_queries + queries, keys)),
          at_key_(scratch.take<float>(queries)), at_b_(dplr ? scratch.take<float>(queries) : nullptr)
    {
    }

    index keys_, queries_;
    index keep_step_ = 0; ///< 1 for a decay of each key channel, 0 for one of all
    token_operands in_{};
    tile::matrix<Arch> weights_; ///< what the state's rows are summed with: [d∘k or a,] d∘q_0, d∘q_1 …
    float* at_key_;              ///< q_j·k, or q_j·(u∘k)
    float* at_b_;                ///< q_j·b

private:
    template <int Vectors, bool Tail, bool Next, class Number>
    void block(state_sweep<Number>& s, const float* value, float* out, index out_stride) const
    {
        alignas(64) float y[Vectors * lanes], w[Vectors * lanes];
        const auto recalled = [&](index row) {
            return row < before_queries ? y : out + (row - before_queries) * out_stride;
        };
        const auto read = [&](index row, int to) { s.weight[to] = weights_.row(row), s.recalled[to] = recalled(row); };
        s.keep = in_.decay, s.keep_step = keep_step_;
        s.left[0] = in_.key, s.right[0] = additive ? value : w, s.left[1] = in_.b, s.right[1] = y;

        // Rows two by two; the last one of an additive rule together with the update. Each sweep waits for memory, so that
        // of two each asks for half of the next state.
        constexpr auto none = ahead::none, all = Next ? ahead::all : none;
        constexpr auto first_half = Next ? ahead::first_half : none,
                       second_half = Next ? ahead::second_half : none;
        const index rows = before_queries + queries_, read_alone = additive ? rows - 1 : rows;
        index row = 0;
        for (; row + 2 < read_alone; row += 2) {
            read(row, 0), read(row + 1, 1), run<Arch, Vectors, Tail, 2, 0, decays, none>(s);
        }
        constexpr auto first = additive ? none : first_half;
        if (row + 2 == read_alone) {
            read(row, 0), read(row + 1, 1), run<Arch, Vectors, Tail, 2, 0, decays, first>(s);
        }
        if (row + 1 == read_alone) { read(row, 0), run<Arch, Vectors, Tail, 1, 0, decays, first>(s); }
        if constexpr (additive) { read(rows - 1, 0), run<Arch, Vectors, Tail, 1, 1, decays, all>(s); }

        const f32 beta = f32::broadcast(in_.beta);
        for (index c = 0; !additive && c < Vectors * lanes; c += lanes) {
            const f32 v = f32::load(value + c);
            (dplr ? v : beta * (v - f32::load(y + c))).store(w + c);
        }
        for (index j = 0; j < queries_; ++j) {
            float* const o = out + j * out_stride;
            const f32 at_key = f32::broadcast(at_key_[j]), at_b = f32::broadcast(dplr ? at_b_[j] : 0.0f);
            for (index c = 0; c < Vectors * lanes; c += lanes) {
                f32 sum = fma(at_key, f32::load(s.right[0] + c), f32::load(o + c));
                if constexpr (dplr) { sum = fma(at_b, f32::load(y + c), sum); }
                sum.store(o + c);
            }
        }
        if constexpr (!additive) { run<Arch, Vectors, Tail, 0, dplr ? 2 : 1, decays, second_half>(s); }
    }
};

} // namespace detail

/// A token of one head, by `Rule`. prepare() takes it in, in O(K) for each query; apply() then sends any number of blocks
/// of the head's value channels through it.
///
/// Error, u = 2^-24 and Σ over the K key channels, S being the state before as it is stored, of numbers that are exact:
///   y:  (K + 1) u Σ |d_i x_i| |S_i|, x being k or a
///   w:  exact; for delta β times the error of y, and 2 u |w|
///   o:  (K + 2) u (Σ |d_i q_i| |S_i| + Σ |q_i k_i| |w| + Σ |q_i b_i| |y|), and |q·k| and |q·b| times the errors of w and y
///   S:  2 u |d_i S_i| + u |S_i new|, and |k_i| and |b_i| times the errors of w and y; rounded once more where it is stored
///       as bf16, which o does not see
/// A decay that is rounded itself adds its relative error to those of the products that it is part of. No sum mixes value
/// channels: what is not finite stays in the columns that it reaches.
///
/// Source: the rank-one identity, o read from the state before and corrected, as fused kernels of Gated DeltaNet have it
/// (Yang et al. 2025); here it serves all rules.
template <class Rule, class Arch>
class recurrent_token : detail::token_columns<Rule::update, Rule::gate != gate::none, Arch> {
    using columns = detail::token_columns<Rule::update, Rule::gate != gate::none, Arch>;
    using columns::additive, columns::dplr, columns::decays, columns::before_queries, columns::lanes;
    using columns::keys_, columns::queries_, columns::in_, columns::keep_step_, columns::weights_, columns::at_key_, columns::at_b_;
    using f32 = simd::f32<Arch>;

public:
    /// Takes scratch for `queries` (>= 1) queries that read one state of `keys` key channels.
    recurrent_token(arena& scratch, index keys, index queries) : columns(scratch, keys, queries) {}
    using columns::apply;

    /// The operands must live until the last apply().
    void prepare(const token_operands& in)
    {
        in_ = in, keep_step_ = Rule::gate == gate::channel ? 1 : 0;
        if constexpr (Rule::update == update::delta) { decayed(in.key, weights_.row(0)); }
        for (index c = 0; dplr && c < keys_; c += lanes) { f32::load(in.a + c).store(weights_.row(0) + c); }
        for (index j = 0; j < queries_; ++j) {
            const float* const query = in.queries + j * in.query_stride;
            f32 at_key = f32::zero();
            [[maybe_unused]] f32 at_b = f32::zero();
            for (index c = 0; c < keys_; c += lanes) {
                const f32 q = f32::load(query + c);
                f32 k = f32::load(in.key + c);
                if constexpr (Rule::bonus) { k = f32::load(in.bonus + c) * k; }
                at_key = fma(q, k, at_key);
                if constexpr (dplr) { at_b = fma(q, f32::load(in.b + c), at_b); }
                if constexpr (Rule::bonus) { q.store(weights_.row(j) + c); }
            }
            at_key_[j] = reduce_add(at_key);
            if constexpr (dplr) { at_b_[j] = reduce_add(at_b); }
            if constexpr (!Rule::bonus) { decayed(query, weights_.row(before_queries + j)); }
        }
    }

    /// The normaliser z = d∘z + k [K], padded as the operands are, and sums[j] = q_j·z after that
    /// (with a bonus, q_j·(z + u∘k) before): what the state and the outputs are of a value that is 1. Error as theirs.
    void normalizer(float* z, float* sums) const
    {
        static_assert(additive, "seqmix: only additive updates have a normaliser");
        for (index j = 0; j < queries_; ++j) {
            f32 sum = f32::zero();
            for (index c = 0; c < keys_; c += lanes) { sum = fma(f32::load(weights_.row(j) + c), f32::load(z + c), sum); }
            sums[j] = reduce_add(sum) + at_key_[j];
        }
        for (index c = 0; c < keys_; c += lanes) {
            const f32 k = f32::load(in_.key + c), before = f32::load(z + c);
            (decays ? fma(decay(c), before, k) : before + k).store(z + c);
        }
    }

private:
    SEQMIX_INLINE f32 decay(index c) const
    {
        return Rule::gate == gate::channel ? f32::load(in_.decay + c) : f32::broadcast(*in_.decay);
    }

    void decayed(const float* row, float* to) const
    {
        for (index c = 0; c < keys_; c += lanes) {
            const f32 x = f32::load(row + c);
            (decays ? decay(c) * x : x).store(to + c);
        }
    }
};

} // namespace linear
SEQMIX_NAMESPACE_END
