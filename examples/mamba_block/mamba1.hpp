// SPDX-License-Identifier: MIT
#pragma once

#include "kernel.hpp"
#include "parts.hpp"

#include <seqmix/ssm/causal_conv1d.hpp>
#include <seqmix/ssm/selective_scan.hpp>
#include <seqmix/ssm/step.hpp>

#include <algorithm>

namespace mamba_block {

/// A Mamba-1 block and the state of one sequence (Gu & Dao 2023, figure 3; section 3.3 for how dt, B and C depend on
/// the input):
///
///     x, z      = in_proj(norm(input))
///     x         = silu(conv1d(x))
///     dt, B, C  = x_proj(x);  dt = softplus(dt_proj(dt) + dt_bias)
///     y         = scan(x, dt, A, B, C) + D x
///     output    = input + out_proj(y · silu(z))
///
/// Borrows the weights. All matrices are [tokens, channels]; what the kernels call [B, D, L] is a view of them.
template <class Arch>
class mamba1 {
public:
    explicit mamba1(const mamba1_weights& weights)
        : w(weights), A_(negative_exp(w.A_log, w.inner * w.states)),
          conv_state_(static_cast<std::size_t>(w.inner * (w.width - 1))),
          state_(static_cast<std::size_t>(w.inner * w.states))
    {
    }

    /// Makes room for calls of so many tokens, of which none then allocates. Not needed: room is made when it is
    /// missing.
    void reserve(index tokens, index slab)
    {
        const index inside = std::min(tokens, slab);
        normed_.shaped(tokens, w.model), x_.shaped(tokens, w.inner), z_.shaped(tokens, w.inner);
        u_.shaped(inside, w.inner), selected_.shaped(inside, w.rank + 2 * w.states), dt_.shaped(inside, w.inner);
    }

    /// The next tokens: input, output [L, model], any L. Long ones go from the convolution to the scan in slabs, so
    /// that what lies in between is still in cache when it is read.
    void forward(const const_matrix& input, const matrix& output, index slab)
    {
        const index length = input.extent(0);
        const matrix normed = normed_.shaped(length, w.model);
        const matrix x = x_.shaped(length, w.inner), z = z_.shaped(length, w.inner);
        rms_norm<Arch>(input, w.norm, normed);
        project<Arch>(normed, rows(in_proj(), 0, w.inner), x, scratch_);
        project<Arch>(normed, rows(in_proj(), w.inner, 2 * w.inner), z, scratch_);
        for (index from = 0; from < length; from += slab) {
            const index to = std::min(from + slab, length);
            mix(rows(x, from, to), rows(z, from, to));
        }
        copy(input, output);
        project<Arch>(x, out_proj(), output, scratch_, true);
    }

    /// The next token: input, output [1, model]. As forward(), by the kernels for one token of each of many sequences
    /// (here one).
    void step(const const_matrix& input, const matrix& output)
    {
        const matrix normed = normed_.shaped(1, w.model);
        const matrix x = x_.shaped(1, w.inner), z = z_.shaped(1, w.inner), u = u_.shaped(1, w.inner);
        const matrix selected = selected_.shaped(1, w.rank + 2 * w.states), dt = dt_.shaped(1, w.inner);
        rms_norm<Arch>(input, w.norm, normed);
        project<Arch>(normed, rows(in_proj(), 0, w.inner), x, scratch_);
        project<Arch>(normed, rows(in_proj(), w.inner, 2 * w.inner), z, scratch_);
        sm::ssm::causal_conv1d_step<Arch>(x, conv_weight(), u, conv_options(), ctx_);
        project<Arch>(u, x_proj(), selected, scratch_);
        project<Arch>(columns(selected, 0, w.rank), dt_proj(), dt, scratch_);
        const auto B = with_leading_axis(columns(selected, w.rank, w.rank + w.states));
        const auto C = with_leading_axis(columns(selected, w.rank + w.states, w.rank + 2 * w.states));
        sm::ssm::selective_step<Arch>(
            u, dt, A(), B, C, x, {.D = D(), .z = z, .delta_bias = dt_bias(), .softplus = true, .state = state()}, ctx_);
        copy(input, output);
        project<Arch>(x, out_proj(), output, scratch_, true);
    }

    std::size_t state_bytes() const { return (conv_state_.size() + state_.size()) * sizeof(float); }
    std::size_t buffer_bytes()
    {
        return normed_.bytes() + x_.bytes() + z_.bytes() + u_.bytes() + selected_.bytes() + dt_.bytes() +
               scratch_.size() + ctx_.scratch().size();
    }

    const mamba1_weights w;

    const_matrix in_proj() const { return {w.in_proj, {2 * w.inner, w.model}}; }
    const_matrix conv_weight() const { return {w.conv_weight, {w.inner, w.width}}; }
    const_matrix x_proj() const { return {w.x_proj, {w.rank + 2 * w.states, w.inner}}; }
    const_matrix dt_proj() const { return {w.dt_proj, {w.inner, w.rank}}; }
    const_matrix out_proj() const { return {w.out_proj, {w.model, w.inner}}; }
    const_matrix A() const { return {A_.data(), {w.inner, w.states}}; }
    sm::view<const float, 1> D() const { return {w.D, {w.inner}}; }
    sm::view<const float, 1> dt_bias() const { return {w.dt_bias, {w.inner}}; }

    /// What the last slab's scan was given, before bias and softplus.
    struct scan_operands {
        const_matrix u, dt, B, C, z;
    };
    const scan_operands& last_scan() const { return last_; }

private:
    /// One slab from convolution to gate: x [L, inner] is replaced by the result.
    void mix(const matrix& x, const matrix& z)
    {
        const index length = x.extent(0);
        const matrix u = u_.shaped(length, w.inner), selected = selected_.shaped(length, w.rank + 2 * w.states);
        const matrix dt = dt_.shaped(length, w.inner);
        sm::ssm::causal_conv1d<Arch>(channels_first(x), conv_weight(), channels_first(u), conv_options(), ctx_);
        project<Arch>(u, x_proj(), selected, scratch_);
        project<Arch>(columns(selected, 0, w.rank), dt_proj(), dt, scratch_);
        const matrix B = columns(selected, w.rank, w.rank + w.states);
        const matrix C = columns(selected, w.rank + w.states, w.rank + 2 * w.states);
        sm::ssm::selective_scan<Arch>(
            channels_first(u), channels_first(dt), A(), with_leading_axis(channels_first(B)),
            with_leading_axis(channels_first(C)), channels_first(x),
            {.D = D(), .z = channels_first(z), .delta_bias = dt_bias(), .softplus = true, .state = state()}, ctx_);
        last_ = {u, dt, B, C, z};
    }

    sm::view<float, 3> state() { return {state_.data(), {index{1}, w.inner, w.states}}; }
    sm::ssm::conv1d_options conv_options()
    {
        return {.bias = {w.conv_bias, {w.inner}},
                .activation = sm::ssm::activation::silu,
                .state = sm::view<float, 3>(conv_state_.data(), {index{1}, w.inner, w.width - 1})};
    }

    std::vector<float> A_, conv_state_, state_; // [inner, states], [inner, width - 1], [inner, states]
    buffer<Arch> normed_, x_, z_, u_, selected_, dt_;
    scan_operands last_{};
    sm::workspace scratch_;
    sm::context<> ctx_;
};

} // namespace mamba_block
