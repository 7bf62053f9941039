// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/epilogue.hpp>
#include <seqmix/quant/float_matmul.hpp>
#include <seqmix/quant/integer_matmul.hpp>
#include <seqmix/quant/row_groups.hpp>

// The loops of all products: groups of rows times the weights of each, one product or two that meet in the epilogue. A task is a
// block of columns of one group, so that groups of few rows keep all workers busy.

SEQMIX_NAMESPACE_BEGIN
namespace quant::detail {

/// Integer products. Rows of activations become bytes, in whole blocks for each group. `like` is any group's weights,
/// `x_scale` that of x which holds bytes.
template <class Arch, class T, class Out>
void multiply_as_bytes(const view<const T, 2>& x, const view<const float, 1>& x_scale, const row_groups& rows,
                       const byte_weights<Arch>& like, const ending& what, const view<Out, 2>& out, const context_ref& ctx)
{
    constexpr index lanes = simd::lanes<Arch>, block_rows = tile::blocking<Arch>::rows, width = tile::blocking<Arch>::columns;
    constexpr index few = 8, rows_at_once = 256, task_registers = 8;
    using block = unpacked_block<Arch>;
    using listed = listed_groups<byte_weights<Arch>>;
    const index columns = like.rows;
    const int products = rows.products();
    const epilogue<Arch, Out> end(what, out);

    const auto whole_blocks = [](index count) { return (count + block_rows - 1) / block_rows * block_rows; };
    const index sums_size = whole_blocks(smaller(rows.total, rows_at_once)) * block::columns;
    const auto own_pieces = [&](arena& a) {
        struct pieces {
            float* row;
            block right;
            float* sums;
        };
        return pieces{a.take<float>(like.depth), block(a, like.cut, like.has_min), a.take<float>(products * sums_size)};
    };
    const auto tasks_of = [&](index count) {
        return count <= few ? (like.registers + task_registers - 1) / task_registers
                            : (columns + block::columns - 1) / block::columns;
    };
    const listed counted(rows, like, tasks_of, nullptr, block_rows);
    const auto shared_pieces = [&](arena& a) {
        struct pieces {
            activation_bytes<Arch> bytes;
            row_group<byte_weights<Arch>>* groups;
        };
        return pieces{activation_bytes<Arch>(a, counted.places, like.cut),
                      a.take<row_group<byte_weights<Arch>>>(counted.size)};
    };
    arena own, shared;
    static_cast<void>(own_pieces(own));
    static_cast<void>(shared_pieces(shared));

    ctx.in_phases(larger(counted.places / block_rows, counted.tasks), own.used(), shared.used(), [&](std::byte* memory, const auto& phase) {
        arena carve(memory);
        const auto pieces = shared_pieces(carve);
        const activation_bytes<Arch>& left = pieces.bytes;
        const listed groups(rows, like, tasks_of, pieces.groups, block_rows);
        phase(groups.places / block_rows, [&](index number, std::byte* scratch) {
            const auto& g = groups.of_place(number * block_rows);
            const std::int32_t* const order = g.weights[0].order;
            arena a(scratch);
            float* const gathered = own_pieces(a).row;
            const index first = number * block_rows - g.place;
            for (index r = first; r < smaller(first + block_rows, g.count); ++r) {
                const index row = rows.row(g.first + r), place = g.place + r;
                const view<const T, 1> from = x[row];
                if constexpr (std::is_same_v<T, std::int8_t>) {
                    left.take(place, from, order, x_scale(x_scale.extent(0) == 1 ? 0 : row), like.zero, reinterpret_cast<std::int8_t*>(gathered));
                } else {
                    const float* floats = gathered;
                    if constexpr (std::is_same_v<T, float>) {
                        const bool as_it_is = order == nullptr && from.stride(0) == 1 && from.extent(0) == like.depth;
                        if (as_it_is) { floats = from.data(); }
                    }
                    if (floats == gathered) { gather_row<Arch>(from, order, like.depth, gathered); }
                    left.quantize(place, floats, like.zero);
                }
            }
        });
        phase(groups.tasks, [&](index task, std::byte* scratch) {
            const row_group<byte_weights<Arch>>& g = groups.of_task(task);
            const activation_codes<Arch> codes = left.codes(g.place);
            if (g.count <= few) {
                float sums[2][few * few_registers * lanes];
                const index begin = (task - g.first_task) * task_registers;
                const index last = smaller(begin + task_registers, like.registers);
                for (index first = begin; first < last; first += few_registers) {
                    for (int p = 0; p < products; ++p) {
                        const byte_weights<Arch>& w = g.weights[p];
                        w.few(w.matrix, codes, w.cut, g.count, first, smaller(first + 1, last - 1), sums[p]);
                    }
                    const index live = smaller(smaller(last - first, few_registers) * lanes, columns - first * lanes);
                    for (index r = 0; r < g.count && live > 0; ++r) {
                        const index at = r * few_registers * lanes;
                        end.store(sums[0] + at, products == 2 ? sums[1] + at : nullptr, g.number, g.first + r, first * lanes,
                                  live, left.row_scale(g.place + r));
                    }
                }
                return;
            }
            arena a(scratch);
            const auto mine = own_pieces(a);
            const index first = (task - g.first_task) * block::columns, live = smaller(block::columns, columns - first);
            for (index row = 0; row < g.count; row += rows_at_once) {
                const index count = smaller(g.count - row, rows_at_once);
                for (int p = 0; p < products; ++p) {
                    multiply_block(codes, row, whole_blocks(count), g.weights[p], first / lanes, (live + width - 1) / width,
                                   mine.right, mine.sums + p * sums_size);
                }
                for (index r = 0; r < count; ++r) {
                    const float* const sums = mine.sums + r * block::columns;
                    end.store(sums, products == 2 ? sums + sums_size : nullptr, g.number, g.first + row + r, first, live,
                              left.row_scale(g.place + row + r));
                }
            }
        });
    });
}

/// Weights as floats or bf16 (Element).
template <class Arch, class Element, class T, class Out>
void multiply_as_floats(const view<const T, 2>& x, const row_groups& rows, const float_weights<Arch, Element>& like,
                        const ending& what, const view<Out, 2>& out, const context_ref& ctx)
{
    using product = tile::product<Arch, Element>;
    using word = typename product::word;
    using listed = listed_groups<float_weights<Arch, Element>>;
    constexpr index lanes = simd::lanes<Arch>, width = tile::blocking<Arch>::columns, rows_at_once = 128;
    const index columns = like.rows;
    const int products = rows.products();
    const index row_words = (tile::depth_words<product>(like.depth) + 15) / 16 * 16;
    const index stride = tile::crowded(row_words * 4) ? row_words + 16 : row_words;
    const bool in_place = std::is_same_v<T, Element> && x.stride(1) == 1 && !rows.rows && like.order == nullptr &&
                          like.used_depth % product::group == 0 && !tile::crowded(x.stride(0) * static_cast<index>(sizeof(T)));
    const index sums_size = smaller(rows.total, rows_at_once) * width;
    const epilogue<Arch, Out> end(what, out);

    const auto own_pieces = [&](arena& a) {
        struct pieces {
            word* right;
            float* sums;
            float* row;
        };
        return pieces{a.take<word>(float_depth_words * width), a.take<float>(products * sums_size), a.take<float>(like.depth)};
    };
    const auto tasks_of = [&](index) { return (columns + width - 1) / width; };
    const listed counted(rows, like, tasks_of, nullptr);
    const auto shared_pieces = [&](arena& a) {
        struct pieces {
            word* copy;
            row_group<float_weights<Arch, Element>>* groups;
        };
        return pieces{a.take<word>(in_place ? 0 : rows.total * stride),
                      a.take<row_group<float_weights<Arch, Element>>>(counted.size)};
    };
    arena own, shared;
    static_cast<void>(own_pieces(own));
    static_cast<void>(shared_pieces(shared));

    ctx.in_phases(larger(rows.total, counted.tasks), own.used(), shared.used(), [&](std::byte* memory, const auto& phase) {
        arena carve(memory);
        const auto pieces = shared_pieces(carve);
        const listed groups(rows, like, tasks_of, pieces.groups);
        const auto left = in_place ? tile::left_operand::of(x.data(), x.stride(0), product::group)
                                   : tile::left_operand::of(pieces.copy, stride, 1);
        if (!in_place) {
            phase(rows.total, [&](index at, std::byte* scratch) {
                const view<const T, 1> from = x[rows.row(at)];
                const std::int32_t* const order = groups.of_row(at).weights[0].order;
                word* const to = pieces.copy + at * stride;
                if constexpr (product::group == 1) {
                    gather_row<Arch>(from, order, like.depth, to);
                } else {
                    arena a(scratch);
                    float* const gathered = own_pieces(a).row;
                    gather_row<Arch>(from, order, like.depth, gathered);
                    auto* const elements = reinterpret_cast<Element*>(to);
                    for (index p = 0; p < like.depth; ++p) { elements[p] = static_cast<Element>(gathered[p]); }
                }
            });
        }
        phase(groups.tasks, [&](index task, std::byte* scratch) {
            const row_group<float_weights<Arch, Element>>& g = groups.of_task(task);
            arena a(scratch);
            const auto mine = own_pieces(a);
            const index first = (task - g.first_task) * width, live = smaller(width, columns - first);
            for (index row = 0; row < g.count; row += rows_at_once) {
                const index count = smaller(g.count - row, rows_at_once);
                tile::left_operand block = left;
                block.base += (g.first + row) * left.row_stride;
                for (int p = 0; p < products; ++p) {
                    multiply_decoded(block, g.weights[p], first / lanes, mine.right,
                                     view<float, 2>(mine.sums + p * sums_size, {count, live}, {width, 1}));
                }
                for (index r = 0; r < count; ++r) {
                    const float* const sums = mine.sums + r * width;
                    end.store(sums, products == 2 ? sums + sums_size : nullptr, g.number, g.first + row + r, first, live, 1.0f);
                }
            }
        });
    });
}

} // namespace quant::detail
SEQMIX_NAMESPACE_END
