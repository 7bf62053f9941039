// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cstddef>

// Groups of rows, each with its weights: what products are written over. A plain product is one group of all rows.

SEQMIX_NAMESPACE_BEGIN
namespace quant::detail {

/// Rows [0, total) in groups that lie one after the other, and packed matrices of one shape and format, one for each group: of two
/// products two. Kernels know no formats; a matrix is an address.
struct row_groups {
    index total = 0;
    view<const std::int32_t, 1> counts{}; ///< rows of each group; not given: one group of all
    view<const std::int32_t, 1> rows{};   ///< which row of x is taken at each place; not given: the same
    const std::byte* weights[2] = {};     ///< the first group's; the second null where there is one product
    index weights_size = 0;               ///< from one group's to the next

    index size() const { return counts ? counts.extent(0) : 1; }
    index count(index group) const { return counts ? counts(group) : total; }
    index row(index at) const { return rows ? rows(at) : at; }
    int products() const { return weights[1] != nullptr ? 2 : 1; }
};

/// A group that has rows, [first, first + count), with tasks [first_task, …) of its own. What is made of its rows stands from `place`
/// on, where a block begins.
template <class Weights>
struct row_group {
    index number, first, count, place, first_task;
    Weights weights[2]; ///< as many as there are products
};

/// The groups that have rows, in order; for each of them tasks_of(count) tasks, and places for whole blocks of rows.
template <class Weights>
struct listed_groups {
    row_group<Weights>* groups;
    index size = 0, tasks = 0, places = 0;

    /// `to` has room for as many as there are; null: only counts. `like` is any group's weights.
    template <class TasksOf>
    listed_groups(const row_groups& all, const Weights& like, const TasksOf& tasks_of, row_group<Weights>* to, index block = 1) : groups(to)
    {
        for (index number = 0, first = 0; number < all.size(); ++number) {
            const index count = all.count(number);
            if (count == 0) { continue; }
            if (to != nullptr) {
                const auto weights = [&](int product) {
                    return all.weights[product] != nullptr ? like.of(all.weights[product] + number * all.weights_size) : like;
                };
                to[size] = {number, first, count, places, tasks, {weights(0), weights(1)}};
            }
            ++size, tasks += tasks_of(count), first += count, places += (count + block - 1) / block * block;
        }
    }

    const row_group<Weights>& of_task(index task) const { return last_from(&row_group<Weights>::first_task, task); }
    const row_group<Weights>& of_row(index row) const { return last_from(&row_group<Weights>::first, row); }
    const row_group<Weights>& of_place(index place) const { return last_from(&row_group<Weights>::place, place); }

private:
    /// The last group that starts at `at` or before.
    const row_group<Weights>& last_from(index row_group<Weights>::*start, index at) const
    {
        index low = 0, end = size;
        while (end - low > 1) {
            const index middle = (low + end) / 2;
            (groups[middle].*start <= at ? low : end) = middle;
        }
        return groups[low];
    }
};

} // namespace quant::detail
SEQMIX_NAMESPACE_END
