// SPDX-License-Identifier: MIT
// seqmix_bench: every kernel beside this core's measured peaks and beside its peers. Google Benchmark selects and
// reports; how a row is measured stands in measure.cpp. Compiled without -m flags: it runs before one knows what the
// machine can do.
#include "catalog.hpp"
#include "compile_time.hpp"
#include "floors.hpp"

#include <benchmark/benchmark.h>

#include <seqmix/version.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace bench;

constexpr const char* usage = R"(seqmix_bench [--seconds S] [--processor-time] [Google Benchmark's options]
    Measures everything, or what --benchmark_filter=<regex> selects. JSON: --benchmark_format=json.
seqmix_bench --floors [PATTERN] --floors-file FILE [--seconds S] [--processor-time]
    Measures the rows of FILE whose names contain PATTERN, and prints for each:
    ok|short|absent  ROW  MEASURED  FLOOR
    Exits with 1 if any is short, with 2 if there is no such row or the file is malformed.
--seconds S: time for each row and each of its peers (default 1; with --floors 2).
--processor-time: instead of the wall clock, for a machine that others use as well.
)";

struct arguments {
    bool help = false, wrong = false, floors = false, lists = false, processor_time = false;
    std::string pattern, file;
    double seconds = 0;
    std::vector<char*> rest;

    arguments(int count, char** values)
    {
        const auto value_of = [&](int& i, const std::string& option, std::string& value) {
            const std::string argument = values[i];
            if (argument.compare(0, option.size() + 1, option + '=') == 0) {
                value = argument.substr(option.size() + 1);
                return true;
            }
            if (argument != option) { return false; }
            if (i + 1 == count) { wrong = true; }
            value = i + 1 < count ? values[++i] : "";
            return true;
        };
        rest.push_back(values[0]);
        for (int i = 1; i < count; ++i) {
            const std::string argument = values[i];
            std::string number;
            if (argument == "--floors" || argument.compare(0, 9, "--floors=") == 0) {
                floors = true;
                if (argument.size() > 8) {
                    pattern = argument.substr(9);
                } else if (i + 1 < count && values[i + 1][0] != '-') {
                    pattern = values[++i];
                }
            } else if (value_of(i, "--floors-file", file)) {
            } else if (value_of(i, "--seconds", number)) {
                seconds = std::atof(number.c_str());
                wrong = wrong || !(seconds > 0);
            } else if (argument == "--processor-time") {
                processor_time = true;
            } else {
                help = help || argument == "--help" || argument == "-h";
                lists = lists || argument.compare(0, 22, "--benchmark_list_tests") == 0;
                rest.push_back(values[i]);
            }
        }
        wrong = wrong || (floors && (file.empty() || rest.size() > 1));
    }
};

double giga(double x) { return x * 1e-9; }

/// What is kept from row to row.
struct session {
    effort how;
    std::map<const instruction_set*, peak_table> peaks;
    std::vector<std::string> slower_than_a_peer;
};

std::string figures(const peak_table& t, bool has_bf16_dot)
{
    const auto best = [&](limit kind) { return giga(t.best[static_cast<std::size_t>(kind)]); };
    char text[200];
    char bf16[40] = "bf16 as f32";
    if (has_bf16_dot) { std::snprintf(bf16, sizeof bf16, "bf16 %.1f", best(limit::bf16)); }
    std::snprintf(text, sizeof text, "f32 %.1f GFLOP/s, %s, int8 %.1f GOP/s, exp2 %.2f Gelement/s, read %.1f GB/s, copy %.1f GB/s", best(limit::f32), bf16,
                  best(limit::int8), best(limit::exp2), best(limit::read), best(limit::copy));
    return text;
}

const char* name_of(limit kind)
{
    constexpr const char* names[] = {"f32 peak", "bf16 peak", "int8 peak", "exp2 peak", "read bandwidth", "copy bandwidth", ""};
    return names[static_cast<int>(kind)];
}

void run(benchmark::State& state, const place& at, session& all)
{
    const row& r = *at.what;
    const measured m = measure(at, all.how);
    for (auto _ : state) { state.SetIterationTime(m.seconds); }

    const double rate = r.work / m.seconds;
    auto& counters = state.counters;
    counters[std::string("G") + r.unit + "/s"] = giga(rate);
    counters["rounds"] = m.rounds;
    std::string label = std::string(at.set->name) + ": " + r.shape;
    if (const limit kind = at.of_limit(); kind != limit::none) {
        double& peak = all.peaks[&at.limit_set()].best[static_cast<std::size_t>(kind)];
        peak = std::max(peak, m.peak);
        counters["peak_fraction"] = rate / peak;
        label += std::string("; of the ") + name_of(kind);
    }
    if (r.says == figure::time_over_share) { counters["time_over_share"] = m.figure_of(r); }
    if (r.says == figure::speed_up) { counters["speed_up"] = m.figure_of(r); }

    const peer_result* best = nullptr;
    for (const peer_result& p : m.peers) {
        counters[p.name] = giga(r.work / p.seconds);
        if (best == nullptr || p.seconds < best->seconds) { best = &p; }
    }
    if (best != nullptr) {
        const double versus = best->seconds / m.seconds;
        counters["peer"] = giga(r.work / best->seconds);
        counters["versus_peer"] = versus;
        label += std::string("; best peer ") + best->name;
        if (versus < 1) {
            label += ", which is faster";
            char text[200];
            std::snprintf(text, sizeof text, "%s: %.2f of %s's speed", at.name().c_str(), versus, best->name);
            all.slower_than_a_peer.push_back(text);
        }
    }
    for (const std::string& remark : m.remarks) { label += "; " + remark; }
    if (const std::string remark = m.disturbance(); !remark.empty()) { label += "; " + remark; }
    state.SetLabel(label.c_str());
}

void run_compiler(benchmark::State& state, const instruction_set& set)
{
    const auto seconds = compile_seconds(set);
    for (auto _ : state) { state.SetIterationTime(seconds.value_or(0)); }
    if (seconds) {
        state.SetLabel("processor seconds at -O2 for " + std::string(set.name) + " with " SEQMIX_BENCH_COMPILER);
    } else {
        state.SetLabel(SEQMIX_BENCH_COMPILER " can't be run here");
    }
}

std::string governor()
{
    std::ifstream in("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    std::string name;
    return in >> name ? name : "not readable";
}

std::string joined(const std::vector<std::string>& words)
{
    std::string all;
    for (const std::string& word : words) { all += (all.empty() ? "" : " ") + word; }
    return all.empty() ? "none" : all;
}

/// Google Benchmark says only in its reports whether it was built without optimisation.
bool library_is_debug()
{
    std::ostringstream text;
    benchmark::JSONReporter reporter;
    reporter.SetOutputStream(&text);
    reporter.SetErrorStream(&text);
    return reporter.ReportContext(benchmark::BenchmarkReporter::Context()) &&
           text.str().find("\"library_build_type\": \"debug\"") != std::string::npos;
}

void describe(const catalog& all, session& now_running)
{
    const instruction_set& best = *all.sets().back();
    std::vector<std::string> names;
    for (const instruction_set* set : all.sets()) { names.push_back(set->name); }
    benchmark::AddCustomContext("seqmix", best.build_info);
    benchmark::AddCustomContext("instruction_sets", joined(names) + "; not on this machine: " + joined(all.left_out()));
    benchmark::AddCustomContext("flags", best.flags);
    benchmark::AddCustomContext("peers", best.peers);
    benchmark::AddCustomContext("cpu_governor", governor());
    for (const instruction_set* set : all.sets()) {
        now_running.peaks[set] = measure_peaks(*set, now_running.how.processor_time);
        benchmark::AddCustomContext(std::string("peak_") + set->name,
                                    figures(now_running.peaks[set], set->has_bf16_dot));
    }
    benchmark::AddCustomContext(
        "method",
        std::string(now_running.how.processor_time ? "processor" : "wall-clock") +
            " time on one core; best of at least 10 rounds (3 for long rows), in which the kernel, the peak's "
            "loop and the peers take turns. peak_fraction: of the best rate so far of a register-resident loop of the "
            "row's own instruction set and register width (or of reading or copying 256 MB). bf16 rows of sets without "
            "bf16 dot products are fractions of the f32 peak.");
}

} // namespace

int main(int argc, char** argv)
{
    // For peers that are built on OpenMP, where they read it this late; what takes several threads after all is left
    // out.
    setenv("OMP_NUM_THREADS", "1", 0);

    arguments given(argc, argv);
    if (given.help) { std::fputs(usage, stdout); }
    if (given.wrong) {
        std::fputs(usage, stderr);
        return 2;
    }
    const catalog all;
    if (!all.optimised()) {
        std::fputs("seqmix_bench: built without optimisation or with assertions: its figures would mean nothing.\n"
                   "Build it with -DCMAKE_BUILD_TYPE=Release, as ./cmake/bench does.\n",
                   stderr);
        return 2;
    }
    if (all.sets().empty()) {
        std::fputs("seqmix_bench: this machine runs none of the instruction sets that it was built for\n", stderr);
        return 2;
    }
    effort how{.seconds = given.floors ? 2.0 : 1.0, .peers = !given.floors, .processor_time = given.processor_time};
    if (given.seconds > 0) { how.seconds = given.seconds; }
    if (given.floors) { return check_floors(all, given.file, given.pattern, how); }

    int rest = static_cast<int>(given.rest.size());
    given.rest.push_back(nullptr);
    benchmark::Initialize(&rest, given.rest.data());
    if (benchmark::ReportUnrecognizedArguments(rest, given.rest.data())) { return 2; }

    session state{how, {}, {}};
    for (const place& at : all.rows()) {
        benchmark::RegisterBenchmark(at.name().c_str(), [&](benchmark::State& s) { run(s, at, state); })
            ->Iterations(1)
            ->UseManualTime()
            ->Unit(at.what->work < 1e8 ? benchmark::kMicrosecond : benchmark::kMillisecond);
    }
    benchmark::RegisterBenchmark(compile_row, [&](benchmark::State& s) { run_compiler(s, *all.sets().back()); })
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
    if (!given.lists) {
        if (library_is_debug()) {
            std::fputs(
                "warning: Google Benchmark was built without optimisation. It times nothing here, so figures hold.\n",
                stderr);
        }
        describe(all, state);
    }
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    if (!state.slower_than_a_peer.empty()) {
        std::fputs("\nslower than a peer:\n", stderr);
        for (const std::string& line : state.slower_than_a_peer) { std::fprintf(stderr, "    %s\n", line.c_str()); }
    }
    return 0;
}
