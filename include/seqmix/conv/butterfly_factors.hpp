// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/core/workspace.hpp>
#include <seqmix/tile/block.hpp>

#include <bit>
#include <type_traits>
#include <vector>

// Products of butterfly factors with learned coefficients. A factor of stride s takes each pair of numbers that stand s apart to two sums of
// both; log2 N of them reach from every input to every output, and hold 2 N log2 N coefficients.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

struct butterfly_options {
    bool decreasing = false; ///< strides N/2, N/4, … instead of 1, 2, 4, …
    view<const index, 1> strides{}; ///< [S]: of each factor, powers of two below N in any order, also repeated; null: as `decreasing` says
};

namespace detail {

/// Factors that are applied together: strides that grow or that fall, so that 2^levels numbers in registers go through all of them.
struct butterfly_pass {
    int levels, bits[3]; ///< log2 of strides, ascending
    bool decreasing;
    index first; ///< of its numbers in the packed coefficients

    /// The n-th index whose bits at the strides are 0.
    SEQMIX_INLINE index base(index n) const
    {
        for (int l = 0; l < levels; ++l) {
            const index low = (index{1} << bits[l]) - 1;
            n = ((n & ~low) << 1) | (n & low);
        }
        return n;
    }
};

/// 2^Levels numbers of some rows: element e stands where bit l of e adds the pass's l-th stride. `numbers` are 4 a pair, in the order of use.
template <class Arch, int Levels, bool Decreasing, int Vectors>
SEQMIX_NOINLINE void butterfly_rows(float* x, index size, const butterfly_pass& pass, const float* numbers)
{
    using f32 = simd::f32<Arch>;
    constexpr int elements = 1 << Levels;
    constexpr index width = Vectors * f32::lanes;
    const butterfly_pass p = pass;
    index offset[elements];
    for (int e = 0; e < elements; ++e) {
        offset[e] = 0;
        for (int l = 0; l < Levels; ++l) { offset[e] += ((e >> l) & 1) * (width << p.bits[l]); }
    }
    for (index n = 0; n < size / elements; ++n) {
        float* const at = x + p.base(n) * width;
        f32 a[elements][Vectors];
        simd::unroll<elements>([&](auto e) SEQMIX_INLINE_LAMBDA {
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { a[e][v] = f32::load(at + offset[e] + v * f32::lanes); });
        });
        simd::unroll<Levels>([&](auto step) SEQMIX_INLINE_LAMBDA {
            constexpr int bit = Decreasing ? Levels - 1 - step : step;
            simd::unroll<elements / 2>([&](auto pair) SEQMIX_INLINE_LAMBDA {
                constexpr int low = pair & ((1 << bit) - 1), one = ((pair - low) << 1) | low, two = one | (1 << bit);
                const f32 c00 = f32::broadcast(numbers[0]), c01 = f32::broadcast(numbers[1]);
                const f32 c10 = f32::broadcast(numbers[2]), c11 = f32::broadcast(numbers[3]);
                numbers += 4;
                simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                    const f32 x0 = a[one][v], x1 = a[two][v];
                    a[one][v] = fma(c01, x1, c00 * x0), a[two][v] = fma(c11, x1, c10 * x0);
                });
            });
        });
        simd::unroll<elements>([&](auto e) SEQMIX_INLINE_LAMBDA {
            simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { a[e][v].store(at + offset[e] + v * f32::lanes); });
        });
    }
}

} // namespace detail

/// A product of S butterfly factors of size N, packed: made once, then applied from any thread. Holds the 2 N S coefficients, in float.
///
/// factors [S, N / 2, 2, 2], float, any strides, the first one applied first. Factor f of stride s takes pair j, the numbers
/// i = 2 s ⌊j / s⌋ + j mod s and i + s, to
///
///     y_i       = factors(f, j, 0, 0) x_i + factors(f, j, 0, 1) x_(i+s)
///     y_(i + s) = factors(f, j, 1, 0) x_i + factors(f, j, 1, 1) x_(i+s)
///
/// Any S, 0 too (the identity). N is a power of two, 2 at least. Throws std::invalid_argument, naming the argument and both values.
/// Source: Dao et al. 2019, "Learning Fast Algorithms for Linear Transforms Using Butterfly Factorizations", section 3; as long convolutions'
/// transforms: Fu et al. 2023, "Simple Hardware-Efficient Long Convolutions for Sequence Modeling", section 3.
template <class Arch = arch::native>
class butterfly_matrix {
    using f32 = simd::f32<Arch>;

public:
    static constexpr int most_levels = 3; ///< of a pass
    /// Registers of rows at a time: with 16 registers 8 numbers fill half of them, with 32 so do 16.
    static constexpr int vectors = simd::backend<Arch>::registers >= 32 ? 2 : 1;

    explicit butterfly_matrix(const view<const float, 4>& factors, const butterfly_options& opt = {}) : size_(2 * factors.extent(1))
    {
        const checker check("conv::butterfly_matrix");
        const named_operand given("factors", factors), strides("strides", opt.strides);
        check_given(check, given, strides);
        check.require(size_ >= 2 && std::has_single_bit(static_cast<std::uint64_t>(size_)), "factors has ", size_ / 2,
                      " pairs, but sizes are powers of two, and this one would be ", size_);
        check.require(factors.extent(2) == 2 && factors.extent(3) == 2, "factors has blocks of ", factors.extent(2), " x ", factors.extent(3),
                      ", but they are 2 x 2");
        const index count = factors.extent(0), levels = std::countr_zero(static_cast<std::uint64_t>(size_));
        check_optional(check, strides, named_extent{"number of factors", count, "factors'"});
        check.require(opt.strides || count <= levels, "factors has ", count, " factors, but without strides there are at most ", levels);
        std::vector<int> bits;
        for (index f = 0; f < count; ++f) {
            const index stride = opt.strides ? opt.strides(f) : opt.decreasing ? size_ >> (f + 1) : index{1} << f;
            check.require(stride >= 1 && stride < size_ && std::has_single_bit(static_cast<std::uint64_t>(stride)), "strides(", f, ") is ", stride,
                          ", but strides are powers of two below ", size_);
            bits.push_back(std::countr_zero(static_cast<std::uint64_t>(stride)));
        }
        numbers_.reserve(static_cast<std::size_t>(2 * size_ * count));
        for (index f = 0; f < count; f += passes_.back().levels) { pack(factors, bits, f); }
    }

    index size() const { return size_; }

    /// For kernels: rows [size][width of `Vectors` registers], numbers of a row in a lane.
    template <int Vectors>
    void multiply(float* x) const
    {
        for (const detail::butterfly_pass& pass : passes_) {
            const float* const numbers = numbers_.data() + pass.first;
            const auto run = [&](auto levels) {
                pass.decreasing ? detail::butterfly_rows<Arch, levels, true, Vectors>(x, size_, pass, numbers)
                                : detail::butterfly_rows<Arch, levels, false, Vectors>(x, size_, pass, numbers);
            };
            switch (pass.levels) {
            case 1: detail::butterfly_rows<Arch, 1, false, Vectors>(x, size_, pass, numbers); break;
            case 2: run(std::integral_constant<int, 2>{}); break;
            default: run(std::integral_constant<int, 3>{}); break;
            }
        }
    }

private:
    /// Factors from f on, as many as a pass takes.
    void pack(const view<const float, 4>& factors, const std::vector<int>& bits, index f)
    {
        const auto bit = [&](index i) { return bits[static_cast<std::size_t>(f + i)]; };
        const index left = static_cast<index>(bits.size()) - f;
        detail::butterfly_pass pass = {1, {bit(0), 0, 0}, left > 1 && bit(1) < bit(0), static_cast<index>(numbers_.size())};
        while (pass.levels < most_levels && pass.levels < left) {
            const int before = bit(pass.levels - 1), now = bit(pass.levels);
            if (now == before || (now < before) != pass.decreasing) { break; }
            pass.bits[pass.levels++] = now;
        }
        if (pass.decreasing) { std::swap(pass.bits[0], pass.bits[pass.levels - 1]); }
        const int levels = pass.levels;
        for (index n = 0; n < size_ >> levels; ++n) {
            for (int step = 0; step < levels; ++step) {
                const int at = pass.decreasing ? levels - 1 - step : step, stride_bit = pass.bits[at];
                for (index pair = 0; pair < index{1} << (levels - 1); ++pair) {
                    const index low = pair & ((index{1} << at) - 1), element = ((pair - low) << 1) | low;
                    index place = pass.base(n);
                    for (int l = 0; l < levels; ++l) { place += ((element >> l) & 1) << pass.bits[l]; }
                    const index within = place & ((index{1} << stride_bit) - 1), j = ((place >> (stride_bit + 1)) << stride_bit) | within;
                    for (index number = 0; number < 4; ++number) { numbers_.push_back(factors(f + step, j, number / 2, number % 2)); }
                }
            }
        }
        passes_.push_back(pass);
    }

    index size_;
    std::vector<detail::butterfly_pass> passes_;
    std::vector<float> numbers_;
};

/// out = the matrix times every row of x. x, out [B, N] of float, bf16 or f16, out of x's type or float. Any strides; zero sizes are legal.
///
/// Computed in float, 6 N operations a factor and row. Rows lie in lanes: as many as fill two registers (one, where a set has 16) go through all
/// factors in scratch, up to three factors in registers at a time, so a batch that is no multiple of the lanes costs as much as
/// the next one. Scratch of a thread: N times so many rows, whatever B is. Bit-identical for every number of threads and every batch. NaN
/// and infinities reach what depends on them.
///
/// Error, u = 2^-24: 2 S u |F_S| … |F_1| |x|, of absolute values, to first order, and out's rounding.
/// Throws std::invalid_argument, naming the argument and both values, with out untouched.
template <class Arch, class T, class Out>
void apply(const butterfly_matrix<Arch>& matrix, const view<T, 2>& x, const view<Out, 2>& out, const context_ref& ctx = {})
{
    using Number = std::remove_const_t<T>;
    static_assert(storage<Number>, "seqmix: x is float, bf16 or f16");
    static_assert(std::is_same_v<Out, Number> || std::is_same_v<Out, float>, "seqmix: out is float or of x's type");
    constexpr index lanes = simd::lanes<Arch>, vectors = butterfly_matrix<Arch>::vectors, most = vectors * lanes;
    const checker check("conv::apply");
    const named_operand read("x", x), written("out", out);
    const named_shape shape = named_extent{"batch", x.extent(0), "x's"} + named_extent{"row length", matrix.size(), "the matrix's"};
    check_given(check, read, written);
    check_shape(check, read, shape);
    check_shape(check, written, shape);
    check_apart(check, written, read);
    if (out.empty()) { return; }
    const index batch = x.extent(0), size = matrix.size();
    ctx.for_each((batch + most - 1) / most, static_cast<std::size_t>(size * most) * sizeof(float), [&](index task, std::byte* memory) {
        const index row = task * most, count = smaller(most, batch - row), width = count > lanes ? most : lanes;
        const tile::lane_groups numbers = {reinterpret_cast<float*>(memory), width, lanes};
        load_block<Arch>(tile::block<const Number>{x.data() + row * x.stride(0), x.stride(1), x.stride(0), size, count}, numbers);
        width > lanes ? matrix.template multiply<vectors>(numbers.base) : matrix.template multiply<1>(numbers.base);
        store_block<Arch>(numbers, tile::block<Out>{out.data() + row * out.stride(0), out.stride(1), out.stride(0), size, count});
    });
}

} // namespace conv
SEQMIX_NAMESPACE_END
