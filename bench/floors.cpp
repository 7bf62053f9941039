// SPDX-License-Identifier: MIT
#include "floors.hpp"

#include "compile_time.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <vector>

namespace bench {

namespace {

struct floor_line {
    std::string row;
    bool at_least; ///< else at most
    double value;
};

/// row,sense,floor,what after a line with these words. The last field is for people and may hold commas.
class floors_file {
public:
    explicit floors_file(const std::string& path) : path_(path)
    {
        std::ifstream in(path);
        std::string text;
        bool titled = false;
        if (!in) { complain("can't be read"); }
        while (good_ && std::getline(in, text)) {
            ++number_;
            if (!text.empty() && text.back() == '\r') { text.pop_back(); }
            if (text.empty() || text.front() == '#') { continue; }
            if (!titled) {
                titled = true;
                if (text != "row,sense,floor,what") { complain("does not begin with row,sense,floor,what"); }
            } else {
                parse(text);
            }
        }
        if (good_ && !titled) { complain("is empty"); }
    }

    bool good() const { return good_; }
    const std::vector<floor_line>& lines() const { return lines_; }

private:
    void parse(const std::string& text)
    {
        std::size_t ends[3], from = 0;
        for (std::size_t& end : ends) {
            end = text.find(',', from);
            if (end == std::string::npos) { return complain("has a line of fewer than four fields"); }
            from = end + 1;
        }
        const std::string row = text.substr(0, ends[0]), sense = text.substr(ends[0] + 1, ends[1] - ends[0] - 1);
        const std::string value = text.substr(ends[1] + 1, ends[2] - ends[1] - 1);
        if (row.find('/') == std::string::npos) { return complain("has a row without a family"); }
        for (const floor_line& before : lines_) {
            if (before.row == row) { return complain("has a row twice"); }
        }
        if (sense != "min" && sense != "max") { return complain("has a sense that is neither min nor max"); }
        char* end = nullptr;
        const double number = std::strtod(value.c_str(), &end);
        if (value.empty() || *end != '\0' || !std::isfinite(number) || number <= 0) {
            return complain("has a floor that is no positive number");
        }
        lines_.push_back({row, sense == "min", number});
    }

    void complain(const char* what)
    {
        std::fprintf(stderr, "%s:%d: %s\n", path_.c_str(), number_, what);
        good_ = false;
    }

    std::string path_;
    int number_ = 0;
    bool good_ = true;
    std::vector<floor_line> lines_;
};

struct task {
    const floor_line* line;
    catalog::found found; ///< not used for the compiler's row
};

std::optional<double> measured_figure(const task& t, const catalog& all, const effort& how, std::string& remark)
{
    if (t.line->row == compile_row) {
        const std::optional<double> took = compile_seconds(*all.sets().back());
        if (!took) { remark = "the compiler " SEQMIX_BENCH_COMPILER " can't be run"; }
        return took;
    }
    if (t.found.what == catalog::found::absent) {
        remark = t.found.why;
        return {};
    }
    const measured m = measure(t.found.row, how);
    remark = m.disturbance();
    return m.figure_of(*t.found.row.what);
}

} // namespace

int check_floors(const catalog& all, const std::string& file, const std::string& pattern, const effort& how)
{
    const floors_file floors(file);
    if (!floors.good()) { return 2; }
    std::vector<task> tasks;
    std::size_t width = 0;
    for (const floor_line& line : floors.lines()) {
        catalog::found found{};
        if (line.row != compile_row) {
            found = all.find(line.row);
            if (found.what == catalog::found::unknown) {
                std::fprintf(stderr, "%s: no such row: %s\n", file.c_str(), line.row.c_str());
                return 2;
            }
        }
        if (line.row.find(pattern) == std::string::npos) { continue; }
        width = std::max(width, line.row.size());
        tasks.push_back({&line, found});
    }
    if (tasks.empty()) {
        std::fprintf(stderr, "%s: no row's name contains \"%s\"\n", file.c_str(), pattern.c_str());
        return 2;
    }

    bool all_good = true;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        const floor_line& line = *tasks[i].line;
        std::fprintf(stderr, "[%zu/%zu] %s\n", i + 1, tasks.size(), line.row.c_str());
        std::string remark;
        const std::optional<double> figure = measured_figure(tasks[i], all, how, remark);
        const int columns = static_cast<int>(width);
        if (!remark.empty()) { std::fprintf(stderr, "    %s\n", remark.c_str()); }
        if (!figure) {
            std::printf("%-6s  %-*s  %8s  %8.3f\n", "absent", columns, line.row.c_str(), "-", line.value);
        } else {
            const bool good = line.at_least ? *figure >= line.value : *figure <= line.value;
            all_good = all_good && good;
            std::printf("%-6s  %-*s  %8.3f  %8.3f\n", good ? "ok" : "short", columns, line.row.c_str(), *figure,
                        line.value);
        }
        std::fflush(stdout);
    }
    return all_good ? 0 : 1;
}

} // namespace bench
