// SPDX-License-Identifier: MIT
// quantize_layer: what a matrix of weights loses in several formats, by several quantizers. README.md explains.
#include "encodings.hpp"

#include <can_run.hpp>

#include <seqmix/quant/reference.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>

#define SEQMIX_ARCH(name) extern const quantize_layer::backend quantize_layer_##name;
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

namespace {

using namespace quantize_layer;
namespace sm = seqmix;

struct arguments {
    std::string file, tensor, activations, backend;
    size rows = 512, columns = 1024, calibrate = 512, tokens = 128;
};

struct named_backend {
    const char* name = nullptr;
    const quantize_layer::backend* kernels = nullptr;
};

/// The best that this machine runs, or the one asked for.
named_backend chosen_backend(const std::string& only)
{
    named_backend chosen;
    std::string names;
    const auto offer = [&](const char* name, const quantize_layer::backend& kernels) {
        if (!can_run(name)) { return; }
        names += std::string(" ") + name;
        if (only.empty() || only == name) { chosen = {name, &kernels}; }
    };
#define SEQMIX_ARCH(name) offer(#name, quantize_layer_##name);
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH
    if (chosen.name == nullptr) {
        throw std::invalid_argument("--backend is '" + only + "', but must be one of those that run here:" + names);
    }
    return chosen;
}

layer read_layer(const arguments& args)
{
    layer l;
    l.rows = args.rows, l.columns = args.columns;
    const bool is_safetensors = args.file.ends_with(".safetensors");
    if (args.file.empty()) {
        l.weights = random_weights(l.rows, l.columns);
    } else if (is_safetensors) {
        l.weights = read_safetensors_matrix(args.file, args.tensor, l.rows, l.columns);
    } else {
        l.weights = read_raw_matrix(args.file, l.rows, l.columns);
    }
    if (l.rows == 0 || l.columns == 0) { throw std::runtime_error("the matrix is empty"); }
    if (args.activations.empty()) {
        l.calibration_tokens = args.calibrate, l.tokens = args.tokens;
        add_random_activations(l);
        return l;
    }
    if (!is_safetensors) { throw std::invalid_argument("--activations names a tensor, but the weights come from no .safetensors file"); }
    size rows = 0, columns = 0;
    const std::vector<float> x = read_safetensors_matrix(args.file, args.activations, rows, columns);
    if (columns != l.columns || rows < 2) {
        throw std::runtime_error("'" + args.activations + "' must have at least 2 rows and the weights' " + std::to_string(l.columns) + " columns");
    }
    l.calibration_tokens = rows / 2, l.tokens = rows - rows / 2;
    const std::ptrdiff_t border = l.calibration_tokens * l.columns;
    l.calibration.assign(x.begin(), x.begin() + border), l.x.assign(x.begin() + border, x.end());
    return l;
}

/// The size of `got` - `want` relative to that of `want`.
template <class T, class U>
double relative_error(const std::vector<T>& got, const std::vector<U>& want)
{
    double apart = 0, all = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        const double w = static_cast<double>(want[i]), e = static_cast<double>(got[i]) - w;
        apart += e * e, all += w * w;
    }
    return all > 0 ? std::sqrt(apart / all) : std::sqrt(apart);
}

struct products {
    std::vector<double> sums, sizes; ///< Σ x w and Σ |x w|
};
products in_double(const layer& l, const std::vector<float>& x, const std::vector<float>& w)
{
    const auto count = static_cast<std::size_t>(l.tokens * l.rows);
    products p{std::vector<double>(count), std::vector<double>(count)};
    sm::quant::reference::matmul(
        sm::view<const float, 2>(x.data(), {l.tokens, l.columns}), sm::view<const float, 2>(w.data(), {l.rows, l.columns}), sm::view<const float, 1>{},
        sm::view<const float, 2>{}, [](double sum) { return sum; }, sm::view<double, 2>(p.sums.data(), {l.tokens, l.rows}),
        sm::view<double, 2>(p.sizes.data(), {l.tokens, l.rows}));
    return p;
}

int run(const arguments& args)
{
    const named_backend on = chosen_backend(args.backend);
    const layer l = read_layer(args);
    std::printf("%td x %td weights, %td tokens to calibrate by and %td others to judge by; %s\n\n", l.rows, l.columns, l.calibration_tokens, l.tokens, on.name);
    const std::vector<encoding> all = encode_all(l);
    const products want = in_double(l, l.x, l.weights);
    std::printf("%-28s  %6s  %8s  %16s  %16s\n", "", "bits a", "error of", "error of outputs", "time over float");
    std::printf("%-28s  %6s  %8s  %8s%8s  %8s%8s\n", "format", "weight", "weights", "floats", "int8", "1 token", "all");
    double worst = 0;
    for (const encoding& e : all) {
        std::vector<float> x = l.x, weights = e.decoded;
        for (std::size_t i = 0; i < x.size() && !e.channel_scales.empty(); ++i) { x[i] /= e.channel_scales[i % e.channel_scales.size()]; }
        for (std::size_t i = 0; i < weights.size() && !e.channel_scales.empty(); ++i) { weights[i] /= e.channel_scales[i % e.channel_scales.size()]; }
        std::vector<float> by_floats(want.sums.size()), by_int8(by_floats);
        outcome got{by_floats.data(), by_int8.data(), false, 0, 0};
        on.kernels->multiply({e.kind, e.codes.data(), static_cast<size>(e.codes.size()), e.scales.data(), e.zeros.data(),
                              e.order.empty() ? nullptr : e.order.data(), e.group},
                             {l.tokens, l.rows, l.columns, x.data(), l.weights.data()}, got);
        const products of_decoded = in_double(l, x, e.decoded);
        for (std::size_t i = 0; i < by_floats.size(); ++i) {
            const double bound = static_cast<double>(l.columns + 1) * 0x1p-24 * of_decoded.sizes[i];
            const double apart = std::fabs(static_cast<double>(by_floats[i]) - of_decoded.sums[i]);
            worst = apart <= 0 ? worst : std::max(worst, apart / bound);
        }
        char int8[32] = "-";
        if (got.has_int8) { std::snprintf(int8, sizeof int8, "%.2f%%", 100 * relative_error(by_int8, want.sums)); }
        std::printf("%-28s  %6.2f  %7.2f%%  %7.2f%%%8s  %8.2f%8.2f\n", e.name.c_str(), e.bits_a_weight(), 100 * relative_error(weights, l.weights),
                    100 * relative_error(by_floats, want.sums), int8, got.one_token, got.all);
        std::fflush(stdout);
    }
    const bool good = worst <= 1;
    std::printf("\n%s: products by floats are within the bound of a sum in float from those in double of what is stored\n", good ? "checked" : "FAILED");
    return good ? 0 : 1;
}

} // namespace

int main(int argc, char** argv)
{
    arguments args;
    const CLI::Range positive(1, 1 << 20);
    CLI::App app{"Quantizes a matrix of weights in several formats and by several quantizers, and compares what its outputs lose."};
    app.add_option("FILE", args.file, "A .safetensors file, or raw floats with --rows and --columns; default: random weights");
    app.add_option("--tensor", args.tensor, "The matrix [outputs, inputs] of the .safetensors file; default: the only one");
    app.add_option("--activations", args.activations, "A tensor [tokens, inputs] of it: one half calibrates, the other judges; default: random");
    app.add_option("--rows", args.rows, "Outputs")->check(positive)->capture_default_str();
    app.add_option("--columns", args.columns, "Inputs")->check(positive)->capture_default_str();
    app.add_option("--calibrate", args.calibrate, "Random activations to calibrate by")->check(positive)->capture_default_str();
    app.add_option("--tokens", args.tokens, "Random activations to judge by")->check(positive)->capture_default_str();
    app.add_option("--backend", args.backend, "This instruction set, such as avx2; default: the best that runs here");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    try {
        return run(args);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "quantize_layer: %s%s\n", args.file.empty() ? "" : (args.file + ": ").c_str(), error.what());
        return 2;
    }
}
