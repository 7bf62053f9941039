// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/image_direct.hpp>
#include <seqmix/conv/plan.hpp>

#include <optional>
#include <vector>

// Convolutions of images: two-dimensional ones as one-dimensional ones. Rows one behind another, with so many zeros behind each that what a
// kernel's row carries over its end falls on zeros, are one sequence, and kernels laid out the same way one long kernel: Σ u(h, w) x^h y^w at
// x = y^pitch. (Kronecker's substitution; Gathen & Gerhard, "Modern Computer Algebra", section 8.4.) So a channel is one product in the
// ring, and all that plans of sequences do (cutting into pieces, what goes round) serves images as well.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

/// What a kernel of n taps sees along an axis of an image.
enum class border {
    causal,   ///< y_h = Σ_a k_a u_(h-a), outside of the image zeros
    centred,  ///< y_h = Σ_a k_a u_(h-a+c), c = ⌊n / 2⌋: "same"; outside zeros
    circular, ///< y_h = Σ_a k_a u_(h-a), indices modulo the extent
};

struct image_options {
    index height = 0, width = 0; ///< of all images
    border rows = border::causal, columns = border::causal;
    conv::method method = conv::method::automatic;
    index points = 0; ///< of a transform, at least; 0: chosen by cost
};

namespace detail {

/// An axis: taps reach from `ahead` numbers after an output's place to `behind` numbers before it.
struct image_axis {
    index extent = 0, behind = 0, ahead = 0, taps = 0;
    border kind = border::causal;

    image_axis() = default;
    image_axis(index extent_, index kernel, border kind_) : extent(extent_), kind(kind_)
    {
        if (extent == 0 || kernel == 0) { return; }
        const index centre = kind == border::centred ? kernel / 2 : 0;
        ahead = smaller(centre, extent - 1), behind = smaller(kernel - 1 - centre, extent - 1), taps = ahead + 1 + behind;
    }
    /// Of tap a in the order of places, or -1 where it meets no number of any image.
    index place(index a, index kernel) const
    {
        if (kind == border::circular) { return a % extent; }
        const index at = a - (kind == border::centred ? kernel / 2 : 0) + ahead;
        return at >= 0 && at < taps ? at : -1;
    }
};

/// How rows of an image lie one behind another: `left` numbers from the row's own end, where columns go round; the row; zeros.
struct image_layout {
    image_axis rows, columns;
    index left = 0, pitch = 0;

    image_layout() = default;
    image_layout(const image_axis& r, const image_axis& c) : rows(r), columns(c)
    {
        left = c.kind == border::circular ? c.behind : 0;
        pitch = left + c.extent + (c.kind == border::circular ? 0 : larger(c.behind, c.ahead));
    }
    /// Numbers of the sequence.
    index length() const
    {
        if (rows.extent == 0 || columns.extent == 0) { return 0; }
        return rows.kind == border::circular ? rows.extent * pitch : (rows.extent - 1) * pitch + left + columns.extent;
    }
};

} // namespace detail

/// A convolution of images with the kernels [D, Hk, Wk] of D channels; along each axis as image_options says. Any sizes: taps that meet no
/// number of an image are left out, circular ones go round. Immutable; any number of threads may use one plan at the same time.
///
/// Holds the taps, or a spectrum of 2 M floats a channel, M being about H (W + Wk) / 2 and up to twice that, depending on how far kernels reach,
/// or less where they are cut. By cost the direct form serves kernels up to some 9 x 9.
///
/// Error of an output, for float: method::direct (Hk Wk + 2) u Σ|k u|, u = 2^-24; method::transform relative to the whole image in the root
/// mean square, 3 · 2^-23 log2(2M) |u| |k|₁.
///
/// Throws std::invalid_argument where shapes do not fit.
template <class Arch = arch::native>
class image_plan {
    static constexpr index lanes = simd::lanes<Arch>;

public:
    image_plan(const view<const float, 3>& kernel, const image_options& opt) : channels_(kernel.extent(0))
    {
        const checker check("conv::image_plan");
        check_given(check, {named_operand("kernel", kernel)});
        check.require(opt.height >= 0, "height is ", opt.height, ", but must be at least ", 0);
        check.require(opt.width >= 0, "width is ", opt.width, ", but must be at least ", 0);
        check.require(opt.points >= 0, "points is ", opt.points, ", but must be at least ", 0);
        layout_ = detail::image_layout({opt.height, kernel.extent(1), opt.rows}, {opt.width, kernel.extent(2), opt.columns});
        taps_ = taps_of(kernel);
        const bool nothing = channels_ == 0 || layout_.length() == 0 || layout_.rows.taps == 0 || layout_.columns.taps == 0;
        if (nothing || opt.method == conv::method::direct || (opt.method == conv::method::automatic && direct_pays())) { return; }
        make_sequence_plan(opt.points);
        taps_ = {};
    }

    index channels() const { return channels_; }
    index height() const { return layout_.rows.extent; }
    index width() const { return layout_.columns.extent; }
    conv::method method() const { return sequences_ ? conv::method::transform : conv::method::direct; }
    /// Complex numbers of a transform; 0 where there is none.
    index points() const { return sequences_ ? sequences_->points() : 0; }

    /// For `apply`.
    const detail::image_layout& layout() const { return layout_; }
    /// Null where the method is direct.
    const plan<Arch>* sequences() const { return sequences_ ? &*sequences_ : nullptr; }
    /// Of a channel: [rows.taps][columns.taps], the tap of what is farthest behind first.
    const float* taps(index channel) const { return taps_.data() + channel * layout_.rows.taps * layout_.columns.taps; }

private:
    std::vector<float> taps_of(const view<const float, 3>& kernel) const
    {
        const detail::image_axis &rows = layout_.rows, &columns = layout_.columns;
        std::vector<float> taps(static_cast<std::size_t>(channels_ * rows.taps * columns.taps));
        if (taps.empty()) { return taps; }
        for (index d = 0; d < channels_; ++d) {
            for (index a = 0; a < kernel.extent(1); ++a) {
                const index i = rows.place(a, kernel.extent(1));
                for (index b = 0; i >= 0 && b < kernel.extent(2); ++b) {
                    const index j = columns.place(b, kernel.extent(2));
                    if (j < 0) { continue; }
                    const index turned = (rows.taps - 1 - i) * columns.taps + columns.taps - 1 - j;
                    taps[static_cast<std::size_t>(d * rows.taps * columns.taps + turned)] += kernel(d, a, b);
                }
            }
        }
        return taps;
    }

    /// Cycles a register of outputs, as measured where registers have 16 lanes; only their ratio matters.
    bool direct_pays() const
    {
        const auto number = [](index n) { return static_cast<double>(n); };
        const index length = layout_.length();
        const index registers = (layout_.columns.extent + lanes - 1) / lanes * layout_.rows.extent;
        const double direct = number(registers) * (0.7 * number(layout_.rows.taps * layout_.columns.taps) + 6.0);
        const double points = 0.5 * number(length + larger(layout_.rows.behind, layout_.rows.ahead) * layout_.pitch);
        return direct <= points / number(lanes) * (8.0 * std::log2(points + 2.0) + 20.0) + 300.0;
    }

    /// Kernels laid out like the images; taps ahead of an output's place apart from the others, as plans want them.
    void make_sequence_plan(index points)
    {
        const detail::image_axis &rows = layout_.rows, &columns = layout_.columns;
        const index forward = rows.behind * layout_.pitch + columns.behind + 1, back = rows.ahead * layout_.pitch + columns.ahead;
        std::vector<float> ahead(static_cast<std::size_t>(channels_ * back)), behind(static_cast<std::size_t>(channels_ * forward));
        for (index d = 0; d < channels_; ++d) {
            const float* tap = taps(d);
            for (index i = rows.taps - 1; i >= 0; --i) {
                for (index j = columns.taps - 1; j >= 0; --j, ++tap) {
                    const index at = (i - rows.ahead) * layout_.pitch + j - columns.ahead;
                    (at >= 0 ? behind[static_cast<std::size_t>(d * forward + at)] : ahead[static_cast<std::size_t>(d * back - at - 1)]) = *tap;
                }
            }
        }
        plan_options opt = {.length = layout_.length(), .causal = rows.kind != border::circular, .method = conv::method::transform, .points = points};
        if (back > 0) { opt.backward = view<const float, 2>(ahead.data(), {channels_, back}); }
        sequences_.emplace(view<const float, 2>(behind.data(), {channels_, forward}), opt);
    }

    index channels_;
    detail::image_layout layout_;
    std::vector<float> taps_;
    std::optional<plan<Arch>> sequences_;
};

} // namespace conv
SEQMIX_NAMESPACE_END
