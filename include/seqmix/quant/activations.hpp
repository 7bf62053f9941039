// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>
#include <seqmix/core/workspace.hpp>
#include <seqmix/quant/code_product.hpp>

#include <bit>
#include <limits>

// Activations as signed bytes.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// How the depth is cut: `block` positions of a row share a scale (a whole row where it is the depth), and integer sums end with
/// each of the `segments`, which divide blocks.
struct depth_cut {
    index depth, block, segment;

    index segments() const { return segment > 0 ? (depth + segment - 1) / segment : 0; }
    bool whole_rows() const { return block >= depth; }
};

namespace detail {
/// The largest multiple of `step` up to `most` that divides `whole`, or that need not.
constexpr index part_of(index whole, index most, index step, bool any)
{
    if (whole <= most) { return larger(whole, step); }
    index part = most / step * step;
    while (!any && whole % part != 0) { part -= step; }
    return part;
}
} // namespace detail

/// The rows of one call: q = round(x / scale), scale = max |x| / 127, the maximum over a block, and its last bit 0. A block that holds
/// NaN or a number beyond 2^100 gets the scale NaN. The error of an element is at most half its scale, max |x| / 254.
template <class Arch>
class activation_bytes {
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;

public:
    activation_bytes(arena& a, index rows, const depth_cut& cut)
        : cut_(cut), rows_((rows + block_rows - 1) / block_rows * block_rows), stride_(row_stride(cut.depth))
    {
        codes_ = a.take<std::int8_t>(rows_ * stride_);
        start_ = a.take<std::int32_t>(cut.segments() * rows_);
        scale_ = a.take<float>(cut.whole_rows() ? rows_ : cut.segments() * rows_);
        below_ = a.take<float>(cut.whole_rows() ? 0 : cut.segments() * rows_);
        sum_ = a.take<float>(cut.segments() * rows_);
    }

    /// Row `row` from x [depth], floats; `zero` is the codes'. Reads and writes whole registers: x is padded with zeros.
    void quantize(index row, const float* x, int zero) const
    {
        for (index from = 0; from < cut_.depth; from += cut_.block) {
            const index end = smaller(from + cut_.block, cut_.depth);
            const float scale = scale_of(x, from, end);
            const float factor = scale > 0.0f ? 1.0f / scale : 0.0f; // of nothing and of NaN: zeros
            for (index first = from; first < end; first += cut_.segment) {
                const index segment = first / cut_.segment, at = codes().at(segment, row);
                const std::int32_t sum = round_to_bytes(x, first, smaller(first + cut_.segment, end), factor, codes_ + row * stride_);
                start_[at] = (cut_.whole_rows() ? 0 : float_bits) - zero * sum;
                sum_[at] = static_cast<float>(sum) * (cut_.whole_rows() ? 1.0f : scale);
                if (!cut_.whole_rows()) {
                    scale_[at] = scale;
                    below_[at] = -float_of_bits * scale;
                }
            }
            if (cut_.whole_rows()) { scale_[row] = scale; }
        }
        if (cut_.depth == 0 && cut_.whole_rows()) { scale_[row] = 0.0f; }
    }

    activation_codes<Arch> codes() const { return {codes_, stride_, start_, cut_.whole_rows() ? nullptr : scale_, below_, sum_, cut_.segments()}; }
    /// The scale of a row, for the end; 1 where blocks have their own.
    float row_scale(index row) const { return cut_.whole_rows() ? scale_[row] : 1.0f; }
    const depth_cut& cut() const { return cut_; }

private:
    static constexpr index block_rows = tile::blocking<Arch>::rows;

    /// Rows start on a line, and not all of them in one set of L1.
    static constexpr index row_stride(index depth)
    {
        const index whole = (depth + 63) / 64 * 64;
        return tile::crowded(whole) ? whole + 64 : whole;
    }

    static float scale_of(const float* x, index from, index end)
    {
        f32 largest = f32::zero(), taint = f32::zero(); // 0, but NaN once an infinity or NaN came by
        for (index i = from; i < end; i += f32::lanes) {
            const f32 v = f32::load(x + i, end - i);
            largest = max(largest, abs(v));
            taint = fma(v, f32::zero(), taint);
        }
        const float most = reduce_max(largest);
        if (!(reduce_add(taint) == 0.0f && most < 0x1p100f)) { return std::numeric_limits<float>::quiet_NaN(); }
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(most / 127.0f) & ~1u); // times 1.5 it is a float too
    }

    /// Σ of the bytes.
    static std::int32_t round_to_bytes(const float* x, index from, index end, float factor, std::int8_t* to)
    {
        i32 sum = i32::zero();
        for (index i = from; i < end; i += f32::lanes) {
            const i32 q = factor != 0.0f ? to_int(f32::load(x + i, end - i) * f32::broadcast(factor)) : i32::zero();
            const i32 byte = max(min(q, i32::broadcast(127)), i32::broadcast(-127)); // the factor was rounded
            sum = sum + byte;
            byte.store_bytes(reinterpret_cast<std::uint8_t*>(to + i));
        }
        return reduce_add(sum);
    }

    depth_cut cut_;
    index rows_, stride_;
    std::int8_t* codes_;
    std::int32_t* start_;
    float* scale_;
    float* below_;
    float* sum_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
