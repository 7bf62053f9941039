// SPDX-License-Identifier: MIT
// What matrices in stored formats, their decoder and their encoders refuse.
#include "support/refusals.hpp"

#include <seqmix/quant.hpp>

namespace quant_refusals_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using sm::index;

namespace {

constexpr index huge = std::numeric_limits<index>::max();

// A call that is right; each refusal makes one thing wrong.

struct gguf_call {
    guarded<unsigned char> memory{2 * 144};
    const void* bytes = memory.data();
    index byte_count = 288, rows = 2, columns = 256;

    void call() const { gguf::matrix<gguf::q4_k>(bytes, byte_count, rows, columns); }
    bool untouched() const { return all_untouched(memory); }
};

/// 6 x 40 in groups of 16, with zero points.
struct array_call {
    using format = quant::unsigned_integer<4, float>;
    std::vector<std::uint8_t> code_memory = std::vector<std::uint8_t>(120, 0x77), zero_memory = std::vector<std::uint8_t>(18, 15);
    std::vector<float> scale_memory = minus_ones(18);
    sm::view<const std::uint8_t, 2> codes{code_memory.data(), {6, 20}};
    sm::view<const float, 2> scales{scale_memory.data(), {6, 3}};
    quant::array_options<format> options{.tile = quant::per_group(16), .zeros = {zero_memory.data(), {6, 3}}};

    void call() const { quant::uint4_matrix<>(codes, scales, options); }
    bool untouched() const { return all_minus_ones({&scale_memory}); }
};

/// 16 x 64 in groups of 32.
struct gptq_call {
    std::vector<std::int32_t> words = std::vector<std::int32_t>(8 * 16), zero_words = std::vector<std::int32_t>(4),
                              groups = std::vector<std::int32_t>(64, 1);
    std::vector<sm::f16> scale_memory = std::vector<sm::f16>(32);
    sm::view<const std::int32_t, 2> qweight{words.data(), {8, 16}}, qzeros{zero_words.data(), {2, 2}};
    sm::view<const sm::f16, 2> scales{scale_memory.data(), {2, 16}};
    quant::gptq_options options{.group = 32};

    void call() const { quant::gptq_matrix<4>(qweight, qzeros, scales, options); }
    bool untouched() const { return true; }
};
struct awq_call {
    std::vector<std::int32_t> words = std::vector<std::int32_t>(64 * 2), zero_words = std::vector<std::int32_t>(4);
    std::vector<sm::f16> scale_memory = std::vector<sm::f16>(32);
    sm::view<const std::int32_t, 2> qweight{words.data(), {64, 2}}, qzeros{zero_words.data(), {2, 2}};
    sm::view<const sm::f16, 2> scales{scale_memory.data(), {2, 16}};
    index group = 32;

    void call() const { quant::awq_matrix<>(qweight, qzeros, scales, group); }
    bool untouched() const { return true; }
};

struct decode_call {
    std::vector<unsigned char> stored = std::vector<unsigned char>(68);
    guarded<float> memory{64};
    sm::view<float, 2> out{memory.data(), {2, 32}};

    void call() const { quant::decode(gguf::matrix<gguf::q8_0>(stored.data(), 68, 2, 32), out); }
    bool untouched() const { return all_untouched(memory); }
};

struct encode_call {
    std::vector<float> weight_memory = minus_ones(64);
    guarded<unsigned char> memory{36};
    sm::view<const float, 2> weights{weight_memory.data(), {2, 32}};
    void* bytes = memory.data();
    index byte_count = 36;

    void call() const { quant::encode<gguf::q4_0>(weights, bytes, byte_count); }
    bool untouched() const { return all_untouched(memory); }
};

struct encode_array_call {
    using format = quant::signed_integer<8, float, true>;
    std::vector<float> weight_memory = minus_ones(64);
    guarded<std::int8_t> code_memory{64}, zero_memory{4};
    guarded<float> scale_memory{4};
    sm::view<const float, 2> weights{weight_memory.data(), {2, 32}};
    sm::view<std::int8_t, 2> codes{code_memory.data(), {2, 32}};
    sm::view<float, 2> scales{scale_memory.data(), {2, 2}};
    quant::encode_options<format> options{.tile = quant::per_group(16), .zeros = {zero_memory.data(), {2, 2}}};

    void call() const { quant::encode<format>(weights, codes, scales, options); }
    bool untouched() const { return all_untouched(code_memory) && all_untouched(zero_memory) && all_untouched(scale_memory); }
};

/// 3 x 64 times 20 x 64, with everything.
struct matmul_call {
    std::vector<unsigned char> stored = std::vector<unsigned char>(20 * 36);
    quant::packed_matrix<gguf::q4_0> w = quant::pack(gguf::matrix<gguf::q4_0>(stored.data(), 20 * 36, 20, 64));
    std::vector<float> x_memory = minus_ones(3 * 64), bias_memory = minus_ones(20), residual_memory = minus_ones(60);
    guarded<float> memory{60};
    sm::view<const float, 2> x{x_memory.data(), {3, 64}};
    sm::view<float, 2> out{memory.data(), {3, 20}};
    quant::options options{.bias = {bias_memory.data(), {20}}, .residual = {residual_memory.data(), {3, 20}}};

    void call() const { quant::matmul(x, w, out, options); }
    bool untouched() const { return all_untouched(memory); }
};

/// The same with two matrices, whose columns stand in an order.
struct gated_call {
    static quant::permuted_matrix<quant::int4_matrix<>> stored(std::vector<std::int32_t> order, index rows)
    {
        static const std::vector<std::uint8_t> codes(24 * 32);
        static const std::vector<float> scales(24 * 4);
        const index columns = static_cast<index>(order.size()), groups = columns == 64 ? 2 : 4;
        return {quant::int4_matrix<>({codes.data(), {rows, columns / 2}}, {scales.data(), {rows, groups}}, {.tile = quant::per_group(columns / groups)}),
                {order.data(), {columns}}};
    }
    static std::vector<std::int32_t> in_order(index columns, std::size_t swapped)
    {
        std::vector<std::int32_t> order(static_cast<std::size_t>(columns));
        for (std::size_t i = 0; i < order.size(); ++i) { order[i] = static_cast<std::int32_t>(i); }
        std::swap(order[0], order[swapped]);
        return order;
    }
    using weights = quant::packed_matrix<quant::int4_matrix<>::format>;
    weights gate = quant::pack(stored(in_order(64, 1), 20)), up = quant::pack(stored(in_order(64, 1), 20));
    std::vector<float> x_memory = minus_ones(3 * 64), bias_memory = minus_ones(20), residual_memory = minus_ones(60);
    guarded<float> memory{60};
    sm::view<const float, 2> x{x_memory.data(), {3, 64}};
    sm::view<float, 2> out{memory.data(), {3, 20}};
    quant::gated_options options{.gate_bias = {bias_memory.data(), {20}}, .up_bias = {bias_memory.data(), {20}}, .residual = {residual_memory.data(), {3, 20}}};

    void call() const { quant::gated_matmul(x, gate, up, out, options); }
    bool untouched() const { return all_untouched(memory); }
};

/// Five rows of 3 x 64 to three experts of 20 x 64, gated or not.
struct expert_call {
    bool gated = false;
    std::vector<gated_call::weights> gate, up;
    std::vector<std::int32_t> count_memory = {2, 0, 3}, row_memory = {0, 2, 1, 0, 2};
    std::vector<float> x_memory = minus_ones(3 * 64), bias_memory = minus_ones(60), residual_memory = minus_ones(100);
    guarded<float> memory{100};
    sm::view<const float, 2> x{x_memory.data(), {3, 64}};
    sm::view<float, 2> out{memory.data(), {5, 20}};
    quant::expert_rows which{{count_memory.data(), {3}}, {row_memory.data(), {5}}};
    sm::view<const float, 2> bias{bias_memory.data(), {3, 20}}, up_bias{bias_memory.data(), {3, 20}}, residual{residual_memory.data(), {5, 20}};

    expert_call()
    {
        for (std::size_t e = 1; e < 4; ++e) { // each an order of its own
            gate.push_back(quant::pack(gated_call::stored(gated_call::in_order(64, e), 20)));
            up.push_back(quant::pack(gated_call::stored(gated_call::in_order(64, e), 20)));
        }
    }
    void call() const
    {
        if (gated) {
            quant::gated_expert_matmul(x, gate, up, which, out, {.gate_bias = bias, .up_bias = up_bias, .residual = residual});
        } else {
            quant::expert_matmul(x, gate, which, out, {.bias = bias, .residual = residual});
        }
    }
    bool untouched() const { return all_untouched(memory); }
};

/// Bytes to bytes: 3 x 64 times 20 x 64.
struct bytes_call {
    gated_call::weights w = quant::pack(gated_call::stored(gated_call::in_order(64, 1), 20));
    std::vector<std::int8_t> x_memory = std::vector<std::int8_t>(3 * 64, 1), zero_memory = std::vector<std::int8_t>(20, 1);
    std::vector<float> scale_memory = minus_ones(20);
    guarded<std::int8_t> memory{60};
    sm::view<const std::int8_t, 2> x{x_memory.data(), {3, 64}};
    sm::view<std::int8_t, 2> out{memory.data(), {3, 20}};
    quant::options options{.compute = quant::compute::int8, .x_scale = {scale_memory.data(), {3}}, .out_scale = {scale_memory.data(), {20}},
                           .out_zero_point = {zero_memory.data(), {20}}};

    void call() const { quant::matmul(x, w, out, options); }
    bool untouched() const { return all_untouched(memory); }
};

struct sort_call {
    std::vector<std::int32_t> chosen_memory = {2, 0, 1, -1, 0, 2};
    guarded<std::int32_t> count_memory{3}, row_memory{6}, place_memory{6};
    sm::view<const std::int32_t, 2> chosen{chosen_memory.data(), {3, 2}};
    sm::view<std::int32_t, 1> counts{count_memory.data(), {3}}, rows{row_memory.data(), {6}};
    sm::view<std::int32_t, 2> places{place_memory.data(), {3, 2}};

    void call() const { quant::sort_by_expert(chosen, counts, rows, places); }
    bool untouched() const { return all_untouched(count_memory) && all_untouched(row_memory) && all_untouched(place_memory); }
};

struct combine_call {
    std::vector<std::int32_t> place_memory = {4, 0, 1, -1, 3, 2};
    std::vector<float> y_memory = minus_ones(5 * 7), weight_memory = minus_ones(6), residual_memory = minus_ones(21);
    guarded<float> memory{21};
    sm::view<const float, 2> y{y_memory.data(), {5, 7}}, weights{weight_memory.data(), {3, 2}}, residual{residual_memory.data(), {3, 7}};
    sm::view<const std::int32_t, 2> places{place_memory.data(), {3, 2}};
    sm::view<float, 2> out{memory.data(), {3, 7}};

    void call() const { quant::combine_experts(y, places, weights, out, residual); }
    bool untouched() const { return all_untouched(memory); }
};

// clang-format off
const std::vector<refusal<gguf_call>> of_gguf = {
    {"null", [](gguf_call& c) { c.bytes = nullptr; }, {"bytes is null, but byte_count is 288"}},
    {"a byte less", [](gguf_call& c) { c.byte_count = 287; }, {"byte_count is 287, but what rows, columns and the format ask for is 288"}},
    {"a byte more", [](gguf_call& c) { c.byte_count = 289; }, {"byte_count is 289", "288"}},
    {"rows", [](gguf_call& c) { c.rows = -2; }, {"rows is negative: -2"}},
    {"columns", [](gguf_call& c) { c.columns = -256; }, {"columns is negative: -256"}},
    {"block", [](gguf_call& c) { c.columns = 255; }, {"columns is 255, which is no multiple of the block's 256"}},
    {"many rows", [](gguf_call& c) { c.rows = huge / 143; }, {"rows is too large"}},
};
const std::vector<refusal<array_call>> of_arrays = {
    {"codes null", [](array_call& c) { c.codes = null(c.codes); }, {"codes is null, but its shape has 120 elements"}},
    {"scales null", [](array_call& c) { c.scales = null(c.scales); }, {"scales is null, but its shape has 18 elements"}},
    {"negative", [](array_call& c) { c.codes = resized(c.codes, 0, -6); }, {"codes has a negative extent: -6"}},
    {"rows of scales", [](array_call& c) { c.scales = resized(c.scales, 0, 5); }, {"scales's tiles of rows is 5, but the number that rows and tile ask for is 6"}},
    {"groups", [](array_call& c) { c.scales = resized(c.scales, 1, 2); }, {"scales's tiles of columns is 2, but the number that columns and tile ask for is 3"}},
    {"columns", [](array_call& c) { c.options.columns = 41; }, {"codes' bytes a row is 20, but what columns ask for is 21"}},
    {"fewer columns", [](array_call& c) { c.options.columns = 38; }, {"codes' bytes a row is 20, but what columns ask for is 19"}},
    {"huge", [](array_call& c) { c.options.columns = huge; }, {"columns is too large"}},
    {"tile's rows", [](array_call& c) { c.options.tile.rows = -1; }, {"tile's rows is negative: -1"}},
    {"tile's columns", [](array_call& c) { c.options.tile.columns = -16; }, {"tile's columns is negative: -16"}},
    {"bits", [](array_call& c) { c.options.stored_bits = 5; }, {"stored_bits is 5, but must be 4 or 8"}},
    {"stride", [](array_call& c) { c.codes = {c.codes.data(), {6, 10}, {20, 2}}; c.options.columns = 20; c.scales = resized(c.scales, 1, 2); }, {"codes' bytes of a row have stride 2, but must have 1"}},
    {"zeros' shape", [](array_call& c) { c.options.zeros = resized(c.options.zeros, 1, 2); }, {"zeros's tiles of columns is 2", "3"}},
    {"a zero", [](array_call& c) { c.zero_memory[17] = 16; }, {"zeros has a 16, which is outside 0 to 15"}},
    {"matrix_scale", [](array_call& c) { c.options.matrix_scale = 2.0f; }, {"matrix_scale is 2", "the format has none"}},
};
const std::vector<refusal<gptq_call>> of_gptq = {
    {"qweight null", [](gptq_call& c) { c.qweight = null(c.qweight); }, {"qweight is null, but its shape has 128 elements"}},
    {"scales null", [](gptq_call& c) { c.scales = null(c.scales); }, {"scales is null, but its shape has 32 elements"}},
    {"rows", [](gptq_call& c) { c.scales = resized(c.scales, 1, 15); }, {"scales's number of rows is 15, but qweight's is 16"}},
    {"groups", [](gptq_call& c) { c.options.group = 16; }, {"scales' number of groups is 2, but what columns and group ask for is 4"}},
    {"negative group", [](gptq_call& c) { c.options.group = -1; }, {"group is negative: -1"}},
    {"zeros' groups", [](gptq_call& c) { c.qzeros = resized(c.qzeros, 0, 1); }, {"qzeros's number of groups is 1, but scales' is 2"}},
    {"zeros' words", [](gptq_call& c) { c.qzeros = resized(c.qzeros, 1, 1); }, {"qzeros's number of words is 1, but what rows ask for is 2"}},
    {"length", [](gptq_call& c) { c.options.g_idx = {c.groups.data(), {63}}; }, {"g_idx's length is 63, but the number of columns is 64"}},
    {"group too large", [](gptq_call& c) { c.groups[63] = 2; c.options.g_idx = {c.groups.data(), {64}}; }, {"g_idx has group 2, but scales has 2 groups"}},
    {"group below 0", [](gptq_call& c) { c.groups[0] = -1; c.options.g_idx = {c.groups.data(), {64}}; }, {"g_idx has group -1, but scales has 2 groups"}},
};
const std::vector<refusal<awq_call>> of_awq = {
    {"qweight null", [](awq_call& c) { c.qweight = null(c.qweight); }, {"qweight is null, but its shape has 128 elements"}},
    {"qzeros null", [](awq_call& c) { c.qzeros = null(c.qzeros); }, {"qzeros is null, but its shape has 4 elements"}},
    {"scales null", [](awq_call& c) { c.scales = null(c.scales); }, {"scales is null, but its shape has 32 elements"}},
    {"rows", [](awq_call& c) { c.scales = resized(c.scales, 1, 8); }, {"scales's number of rows is 8, but qweight's is 16"}},
    {"groups", [](awq_call& c) { c.group = 64; }, {"scales's number of groups is 2, but what columns and group ask for is 1"}},
    {"zeros' groups", [](awq_call& c) { c.qzeros = resized(c.qzeros, 0, 3); }, {"qzeros's number of groups is 3", "2"}},
    {"zeros' words", [](awq_call& c) { c.qzeros = resized(c.qzeros, 1, 1); }, {"qzeros's number of words is 1, but qweight's is 2"}},
    {"negative group", [](awq_call& c) { c.group = -1; }, {"group is negative: -1"}},
};
const std::vector<refusal<decode_call>> of_decode = {
    {"null", [](decode_call& c) { c.out = null(c.out); }, {"out is null, but its shape has 64 elements"}},
    {"rows", [](decode_call& c) { c.out = resized(c.out, 0, 1); }, {"out's number of rows is 1, but the matrix's is 2"}},
    {"columns", [](decode_call& c) { c.out = resized(c.out, 1, 31); }, {"out's number of columns is 31, but the matrix's is 32"}},
    {"in place", [](decode_call& c) { c.out = {reinterpret_cast<float*>(c.stored.data()), {2, 32}, {0, 0}}; }, {"out overlaps bytes"}},
};
const std::vector<refusal<encode_call>> of_encode = {
    {"weights null", [](encode_call& c) { c.weights = null(c.weights); }, {"weights is null, but its shape has 64 elements"}},
    {"bytes null", [](encode_call& c) { c.bytes = nullptr; }, {"bytes is null, but byte_count is 36"}},
    {"a byte less", [](encode_call& c) { c.byte_count = 35; }, {"byte_count is 35, but what rows, columns and the format ask for is 36"}},
    {"block", [](encode_call& c) { c.weights = resized(c.weights, 1, 31); }, {"columns is 31, which is no multiple of the block's 32"}},
    {"infinite", [](encode_call& c) { c.weight_memory[63] = -HUGE_VALF; }, {"weights has -inf at row 1, column 31"}},
    {"NaN", [](encode_call& c) { c.weight_memory[32] = std::nanf(""); }, {"nan at row 1, column 0"}},
    {"in place", [](encode_call& c) { c.bytes = c.weight_memory.data(); }, {"bytes overlaps weights"}},
};
const std::vector<refusal<encode_array_call>> of_encode_arrays = {
    {"weights null", [](encode_array_call& c) { c.weights = null(c.weights); }, {"weights is null"}},
    {"codes null", [](encode_array_call& c) { c.codes = null(c.codes); }, {"codes is null"}},
    {"zeros null", [](encode_array_call& c) { c.options.zeros = {}; }, {"zeros is null, but the format has zero points"}},
    {"zeros' shape", [](encode_array_call& c) { c.options.zeros = resized(c.options.zeros, 0, 1); }, {"zeros's tiles of rows is 1", "2"}},
    {"scales' shape", [](encode_array_call& c) { c.scales = resized(c.scales, 1, 1); }, {"scales's tiles of columns is 1", "2"}},
    {"rows", [](encode_array_call& c) { c.weights = resized(c.weights, 0, 1); }, {"codes's number of rows is 2, but weights' is 1"}},
    {"columns", [](encode_array_call& c) { c.weights = resized(c.weights, 1, 31); }, {"codes' bytes a row is 32, but what columns ask for is 31"}},
    {"matrix_scale", [](encode_array_call& c) { c.options.matrix_scale = 2.0f; }, {"matrix_scale is 2", "the format has none"}},
    {"matrix_scale NaN", [](encode_array_call& c) { c.options.matrix_scale = std::nanf(""); }, {"matrix_scale is nan, but must be positive"}},
    {"infinite", [](encode_array_call& c) { c.weight_memory[33] = HUGE_VALF; }, {"weights has inf at row 1, column 1"}},
    {"in place", [](encode_array_call& c) { c.codes = {reinterpret_cast<std::int8_t*>(c.weight_memory.data()), {2, 32}}; }, {"codes overlaps weights"}},
    {"scales on codes", [](encode_array_call& c) { c.codes = {reinterpret_cast<std::int8_t*>(c.scale_memory.data()), {2, 32}, {0, 1}}; }, {"codes overlaps scales"}},
};
const std::vector<refusal<matmul_call>> of_matmul = {
    {"x null", [](matmul_call& c) { c.x = null(c.x); }, {"x is null, but its shape has 192 elements"}},
    {"out null", [](matmul_call& c) { c.out = null(c.out); }, {"out is null, but its shape has 60 elements"}},
    {"depth", [](matmul_call& c) { c.x = resized(c.x, 1, 32); }, {"x's number of columns is 32, but the weights' is 64"}},
    {"rows", [](matmul_call& c) { c.out = resized(c.out, 0, 2); }, {"out's number of rows is 2, but x's is 3"}},
    {"columns", [](matmul_call& c) { c.out = resized(c.out, 1, 19); }, {"out's number of columns is 19, but the weights' number of rows is 20"}},
    {"bias", [](matmul_call& c) { c.options.bias = resized(c.options.bias, 0, 3); }, {"bias's length is 3, but the weights' number of rows is 20"}},
    {"residual's rows", [](matmul_call& c) { c.options.residual = resized(c.options.residual, 0, 1); }, {"residual's number of rows is 1, but x's is 3"}},
    {"residual's columns", [](matmul_call& c) { c.options.residual = resized(c.options.residual, 1, 1); }, {"residual's number of columns is 1", "20"}},
    {"over x", [](matmul_call& c) { c.out = {c.x_memory.data() + 60, {3, 20}}; }, {"out overlaps x"}},
    {"over bias", [](matmul_call& c) { c.out = {c.bias_memory.data(), {3, 20}, {0, 1}}; }, {"out overlaps bias"}},
    {"beside residual", [](matmul_call& c) { c.out = {c.residual_memory.data(), {3, 20}, {0, 1}}; }, {"out overlaps residual"}},
    {"over the weights", [](matmul_call& c) { c.out = {reinterpret_cast<float*>(c.w.panel(1)), {3, 20}, {0, 1}}; }, {"out overlaps the weights"}},
    {"scale of x", [](matmul_call& c) { c.options.x_scale = {c.bias_memory.data(), {1}}; }, {"x_scale is given, but x holds no bytes"}},
    {"scale of out", [](matmul_call& c) { c.options.out_scale = {c.bias_memory.data(), {1}}; }, {"out_scale is given, but out holds no bytes"}},
};
const std::vector<refusal<gated_call>> of_gated = {
    {"depth", [](gated_call& c) { c.x = resized(c.x, 1, 32); }, {"x's number of columns is 32, but gate's is 64"}},
    {"columns", [](gated_call& c) { c.out = resized(c.out, 1, 19); }, {"out's number of columns is 19, but gate's number of rows is 20"}},
    {"up's rows", [](gated_call& c) { c.up = quant::pack(c.stored(c.in_order(64, 1), 24)); }, {"up's number of rows is 24, but gate's is 20"}},
    {"up's columns", [](gated_call& c) { c.up = quant::pack(c.stored(c.in_order(128, 1), 6)); c.gate = quant::pack(c.stored(c.in_order(64, 1), 6)); c.out = resized(c.out, 1, 6); }, {"up's number of columns is 128, but gate's is 64"}},
    {"up's group", [](gated_call& c) { static const std::vector<std::uint8_t> codes(20 * 32); static const std::vector<float> scales(80); c.up = quant::pack(quant::int4_matrix<>({codes.data(), {20, 32}}, {scales.data(), {20, 4}}, {.tile = quant::per_group(16)})); }, {"up's group is 16, but gate's is 32"}},
    {"up's order", [](gated_call& c) { c.up = quant::pack(c.stored(c.in_order(64, 2), 20)); }, {"up's order of columns is another than gate's"}},
    {"no order", [](gated_call& c) { static const std::vector<std::uint8_t> codes(20 * 32); static const std::vector<float> scales(40); c.up = quant::pack(quant::int4_matrix<>({codes.data(), {20, 32}}, {scales.data(), {20, 2}}, {.tile = quant::per_group(32)})); }, {"up's columns have no order, but gate's have one"}},
    {"gate_bias", [](gated_call& c) { c.options.gate_bias = resized(c.options.gate_bias, 0, 3); }, {"gate_bias's length is 3, but gate's number of rows is 20"}},
    {"up_bias", [](gated_call& c) { c.options.up_bias = resized(c.options.up_bias, 0, 3); }, {"up_bias's length is 3, but gate's number of rows is 20"}},
    {"over up", [](gated_call& c) { c.out = {reinterpret_cast<float*>(c.up.panel(1)), {3, 20}, {0, 1}}; }, {"out overlaps up"}},
    {"over gate", [](gated_call& c) { c.out = {reinterpret_cast<float*>(c.gate.panel(1)), {3, 20}, {0, 1}}; }, {"out overlaps gate"}},
    {"over x", [](gated_call& c) { c.out = {c.x_memory.data() + 60, {3, 20}}; }, {"out overlaps x"}},
    {"residual", [](gated_call& c) { c.options.residual = resized(c.options.residual, 0, 2); }, {"residual's number of rows is 2, but x's is 3"}},
};
const std::vector<refusal<expert_call>> of_experts = {
    {"experts", [](expert_call& c) { c.gate.pop_back(), c.up.pop_back(); }, {"counts's length is 3, but the number of experts is 2"}},
    {"counts null", [](expert_call& c) { c.which.counts = null(c.which.counts); }, {"counts is null, but its shape has 3 elements"}},
    {"negative", [](expert_call& c) { c.count_memory = {3, -1, 3}; c.which.counts = {c.count_memory.data(), {3}}; }, {"counts has -1 at 1, but no group has fewer rows than 0"}},
    {"sum", [](expert_call& c) { c.count_memory[1] = 1; }, {"counts' sum is 6, but rows' length is 5"}},
    {"sum of rows of x", [](expert_call& c) { c.which.rows = {}; c.out = resized(c.out, 0, 3); c.residual = resized(c.residual, 0, 3); }, {"counts' sum is 5, but x's number of rows is 3"}},
    {"row", [](expert_call& c) { c.row_memory[4] = 3; }, {"rows has 3 at 4, but x has 3 rows"}},
    {"row below 0", [](expert_call& c) { c.row_memory[0] = -1; }, {"rows has -1 at 0, but x has 3 rows"}},
    {"rows of out", [](expert_call& c) { c.out = resized(c.out, 0, 3); }, {"out's number of rows is 3, but rows' length is 5"}},
    {"columns of out", [](expert_call& c) { c.out = resized(c.out, 1, 19); }, {"out's number of columns is 19", "number of rows is 20"}},
    {"depth", [](expert_call& c) { c.x = resized(c.x, 1, 63); }, {"x's number of columns is 63", "is 64"}},
    {"shape of one", [](expert_call& c) { c.gate[2] = quant::pack(gated_call::stored(gated_call::in_order(64, 1), 24)); }, {"expert 2: ", "number of rows is 24, but the first expert's is 20"}},
    {"bias's experts", [](expert_call& c) { c.bias = resized(c.bias, 0, 2); }, {"bias's number of rows is 2, but the number of experts is 3"}},
    {"bias's columns", [](expert_call& c) { c.bias = resized(c.bias, 1, 19); }, {"bias's number of columns is 19", "number of rows is 20"}},
    {"residual", [](expert_call& c) { c.residual = resized(c.residual, 0, 3); }, {"residual's number of rows is 3, but rows' length is 5"}},
    {"over an expert", [](expert_call& c) { c.out = {reinterpret_cast<float*>(c.gate[1].panel(1)), {5, 20}, {0, 1}}; }, {"expert 1: out overlaps"}},
    {"over rows", [](expert_call& c) { c.out = {reinterpret_cast<float*>(c.row_memory.data()), {5, 20}, {0, 0}}; }, {"out overlaps rows"}},
    {"over counts", [](expert_call& c) { c.out = {reinterpret_cast<float*>(c.count_memory.data()), {5, 20}, {0, 0}}; }, {"out overlaps counts"}},
};
const std::vector<refusal<expert_call>> of_gated_experts = {
    {"experts", [](expert_call& c) { c.gated = true; c.up.pop_back(); }, {"up's number of experts is 2, but gate's is 3"}},
    {"shape of up", [](expert_call& c) { c.gated = true; c.up[1] = quant::pack(gated_call::stored(gated_call::in_order(64, 2), 24)); }, {"expert 1: up's number of rows is 24, but the first expert's is 20"}},
    {"order", [](expert_call& c) { c.gated = true; std::swap(c.up[0], c.up[1]); }, {"expert 0: up's order of columns is another than gate's"}},
    {"up_bias", [](expert_call& c) { c.gated = true; c.up_bias = resized(c.up_bias, 0, 2); }, {"up_bias's number of rows is 2, but the number of experts is 3"}},
};
const std::vector<refusal<bytes_call>> of_bytes = {
    {"no scale of x", [](bytes_call& c) { c.options.x_scale = {}; }, {"x holds bytes, but x_scale is null"}},
    {"length of x_scale", [](bytes_call& c) { c.options.x_scale = resized(c.options.x_scale, 0, 2); }, {"x_scale's length is 2, but x's number of rows is 3"}},
    {"floats", [](bytes_call& c) { c.options.compute = quant::compute::floats; }, {"x holds bytes, but compute is not int8"}},
    {"blocks", [](bytes_call& c) { c.options.scales = quant::activation_scales::blocks; }, {"x holds bytes, which have a scale a row, but scales is blocks"}},
    {"no scale of out", [](bytes_call& c) { c.options.out_scale = {}; c.options.out_zero_point = {}; }, {"out holds bytes, but out_scale is null"}},
    {"length of out_scale", [](bytes_call& c) { c.options.out_scale = resized(c.options.out_scale, 0, 3); }, {"out_scale's length is 3, but out's number of columns is 20"}},
    {"length of zeros", [](bytes_call& c) { c.options.out_zero_point = resized(c.options.out_zero_point, 0, 1); }, {"out_zero_point's length is 1, but out_scale's is 20"}},
    {"zeros alone", [](bytes_call& c) { c.options.out_scale = {}; }, {"out_zero_point is given, but out_scale is not"}},
    {"over scales", [](bytes_call& c) { c.out = {reinterpret_cast<std::int8_t*>(c.scale_memory.data()), {3, 20}}; }, {"out overlaps x_scale"}},
    {"over zeros", [](bytes_call& c) { c.out = {c.zero_memory.data(), {3, 20}, {0, 1}}; }, {"out overlaps out_zero_point"}},
    {"over x", [](bytes_call& c) { c.out = {c.x_memory.data(), {3, 20}}; }, {"out overlaps x"}},
};
const std::vector<refusal<sort_call>> of_sorting = {
    {"expert", [](sort_call& c) { c.chosen_memory[3] = 3; }, {"chosen has expert 3 at row 1, column 1, but counts has 3 experts"}},
    {"rows", [](sort_call& c) { c.rows = resized(c.rows, 0, 5); }, {"rows's length is 5, but chosen's number of elements is 6"}},
    {"places", [](sort_call& c) { c.places = resized(c.places, 1, 1); }, {"places's number of columns is 1, but chosen's is 2"}},
    {"places' rows", [](sort_call& c) { c.places = resized(c.places, 0, 2); }, {"places's number of rows is 2, but chosen's is 3"}},
    {"null", [](sort_call& c) { c.places = null(c.places); }, {"places is null, but its shape has 6 elements"}},
    {"in place", [](sort_call& c) { c.places = {c.chosen_memory.data(), {3, 2}}; }, {"places overlaps chosen"}},
    {"counts over rows", [](sort_call& c) { c.counts = {c.row_memory.data() + 3, {3}}; }, {"counts overlaps rows"}},
};
const std::vector<refusal<combine_call>> of_combining = {
    {"place", [](combine_call& c) { c.place_memory[4] = 5; }, {"places has 5 at row 2, column 0, but y has 5 rows"}},
    {"weights", [](combine_call& c) { c.weights = resized(c.weights, 1, 1); }, {"weights's number of columns is 1, but places' is 2"}},
    {"weights' rows", [](combine_call& c) { c.weights = resized(c.weights, 0, 2); }, {"weights's number of rows is 2, but places' is 3"}},
    {"out's rows", [](combine_call& c) { c.out = resized(c.out, 0, 2); }, {"out's number of rows is 2, but places' is 3"}},
    {"out's columns", [](combine_call& c) { c.out = resized(c.out, 1, 6); }, {"out's number of columns is 6, but y's is 7"}},
    {"residual", [](combine_call& c) { c.residual = resized(c.residual, 1, 6); }, {"residual's number of columns is 6, but y's number of columns is 7"}},
    {"y null", [](combine_call& c) { c.y = null(c.y); }, {"y is null, but its shape has 35 elements"}},
    {"over y", [](combine_call& c) { c.out = {c.y_memory.data(), {3, 7}}; }, {"out overlaps y"}},
    {"over weights", [](combine_call& c) { c.out = {c.weight_memory.data(), {3, 7}, {0, 0}}; }, {"out overlaps weights"}},
};
// clang-format on

} // namespace

TEST_CASE("quant: matrices that do not fit are refused")
{
    check_refusals("quant::gguf::matrix: ", of_gguf);
    check_refusals("quant::array_matrix: ", of_arrays);
    check_refusals("quant::gptq_matrix: ", of_gptq);
    check_refusals("quant::awq_matrix: ", of_awq);
    gguf_call().call(), array_call().call(), gptq_call().call(), awq_call().call();
    CHECK(message_of([] {
              quant::gptq_matrix<3>({nullptr, {7, 0}}, {}, {nullptr, {0, 0}});
          }) == "quant::gptq_matrix: qweight has 7 words a row, which hold no whole number of codes of 3 bits");
    CHECK(message_of([] {
              quant::bitnet_matrix({nullptr, {2, 3}}, 1.0f);
          }) == "quant::bitnet_matrix: packed is null, but its shape has 6 elements");
    CHECK(message_of([] { gguf::matrix<gguf::q8_0>(nullptr, 0, 1, huge / 32 * 32); }) ==
          "quant::gguf::matrix: columns is too large: " + std::to_string(huge / 32 * 32));
    const array_call c;
    CHECK(message_of([&] {
              quant::int4_matrix<>(
                  c.codes, c.scales,
                  {.tile = quant::per_group(16), .zeros = {reinterpret_cast<const std::int8_t*>(c.zero_memory.data()), {6, 3}}});
          }) == "quant::array_matrix: zeros are given, but the format has none");
}

TEST_CASE("quant: decoding and encoding what does not fit is refused, and nothing is written")
{
    check_refusals("quant::decode: ", of_decode);
    check_refusals("quant::encode: ", of_encode);
    check_refusals("quant::encode: ", of_encode_arrays);
    decode_call().call(), encode_call().call(), encode_array_call().call();
    const decode_call d;
    const gguf::matrix<gguf::q8_0> matrix(d.stored.data(), 68, 2, 32);
    CHECK(message_of([&] { quant::weight(matrix, 2, 0); }) == "quant::weight: row is 2, but the matrix has 2");
    CHECK(message_of([&] { quant::weight(matrix, 0, -1); }) == "quant::weight: column is -1, but the matrix has 32");
}

TEST_CASE("quant: products of two, of experts and of bytes that do not fit are refused, and nothing is written")
{
    check_refusals("quant::gated_matmul: ", of_gated);
    check_refusals("quant::expert_matmul: ", of_experts);
    check_refusals("quant::gated_expert_matmul: ", of_gated_experts);
    check_refusals("quant::matmul: ", of_bytes);
    check_refusals("quant::sort_by_expert: ", of_sorting);
    check_refusals("quant::combine_experts: ", of_combining);
    gated_call().call(), expert_call().call(), bytes_call().call(), sort_call().call(), combine_call().call();
    // Nothing of nothing is legal: no experts, no rows, no columns.
    expert_call c;
    c.gated = true;
    c.call();
    c.gate.clear(), c.up.clear();
    c.which = {{nullptr, {0}}, {c.row_memory.data(), {0}}};
    c.out = resized(c.out, 0, 0), c.residual = {}, c.bias = c.up_bias = {};
    c.call();
    c.gated = false;
    c.call();
    c.which = {};
    c.call();
}

TEST_CASE("quant: packing and products that do not fit are refused, and nothing is written")
{
    check_refusals("quant::matmul: ", of_matmul);
    matmul_call c;
    c.call();
    c.options.residual = c.out; // in place
    c.call();
    std::vector<unsigned char> memory(4096);
    const gguf::matrix<gguf::q4_0> source(c.stored.data(), 20 * 36, 20, 64);
    const std::string message = message_of([&] { quant::pack(source, sm::workspace(memory.data(), 100)); });
    CHECK(message.find("memory has 100 bytes, but the call needs") != std::string::npos);
    // FP8 is no integer.
    std::vector<sm::fp8_e4m3> codes(20 * 64);
    std::vector<float> scales(20);
    const auto floats = quant::pack(quant::fp8_matrix<sm::fp8_e4m3>(sm::view<const sm::fp8_e4m3, 2>(codes.data(), {20, 64}),
                                                                     sm::view<const float, 2>(scales.data(), {20, 1})));
    CHECK(message_of([&] { quant::matmul(c.x, floats, c.out, {.compute = quant::compute::int8}); }) ==
          "quant::matmul: compute is int8, but the codes of fp8_e4m3 are no integers");
    CHECK(message_of([&] { quant::matmul(c.x, floats, c.out, {.compute = quant::compute::tables}); }) ==
          "quant::matmul: compute is tables, but those are for integers of up to 4 bits in groups of a multiple of 32; fp8_e4m3 has 8 bits in "
          "groups of 64");
    CHECK_FALSE(quant::tables_pay<sm::arch::scalar>(floats, 1));
    const std::vector<std::uint8_t> nibbles(20 * 32);
    const std::vector<float> sixteens(20 * 4);
    const auto small_groups = quant::pack(quant::uint4_matrix<>(sm::view<const std::uint8_t, 2>(nibbles.data(), {20, 32}),
                                                                sm::view<const float, 2>(sixteens.data(), {20, 4}), {.tile = quant::per_group(16)}));
    CHECK(message_of([&] { quant::matmul(c.x, small_groups, c.out, {.compute = quant::compute::tables}); }) ==
          "quant::matmul: compute is tables, but those are for integers of up to 4 bits in groups of a multiple of 32; uint4 has 4 bits in "
          "groups of 16");
}

} // namespace quant_refusals_test
