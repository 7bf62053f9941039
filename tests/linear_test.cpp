// SPDX-License-Identifier: MIT
// Every rule against its definition: shapes, heads, layouts, features, and gates that hurt, in float. linear_forms_test.cpp has narrow
// types, and what must be equal to what.
#include "linear_doors.hpp"

namespace linear_test {

template forward_door<float, float> run_forward;
template packed_door<float> run_packed;

namespace {

/// One problem in both forms, and in several chunks.
void check_forms(const linear_case& c, std::initializer_list<index> chunks)
{
    check_case<float>(c.as(form::recurrent));
    for (index chunk : chunks) { check_case<float>(c.as(form::chunked, chunk)); }
}

} // namespace

TEST_CASE("linear: the two references agree")
{
    for (rule r : all_rules) {
        for (const range& g : {range{-1.0f, -0.01f}, range{-30.0f, 0.0f}, range{0.0f, 0.0f}}) {
            const linear_case c{.rule = r, .size = 5, .values = 3, .length = 40, .state = true, .g = g};
            const linear_problem<float> p(c), token_by_token(c.as(form::recurrent)), at_once(c.as(form::chunked, c.length));
            const head_numbers n(p, 0, 0, 0);
            std::vector<double> S = n.start;
            const auto tokens = n.tokens(0, c.length);
            const auto recurrence = linear::reference::recurrence(tokens, S, [](index, const auto&) {});
            const auto dual = linear::reference::dual(tokens, n.start);
            // What float may be off by in either form, in the roundings of double; but for decays of the dual, whose logarithms are
            // sums of up to L.
            const expectation one = expect<float>(token_by_token), other = expect<float>(at_once);
            double worst = 0.0;
            for (std::size_t i = 0; i < dual.size(); ++i) {
                const double tolerance = static_cast<double>(c.length) * 0x1p-29 * (one.out_tolerance[i] + other.out_tolerance[i]);
                worst = std::max(worst, std::fabs(recurrence[i] - dual[i]) / tolerance);
            }
            INFO(c << ": " << worst << " of what is tolerated");
            CHECK(worst <= 1.0);
        }
    }
}

TEST_CASE("linear: every chunk on every length")
{
    for (rule r : all_rules) {
        for (index length : {0, 1, 2, 5, 7, 8, 9, 23, 24, 25, 31, 65}) {
            if (!thorough && length > 25) { continue; }
            linear_case c{.rule = r, .heads = 2, .size = 5, .values = lanes + 1, .length = length, .state = true};
            c.seed = static_cast<std::uint64_t>(length + 1);
            check_forms(c, {0, 1, 2, 5, 7, 8, 16, 24, 64, 1024});
            check_case<float>(c.as(form::automatic));
            check_case<float>(c.as(form::automatic, 16));
        }
    }
}

TEST_CASE("linear: sizes of keys and values")
{
    for (rule r : all_rules) {
        for (index values : {index{0}, index{1}, lanes - 1, lanes, index{20}, 4 * lanes + 1, index{100}}) {
            linear_case c{.rule = r, .size = 6, .values = values, .length = 27, .state = true};
            c.seed = static_cast<std::uint64_t>(values + 1);
            check_forms(c, {24});
        }
        for (index size : {index{0}, index{1}, index{2}, lanes - 1, lanes, lanes + 1, index{33}, index{64}}) {
            linear_case c{.rule = r, .size = size, .values = lanes + 1, .length = 27, .state = true};
            c.seed = static_cast<std::uint64_t>(size + 1);
            check_forms(c, {7, 24});
        }
    }
    if (thorough) {
        for (rule r : {rule::gla, rule::gated_delta, rule::rwkv7}) {
            check_forms({.rule = r, .size = 128, .values = 128, .length = 60}, {0, 40});
        }
    }
}

TEST_CASE("linear: heads that share keys, queries, states")
{
    struct heads {
        index queries, keys, states;
    };
    for (rule r : all_rules) {
        for (const heads& h : {heads{1, 1, 1}, {6, 3, 3}, {3, 3, 3}, {6, 1, 2}, {1, 1, 4}, {2, 2, 4}, {2, 4, 4}, {8, 2, 2}, {5, 1, 1}}) {
            for (index batch : {1, 2}) {
                const linear_case c{.rule = r, .batch = batch, .heads = h.states, .key_heads = h.keys, .query_heads = h.queries, .size = 5, .values = 6,
                                    .length = 19, .initial = batch == 2, .state = true};
                check_forms(c, {8});
            }
        }
        check_case<float>({.rule = r, .batch = 0, .heads = 2, .size = 3, .values = 4, .length = 7, .state = true});
        check_case<float>({.rule = r, .heads = 0, .size = 3, .values = 4, .length = 7, .state = true});
    }
}

TEST_CASE("linear: every layout, off every border")
{
    for (rule r : {rule::gated_delta, rule::rwkv6}) {
        for (stand s : all_stands) {
            s.skipped = 1;
            const linear_case c{.rule = r, .batch = 2, .heads = 2, .query_heads = 4, .size = lanes + 3, .values = lanes + 2, .length = 29, .initial = true,
                                .state = true, .accumulate = true, .chunk = 16, .snapshots = 20, .stands = s};
            check_case<float>(c), check_case<float>(c.as(form::recurrent));
        }
    }
}

TEST_CASE("linear: normalised outputs, and normalisers that are passed on")
{
    for (rule r : {rule::additive, rule::retention, rule::simple_gla, rule::gla}) {
        for (const bool given : {false, true}) {
            const linear_case c{.rule = r, .batch = 2, .heads = 2, .query_heads = 4, .size = 9, .values = lanes + 1, .length = 45, .normalize = true,
                                .normalizer = given};
            check_forms(c, {0, 7, 24});
        }
    }
}

TEST_CASE("linear: features of queries and keys")
{
    const std::pair<features, rule> maps[] = {{features::elu_plus_one, rule::additive},
                                              {features::relu, rule::simple_gla},
                                              {features::exp, rule::additive},
                                              {features::taylor, rule::additive},
                                              {features::unit_length, rule::gated_delta}};
    for (const auto& [map, r] : maps) {
        for (index size : {index{1}, index{5}, lanes, lanes + 3}) {
            if (map == features::taylor && size > lanes) { size = 7; }
            linear_case c{.rule = r, .features = map, .heads = 2, .size = size, .values = 6, .length = 33, .state = true};
            check_forms(c, {0, 8, 24});
            c.normalize = map == features::elu_plus_one || map == features::exp;
            check_forms(c, {16});
        }
    }
}

TEST_CASE("linear: gates at their extremes")
{
    const range gates[] = {{0.0f, 0.0f}, {-1e-8f, -1e-8f}, {-30.0f, -30.0f}, {-1e4f, -1e4f}, {-30.0f, 0.0f}, {-1e4f, 0.0f}, {-90.0f, -60.0f}, {-1e-3f, 0.0f}};
    for (rule r : all_rules) {
        if (decays_of(r) == decays::none) { continue; }
        for (const range& g : gates) {
            const linear_case c{.rule = r, .heads = 2, .size = 9, .values = lanes + 1, .length = 70, .state = true, .g = g};
            check_forms(c, {0, 8, 64});
        }
    }
    for (rule r : {rule::delta, rule::gated_delta, rule::kda, rule::rwkv7}) {
        for (const range& beta : {range{0.0f, 0.0f}, range{1.0f, 1.0f}, range{2.0f, 2.0f}, range{0.0f, 2.0f}}) {
            check_forms({.rule = r, .size = 9, .values = lanes + 1, .length = 70, .state = true, .g = {-0.1f, 0.0f}, .beta = beta}, {0, 24});
        }
    }
}

TEST_CASE("linear: some tokens forget everything, others nothing")
{
    for (rule r : all_rules) {
        if (decays_of(r) == decays::none || decays_of(r) == decays::head) { continue; }
        for (index chunk : {8, 24, 100}) {
            for (const float strong : {-30.0f, -3e3f, -1e6f}) {
                const linear_case c{.rule = r, .heads = 2, .size = 5, .values = 6, .length = 150, .state = true, .chunk = chunk, .g = {-0.02f, 0.0f}};
                linear_problem<float> p(c);
                for_each(p.token_decay(), [&](float& g, index, index t, index h) { g = (t + h) % 7 == 0 ? strong : g; });
                for_each(p.channel_decay(), [&](float& g, index, index t, index h, index i) { g = (t + h + 2 * i) % 7 == 0 ? strong : g; });
                for (form how : {form::chunked, form::recurrent}) {
                    p.c.form = how;
                    linear_result<float> result(p);
                    run(p, result);
                    check_result(p, result);
                }
            }
        }
    }
}

TEST_CASE("linear: long sequences are no further off than the bound")
{
    for (rule r : all_rules) {
        // The bound of delta rules takes time that grows with the square of the length.
        const index length = !thorough ? 300 : is_additive(r) ? 20000 : 700;
        const linear_case c{.rule = r, .size = 3, .values = 2, .length = length, .state = true, .g = {-0.05f, -0.001f}};
        check_forms(c, {24, 64});
    }
}

namespace {

linear_case random_case(std::uint64_t seed)
{
    random_source random(seed);
    const auto pick = [&](std::initializer_list<index> from) { return from.begin()[random.integer(0, static_cast<index>(from.size()) - 1)]; };
    const auto one_in = [&](index n) { return random.integer(1, n) == 1; };
    linear_case c;
    c.rule = all_rules[random.integer(0, 8)], c.seed = seed;
    c.batch = random.integer(1, 2), c.key_heads = pick({1, 1, 2}), c.heads = c.key_heads * pick({1, 2});
    c.query_heads = one_in(2) ? c.heads * pick({1, 3}) : c.key_heads;
    c.size = pick({1, 2, 5, lanes - 1, lanes, lanes + 1, 19}), c.values = pick({1, 3, lanes - 1, lanes, lanes + 1, 4 * lanes + 1});
    c.length = pick({1, 2, 9, 17, 40, 65, 90});
    c.initial = one_in(3), c.state = one_in(2), c.bf16_state = one_in(3), c.accumulate = one_in(4);
    c.normalize = one_in(3) && is_additive(c.rule) && c.rule != rule::rwkv6, c.normalizer = c.normalize && one_in(2);
    if (c.normalize) { c.initial = c.state = false; }
    c.form = one_in(3) ? form::recurrent : one_in(3) ? form::automatic : form::chunked;
    c.chunk = pick({0, 1, 3, 8, 16, 24, 31, 1024}), c.snapshots = one_in(3) ? pick({1, 4, 7, 30}) : 0;
    c.stands = all_stands[random.integer(0, static_cast<index>(std::size(all_stands)) - 1)];
    c.stands.skipped = static_cast<std::size_t>(random.integer(0, 3));
    if (one_in(4)) { c.g = {-30.0f, 0.0f}; }
    if (one_in(4)) { c.scale = random.uniform(0.1f, 2.0f); }
    return c;
}

} // namespace

TEST_CASE("linear: everything at random")
{
    for (std::uint64_t seed = 1; seed <= (thorough ? 250 : 40); ++seed) { check_case<float>(random_case(seed)); }
}

} // namespace linear_test
