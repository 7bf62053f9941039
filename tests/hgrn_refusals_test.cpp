// SPDX-License-Identifier: MIT
// What the doors of gated recurrences without a key refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/linear/hgrn.hpp>

namespace hgrn_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using sm::index; // POSIX has another in the global namespace
using scalar = sm::arch::scalar;

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, L 5, D 3.
struct door {
    std::vector<float> memory[4] = {minus_ones(30), minus_ones(30), minus_ones(30), minus_ones(6)}; ///< x or candidate, g or forget, gate, initial_state
    guarded<float> out_memory{30}, state_memory{6};
    sm::view<const float, 3> x{memory[0].data(), {2, 5, 3}}, gates{memory[1].data(), {2, 5, 3}}, gate{memory[2].data(), {2, 5, 3}};
    sm::view<float, 3> out{out_memory.data(), {2, 5, 3}};
    linear::hgrn_options o;

    door()
    {
        o.state = sm::view<float, 2>(state_memory.data(), {2, 3});
        o.initial_state = sm::view<const float, 2>(memory[3].data(), {2, 3});
    }
    bool untouched() const
    {
        return all_untouched(out_memory) && all_untouched(state_memory) && all_minus_ones({&memory[0], &memory[1], &memory[2], &memory[3]});
    }
};
struct hgrn_door : door {
    void call() const { linear::hgrn<scalar>(x, gates, out, o); }
};
struct mlgru_door : door {
    void call() const { linear::mlgru<scalar>(gates, x, gate, out, o); }
};

sm::view<float, 3> small(float* data) { return {data, {2, 5, 3}, {0, 0, 0}}; }
sm::view<float, 2> small_state(float* data) { return {data, {2, 3}, {0, 0}}; }

// clang-format off
const std::vector<refusal<hgrn_door>> of_hgrn = {
    {"x is null, but its shape has 30 elements", [](hgrn_door& d) { d.x = null(d.x); }, {"x is null, but its shape has 30 elements"}},
    {"g is null, but its shape has 30 elements", [](hgrn_door& d) { d.gates = null(d.gates); }, {"g is null, but its shape has 30 elements"}},
    {"out is null, but its shape has 30 elements", [](hgrn_door& d) { d.out = null(d.out); }, {"out is null, but its shape has 30 elements"}},
    {"x has a negative extent: -5", [](hgrn_door& d) { d.x = resized(d.x, 1, -5); }, {"x has a negative extent: -5"}},
    {"g's batch is 1, but x's is 2", [](hgrn_door& d) { d.gates = resized(d.gates, 0, 1); }, {"g's batch is 1, but x's is 2"}},
    {"g's length is 4, but x's is 5", [](hgrn_door& d) { d.gates = resized(d.gates, 1, 4); }, {"g's length is 4, but x's is 5"}},
    {"g's number of channels is 2, but x's is 3", [](hgrn_door& d) { d.gates = resized(d.gates, 2, 2); }, {"g's number of channels is 2, but x's is 3"}},
    {"out's batch is 1, but x's is 2", [](hgrn_door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1, but x's is 2"}},
    {"out's length is 0, but x's is 5", [](hgrn_door& d) { d.out = resized(d.out, 1, 0); }, {"out's length is 0, but x's is 5"}},
    {"out's number of channels is 2, but x's is 3", [](hgrn_door& d) { d.out = resized(d.out, 2, 2); }, {"out's number of channels is 2, but x's is 3"}},
    {"state's batch is 1, but the number of sequences is 2", [](hgrn_door& d) { d.o.state = sm::view<float, 2>(d.state_memory.data(), {1, 3}); }, {"state's batch is 1, but the number of sequences is 2"}},
    {"state's number of channels is 2, but x's is 3", [](hgrn_door& d) { d.o.state = sm::view<float, 2>(d.state_memory.data(), {2, 2}); }, {"state's number of channels is 2, but x's is 3"}},
    {"initial_state's batch is 3, but the number of sequences is 2", [](hgrn_door& d) { d.o.initial_state = sm::view<const float, 2>(d.memory[3].data(), {3, 3}); }, {"initial_state's batch is 3, but the number of sequences is 2"}},
    {"initial_state's number of channels is 4, but x's is 3", [](hgrn_door& d) { d.o.initial_state = sm::view<const float, 2>(d.memory[3].data(), {2, 4}); }, {"initial_state's number of channels is 4, but x's is 3"}},
    {"time_segments is 0, but must be from 1 to 4096", [](hgrn_door& d) { d.o.time_segments = 0; }, {"time_segments is 0, but must be from 1 to 4096"}},
    {"time_segments is 4097, but must be from 1 to 4096", [](hgrn_door& d) { d.o.time_segments = 4097; }, {"time_segments is 4097, but must be from 1 to 4096"}},
    {"out overlaps x", [](hgrn_door& d) { d.out = small(d.memory[0].data() + 29); }, {"out overlaps x"}},
    {"out overlaps g", [](hgrn_door& d) { d.out = small(d.memory[1].data()); }, {"out overlaps g"}},
    {"out overlaps initial_state", [](hgrn_door& d) { d.out = small(d.memory[3].data() + 5); }, {"out overlaps initial_state"}},
    {"state overlaps x", [](hgrn_door& d) { d.o.state = small_state(d.memory[0].data()); }, {"state overlaps x"}},
    {"state overlaps g", [](hgrn_door& d) { d.o.state = small_state(d.memory[1].data() + 29); }, {"state overlaps g"}},
    {"state overlaps initial_state", [](hgrn_door& d) { d.o.state = small_state(d.memory[3].data() + 5); }, {"state overlaps initial_state"}},
    {"state overlaps out", [](hgrn_door& d) { d.o.state = small_state(d.out_memory.data() + 29); }, {"state overlaps out"}},
};
const std::vector<refusal<mlgru_door>> of_mlgru = {
    {"forget is null, but its shape has 30 elements", [](mlgru_door& d) { d.gates = null(d.gates); }, {"forget is null, but its shape has 30 elements"}},
    {"candidate is null, but its shape has 30 elements", [](mlgru_door& d) { d.x = null(d.x); }, {"candidate is null, but its shape has 30 elements"}},
    {"candidate's length is 4, but forget's is 5", [](mlgru_door& d) { d.x = resized(d.x, 1, 4); }, {"candidate's length is 4, but forget's is 5"}},
    {"gate's batch is 1, but forget's is 2", [](mlgru_door& d) { d.gate = resized(d.gate, 0, 1); }, {"gate's batch is 1, but forget's is 2"}},
    {"gate's length is 4, but forget's is 5", [](mlgru_door& d) { d.gate = resized(d.gate, 1, 4); }, {"gate's length is 4, but forget's is 5"}},
    {"gate's number of channels is 2, but forget's is 3", [](mlgru_door& d) { d.gate = resized(d.gate, 2, 2); }, {"gate's number of channels is 2, but forget's is 3"}},
    {"out overlaps gate", [](mlgru_door& d) { d.out = small(d.memory[2].data() + 29); }, {"out overlaps gate"}},
    {"state overlaps gate", [](mlgru_door& d) { d.o.state = small_state(d.memory[2].data()); }, {"state overlaps gate"}},
    {"state's number of channels is 2, but forget's is 3", [](mlgru_door& d) { d.o.state = sm::view<float, 2>(d.state_memory.data(), {2, 2}); }, {"state's number of channels is 2, but forget's is 3"}},
};// clang-format on

} // namespace

TEST_CASE("hgrn: what does not fit is refused, and nothing is written")
{
    CHECK_NOTHROW(hgrn_door().call());
    CHECK_NOTHROW(mlgru_door().call());
    check_refusals("linear::hgrn: ", of_hgrn);
    check_refusals("linear::mlgru: ", of_mlgru);
}

TEST_CASE("hgrn: packed sequences and steps that do not fit are refused, and nothing is written")
{
    struct packed_refusal {
        std::vector<index> offsets;
        const char* message;
    };
    const mlgru_door d;
    const auto packed = [&](const std::vector<index>& offsets, const sm::view<float, 2>& out, const linear::hgrn_options& o) {
        const sm::view<const index, 1> cu(offsets.data(), {offsets.size()});
        const auto hgrn = message_of([&] { linear::hgrn_packed<scalar>(d.x[0], d.gates[0], out, cu, o); });
        const auto mlgru = message_of([&] { linear::mlgru_packed<scalar>(d.gates[0], d.x[0], d.gate[0], out, cu, o); });
        return std::pair(hgrn, mlgru);
    };
    for (const packed_refusal& r : {packed_refusal{{1, 3, 5}, "cu_seqlens starts at 1, not at 0"},
                                    {{0, 6, 5}, "cu_seqlens decreases from 6 to 5"},
                                    {{0, 3, 4}, "cu_seqlens ends at 4, but out has length 5"},
                                    {{}, "cu_seqlens is empty"},
                                    {{0, 5}, "state's batch is 2, but the number of sequences is 1"}}) {
        const auto [hgrn, mlgru] = packed(r.offsets, d.out[0], d.o);
        CHECK(hgrn.find(std::string("linear::hgrn_packed: ") + r.message) == 0);
        CHECK(mlgru.find(std::string("linear::mlgru_packed: ") + r.message) == 0);
        CHECK(d.untouched());
    }
    const std::vector<index> offsets{0, 2, 5};
    auto* const on_offsets = reinterpret_cast<float*>(const_cast<index*>(offsets.data()));
    CHECK(packed(offsets, {on_offsets, {5, 3}, {0, 0}}, d.o).first.find("out overlaps cu_seqlens") != std::string::npos);
    linear::hgrn_options o;
    o.state = small_state(on_offsets);
    CHECK(packed(offsets, d.out[0], o).second.find("state overlaps cu_seqlens") != std::string::npos);
    CHECK(d.untouched());

    const auto token = [](const auto& v) { return v.select(1, 0); };
    CHECK(message_of([&] { linear::hgrn_step<scalar>(token(d.x), token(d.gates), token(d.out), {}); }) == "linear::hgrn_step: state is not given");
    CHECK(message_of([&] { linear::mlgru_step<scalar>(token(d.gates), token(d.x), token(d.gate), token(d.out), {}); }) ==
          "linear::mlgru_step: state is not given");
    CHECK(message_of([&] {
              linear::hgrn_step<scalar>(token(d.x), token(resized(d.gates, 2, 2)), token(d.out), {.state = d.o.state});
          }) == "linear::hgrn_step: g's number of channels is 2, but x's is 3");
    CHECK(d.untouched());
}

} // namespace hgrn_test
