// SPDX-License-Identifier: MIT
#include "arch.hpp"
#include "problems.hpp"

#include <seqmix/ssm/diagonal.hpp>
#include <seqmix/ssm/legendre_memory.hpp>

#include <cmath>
#include <complex>
#include <iterator>
#include <vector>

namespace bench::SEQMIX_BENCH_ARCH {

family lti_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;
using complex = std::complex<float>;
namespace ssm = seqmix::ssm;

/// S4D-Lin's eigenvalues, A_n = -1/2 + i π n, over steps from 0.001 to 0.1, held; and some C B. (Gu et al. 2022,
/// section 4)
struct diagonal_layer {
    std::vector<complex> A, CB;

    diagonal_layer(index channels, index states)
    {
        for (index d = 0; d < channels; ++d) {
            const double dt = 0.001 * std::pow(100.0, static_cast<double>(d) / static_cast<double>(channels));
            for (index n = 0; n < states; ++n) {
                A.emplace_back(std::exp(dt * std::complex<double>(-0.5, 3.141592653589793 * static_cast<double>(n))));
                const auto phase = static_cast<float>(d + 7 * n);
                CB.emplace_back(0.1f * std::cos(phase), 0.1f * std::sin(phase));
            }
        }
    }
};

template <class T>
class s4d_call {
public:
    s4d_call(const lti_problem& p, void* const* data)
        : layer_(p.channels, p.states), u_(of(p, static_cast<const T*>(data[0]))),
          out_(of(p, static_cast<T*>(data[1]))), A_(layer_.A.data(), {p.channels, p.states}),
          CB_(layer_.CB.data(), {p.channels, p.states})
    {
    }
    void run() { ssm::s4d<set>(u_, A_, CB_, out_, {}, ctx_); }

private:
    template <class U>
    static seqmix::view<U, 3> of(const lti_problem& p, U* data)
    {
        const index whole = p.channels * p.length;
        return p.channel_last ? seqmix::view<U, 3>(data, {p.batch, p.channels, p.length}, {whole, index{1}, p.channels})
                              : seqmix::view<U, 3>(data, {p.batch, p.channels, p.length});
    }

    diagonal_layer layer_;
    seqmix::view<const T, 3> u_;
    seqmix::view<T, 3> out_;
    seqmix::view<const complex, 2> A_, CB_;
    seqmix::context<> ctx_;
};

/// What one writes with it: a loop over channels, tokens and states.
class s4d_loop {
public:
    s4d_loop(const lti_problem& p, void* const* data)
        : p_(p), layer_(p.channels, p.states), u_(static_cast<const float*>(data[0])),
          out_(static_cast<float*>(data[1])), h_(static_cast<std::size_t>(p.states))
    {
    }
    void run()
    {
        for (index d = 0; d < p_.batch * p_.channels; ++d) {
            const complex* const A = layer_.A.data() + d % p_.channels * p_.states;
            const complex* const CB = layer_.CB.data() + d % p_.channels * p_.states;
            for (complex& h : h_) { h = 0.0f; }
            for (index t = 0; t < p_.length; ++t) {
                const float u = u_[d * p_.length + t];
                float sum = 0.0f;
                for (index n = 0; n < p_.states; ++n) {
                    complex& h = h_[static_cast<std::size_t>(n)];
                    const float re = A[n].real() * h.real() - A[n].imag() * h.imag() + u;
                    const float im = A[n].real() * h.imag() + A[n].imag() * h.real();
                    h = complex(re, im);
                    sum += CB[n].real() * re - CB[n].imag() * im;
                }
                out_[d * p_.length + t] = 2.0f * sum;
            }
        }
    }

private:
    lti_problem p_;
    diagonal_layer layer_;
    const float* u_;
    float* out_;
    std::vector<complex> h_;
};

/// One token of each sequence; the states, which the row is about, are in here.
class step_call {
public:
    step_call(const lti_problem& p, void* const* data)
        : layer_(p.channels, p.states), states_(static_cast<std::size_t>(p.batch * p.channels * p.states)),
          u_(static_cast<const float*>(data[0]), {p.batch, p.channels}),
          out_(static_cast<float*>(data[1]), {p.batch, p.channels}), A_(layer_.A.data(), {p.channels, p.states}),
          CB_(layer_.CB.data(), {p.channels, p.states})
    {
        opt_.state = {states_.data(), {p.batch, p.channels, p.states}};
    }
    void run() { ssm::s4d_step<set>(u_, A_, CB_, out_, opt_, ctx_); }

private:
    diagonal_layer layer_;
    std::vector<complex> states_;
    seqmix::view<const float, 2> u_;
    seqmix::view<float, 2> out_;
    seqmix::view<const complex, 2> A_, CB_;
    ssm::s4d_options opt_;
    seqmix::context<> ctx_;
};

class kernel_call {
public:
    kernel_call(const lti_problem& p, void* const* data)
        : layer_(p.channels, p.states), A_(layer_.A.data(), {p.channels, p.states}),
          CB_(layer_.CB.data(), {p.channels, p.states}), k_(static_cast<float*>(data[0]), {p.channels, p.length})
    {
    }
    void run() { ssm::s4d_kernel<set>(A_, CB_, k_, true, ctx_); }

private:
    diagonal_layer layer_;
    seqmix::view<const complex, 2> A_, CB_;
    seqmix::view<float, 2> k_;
    seqmix::context<> ctx_;
};

/// The LRU: one channel's eigenvalues, in the place of all.
class lru_call {
public:
    lru_call(const lti_problem& p, void* const* data)
        : layer_(1, p.states), v_(static_cast<const complex*>(data[0]), {p.batch, p.length, p.states}),
          out_(static_cast<complex*>(data[1]), {p.batch, p.length, p.states}), lambda_(layer_.A.data(), {p.states})
    {
    }
    void run() { ssm::diagonal_scan<set>(v_, lambda_, out_, {}, ctx_); }

private:
    diagonal_layer layer_;
    seqmix::view<const complex, 3> v_;
    seqmix::view<complex, 3> out_;
    seqmix::view<const complex, 1> lambda_;
    seqmix::context<> ctx_;
};

class lru_loop {
public:
    lru_loop(const lti_problem& p, void* const* data)
        : p_(p), layer_(1, p.states), v_(static_cast<const complex*>(data[0])), out_(static_cast<complex*>(data[1])),
          h_(static_cast<std::size_t>(p.states))
    {
    }
    void run()
    {
        for (index b = 0; b < p_.batch; ++b) {
            for (complex& h : h_) { h = 0.0f; }
            for (index t = 0; t < p_.length; ++t) {
                for (index n = 0; n < p_.states; ++n) {
                    const index at = (b * p_.length + t) * p_.states + n;
                    const complex a = layer_.A[static_cast<std::size_t>(n)];
                    complex& h = h_[static_cast<std::size_t>(n)];
                    h = complex(a.real() * h.real() - a.imag() * h.imag() + v_[at].real(),
                                a.real() * h.imag() + a.imag() * h.real() + v_[at].imag());
                    out_[at] = h;
                }
            }
        }
    }

private:
    lti_problem p_;
    diagonal_layer layer_;
    const complex* v_;
    complex* out_;
    std::vector<complex> h_;
};

/// A window of 784 tokens, the length of sequential MNIST that the unit was shown on.
struct legendre_layer {
    std::vector<float> A, B;

    explicit legendre_layer(index order)
        : A(static_cast<std::size_t>(order * order)), B(static_cast<std::size_t>(order))
    {
        ssm::legendre_memory(784.0, {A.data(), {order, order}}, {B.data(), {order}});
    }
};

class lmu_call {
public:
    lmu_call(const lti_problem& p, void* const* data)
        : layer_(p.states), u_(static_cast<const float*>(data[0]), {p.batch, p.channels, p.length}),
          memory_(static_cast<float*>(data[1]), {p.batch, p.channels, p.length, p.states}),
          A_(layer_.A.data(), {p.states, p.states}), B_(layer_.B.data(), {p.states})
    {
    }
    void run() { ssm::lmu_scan<set>(u_, A_, B_, memory_, {}, ctx_); }

private:
    legendre_layer layer_;
    seqmix::view<const float, 3> u_;
    seqmix::view<float, 4> memory_;
    seqmix::view<const float, 2> A_;
    seqmix::view<const float, 1> B_;
    seqmix::context<> ctx_;
};

class lmu_loop {
public:
    lmu_loop(const lti_problem& p, void* const* data)
        : p_(p), layer_(p.states), u_(static_cast<const float*>(data[0])), memory_(static_cast<float*>(data[1])),
          zero_(static_cast<std::size_t>(p.states))
    {
    }
    void run()
    {
        for (index d = 0; d < p_.batch * p_.channels; ++d) {
            for (index t = 0; t < p_.length; ++t) {
                float* const to = memory_ + (d * p_.length + t) * p_.states;
                const float* const from = t == 0 ? zero_.data() : to - p_.states;
                const float u = u_[d * p_.length + t];
                for (index i = 0; i < p_.states; ++i) {
                    float sum = layer_.B[static_cast<std::size_t>(i)] * u;
                    const float* const A = layer_.A.data() + i * p_.states;
                    for (index j = 0; j < p_.states; ++j) { sum += A[j] * from[j]; }
                    to[i] = sum;
                }
            }
        }
    }

private:
    lti_problem p_;
    legendre_layer layer_;
    const float* u_;
    float* memory_;
    std::vector<float> zero_;
};

call make(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const lti_problem*>(problem);
    switch (p.what) {
    case lti_kind::s4d:
        return p.type == element::f32 ? call_of(new s4d_call<float>(p, data))
                                      : call_of(new s4d_call<seqmix::bf16>(p, data));
    case lti_kind::s4d_step:
        return call_of(new step_call(p, data));
    case lti_kind::s4d_kernel:
        return call_of(new kernel_call(p, data));
    case lti_kind::lru:
        return call_of(new lru_call(p, data));
    case lti_kind::lmu:
        return call_of(new lmu_call(p, data));
    }
    return {};
}

call make_loop(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const lti_problem*>(problem);
    switch (p.what) {
    case lti_kind::s4d:
        return call_of(new s4d_loop(p, data));
    case lti_kind::lru:
        return call_of(new lru_loop(p, data));
    case lti_kind::lmu:
        return call_of(new lmu_loop(p, data));
    default:
        return {};
    }
}

struct one_case {
    const char* name;
    const char* shape;
    lti_problem problem;
    spread_over where = spread_over::best;
};

constexpr one_case cases[] = {
    {"s4d_f32", "D 512, N 32 pairs, L 2048", {}, spread_over::vectors},
    {"s4d_f32_channel_last", "D 512, N 32 pairs, L 2048, laid out [B, L, D]", {.channel_last = true}},
    {"s4d_bf16", "bf16, D 512, N 32 pairs, L 2048", {.type = element::bf16}},
    {"s4d_step", "64 sequences, D 512, N 32 pairs", {.what = lti_kind::s4d_step, .batch = 64, .length = 1}},
    {"s4d_kernel", "D 512, N 32 pairs, L 2048", {.what = lti_kind::s4d_kernel}},
    {"lru", "N 1024, L 2048", {.what = lti_kind::lru, .channels = 1, .states = 1024}, spread_over::vectors},
    {"lmu", "D 512, order 64, L 512", {.what = lti_kind::lmu, .length = 512, .states = 64}, spread_over::vectors},
};

constexpr row row_of(const one_case& c)
{
    const lti_problem& p = c.problem;
    const std::int64_t tokens = p.batch * p.channels * p.length, state_tokens = tokens * p.states;
    row r{
        .name = c.name,
        .shape = c.shape,
        .of = limit::f32,
        .unit = "FLOP",
        .work = 0,
        .where = c.where,
        .operands = {{p.type, tokens, filling::normal}, {p.type, tokens}},
        .problem = &c.problem,
        .make = make,
        .peers = {},
    };
    const auto of_states = static_cast<double>(state_tokens);
    switch (p.what) {
    case lti_kind::s4d:
        // A h + u: 4 products, 3 sums; the real part of CB h and its sum: 2 and 2. As 6 multiply-adds, of which the
        // peak counts 2 operations each, they can't reach more than 11 / 12 of it.
        r.work = 11 * of_states;
        break;
    case lti_kind::s4d_step: // states of 8 bytes are read and written
        r.of = limit::copy, r.unit = "B", r.work = 16 * of_states;
        break;
    case lti_kind::s4d_kernel:
        r.work = 4 * of_states;
        r.operands[0] = {p.type, tokens}, r.operands[1] = {};
        break;
    case lti_kind::lru:
        r.of = limit::copy, r.unit = "B", r.work = 16 * of_states;
        r.operands[0].count = r.operands[1].count = 2 * state_tokens;
        break;
    case lti_kind::lmu:
        r.work = 2 * of_states * static_cast<double>(p.states);
        r.operands[1].count = state_tokens;
        break;
    }
    const bool has_loop =
        p.type == element::f32 && !p.channel_last && p.what != lti_kind::s4d_step && p.what != lti_kind::s4d_kernel;
    if (has_loop) { r.peers[0] = {"loop", make_loop, false}; }
    return r;
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family lti_rows() { return {"lti", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
