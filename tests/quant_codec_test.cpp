// SPDX-License-Identifier: MIT

// GGUF blocks against their published layouts, written down here once more, weight by weight; their codecs' round trips.

#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/quant/decode.hpp>
#include <seqmix/quant/gguf.hpp>
#include <seqmix/quant/reference.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace quant_test {

namespace sm = seqmix;
namespace gguf = seqmix::quant::gguf;
using sm::index;
using byte = unsigned char;

namespace {

float half_at(const byte* b) { return static_cast<float>(sm::f16::from_bits(static_cast<std::uint16_t>(b[0] | b[1] << 8))); }
int nibble(byte b, bool upper) { return upper ? b >> 4 : b & 15; }
/// a b + c with two roundings, however this is compiled.
float product_and_sum(float a, float b, float c)
{
    volatile float product = a * b;
    return product + c;
}
constexpr int nonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Weight i of a block.
float q4_0(const byte* b, int i) { return half_at(b) * static_cast<float>(nibble(b[2 + i % 16], i >= 16) - 8); }
float q4_1(const byte* b, int i)
{
    return product_and_sum(half_at(b), static_cast<float>(nibble(b[4 + i % 16], i >= 16)), half_at(b + 2));
}
float q5_0(const byte* b, int i)
{
    const int q = nibble(b[6 + i % 16], i >= 16) | (b[2 + i / 8] >> i % 8 & 1) << 4;
    return half_at(b) * static_cast<float>(q - 16);
}
float q5_1(const byte* b, int i)
{
    const int q = nibble(b[8 + i % 16], i >= 16) | (b[4 + i / 8] >> i % 8 & 1) << 4;
    return product_and_sum(half_at(b), static_cast<float>(q), half_at(b + 2));
}
float q8_0(const byte* b, int i) { return half_at(b) * static_cast<float>(b[2 + i] < 128 ? b[2 + i] : b[2 + i] - 256); }
/// Two bits in runs of 32 bytes a half block.
int two_bits(const byte* b, int i) { return b[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3; }
float q2_k(const byte* b, int i)
{
    const float scale = half_at(b + 80) * static_cast<float>(b[i / 16] & 15),
                min = half_at(b + 82) * static_cast<float>(b[i / 16] >> 4);
    return product_and_sum(scale, static_cast<float>(two_bits(b + 16, i)), -min);
}
float q3_k(const byte* b, int i)
{
    const int g = i / 16, low = nibble(b[96 + g % 8], g >= 8), high = b[104 + g % 4] >> 2 * (g / 4) & 3;
    const float scale = half_at(b + 108) * static_cast<float>((low | high << 4) - 32);
    return scale * static_cast<float>(two_bits(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4));
}
/// Scale or min (4 bytes on) of group g of q4_k and q5_k.
int six_bits(const byte* s, int g, bool min)
{
    if (g < 4) { return s[min ? g + 4 : g] & 63; }
    return nibble(s[g + 4], min) | s[min ? g : g - 4] >> 6 << 4;
}
float q45_k(const byte* b, int i, int q)
{
    const float scale = half_at(b) * static_cast<float>(six_bits(b + 4, i / 32, false));
    const float min = half_at(b + 2) * static_cast<float>(six_bits(b + 4, i / 32, true));
    return product_and_sum(scale, static_cast<float>(q), -min);
}
float q4_k(const byte* b, int i) { return q45_k(b, i, nibble(b[16 + i / 64 * 32 + i % 32], i % 64 >= 32)); }
float q5_k(const byte* b, int i)
{
    return q45_k(b, i, nibble(b[48 + i / 64 * 32 + i % 32], i % 64 >= 32) | (b[16 + i % 32] >> i / 32 & 1) << 4);
}
float q6_k(const byte* b, int i)
{
    const int q = nibble(b[i / 128 * 64 + i % 64], i % 128 >= 64) | two_bits(b + 128, i) << 4, s = b[192 + i / 16];
    return half_at(b + 208) * static_cast<float>(s < 128 ? s : s - 256) * static_cast<float>(q - 32);
}
float iq4_nl(const byte* b, int i) { return half_at(b) * static_cast<float>(nonlinear[nibble(b[2 + i % 16], i >= 16)]); }
float iq4_xs(const byte* b, int i)
{
    const int g = i / 32, high = (b[2] | b[3] << 8) >> 2 * g & 3, s = (nibble(b[4 + g / 2], g % 2 == 1) | high << 4) - 32;
    return half_at(b) * static_cast<float>(s) * static_cast<float>(nonlinear[nibble(b[8 + g * 16 + i % 16], i % 32 >= 16)]);
}
float tq1_0(const byte* b, int i)
{
    static constexpr int powers[5] = {1, 3, 9, 27, 81};
    const int at = i < 160 ? i % 32 : i < 240 ? 32 + (i - 160) % 16 : 48 + (i - 240) % 4;
    const int digit = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
    return half_at(b + 52) * static_cast<float>(((b[at] * powers[digit] & 255) * 3 >> 8) - 1);
}
float tq2_0(const byte* b, int i) { return half_at(b + 64) * static_cast<float>(two_bits(b, i) - 1); }
float mxfp4(const byte* b, int i) { return static_cast<float>(std::ldexp(doubled[nibble(b[1 + i % 16], i >= 16)], b[0] - 128)); }
float nvfp4(const byte* b, int i)
{
    const int s = b[i / 16], exponent = s >> 3 & 15, mantissa = s & 7;
    const double number = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    return static_cast<float>(s == 0x7f ? 0.0 : number * 0.5) *
           static_cast<float>(doubled[nibble(b[4 + i / 16 * 8 + i % 8], i % 16 >= 8)]);
}

/// A format by numbers and functions.
struct format_case {
    const char* name;
    index block, bytes;
    float (*want)(const byte*, int);
    void (*decode)(const byte*, index rows, index columns, const sm::view<float, 2>& out);
    void (*rewrite)(const byte* from, byte* to); ///< reads a block and writes it
    float (*one)(const byte*, index rows, index columns, index row, index column);
    bool every_byte; ///< that there is stands for a block of its own
};

template <class F>
format_case case_of(float (*want)(const byte*, int), index bytes, bool every_byte = true)
{
    static_assert(sm::quant::block_format<F>);
    CHECK(F::block_bytes == bytes);
    return {F::name,
            F::block,
            bytes,
            want,
            [](const byte* b, index rows, index columns, const sm::view<float, 2>& out) {
                sm::quant::decode(gguf::matrix<F>(b, rows * columns / F::block * F::block_bytes, rows, columns), out);
            },
            [](const byte* from, byte* to) {
                sm::quant::stored_block<F> block;
                F::read(reinterpret_cast<const std::byte*>(from), block);
                F::write(block, reinterpret_cast<std::byte*>(to));
            },
            [](const byte* b, index rows, index columns, index row, index column) {
                return sm::quant::weight(gguf::matrix<F>(b, rows * columns / F::block * F::block_bytes, rows, columns), row,
                                         column);
            },
            every_byte};
}

std::vector<format_case> all_formats()
{
    return {case_of<gguf::q4_0>(q4_0, 18),          case_of<gguf::q4_1>(q4_1, 20),     case_of<gguf::q5_0>(q5_0, 22),
            case_of<gguf::q5_1>(q5_1, 24),          case_of<gguf::q8_0>(q8_0, 34),     case_of<gguf::q2_k>(q2_k, 84),
            case_of<gguf::q3_k>(q3_k, 110),         case_of<gguf::q4_k>(q4_k, 144),    case_of<gguf::q5_k>(q5_k, 176),
            case_of<gguf::q6_k>(q6_k, 210),         case_of<gguf::iq4_nl>(iq4_nl, 18), case_of<gguf::iq4_xs>(iq4_xs, 136),
            case_of<gguf::tq1_0>(tq1_0, 54, false), case_of<gguf::tq2_0>(tq2_0, 66),   case_of<gguf::mxfp4>(mxfp4, 17),
            case_of<gguf::nvfp4>(nvfp4, 36)};
}

/// Bits alike; a NaN is any NaN.
bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

constexpr index rows = 5, blocks = 7;

} // namespace

TEST_CASE("quant: any bytes of a GGUF matrix decode as published, and none beyond them are read", "[quant]")
{
    random_source random(1);
    for (const format_case& f : all_formats()) {
        INFO(f.name);
        // Random bytes: among the scales are zeros, subnormals, infinities and NaN. They end where memory does, at odd addresses.
        at_the_edge<byte> bytes(rows * blocks * f.bytes);
        index wrong = 0, special = 0;
        for (int time = 0; time < 20; ++time) {
            for (index i = 0; i < rows * blocks * f.bytes; ++i) { bytes[i] = static_cast<byte>(random.integer(0, 255)); }
            const index columns = blocks * f.block;
            guarded<float> memory(2 * rows * columns);
            const sm::view<float, 2> out(memory.data(), {rows, columns}, {1, 2 * rows}); // transposed, and spaced
            f.decode(bytes.data(), rows, columns, out);
            for (index row = 0; row < rows; ++row) {
                for (index column = 0; column < columns; ++column) {
                    const float want =
                        f.want(bytes.data() + (row * blocks + column / f.block) * f.bytes, static_cast<int>(column % f.block));
                    wrong += !same(out(row, column), want);
                    special += !std::isfinite(want);
                }
            }
            CHECK(same(f.one(bytes.data(), rows, columns, 3, columns - 2), out(3, columns - 2)));
            CHECK(memory.intact());
        }
        CHECK(wrong == 0);
        if (f.name != std::string("mxfp4") && f.name != std::string("nvfp4")) { CHECK(special > 0); }
    }
}

TEST_CASE("quant: scales that are zero, subnormal, infinite or NaN decode to what they make", "[quant]")
{
    byte block[256];
    for (const format_case& f : all_formats()) {
        INFO(f.name);
        for (const unsigned scale : {0x0000u, 0x8000u, 0x0001u, 0x83ffu, 0x7bffu, 0x7c00u, 0xfc00u, 0x7e00u}) {
            for (index i = 0; i < f.bytes; i += 2) {
                block[i] = static_cast<byte>(scale), block[i + 1] = static_cast<byte>(scale >> 8);
            }
            std::vector<float> got(static_cast<std::size_t>(f.block));
            f.decode(block, 1, f.block, sm::view<float, 2>(got.data(), {index{1}, f.block}));
            int wrong = 0;
            for (int i = 0; i < f.block; ++i) { wrong += !same(got[static_cast<std::size_t>(i)], f.want(block, i)); }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("quant: writing what was read gives the same bytes", "[quant]")
{
    random_source random(2);
    for (const format_case& f : all_formats()) {
        INFO(f.name);
        byte from[256], to[256], again[256];
        for (int time = 0; time < 200; ++time) {
            for (byte& b : from) { b = static_cast<byte>(random.integer(0, 255)); }
            std::memset(to, 0xa5, sizeof to);
            f.rewrite(from, to);
            CHECK(std::all_of(to + f.bytes, to + 256, [](byte b) { return b == 0xa5; }));
            if (f.every_byte) { CHECK(std::memcmp(from, to, static_cast<std::size_t>(f.bytes)) == 0); }
            // Of tq1_0's bytes some are never written, but what they decode to is kept.
            f.rewrite(to, again);
            CHECK(std::memcmp(again, to, static_cast<std::size_t>(f.bytes)) == 0);
            int changed = 0;
            for (int i = 0; i < f.block; ++i) { changed += !same(f.want(from, i), f.want(to, i)); }
            CHECK(changed == 0);
        }
    }
}

TEST_CASE("quant: narrower outputs are rounded once more; sizes of 0 are legal", "[quant]")
{
    random_source random(3);
    std::vector<byte> bytes(144 * 2);
    for (byte& b : bytes) { b = static_cast<byte>(random.integer(0, 255)); }
    bytes[1] &= 0x3f, bytes[3] &= 0x3f, bytes[145] &= 0x3f, bytes[147] &= 0x3f; // finite
    const gguf::matrix<gguf::q4_k> matrix(bytes.data(), 288, 2, 256);
    std::vector<float> wide(512);
    std::vector<sm::bf16> brain(512);
    std::vector<sm::f16> half(512);
    sm::quant::decode(matrix, sm::view<float, 2>(wide.data(), {2, 256}));
    sm::quant::decode(matrix, sm::view<sm::bf16, 2>(brain.data(), {2, 256}));
    sm::quant::decode(matrix, sm::view<sm::f16, 2>(half.data(), {2, 256}));
    int wrong = 0;
    for (std::size_t i = 0; i < 512; ++i) { wrong += brain[i] != sm::bf16(wide[i]) || half[i] != sm::f16(wide[i]); }
    CHECK(wrong == 0);
    sm::quant::decode(gguf::matrix<gguf::q4_k>(nullptr, 0, 0, 256), sm::view<float, 2>(nullptr, {0, 256}));
    sm::quant::decode(gguf::matrix<gguf::q4_k>(nullptr, 0, 3, 0), sm::view<float, 2>(nullptr, {3, 0}));
    CHECK(gguf::stored_bytes<gguf::q6_k>(3, 512) == 1260);
}

TEST_CASE("quant: the reference is the product, with bias, activation and residual", "[quant]")
{
    const float x[] = {1, 2, 3, -1, 0, 2}, w[] = {1, 0, -1, 2, 2, 2}, bias[] = {10, -100}, residual[] = {0.5f, 1, 2, 4};
    double out[4], size[4];
    const sm::view<double, 2> to(out, {2, 2}), sizes(size, {2, 2});
    const sm::view<const float, 2> rows_of_x(x, {2, 3}), weights(w, {2, 3});
    sm::quant::reference::matmul(rows_of_x, weights, sm::view<const float, 1>(bias, {2}), to);
    CHECK(std::vector<double>(out, out + 4) == std::vector<double>{8, -88, 7, -98});
    sm::quant::reference::matmul(
        rows_of_x, weights, sm::view<const float, 1>(bias, {2}), sm::view<const float, 2>(residual, {2, 2}),
        [](double y) { return y < 0.0 ? 0.0 : y; }, to, sizes);
    CHECK(std::vector<double>(out, out + 4) == std::vector<double>{8.5, 1, 9, 4});
    CHECK(std::vector<double>(size, size + 4) == std::vector<double>{14, 112, 13, 106});
}

} // namespace quant_test
