// SPDX-License-Identifier: MIT
#include <can_run.hpp>

#include <cstdio>

#define SEQMIX_ARCH(name) extern "C" bool link_order_##name();
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

namespace {

int failures = 0;

void run(const char* arch, bool (*unit)())
{
    if (!can_run(arch)) {
        std::printf("skipped %s\n", arch);
        return;
    }
    const bool right = unit();
    std::printf("%s %s\n", right ? "ok" : "FAIL", arch);
    failures += right ? 0 : 1;
}

} // namespace

int main()
{
#define SEQMIX_ARCH(name) run(#name, link_order_##name);
#include <seqmix_archs.inc>
    return failures == 0 ? 0 : 1;
}
