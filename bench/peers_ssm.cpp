// SPDX-License-Identifier: MIT
#include "peers_ssm.hpp"

#include "arch.hpp"

#include <seqmix/core/types.hpp>

#include <cmath>
#include <type_traits>
#include <vector>

namespace bench::SEQMIX_BENCH_ARCH {

namespace {

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }
float silu(float x) { return x / (1.0f + std::exp(-x)); }

class scalar_scan_call {
public:
    scalar_scan_call(const scan_problem& p, void* const* data) : p_(p), data_(data, data + 9), h_(size(p.channels * p.states)) {}

    void run()
    {
        const auto of = [&](std::size_t i) { return static_cast<const float*>(data_[i]); };
        const float *u = of(0), *delta = of(1), *A = of(2), *B = of(3), *C = of(4), *z = of(5), *D = of(6), *bias = of(7);
        float* out = static_cast<float*>(data_[8]);
        h_.assign(h_.size(), 0.0f);
        for (std::int64_t t = 0; t < p_.length; ++t) {
            for (std::int64_t d = 0; d < p_.channels; ++d) {
                const std::int64_t at = t * p_.channels + d;
                const float dt = softplus(delta[at] + bias[d]), x = dt * u[at];
                float y = 0.0f;
                for (std::int64_t n = 0; n < p_.states; ++n) {
                    float& h = h_[size(d * p_.states + n)];
                    h = std::exp(dt * A[d * p_.states + n]) * h + x * B[t * p_.states + n];
                    y += h * C[t * p_.states + n];
                }
                out[at] = (y + D[d] * u[at]) * silu(z[at]);
            }
        }
    }

private:
    static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

    scan_problem p_;
    std::vector<void*> data_;
    std::vector<float> h_;
};

template <class T>
class token_loop_call {
public:
    token_loop_call(const ssd_problem& p, void* const* data)
        : p_(p), data_(data, data + 6), state_(static_cast<std::size_t>(p.heads * p.channels * p.states)),
          B_(static_cast<std::size_t>(p.states)), C_(B_.size())
    {
    }

    void run()
    {
        const auto* x = static_cast<const T*>(data_[0]);
        const auto *dt = static_cast<const float*>(data_[1]), *A = static_cast<const float*>(data_[2]);
        const auto *B = static_cast<const T*>(data_[3]), *C = static_cast<const T*>(data_[4]);
        auto* out = static_cast<T*>(data_[5]);
        const std::int64_t states = p_.states;
        state_.assign(state_.size(), 0.0f);
        for (std::int64_t t = 0; t < p_.length; ++t) {
            for (std::int64_t n = 0; n < states; ++n) {
                B_[static_cast<std::size_t>(n)] = static_cast<float>(B[t * states + n]);
                C_[static_cast<std::size_t>(n)] = static_cast<float>(C[t * states + n]);
            }
            for (std::int64_t h = 0; h < p_.heads; ++h) {
                const float step = softplus(dt[t * p_.heads + h]), keep = std::exp(step * A[h]);
                for (std::int64_t c = 0; c < p_.channels; ++c) {
                    const std::int64_t at = (t * p_.heads + h) * p_.channels + c;
                    out[at] = T(token(state_.data() + (h * p_.channels + c) * states, keep, step * static_cast<float>(x[at])));
                }
            }
        }
    }

private:
    /// Eight sums, as one writes it for a compiler that may not reorder one.
    float token(float* state, float keep, float input) const
    {
        constexpr std::int64_t sums = 64;
        const float *const B = B_.data(), *const C = C_.data();
        float sum[sums] = {};
        std::int64_t n = 0;
        for (; n + sums <= p_.states; n += sums) {
            for (std::int64_t i = 0; i < sums; ++i) {
                const float h = state[n + i] * keep + input * B[n + i];
                sum[i] += h * C[n + i];
                state[n + i] = h;
            }
        }
        float y = 0.0f;
        for (; n < p_.states; ++n) {
            state[n] = state[n] * keep + input * B[n];
            y += state[n] * C[n];
        }
        for (float part : sum) { y += part; }
        return y;
    }

    ssd_problem p_;
    std::vector<void*> data_;
    std::vector<float> state_, B_, C_;
};

} // namespace

call scalar_scan(const void* problem, void* const* data)
{
    return call_of(new scalar_scan_call(*static_cast<const scan_problem*>(problem), data));
}

call token_loop_ssd(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const ssd_problem*>(problem);
    return p.type == element::bf16 ? call_of(new token_loop_call<seqmix::bf16>(p, data)) : call_of(new token_loop_call<float>(p, data));
}

} // namespace bench::SEQMIX_BENCH_ARCH
