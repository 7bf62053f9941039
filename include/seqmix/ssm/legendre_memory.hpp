// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/ssm/lti_parts.hpp>
#include <seqmix/tile/mma.hpp>

#include <limits>

// The Legendre Memory Unit: its matrices, its memory as a scan and as the kernel of a long convolution.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// What lmu_scan may be told besides its operands.
struct lmu_options {
    view<float, 3> state{}; ///< [B, D, q]: the memory, read at the start and written at the end; null: zeros
};

namespace lti {

/// A small square matrix in double, row-major, and what its exponential needs. Plain loops: q³ each, a few dozen times.
class double_matrix {
public:
    double_matrix(arena& a, index order) : order_(order), data_(a.take<double>(order * order)) {}

    double* row(index i) const { return data_ + i * order_; }
    void fill(double diagonal) const
    {
        for (index i = 0; i < order_ * order_; ++i) { data_[i] = 0.0; }
        for (index i = 0; i < order_; ++i) { row(i)[i] = diagonal; }
    }

    /// this = diagonal I + factor a b
    void product(const double_matrix& a, const double_matrix& b, double factor, double diagonal) const
    {
        fill(diagonal);
        for (index i = 0; i < order_; ++i) {
            double* SEQMIX_RESTRICT const to = row(i);
            for (index k = 0; k < order_; ++k) {
                const double left = factor * a.row(i)[k];
                const double* SEQMIX_RESTRICT const from = b.row(k);
                for (index j = 0; j < order_; ++j) { to[j] += left * from[j]; }
            }
        }
    }

    void scale(double factor) const
    {
        for (index i = 0; i < order_ * order_; ++i) { data_[i] *= factor; }
    }

    /// The largest sum of moduli of a row.
    double norm() const
    {
        double most = 0.0;
        for (index i = 0; i < order_; ++i) {
            double sum = 0.0;
            for (index j = 0; j < order_; ++j) { sum += std::fabs(row(i)[j]); }
            most = sum > most ? sum : most;
        }
        return most;
    }

private:
    index order_;
    double* data_;
};

/// The exponential of x by scaling and squaring (Higham, "Functions of Matrices", 2008, section 10.3): halved until the
/// norm is at most 1/2, where 17 terms of the series leave less than 2^-53, then squared as often. Overwrites x and spare;
/// returns which of the two others holds the result.
inline const double_matrix& exponential(const double_matrix& x, const double_matrix& result, const double_matrix& spare)
{
    constexpr int terms = 17;
    int halvings = 0;
    for (double norm = x.norm(); norm > 0.5; norm *= 0.5) { ++halvings; }
    x.scale(std::ldexp(1.0, -halvings));
    const double_matrix *now = &result, *next = &spare;
    const auto turn = [&] {
        const double_matrix* const former = now;
        now = next, next = former;
    };
    now->fill(1.0);
    for (int k = terms; k >= 1; --k) { // I + x / 1 (I + x / 2 (I + …))
        next->product(x, *now, 1.0 / k, 1.0);
        turn();
    }
    for (; halvings > 0; --halvings) {
        next->product(*now, *now, 1.0, 0.0);
        turn();
    }
    return *now;
}

} // namespace lti

/// The matrices of a Legendre Memory Unit of order q = A's size: the memory m_t = A m_{t-1} + B u_t holds the coefficients
/// of the shifted Legendre polynomials that best follow the last `theta` tokens of u: u_{t - s} ≈ Σ_i P_i(2 s / theta - 1)
/// m_i.
///
/// A [q, q] and B [q] are written; theta in tokens, positive. Zero-order hold over one token, exact for an input that is
/// constant between tokens: both are blocks of the exponential of the (q + 1) x (q + 1) matrix [a b; 0 0] / theta with
/// a_ij = (2 i + 1) (-1 if i < j, else (-1)^(i-j+1)), b_i = (2 i + 1) (-1)^i; in double, rounded once to float. Scratch of
/// 24 (q + 1)² bytes, time of about 2 (17 + log2(4 q² / theta)) q³ flops. Throws std::invalid_argument.
/// Source: Voelker, Kajić & Eliasmith 2019, "Legendre Memory Units", equations 1 to 3.
inline void legendre_memory(double theta, const view<float, 2>& A, const view<float, 1>& B, const context_ref& ctx = {})
{
    const checker check("ssm::legendre_memory");
    check_given(check, A, "A"), check_given(check, B, "B");
    const index order = A.extent(0);
    check_extent(check, A, "A", 1, "number of columns", order, "its number of rows");
    check_extent(check, B, "B", 0, "length", order, "A's order");
    check_apart(check, reach(B), "B", A, "A");
    check.require(theta > 0.0 && theta <= std::numeric_limits<double>::max(), "theta is ", theta,
                  ", but must be finite and above ", 0);
    const auto carve = [&](arena& a) { return lti::double_matrix(a, order + 1); };
    arena measure;
    for (int i = 0; i < 3; ++i) { static_cast<void>(carve(measure)); }
    ctx.for_each(order == 0 ? 0 : 1, measure.used(), [&](index, std::byte* memory) {
        arena a(memory);
        const lti::double_matrix x = carve(a), one = carve(a), other = carve(a);
        x.fill(0.0);
        for (index i = 0; i < order; ++i) {
            const double odd = static_cast<double>(2 * i + 1) / theta;
            for (index j = 0; j < order; ++j) { x.row(i)[j] = i < j || (i - j) % 2 == 0 ? -odd : odd; }
            x.row(i)[order] = i % 2 == 0 ? odd : -odd;
        }
        const lti::double_matrix& power = lti::exponential(x, one, other);
        for (index i = 0; i < order; ++i) {
            for (index j = 0; j < order; ++j) { A(i, j) = static_cast<float>(power.row(i)[j]); }
            B(i) = static_cast<float>(power.row(i)[order]);
        }
    });
}

namespace lti {

/// A block of `Vectors` registers of channels of one sequence. The memories of the block lie in scratch as a panel, order x
/// columns, twice: the product of A with one is the other.
template <class Arch, int Vectors, class T, class Out>
class memory_block {
    using f32 = simd::f32<Arch>;
    static constexpr int lanes = f32::lanes;
    static constexpr index columns = Vectors * lanes;

public:
    memory_block(arena& a, index order) : order_(order)
    {
        u_ = a.take<float>(tile_tokens * columns);
        now_ = a.take<float>(order * columns), next_ = a.take<float>(order * columns);
    }

    /// u [at most `columns`, L], memory [channels, L, q], state [channels, q]
    void run(const view<const T, 2>& u, const view<const float, 2>& A, const view<const float, 1>& B,
             const view<Out, 3>& memory, const view<float, 2>& state)
    {
        const index length = u.extent(1);
        if (length == 0) { return; }
        for (index i = 0; i < order_ * columns; i += lanes) { f32::zero().store(now_ + i); }
        if (state) { load_tile<Arch>(view<const float, 2>(state), now_, columns, lanes); }
        for (index t = 0; t < length; ++t) {
            if (t % tile_tokens == 0) {
                load_tile<Arch>(u.slice(1, t, smaller(length, t + tile_tokens)), u_, columns, lanes);
            }
            advance(A, B, u_ + t % tile_tokens * columns);
            store_tile<Arch>(now_, columns, lanes, memory.select(1, t));
        }
        if (state) { store_tile<Arch>(now_, columns, lanes, state); }
    }

private:
    /// next = A now + B u, and they change places.
    SEQMIX_NOINLINE void advance(const view<const float, 2>& A, const view<const float, 1>& B, const float* u)
    {
        using product = tile::product<Arch, float>;
        constexpr int rows = tile::blocking<Arch>::rows;
        const auto left = tile::left_operand::of(A.data(), A.stride(0), A.stride(1));
        for (index row = 0; row < order_; row += rows) {
            const index live = order_ - row < rows ? order_ - row : rows;
            f32 sum[rows][Vectors];
            simd::unroll<rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
                const f32 input = f32::broadcast(B(row + (m < live ? m : live - 1)));
                simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { sum[m][v] = input * f32::load(u + v * lanes); });
            });
            tile::micro_kernel<product>(sum, left, row, live, {now_, columns}, order_);
            simd::unroll<rows>([&](auto m) SEQMIX_INLINE_LAMBDA {
                if (m < live) {
                    simd::unroll<Vectors>(
                        [&](auto v) SEQMIX_INLINE_LAMBDA { sum[m][v].store(next_ + (row + m) * columns + v * lanes); });
                }
            });
        }
        float* const former = now_;
        now_ = next_, next_ = former;
    }

    index order_;
    float *u_, *now_, *next_;
};

} // namespace lti

/// The memory of a Legendre Memory Unit for every channel, or any other state space of one input with a dense A:
/// memory_t = A memory_{t-1} + B u_t.
///
/// u [B, D, L]: float, bf16 or f16; A [q, q], B [q]: discretised, e.g. by legendre_memory; memory [B, D, L, q], of u's type
/// or float (the recurrence itself is in float). Any strides; unit stride of q or of channels in `memory`, and of time or
/// of channels in u, are fast. Zero sizes are legal; for L = 0 the state stays.
///
/// q² multiply-adds for each channel and token: lanes are channels, and the micro-kernel of the matrix products multiplies
/// A by the memories of a block of them. Scratch of a worker: (2 q + 32) times three registers. Bit-identical for every
/// number of threads, every batch and every way to cut the sequence into calls that hand on the state. NaN and infinities
/// reach the later memories of their channel and no other.
///
/// Error against exact arithmetic on the given numbers, to first order in u = 2^-24: a token adds at most
/// r_t = (q + 1) u (|A| |memory_{t-1}| + |B| |u_t|), element by element, which A then carries on, so that in the 2-norm
/// |memory_t - exact| <= Σ_s |A^{t-s}| |r_s|: bounded, whatever L is, by Σ_k |A^k| max |r|, a sum that converges as the
/// window of theta tokens passes. Throws std::invalid_argument, with the outputs untouched. Source: Voelker, Kajić &
/// Eliasmith 2019, "Legendre Memory Units", section 2; Liu et al. 2024, "LMUFormer".
template <class Arch = arch::native, class U, class Out>
void lmu_scan(const view<U, 3>& u, const view<const float, 2>& A, const view<const float, 1>& B, const view<Out, 4>& memory,
              const lmu_options& opt = {}, const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    lti::check_types<T, Out>();
    const checker check("ssm::lmu_scan");
    check_given(check, view<const T, 3>(u), "u"), check_given(check, A, "A"), check_given(check, B, "B");
    check_given(check, memory, "memory");
    const index order = A.extent(0), channels = u.extent(1);
    check_extent(check, A, "A", 1, "number of columns", order, "its number of rows");
    check_extent(check, B, "B", 0, "length", order, "A's order");
    check_extent(check, memory, "memory", 0, "batch", u.extent(0), "u's");
    check_extent(check, memory, "memory", 1, "number of channels", channels, "u's");
    check_extent(check, memory, "memory", 2, "length", u.extent(2), "u's");
    check_extent(check, memory, "memory", 3, "order", order, "A's");
    if (opt.state) {
        check_extent(check, opt.state, "state", 0, "batch", u.extent(0), "u's");
        check_extent(check, opt.state, "state", 1, "number of channels", channels, "u's");
        check_extent(check, opt.state, "state", 2, "order", order, "A's");
    }
    const auto apart = [&](const byte_range& written, const char* writer) {
        check_apart(check, written, writer, u, "u"), check_apart(check, written, writer, A, "A");
        check_apart(check, written, writer, B, "B");
    };
    apart(reach(memory), "memory"), apart(reach(opt.state), "state");
    check_apart(check, reach(opt.state), "state", memory, "memory");

    constexpr index lanes = simd::lanes<Arch>, wide = tile::blocking<Arch>::vectors;
    const index blocks = (channels + wide * lanes - 1) / (wide * lanes);
    arena measure;
    static_cast<void>(lti::memory_block<Arch, wide, T, Out>(measure, order));
    ctx.for_each(u.extent(0) * blocks, measure.used(), [&](index task, std::byte* scratch) {
        const index b = task / blocks, first = task % blocks * wide * lanes,
                    last = first + wide * lanes < channels ? first + wide * lanes : channels;
        const auto run = [&](auto vectors) {
            arena carve(scratch);
            lti::memory_block<Arch, vectors, T, Out>(carve, order)
                .run(view<const T, 3>(u)[b].slice(0, first, last), A, B, memory[b].slice(0, first, last),
                     opt.state ? opt.state[b].slice(0, first, last) : view<float, 2>{});
        };
        if (last - first > 2 * lanes) {
            run(std::integral_constant<int, wide>{});
        } else if (last - first > lanes) {
            run(std::integral_constant<int, 2>{});
        } else {
            run(std::integral_constant<int, 1>{});
        }
    });
}

/// Its impulse response, the kernels of long convolutions that give lmu_scan's memories from a zero state:
/// k[i, t] = (A^t B)_i; the memory's element i is the causal convolution of u with row i.
///
/// A [q, q], B [q] as for lmu_scan, k [q, L], any strides. In double, rounded once to float: |k - exact| <= u |k| +
/// (q + 1) 2^-53 Σ_s |A^{t-s}| |A| |k_{s-1}|, u = 2^-24. q² multiply-adds a token on one thread, once a layer; scratch of
/// 8 (q² + 2 q) bytes. Throws std::invalid_argument.
inline void lmu_kernel(const view<const float, 2>& A, const view<const float, 1>& B, const view<float, 2>& k,
                       const context_ref& ctx = {})
{
    const checker check("ssm::lmu_kernel");
    check_given(check, A, "A"), check_given(check, B, "B"), check_given(check, k, "k");
    const index order = A.extent(0);
    check_extent(check, A, "A", 1, "number of columns", order, "its number of rows");
    check_extent(check, B, "B", 0, "length", order, "A's order");
    check_extent(check, k, "k", 0, "number of rows", order, "A's order");
    check_apart(check, reach(k), "k", A, "A"), check_apart(check, reach(k), "k", B, "B");
    arena measure;
    static_cast<void>(measure.take<double>(order * order));
    static_cast<void>(measure.take<double>(order)), static_cast<void>(measure.take<double>(order));
    ctx.for_each(k.empty() ? 0 : 1, measure.used(), [&](index, std::byte* memory) {
        arena a(memory);
        double* const transposed = a.take<double>(order * order); // columns of A contiguous: sums of columns are quick
        double *now = a.take<double>(order), *next = a.take<double>(order);
        for (index i = 0; i < order; ++i) {
            now[i] = static_cast<double>(B(i));
            for (index j = 0; j < order; ++j) { transposed[j * order + i] = static_cast<double>(A(i, j)); }
        }
        for (index t = 0; t < k.extent(1); ++t) {
            for (index i = 0; i < order; ++i) { k(i, t) = static_cast<float>(now[i]), next[i] = 0.0; }
            for (index j = 0; j < order; ++j) {
                const double* SEQMIX_RESTRICT const column = transposed + j * order;
                double* SEQMIX_RESTRICT const to = next;
                const double x = now[j];
                for (index i = 0; i < order; ++i) { to[i] += column[i] * x; }
            }
            double* const former = now;
            now = next, next = former;
        }
    });
}

} // namespace ssm
SEQMIX_NAMESPACE_END
