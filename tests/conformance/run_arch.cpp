// SPDX-License-Identifier: MIT
// Compiled once per instruction set, with -DSEQMIX_TEST_ARCH=<its name>, and run_larger.cpp beside it.
#include "attention.hpp"
#include "causal_conv1d.hpp"
#include "hgrn.hpp"
#include "linear_attention.hpp"
#include "long_conv.hpp"
#include "monarch.hpp"
#include "quant_matmul.hpp"
#include "selective_scan.hpp"
#include "ssd.hpp"

#include <exception>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {
extern template void run_linear_attention<arch::SEQMIX_TEST_ARCH>(const case_reader&, judge&);
extern template void run_quant_matmul<arch::SEQMIX_TEST_ARCH>(const case_reader&, judge&);

namespace {

/// One row per operation of the golden vectors: the metadata that it may have (beside op and tolerance), and the
/// function that runs it.
struct operation {
    std::string_view name;
    std::string_view metadata;
    void (*run)(const case_reader&, judge&);
};

constexpr operation operations[] = {
    {"attention", attention_metadata, run_attention<arch::SEQMIX_TEST_ARCH>},
    {"selective_scan", selective_scan_metadata, run_selective_scan<arch::SEQMIX_TEST_ARCH>},
    {"ssd", ssd_metadata, run_ssd<arch::SEQMIX_TEST_ARCH>},
    {"causal_conv1d", causal_conv1d_metadata, run_causal_conv1d<arch::SEQMIX_TEST_ARCH>},
    {"linear_attention", linear_attention_metadata, run_linear_attention<arch::SEQMIX_TEST_ARCH>},
    {"hgrn", hgrn_metadata, run_hgrn<arch::SEQMIX_TEST_ARCH>},
    {"long_conv", long_conv_metadata, run_long_conv<arch::SEQMIX_TEST_ARCH>},
    {"monarch", monarch_metadata, run_monarch<arch::SEQMIX_TEST_ARCH>},
    {"quant_matmul", quant_matmul_metadata, run_quant_matmul<arch::SEQMIX_TEST_ARCH>},
};

void run(const case_reader& c, judge& verdicts)
{
    const char* const op = c.text("op");
    if (op == nullptr) { throw std::runtime_error("metadata 'op' is missing"); }
    for (const operation& known : operations) {
        if (known.name != op) { continue; }
        c.require_known_metadata(known.metadata);
        return known.run(c, verdicts);
    }
    throw unsupported("operation '" + std::string(op) + "' is not known");
}

void explain(verdict& v, outcome result, const char* reason)
{
    v.result = result;
    v.worst = std::numeric_limits<double>::quiet_NaN();
    std::snprintf(v.reason, sizeof v.reason, "%s", reason);
}

} // namespace
} // namespace conformance
SEQMIX_NAMESPACE_END

#define SEQMIX_JOIN_(a, b) a##b
#define SEQMIX_JOIN(a, b) SEQMIX_JOIN_(a, b)

extern "C" void SEQMIX_JOIN(seqmix_conformance_, SEQMIX_TEST_ARCH)(const conformance::plain_case* c,
                                                                   conformance::verdict* v)
{
    namespace here = seqmix::conformance;
    v->tolerance = std::numeric_limits<double>::quiet_NaN();
    v->reason[0] = '\0';
    try {
        const here::case_reader reader(*c);
        const char* const tolerance = reader.text("tolerance");
        if (tolerance == nullptr) { throw std::runtime_error("metadata 'tolerance' is missing"); }
        here::judge verdicts(here::to_number(tolerance, "metadata 'tolerance'"), *v);
        here::run(reader, verdicts);
    } catch (const here::unsupported& e) {
        here::explain(*v, conformance::outcome::unsupported, e.what());
    } catch (const std::exception& e) {
        here::explain(*v, conformance::outcome::fail, e.what());
    }
}
