// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// In what a product is computed.
enum class compute {
    floats, ///< weights become floats, exactly as stored; activations stay what they are
    bf16,   ///< weights and activations are rounded to bf16, sums are float; floats where the set has no bf16 products
    int8,   ///< activations are rounded to bytes; sums of a group are integers, exact. For formats of integers
    tables, ///< sums of up to four activations are rounded to bytes, and looked up. For integers of up to 4 bits in groups of 32 or more
};

/// What shares a scale where activations become bytes, or tables of them.
enum class activation_scales {
    automatic, ///< of bytes: rows for weights that have one scale a row, and where x holds bytes, else blocks; of tables: blocks
    rows,
    blocks,    ///< at most 128 positions (512 for tables), and no more than share a scale of the weights
};

enum class activation {
    none,
    relu,
    silu,
    gelu,      ///< x Φ(x), by erf
    gelu_tanh, ///< its approximation x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
};

/// What is done with a product before it is stored: out = activation(x Wᵀ + bias) + residual.
struct options {
    view<const float, 1> bias{};     ///< [N]; not given: none
    quant::activation activation = quant::activation::none;
    view<const float, 2> residual{}; ///< [M, N]; may be out; not given: none
    quant::compute compute = quant::compute::floats;
    activation_scales scales = activation_scales::automatic;
    view<const float, 1> x_scale{};   ///< [1] or [rows of x]: x = x_scale · bytes, where x holds bytes
    view<const float, 1> out_scale{}; ///< [1] or [N]: out becomes saturate(round(out / out_scale) + out_zero_point), where out holds bytes
    view<const std::int8_t, 1> out_zero_point{}; ///< as long as out_scale; not given: 0
};

/// The same of two products: out = activation(x gateᵀ + gate_bias) · (x upᵀ + up_bias) + residual.
struct gated_options {
    view<const float, 1> gate_bias{}, up_bias{}; ///< [N]; not given: none
    quant::activation activation = quant::activation::silu;
    view<const float, 2> residual{};
    quant::compute compute = quant::compute::floats;
    activation_scales scales = activation_scales::automatic;
    view<const float, 1> x_scale{};
    view<const float, 1> out_scale{};
    view<const std::int8_t, 1> out_zero_point{};
};

/// Either for experts, which have biases of their own.
struct expert_options {
    view<const float, 2> bias{}; ///< [E, N]
    quant::activation activation = quant::activation::none;
    view<const float, 2> residual{};
    quant::compute compute = quant::compute::floats;
    activation_scales scales = activation_scales::automatic;
    view<const float, 1> x_scale{};
    view<const float, 1> out_scale{};
    view<const std::int8_t, 1> out_zero_point{};
};
struct gated_expert_options {
    view<const float, 2> gate_bias{}, up_bias{}; ///< [E, N]
    quant::activation activation = quant::activation::silu;
    view<const float, 2> residual{};
    quant::compute compute = quant::compute::floats;
    activation_scales scales = activation_scales::automatic;
    view<const float, 1> x_scale{};
    view<const float, 1> out_scale{};
    view<const std::int8_t, 1> out_zero_point{};
};

} // namespace quant
SEQMIX_NAMESPACE_END
