// SPDX-License-Identifier: MIT
// What the door of single steps of linear attention refuses. It is the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/linear/step.hpp>

#include <limits>

namespace linear_step_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using sm::index; // POSIX has another in the global namespace
using scalar = sm::arch::scalar;

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, H 4 of 2 key and 4 query heads, K 5, V 7.
struct door {
    std::vector<float> q_memory = minus_ones(40), k_memory = minus_ones(20), v_memory = minus_ones(56), g_memory = minus_ones(40),
                       beta_memory = minus_ones(8), u_memory = minus_ones(20), a_memory = minus_ones(40), b_memory = minus_ones(40),
                       initial_memory = minus_ones(280);
    guarded<float> out_memory{56}, state_memory{281}, normalizer_memory{40};
    sm::view<const float, 3> q{q_memory.data(), {2, 4, 5}}, k{k_memory.data(), {2, 2, 5}}, v{v_memory.data(), {2, 4, 7}};
    sm::view<const float, 3> g{g_memory.data(), {2, 4, 5}}, a{a_memory.data(), {2, 4, 5}}, b{b_memory.data(), {2, 4, 5}};
    sm::view<const float, 2> of_token{g_memory.data(), {2, 4}}, beta{beta_memory.data(), {2, 4}}, u{u_memory.data(), {4, 5}};
    sm::view<const float, 1> of_head{g_memory.data(), {4}};
    sm::view<float, 3> out{out_memory.data(), {2, 4, 7}};
    linear::step_options o;

    door() { o.state = state(2, 4, 5, 7); }
    sm::view<float, 4> state(index B, index H, index K, index V) { return {state_memory.data(), {B, H, K, V}, {140, 35, 7, 1}}; }
    sm::view<float, 3> normalizer(index K) { return {normalizer_memory.data(), {2, 4, K}, {20, 5, 1}}; }
    bool untouched() const
    {
        return all_minus_ones({&q_memory, &k_memory, &v_memory, &g_memory, &beta_memory, &u_memory, &a_memory, &b_memory, &initial_memory}) &&
               all_untouched(out_memory) && all_untouched(state_memory) && all_untouched(normalizer_memory);
    }
};

struct gla_door : door {
    void call() const { linear::step<linear::gla, scalar>(q, k, v, {.log_decay = g}, out, o); }
};
struct retention_door : door {
    void call() const { linear::step<linear::retention, scalar>(q, k, v, {.log_decay = of_head}, out, o); }
};
struct gated_delta_door : door {
    void call() const { linear::step<linear::gated_delta, scalar>(q, k, v, {.log_decay = of_token, .beta = beta}, out, o); }
};
struct rwkv6_door : door {
    void call() const { linear::step<linear::rwkv6, scalar>(q, k, v, {.log_decay = g, .bonus = u}, out, o); }
};
struct rwkv7_door : door {
    void call() const { linear::step<linear::rwkv7, scalar>(q, k, v, {.log_decay = g, .a = a, .b = b}, out, o); }
};

// clang-format off
const std::vector<refusal<gla_door>> of_gla = {
    {"q is null", [](gla_door& d) { d.q = null(d.q); }, {"q is null, but its shape has 40 elements"}},
    {"k is null", [](gla_door& d) { d.k = null(d.k); }, {"k is null, but its shape has 20 elements"}},
    {"v is null", [](gla_door& d) { d.v = null(d.v); }, {"v is null, but its shape has 56 elements"}},
    {"out is null", [](gla_door& d) { d.out = null(d.out); }, {"out is null, but its shape has 56 elements"}},
    {"log_decay is null", [](gla_door& d) { d.g = null(d.g); }, {"log_decay is null, but its shape has 40 elements"}},
    {"negative extent", [](gla_door& d) { d.v = resized(d.v, 2, -7); }, {"v has a negative extent: -7"}},
    {"q's batch", [](gla_door& d) { d.q = resized(d.q, 0, 1); }, {"q's batch is 1, but v's is 2"}},
    {"k's batch", [](gla_door& d) { d.k = resized(d.k, 0, 1); }, {"k's batch is 1, but v's is 2"}},
    {"q's head size", [](gla_door& d) { d.q = resized(d.q, 2, 4); }, {"q's head size is 4, but k's is 5"}},
    {"key heads do not divide", [](gla_door& d) { d.k = resized(d.k, 1, 3); }, {"k has 3 heads, which does not divide v's 4"}},
    {"no key heads", [](gla_door& d) { d.k = resized(d.k, 1, 0); }, {"k has 0 heads, which does not divide v's 4"}},
    {"three query heads", [](gla_door& d) { d.q = resized(d.q, 1, 3); }, {"q has 3 heads, which is neither a multiple nor a divisor of v's 4"}},
    {"no query heads", [](gla_door& d) { d.q = resized(d.q, 1, 0); }, {"q has 0 heads, which is neither a multiple nor a divisor of v's 4"}},
    {"out's batch", [](gla_door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1, but v's is 2"}},
    {"out's heads", [](gla_door& d) { d.out = resized(d.out, 1, 3); }, {"out's number of heads is 3, but the larger one of q's and v's is 4"}},
    {"out's head size", [](gla_door& d) { d.out = resized(d.out, 2, 6); }, {"out's head size is 6, but v's is 7"}},
    {"log_decay's batch", [](gla_door& d) { d.g = resized(d.g, 0, 1); }, {"log_decay's batch is 1, but v's is 2"}},
    {"log_decay's heads", [](gla_door& d) { d.g = resized(d.g, 1, 3); }, {"log_decay's number of heads is 3, but v's is 4"}},
    {"log_decay's key channels", [](gla_door& d) { d.g = resized(d.g, 2, 4); }, {"log_decay's number of key channels is 4, but k's number of features is 5"}},
    {"log_decay is not given", [](gla_door& d) { d.g = {}; }, {"log_decay's batch is 0, but v's is 2"}},
    {"state is not given", [](gla_door& d) { d.o.state = {}; }, {"state is not given"}},
    {"state's batch", [](gla_door& d) { d.o.state = d.state(1, 4, 5, 7); }, {"state's batch is 1, but v's is 2"}},
    {"state's heads", [](gla_door& d) { d.o.state = d.state(2, 3, 5, 7); }, {"state's number of heads is 3, but v's is 4"}},
    {"state's key channels", [](gla_door& d) { d.o.state = d.state(2, 4, 4, 7); }, {"state's number of key channels is 4, but k's number of features is 5"}},
    {"state's value channels", [](gla_door& d) { d.o.state = sm::view<sm::bf16, 4>(reinterpret_cast<sm::bf16*>(d.state_memory.data()), {2, 4, 5, 6}); }, {"state's number of value channels is 6, but v's head size is 7"}},
    {"initial_state's value channels", [](gla_door& d) { d.o.initial_state = sm::view<const float, 4>(d.initial_memory.data(), {2, 4, 5, 6}); }, {"initial_state's number of value channels is 6, but v's head size is 7"}},
    {"normalizer without normalize", [](gla_door& d) { d.o.normalizer = d.normalizer(5); }, {"normalizer is given, but normalize is false"}},
    {"normalizer is not given", [](gla_door& d) { d.o.normalize = true; }, {"normalizer is not given"}},
    {"scale is not finite", [](gla_door& d) { d.o.scale = std::numeric_limits<float>::infinity(); }, {"scale is not finite"}},
    {"normalizer's key channels", [](gla_door& d) { d.o.normalize = true, d.o.normalizer = d.normalizer(4); }, {"normalizer's number of key channels is 4, but k's number of features is 5"}},
    {"out on q", [](gla_door& d) { d.out = {d.q_memory.data(), {2, 4, 7}}; }, {"out overlaps q: its memory from first to last element must be apart"}},
    {"out on v", [](gla_door& d) { d.out = {d.v_memory.data(), {2, 4, 7}}; }, {"out overlaps v"}},
    {"out on log_decay", [](gla_door& d) { d.out = {d.g_memory.data(), {2, 4, 7}}; }, {"out overlaps log_decay"}},
    {"state on k", [](gla_door& d) { d.k = {d.state_memory.data(), {2, 2, 5}}; }, {"state overlaps k"}},
    {"state on initial_state", [](gla_door& d) { d.o.initial_state = sm::view<float, 4>(d.state_memory.data() + 1, {2, 4, 5, 7}); }, {"state overlaps initial_state"}},
    {"state on out", [](gla_door& d) { d.out = {d.state_memory.data() + 1, {2, 4, 7}}; }, {"state overlaps out"}},
    {"normalizer on q", [](gla_door& d) { d.o.normalize = true, d.o.normalizer = {d.q_memory.data(), {2, 4, 5}}; }, {"normalizer overlaps q"}},
    {"normalizer on out", [](gla_door& d) { d.o.normalize = true, d.o.normalizer = {d.out_memory.data(), {2, 4, 5}}; }, {"normalizer overlaps out"}},
    {"normalizer on state", [](gla_door& d) { d.o.normalize = true, d.o.normalizer = {d.state_memory.data(), {2, 4, 5}}; }, {"normalizer overlaps state"}},
};
const std::vector<refusal<retention_door>> of_retention = {
    {"log_decay's heads", [](retention_door& d) { d.of_head = resized(d.of_head, 0, 3); }, {"log_decay's number of heads is 3, but v's is 4"}},
};
const std::vector<refusal<gated_delta_door>> of_gated_delta = {
    {"log_decay's heads", [](gated_delta_door& d) { d.of_token = resized(d.of_token, 1, 3); }, {"log_decay's number of heads is 3, but v's is 4"}},
    {"beta's batch", [](gated_delta_door& d) { d.beta = resized(d.beta, 0, 1); }, {"beta's batch is 1, but v's is 2"}},
    {"normalize", [](gated_delta_door& d) { d.o.normalize = true, d.o.normalizer = d.normalizer(5); }, {"normalize is for additive updates only"}},
};
const std::vector<refusal<rwkv6_door>> of_rwkv6 = {
    {"bonus' heads", [](rwkv6_door& d) { d.u = resized(d.u, 0, 3); }, {"bonus's number of heads is 3, but v's is 4"}},
    {"bonus' key channels", [](rwkv6_door& d) { d.u = resized(d.u, 1, 4); }, {"bonus's number of key channels is 4, but k's number of features is 5"}},
};
const std::vector<refusal<rwkv7_door>> of_rwkv7 = {
    {"a's heads", [](rwkv7_door& d) { d.a = resized(d.a, 1, 3); }, {"a's number of heads is 3, but v's is 4"}},
    {"b's key channels", [](rwkv7_door& d) { d.b = resized(d.b, 2, 4); }, {"b's number of key channels is 4, but k's number of features is 5"}},
};
// clang-format on

} // namespace

TEST_CASE("linear step: what does not fit is refused, with both numbers, and nothing is touched")
{
    CHECK_NOTHROW(gla_door().call());
    CHECK_NOTHROW(retention_door().call());
    CHECK_NOTHROW(gated_delta_door().call());
    CHECK_NOTHROW(rwkv6_door().call());
    CHECK_NOTHROW(rwkv7_door().call());
    const char* const door = "linear::step: ";
    check_refusals(door, of_gla), check_refusals(door, of_retention), check_refusals(door, of_gated_delta);
    check_refusals(door, of_rwkv6), check_refusals(door, of_rwkv7);
}

} // namespace linear_step_test
