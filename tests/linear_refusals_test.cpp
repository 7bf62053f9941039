// SPDX-License-Identifier: MIT
// What the doors of linear attention refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/linear/forward.hpp>

#include <cmath>
#include <limits>

namespace linear_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using sm::index; // POSIX has another in the global namespace
using scalar = sm::arch::scalar;

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, L 5, H 4 of 2 key and 8 query heads, K 3, V 2; two snapshots.
struct door {
    std::vector<float> q_memory = minus_ones(240), k_memory = minus_ones(60), v_memory = minus_ones(80), g_memory = minus_ones(120),
                       beta_memory = minus_ones(40), u_memory = minus_ones(12), a_memory = minus_ones(120), b_memory = minus_ones(120),
                       initial_memory = minus_ones(48);
    guarded<float> out_memory{160}, state_memory{48}, normalizer_memory{24}, snapshot_memory{96};
    sm::view<const float, 4> q{q_memory.data(), {2, 5, 8, 3}}, k{k_memory.data(), {2, 5, 2, 3}}, v{v_memory.data(), {2, 5, 4, 2}};
    sm::view<const float, 4> g{g_memory.data(), {2, 5, 4, 3}}, a{a_memory.data(), {2, 5, 4, 3}}, b{b_memory.data(), {2, 5, 4, 3}};
    sm::view<const float, 3> beta{beta_memory.data(), {2, 5, 4}}, of_token{g_memory.data(), {2, 5, 4}};
    sm::view<const float, 2> u{u_memory.data(), {4, 3}};
    sm::view<const float, 1> of_head{g_memory.data(), {4}};
    sm::view<float, 4> out{out_memory.data(), {2, 5, 8, 2}};
    linear::options o;

    door()
    {
        o.state = sm::view<float, 4>(state_memory.data(), {2, 4, 3, 2});
        o.initial_state = sm::view<const float, 4>(initial_memory.data(), {2, 4, 3, 2});
        o.snapshots = {snapshot_memory.data(), {2, 2, 4, 3, 2}}, o.snapshot_interval = 2;
    }
    bool untouched() const
    {
        return all_minus_ones({&q_memory, &k_memory, &v_memory, &g_memory, &beta_memory, &u_memory, &a_memory, &b_memory, &initial_memory}) &&
               all_untouched(out_memory) && all_untouched(state_memory) && all_untouched(normalizer_memory) && all_untouched(snapshot_memory);
    }
};

struct kda_door : door {
    void call() const { linear::forward<linear::kda, scalar>(q, k, v, {.log_decay = g, .beta = beta}, out, o); }
};
struct rwkv6_door : door {
    void call() const { linear::forward<linear::rwkv6, scalar>(q, k, v, {.log_decay = g, .bonus = u}, out, o); }
};
struct rwkv7_door : door {
    void call() const { linear::forward<linear::rwkv7, scalar>(q, k, v, {.log_decay = g, .a = a, .b = b}, out, o); }
};
struct retention_door : door {
    retention_door() { o.normalize = true, o.normalizer = {normalizer_memory.data(), {2, 4, 3}}; }
    void call() const { linear::forward<linear::retention, scalar>(q, k, v, {.log_decay = of_head}, out, o); }
};
struct gated_delta_door : door {
    void call() const { linear::forward<linear::gated_delta, scalar>(q, k, v, {.log_decay = of_token, .beta = beta}, out, o); }
};
struct taylor_door : door {
    void call() const { linear::forward<linear::mapped<linear::additive, linear::taylor_map>, scalar>(q, k, v, {}, out, o); }
};

/// A place that only its first elements tell from another's.
sm::view<float, 4> small_out(float* data) { return {data, {2, 5, 8, 2}, {0, 0, 0, 0}}; }
sm::view<float, 4> small_state(float* data) { return {data, {2, 4, 3, 2}, {0, 0, 0, 0}}; }
sm::view<float, 3> small_normalizer(float* data) { return {data, {2, 4, 3}, {0, 0, 0}}; }
sm::view<float, 5> small_snapshots(float* data) { return {data, {2, 2, 4, 3, 2}, {0, 0, 0, 0, 0}}; }
sm::view<float, 4> state_of(door& d, index b, index h, index k, index v) { return {d.state_memory.data(), {b, h, k, v}}; }
sm::view<const float, 4> initial_of(door& d, index b, index h, index k, index v) { return {d.initial_memory.data(), {b, h, k, v}}; }
sm::view<float, 5> snapshots_of(door& d, index b, index s, index h, index k, index v) { return {d.snapshot_memory.data(), {b, s, h, k, v}}; }

// clang-format off
const std::vector<refusal<kda_door>> of_kda = {
    {"q is null", [](kda_door& d) { d.q = null(d.q); }, {"q is null", "240"}},
    {"k is null", [](kda_door& d) { d.k = null(d.k); }, {"k is null", "60"}},
    {"v is null", [](kda_door& d) { d.v = null(d.v); }, {"v is null", "80"}},
    {"out is null", [](kda_door& d) { d.out = null(d.out); }, {"out is null", "160"}},
    {"log_decay is null", [](kda_door& d) { d.g = null(d.g); }, {"log_decay is null", "120"}},
    {"log_decay is not given", [](kda_door& d) { d.g = {}; }, {"log_decay"}},
    {"beta is null", [](kda_door& d) { d.beta = null(d.beta); }, {"beta is null", "40"}},
    {"negative length", [](kda_door& d) { d.q = resized(d.q, 1, -5); }, {"q has a negative extent", "-5"}},
    {"q's batch", [](kda_door& d) { d.q = resized(d.q, 0, 1); }, {"q's batch is 1", "v's is 2"}},
    {"q's length", [](kda_door& d) { d.q = resized(d.q, 1, 4); }, {"q's length is 4", "v's is 5"}},
    {"q's head size", [](kda_door& d) { d.q = resized(d.q, 3, 2); }, {"q's head size is 2", "k's is 3"}},
    {"q's heads", [](kda_door& d) { d.q = resized(d.q, 2, 6); }, {"q has 6 heads", "v's 4"}},
    {"three query heads", [](kda_door& d) { d.q = resized(d.q, 2, 3); }, {"q has 3 heads", "v's 4"}},
    {"no query heads", [](kda_door& d) { d.q = resized(d.q, 2, 0); }, {"q has 0 heads", "v's 4"}},
    {"k's batch", [](kda_door& d) { d.k = resized(d.k, 0, 1); }, {"k's batch is 1", "v's is 2"}},
    {"k's length", [](kda_door& d) { d.k = resized(d.k, 1, 4); }, {"k's length is 4", "v's is 5"}},
    {"key heads do not divide", [](kda_door& d) { d.k = resized(d.k, 2, 3); }, {"k has 3 heads", "v's 4"}},
    {"more key heads than states", [](kda_door& d) { d.k = resized(d.k, 2, 8); }, {"k has 8 heads", "v's 4"}},
    {"no key heads", [](kda_door& d) { d.k = resized(d.k, 2, 0); }, {"k has 0 heads", "v's 4"}},
    {"out's batch", [](kda_door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1", "v's is 2"}},
    {"out's length", [](kda_door& d) { d.out = resized(d.out, 1, 0); }, {"out's length is 0", "v's is 5"}},
    {"out's heads", [](kda_door& d) { d.out = resized(d.out, 2, 4); }, {"out's number of heads is 4", "is 8"}},
    {"out's head size", [](kda_door& d) { d.out = resized(d.out, 3, 1); }, {"out's head size is 1", "v's is 2"}},
    {"log_decay's batch", [](kda_door& d) { d.g = resized(d.g, 0, 1); }, {"log_decay's batch is 1", "v's is 2"}},
    {"log_decay's length", [](kda_door& d) { d.g = resized(d.g, 1, 6); }, {"log_decay's length is 6", "v's is 5"}},
    {"log_decay's heads", [](kda_door& d) { d.g = resized(d.g, 2, 2); }, {"log_decay's number of heads is 2", "v's is 4"}},
    {"log_decay's key channels", [](kda_door& d) { d.g = resized(d.g, 3, 1); }, {"log_decay's number of key channels is 1", "is 3"}},
    {"beta's batch", [](kda_door& d) { d.beta = resized(d.beta, 0, 1); }, {"beta's batch is 1", "v's is 2"}},
    {"beta's length", [](kda_door& d) { d.beta = resized(d.beta, 1, 4); }, {"beta's length is 4", "v's is 5"}},
    {"beta's heads", [](kda_door& d) { d.beta = resized(d.beta, 2, 3); }, {"beta's number of heads is 3", "v's is 4"}},
    {"state's batch", [](kda_door& d) { d.o.state = state_of(d, 1, 4, 3, 2); }, {"state's batch is 1", "is 2"}},
    {"state's heads", [](kda_door& d) { d.o.state = state_of(d, 2, 2, 3, 2); }, {"state's number of heads is 2", "v's is 4"}},
    {"state's key channels", [](kda_door& d) { d.o.state = state_of(d, 2, 4, 2, 2); }, {"state's number of key channels is 2", "is 3"}},
    {"state's value channels", [](kda_door& d) { d.o.state = state_of(d, 2, 4, 3, 1); }, {"state's number of value channels is 1", "is 2"}},
    {"initial_state's batch", [](kda_door& d) { d.o.initial_state = initial_of(d, 1, 4, 3, 2); }, {"initial_state's batch is 1", "is 2"}},
    {"initial_state's heads", [](kda_door& d) { d.o.initial_state = initial_of(d, 2, 2, 3, 2); }, {"initial_state's number of heads is 2", "v's is 4"}},
    {"initial_state's key channels", [](kda_door& d) { d.o.initial_state = initial_of(d, 2, 4, 2, 2); }, {"initial_state's number of key channels is 2", "is 3"}},
    {"initial_state's value channels", [](kda_door& d) { d.o.initial_state = initial_of(d, 2, 4, 3, 1); }, {"initial_state's number of value channels is 1", "is 2"}},
    {"snapshots' batch", [](kda_door& d) { d.o.snapshots = snapshots_of(d, 1, 2, 4, 3, 2); }, {"snapshots's batch is 1", "is 2"}},
    {"snapshots' number", [](kda_door& d) { d.o.snapshots = snapshots_of(d, 2, 1, 4, 3, 2); }, {"snapshots's number of snapshots is 1", "is 2"}},
    {"snapshots' heads", [](kda_door& d) { d.o.snapshots = snapshots_of(d, 2, 2, 3, 3, 2); }, {"snapshots's number of heads is 3", "is 4"}},
    {"snapshots' key channels", [](kda_door& d) { d.o.snapshots = snapshots_of(d, 2, 2, 4, 2, 2); }, {"snapshots's number of key channels is 2", "is 3"}},
    {"snapshots' value channels", [](kda_door& d) { d.o.snapshots = snapshots_of(d, 2, 2, 4, 3, 1); }, {"snapshots's number of value channels is 1", "is 2"}},
    {"no interval", [](kda_door& d) { d.o.snapshot_interval = 0; }, {"snapshot_interval is 0", "at least 1"}},
    {"a chunk below 0", [](kda_door& d) { d.o.chunk = -1; }, {"chunk is -1", "from 0", "1024"}},
    {"a chunk too long", [](kda_door& d) { d.o.chunk = 1025; }, {"chunk is 1025", "from 0", "1024"}},
    {"a scale that is none", [](kda_door& d) { d.o.scale = std::numeric_limits<float>::quiet_NaN(); }, {"scale"}},
    {"normalize", [](kda_door& d) { d.o.normalize = true; }, {"normalize", "additive"}},
    {"normalizer without normalize", [](kda_door& d) { d.o.normalizer = {d.normalizer_memory.data(), {2, 4, 3}}; }, {"normalizer is given", "normalize is false"}},
    {"out on q", [](kda_door& d) { d.out = small_out(d.q_memory.data() + 239); }, {"out overlaps q"}},
    {"out on k", [](kda_door& d) { d.out = small_out(d.k_memory.data()); }, {"out overlaps k"}},
    {"out on v", [](kda_door& d) { d.out = small_out(d.v_memory.data() + 79); }, {"out overlaps v"}},
    {"out on log_decay", [](kda_door& d) { d.out = small_out(d.g_memory.data() + 119); }, {"out overlaps log_decay"}},
    {"out on beta", [](kda_door& d) { d.out = small_out(d.beta_memory.data()); }, {"out overlaps beta"}},
    {"out on initial_state", [](kda_door& d) { d.out = small_out(d.initial_memory.data() + 47); }, {"out overlaps initial_state"}},
    {"state on q", [](kda_door& d) { d.o.state = small_state(d.q_memory.data()); }, {"state overlaps q"}},
    {"state on k", [](kda_door& d) { d.o.state = small_state(d.k_memory.data() + 59); }, {"state overlaps k"}},
    {"state on v", [](kda_door& d) { d.o.state = small_state(d.v_memory.data()); }, {"state overlaps v"}},
    {"state on log_decay", [](kda_door& d) { d.o.state = small_state(d.g_memory.data() + 119); }, {"state overlaps log_decay"}},
    {"state on beta", [](kda_door& d) { d.o.state = small_state(d.beta_memory.data() + 39); }, {"state overlaps beta"}},
    {"state on initial_state", [](kda_door& d) { d.o.state = small_state(d.initial_memory.data()); }, {"state overlaps initial_state"}},
    {"state on out", [](kda_door& d) { d.o.state = small_state(d.out_memory.data() + 159); }, {"state overlaps out"}},
    {"snapshots on q", [](kda_door& d) { d.o.snapshots = small_snapshots(d.q_memory.data()); }, {"snapshots overlaps q"}},
    {"snapshots on k", [](kda_door& d) { d.o.snapshots = small_snapshots(d.k_memory.data() + 59); }, {"snapshots overlaps k"}},
    {"snapshots on v", [](kda_door& d) { d.o.snapshots = small_snapshots(d.v_memory.data()); }, {"snapshots overlaps v"}},
    {"snapshots on log_decay", [](kda_door& d) { d.o.snapshots = small_snapshots(d.g_memory.data()); }, {"snapshots overlaps log_decay"}},
    {"snapshots on beta", [](kda_door& d) { d.o.snapshots = small_snapshots(d.beta_memory.data()); }, {"snapshots overlaps beta"}},
    {"snapshots on initial_state", [](kda_door& d) { d.o.snapshots = small_snapshots(d.initial_memory.data()); }, {"snapshots overlaps initial_state"}},
    {"snapshots on out", [](kda_door& d) { d.o.snapshots = small_snapshots(d.out_memory.data()); }, {"snapshots overlaps out"}},
    {"snapshots on state", [](kda_door& d) { d.o.snapshots = small_snapshots(d.state_memory.data() + 47); }, {"snapshots overlaps state"}},
};
const std::vector<refusal<gated_delta_door>> of_gated_delta = {
    {"log_decay's batch", [](gated_delta_door& d) { d.of_token = resized(d.of_token, 0, 1); }, {"log_decay's batch is 1", "v's is 2"}},
    {"log_decay's length", [](gated_delta_door& d) { d.of_token = resized(d.of_token, 1, 4); }, {"log_decay's length is 4", "v's is 5"}},
    {"log_decay's heads", [](gated_delta_door& d) { d.of_token = resized(d.of_token, 2, 2); }, {"log_decay's number of heads is 2", "v's is 4"}},
};
const std::vector<refusal<rwkv6_door>> of_rwkv6 = {
    {"bonus is null", [](rwkv6_door& d) { d.u = null(d.u); }, {"bonus is null", "12"}},
    {"bonus' heads", [](rwkv6_door& d) { d.u = resized(d.u, 0, 2); }, {"bonus's number of heads is 2", "v's is 4"}},
    {"bonus' key channels", [](rwkv6_door& d) { d.u = resized(d.u, 1, 2); }, {"bonus's number of key channels is 2", "is 3"}},
    {"out on bonus", [](rwkv6_door& d) { d.out = small_out(d.u_memory.data() + 11); }, {"out overlaps bonus"}},
    {"state on bonus", [](rwkv6_door& d) { d.o.state = small_state(d.u_memory.data()); }, {"state overlaps bonus"}},
};
const std::vector<refusal<rwkv7_door>> of_rwkv7 = {
    {"a is null", [](rwkv7_door& d) { d.a = null(d.a); }, {"a is null", "120"}},
    {"b is null", [](rwkv7_door& d) { d.b = null(d.b); }, {"b is null", "120"}},
    {"a's length", [](rwkv7_door& d) { d.a = resized(d.a, 1, 4); }, {"a's length is 4", "v's is 5"}},
    {"b's heads", [](rwkv7_door& d) { d.b = resized(d.b, 2, 2); }, {"b's number of heads is 2", "v's is 4"}},
    {"b's key channels", [](rwkv7_door& d) { d.b = resized(d.b, 3, 2); }, {"b's number of key channels is 2", "is 3"}},
    {"out on a", [](rwkv7_door& d) { d.out = small_out(d.a_memory.data()); }, {"out overlaps a"}},
    {"state on b", [](rwkv7_door& d) { d.o.state = small_state(d.b_memory.data() + 119); }, {"state overlaps b"}},
    {"normalize", [](rwkv7_door& d) { d.o.normalize = true; }, {"normalize", "additive"}},
};
const std::vector<refusal<retention_door>> of_retention = {
    {"log_decay's heads", [](retention_door& d) { d.of_head = resized(d.of_head, 0, 3); }, {"log_decay's number of heads is 3", "v's is 4"}},
    {"normalizer's batch", [](retention_door& d) { d.o.normalizer = {d.normalizer_memory.data(), {1, 4, 3}}; }, {"normalizer's batch is 1", "is 2"}},
    {"normalizer's heads", [](retention_door& d) { d.o.normalizer = {d.normalizer_memory.data(), {2, 2, 3}}; }, {"normalizer's number of heads is 2", "v's is 4"}},
    {"normalizer's key channels", [](retention_door& d) { d.o.normalizer = {d.normalizer_memory.data(), {2, 4, 2}}; }, {"normalizer's number of key channels is 2", "is 3"}},
    {"normalizer on q", [](retention_door& d) { d.o.normalizer = small_normalizer(d.q_memory.data()); }, {"normalizer overlaps q"}},
    {"normalizer on log_decay", [](retention_door& d) { d.o.normalizer = small_normalizer(d.g_memory.data() + 3); }, {"normalizer overlaps log_decay"}},
    {"normalizer on out", [](retention_door& d) { d.o.normalizer = small_normalizer(d.out_memory.data()); }, {"normalizer overlaps out"}},
    {"normalizer on state", [](retention_door& d) { d.o.normalizer = small_normalizer(d.state_memory.data() + 47); }, {"normalizer overlaps state"}},
    {"snapshots on normalizer", [](retention_door& d) { d.o.snapshots = small_snapshots(d.normalizer_memory.data() + 23); }, {"snapshots overlaps normalizer"}},
};
const std::vector<refusal<taylor_door>> of_taylor = {
    {"a state of unmapped keys", [](taylor_door&) {}, {"state's number of key channels is 3", "k's number of features is 13"}},
};
// clang-format on

} // namespace

TEST_CASE("linear: what does not fit is refused, and nothing is written")
{
    CHECK_NOTHROW(kda_door().call());
    CHECK_NOTHROW(gated_delta_door().call());
    CHECK_NOTHROW(retention_door().call());
    CHECK_NOTHROW(rwkv6_door().call());
    CHECK_NOTHROW(rwkv7_door().call());
    check_refusals("linear::forward: ", of_kda), check_refusals("linear::forward: ", of_gated_delta);
    check_refusals("linear::forward: ", of_rwkv6), check_refusals("linear::forward: ", of_rwkv7);
    check_refusals("linear::forward: ", of_retention), check_refusals("linear::forward: ", of_taylor);
}

TEST_CASE("linear: packed sequences that do not fit are refused, and nothing is written")
{
    door d;
    d.o.snapshots = {};
    const auto message = [&](const std::vector<index>& offsets, const linear::options& o, const sm::view<float, 3>& out) {
        return message_of([&] {
            linear::forward_packed<linear::gated_delta, scalar>(d.q[0], d.k[0], d.v[0], {.log_decay = d.of_token[0], .beta = d.beta[0]}, out,
                                                                sm::view<const index, 1>(offsets.data(), {offsets.size()}), o);
        });
    };
    const auto check = [&](const char* name, const std::vector<index>& offsets, const linear::options& o, std::vector<const char*> texts) {
        texts.push_back("linear::forward_packed: ");
        check_message(name, message(offsets, o, d.out[0]), texts);
        INFO(name);
        CHECK(d.untouched());
    };
    check("do not start at 0", {1, 3, 5}, d.o, {"cu_seqlens starts at 1", "not at 0"});
    check("decrease", {0, 6, 5}, d.o, {"cu_seqlens decreases from 6 to 5"});
    check("end early", {0, 3, 4}, d.o, {"cu_seqlens ends at 4", "v has length 5"});
    check("end late", {0, 3, 7}, d.o, {"cu_seqlens ends at 7", "v has length 5"});
    check("no offsets at all", {}, d.o, {"cu_seqlens is empty"});
    check("state's batch", {0, 5}, d.o, {"state's batch is 2", "the number of sequences is 1"});
    linear::options with = d.o;
    with.snapshots = {d.snapshot_memory.data(), {2, 2, 4, 3, 2}};
    check("snapshots", {0, 2, 5}, with, {"snapshots"});
    with = d.o, with.chunk = 2000;
    check("chunk", {0, 2, 5}, with, {"chunk is 2000", "1024"});

    const std::vector<index> offsets{0, 2, 5};
    auto* const on_offsets = reinterpret_cast<float*>(const_cast<index*>(offsets.data()));
    with = d.o, with.state = small_state(on_offsets);
    check("state on cu_seqlens", offsets, with, {"state overlaps cu_seqlens"});
    check_message("out on cu_seqlens", message(offsets, d.o, {on_offsets, {5, 8, 2}, {0, 0, 0}}), {"out overlaps cu_seqlens"});
    CHECK(d.untouched());
}

} // namespace linear_test
