// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/ssm/lti_parts.hpp>
#include <seqmix/tile/mma.hpp>

#include <cmath>

// S4D as the kernel of a long convolution.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

namespace lti {

/// The kernel of one channel as a matrix product: k(t0 + j) = Σ_n Re(CB A^t0) Re(A^j) - Im(CB A^t0) Im(A^j). The left
/// operand has a row for every start t0, the right one a column for every j within a panel; both are powers taken in
/// double.
template <class Arch>
class kernel_channel {
public:
    static constexpr index columns = tile::blocking<Arch>::columns;
    static constexpr index most_rows = 64; ///< starts at a time: 4 kB of left operand for 8 states, 32 kB for 64

    kernel_channel(arena& a, index states) : states_(states)
    {
        left_ = a.take<float>(most_rows * 2 * states), right_ = a.take<float>(2 * states * columns);
        for (double** list : {&a_re_, &a_im_, &p_re_, &p_im_, &q_re_, &q_im_}) { *list = a.take<double>(states); }
    }

    void run(const view<const complex, 1>& A, const view<const complex, 1>& CB, double factor, const view<float, 1>& k)
    {
        using product = tile::product<Arch, float>;
        constexpr int lanes = simd::lanes<Arch>;
        const index length = k.extent(0);
        for (index n = 0; n < states_; ++n) {
            const wide a = wide::of(A(n)), q = factor * wide::of(CB(n));
            a_re_[n] = a.re, a_im_[n] = a.im, p_re_[n] = 1.0, p_im_[n] = 0.0, q_re_[n] = q.re, q_im_[n] = q.im;
        }
        for (index j = 0; j < columns; ++j) {
            for (index n = 0; n < states_; ++n) {
                right_[2 * n * columns + j] = static_cast<float>(p_re_[n]);
                right_[(2 * n + 1) * columns + j] = static_cast<float>(-p_im_[n]);
            }
            multiply(p_re_, p_im_, a_re_, a_im_);
        }
        for (index t = 0; t < length; t += most_rows * columns) {
            const index rest = (length - t + columns - 1) / columns, rows = rest < most_rows ? rest : most_rows;
            for (index row = 0; row < rows; ++row) {
                for (index n = 0; n < states_; ++n) {
                    left_[(row * states_ + n) * 2] = static_cast<float>(q_re_[n]);
                    left_[(row * states_ + n) * 2 + 1] = static_cast<float>(q_im_[n]);
                }
                multiply(q_re_, q_im_, p_re_, p_im_); // by A^columns
            }
            tile::mma<product, tile::blocking<Arch>::vectors>(
                rows, 2 * states_, tile::left_operand::of(left_, 2 * states_, 1), {right_, columns},
                [&](index row, index v, simd::f32<Arch> sum) SEQMIX_INLINE_LAMBDA {
                    const index at = t + row * columns + v * lanes;
                    if (at < length) { tile::store_strided<Arch>(sum, &k(at), k.stride(0), length - at); }
                });
        }
    }

private:
    /// x *= y. What has decayed beyond every float becomes zero, before it gets to double's subnormals and their price.
    void multiply(double* SEQMIX_RESTRICT x_re, double* SEQMIX_RESTRICT x_im, const double* SEQMIX_RESTRICT y_re,
                  const double* SEQMIX_RESTRICT y_im) const
    {
        for (index n = 0; n < states_; ++n) {
            const double re = x_re[n] * y_re[n] - x_im[n] * y_im[n], im = x_re[n] * y_im[n] + x_im[n] * y_re[n];
            const bool gone = std::fabs(re) + std::fabs(im) < 0x1p-400;
            x_re[n] = gone ? 0.0 : re, x_im[n] = gone ? 0.0 : im;
        }
    }

    index states_;
    float *left_, *right_;
    double *a_re_, *a_im_, *p_re_, *p_im_, *q_re_, *q_im_;
};

} // namespace lti

/// The kernel of a long convolution that gives s4d's outputs from a zero state (but for D u): k[d, t] = [2] Re Σ_n CB A^t.
/// A, CB [D, N] as for s4d; k [D, L], any strides.
///
/// Powers do not drift: A^t is (A^J)^r A^j, both taken in double and rounded once, J being the columns of a micro-panel. A
/// matrix product then sums over the states: 2 multiply-adds for each state and token. For |A| <= 1, u = 2^-24:
/// |k_t - exact| <= ((2 N + 2) u + 4 t 2^-53) [2] Σ_n |CB_n| |A_n|^t to first order, (and 2^-149 N max(1, |CB|) below
/// 2^-126); the second term reaches the first at t = 2^28. Bit-identical for every number of threads. Throws
/// std::invalid_argument. Source: Gu et al. 2022 (see s4d), section 3: a Vandermonde product.
template <class Arch = arch::native>
void s4d_kernel(const view<const complex, 2>& A, const view<const complex, 2>& CB, const view<float, 2>& k,
                bool conjugate_pairs = true, const context_ref& ctx = {})
{
    const checker check("ssm::s4d_kernel");
    check_given(check, A, "A"), check_given(check, CB, "CB"), check_given(check, k, "k");
    check_extent(check, CB, "CB", 0, "number of channels", A.extent(0), "A's");
    check_extent(check, CB, "CB", 1, "number of states", A.extent(1), "A's");
    check_extent(check, k, "k", 0, "number of channels", A.extent(0), "A's");
    check_apart(check, reach(k), "k", A, "A"), check_apart(check, reach(k), "k", CB, "CB");
    arena measure;
    static_cast<void>(lti::kernel_channel<Arch>(measure, A.extent(1)));
    ctx.for_each(A.extent(0), measure.used(), [&](index d, std::byte* memory) {
        arena carve(memory);
        lti::kernel_channel<Arch>(carve, A.extent(1)).run(A[d], CB[d], conjugate_pairs ? 2.0 : 1.0, k[d]);
    });
}

} // namespace ssm
SEQMIX_NAMESPACE_END
