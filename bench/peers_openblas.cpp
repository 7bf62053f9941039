// SPDX-License-Identifier: MIT
// Attention by sgemm over a stored score matrix, test-time training by sgemm, and sgemm itself. The exponentials are Eigen's.
#include "peers.hpp"
#include "peers_linear.hpp"

#include <cblas.h>

#include <algorithm>
#include <cstdio>
#include <vector>

// The cblas.h of another BLAS may lie first.
extern "C" void openblas_set_num_threads(int threads);
extern "C" char* openblas_get_config(void);
extern "C" char* openblas_get_corename(void);

namespace bench::SEQMIX_BENCH_ARCH {

namespace {

int size(std::int64_t n) { return static_cast<int>(n); }

class stored_attention {
public:
    stored_attention(const attention_problem& p, void* const* data)
        : p_(p), q_(static_cast<const float*>(data[0])), k_(static_cast<const float*>(data[1])),
          v_(static_cast<const float*>(data[2])), slopes_(p.alibi ? static_cast<const float*>(data[3]) : nullptr),
          out_(static_cast<float*>(data[p.alibi ? 4 : 3])),
          scores_(new float[static_cast<std::size_t>(p.queries * p.keys)])
    {
    }
    ~stored_attention() { delete[] scores_; }
    stored_attention(const stored_attention&) = delete;
    stored_attention& operator=(const stored_attention&) = delete;

    void run()
    {
        const layout q_at(p_, p_.heads, p_.queries), k_at(p_, p_.kv_heads, p_.keys);
        for (std::int64_t b = 0; b < p_.batch; ++b) {
            for (std::int64_t h = 0; h < p_.heads; ++h) {
                const std::int64_t from = b * k_at.batch + h / (p_.heads / p_.kv_heads) * k_at.head;
                const std::int64_t at = b * q_at.batch + h * q_at.head;
                one_head(q_ + at, k_ + from, v_ + from, out_ + at, size(q_at.time), size(k_at.time),
                         slopes_ != nullptr ? slopes_[h] : 0.0f);
            }
        }
    }

private:
    void one_head(const float* q, const float* k, const float* v, float* out, int q_stride, int k_stride, float slope)
    {
        const int queries = size(p_.queries), keys = size(p_.keys), dim = size(p_.dim);
        if (queries == 1) {
            cblas_sgemv(CblasRowMajor, CblasNoTrans, keys, dim, 1, k, k_stride, q, 1, 0, scores_, 1);
            weigh(p_, slope, scores_);
            cblas_sgemv(CblasRowMajor, CblasTrans, keys, dim, 1, v, k_stride, scores_, 1, 0, out, 1);
            return;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, queries, keys, dim, 1, q, q_stride, k, k_stride, 0,
                    scores_, keys);
        weigh(p_, slope, scores_);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, queries, dim, keys, 1, scores_, keys, v, k_stride, 0,
                    out, q_stride);
    }

    attention_problem p_;
    const float *q_, *k_, *v_, *slopes_;
    float *out_, *scores_;
};

/// Six products of the whole chunk for an update, which adds to the weights where they stand, and three for the outputs.
class stored_training {
public:
    stored_training(const training_problem& p, void* const* data)
        : p_(p), in_(p, data), q_(static_cast<const float*>(data[0])), k_(static_cast<const float*>(data[1])), v_(static_cast<const float*>(data[2])),
          out_(static_cast<float*>(data[5])), weights_(in_.weights.size()), norms_(rows()), gate_(of_chunk()), up_(of_chunk()), down_(of_chunk())
    {
    }

    void run()
    {
        weights_ = in_.weights;
        each_row([&](std::size_t row, int columns, float* weights) { norms_[row] = cblas_snrm2(columns, weights, 1); });
        for (std::int64_t from = 0; from < p_.length; from += p_.chunk) {
            const int tokens = size(std::min(p_.chunk, p_.length - from));
            apply(tokens, q_ + from * p_.dim, out_ + from * p_.dim);
            update(tokens, k_ + from * p_.dim, v_ + from * p_.dim, in_.rates.data() + from);
            each_row([&](std::size_t row, int columns, float* weights) {
                cblas_sscal(columns, norms_[row] / (cblas_snrm2(columns, weights, 1) + 1e-5f), weights, 1);
            });
        }
    }

private:
    std::size_t rows() const { return static_cast<std::size_t>(2 * p_.hidden + p_.dim); }
    std::size_t of_chunk() const { return static_cast<std::size_t>(p_.chunk * p_.hidden); }
    float* w0() { return weights_.data(); }
    float* w1() { return weights_.data() + p_.hidden * p_.dim; }
    float* w2() { return w1() + p_.hidden * p_.dim; }

    template <class Body>
    void each_row(const Body& body)
    {
        std::size_t row = 0;
        for (std::int64_t i = 0; i < p_.hidden; ++i) { body(row++, size(p_.dim), w0() + i * p_.dim); }
        for (std::int64_t i = 0; i < p_.dim; ++i) { body(row++, size(p_.hidden), w1() + i * p_.hidden); }
        for (std::int64_t i = 0; i < p_.hidden; ++i) { body(row++, size(p_.dim), w2() + i * p_.dim); }
    }

    void hidden(int tokens, const float* x)
    {
        const int dim = size(p_.dim), units = size(p_.hidden);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tokens, units, dim, 1, x, dim, w0(), dim, 0, gate_.data(), units);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tokens, units, dim, 1, x, dim, w2(), dim, 0, up_.data(), units);
    }
    void apply(int tokens, const float* q, float* out)
    {
        const int dim = size(p_.dim), units = size(p_.hidden);
        hidden(tokens, q);
        for (std::int64_t t = 0; t < tokens; ++t) { multiply_by_silu(p_.hidden, gate_.data() + t * p_.hidden, up_.data() + t * p_.hidden); }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tokens, dim, units, 1, up_.data(), units, w1(), units, 0, out, dim);
    }
    void update(int tokens, const float* k, const float* v, const float* rates)
    {
        const int dim = size(p_.dim), units = size(p_.hidden);
        hidden(tokens, k);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, tokens, units, dim, 1, v, dim, w1(), units, 0, down_.data(), units);
        for (std::int64_t t = 0; t < tokens; ++t) {
            const std::int64_t at = t * p_.hidden;
            differentiate_swiglu(p_.hidden, rates[t], gate_.data() + at, up_.data() + at, down_.data() + at);
        }
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, units, dim, tokens, 1, gate_.data(), units, k, dim, 1, w0(), dim);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, units, dim, tokens, 1, up_.data(), units, k, dim, 1, w2(), dim);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, dim, units, tokens, 1, v, dim, down_.data(), units, 1, w1(), units);
    }

    training_problem p_;
    training_inputs in_;
    const float *q_, *k_, *v_;
    float* out_;
    std::vector<float> weights_, norms_, gate_, up_, down_;
};

struct product {
    const gemm_problem p;
    const float *a, *b;
    float* c;

    void run() const
    {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size(p.m), size(p.n), size(p.k), 1, a, size(p.k), b,
                    size(p.n), 0, c, size(p.n));
    }
};

/// One sgemm a block on strided operands, and a permutation of rows after each factor.
class stored_monarch {
public:
    stored_monarch(const monarch_problem& p, void* const* data)
        : p_(p), x_(static_cast<const float*>(data[0])), w1_(static_cast<const float*>(data[1])), w2_(static_cast<const float*>(data[2])),
          out_(static_cast<float*>(data[3])), first_(static_cast<std::size_t>(p.batch * p.k * p.q)), turned_(first_.size()),
          second_(static_cast<std::size_t>(p.batch * p.l * p.s))
    {
    }

    void run()
    {
        for (std::int64_t i = 0; i < p_.k; ++i) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size(p_.batch), size(p_.q), size(p_.p), 1, x_ + i * p_.p, size(p_.k * p_.p),
                        w1_ + i * p_.q * p_.p, size(p_.p), 0, first_.data() + i * p_.q, size(p_.k * p_.q));
        }
        turn(first_.data(), p_.r, p_.l, turned_.data());
        for (std::int64_t i = 0; i < p_.l; ++i) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size(p_.batch), size(p_.s), size(p_.r), 1, turned_.data() + i * p_.r,
                        size(p_.l * p_.r), w2_ + i * p_.s * p_.r, size(p_.r), 0, second_.data() + i * p_.s, size(p_.l * p_.s));
        }
        turn(second_.data(), p_.l, p_.s, out_);
    }

private:
    /// Rows of [from, to] to rows of [to, from].
    void turn(const float* in, std::int64_t from, std::int64_t to, float* out) const
    {
        for (std::int64_t b = 0; b < p_.batch; ++b, in += from * to, out += from * to) {
            for (std::int64_t j = 0; j < to; ++j) {
                for (std::int64_t i = 0; i < from; ++i) { out[j * from + i] = in[i * to + j]; }
            }
        }
    }

    monarch_problem p_;
    const float *x_, *w1_, *w2_;
    float* out_;
    std::vector<float> first_, turned_, second_;
};

} // namespace

const char* openblas_version()
{
    static char text[200];
    std::snprintf(text, sizeof text, "%s as %s", openblas_get_config(), openblas_get_corename());
    return text;
}

call openblas_attention(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const attention_problem*>(problem);
    if (p.type != element::f32) { return {}; }
    openblas_set_num_threads(1);
    return call_of(new stored_attention(p, data));
}

call openblas_training(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const training_problem*>(problem);
    if (p.type != element::f32 || p.threads > 1) { return {}; }
    openblas_set_num_threads(1);
    return call_of(new stored_training(p, data));
}

call openblas_gemm(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const gemm_problem*>(problem);
    if (p.type != element::f32) { return {}; }
    openblas_set_num_threads(1);
    return call_of(new product{p, static_cast<const float*>(data[0]), static_cast<const float*>(data[1]),
                               static_cast<float*>(data[2])});
}

call openblas_monarch(const void* problem, void* const* data)
{
    openblas_set_num_threads(1);
    return call_of(new stored_monarch(*static_cast<const monarch_problem*>(problem), data));
}

} // namespace bench::SEQMIX_BENCH_ARCH
