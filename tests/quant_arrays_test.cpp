// SPDX-License-Identifier: MIT

// Codes and scales in arrays of their own, GPTQ, AWQ and BitNet: against their layouts, bit by bit.

#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/quant/awq.hpp>
#include <seqmix/quant/block_float.hpp>
#include <seqmix/quant/decode.hpp>
#include <seqmix/quant/float8.hpp>
#include <seqmix/quant/gptq.hpp>
#include <seqmix/quant/microscaling.hpp>
#include <seqmix/quant/ternary.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

namespace quant_arrays_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
using sm::index;

namespace {

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

/// Number `at` of a stream of numbers of `bits` bits in bytes, lowest bits first.
unsigned in_stream(const unsigned char* bytes, int bits, index at)
{
    unsigned number = 0;
    for (int bit = 0; bit < bits; ++bit) {
        const index place = at * bits + bit;
        number |= (bytes[place / 8] >> place % 8 & 1u) << bit;
    }
    return number;
}
int two_s_complement(unsigned code, int bits)
{
    return code >> (bits - 1) != 0 ? static_cast<int>(code) - (1 << bits) : static_cast<int>(code);
}

/// A number with sign, exponent and mantissa bits, no infinities and no NaN.
double small_float(unsigned code, int exponent_bits, int mantissa_bits)
{
    const int bias = (1 << (exponent_bits - 1)) - 1, mantissa = static_cast<int>(code & ((1u << mantissa_bits) - 1u));
    const int exponent = static_cast<int>(code >> mantissa_bits) & ((1 << exponent_bits) - 1);
    const double size = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                      : std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
    return code >> (exponent_bits + mantissa_bits) != 0 ? -size : size;
}
double e4m3(unsigned code) { return (code & 0x7fu) == 0x7fu ? std::nan("") : small_float(code, 4, 3); }
double e5m2(unsigned code)
{
    if ((code & 0x7cu) != 0x7cu) { return small_float(code, 5, 2); }
    return (code & 3u) != 0 ? std::nan("") : code > 0x7fu ? -HUGE_VAL : HUGE_VAL;
}
double power(unsigned code) { return code == 255 ? std::nan("") : std::ldexp(1.0, static_cast<int>(code) - 127); }

/// Any scale: byte patterns for those of a byte, floats of every size else.
template <class Scale>
Scale any_scale(random_source& random)
{
    if constexpr (sizeof(Scale) == 1) {
        return Scale::from_bits(static_cast<std::uint8_t>(random.integer(0, 255)));
    } else {
        return static_cast<Scale>(
            static_cast<float>(std::ldexp(static_cast<double>(random.normal()), static_cast<int>(random.integer(-14, 14)))));
    }
}

/// Random codes and scales of [rows, columns] that end where memory does; decoded weights against value(code), to be multiplied by
/// scales.
template <class F>
void check_array(random_source& random, index rows, index columns, quant::scale_tile tile, int stored_bits,
                 const std::function<double(unsigned)>& value, float matrix_scale = 1.0f)
{
    INFO(F::name << " of " << F::bits << " bits in " << stored_bits << ", " << rows << " x " << columns << ", tiles of "
                 << tile.rows << " x " << tile.columns);
    using scale_type = typename F::scale_type;
    const index bytes = (columns * stored_bits + 7) / 8, tall = tile.rows > 0 ? tile.rows : rows,
                wide = tile.columns > 0 ? tile.columns : columns;
    const index down = (rows + tall - 1) / tall, across = (columns + wide - 1) / wide;
    at_the_edge<unsigned char> codes(rows * bytes);
    for (index i = 0; i < rows * bytes; ++i) { codes[i] = static_cast<unsigned char>(random.integer(0, 255)); }
    at_the_edge<scale_type> scales(down * across);
    for (index i = 0; i < down * across; ++i) { scales[i] = any_scale<scale_type>(random); }
    quant::array_options<F> options;
    options.tile = tile, options.stored_bits = stored_bits, options.columns = columns, options.matrix_scale = matrix_scale;
    // Scales column by column.
    const quant::array_matrix<F> matrix({reinterpret_cast<const typename F::code_type*>(codes.data()), {rows, bytes}},
                                        {scales.data(), {down, across}, {index{1}, down}}, options);
    static_assert(quant::group_source<quant::array_matrix<F>>);
    guarded<float> out(rows * columns);
    quant::decode(matrix, sm::view<float, 2>(out.data(), {rows, columns}));
    index wrong = 0;
    for (index row = 0; row < rows; ++row) {
        for (index column = 0; column < columns; ++column) {
            const unsigned code = in_stream(codes.data() + row * bytes, stored_bits, column) & ((1u << F::bits) - 1u);
            const auto scale = static_cast<float>(scales[row / tall + column / wide * down]);
            wrong += !same(out[row * columns + column], scale * static_cast<float>(value(code)) * matrix_scale);
        }
    }
    CHECK(wrong == 0);
    CHECK(out.intact());
    CHECK(matrix.first(matrix.groups()) == columns);
}

template <class F>
void check_tiles(random_source& random, const std::function<double(unsigned)>& value, float matrix_scale = 1.0f)
{
    for (const quant::scale_tile tile : {F::tile, quant::per_tensor, quant::per_channel, quant::per_group(16),
                                         quant::per_block(4, 8), quant::per_block(3, 0), quant::per_block(0, 5)}) {
        check_array<F>(random, 7, 45, tile, F::bits, value, matrix_scale);
        check_array<F>(random, 4, 64, tile, 8, value, matrix_scale);
    }
    check_array<F>(random, 3, 700, quant::per_channel, F::bits, value, matrix_scale); // groups beyond what is decoded at once
    for (int code = 0; code < 1 << F::bits; ++code) {
        const auto byte = static_cast<std::uint8_t>(code);
        CHECK(same(F::value(byte), static_cast<float>(value(static_cast<unsigned>(code)))));
        if (F::integer_codes) {
            const float number = F::value(byte) / F::unit;
            CHECK((number == std::floor(number) && number >= -128.0f && number <= 127.0f));
        }
    }
}

/// Packs numbers into 32-bit words, lowest bits first.
std::vector<std::int32_t> in_words(const std::vector<int>& numbers, int bits)
{
    std::vector<std::uint32_t> words((numbers.size() * static_cast<std::size_t>(bits) + 31) / 32);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        for (int bit = 0; bit < bits; ++bit) {
            const std::size_t place = i * static_cast<std::size_t>(bits) + static_cast<std::size_t>(bit);
            words[place / 32] |= (static_cast<std::uint32_t>(numbers[i]) >> bit & 1u) << place % 32;
        }
    }
    return {words.begin(), words.end()};
}

/// groups_of: the group of each column; given to the matrix where `shuffled`.
template <int bits>
void check_gptq(random_source& random, index rows, const std::vector<std::int32_t>& group_of, index groups, index group,
                bool shuffled, quant::gptq_zeros kind, bool with_zeros)
{
    INFO("gptq of " << bits << " bits, " << rows << " x " << group_of.size() << ", " << groups << " groups, shuffled " << shuffled);
    const auto columns = static_cast<index>(group_of.size());
    const auto most = (1 << bits) - 1;
    std::vector<std::vector<int>> codes(static_cast<std::size_t>(rows));
    const index words = columns * bits / 32;
    std::vector<std::int32_t> qweight(static_cast<std::size_t>(words * rows));
    for (index row = 0; row < rows; ++row) {
        auto& numbers = codes[static_cast<std::size_t>(row)];
        for (index i = 0; i < columns; ++i) { numbers.push_back(static_cast<int>(random.integer(0, most))); }
        const auto packed = in_words(numbers, bits);
        for (index word = 0; word < words; ++word) {
            qweight[static_cast<std::size_t>(word * rows + row)] = packed[static_cast<std::size_t>(word)];
        }
    }
    std::vector<std::vector<int>> zeros;
    std::vector<std::int32_t> qzeros;
    std::vector<sm::f16> scales;
    for (index g = 0; g < groups; ++g) {
        std::vector<int> numbers, stored;
        for (index row = 0; row < rows; ++row) {
            numbers.push_back(static_cast<int>(random.integer(0, most)));
            stored.push_back(kind == quant::gptq_zeros::minus_one ? (numbers.back() + most) % (most + 1) : numbers.back());
            scales.push_back(any_scale<sm::f16>(random));
        }
        const auto packed = in_words(stored, bits);
        qzeros.insert(qzeros.end(), packed.begin(), packed.end());
        zeros.push_back(numbers);
    }
    quant::gptq_options options{.group = group, .zeros = kind};
    if (shuffled) { options.g_idx = {group_of.data(), {columns}}; }
    sm::view<const std::int32_t, 2> zero_view;
    if (with_zeros) { zero_view = {qzeros.data(), {groups, (rows * bits + 31) / 32}}; }
    const quant::gptq_matrix<bits> matrix({qweight.data(), {words, rows}}, zero_view, {scales.data(), {groups, rows}}, options);
    static_assert(quant::group_source<quant::gptq_matrix<bits>>);
    CHECK(matrix.columns() == columns);
    guarded<float> out(rows * columns);
    quant::decode(matrix, sm::view<float, 2>(out.data(), {rows, columns}));
    index wrong = 0;
    for (index row = 0; row < rows; ++row) {
        for (index column = 0; column < columns; ++column) {
            const index g = group_of[static_cast<std::size_t>(column)];
            const int zero = with_zeros ? zeros[static_cast<std::size_t>(g)][static_cast<std::size_t>(row)] : 1 << (bits - 1);
            const int code = codes[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)];
            wrong += !same(out[row * columns + column],
                           static_cast<float>(scales[static_cast<std::size_t>(g * rows + row)]) * static_cast<float>(code - zero));
        }
    }
    CHECK(wrong == 0);
    CHECK(out.intact());
    // Positions run through the groups; every column stands in the group that is said of it.
    std::vector<int> seen(static_cast<std::size_t>(columns));
    for (index g = 0; g < matrix.groups(); ++g) {
        for (index position = matrix.first(g); position < matrix.first(g + 1); ++position) {
            const index column = matrix.order() != nullptr ? matrix.order()[position] : position;
            wrong += group_of[static_cast<std::size_t>(column)] != g;
            ++seen[static_cast<std::size_t>(column)];
        }
    }
    CHECK(wrong == 0);
    CHECK(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
}

std::vector<std::int32_t> in_order(index columns, index group)
{
    std::vector<std::int32_t> groups;
    for (index i = 0; i < columns; ++i) { groups.push_back(static_cast<std::int32_t>(i / group)); }
    return groups;
}

template <int bits>
void check_gptq_of(random_source& random)
{
    for (const auto kind : {quant::gptq_zeros::minus_one, quant::gptq_zeros::as_is}) {
        for (const bool with_zeros : {true, false}) {
            check_gptq<bits>(random, 11, in_order(96, 32), 3, 32, false, kind, with_zeros);
            check_gptq<bits>(random, 8, in_order(96, 40), 3, 40, false, kind, with_zeros); // the last group is shorter
            check_gptq<bits>(random, 5, in_order(64, 64), 1, 0, false, kind, with_zeros);
            auto shuffled = in_order(128, 32);
            for (std::size_t i = 0; i < 128; ++i) {
                std::swap(shuffled[i], shuffled[static_cast<std::size_t>(random.integer(0, 127))]);
            }
            check_gptq<bits>(random, 9, shuffled, 4, 32, true, kind, with_zeros);
        }
    }
    check_gptq<bits>(random, 4, in_order(64, 16), 4, 16, true, quant::gptq_zeros::minus_one, true);
    auto uneven = in_order(64, 64); // groups of any size, some of none
    for (auto& g : uneven) { g = static_cast<std::int32_t>(2 * random.integer(0, 2)); }
    check_gptq<bits>(random, 3, uneven, 6, 0, true, quant::gptq_zeros::as_is, true);
}

} // namespace

TEST_CASE("quant: integers, floats and ternary codes with scales of every tile", "[quant]")
{
    random_source random(1);
    check_tiles<quant::signed_integer<8, float, false>>(random, [](unsigned c) { return two_s_complement(c, 8); });
    check_tiles<quant::signed_integer<8, sm::f16, false>>(random, [](unsigned c) { return two_s_complement(c, 8); });
    check_tiles<quant::signed_integer<4, sm::bf16, false>>(random, [](unsigned c) { return two_s_complement(c, 4); });
    check_tiles<quant::float8<sm::fp8_e4m3, float>>(random, e4m3);
    check_tiles<quant::float8<sm::fp8_e5m2, float>>(random, e5m2);
    check_tiles<quant::ternary<float>>(random, [](unsigned c) { return static_cast<int>(c) - 1; });
    check_tiles<quant::block_float<8>>(random, [](unsigned c) { return two_s_complement(c, 8) / 64.0; });
    check_tiles<quant::block_float<5>>(random, [](unsigned c) { return two_s_complement(c, 5) / 8.0; });
    check_tiles<quant::block_float<3>>(random, [](unsigned c) { return two_s_complement(c, 3) / 2.0; });
}

TEST_CASE("quant: microscaling formats", "[quant]")
{
    random_source random(2);
    check_tiles<quant::microscaling<sm::fp4_e2m1>>(random, [](unsigned c) { return small_float(c, 2, 1); });
    check_tiles<quant::microscaling<sm::fp6_e2m3>>(random, [](unsigned c) { return small_float(c, 2, 3); });
    check_tiles<quant::microscaling<sm::fp6_e3m2>>(random, [](unsigned c) { return small_float(c, 3, 2); });
    check_tiles<quant::microscaling<sm::fp8_e4m3>>(random, e4m3);
    check_tiles<quant::microscaling<sm::fp8_e5m2>>(random, e5m2);
    check_tiles<quant::nvfp4>(
        random, [](unsigned c) { return small_float(c, 2, 1); }, 0.004f);
    for (unsigned code = 0; code < 256; ++code) {
        CHECK(same(static_cast<float>(sm::e8m0::from_bits(static_cast<std::uint8_t>(code))), static_cast<float>(power(code))));
    }
}

TEST_CASE("quant: zero points", "[quant]")
{
    random_source random(3);
    const index rows = 6, columns = 50, groups = 4;
    std::vector<std::int8_t> codes(static_cast<std::size_t>(rows * columns)), zeros(static_cast<std::size_t>(rows * groups));
    for (auto& c : codes) { c = static_cast<std::int8_t>(random.integer(-128, 127)); }
    for (auto& z : zeros) { z = static_cast<std::int8_t>(random.integer(-128, 127)); }
    const std::vector<float> scales = random.uniforms(static_cast<std::size_t>(rows * groups), -1.0f, 1.0f);
    std::vector<float> out(codes.size());
    const sm::view<float, 2> to(out.data(), {rows, columns});
    const auto at = [&](const auto& numbers, index row, index column) {
        return numbers[static_cast<std::size_t>(row * groups + column / 16)];
    };
    quant::decode(quant::int8_zero_matrix<>({codes.data(), {rows, columns}}, {scales.data(), {rows, groups}},
                                            {.tile = quant::per_group(16), .zeros = {zeros.data(), {rows, groups}}}),
                  to);
    int wrong = 0;
    for (index row = 0; row < rows; ++row) {
        for (index column = 0; column < columns; ++column) {
            const int code = codes[static_cast<std::size_t>(row * columns + column)];
            wrong += !same(to(row, column), at(scales, row, column) * static_cast<float>(code - at(zeros, row, column)));
        }
    }
    CHECK(wrong == 0);

    std::vector<std::uint8_t> nibbles(static_cast<std::size_t>(rows * columns / 2)), small(static_cast<std::size_t>(rows * groups));
    for (auto& c : nibbles) { c = static_cast<std::uint8_t>(random.integer(0, 255)); }
    for (auto& z : small) { z = static_cast<std::uint8_t>(random.integer(0, 15)); }
    for (const bool given : {true, false}) {
        quant::array_options<quant::unsigned_integer<4, float>> options{.tile = quant::per_group(16)};
        if (given) { options.zeros = {small.data(), {rows, groups}}; }
        quant::decode(quant::uint4_matrix<>({nibbles.data(), {rows, columns / 2}}, {scales.data(), {rows, groups}}, options), to);
        for (index row = 0; row < rows; ++row) {
            for (index column = 0; column < columns; ++column) {
                const auto code = static_cast<int>(in_stream(nibbles.data() + row * columns / 2, 4, column));
                wrong += !same(to(row, column),
                               at(scales, row, column) * static_cast<float>(code - (given ? at(small, row, column) : 8)));
            }
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("quant: GPTQ's words, zero points and groups in any order", "[quant]")
{
    random_source random(4);
    check_gptq_of<2>(random);
    check_gptq_of<3>(random);
    check_gptq_of<4>(random);
    check_gptq_of<8>(random);
}

TEST_CASE("quant: AWQ's words", "[quant]")
{
    random_source random(5);
    static constexpr int place_of[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    const index columns = 40, rows = 24, group = 16, groups = 3;
    std::vector<std::int32_t> qweight(static_cast<std::size_t>(columns * rows / 8)),
        qzeros(static_cast<std::size_t>(groups * rows / 8));
    for (auto& w : qweight) { w = static_cast<std::int32_t>(static_cast<std::uint32_t>(random.bits())); }
    for (auto& w : qzeros) { w = static_cast<std::int32_t>(static_cast<std::uint32_t>(random.bits())); }
    std::vector<sm::f16> scales;
    for (index i = 0; i < groups * rows; ++i) { scales.push_back(any_scale<sm::f16>(random)); }
    const quant::awq_matrix<> matrix({qweight.data(), {columns, rows / 8}}, {qzeros.data(), {groups, rows / 8}},
                                     {scales.data(), {groups, rows}}, group);
    static_assert(quant::group_source<quant::awq_matrix<>>);
    std::vector<float> out(static_cast<std::size_t>(rows * columns));
    quant::decode(matrix, sm::view<float, 2>(out.data(), {rows, columns}));
    const auto number = [](std::int32_t word, index row) {
        return static_cast<int>(static_cast<std::uint32_t>(word) >> 4 * place_of[row % 8] & 15u);
    };
    int wrong = 0;
    for (index row = 0; row < rows; ++row) {
        for (index column = 0; column < columns; ++column) {
            const int code = number(qweight[static_cast<std::size_t>(column * rows / 8 + row / 8)], row);
            const int zero = number(qzeros[static_cast<std::size_t>(column / group * rows / 8 + row / 8)], row);
            const auto scale = static_cast<float>(scales[static_cast<std::size_t>(column / group * rows + row)]);
            wrong += !same(out[static_cast<std::size_t>(row * columns + column)], scale * static_cast<float>(code - zero));
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("quant: BitNet's rows, a quarter of the matrix apart", "[quant]")
{
    // Rows 0 and 1 hold -1 and 1, rows 2 to 7 zeros but for the last weight of row 7.
    const std::uint8_t packed[2][3] = {{0b01010100, 0b01010100, 0b01010100}, {0b01010110, 0b01010110, 0b10010110}};
    float out[24];
    const quant::bitnet_matrix matrix({&packed[0][0], {2, 3}}, 0.5f);
    static_assert(quant::group_source<quant::bitnet_matrix>);
    quant::decode(matrix, sm::view<float, 2>(out, {8, 3}));
    std::vector<float> want(24, 0.0f);
    std::fill_n(want.begin(), 3, -0.5f);
    std::fill_n(want.begin() + 3, 3, 0.5f);
    want[23] = 0.5f;
    CHECK(std::equal(want.begin(), want.end(), out));
}

} // namespace quant_arrays_test
