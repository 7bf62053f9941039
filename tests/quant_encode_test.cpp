// SPDX-License-Identifier: MIT

// Encoders: the nearest code under the scale that is stored, and scales that reach all weights.

#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/quant.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

namespace quant_encode_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using sm::index;

namespace {

constexpr index rows = 3, columns = 512;

/// Weights as they come, and as they hurt: all zeros, one spike, all of one sign, as small and as large as floats are.
std::vector<float> weights_of(random_source& random, int kind)
{
    std::vector<float> w = random.normals(static_cast<std::size_t>(rows * columns), 0.02f);
    for (std::size_t i = 0; i < w.size(); ++i) {
        float& x = w[i];
        if (kind == 1) { x = 0.0f; }
        if (kind == 2) { x = i % 64 == 5 ? -3.0f : 0.0f; }
        if (kind == 3) { x = 1.0f + std::fabs(x); }
        if (kind == 4) { x = x * 0x1p-126f; }
        if (kind == 5) { x = x * 0x1p126f; }
        if (kind == 6) { x = -1.0f - std::fabs(x); }
    }
    return w;
}
constexpr int kinds = 7, ordinary_kinds = 4; ///< scales of the last ones need not be normal numbers of every type

/// Whether some code would have come nearer than `got`, by more than decoding rounds.
template <class F>
bool nearer(float x, float got, float scale, float subtracted, float matrix_scale)
{
    const double error = std::fabs(static_cast<double>(got) - static_cast<double>(x));
    for (unsigned code = 0; code < 1u << F::bits; ++code) {
        const double other =
            static_cast<double>(quant::dequantize<F>(static_cast<std::uint8_t>(code), scale, subtracted, matrix_scale));
        const double size = std::fabs(static_cast<double>(x)) + std::fabs(other) + std::fabs(static_cast<double>(subtracted));
        if (std::fabs(other - static_cast<double>(x)) < error - 4.0 * 0x1p-24 * size - 0x1p-148) { return true; }
    }
    return false;
}

/// The largest error, as a part of the largest magnitude, that a symmetric format may make: half a step, what small integers of
/// groups lose (`sub`), and the rounding of scales.
double part(double largest_step, double extreme, double sub) { return largest_step / 2.0 / extreme + sub + 0x1p-9; }

/// `of_one_sign`: where the format reaches further on one side, what it may err by with weights that are all on one side of 0.
template <class F>
void check_blocks(double most_error, double of_one_sign)
{
    INFO(F::name);
    random_source random(7);
    for (int kind = 0; kind < kinds; ++kind) {
        INFO("weights of kind " << kind);
        const std::vector<float> w = weights_of(random, kind);
        const index bytes = gguf::stored_bytes<F>(rows, columns);
        guarded<unsigned char> stored(bytes, 1);
        quant::encode<F>(sm::view<const float, 2>(w.data(), {rows, columns}), stored.data(), bytes);
        CHECK(stored.intact());
        const gguf::matrix<F> matrix(stored.data(), bytes, rows, columns);
        std::vector<float> got(w.size());
        quant::decode(matrix, sm::view<float, 2>(got.data(), {rows, columns}));
        index wrong = 0, infinite = 0;
        double worst = 0.0;
        for (index row = 0; row < rows; ++row) {
            for (index block = 0; block < matrix.blocks(); ++block) {
                quant::stored_block<F> unpacked;
                matrix.read(row, block, unpacked);
                const float* const x = &w[static_cast<std::size_t>(row * columns + block * F::block)];
                const float* const y = &got[static_cast<std::size_t>(row * columns + block * F::block)];
                float largest = 0.0f;
                for (index i = 0; i < F::block; ++i) { largest = std::max(largest, std::fabs(x[i])); }
                for (index i = 0; i < F::block; ++i) {
                    const index g = i / F::group;
                    wrong += nearer<F>(x[i], y[i], quant::group_scale(unpacked, g), quant::group_min(unpacked, g), 1.0f);
                    infinite += !std::isfinite(y[i]);
                    if (largest > 0.0f) { worst = std::max(worst, static_cast<double>(std::fabs(x[i] - y[i]) / largest)); }
                }
            }
        }
        CHECK(wrong == 0);
        CHECK(infinite == 0);
        if (kind < ordinary_kinds || kind == 6) { CHECK(worst <= (kind == 3 || kind == 6 ? of_one_sign : most_error)); }
        if (kind == 0) { CHECK(worst > most_error / 20.0); } // the bound means something
        if (kind == 1) { CHECK(worst == 0.0); }
    }
}

template <class F>
void check_blocks(double most_error)
{
    check_blocks<F>(most_error, most_error);
}

template <class F>
void check_arrays(double most_error, quant::scale_tile tile, int stored_bits = F::bits)
{
    INFO(F::name << " of " << F::bits << " bits, tiles of " << tile.rows << " x " << tile.columns);
    random_source random(8);
    for (int kind = 0; kind < kinds; ++kind) {
        INFO("weights of kind " << kind);
        const std::vector<float> w = weights_of(random, kind);
        const sm::view<const float, 2> weights(w.data(), {rows, columns - 1}, {columns, index{1}});
        const index tall = tile.rows > 0 ? tile.rows : rows, wide = tile.columns > 0 ? tile.columns : columns;
        const index down = (rows + tall - 1) / tall, across = (columns - 1 + wide - 1) / wide,
                    bytes = ((columns - 1) * stored_bits + 7) / 8;
        guarded<typename F::code_type> codes(rows * bytes);
        guarded<typename F::scale_type> scales(down * across);
        guarded<typename F::zero_type> zeros(down * across);
        quant::encode_options<F> options;
        options.tile = tile, options.stored_bits = stored_bits;
        quant::array_options<F> read;
        read.tile = tile, read.stored_bits = stored_bits, read.columns = columns - 1;
        if constexpr (F::form == quant::affine::scale_and_zero) {
            options.zeros = {zeros.data(), {down, across}};
            read.zeros = options.zeros;
        }
        if constexpr (F::matrix_scale) { read.matrix_scale = options.matrix_scale = quant::usual_matrix_scale<F>(weights); }
        const sm::view<typename F::code_type, 2> code_view(codes.data(), {rows, bytes});
        const sm::view<typename F::scale_type, 2> scale_view(scales.data(), {down, across});
        quant::encode<F>(weights, code_view, scale_view, options);
        CHECK((codes.intact() && scales.intact() && zeros.intact()));
        const quant::array_matrix<F> matrix(code_view, scale_view, read);
        std::vector<float> got(w.size());
        quant::decode(matrix, sm::view<float, 2>(got.data(), {rows, columns - 1}, {columns, index{1}}));
        index wrong = 0, infinite = 0;
        double worst = 0.0;
        for (index row = 0; row < rows; ++row) {
            for (index column = 0; column < columns - 1; ++column) {
                float largest = 0.0f;
                for (index r = row / tall * tall; r < std::min(row / tall * tall + tall, rows); ++r) {
                    for (index c = column / wide * wide; c < std::min(column / wide * wide + wide, columns - 1); ++c) {
                        largest = std::max(largest, std::fabs(weights(r, c)));
                    }
                }
                const float y = got[static_cast<std::size_t>(row * columns + column)], x = weights(row, column);
                const auto shared = matrix.parameters(row, column / matrix.group());
                if ((row + column) % 7 == 0) {
                    wrong +=
                        nearer<F>(x, y, static_cast<float>(shared.scale), static_cast<float>(shared.zero), matrix.matrix_scale());
                }
                infinite += !std::isfinite(y);
                if (largest > 0.0f) { worst = std::max(worst, static_cast<double>(std::fabs(x - y) / largest)); }
                if (x == 0.0f) { wrong += y != 0.0f; }
            }
        }
        CHECK(wrong == 0);
        CHECK(infinite == 0);
        if (kind < ordinary_kinds || kind == 6) { CHECK(worst <= most_error); }
        if (kind == 0) { CHECK(worst > most_error / 20.0); }
    }
}

} // namespace

TEST_CASE("quant: blocks hold the nearest codes, and errors are within what scales allow", "[quant]")
{
    check_blocks<gguf::q4_0>(part(2, 8, 0), part(1, 8, 0));  // two steps: +8 has no code
    check_blocks<gguf::q4_1>(part(2, 15, 0)); // ranges are up to twice as wide as the largest magnitude
    check_blocks<gguf::q5_0>(part(2, 16, 0), part(1, 16, 0));
    check_blocks<gguf::q5_1>(part(2, 31, 0));
    check_blocks<gguf::q8_0>(part(1, 127, 0));
    check_blocks<gguf::q2_k>(part(2, 3, 1.5 / 15));
    check_blocks<gguf::q3_k>(part(2, 4, 0.5 / 31), part(1, 4, 0.5 / 31));
    check_blocks<gguf::q4_k>(part(2, 15, 1.5 / 63));
    check_blocks<gguf::q5_k>(part(2, 31, 1.5 / 63));
    check_blocks<gguf::q6_k>(part(2, 32, 0.5 / 127), part(1, 32, 0.5 / 127));
    check_blocks<gguf::iq4_nl>(part(28, 127, 0), part(23, 127, 0)); // beyond 113 up to 127
    check_blocks<gguf::iq4_xs>(part(28, 127, 0.5 / 31), part(23, 127, 0.5 / 31));
    check_blocks<gguf::tq1_0>(part(1, 1, 0));
    check_blocks<gguf::tq2_0>(part(1, 1, 0));
    check_blocks<gguf::mxfp4>(0.25);
    check_blocks<gguf::nvfp4>(part(2, 6, 0x1p-4));
}

TEST_CASE("quant: arrays hold the nearest codes, whatever shares a scale", "[quant]")
{
    for (const quant::scale_tile tile : {quant::per_tensor, quant::per_channel, quant::per_group(32), quant::per_block(2, 128)}) {
        check_arrays<quant::signed_integer<8, float, false>>(part(1, 127, 0), tile);
        check_arrays<quant::float8<sm::fp8_e4m3, float>>(part(32, 448, 0), tile);
    }
    check_arrays<quant::float8<sm::fp8_e5m2, sm::bf16>>(part(8192, 57344, 0), quant::per_channel);
    check_arrays<quant::signed_integer<4, sm::f16, false>>(part(1, 7, 0), quant::per_group(32));
    check_arrays<quant::signed_integer<4, float, false>>(part(1, 7, 0), quant::per_group(100), 8);
    check_arrays<quant::signed_integer<8, float, true>>(part(3, 255, 0), quant::per_channel); // the zero point is rounded too
    check_arrays<quant::unsigned_integer<4, float>>(part(3, 15, 0), quant::per_group(64));
    check_arrays<quant::ternary<float>>(part(1, 1, 0), quant::per_tensor);
    // What lies between the largest number and the next power of two saturates.
    check_arrays<quant::microscaling<sm::fp4_e2m1>>(0.25, quant::per_group(32));
    check_arrays<quant::microscaling<sm::fp6_e2m3>>(1.0 / 16, quant::per_group(32));
    check_arrays<quant::microscaling<sm::fp6_e3m2>>(1.0 / 8, quant::per_group(32));
    check_arrays<quant::microscaling<sm::fp8_e4m3>>(1.0 / 8, quant::per_group(32));
    check_arrays<quant::microscaling<sm::fp8_e5m2>>(1.0 / 8, quant::per_group(32));
    check_arrays<quant::block_float<8>>(1.0 / 128, quant::per_group(32));
    check_arrays<quant::block_float<4>>(1.0 / 8, quant::per_group(16));
    check_arrays<quant::nvfp4>(part(2, 6, 0x1p-4), quant::per_group(16));
}

TEST_CASE("quant: what a format can hold is held exactly", "[quant]")
{
    // Every finite FP8 number under the scale 1, and the middles between neighbours, which go to the even code.
    std::vector<float> numbers, want;
    for (int code = 0; code < 0x7f; ++code) {
        const auto x = static_cast<float>(sm::fp8_e4m3::from_bits(static_cast<std::uint8_t>(code)));
        const auto next = static_cast<float>(sm::fp8_e4m3::from_bits(static_cast<std::uint8_t>(code + (code < 0x7e))));
        for (const float sign : {1.0f, -1.0f}) {
            numbers.insert(numbers.end(), {sign * x, sign * 0.5f * (x + next)});
            want.insert(want.end(), {sign * x, sign * (code % 2 == 0 ? x : next)});
        }
    }
    const auto count = static_cast<index>(numbers.size());
    std::vector<sm::fp8_e4m3> codes(numbers.size());
    float scale = 0.0f;
    const sm::view<sm::fp8_e4m3, 2> code_view(codes.data(), {index{1}, count});
    const sm::view<float, 2> scale_view(&scale, {1, 1});
    quant::encode<quant::float8<sm::fp8_e4m3, float>>(sm::view<const float, 2>(numbers.data(), {index{1}, count}), code_view,
                                                      scale_view);
    CHECK(scale == 1.0f);
    std::vector<float> got(numbers.size());
    quant::decode(quant::fp8_matrix<sm::fp8_e4m3>(code_view, scale_view), sm::view<float, 2>(got.data(), {index{1}, count}));
    CHECK(got == want);

    // Integers times a power of two with -8 among them.
    std::vector<float> integers;
    for (int i = 0; i < 32; ++i) { integers.push_back(0.25f * static_cast<float>(i % 16 - 8)); }
    unsigned char block[34];
    quant::encode<gguf::q4_0>(sm::view<const float, 2>(integers.data(), {1, 32}), block, 18);
    std::vector<float> back(32);
    quant::decode(gguf::matrix<gguf::q4_0>(block, 18, 1, 32), sm::view<float, 2>(back.data(), {1, 32}));
    CHECK(back == integers);
    // With +8 the largest magnitude is positive, and the scale is not.
    for (float& x : integers) { x = -x; }
    quant::encode<gguf::q4_0>(sm::view<const float, 2>(integers.data(), {1, 32}), block, 18);
    quant::decode(gguf::matrix<gguf::q4_0>(block, 18, 1, 32), sm::view<float, 2>(back.data(), {1, 32}));
    CHECK(back == integers);

    // Ternary weights of one size.
    std::vector<float> ternary;
    for (int i = 0; i < 256; ++i) { ternary.push_back(0.375f * static_cast<float>(i * 7 % 3 - 1)); }
    unsigned char trits[54];
    quant::encode<gguf::tq1_0>(sm::view<const float, 2>(ternary.data(), {1, 256}), trits, 54);
    std::vector<float> same(256);
    quant::decode(gguf::matrix<gguf::tq1_0>(trits, 54, 1, 256), sm::view<float, 2>(same.data(), {1, 256}));
    CHECK(same == ternary);

    quant::encode<gguf::q4_0>(sm::view<const float, 2>(nullptr, {0, 32}), nullptr, 0);
    CHECK(quant::usual_matrix_scale<quant::nvfp4>(sm::view<const float, 2>(nullptr, {0, 32})) == 1.0f);
}

} // namespace quant_encode_test
