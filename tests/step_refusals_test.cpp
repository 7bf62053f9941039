// SPDX-License-Identifier: MIT
// What the doors of single steps refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/core/executor.hpp>
#include <seqmix/ssm/step.hpp>
#include <algorithm>
#include <cmath>

namespace step_test {

namespace sm = seqmix;
namespace ssm = seqmix::ssm;
using sm::index; // POSIX has another in the global namespace

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, D 4, G 2, N 3.
struct scan_call {
    guarded<float> out_memory{8}, state_memory{24};
    std::vector<float> u_memory = minus_ones(8), delta_memory = minus_ones(8), a_memory = minus_ones(12),
                       b_memory = minus_ones(12), c_memory = minus_ones(12), z_memory = minus_ones(8),
                       d_memory = minus_ones(4), bias_memory = minus_ones(4), initial_memory = minus_ones(24);
    sm::view<const float, 2> u{u_memory.data(), {2, 4}}, delta{delta_memory.data(), {2, 4}}, A{a_memory.data(), {4, 3}};
    sm::view<const float, 3> B{b_memory.data(), {2, 2, 3}}, C{c_memory.data(), {2, 2, 3}};
    sm::view<float, 2> out{out_memory.data(), {2, 4}};
    ssm::scan_step_options<float> o;

    scan_call()
    {
        o.D = {d_memory.data(), {4}}, o.delta_bias = {bias_memory.data(), {4}}, o.z = {z_memory.data(), {2, 4}};
        o.initial_state = initial(2, 4, 3), o.state = state_at(state_memory.data());
    }
    sm::view<const float, 3> initial(index b, index d, index n) const { return {initial_memory.data(), {b, d, n}}; }
    sm::view<float, 3> state(index b, index d, index n) { return {state_memory.data(), {b, d, n}}; }
    sm::view<float, 3> state_at(float* data) const { return {data, {2, 4, 3}, {0, 0, 1}}; }
    sm::view<float, 2> out_at(float* data) const { return {data, {2, 4}, {0, 1}}; }
    void make_right() { o.state = state(2, 4, 3); }
    void call() const { ssm::selective_step<sm::arch::scalar>(u, delta, A, B, C, out, o); }
    bool untouched() const
    {
        return all_minus_ones({&u_memory, &delta_memory, &a_memory, &b_memory, &c_memory, &z_memory, &d_memory, &bias_memory,
                               &initial_memory}) &&
               all_untouched(out_memory) && all_untouched(state_memory);
    }
};

/// The same of heads. B 2, H 4, P 3, G 2, N 3.
struct ssd_call {
    guarded<float> out_memory{24}, state_memory{72};
    std::vector<float> u_memory = minus_ones(24), delta_memory = minus_ones(8), a_memory = minus_ones(4),
                       b_memory = minus_ones(12), c_memory = minus_ones(12), z_memory = minus_ones(24),
                       d_memory = minus_ones(4), bias_memory = minus_ones(4), initial_memory = minus_ones(72);
    sm::view<const float, 3> x{u_memory.data(), {2, 4, 3}}, B{b_memory.data(), {2, 2, 3}}, C{c_memory.data(), {2, 2, 3}};
    sm::view<const float, 2> dt{delta_memory.data(), {2, 4}};
    sm::view<const float, 1> A{a_memory.data(), {4}};
    sm::view<float, 3> out{out_memory.data(), {2, 4, 3}};
    ssm::ssd_step_options<float> o;

    ssd_call()
    {
        o.D = {d_memory.data(), {4}}, o.dt_bias = {bias_memory.data(), {4}}, o.z = {z_memory.data(), {2, 4, 3}};
        o.initial_state = initial(2, 4, 3, 3), o.state = state_at(state_memory.data());
    }
    sm::view<const float, 4> initial(index b, index h, index p, index n) const
    {
        return {initial_memory.data(), {b, h, p, n}};
    }
    sm::view<float, 4> state(index b, index h, index p, index n) { return {state_memory.data(), {b, h, p, n}}; }
    sm::view<float, 4> state_at(float* data) const { return {data, {2, 4, 3, 3}, {0, 0, 0, 1}}; }
    sm::view<float, 3> out_at(float* data) const { return {data, {2, 4, 3}, {0, 0, 1}}; }
    void make_right() { o.state = state(2, 4, 3, 3); }
    void call() const { ssm::ssd_step<sm::arch::scalar>(x, dt, A, B, C, out, o); }
    bool untouched() const
    {
        return all_minus_ones({&u_memory, &delta_memory, &a_memory, &b_memory, &c_memory, &z_memory, &d_memory, &bias_memory,
                               &initial_memory}) &&
               all_untouched(out_memory) && all_untouched(state_memory);
    }
};

/// What both doors refuse alike.
template <class Call>
std::vector<refusal<Call>> overlaps(const char* first, const char* second, const char* bias)
{
    std::vector<refusal<Call>> all;
    static const std::string texts[2][9] = {
        {std::string("out overlaps ") + first, std::string("out overlaps ") + second, "out overlaps A", "out overlaps B",
         "out overlaps C", "out overlaps z", "out overlaps D", std::string("out overlaps ") + bias,
         "out overlaps initial_state"},
        {std::string("state overlaps ") + first, std::string("state overlaps ") + second, "state overlaps A",
         "state overlaps B", "state overlaps C", "state overlaps z", "state overlaps D",
         std::string("state overlaps ") + bias, "state overlaps initial_state"}};
    std::vector<float> Call::*const memories[] = {&Call::u_memory, &Call::delta_memory, &Call::a_memory,
                                                  &Call::b_memory, &Call::c_memory,     &Call::z_memory,
                                                  &Call::d_memory, &Call::bias_memory,  &Call::initial_memory};
    for (std::size_t i = 0; i < 9; ++i) {
        const auto memory = memories[i];
        all.push_back(
            {texts[0][i].c_str(), [memory](Call& c) { c.out = c.out_at(&(c.*memory).back()); }, {texts[0][i].c_str()}});
        all.push_back({texts[1][i].c_str(),
                       [memory](Call& c) { c.o.state = c.state_at(&(c.*memory).back()); },
                       {texts[1][i].c_str()}});
    }
    all.push_back({"state on out",
                   [](Call& c) { c.o.state = c.state_at(c.out_memory.data() + c.out_memory.size() - 1); },
                   {"state overlaps out"}});
    all.push_back({"no state", [](Call& c) { c.o.state = {}; }, {"state is not given"}});
    all.push_back({"out is null", [](Call& c) { c.out = null(c.out); }, {"out is null"}});
    all.push_back({"A is null", [](Call& c) { c.A = null(c.A); }, {"A is null"}});
    all.push_back({"B is null", [](Call& c) { c.B = null(c.B); }, {"B is null", "12"}});
    all.push_back({"C is null", [](Call& c) { c.C = null(c.C); }, {"C is null", "12"}});
    return all;
}

template <class Call>
void check_right()
{
    Call right;
    right.make_right();
    CHECK_NOTHROW(right.call());
    for (const auto* memory : {&right.out_memory, &right.state_memory}) {
        for (index i = 0; i < memory->size(); ++i) { CHECK(std::isfinite((*memory)[i])); }
        CHECK(memory->intact());
    }
}

} // namespace

// clang-format off
TEST_CASE("step: what does not fit is refused, and nothing is written")
{
    std::vector<refusal<scan_call>> scans = overlaps<scan_call>("u", "delta", "delta_bias");
    const std::vector<refusal<scan_call>> shapes = {
        {"u is null", [](auto& c) { c.u = null(c.u); }, {"u is null", "8"}},
        {"delta is null", [](auto& c) { c.delta = null(c.delta); }, {"delta is null", "8"}},
        {"negative channels", [](auto& c) { c.u = resized(c.u, 1, -4); }, {"u has a negative extent", "-4"}},
        {"delta's batch", [](auto& c) { c.delta = resized(c.delta, 0, 1); }, {"delta's batch is 1", "u's is 2"}},
        {"delta's channels", [](auto& c) { c.delta = resized(c.delta, 1, 3); }, {"delta's number of channels is 3", "u's is 4"}},
        {"out's batch", [](auto& c) { c.out = resized(c.out, 0, 1); }, {"out's batch is 1", "u's is 2"}},
        {"out's channels", [](auto& c) { c.out = resized(c.out, 1, 0); }, {"out's number of channels is 0", "u's is 4"}},
        {"A's channels", [](auto& c) { c.A = resized(c.A, 0, 3); }, {"A's number of channels is 3", "u's is 4"}},
        {"B's batch", [](auto& c) { c.B = resized(c.B, 0, 1); }, {"B's batch is 1", "u's is 2"}},
        {"B's states", [](auto& c) { c.B = resized(c.B, 2, 2); }, {"B's number of states is 2", "A's is 3"}},
        {"C's batch", [](auto& c) { c.C = resized(c.C, 0, 1); }, {"C's batch is 1", "u's is 2"}},
        {"C's groups", [](auto& c) { c.C = resized(c.C, 1, 1); }, {"C's number of groups is 1", "B's is 2"}},
        {"C's states", [](auto& c) { c.C = resized(c.C, 2, 4); }, {"C's number of states is 4", "A's is 3"}},
        {"groups do not divide", [](auto& c) { c.B = resized(c.B, 1, 3), c.C = resized(c.C, 1, 3); }, {"B has 3 groups", "u's 4"}},
        {"no groups", [](auto& c) { c.B = resized(c.B, 1, 0), c.C = resized(c.C, 1, 0); }, {"B has 0 groups", "u's 4"}},
        {"z's batch", [](auto& c) { c.o.z = resized(c.o.z, 0, 1); }, {"z's batch is 1", "u's is 2"}},
        {"z's channels", [](auto& c) { c.o.z = resized(c.o.z, 1, 3); }, {"z's number of channels is 3", "u's is 4"}},
        {"D's length", [](auto& c) { c.o.D = resized(c.o.D, 0, 3); }, {"D's length is 3", "u's number of channels is 4"}},
        {"delta_bias' length", [](auto& c) { c.o.delta_bias = resized(c.o.delta_bias, 0, 5); }, {"delta_bias's length is 5", "u's number of channels is 4"}},
        {"state's batch", [](auto& c) { c.o.state = c.state(1, 4, 3); }, {"state's batch is 1", "u's is 2"}},
        {"state's channels", [](auto& c) { c.o.state = c.state(2, 3, 3); }, {"state's number of channels is 3", "u's is 4"}},
        {"state's states", [](auto& c) { c.o.state = c.state(2, 4, 2); }, {"state's number of states is 2", "A's is 3"}},
        {"initial_state's batch", [](auto& c) { c.o.initial_state = c.initial(1, 4, 3); }, {"initial_state's batch is 1", "u's is 2"}},
        {"initial_state's channels", [](auto& c) { c.o.initial_state = c.initial(2, 3, 3); }, {"initial_state's number of channels is 3", "u's is 4"}},
        {"initial_state's states", [](auto& c) { c.o.initial_state = c.initial(2, 4, 1); }, {"initial_state's number of states is 1", "A's is 3"}},
    };
    scans.insert(scans.end(), shapes.begin(), shapes.end());
    check_right<scan_call>();
    check_refusals("ssm::selective_step: ", scans);

    std::vector<refusal<ssd_call>> heads = overlaps<ssd_call>("x", "dt", "dt_bias");
    const std::vector<refusal<ssd_call>> head_shapes = {
        {"x is null", [](auto& c) { c.x = null(c.x); }, {"x is null", "24"}},
        {"dt is null", [](auto& c) { c.dt = null(c.dt); }, {"dt is null", "8"}},
        {"negative heads", [](auto& c) { c.x = resized(c.x, 1, -4); }, {"x has a negative extent", "-4"}},
        {"dt's batch", [](auto& c) { c.dt = resized(c.dt, 0, 1); }, {"dt's batch is 1", "x's is 2"}},
        {"dt's heads", [](auto& c) { c.dt = resized(c.dt, 1, 3); }, {"dt's number of heads is 3", "x's is 4"}},
        {"out's batch", [](auto& c) { c.out = resized(c.out, 0, 1); }, {"out's batch is 1", "x's is 2"}},
        {"out's heads", [](auto& c) { c.out = resized(c.out, 1, 0); }, {"out's number of heads is 0", "x's is 4"}},
        {"out's head size", [](auto& c) { c.out = resized(c.out, 2, 2); }, {"out's head size is 2", "x's is 3"}},
        {"A's length", [](auto& c) { c.A = resized(c.A, 0, 3); }, {"A's length is 3", "x's number of heads is 4"}},
        {"B's batch", [](auto& c) { c.B = resized(c.B, 0, 1); }, {"B's batch is 1", "x's is 2"}},
        {"C's batch", [](auto& c) { c.C = resized(c.C, 0, 1); }, {"C's batch is 1", "x's is 2"}},
        {"C's groups", [](auto& c) { c.C = resized(c.C, 1, 1); }, {"C's number of groups is 1", "B's is 2"}},
        {"C's states", [](auto& c) { c.C = resized(c.C, 2, 4); }, {"C's number of states is 4", "B's is 3"}},
        {"groups do not divide", [](auto& c) { c.B = resized(c.B, 1, 3), c.C = resized(c.C, 1, 3); }, {"B has 3 groups", "x's 4"}},
        {"no groups", [](auto& c) { c.B = resized(c.B, 1, 0), c.C = resized(c.C, 1, 0); }, {"B has 0 groups", "x's 4"}},
        {"z's batch", [](auto& c) { c.o.z = resized(c.o.z, 0, 1); }, {"z's batch is 1", "x's is 2"}},
        {"z's heads", [](auto& c) { c.o.z = resized(c.o.z, 1, 3); }, {"z's number of heads is 3", "x's is 4"}},
        {"z's head size", [](auto& c) { c.o.z = resized(c.o.z, 2, 4); }, {"z's head size is 4", "x's is 3"}},
        {"D's length", [](auto& c) { c.o.D = resized(c.o.D, 0, 3); }, {"D's length is 3", "x's number of heads is 4"}},
        {"dt_bias' length", [](auto& c) { c.o.dt_bias = resized(c.o.dt_bias, 0, 5); }, {"dt_bias's length is 5", "x's number of heads is 4"}},
        {"state's batch", [](auto& c) { c.o.state = c.state(1, 4, 3, 3); }, {"state's batch is 1", "x's is 2"}},
        {"state's heads", [](auto& c) { c.o.state = c.state(2, 3, 3, 3); }, {"state's number of heads is 3", "x's is 4"}},
        {"state's head size", [](auto& c) { c.o.state = c.state(2, 4, 2, 3); }, {"state's head size is 2", "x's is 3"}},
        {"state's states", [](auto& c) { c.o.state = c.state(2, 4, 3, 2); }, {"state's number of states is 2", "B's is 3"}},
        {"initial_state's batch", [](auto& c) { c.o.initial_state = c.initial(1, 4, 3, 3); }, {"initial_state's batch is 1", "x's is 2"}},
        {"initial_state's heads", [](auto& c) { c.o.initial_state = c.initial(2, 3, 3, 3); }, {"initial_state's number of heads is 3", "x's is 4"}},
        {"initial_state's head size", [](auto& c) { c.o.initial_state = c.initial(2, 4, 1, 3); }, {"initial_state's head size is 1", "x's is 3"}},
        {"initial_state's states", [](auto& c) { c.o.initial_state = c.initial(2, 4, 3, 1); }, {"initial_state's number of states is 1", "B's is 3"}},
    };
    heads.insert(heads.end(), head_shapes.begin(), head_shapes.end());
    check_right<ssd_call>();
    check_refusals("ssm::ssd_step: ", heads);
}
// clang-format on

} // namespace step_test
