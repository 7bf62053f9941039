// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/decode.hpp>
#include <seqmix/quant/encode_arrays.hpp>
#include <seqmix/quant/hessian.hpp>

#include <algorithm>

// Scales of input channels that change no product, x Wᵀ = (x / s) (W s)ᵀ, but what rounding does to it.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

template <storage T>
void check_channels(const checker& check, const view<const T, 2>& x, const view<const float, 2>& weights,
                    const view<float, 1>& scales)
{
    check_given(check, x, "x"), check_given(check, weights, "weights"), check_given(check, scales, "scales");
    check_extent(check, x, "x", 1, "number of columns", weights.extent(1), "weights'");
    check_extent(check, scales, "scales", 0, "length", weights.extent(1), "weights' number of columns");
    check_apart(check, reach(scales), "scales", x, "x");
    check_apart(check, reach(scales), "scales", weights, "weights");
    check_finite_activations<T>(check, x);
    check_finite(check, weights);
}

/// Held to magnitudes that float and its products bear.
inline float channel_scale(double s) { return static_cast<float>(within(0x1p-60, s, 0x1p60)); }

} // namespace detail

/// scales [K], by which columns of W are multiplied and activations divided, so that outliers of channels move from activations into
/// weights before both become int8 (Xiao et al. 2022, SmoothQuant, equation 4):
///
///     s[j] = max|x[:, j]|^alpha / max|W[:, j]|^(1 - alpha)
///
/// x [M, K] are calibration data (float, bf16, f16), weights [N, K]. A channel where either is all zeros gets 1. alpha in [0, 1]: 0
/// leaves all difficulty in the activations, 1 moves all. Any strides, one thread. Refuses shapes that do not fit, null, overlaps,
/// alpha outside, numbers that are not finite.
template <class T>
void smooth_scales(const view<T, 2>& x, const view<const float, 2>& weights, const view<float, 1>& scales, double alpha = 0.5)
{
    using X = std::remove_const_t<T>;
    static_assert(storage<X>);
    const checker check("quant::smooth_scales");
    detail::check_channels<X>(check, x, weights, scales);
    check.require(alpha >= 0.0 && alpha <= 1.0, "alpha is ", alpha, ", but must be in [0, 1]");
    for (index column = 0; column < weights.extent(1); ++column) {
        double x_most = 0.0, w_most = 0.0;
        for (index m = 0; m < x.extent(0); ++m) {
            x_most = detail::most_of(x_most, std::fabs(static_cast<double>(static_cast<float>(x(m, column)))));
        }
        for (index n = 0; n < weights.extent(0); ++n) {
            w_most = detail::most_of(w_most, std::fabs(static_cast<double>(weights(n, column))));
        }
        const bool used = x_most > 0.0 && w_most > 0.0;
        scales(column) = used ? detail::channel_scale(std::pow(x_most, alpha) / std::pow(w_most, 1.0 - alpha)) : 1.0f;
    }
}

/// What awq_scales found.
struct awq_choice {
    double alpha = 0.0;
    double error = 0.0;         ///< Σ (x W'ᵀ - x Wᵀ)², W' the weights that come back with the scales
    double error_without = 0.0; ///< the same of scales 1: never smaller
};

/// scales [K], by which columns of W are multiplied before they are encoded as F and activations divided: channels that matter are
/// rounded more finely (Lin et al. 2023, AWQ, equations 4 and 5). Of alpha = 0, 1/steps, ... below 1 the one whose outputs err least on
/// calibration data x [M, K] (float, bf16, f16):
///
///     s = mean|x|^alpha / √(max s · min s),   error = |x (Q(W s) / s)ᵀ - x Wᵀ|²,   Q: encode in tiles of `tile`
///
/// Channels without activations have no part in it and get 1. Costs steps · M N K operations in double, one thread; some hundred rows
/// of x are enough. Allocates copies of x and W. Refuses shapes that do not fit, null, overlaps, steps below 1, numbers that are
/// not finite.
template <format F, class T>
    requires(F::block == 0 && !F::matrix_scale)
awq_choice awq_scales(const view<T, 2>& x, const view<const float, 2>& weights, const view<float, 1>& scales,
                      const scale_tile& tile = F::tile, int steps = 20)
{
    using X = std::remove_const_t<T>;
    static_assert(storage<X>);
    const checker check("quant::awq_scales");
    detail::check_channels<X>(check, x, weights, scales);
    check.require(steps >= 1, "steps is ", steps, ", but must be at least ", 1);
    check.require(tile.rows >= 0, "tile's rows is negative: ", tile.rows);
    check.require(tile.columns >= 0, "tile's columns is negative: ", tile.columns);
    const index tokens = x.extent(0), rows = weights.extent(0), columns = weights.extent(1);
    const auto count = [](index n) { return static_cast<std::size_t>(n); };

    // Channel by channel, so that the sums of all tokens grow side by side.
    std::vector<double> channels(count(columns * tokens)), mean(count(columns)), sums(count(tokens));
    for (index k = 0; k < columns; ++k) {
        for (index m = 0; m < tokens; ++m) {
            const auto at = static_cast<double>(static_cast<float>(x(m, k)));
            channels[count(k * tokens + m)] = at;
            mean[count(k)] += std::fabs(at) / static_cast<double>(tokens);
        }
    }
    const index row_bytes = detail::ceiling(columns * F::bits, 8), tall = tile.rows > 0 ? tile.rows : larger(rows, 1),
                wide = tile.columns > 0 ? tile.columns : larger(columns, 1);
    const index down = tile.rows > 0 ? detail::ceiling(rows, tall) : 1, across = tile.columns > 0 ? detail::ceiling(columns, wide) : 1;
    std::vector<typename F::code_type> code_memory(count(rows * row_bytes));
    std::vector<typename F::scale_type> scale_memory(count(down * across));
    std::vector<typename F::zero_type> zero_memory(count(down * across));
    const view<typename F::code_type, 2> codes(code_memory.data(), {rows, row_bytes});
    const view<typename F::scale_type, 2> tile_scales(scale_memory.data(), {down, across});
    encode_options<F> to;
    array_options<F> from;
    to.tile = from.tile = tile, from.columns = columns;
    if constexpr (F::form == affine::scale_and_zero) {
        to.zeros = {zero_memory.data(), {down, across}};
        from.zeros = to.zeros;
    }
    std::vector<float> s(count(columns)), scaled(count(rows * columns)), back(scaled.size());
    const view<float, 2> scaled_view(scaled.data(), {rows, columns}), back_view(back.data(), {rows, columns});

    const auto error_with = [&](double alpha) {
        double least = 0.0, most = 0.0;
        for (const double size : mean) {
            if (size == 0.0) { continue; }
            const double power = std::pow(size, alpha);
            least = least == 0.0 ? power : detail::least_of(least, power), most = detail::most_of(most, power);
        }
        for (index k = 0; k < columns; ++k) {
            const double size = mean[count(k)];
            s[count(k)] = size > 0.0 ? detail::channel_scale(std::pow(size, alpha) / (std::sqrt(most) * std::sqrt(least))) : 1.0f;
            for (index n = 0; n < rows; ++n) { scaled_view(n, k) = weights(n, k) * s[count(k)]; }
        }
        encode<F>(scaled_view, codes, tile_scales, to);
        decode(array_matrix<F>(codes, tile_scales, from), back_view);
        double error = 0.0;
        for (index n = 0; n < rows; ++n) {
            std::fill(sums.begin(), sums.end(), 0.0);
            for (index k = 0; k < columns; ++k) {
                const double e = static_cast<double>(back_view(n, k)) / static_cast<double>(s[count(k)]) - static_cast<double>(weights(n, k));
                const double* const channel = channels.data() + k * tokens;
                for (index m = 0; m < tokens; ++m) { sums[count(m)] += e * channel[m]; }
            }
            for (const double sum : sums) { error += sum * sum; }
        }
        return error;
    };
    awq_choice best;
    for (int step = 0; step < steps; ++step) {
        const double alpha = static_cast<double>(step) / steps, error = error_with(alpha);
        if (step == 0) { best.error_without = error; }
        if (step > 0 && !(error < best.error)) { continue; }
        best.alpha = alpha, best.error = error;
        for (index k = 0; k < columns; ++k) { scales(k) = s[count(k)]; }
    }
    return best;
}

} // namespace quant
SEQMIX_NAMESPACE_END
