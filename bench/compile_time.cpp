// SPDX-License-Identifier: MIT
#include "compile_time.hpp"

#include "processor_time.hpp"

#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

extern char** environ;

namespace bench {

namespace {

constexpr const char* source = R"(#include <seqmix/attention.hpp>
void attend(const float* q, const float* k, const float* v, float* out, long n)
{
    seqmix::attention::forward(seqmix::view(q, {1L, 8L, n, 64L}), seqmix::view(k, {1L, 8L, n, 64L}),
                               seqmix::view(v, {1L, 8L, n, 64L}), seqmix::view(out, {1L, 8L, n, 64L}),
                               {.causal = seqmix::causal::bottom_right});
}
)";

class temporary_file {
public:
    explicit temporary_file(const char* text)
    {
        path_ = (std::filesystem::temp_directory_path() / "seqmix_bench_XXXXXX.cpp").string();
        const int file = mkstemps(path_.data(), 4);
        good_ = file >= 0 && write(file, text, std::strlen(text)) == static_cast<ssize_t>(std::strlen(text));
        if (file >= 0) { close(file); }
    }
    ~temporary_file() { unlink(path_.c_str()); }
    temporary_file(const temporary_file&) = delete;
    temporary_file& operator=(const temporary_file&) = delete;

    bool good() const { return good_; }
    const std::string& path() const { return path_; }

private:
    std::string path_;
    bool good_ = false;
};

bool runs(const std::vector<std::string>& words)
{
    std::vector<char*> arguments;
    for (const std::string& word : words) { arguments.push_back(const_cast<char*>(word.c_str())); }
    arguments.push_back(nullptr);
    pid_t child = 0;
    int status = 0;
    return posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ) == 0 &&
           waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

} // namespace

std::optional<double> compile_seconds(const instruction_set& set)
{
    setenv("CCACHE_DISABLE", "1", 1); // the compiler may be a link to ccache
    const temporary_file file(source);
    if (!file.good()) { return {}; }
    std::vector<std::string> words = {SEQMIX_BENCH_COMPILER, "-std=c++20", "-O2", "-I", SEQMIX_BENCH_INCLUDE_DIR};
    std::istringstream flags(set.arch_flags);
    for (std::string flag; flags >> flag;) { words.push_back(flag); }
    words.insert(words.end(), {"-c", file.path(), "-o", "/dev/null"});

    double best = 1e30;
    for (int round = 0; round < 3; ++round) {
        const double before = processor_seconds(RUSAGE_CHILDREN);
        if (!runs(words)) { return {}; }
        best = std::min(best, processor_seconds(RUSAGE_CHILDREN) - before);
    }
    return best;
}

} // namespace bench
