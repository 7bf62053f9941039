// SPDX-License-Identifier: MIT
// Rows in chunks, items of a batch, threads, packed sequences and merged results: whatever is computed in parts gives
// what the whole gives, bit for bit where it is the same arithmetic.
#include "attention_case.hpp"
#include "support/refusals.hpp"

#include <seqmix/attention/merge.hpp>

namespace attention_test {

namespace {

/// All rows at once, or `rows` at a time, each call told where its rows stand.
template <class T>
void in_chunks(const attention_problem<T>& p, index rows, result<T>& r)
{
    const attention_shape& s = p.the_case().shape;
    std::vector<index> offsets(static_cast<std::size_t>(s.batch));
    for (index first = 0; first < s.queries; first += rows) {
        const index end = std::min(first + rows, s.queries);
        sm::attention::options options = p.options();
        for (index b = 0; b < s.batch; ++b) { offsets[static_cast<std::size_t>(b)] = p.offset_of(b) + first; }
        options.query_offset = sm::view<const index, 1>(offsets.data(), {s.batch});
        if (options.causal != causal::none) { options.causal = causal::offset; }
        if (p.bias() && p.bias().extent(2) > 1) { options.bias = p.bias().slice(2, first, end); }
        if (p.mask() && p.mask().extent(2) > 1) { options.mask = p.mask().slice(2, first, end); }
        if (!p.the_case().rules.sigmoid) { options.lse = p.lse_view(r.lse.data()).slice(2, first, end); }
        run_forward<T, T>(p.q().slice(2, first, end), p.k(), p.v(), p.out_view(r.out.data()).slice(2, first, end),
                          options);
    }
}

template <class T>
void check_chunks(attention_case c)
{
    // Which rows a NaN reaches is promised for every type, how the others are rounded beside it is not for bf16 products:
    // tiles with something to leave out are added up in float there.
    if constexpr (std::is_same_v<T, sm::bf16> && sm::simd::backend<test_arch>::has_bf16_dot) { c.poisons.clear(); }
    const attention_problem<T> p(c);
    result<T> whole(p);
    sm::attention::options options = p.options();
    if (!c.rules.sigmoid) { options.lse = p.lse_view(whole.lse.data()); }
    run_forward<T, T>(p.q(), p.k(), p.v(), p.out_view(whole.out.data()), options);
    for (index rows : {index{1}, index{2}, index{7}, columns - 1, columns, columns + 1, 1 + c.shape.queries / 2}) {
        result<T> cut(p);
        in_chunks(p, std::max(rows, index{1}), cut);
        INFO(type_name<T> << ' ' << c << ", " << rows << " rows at a time");
        CHECK(cut == whole);
    }
}

} // namespace

// Prefill, chunked prefill and decoding are one function of each row.
TEST_CASE("attention: however the rows are cut, the bits are the same")
{
    for (std::uint64_t seed = 1; seed <= (thorough ? 60 : 12); ++seed) {
        attention_case c = random_case(seed + 1000);
        c.shape.queries = c.shape.queries < 5 ? 2 * columns + 3 : c.shape.queries;
        if (seed % 4 == 0 && c.shape.keys > 0) { c.poisons = {{operand::v, 0, 0, c.shape.keys / 2, 0, not_a_number}}; }
        for_all_types([&](auto type) { check_chunks<decltype(type)>(c); });
    }
    // Windows that begin anywhere in a tile and end in another: rows alone start at keys of their own.
    for (index left : {100, 191, 250}) {
        attention_case c;
        c.shape = {.batch = 1, .heads = 2, .kv_heads = 1, .queries = 90, .keys = 500, .key_size = 9, .value_size = 8};
        c.rules.causal = causal::bottom_right;
        c.rules.window = {left, 0};
        for_all_types([&](auto type) { check_chunks<decltype(type)>(c); });
    }
}

TEST_CASE("attention: a batch item alone gives the bits that it gives in company")
{
    attention_case c;
    c.shape = {.batch = 3, .heads = 6, .kv_heads = 2, .queries = 5, .keys = 201, .key_size = 12, .value_size = 9};
    for_all_types([&](auto type) {
        using T = decltype(type);
        const attention_problem<T> p(c);
        guarded<T> all(p.out_size()), apart(p.out_size());
        run_forward<T, T>(p.q(), p.k(), p.v(), p.out_view(all.data()), {});
        for (index b = 0; b < 3; ++b) {
            for (index h = 0; h < 6; ++h) { // each query head with a copy of its key head, too
                run_forward<T, T>(p.q().slice(0, b, b + 1).slice(1, h, h + 1),
                                  p.k().slice(0, b, b + 1).slice(1, h / 3, h / 3 + 1),
                                  p.v().slice(0, b, b + 1).slice(1, h / 3, h / 3 + 1),
                                  p.out_view(apart.data()).slice(0, b, b + 1).slice(1, h, h + 1), {});
            }
        }
        CHECK(same_bits(all, apart));
    });
}

TEST_CASE("attention: any number of threads gives the same bits")
{
    for (std::uint64_t seed = 1; seed <= (thorough ? 20 : 4); ++seed) {
        attention_case c = random_case(seed + 2000);
        c.shape.queries = 3 * columns + 1; // more panels than fit a block, and a ragged end
        for_all_types([&](auto type) {
            using T = decltype(type);
            const attention_problem<T> p(c);
            result<T> one(p);
            const auto options_for = [&](result<T>& r) {
                sm::attention::options options = p.options();
                if (!c.rules.sigmoid) { options.lse = p.lse_view(r.lse.data()); }
                return options;
            };
            run_forward<T, T>(p.q(), p.k(), p.v(), p.out_view(one.out.data()), options_for(one));
            for (int workers : {1, 2, 3, 7}) {
                sm::context ctx{sm::parallel_for{workers, on_threads{}}};
                result<T> many(p);
                run_forward<T, T>(p.q(), p.k(), p.v(), p.out_view(many.out.data()), options_for(many), ctx);
                INFO(type_name<T> << ' ' << c << ", " << workers << " threads");
                CHECK(many == one);
                CHECK(many.out.intact());
            }
        });
    }
#if defined(_OPENMP)
    attention_case c = random_case(1);
    const attention_problem<float> p(c);
    guarded<float> one(p.out_size()), many(p.out_size());
    sm::context ctx{sm::openmp{3}};
    run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(one.data()), p.options());
    run_forward<float, float>(p.q(), p.k(), p.v(), p.out_view(many.data()), p.options(), ctx);
    CHECK(same_bits(one, many));
#endif
}

namespace {

/// Sequences one after another, [T, H, D], and each of them in a call of its own.
template <class T>
void check_packed(const std::vector<index>& rows, const std::vector<index>& keys, const attention_rules& rules,
                  std::uint64_t seed)
{
    const index sequences = static_cast<index>(rows.size()), heads = 4, kv_heads = 2, key_size = 10, value_size = 7;
    std::vector<index> cu_rows{0}, cu_keys{0};
    for (index n : rows) { cu_rows.push_back(cu_rows.back() + n); }
    for (index n : keys) { cu_keys.push_back(cu_keys.back() + n); }
    const index all_rows = cu_rows.back(), all_keys = cu_keys.back();

    random_source random(seed);
    const auto numbers = [&](index n) {
        std::vector<T> x(static_cast<std::size_t>(n));
        for (T& e : x) { e = static_cast<T>(random.normal()); }
        return x;
    };
    const std::vector<T> q = numbers(all_rows * heads * key_size), k = numbers(all_keys * kv_heads * key_size),
                         v = numbers(all_keys * kv_heads * value_size);
    const std::vector<float> sinks = random.normals(static_cast<std::size_t>(heads)),
                             slopes = random.uniforms(static_cast<std::size_t>(heads), 0, 1);
    const sm::view<const T, 3> q3(q.data(), {all_rows, heads, key_size}), k3(k.data(), {all_keys, kv_heads, key_size}),
        v3(v.data(), {all_keys, kv_heads, value_size});
    guarded<T> out(all_rows * heads * value_size), out_apart(out.size());
    guarded<float> lse(heads * all_rows), lse_apart(lse.size());
    const sm::view<T, 3> out3(out.data(), {all_rows, heads, value_size}),
        apart3(out_apart.data(), {all_rows, heads, value_size});

    sm::attention::options options;
    options.causal = rules.causal;
    options.window = rules.window;
    options.softcap = rules.softcap;
    if (rules.sinks) { options.sinks = sm::view(sinks.data(), {heads}); }
    if (rules.alibi) { options.alibi_slopes = sm::view(slopes.data(), {heads}); }
    options.lse = sm::view(lse.data(), {index{1}, heads, all_rows});
    const sm::view<const index, 1> offsets =
        rules.query_offset.empty() ? sm::view<const index, 1>{} : sm::view(rules.query_offset.data(), {sequences});
    const sm::view<const index, 1> lengths =
        rules.kv_lengths.empty() ? sm::view<const index, 1>{} : sm::view(rules.kv_lengths.data(), {sequences});
    options.query_offset = offsets;
    options.kv_lengths = lengths;
    run_forward_packed<T>(q3, k3, v3, out3, sm::view(cu_rows.data(), {sequences + 1}),
                          sm::view(cu_keys.data(), {sequences + 1}), options);

    const auto as_item = [](const auto& packed, index first, index end) { // [T, H, D] to [1, H, L, D]
        const auto part = packed.slice(0, first, end);
        return std::remove_cvref_t<decltype(sm::view(part.data(), {1, 1, 1, 1}))>(
            part.data(), {index{1}, part.extent(1), part.extent(0), part.extent(2)},
            {index{0}, part.stride(1), part.stride(0), part.stride(2)});
    };
    for (index n = 0; n < sequences; ++n) {
        const auto at = static_cast<std::size_t>(n);
        options.lse = sm::view(lse_apart.data(), {index{1}, heads, all_rows}).slice(2, cu_rows[at], cu_rows[at + 1]);
        if (offsets) { options.query_offset = offsets.slice(0, n, n + 1); }
        if (lengths) { options.kv_lengths = lengths.slice(0, n, n + 1); }
        run_forward<T, T>(as_item(q3, cu_rows[at], cu_rows[at + 1]), as_item(k3, cu_keys[at], cu_keys[at + 1]),
                          as_item(v3, cu_keys[at], cu_keys[at + 1]), as_item(apart3, cu_rows[at], cu_rows[at + 1]),
                          options);
    }
    INFO(type_name<T> << ", seed " << seed);
    CHECK(same_bits(out, out_apart));
    CHECK(same_bits(lse, lse_apart));
    CHECK(out.intact());
    CHECK(lse.intact());
}

} // namespace

TEST_CASE("attention: packed sequences give what separate calls give, bit for bit")
{
    const std::vector<index> rows = {5, 0, 17, 1, 0, 0, columns + 1, 3, 0}, keys = {7, 3, 0, 1, 0, 9, 200, 64, 0};
    for_all_types([&](auto type) {
        using T = decltype(type);
        std::uint64_t seed = 1;
        for (causal kind : {causal::none, causal::top_left, causal::bottom_right}) {
            check_packed<T>(rows, keys, {.causal = kind}, seed++);
            check_packed<T>(rows, keys, {.causal = kind, .window = {5, 0}, .sinks = true}, seed++);
            check_packed<T>(
                rows, keys,
                {.causal = kind, .softcap = 3.0f, .alibi = true, .kv_lengths = {7, 1, 0, 0, 0, 2, 195, 60, 0}}, seed++);
        }
        check_packed<T>(rows, keys, {.causal = causal::offset, .query_offset = {0, 1, -3, 5, 0, 0, 90, -1, 7}}, seed++);
        check_packed<T>({}, {}, {}, seed++);
        check_packed<T>({0, 0}, {0, 4}, {}, seed++);
        check_packed<T>({33}, {70}, {.causal = causal::bottom_right}, seed++);
    });
}

namespace {

/// A result over keys [first, end) of a problem alone. Sinks count in one part only.
template <class T>
void over_keys(const attention_problem<T>& p, index first, index end, bool sinks, result<T>& r)
{
    sm::attention::options options = p.options();
    const index offset = p.offset_of(0) - first;
    options.query_offset = sm::view<const index, 1>(&offset, {1});
    if (options.causal != causal::none) { options.causal = causal::offset; }
    if (!sinks) { options.sinks = {}; }
    options.lse = p.lse_view(r.lse.data());
    run_forward<T, T>(p.q(), p.k().slice(2, first, end), p.v().slice(2, first, end), p.out_view(r.out.data()), options);
}

template <class T>
void merge_into(const attention_problem<T>& p, result<T>& to, const result<T>& a, const result<T>& b)
{
    // The parts are only read, but views of constant memory are made here from results that are constant themselves.
    const auto lse_of = [&](const result<T>& r) {
        return sm::view<const float, 3>(r.lse.data(), p.lse_view(nullptr).extents(), p.lse_view(nullptr).strides());
    };
    const auto out_of = [&](const result<T>& r) { return p.template out_view<const T>(r.out.data()); };
    sm::attention::merge(out_of(a), lse_of(a), out_of(b), lse_of(b), p.out_view(to.out.data()),
                         p.lse_view(to.lse.data()));
}

/// With values of at most v (random_source::normal knows 6), parts whose lse is off by at most l, and r and w the
/// relative rounding of results and of weights: a part is off by v (2 l + w + r). A merge gives a mean of parts that
/// are at most 2 v apart, with weights that are off by 2 l and eight roundings, and rounds it.
template <class T>
void check_merged(const attention_problem<T>& p, const result<T>& got, int merges, const char* what)
{
    constexpr double u = sm::unit_roundoff<float>, v = 6.0;
    constexpr double r = std::is_same_v<T, float> ? 0.0 : sm::unit_roundoff<T>;
    constexpr double w = std::is_same_v<T, sm::bf16> ? r : 0.0;
    expectation want = p.expect();
    for (std::size_t i = 0; i < want.lse.size(); ++i) {
        const double part = want.lse_tolerance[i];
        want.lse_tolerance[i] += merges * 4 * u * (1 + (std::isfinite(want.lse[i]) ? std::fabs(want.lse[i]) : 0.0));
        for (std::size_t d = 0, width = want.out.size() / want.lse.size(); d < width; ++d) {
            want.out_tolerance[i * width + d] =
                v * (2 * part + w + r) + merges * v * (4 * want.lse_tolerance[i] + 16 * u + r);
        }
    }
    const worst_error worst = worst_in_tolerances(got.out.data(), want.out, want.out_tolerance);
    const worst_error worst_lse = worst_in_tolerances(got.lse.data(), want.lse, want.lse_tolerance);
    INFO(type_name<T> << ' ' << p.the_case() << ", " << what << ": " << worst << "; lse " << worst_lse);
    CHECK(worst.error <= 1.0);
    CHECK(worst_lse.error <= 1.0);
    CHECK(got.out.intact());
}

} // namespace

TEST_CASE("attention: results over parts of the keys merge into the result over all")
{
    for (causal kind : {causal::none, causal::bottom_right, causal::top_left}) {
        for (bool sinks : {false, true}) {
            attention_case c;
            c.shape = {
                .batch = 1, .heads = 2, .kv_heads = 1, .queries = 40, .keys = 130, .key_size = 16, .value_size = 11};
            c.rules.causal = kind; // some rows see nothing of the later parts
            c.rules.sinks = sinks;
            for_all_types([&](auto type) {
                using T = decltype(type);
                const attention_problem<T> p(c);
                for (const auto& [a, b] : {std::pair<index, index>{0, 70}, {1, 129}, {64, 65}, {33, 33}, {130, 130}}) {
                    if (!thorough && a != 1 && a != 130) { continue; }
                    result<T> left(p), middle(p), right(p), rest(p), two(p), three(p), other_way(p);
                    over_keys(p, 0, a, true, left);
                    over_keys(p, a, b, false, middle);
                    over_keys(p, b, 130, false, right);
                    over_keys(p, a, 130, false, rest);
                    merge_into(p, two, left, rest);
                    check_merged(p, two, 1, "two parts");
                    merge_into(p, three, left, middle);
                    merge_into(p, three, three, right); // over its own part
                    check_merged(p, three, 2, "three parts, from the left");
                    merge_into(p, other_way, middle, right);
                    merge_into(p, other_way, left, other_way);
                    check_merged(p, other_way, 2, "three parts, from the right");
                }
            });
        }
    }
}

TEST_CASE("attention: merging parts that saw nothing, or NaN")
{
    const auto merged = [](float a, float lse_a, float b, float lse_b) {
        float out = not_a_number, lse = not_a_number;
        const auto one = [](const float& x) { return sm::view<const float, 4>(&x, {1, 1, 1, 1}); };
        const auto log = [](const float& x) { return sm::view<const float, 3>(&x, {1, 1, 1}); };
        sm::attention::merge(one(a), log(lse_a), one(b), log(lse_b), sm::view(&out, {1, 1, 1, 1}),
                             sm::view(&lse, {1, 1, 1}));
        float again = not_a_number; // the log-sum-exp may be left out
        sm::attention::merge(one(a), log(lse_a), one(b), log(lse_b), sm::view(&again, {1, 1, 1, 1}));
        CHECK(absolute_error(static_cast<double>(again), static_cast<double>(out)) == 0.0);
        return std::array{out, lse};
    };
    for (float garbage : {not_a_number, infinity, 7.0f}) {
        CHECK((merged(3.0f, 1.5f, garbage, -infinity) == std::array{3.0f, 1.5f}));
        CHECK((merged(garbage, -infinity, 3.0f, 1.5f) == std::array{3.0f, 1.5f}));
        CHECK((merged(garbage, -infinity, garbage, -infinity) == std::array{0.0f, -infinity}));
    }
    CHECK(merged(1.0f, 200.0f, 3.0f, 200.0f)[0] == 2.0f); // exp(200) is no float
    CHECK(merged(1.0f, -2000.0f, 3.0f, -2000.0f)[0] == 2.0f);
    CHECK((merged(1.0f, 1e30f, 3.0f, -1e30f) == std::array{1.0f, 1e30f}));
    for (bool swapped : {false, true}) {
        const auto bad = swapped ? merged(3.0f, 1.0f, not_a_number, 2.0f) : merged(not_a_number, 2.0f, 3.0f, 1.0f);
        CHECK(std::isnan(bad[0]));
        const auto lost = swapped ? merged(3.0f, 1.0f, 1.0f, not_a_number) : merged(1.0f, not_a_number, 3.0f, 1.0f);
        CHECK(std::isnan(lost[0]));
        CHECK(std::isnan(lost[1]));
    }
    const sm::view<const float, 4> none(nullptr, {0, 2, 3, 4});
    const sm::view<const float, 3> no_lse(nullptr, {0, 2, 3});
    sm::attention::merge(none, no_lse, none, no_lse, sm::view<float, 4>(nullptr, {0, 2, 3, 4}));
}

TEST_CASE("attention: parts that do not fit are not merged")
{
    guarded<float> out(24), lse(6);
    const std::vector<float> numbers(24, 1.0f);
    const sm::view<const float, 4> right(numbers.data(), {1, 2, 3, 4});
    const sm::view<const float, 3> right_lse(numbers.data(), {1, 2, 3});
    const sm::view<float, 4> to(out.data(), {1, 2, 3, 4});
    const sm::view<float, 3> to_lse(lse.data(), {1, 2, 3});
    const auto refused = [&](const char* name, std::vector<const char*> texts, const sm::view<const float, 4>& a,
                             const sm::view<const float, 3>& lse_a, const sm::view<const float, 4>& b,
                             const sm::view<const float, 3>& lse_b) {
        texts.push_back("attention::merge: ");
        check_refused(name, texts, [&] { sm::attention::merge(a, lse_a, b, lse_b, to, to_lse); });
    };
    refused("out_a", {"out_a's head size is 3", "out's is 4"}, resized(right, 3, 3), right_lse, right, right_lse);
    refused("out_b", {"out_b's length is 2", "out's is 3"}, right, right_lse, resized(right, 2, 2), right_lse);
    refused("lse_a", {"lse_a's number of heads is 1", "out's is 2"}, right, {numbers.data(), {1, 1, 3}}, right,
            right_lse);
    refused("lse_b", {"lse_b's batch is 2", "out's is 1"}, right, right_lse, right, {numbers.data(), {2, 2, 3}});
    refused("null", {"null", "24"}, {nullptr, {1, 2, 3, 4}}, right_lse, right, right_lse);
    CHECK(all_untouched(out));
    CHECK(all_untouched(lse));
}

} // namespace attention_test
