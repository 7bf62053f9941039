// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/epilogue.hpp>
#include <seqmix/quant/row_groups.hpp>
#include <seqmix/quant/table_matmul.hpp>

#include <algorithm>

// The loops of products by tables, as grouped_matmul.hpp has them of others.

SEQMIX_NAMESPACE_BEGIN
namespace quant::detail {

template <tabulated F>
struct table_weights {
    const packed_matrix<F>* matrix;

    table_weights of(const void* other) const { return {static_cast<const packed_matrix<F>*>(other)}; }
};

/// Some rows at a time become tables; then panels are shared among the workers, and each row meets the weights of its group.
template <class Arch, class T, class Out, tabulated F>
void multiply_as_tables(const view<const T, 2>& x, const row_groups& rows, const packed_matrix<F>& like, activation_scales scales,
                        const ending& what, const view<Out, 2>& out, const context_ref& ctx)
{
    using listed = listed_groups<table_weights<F>>;
    constexpr index panel = packed_layout<F>::panel_rows, task_panels = 8, rows_at_once = 8;
    const index columns = like.rows(), depth = like.layout().depth(), panels = like.layout().panels();
    const int products = rows.products();
    const depth_cut cut = cut_for_tables(like.layout(), scales);
    const epilogue<Arch, Out> end(what, out);
    const table_weights<F> first_weights{&like};
    const auto tasks_of = [](index) { return index{1}; };
    const listed counted(rows, first_weights, tasks_of, nullptr);
    // Both products, and all groups of a call, have the same terms.
    int most_code = 0;
    for (index group = 0; group < rows.size(); ++group) {
        for (int p = 0; p < products; ++p) {
            most_code = std::max(most_code, first_weights.of(rows.weights[p] + group * rows.weights_size).matrix->most_code());
        }
    }
    const auto shared_pieces = [&](arena& a) {
        struct pieces {
            activation_tables<F> tables;
            row_group<table_weights<F>>* groups;
        };
        return pieces{activation_tables<F>(a, smaller(rows.total, rows_at_once), cut, most_code),
                      a.take<row_group<table_weights<F>>>(counted.size)};
    };
    arena own, shared;
    static_cast<void>(own.take<float>(depth));
    static_cast<void>(shared_pieces(shared));
    const index tasks = (panels + task_panels - 1) / task_panels;

    ctx.in_phases(larger(rows.total, tasks), own.used(), shared.used(), [&](std::byte* memory, const auto& phase) {
        arena carve(memory);
        const auto pieces = shared_pieces(carve);
        const activation_tables<F>& tables = pieces.tables;
        const listed groups(rows, first_weights, tasks_of, pieces.groups);
        for (index row = 0; row < rows.total; row += rows_at_once) {
            const index count = smaller(rows.total - row, rows_at_once);
            phase(count, [&](index r, std::byte* scratch) {
                float* const gathered = arena(scratch).take<float>(depth);
                gather_row<Arch>(x[rows.row(row + r)], groups.of_row(row + r).weights[0].matrix->order(), depth, gathered);
                tables.template tabulate<Arch>(r, gathered);
            });
            phase(tasks, [&](index task, std::byte*) {
                const index last = smaller((task + 1) * task_panels, panels);
                for (index first = task * task_panels; first < last; first += table_panels<Arch>) {
                    const index live = smaller(smaller(last - first, table_panels<Arch>) * panel, columns - first * panel);
                    for (index r = 0; r < count; ++r) {
                        const row_group<table_weights<F>>& g = groups.of_row(row + r);
                        float sums[2][table_panels<Arch> * panel];
                        for (int p = 0; p < products; ++p) {
                            multiply_by_tables<Arch>(tables, cut, r, *g.weights[p].matrix, first, last - 1, sums[p]);
                        }
                        end.store(sums[0], products == 2 ? sums[1] : nullptr, g.number, row + r, first * panel, live, 1.0f);
                    }
                }
            });
        }
    });
}

} // namespace quant::detail
SEQMIX_NAMESPACE_END
