// SPDX-License-Identifier: MIT
#include "arch.hpp"
#include "problems.hpp"

// Eigen's functions have the same names for every instruction set, and the linker would keep one for all.
#define SEQMIX_BENCH_JOIN_(a, b) a##b
#define SEQMIX_BENCH_JOIN(a, b) SEQMIX_BENCH_JOIN_(a, b)
#define Eigen SEQMIX_BENCH_JOIN(Eigen_for_, SEQMIX_BENCH_ARCH)
#define EIGEN_DONT_PARALLELIZE
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>

#include <seqmix/ssm/causal_conv1d.hpp>

#include <cmath>
#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family conv1d_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;

/// A row's operands by name, and where an element of x or out lies.
template <class T>
struct conv1d_operands {
    const conv1d_problem& p;
    const T* x;
    const float* weight;
    const float* bias = nullptr;
    float* state = nullptr;
    T* out;
    index batch_stride, channel_stride, time_stride;

    conv1d_operands(const conv1d_problem& problem, void* const* data)
        : p(problem), x(static_cast<const T*>(data[0])), weight(static_cast<const float*>(data[1])),
          batch_stride(p.channels * p.length), channel_stride(p.channels_inside ? 1 : p.length),
          time_stride(p.channels_inside ? p.channels : 1)
    {
        int next = 2;
        if (p.silu) { bias = static_cast<const float*>(data[next++]); }
        if (p.steps) { state = static_cast<float*>(data[next++]); }
        out = static_cast<T*>(data[next]);
    }
};

template <class T>
class conv1d_call {
public:
    conv1d_call(const conv1d_problem& p, void* const* data) : has_(p, data)
    {
        if (p.silu) {
            opt_.bias = seqmix::view(has_.bias, {p.channels});
            opt_.activation = seqmix::ssm::activation::silu;
        }
        if (p.steps) {
            const index past = p.width - 1;
            opt_.state = seqmix::view<float, 3>(has_.state, {p.batch, p.channels, past},
                                                {p.channels * past, p.state_rows ? 1 : past, p.state_rows ? p.channels : 1});
        }
    }

    void run()
    {
        const conv1d_problem& p = has_.p;
        const seqmix::view weight(has_.weight, {p.channels, p.width});
        if (p.steps) {
            seqmix::ssm::causal_conv1d_step<set>(seqmix::view(has_.x, {p.batch, p.channels}), weight,
                                                 seqmix::view(has_.out, {p.batch, p.channels}), opt_, own_);
        } else {
            seqmix::ssm::causal_conv1d<set>(operand(has_.x), weight, operand(has_.out), opt_, own_);
        }
    }

private:
    template <class U>
    seqmix::view<U, 3> operand(U* data) const
    {
        return {data,
                {has_.p.batch, has_.p.channels, has_.p.length},
                {has_.batch_stride, has_.channel_stride, has_.time_stride}};
    }

    conv1d_operands<T> has_;
    seqmix::context<> own_;
    seqmix::ssm::conv1d_options opt_;
};

/// As one writes it: every output by itself, in the order of memory, with an inner loop over the taps.
template <class T>
class scalar_loop {
public:
    scalar_loop(const conv1d_problem& p, void* const* data) : has_(p, data) {}

    void run()
    {
        const conv1d_problem& p = has_.p;
        const index outer = p.channels_inside ? p.length : p.channels, inner = p.channels_inside ? p.channels : p.length;
        for (index b = 0; b < p.batch; ++b) {
            for (index i = 0; i < outer; ++i) {
                for (index j = 0; j < inner; ++j) { p.channels_inside ? output(b, j, i) : output(b, i, j); }
            }
        }
    }

private:
    void output(index b, index d, index t)
    {
        const conv1d_problem& p = has_.p;
        const index at = b * has_.batch_stride + d * has_.channel_stride;
        const index past = p.width - 1, hop = p.state_rows ? p.channels : 1;
        float* const state = p.steps ? has_.state + b * p.channels * past + d * (p.state_rows ? 1 : past) : nullptr;
        float sum = p.silu ? has_.bias[d] : 0.0f;
        for (index k = 0; k < p.width; ++k) {
            const index from = t - p.width + 1 + k;
            const float input = from >= 0 ? static_cast<float>(has_.x[at + from * has_.time_stride])
                                : p.steps ? state[(past + from) * hop]
                                          : 0.0f;
            sum += has_.weight[d * p.width + k] * input;
        }
        has_.out[at + t * has_.time_stride] = T(p.silu ? sum / (1.0f + std::exp(-sum)) : sum);
        if (p.steps) {
            for (index k = 0; k + 1 < past; ++k) { state[k * hop] = state[(k + 1) * hop]; }
            state[(past - 1) * hop] = static_cast<float>(has_.x[at]);
        }
    }

    conv1d_operands<T> has_;
};

/// Whole rows of time as one expression.
class eigen_rows {
public:
    eigen_rows(const conv1d_problem& p, void* const* data) : has_(p, data) {}

    void run()
    {
        using row = Eigen::Array<float, Eigen::Dynamic, 1>;
        const conv1d_problem& p = has_.p;
        for (index d = 0; d < p.batch * p.channels; ++d) {
            const float* const w = has_.weight + d % p.channels * p.width;
            const Eigen::Map<const row> x(has_.x + d * p.length, p.length);
            Eigen::Map<row> out(has_.out + d * p.length, p.length);
            for (index t = 0; t < 3; ++t) {
                out[t] = 0.0f;
                for (index s = 0; s <= t; ++s) { out[t] += w[3 - t + s] * x[s]; }
            }
            const index rest = p.length - 3;
            out.tail(rest) = w[0] * x.segment(0, rest) + w[1] * x.segment(1, rest) + w[2] * x.segment(2, rest) +
                             w[3] * x.segment(3, rest);
        }
    }

private:
    conv1d_operands<float> has_;
};

template <template <class> class Call>
call make_of(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const conv1d_problem*>(problem);
    switch (p.type) {
    case element::f32:
        return call_of(new Call<float>(p, data));
    case element::bf16:
        return call_of(new Call<seqmix::bf16>(p, data));
    default:
        return {};
    }
}

call make_eigen(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const conv1d_problem*>(problem);
    const bool simple = p.type == element::f32 && p.width == 4 && !p.channels_inside && !p.silu && !p.steps;
    return simple ? call_of(new eigen_rows(p, data)) : call{};
}

struct one_case {
    const char* name;
    const char* shape;
    conv1d_problem problem;
    spread_over where = spread_over::best;
};

constexpr one_case cases[] = {
    {"f32_2048x4096_w4", "2048 channels x 4096, width 4", {}, spread_over::all},
    {"f32_2048x4096_w4_last",
     "2048 channels x 4096, width 4, laid out [L, D]",
     {.channels_inside = true},
     spread_over::vectors},
    {"f32_2048x4096_w4_silu", "2048 channels x 4096, width 4, bias, SiLU", {.silu = true}, spread_over::vectors},
    {"f32_2048x4096_w4_silu_last",
     "2048 channels x 4096, width 4, bias, SiLU, laid out [L, D]",
     {.channels_inside = true, .silu = true}},
    {"f32_2048x4096_w32", "2048 channels x 4096, width 32", {.width = 32}},
    {"bf16_2048x4096_w4", "bf16, 2048 channels x 4096, width 4", {.type = element::bf16}, spread_over::vectors},
    {"bf16_2048x4096_w4_last",
     "bf16, 2048 channels x 4096, width 4, laid out [L, D]",
     {.type = element::bf16, .channels_inside = true}},
    {"f32_step_64x2048_w4",
     "step of 64 sequences, 2048 channels, width 4, bias, SiLU",
     {.batch = 64, .length = 1, .channels_inside = true, .silu = true, .steps = true},
     spread_over::vectors},
    {"f32_step_64x2048_w4_rows",
     "step of 64 sequences, 2048 channels, width 4, bias, SiLU, states laid out [W - 1, D]",
     {.batch = 64, .length = 1, .channels_inside = true, .silu = true, .steps = true, .state_rows = true}},
};

constexpr row row_of(const one_case& c)
{
    const conv1d_problem& p = c.problem;
    const std::int64_t size = p.batch * p.channels * p.length, states = p.batch * p.channels * (p.width - 1);
    row r{
        .name = c.name,
        .shape = c.shape,
        .of = limit::copy,
        .unit = "B",
        // Inputs once, outputs once; states in and out.
        .work = static_cast<double>(2 * size * (p.type == element::f32 ? 4 : 2) + (p.steps ? 2 * states * 4 : 0)),
        .where = c.where,
        .operands = {{p.type, size, filling::normal}, {element::f32, p.channels * p.width, filling::normal}},
        .problem = &c.problem,
        .make = make_of<conv1d_call>,
        .peers = {{"loop", make_of<scalar_loop>, false}, {"eigen", make_eigen, false}},
    };
    int next = 2;
    if (p.silu) { r.operands[next++] = {element::f32, p.channels, filling::normal}; }
    if (p.steps) { r.operands[next++] = {element::f32, states, filling::normal}; }
    r.operands[next] = {p.type, size};
    return r;
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family conv1d_rows() { return {"conv1d", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
