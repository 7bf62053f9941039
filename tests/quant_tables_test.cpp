// SPDX-License-Identifier: MIT
// Products by tables: exact where tables are, within half a step of each entry elsewhere.
#include "quant_case.hpp"
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"

#include <seqmix/quant.hpp>
#include <seqmix/quant/reference.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace quant_tables_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using quant_case::as_const;
using quant_case::u;
using sm::index;
using test_support::on_threads;

namespace {

constexpr index chunk = 32;

std::vector<std::uint8_t> random_bytes(random_source& random, index count)
{
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count));
    for (std::uint8_t& b : bytes) { b = static_cast<std::uint8_t>(random.bits()); }
    return bytes;
}

/// Bytes of four codes, none of them 3.
std::vector<std::uint8_t> ternary_bytes(random_source& random, index count)
{
    std::vector<std::uint8_t> bytes = random_bytes(random, count);
    for (std::uint8_t& b : bytes) { b = static_cast<std::uint8_t>(b & ~(b >> 1 & 0x55)); }
    return bytes;
}

/// How far codes of planes of 4, 2 and 1 bits may be from their middle; 0: no such plane.
struct planes {
    double reach[3];
};

/// As README describes it: a plane of w bits has a table for every 4 / w positions, 4 apart. The largest magnitude of an entry.
double largest_sum(const planes& format, const float* x, index count)
{
    double most = 0;
    for (int plane = 0; plane < 3; ++plane) {
        const index positions = 1 << plane;
        if (format.reach[plane] == 0) { continue; }
        for (index first = 0; first < count; first += 4 * positions) {
            for (index p = 0; p < 4; ++p) {
                double sum = 0;
                for (index i = 0; i < positions; ++i) { sum += std::abs(static_cast<double>(x[first + 4 * i + p])); }
                most = std::max(most, sum * format.reach[plane]);
            }
        }
    }
    return most;
}

/// `block`: positions that share a step, where rows do not. `unit_of_row`: what a code's step is worth.
template <class F>
void check_products(const std::string& name, const quant::packed_matrix<F>& packed, const std::vector<float>& w, const planes& format, index block,
                    const std::vector<float>& unit_of_row)
{
    const index outputs = packed.rows(), depth = packed.columns(), whole = (depth + chunk - 1) / chunk * chunk;
    const double tables_a_position = quant::packed_layout<F>::bits / 4.0;
    for (index rows : {1, 3, 9}) {
        for (auto scales : {quant::activation_scales::blocks, quant::activation_scales::rows}) {
            random_source random(static_cast<std::uint64_t>(rows));
            std::vector<float> x(static_cast<std::size_t>(rows * depth));
            for (float& v : x) { v = random.normal(); }
            guarded<float> out(rows * outputs);
            const quant::options options{.compute = quant::compute::tables, .scales = scales};
            quant::matmul<test_arch>(as_const(x, rows, depth), packed, sm::view<float, 2>(out.data(), {rows, outputs}), options);
            CHECK(out.intact());
            std::vector<double> value(static_cast<std::size_t>(rows * outputs)), magnitude(value.size());
            quant::reference::matmul(as_const(x, rows, depth), as_const(w, outputs, depth), {}, {}, [](double sum) { return sum; },
                                     sm::view<double, 2>(value.data(), {rows, outputs}), sm::view<double, 2>(magnitude.data(), {rows, outputs}));
            double squares = 0, expected = 0;
            for (index m = 0; m < rows; ++m) {
                std::vector<float> padded(static_cast<std::size_t>(whole));
                std::copy_n(x.data() + m * depth, depth, padded.data());
                double bound = 0, variance = 0;
                const index step = scales == quant::activation_scales::rows ? whole : block;
                for (index from = 0; from < whole; from += step) {
                    const index count = std::min(step, whole - from);
                    const double entry = largest_sum(format, padded.data() + from, count) / 127, lookups = tables_a_position * static_cast<double>(count);
                    bound += lookups * entry / 2;
                    variance += tables_a_position * static_cast<double>(std::min(step, depth - from)) * entry * entry / 12; // padding has exact zeros
                }
                for (index n = 0; n < outputs; ++n) {
                    const auto at = static_cast<std::size_t>(m * outputs + n);
                    const double unit = static_cast<double>(std::abs(unit_of_row[static_cast<std::size_t>(n)]));
                    const double off = static_cast<double>(out[m * outputs + n]) - value[at];
                    // A weight's parts may be larger than itself: sums of floats are bounded by what a group spans.
                    const double rounding = static_cast<double>(depth + 8) * u * (magnitude[at] + 32 * unit * std::sqrt(static_cast<double>(depth)) * 16);
                    if (!(std::abs(off) <= bound * unit * (1 + 4 * u) + rounding)) {
                        FAIL_CHECK(name << ", " << rows << " rows: out[" << m << ' ' << n << "] is off by " << off << ", allowed " << bound * unit);
                        return;
                    }
                    squares += off * off;
                    expected += variance * unit * unit;
                }
            }
            // Errors of entries are independent, and uniform within half a step but for those that are exact or always the same. Of many
            // tables: the outputs of a row have their errors in common.
            if (depth < 256) { continue; }
            INFO(name << ", " << rows << " rows");
            CHECK(squares < 1.5 * expected);
            CHECK(squares > 0.3 * expected);
        }
    }
}

template <class S>
void check_matrix(const std::string& name, const S& source, const planes& format, index block, float unit = 1.0f)
{
    using F = typename S::format;
    const index rows = source.rows(), columns = source.columns();
    std::vector<float> w(static_cast<std::size_t>(rows * columns)), unit_of_row;
    quant::decode(source, sm::view<float, 2>(w.data(), {rows, columns}));
    for (index row = 0; row < rows; ++row) { unit_of_row.push_back(unit); }
    check_products<F>(name, quant::pack(source), w, format, block, unit_of_row);
}

} // namespace

TEST_CASE("quant: tables of codes of 1 to 4 bits")
{
    random_source random(7);
    constexpr index rows = 75;
    const std::vector<float> one{0.02f};
    for (index columns : {8, 264, 1000}) {
        const auto bits = random_bytes(random, rows * columns / 8), twos = random_bytes(random, rows * columns / 4), ternary = ternary_bytes(random, rows * columns / 4),
                   fours = random_bytes(random, rows * columns / 2);
        const auto matrix = [&](auto format, const std::vector<std::uint8_t>& codes) {
            using F = decltype(format);
            return quant::array_matrix<F>(as_const(codes, rows, columns * F::bits / 8), as_const(one, 1, 1), {.tile = quant::per_tensor});
        };
        check_matrix("1 bit", matrix(quant::unsigned_integer<1, float>{}, bits), {{0, 0, 0.5}}, 512, 0.02f);
        check_matrix("2 bits", matrix(quant::unsigned_integer<2, float>{}, twos), {{0, 1.5, 0}}, 512, 0.02f);
        check_matrix("ternary", matrix(quant::ternary<float>{}, ternary), {{0, 1, 0}}, 512, 0.02f);
        check_matrix("ternary with 2", matrix(quant::ternary<float>{}, twos), {{0, 1.5, 0}}, 512, 0.02f);
        check_matrix("4 bits", matrix(quant::signed_integer<4, float, false>{}, fours), {{7.5, 0, 0}}, 256, 0.02f);
    }
    // Three bits: a plane of two, and one of one that counts four times.
    std::vector<std::int32_t> words(3 * 320 / 32 * rows);
    for (auto& word : words) { word = static_cast<std::int32_t>(random.bits()); }
    const std::vector<sm::f16> halves(5 * rows, sm::f16(0.015625f));
    check_matrix("3 bits in groups of 64", quant::gptq_matrix<3>(as_const(words, 30, rows), {}, as_const(halves, 5, rows), {.group = 64}), {{0, 1.5, 2}}, 64,
                 0.015625f);
}

TEST_CASE("quant: tables are exact where their entries are integers")
{
    random_source random(9);
    constexpr index rows = 37, columns = 704, tokens = 10;
    const auto codes = ternary_bytes(random, rows * columns / 4);
    const std::vector<float> scale{0.5f};
    const quant::ternary_matrix<float> source(as_const(codes, rows, columns / 4), as_const(scale, 1, 1));
    const auto packed = quant::pack(source);
    std::vector<float> w(rows * columns), x(tokens * columns), out(tokens * rows);
    quant::decode(source, sm::view<float, 2>(w.data(), {rows, columns}));
    // Every block has two that share a table and whose magnitudes are 127 together, and none that exceed it: a step of 1.
    for (float& v : x) { v = static_cast<float>(random.integer(-63, 63)); }
    for (index at = 0; at < tokens * columns; at += chunk) { x[static_cast<std::size_t>(at)] = 64, x[static_cast<std::size_t>(at) + 4] = -63; }
    for (auto scales : {quant::activation_scales::blocks, quant::activation_scales::rows}) {
        quant::matmul<test_arch>(as_const(x, tokens, columns), packed, sm::view<float, 2>(out.data(), {tokens, rows}),
                                 {.compute = quant::compute::tables, .scales = scales});
        for (index m = 0; m < tokens; ++m) {
            for (index n = 0; n < rows; ++n) {
                float want = 0;
                for (index k = 0; k < columns; ++k) { want += x[static_cast<std::size_t>(m * columns + k)] * w[static_cast<std::size_t>(n * columns + k)]; }
                REQUIRE(out[static_cast<std::size_t>(m * rows + n)] == want);
            }
        }
    }
}

TEST_CASE("quant: tables of GGUF blocks, of one row as of many, on any number of threads")
{
    random_source random(3);
    constexpr index rows = 50, columns = 512, tokens = 11;
    const auto check = [&](auto format, index half, double tolerance) {
        using F = decltype(format);
        std::vector<unsigned char> bytes(static_cast<std::size_t>(gguf::stored_bytes<F>(rows, columns)));
        for (unsigned char& b : bytes) { b = static_cast<unsigned char>(random.bits()); }
        for (std::size_t block = static_cast<std::size_t>(half); block < bytes.size(); block += F::block_bytes) { bytes[block + 1] = 0x24; }
        const gguf::matrix<F> source(bytes.data(), static_cast<index>(bytes.size()), rows, columns);
        const auto packed = quant::pack(source);
        CHECK(quant::tables_pay<test_arch>(packed, 1) == sm::simd::backend<test_arch>::has_short_sums);
        CHECK_FALSE(quant::tables_pay<test_arch>(packed, 2));
        std::vector<float> w(rows * columns), x(tokens * columns), out(tokens * rows), again(tokens * rows);
        quant::decode(source, sm::view<float, 2>(w.data(), {rows, columns}));
        for (float& v : x) { v = random.normal(); }
        const quant::options options{.compute = quant::compute::tables};
        quant::matmul<test_arch>(as_const(x, tokens, columns), packed, sm::view<float, 2>(out.data(), {tokens, rows}), options);
        double off = 0, all = 0;
        for (index m = 0; m < tokens; ++m) {
            for (index n = 0; n < rows; ++n) {
                double want = 0;
                for (index k = 0; k < columns; ++k) {
                    want += static_cast<double>(x[static_cast<std::size_t>(m * columns + k)]) * static_cast<double>(w[static_cast<std::size_t>(n * columns + k)]);
                }
                off += std::pow(static_cast<double>(out[static_cast<std::size_t>(m * rows + n)]) - want, 2), all += want * want;
            }
        }
        INFO(F::name);
        CHECK(std::sqrt(off / all) < tolerance);
        sm::context ctx{sm::parallel_for{3, on_threads{}}};
        quant::matmul<test_arch>(as_const(x, tokens, columns), packed, sm::view<float, 2>(again.data(), {tokens, rows}), options, ctx);
        CHECK(std::memcmp(again.data(), out.data(), sizeof(float) * out.size()) == 0);
        quant::matmul<test_arch>(sm::view<const float, 2>(x.data() + 9 * columns, {index{1}, columns}), packed,
                                 sm::view<float, 2>(again.data(), {index{1}, rows}), options);
        CHECK(std::memcmp(again.data(), out.data() + 9 * rows, sizeof(float) * rows) == 0);
        // NaN stays in its row.
        x[4 * columns + 3] = std::numeric_limits<float>::quiet_NaN();
        quant::matmul<test_arch>(as_const(x, tokens, columns), packed, sm::view<float, 2>(again.data(), {tokens, rows}), options);
        for (index i = 0; i < tokens * rows; ++i) { REQUIRE(std::isnan(again[static_cast<std::size_t>(i)]) == (i / rows == 4)); }
    };
    // Relative errors that docs/quant.md publishes, and half of it again.
    check(gguf::tq2_0{}, 64, 0.013);
    check(gguf::iq4_nl{}, 0, 0.016);
}

} // namespace quant_tables_test
