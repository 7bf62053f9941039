// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/monarch_product.hpp>
#include <seqmix/core/executor.hpp>

// The doors of products with Monarch matrices.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// A Monarch matrix [l s, k p], packed: made once, then applied from any thread. Holds its own copy of the weights, in float, a little
/// more than k q p + l s r of them (rows are filled up to whole registers); can be moved, not copied.
///
/// w1 [k, q, p], w2 [l, s, r] with l r = k q, float, bf16 or f16, any strides. Zero sizes are legal. Throws std::invalid_argument,
/// naming the argument and both values.
template <class Arch = arch::native>
class monarch_matrix {
public:
    template <class W1, class W2>
    monarch_matrix(const view<W1, 3>& w1, const view<W2, 3>& w2)
    {
        static_assert(detail::numbers<W1, W2>, "seqmix: weights are float, bf16 or f16");
        const detail::monarch_shape shape = detail::check_weights(checker("conv::monarch_matrix"), {"w1", w1}, {"w2", w2});
        arena measure;
        static_cast<void>(detail::packed_monarch<Arch>(measure, shape));
        arena carve(memory_.reserve(measure.used()));
        packed_ = detail::packed_monarch<Arch>(carve, shape);
        for (index i = 0; i < shape.k; ++i) { packed_.pack_first(view<const std::remove_const_t<W1>, 3>(w1), i); }
        for (index n = 0; n < packed_.seconds(); ++n) { packed_.pack_second(view<const std::remove_const_t<W2>, 3>(w2), n); }
    }

    index inputs() const { return packed_.shape().inputs(); }   ///< k p
    index outputs() const { return packed_.shape().outputs(); } ///< l s

    /// For kernels.
    const detail::packed_monarch<Arch>& packed() const { return packed_; }

private:
    workspace memory_;
    detail::packed_monarch<Arch> packed_;
};
template <class W1, class W2>
monarch_matrix(const view<W1, 3>&, const view<W2, 3>&) -> monarch_matrix<>;

namespace detail {

template <class Arch, class T, class Out>
void apply_monarch(const packed_monarch<Arch>& weights, const view<const T, 3>& x, const view<Out, 3>& out, const context_ref& ctx)
{
    if (out.empty()) { return; }
    const index block = rows_of_task(weights.shape(), x.extent(0), ctx.concurrency());
    monarch_batch<Arch, T, Out>(weights, x, out, block, [&](index tasks, const auto& body) {
        ctx.for_each(tasks, monarch_scratch_bytes(weights, block), body);
    });
}

/// Packs and applies. The weights' copy is shared by the workers.
template <class Arch, class T, class W1, class W2, class Out>
void multiply_monarch(const monarch_shape& m, const view<const T, 3>& x, const view<const W1, 3>& w1, const view<const W2, 3>& w2,
                      const view<Out, 3>& out, const context_ref& ctx)
{
    if (out.empty()) { return; }
    arena measure;
    const packed_monarch<Arch> shape(measure, m);
    const index block = rows_of_task(m, x.extent(0), ctx.concurrency()), tasks = (x.extent(0) + block - 1) / block;
    const index packings = m.k + shape.seconds();
    ctx.in_phases(larger(tasks, packings), monarch_scratch_bytes(shape, block), measure.used(), [&](std::byte* shared, const auto& phase) {
        arena carve(shared);
        const packed_monarch<Arch> weights(carve, m);
        phase(packings, [&](index n, std::byte*) { n < m.k ? weights.pack_first(w1, n) : weights.pack_second(w2, n - m.k); });
        monarch_batch<Arch, T, Out>(weights, x, out, block, phase);
    });
}

template <class T, class Out>
void check_rows_types()
{
    static_assert(numbers<T, Out>, "seqmix: x and out are float, bf16 or f16");
    static_assert(!std::is_const_v<Out>, "seqmix: out is written");
    static_assert(std::is_same_v<Out, float> || std::is_same_v<Out, std::remove_const_t<T>>, "seqmix: out is float or of x's type");
}

} // namespace detail

/// The product with a Monarch matrix, for every row: x in k blocks of p, each times its [q, p] of w1; of the k q results, number c l + i is
/// number c of block i; each of the l blocks times its [s, r] of w2; row j of block i is number j l + i of out.
///
/// x [B, k p], w1 [k, q, p], w2 [l, s, r] with l r = k q, out [B, l s]. x, w1 and w2 float, bf16 or f16, each of its own; out of x's
/// type or float. Any strides; those of one along the rows of x and out are the fast path. Zero sizes are legal; where nothing is summed
/// up, out is 0. To use the same weights often: monarch_matrix.
///
/// Computed in float whatever the types, 2 B (k q p + l s r) operations. The two permutations are how blocks are addressed; what lies between the
/// products stays in cache, a block of rows at a time, so that scratch does not grow with B. A row's result depends on that row and
/// the weights alone: bit-identical for every number of threads and every batch.
///
/// NaN and infinities reach what depends on them. Error, u = 2^-24: (p + r) u |W2| |W1| |x|, of absolute values, to first order; and the
/// rounding of out to its type.
///
/// Throws std::invalid_argument, naming the argument and both values, with out untouched; also where out overlaps an operand.
/// Source: Dao et al. 2022, "Monarch: Expressive Structured Matrices for Efficient and Accurate Training", section 3.1.
template <class Arch = arch::native, class T, class W1, class W2, class Out>
void monarch(const view<T, 2>& x, const view<W1, 3>& w1, const view<W2, 3>& w2, const view<Out, 2>& out, const context_ref& ctx = {})
{
    detail::check_rows_types<T, Out>();
    static_assert(detail::numbers<W1, W2>, "seqmix: weights are float, bf16 or f16");
    const checker check("conv::monarch");
    const named_operand first("w1", w1), second("w2", w2), written("out", out);
    const detail::monarch_shape m = detail::check_weights(check, first, second);
    detail::check_rows(check, {"x", x}, written, m);
    check_apart(check, written, first, second);
    detail::multiply_monarch<Arch, std::remove_const_t<T>, std::remove_const_t<W1>, std::remove_const_t<W2>, Out>(
        m, detail::in_blocks<const std::remove_const_t<T>>(x, m.k, m.p), w1, w2, detail::in_blocks(out, m.s, m.l), ctx);
}

/// The same, by weights that are packed.
template <class Arch, class T, class Out>
void apply(const monarch_matrix<Arch>& matrix, const view<T, 2>& x, const view<Out, 2>& out, const context_ref& ctx = {})
{
    detail::check_rows_types<T, Out>();
    const detail::monarch_shape& m = matrix.packed().shape();
    detail::check_rows(checker("conv::apply"), {"x", x}, {"out", out}, m);
    detail::apply_monarch<Arch, std::remove_const_t<T>, Out>(matrix.packed(), detail::in_blocks<const std::remove_const_t<T>>(x, m.k, m.p),
                                                             detail::in_blocks(out, m.s, m.l), ctx);
}

/// The same for x [B, k, p], blocks and their numbers, and out [B, s, l], rows of blocks and blocks. Strides of x other than those of
/// contiguous rows are a permutation before the matrix that costs no pass of its own: the discrete Fourier transform has one, see
/// dft_monarch.
template <class Arch, class T, class Out>
void apply(const monarch_matrix<Arch>& matrix, const view<T, 3>& x, const view<Out, 3>& out, const context_ref& ctx = {})
{
    detail::check_rows_types<T, Out>();
    detail::check_rows(checker("conv::apply"), {"x", x}, {"out", out}, matrix.packed().shape());
    detail::apply_monarch<Arch, std::remove_const_t<T>, Out>(matrix.packed(), x, out, ctx);
}

} // namespace conv
SEQMIX_NAMESPACE_END
