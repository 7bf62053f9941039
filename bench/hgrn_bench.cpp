// SPDX-License-Identifier: MIT
#include "arch.hpp"
#include "problems.hpp"

#include <seqmix/linear/hgrn.hpp>

#include <cmath>
#include <iterator>
#include <vector>

namespace bench::SEQMIX_BENCH_ARCH {

family hgrn_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;
namespace linear = seqmix::linear;

template <class T>
class sequence_call {
public:
    sequence_call(const hgrn_problem& p, void* const* data)
        : gated_(p.inputs == 3), spread_(p.threads > 1), many_(seqmix::parallel_for{p.threads, threads{}}),
          x_(of(p, static_cast<const T*>(data[0]))), gates_(of(p, static_cast<const T*>(data[1]))),
          out_(of(p, static_cast<T*>(data[p.inputs])))
    {
        if (gated_) { gate_ = of(p, static_cast<const T*>(data[2])); }
        opt_.time_segments = p.segments;
    }
    void run()
    {
        const seqmix::context_ref ctx = spread_ ? seqmix::context_ref(many_) : seqmix::context_ref(alone_);
        gated_ ? linear::mlgru<set>(gates_, x_, gate_, out_, opt_, ctx) : linear::hgrn<set>(x_, gates_, out_, opt_, ctx);
    }

private:
    template <class U>
    static seqmix::view<U, 3> of(const hgrn_problem& p, U* data)
    {
        return p.time_inside ? seqmix::view<U, 3>(data, {p.batch, p.channels, p.length}).transposed(1, 2)
                             : seqmix::view<U, 3>(data, {p.batch, p.length, p.channels});
    }

    bool gated_, spread_;
    seqmix::context<> alone_;
    seqmix::context<seqmix::parallel_for<threads>> many_;
    seqmix::view<const T, 3> x_, gates_, gate_;
    seqmix::view<T, 3> out_;
    linear::hgrn_options opt_;
};

class step_call {
public:
    step_call(const hgrn_problem& p, void* const* data)
        : state_(static_cast<std::size_t>(p.batch * p.channels)), x_(static_cast<const float*>(data[0]), {p.batch, p.channels}),
          gates_(static_cast<const float*>(data[1]), {p.batch, p.channels}), out_(static_cast<float*>(data[2]), {p.batch, p.channels})
    {
        opt_.state = seqmix::view(state_.data(), {p.batch, p.channels});
    }
    void run() { linear::hgrn_step<set>(x_, gates_, out_, opt_, ctx_); }

private:
    seqmix::context<> ctx_;
    std::vector<float> state_;
    seqmix::view<const float, 2> x_, gates_;
    seqmix::view<float, 2> out_;
    linear::hgrn_step_options opt_;
};

/// As others ship it for CPUs: token by token, channel by channel, with expf.
class scalar_loop {
public:
    scalar_loop(const hgrn_problem& p, void* const* data) : p_(p), data_(data, data + p.inputs + 1), h_(static_cast<std::size_t>(p.channels)) {}
    void run()
    {
        const auto of = [&](std::int64_t i) { return static_cast<const float*>(data_[static_cast<std::size_t>(i)]); };
        const float *x = of(0), *gates = of(1), *gate = of(p_.inputs - 1);
        float* out = static_cast<float*>(data_.back());
        h_.assign(h_.size(), 0.0f);
        for (std::int64_t t = 0; t < p_.length; ++t) {
            for (std::int64_t d = 0; d < p_.channels; ++d) {
                const std::int64_t at = p_.time_inside ? d * p_.length + t : t * p_.channels + d;
                float& h = h_[static_cast<std::size_t>(d)];
                if (p_.inputs == 2) {
                    out[at] = h = std::exp(gates[at]) * h + x[at];
                } else {
                    const float f = sigmoid(gates[at]);
                    h = f * h + (1.0f - f) * x[at] * sigmoid(x[at]);
                    out[at] = h * sigmoid(gate[at]);
                }
            }
        }
    }

private:
    static float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

    hgrn_problem p_;
    std::vector<void*> data_;
    std::vector<float> h_;
};

call make(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const hgrn_problem*>(problem);
    if (p.step) { return call_of(new step_call(p, data)); }
    return p.type == element::bf16 ? call_of(new sequence_call<seqmix::bf16>(p, data)) : call_of(new sequence_call<float>(p, data));
}

call make_loop(const void* problem, void* const* data)
{
    return call_of(new scalar_loop(*static_cast<const hgrn_problem*>(problem), data));
}

constexpr hgrn_problem one_core = {.channels = 64, .length = 262144};

struct one_case {
    const char* name;
    const char* shape;
    hgrn_problem problem;
    spread_over where = spread_over::best;
    const hgrn_problem* alone = nullptr; ///< what several threads are held against
};

constexpr one_case cases[] = {
    {"hgrn_f32", "D 2048, L 4096, [B, L, D]", {}, spread_over::vectors},
    {"hgrn_f32_time_inside", "D 2048, L 4096, [B, D, L]", {.time_inside = true}, spread_over::vectors},
    {"hgrn_bf16", "bf16, D 2048, L 4096", {.type = element::bf16}},
    {"hgrn_f32_in_cache", "D 256, L 512", {.channels = 256, .length = 512}, spread_over::vectors},
    {"hgrn_f32_d16", "D 16, L 524288", {.channels = 16, .length = 524288}, spread_over::vectors},
    {"hgrn_two_cores", "D 64, L 262144, 16 segments of time on 2 threads; speed over one thread without", {.channels = 64, .length = 262144, .segments = 16, .threads = 2}, spread_over::best, &one_core},
    {"hgrn_step_f32", "64 sequences, D 65536", {.batch = 64, .channels = 65536, .length = 1, .step = true}, spread_over::vectors},
    {"mlgru_f32", "D 2048, L 4096, with its output gate", {.inputs = 3}, spread_over::vectors},
    {"mlgru_f32_time_inside", "the same, [B, D, L]", {.inputs = 3, .time_inside = true}},
    {"mlgru_bf16", "bf16, D 2048, L 4096", {.type = element::bf16, .inputs = 3}},
    {"mlgru_f32_in_cache", "D 256, L 512", {.inputs = 3, .channels = 256, .length = 512}, spread_over::vectors},
};

/// What is read and written once; by a step also its states. From the caches, exponentials are what limits: one each for decays and
/// activations.
constexpr row row_of(const one_case& c)
{
    const hgrn_problem& p = c.problem;
    const std::int64_t numbers = p.batch * p.channels * p.length;
    const std::int64_t size = p.type == element::bf16 ? 2 : 4, streams = p.inputs + 1 + (p.step ? 2 : 0);
    const bool in_cache = numbers * size < 1024 * 1024;
    row r{
        .name = c.name,
        .shape = c.shape,
        .of = c.alone != nullptr ? limit::none : in_cache ? limit::exp2 : limit::copy,
        .unit = in_cache ? "element" : "B",
        .work = static_cast<double>(in_cache ? numbers * (p.inputs == 2 ? 1 : 3) : numbers * size * streams),
        .where = c.where,
        .operands = {{p.type, numbers, filling::normal}, {p.type, numbers, filling::negative}},
        .problem = &c.problem,
        .make = make,
        .peers = {},
    };
    if (p.inputs == 3) { r.operands[2] = {p.type, numbers, filling::normal}; }
    r.operands[p.inputs] = {p.type, numbers, filling::none};
    if (c.alone != nullptr) {
        r.says = figure::speed_up, r.reference_problem = c.alone, r.reference_work = r.work;
    } else if (p.type == element::f32 && !p.step) {
        r.peers[0] = {"loop", make_loop, false};
    }
    return r;
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family hgrn_rows() { return {"hgrn", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
