// SPDX-License-Identifier: MIT
#pragma once

#include "mamba1.hpp"
#include "mamba2.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

// How far the outputs of two routes through a block may be apart.
//
// Norms and projections treat every token by itself, and the convolution is bit-identical for every cut into calls. So
// all routes give the scan the same numbers, and from there on each is within some error of the exact result for them.
// That error is added up here, to first order, from what the docstrings of selective_scan and ssd promise of a token:
// beside the magnitude H = Σ |terms| of a state goes a bound E on its error,
//
//     E = decay (E + decay's relative error · H) + the new term's error + u H,        H = decay H + |new term|,
//
// read out by |C|, and carried through gate, norm and |out_proj|. Two routes are at most twice that apart.

namespace mamba_block {

/// |got - exact| <= error, |got| <= magnitude, to first order.
struct bounded {
    double magnitude, error;
};

inline constexpr double roundoff = 0x1p-24;

inline double exact_softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
inline double exact_silu(double x) { return x / (1 + std::exp(-x)); }

/// A step size, softplus(x) of x = dt + bias rounded once, and its relative error.
struct step_size {
    explicit step_size(double x)
        : value(exact_softplus(x)), error((4.2 + std::fabs(x) / (1 + std::exp(-x)) / value) * roundoff)
    {
    }
    double value, error;
};

/// How a state fades over that step, and the relative error.
struct fading {
    fading(const step_size& dt, double A)
        : factor(std::exp(dt.value * A)),
          error((4 + 2.3 * std::fabs(dt.value * A)) * roundoff + std::fabs(dt.value * A) * dt.error)
    {
    }
    double factor, error;
};

/// One state through one token, at whose end it is rounded by so many u; `input` is x B.
inline void take(bounded& state, const step_size& dt, const fading& decay, double input, double roundings)
{
    const double term = dt.value * std::fabs(input);
    state.error = decay.factor * (state.error + decay.error * state.magnitude) + (2 * roundoff + dt.error) * term;
    state.magnitude = decay.factor * state.magnitude + term;
    state.error += roundings * roundoff * state.magnitude;
}

/// y · silu(z)
inline bounded gated(const bounded& y, double z)
{
    const double by = std::fabs(exact_silu(z));
    return {y.magnitude * by, (y.error + 5 * roundoff * y.magnitude) * by};
}

/// Both ways of |out_proj|, and the sum with the input.
template <class Arch>
void through_projection(const std::vector<bounded>& y, const const_matrix& weight, const matrix& bound)
{
    const index length = bound.extent(0), inner = weight.extent(1);
    std::vector<float> errors(y.size()), magnitudes(static_cast<std::size_t>(weight.size()));
    for (std::size_t i = 0; i < y.size(); ++i) {
        const double rounding = static_cast<double>(inner + 1) * roundoff * y[i].magnitude;
        errors[i] = static_cast<float>(2 * (y[i].error + rounding));
    }
    std::transform(weight.data(), weight.data() + weight.size(), magnitudes.begin(),
                   [](float v) { return std::fabs(v); });
    sm::workspace scratch;
    project<Arch>(const_matrix(errors.data(), {length, inner}),
                  const_matrix(magnitudes.data(), weight.extents(), weight.strides()), bound, scratch);
}

/// After a forward() of all tokens in one slab: bound [tokens, model].
template <class Arch>
void bound_difference(const mamba1<Arch>& block, const matrix& bound)
{
    const auto& in = block.last_scan();
    const index length = bound.extent(0), inner = block.w.inner, states = block.w.states;
    std::vector<bounded> y(static_cast<std::size_t>(length * inner)),
        h(static_cast<std::size_t>(inner * states), {0, 0});
    for (index t = 0; t < length; ++t) {
        for (index d = 0; d < inner; ++d) {
            const double u = static_cast<double>(in.u(t, d));
            const step_size dt(static_cast<double>(in.dt(t, d)) + static_cast<double>(block.dt_bias()(d)));
            bounded sum{0, 0};
            for (index n = 0; n < states; ++n) {
                bounded& state = h[static_cast<std::size_t>(d * states + n)];
                const double A = static_cast<double>(block.A()(d, n)), C = std::fabs(static_cast<double>(in.C(t, n)));
                take(state, dt, fading(dt, A), u * static_cast<double>(in.B(t, n)), 1);
                sum.magnitude += C * state.magnitude;
                sum.error += C * state.error;
            }
            sum.magnitude += std::fabs(static_cast<double>(block.D()(d)) * u);
            sum.error += static_cast<double>(states + 2) * roundoff * sum.magnitude;
            y[static_cast<std::size_t>(t * inner + d)] = gated(sum, static_cast<double>(in.z(t, d)));
        }
    }
    through_projection<Arch>(y, block.out_proj(), bound);
}

/// RMSNorm with one group's numbers: the derivative is weight · r (dy_i - y_i r² mean(y dy)), r = 1 / rms, and r
/// mean(|y dy|) is at most rms(dy). r is that of the magnitudes' lower end, the numbers themselves: `rms`.
inline void through_norm(bounded* y, index width, const float* weight, double rms)
{
    double squares = 0;
    for (index i = 0; i < width; ++i) { squares += y[i].error * y[i].error; }
    const double spread = std::sqrt(squares / static_cast<double>(width)) / rms;
    for (index i = 0; i < width; ++i) {
        const double scale = std::fabs(static_cast<double>(weight[i])) / rms;
        y[i].error = scale * (y[i].error + y[i].magnitude * (spread + static_cast<double>(width + 8) * roundoff));
        y[i].magnitude *= scale;
    }
}

/// The same. Token by token, ssd errs as above, but in chunks of q tokens a state is rounded by (q + 8) u at the end of
/// each, and a sum when it is read by (N + q + 8) u. Where the ends lie depends on the route. But what a rounding at
/// some end has become now is the more the later that end, since H falls no faster than by its decay. So the q u of an
/// end are no more than 1 u of each of the q tokens after it (of those that are to come: of the state now). A call's
/// last chunk may be short, and then two overlap: with the 8 u of the ends themselves, 10 u a token and 2 q u once
/// cover all. q is at most 1024, and the number of tokens.
template <class Arch>
void bound_difference(const mamba2<Arch>& block, const matrix& bound)
{
    const auto& in = block.last_scan();
    const index length = bound.extent(0), inner = block.w.inner, states = block.w.states, heads = block.w.heads;
    const index channels = inner / heads, groups = block.w.groups, group_width = inner / groups;
    const double per_token = 10, summed = static_cast<double>(states + 3 * std::min(length, index{1024}) + 8);
    std::vector<bounded> y(static_cast<std::size_t>(length * inner)),
        h(static_cast<std::size_t>(inner * states), {0, 0});
    std::vector<double> exact(h.size(), 0.0), row(static_cast<std::size_t>(inner));
    step_size dt(0);
    fading decay(dt, 0);
    for (index t = 0; t < length; ++t) {
        for (index d = 0; d < inner; ++d) {
            const index head = d / channels, B = inner + head / (heads / groups) * states, C = B + groups * states;
            const double x = static_cast<double>(in.xBC(t, d));
            const double skip = static_cast<double>(block.D()(head)) * x, z = static_cast<double>(in.z(t, d));
            if (d % channels == 0) {
                dt = step_size(static_cast<double>(in.dt(t, head)) + static_cast<double>(block.dt_bias()(head)));
                decay = fading(dt, static_cast<double>(block.A()(head)));
            }
            bounded sum{0, 0};
            double value = skip;
            for (index n = 0; n < states; ++n) {
                const auto at = static_cast<std::size_t>(d * states + n);
                const double input = x * static_cast<double>(in.xBC(t, B + n)),
                             c = static_cast<double>(in.xBC(t, C + n));
                take(h[at], dt, decay, input, per_token);
                sum.magnitude += std::fabs(c) * h[at].magnitude;
                sum.error += std::fabs(c) * h[at].error;
                value += c * (exact[at] = decay.factor * exact[at] + dt.value * input);
            }
            sum.magnitude += std::fabs(skip);
            sum.error += summed * roundoff * sum.magnitude;
            y[static_cast<std::size_t>(t * inner + d)] = gated(sum, z);
            row[static_cast<std::size_t>(d)] = value * exact_silu(z);
        }
        for (index g = 0; g < groups; ++g) {
            double squares = 0;
            for (index i = g * group_width; i < (g + 1) * group_width; ++i) {
                squares += row[static_cast<std::size_t>(i)] * row[static_cast<std::size_t>(i)];
            }
            through_norm(&y[static_cast<std::size_t>(t * inner + g * group_width)], group_width,
                         block.w.gate_norm + g * group_width,
                         std::sqrt(squares / static_cast<double>(group_width) + static_cast<double>(norm_epsilon)));
        }
    }
    through_projection<Arch>(y, block.out_proj(), bound);
}

} // namespace mamba_block
