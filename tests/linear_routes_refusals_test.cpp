// SPDX-License-Identifier: MIT
// What the doors of several directions refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/linear/cross_scan.hpp>

#include <limits>

namespace linear_routes_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using sm::index; // POSIX has another in the global namespace
using scalar = sm::arch::scalar;

namespace {

/// Calls that are right; each refusal makes one thing wrong. B 2, 5 x 3 pixels, H 4 of 2 key and 8 query heads, K 3, V 2.
struct operands {
    std::vector<float> q_memory = minus_ones(720), k_memory = minus_ones(180), v_memory = minus_ones(240), g_memory = minus_ones(360),
                       beta_memory = minus_ones(120);
    guarded<float> out_memory{480};

    bool untouched() const { return all_minus_ones({&q_memory, &k_memory, &v_memory, &g_memory, &beta_memory}) && all_untouched(out_memory); }
};

struct image_door : operands {
    sm::view<const float, 5> q{q_memory.data(), {2, 5, 3, 8, 3}}, k{k_memory.data(), {2, 5, 3, 2, 3}}, v{v_memory.data(), {2, 5, 3, 4, 2}};
    sm::view<const float, 5> g{g_memory.data(), {2, 5, 3, 4, 3}};
    sm::view<const float, 4> beta{beta_memory.data(), {2, 5, 3, 4}};
    sm::view<float, 5> out{out_memory.data(), {2, 5, 3, 8, 2}};
    linear::cross_scan_options o;

    void call() const
    {
        const sm::view<const float, 5> right(g_memory.data(), {2, 5, 3, 4, 3});
        const sm::view<const float, 4> right_beta(beta_memory.data(), {2, 5, 3, 4});
        linear::cross_scan<linear::kda, scalar>(
            q, k, v,
            {{sm::scan_order::rows, {.log_decay = right, .beta = right_beta}}, {sm::scan_order::columns, {.log_decay = g, .beta = beta}}}, out, o);
    }
};

struct both_ways : operands {
    sm::view<const float, 4> q{q_memory.data(), {2, 15, 8, 3}}, k{k_memory.data(), {2, 15, 2, 3}}, v{v_memory.data(), {2, 15, 4, 2}};
    sm::view<const float, 4> ahead{g_memory.data(), {2, 15, 4, 3}}, back{g_memory.data(), {2, 15, 4, 3}};
    sm::view<float, 4> out{out_memory.data(), {2, 15, 8, 2}};
    linear::cross_scan_options o;

    void call() const { linear::bidirectional<linear::gla, scalar>(q, k, v, {.log_decay = ahead}, {.log_decay = back}, out, o); }
};

/// A place that only its first element tells from another's.
sm::view<float, 5> small_image(float* data) { return {data, {2, 5, 3, 8, 2}, {0, 0, 0, 0, 0}}; }
sm::view<float, 4> small_rows(float* data) { return {data, {2, 15, 8, 2}, {0, 0, 0, 0}}; }

// clang-format off
const std::vector<refusal<image_door>> of_images = {
    {"q is null", [](image_door& d) { d.q = null(d.q); }, {"q is null", "720"}},
    {"k is null", [](image_door& d) { d.k = null(d.k); }, {"k is null", "180"}},
    {"v is null", [](image_door& d) { d.v = null(d.v); }, {"v is null", "240"}},
    {"out is null", [](image_door& d) { d.out = null(d.out); }, {"out is null", "480"}},
    {"negative width", [](image_door& d) { d.q = resized(d.q, 2, -3); }, {"q has a negative extent", "-3"}},
    {"q's batch", [](image_door& d) { d.q = resized(d.q, 0, 1); }, {"q's batch is 1", "v's is 2"}},
    {"q's height", [](image_door& d) { d.q = resized(d.q, 1, 4); }, {"q's height is 4", "v's is 5"}},
    {"q's width", [](image_door& d) { d.q = resized(d.q, 2, 2); }, {"q's width is 2", "v's is 3"}},
    {"q's head size", [](image_door& d) { d.q = resized(d.q, 4, 2); }, {"q's head size is 2", "k's is 3"}},
    {"q's heads", [](image_door& d) { d.q = resized(d.q, 3, 6); }, {"q has 6 heads", "v's 4"}},
    {"k's height", [](image_door& d) { d.k = resized(d.k, 1, 6); }, {"k's height is 6", "v's is 5"}},
    {"key heads do not divide", [](image_door& d) { d.k = resized(d.k, 3, 3); }, {"k has 3 heads", "v's 4"}},
    {"out's width", [](image_door& d) { d.out = resized(d.out, 2, 0); }, {"out's width is 0", "v's is 3"}},
    {"out's heads", [](image_door& d) { d.out = resized(d.out, 3, 4); }, {"out's number of heads is 4", "is 8"}},
    {"out's head size", [](image_door& d) { d.out = resized(d.out, 4, 1); }, {"out's head size is 1", "v's is 2"}},
    {"log_decay is not given", [](image_door& d) { d.g = {}; }, {"route 1: log_decay"}},
    {"log_decay is null", [](image_door& d) { d.g = null(d.g); }, {"route 1: log_decay is null", "360"}},
    {"log_decay's height", [](image_door& d) { d.g = resized(d.g, 1, 3); }, {"route 1: log_decay's height is 3", "v's is 5"}},
    {"an image on its side", [](image_door& d) { d.g = d.g.transposed(1, 2); }, {"route 1: log_decay's height is 3", "v's is 5"}},
    {"log_decay's width", [](image_door& d) { d.g = resized(d.g, 2, 2); }, {"route 1: log_decay's width is 2", "v's is 3"}},
    {"log_decay's heads", [](image_door& d) { d.g = resized(d.g, 3, 2); }, {"route 1: log_decay's number of heads is 2", "v's is 4"}},
    {"log_decay's key channels", [](image_door& d) { d.g = resized(d.g, 4, 1); }, {"route 1: log_decay's number of key channels is 1", "is 3"}},
    {"beta's batch", [](image_door& d) { d.beta = resized(d.beta, 0, 1); }, {"route 1: beta's batch is 1", "v's is 2"}},
    {"beta's heads", [](image_door& d) { d.beta = resized(d.beta, 3, 3); }, {"route 1: beta's number of heads is 3", "v's is 4"}},
    {"out on q", [](image_door& d) { d.out = small_image(d.q_memory.data() + 719); }, {"out overlaps q"}},
    {"out on k", [](image_door& d) { d.out = small_image(d.k_memory.data()); }, {"out overlaps k"}},
    {"out on v", [](image_door& d) { d.out = small_image(d.v_memory.data() + 239); }, {"out overlaps v"}},
    {"out on log_decay", [](image_door& d) { d.out = small_image(d.g_memory.data() + 359); }, {"route 0: out overlaps log_decay"}},
    {"out on beta", [](image_door& d) { d.out = small_image(d.beta_memory.data()); }, {"route 0: out overlaps beta"}},
    {"a chunk below 0", [](image_door& d) { d.o.chunk = -1; }, {"chunk is -1", "1024"}},
    {"a chunk too long", [](image_door& d) { d.o.chunk = 1025; }, {"chunk is 1025", "1024"}},
    {"a scale that is none", [](image_door& d) { d.o.scale = std::numeric_limits<float>::infinity(); }, {"scale"}},
};
const std::vector<refusal<both_ways>> of_both_ways = {
    {"q is null", [](both_ways& d) { d.q = null(d.q); }, {"q is null", "720"}},
    {"q's length", [](both_ways& d) { d.q = resized(d.q, 1, 14); }, {"q's length is 14", "v's is 15"}},
    {"out's length", [](both_ways& d) { d.out = resized(d.out, 1, 16); }, {"out's length is 16", "v's is 15"}},
    {"gates ahead", [](both_ways& d) { d.ahead = resized(d.ahead, 1, 14); }, {"ahead: log_decay's length is 14", "v's is 15"}},
    {"gates back", [](both_ways& d) { d.back = resized(d.back, 3, 2); }, {"back: log_decay's number of key channels is 2", "is 3"}},
    {"no gates back", [](both_ways& d) { d.back = null(d.back); }, {"back: log_decay is null", "360"}},
    {"out on v", [](both_ways& d) { d.out = small_rows(d.v_memory.data()); }, {"out overlaps v"}},
    {"out on gates", [](both_ways& d) { d.out = small_rows(d.g_memory.data()); }, {"out overlaps log_decay"}},
    {"a chunk too long", [](both_ways& d) { d.o.chunk = 2000; }, {"chunk is 2000", "1024"}},
};
// clang-format on

} // namespace

TEST_CASE("linear routes: what does not fit is refused, and nothing is written")
{
    CHECK_NOTHROW(image_door().call());
    CHECK_NOTHROW(both_ways().call());
    check_refusals("linear::cross_scan: ", of_images), check_refusals("linear::bidirectional: ", of_both_ways);
    image_door d;
    const std::string none = message_of([&] { linear::cross_scan<linear::additive, scalar>(d.q, d.k, d.v, {}, d.out); });
    check_message("no routes", none, {"linear::cross_scan: routes are empty"});
    CHECK(d.untouched());
}

} // namespace linear_routes_test
