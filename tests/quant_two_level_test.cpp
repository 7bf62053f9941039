// SPDX-License-Identifier: MIT
// Products with two levels of scales: against the definition in double, and bit for bit those of the bytes that codes become.
#include "quant_case.hpp"
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"

#include <seqmix/quant/reference.hpp>

#include <cmath>
#include <numeric>
#include <string>

namespace quant_two_level_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
using namespace quant_case;
using quant::activation_scales;
using quant::compute;
using sm::index;

namespace {

constexpr index outputs = 37;

/// Any nibbles, group scales 0 to 16, row scales of three binades.
struct stored {
    index columns, group, groups = (columns + group - 1) / group;
    std::vector<std::uint8_t> codes, group_scales;
    std::vector<float> scales;

    stored(std::uint64_t seed, index columns_, index group_) : columns(columns_), group(group_)
    {
        random_source random(seed);
        for (index i = 0; i < outputs * ((columns + 1) / 2); ++i) { codes.push_back(static_cast<std::uint8_t>(random.bits())); }
        for (index i = 0; i < outputs * groups; ++i) {
            group_scales.push_back(static_cast<std::uint8_t>(i % 3 == 0 ? 16 : random.integer(0, 16)));
        }
        for (index i = 0; i < outputs; ++i) { scales.push_back(random.uniform(0.001f, 0.008f)); }
    }

    quant::two_level_matrix<> matrix() const
    {
        return {{codes.data(), {outputs, (columns + 1) / 2}},
                {group_scales.data(), {outputs, groups}},
                {scales.data(), {outputs, index{1}}},
                {.group = group, .columns = columns}};
    }
    int group_scale(index row, index column) const { return group_scales[static_cast<std::size_t>(row * groups + column / group)]; }
    int code(index row, index column) const
    {
        const int byte = codes[static_cast<std::size_t>(row * ((columns + 1) / 2) + column / 2)];
        const int nibble = byte >> 4 * (column % 2) & 15;
        return nibble < 8 ? nibble : nibble - 16;
    }
    /// group scale · q.
    std::vector<std::int8_t> bytes() const
    {
        std::vector<std::int8_t> all;
        for (index r = 0; r < outputs; ++r) {
            for (index c = 0; c < columns; ++c) { all.push_back(static_cast<std::int8_t>(group_scale(r, c) * code(r, c))); }
        }
        return all;
    }
    std::vector<float> weights() const
    {
        std::vector<float> all;
        for (index r = 0; r < outputs; ++r) {
            for (index c = 0; c < columns; ++c) { // exact in double: 24 bits times 8
                const double scale = static_cast<double>(scales[static_cast<std::size_t>(r)]);
                all.push_back(static_cast<float>(scale * (group_scale(r, c) * code(r, c))));
            }
        }
        return all;
    }
};

template <class X>
void check_within(const std::vector<float>& got, const std::vector<X>& x, double x_scale, const std::vector<float>& w, index depth,
                  double relative)
{
    const index rows = static_cast<index>(x.size()) / depth;
    std::vector<double> value(got.size()), size(got.size());
    quant::reference::matmul(sm::view<const X, 2>(x.data(), {rows, depth}), matrix(w, depth), {}, {}, [](double sum) { return sum; },
                             matrix(value, outputs), matrix(size, outputs));
    for (std::size_t i = 0; i < got.size(); ++i) {
        INFO("row " << i / outputs << ", column " << i % outputs);
        REQUIRE(std::abs(static_cast<double>(got[i]) - x_scale * value[i]) <= relative * x_scale * size[i] + 1e-37);
    }
}

/// Products that are to be within their bounds of the definition; bytes with no error but those of sums.
template <class W>
void check_products(const W& packed, const std::vector<float>& w, index depth)
{
    for (index rows : {1, 2, 7, 19}) {
        INFO(rows << " rows");
        const std::vector<float> x = normals(static_cast<std::uint64_t>(rows), rows * depth);
        std::vector<float> out(static_cast<std::size_t>(rows * outputs));
        quant::matmul<test_arch>(matrix(x, depth), packed, matrix(out, outputs));
        check_within(out, x, 1.0, w, depth, static_cast<double>(depth + 4) * u);

        random_source random(static_cast<std::uint64_t>(depth));
        std::vector<std::int8_t> bytes;
        for (index i = 0; i < rows * depth; ++i) { bytes.push_back(static_cast<std::int8_t>(i % 5 == 0 ? -128 : random.integer(-128, 127))); }
        const std::vector<float> x_scale = {0.25f};
        quant::matmul<test_arch>(matrix(bytes, depth), packed, matrix(out, outputs), {.compute = compute::int8, .x_scale = list(x_scale)});
        // A weight was rounded, and a segment's sum is converted, scaled and added, the whole scaled once more.
        check_within(out, bytes, 0.25, w, depth, static_cast<double>(depth / 256 + 6) * u);
    }
}

template <class V, class W>
void check_same_bits(const V& got, const W& want, index depth, std::initializer_list<quant::options> ways)
{
    for (index rows : {1, 3, 8, 9, 30}) {
        const std::vector<float> x = normals(static_cast<std::uint64_t>(rows), rows * depth);
        std::vector<float> a(static_cast<std::size_t>(rows * outputs)), b(a.size());
        for (const quant::options& how : ways) {
            quant::matmul<test_arch>(matrix(x, depth), got, matrix(a, outputs), how);
            quant::matmul<test_arch>(matrix(x, depth), want, matrix(b, outputs), how);
            INFO(rows << " rows");
            CHECK(same_bits(a, b));
        }
    }
}

} // namespace

TEST_CASE("quant: two levels of scales, decoded, packed and multiplied")
{
    for (const auto& [columns, group] : {std::pair<index, index>{1, 128}, {65, 16}, {1104, 16}, {2176, 32}, {144, 48}, {1536, 128}, {96, 300}}) {
        INFO(columns << " columns in groups of " << group);
        const stored s(static_cast<std::uint64_t>(columns), columns, group);
        const std::vector<float> w = s.weights();
        std::vector<float> decoded(w.size());
        quant::decode(s.matrix(), matrix(decoded, columns));
        CHECK(decoded == w);
        CHECK(quant::weight(s.matrix(), outputs - 1, columns - 1) == w.back());

        const index bytes = quant::packed_bytes(s.matrix());
        guarded<unsigned char> memory(bytes);
        const auto packed = quant::pack(s.matrix(), sm::workspace(memory.data(), static_cast<std::size_t>(bytes)));
        CHECK(memory.intact());
        std::fill(decoded.begin(), decoded.end(), -1.0f);
        quant::decode(packed, matrix(decoded, columns));
        CHECK(decoded == w);
        if (columns % group == 0 && group % 16 == 0 && group != 48) {
            const index depth = (columns + 31) / 32 * 32; // a nibble a weight, a float a row and a byte a group of a row
            CHECK(bytes == 3 * (8 * depth + 64 + (16 * s.groups + 63) / 64 * 64));
        }
        check_products(packed, w, columns);
    }
}

TEST_CASE("quant: two levels of scales give the products of the bytes that codes become")
{
    for (const auto& [columns, group] : {std::pair<index, index>{2176, 16}, {1088, 32}, {1536, 128}}) {
        INFO(columns << " columns in groups of " << group);
        const stored s(static_cast<std::uint64_t>(group), columns, group);
        const auto packed = quant::pack(s.matrix());
        const std::vector<std::int8_t> bytes = s.bytes();
        const auto of_bytes = quant::pack(quant::int8_matrix<>(matrix(bytes, columns), {s.scales.data(), {outputs, index{1}}}));
        check_same_bits(packed, of_bytes, columns,
                        {{.compute = compute::int8},
                         {.compute = compute::int8, .scales = activation_scales::rows},
                         {.compute = compute::int8, .scales = activation_scales::blocks},
                         {.compute = compute::bf16}});
        if (group % 32 != 0) { continue; }
        // By tables groups are scaled one by one, with scales that are rounded.
        std::vector<float> scales;
        for (std::size_t i = 0; i < s.group_scales.size(); ++i) {
            scales.push_back(s.scales[i / static_cast<std::size_t>(s.groups)] * static_cast<float>(s.group_scales[i]));
        }
        const auto of_nibbles = quant::pack(quant::int4_matrix<>(matrix(s.codes, columns / 2), matrix(scales, s.groups), {.tile = quant::per_group(group)}));
        check_same_bits(packed, of_nibbles, columns, {{.compute = compute::tables}});
    }
}

TEST_CASE("quant: two levels of scales with columns in another order, and of no columns")
{
    const stored s(5, 160, 32);
    std::vector<std::int32_t> order(160);
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = 0; i < order.size(); ++i) { std::swap(order[i], order[i * 37 % 160]); }
    const quant::permuted_matrix permuted(s.matrix(), list(order));
    std::vector<float> w(outputs * 160);
    quant::decode(permuted, matrix(w, 160));
    const std::vector<float> stored_w = s.weights();
    for (index r = 0; r < outputs; ++r) {
        for (index p = 0; p < 160; ++p) {
            REQUIRE(w[static_cast<std::size_t>(r * 160 + order[static_cast<std::size_t>(p)])] == stored_w[static_cast<std::size_t>(r * 160 + p)]);
        }
    }
    check_products(quant::pack(permuted), w, 160);

    const stored none(5, 0, 32);
    const auto packed = quant::pack(none.matrix());
    for (auto how : {compute::floats, compute::int8, compute::tables}) {
        for (index rows : {1, 20}) {
            std::vector<float> out(static_cast<std::size_t>(rows * outputs), -1.0f);
            quant::matmul<test_arch>(sm::view<const float, 2>(nullptr, {rows, index{0}}), packed, matrix(out, outputs), {.compute = how});
            CHECK(out == std::vector<float>(out.size(), 0.0f));
        }
    }
}

} // namespace quant_two_level_test
