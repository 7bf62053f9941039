// SPDX-License-Identifier: MIT
// Products of packed weights against the definition in double, in every format, shape and way to compute; packing and back.
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

namespace quant_matmul_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using quant_case::as_const;
using quant_case::u;
using sm::index;
using test_support::on_threads;

namespace {

/// Bytes of blocks with scales that are ordinary numbers: at `halves` stand f16.
template <class F>
std::vector<unsigned char> blocks_of(random_source& random, index rows, index columns, std::initializer_list<index> halves)
{
    std::vector<unsigned char> bytes(static_cast<std::size_t>(gguf::stored_bytes<F>(rows, columns)));
    for (unsigned char& b : bytes) { b = static_cast<unsigned char>(random.bits()); }
    for (std::size_t block = 0; block < bytes.size(); block += F::block_bytes) {
        for (index half : halves) { bytes[block + static_cast<std::size_t>(half) + 1] = static_cast<unsigned char>(0x20 | (random.bits() & 0x83)); }
    }
    return bytes;
}

/// A product's numbers in double, and what bounds its errors.
struct expectation {
    std::vector<double> value, sum_of_magnitudes;
};

expectation expect(const std::vector<float>& x, index rows, const std::vector<float>& w, index outputs, index depth)
{
    expectation e{std::vector<double>(static_cast<std::size_t>(rows * outputs)), std::vector<double>(static_cast<std::size_t>(rows * outputs))};
    quant::reference::matmul(as_const(x, rows, depth), as_const(w, outputs, depth), {}, {}, [](double sum) { return sum; },
                             sm::view<double, 2>(e.value.data(), {rows, outputs}), sm::view<double, 2>(e.sum_of_magnitudes.data(), {rows, outputs}));
    return e;
}

/// Activations as the int8 product has them, by its description: blocks of `block` columns, q = round(x / scale).
std::vector<float> rounded_to_bytes(const std::vector<float>& x, index depth, index block, std::vector<float>& step)
{
    std::vector<float> y(x.size());
    step.resize(x.size());
    for (std::size_t first = 0; first < x.size();) {
        const index column = static_cast<index>(first) % depth, count = std::min(block, depth - column);
        float most = 0;
        for (index i = 0; i < count; ++i) { most = std::max(most, std::abs(x[first + static_cast<std::size_t>(i)])); }
        const float scale = std::bit_cast<float>(std::bit_cast<std::uint32_t>(most / 127.0f) & ~3u), factor = scale > 0 ? 1.0f / scale : 0.0f;
        for (index i = 0; i < count; ++i) {
            const std::size_t at = first + static_cast<std::size_t>(i);
            y[at] = std::nearbyint(x[at] * factor) * scale;
            step[at] = scale;
        }
        first += static_cast<std::size_t>(count);
    }
    return y;
}

template <class F>
struct named_case {
    std::string name;
    index group; ///< columns that share a scale
    bool sorted; ///< columns stand in another order
};

template <class F>
void check_products(const named_case<F>& c, const quant::packed_matrix<F>& packed, const std::vector<float>& w)
{
    const index outputs = packed.rows(), depth = packed.columns();
    for (index rows : {index{1}, index{2}, index{7}, index{9}, index{19}}) {
        random_source random(static_cast<std::uint64_t>(rows));
        std::vector<float> x(static_cast<std::size_t>(rows * depth));
        for (float& v : x) { v = random.normal(); }
        const expectation want = expect(x, rows, w, outputs, depth);
        guarded<float> out(rows * outputs);
        const sm::view<float, 2> to(out.data(), {rows, outputs});
        const auto all_within = [&](const expectation& e, double relative, double absolute) {
            for (index i = 0; i < rows * outputs; ++i) {
                const auto at = static_cast<std::size_t>(i);
                const double bound = relative * e.sum_of_magnitudes[at] + absolute;
                if (!(std::abs(static_cast<double>(out[i]) - e.value[at]) <= bound)) {
                    FAIL_CHECK(c.name << ", " << rows << " rows: out[" << i / outputs << ' ' << i % outputs << "] is " << out[i] << ", want "
                                      << e.value[at] << ", tolerance " << bound);
                    return;
                }
            }
        };

        quant::matmul<test_arch>(as_const(x, rows, depth), packed, to, {.compute = quant::compute::floats});
        all_within(want, static_cast<double>(depth + 4) * u, 1e-37);

        // To bf16 both factors are rounded, if at all, by up to 2^-8 of theirs.
        quant::matmul<test_arch>(as_const(x, rows, depth), packed, to, {.compute = quant::compute::bf16});
        all_within(want, 0x1.01p-7 + static_cast<double>(depth + 4) * u, 1e-37);

        if constexpr (F::integer_codes) {
            // A weight's parts may be larger than itself: a product's terms are bounded by what the group spans.
            double span = 0;
            for (float v : w) { span = std::max(span, 2.0 * std::abs(static_cast<double>(v))); }
            for (auto scales : {quant::activation_scales::rows, quant::activation_scales::blocks}) {
                quant::matmul<test_arch>(as_const(x, rows, depth), packed, to, {.compute = quant::compute::int8, .scales = scales});
                // A row alone goes the way of few rows: sums of integers are exact, and what follows them is the same.
                for (index row = 0; rows > 8 && row < rows; ++row) {
                    guarded<float> one(outputs);
                    quant::matmul<test_arch>(sm::view<const float, 2>(x.data() + row * depth, {index{1}, depth}), packed,
                                             sm::view<float, 2>(one.data(), {index{1}, outputs}), {.compute = quant::compute::int8, .scales = scales});
                    if (std::memcmp(one.data(), out.data() + row * outputs, sizeof(float) * static_cast<std::size_t>(outputs)) != 0) {
                        FAIL_CHECK(c.name << ", " << rows << " rows: row " << row << " has other bits when it is alone");
                        return;
                    }
                }
                const bool whole = scales == quant::activation_scales::rows;
                index block = whole ? depth : std::min(c.group, depth);
                for (index most = 128; !whole && block > most && c.group < depth;) {
                    block = most;
                    while (c.group % block != 0) { block -= 16; }
                }
                if (!whole && c.group >= depth) { block = 128; }
                if (c.sorted) { // blocks are of other columns: within half a step of the row's largest
                    double most = 0;
                    for (float v : x) { most = std::max(most, static_cast<double>(std::abs(v))); }
                    all_within(want, 0, span / 2 * most / 254 * static_cast<double>(depth) * 1.01);
                    continue;
                }
                std::vector<float> step;
                const std::vector<float> bytes = rounded_to_bytes(x, depth, block, step);
                const expectation rounded = expect(bytes, rows, w, outputs, depth);
                double most = 0;
                for (float v : x) { most = std::max(most, static_cast<double>(std::abs(v))); }
                // Sums of a segment are exact; each of them is converted, scaled twice, added, and less a minimum: five roundings.
                all_within(rounded, 8 * u, 5 * u * span * most * static_cast<double>(depth) * static_cast<double>(depth / 16 + 2) / 4);
            }
        }
        CHECK(out.intact());
    }
}

/// Packs, compares what comes back, multiplies.
template <class S>
void check_matrix(const std::string& name, const S& source, bool sorted = false)
{
    using F = typename S::format;
    INFO(name);
    const index rows = source.rows(), columns = source.columns();
    std::vector<float> w(static_cast<std::size_t>(rows * columns)), back(w.size());
    quant::decode(source, sm::view<float, 2>(w.data(), {rows, columns}));

    const index bytes = quant::packed_bytes(source);
    guarded<unsigned char> memory(bytes);
    const auto packed = quant::pack(source, sm::workspace(memory.data(), static_cast<std::size_t>(bytes)));
    CHECK(memory.intact());
    CHECK(packed.bytes() == bytes);
    quant::decode(packed, sm::view<float, 2>(back.data(), {rows, columns}));
    bool same = true;
    for (std::size_t i = 0; i < w.size(); ++i) {
        same = same && (std::bit_cast<std::uint32_t>(w[i]) == std::bit_cast<std::uint32_t>(back[i]) || (w[i] == 0.0f && back[i] == 0.0f) ||
                        (std::isnan(w[i]) && std::isnan(back[i])));
    }
    CHECK(same);
    CHECK_THROWS_AS(quant::pack(source, sm::workspace(memory.data(), static_cast<std::size_t>(bytes) - 1)), std::invalid_argument);
    check_products<F>({name, source.group(), sorted}, packed, w);
}

template <class F>
void check_blocks(std::initializer_list<index> halves, index columns)
{
    random_source random(static_cast<std::uint64_t>(F::block_bytes));
    constexpr index rows = 37;
    const std::vector<unsigned char> bytes = blocks_of<F>(random, rows, columns, halves);
    const auto size = static_cast<index>(bytes.size());
    const gguf::matrix<F> matrix(bytes.data(), size, rows, columns);
    check_matrix(F::name, matrix);
    std::vector<std::byte> again(bytes.size());
    quant::unpack(quant::pack(matrix), sm::view<std::byte, 1>(again.data(), {size}));
    INFO(F::name);
    CHECK(std::memcmp(again.data(), bytes.data(), bytes.size()) == 0);
}

std::vector<float> scales_of(random_source& random, index count)
{
    std::vector<float> scales(static_cast<std::size_t>(count));
    for (float& s : scales) { s = random.uniform(0.01f, 0.03f); }
    return scales;
}

template <class Byte>
std::vector<Byte> bytes_of(random_source& random, index count)
{
    std::vector<Byte> bytes(static_cast<std::size_t>(count));
    for (Byte& b : bytes) { b = std::bit_cast<Byte>(static_cast<std::uint8_t>(random.bits())); }
    return bytes;
}

} // namespace

TEST_CASE("quant: products of GGUF blocks")
{
    check_blocks<gguf::q4_0>({0}, 96);
    check_blocks<gguf::q8_0>({0}, 96);
    check_blocks<gguf::iq4_nl>({0}, 64);
    check_blocks<gguf::q3_k>({108}, 512);
    check_blocks<gguf::q4_k>({0, 2}, 512);
    check_blocks<gguf::q6_k>({208}, 256);
}

TEST_CASE("quant: products of integers with scales apart")
{
    random_source random(7);
    for (index columns : {1, 33, 1100}) {
        const auto codes = bytes_of<std::int8_t>(random, 20 * columns);
        check_matrix("int8 channels", quant::int8_matrix<float>(as_const(codes, 20, columns), as_const(scales_of(random, 20), 20, 1)));
    }
    const auto nibbles = bytes_of<std::uint8_t>(random, 50 * 192);
    for (index group : {16, 32, 48, 128}) {
        const index groups = (384 + group - 1) / group;
        const auto scales = scales_of(random, 50 * groups);
        check_matrix("int4 g" + std::to_string(group),
                     quant::int4_matrix<float>(as_const(nibbles, 50, index{192}), as_const(scales, 50, groups), {.tile = quant::per_group(group)}));
        const std::vector<std::uint8_t> zeros(static_cast<std::size_t>(50 * groups), 5);
        check_matrix("uint4 g" + std::to_string(group), quant::uint4_matrix<float>(as_const(nibbles, 50, index{192}), as_const(scales, 50, groups),
                                                                                   {.tile = quant::per_group(group), .zeros = as_const(zeros, 50, groups)}));
    }
}

TEST_CASE("quant: products of columns in the order of their groups")
{
    random_source random(3);
    constexpr index rows = 24, columns = 160, groups = 4;
    std::vector<std::int32_t> words(columns / 8 * rows), zeros(groups * rows / 8), group_of(columns);
    for (auto& w : words) { w = static_cast<std::int32_t>(random.bits()); }
    for (auto& z : zeros) { z = static_cast<std::int32_t>(random.bits() & 0x77777777u); }
    for (auto& g : group_of) { g = static_cast<std::int32_t>(random.integer(0, groups - 1)); }
    std::vector<sm::f16> scales(groups * rows);
    for (auto& s : scales) { s = sm::f16(random.uniform(0.01f, 0.03f)); }
    check_matrix("gptq",
                 quant::gptq_matrix<>(as_const(words, columns / 8, rows), as_const(zeros, groups, rows / 8), as_const(scales, groups, rows),
                                      {.group = 40, .g_idx = sm::view<const std::int32_t, 1>(group_of.data(), {columns})}),
                 true);
}

TEST_CASE("quant: products of small floats")
{
    random_source random(5);
    auto codes = bytes_of<std::uint8_t>(random, 40 * 96);
    std::vector<sm::fp8_e4m3> e4m3;
    std::vector<sm::fp8_e5m2> e5m2;
    for (std::uint8_t c : codes) {
        e4m3.push_back(sm::fp8_e4m3::from_bits((c & 0x7f) == 0x7f ? 1 : c));
        e5m2.push_back(sm::fp8_e5m2::from_bits((c & 0x7f) >= 0x7c ? 1 : c));
    }
    const auto scales = scales_of(random, 40);
    check_matrix("e4m3", quant::fp8_matrix<sm::fp8_e4m3>(as_const(e4m3, 40, index{96}), as_const(scales, 40, 1)));
    check_matrix("e5m2", quant::fp8_matrix<sm::fp8_e5m2>(as_const(e5m2, 40, index{96}), as_const(scales, 40, 1)));
}

namespace {

/// Row r of the matrix has code r before a column that x multiplies by 1, and zeros.
template <class E>
void check_every_code()
{
    std::vector<E> codes(256 * 3);
    for (std::size_t c = 0; c < 256; ++c) { codes[3 * c + 1].bits = static_cast<std::uint8_t>(c); }
    const std::vector<float> scale{0.5f}, x{0, 1, 0};
    const auto packed = quant::pack(quant::fp8_matrix<E>(as_const(codes, 256, index{3}), as_const(scale, 1, 1), {.tile = quant::per_tensor}));
    std::vector<float> out(256);
    quant::matmul<test_arch>(as_const(x, 1, index{3}), packed, sm::view<float, 2>(out.data(), {1, 256}));
    for (std::size_t c = 0; c < 256; ++c) {
        const float want = static_cast<float>(codes[3 * c + 1]) * 0.5f;
        INFO("code " << c);
        CHECK((std::isnan(want) ? std::isnan(out[c]) : out[c] == want));
    }
}

} // namespace

TEST_CASE("quant: every code of small floats, in the lanes of the set")
{
    check_every_code<sm::fp8_e4m3>();
    check_every_code<sm::fp8_e5m2>();
}

TEST_CASE("quant: products with scales that are zero, subnormal, infinite, NaN")
{
    constexpr index columns = 64;
    const std::vector<std::int8_t> codes(5 * columns, -128);
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> scales{0.0f, 0x1p-140f, 1.0f, infinity, nan}, x(columns, 3.0f);
    const quant::int8_matrix<float> source(as_const(codes, 5, columns), as_const(scales, 5, 1));
    CHECK_THROWS_AS(quant::pack(source), std::invalid_argument);
    const auto packed = quant::pack(source, {}, {.any_scales = true});
    for (auto how : {quant::compute::floats, quant::compute::int8}) {
        std::vector<float> out(5);
        quant::matmul<test_arch>(as_const(x, 1, columns), packed, sm::view<float, 2>(out.data(), {1, 5}), {.compute = how});
        const double sum = -128.0 * 3 * columns;
        CHECK(out[0] == 0.0f);
        CHECK(static_cast<double>(out[1]) == Approx(sum * 0x1p-140).epsilon(how == quant::compute::floats ? 0 : 8 * u)); // the scale of x loses two bits
        CHECK(static_cast<double>(out[2]) == Approx(sum).epsilon(how == quant::compute::floats ? 0 : 8 * u));
        CHECK(out[3] == -infinity);
        CHECK(std::isnan(out[4]));
    }
}

TEST_CASE("quant: what is asked of a product's end, and who computes it")
{
    random_source random(11);
    constexpr index rows = 13, outputs = 70, depth = 64;
    const auto bytes = blocks_of<gguf::q4_0>(random, outputs, depth, {0});
    const auto packed = quant::pack(gguf::matrix<gguf::q4_0>(bytes.data(), static_cast<index>(bytes.size()), outputs, depth));
    std::vector<float> x(rows * depth), bias(outputs), residual(rows * outputs), plain(rows * outputs), got(rows * outputs);
    for (auto* v : {&x, &bias, &residual}) {
        for (float& f : *v) { f = random.normal(); }
    }
    for (auto how : {quant::compute::floats, quant::compute::int8}) {
        quant::matmul<test_arch>(as_const(x, rows, depth), packed, sm::view<float, 2>(plain.data(), {rows, outputs}), {.compute = how});
        quant::matmul<test_arch>(as_const(x, rows, depth), packed, sm::view<float, 2>(got.data(), {rows, outputs}),
                                 {.bias = sm::view<const float, 1>(bias.data(), {outputs}),
                                  .activation = quant::activation::silu,
                                  .residual = as_const(residual, rows, outputs),
                                  .compute = how});
        for (index i = 0; i < rows * outputs; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const double z = static_cast<double>(plain[at] + bias[static_cast<std::size_t>(i % outputs)]);
            const double want = z / (1 + std::exp(-z)) + static_cast<double>(residual[at]);
            REQUIRE(std::abs(static_cast<double>(got[at]) - want) <= 8 * u * (std::abs(z) + std::abs(static_cast<double>(residual[at]))));
        }
        // Three workers; one row alone; rows that stand apart, in bf16 and back.
        sm::context ctx{sm::parallel_for{3, on_threads{}}};
        quant::matmul<test_arch>(as_const(x, rows, depth), packed, sm::view<float, 2>(got.data(), {rows, outputs}), {.compute = how}, ctx);
        CHECK(std::memcmp(got.data(), plain.data(), sizeof(float) * plain.size()) == 0);
        quant::matmul<test_arch>(sm::view<const float, 2>(x.data() + 5 * depth, {index{1}, depth}), packed,
                                 sm::view<float, 2>(got.data(), {index{1}, outputs}), {.compute = how});
        CHECK(std::memcmp(got.data(), plain.data() + 5 * outputs, sizeof(float) * outputs) == 0);
        std::vector<float> turned(x.size()), columns(got.size());
        for (index m = 0; m < rows; ++m) {
            for (index k = 0; k < depth; ++k) { turned[static_cast<std::size_t>(k * rows + m)] = x[static_cast<std::size_t>(m * depth + k)]; }
        }
        quant::matmul<test_arch>(sm::view<const float, 2>(turned.data(), {rows, depth}, {index{1}, rows}), packed,
                                 sm::view<float, 2>(columns.data(), {rows, outputs}, {index{1}, rows}), {.compute = how});
        bool same = true;
        for (index i = 0; i < rows * outputs; ++i) {
            same = same && columns[static_cast<std::size_t>(i % outputs * rows + i / outputs)] == plain[static_cast<std::size_t>(i)];
        }
        CHECK(same);
    }
    x[3 * depth + 1] = std::numeric_limits<float>::quiet_NaN();
    quant::matmul<test_arch>(as_const(x, rows, depth), packed, sm::view<float, 2>(got.data(), {rows, outputs}), {.compute = quant::compute::int8});
    for (index i = 0; i < rows * outputs; ++i) { REQUIRE(std::isnan(got[static_cast<std::size_t>(i)]) == (i / outputs == 3)); }
}

TEST_CASE("quant: no rows, no columns, no outputs")
{
    for (auto how : {quant::compute::floats, quant::compute::int8}) {
        for (index rows : {0, 1, 20}) {
            for (index outputs : {0, 5}) {
                for (index depth : {0, 32}) {
                    const std::vector<unsigned char> bytes(static_cast<std::size_t>(gguf::stored_bytes<gguf::q4_0>(outputs, depth)));
                    const auto packed = quant::pack(gguf::matrix<gguf::q4_0>(bytes.data(), static_cast<index>(bytes.size()), outputs, depth));
                    const std::vector<float> x(static_cast<std::size_t>(rows * depth), 1.0f);
                    guarded<float> out(rows * outputs);
                    quant::matmul<test_arch>(as_const(x, rows, depth), packed, sm::view<float, 2>(out.data(), {rows, outputs}), {.compute = how});
                    for (index i = 0; i < out.size(); ++i) { REQUIRE(out[i] == 0.0f); }
                    CHECK(out.intact());
                }
            }
        }
    }
}

} // namespace quant_matmul_test
