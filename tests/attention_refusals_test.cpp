// SPDX-License-Identifier: MIT
// What the doors of attention refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/attention.hpp>
#include <algorithm>
#include <cmath>

namespace attention_test {

namespace sm = seqmix;
using sm::causal;
using sm::index; // POSIX has another in the global namespace

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

namespace {

/// A call that is right; each refusal makes one thing wrong.
struct door {
    std::vector<float> q_memory = filled(2 * 4 * 3 * 5), k_memory = filled(2 * 2 * 6 * 5),
                       v_memory = filled(2 * 2 * 6 * 7);
    guarded<float> out_memory{2 * 4 * 3 * 7}, lse_memory{2 * 4 * 3};
    std::vector<float> numbers = filled(1000);
    bool kept[8] = {true, true, true, true, true, true, true, true};
    std::vector<index> whole = {0, 3, 6, 6, 6};
    sm::view<const float, 4> q{q_memory.data(), {2, 4, 3, 5}}, k{k_memory.data(), {2, 2, 6, 5}},
        v{v_memory.data(), {2, 2, 6, 7}};
    sm::view<float, 4> out{out_memory.data(), {2, 4, 3, 7}};
    sm::attention::options options;

    sm::view<const float, 1> line(index n) const { return {numbers.data(), {n}}; }
    sm::view<const float, 4> floats(index b, index h, index l, index d) const { return {numbers.data(), {b, h, l, d}}; }
    sm::view<const bool, 4> bools(index b, index h, index l, index d) const
    {
        return {kept, {b, h, l, d}, {0, 0, 0, 0}};
    }
    sm::view<float, 3> lse(index b, index h, index l) { return {lse_memory.data(), {b, h, l}}; }

    sm::view<float, 3> lse_at(float* data) const { return {data, {2, 4, 3}}; }
    void place_out(float* data, index last_stride)
    {
        out = sm::view<float, 4>(data, out.extents(), std::array<index, 4>{0, 0, 0, last_stride});
    }
    sm::attention::options& sigmoid()
    {
        options.weighting = sm::attention::weighting::sigmoid;
        return options;
    }
    sm::attention::options& offsets(index n)
    {
        options.query_offset = {whole.data(), {n}};
        return options;
    }
    void lengths(index n) { options.kv_lengths = {whole.data(), {n}}; }

    void call() const { sm::attention::forward<sm::arch::scalar>(q, k, v, out, options); }

    bool untouched() const
    {
        for (const auto* memory : {&q_memory, &k_memory, &v_memory}) {
            if (*memory != filled(memory->size())) { return false; }
        }
        return all_untouched(out_memory) && all_untouched(lse_memory);
    }

private:
    static std::vector<float> filled(std::size_t n) { return std::vector<float>(n, 0.5f); }
};

// clang-format off
const std::vector<refusal<door>> refusals = {
    {"q is null", [](door& d) { d.q = null(d.q); }, {"q is null", "120"}},
    {"k is null", [](door& d) { d.k = null(d.k); }, {"k is null", "120"}},
    {"v is null", [](door& d) { d.v = null(d.v); }, {"v is null", "168"}},
    {"out is null", [](door& d) { d.out = null(d.out); }, {"out is null", "168"}},
    {"negative extent", [](door& d) { d.q = resized(d.q, 2, -3); }, {"q has a negative extent", "-3"}},
    {"heads do not divide", [](door& d) { d.k = resized(d.k, 1, 3), d.v = resized(d.v, 1, 3); }, {"k has 3 heads", "q's 4"}},
    {"too many key heads", [](door& d) { d.k = resized(d.k, 1, 8), d.v = resized(d.v, 1, 8); }, {"k has 8 heads", "q's 4"}},
    {"no key heads", [](door& d) { d.k = resized(d.k, 1, 0), d.v = resized(d.v, 1, 0); }, {"k has 0 heads", "q's 4"}},
    {"v's heads", [](door& d) { d.v = resized(d.v, 1, 1); }, {"v's number of heads is 1", "k's is 2"}},
    {"k's head size", [](door& d) { d.k = resized(d.k, 3, 4); }, {"k's head size is 4", "q's is 5"}},
    {"v's length", [](door& d) { d.v = resized(d.v, 2, 5); }, {"v's length is 5", "k's is 6"}},
    {"k's batch", [](door& d) { d.k = resized(d.k, 0, 1); }, {"k's batch is 1", "q's is 2"}},
    {"v's batch", [](door& d) { d.v = resized(d.v, 0, 1); }, {"v's batch is 1", "q's is 2"}},
    {"out's batch", [](door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1", "q's is 2"}},
    {"out's heads", [](door& d) { d.out = resized(d.out, 1, 2); }, {"out's number of heads is 2", "q's is 4"}},
    {"out's length", [](door& d) { d.out = resized(d.out, 2, 2); }, {"out's length is 2", "q's is 3"}},
    {"out's head size", [](door& d) { d.out = resized(d.out, 3, 5); }, {"out's head size is 5", "v's is 7"}},

    {"out on q", [](door& d) { d.place_out(d.q_memory.data() + 119, 0); }, {"out overlaps q"}},
    {"out on k", [](door& d) { d.place_out(d.k_memory.data(), 1); }, {"out overlaps k"}},
    {"out on v", [](door& d) { d.place_out(d.v_memory.data() + 20, -1); }, {"out overlaps v"}},
    {"out on bias", [](door& d) { d.options.bias = sm::view<const float, 1>(d.out_memory.data() + 1, {6}); }, {"out overlaps bias"}},
    {"out on mask", [](door& d) { d.options.mask = sm::view(reinterpret_cast<const bool*>(d.out_memory.data()), {6}); }, {"out overlaps mask"}},
    {"out on sinks", [](door& d) { d.options.sinks = {d.out_memory.data(), {4}}; }, {"out overlaps sinks"}},
    {"out on slopes", [](door& d) { d.options.alibi_slopes = {d.out_memory.data(), {4}}; }, {"out overlaps alibi_slopes"}},
    {"lse on bias", [](door& d) {
         d.options.lse = d.lse(2, 4, 3);
         d.options.bias = sm::view<const float, 1>(d.lse_memory.data(), {6});
     }, {"lse overlaps bias"}},
    {"lse on q", [](door& d) { d.options.lse = d.lse_at(d.q_memory.data()); }, {"lse overlaps q"}},
    {"lse on k", [](door& d) { d.options.lse = d.lse_at(d.k_memory.data() + 119); }, {"lse overlaps k"}},
    {"lse on v", [](door& d) { d.options.lse = d.lse_at(d.v_memory.data()); }, {"lse overlaps v"}},
    {"lse on out", [](door& d) { d.options.lse = d.lse_at(d.out_memory.data() + 1); }, {"lse overlaps out"}},

    {"softcap below 0", [](door& d) { d.options.softcap = -2.0f; }, {"softcap is -2"}},
    {"softcap infinite", [](door& d) { d.options.softcap = infinity; }, {"softcap is inf"}},
    {"softcap NaN", [](door& d) { d.options.softcap = not_a_number; }, {"softcap is", "nan"}},
    {"scale infinite", [](door& d) { d.options.scale = infinity; }, {"scale is"}},
    {"scale NaN", [](door& d) { d.options.scale = not_a_number; }, {"scale is"}},
    {"alibi", [](door& d) { d.options.alibi_slopes = d.line(2); }, {"alibi_slopes' length is 2", "heads is 4"}},
    {"sinks", [](door& d) { d.options.sinks = d.line(3); }, {"sinks' length is 3", "heads is 4"}},
    {"sigmoid and sinks", [](door& d) { d.sigmoid().sinks = d.line(4); }, {"sinks", "sigmoid"}},
    {"sigmoid and lse", [](door& d) { d.sigmoid().lse = d.lse(2, 4, 3); }, {"lse", "sigmoid"}},

    {"no offset", [](door& d) { d.options.causal = causal::offset; }, {"causal is offset", "query_offset"}},
    {"two offsets", [](door& d) { d.offsets(2).causal = causal::bottom_right; }, {"query_offset is given", "causal"}},
    {"two offsets", [](door& d) { d.offsets(1).causal = causal::top_left; }, {"query_offset is given", "causal"}},
    {"offsets of three", [](door& d) { d.offsets(3); }, {"query_offset's length is 3", "batch is 2"}},
    {"offset too large", [](door& d) { d.whole[1] = index{1} << 60, d.offsets(2); }, {"query_offset holds 1152921504606846976"}},
    {"offset too small", [](door& d) { d.whole[0] = -index{1} << 60, d.offsets(2); }, {"query_offset holds -1152921504606846976"}},
    {"lengths of one", [](door& d) { d.lengths(1); }, {"kv_lengths' length is 1", "batch is 2"}},
    {"length too large", [](door& d) { d.whole[1] = 7, d.lengths(2); }, {"kv_lengths holds 7", "6 keys"}},
    {"length below 0", [](door& d) { d.whole[1] = -1, d.lengths(2); }, {"kv_lengths holds -1", "6 keys"}},

    {"bias's batch", [](door& d) { d.options.bias = d.floats(3, 1, 1, 1); }, {"bias has extent 3 on axis 0", "have 2"}},
    {"bias's heads", [](door& d) { d.options.bias = d.floats(1, 2, 1, 1); }, {"bias has extent 2 on axis 1", "have 4"}},
    {"bias's queries", [](door& d) { d.options.bias = d.floats(1, 1, 6, 6); }, {"bias has extent 6 on axis 2", "have 3"}},
    {"bias's keys", [](door& d) { d.options.bias = d.floats(2, 4, 3, 3); }, {"bias has extent 3 on axis 3", "have 6"}},
    {"mask's batch", [](door& d) { d.options.mask = d.bools(0, 1, 1, 1); }, {"mask has extent 0 on axis 0", "have 2"}},
    {"mask's keys", [](door& d) { d.options.mask = d.bools(1, 1, 3, 7); }, {"mask has extent 7 on axis 3", "have 6"}},
    {"lse's batch", [](door& d) { d.options.lse = d.lse(1, 4, 3); }, {"lse's batch is 1", "q's is 2"}},
    {"lse's heads", [](door& d) { d.options.lse = d.lse(2, 2, 3); }, {"lse's number of heads is 2", "q's is 4"}},
    {"lse's length", [](door& d) { d.options.lse = d.lse(2, 4, 2); }, {"lse's length is 2", "q's is 3"}},
};
// clang-format on

} // namespace

TEST_CASE("attention: what does not fit is refused, and nothing is written")
{
    door right;
    right.options.lse = right.lse(2, 4, 3);
    CHECK_NOTHROW(right.call());
    CHECK(std::all_of(right.out_memory.begin(), right.out_memory.end(), [](float x) { return x == 0.5f; }));

    check_refusals("attention::forward: ", refusals);
}

TEST_CASE("attention: packed sequences that do not fit are refused, and nothing is written")
{
    struct packed_refusal {
        const char* name;
        std::vector<index> rows, keys;
        std::function<void(sm::attention::options&)> spoil;
        std::vector<const char*> message;
    };
    static const index three[] = {1, 1, 1}, long_ones[] = {3, 4};
    static float numbers[400] = {};
    const auto nothing = [](sm::attention::options&) {};
    const packed_refusal cases[] = {
        {"rows do not start at 0", {1, 3, 5}, {0, 3, 6}, nothing, {"cu_queries starts at 1"}},
        {"keys do not start at 0", {0, 3, 5}, {2, 3, 6}, nothing, {"cu_keys starts at 2"}},
        {"rows decrease", {0, 6, 5}, {0, 3, 6}, nothing, {"cu_queries decreases from 6 to 5"}},
        {"keys decrease", {0, 3, 5}, {0, 7, 6}, nothing, {"cu_keys decreases from 7 to 6"}},
        {"rows end early", {0, 3, 4}, {0, 3, 6}, nothing, {"cu_queries ends at 4", "q has length 5"}},
        {"keys end late", {0, 3, 5}, {0, 3, 7}, nothing, {"cu_keys ends at 7", "k has length 6"}},
        {"more sequences of keys", {0, 3, 5}, {0, 3, 3, 6}, nothing, {"cu_keys' length is 4", "cu_queries' is 3"}},
        {"no offsets at all", {}, {0, 6}, nothing, {"cu_queries is empty"}},
        {"bias",
         {0, 3, 5},
         {0, 3, 6},
         [](auto& o) { o.bias = sm::view<const float, 1>(numbers, {1}); },
         {"bias or mask"}},
        {"lse",
         {0, 3, 5},
         {0, 3, 6},
         [](auto& o) {
             o.lse = {numbers, {2, 4, 5}};
         },
         {"lse's first extent is 2"}},
        {"lse's length",
         {0, 3, 5},
         {0, 3, 6},
         [](auto& o) {
             o.lse = {numbers, {1, 4, 6}};
         },
         {"lse's length is 6", "q's is 5"}},
        {"offsets",
         {0, 3, 5},
         {0, 3, 6},
         [](auto& o) {
             o.query_offset = {three, {3}};
         },
         {"query_offset's length is 3", "sequences is 2"}},
        {"lengths",
         {0, 3, 5},
         {0, 3, 6},
         [](auto& o) {
             o.kv_lengths = {three, {3}};
         },
         {"kv_lengths' length is 3", "sequences is 2"}},
        {"a length too long",
         {0, 3, 5},
         {0, 3, 6},
         [](auto& o) {
             o.kv_lengths = {long_ones, {2}};
         },
         {"kv_lengths holds 4", "3 keys"}},
    };
    for (const packed_refusal& r : cases) {
        guarded<float> q(5 * 4 * 2), k(6 * 2 * 2), v(6 * 2 * 3), out(5 * 4 * 3);
        sm::attention::options options;
        r.spoil(options);
        std::vector<const char*> texts = r.message;
        texts.push_back("attention::forward_packed: ");
        check_refused(r.name, texts, [&] {
            sm::attention::forward_packed<sm::arch::scalar>(sm::view(q.data(), {5, 4, 2}), sm::view(k.data(), {6, 2, 2}),
                                      sm::view(v.data(), {6, 2, 3}), sm::view(out.data(), {5, 4, 3}),
                                      sm::view<const index, 1>(r.rows.data(), {r.rows.size()}),
                                      sm::view<const index, 1>(r.keys.data(), {r.keys.size()}), options);
        });
        INFO(r.name);
        CHECK(all_untouched(out));
    }
}

} // namespace attention_test
