// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/epilogue.hpp>
#include <seqmix/quant/float_matmul.hpp>
#include <seqmix/quant/integer_matmul.hpp>
#include <seqmix/quant/table_matmul.hpp>
#include <seqmix/tile/memory.hpp>

// out = x Wᵀ with packed weights.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// Rows of x as floats, in the order of the weights' positions, padded with zeros to `depth`.
template <class Arch, class T>
void gather_row(const view<const T, 1>& x, const std::int32_t* order, index depth, float* to)
{
    if (order != nullptr) {
        for (index p = 0; p < depth; ++p) { to[p] = order[p] < 0 ? 0.0f : static_cast<float>(x(order[p])); }
        return;
    }
    tile::copy_row<Arch>(x.data(), x.stride(0), x.extent(0), to);
    for (index p = x.extent(0); p < depth; ++p) { to[p] = 0.0f; }
}

/// Integer products: activations become bytes, then columns of out are shared among the workers.
template <class Arch, class T, class Out>
void multiply_as_bytes(const view<const T, 2>& x, const byte_weights<Arch>& w, const view<Out, 2>& out, const options& opt, const context_ref& ctx)
{
    constexpr index lanes = simd::lanes<Arch>, block_rows = tile::blocking<Arch>::rows, width = tile::blocking<Arch>::columns;
    constexpr index few = 8, rows_at_once = 256, task_registers = 8;
    using block = unpacked_block<Arch>;
    const index rows = x.extent(0), columns = w.rows;
    const epilogue<Arch, Out> end(opt, out);

    const auto whole_blocks = [](index count) { return (count + block_rows - 1) / block_rows * block_rows; };
    const auto own_pieces = [&](arena& a) {
        struct pieces {
            float* row;
            block right;
            float* sums;
        };
        return pieces{a.take<float>(w.depth), block(a, w.cut, w.has_min), a.take<float>(whole_blocks(smaller(rows, rows_at_once)) * block::columns)};
    };
    arena own, shared;
    static_cast<void>(own_pieces(own));
    static_cast<void>(activation_bytes<Arch>(shared, rows, w.cut));
    const bool few_rows = rows <= few;
    const index tasks = few_rows ? (w.registers + task_registers - 1) / task_registers : (columns + block::columns - 1) / block::columns;

    ctx.in_phases(larger(rows, tasks), own.used(), shared.used(), [&](std::byte* memory, const auto& phase) {
        arena carve(memory);
        const activation_bytes<Arch> bytes(carve, rows, w.cut);
        phase(rows, [&](index row, std::byte* scratch) {
            arena a(scratch);
            float* const gathered = own_pieces(a).row;
            gather_row<Arch>(x[row], w.order, w.depth, gathered);
            bytes.quantize(row, gathered, w.zero);
        });
        const activation_codes<Arch> codes = bytes.codes();
        if (few_rows) {
            phase(tasks, [&](index task, std::byte*) {
                float sums[few * few_registers * lanes];
                const index last = smaller((task + 1) * task_registers, w.registers);
                for (index first = task * task_registers; first < last; first += few_registers) {
                    w.few(w.matrix, codes, w.cut, rows, first, smaller(first + 1, last - 1), sums);
                    const index live = smaller(smaller(last - first, few_registers) * lanes, columns - first * lanes);
                    for (index row = 0; row < rows && live > 0; ++row) {
                        end.store(sums + row * few_registers * lanes, row, first * lanes, live, bytes.row_scale(row));
                    }
                }
            });
            return;
        }
        phase(tasks, [&](index task, std::byte* scratch) {
            arena a(scratch);
            const auto mine = own_pieces(a);
            const index first = task * block::columns, live = smaller(block::columns, columns - first);
            for (index row = 0; row < rows; row += rows_at_once) {
                const index count = smaller(rows - row, rows_at_once);
                multiply_block(codes, row, whole_blocks(count), w, first / lanes, (live + width - 1) / width, mine.right, mine.sums);
                for (index r = 0; r < count; ++r) { end.store(mine.sums + r * block::columns, row + r, first, live, bytes.row_scale(row + r)); }
            }
        });
    });
}

/// Sums looked up: rows of x become tables, some at a time, then panels are shared among the workers.
template <class Arch, class T, class Out, tabulated F>
void multiply_as_tables(const view<const T, 2>& x, const packed_matrix<F>& w, const view<Out, 2>& out, const options& opt, const context_ref& ctx)
{
    constexpr index panel = packed_layout<F>::panel_rows, task_panels = 8, rows_at_once = 8;
    const index rows = x.extent(0), columns = w.rows(), depth = w.layout().depth(), panels = w.layout().panels();
    const depth_cut cut = cut_for_tables(w.layout(), opt.scales);
    const epilogue<Arch, Out> end(opt, out);
    arena own, shared;
    static_cast<void>(own.take<float>(depth));
    static_cast<void>(activation_tables<F>(shared, smaller(rows, rows_at_once), cut, 0));
    const index tasks = (panels + task_panels - 1) / task_panels;
    ctx.in_phases(larger(rows, tasks), own.used(), shared.used(), [&](std::byte* memory, const auto& phase) {
        for (index row = 0; row < rows; row += rows_at_once) {
            const index count = smaller(rows - row, rows_at_once);
            arena carve(memory);
            const activation_tables<F> tables(carve, count, cut, w.most_code());
            phase(count, [&](index r, std::byte* scratch) {
                arena a(scratch);
                float* const gathered = a.take<float>(depth);
                gather_row<Arch>(x[row + r], w.order(), depth, gathered);
                tables.template tabulate<Arch>(r, gathered);
            });
            phase(tasks, [&](index task, std::byte*) {
                const index last = smaller((task + 1) * task_panels, panels);
                for (index first = task * task_panels; first < last; first += table_panels) {
                    for (index r = 0; r < count; ++r) {
                        float sums[table_panels * panel];
                        multiply_by_tables<Arch>(tables, cut, r, w, first, last - 1, sums);
                        end.store(sums, row + r, first * panel, smaller(smaller(last - first, table_panels) * panel, columns - first * panel), 1.0f);
                    }
                }
            });
        }
    });
}

/// Weights as floats or bf16 (Element).
template <class Arch, class Element, class T, class Out>
void multiply_as_floats(const view<const T, 2>& x, const float_weights<Arch, Element>& w, const view<Out, 2>& out, const options& opt,
                        const context_ref& ctx)
{
    using product = tile::product<Arch, Element>;
    using word = typename product::word;
    constexpr index lanes = simd::lanes<Arch>, width = tile::blocking<Arch>::columns, rows_at_once = 128;
    const index rows = x.extent(0), columns = w.rows;
    const index row_words = (tile::depth_words<product>(w.depth) + 15) / 16 * 16;
    const index stride = tile::crowded(row_words * 4) ? row_words + 16 : row_words;
    const bool in_place = std::is_same_v<T, Element> && x.stride(1) == 1 && w.order == nullptr && w.used_depth % product::group == 0 &&
                          !tile::crowded(x.stride(0) * static_cast<index>(sizeof(T)));
    const epilogue<Arch, Out> end(opt, out);

    struct pieces {
        word* right;
        float* sums;
        float* row;
    };
    const auto own_pieces = [&](arena& a) {
        return pieces{a.take<word>(float_depth_words * width), a.take<float>(smaller(rows, rows_at_once) * width), a.take<float>(w.depth)};
    };
    arena own, shared;
    static_cast<void>(own_pieces(own));
    static_cast<void>(shared.take<word>(in_place ? 0 : rows * stride));
    const index tasks = (columns + width - 1) / width;

    ctx.in_phases(larger(rows, tasks), own.used(), shared.used(), [&](std::byte* memory, const auto& phase) {
        word* const copy = arena(memory).take<word>(in_place ? 0 : rows * stride);
        const auto left = in_place ? tile::left_operand::of(x.data(), x.stride(0), product::group) : tile::left_operand::of(copy, stride, 1);
        if (!in_place) {
            phase(rows, [&](index row, std::byte* scratch) {
                word* const to = copy + row * stride;
                if constexpr (product::group == 1) {
                    gather_row<Arch>(x[row], w.order, w.depth, to);
                } else {
                    arena a(scratch);
                    float* const gathered = own_pieces(a).row;
                    gather_row<Arch>(x[row], w.order, w.depth, gathered);
                    auto* const elements = reinterpret_cast<Element*>(to);
                    for (index p = 0; p < w.depth; ++p) { elements[p] = static_cast<Element>(gathered[p]); }
                }
            });
        }
        phase(tasks, [&](index task, std::byte* scratch) {
            arena a(scratch);
            const pieces mine = own_pieces(a);
            const index first = task * width, live = smaller(width, columns - first);
            for (index row = 0; row < rows; row += rows_at_once) {
                const index count = smaller(rows - row, rows_at_once);
                tile::left_operand block = left;
                block.base += row * left.row_stride;
                multiply_decoded(block, w, first / lanes, mine.right, view<float, 2>(mine.sums, {count, live}, {width, 1}));
                for (index r = 0; r < count; ++r) { end.store(mine.sums + r * width, row + r, first, live, 1.0f); }
            }
        });
    });
}

} // namespace detail

/// out [M, N] = activation(x [M, K] · Wᵀ + bias) + residual, W [N, K] packed. x and out float, bf16 or f16, of any strides (unit stride
/// along the last axis is fast). `options::compute` says in what:
///
/// | compute | weights | activations | error of a sum over K, u = 2^-24 |
/// |---|---|---|---|
/// | floats | exact | exact | K u Σ|x w| |
/// | bf16 | to nearest, 2^-8 relative | the same | (2^-7 + 2^-16 + K u) Σ|x w| |
/// | int8 | exact | half a step of their block, max|x| / 254 | Σ over blocks of max|x| / 254 Σ|w|, and u for each group |
///
/// A row with NaN or an infinity in x is NaN with int8, everywhere. Results do not depend on the number of threads; with int8 rows do
/// not depend on each other. Refuses shapes that do not fit, null, an out that overlaps what is read (residual may be out), int8 for
/// formats that are no integers. Why the errors are these: quant/README.md.
template <class Arch = arch::native, class T, class Out, format F>
void matmul(const view<T, 2>& x, const packed_matrix<F>& w, const view<Out, 2>& out, const options& opt = {}, const context_ref& ctx = {})
{
    using In = std::remove_const_t<T>;
    static_assert(storage<In> && storage<Out>, "seqmix: matmul reads and writes float, bf16 or f16");
    const checker check("quant::matmul");
    check_given(check, x, "x"), check_given(check, out, "out");
    check_extent(check, x, "x", 1, "number of columns", w.columns(), "the weights'");
    check_extent(check, out, "out", 0, "number of rows", x.extent(0), "x's");
    check_extent(check, out, "out", 1, "number of columns", w.rows(), "the weights' number of rows");
    check_apart(check, reach(out), "out", x, "x");
    check_apart(check, reach(out), "out", view<const std::byte, 1>(w.panel(0), {w.bytes()}), "the weights");
    if (opt.bias) {
        check_extent(check, opt.bias, "bias", 0, "length", w.rows(), "the weights' number of rows");
        check_apart(check, reach(out), "out", opt.bias, "bias");
    }
    if (opt.residual) {
        check_extent(check, opt.residual, "residual", 0, "number of rows", x.extent(0), "x's");
        check_extent(check, opt.residual, "residual", 1, "number of columns", w.rows(), "the weights' number of rows");
        const bool is_out = static_cast<const void*>(opt.residual.data()) == static_cast<const void*>(out.data()) && std::is_same_v<Out, float> &&
                            opt.residual.strides() == out.strides();
        if (!is_out) { check_apart(check, reach(out), "out", opt.residual, "residual"); }
    }
    check.require(F::integer_codes || opt.compute != compute::int8, "compute is int8, but the codes of ", F::name, " are no integers");
    check.require(opt.compute != compute::tables || (tabulated<F> && (w.layout().group % 32 == 0 || w.layout().groups <= 1)),
                  "compute is tables, but those are for integers of up to 4 bits in groups of a multiple of 32; ", F::name, " has ", F::bits,
                  " bits in groups of ", w.layout().group);
    const view<const In, 2> in = x;
    if constexpr (tabulated<F>) {
        if (opt.compute == compute::tables) {
            detail::multiply_as_tables<Arch>(in, w, out, opt, ctx);
            return;
        }
    }
    if (opt.compute == compute::int8) {
        if constexpr (F::integer_codes) { detail::multiply_as_bytes(in, byte_weights<Arch>(w, opt.scales), out, opt, ctx); }
        return;
    }
    if constexpr (simd::backend<Arch>::has_bf16_dot) {
        if (opt.compute == compute::bf16) {
            detail::multiply_as_floats(in, float_weights<Arch, bf16>(w), out, opt, ctx);
            return;
        }
    }
    detail::multiply_as_floats(in, float_weights<Arch, float>(w), out, opt, ctx);
}

} // namespace quant
SEQMIX_NAMESPACE_END
