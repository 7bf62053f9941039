// SPDX-License-Identifier: MIT
// What the door of test-time training refuses. It is the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/linear/test_time_training.hpp>

namespace test_time_training_test {

namespace sm = seqmix;
namespace linear = seqmix::linear;
using sm::index; // POSIX has another in the global namespace
using scalar = sm::arch::scalar;

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, L 5, 2 heads, D 3, V 4, H 6. Memory of w0, w1, w2 in that order.
struct door {
    std::vector<float> q_memory = minus_ones(60), k_memory = minus_ones(60), v_memory = minus_ones(80), momentum_memory = minus_ones(20);
    std::vector<float> rate_memory[3] = {minus_ones(20), minus_ones(20), minus_ones(20)};
    std::vector<float> initial_memory[3] = {minus_ones(72), minus_ones(96), minus_ones(72)},
                       norms_memory[3] = {minus_ones(72), minus_ones(96), minus_ones(72)};
    guarded<float> out_memory{80}, w0_memory{72}, w1_memory{96}, w2_memory{72}, m0_memory{72}, m1_memory{96}, m2_memory{72};
    sm::view<const float, 4> q{q_memory.data(), {2, 5, 2, 3}}, k{k_memory.data(), {2, 5, 2, 3}}, v{v_memory.data(), {2, 5, 2, 4}};
    sm::view<float, 4> out{out_memory.data(), {2, 5, 2, 4}};
    linear::training_inputs<linear::swiglu_network> in;
    linear::training_options<linear::swiglu_network> o;

    door()
    {
        in.rate = {.w0 = {rate_memory[0].data(), {2, 5, 2}}, .w1 = {rate_memory[1].data(), {2, 5, 2}}, .w2 = {rate_memory[2].data(), {2, 5, 2}}};
        in.momentum = {momentum_memory.data(), {2, 5, 2}};
        o.weights = {.w0 = {w0_memory.data(), {2, 2, 6, 3}}, .w1 = {w1_memory.data(), {2, 2, 4, 6}}, .w2 = {w2_memory.data(), {2, 2, 6, 3}}};
        o.velocity = {.w0 = {m0_memory.data(), {2, 2, 6, 3}}, .w1 = {m1_memory.data(), {2, 2, 4, 6}}, .w2 = {m2_memory.data(), {2, 2, 6, 3}}};
        o.initial_weights = {.w0 = {initial_memory[0].data(), {2, 2, 6, 3}},
                             .w1 = {initial_memory[1].data(), {2, 2, 4, 6}},
                             .w2 = {initial_memory[2].data(), {2, 2, 6, 3}}};
        o.norms_of = {
            .w0 = {norms_memory[0].data(), {2, 2, 6, 3}}, .w1 = {norms_memory[1].data(), {2, 2, 4, 6}}, .w2 = {norms_memory[2].data(), {2, 2, 6, 3}}};
    }
    void call() const { linear::test_time_training<linear::swiglu_network, scalar>(q, k, v, in, out, o); }
    bool untouched() const
    {
        return all_minus_ones({&q_memory, &k_memory, &v_memory, &momentum_memory, &rate_memory[0], &rate_memory[1], &rate_memory[2],
                               &initial_memory[0], &initial_memory[1], &initial_memory[2], &norms_memory[0], &norms_memory[1], &norms_memory[2]}) &&
               all_untouched(out_memory) && all_untouched(w0_memory) && all_untouched(w1_memory) && all_untouched(w2_memory) &&
               all_untouched(m0_memory) && all_untouched(m1_memory) && all_untouched(m2_memory);
    }
};

struct linear_door : door {
    linear::training_inputs<linear::linear_network> of_linear;
    linear::training_options<linear::linear_network> options;

    linear_door()
    {
        of_linear.rate.w = in.rate.w0;
        options.weights.w = {w1_memory.data(), {2, 2, 4, 3}};
        options.initial_weights.w = {initial_memory[0].data(), {2, 2, 4, 3}};
    }
    void call() const { linear::test_time_training<linear::linear_network, scalar>(q, k, v, of_linear, out, options); }
};

/// Places that only their first elements tell from another's.
sm::view<float, 4> small_out(float* data) { return {data, {2, 5, 2, 4}, {0, 0, 0, 0}}; }
sm::view<float, 4> small_w0(float* data) { return {data, {2, 2, 6, 3}, {0, 0, 0, 0}}; }
sm::view<float, 4> small_w1(float* data) { return {data, {2, 2, 4, 6}, {0, 0, 0, 0}}; }

// clang-format off
const std::vector<refusal<door>> of_swiglu = {
    {"null q", [](door& d) { d.q = null(d.q); }, {"q is null, but its shape has 60 elements"}},
    {"null k", [](door& d) { d.k = null(d.k); }, {"k is null, but its shape has 60 elements"}},
    {"null v", [](door& d) { d.v = null(d.v); }, {"v is null, but its shape has 80 elements"}},
    {"null out", [](door& d) { d.out = null(d.out); }, {"out is null, but its shape has 80 elements"}},
    {"negative extent", [](door& d) { d.q = resized(d.q, 1, -5); }, {"q has a negative extent: -5"}},
    {"q's batch", [](door& d) { d.q = resized(d.q, 0, 1); }, {"q's batch is 1, but v's is 2"}},
    {"q's length", [](door& d) { d.q = resized(d.q, 1, 4); }, {"q's length is 4, but v's is 5"}},
    {"q's heads", [](door& d) { d.q = resized(d.q, 2, 1); }, {"q's number of heads is 1, but v's is 2"}},
    {"q's size", [](door& d) { d.q = resized(d.q, 3, 2); }, {"q's head size is 2, but k's is 3"}},
    {"k's batch", [](door& d) { d.k = resized(d.k, 0, 1); }, {"k's batch is 1, but v's is 2"}},
    {"k's length", [](door& d) { d.k = resized(d.k, 1, 4); }, {"k's length is 4, but v's is 5"}},
    {"k's heads", [](door& d) { d.k = resized(d.k, 2, 1); }, {"k's number of heads is 1, but v's is 2"}},
    {"out's length", [](door& d) { d.out = resized(d.out, 1, 4); }, {"out's length is 4, but v's is 5"}},
    {"out's size", [](door& d) { d.out = resized(d.out, 3, 3); }, {"out's head size is 3, but v's is 4"}},
    {"null rate", [](door& d) { d.in.rate.w1 = null(d.in.rate.w1); }, {"rate.w1 is null, but its shape has 20 elements"}},
    {"no rate", [](door& d) { d.in.rate.w2 = {}; }, {"rate.w2's batch is 0, but v's is 2"}},
    {"rate's length", [](door& d) { d.in.rate.w0 = resized(d.in.rate.w0, 1, 4); }, {"rate.w0's length is 4, but v's is 5"}},
    {"rate's heads", [](door& d) { d.in.rate.w2 = resized(d.in.rate.w2, 2, 1); }, {"rate.w2's number of heads is 1, but v's is 2"}},
    {"momentum's length", [](door& d) { d.in.momentum = resized(d.in.momentum, 1, 4); }, {"momentum's length is 4, but v's is 5"}},
    {"w0's rows", [](door& d) { d.o.weights.w0 = resized(d.o.weights.w0, 2, 5); }, {"weights.w0's number of rows is 5, but w0's number of rows is 6"}},
    {"w0's columns", [](door& d) { d.o.weights.w0 = resized(d.o.weights.w0, 3, 2); }, {"weights.w0's number of columns is 2, but k's head size is 3"}},
    {"w1's rows", [](door& d) { d.o.weights.w1 = resized(d.o.weights.w1, 2, 3); }, {"weights.w1's number of rows is 3, but v's head size is 4"}},
    {"w1's columns", [](door& d) { d.o.weights.w1 = resized(d.o.weights.w1, 3, 5); }, {"weights.w1's number of columns is 5, but w0's number of rows is 6"}},
    {"w2's batch", [](door& d) { d.o.weights.w2 = resized(d.o.weights.w2, 0, 1); }, {"weights.w2's batch is 1, but v's is 2"}},
    {"w2's heads", [](door& d) { d.o.weights.w2 = resized(d.o.weights.w2, 1, 1); }, {"weights.w2's number of heads is 1, but v's is 2"}},
    {"initial w1", [](door& d) { d.o.initial_weights.w1 = resized(d.o.initial_weights.w1, 3, 5); }, {"initial_weights.w1's number of columns is 5, but w0's number of rows is 6"}},
    {"velocity of w2", [](door& d) { d.o.velocity.w2 = resized(d.o.velocity.w2, 2, 5); }, {"velocity.w2's number of rows is 5, but w0's number of rows is 6"}},
    {"norms of w1", [](door& d) { d.o.norms_of.w1 = resized(d.o.norms_of.w1, 2, 3); }, {"norms_of.w1's number of rows is 3, but v's head size is 4"}},
    {"no weights", [](door& d) { d.o.weights.w1 = {}, d.o.initial_weights.w1 = {}; }, {"neither weights.w1 nor initial_weights.w1 is given"}},
    {"velocity without momentum", [](door& d) { d.in.momentum = {}; }, {"velocity.w0 is given, but momentum is not"}},
    {"norms without normalize", [](door& d) { d.o.normalize = false; }, {"norms_of.w0 is given, but normalize is false"}},
    {"no chunk", [](door& d) { d.o.chunk = 0; }, {"chunk is 0, but must be at least 1"}},
    {"out on q", [](door& d) { d.out = small_out(d.q_memory.data() + 59); }, {"out overlaps q"}},
    {"out on k", [](door& d) { d.out = small_out(d.k_memory.data()); }, {"out overlaps k"}},
    {"out on v", [](door& d) { d.out = small_out(d.v_memory.data() + 79); }, {"out overlaps v"}},
    {"out on rate", [](door& d) { d.out = small_out(d.rate_memory[2].data()); }, {"out overlaps rate.w2"}},
    {"out on momentum", [](door& d) { d.out = small_out(d.momentum_memory.data() + 19); }, {"out overlaps momentum"}},
    {"out on initial weights", [](door& d) { d.out = small_out(d.initial_memory[1].data()); }, {"out overlaps initial_weights.w1"}},
    {"out on norms_of", [](door& d) { d.out = small_out(d.norms_memory[0].data()); }, {"out overlaps norms_of.w0"}},
    {"out on weights", [](door& d) { d.out = small_out(d.w1_memory.data() + 95); }, {"out overlaps weights.w1"}},
    {"out on velocity", [](door& d) { d.out = small_out(d.m2_memory.data()); }, {"out overlaps velocity.w2"}},
    {"weights on k", [](door& d) { d.o.weights.w0 = small_w0(d.k_memory.data()); }, {"weights.w0 overlaps k"}},
    {"weights on initial weights", [](door& d) { d.o.weights.w1 = small_w1(d.initial_memory[1].data() + 95); }, {"weights.w1 overlaps initial_weights.w1"}},
    {"weights on other weights", [](door& d) { d.o.weights.w2 = small_w0(d.w0_memory.data() + 71); }, {"weights.w0 overlaps weights.w2"}},
    {"velocity on weights", [](door& d) { d.o.velocity.w1 = small_w1(d.w1_memory.data()); }, {"weights.w1 overlaps velocity.w1"}},
    {"velocity on norms_of", [](door& d) { d.o.velocity.w1 = small_w1(d.norms_memory[2].data()); }, {"velocity.w1 overlaps norms_of.w2"}},
    {"velocity on momentum", [](door& d) { d.o.velocity.w0 = small_w0(d.momentum_memory.data()); }, {"velocity.w0 overlaps momentum"}},
};
const std::vector<refusal<linear_door>> of_linear = {
    {"w's rows", [](linear_door& d) { d.options.weights.w = resized(d.options.weights.w, 2, 3); }, {"weights.w's number of rows is 3, but v's head size is 4"}},
    {"w's columns", [](linear_door& d) { d.options.initial_weights.w = resized(d.options.initial_weights.w, 3, 4); }, {"initial_weights.w's number of columns is 4, but k's head size is 3"}},
    {"no rate", [](linear_door& d) { d.of_linear.rate.w = {}; }, {"rate.w's batch is 0, but v's is 2"}},
    {"no weights", [](linear_door& d) { d.options.weights.w = {}, d.options.initial_weights.w = {}; }, {"neither weights.w nor initial_weights.w is given"}},
};
// clang-format on

} // namespace

TEST_CASE("test_time_training: what does not fit is refused, and nothing is written")
{
    CHECK_NOTHROW(door().call());
    CHECK_NOTHROW(linear_door().call());
    check_refusals("linear::test_time_training: ", of_swiglu);
    check_refusals("linear::test_time_training: ", of_linear);
}

TEST_CASE("test_time_training: packed sequences that do not fit are refused, and nothing is written")
{
    struct packed_refusal {
        std::vector<index> offsets;
        const char* message;
    };
    const door d;
    const auto packed = [&](const std::vector<index>& offsets, const sm::view<float, 3>& out) {
        linear::training_inputs<linear::swiglu_network, 2> in{.rate = {d.in.rate.w0[0], d.in.rate.w1[0], d.in.rate.w2[0]},
                                                              .momentum = d.in.momentum[0]};
        return message_of([&] {
            linear::test_time_training_packed<linear::swiglu_network, scalar>(d.q[0], d.k[0], d.v[0], in, out, {offsets.data(), {offsets.size()}},
                                                                              d.o);
        });
    };
    for (const packed_refusal& r : {packed_refusal{{1, 3, 5}, "cu_seqlens starts at 1, not at 0"},
                                    {{0, 6, 5}, "cu_seqlens decreases from 6 to 5"},
                                    {{0, 3, 4}, "cu_seqlens ends at 4, but v has length 5"},
                                    {{}, "cu_seqlens is empty"},
                                    {{0, 5}, "weights.w0's batch is 2, but the number of sequences is 1"}}) {
        check_message(r.message, packed(r.offsets, d.out[0]), {"linear::test_time_training_packed: ", r.message});
        CHECK(d.untouched());
    }
    const std::vector<index> offsets{0, 2, 5};
    CHECK(packed(offsets, resized(d.out[0], 0, 4)) == "linear::test_time_training_packed: out's length is 4, but v's is 5");
    auto* const on_offsets = reinterpret_cast<float*>(const_cast<index*>(offsets.data()));
    check_message("offsets", packed(offsets, {on_offsets, {5, 2, 4}, {0, 0, 0}}), {"out overlaps cu_seqlens"});
    CHECK(d.untouched());
}

} // namespace test_time_training_test
