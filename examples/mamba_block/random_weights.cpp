// SPDX-License-Identifier: MIT
#include "weights.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mamba_block {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): <random> leaves its distributions to the library.
class random_source {
public:
    explicit random_source(std::uint64_t seed) : state_(seed) {}

    float uniform(float low, float high)
    {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return low + (high - low) * (static_cast<float>((z ^ z >> 31) >> 40) * 0x1p-24f);
    }

    tensor uniforms(std::vector<std::int64_t> shape, float low, float high)
    {
        std::int64_t count = 1;
        for (const std::int64_t extent : shape) { count *= extent; }
        tensor t{std::move(shape), std::vector<float>(static_cast<std::size_t>(count))};
        for (float& value : t.values) { value = uniform(low, high); }
        return t;
    }

    /// The weight [to, from, …] of a projection of `fan_in` numbers.
    tensor projection(std::vector<std::int64_t> shape, size fan_in)
    {
        const float most = 1 / std::sqrt(static_cast<float>(fan_in));
        return uniforms(std::move(shape), -most, most);
    }

    /// softplus(bias) is spread evenly between 0.001 and 0.1 by its logarithm.
    tensor step_bias(size count)
    {
        tensor t = uniforms({count}, std::log(0.001f), std::log(0.1f));
        for (float& value : t.values) { value = std::log(std::expm1(std::exp(value))); }
        return t;
    }

private:
    std::uint64_t state_;
};

constexpr size width = 4, expand = 2;

} // namespace

tensors random_mamba1(size model)
{
    random_source random(1);
    const size inner = expand * model, states = 16, rank = (model + 15) / 16;
    tensors all;
    all["norm.weight"] = random.uniforms({model}, 0.5f, 1.5f);
    all["mixer.in_proj.weight"] = random.projection({2 * inner, model}, model);
    all["mixer.conv1d.weight"] = random.projection({inner, 1, width}, width);
    all["mixer.conv1d.bias"] = random.projection({inner}, width);
    all["mixer.x_proj.weight"] = random.projection({rank + 2 * states, inner}, inner / 25); // B and C of about 1
    all["mixer.dt_proj.weight"] = random.projection({inner, rank}, rank);
    all["mixer.dt_proj.bias"] = random.step_bias(inner);
    all["mixer.A_log"] = random.uniforms({inner, states}, 0, 0);
    auto& A_log = all["mixer.A_log"].values;
    for (std::size_t i = 0; i < A_log.size(); ++i) {
        A_log[i] = std::log(static_cast<float>(i % static_cast<std::size_t>(states) + 1));
    }
    all["mixer.D"] = random.uniforms({inner}, -0.5f, 0.5f);
    all["mixer.out_proj.weight"] = random.projection({model, inner}, inner);
    return all;
}

tensors random_mamba2(size model)
{
    random_source random(2);
    const size inner = expand * model, states = 128, groups = 1, heads = inner / 64;
    const size convolved = inner + 2 * groups * states;
    tensors all;
    all["norm.weight"] = random.uniforms({model}, 0.5f, 1.5f);
    all["mixer.in_proj.weight"] = random.projection({inner + convolved + heads, model}, model);
    all["mixer.conv1d.weight"] = random.projection({convolved, 1, width}, width);
    all["mixer.conv1d.bias"] = random.projection({convolved}, width);
    all["mixer.dt_bias"] = random.step_bias(heads);
    all["mixer.A_log"] = random.uniforms({heads}, 0.0f, std::log(16.0f));
    all["mixer.D"] = random.uniforms({heads}, -0.5f, 0.5f);
    all["mixer.norm.weight"] = random.uniforms({inner}, 0.5f, 1.5f);
    all["mixer.out_proj.weight"] = random.projection({model, inner}, inner);
    return all;
}

std::vector<float> random_tokens(size count)
{
    random_source random(3);
    std::vector<float> x(static_cast<std::size_t>(count));
    for (float& value : x) {
        value = -2; // four uniforms of variance 1/12 each
        for (int i = 0; i < 4; ++i) { value += random.uniform(0, 1); }
        value *= std::sqrt(3.0f);
    }
    return x;
}

} // namespace mamba_block
