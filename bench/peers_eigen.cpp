// SPDX-License-Identifier: MIT
// What people write with Eigen, compiled with the flags of the row's own instruction set.
#include "peers.hpp"

// Eigen's functions have the same names for every instruction set, and the linker would keep one for all. (The
// libraries that Eigen includes don't mention its name.)
#define SEQMIX_BENCH_JOIN_(a, b) a##b
#define SEQMIX_BENCH_JOIN(a, b) SEQMIX_BENCH_JOIN_(a, b)
#define Eigen SEQMIX_BENCH_JOIN(Eigen_for_, SEQMIX_BENCH_ARCH)
#define EIGEN_DONT_PARALLELIZE
// GCC 12 warns of undefined registers in its own header (GCC bug 105593), wherever it was inlined into.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>

#include <cmath>

namespace bench::SEQMIX_BENCH_ARCH {

namespace {

using Eigen::Dynamic;
using Eigen::Index;

template <class T>
using matrix = Eigen::Matrix<T, Dynamic, Dynamic, Eigen::RowMajor>;
/// Rows `stride` apart in memory that somebody else owns.
template <class Matrix>
using rows_of = Eigen::Map<Matrix, Eigen::Unaligned, Eigen::OuterStride<>>;

template <class T>
class stored_attention {
public:
    stored_attention(const attention_problem& p, void* const* data)
        : p_(p), q_(static_cast<const T*>(data[0])), k_(static_cast<const T*>(data[1])),
          v_(static_cast<const T*>(data[2])), slopes_(p.alibi ? static_cast<const float*>(data[3]) : nullptr),
          out_(static_cast<T*>(data[p.alibi ? 4 : 3])), scores_(p.queries, p.keys)
    {
    }

    void run()
    {
        const layout q_at(p_, p_.heads, p_.queries), k_at(p_, p_.kv_heads, p_.keys);
        for (Index b = 0; b < p_.batch; ++b) {
            for (Index h = 0; h < p_.heads; ++h) {
                const Index from = b * k_at.batch + h / (p_.heads / p_.kv_heads) * k_at.head;
                const Index at = b * q_at.batch + h * q_at.head;
                const rows_of<const matrix<T>> q(q_ + at, p_.queries, p_.dim, Eigen::OuterStride<>(q_at.time));
                const rows_of<const matrix<T>> k(k_ + from, p_.keys, p_.dim, Eigen::OuterStride<>(k_at.time));
                const rows_of<const matrix<T>> v(v_ + from, p_.keys, p_.dim, Eigen::OuterStride<>(k_at.time));
                rows_of<matrix<T>> out(out_ + at, p_.queries, p_.dim, Eigen::OuterStride<>(q_at.time));
                const float slope = slopes_ != nullptr ? slopes_[h] : 0.0f;
                if constexpr (std::is_same_v<T, float>) {
                    scores_.noalias() = q * k.transpose();
                    weigh(p_, slope, scores_.data());
                    out.noalias() = scores_ * v;
                } else {
                    wide_q_ = q.template cast<float>();
                    wide_k_ = k.template cast<float>();
                    wide_v_ = v.template cast<float>();
                    scores_.noalias() = wide_q_ * wide_k_.transpose();
                    weigh(p_, slope, scores_.data());
                    wide_out_.noalias() = scores_ * wide_v_;
                    out = wide_out_.template cast<T>();
                }
            }
        }
    }

private:
    attention_problem p_;
    const T *q_, *k_, *v_;
    const float* slopes_;
    T* out_;
    matrix<float> scores_, wide_q_, wide_k_, wide_v_, wide_out_;
};

template <class T, class Sum>
class product {
public:
    product(const gemm_problem& p, void* const* data)
        : a_(static_cast<const T*>(data[0]), p.m, p.k), b_(static_cast<const T*>(data[1]), p.k, p.n),
          c_(static_cast<Sum*>(data[2]), p.m, p.n)
    {
    }

    void run()
    {
        if constexpr (std::is_same_v<T, Sum>) {
            c_.noalias() = a_ * b_;
        } else { // casts as part of the product would be made again for every use of an element
            wide_a_ = a_.template cast<Sum>();
            wide_b_ = b_.template cast<Sum>();
            c_.noalias() = wide_a_ * wide_b_;
        }
    }

private:
    Eigen::Map<const matrix<T>> a_, b_;
    Eigen::Map<matrix<Sum>> c_;
    matrix<Sum> wide_a_, wide_b_;
};

template <function F>
class map_call {
public:
    map_call(const map_problem& p, void* const* data)
        : x_(static_cast<const float*>(data[0]), p.count), y_(static_cast<float*>(data[1]), p.count)
    {
    }

    void run()
    {
        if constexpr (F == function::exp2) {
            y_ = (x_ * 0.693147180559945f).exp();
        } else if constexpr (F == function::exp) {
            y_ = x_.exp();
        } else if constexpr (F == function::log) {
            y_ = x_.log();
        } else {
            y_ = x_.tanh();
        }
    }

private:
    Eigen::Map<const Eigen::ArrayXf> x_;
    Eigen::Map<Eigen::ArrayXf> y_;
};

} // namespace

void multiply_by_silu(std::int64_t count, const float* gate, float* up)
{
    const Eigen::Map<const Eigen::ArrayXf> g(gate, count);
    Eigen::Map<Eigen::ArrayXf>(up, count) *= g / (1.0f + (-g).exp());
}

void differentiate_swiglu(std::int64_t count, float rate, float* gate, float* up, float* down)
{
    Eigen::Map<Eigen::ArrayXf> g(gate, count), u(up, count), d(down, count);
    constexpr std::int64_t most = 256; // stays in L1, and on the stack
    Eigen::Array<float, Eigen::Dynamic, 1, 0, most, 1> sigma, silu, scaled;
    for (std::int64_t from = 0; from < count; from += most) {
        const std::int64_t n = count - from < most ? count - from : most;
        auto g_now = g.segment(from, n), u_now = u.segment(from, n), d_now = d.segment(from, n);
        sigma = 1.0f / (1.0f + (-g_now).exp());
        silu = g_now * sigma;
        scaled = rate * d_now;
        d_now = rate * silu * u_now;
        g_now = scaled * u_now * (sigma + silu * (1.0f - sigma));
        u_now = scaled * silu;
    }
}

void weigh(const attention_problem& p, float slope, float* scores)
{
    const float scale = 1.0f / std::sqrt(static_cast<float>(p.dim));
    for (Index i = 0; i < p.queries; ++i) {
        Eigen::Map<Eigen::ArrayXf> row(scores + i * p.keys, p.keys);
        const Index at = p.causal ? i + p.keys - p.queries : i;
        const Index first = p.window_left >= 0 && at > p.window_left ? at - p.window_left : 0;
        const Index end = p.causal ? at + 1 : p.keys;
        auto seen = row.segment(first, end - first);
        if (p.softcap > 0) {
            seen = p.softcap * (seen * (scale / p.softcap)).tanh();
        } else {
            seen *= scale;
        }
        if (slope != 0) {
            const auto keys =
                Eigen::ArrayXf::LinSpaced(end - first, static_cast<float>(first), static_cast<float>(end - 1));
            seen -= slope * (keys - static_cast<float>(at)).abs();
        }
        seen = (seen - seen.maxCoeff()).exp();
        seen *= 1.0f / seen.sum();
        row.head(first).setZero();
        row.tail(p.keys - end).setZero();
    }
}

const char* eigen_version()
{
#define SEQMIX_BENCH_TEXT_(x) #x
#define SEQMIX_BENCH_TEXT(x) SEQMIX_BENCH_TEXT_(x)
#if defined(EIGEN_PATCH_VERSION)
    return "Eigen " SEQMIX_BENCH_TEXT(EIGEN_MAJOR_VERSION) "." SEQMIX_BENCH_TEXT(
        EIGEN_MINOR_VERSION) "." SEQMIX_BENCH_TEXT(EIGEN_PATCH_VERSION);
#else
    return "Eigen " SEQMIX_BENCH_TEXT(EIGEN_WORLD_VERSION) "." SEQMIX_BENCH_TEXT(
        EIGEN_MAJOR_VERSION) "." SEQMIX_BENCH_TEXT(EIGEN_MINOR_VERSION);
#endif
}

call eigen_attention(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const attention_problem*>(problem);
    switch (p.type) {
    case element::f32:
        return call_of(new stored_attention<float>(p, data));
    case element::bf16:
        return call_of(new stored_attention<Eigen::bfloat16>(p, data));
    case element::f16:
        return call_of(new stored_attention<Eigen::half>(p, data));
    default:
        return {};
    }
}

call eigen_gemm(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const gemm_problem*>(problem);
    switch (p.type) {
    case element::f32:
        return call_of(new product<float, float>(p, data));
    case element::bf16:
        return call_of(new product<Eigen::bfloat16, float>(p, data));
    case element::s8:
        return call_of(new product<std::int8_t, std::int32_t>(p, data));
    default:
        return {};
    }
}

call eigen_map(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const map_problem*>(problem);
    switch (p.f) {
    case function::exp2:
        return call_of(new map_call<function::exp2>(p, data));
    case function::exp:
        return call_of(new map_call<function::exp>(p, data));
    case function::log:
        return call_of(new map_call<function::log>(p, data));
    case function::tanh:
        return call_of(new map_call<function::tanh>(p, data));
    }
    return {};
}

} // namespace bench::SEQMIX_BENCH_ARCH
