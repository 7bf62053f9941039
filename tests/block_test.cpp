// SPDX-License-Identifier: MIT
// tile/block.hpp: blocks with any strides to dense registers and back.
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/tile/combine.hpp>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

namespace block_test {

namespace {

namespace sm = seqmix;
namespace tile = seqmix::tile;
using sm::bf16;
using sm::f16;
using sm::index;
using f32 = sm::simd::f32<test_arch>;

constexpr index lanes = f32::lanes;

/// Signed steps of a block's axes; 0: one step beyond the whole of the other axis, so that rows or columns are dense in
/// turn.
struct pattern {
    const char* name;
    index row, column;
    bool rows_turned, columns_turned;
};
constexpr pattern patterns[] = {
    {"columns contiguous", 0, 1, false, false},
    {"columns contiguous, rows reversed", 0, 1, true, false},
    {"columns reversed", 0, 1, false, true},
    {"rows contiguous", 1, 0, false, false},
    {"rows contiguous and reversed", 1, 0, true, false},
    {"rows contiguous, columns reversed", 1, 0, false, true},
    {"rows contiguous, both reversed", 1, 0, true, true},
    {"columns apart", 0, 3, false, false},
    {"rows apart", 2, 0, false, false},
    {"rows apart, both reversed", 2, 0, true, true},
};

/// Where the elements of a pattern stand in memory of `size` elements, none of which is beyond reach.
struct placing {
    index first = 0, row = 0, column = 0, size = 0;

    placing(const pattern& how, index rows, index columns)
    {
        row = how.row != 0 ? how.row : columns * how.column + 2,
        column = how.column != 0 ? how.column : rows * how.row + 2;
        if (rows == 0 || columns == 0) { return; }
        size = (rows - 1) * row + (columns - 1) * column + 1;
        if (how.rows_turned) { first += (rows - 1) * row, row = -row; }
        if (how.columns_turned) { first += (columns - 1) * column, column = -column; }
    }
    index at(index r, index c) const { return first + r * row + c * column; }
    template <class T>
    tile::block<T> on(T* memory, index rows, index columns) const
    {
        return {memory + first, row, column, rows, columns};
    }
};

/// Floats for a block, in rows or in panels; and the numbers that they are.
struct registers {
    index rows, columns, row_stride, group_stride, groups;
    guarded<float> memory;

    registers(index r, index c, bool panels)
        : rows(r), columns(c), row_stride(panels ? lanes : (c + lanes - 1) / lanes * lanes + 3),
          group_stride(panels ? r * lanes + 5 : lanes), groups((c + lanes - 1) / lanes),
          memory(r * row_stride + groups * group_stride, sizeof(float))
    {
    }
    tile::lane_groups where() { return {memory.data(), row_stride, group_stride}; }
    index at(index r, index c) const { return r * row_stride + c / lanes * group_stride + c % lanes; }
    /// Whether all that is not a register of the block is as it was made.
    bool rest_untouched() const
    {
        std::vector<bool> ours(static_cast<std::size_t>(memory.size()));
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < groups * lanes; ++c) { ours[static_cast<std::size_t>(at(r, c))] = true; }
        }
        for (index i = 0; i < memory.size(); ++i) {
            if (!ours[static_cast<std::size_t>(i)] && !memory.untouched(i)) { return false; }
        }
        return memory.intact();
    }
};

template <class Body>
void for_shapes(const Body& body)
{
    const index sizes[] = {0, 1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes + 3, 13};
    for (const pattern& how : patterns) {
        for (index rows : sizes) {
            for (index columns : sizes) {
                for (const bool panels : {false, true}) {
                    INFO(how.name << ", " << rows << " x " << columns << (panels ? ", panels" : ", rows"));
                    body(how, rows, columns, panels);
                }
            }
        }
    }
}

template <class T>
void check_loads()
{
    for_shapes([](const pattern& how, index rows, index columns, bool panels) {
        const placing place(how, rows, columns);
        at_the_edge<T> memory(place.size);
        random_source random(7);
        for (index i = 0; i < place.size; ++i) { memory[i] = T(random.normal()); }
        const T* const numbers = memory.data();
        const auto block = place.on(numbers, rows, columns);

        registers plain(rows, columns, panels), changed(rows, columns, panels);
        tile::load_block<test_arch>(block, plain.where());
        index misplaced = 0, calls = 0;
        const float* const begin = changed.memory.data();
        tile::load_block<test_arch>(block, changed.where(), [&](f32 x, index group, const float* to) {
            const index offset = to - begin - group * changed.group_stride;
            misplaced +=
                offset % changed.row_stride != 0 || offset / changed.row_stride >= rows || group >= changed.groups;
            ++calls;
            return x * f32::broadcast(2.0f) + f32::broadcast(static_cast<float>(group + 1));
        });
        CHECK(misplaced == 0);
        CHECK(calls == rows * plain.groups);
        index wrong = 0, wrongly_changed = 0;
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < plain.groups * lanes; ++c) {
                const float want = c < columns ? static_cast<float>(memory[place.at(r, c)]) : 0.0f;
                wrong += plain.memory[plain.at(r, c)] != want;
                wrongly_changed += changed.memory[changed.at(r, c)] != 2.0f * want + static_cast<float>(c / lanes + 1);
            }
        }
        CHECK(wrong == 0);
        CHECK(wrongly_changed == 0);
        CHECK((plain.rest_untouched() && changed.rest_untouched()));
    });
}

template <class T>
void check_stores()
{
    for_shapes([](const pattern& how, index rows, index columns, bool panels) {
        const placing place(how, rows, columns);
        registers from(rows, columns, panels);
        random_source random(8);
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < columns; ++c) { from.memory[from.at(r, c)] = random.normal(); }
        }
        guarded<T> memory(place.size, sizeof(T));
        at_the_edge<T> edge(place.size);
        tile::store_block<test_arch>(from.where(), place.on(memory.data(), rows, columns));
        tile::store_block<test_arch>(from.where(), place.on(edge.data(), rows, columns)); // a fault is what fails
        std::vector<bool> reached(static_cast<std::size_t>(place.size));
        index wrong = 0;
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < columns; ++c) {
                const T want = T(from.memory[from.at(r, c)]);
                reached[static_cast<std::size_t>(place.at(r, c))] = true;
                wrong += std::memcmp(&memory[place.at(r, c)], &want, sizeof(T)) != 0 ||
                         std::memcmp(&edge[place.at(r, c)], &want, sizeof(T)) != 0;
            }
        }
        for (index i = 0; i < place.size; ++i) {
            wrong += !reached[static_cast<std::size_t>(i)] && !memory.untouched(i);
        }
        CHECK(wrong == 0);
        CHECK(memory.intact());
    });
}

} // namespace

TEST_CASE("blocks of any strides are made dense, with and without a function on the way")
{
    check_loads<float>();
    check_loads<bf16>();
    check_loads<f16>();
}

TEST_CASE("dense registers are stored as blocks of any strides, and nothing else is written")
{
    check_stores<float>();
    check_stores<bf16>();
    check_stores<f16>();
}

TEST_CASE("a function on the way may read and write what belongs to its register")
{
    for (const pattern& how : patterns) {
        const index rows = lanes + 3, columns = 2 * lanes + 1;
        const placing place(how, rows, columns);
        guarded<float> memory(place.size);
        for (index i = 0; i < place.size; ++i) { memory[i] = static_cast<float>(i); }
        registers first(rows, columns, false), second(rows, columns, false), beside(rows, columns, false);
        const float* const numbers = memory.data();
        tile::load_block<test_arch>(place.on(numbers, rows, columns), first.where());
        const index to_first = first.memory.data() - second.memory.data(),
                    to_beside = beside.memory.data() - second.memory.data();
        tile::load_block<test_arch>(place.on(numbers, rows, columns), second.where(), [&](f32 x, index, float* at) {
            (x + f32::broadcast(1.0f)).store(at + to_beside);
            return f32::load(at + to_first) * x;
        });
        INFO(how.name);
        index wrong = 0;
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < columns; ++c) {
                const float x = memory[place.at(r, c)];
                wrong += second.memory[second.at(r, c)] != x * x || beside.memory[beside.at(r, c)] != x + 1.0f;
            }
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("what is stored may be combined with blocks of any strides, and with what is there")
{
    for_shapes([](const pattern& how, index rows, index columns, bool panels) {
        const pattern& other_way = patterns[static_cast<std::size_t>(rows + columns) % std::size(patterns)];
        const placing place(how, rows, columns), other_place(other_way, rows, columns);
        registers from(rows, columns, panels);
        random_source random(9);
        guarded<bf16> out(place.size);
        guarded<float> other(other_place.size);
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < columns; ++c) {
                from.memory[from.at(r, c)] = random.normal();
                out[place.at(r, c)] = bf16(random.normal());
                other[other_place.at(r, c)] = random.normal();
            }
        }
        std::vector<bf16> want;
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < columns; ++c) {
                want.push_back(bf16(static_cast<float>(out[place.at(r, c)]) +
                                    from.memory[from.at(r, c)] * other[other_place.at(r, c)]));
            }
        }
        const auto store = rows % 2 == 0 ? tile::store::kept : tile::store::streamed;
        tile::store_combined<test_arch>(
            from.where(), place.on(out.data(), rows, columns), store, [](f32 x, f32 old, f32 factor) { return old + x * factor; },
            place.on(static_cast<const bf16*>(out.data()), rows, columns),
            other_place.on(static_cast<const float*>(other.data()), rows, columns));
        f32::stream_fence();
        index wrong = 0;
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < columns; ++c) {
                wrong += std::memcmp(&out[place.at(r, c)], &want[static_cast<std::size_t>(r * columns + c)], sizeof(bf16)) != 0;
            }
        }
        CHECK(wrong == 0);
        CHECK(out.intact());
    });
}

TEST_CASE("the lines that are asked for ahead are those of the block")
{
    const auto check = [](auto type) {
        using T = decltype(type);
        constexpr index most = 64;
        for (const pattern& how : patterns) {
            if (how.row != 1 && how.column != 1) { continue; }
            if (how.columns_turned && how.column == 1) { continue; }
            const placing place(how, most, lanes);
            guarded<T> memory(place.size);
            const T* const numbers = memory.data();
            const auto block = place.on(numbers, most, lanes);
            auto lines = tile::block_lines<test_arch>::of(block);
            const auto line_of = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) / 64; };
            std::set<std::uintptr_t> asked, ours;
            for (index row = 0; row < most; ++row) {
                asked.insert(line_of(lines.at));
                lines.ask_for(row);
                // Columns that are contiguous may cross into one line more, which is not asked for.
                for (index c = 0; c < (how.column == 1 ? 1 : lanes); ++c) {
                    ours.insert(line_of(numbers + place.at(row, c)));
                }
            }
            INFO(how.name);
            std::size_t found = 0;
            for (std::uintptr_t line : ours) { found += asked.count(line); }
            // Of rows that cross a border at both ends, one line may be missing for each column.
            CHECK(found + (how.column == 1 ? 0 : static_cast<std::size_t>(lanes)) >= ours.size());
        }
    };
    check(0.0f);
    check(bf16{});
}

} // namespace block_test
