// SPDX-License-Identifier: MIT
// What the doors of Monarch matrices refuse. They are the same for every instruction set: one stands for all.
#include "support/refusals.hpp"

#include <seqmix/conv/monarch_mixer.hpp>
#include <seqmix/conv/monarch_projection.hpp>

namespace monarch_test {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index; // POSIX has another in the global namespace
using scalar = sm::arch::scalar;

namespace {

/// A call that is right; each refusal makes one thing wrong. B 2, w1 [2, 3, 4], w2 [3, 5, 2].
struct door {
    std::vector<float> memory[3] = {minus_ones(16), minus_ones(24), minus_ones(30)};
    guarded<float> out_memory{30};
    sm::view<const float, 2> x{memory[0].data(), {2, 8}};
    sm::view<const float, 3> w1{memory[1].data(), {2, 3, 4}}, w2{memory[2].data(), {3, 5, 2}};
    sm::view<float, 2> out{out_memory.data(), {2, 15}};

    bool untouched() const { return all_untouched(out_memory) && all_minus_ones({&memory[0], &memory[1], &memory[2]}); }
};
struct monarch_door : door {
    void call() const { conv::monarch<scalar>(x, w1, w2, out); }
};
struct apply_door : door {
    void call() const { conv::apply(conv::monarch_matrix<scalar>(sm::view<const float, 3>(memory[1].data(), {2, 3, 4}), w2), x, out); }
};

sm::view<float, 2> small(float* data) { return {data, {2, 15}, {0, 0}}; }

// clang-format off
const std::vector<refusal<monarch_door>> of_monarch = {
    {"x null", [](monarch_door& d) { d.x = null(d.x); }, {"x is null, but its shape has 16 elements"}},
    {"w1 null", [](monarch_door& d) { d.w1 = null(d.w1); }, {"w1 is null, but its shape has 24 elements"}},
    {"w2 null", [](monarch_door& d) { d.w2 = null(d.w2); }, {"w2 is null, but its shape has 30 elements"}},
    {"out null", [](monarch_door& d) { d.out = null(d.out); }, {"out is null, but its shape has 30 elements"}},
    {"negative", [](monarch_door& d) { d.x = resized(d.x, 0, -2); }, {"x has a negative extent: -2"}},
    {"l r, k q", [](monarch_door& d) { d.w2 = resized(d.w2, 2, 1); }, {"the number of w2's inputs, l r, is 3, but that of w1's outputs, k q, is 6"}},
    {"inputs", [](monarch_door& d) { d.x = resized(d.x, 1, 7); }, {"x's number of inputs is 7, but the matrix's, k p, is 8"}},
    {"outputs", [](monarch_door& d) { d.out = resized(d.out, 1, 14); }, {"out's number of outputs is 14, but the matrix's, l s, is 15"}},
    {"batch", [](monarch_door& d) { d.out = resized(d.out, 0, 1); }, {"out's batch is 1, but x's is 2"}},
    {"out on x", [](monarch_door& d) { d.out = small(d.memory[0].data() + 15); }, {"out overlaps x"}},
    {"out on w1", [](monarch_door& d) { d.out = small(d.memory[1].data()); }, {"out overlaps w1"}},
    {"out on w2", [](monarch_door& d) { d.out = small(d.memory[2].data() + 29); }, {"out overlaps w2"}},
};
const std::vector<refusal<apply_door>> of_apply = {
    {"x null", [](apply_door& d) { d.x = null(d.x); }, {"x is null, but its shape has 16 elements"}},
    {"inputs", [](apply_door& d) { d.x = resized(d.x, 1, 9); }, {"x's number of inputs is 9, but the matrix's, k p, is 8"}},
    {"outputs", [](apply_door& d) { d.out = resized(d.out, 1, 0); }, {"out's number of outputs is 0, but the matrix's, l s, is 15"}},
    {"out on x", [](apply_door& d) { d.out = small(d.memory[0].data()); }, {"out overlaps x"}},
};// clang-format on

} // namespace

TEST_CASE("monarch: what does not fit is refused, and nothing is written")
{
    CHECK_NOTHROW(monarch_door().call());
    CHECK_NOTHROW(apply_door().call());
    check_refusals("conv::monarch: ", of_monarch);
    check_refusals("conv::apply: ", of_apply);
    const door d;
    CHECK(message_of([&] { conv::monarch_matrix<scalar>(d.w1, resized(d.w2, 0, 2)); }) ==
          "conv::monarch_matrix: the number of w2's inputs, l r, is 4, but that of w1's outputs, k q, is 6");
    const conv::monarch_matrix<scalar> matrix(d.w1, d.w2);
    const sm::view<const float, 3> blocks(d.x.data(), {2, 4, 2});
    const sm::view<float, 3> rows(d.out.data(), {2, 5, 3});
    CHECK(message_of([&] { conv::apply(matrix, blocks, rows); }) == "conv::apply: x's number of blocks is 4, but the matrix's, k, is 2");
    CHECK(d.untouched());
}

TEST_CASE("monarch: projections, transforms and mixers that do not fit are refused, and nothing is written")
{
    guarded<float> first(24), second(30);
    const sm::view<float, 3> w1(first.data(), {2, 3, 4}), w2(second.data(), {3, 5, 2});
    const std::vector<float> numbers = minus_ones(120);
    const sm::view<const float, 2> dense(numbers.data(), {15, 8});
    const auto project = [&](const auto& d, const auto& a, const auto& b) { return message_of([&] { conv::project_monarch(d, a, b); }); };
    CHECK(project(resized(dense, 0, 14), w1, w2) == "conv::project_monarch: dense's number of rows is 14, but w2's l s is 15");
    CHECK(project(resized(dense, 1, 7), w1, w2) == "conv::project_monarch: dense's number of columns is 7, but w1's k p is 8");
    CHECK(project(dense, w1, resized(w2, 2, 1)).find("l r, is 3, but that of w1's outputs, k q, is 6") != std::string::npos);
    CHECK(project(dense, null(w1), w2) == "conv::project_monarch: w1 is null, but its shape has 24 elements");
    CHECK(project(dense, w1, sm::view<float, 3>(first.data() + 23, {3, 5, 2}, {0, 0, 0})).find("w1 overlaps w2") != std::string::npos);

    const auto transform = [&](const auto& a, const auto& b) { return message_of([&] { conv::dft_monarch(a, b); }); };
    CHECK(transform(w1, w2) == "conv::dft_monarch: w1's number of rows is 3, but twice w2's number of blocks is 6");
    CHECK(transform(sm::view<float, 3>(first.data(), {2, 4, 3}), sm::view<float, 3>(second.data(), {2, 5, 3})) ==
          "conv::dft_monarch: w2's number of columns is 3, but twice w1's number of blocks is 4");
    CHECK(transform(sm::view<float, 3>(first.data(), {1, 4, 5}), sm::view<float, 3>(second.data(), {2, 2, 2})) ==
          "conv::dft_monarch: w1's number of columns is 5, but at most 4 is meant");
    CHECK(transform(sm::view<float, 3>(first.data(), {1, 4, 4}), sm::view<float, 3>(second.data(), {2, 3, 2})) ==
          "conv::dft_monarch: w2's number of rows is 3, but at most 2 is meant");
    CHECK(all_untouched(first));
    CHECK(all_untouched(second));

    const door d;
    const conv::monarch_matrix<scalar> matrix(d.w1, d.w2); // 8 to 15
    guarded<float> out(240);
    const sm::view<float, 3> to(out.data(), {2, 1, 15});
    const sm::view<const float, 3> x(numbers.data(), {2, 1, 8});
    const sm::view<const float, 2> kernel(numbers.data(), {1, 15});
    CHECK(message_of([&] { conv::mix_sequence(x, matrix, kernel, matrix, to); }) ==
          "conv::mix_sequence: the second matrix's number of inputs is 8, but the first one's of outputs is 15");
    CHECK(message_of([&] { conv::mix_channels(x[0], matrix, conv::activation::relu, matrix, to[0]); }) ==
          "conv::mix_channels: the second matrix's number of inputs is 8, but the first one's of outputs is 15");
    const std::vector<float> square = minus_ones(64);
    const sm::view<const float, 3> s(square.data(), {4, 4, 4});
    const conv::monarch_matrix<scalar> same(s, s);
    const sm::view<const float, 3> x16(numbers.data(), {1, 3, 16});
    const sm::view<const float, 2> k16(numbers.data(), {3, 16});
    const sm::view<float, 3> out16(out.data(), {1, 3, 16});
    CHECK(message_of([&] { conv::mix_sequence(x16, same, resized(k16, 0, 2), same, out16); }) ==
          "conv::mix_sequence: kernel's number of channels is 2, but x's is 3");
    CHECK(message_of([&] { conv::mix_sequence(x16, same, resized(k16, 1, 15), same, out16); }).find("kernel's length is 15, but the first matrix's") !=
          std::string::npos);
    CHECK(message_of([&] { conv::mix_sequence(resized(x16, 2, 15), same, k16, same, out16); }).find("x's length is 15, but the first matrix's") !=
          std::string::npos);
    CHECK(message_of([&] { conv::mix_sequence(x16, same, k16, same, resized(out16, 2, 1)); }).find("out's length is 1, but the second matrix's") !=
          std::string::npos);
    CHECK(all_untouched(out));
}

} // namespace monarch_test
