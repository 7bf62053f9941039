// SPDX-License-Identifier: MIT
// What the doors of the state-space duality refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/ssm/ssd.hpp>
#include <algorithm>
#include <cmath>

namespace ssd_test {

namespace sm = seqmix;
namespace ssm = seqmix::ssm;
using sm::bf16;
using sm::index; // POSIX has another in the global namespace

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, L 5, H 4, P 3, G 2, N 3.
struct door {
    guarded<float> out_memory{120}, state_memory{72};
    std::vector<float> x_memory = minus_ones(120), dt_memory = minus_ones(40), a_memory = minus_ones(4), b_memory = minus_ones(60),
                       c_memory = minus_ones(60), z_memory = minus_ones(120), d_memory = minus_ones(4), bias_memory = minus_ones(4),
                       initial_memory = minus_ones(72);
    sm::view<const float, 4> x{x_memory.data(), {2, 5, 4, 3}}, B{b_memory.data(), {2, 5, 2, 3}},
        C{c_memory.data(), {2, 5, 2, 3}};
    sm::view<const float, 3> dt{dt_memory.data(), {2, 5, 4}};
    sm::view<const float, 1> A{a_memory.data(), {4}};
    sm::view<float, 4> out{out_memory.data(), {2, 5, 4, 3}};
    ssm::ssd_options<float> o;

    door()
    {
        o.D = {d_memory.data(), {4}}, o.dt_bias = {bias_memory.data(), {4}};
        o.z = {z_memory.data(), {2, 5, 4, 3}}, o.initial_state = initial(2, 4, 3, 3);
        o.state = state_at(state_memory.data());
    }
    sm::view<const float, 4> initial(index b, index h, index p, index n) const
    {
        return {initial_memory.data(), {b, h, p, n}};
    }
    sm::view<float, 4> state(index b, index h, index p, index n) { return {state_memory.data(), {b, h, p, n}}; }
    sm::view<float, 4> state_at(float* data) const { return {data, {2, 4, 3, 3}, {0, 0, 0, 1}}; }
    sm::view<float, 4> out_at(float* data) const { return {data, {2, 5, 4, 3}, {0, 0, 0, 1}}; }

    void call() const { ssm::ssd<sm::arch::scalar>(x, dt, A, B, C, out, o); }

    bool untouched() const
    {
        return all_minus_ones({&x_memory, &dt_memory, &a_memory, &b_memory, &c_memory, &z_memory, &d_memory, &bias_memory, &initial_memory}) &&
               all_untouched(out_memory) && all_untouched(state_memory);
    }
};


// clang-format off
const std::vector<refusal<door>> refusals = {
    {"x is null", [](door& d) { d.x = null(d.x); }, {"x is null", "120"}},
    {"dt is null", [](door& d) { d.dt = null(d.dt); }, {"dt is null", "40"}},
    {"A is null", [](door& d) { d.A = null(d.A); }, {"A is null", "4"}},
    {"B is null", [](door& d) { d.B = null(d.B); }, {"B is null", "60"}},
    {"C is null", [](door& d) { d.C = null(d.C); }, {"C is null", "60"}},
    {"out is null", [](door& d) { d.out = null(d.out); }, {"out is null", "120"}},
    {"negative length", [](door& d) { d.x = resized(d.x, 1, -5); }, {"x has a negative extent", "-5"}},
    {"negative states", [](door& d) { d.B = resized(d.B, 3, -3); }, {"B has a negative extent", "-3"}},

    {"dt's batch", [](door& d) { d.dt = resized(d.dt, 0, 1); }, {"dt's batch is 1", "x's is 2"}},
    {"dt's length", [](door& d) { d.dt = resized(d.dt, 1, 4); }, {"dt's length is 4", "x's is 5"}},
    {"dt's heads", [](door& d) { d.dt = resized(d.dt, 2, 3); }, {"dt's number of heads is 3", "x's is 4"}},
    {"out's batch", [](door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1", "x's is 2"}},
    {"out's length", [](door& d) { d.out = resized(d.out, 1, 0); }, {"out's length is 0", "x's is 5"}},
    {"out's heads", [](door& d) { d.out = resized(d.out, 2, 3); }, {"out's number of heads is 3", "x's is 4"}},
    {"out's head size", [](door& d) { d.out = resized(d.out, 3, 2); }, {"out's head size is 2", "x's is 3"}},
    {"A's length", [](door& d) { d.A = resized(d.A, 0, 3); }, {"A's length is 3", "x's number of heads is 4"}},
    {"B's batch", [](door& d) { d.B = resized(d.B, 0, 1); }, {"B's batch is 1", "x's is 2"}},
    {"B's length", [](door& d) { d.B = resized(d.B, 1, 4); }, {"B's length is 4", "x's is 5"}},
    {"C's batch", [](door& d) { d.C = resized(d.C, 0, 1); }, {"C's batch is 1", "x's is 2"}},
    {"C's length", [](door& d) { d.C = resized(d.C, 1, 6); }, {"C's length is 6", "x's is 5"}},
    {"C's groups", [](door& d) { d.C = resized(d.C, 2, 1); }, {"C's number of groups is 1", "B's is 2"}},
    {"C's states", [](door& d) { d.C = resized(d.C, 3, 4); }, {"C's number of states is 4", "B's is 3"}},
    {"groups do not divide", [](door& d) { d.B = resized(d.B, 2, 3), d.C = resized(d.C, 2, 3); }, {"B has 3 groups", "x's 4"}},
    {"more groups than heads", [](door& d) { d.B = resized(d.B, 2, 8), d.C = resized(d.C, 2, 8); }, {"B has 8 groups", "x's 4"}},
    {"no groups", [](door& d) { d.B = resized(d.B, 2, 0), d.C = resized(d.C, 2, 0); }, {"B has 0 groups", "x's 4"}},
    {"z's batch", [](door& d) { d.o.z = resized(d.o.z, 0, 3); }, {"z's batch is 3", "x's is 2"}},
    {"z's length", [](door& d) { d.o.z = resized(d.o.z, 1, 4); }, {"z's length is 4", "x's is 5"}},
    {"z's heads", [](door& d) { d.o.z = resized(d.o.z, 2, 3); }, {"z's number of heads is 3", "x's is 4"}},
    {"z's head size", [](door& d) { d.o.z = resized(d.o.z, 3, 4); }, {"z's head size is 4", "x's is 3"}},
    {"D's length", [](door& d) { d.o.D = resized(d.o.D, 0, 3); }, {"D's length is 3", "x's number of heads is 4"}},
    {"dt_bias' length", [](door& d) { d.o.dt_bias = resized(d.o.dt_bias, 0, 5); }, {"dt_bias's length is 5", "x's number of heads is 4"}},
    {"state's batch", [](door& d) { d.o.state = d.state(1, 4, 3, 3); }, {"state's batch is 1", "the number of sequences is 2"}},
    {"state's heads", [](door& d) { d.o.state = d.state(2, 3, 3, 3); }, {"state's number of heads is 3", "x's is 4"}},
    {"state's head size", [](door& d) { d.o.state = d.state(2, 4, 2, 3); }, {"state's head size is 2", "x's is 3"}},
    {"state's states", [](door& d) { d.o.state = d.state(2, 4, 3, 2); }, {"state's number of states is 2", "B's is 3"}},
    {"initial_state's batch", [](door& d) { d.o.initial_state = d.initial(1, 4, 3, 3); }, {"initial_state's batch is 1", "the number of sequences is 2"}},
    {"initial_state's heads", [](door& d) { d.o.initial_state = d.initial(2, 3, 3, 3); }, {"initial_state's number of heads is 3", "x's is 4"}},
    {"initial_state's head size", [](door& d) { d.o.initial_state = d.initial(2, 4, 4, 3); }, {"initial_state's head size is 4", "x's is 3"}},
    {"initial_state's states", [](door& d) { d.o.initial_state = d.initial(2, 4, 3, 1); }, {"initial_state's number of states is 1", "B's is 3"}},
    {"a chunk below 0", [](door& d) { d.o.chunk = -1; }, {"chunk is -1", "from 0", "1024"}},
    {"a chunk too long", [](door& d) { d.o.chunk = 1025; }, {"chunk is 1025", "from 0", "1024"}},

    {"out on x", [](door& d) { d.out = d.out_at(d.x_memory.data() + 119); }, {"out overlaps x"}},
    {"out on dt", [](door& d) { d.out = d.out_at(d.dt_memory.data() + 1); }, {"out overlaps dt"}},
    {"out on A", [](door& d) { d.out = d.out_at(d.a_memory.data() + 3); }, {"out overlaps A"}},
    {"out on B", [](door& d) { d.out = d.out_at(d.b_memory.data()); }, {"out overlaps B"}},
    {"out on C", [](door& d) { d.out = d.out_at(d.c_memory.data() + 59); }, {"out overlaps C"}},
    {"out on z", [](door& d) { d.out = d.out_at(d.z_memory.data()); }, {"out overlaps z"}},
    {"out on D", [](door& d) { d.out = d.out_at(d.d_memory.data() + 3); }, {"out overlaps D"}},
    {"out on dt_bias", [](door& d) { d.out = d.out_at(d.bias_memory.data()); }, {"out overlaps dt_bias"}},
    {"out on initial_state", [](door& d) { d.out = d.out_at(d.initial_memory.data()); }, {"out overlaps initial_state"}},
    {"state on x", [](door& d) { d.o.state = d.state_at(d.x_memory.data() + 119); }, {"state overlaps x"}},
    {"state on dt", [](door& d) { d.o.state = d.state_at(d.dt_memory.data()); }, {"state overlaps dt"}},
    {"state on A", [](door& d) { d.o.state = d.state_at(d.a_memory.data()); }, {"state overlaps A"}},
    {"state on B", [](door& d) { d.o.state = d.state_at(d.b_memory.data()); }, {"state overlaps B"}},
    {"state on C", [](door& d) { d.o.state = d.state_at(d.c_memory.data()); }, {"state overlaps C"}},
    {"state on z", [](door& d) { d.o.state = d.state_at(d.z_memory.data()); }, {"state overlaps z"}},
    {"state on D", [](door& d) { d.o.state = d.state_at(d.d_memory.data()); }, {"state overlaps D"}},
    {"state on dt_bias", [](door& d) { d.o.state = d.state_at(d.bias_memory.data() + 3); }, {"state overlaps dt_bias"}},
    {"state on initial_state", [](door& d) { d.o.state = d.state_at(d.initial_memory.data() + 71); }, {"state overlaps initial_state"}},
    {"state in bf16 on x", [](door& d) { d.o.state = sm::view<bf16, 4>(reinterpret_cast<bf16*>(d.x_memory.data()), {2, 4, 3, 3}); }, {"state overlaps x"}},
    {"state on out", [](door& d) { d.o.state = d.state_at(d.out_memory.data() + 117); }, {"state overlaps out"}},
};
// clang-format on

} // namespace

TEST_CASE("ssd: what does not fit is refused, and nothing is written")
{
    door right;
    right.o.state = right.state(2, 4, 3, 3);
    CHECK_NOTHROW(right.call());
    for (const auto* memory : {&right.out_memory, &right.state_memory}) {
        for (index i = 0; i < memory->size(); ++i) { CHECK(std::isfinite((*memory)[i])); }
        CHECK(memory->intact());
    }
    check_refusals("ssm::ssd: ", refusals);
}

TEST_CASE("ssd: packed sequences that do not fit are refused, and nothing is written")
{
    struct packed_refusal {
        const char* name;
        std::vector<index> offsets;
        std::function<void(ssm::ssd_options<float>&)> spoil;
        std::vector<const char*> message;
    };
    static float numbers[400] = {};
    const auto nothing = [](auto&) {};
    const packed_refusal cases[] = {
        {"do not start at 0", {1, 3, 5}, nothing, {"cu_seqlens starts at 1", "not at 0"}},
        {"decrease", {0, 6, 5}, nothing, {"cu_seqlens decreases from 6 to 5"}},
        {"end early", {0, 3, 4}, nothing, {"cu_seqlens ends at 4", "x has length 5"}},
        {"end late", {0, 3, 7}, nothing, {"cu_seqlens ends at 7", "x has length 5"}},
        {"no offsets at all", {}, nothing, {"cu_seqlens is empty"}},
        {"state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.state = sm::view<float, 4>(numbers, {1, 4, 3, 3});
         },
         {"state's batch is 1", "the number of sequences is 2"}},
        {"initial_state's batch",
         {0, 3, 5},
         [](auto& o) {
             o.initial_state = sm::view<const float, 4>(numbers, {3, 4, 3, 3});
         },
         {"initial_state's batch is 3", "the number of sequences is 2"}},
        {"z's batch",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {2, 5, 4, 3}};
         },
         {"z's batch is 2", "x's is 1"}},
        {"z's length",
         {0, 3, 5},
         [](auto& o) {
             o.z = {numbers, {1, 3, 4, 3}};
         },
         {"z's length is 3", "x's is 5"}},
        {"chunk", {0, 3, 5}, [](auto& o) { o.chunk = 2000; }, {"chunk is 2000", "1024"}},
    };
    std::vector<float> x(60, 1.0f), dt(20, 1.0f), a(4, -1.0f), b(30, 1.0f);
    const auto call = [&](float* to, const ssm::ssd_options<float>& options, const index* offsets, std::size_t count,
                          bool spread_out) {
        const sm::view<float, 3> out =
            spread_out ? sm::view<float, 3>(to, {5, 4, 3}) : sm::view<float, 3>(to, {5, 4, 3}, {0, 0, 0});
        ssm::ssd_packed<sm::arch::scalar>(sm::view<const float, 3>(x.data(), {5, 4, 3}), sm::view<const float, 2>(dt.data(), {5, 4}),
                          sm::view<const float, 1>(a.data(), {4}), sm::view<const float, 3>(b.data(), {5, 2, 3}),
                          sm::view<const float, 3>(b.data(), {5, 2, 3}), out, sm::view<const index, 1>(offsets, {count}),
                          options);
    };
    for (const packed_refusal& r : cases) {
        guarded<float> out(60);
        ssm::ssd_options<float> options;
        r.spoil(options);
        std::vector<const char*> texts = r.message;
        texts.push_back("ssm::ssd_packed: ");
        check_message(r.name, message_of([&] { call(out.data(), options, r.offsets.data(), r.offsets.size(), true); }),
                      texts);
        INFO(r.name);
        CHECK(all_untouched(out));
    }

    index offsets[] = {0, 3, 5};
    auto* const on_offsets = reinterpret_cast<float*>(offsets + 2);
    guarded<float> out(60);
    ssm::ssd_options<float> on_state;
    on_state.state = sm::view<float, 4>(on_offsets, {2, 4, 3, 3}, {0, 0, 0, 0});
    check_message("out on cu_seqlens", message_of([&] { call(on_offsets, {}, offsets, 3, false); }),
                  {"out overlaps cu_seqlens"});
    check_message("state on cu_seqlens", message_of([&] { call(out.data(), on_state, offsets, 3, true); }),
                  {"state overlaps cu_seqlens"});
    CHECK((offsets[1] == 3 && offsets[2] == 5));
    CHECK(all_untouched(out));
}

} // namespace ssd_test
