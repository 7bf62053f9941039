// SPDX-License-Identifier: MIT
#include "layer.hpp"

#include <safetensors.hpp>

#include <seqmix/core/types.hpp>

#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>

namespace quantize_layer {
namespace {

/// Integer arithmetic and exact conversions: the same numbers on every machine.
class normal_numbers {
public:
    explicit normal_numbers(std::uint64_t seed) : bits_(seed) {}
    float next()
    {
        double sum = -6.0;
        for (int i = 0; i < 12; ++i) { sum += static_cast<double>(bits_() >> 40) * 0x1p-24; }
        return static_cast<float>(sum);
    }

private:
    std::mt19937_64 bits_;
};

template <class T>
std::vector<float> widened(const unsigned char* data, std::size_t count)
{
    std::vector<float> numbers(count);
    for (std::size_t i = 0; i < count; ++i) {
        T x;
        std::memcpy(&x, data + i * sizeof(T), sizeof(T));
        numbers[i] = static_cast<float>(x);
    }
    return numbers;
}

} // namespace

std::vector<float> read_safetensors_matrix(const std::string& path, const std::string& name, size& rows, size& columns)
{
    const formats::safetensors file = formats::read_safetensors(path);
    const formats::tensor* found = nullptr;
    for (const formats::tensor& t : file.tensors) {
        if (name.empty() ? t.shape.size() != 2 : t.name != name) { continue; }
        if (found != nullptr) { throw std::runtime_error("there are several matrices; --tensor says which"); }
        found = &t;
    }
    if (found == nullptr) { throw std::runtime_error(name.empty() ? "there is no matrix" : "there is no tensor '" + name + "'"); }
    if (found->shape.size() != 2) { throw std::runtime_error("'" + found->name + "' is no matrix"); }
    rows = found->shape[0], columns = found->shape[1];
    const unsigned char* const data = file.buffer.data() + found->begin;
    const std::size_t bytes = found->end - found->begin;
    if (found->dtype == "F32") { return widened<float>(data, bytes / 4); }
    if (found->dtype == "F16") { return widened<seqmix::f16>(data, bytes / 2); }
    if (found->dtype == "BF16") { return widened<seqmix::bf16>(data, bytes / 2); }
    throw std::runtime_error("'" + found->name + "' is of type " + found->dtype + ", not F32, F16 or BF16");
}

std::vector<float> read_raw_matrix(const std::string& path, size rows, size columns)
{
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) { throw std::runtime_error("the file can't be opened"); }
    const auto bytes = static_cast<std::ptrdiff_t>(file.tellg()), want = rows * columns * size{4};
    if (bytes != want) {
        throw std::runtime_error("the file has " + std::to_string(bytes) + " bytes, but --rows and --columns ask for " + std::to_string(want));
    }
    std::vector<float> numbers(static_cast<std::size_t>(rows * columns));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(numbers.data()), want);
    if (!file) { throw std::runtime_error("the file can't be read"); }
    return numbers;
}

std::vector<float> random_weights(size rows, size columns)
{
    normal_numbers numbers(1);
    std::vector<float> weights(static_cast<std::size_t>(rows * columns));
    for (float& w : weights) { w = 0.02f * numbers.next(); }
    return weights;
}

void add_random_activations(layer& l)
{
    constexpr size causes = 32, one_in = 64;
    normal_numbers numbers(2);
    std::vector<float> mixing(static_cast<std::size_t>(causes * l.columns));
    for (float& m : mixing) { m = 0.2f * numbers.next(); }
    for (std::vector<float>* const part : {&l.calibration, &l.x}) {
        const size tokens = part == &l.x ? l.tokens : l.calibration_tokens;
        for (size t = 0; t < tokens; ++t) {
            float cause[causes];
            for (float& c : cause) { c = numbers.next(); }
            for (size k = 0; k < l.columns; ++k) {
                float sum = 0.5f * numbers.next();
                for (size c = 0; c < causes; ++c) { sum += cause[c] * mixing[static_cast<std::size_t>(c * l.columns + k)]; }
                part->push_back(k % one_in == 7 ? 30.0f * sum : sum);
            }
        }
    }
}

} // namespace quantize_layer
