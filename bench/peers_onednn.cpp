// SPDX-License-Identifier: MIT
#include "problems.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <oneapi/dnnl/dnnl.hpp>

#include <cstdio>
#include <memory>

namespace bench {

maker onednn_gemm;
const char* onednn_version();

namespace {

using dnnl::memory;

class product {
public:
    product(const gemm_problem& p, void* const* data)
        : product(memory::desc({p.m, p.k}, type_of(p.type), memory::format_tag::ab),
                  memory::desc({p.k, p.n}, type_of(p.type), memory::format_tag::ab),
                  memory::desc({p.m, p.n}, p.type == element::s8 ? memory::data_type::s32 : memory::data_type::f32,
                               memory::format_tag::ab),
                  data)
    {
    }

    void run()
    {
        matmul_.execute(stream_, {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, c_}});
        stream_.wait();
    }

private:
    product(const memory::desc& a, const memory::desc& b, const memory::desc& c, void* const* data)
        : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), matmul_(described(engine_, a, b, c)),
          a_(a, engine_, data[0]), b_(b, engine_, data[1]), c_(c, engine_, data[2])
    {
    }

    static memory::data_type type_of(element type)
    {
        return type == element::s8     ? memory::data_type::s8
               : type == element::bf16 ? memory::data_type::bf16
                                       : memory::data_type::f32;
    }

    static dnnl::matmul::primitive_desc described(const dnnl::engine& engine, const memory::desc& a,
                                                  const memory::desc& b, const memory::desc& c)
    {
#if DNNL_VERSION_MAJOR >= 3
        return {engine, a, b, c};
#else
        return {dnnl::matmul::desc(a, b, c), engine};
#endif
    }

    dnnl::engine engine_;
    dnnl::stream stream_;
    dnnl::matmul matmul_;
    memory a_, b_, c_;
};

} // namespace

const char* onednn_version()
{
    static char text[64];
    const dnnl::version_t& v = *dnnl::version();
    std::snprintf(text, sizeof text, "oneDNN %d.%d.%d", v.major, v.minor, v.patch);
    return text;
}

call onednn_gemm(const void* problem, void* const* data)
{
#if defined(_OPENMP)
    omp_set_num_threads(1);
#endif
    try {
        auto made = std::make_unique<product>(*static_cast<const gemm_problem*>(problem), data);
        return {made.release(), [](void* p) { static_cast<product*>(p)->run(); },
                [](void* p) { delete static_cast<product*>(p); }};
    } catch (const dnnl::error&) { // not for this CPU
        return {};
    }
}

} // namespace bench
