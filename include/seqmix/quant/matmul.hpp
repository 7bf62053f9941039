// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/product_call.hpp>

// Products with packed weights.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// Checks and runs a product; `counts` and `rows` as in row_groups.
template <class Arch, class T, class Out, format F, class Options>
void multiply(const checker& check, const view<T, 2>& x, const packed_matrix<F>* weights, index experts,
              const view<const std::int32_t, 1>& counts, const view<const std::int32_t, 1>& rows, const view<Out, 2>& out,
              const Options& o, const context_ref& ctx)
{
    const ending what{bias_of_groups(o.bias), {}, o.activation, o.residual, o.out_scale, o.out_zero_point};
    const product_call<std::remove_const_t<T>, Out, F> call{x,
                                                            {weights, nullptr},
                                                            {{"the weights", "the weights'", "the weights' number of rows"}, {}},
                                                            experts,
                                                            counts,
                                                            rows,
                                                            out,
                                                            what,
                                                            "bias",
                                                            o.compute,
                                                            o.scales,
                                                            o.x_scale};
    call.check_all(check);
    call.template run<Arch>(ctx);
}

/// The same of two products.
template <class Arch, class T, class Out, format F, class Options>
void multiply_gated(const checker& check, const view<T, 2>& x, const packed_matrix<F>* gate, const packed_matrix<F>* up,
                    index experts, const view<const std::int32_t, 1>& counts, const view<const std::int32_t, 1>& rows,
                    const view<Out, 2>& out, const Options& o, const context_ref& ctx)
{
    const ending what{
        bias_of_groups(o.gate_bias), bias_of_groups(o.up_bias), o.activation, o.residual, o.out_scale, o.out_zero_point};
    const product_call<std::remove_const_t<T>, Out, F> call{
        x,         {gate, up}, {{"gate", "gate's", "gate's number of rows"}, {"up", "up's", "up's number of rows"}},
        experts,   counts,     rows,
        out,       what,       "gate_bias",
        o.compute, o.scales,   o.x_scale};
    call.check_all(check);
    call.template run<Arch>(ctx);
}

} // namespace detail

/// out [M, N] = activation(x [M, K] · Wᵀ + bias) + residual, W [N, K] packed. x and out float, bf16 or f16, of any strides (unit
/// stride along the last axis is fast). `options::compute` says in what:
///
/// | compute | weights | activations | error of a sum over K, u = 2^-24 |
/// |---|---|---|---|
/// | floats | exact | exact | K u Σ|x w| |
/// | bf16 | to nearest, 2^-8 relative | the same | (2^-7 + 2^-16 + K u) Σ|x w| |
/// | int8 | exact | half a step of their block, max|x| / 254 | Σ over blocks of max|x| / 254 Σ|w|, and u for each group |
/// | tables | exact | sums of 4 / w of them (planes of w bits) times codes: half a step, the block's largest / 254 | Σ of half steps times scales |
///
/// x of std::int8_t stands for x_scale · x, symmetric, and is multiplied as it is: compute is int8, only sums are rounded, u for
/// each group. out of std::int8_t is rounded to bytes at the very end, by ONNX's QuantizeLinear with out_scale and
/// out_zero_point; what is NaN becomes the zero point.
///
/// A row with NaN or an infinity in x is NaN with int8, everywhere. Results do not depend on the number of threads; with int8
/// rows do not depend on each other. Refuses shapes that do not fit, null, an out that overlaps what is read (residual may be
/// out), int8 for formats that are no integers, tables for those or
/// codes of more than 4 bits or groups that are no multiple of 32. Why the errors are these: quant/README.md.
template <class Arch = arch::native, class T, class Out, format F>
void matmul(const view<T, 2>& x, const packed_matrix<F>& w, const view<Out, 2>& out, const options& opt = {},
            const context_ref& ctx = {})
{
    detail::multiply<Arch>(checker("quant::matmul"), x, &w, 1, {}, {}, out, opt, ctx);
}

/// out [M, N] = activation(x [M, K] · gateᵀ + gate_bias) · (x · upᵀ + up_bias) + residual, gate and up [N, K] packed: SwiGLU with
/// silu, GEGLU with gelu, bilinear with none (Shazeer 2020, "GLU variants improve transformer", equations 5 and 6). x is read,
/// and becomes bytes, once; what is between is never stored. All else as in matmul; each factor has the error of its product.
/// Refuses also gate and up of different shapes, groups or orders of columns.
template <class Arch = arch::native, class T, class Out, format F>
void gated_matmul(const view<T, 2>& x, const packed_matrix<F>& gate, const packed_matrix<F>& up, const view<Out, 2>& out,
                  const gated_options& opt = {}, const context_ref& ctx = {})
{
    detail::multiply_gated<Arch>(checker("quant::gated_matmul"), x, &gate, &up, 1, {}, {}, out, opt, ctx);
}

} // namespace quant
SEQMIX_NAMESPACE_END
