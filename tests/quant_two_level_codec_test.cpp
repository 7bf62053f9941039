// SPDX-License-Identifier: MIT
// Encoders of two levels of scales: what each number must be. What they and the matrix refuse.
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"
#include "support/refusals.hpp"

#include <seqmix/quant.hpp>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

namespace quant_two_level_codec_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
using sm::index;

namespace {

std::size_t at(index n) { return static_cast<std::size_t>(n); }

/// The arrays of a matrix, in memory with guards; codes are 0xff before.
template <class Scale>
struct arrays {
    using format = quant::two_level_int4<Scale>;
    index rows, columns, group, groups = (columns + group - 1) / group, bytes = (columns + 1) / 2;
    guarded<std::uint8_t> codes{rows * bytes}, group_scales{rows * groups};
    guarded<Scale> scales{rows};

    arrays(index rows_, index columns_, index group_) : rows(rows_), columns(columns_), group(group_) {}

    sm::view<std::uint8_t, 2> c() { return {codes.data(), {rows, bytes}}; }
    sm::view<std::uint8_t, 2> g() { return {group_scales.data(), {rows, groups}}; }
    sm::view<Scale, 2> s() { return {scales.data(), {rows, index{1}}}; }
    std::vector<float> decoded()
    {
        CHECK((codes.intact() && group_scales.intact() && scales.intact()));
        std::vector<float> w(at(rows * columns));
        quant::decode(quant::two_level_matrix<Scale>(c(), g(), s(), {.group = group, .columns = columns}),
                      sm::view<float, 2>(w.data(), {rows, columns}));
        return w;
    }
};

/// Groups of very different sizes; one row of zeros.
std::vector<float> weights_of(index rows, index columns)
{
    random_source random(static_cast<std::uint64_t>(columns));
    std::vector<float> w;
    for (index r = 0; r < rows; ++r) {
        for (index c = 0; c < columns; ++c) { w.push_back(r == 1 ? 0.0f : random.normal() * std::exp2(static_cast<float>(c / 24 % 5) - 2.0f)); }
    }
    return w;
}

/// The least error of a group under a scale, over codes one by one.
double error_under(const std::vector<float>& w, index first, index end, double scale, int group_scale, const std::vector<float>& importance, index column)
{
    double sum = 0;
    for (index i = first; i < end; ++i, ++column) {
        double least = 1e300;
        for (int q = -8; q <= 7; ++q) {
            const double apart = static_cast<double>(static_cast<float>(scale * (group_scale * q))) - static_cast<double>(w[at(i)]);
            least = std::min(least, apart * apart);
        }
        sum += least * (importance.empty() ? 1.0 : static_cast<double>(importance[at(column)]));
    }
    return sum;
}

double error_of_row(const std::vector<float>& got, const std::vector<float>& w, index row, index columns, const std::vector<float>& importance)
{
    double sum = 0;
    for (index c = 0; c < columns; ++c) {
        const double apart = static_cast<double>(got[at(row * columns + c)]) - static_cast<double>(w[at(row * columns + c)]);
        sum += apart * apart * (importance.empty() ? 1.0 : static_cast<double>(importance[at(c)]));
    }
    return sum;
}

} // namespace

TEST_CASE("quant: two levels of scales, by rounding to the nearest")
{
    constexpr index rows = 5, columns = 117, group = 24;
    const std::vector<float> w = weights_of(rows, columns);
    arrays<sm::f16> to(rows, columns, group);
    quant::encode<arrays<sm::f16>::format>(sm::view<const float, 2>(w.data(), {rows, columns}), to.c(), to.g(), to.s(), {.group = group});
    const std::vector<float> got = to.decoded();
    for (index r = 0; r < rows; ++r) {
        double largest = 0;
        for (index c = 0; c < columns; ++c) { largest = std::max(largest, std::abs(static_cast<double>(w[at(r * columns + c)]))); }
        const auto scale = static_cast<double>(static_cast<float>(to.scales[r]));
        CHECK(scale == static_cast<double>(static_cast<float>(sm::f16(static_cast<float>(largest / 112)))));
        for (index g = 0; g < to.groups; ++g) {
            double reach = 0;
            const index end = std::min(columns, (g + 1) * group);
            for (index c = g * group; c < end; ++c) { reach = std::max(reach, std::abs(static_cast<double>(w[at(r * columns + c)]))); }
            int nearest = 1;
            for (int s = 2; s <= 16; ++s) {
                if (std::abs(s * scale * 7 - reach) < std::abs(nearest * scale * 7 - reach)) { nearest = s; }
            }
            CHECK(static_cast<int>(to.group_scales[r * to.groups + g]) == nearest);
            CHECK(error_under(w, r * columns + g * group, r * columns + end, scale, nearest, {}, 0) ==
                  [&] {
                      double sum = 0;
                      for (index c = g * group; c < end; ++c) {
                          const double apart = static_cast<double>(got[at(r * columns + c)]) - static_cast<double>(w[at(r * columns + c)]);
                          sum += apart * apart;
                      }
                      return sum;
                  }());
        }
        CHECK((to.codes[r * to.bytes + to.bytes - 1] & 0xf0) == 0); // beyond the columns
    }
}

TEST_CASE("quant: two levels of scales that err least")
{
    constexpr index rows = 4, columns = 96, group = 24;
    const std::vector<float> w = weights_of(rows, columns);
    std::vector<float> importance;
    for (index c = 0; c < columns; ++c) { importance.push_back(c % 7 == 0 ? 20.0f : 0.5f); }
    const sm::view<const float, 2> weights(w.data(), {rows, columns});
    arrays<float> plain(rows, columns, group), clipped(rows, columns, group);
    using format = arrays<float>::format;
    quant::encode<format>(weights, plain.c(), plain.g(), plain.s(), {.group = group});
    const std::tuple<float, int, std::vector<float>> searches[] = {{0.5f, 10, {}}, {0.5f, 10, importance}, {0.875f, 1, importance}, {0.96875f, 1, {}}};
    for (const auto& [clip_least, steps, by] : searches) {
        quant::clip_options clip{.least = clip_least, .steps = steps};
        const auto low_ratio = static_cast<double>(clip_least);
        if (!by.empty()) { clip.importance = {by.data(), {columns}}; }
        quant::encode_clipped<format>(weights, clipped.c(), clipped.g(), clipped.s(), {.group = group}, clip);
        const std::vector<float> nearest = plain.decoded(), got = clipped.decoded();
        for (index r = 0; r < rows; ++r) {
            // Every row scale that is tried, every group scale in reach of the search, every code.
            double best = 1e300, largest = 0;
            for (index c = 0; c < columns; ++c) { largest = std::max(largest, std::abs(static_cast<double>(w[at(r * columns + c)]))); }
            for (int step = 0; step <= steps; ++step) {
                const auto scale = static_cast<double>(static_cast<float>(largest * (1.0 + (low_ratio - 1.0) * step / steps) / 112));
                double sum = 0;
                for (index g = 0; g < columns / group; ++g) {
                    double reach = 0, least = 1e300;
                    for (index c = g * group; c < (g + 1) * group; ++c) { reach = std::max(reach, std::abs(static_cast<double>(w[at(r * columns + c)]))); }
                    const auto rounded = [&](double extent) { return scale > 0 ? std::clamp(std::nearbyint(extent / (7 * scale)), 1.0, 16.0) : 1.0; };
                    const int low = static_cast<int>(rounded(low_ratio * reach)), high = std::min(16, static_cast<int>(rounded(reach)) + 1);
                    for (int s = low; s <= high; ++s) {
                        least = std::min(least, error_under(w, r * columns + g * group, r * columns + (g + 1) * group, scale, s, by, g * group));
                    }
                    sum += least;
                }
                best = std::min(best, sum);
            }
            const double error = error_of_row(got, w, r, columns, by);
            CHECK(error <= error_of_row(nearest, w, r, columns, by));
            CHECK(std::abs(error - best) <= 1e-12 * best);
            if (r != 1 && steps > 1) { CHECK(error < error_of_row(nearest, w, r, columns, by)); }
        }
    }
}

namespace {

/// 4 x 40 in groups of 16.
struct matrix_call {
    std::vector<std::uint8_t> code_memory = std::vector<std::uint8_t>(80, 0x77), group_memory = std::vector<std::uint8_t>(12, 16);
    std::vector<float> scale_memory = minus_ones(4);
    sm::view<const std::uint8_t, 2> codes{code_memory.data(), {4, 20}}, group_scales{group_memory.data(), {4, 3}};
    sm::view<const float, 2> scales{scale_memory.data(), {4, 1}};
    quant::two_level_options options{.group = 16};

    void call() const { quant::two_level_matrix<>(codes, group_scales, scales, options); }
    bool untouched() const { return all_minus_ones({&scale_memory}); }
};

struct encode_call {
    std::vector<float> weight_memory = minus_ones(160), importance_memory = minus_ones(40);
    arrays<float> to{4, 40, 16};
    sm::view<const float, 2> weights{weight_memory.data(), {4, 40}};
    sm::view<std::uint8_t, 2> codes = to.c(), group_scales = to.g();
    sm::view<float, 2> scales = to.s();
    quant::two_level_options options{.group = 16};
    quant::clip_options clip{};

    void call() const { quant::encode_clipped<quant::two_level_int4<float>>(weights, codes, group_scales, scales, options, clip); }
    bool untouched() const { return all_untouched(to.codes) && all_untouched(to.group_scales) && all_untouched(to.scales); }
};
struct nearest_call : encode_call {
    void call() const { quant::encode<quant::two_level_int4<float>>(weights, codes, group_scales, scales, options); }
};

} // namespace

TEST_CASE("quant: refusals of two levels of scales")
{
    CHECK_NOTHROW(matrix_call().call());
    check_refusals<matrix_call>("quant::two_level_matrix", {
        {"null codes", [](auto& c) { c.codes = null(c.codes); }, {"codes is null"}},
        {"null group scales", [](auto& c) { c.group_scales = null(c.group_scales); }, {"group_scales is null"}},
        {"null scales", [](auto& c) { c.scales = null(c.scales); }, {"scales is null"}},
        {"groups", [](auto& c) { c.group_scales = resized(c.group_scales, 1, 2); }, {"group_scales", "2", "3"}},
        {"rows of group scales", [](auto& c) { c.group_scales = resized(c.group_scales, 0, 3); }, {"group_scales", "3", "4"}},
        {"rows of scales", [](auto& c) { c.scales = resized(c.scales, 0, 3); }, {"scales", "3", "4"}},
        {"scales of groups", [](auto& c) { c.scales = {c.scale_memory.data(), {4, 3}, {0, 1}}; }, {"scales", "3", "1"}},
        {"group 0", [](auto& c) { c.options.group = 0; }, {"group is 0"}},
        {"columns", [](auto& c) { c.options.columns = 41; }, {"codes' bytes a row is 20", "21"}},
        {"stride", [](auto& c) { c.codes = {c.code_memory.data(), {4, 20}, {20, 2}}; }, {"stride 2"}},
        {"group scale 17", [](auto& c) { c.group_memory[11] = 17; }, {"group_scales has a 17", "16"}},
    });
    CHECK_NOTHROW(encode_call().call());
    check_refusals<nearest_call>("quant::encode:", {
        {"null weights", [](auto& c) { c.weights = null(c.weights); }, {"weights is null"}},
        {"null scales", [](auto& c) { c.scales = null(c.scales); }, {"scales is null"}},
        {"columns", [](auto& c) { c.weights = resized(c.weights, 1, 38); }, {"codes' bytes a row is 20", "19"}},
        {"given columns", [](auto& c) { c.options.columns = 39; }, {"columns is 39", "40"}},
        {"rows", [](auto& c) { c.weights = resized(c.weights, 0, 3); }, {"number of rows is 4", "3"}},
        {"codes over group scales", [](auto& c) { c.group_scales = {c.codes.data(), {4, 3}}; }, {"codes overlaps group_scales"}},
        {"scales over weights", [](auto& c) { c.scales = {c.weight_memory.data(), {4, 1}}; }, {"scales overlaps weights"}},
        {"infinity", [](auto& c) { c.weight_memory[81] = INFINITY; }, {"weights has inf at row 2, column 1"}},
    });
    check_refusals<encode_call>("quant::encode_clipped:", {
        {"least", [](auto& c) { c.clip.least = 0.0f; }, {"least is 0"}},
        {"steps", [](auto& c) { c.clip.steps = -1; }, {"steps is negative"}},
        {"importance", [](auto& c) { c.clip.importance = {c.importance_memory.data(), {40}}; }, {"importance has -1.0"}},
        {"length of importance", [](auto& c) { c.clip.importance = {c.importance_memory.data(), {39}}; }, {"importance's length is 39", "40"}},
    });
}

} // namespace quant_two_level_codec_test
