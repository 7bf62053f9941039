// SPDX-License-Identifier: MIT
// seqmix_conformance [--arch NAME] FILE...: runs golden vectors on every compiled instruction set that this machine
// runs. One line per file and instruction set,
//     ok|FAIL|unsupported  NAME  ARCH  worst relative error  tolerance
// with "-" for a number that there is none of; reasons go to stderr. Exits with 1 if any line says FAIL, with 2 if it
// is called wrongly.
#include "plain_case.hpp"

#include <can_run.hpp>
#include <safetensors.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#define SEQMIX_ARCH(name)                                                                                              \
    extern "C" void seqmix_conformance_##name(const conformance::plain_case*, conformance::verdict*);
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

namespace {

using namespace conformance;

struct backend {
    const char* arch;
    void (*run)(const plain_case*, verdict*);
};

constexpr backend backends[] = {
#define SEQMIX_ARCH(name) {#name, seqmix_conformance_##name},
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH
};

constexpr const char* usage = "usage: seqmix_conformance [--arch NAME] FILE...\n";

std::string name_of(const std::string& path)
{
    const std::size_t slash = path.find_last_of('/');
    const std::string file = slash == std::string::npos ? path : path.substr(slash + 1);
    const std::size_t dot = file.find_last_of('.');
    return dot == std::string::npos || dot == 0 ? file : file.substr(0, dot);
}

void print(const verdict& v, const std::string& name, const char* arch)
{
    const char* const result = v.result == outcome::ok ? "ok" : v.result == outcome::fail ? "FAIL" : "unsupported";
    const auto number = [](double x) {
        char text[40] = "-";
        if (!std::isnan(x)) { std::snprintf(text, sizeof text, "%.3g", x); }
        return std::string(text);
    };
    std::printf("%s  %s  %s  %s  %s\n", result, name.c_str(), arch, number(v.worst).c_str(),
                number(v.tolerance).c_str());
    if (v.result == outcome::fail) {
        std::fflush(stdout);
        std::fprintf(stderr, "%s on %s: %s\n", name.c_str(), arch, v.reason);
    }
}

/// A file in the form in which it crosses to the runners.
class loaded_case {
public:
    explicit loaded_case(const std::string& path) : file_(formats::read_safetensors(path))
    {
        for (const auto& [key, value] : file_.metadata) { entries_.push_back({key.c_str(), value.c_str()}); }
        for (const formats::tensor& t : file_.tensors) {
            tensors_.push_back({t.name.c_str(), t.dtype.c_str(), t.shape.data(), t.shape.size(),
                                file_.buffer.data() + t.begin, t.end - t.begin});
        }
    }
    loaded_case(const loaded_case&) = delete;
    loaded_case& operator=(const loaded_case&) = delete;

    plain_case plain() const { return {entries_.data(), entries_.size(), tensors_.data(), tensors_.size()}; }

private:
    formats::safetensors file_;
    std::vector<plain_entry> entries_;
    std::vector<plain_tensor> tensors_;
};

/// Whether nothing failed.
bool run_file(const std::string& path, const std::vector<backend>& on)
{
    const std::string name = name_of(path);
    bool good = true;
    try {
        const loaded_case file(path);
        const plain_case plain = file.plain();
        for (const backend& b : on) {
            verdict v{};
            b.run(&plain, &v);
            print(v, name, b.arch);
            good = good && v.result != outcome::fail;
        }
    } catch (const std::exception& e) {
        constexpr double none = std::numeric_limits<double>::quiet_NaN();
        verdict v{outcome::fail, none, none, {}};
        std::snprintf(v.reason, sizeof v.reason, "%s", e.what());
        for (const backend& b : on) { print(v, name, b.arch); }
        good = false;
    }
    return good;
}

} // namespace

int main(int argc, char** argv)
{
    std::string only;
    std::vector<std::string> files;
    bool options_end = false;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (options_end || argument.empty() || argument[0] != '-') {
            files.push_back(argument);
        } else if (argument == "--") {
            options_end = true;
        } else if (argument == "--help" || argument == "-h") {
            std::fputs(usage, stdout);
            return 0;
        } else if (argument == "--arch" && i + 1 < argc) {
            only = argv[++i];
        } else if (argument.rfind("--arch=", 0) == 0) {
            only = argument.substr(std::strlen("--arch="));
        } else {
            std::fprintf(stderr, "seqmix_conformance: %s is not understood\n%s", argument.c_str(), usage);
            return 2;
        }
    }
    if (files.empty()) {
        std::fputs(usage, stderr);
        return 2;
    }
    std::vector<backend> on;
    for (const backend& b : backends) {
        if ((only.empty() || only == b.arch) && can_run(b.arch)) { on.push_back(b); }
    }
    if (on.empty()) {
        std::fprintf(stderr, "seqmix_conformance: %s is not compiled in, or this machine does not run it\n",
                     only.c_str());
        return 2;
    }
    bool good = true;
    for (const std::string& file : files) { good = run_file(file, on) && good; }
    return good ? 0 : 1;
}
