// SPDX-License-Identifier: MIT

// Encoders that calibrate: what each of their numbers must be, and that outputs err less than with rounding to the nearest.

#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"
#include "support/refusals.hpp"

#include <seqmix/quant.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <type_traits>
#include <vector>

namespace quant_quantizers_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
using sm::index;
using int4 = quant::signed_integer<4, float, false>;
using int8 = quant::signed_integer<8, float, false>;
using uint4 = quant::unsigned_integer<4, float>;
using matrix = sm::view<float, 2>;
using doubles = std::vector<double>;

namespace {

std::size_t at(index n) { return static_cast<std::size_t>(n); }

/// Activations of a few hidden causes with some noise, and every 13th channel an outlier; weights near to normal.
struct layer {
    index tokens, rows, columns;
    std::vector<float> x_memory, w_memory;
    matrix x, w;

    layer(index tokens_, index rows_, index columns_, std::uint64_t seed)
        : tokens(tokens_), rows(rows_), columns(columns_), x_memory(at(tokens * columns)), w_memory(at(rows * columns)),
          x(x_memory.data(), {tokens, columns}), w(w_memory.data(), {rows, columns})
    {
        constexpr index causes = 6;
        random_source random(seed);
        const std::vector<float> mixing = random.normals(at(causes * columns));
        for (index m = 0; m < tokens; ++m) {
            const std::vector<float> cause = random.normals(at(causes));
            for (index k = 0; k < columns; ++k) {
                float sum = 0.25f * random.normal();
                for (index c = 0; c < causes; ++c) { sum += cause[at(c)] * mixing[at(c * columns + k)]; }
                x(m, k) = k % 13 == 5 ? 20.0f * sum : sum;
            }
        }
        w_memory = random.normals(at(rows * columns), 0.05f);
        w = {w_memory.data(), {rows, columns}};
    }

    doubles hessian() const
    {
        doubles h(at(columns * columns));
        quant::accumulate_hessian(x, sm::view<double, 2>(h.data(), {columns, columns}));
        return h;
    }
};

/// The arrays of a matrix, and their numbers.
template <class F>
struct arrays {
    quant::encode_options<F> options;
    index rows, columns, down, across, bytes;
    guarded<typename F::code_type> codes;
    guarded<typename F::scale_type> scales;
    guarded<typename F::zero_type> zeros;

    arrays(index rows_, index columns_, quant::scale_tile tile)
        : rows(rows_), columns(columns_), down(tile.rows > 0 ? (rows + tile.rows - 1) / tile.rows : 1),
          across(tile.columns > 0 ? (columns + tile.columns - 1) / tile.columns : 1), bytes((columns * F::bits + 7) / 8),
          codes(rows * bytes), scales(down * across), zeros(down * across)
    {
        options.tile = tile;
        if constexpr (F::form == quant::affine::scale_and_zero) { options.zeros = {zeros.data(), {down, across}}; }
    }
    sm::view<typename F::code_type, 2> code_view() { return {codes.data(), {rows, bytes}}; }
    sm::view<typename F::scale_type, 2> scale_view() { return {scales.data(), {down, across}}; }
    quant::array_matrix<F> stored()
    {
        quant::array_options<F> read;
        read.tile = options.tile, read.columns = columns, read.zeros = options.zeros;
        return {code_view(), scale_view(), read};
    }
    std::vector<float> decoded()
    {
        CHECK((codes.intact() && scales.intact() && zeros.intact()));
        std::vector<float> numbers(at(rows * columns));
        quant::decode(stored(), matrix(numbers.data(), {rows, columns}));
        return numbers;
    }
    bool same(arrays& other)
    {
        return std::equal(codes.begin(), codes.end(), other.codes.begin()) && std::equal(scales.begin(), scales.end(), other.scales.begin()) &&
               std::equal(zeros.begin(), zeros.end(), other.zeros.begin());
    }
};

template <class F>
void nearest(const layer& l, arrays<F>& to)
{
    quant::encode<F>(l.w, to.code_view(), to.scale_view(), to.options);
}
template <class F>
void clipped(const layer& l, arrays<F>& to, const quant::clip_options& clip = {})
{
    quant::encode_clipped<F>(l.w, to.code_view(), to.scale_view(), to.options, clip);
}
template <class F>
void gptq(const layer& l, const doubles& h, arrays<F>& to, const quant::gptq_encoding& how = {})
{
    quant::encode_gptq<F>(l.w, sm::view<const double, 2>(h.data(), {l.columns, l.columns}), to.code_view(), to.scale_view(), to.options, how);
}

/// |X (W - got)ᵀ|².
double output_error(const layer& l, const std::vector<float>& got)
{
    double error = 0.0;
    for (index m = 0; m < l.tokens; ++m) {
        for (index n = 0; n < l.rows; ++n) {
            double sum = 0.0;
            for (index k = 0; k < l.columns; ++k) {
                sum += static_cast<double>(l.x(m, k)) * (static_cast<double>(l.w(n, k)) - static_cast<double>(got[at(n * l.columns + k)]));
            }
            error += sum * sum;
        }
    }
    return error;
}

/// H = V D Vᵀ, V upper of unit diagonal, by the definition of its elements, with D on the diagonal.
doubles udu(doubles h, index size, double damping)
{
    double mean = 0.0;
    for (index i = 0; i < size; ++i) { mean += h[at(i * size + i)] / static_cast<double>(size); }
    for (index i = 0; i < size; ++i) { h[at(i * size + i)] += damping * mean; }
    doubles v(h.size());
    for (index j = size; j-- > 0;) {
        for (index i = j + 1; i-- > 0;) {
            double sum = h[at(i * size + j)];
            for (index k = j + 1; k < size; ++k) { sum -= v[at(i * size + k)] * v[at(k * size + k)] * v[at(j * size + k)]; }
            v[at(i * size + j)] = i == j ? sum : sum / v[at(j * size + j)];
        }
    }
    return v;
}

/// Chee et al. 2023 (QuIP, theorem 6): GPTQ's code k is the nearest to w[k] + Σ_{j<k} (w[j] - decoded[j]) V[j, k], which asks neither for an
/// inverse nor for corrected weights. Holds every code against that, and every scale against the weights corrected up to its group:
/// the same sum with what later columns of the group would be if they were not rounded.
template <class F>
void check_feedback(quant::scale_tile tile, bool act_order)
{
    INFO(F::name << ", tiles of " << tile.rows << " x " << tile.columns << (act_order ? ", act-order" : ""));
    const layer l(200, 19, 53, 3);
    const doubles h = l.hessian();
    arrays<F> to(l.rows, l.columns, tile);
    std::vector<std::int32_t> order(at(l.columns));
    std::iota(order.begin(), order.end(), 0);
    quant::gptq_encoding how;
    if (act_order) { how.order = {order.data(), {l.columns}}; }
    gptq(l, h, to, how);
    if (act_order) {
        for (std::size_t p = 1; p < order.size(); ++p) {
            const index a = order[p - 1], b = order[p];
            CHECK(h[at(a * l.columns + a)] >= h[at(b * l.columns + b)]);
        }
        CHECK(order[0] % 13 == 5);
    }
    doubles sorted(h.size());
    for (index i = 0; i < l.columns; ++i) {
        for (index j = 0; j < l.columns; ++j) { sorted[at(i * l.columns + j)] = h[at(order[at(i)] * l.columns + order[at(j)])]; }
    }
    const doubles v = udu(sorted, l.columns, 0.01);
    const std::vector<float> got = to.decoded();
    const auto stored = to.stored();
    index wrong_codes = 0, wrong_scales = 0;
    const index tall = tile.rows > 0 ? tile.rows : l.rows;
    for (index first_row = 0; first_row < l.rows; first_row += tall) {
        for (index g = 0; g < stored.groups(); ++g) {
            double least = 0.0, most = 0.0;
            for (index n = first_row; n < std::min(first_row + tall, l.rows); ++n) {
                doubles would(at(l.columns)); // the numbers that errors of this row are against, before its group
                for (index k = 0; k < stored.first(g + 1); ++k) {
                    const auto w = [&](index j) { return static_cast<double>(l.w(n, order[at(j)])); };
                    double sum = w(k), before = w(k);
                    for (index j = 0; j < k; ++j) {
                        const double number = static_cast<double>(got[at(n * l.columns + j)]);
                        sum += (w(j) - number) * v[at(j * l.columns + k)];
                        before += (w(j) - (j < stored.first(g) ? number : would[at(j)])) * v[at(j * l.columns + k)];
                    }
                    would[at(k)] = before;
                    if (k < stored.first(g)) { continue; }
                    least = std::min(least, before), most = std::max(most, before);
                    const auto shared = stored.parameters(n, g);
                    const double scale = static_cast<double>(shared.scale), code = sum / scale + shared.zero;
                    const double low = F::bits == 4 && F::form == quant::affine::scale_and_zero ? 0 : -(1 << (F::bits - 1)),
                                 high = low + (1 << F::bits) - 1;
                    const double number = static_cast<double>(got[at(n * l.columns + k)]) / scale + shared.zero;
                    wrong_codes += std::fabs(number - std::clamp(code, low, high)) > 0.5 + 0x1p-16; // rounding where it is a tie
                }
            }
            const auto shared = stored.parameters(first_row, g);
            constexpr int steps = (1 << F::bits) - 1;
            const double ideal = F::form == quant::affine::scale_and_zero ? (most - least) / steps : std::max(most, -least) / (steps / 2);
            wrong_scales += std::fabs(static_cast<double>(shared.scale) - ideal) > 0x1p-20 * ideal;
        }
    }
    CHECK(wrong_codes == 0);
    CHECK(wrong_scales == 0);
    if (act_order) { // and with columns in their places the matrix is W again
        const quant::permuted_matrix placed(to.stored(), sm::view<const std::int32_t, 1>(order.data(), {l.columns}));
        std::vector<float> back(got.size());
        quant::decode(placed, matrix(back.data(), {l.rows, l.columns}));
        for (index p = 0; p < l.columns; ++p) { CHECK(back[at(order[at(p)])] == got[at(p)]); }
        arrays<F> rounded(l.rows, l.columns, tile);
        nearest(l, rounded);
        CHECK(output_error(l, back) < output_error(l, rounded.decoded()));
    }
}

} // namespace

TEST_CASE("quantizers: GPTQ's codes and scales are those of its recurrence", "[quant]")
{
    for (const bool act_order : {false, true}) {
        check_feedback<int4>(quant::per_channel, act_order);
        check_feedback<int4>(quant::per_group(16), act_order);
        check_feedback<uint4>(quant::per_group(16), act_order);
        check_feedback<int8>(quant::per_block(3, 24), act_order);
        check_feedback<int8>(quant::per_tensor, act_order);
    }
}

TEST_CASE("quantizers: with nothing to calibrate by they are rounding to the nearest, bit for bit", "[quant]")
{
    const layer l(3, 5, 70, 4);
    const auto check = [&]<class F>(F, quant::scale_tile tile) {
        arrays<F> rounded(l.rows, l.columns, tile), compensated(l.rows, l.columns, tile), unclipped(l.rows, l.columns, tile),
            unseen(l.rows, l.columns, tile);
        nearest(l, rounded);
        doubles identity(at(l.columns * l.columns));
        for (index k = 0; k < l.columns; ++k) { identity[at(k * l.columns + k)] = 1.0; }
        gptq(l, identity, compensated);
        CHECK(rounded.same(compensated));
        gptq(l, doubles(identity.size()), unseen);
        CHECK(rounded.same(unseen));
        clipped(l, unclipped, {.steps = 0});
        CHECK(rounded.same(unclipped));
    };
    check(int4(), quant::per_group(32));
    check(uint4(), quant::per_channel);
    check(int8(), quant::per_block(2, 16));
    check(quant::float8<sm::fp8_e4m3, float>(), quant::per_channel);
    check(quant::microscaling<sm::fp4_e2m1>(), quant::per_group(32));
}

TEST_CASE("quantizers: clipping never errs more in its measure, and importance moves it", "[quant]")
{
    const layer l(3, 9, 128, 5);
    std::vector<float> importance(at(l.columns), 1.0f);
    for (index k = 0; k < l.columns; k += 4) { importance[at(k)] = 1000.0f; }
    const auto tile_errors = [&](const std::vector<float>& got, bool weighted) {
        doubles errors(at(l.rows * 4));
        for (index n = 0; n < l.rows; ++n) {
            for (index k = 0; k < l.columns; ++k) {
                const double e = static_cast<double>(l.w(n, k)) - static_cast<double>(got[at(n * l.columns + k)]);
                errors[at(n * 4 + k / 32)] += (weighted ? static_cast<double>(importance[at(k)]) : 1.0) * (e * e);
            }
        }
        return errors;
    };
    arrays<int4> rounded(l.rows, l.columns, quant::per_group(32)), plain(l.rows, l.columns, quant::per_group(32)),
        weighted(l.rows, l.columns, quant::per_group(32));
    nearest(l, rounded);
    clipped(l, plain);
    clipped(l, weighted, {.importance = {importance.data(), {l.columns}}});
    index lower = 0, lower_weighted = 0;
    for (const bool by_importance : {false, true}) {
        const doubles zero = tile_errors(rounded.decoded(), by_importance), a = tile_errors(plain.decoded(), by_importance),
                      b = tile_errors(weighted.decoded(), by_importance);
        for (std::size_t t = 0; t < zero.size(); ++t) {
            if (by_importance) {
                CHECK(b[t] <= zero[t]);
                CHECK(b[t] <= a[t]); // the same grid
                lower_weighted += b[t] < a[t];
            } else {
                CHECK(a[t] <= zero[t]);
                CHECK(a[t] <= b[t]);
                lower += a[t] < zero[t];
            }
        }
    }
    CHECK(lower > 0);
    CHECK(lower_weighted > 0);
}

TEST_CASE("quantizers: outputs err less than with rounding to the nearest", "[quant]")
{
    const layer l(320, 24, 96, 6);
    const doubles h = l.hessian();
    const quant::scale_tile tile = quant::per_group(32);
    arrays<int4> rounded(l.rows, l.columns, tile), compensated(l.rows, l.columns, tile), cut(l.rows, l.columns, tile);
    nearest(l, rounded);
    const double before = output_error(l, rounded.decoded());

    std::vector<float> mean_squares(at(l.columns));
    for (index k = 0; k < l.columns; ++k) { mean_squares[at(k)] = static_cast<float>(h[at(k * l.columns + k)] / static_cast<double>(l.tokens)); }
    clipped(l, cut, {.importance = {mean_squares.data(), {l.columns}}});
    const double with_clipping = output_error(l, cut.decoded());
    CHECK(with_clipping <= before);

    // With codes within half a step of what GPTQ asks for (none is clipped), |X e|² ≤ eᵀ (H + damping) e = Σ d[k] (step / 2)², which
    // data of few causes make far less than H's diagonal: a bound, where rounding to the nearest has only that with Σ |x|.
    gptq(l, h, compensated);
    const double with_gptq = output_error(l, compensated.decoded());
    const doubles v = udu(h, l.columns, 0.01);
    double bound = 0.0;
    const auto stored = compensated.stored();
    for (index n = 0; n < l.rows; ++n) {
        for (index k = 0; k < l.columns; ++k) {
            const double step = static_cast<double>(stored.parameters(n, k / 32).scale);
            bound += v[at(k * l.columns + k)] * step * step / 4;
        }
    }
    std::printf("output error over that of nearest: clipped %.3f, GPTQ %.4f (its bound %.4f)\n", with_clipping / before, with_gptq / before, bound / before);
    CHECK(with_gptq <= bound);
    CHECK(bound < before); // so that is not luck

    std::vector<float> s(at(l.columns));
    const quant::awq_choice found = quant::awq_scales<int4>(l.x, l.w, sm::view<float, 1>(s.data(), {l.columns}), tile);
    layer scaled = l;
    scaled.w = {scaled.w_memory.data(), {l.rows, l.columns}};
    for (index n = 0; n < l.rows; ++n) {
        for (index k = 0; k < l.columns; ++k) { scaled.w(n, k) *= s[at(k)]; }
    }
    arrays<int4> aware(l.rows, l.columns, tile);
    nearest(scaled, aware);
    std::vector<float> back = aware.decoded();
    for (index n = 0; n < l.rows; ++n) {
        for (index k = 0; k < l.columns; ++k) { back[at(n * l.columns + k)] /= s[at(k)]; }
    }
    const double with_awq = output_error(l, back);
    std::printf("AWQ %.4f with alpha %.2f\n", with_awq / before, found.alpha);
    CHECK(with_awq < before);
    CHECK(found.alpha > 0.0);
    doubles mean(at(l.columns));
    for (index k = 0; k < l.columns; ++k) {
        for (index m = 0; m < l.tokens; ++m) { mean[at(k)] += std::fabs(static_cast<double>(l.x(m, k))) / static_cast<double>(l.tokens); }
    }
    const auto [least, most] = std::minmax_element(mean.begin(), mean.end());
    for (index k = 0; k < l.columns; ++k) { // s = mean|x|^alpha, the largest as far above 1 as the least below
        const double want = std::exp(found.alpha * (std::log(mean[at(k)]) - (std::log(*least) + std::log(*most)) / 2));
        CHECK(std::fabs(static_cast<double>(s[at(k)]) - want) <= 0x1p-23 * want);
    }
    // The test rounds decoded / s to float, awq_scales does not: |x δ| with |δ| ≤ 2^-24 |back|, and as much for sums in double.
    double slack = 0.0;
    for (index m = 0; m < l.tokens; ++m) {
        for (index n = 0; n < l.rows; ++n) {
            double sum = 0.0;
            for (index k = 0; k < l.columns; ++k) { sum += 0x1p-23 * std::fabs(static_cast<double>(l.x(m, k) * back[at(n * l.columns + k)])); }
            slack += sum * sum;
        }
    }
    CHECK(std::fabs(std::sqrt(found.error) - std::sqrt(with_awq)) <= std::sqrt(slack));
    CHECK(std::fabs(std::sqrt(found.error_without) - std::sqrt(before)) <= std::sqrt(slack));
    CHECK(slack < 0x1p-20 * with_awq); // and that means something
    const auto of_one = quant::awq_scales<int4>(l.x, l.w, sm::view<float, 1>(s.data(), {l.columns}), tile, 1);
    CHECK((of_one.alpha == 0.0 && of_one.error == of_one.error_without));
    CHECK(std::all_of(s.begin(), s.end(), [](float one) { return one == 1.0f; }));
}

TEST_CASE("quantizers: smoothing makes weights and activations of 8 bits err less", "[quant]")
{
    layer l(128, 16, 65, 7);
    for (index m = 0; m < l.tokens; ++m) { l.x(m, 3) = 0.0f; }
    for (index n = 0; n < l.rows; ++n) { l.w(n, 4) = 0.0f; }
    std::vector<float> s(at(l.columns));
    const sm::view<float, 1> scales(s.data(), {l.columns});
    const auto error = [&] {
        std::vector<float> smooth_x(l.x_memory.size()), smooth_w(l.w_memory.size());
        layer smooth = l;
        smooth.x = {smooth.x_memory.data(), {l.tokens, l.columns}}, smooth.w = {smooth.w_memory.data(), {l.rows, l.columns}};
        for (index k = 0; k < l.columns; ++k) {
            for (index m = 0; m < l.tokens; ++m) { smooth.x(m, k) /= s[at(k)]; }
            for (index n = 0; n < l.rows; ++n) { smooth.w(n, k) *= s[at(k)]; }
        }
        arrays<int8> w(l.rows, l.columns, quant::per_channel), x(l.tokens, l.columns, quant::per_channel);
        nearest(smooth, w);
        quant::encode<int8>(smooth.x, x.code_view(), x.scale_view(), x.options);
        const std::vector<float> wq = w.decoded(), xq = x.decoded();
        double sum = 0.0;
        for (index m = 0; m < l.tokens; ++m) {
            for (index n = 0; n < l.rows; ++n) {
                double apart = 0.0;
                for (index k = 0; k < l.columns; ++k) {
                    apart += static_cast<double>(xq[at(m * l.columns + k)]) * static_cast<double>(wq[at(n * l.columns + k)]) -
                             static_cast<double>(l.x(m, k)) * static_cast<double>(l.w(n, k));
                }
                sum += apart * apart;
            }
        }
        return sum;
    };
    std::fill(s.begin(), s.end(), 1.0f);
    const double before = error();
    quant::smooth_scales(l.x, l.w, scales);
    const double after = error();
    std::printf("int8 by int8, smoothed: output error %.4f of that without\n", after / before);
    CHECK(after < before);
    CHECK((s[3] == 1.0f && s[4] == 1.0f));
    for (const double alpha : {0.0, 0.25, 1.0}) { // equation 4
        quant::smooth_scales(l.x, l.w, scales, alpha);
        for (index k = 5; k < l.columns; ++k) {
            double x_most = 0.0, w_most = 0.0;
            for (index m = 0; m < l.tokens; ++m) { x_most = std::max(x_most, std::fabs(static_cast<double>(l.x(m, k)))); }
            for (index n = 0; n < l.rows; ++n) { w_most = std::max(w_most, std::fabs(static_cast<double>(l.w(n, k)))); }
            const double want = std::exp(alpha * std::log(x_most) - (1.0 - alpha) * std::log(w_most));
            CHECK(std::fabs(static_cast<double>(s[at(k)]) - want) <= 0x1p-23 * want);
        }
    }
}

TEST_CASE("quantizers: Hessians grow batch by batch, of any strides and types, and zero sizes are legal", "[quant]")
{
    const layer l(11, 1, 9, 8);
    const doubles whole = l.hessian();
    doubles parts(whole.size());
    const sm::view<double, 2> to(parts.data(), {9, 9});
    quant::accumulate_hessian(l.x.slice(0, 0, 4), to);
    quant::accumulate_hessian(l.x.slice(0, 4, 11), to);
    CHECK(parts == whole);
    std::vector<sm::bf16> narrow(at(11 * 9));
    std::vector<float> wide(narrow.size());
    for (index k = 0; k < 9; ++k) {
        for (index m = 0; m < 11; ++m) { narrow[at(k * 11 + m)] = sm::bf16(l.x(m, k)), wide[at(m * 9 + k)] = static_cast<float>(sm::bf16(l.x(m, k))); }
    }
    doubles a(whole.size()), b(whole.size());
    quant::accumulate_hessian(sm::view<const sm::bf16, 2>(narrow.data(), {11, 9}, {1, 11}), sm::view<double, 2>(a.data(), {9, 9}));
    quant::accumulate_hessian(matrix(wide.data(), {11, 9}), sm::view<double, 2>(b.data(), {9, 9}));
    CHECK(a == b);
    for (index i = 0; i < 9; ++i) {
        for (index j = 0; j < 9; ++j) {
            double sum = 0.0;
            for (index m = 0; m < 11; ++m) { sum += static_cast<double>(l.x(m, i)) * static_cast<double>(l.x(m, j)); }
            CHECK(std::fabs(whole[at(i * 9 + j)] - sum) <= 22 * 0x1p-53 * std::sqrt(whole[at(i * 10)] * whole[at(j * 10)]));
        }
    }

    for (const auto& [tokens, rows, columns] : {std::array<index, 3>{0, 4, 8}, {4, 0, 8}, {4, 4, 0}, {0, 0, 0}}) {
        const layer none(tokens, rows, columns, 9);
        arrays<uint4> out(rows, columns, quant::per_group(4));
        std::vector<std::int32_t> order(at(columns));
        std::vector<float> s(at(columns));
        const sm::view<float, 1> scales(s.data(), {columns});
        clipped(none, out);
        gptq(none, none.hessian(), out, {.order = {order.data(), {columns}}});
        quant::smooth_scales(none.x, none.w, scales);
        CHECK(quant::awq_scales<int4>(none.x, none.w, scales).error == 0.0);
        CHECK((out.codes.intact() && out.scales.intact() && out.zeros.intact()));
    }
}

namespace {

/// 4 x 8, groups of 4.
struct call {
    layer l{6, 4, 8, 10};
    doubles h = l.hessian();
    guarded<std::uint8_t> code_memory{16};
    guarded<float> scale_memory{8}, s_memory{8};
    guarded<std::int32_t> order_memory{8};
    std::vector<float> importance_memory = std::vector<float>(8, 1.0f);
    sm::view<const float, 2> w = l.w, x = l.x;
    sm::view<const double, 2> hessian{h.data(), {8, 8}};
    sm::view<std::uint8_t, 2> codes{code_memory.data(), {4, 4}};
    sm::view<float, 2> scales{scale_memory.data(), {4, 2}};
    sm::view<float, 1> s{s_memory.data(), {8}};
    quant::encode_options<int4> options{.tile = quant::per_group(4)};
    quant::clip_options clip{.importance = {importance_memory.data(), {8}}};
    quant::gptq_encoding how{.order = {order_memory.data(), {8}}};
    double alpha = 0.5;
    int steps = 3;

    bool untouched() const { return all_untouched(code_memory) && all_untouched(scale_memory) && all_untouched(s_memory) && all_untouched(order_memory); }
};
struct clip_call : call {
    void call() const { quant::encode_clipped<int4>(w, codes, scales, options, clip); }
};
struct gptq_call : call {
    void call() const { quant::encode_gptq<int4>(w, hessian, codes, scales, options, how); }
};
struct smooth_call : call {
    void call() const { quant::smooth_scales(x, w, s, alpha); }
};
struct awq_call : call {
    void call() const { quant::awq_scales<int4>(x, w, s, options.tile, steps); }
};

const std::vector<refusal<clip_call>> of_clip = {
    {"codes", [](clip_call& c) { c.codes = null(c.codes); }, {"codes is null"}},
    {"least", [](clip_call& c) { c.clip.least = 0.0f; }, {"least is 0.0", "(0, 1]"}},
    {"least above", [](clip_call& c) { c.clip.least = 1.5f; }, {"least is 1.5"}},
    {"least NaN", [](clip_call& c) { c.clip.least = std::nanf(""); }, {"least is nan"}},
    {"steps", [](clip_call& c) { c.clip.steps = -1; }, {"steps is negative: -1"}},
    {"importance", [](clip_call& c) { c.clip.importance = resized(c.clip.importance, 0, 7); }, {"importance's length is 7", "8"}},
    {"importance negative", [](clip_call& c) { c.importance_memory[2] = -1.0f; }, {"importance has -1", "column 2"}},
    {"importance overlaps", [](clip_call& c) { c.clip.importance = {c.scale_memory.data(), {8}}; }, {"scales overlaps importance"}},
};
const std::vector<refusal<gptq_call>> of_gptq = {
    {"infinite", [](gptq_call& c) { c.l.w_memory[9] = HUGE_VALF; }, {"weights has inf at row 1, column 1"}},
    {"hessian null", [](gptq_call& c) { c.hessian = null(c.hessian); }, {"hessian is null"}},
    {"hessian rows", [](gptq_call& c) { c.hessian = resized(c.hessian, 0, 7); }, {"hessian's number of rows is 7", "8"}},
    {"hessian columns", [](gptq_call& c) { c.hessian = resized(c.hessian, 1, 7); }, {"hessian's number of columns is 7", "8"}},
    {"hessian NaN", [](gptq_call& c) { c.h[10] = std::nan(""); }, {"hessian has nan at row 1, column 2"}},
    {"hessian negative", [](gptq_call& c) { c.h[9] = -1.0; }, {"hessian has -1", "diagonal", "column 1"}},
    {"hessian indefinite", [](gptq_call& c) { c.h[1] = c.h[8] = 1e6; }, {"hessian is not positive definite with damping 0.01"}},
    {"hessian singular", [](gptq_call& c) { c.how.damping = 0.0; }, {"hessian is not positive definite with damping 0.0"}}, // 6 rows of 8
    {"damping", [](gptq_call& c) { c.how.damping = -0.5; }, {"damping is -0.5"}},
    {"order", [](gptq_call& c) { c.how.order = resized(c.how.order, 0, 7); }, {"order's length is 7", "8"}},
    {"order overlaps", [](gptq_call& c) { c.how.order = {reinterpret_cast<std::int32_t*>(c.scale_memory.data()), {8}}; }, {"scales overlaps order"}},
};
const std::vector<refusal<smooth_call>> of_smooth = {
    {"alpha", [](smooth_call& c) { c.alpha = 1.25; }, {"alpha is 1.25"}},
    {"x", [](smooth_call& c) { c.x = resized(c.x, 1, 7); }, {"x's number of columns is 7", "8"}},
    {"scales", [](smooth_call& c) { c.s = resized(c.s, 0, 7); }, {"scales's length is 7", "8"}},
    {"x infinite", [](smooth_call& c) { c.l.x_memory[9] = HUGE_VALF; }, {"x has inf at row 1, column 1"}},
    {"in place", [](smooth_call& c) { c.s = {c.l.x_memory.data(), {8}}; }, {"scales overlaps x"}},
};
const std::vector<refusal<awq_call>> of_awq = {
    {"steps", [](awq_call& c) { c.steps = 0; }, {"steps is 0, but must be at least 1"}},
    {"tile", [](awq_call& c) { c.options.tile.columns = -1; }, {"tile's columns is negative"}},
    {"null", [](awq_call& c) { c.s = null(c.s); }, {"scales is null"}},
    {"weights infinite", [](awq_call& c) { c.l.w_memory[0] = HUGE_VALF; }, {"weights has inf at row 0, column 0"}},
};

} // namespace

TEST_CASE("quantizers: what is wrong is refused, and nothing written", "[quant]")
{
    check_refusals("quant::encode_clipped: ", of_clip);
    check_refusals("quant::encode_gptq: ", of_gptq);
    check_refusals("quant::smooth_scales: ", of_smooth);
    check_refusals("quant::awq_scales: ", of_awq);
    clip_call().call(), gptq_call().call(), smooth_call().call(), awq_call().call();

    std::vector<std::uint8_t> codes(8, 0x77);
    std::vector<float> scales(2, 1.0f);
    const quant::int4_matrix<> stored({codes.data(), {2, 4}}, {scales.data(), {2, 1}});
    std::vector<std::int32_t> order = {0, 1, 2, 3, 4, 5, 6, 6};
    const auto permuted = [&](index length) {
        return [&, length] { quant::permuted_matrix(stored, sm::view<const std::int32_t, 1>(order.data(), {length})); };
    };
    check_refused("twice", {"order has column 6 twice, again at position 7"}, permuted(8));
    check_refused("length", {"order's length is 7", "8"}, permuted(7));
    order[7] = 8;
    check_refused("outside", {"order has column 8 at position 7"}, permuted(8));
}

} // namespace quant_quantizers_test
