// SPDX-License-Identifier: MIT
// recall: predicts every next byte of a text from what came before, by attention, and by states of fixed size beside
// it. README.md explains.
#include "methods.hpp"
#include "pairs.hpp"
#include "predict.hpp"
#include "table.hpp"
#include "text.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#ifndef SEQMIX_RECALL_TEXT_DIR
#define SEQMIX_RECALL_TEXT_DIR "examples/recall/text"
#endif

namespace {

struct arguments {
    std::string file = SEQMIX_RECALL_TEXT_DIR "/northanger-abbey.txt";
    std::string bytes;   // empty: not given
    std::string backend; // empty: all
    std::ptrdiff_t window = 8192;
    int threads = 1;
    bool csv = false;
};

/// Without a window, time grows with the square of the length: by default, this much of the text.
constexpr std::ptrdiff_t default_unwindowed = 32768;

/// How many bytes of the text --bytes asks for; 0: not given.
std::ptrdiff_t asked_length(const std::string& bytes, std::ptrdiff_t length)
{
    if (bytes.empty()) { return 0; }
    if (bytes == "all") { return length; }
    std::ptrdiff_t n = 0;
    const auto [end, error] = std::from_chars(bytes.data(), bytes.data() + bytes.size(), n);
    if (error != std::errc() || end != bytes.data() + bytes.size() || n < 1 || n > length) {
        throw std::invalid_argument("--bytes is '" + bytes + "', but must be 'all' or 1 up to the file's " +
                                    std::to_string(length));
    }
    return n;
}

/// The backends to show, the best one last.
std::vector<recall::backend> chosen_backends(const std::string& only)
{
    const std::vector<recall::backend> usable = recall::usable_backends();
    if (only.empty()) { return usable; }
    std::string names;
    for (const recall::backend& backend : usable) {
        if (only == backend.name) { return {backend}; }
        names += std::string(" ") + backend.name;
    }
    throw std::invalid_argument("--backend is '" + only + "', but must be one of those that run here:" + names);
}

std::vector<recall::plan> plans(const std::vector<recall::backend>& backends, const arguments& args,
                                std::ptrdiff_t length)
{
    const std::ptrdiff_t asked = asked_length(args.bytes, length);
    std::vector<recall::plan> all;
    const auto add = [&](const recall::backend& backend, const recall::method& method) {
        const bool windowed = method.reach == recall::sees::window;
        std::ptrdiff_t n = asked > 0 ? asked : windowed ? length : std::min(length, default_unwindowed);
        if (method.at_most > 0) { n = std::min(n, method.at_most); }
        all.push_back({backend.name, &method, n, windowed ? args.window : 0, args.threads});
    };
    const recall::backend& best = backends.back();
    for (std::ptrdiff_t m = 0; m < best.methods->count; ++m) {
        const recall::method& method = best.methods->list[m];
        for (const recall::backend& backend : backends) {
            if (&backend == &best || method.where == recall::on::every_backend) {
                add(backend, backend.methods->list[m]);
            }
        }
    }
    return all;
}

/// Whatever computes attention's rows, the predictions must be the same wherever the rows see the same keys. Returns
/// the largest difference in bits per byte and the shortest beginning that was compared.
struct agreement {
    double difference = 0;
    std::ptrdiff_t shortest = 0;
};
agreement compare(const std::vector<recall::result>& results)
{
    agreement all{0, results.front().plan.length};
    const auto as_attention = [](const recall::result& r) {
        return r.plan.method->answer == recall::predicts::as_attention;
    };
    for (const recall::result& a : results) {
        for (const recall::result& b : results) {
            if (!as_attention(a) || !as_attention(b)) { continue; }
            std::ptrdiff_t common = std::min(a.plan.length, b.plan.length);
            if (a.plan.window != b.plan.window) { common = std::min(common, std::max(a.plan.window, b.plan.window)); }
            all.difference = std::max(all.difference, std::fabs(a.bits_per_byte(common) - b.bits_per_byte(common)));
            all.shortest = std::min(all.shortest, common);
        }
    }
    return all;
}

template <class Output>
int run(const arguments& args, const recall::text& text, Output output)
{
    const auto length = static_cast<std::ptrdiff_t>(text.bytes.size());
    const std::vector<recall::backend> backends = chosen_backends(args.backend);
    const std::vector<recall::plan> todo = plans(backends, args, length);
    std::vector<recall::result> results;
    if (!args.csv) {
        const std::string name = std::filesystem::path(args.file).filename().string();
        std::printf("%s: %td bytes, %d different; by frequency alone (order 0) %.3f bits per byte\n\n", name.c_str(),
                    length, text.distinct, recall::order0_entropy(text, text.bytes.size()));
    }
    output.head();
    double worst_sum = 0;
    for (const recall::plan& plan : todo) {
        results.push_back(recall::predict(text, plan));
        output.line(results.back(), recall::order0_entropy(text, static_cast<std::size_t>(plan.length)));
        worst_sum = std::max(worst_sum, results.back().worst_sum);
    }

    const agreement found = compare(results);
    const bool same = found.difference < 0.0005, sums = worst_sum < 1e-3;
    std::FILE* const report = args.csv ? stderr : stdout;
    if (!args.csv || !same || !sums) {
        std::fprintf(report,
                     "\n%s: where they see the same (the first %td bytes at least), all that attend are within %.1g "
                     "bits per byte\n",
                     same ? "checked" : "FAILED", found.shortest, found.difference);
        std::fprintf(report, "%s: every distribution sums to 1 within %.1g before it is normalised\n",
                     sums ? "checked" : "FAILED", worst_sum);
    }
    if (args.csv) { return same && sums ? 0 : 1; }

    const bool more = recall::show_pairs(*backends.back().methods);
    std::printf("\n%s: rules that replace recall more than rules that add, of however many keys\n",
                more ? "checked" : "FAILED");
    return same && sums && more ? 0 : 1;
}

} // namespace

int main(int argc, char** argv)
{
    arguments args;
    CLI::App app{
        "Predicts every next byte of a text from what came before, by attention or by states, without training."};
    app.add_option("FILE", args.file, "The text; default: the first volume of Northanger Abbey");
    app.add_option("--bytes", args.bytes, "Only the first N bytes; default: all with the window, 32768 without")
        ->type_name("N|all");
    app.add_option("--window", args.window, "Bytes that the sliding window sees")
        ->check(CLI::Range(1, 1 << 30))
        ->capture_default_str();
    app.add_option("--threads", args.threads, "Threads of the tiled kernels")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    app.add_option("--backend", args.backend, "Only this instruction set, such as avx2; default: all that run here");
    app.add_flag("--csv", args.csv, "Comma-separated values for machines");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    try {
        const recall::text text = recall::load_text(args.file);
        return args.csv ? run(args, text, recall::csv{}) : run(args, text, recall::table{});
    } catch (const std::exception& error) {
        std::fprintf(stderr, "recall: %s\n", error.what());
        return 2;
    }
}
