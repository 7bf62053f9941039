// SPDX-License-Identifier: MIT
// What the doors of the selective scan refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/ssm/selective_scan.hpp>
#include <algorithm>
#include <cmath>

namespace scan_test {

namespace sm = seqmix;
namespace ssm = seqmix::ssm;
using sm::bf16;
using sm::index; // POSIX has another in the global namespace

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, D 4, G 2, N 3, L 5.
struct door {
    guarded<float> out_memory{40}, state_memory{24}, snapshot_memory{48};
    std::vector<float> u_memory = minus_ones(40), delta_memory = minus_ones(40), a_memory = minus_ones(12), b_memory = minus_ones(60),
                       c_memory = minus_ones(60), z_memory = minus_ones(40), d_memory = minus_ones(4), bias_memory = minus_ones(4),
                       initial_memory = minus_ones(24);
    std::vector<float> numbers = minus_ones(1000);
    sm::view<const float, 3> u{u_memory.data(), {2, 4, 5}}, delta{delta_memory.data(), {2, 4, 5}};
    sm::view<const float, 2> A{a_memory.data(), {4, 3}};
    sm::view<const float, 4> B{b_memory.data(), {2, 2, 3, 5}}, C{c_memory.data(), {2, 2, 3, 5}};
    sm::view<float, 3> out{out_memory.data(), {2, 4, 5}};
    ssm::scan_options<float> o;

    door()
    {
        o.D = {d_memory.data(), {4}}, o.delta_bias = {bias_memory.data(), {4}};
        o.z = {z_memory.data(), {2, 4, 5}}, o.initial_state = initial(2, 4, 3);
        o.state = state_at(state_memory.data());
        o.snapshots = snapshots_at(snapshot_memory.data()), o.snapshot_interval = 2;
    }
    sm::view<const float, 3> initial(index b, index d, index n) const { return {initial_memory.data(), {b, d, n}}; }
    sm::view<float, 3> state(index b, index d, index n) { return {state_memory.data(), {b, d, n}}; }
    sm::view<float, 4> snapshots(index b, index s, index d, index n) { return {snapshot_memory.data(), {b, s, d, n}}; }
    sm::view<float, 3> state_at(float* data) const { return {data, {2, 4, 3}, {0, 0, 1}}; }
    sm::view<float, 4> snapshots_at(float* data) const { return {data, {2, 2, 4, 3}, {0, 0, 0, 1}}; }
    sm::view<float, 3> out_at(float* data) const { return {data, {2, 4, 5}, {0, 0, 1}}; }

    void call() const { ssm::selective_scan<sm::arch::scalar>(u, delta, A, B, C, out, o); }

    bool untouched() const
    {
        return all_minus_ones({&u_memory, &delta_memory, &a_memory, &b_memory, &c_memory, &z_memory, &d_memory, &bias_memory, &initial_memory}) &&
               all_untouched(out_memory) && all_untouched(state_memory) && all_untouched(snapshot_memory);
    }
};


// clang-format off
const std::vector<refusal<door>> refusals = {
    {"u is null", [](door& d) { d.u = null(d.u); }, {"u is null", "40"}},
    {"delta is null", [](door& d) { d.delta = null(d.delta); }, {"delta is null", "40"}},
    {"A is null", [](door& d) { d.A = null(d.A); }, {"A is null", "12"}},
    {"B is null", [](door& d) { d.B = null(d.B); }, {"B is null", "60"}},
    {"C is null", [](door& d) { d.C = null(d.C); }, {"C is null", "60"}},
    {"out is null", [](door& d) { d.out = null(d.out); }, {"out is null", "40"}},
    {"negative length", [](door& d) { d.u = resized(d.u, 2, -5); }, {"u has a negative extent", "-5"}},
    {"negative states", [](door& d) { d.A = resized(d.A, 1, -3); }, {"A has a negative extent", "-3"}},

    {"delta's batch", [](door& d) { d.delta = resized(d.delta, 0, 1); }, {"delta's batch is 1", "u's is 2"}},
    {"delta's channels", [](door& d) { d.delta = resized(d.delta, 1, 3); }, {"delta's number of channels is 3", "u's is 4"}},
    {"delta's length", [](door& d) { d.delta = resized(d.delta, 2, 4); }, {"delta's length is 4", "u's is 5"}},
    {"out's batch", [](door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1", "u's is 2"}},
    {"out's channels", [](door& d) { d.out = resized(d.out, 1, 2); }, {"out's number of channels is 2", "u's is 4"}},
    {"out's length", [](door& d) { d.out = resized(d.out, 2, 0); }, {"out's length is 0", "u's is 5"}},
    {"A's channels", [](door& d) { d.A = resized(d.A, 0, 3); }, {"A's number of channels is 3", "u's is 4"}},
    {"B's batch", [](door& d) { d.B = resized(d.B, 0, 1); }, {"B's batch is 1", "u's is 2"}},
    {"B's states", [](door& d) { d.B = resized(d.B, 2, 2); }, {"B's number of states is 2", "A's is 3"}},
    {"B's length", [](door& d) { d.B = resized(d.B, 3, 4); }, {"B's length is 4", "u's is 5"}},
    {"C's batch", [](door& d) { d.C = resized(d.C, 0, 1); }, {"C's batch is 1", "u's is 2"}},
    {"C's groups", [](door& d) { d.C = resized(d.C, 1, 1); }, {"C's number of groups is 1", "B's is 2"}},
    {"C's states", [](door& d) { d.C = resized(d.C, 2, 4); }, {"C's number of states is 4", "A's is 3"}},
    {"C's length", [](door& d) { d.C = resized(d.C, 3, 6); }, {"C's length is 6", "u's is 5"}},
    {"groups do not divide", [](door& d) { d.B = resized(d.B, 1, 3), d.C = resized(d.C, 1, 3); }, {"B has 3 groups", "u's 4"}},
    {"more groups than channels", [](door& d) { d.B = resized(d.B, 1, 8), d.C = resized(d.C, 1, 8); }, {"B has 8 groups", "u's 4"}},
    {"no groups", [](door& d) { d.B = resized(d.B, 1, 0), d.C = resized(d.C, 1, 0); }, {"B has 0 groups", "u's 4"}},
    {"z's batch", [](door& d) { d.o.z = resized(d.o.z, 0, 3); }, {"z's batch is 3", "u's is 2"}},
    {"z's channels", [](door& d) { d.o.z = resized(d.o.z, 1, 3); }, {"z's number of channels is 3", "u's is 4"}},
    {"z's length", [](door& d) { d.o.z = resized(d.o.z, 2, 4); }, {"z's length is 4", "u's is 5"}},
    {"D's length", [](door& d) { d.o.D = resized(d.o.D, 0, 3); }, {"D's length is 3", "u's number of channels is 4"}},
    {"delta_bias' length", [](door& d) { d.o.delta_bias = resized(d.o.delta_bias, 0, 5); }, {"delta_bias's length is 5", "u's number of channels is 4"}},
    {"state's batch", [](door& d) { d.o.state = d.state(1, 4, 3); }, {"state's batch is 1", "the number of sequences is 2"}},
    {"state's channels", [](door& d) { d.o.state = d.state(2, 3, 3); }, {"state's number of channels is 3", "u's is 4"}},
    {"state's states", [](door& d) { d.o.state = d.state(2, 4, 2); }, {"state's number of states is 2", "A's is 3"}},
    {"initial_state's batch", [](door& d) { d.o.initial_state = d.initial(1, 4, 3); }, {"initial_state's batch is 1", "the number of sequences is 2"}},
    {"initial_state's channels", [](door& d) { d.o.initial_state = d.initial(2, 3, 3); }, {"initial_state's number of channels is 3", "u's is 4"}},
    {"initial_state's states", [](door& d) { d.o.initial_state = d.initial(2, 4, 4); }, {"initial_state's number of states is 4", "A's is 3"}},
    {"snapshots' batch", [](door& d) { d.o.snapshots = d.snapshots(1, 2, 4, 3); }, {"snapshots' batch is 1", "u's is 2"}},
    {"snapshots' number", [](door& d) { d.o.snapshots = d.snapshots(2, 3, 4, 3); }, {"snapshots' number is 3", "length / snapshot_interval is 2"}},
    {"snapshots' channels", [](door& d) { d.o.snapshots = d.snapshots(2, 2, 3, 3); }, {"snapshots's number of channels is 3", "u's is 4"}},
    {"snapshots' states", [](door& d) { d.o.snapshots = d.snapshots(2, 2, 4, 2); }, {"snapshots's number of states is 2", "A's is 3"}},
    {"no interval", [](door& d) { d.o.snapshot_interval = 0; }, {"snapshot_interval is 0", "at least 1"}},
    {"an interval below 0", [](door& d) { d.o.snapshot_interval = -2, d.o.snapshots = {}; }, {"snapshot_interval is -2", "at least 1"}},
    {"no segments", [](door& d) { d.o.time_segments = 0; }, {"time_segments is 0", "from 1 to 4096"}},
    {"too many segments", [](door& d) { d.o.time_segments = 4097; }, {"time_segments is 4097", "from 1 to 4096"}},
    {"rates that are not s4d_real", [](door& d) { d.o.decay = ssm::decay::s4d_real; }, {"decay is s4d_real", "-1.000000", "state 1", "channel 0", "-2"}},

    {"out on u", [](door& d) { d.out = d.out_at(d.u_memory.data() + 39); }, {"out overlaps u"}},
    {"out on delta", [](door& d) { d.out = d.out_at(d.delta_memory.data() + 1); }, {"out overlaps delta"}},
    {"out on A", [](door& d) { d.out = d.out_at(d.a_memory.data() + 11); }, {"out overlaps A"}},
    {"out on B", [](door& d) { d.out = d.out_at(d.b_memory.data()); }, {"out overlaps B"}},
    {"out on C", [](door& d) { d.out = d.out_at(d.c_memory.data() + 59); }, {"out overlaps C"}},
    {"out on z", [](door& d) { d.out = d.out_at(d.z_memory.data()); }, {"out overlaps z"}},
    {"out on D", [](door& d) { d.out = d.out_at(d.d_memory.data() + 3); }, {"out overlaps D"}},
    {"out on delta_bias", [](door& d) { d.out = d.out_at(d.bias_memory.data()); }, {"out overlaps delta_bias"}},
    {"out on initial_state", [](door& d) { d.out = d.out_at(d.initial_memory.data()); }, {"out overlaps initial_state"}},
    {"state on u", [](door& d) { d.o.state = d.state_at(d.u_memory.data() + 39); }, {"state overlaps u"}},
    {"state on delta", [](door& d) { d.o.state = d.state_at(d.delta_memory.data()); }, {"state overlaps delta"}},
    {"state on A", [](door& d) { d.o.state = d.state_at(d.a_memory.data()); }, {"state overlaps A"}},
    {"state on B", [](door& d) { d.o.state = d.state_at(d.b_memory.data()); }, {"state overlaps B"}},
    {"state on C", [](door& d) { d.o.state = d.state_at(d.c_memory.data()); }, {"state overlaps C"}},
    {"state on z", [](door& d) { d.o.state = d.state_at(d.z_memory.data()); }, {"state overlaps z"}},
    {"state on D", [](door& d) { d.o.state = d.state_at(d.d_memory.data()); }, {"state overlaps D"}},
    {"state on delta_bias", [](door& d) { d.o.state = d.state_at(d.bias_memory.data() + 3); }, {"state overlaps delta_bias"}},
    {"state on initial_state", [](door& d) { d.o.state = d.state_at(d.initial_memory.data() + 23); }, {"state overlaps initial_state"}},
    {"state in bf16 on u", [](door& d) { d.o.state = sm::view<bf16, 3>(reinterpret_cast<bf16*>(d.u_memory.data()), {2, 4, 3}); }, {"state overlaps u"}},
    {"state on out", [](door& d) { d.o.state = d.state_at(d.out_memory.data() + 39); }, {"state overlaps out"}},
    {"snapshots on u", [](door& d) { d.o.snapshots = d.snapshots_at(d.u_memory.data()); }, {"snapshots overlaps u"}},
    {"snapshots on A", [](door& d) { d.o.snapshots = d.snapshots_at(d.a_memory.data()); }, {"snapshots overlaps A"}},
    {"snapshots on C", [](door& d) { d.o.snapshots = d.snapshots_at(d.c_memory.data()); }, {"snapshots overlaps C"}},
    {"snapshots on initial_state", [](door& d) { d.o.snapshots = d.snapshots_at(d.initial_memory.data()); }, {"snapshots overlaps initial_state"}},
    {"snapshots on out", [](door& d) { d.o.snapshots = d.snapshots_at(d.out_memory.data()); }, {"snapshots overlaps out"}},
    {"snapshots on state", [](door& d) { d.o.snapshots = d.snapshots_at(d.state_memory.data() + 2); }, {"snapshots overlaps state"}},
};
// clang-format on

} // namespace

TEST_CASE("scan: what does not fit is refused, and nothing is written")
{
    door right;
    right.o.state = right.state(2, 4, 3), right.o.snapshots = right.snapshots(2, 2, 4, 3);
    CHECK_NOTHROW(right.call());
    for (const auto* memory : {&right.out_memory, &right.state_memory, &right.snapshot_memory}) {
        for (index i = 0; i < memory->size(); ++i) { CHECK(std::isfinite((*memory)[i])); }
        CHECK(memory->intact());
    }
    check_refusals("ssm::selective_scan: ", refusals);
}

TEST_CASE("scan: packed sequences that do not fit are refused, and nothing is written")
{
    struct packed_refusal {
        const char* name;
        std::vector<index> offsets;
        std::function<void(ssm::scan_options<float>&)> spoil;
        std::vector<const char*> message;
    };
    static float numbers[400] = {};
    const auto nothing = [](auto&) {};
    const packed_refusal cases[] = {
        {"do not start at 0", {1, 3, 5}, nothing, {"cu_seqlens starts at 1", "not at 0"}},
        {"decrease", {0, 6, 5}, nothing, {"cu_seqlens decreases from 6 to 5"}},
        {"end early", {0, 3, 4}, nothing, {"cu_seqlens ends at 4", "u has length 5"}},
        {"end late", {0, 3, 7}, nothing, {"cu_seqlens ends at 7", "u has length 5"}},
        {"no offsets at all", {}, nothing, {"cu_seqlens is empty"}},
        {"snapshots",
         {0, 3, 5},
         [](auto& o) {
             o.snapshots = {numbers, {1, 5, 4, 3}};
         },
         {"snapshots are given", "packed"}},
        {"state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.state = sm::view<float, 3>(numbers, {1, 4, 3});
         },
         {"state's batch is 1", "the number of sequences is 2"}},
        {"initial_state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.initial_state = sm::view<const float, 3>(numbers, {3, 4, 3});
         },
         {"initial_state's batch is 3", "the number of sequences is 2"}},
        {"z's batch",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {2, 4, 5}};
         },
         {"z's batch is 2", "u's is 1"}},
        {"z's length",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {1, 4, 3}};
         },
         {"z's length is 3", "u's is 5"}},
        {"segments", {0, 3, 5}, [](auto& o) { o.time_segments = -1; }, {"time_segments is -1", "from 1 to 4096"}},
    };
    for (const packed_refusal& r : cases) {
        guarded<float> u(20), a(12), b(30), out(20);
        ssm::scan_options<float> options;
        r.spoil(options);
        std::vector<const char*> texts = r.message;
        texts.push_back("ssm::selective_scan_packed: ");
        const auto call = [&] {
            ssm::selective_scan_packed<sm::arch::scalar>(sm::view<const float, 2>(u.data(), {4, 5}), sm::view<const float, 2>(u.data(), {4, 5}),
                              sm::view<const float, 2>(a.data(), {4, 3}), sm::view<const float, 3>(b.data(), {2, 3, 5}),
                              sm::view<const float, 3>(b.data(), {2, 3, 5}), sm::view<float, 2>(out.data(), {4, 5}),
                              sm::view<const index, 1>(r.offsets.data(), {r.offsets.size()}), options);
        };
        check_message(r.name, message_of(call), texts);
        INFO(r.name);
        CHECK(all_untouched(out));
    }

    guarded<float> u(20), a(12), b(30), out(20);
    const auto call = [&](float* to, float* state, const index* offsets) {
        ssm::scan_options<float> options;
        if (state != nullptr) { options.state = sm::view<float, 3>(state, {2, 4, 3}, {0, 0, 0}); }
        ssm::selective_scan_packed<sm::arch::scalar>(sm::view<const float, 2>(u.data(), {4, 5}), sm::view<const float, 2>(u.data(), {4, 5}),
                          sm::view<const float, 2>(a.data(), {4, 3}), sm::view<const float, 3>(b.data(), {2, 3, 5}),
                          sm::view<const float, 3>(b.data(), {2, 3, 5}), sm::view<float, 2>(to, {4, 5}, {0, 0}),
                          sm::view<const index, 1>(offsets, {3}), options);
    };
    index offsets[] = {0, 3, 5};
    auto* const on_offsets = reinterpret_cast<float*>(offsets + 2);
    check_message("out on cu_seqlens", message_of([&] { call(on_offsets, nullptr, offsets); }),
                  {"out overlaps cu_seqlens"});
    check_message("state on cu_seqlens", message_of([&] { call(out.data(), on_offsets, offsets); }),
                  {"state overlaps cu_seqlens"});
    CHECK((offsets[1] == 3 && offsets[2] == 5));
    CHECK(all_untouched(out));
}

} // namespace scan_test
