// SPDX-License-Identifier: MIT
// mamba_block: a Mamba-1 and a Mamba-2 block, whose outputs must not depend on how a sequence is cut. README.md
// explains.
#include "kernel.hpp"
#include "weights.hpp"

#include <can_run.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#define SEQMIX_ARCH(name) extern const mamba_block::backend mamba_block_##name;
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

namespace {

using namespace mamba_block;

struct arguments {
    size tokens = 1024, model = 768, chunk = 100, slab = 256, groups = 1;
    std::string file, prefix = "backbone.layers.0.", backend;
};

struct named_backend {
    const char* name;
    const mamba_block::backend* kernels;
};

/// Those compiled in that this machine runs, the best one last.
std::vector<named_backend> chosen_backends(const std::string& only)
{
    std::vector<named_backend> usable;
    std::string names;
    const auto offer = [&](const char* name, const mamba_block::backend& kernels) {
        if (!can_run(name)) { return; }
        names += std::string(" ") + name;
        if (only.empty() || only == name) { usable.push_back({name, &kernels}); }
    };
#define SEQMIX_ARCH(name) offer(#name, mamba_block_##name);
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH
    if (usable.empty()) {
        throw std::invalid_argument("--backend is '" + only + "', but must be one of those that run here:" + names);
    }
    return usable;
}

/// What a route gave; its cost is that of the fastest of some runs.
struct result {
    mamba_block::cost cost{};
    std::vector<float> out, bound;
};

/// One kind of block with its weights: calls the backend's function for it.
template <class Weights, class Function>
class experiment {
public:
    experiment(const Weights& weights, Function function) : weights_(weights), function_(function) {}

    result run(const named_backend& on, const route& how, bool with_bound = false, double at_least_seconds = 0) const
    {
        const std::vector<float> x = random_tokens(how.tokens * weights_.model);
        result r{{}, std::vector<float>(x.size()), std::vector<float>(with_bound ? x.size() : 0)};
        const auto once = [&](float* bound) {
            return (on.kernels->*function_)(weights_, how, x.data(), r.out.data(), bound);
        };
        r.cost = once(with_bound ? r.bound.data() : nullptr);
        double total = r.cost.seconds;
        for (int again = 0; again < 20 && total < at_least_seconds; ++again) {
            const double seconds = once(nullptr).seconds;
            total += seconds;
            r.cost.seconds = std::min(r.cost.seconds, seconds);
        }
        return r;
    }

private:
    Weights weights_;
    Function function_;
};

/// How far `got` is from `want`: relative to the largest output, and of what may be.
struct difference {
    double relative = 0, of_bound = 0;
};
difference compare(const std::vector<float>& got, const result& want)
{
    double worst = 0, largest = 0, of_bound = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double apart = std::fabs(static_cast<double>(got[i]) - static_cast<double>(want.out[i]));
        if (std::isnan(apart)) { return {apart, apart}; } // which is within no bound
        worst = std::max(worst, apart);
        of_bound = std::max(of_bound, apart == 0 ? 0 : apart / static_cast<double>(want.bound[i]));
        largest = std::max(largest, std::fabs(static_cast<double>(want.out[i])));
    }
    return {worst == 0 ? 0 : worst / largest, of_bound};
}

std::string size_text(std::size_t bytes)
{
    char text[32];
    std::snprintf(text, sizeof text, bytes < 10'240'000 ? "%.0f KiB" : "%.0f MiB",
                  static_cast<double>(bytes) / (bytes < 10'240'000 ? 1024 : 1024 * 1024));
    return text;
}

/// The table of routes on all backends. Returns whether all agree.
template <class Experiment>
bool show_routes(const Experiment& block, const std::vector<named_backend>& backends, const arguments& args)
{
    constexpr double enough = 0.3; // seconds to find the fastest run in
    bool same = true;
    std::printf("  %-11s  %-16s  %6s  %9s  %10s  %9s\n", "backend", "route", "tokens", "tokens/s", "difference",
                "of bound");
    for (const named_backend& on : backends) {
        // The scalar backend has one lane, and its lines should not hold up the others.
        const size tokens = std::string(on.name) == "scalar" ? std::min(args.tokens, size{64}) : args.tokens;
        const result whole = block.run(on, {tokens, tokens, tokens}, true, enough);
        const auto line = [&](const std::string& name, const result& r) {
            const difference d = compare(r.out, whole);
            const bool within = d.of_bound <= 1;
            std::printf("  %-11s  %-16s  %6td  %9.0f  %10.1e  %9.1e%s\n", on.name, name.c_str(), tokens,
                        static_cast<double>(tokens) / r.cost.seconds, d.relative, d.of_bound, within ? "" : "  FAILED");
            std::fflush(stdout);
            same = same && within;
        };
        line("one call", whole);
        line("slabs of " + std::to_string(args.slab), block.run(on, {tokens, tokens, args.slab}, false, enough));
        line("chunks of " + std::to_string(args.chunk), block.run(on, {tokens, args.chunk, args.chunk}, false, enough));
        line("token by token", block.run(on, {tokens, 0, 1}, false, enough));
        if (&on == &backends.back()) {
            std::printf("\n  carried from call to call: %s, however long the sequence\n",
                        size_text(whole.cost.state_bytes).c_str());
        }
    }
    return same;
}

constexpr size smallest_slab = 32;

/// Time and memory of cutting the work into slabs, by the best backend, relative to none. All ways take turns, so that
/// what else the machine does falls on all; the fastest of their turns counts.
template <class Experiment>
void show_slabs(const Experiment& block, const named_backend& on, size tokens)
{
    struct way {
        route how;
        cost best{};
    };
    std::vector<way> ways = {{{tokens, tokens, tokens}}};
    for (size slab = smallest_slab; slab < tokens; slab *= 2) {
        ways.push_back({{tokens, tokens, slab}});
        ways.push_back({{tokens, slab, slab}});
    }
    for (int turn = 0; turn < 7; ++turn) {
        for (way& w : ways) {
            const cost c = block.run(on, w.how).cost;
            if (turn == 0 || c.seconds < w.best.seconds) { w.best = c; }
        }
    }
    const cost& whole = ways.front().best;
    std::printf(
        "\n  slabs (%s, %td tokens): time, and memory beside weights, over those of one call in one slab (%s)\n\n",
        on.name, tokens, size_text(whole.buffer_bytes).c_str());
    std::printf("  %9s  %25s  %25s\n", "slab", "convolution to scan", "whole block");
    for (std::size_t i = 1; i < ways.size(); i += 2) {
        const auto over_whole = [&](const cost& c) {
            char text[32];
            std::snprintf(text, sizeof text, "%.2f time, %.2f memory", c.seconds / whole.seconds,
                          static_cast<double>(c.buffer_bytes) / static_cast<double>(whole.buffer_bytes));
            return std::string(text);
        };
        std::printf("  %9td  %25s  %25s\n", ways[i].how.slab, over_whole(ways[i].best).c_str(),
                    over_whole(ways[i + 1].best).c_str());
    }
}

template <class Experiment>
bool show(const Experiment& block, const std::vector<named_backend>& backends, const arguments& args)
{
    const bool same = show_routes(block, backends, args);
    if (args.tokens > smallest_slab) { show_slabs(block, backends.back(), args.tokens); }
    std::printf("\n");
    return same;
}

int run(const arguments& args)
{
    const std::vector<named_backend> backends = chosen_backends(args.backend);
    const std::vector<tensors> blocks = args.file.empty()
                                            ? std::vector<tensors>{random_mamba1(args.model), random_mamba2(args.model)}
                                            : std::vector<tensors>{read_tensors(args.file, args.prefix)};
    bool same = true;
    for (const tensors& all : blocks) {
        if (const auto w = as_mamba1(all)) {
            std::printf("Mamba-1: model %td, inner %td, %td states, convolution of %td, dt of rank %td\n\n", w->model,
                        w->inner, w->states, w->width, w->rank);
            same = show(experiment(*w, &mamba_block::backend::mamba1), backends, args) && same;
        } else if (const auto v = as_mamba2(all, args.groups)) {
            std::printf("Mamba-2: model %td, inner %td, %td heads, %td states, convolution of %td\n\n", v->model,
                        v->inner, v->heads, v->states, v->width);
            same = show(experiment(*v, &mamba_block::backend::mamba2), backends, args) && same;
        } else {
            throw std::runtime_error("neither 'mixer.x_proj.weight' (Mamba-1) nor 'mixer.dt_bias' (Mamba-2) is there");
        }
    }
    std::printf("%s: every route is within its bound of one call\n", same ? "checked" : "FAILED");
    return same ? 0 : 1;
}

} // namespace

int main(int argc, char** argv)
{
    arguments args;
    const CLI::Range positive(1, 1 << 20);
    CLI::App app{
        "Runs a Mamba-1 and a Mamba-2 block by one call, by chunks and token by token, and compares the outputs."};
    app.add_option("FILE", args.file, "A .safetensors checkpoint; default: both blocks with random weights");
    app.add_option("--prefix", args.prefix, "What the names of the block's tensors begin with")->capture_default_str();
    app.add_option("--groups", args.groups, "Groups of B and C in the checkpoint's Mamba-2 block")
        ->check(positive)
        ->capture_default_str();
    app.add_option("--model", args.model, "Channels of the random blocks, a multiple of 32")
        ->check(positive)
        ->capture_default_str();
    app.add_option("--tokens", args.tokens, "Length of the sequence")->check(positive)->capture_default_str();
    app.add_option("--chunk", args.chunk, "Tokens of a call when the sequence comes in chunks")
        ->check(positive)
        ->capture_default_str();
    app.add_option("--slab", args.slab, "Tokens that go from the convolution to the scan at a time")
        ->check(positive)
        ->capture_default_str();
    app.add_option("--backend", args.backend, "Only this instruction set, such as avx2; default: all that run here");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    try {
        if (args.model % 32 != 0) {
            throw std::invalid_argument("--model is " + std::to_string(args.model) + ", but must be a multiple of 32");
        }
        return run(args);
    } catch (const std::exception& error) {
        const std::string of_file = args.file.empty() ? "" : args.file + ": ";
        std::fprintf(stderr, "mamba_block: %s%s\n", of_file.c_str(), error.what());
        return 2;
    }
}
