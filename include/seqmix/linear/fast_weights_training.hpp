// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/linear/fast_weights.hpp>
#include <seqmix/simd/math.hpp>
#include <seqmix/tile/gemm.hpp>
#include <seqmix/tile/map.hpp>
#include <seqmix/tile/panel_matrix.hpp>
#include <seqmix/tile/reduce.hpp>

#include <type_traits>

// One head of test-time training. Weights stay in panels, the form in which they multiply, for the whole sequence; a panel is 48
// columns (of AVX-512), which are hidden units of SwiGLU, or outputs of the linear network. What a chunk does to a panel's weights
// depends on no other panel but for the norms of W1's rows, so panels are what threads share, and no sum is ever cut by them.

SEQMIX_NAMESPACE_BEGIN
namespace linear::detail {

/// Extents of one head.
struct training_sizes {
    index keys, values, hidden; ///< D, V, H
    bool normalize;
};

/// One head of one sequence: tokens are rows.
template <class Network, class T, class Out>
struct training_sequence {
    view<const T, 2> q, k, v;
    view<Out, 2> out;
    typename Network::template matrices<view<const float, 1>> rate;
    view<const float, 1> momentum;
    typename Network::template matrices<view<const float, 2>> from, norms_of;
    typename Network::template matrices<view<float, 2>> to, velocity;
};

/// Tokens that are computed together: what is read of them, `numbers` each, stays in L2. Whole register tiles.
inline index block_tokens(index numbers)
{
    const index fit = tile::level2_bytes / static_cast<index>(sizeof(float)) / larger(1, numbers);
    return larger(64, smaller(256, fit / 8 * 8));
}

/// Numbers of some tokens as left operands of products: along their channels, or, turned, along the tokens.
template <class Arch, class Element>
class operand_rows {
    using matrix = tile::matrix<Arch>;
    using tiles = tile::operand_tiles<Arch, Element>;
    using word = typename tiles::word;

public:
    operand_rows(arena& a, index tokens, index size, bool turned)
        : stride_(stride_of(size)), size_(size), rows_(a.take<float>(tokens * stride_)),
          straight_(a.take<word>(tiles::as_it_is ? 0 : tokens * stride_ / tiles::product::group)),
          turned_(a.take<word>(tiles::as_it_is || !turned ? 0 : tile::depth_words<typename tiles::product>(tokens) * stride_))
    {
    }

    template <class T>
    void load(const view<const T, 2>& from)
    {
        tile::load_block<Arch>(tile::block<const T>{from.data(), from.stride(0), from.stride(1), from.extent(0), size_},
                               {rows_, stride_, simd::lanes<Arch>});
    }
    /// Columns from `first` on of the first `count` tokens, to be written.
    matrix columns(index first, index count, index columns) const { return {rows_ + first, count, columns, stride_}; }

    tile::left_operand straight(index count) const { return tiles::rows(rows_, count, stride_, straight_); }
    tile::left_operand turned(index count) const
    {
        tiles::joined(rows_, count, stride_, matrix::padded(size_), turned_);
        return tiles::turned_left_of(rows_, stride_, turned_);
    }

private:
    static index stride_of(index size)
    {
        const index dense = matrix::padded(size);
        return tile::crowded(dense * static_cast<index>(sizeof(float))) ? dense + simd::lanes<Arch> : dense;
    }

    index stride_, size_;
    float* rows_;
    word *straight_, *turned_;
};

/// Learning rates of some tokens, or any number a token.
template <class Arch>
const float* dense_row(const view<const float, 1>& from, float* to)
{
    tile::copy_row<Arch>(from.data(), from.stride(0), from.extent(0), to);
    return to;
}

template <class Arch>
view<float, 2> as_view(const tile::matrix<Arch>& m)
{
    const index extents[2] = {m.rows, m.columns}, strides[2] = {m.stride, 1};
    return {m.data, extents, strides};
}

/// What a row's norm is divided by: |w| and a little.
inline constexpr float norm_epsilon = 1e-5f;

/// Squares of norms, whole registers of them, become norms.
template <class Arch>
void take_roots(float* squares, index count)
{
    using f32 = simd::f32<Arch>;
    for (index i = 0; i < count; i += f32::lanes) { sqrt(f32::load(squares + i)).store(squares + i); }
}
/// Or what makes norms of these squares the norms wanted.
template <class Arch>
void take_factors(float* squares, const float* wanted, index count)
{
    using f32 = simd::f32<Arch>;
    for (index i = 0; i < count; i += f32::lanes) {
        (f32::load(wanted + i) / (sqrt(f32::load(squares + i)) + f32::broadcast(norm_epsilon))).store(squares + i);
    }
}

/// One matrix of weights, the step that changes it, and the operand that it is.
template <class Arch, class Element>
class fast_matrix {
    using panels = tile::panel_matrix<Arch>;
    using matrix = tile::matrix<Arch>;
    using f32 = simd::f32<Arch>;

public:
    fast_matrix(arena& a, index rows, index columns)
        : weights_(panels::take(a, rows, columns)), step_(panels::take(a, rows, columns)), operand_(a, weights_)
    {
    }

    const panels& weights() const { return weights_; }
    matrix step(index n) const { return step_.panel(n); }
    const auto* words(index n) const { return operand_.panel(n); }
    index depth() const { return operand_.words(); }
    void refresh(index n) const { operand_.refresh(n); }

    void load(index n, const view<const float, 2>& from, const view<const float, 2>& velocity) const
    {
        weights_.load(n, from);
        if (velocity) { step_.load(n, velocity); } else { tile::fill(step(n), 0.0f); }
    }
    void store(index n, const view<float, 2>& to, const view<float, 2>& velocity) const
    {
        if (to) { weights_.store(n, to); }
        if (velocity) { step_.store(n, velocity); }
    }

    /// The step begins with what is left of the one before.
    void keep_of_step(index n, float momentum) const
    {
        if (momentum == 0.0f) { return tile::fill(step(n), 0.0f); }
        const f32 by = f32::broadcast(momentum);
        tile::map(step(n), [by](f32 m) SEQMIX_INLINE_LAMBDA { return m * by; }, step(n));
    }
    void take_step(index n) const
    {
        const matrix panel = weights_.panel(n);
        tile::map(panel, [](f32 w, f32 m) SEQMIX_INLINE_LAMBDA { return w + m; }, panel, step(n));
    }

private:
    panels weights_, step_;
    tile::panel_operand<Arch, Element> operand_;
};

/// The same where a row of the caller's matrix is a column here, whose norm a panel can tell.
template <class Arch, class Element>
class turned_fast_matrix : public fast_matrix<Arch, Element> {
    using base = fast_matrix<Arch, Element>;
    using f32 = simd::f32<Arch>;

public:
    /// For weights of the caller's [columns, rows].
    turned_fast_matrix(arena& a, index rows, index columns)
        : base(a, rows, columns), norms_(a.take<float>(tile::panel_matrix<Arch>::padded(columns)))
    {
    }

    /// `norms_of` null: rows do not keep their norms.
    void load(index n, const view<const float, 2>& from, const view<const float, 2>& velocity, const view<const float, 2>& norms_of) const
    {
        if (norms_of) {
            base::load(n, norms_of.transposed(0, 1), {});
            tile::column_squares(base::weights().panel(n), norms(n));
            take_roots<Arch>(norms(n), base::step(n).columns);
        }
        base::load(n, from.transposed(0, 1), velocity.transposed(0, 1));
        base::refresh(n);
    }
    void store(index n, const view<float, 2>& to, const view<float, 2>& velocity) const
    {
        base::store(n, to.transposed(0, 1), velocity.transposed(0, 1));
    }

    void take_step(index n, bool normalize) const
    {
        base::take_step(n);
        const tile::matrix<Arch> panel = base::weights().panel(n);
        if (normalize) {
            float factors[tile::panel_matrix<Arch>::width];
            tile::column_squares(panel, factors);
            take_factors<Arch>(factors, norms(n), panel.columns);
            tile::map_columns(panel, [](f32 w, f32 by) SEQMIX_INLINE_LAMBDA { return w * by; }, panel, factors);
        }
        base::refresh(n);
    }

private:
    float* norms(index n) const { return norms_ + n * tile::panel_matrix<Arch>::width; }

    float* norms_;
};

/// Outputs of a block of tokens, a panel of columns at a time.
template <class Product, class Words, class Out>
void multiply_out(const tile::left_operand& left, const Words& words, index depth, index panels, const tile::matrix<typename Product::arch>& sums,
                  const view<Out, 2>& out)
{
    using Arch = typename Product::arch;
    constexpr index width = tile::panel_matrix<Arch>::width;
    for (index n = 0; n < panels; ++n) {
        const index first = n * width, live = smaller(width, out.extent(1) - first);
        const tile::matrix<Arch> part = {sums.data, out.extent(0), tile::matrix<Arch>::padded(live), width};
        tile::multiply_panel<Product>(left, words(n), depth, as_view(part), false);
        tile::store_block<Arch>({part.data, width, simd::lanes<Arch>},
                                tile::block<Out>{out.data() + first * out.stride(1), out.stride(0), out.stride(1), out.extent(0), live});
    }
}

template <class Network, class Arch, class T, class Out>
class network_training;

/// Panels of the turned W are outputs: 48 rows of W, with their norms.
template <class Arch, class T, class Out>
class network_training<linear_network, Arch, T, Out> {
    using Element = tile::compute_element<Arch, T>;
    using tiles = tile::operand_tiles<Arch, Element>;
    using product = typename tiles::product;
    using word = typename tiles::word;
    using matrix = tile::matrix<Arch>;
    using f32 = simd::f32<Arch>;
    using rows = operand_rows<Arch, Element>;
    static constexpr index width = tile::panel_matrix<Arch>::width;

    struct apply_scratch {
        apply_scratch(arena& a, const training_sizes& s, index tokens)
            : queries(a, tokens, s.keys, false), sums{a.take<float>(tokens * width), tokens, width, width}
        {
        }
        rows queries;
        matrix sums;
    };
    struct update_scratch {
        update_scratch(arena& a, const training_sizes& s, index tokens)
            : keys(a, tokens, s.keys, true), values{a.take<float>(tokens * width), tokens, width, width},
              words(a.take<word>(tiles::as_it_is ? 0 : tile::depth_words<product>(tokens) * width)), rate(a.take<float>(tokens))
        {
        }
        rows keys;
        matrix values;
        word* words;
        float* rate;
    };

public:
    using sequence = training_sequence<linear_network, T, Out>;

    network_training(arena& a, const training_sizes& sizes) : sizes_(sizes), weights_(a, sizes.keys, sizes.values) {}

    static index apply_tokens(const training_sizes& s) { return block_tokens(s.keys); }
    static std::size_t scratch(const training_sizes& s)
    {
        arena apply, update;
        static_cast<void>(apply_scratch(apply, s, apply_tokens(s))), static_cast<void>(update_scratch(update, s, apply_tokens(s)));
        return apply.used() > update.used() ? apply.used() : update.used();
    }
    static index panels(const training_sizes& s) { return tile::panel_matrix<Arch>::panels_of(s.values); }
    static index settling(const training_sizes&) { return 0; }

    void load(index n, const sequence& in) const { weights_.load(n, in.from.w, in.velocity.w, in.norms_of.w); }
    void store(index n, const sequence& in) const { weights_.store(n, in.to.w, in.velocity.w); }
    void settle(index, const sequence*, std::byte*) const {}

    void apply(const view<const T, 2>& q, const view<Out, 2>& out, std::byte* memory) const
    {
        arena a(memory);
        apply_scratch s(a, sizes_, apply_tokens(sizes_));
        s.queries.load(q);
        multiply_out<product>(s.queries.straight(q.extent(0)), [&](index n) { return weights_.words(n); }, weights_.depth(), panels(sizes_), s.sums,
                              out);
    }

    /// Panels [first, last): step = momentum step + Σ η k vᵀ.
    void update(index first, index last, const sequence& chunk, float momentum, std::byte* memory) const
    {
        const index block = apply_tokens(sizes_);
        arena a(memory);
        update_scratch s(a, sizes_, block);
        for (index n = first; n < last; ++n) { weights_.keep_of_step(n, momentum); }
        for (index t = 0; t < chunk.k.extent(0); t += block) {
            const index end = smaller(t + block, chunk.k.extent(0)), count = end - t;
            s.keys.load(chunk.k.slice(0, t, end));
            const tile::left_operand keys = s.keys.turned(count);
            const float* const rate = dense_row<Arch>(chunk.rate.w.slice(0, t, end), s.rate);
            for (index n = first; n < last; ++n) {
                const matrix step = weights_.step(n), values = {s.values.data, count, step.columns, width};
                const index live = weights_.weights().live(n);
                tile::load_block<Arch>(
                    tile::block<const T>{chunk.v.data() + t * chunk.v.stride(0) + n * width * chunk.v.stride(1), chunk.v.stride(0),
                                         chunk.v.stride(1), count, live},
                    {values.data, width, simd::lanes<Arch>});
                tile::map_rows(values, [](f32 v, f32 by) SEQMIX_INLINE_LAMBDA { return v * by; }, values, rate);
                tile::multiply_panel<product>(keys, tiles::joined(values.data, count, width, values.columns, s.words),
                                              tile::depth_words<product>(count), as_view(step), true);
            }
        }
        for (index n = first; n < last; ++n) { weights_.take_step(n, sizes_.normalize); }
    }

private:
    training_sizes sizes_;
    turned_fast_matrix<Arch, Element> weights_;
};

/// Panels are 48 hidden units: columns of the turned W0 and W2, with their norms, and of W1. The norms of W1's rows go across panels;
/// 48 rows at a time are settled when all panels have taken their steps, and turned for the outputs, whose depth is H.
template <class Arch, class T, class Out>
class network_training<swiglu_network, Arch, T, Out> {
    using Element = tile::compute_element<Arch, T>;
    using tiles = tile::operand_tiles<Arch, Element>;
    using product = typename tiles::product;
    using word = typename tiles::word;
    using matrix = tile::matrix<Arch>;
    using panel_matrix = tile::panel_matrix<Arch>;
    using f32 = simd::f32<Arch>;
    using rows = operand_rows<Arch, Element>;
    static constexpr index width = panel_matrix::width;

    static matrix take_panel(arena& a, index tokens) { return {a.take<float>(tokens * width), tokens, width, width}; }

    struct apply_scratch {
        apply_scratch(arena& a, const training_sizes& s, index tokens)
            : queries(a, tokens, s.keys, false), hidden(a, tokens, s.hidden, false), gate(take_panel(a, tokens)), up(take_panel(a, tokens))
        {
        }
        rows queries, hidden;
        matrix gate, up;
    };
    struct update_scratch {
        update_scratch(arena& a, const training_sizes& s, index tokens)
            : keys(a, tokens, s.keys, true), values(a, tokens, s.values, true), gate(take_panel(a, tokens)), up(take_panel(a, tokens)),
              down(take_panel(a, tokens)), words(a.take<word>(tiles::as_it_is ? 0 : tile::depth_words<product>(tokens) * width)),
              rate0(a.take<float>(tokens)), rate1(a.take<float>(tokens)), rate2(a.take<float>(tokens))
        {
        }
        rows keys, values;
        matrix gate, up, down;
        word* words;
        float *rate0, *rate1, *rate2;
    };

public:
    using sequence = training_sequence<swiglu_network, T, Out>;

    network_training(arena& a, const training_sizes& s)
        : sizes_(s), w0_(a, s.keys, s.hidden), w2_(a, s.keys, s.hidden), w1_(a, s.values, s.hidden),
          turned_w1_(panel_matrix::take(a, s.hidden, s.values)), turned_operand_(a, turned_w1_),
          w1_norms_(a.take<float>(panel_matrix::padded(s.values)))
    {
    }

    static index apply_tokens(const training_sizes& s) { return block_tokens(s.keys + s.hidden); }
    static index update_tokens(const training_sizes& s) { return block_tokens(s.keys + s.values); }
    static std::size_t scratch(const training_sizes& s)
    {
        arena apply, update, settle;
        static_cast<void>(apply_scratch(apply, s, apply_tokens(s))), static_cast<void>(update_scratch(update, s, update_tokens(s)));
        static_cast<void>(take_panel(settle, width));
        const std::size_t most = apply.used() > update.used() ? apply.used() : update.used();
        return most > settle.used() ? most : settle.used();
    }
    static index panels(const training_sizes& s) { return panel_matrix::panels_of(s.hidden); }
    static index settling(const training_sizes& s) { return panel_matrix::panels_of(s.values); }

    void load(index n, const sequence& in) const
    {
        w0_.load(n, in.from.w0, in.velocity.w0, in.norms_of.w0);
        w2_.load(n, in.from.w2, in.velocity.w2, in.norms_of.w2);
        w1_.load(n, in.from.w1, in.velocity.w1);
    }
    void store(index n, const sequence& in) const
    {
        w0_.store(n, in.to.w0, in.velocity.w0);
        w2_.store(n, in.to.w2, in.velocity.w2);
        w1_.store(n, in.to.w1, in.velocity.w1);
    }

    /// The n-th 48 rows of W1. At the start `begun` is the sequence, whose norms are taken; else null, and norms are kept.
    void settle(index n, const sequence* begun, std::byte* memory) const
    {
        const index first = n * width, count = turned_w1_.live(n);
        float* const norms = w1_norms_ + first;
        const auto part = [&](index p) {
            const matrix whole = w1_.weights().panel(p);
            return matrix{whole.row(first), count, whole.columns, width};
        };
        if (begun != nullptr && begun->norms_of.w1) {
            for (index v = 0; v < width; ++v) { norms[v] = 0.0f; }
            for (index p = 0; p < panels(sizes_); ++p) { add_squares_of(begun->norms_of.w1.slice(0, first, first + count), p, norms, memory); }
            take_roots<Arch>(norms, width);
        }
        if (begun == nullptr && sizes_.normalize) {
            float factors[width] = {};
            for (index p = 0; p < panels(sizes_); ++p) { tile::add_row_squares(part(p), factors); }
            take_factors<Arch>(factors, norms, width);
            for (index p = 0; p < panels(sizes_); ++p) {
                tile::map_rows(part(p), [](f32 w, f32 by) SEQMIX_INLINE_LAMBDA { return w * by; }, part(p), factors);
            }
        }
        for (index p = 0; p < panels(sizes_); ++p) {
            tile::load_block<Arch>(tile::block<const float>{part(p).data, 1, width, w1_.weights().live(p), count},
                                   {turned_w1_.panel(n).row(p * width), width, simd::lanes<Arch>});
        }
        turned_operand_.refresh(n);
    }

    void apply(const view<const T, 2>& q, const view<Out, 2>& out, std::byte* memory) const
    {
        arena a(memory);
        apply_scratch s(a, sizes_, apply_tokens(sizes_));
        const index count = q.extent(0);
        s.queries.load(q);
        const tile::left_operand queries = s.queries.straight(count);
        for (index n = 0; n < panels(sizes_); ++n) {
            const matrix gate = of_panel(s.gate, n, count), up = of_panel(s.up, n, count);
            tile::multiply_panel<product>(queries, w0_.words(n), w0_.depth(), as_view(gate), false);
            tile::multiply_panel<product>(queries, w2_.words(n), w2_.depth(), as_view(up), false);
            tile::map(
                s.hidden.columns(n * width, count, gate.columns), [](f32 g, f32 u) SEQMIX_INLINE_LAMBDA { return simd::silu(g) * u; }, gate, up);
        }
        multiply_out<product>(s.hidden.straight(count), [&](index n) { return turned_operand_.panel(n); }, turned_operand_.words(),
                              settling(sizes_), s.gate, out);
    }

    /// Panels [first, last) of hidden units: steps = momentum steps + gradients.
    void update(index first, index last, const sequence& chunk, float momentum, std::byte* memory) const
    {
        const index block = update_tokens(sizes_);
        arena a(memory);
        update_scratch s(a, sizes_, block);
        for (index n = first; n < last; ++n) {
            w0_.keep_of_step(n, momentum), w1_.keep_of_step(n, momentum), w2_.keep_of_step(n, momentum);
            w1_.refresh(n);
        }
        for (index t = 0; t < chunk.k.extent(0); t += block) {
            const index end = smaller(t + block, chunk.k.extent(0)), count = end - t;
            s.keys.load(chunk.k.slice(0, t, end));
            s.values.load(chunk.v.slice(0, t, end));
            const tile::left_operand keys = s.keys.straight(count), values = s.values.straight(count);
            const tile::left_operand turned_keys = s.keys.turned(count), turned_values = s.values.turned(count);
            const float* const rate0 = dense_row<Arch>(chunk.rate.w0.slice(0, t, end), s.rate0);
            const float* const rate1 = dense_row<Arch>(chunk.rate.w1.slice(0, t, end), s.rate1);
            const float* const rate2 = dense_row<Arch>(chunk.rate.w2.slice(0, t, end), s.rate2);
            for (index n = first; n < last; ++n) {
                const matrix gate = of_panel(s.gate, n, count), up = of_panel(s.up, n, count), down = of_panel(s.down, n, count);
                tile::multiply_panel<product>(keys, w0_.words(n), w0_.depth(), as_view(gate), false);
                tile::multiply_panel<product>(keys, w2_.words(n), w2_.depth(), as_view(up), false);
                tile::multiply_panel<product>(values, w1_.words(n), w1_.depth(), as_view(down), false);
                differentiate(gate, up, down, rate0, rate1, rate2);
                add_products(turned_keys, gate, w0_.step(n), s.words);
                add_products(turned_keys, up, w2_.step(n), s.words);
                add_products(turned_values, down, w1_.step(n), s.words);
            }
        }
        for (index n = first; n < last; ++n) {
            w0_.take_step(n, sizes_.normalize), w2_.take_step(n, sizes_.normalize), w1_.take_step(n);
        }
    }

private:
    matrix of_panel(const matrix& all, index n, index count) const { return {all.data, count, w1_.weights().panel(n).columns, width}; }

    /// sums[v] += the squares of a row's columns in panel p.
    void add_squares_of(const view<const float, 2>& w1, index p, float* sums, std::byte* memory) const
    {
        const index live = w1_.weights().live(p);
        const matrix part = {reinterpret_cast<float*>(memory), w1.extent(0), matrix::padded(live), width};
        tile::load_block<Arch>(tile::block<const float>{w1.data() + p * width * w1.stride(1), w1.stride(0), w1.stride(1), w1.extent(0), live},
                               {part.data, width, simd::lanes<Arch>});
        tile::add_row_squares(part, sums);
    }

    static void add_products(const tile::left_operand& turned, const matrix& of_tokens, const matrix& step, word* words)
    {
        const auto* const right = tiles::joined(of_tokens.data, of_tokens.rows, width, of_tokens.columns, words);
        tile::multiply_panel<product>(turned, right, tile::depth_words<product>(of_tokens.rows), as_view(step), true);
    }

    /// Of g = W0 k, u = W2 k and d = W1ᵀ v in place: what k is multiplied with for the gradients of W0 and W2, and v for W1's, times
    /// the tokens' rates. silu'(g) = σ + silu(g) (1 - σ). Some 40 instructions a register, of 6 D and more.
    SEQMIX_NOINLINE static void differentiate(const matrix& gate, const matrix& up, const matrix& down, const float* rate0, const float* rate1,
                                              const float* rate2)
    {
        const f32 one = f32::broadcast(1.0f);
        for (index r = 0; r < gate.rows; ++r) {
            const f32 by0 = f32::broadcast(rate0[r]), by1 = f32::broadcast(rate1[r]), by2 = f32::broadcast(rate2[r]);
            for (index c = 0; c < gate.columns; c += f32::lanes) {
                const f32 g = f32::load(gate.row(r) + c), u = f32::load(up.row(r) + c), d = f32::load(down.row(r) + c);
                const f32 sigma = simd::sigmoid(g), silu = g * sigma;
                (d * u * fma(silu, one - sigma, sigma) * by0).store(gate.row(r) + c);
                (d * silu * by2).store(up.row(r) + c);
                (silu * u * by1).store(down.row(r) + c);
            }
        }
    }

    training_sizes sizes_;
    turned_fast_matrix<Arch, Element> w0_, w2_; ///< [D, H]
    fast_matrix<Arch, Element> w1_;             ///< [V, H]
    panel_matrix turned_w1_;                    ///< [H, V]
    tile::panel_operand<Arch, Element> turned_operand_;
    float* w1_norms_;
};

} // namespace linear::detail
SEQMIX_NAMESPACE_END
