// SPDX-License-Identifier: MIT
#pragma once

#include "kernel.hpp"
#include "parts.hpp"

#include <seqmix/ssm/causal_conv1d.hpp>
#include <seqmix/ssm/ssd.hpp>
#include <seqmix/ssm/step.hpp>

#include <algorithm>

namespace mamba_block {

/// A Mamba-2 block and the state of one sequence (Dao & Gu 2024, figure 6 and section 7):
///
///     z, xBC, dt = in_proj(norm(input))
///     x, B, C    = silu(conv1d(xBC));  dt = softplus(dt + dt_bias)
///     y          = ssd(x, dt, A, B, C) + D x
///     output     = input + out_proj(gate_norm(y · silu(z)))
///
/// Borrows the weights. All matrices are [tokens, channels]; heads and groups are a finer view of the channels.
template <class Arch>
class mamba2 {
public:
    explicit mamba2(const mamba2_weights& weights)
        : w(weights), convolved(w.inner + 2 * w.groups * w.states), A_(negative_exp(w.A_log, w.heads)),
          conv_state_(static_cast<std::size_t>(convolved * (w.width - 1))),
          state_(static_cast<std::size_t>(w.inner * w.states))
    {
    }

    /// Makes room for calls of so many tokens, of which none then allocates. Not needed: room is made when it is
    /// missing.
    void reserve(index tokens, index slab)
    {
        normed_.shaped(tokens, w.model), z_.shaped(tokens, w.inner), xBC_.shaped(tokens, convolved),
            dt_.shaped(tokens, w.heads);
        u_.shaped(std::min(tokens, slab), convolved);
    }

    /// The next tokens: input, output [L, model], any L. Long ones go from the convolution to the gate in slabs, so
    /// that what lies in between is still in cache when it is read.
    void forward(const const_matrix& input, const matrix& output, index slab)
    {
        const index length = input.extent(0);
        project_in(input);
        const matrix z = z_.shaped(length, w.inner), xBC = xBC_.shaped(length, convolved),
                     dt = dt_.shaped(length, w.heads);
        for (index from = 0; from < length; from += slab) {
            const index to = std::min(from + slab, length);
            mix(rows(xBC, from, to), rows(z, from, to), rows(dt, from, to));
        }
        project_out(input, columns(xBC, 0, w.inner), output);
    }

    /// The next token: input, output [1, model]. As forward(), by the kernels for one token of each of many sequences
    /// (here one).
    void step(const const_matrix& input, const matrix& output)
    {
        project_in(input);
        const matrix z = z_.shaped(1, w.inner), xBC = xBC_.shaped(1, convolved), dt = dt_.shaped(1, w.heads);
        const matrix u = u_.shaped(1, convolved), y = columns(xBC, 0, w.inner);
        sm::ssm::causal_conv1d_step<Arch>(xBC, conv_weight(), u, conv_options(), ctx_);
        sm::ssm::ssd_step<Arch>(heads(u)[0], dt, A(), B(u)[0], C(u)[0], heads(y)[0],
                                {.D = D(), .dt_bias = dt_bias(), .softplus = true, .state = state()}, ctx_);
        gate<Arch>(y, z);
        normalise(y);
        project_out(input, y, output);
    }

    std::size_t state_bytes() const { return (conv_state_.size() + state_.size()) * sizeof(float); }
    std::size_t buffer_bytes()
    {
        return normed_.bytes() + z_.bytes() + xBC_.bytes() + dt_.bytes() + u_.bytes() + scratch_.size() +
               ctx_.scratch().size();
    }

    const mamba2_weights w;
    const index convolved; ///< channels of x, B and C together

    const_matrix in_proj() const { return {w.in_proj, {w.inner + convolved + w.heads, w.model}}; }
    const_matrix conv_weight() const { return {w.conv_weight, {convolved, w.width}}; }
    const_matrix out_proj() const { return {w.out_proj, {w.model, w.inner}}; }
    sm::view<const float, 1> A() const { return {A_.data(), {w.heads}}; }
    sm::view<const float, 1> D() const { return {w.D, {w.heads}}; }
    sm::view<const float, 1> dt_bias() const { return {w.dt_bias, {w.heads}}; }

    /// What the last slab's scan was given (dt before bias and softplus), and its gate.
    struct scan_operands {
        const_matrix xBC, dt, z;
    };
    const scan_operands& last_scan() const { return last_; }

private:
    void project_in(const const_matrix& input)
    {
        const index length = input.extent(0);
        const matrix normed = normed_.shaped(length, w.model);
        rms_norm<Arch>(input, w.norm, normed);
        const index after_z = w.inner, after_xBC = w.inner + convolved;
        project<Arch>(normed, rows(in_proj(), 0, after_z), z_.shaped(length, w.inner), scratch_);
        project<Arch>(normed, rows(in_proj(), after_z, after_xBC), xBC_.shaped(length, convolved), scratch_);
        project<Arch>(normed, rows(in_proj(), after_xBC, after_xBC + w.heads), dt_.shaped(length, w.heads), scratch_);
    }

    /// One slab from convolution to norm: the result takes x's place in xBC [L, convolved].
    void mix(const matrix& xBC, const matrix& z, const matrix& dt)
    {
        const matrix u = u_.shaped(xBC.extent(0), convolved), y = columns(xBC, 0, w.inner);
        sm::ssm::causal_conv1d<Arch>(channels_first(xBC), conv_weight(), channels_first(u), conv_options(), ctx_);
        sm::ssm::ssd<Arch>(heads(u), with_leading_axis(dt), A(), B(u), C(u), heads(y),
                           {.D = D(), .dt_bias = dt_bias(), .softplus = true, .state = state()}, ctx_);
        gate<Arch>(y, z);
        normalise(y);
        last_ = {u, dt, z};
    }

    /// Every group of channels by itself.
    void normalise(const matrix& y)
    {
        const index width = w.inner / w.groups;
        for (index g = 0; g < w.groups; ++g) {
            const matrix part = columns(y, g * width, (g + 1) * width);
            rms_norm<Arch>(part, w.gate_norm + g * width, part);
        }
    }

    void project_out(const const_matrix& input, const matrix& y, const matrix& output)
    {
        copy(input, output);
        project<Arch>(y, out_proj(), output, scratch_, true);
    }

    /// Columns of a matrix [L, …] from `first` on as [1, L, many, each].
    static sm::view<float, 4> split(const matrix& m, index first, index many, index each)
    {
        return {&m(0, first), {index{1}, m.extent(0), many, each}, {index{0}, m.stride(0), each, index{1}}};
    }
    sm::view<float, 4> heads(const matrix& m) const { return split(m, 0, w.heads, w.inner / w.heads); }
    sm::view<float, 4> B(const matrix& m) const { return split(m, w.inner, w.groups, w.states); }
    sm::view<float, 4> C(const matrix& m) const { return split(m, w.inner + w.groups * w.states, w.groups, w.states); }

    sm::view<float, 4> state() { return {state_.data(), {index{1}, w.heads, w.inner / w.heads, w.states}}; }
    sm::ssm::conv1d_options conv_options()
    {
        return {.bias = {w.conv_bias, {convolved}},
                .activation = sm::ssm::activation::silu,
                .state = sm::view<float, 3>(conv_state_.data(), {index{1}, convolved, w.width - 1})};
    }

    std::vector<float> A_, conv_state_, state_; // [heads], [convolved, width - 1], [heads, inner / heads, states]
    buffer<Arch> normed_, z_, xBC_, dt_, u_;
    scan_operands last_{};
    sm::workspace scratch_;
    sm::context<> ctx_;
};

} // namespace mamba_block
