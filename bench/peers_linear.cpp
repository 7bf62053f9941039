// SPDX-License-Identifier: MIT
#include "peers_linear.hpp"

#include "arch.hpp"

#include <seqmix/config.hpp>
#include <seqmix/core/types.hpp>

#include <cmath>
#include <type_traits>

namespace bench::SEQMIX_BENCH_ARCH {

namespace {

using count = std::int64_t;

/// s = decay s + k v, o += q s, for the rows of a state.
void gla_token(float* SEQMIX_RESTRICT state, const float* SEQMIX_RESTRICT q, const float* SEQMIX_RESTRICT k,
               const float* SEQMIX_RESTRICT v, const float* SEQMIX_RESTRICT decay, float* SEQMIX_RESTRICT o, count dim)
{
    for (count j = 0; j < dim; ++j) { o[j] = 0.0f; }
    for (count i = 0; i < dim; ++i) {
        float* SEQMIX_RESTRICT const row = state + i * dim;
        const float d = decay[i], key = k[i], query = q[i];
        for (count j = 0; j < dim; ++j) {
            row[j] = row[j] * d + key * v[j];
            o[j] += query * row[j];
        }
    }
}

void gated_delta_token(float* SEQMIX_RESTRICT state, const float* SEQMIX_RESTRICT q, const float* SEQMIX_RESTRICT k,
                       const float* SEQMIX_RESTRICT v, float decay, float beta, float* SEQMIX_RESTRICT o,
                       float* SEQMIX_RESTRICT write, count dim)
{
    for (count n = 0; n < dim * dim; ++n) { state[n] *= decay; }
    for (count j = 0; j < dim; ++j) { write[j] = 0.0f; }
    for (count i = 0; i < dim; ++i) {
        for (count j = 0; j < dim; ++j) { write[j] += k[i] * state[i * dim + j]; }
    }
    for (count j = 0; j < dim; ++j) { write[j] = beta * (v[j] - write[j]); }
    for (count i = 0; i < dim; ++i) {
        for (count j = 0; j < dim; ++j) { state[i * dim + j] += k[i] * write[j]; }
    }
    for (count j = 0; j < dim; ++j) { o[j] = 0.0f; }
    for (count i = 0; i < dim; ++i) {
        for (count j = 0; j < dim; ++j) { o[j] += q[i] * state[i * dim + j]; }
    }
}

template <class T>
class token_loop_call {
public:
    token_loop_call(const linear_problem& p, void* const* data)
        : p_(p), in_(p, data), q_(static_cast<const T*>(data[0])), v_(static_cast<const T*>(data[2])),
          out_(static_cast<T*>(data[5])), states_(size(p.batch * p.heads * p.dim * p.dim)),
          rows_(size(p.threads * 5 * p.dim))
    {
        for (float& g : in_.log_decay) { g = std::exp(g); }
        scale_ = 1.0f / std::sqrt(static_cast<float>(p.dim));
    }

    void run()
    {
        states_.assign(states_.size(), 0.0f);
        spread(
            p_.threads, [](void* self, int worker) { static_cast<token_loop_call*>(self)->share(worker); }, this);
    }

private:
    static std::size_t size(count n) { return static_cast<std::size_t>(n); }

    /// Heads in equal shares.
    void share(int worker)
    {
        const count first = p_.heads * worker / p_.threads, last = p_.heads * (worker + 1) / p_.threads;
        float* const rows = rows_.data() + worker * 5 * p_.dim;
        for (count b = 0; b < p_.batch; ++b) {
            if (p_.rule == linear_rule::gla) { // all heads of a token, and then the next
                for (count t = 0; t < p_.length; ++t) {
                    for (count h = first; h < last; ++h) { token(b, t, h, rows); }
                }
            } else {
                for (count h = first; h < last; ++h) {
                    for (count t = 0; t < p_.length; ++t) { token(b, t, h, rows); }
                }
            }
        }
    }

    void token(count b, count t, count h, float* rows)
    {
        const count dim = p_.dim, of_token = (b * p_.length + t) * p_.heads + h;
        float *const q = rows, *const k = q + dim, *const v = k + dim, *const o = v + dim, *const write = o + dim;
        for (count i = 0; i < dim; ++i) {
            q[i] = scale_ * static_cast<float>(q_[of_token * dim + i]);
            k[i] = static_cast<float>(in_.k[size(of_token * dim + i)]);
            v[i] = static_cast<float>(v_[of_token * dim + i]);
        }
        float* const state = states_.data() + (b * p_.heads + h) * dim * dim;
        if (p_.rule == linear_rule::gla) {
            gla_token(state, q, k, v, in_.log_decay.data() + of_token * dim, o, dim);
        } else {
            gated_delta_token(state, q, k, v, in_.log_decay[size(of_token)], in_.beta[size(of_token)], o, write, dim);
        }
        for (count j = 0; j < dim; ++j) { out_[of_token * dim + j] = T(o[j]); }
    }

    linear_problem p_;
    linear_inputs<T> in_; ///< decays, not their logarithms
    const T *q_, *v_;
    T* out_;
    std::vector<float> states_, rows_;
    float scale_;
};

call token_loop(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const linear_problem*>(problem);
    return p.type == element::bf16 ? call_of(new token_loop_call<seqmix::bf16>(p, data))
                                   : call_of(new token_loop_call<float>(p, data));
}

} // namespace

call token_loop_gla(const void* problem, void* const* data) { return token_loop(problem, data); }
call four_sweeps_gated_delta(const void* problem, void* const* data) { return token_loop(problem, data); }

} // namespace bench::SEQMIX_BENCH_ARCH
