// SPDX-License-Identifier: MIT
#include "weights.hpp"

#include <safetensors.hpp>

#include <bit>
#include <cstring>
#include <stdexcept>

namespace mamba_block {
namespace {

[[noreturn]] void refuse(const std::string& why) { throw std::runtime_error(why); }

std::string text_of(const std::vector<std::int64_t>& shape)
{
    std::string text = "[";
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        text += (axis > 0 ? ", " : "") + std::to_string(shape[axis]);
    }
    return text + "]";
}

/// IEEE half precision, exactly.
float from_half(std::uint16_t bits)
{
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) { return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13); }
    const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f; // the exponent's bias goes from 15 to 127
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

std::vector<float> widened(const formats::tensor& t, const unsigned char* data)
{
    const std::size_t bytes = t.end - t.begin;
    if (t.dtype == "F32") {
        std::vector<float> values(bytes / 4);
        if (bytes > 0) { std::memcpy(values.data(), data, bytes); }
        return values;
    }
    if (t.dtype != "F16" && t.dtype != "BF16") {
        refuse("'" + t.name + "' is of type " + t.dtype + ", not F32, F16 or BF16");
    }
    std::vector<float> values(bytes / 2);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto bits = static_cast<std::uint16_t>(data[2 * i] | data[2 * i + 1] << 8);
        values[i] = t.dtype == "F16" ? from_half(bits) : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }
    return values;
}

const tensor& find(const tensors& all, const std::string& name)
{
    const auto found = all.find(name);
    if (found == all.end()) { refuse("there is no tensor '" + name + "'"); }
    return found->second;
}

size extent(const tensors& all, const std::string& name, std::size_t axis)
{
    const std::vector<std::int64_t>& shape = find(all, name).shape;
    if (axis >= shape.size()) { refuse("'" + name + "' has shape " + text_of(shape) + ", too few axes"); }
    return static_cast<size>(shape[axis]);
}

const float* values(const tensors& all, const std::string& name, const std::vector<std::int64_t>& shape)
{
    const tensor& t = find(all, name);
    if (t.shape != shape) {
        refuse("'" + name + "' has shape " + text_of(t.shape) + ", but must have " + text_of(shape));
    }
    return t.values.data();
}

void at_least_one(size number, const char* of_what)
{
    if (number < 1) { refuse(std::string("the tensors leave ") + std::to_string(number) + " " + of_what); }
}

} // namespace

tensors read_tensors(const std::string& path, const std::string& prefix)
{
    const formats::safetensors file = formats::read_safetensors(path);
    tensors chosen;
    for (const formats::tensor& t : file.tensors) {
        if (t.name.compare(0, prefix.size(), prefix) == 0) {
            chosen[t.name.substr(prefix.size())] = {t.shape, widened(t, file.buffer.data() + t.begin)};
        }
    }
    if (chosen.empty()) { refuse("no tensor's name begins with '" + prefix + "'"); }
    return chosen;
}

std::optional<mamba1_weights> as_mamba1(const tensors& all)
{
    if (!all.contains("mixer.x_proj.weight")) { return std::nullopt; }
    mamba1_weights w{};
    w.model = extent(all, "mixer.out_proj.weight", 0), w.inner = extent(all, "mixer.out_proj.weight", 1);
    w.states = extent(all, "mixer.A_log", 1), w.rank = extent(all, "mixer.dt_proj.weight", 1);
    w.width = extent(all, "mixer.conv1d.weight", 2);
    at_least_one(w.model, "channels"), at_least_one(w.inner, "inner channels"),
        at_least_one(w.width, "taps of the convolution");
    w.norm = values(all, "norm.weight", {w.model});
    w.in_proj = values(all, "mixer.in_proj.weight", {2 * w.inner, w.model});
    w.conv_weight = values(all, "mixer.conv1d.weight", {w.inner, 1, w.width});
    w.conv_bias = values(all, "mixer.conv1d.bias", {w.inner});
    w.x_proj = values(all, "mixer.x_proj.weight", {w.rank + 2 * w.states, w.inner});
    w.dt_proj = values(all, "mixer.dt_proj.weight", {w.inner, w.rank});
    w.dt_bias = values(all, "mixer.dt_proj.bias", {w.inner});
    w.A_log = values(all, "mixer.A_log", {w.inner, w.states});
    w.D = values(all, "mixer.D", {w.inner});
    w.out_proj = values(all, "mixer.out_proj.weight", {w.model, w.inner});
    return w;
}

std::optional<mamba2_weights> as_mamba2(const tensors& all, size groups)
{
    if (!all.contains("mixer.dt_bias")) { return std::nullopt; }
    mamba2_weights w{};
    w.model = extent(all, "mixer.out_proj.weight", 0), w.inner = extent(all, "mixer.out_proj.weight", 1);
    w.heads = extent(all, "mixer.dt_bias", 0), w.groups = groups;
    w.width = extent(all, "mixer.conv1d.weight", 2);
    const size convolved = extent(all, "mixer.conv1d.weight", 0), of_B_and_C = convolved - w.inner;
    at_least_one(w.model, "channels"), at_least_one(w.inner, "inner channels"),
        at_least_one(w.width, "taps of the convolution");
    at_least_one(w.heads, "heads"), at_least_one(w.groups, "groups"), at_least_one(of_B_and_C, "channels for B and C");
    const auto divides = [](size divisor, const char* of_what, size number, const char* what) {
        if (number % divisor != 0) {
            refuse(std::to_string(divisor) + " " + of_what + " do not divide " + std::to_string(number) + " " + what);
        }
    };
    divides(w.heads, "heads", w.inner, "inner channels"), divides(w.groups, "groups", w.heads, "heads");
    divides(2 * w.groups, "times B or C of a group", of_B_and_C, "channels for B and C");
    w.states = of_B_and_C / (2 * w.groups);
    w.norm = values(all, "norm.weight", {w.model});
    w.in_proj = values(all, "mixer.in_proj.weight", {w.inner + convolved + w.heads, w.model});
    w.conv_weight = values(all, "mixer.conv1d.weight", {convolved, 1, w.width});
    w.conv_bias = values(all, "mixer.conv1d.bias", {convolved});
    w.dt_bias = values(all, "mixer.dt_bias", {w.heads});
    w.A_log = values(all, "mixer.A_log", {w.heads});
    w.D = values(all, "mixer.D", {w.heads});
    w.gate_norm = values(all, "mixer.norm.weight", {w.inner});
    w.out_proj = values(all, "mixer.out_proj.weight", {w.model, w.inner});
    return w;
}

} // namespace mamba_block
