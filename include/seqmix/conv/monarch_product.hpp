// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/core/workspace.hpp>
#include <seqmix/tile/block.hpp>
#include <seqmix/tile/lane_products.hpp>
#include <seqmix/tile/mma.hpp>

#include <concepts>

// The kernel of Monarch products: how weights are packed, and what a block of rows goes through. README: monarch.md.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

namespace detail {

/// Whether all are numbers that the library computes with.
template <class... T>
concept numbers = ((std::same_as<std::remove_const_t<T>, float> || std::same_as<std::remove_const_t<T>, bf16> ||
                    std::same_as<std::remove_const_t<T>, f16>) && ...);

/// w1 is k blocks [q, p], w2 l blocks [s, r], and l r = k q.
struct monarch_shape {
    index k, q, p, l, s, r;

    index inputs() const { return k * p; }
    index outputs() const { return l * s; }
    index between() const { return k * q; }
};

/// Calls body(first, std::integral_constant<int, count>) for runs of up to three of `vectors` registers, as even as can be: a lone
/// register at the end would load more than it multiplies.
template <class Body>
SEQMIX_INLINE void for_panels(index vectors, const Body& body)
{
    for (index first = 0; first < vectors;) {
        const index left = vectors - first, panels = (left + 2) / 3, count = (left + panels - 1) / panels;
        simd::unroll<3>([&](auto i) SEQMIX_INLINE_LAMBDA {
            if (count == i + 1) { body(first, std::integral_constant<int, i + 1>{}); }
        });
        first += count;
    }
}

/// Weights as the kernel reads them: float, a depth step contiguous. Blocks of w1 as right operands of the micro-kernel, in panels of
/// for_panels. Those of w2 the same, or `interleaved`, as many as there are lanes, each in a lane of its own.
///
/// Interleaved blocks fill lanes with neighbours of the result as they stand in memory, in and out, and waste lanes that l does not fill;
/// the other way wastes lanes that s does not fill, and scatters what it writes.
template <class Arch>
class packed_monarch {
    using panels_product = tile::product<Arch, float>;
    static constexpr index lanes = simd::lanes<Arch>;
    static constexpr index in_registers(index columns) { return (columns + lanes - 1) / lanes; }

public:
    using product = panels_product;

    packed_monarch() = default;
    /// Takes its memory from `a`; pack_first and pack_second fill it.
    packed_monarch(arena& a, const monarch_shape& shape) : shape_(shape), interleaved_(interleaves(shape))
    {
        first_ = a.take<float>(shape.k * first_size());
        second_ = a.take<float>(seconds() * second_size());
    }

    const monarch_shape& shape() const { return shape_; }
    bool interleaved() const { return interleaved_; }
    /// Blocks of w2 that are packed by one call: of as many as there are lanes, or one.
    index seconds() const { return interleaved_ ? in_registers(shape_.l) : shape_.l; }

    /// Block i of w1.
    template <class W>
    void pack_first(const view<const W, 3>& w1, index i) const
    {
        pack_panels(w1[i], first_ + i * first_size());
    }
    /// Blocks n · lanes and on of w2; or block n.
    template <class W>
    void pack_second(const view<const W, 3>& w2, index n) const
    {
        float* const to = second_ + n * second_size();
        if (!interleaved_) { return pack_panels(w2[n], to); }
        for_columns([&](index column, auto count) SEQMIX_INLINE_LAMBDA {
            for (index j = column; j < column + count; ++j) {
                const W* block[lanes];
                for (index lane = 0; lane < lanes; ++lane) {
                    block[lane] = n * lanes + lane < shape_.l ? w2.data() + (n * lanes + lane) * w2.stride(0) + j * w2.stride(1) : nullptr;
                }
                tile::load_columns<Arch>(block, w2.stride(2), shape_.r, to + (column * shape_.r + j - column) * lanes, count * lanes);
            }
        });
    }

    /// Calls body(register, its panel, their number as a constant) for the panels of block i of w1.
    template <class Body>
    SEQMIX_INLINE void for_first(index i, const Body& body) const
    {
        panels_of(first_ + i * first_size(), shape_.q, shape_.p, body);
    }
    /// The same for block i of w2, not interleaved.
    template <class Body>
    SEQMIX_INLINE void for_second(index i, const Body& body) const
    {
        panels_of(second_ + i * second_size(), shape_.s, shape_.r, body);
    }
    /// Calls body(column, its panel, number of columns as a constant) for the columns of the n-th blocks, interleaved.
    template <class Body>
    SEQMIX_INLINE void for_interleaved(index n, const Body& body) const
    {
        const float* const from = second_ + n * second_size();
        for_columns([&](index column, auto count) SEQMIX_INLINE_LAMBDA {
            body(column, tile::right_panel<float>{from + column * shape_.r * lanes, count * lanes}, count);
        });
    }

private:
    /// Counts multiply-adds, the empty ones too, and a scattered register for as much as 2 of them a lane.
    static bool interleaves(const monarch_shape& m)
    {
        const index together = in_registers(m.l) * lanes * m.s * m.r;
        const index apart = m.l * in_registers(m.s) * lanes * (m.r + (m.l > 1 ? 2 * lanes : 0));
        return together <= apart;
    }
    index first_size() const { return in_registers(shape_.q) * lanes * shape_.p; }
    index second_size() const { return (interleaved_ ? shape_.s : in_registers(shape_.s)) * lanes * shape_.r; }

    template <class Body>
    SEQMIX_INLINE void for_columns(const Body& body) const
    {
        constexpr index most = tile::small_blocking<Arch>::vectors;
        for (index column = 0; column < shape_.s; column += most) {
            tile::with_vectors<Arch>(smaller(most, shape_.s - column), [&](auto count) SEQMIX_INLINE_LAMBDA { body(column, count); });
        }
    }
    template <class Body>
    static SEQMIX_INLINE void panels_of(const float* from, index columns, index depth, const Body& body)
    {
        for_panels(in_registers(columns), [&](index first, auto count) SEQMIX_INLINE_LAMBDA {
            body(first, tile::right_panel<float>{from + first * lanes * depth, count * lanes}, count);
        });
    }
    /// A block [columns, depth], turned.
    template <class W>
    static void pack_panels(const view<const W, 2>& block, float* to)
    {
        const index columns = block.extent(0), depth = block.extent(1);
        for_panels(in_registers(columns), [&](index first, auto count) SEQMIX_INLINE_LAMBDA {
            for (index v = first; v < first + count; ++v) {
                const W* row[lanes];
                for (index lane = 0; lane < lanes; ++lane) {
                    row[lane] = v * lanes + lane < columns ? block.data() + (v * lanes + lane) * block.stride(0) : nullptr;
                }
                tile::load_columns<Arch>(row, block.stride(1), depth, to + (first * depth + v - first) * lanes, count * lanes);
            }
        });
    }

    monarch_shape shape_{};
    bool interleaved_ = false;
    float *first_ = nullptr, *second_ = nullptr;
};

/// Rows of x and of out that go through both products together: what lies between them stays in L2, and both weights are read once for
/// all of them. Whole register tiles of either product.
inline index rows_at_once(const monarch_shape& m, index rows)
{
    constexpr index step = 24;
    const index bytes = larger(1, (m.between() + m.p) * static_cast<index>(sizeof(float)));
    const index most = larger(step, smaller(96, tile::level2_bytes / 4 / bytes / step * step));
    return smaller(most, (rows + step - 1) / step * step);
}

/// Scratch of one worker. What lies between the products has rows of interleaved blocks together, one register of blocks after another,
/// where the registers that the first product gives are such ones: where q = l, or both are whole registers. Else rows are dense, with
/// a register behind them: a register of blocks that l does not fill reads numbers of other blocks into lanes that are dropped.
template <class Arch>
struct monarch_scratch {
    static constexpr index lanes = simd::lanes<Arch>;
    float* between;
    float* copied; ///< [rows, p] of one block of x, where that is not read in place
    index copied_stride;
    index row_stride, of_step, of_registers; ///< of `between`: from row to row, from step to step of w2's depth, from register to register of its blocks
    bool by_registers;                       ///< the first of the two layouts

    monarch_scratch(arena& a, const packed_monarch<Arch>& weights, index rows)
    {
        const monarch_shape& m = weights.shape();
        by_registers = weights.interleaved() && (m.q == m.l || (m.q % lanes == 0 && m.l % lanes == 0));
        if (by_registers) {
            const index registers = (m.l + lanes - 1) / lanes;
            of_step = lanes, row_stride = (m.r + 1) * lanes; // one more, or all rows fall into few sets of L1
            of_registers = rows * row_stride;
            between = a.take<float>(registers * of_registers);
        } else {
            of_step = m.l, of_registers = lanes;
            row_stride = (m.between() + lanes - 1) / lanes * lanes + lanes;
            between = a.take<float>(rows * row_stride);
        }
        copied_stride = (m.p + lanes - 1) / lanes * lanes;
        copied = a.take<float>(rows * copied_stride);
    }
};

/// Block i of x times w1's, for some rows; to `to`, where register v of the block's results goes at place[v] of a row.
template <class Arch, int Vectors>
SEQMIX_NOINLINE void first_product(const tile::left_operand& x, index rows, index depth, const tile::right_panel<float>& panel, float* to,
                                   index row_stride, const index* places)
{
    using f32 = simd::f32<Arch>;
    index place[Vectors];
    simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { place[v] = places[v]; });
    tile::mma<tile::product<Arch, float>, Vectors>(rows, depth, x, panel, [&](index row, int v, f32 sum) SEQMIX_INLINE_LAMBDA {
        sum.store(to + row * row_stride + place[v]);
    });
}

/// Columns of a register of w2's blocks, of which the first `live` exist.
template <class Arch, int Columns, class Out>
SEQMIX_NOINLINE void second_product(const tile::lane_operand& left, index rows, index depth, const tile::right_panel<float>& panel,
                                    const view<Out, 3>& out, index live)
{
    using f32 = simd::f32<Arch>;
    Out* const base = out.data();
    const index of_row = out.stride(0), of_column = out.stride(1), of_lane = out.stride(2);
    if (of_lane == 1 && live >= f32::lanes) {
        tile::lane_mma<Arch, Columns>(rows, depth, left, panel, [&](index row, int n, f32 sum) SEQMIX_INLINE_LAMBDA {
            sum.store(base + row * of_row + n * of_column);
        });
    } else {
        tile::lane_mma<Arch, Columns>(rows, depth, left, panel, [&](index row, int n, f32 sum) SEQMIX_INLINE_LAMBDA {
            tile::store_strided<Arch>(sum, base + row * of_row + n * of_column, of_lane, live);
        });
    }
}

/// Rows [rows, k, p] of x to rows [rows, s, l] of out.
template <class Arch, class T, class Out>
void monarch_rows(const packed_monarch<Arch>& weights, const view<const T, 3>& x, const view<Out, 3>& out, const monarch_scratch<Arch>& scratch)
{
    using f32 = simd::f32<Arch>;
    constexpr index lanes = f32::lanes;
    const monarch_shape& m = weights.shape();
    const index rows = x.extent(0);
    // A line that one panel reads once may fall into any set of L1; copying it costs a fifth of the whole (measured, 1024 = 32 x 32).
    const bool once = m.q <= 3 * lanes || !tile::crowded(x.stride(0) * static_cast<index>(sizeof(T)));
    const bool in_place = std::is_same_v<T, float> && once;

    // Where the next register of the first product goes by registers: counted, for a division takes as long as a row's products with it.
    index step = 0, within = 0;
    for (index i = 0; i < m.k; ++i) {
        const T* const from = x.data() + i * x.stride(1);
        tile::left_operand left = tile::left_operand::of(from, x.stride(0), x.stride(2));
        if (!in_place) {
            tile::load_block<Arch>(tile::block<const T>{from, x.stride(0), x.stride(2), rows, m.p},
                                   tile::lane_groups{scratch.copied, scratch.copied_stride, lanes});
            left = tile::left_operand::of(scratch.copied, scratch.copied_stride, 1);
        }
        // Registers beyond q spill over numbers of the next block, which come after them, or over what no block has.
        weights.for_first(i, [&](index first, const tile::right_panel<float>& panel, auto count) SEQMIX_INLINE_LAMBDA {
            index places[count];
            for (index v = 0; v < count; ++v) {
                places[v] = scratch.by_registers ? step * scratch.of_step + within / lanes * scratch.of_registers : i * m.q + (first + v) * lanes;
                within += lanes;
                if (within >= m.l) { within = 0, ++step; }
            }
            first_product<Arch, count>(left, rows, m.p, panel, scratch.between, scratch.row_stride, places);
        });
    }

    if (weights.interleaved()) {
        // As many rows as lie in L1 together with a panel.
        constexpr index tile_rows = tile::small_blocking<Arch>::rows;
        const index bytes = larger(1, m.r * lanes * static_cast<index>(sizeof(float)));
        const index most = larger(tile_rows, tile::level1_bytes * 3 / 4 / bytes / tile_rows * tile_rows);
        for (index n = 0; n < weights.seconds(); ++n) {
            const index live = smaller(lanes, m.l - n * lanes);
            for (index row = 0; row < rows; row += most) {
                const index some = smaller(most, rows - row);
                const tile::lane_operand left = {scratch.between + n * scratch.of_registers + row * scratch.row_stride, scratch.row_stride,
                                                 scratch.of_step};
                weights.for_interleaved(n, [&](index column, const tile::right_panel<float>& panel, auto count) SEQMIX_INLINE_LAMBDA {
                    const view<Out, 3> to(out.data() + row * out.stride(0) + column * out.stride(1) + n * lanes * out.stride(2), out.extents(),
                                          out.strides());
                    second_product<Arch, count>(left, some, m.r, panel, to, live);
                });
            }
        }
        return;
    }
    for (index i = 0; i < m.l; ++i) {
        const tile::left_operand left = tile::left_operand::of(scratch.between + i, scratch.row_stride, m.l);
        weights.for_second(i, [&](index first, const tile::right_panel<float>& panel, auto count) SEQMIX_INLINE_LAMBDA {
            tile::mma<tile::product<Arch, float>, count>(rows, m.r, left, panel, [&](index row, int v, f32 sum) SEQMIX_INLINE_LAMBDA {
                const index j = (first + v) * lanes;
                tile::store_strided<Arch>(sum, out.data() + row * out.stride(0) + j * out.stride(1) + i * out.stride(2), out.stride(1), m.s - j);
            });
        });
    }
}

/// Spreads blocks of rows over the workers. `weights` are packed.
template <class Arch, class T, class Out, class ForEach>
void monarch_batch(const packed_monarch<Arch>& weights, const view<const T, 3>& x, const view<Out, 3>& out, index block, const ForEach& for_each)
{
    const index rows = x.extent(0);
    for_each((rows + block - 1) / block, [&](index task, std::byte* memory) {
        arena carve(memory);
        const monarch_scratch<Arch> scratch(carve, weights, block);
        const index from = task * block, to = smaller(from + block, rows);
        monarch_rows<Arch, T, Out>(weights, x.slice(0, from, to), out.slice(0, from, to), scratch);
    });
}

/// Rows of a task: fewer than L2 has room for where that keeps all workers busy. What a row yields does not depend on them.
inline index rows_of_task(const monarch_shape& m, index rows, int workers)
{
    const index share = (rows + workers - 1) / larger(1, workers);
    return larger(1, smaller(rows_at_once(m, rows), (share + 5) / 6 * 6));
}

/// Bytes of scratch of a worker.
template <class Arch>
std::size_t monarch_scratch_bytes(const packed_monarch<Arch>& weights, index rows)
{
    arena measure;
    static_cast<void>(monarch_scratch<Arch>(measure, weights, rows));
    return measure.used();
}

/// What every door asks of weights.
inline monarch_shape check_weights(const checker& check, const named_operand& w1, const named_operand& w2)
{
    check_given(check, w1, w2);
    const monarch_shape m = {w1.extent(0), w1.extent(1), w1.extent(2), w2.extent(0), w2.extent(1), w2.extent(2)};
    check.equal(m.l * m.r, m.between(), "the number of w2's inputs, l r,", "that of w1's outputs, k q,");
    return m;
}

/// And of rows: x [B, k, p] or [B, k p], out [B, s, l] or [B, s l].
inline void check_rows(const checker& check, const named_operand& x, const named_operand& out, const monarch_shape& m)
{
    check_given(check, x, out);
    if (x.rank() == 2) {
        check_shape(check, x, named_shape({"batch", x.extent(0), "x's"}) + named_extent{"number of inputs", m.inputs(), "the matrix's, k p,"});
    } else {
        check_shape(check, x, named_extent{"batch", x.extent(0), "x's"} + named_extent{"number of blocks", m.k, "the matrix's, k,"} +
                                  named_extent{"block size", m.p, "the matrix's, p,"});
    }
    const named_extent batch = {"batch", x.extent(0), "x's"};
    if (out.rank() == 2) {
        check_shape(check, out, batch + named_extent{"number of outputs", m.outputs(), "the matrix's, l s,"});
    } else {
        check_shape(check, out, batch + named_extent{"number of block rows", m.s, "the matrix's, s,"} +
                                    named_extent{"number of blocks", m.l, "the matrix's, l,"});
    }
    check_apart(check, out, x);
}

/// Rows of `blocks` parts each.
template <class T>
view<T, 3> in_blocks(const view<T, 2>& rows, index blocks, index size)
{
    return {rows.data(), {rows.extent(0), blocks, size}, {rows.stride(0), size * rows.stride(1), rows.stride(1)}};
}

} // namespace detail
} // namespace conv
SEQMIX_NAMESPACE_END
