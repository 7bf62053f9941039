// SPDX-License-Identifier: MIT
#include "catalog.hpp"

#include <can_run.hpp>

#include <cstring>
#include <thread>

namespace bench {

#define SEQMIX_ARCH(name)                                                                                              \
    namespace name {                                                                                                   \
    const instruction_set& describe();                                                                                 \
    }
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

catalog::catalog()
{
#if !defined(NDEBUG) || !defined(__OPTIMIZE__)
    optimised_ = false;
#endif
#define SEQMIX_ARCH(name)                                                                                              \
    if (can_run(#name)) {                                                                                              \
        sets_.push_back(&name::describe());                                                                            \
    } else {                                                                                                           \
        left_out_.push_back(#name);                                                                                    \
    }
#include <seqmix_archs.inc>
#undef SEQMIX_ARCH

    for (auto set = sets_.rbegin(); set != sets_.rend(); ++set) {
        optimised_ = optimised_ && (*set)->optimised;
        const bool best = set == sets_.rbegin(), scalar = std::strcmp((*set)->name, "scalar") == 0;
        for (int f = 0; f < (*set)->family_count; ++f) {
            const family& of = (*set)->families[f];
            for (int i = 0; i < of.count; ++i) {
                const row& r = of.rows[i];
                if (best || r.where == spread_over::all || (r.where == spread_over::vectors && !scalar)) {
                    rows_.push_back({*set, &of, &r, sets_.back()});
                }
            }
        }
    }
}

catalog::found catalog::find(const std::string& name) const
{
    const std::size_t slash = name.find('/');
    if (sets_.empty() || slash == std::string::npos) { return {found::unknown, {}, {}}; }
    const std::string in_family = name.substr(0, slash), rest = name.substr(slash + 1);
    const instruction_set& best = *sets_.back();
    const auto row_of = [&](const instruction_set& set, const std::string& row_name) {
        for (int f = 0; f < set.family_count; ++f) {
            const family& of = set.families[f];
            for (int i = 0; in_family == of.name && i < of.count; ++i) {
                if (row_name == of.rows[i].name) { return place{&set, &of, &of.rows[i], &best}; }
            }
        }
        return place{};
    };
    const auto checked = [](const place& at) -> found {
        if (at.what->of != at.of_limit()) { return {found::absent, at, "no bf16 dot products here"}; }
        if (at.what->says == figure::speed_up && std::thread::hardware_concurrency() < 2) {
            return {found::absent, at, "one core only"};
        }
        return {found::a_row, at, {}};
    };

    if (const place at = row_of(best, rest); at.what != nullptr) { return checked(at); }
    for (const instruction_set* set : sets_) {
        const std::string prefix = std::string(set->name) + '_';
        if (rest.compare(0, prefix.size(), prefix) != 0) { continue; }
        if (const place at = row_of(*set, rest.substr(prefix.size())); at.what != nullptr) {
            return checked(at);
        }
    }
    for (const char* known : {"scalar", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "neon", "neon_i8mm"}) {
        const std::string prefix = std::string(known) + '_';
        if (rest.compare(0, prefix.size(), prefix) == 0 &&
            row_of(best, rest.substr(prefix.size())).what != nullptr) {
            return {found::absent, {}, std::string("this machine or build lacks ") + known};
        }
    }
    return {found::unknown, {}, {}};
}

} // namespace bench
