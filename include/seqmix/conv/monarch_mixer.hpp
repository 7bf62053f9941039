// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/monarch.hpp>
#include <seqmix/conv/monarch_dft.hpp>
#include <seqmix/simd/math.hpp>

// Monarch Mixer: two Monarch matrices with something between them, along the sequence or along the channels.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// How mix_sequence reads its matrices.
struct mix_options {
    bool spectral = false; ///< both matrices are dft_monarch's: they read decimated rows, and the numbers between, and the kernel, are
                           ///< complex, real parts first
};

/// What stands between the matrices of mix_channels.
enum class activation { none, relu, silu, gelu }; ///< gelu by tanh: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))

namespace detail {

/// Rows of a matrix's input: in blocks, or decimated.
template <class T>
view<T, 3> input_rows(const view<T, 2>& rows, const monarch_shape& m, bool spectral)
{
    return spectral && m.k > 0 ? decimated(rows, m.k) : in_blocks(rows, m.k, m.p);
}

/// out = second(between(first(x))) for rows [R, ·] of each of `items` items. between(item, row, numbers, count) changes a row in place.
template <class Arch, class T, class Out, class Between>
void mix_rows(const packed_monarch<Arch>& first, const packed_monarch<Arch>& second, const view<const T, 3>& x, const view<Out, 3>& out,
              bool spectral, const Between& between, const context_ref& ctx)
{
    constexpr index lanes = simd::lanes<Arch>;
    const monarch_shape &one = first.shape(), &two = second.shape();
    const index rows = x.extent(1), width = one.outputs(), stride = (width + lanes - 1) / lanes * lanes + lanes;
    if (out.empty()) { return; }
    const index share = (ctx.concurrency() + x.extent(0) - 1) / x.extent(0);
    const index block = smaller(rows_of_task(one, rows, static_cast<int>(share)), rows_of_task(two, rows, static_cast<int>(share)));
    const index blocks = (rows + block - 1) / block;
    const auto scratch_of = [&](arena& a, const packed_monarch<Arch>& matrix) { return monarch_scratch<Arch>(a, matrix, block); };
    arena measure;
    static_cast<void>(measure.take<float>(block * stride)), static_cast<void>(scratch_of(measure, first)), static_cast<void>(scratch_of(measure, second));
    ctx.for_each(x.extent(0) * blocks, measure.used(), [&](index task, std::byte* memory) {
        arena carve(memory);
        float* const numbers = carve.take<float>(block * stride);
        const monarch_scratch<Arch> of_first = scratch_of(carve, first), of_second = scratch_of(carve, second);
        const index item = task / blocks, from = task % blocks * block, count = smaller(block, rows - from);
        const view<float, 2> middle(numbers, {count, width}, {stride, index{1}});
        monarch_rows<Arch, T, float>(first, input_rows(x[item].slice(0, from, from + count), one, spectral), in_blocks(middle, one.s, one.l), of_first);
        for (index row = 0; row < count; ++row) { between(item, from + row, numbers + row * stride, width); }
        monarch_rows<Arch, float, Out>(second, input_rows(view<const float, 2>(middle), two, spectral),
                                       in_blocks(out[item].slice(0, from, from + count), two.s, two.l), of_second);
    });
}

/// A row of numbers times the kernel's, real, or complex with real parts first.
template <class Arch>
void multiply_row(float* numbers, index width, const float* kernel, index stride, bool complex)
{
    using f32 = simd::f32<Arch>;
    constexpr index lanes = f32::lanes;
    const index count = complex ? width / 2 : width;
    for (index n = 0; n < count; n += lanes) {
        const index live = count - n;
        float* const re = numbers + n;
        const f32 k_re = tile::load_strided<Arch>(kernel + n * stride, stride, live);
        const f32 x_re = f32::load(re, live);
        if (!complex) {
            (x_re * k_re).store(re, live);
            continue;
        }
        float* const im = re + count;
        const f32 k_im = tile::load_strided<Arch>(kernel + (count + n) * stride, stride, live), x_im = f32::load(im, live);
        fnma(x_im, k_im, x_re * k_re).store(re, live);
        fma(x_im, k_re, x_re * k_im).store(im, live);
    }
}

template <class Arch>
void activate_row(float* numbers, index width, activation what)
{
    using f32 = simd::f32<Arch>;
    constexpr index lanes = f32::lanes;
    const auto map = [&](const auto& function) {
        for (index n = 0; n < width; n += lanes) { function(f32::load(numbers + n, width - n)).store(numbers + n, width - n); }
    };
    switch (what) {
    case activation::none: return;
    case activation::relu: return map([](f32 x) SEQMIX_INLINE_LAMBDA { return max(f32::zero(), x); });
    case activation::silu: return map([](f32 x) SEQMIX_INLINE_LAMBDA { return simd::silu(x); });
    case activation::gelu:
        return map([](f32 x) SEQMIX_INLINE_LAMBDA {
            const f32 half = f32::broadcast(0.5f) * x;
            const f32 inner = fma(f32::broadcast(0.044715f) * x * x, x, x) * f32::broadcast(0.797884561f); // √(2/π)
            return fma(half, simd::tanh(inner), half);
        });
    }
}

/// What both doors ask of the two matrices.
inline void check_chain(const checker& check, const monarch_shape& first, const monarch_shape& second)
{
    check.equal(second.inputs(), first.outputs(), "the second matrix's number of inputs", "the first one's of outputs");
}

} // namespace detail

/// Mixing along the sequence: out = M2 (kernel ∘ (M1 x)), for every channel of every item.
///
/// x [B, D, L], out [B, D, M], float, bf16 or f16, out of x's type or float; first is M1 [K, L], second M2 [M, K], packed; kernel [D, K] float.
/// Any strides: for [B, L, D] pass transposed views. Zero sizes are legal. Computed in float. Scratch of one block of rows a thread;
/// results do not depend on their number. A row's 2 (cost of M1 + of M2) operations are all there is but for K multiplications.
///
/// With mix_options::spectral the matrices are of dft_monarch, K is twice a transform's size N, and the kernel, its transform, is
/// complex: the circular convolution of a row with a kernel of N numbers. Causal convolution of L numbers is that with N = 2 L, zeros behind both;
/// dft_monarch fills matrices that skip these zeros and the half of the result that is dropped. Matrices other than the transforms mix
/// in both directions of time, except those that causal_monarch makes.
///
/// Error to first order, u = 2^-24: (p1 + r1 + p2 + r2 + 2) u |M2| (|kernel| ∘ |M1| |x|), of absolute values of all factors, and out's rounding.
/// Throws std::invalid_argument, naming the argument and both values, with out untouched.
/// Source: Fu et al. 2023, "Monarch Mixer: A Simple Sub-Quadratic GEMM-Based Architecture", section 3, equation 1.
template <class Arch, class T, class Out>
void mix_sequence(const view<T, 3>& x, const monarch_matrix<Arch>& first, const view<const float, 2>& kernel, const monarch_matrix<Arch>& second,
                  const view<Out, 3>& out, const mix_options& opt = {}, const context_ref& ctx = {})
{
    detail::check_rows_types<T, Out>();
    const checker check("conv::mix_sequence");
    const named_operand read("x", x), factors("kernel", kernel), written("out", out);
    check_given(check, read, factors, written);
    detail::check_chain(check, first.packed().shape(), second.packed().shape());
    const named_extent batch = {"batch", x.extent(0), "x's"}, channels = {"number of channels", x.extent(1), "x's"};
    check_shape(check, read, batch + channels + named_extent{"length", first.inputs(), "the first matrix's number of inputs"});
    check_shape(check, factors, channels + named_extent{"length", first.outputs(), "the first matrix's number of outputs"});
    check_shape(check, written, batch + channels + named_extent{"length", second.outputs(), "the second matrix's number of outputs"});
    check.require(!opt.spectral || first.outputs() % 2 == 0, "the first matrix's number of outputs is ", first.outputs(),
                  ", but complex numbers have ", 2, " parts");
    check_apart(check, written, read, factors);
    detail::mix_rows<Arch, std::remove_const_t<T>, Out>(
        first.packed(), second.packed(), x, out, opt.spectral,
        [&](index, index channel, float* numbers, index width) {
            detail::multiply_row<Arch>(numbers, width, kernel.data() + channel * kernel.stride(0), kernel.stride(1), opt.spectral);
        },
        ctx);
}

/// Mixing along the channels: out = M2 activation(M1 x), for every row: the block-diagonal MLP.
///
/// x [B, D], out [B, M], float, bf16 or f16, out of x's type or float; first is M1 [K, D], second M2 [M, K], packed. Any strides. All else as in
/// mix_sequence; activations have the errors of simd/math.hpp.
/// Source: Fu et al. 2023, "Monarch Mixer", section 3, equation 2.
template <class Arch, class T, class Out>
void mix_channels(const view<T, 2>& x, const monarch_matrix<Arch>& first, activation between, const monarch_matrix<Arch>& second,
                  const view<Out, 2>& out, const context_ref& ctx = {})
{
    detail::check_rows_types<T, Out>();
    const checker check("conv::mix_channels");
    const named_operand read("x", x), written("out", out);
    check_given(check, read, written);
    detail::check_chain(check, first.packed().shape(), second.packed().shape());
    const named_extent batch = {"batch", x.extent(0), "x's"};
    check_shape(check, read, batch + named_extent{"number of channels", first.inputs(), "the first matrix's number of inputs"});
    check_shape(check, written, batch + named_extent{"number of channels", second.outputs(), "the second matrix's number of outputs"});
    check_apart(check, written, read);
    detail::mix_rows<Arch, std::remove_const_t<T>, Out>(
        first.packed(), second.packed(), with_leading_axis(view<const std::remove_const_t<T>, 2>(x)), with_leading_axis(out), false,
        [&](index, index, float* numbers, index width) { detail::activate_row<Arch>(numbers, width, between); }, ctx);
}

} // namespace conv
SEQMIX_NAMESPACE_END
