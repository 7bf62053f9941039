// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>
#include <seqmix/core/workspace.hpp>
#include <seqmix/quant/code_product.hpp>
#include <seqmix/tile/memory.hpp>

#include <bit>
#include <cstring>
#include <limits>

// Activations as signed bytes.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// A row of x in the order of the weights' positions, padded with zeros to `depth`. The order comes from a packed matrix, which may stand
/// on anybody's bytes: what names no column counts as padding.
template <class Arch, class T, class To>
void gather_row(const view<const T, 1>& x, const std::int32_t* order, index depth, To* to)
{
    const index columns = x.extent(0);
    if (order != nullptr) {
        for (index p = 0; p < depth; ++p) {
            const index column = order[p];
            to[p] = column >= 0 && column < columns ? static_cast<To>(x(column)) : To{};
        }
        return;
    }
    if constexpr (std::is_same_v<To, float>) {
        tile::copy_row<Arch>(x.data(), x.stride(0), columns, to);
    } else {
        for (index p = 0; p < columns; ++p) { to[p] = x(p); }
    }
    for (index p = columns; p < depth; ++p) { to[p] = To{}; }
}

} // namespace detail

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

/// The rows of one call: q = round(x / scale), scale = max |x| / 127 with its last two bits 0, the maximum over a block. A block that
/// holds NaN or a number beyond 2^100 gets the scale NaN; one whose scale has no reciprocal, all of it below 2^-119, becomes zeros. The
/// error of an element is at most half its scale, max |x| / 254. Or rows that hold bytes already.
template <class Arch>
class activation_bytes {
    using f32 = simd::f32<Arch>;
    using i32 = simd::i32<Arch>;

public:
    activation_bytes(arena& a, index rows, const depth_cut& cut)
        : cut_(cut), rows_((rows + block_rows - 1) / block_rows * block_rows)
    {
        codes_ = a.take<std::int8_t>(rows_ * cut.depth);
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
            const float factor = scale >= 0x1p-126f ? 1.0f / scale : 0.0f; // of nothing and of NaN: zeros
            for (index first = from; first < end; first += cut_.segment) {
                const std::int32_t sum = round_to_bytes(x, first, smaller(first + cut_.segment, end), factor, row);
                set_segment(row, first, sum, scale, zero);
            }
            if (cut_.whole_rows()) { scale_[row] = scale; }
        }
        if (cut_.depth == 0 && cut_.whole_rows()) { scale_[row] = 0.0f; }
    }

    /// Row `row` from bytes x [columns] and their scale, taken as they are; rows share scales. `scratch`: bytes [depth]. -128 does no
    /// harm: sums in 16 bits have at most 128 words · code (see most_words), and 2 · 128 · 128 is what the least of them holds.
    void take(index row, const view<const std::int8_t, 1>& x, const std::int32_t* order, float scale, int zero, std::int8_t* scratch) const
    {
        detail::gather_row<Arch>(x, order, cut_.depth, scratch);
        for (index first = 0; first < cut_.depth; first += cut_.segment) {
            std::int32_t sum = 0;
            for (index i = first; i < smaller(first + cut_.segment, cut_.depth); ++i) {
                *byte_of(row, i) = scratch[i];
                sum += scratch[i];
            }
            set_segment(row, first, sum, scale, zero);
        }
        scale_[row] = scale;
    }

    /// Rows from `first` on, where a block begins.
    activation_codes<Arch> codes(index first = 0) const
    {
        const index at = first * cut_.segments();
        const bool blocks = !cut_.whole_rows();
        return {codes_ + first * cut_.depth, cut_.depth, start_ + at, blocks ? scale_ + at : nullptr, blocks ? below_ + at : nullptr, sum_ + at,
                cut_.segments()};
    }
    /// The scale of a row, for the end; 1 where blocks have their own.
    float row_scale(index row) const { return cut_.whole_rows() ? scale_[row] : 1.0f; }
    const depth_cut& cut() const { return cut_; }

private:
    static constexpr index block_rows = tile::blocking<Arch>::rows;

    /// What stands beside the bytes of the segment at `first`, which add up to `sum`.
    void set_segment(index row, index first, std::int32_t sum, float scale, int zero) const
    {
        const index at = codes().at(first / cut_.segment, row);
        start_[at] = (cut_.whole_rows() ? 0 : float_bits) - zero * sum;
        sum_[at] = static_cast<float>(sum) * (cut_.whole_rows() ? 1.0f : scale);
        if (!cut_.whole_rows()) {
            scale_[at] = scale;
            below_[at] = -float_of_bits * scale;
        }
    }

    std::int8_t* byte_of(index row, index position) const
    {
        constexpr index run = activation_codes<Arch>::run;
        return codes_ + (codes().words(row, position / run * run) - codes_) + position % run;
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
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(most / 127.0f) & ~3u); // times 3 it is a float too
    }

    /// Σ of the bytes.
    std::int32_t round_to_bytes(const float* x, index from, index end, float factor, index row) const
    {
        constexpr index lanes = f32::lanes, word = smaller(lanes, index{4});
        i32 sum = i32::zero();
        for (index i = from; i < end; i += lanes) {
            const i32 q = factor != 0.0f ? to_int(f32::load(x + i, end - i) * f32::broadcast(factor)) : i32::zero();
            const i32 byte = max(min(q, i32::broadcast(127)), i32::broadcast(-127)); // the factor was rounded
            sum = sum + byte;
            std::uint8_t bytes[lanes];
            byte.store_bytes(bytes);
            std::int8_t* const to = byte_of(row, i);
            for (index lane = 0; lane < lanes; lane += word) {
                std::memcpy(to + activation_codes<Arch>::later(lane / 4), bytes + lane, static_cast<std::size_t>(word));
            }
        }
        return reduce_add(sum);
    }

    depth_cut cut_;
    index rows_;
    std::int8_t* codes_;
    std::int32_t* start_;
    float* scale_;
    float* below_;
    float* sum_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
