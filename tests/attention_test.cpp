// SPDX-License-Identifier: MIT
// Shapes, types and layouts. attention_masks_test.cpp has what the options mean, attention_parts_test.cpp what is
// computed in parts, attention_refusals_test.cpp memory and refusals.
#include "attention_case.hpp"

#include <seqmix/attention.hpp>

#include <tuple>

namespace attention_test {

template <class T, class Out>
void run_forward(const sm::view<const T, 4>& q, const sm::view<const T, 4>& k, const sm::view<const T, 4>& v,
                 const sm::view<Out, 4>& out, const sm::attention::options& options, const sm::context_ref& ctx)
{
    sm::attention::forward<test_arch>(q, k, v, out, options, ctx);
}
template void run_forward(const sm::view<const float, 4>&, const sm::view<const float, 4>&,
                          const sm::view<const float, 4>&, const sm::view<float, 4>&, const sm::attention::options&,
                          const sm::context_ref&);
template void run_forward(const sm::view<const sm::bf16, 4>&, const sm::view<const sm::bf16, 4>&,
                          const sm::view<const sm::bf16, 4>&, const sm::view<sm::bf16, 4>&,
                          const sm::attention::options&, const sm::context_ref&);
template void run_forward(const sm::view<const sm::f16, 4>&, const sm::view<const sm::f16, 4>&,
                          const sm::view<const sm::f16, 4>&, const sm::view<sm::f16, 4>&, const sm::attention::options&,
                          const sm::context_ref&);

template <class T>
void run_forward_packed(const sm::view<const T, 3>& q, const sm::view<const T, 3>& k, const sm::view<const T, 3>& v,
                        const sm::view<T, 3>& out, const sm::view<const index, 1>& cu_queries,
                        const sm::view<const index, 1>& cu_keys, const sm::attention::options& options)
{
    sm::attention::forward_packed<test_arch>(q, k, v, out, cu_queries, cu_keys, options);
}
template void run_forward_packed(const sm::view<const float, 3>&, const sm::view<const float, 3>&,
                                 const sm::view<const float, 3>&, const sm::view<float, 3>&,
                                 const sm::view<const index, 1>&, const sm::view<const index, 1>&,
                                 const sm::attention::options&);
template void run_forward_packed(const sm::view<const sm::bf16, 3>&, const sm::view<const sm::bf16, 3>&,
                                 const sm::view<const sm::bf16, 3>&, const sm::view<sm::bf16, 3>&,
                                 const sm::view<const index, 1>&, const sm::view<const index, 1>&,
                                 const sm::attention::options&);
template void run_forward_packed(const sm::view<const sm::f16, 3>&, const sm::view<const sm::f16, 3>&,
                                 const sm::view<const sm::f16, 3>&, const sm::view<sm::f16, 3>&,
                                 const sm::view<const index, 1>&, const sm::view<const index, 1>&,
                                 const sm::attention::options&);

namespace {
constexpr index block_rows = sm::tile::blocking<test_arch>::rows;
}

TEST_CASE("attention: shapes that hurt, one axis at a time")
{
    const index sizes[] = {0,
                           1,
                           2,
                           3,
                           7,
                           lanes - 1,
                           lanes,
                           lanes + 1,
                           columns - 1,
                           columns,
                           columns + 1,
                           block_rows + 1,
                           13,
                           60,
                           63,
                           100,
                           2 * columns + 1};
    for (index size : sizes) {
        for (index axis = 0; axis < 4; ++axis) {
            attention_case c;
            c.shape = {
                .batch = 1, .heads = 2, .kv_heads = 2, .queries = 11, .keys = 37, .key_size = 17, .value_size = 14};
            (axis == 0   ? c.shape.queries
             : axis == 1 ? c.shape.keys
             : axis == 2 ? c.shape.key_size
                         : c.shape.value_size) = size;
            c.seed = static_cast<std::uint64_t>(size + 1);
            check_all_types(c);
        }
    }
}

TEST_CASE("attention: lengths around the key tile")
{
    for (const auto& [key_size, value_size] : {std::pair<index, index>{8, 12}, {100, 7}, {9, 321}}) {
        const index tile = sm::attention::keys_per_tile(key_size, value_size);
        for (index keys : {tile - 1, tile, tile + 1, 2 * tile - 1, 2 * tile + 1}) {
            attention_case c;
            c.shape = {.batch = 1,
                       .heads = 1,
                       .kv_heads = 1,
                       .queries = 21,
                       .keys = keys,
                       .key_size = key_size,
                       .value_size = value_size};
            check_all_types(c);
            c.rules.causal = causal::bottom_right;
            check_all_types(c);
        }
    }
}

TEST_CASE("attention: shapes at random")
{
    random_source random(2024);
    const index sizes[] = {1, 2, 3, 5, lanes, lanes + 1, columns, columns + 1, 29, 60, 63, 64, 100, 128};
    const auto pick = [&] { return sizes[random.integer(0, static_cast<index>(std::size(sizes)) - 1)]; };
    for (std::uint64_t seed = 1; seed <= (thorough ? 40 : 8); ++seed) {
        attention_case c;
        c.shape = {.batch = random.integer(1, 2),
                   .heads = 2,
                   .kv_heads = 1,
                   .queries = pick(),
                   .keys = pick(),
                   .key_size = pick(),
                   .value_size = pick()};
        c.seed = seed;
        if (seed % 2 == 0) { c.rules.causal = causal::bottom_right; }
        check_all_types(c);
    }
}

TEST_CASE("attention: query heads that share a key head")
{
    for (index ratio : {1, 2, 3, 8}) {
        for (index kv_heads : {1, 2}) {
            for (index queries : {index{1}, index{2}, index{5}, columns + 1}) { // few rows: heads share a panel
                attention_case c;
                c.shape = {.batch = 2,
                           .heads = ratio * kv_heads,
                           .kv_heads = kv_heads,
                           .queries = queries,
                           .keys = 70,
                           .key_size = 8,
                           .value_size = 6};
                c.rules.causal = causal::bottom_right;
                c.rules.sinks = c.rules.alibi = true; // both go by query head
                check_all_types(c);
            }
        }
    }
}

TEST_CASE("attention: half types in, float out")
{
    attention_case c;
    c.shape = {.batch = 1, .heads = 2, .kv_heads = 1, .queries = 31, .keys = 77, .key_size = 24, .value_size = 20};
    const attention_problem<sm::bf16> p(c);
    guarded<float> out(p.out_size());
    sm::attention::forward<test_arch>(p.q(), p.k(), p.v(), p.out_view(out.data()));
    const expectation want = p.expect<float>();
    const worst_error worst = worst_in_tolerances(out.data(), want.out, want.out_tolerance);
    INFO(worst);
    CHECK(worst.error <= 1.0);
    CHECK(out.intact());
}

namespace {

namespace at = sm::attention;

/// Hides odd keys, one score at a time.
struct even_keys_only {
    static constexpr bool prepares_tile = false;

    template <class Arch>
    at::sight prepare(const at::query_panel<Arch>&, const at::key_run&, float*) const
    {
        return at::sight::mixed;
    }
    template <class Arch>
    sm::simd::f32<Arch> apply(sm::simd::f32<Arch> score, const at::score_place<Arch>& place) const
    {
        return place.key % 2 == 0 ? score : sm::simd::f32<Arch>::broadcast(-infinity);
    }
};

/// Hides whole tiles of keys, which are then not touched.
struct without_tile {
    static constexpr bool prepares_tile = false;
    index first, end;

    template <class Arch>
    at::sight prepare(const at::query_panel<Arch>&, const at::key_run& keys, float*) const
    {
        return first <= keys.first && keys.end() <= end ? at::sight::hidden : at::sight::visible;
    }
    template <class Arch>
    sm::simd::f32<Arch> apply(sm::simd::f32<Arch> score, const at::score_place<Arch>&) const
    {
        return score;
    }
};

/// Adds what a table holds for a head and a key.
struct added_from_table {
    static constexpr bool prepares_tile = true;
    sm::view<const float, 2> table;

    template <class Arch>
    at::sight prepare(const at::query_panel<Arch>& panel, const at::key_run& keys, float* tile) const
    {
        for (index key = 0; key < keys.count; ++key) {
            for (int lane = 0; lane < at::query_panel<Arch>::columns; ++lane) {
                *tile++ = panel.head[lane] < 0 ? 0.0f : table(panel.head[lane], keys.first + key);
            }
        }
        return at::sight::visible;
    }
    template <class Arch>
    sm::simd::f32<Arch> apply(sm::simd::f32<Arch> score, const at::score_place<Arch>& place) const
    {
        return score + place.prepared();
    }
};

} // namespace

TEST_CASE("attention: parts of the caller's come after the options' own")
{
    attention_case c;
    c.shape = {.batch = 1, .heads = 4, .kv_heads = 2, .queries = 53, .keys = 450, .key_size = 8, .value_size = 12};
    const index tile = sm::attention::keys_per_tile(c.shape.key_size, c.shape.value_size);
    c.rules.mask = {true, 8, lie::dense}; // by key, and the same for all: what the parts must come to
    c.rules.bias = {true, 10, lie::dense};
    c.rules.softcap = 2.0f;
    c.rules.alibi = true;
    for (causal kind : {causal::none, causal::bottom_right}) {
        for (bool sigmoid : {false, true}) {
            c.rules.causal = kind;
            c.rules.sigmoid = sigmoid;
            c.poisons = {{operand::k, 0, 0, tile + 3}, {operand::v, 0, 1, tile + 100}, {operand::v, 0, 0, 7}};
            attention_problem<float> p(c);
            for (index j = 0; j < c.shape.keys; ++j) {
                p.mask()(0, 0, 0, j) = j % 2 == 0 && j / tile != 1;
                for (index h = 0; h < 4; ++h) { p.bias()(0, h, 0, j) = static_cast<float>((j * 7 + h) % 5); }
            }
            sm::attention::options options = p.options();
            options.mask = {};
            options.bias = {};
            const std::tuple parts(
                even_keys_only{}, without_tile{tile, 2 * tile},
                added_from_table{sm::view<const float, 2>(p.bias().data(), {index{4}, c.shape.keys})});
            guarded<float> out(p.out_size());
            sm::attention::forward_with<test_arch>(parts, p.q(), p.k(), p.v(), p.out_view(out.data()), options);
            const expectation want = p.expect();
            const worst_error worst = worst_in_tolerances(out.data(), want.out, want.out_tolerance);
            INFO(c << ": " << worst);
            CHECK(worst.error <= 1.0);
            CHECK(out.intact());
        }
    }
}

TEST_CASE("attention: nothing at all")
{
    for_all_types([](auto type) {
        using T = decltype(type);
        const auto shape = [](index b, index h, index l, index d) {
            return sm::view<const T, 4>(nullptr, {b, h, l, d});
        };
        const sm::view<T, 4> none;
        run_forward<T, T>(none, none, none, none, {});
        run_forward<T, T>(shape(0, 4, 3, 2), shape(0, 2, 5, 2), shape(0, 2, 5, 7),
                          sm::view<T, 4>(nullptr, {0, 4, 3, 7}), {});
        run_forward<T, T>(shape(2, 0, 3, 2), shape(2, 0, 5, 2), shape(2, 0, 5, 7),
                          sm::view<T, 4>(nullptr, {2, 0, 3, 7}), {});
        run_forward<T, T>(shape(2, 4, 0, 2), shape(2, 2, 0, 2), shape(2, 2, 0, 7),
                          sm::view<T, 4>(nullptr, {2, 4, 0, 7}), {});
        // No keys, and no value channels: the log-sum-exp is written all the same.
        guarded<float> lse(2 * 4 * 3);
        guarded<T> q(2 * 4 * 3 * 2);
        sm::attention::options options;
        options.lse = sm::view(lse.data(), {2, 4, 3});
        run_forward<T, T>(sm::view<const T, 4>(q.data(), {2, 4, 3, 2}), shape(2, 2, 0, 2), shape(2, 2, 0, 0),
                          sm::view<T, 4>(nullptr, {2, 4, 3, 0}), options);
        CHECK(std::all_of(lse.begin(), lse.end(), [](float x) { return x == -infinity; }));
    });
}

namespace {

/// How [B, H, L, D] lies in memory.
struct layout {
    const char* name;
    std::array<std::size_t, 4> order; ///< axes from the slowest to the fastest
    index step = 1;                   ///< of the fastest
    std::array<bool, 4> reversed{};
    index first = 0;        ///< elements from a register's border
    bool page_rows = false; ///< the fastest but one a multiple of 2048 bytes apart
};

const layout layouts[] = {
    {"dense", {0, 1, 2, 3}},
    {"off by one element", {0, 1, 2, 3}, 1, {}, 1},
    {"[B, L, H, D]", {0, 2, 1, 3}},
    {"[L, H, B, D], off by three", {2, 1, 0, 3}, 1, {}, 3},
    {"every third element", {0, 1, 2, 3}, 3},
    {"reversed in time", {0, 1, 2, 3}, 1, {false, false, true, false}},
    {"reversed in every axis", {0, 1, 2, 3}, 1, {true, true, true, true}, 1},
    {"[B, H, D, L]", {0, 1, 3, 2}},
    {"[D, L, H, B], every other, reversed", {3, 2, 1, 0}, 2, {false, true, false, true}},
    {"rows on page borders", {0, 1, 2, 3}, 1, {}, 0, true},
};

template <class T>
class laid_tensor {
public:
    laid_tensor(const std::array<index, 4>& extents, const layout& how)
        : memory_(place(extents, how), static_cast<std::size_t>(how.first) * sizeof(T))
    {
        T* data = memory_.data();
        for (std::size_t axis = 0; axis < 4; ++axis) {
            if (!how.reversed[axis]) { continue; }
            data += strides_[axis] * (extents[axis] - 1);
            strides_[axis] = -strides_[axis];
        }
        view_ = sm::view<T, 4>(data, extents, strides_);
    }
    laid_tensor(const sm::view<const T, 4>& from, const layout& how) : laid_tensor(from.extents(), how)
    {
        each([&](index b, index h, index l, index d) { view_(b, h, l, d) = from(b, h, l, d); });
    }
    const sm::view<T, 4>& view() const { return view_; }

    /// Whether all elements equal a dense tensor's bit for bit, and nothing around them has been written.
    bool equals(const sm::view<const T, 4>& want) const
    {
        bool good = memory_.intact();
        index written = 0;
        each([&](index b, index h, index l, index d) {
            good = good && std::memcmp(&view_(b, h, l, d), &want(b, h, l, d), sizeof(T)) == 0;
        });
        for (index i = 0; i < memory_.size(); ++i) { written += memory_.untouched(i) ? 0 : 1; }
        return good && written == view_.size();
    }

private:
    index place(const std::array<index, 4>& extents, const layout& how)
    {
        index size = how.step;
        for (std::size_t place = 4; place-- > 0;) {
            const std::size_t axis = how.order[place];
            if (how.page_rows && place == 2) { size = (size + 2047) / 2048 * 2048; }
            strides_[axis] = size;
            size *= extents[axis];
        }
        return size;
    }
    template <class Body>
    void each(const Body& body) const
    {
        for (index b = 0; b < view_.extent(0); ++b) {
            for (index h = 0; h < view_.extent(1); ++h) {
                for (index l = 0; l < view_.extent(2); ++l) {
                    for (index d = 0; d < view_.extent(3); ++d) { body(b, h, l, d); }
                }
            }
        }
    }

    std::array<index, 4> strides_{};
    guarded<T> memory_;
    sm::view<T, 4> view_;
};

} // namespace

TEST_CASE("attention: every layout gives the dense one's result, bit for bit")
{
    for (const auto& [key_size, value_size] : {std::pair<index, index>{19, 21}, {24, 32}}) {
        for (causal kind : {causal::none, causal::bottom_right}) {
            if (!thorough && (kind == causal::none) != (key_size == 19)) { continue; }
            attention_case c;
            c.shape = {.batch = 2,
                       .heads = 4,
                       .kv_heads = 2,
                       .queries = columns + 5,
                       .keys = 203,
                       .key_size = key_size,
                       .value_size = value_size};
            if (!thorough) { c.shape.batch = 1; }
            c.rules.causal = kind;
            for_all_types([&](auto type) {
                using T = decltype(type);
                const attention_problem<T> p(c);
                guarded<T> out(p.out_size());
                const auto dense = p.out_view(out.data());
                run_forward<T, T>(p.q(), p.k(), p.v(), dense, p.options());
                for (std::size_t i = 0; i < std::size(layouts); ++i) {
                    for (std::size_t apart : {std::size_t{0}, std::size_t{1}}) { // all alike; each another
                        const auto way = [&](std::size_t n) -> const layout& {
                            return layouts[(i + apart * n) % std::size(layouts)];
                        };
                        const laid_tensor<T> q(p.q(), way(0)), k(p.k(), way(1)), v(p.v(), way(2));
                        const laid_tensor<T> got(dense.extents(), way(3));
                        run_forward<T, T>(q.view(), k.view(), v.view(), got.view(), p.options());
                        INFO(type_name<T> << ' ' << c << ": q " << way(0).name << ", k " << way(1).name << ", v "
                                          << way(2).name << ", out " << way(3).name);
                        CHECK(got.equals(dense));
                    }
                }
            });
        }
    }
}

TEST_CASE("attention: lse in any layout")
{
    attention_case c;
    c.shape = {
        .batch = 2, .heads = 3, .kv_heads = 1, .queries = columns + 2, .keys = 40, .key_size = 8, .value_size = 8};
    const attention_problem<float> p(c);
    guarded<float> out(p.out_size()), dense(p.lse_size()), turned(2 * p.lse_size());
    sm::attention::options options = p.options();
    options.lse = p.lse_view(dense.data());
    run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(out.data()), options);
    const index rows = c.shape.queries; // [L, B, H], every other element, time reversed
    options.lse = sm::view<float, 3>(turned.data() + 12 * (rows - 1), {2, 3, static_cast<int>(rows)}, {6, 2, -12});
    run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(out.data()), options);
    for (index b = 0; b < 2; ++b) {
        for (index h = 0; h < 3; ++h) {
            for (index i = 0; i < rows; ++i) { REQUIRE(options.lse(b, h, i) == dense[(b * 3 + h) * rows + i]); }
        }
    }
    for (index i = 1; i < turned.size(); i += 2) { REQUIRE(turned.untouched(i)); }
}

TEST_CASE("attention: reads nothing behind its operands")
{
    for (const auto& [key_size, value_size] : {std::pair<index, index>{1, 1}, {15, 17}, {16, 32}, {33, 3}}) {
        for (index keys : {1, 5, 66}) {
            attention_case c;
            c.shape = {.batch = 1,
                       .heads = 2,
                       .kv_heads = 1,
                       .queries = 9,
                       .keys = keys,
                       .key_size = key_size,
                       .value_size = value_size};
            c.rules.bias.given = c.rules.mask.given = true;
            for_all_types([&](auto type) {
                using T = decltype(type);
                const attention_problem<T> p(c);
                const auto moved = [](const auto& from, auto& to) {
                    std::copy_n(from.data(), from.size(), to.data());
                    return std::remove_cvref_t<decltype(from)>(to.data(), from.extents(), from.strides());
                };
                at_the_edge<T> q(p.q().size()), k(p.k().size()), v(p.v().size()), out(p.out_size());
                at_the_edge<float> bias(p.bias().size());
                at_the_edge<bool> mask(p.mask().size());
                sm::attention::options options = p.options();
                options.bias = moved(p.bias(), bias);
                options.mask = moved(p.mask(), mask);
                guarded<T> want(p.out_size());
                run_forward<T, T>(moved(p.q(), q), moved(p.k(), k), moved(p.v(), v), p.out_view(out.data()), options);
                run_forward<T, T>(p.q(), p.k(), p.v(), p.out_view(want.data()), p.options());
                CHECK(std::memcmp(out.data(), want.data(), static_cast<std::size_t>(p.out_size()) * sizeof(T)) == 0);
            });
        }
    }
}

} // namespace attention_test
