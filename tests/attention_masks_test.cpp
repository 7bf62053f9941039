// SPDX-License-Identifier: MIT
// Who sees which key, and what happens to a score: every option alone, all of them at random, and that nothing leaks.
#include "attention_case.hpp"

namespace attention_test {
namespace {

using sm::causal;
using sm::attention::window_size;

/// A few panels of rows and more than one tile of keys, two heads to a key head.
attention_case usual()
{
    attention_case c;
    c.shape = {.batch = 1, .heads = 2, .kv_heads = 1, .queries = 53, .keys = 201, .key_size = 8, .value_size = 12};
    return c;
}

} // namespace

TEST_CASE("attention: causal masks, from every side")
{
    for (causal kind : {causal::none, causal::top_left, causal::bottom_right}) {
        for (index queries : {1, 2, 53, 201, 230}) { // fewer than keys, as many, more: rows that see nothing
            attention_case c = usual();
            c.shape.queries = queries;
            c.rules.causal = kind;
            check_all_types(c);
        }
    }
    for (index offset : {index{-1} << 59, index{-300}, index{-54}, index{-52}, index{-1}, index{0}, index{1},
                         index{148}, index{200}, index{201}, index{5000}, index{1} << 59}) {
        attention_case c = usual();
        c.rules.causal = causal::offset;
        c.rules.query_offset = {offset};
        check_all_types(c);
    }
    attention_case c = usual(); // a position of its own for every batch item
    c.shape.batch = 3;
    c.rules.causal = causal::offset;
    c.rules.query_offset = {-7, 100, 190};
    check_all_types(c);
}

TEST_CASE("attention: windows")
{
    for (causal kind : {causal::none, causal::top_left, causal::bottom_right}) {
        for (index left : {-1, 0, 1, 63, 150, 100000}) {
            for (index right : {-1, 0, 1, 63, 100000}) {
                if (kind != causal::none && right > 1) { continue; }
                attention_case c = usual();
                c.rules.causal = kind;
                c.rules.window = {left, right};
                check_case<float>(c);
                if (left == 63 || left == 0) { check_all_types(c); }
            }
        }
    }
    for (index offset : {-400, -30, 100, 400}) { // windows go by position, with or without a causal mask
        attention_case c = usual();
        c.rules.window = {40, 11};
        c.rules.query_offset = {offset};
        check_all_types(c);
    }
}

TEST_CASE("attention: windows as wide as numbers are")
{
    constexpr index most = std::numeric_limits<index>::max();
    for (const auto& [left, right] :
         {std::pair<index, index>{most, most}, {most, 3}, {5, most}, {most - 9, most - 9}}) {
        for (index offset : {-30, 0, 100}) {
            attention_case c = usual(), same = usual();
            c.rules.query_offset = same.rules.query_offset = {offset};
            c.rules.window = {left, right};
            same.rules.window = {left < 1000 ? left : -1, right < 1000 ? right : -1};
            const attention_problem<float> p(c), q(same);
            guarded<float> got(p.out_size()), want(p.out_size());
            run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(got.data()), p.options());
            run_forward<float, float>(q.q(), q.k(), q.v(), q.out_view(want.data()), q.options());
            INFO(c);
            CHECK(std::equal(got.begin(), got.end(), want.begin()));
        }
    }
}

TEST_CASE("attention: key lengths of a batch")
{
    for (causal kind : {causal::none, causal::top_left, causal::bottom_right}) {
        attention_case c = usual();
        c.shape.batch = 5;
        c.rules.causal = kind;
        c.rules.kv_lengths = {0, 1, 64, 193, 201};
        check_all_types(c);
        c.rules.window = {20, -1};
        check_case<float>(c);
    }
}

TEST_CASE("attention: scale, softcap and ALiBi")
{
    for (float scale : {0.0f, 1.0f, -0.7f, 0.01f}) {
        attention_case c = usual();
        c.rules.scale = scale;
        check_all_types(c);
    }
    for (float softcap : {0.25f, 2.0f, 50.0f}) {
        attention_case c = usual();
        c.rules.softcap = softcap;
        c.logit_scale = 5.0f;
        check_all_types(c);
    }
    for (causal kind : {causal::none, causal::bottom_right}) {
        attention_case c = usual();
        c.rules.alibi = true;
        c.rules.causal = kind;
        check_all_types(c);
        c.shape.heads = 6;
        c.shape.kv_heads = 2;
        if (kind == causal::none) { c.rules.query_offset = {170}; } // between the keys: distances to both sides
        check_case<float>(c);
    }
}

TEST_CASE("attention: bias and mask, broadcast and strided in every way")
{
    for (bool mask : {false, true}) {
        for (unsigned axes = 0; axes < 16; ++axes) {
            for (lie stands : {lie::dense, lie::spaced, lie::reversed, lie::repeated}) {
                attention_case c = usual();
                c.shape.batch = 2;
                c.shape.queries = 19;
                c.seed = 31 * axes + static_cast<unsigned>(stands);
                (mask ? c.rules.mask : c.rules.bias) = {true, axes, stands};
                check_case<float>(c);
                if (thorough && stands == lie::dense) {
                    check_case<sm::bf16>(c);
                    check_case<sm::f16>(c);
                }
            }
        }
    }
    attention_case c = usual();
    c.rules.bias.given = c.rules.mask.given = true;
    check_all_types(c);
}

TEST_CASE("attention: a bias or a mask may come with fewer axes")
{
    const attention_case c = usual();
    const attention_problem<float> p(c);
    random_source random(3);
    const std::vector<float> bias = random.normals(static_cast<std::size_t>(c.shape.queries * c.shape.keys));
    guarded<float> two(p.out_size()), four(p.out_size());
    sm::attention::options options;
    options.bias = sm::view<const float, 2>(bias.data(), {c.shape.queries, c.shape.keys});
    run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(two.data()), options);
    options.bias = sm::view<const float, 4>(bias.data(), {index{1}, index{1}, c.shape.queries, c.shape.keys});
    run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(four.data()), options);
    CHECK(std::equal(two.begin(), two.end(), four.begin()));
}

TEST_CASE("attention: sinks")
{
    for (causal kind : {causal::none, causal::bottom_right, causal::top_left}) {
        attention_case c = usual();
        c.shape.queries = 230; // under bottom_right the first rows see nothing: lse is the sink itself
        c.rules.causal = kind;
        c.rules.sinks = true;
        check_all_types(c);
    }
    for (float sink : {-infinity, -1e30f, -300.0f, 90.0f, 1e30f}) { // far below and far above every score
        attention_case c = usual();
        c.rules.sinks = true;
        c.rules.causal = causal::bottom_right;
        c.shape.queries = 210;
        attention_problem<float> p(c);
        p.sinks()(1) = sink;
        check_problem(p);
    }
}

TEST_CASE("attention: sigmoid weights")
{
    for (causal kind : {causal::none, causal::top_left, causal::bottom_right}) {
        for (float bias : {0.0f, -5.3f, 4.0f}) {
            attention_case c = usual();
            c.rules.causal = kind;
            c.rules.sigmoid = true;
            c.rules.sigmoid_bias = bias;
            check_all_types(c);
        }
    }
    attention_case c = usual();
    c.rules.sigmoid = true;
    c.rules.bias.given = c.rules.mask.given = c.rules.alibi = true;
    c.rules.softcap = 3.0f;
    c.rules.kv_lengths = {130};
    c.rules.window = {50, 60};
    check_all_types(c);
    c.logit_scale = 1e5f;
    c.rules.softcap = 0.0f;
    const attention_problem<float> p(c); // weights of 0 and 1 and nothing between: never NaN
    guarded<float> out(p.out_size());
    run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(out.data()), p.options());
    CHECK(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }));
}

TEST_CASE("attention: options together, at random")
{
    for (std::uint64_t seed = 1; seed <= (thorough ? 300 : 60); ++seed) {
        const attention_case c = random_case(seed);
        check_case<float>(c);
        if (seed % 3 == 0) { check_case<sm::bf16>(c); }
        if (seed % 3 == 1) { check_case<sm::f16>(c); }
    }
}

TEST_CASE("attention: rows that see nothing give 0 and an lse of -inf")
{
    for (int way = 0; way < 4; ++way) {
        attention_case c = usual();
        c.rules.mask = {way == 0, 12, lie::dense};
        c.rules.bias = {way == 1, 12, lie::dense};
        if (way == 2) { c.rules.kv_lengths = {0}; }
        if (way == 3) {
            c.rules.query_offset = {-200};
            c.rules.window = {-1, 160};
        }
        attention_problem<float> p(c);
        const auto dead = [&](index row) { return way == 2 || (way == 3 ? row < 40 : row % 3 == 1); };
        for (index i = 0; i < c.shape.queries; ++i) {
            for (index j = 0; j < c.shape.keys; ++j) {
                if (way == 0) { p.mask()(0, 0, i, j) = !dead(i); }
                if (way == 1) { p.bias()(0, 0, i, j) = dead(i) ? -infinity : 1.0f; }
            }
        }
        check_problem(p);

        guarded<float> out(p.out_size()), lse(p.lse_size());
        sm::attention::options options = p.options();
        options.lse = p.lse_view(lse.data());
        run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(out.data()), options);
        for (index row = 0; row < p.lse_size(); ++row) {
            INFO("way " << way << ", row " << row);
            REQUIRE((lse[row] == -infinity) == dead(row % c.shape.queries));
            for (index d = 0; dead(row % c.shape.queries) && d < c.shape.value_size; ++d) {
                REQUIRE(out[row * c.shape.value_size + d] == 0.0f);
            }
        }
    }
}

TEST_CASE("attention: rows of which a whole tile is masked")
{
    for (bool as_bias : {false, true}) {
        for (const auto& [first, end] : {std::pair<index, index>{0, 192}, {192, 450}, {100, 400}, {0, 449}, {1, 450}}) {
            attention_case c = usual();
            c.shape.keys = 450; // tiles of 192
            (as_bias ? c.rules.bias : c.rules.mask) = {true, 12, lie::dense};
            attention_problem<float> p(c);
            for (index i = 0; i < c.shape.queries; ++i) {
                for (index j = 0; j < c.shape.keys; ++j) {
                    const bool hidden = i % 2 == 0 && j >= first && j < end; // only every other row
                    if (as_bias) {
                        p.bias()(0, 0, i, j) = hidden ? -infinity : 0.5f;
                    } else {
                        p.mask()(0, 0, i, j) = !hidden;
                    }
                }
            }
            check_problem(p);
        }
    }
}

TEST_CASE("attention: very large and very small logits")
{
    for (float level : {-2e5f, -1e8f, 1e8f}) { // every score far from 0, all the same but for their last digits
        attention_case c = usual();
        c.rules.bias = {true, 8, lie::dense};
        attention_problem<float> p(c);
        for (index j = 0; j < c.shape.keys; ++j) { p.bias()(0, 0, 0, j) = level; }
        check_problem(p);
    }
    // So far that the bias swallows the products: every key weighs the same.
    constexpr float most = std::numeric_limits<float>::max();
    for (float level : {-most, -2e38f, -1e30f, -1e9f, 1e9f, 1e30f, 2e38f, most}) {
        attention_case c = usual();
        c.rules.bias = {true, 8, lie::dense};
        attention_problem<float> p(c);
        for (index j = 0; j < c.shape.keys; ++j) { p.bias()(0, 0, 0, j) = level; }
        guarded<float> out(p.out_size());
        run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(out.data()), p.options());
        for (index d = 0; d < c.shape.value_size; ++d) {
            double sum = 0.0, magnitude = 0.0;
            for (index j = 0; j < c.shape.keys; ++j) {
                sum += static_cast<double>(p.v()(0, 0, j, d));
                magnitude += std::fabs(static_cast<double>(p.v()(0, 0, j, d)));
            }
            const auto n = static_cast<double>(c.shape.keys);
            INFO("level " << level);
            CHECK(std::fabs(static_cast<double>(out[d]) - sum / n) <= magnitude / n * 2 * 0x1p-24 * (n + 8));
        }
    }
    // One key beats all others by far: its value is the result, to the bit, whatever tile it stands in.
    for (float logit : {1e30f, -1e30f, 3e4f, -3e4f}) {
        attention_case c = usual();
        c.shape.key_size = 1;
        c.rules.scale = 1.0f;
        c.rules.causal = causal::bottom_right;
        attention_problem<float> p(c);
        std::vector<float> q(static_cast<std::size_t>(c.shape.heads * c.shape.queries), logit), k;
        for (index j = 0; j < c.shape.keys; ++j) { k.push_back(static_cast<float>(1 + j)); }
        guarded<float> out(p.out_size());
        run_forward<float, float>(sm::view<const float, 4>(q.data(), p.q().extents(), p.q().strides()),
                                  sm::view<const float, 4>(k.data(), p.k().extents(), p.k().strides()), p.v(),
                                  p.out_view(out.data()), p.options());
        for (index i = 0; i < c.shape.queries; ++i) {
            const index winner = logit > 0 ? c.shape.keys - c.shape.queries + i : 0;
            for (index d = 0; d < c.shape.value_size; ++d) {
                REQUIRE(out[i * c.shape.value_size + d] == p.v()(0, 0, winner, d));
            }
        }
    }
}

namespace {

/// Every way to hide keys from rows, in a shape with several tiles and panels.
std::vector<attention_case> hiding_cases()
{
    const auto with = [](auto change) {
        attention_case c = usual();
        c.shape.kv_heads = 2;
        change(c.rules);
        return c;
    };
    return {
        with([](attention_rules& r) { r.causal = causal::bottom_right; }),
        with([](attention_rules& r) { r.causal = causal::top_left; }),
        with([](attention_rules& r) {
            r.window = {9, -1};
        }),
        with([](attention_rules& r) {
            r.window = {-1, 60};
        }),
        with([](attention_rules& r) {
            r.window = {50, 2}, r.query_offset = {170};
        }),
        with([](attention_rules& r) {
            r.mask = {true, 12, lie::dense};
        }),
        with([](attention_rules& r) {
            r.bias = {true, 12, lie::dense};
        }),
        with([](attention_rules& r) { r.kv_lengths = {195}; }),
        with([](attention_rules& r) { r.causal = causal::bottom_right, r.sigmoid = true, r.mask.given = true; }),
        with([](attention_rules& r) {
            r.causal = causal::bottom_right, r.softcap = 2.0f, r.alibi = true, r.sinks = true;
        }),
    };
}

} // namespace

// The reference skips what is not seen, and gives NaN where it is: so do rows here, and no others.
TEST_CASE("attention: NaN and infinities reach the rows that see them, and no others")
{
    index some_key = 52;
    for (attention_case c : hiding_cases()) {
        some_key = some_key == 52 ? 191 : 52; // where time is short, one for each way of hiding
        for (index key : {0, 30, 52, 149, 191, 192, 200}) {
            if (!thorough && key != some_key) { continue; }
            c.shape.value_size = key % 2 == 0 ? lanes + 1 : 12;
            const index last = c.shape.value_size - 1;
            c.poisons = {{operand::v, 0, 1, key, -1, not_a_number}};
            check_all_types(c);
            c.poisons = {{operand::v, 0, 0, key, last, infinity}, {operand::v, 0, 0, key, last - 1, -infinity}};
            check_all_types(c);
            c.poisons = {{operand::k, 0, 1, key, -1, not_a_number}};
            check_all_types(c);
            c.poisons = {{operand::k, 0, 1, key, 7, not_a_number}, {operand::v, 0, 1, key / 2, last, not_a_number}};
            check_case<float>(c);
        }
        for (index row : {0, 17, 52}) {
            if (!thorough && row != 17) { continue; }
            c.poisons = {{operand::q, 0, 1, row, 5, not_a_number}};
            check_all_types(c);
        }
    }
}

TEST_CASE("attention: infinite keys do not reach rows that do not see them")
{
    for (attention_case c : hiding_cases()) {
        for (index key : {30, 191, 200}) {
            c.poisons = {{operand::k, 0, 1, key, 2, infinity}};
            const attention_problem<float> p(c);
            guarded<float> out(p.out_size());
            run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(out.data()), p.options());
            const expectation want = p.expect();
            bool good = true;
            for (index i = 0; i < p.out_size(); ++i) {
                const index row = i / c.shape.value_size, head = row / c.shape.queries;
                if (head == 1 && p.visible(0, head, row % c.shape.queries, key)) { continue; } // any answer is as good
                const auto at = static_cast<std::size_t>(i);
                good = good && absolute_error(static_cast<double>(out[i]), want.out[at]) <= want.out_tolerance[at];
            }
            INFO(c);
            CHECK(good);
        }
    }
}

TEST_CASE("attention: a NaN bias reaches its row, unless the key is hidden there")
{
    attention_case c = usual();
    c.rules.bias = {true, 12, lie::dense};
    c.rules.mask = {true, 12, lie::spaced};
    c.rules.causal = causal::bottom_right;
    for (index key : {3, 149, 160, 199}) {
        c.poisons = {{operand::bias, 0, 0, 7, key, not_a_number}, {operand::bias, 0, 0, 33, key, not_a_number}};
        for (bool kept : {false, true}) {
            attention_problem<float> p(c);
            p.mask()(0, 0, 7, key) = kept;
            check_problem(p);
        }
    }
}

TEST_CASE("attention: what no row can see is not read")
{
    attention_case c = usual();
    c.shape.heads = c.shape.kv_heads = 1;
    const auto run = [&](index readable, auto type) {
        using T = decltype(type);
        const attention_problem<T> p(c);
        at_the_edge<T> k(readable * c.shape.key_size), v(readable * c.shape.value_size); // the rest is no memory at all
        std::copy_n(p.k().data(), readable * c.shape.key_size, k.data());
        std::copy_n(p.v().data(), readable * c.shape.value_size, v.data());
        guarded<T> got(p.out_size()), want(p.out_size());
        run_forward<T, T>(p.q(), p.k(), p.v(), p.out_view(want.data()), p.options());
        run_forward<T, T>(p.q(), sm::view<const T, 4>(k.data(), p.k().extents(), p.k().strides()),
                          sm::view<const T, 4>(v.data(), p.v().extents(), p.v().strides()), p.out_view(got.data()),
                          p.options());
        CHECK(std::equal(got.begin(), got.end(), want.begin()));
    };
    const auto run_all = [&](index readable) {
        run(readable, 0.0f);
        run(readable, sm::bf16{});
        run(readable, sm::f16{});
    };
    for (index length : {1, 71, 192, 193}) {
        c.rules.kv_lengths = {length};
        run_all(length);
    }
    c.rules.kv_lengths.clear();
    c.rules.causal = causal::top_left;
    run_all(53);
    c.rules.causal = causal::none;
    c.rules.window = {-1, 10};
    run_all(63);
}

} // namespace attention_test
