// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/conv/butterfly.hpp>
#include <seqmix/core/view.hpp>
#include <seqmix/core/workspace.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

// The ring of polynomials modulo t^M - i, in which long convolutions are computed. A real sequence of 2M numbers is the polynomial
// Σ (x_n + i x_(n+M)) t^n: since t^M = i, its second half hangs on the first as an imaginary part. So one transform of M complex
// numbers serves 2M real ones, without a step that takes real and imaginary parts apart, and a sequence of at most M numbers, half of it
// zeros in the usual way, is simply real. (Crandall & Fagin 1994, "Discrete weighted transforms and large-integer arithmetic", section
// 3: right-angle convolution.) Indices from 2M on come back with their sign changed: t^(2M) = -1.
//
// The transform splits t^s - e^iα into R factors t^(s/R) - e^i(α + 2πk)/R (Fiduccia 1972; Bernstein 2001, "Multidigit multiplication
// for mathematicians", sections 3 and 5). The residues of Σ_j a_j t^(j s/R) are the transform over j of a_j e^(ijα/R): a factor depends
// on the block alone, never on the place inside it. Each factor is a convolution of its own, so the product is taken depth first:
// split a block, go through its parts, put them together again. Whatever size a cache has, parts soon fit it; nothing is ever
// reordered, and the spectrum stays in the order in which parts are met.

SEQMIX_NAMESPACE_BEGIN
namespace conv {

namespace detail {

/// Twiddles of one block, the same for all lanes and places: R - 1 numbers, real and imaginary parts in turns.
template <class Arch>
struct block_twiddles {
    const float* at;
    SEQMIX_INLINE tile::complex_lanes<Arch> operator[](index j) const { return tile::complex_lanes<Arch>::broadcast(at + 2 * j); }
};
/// Twiddles of blocks that lie in lanes.
template <class Arch>
struct lane_twiddles {
    using complex = tile::complex_lanes<Arch>;
    const float* at;
    SEQMIX_INLINE complex operator[](index j) const { return complex::load(at + j * complex::floats); }
};

/// A block of R · `part` vectors becomes R blocks.
template <class Arch, int R, class Twiddles>
SEQMIX_INLINE void split(float* x, index part, const Twiddles& twiddles)
{
    using complex = tile::complex_lanes<Arch>;
    for (index i = 0; i < part; ++i) {
        float* const at = x + i * complex::floats;
        complex a[R];
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA {
            a[j] = complex::load(at + j * part * complex::floats);
            if constexpr (j > 0) { a[j] = a[j] * twiddles[j - 1]; }
        });
        transform<false>(a);
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA { a[j].store(at + j * part * complex::floats); });
    }
}
/// And back, R times as large.
template <class Arch, int R, class Twiddles>
SEQMIX_INLINE void merge(float* x, index part, const Twiddles& twiddles)
{
    using complex = tile::complex_lanes<Arch>;
    for (index i = 0; i < part; ++i) {
        float* const at = x + i * complex::floats;
        complex a[R];
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA { a[j] = complex::load(at + j * part * complex::floats); });
        transform<true>(a);
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA {
            if constexpr (j > 0) { a[j] = times_conjugate(a[j], twiddles[j - 1]); }
            a[j].store(at + j * part * complex::floats);
        });
    }
}

template <class Arch, int R>
SEQMIX_NOINLINE void split_block(float* x, index part, const float* twiddles)
{
    split<Arch, R>(x, part, block_twiddles<Arch>{twiddles});
}
template <class Arch, int R>
SEQMIX_NOINLINE void merge_block(float* x, index part, const float* twiddles)
{
    merge<Arch, R>(x, part, block_twiddles<Arch>{twiddles});
}

/// The same of the whole sequence, which comes from source(n): the numbers n … n + lanes - 1; with `Halves` also those from `points` on.
template <class Arch, int R, bool Halves, class Source>
SEQMIX_NOINLINE void split_source(const Source& source, index points, float* x, index part, const float* twiddles)
{
    using complex = tile::complex_lanes<Arch>;
    const block_twiddles<Arch> turn = {twiddles};
    const Source from = source; // a copy, since a store may change anything that is read through a reference
    for (index i = 0; i < part; ++i) {
        complex a[R];
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA {
            const index n = (j * part + i) * complex::lanes;
            if constexpr (Halves) {
                a[j] = {from(n), from(n + points)};
                if constexpr (j > 0) { a[j] = a[j] * turn[j - 1]; }
            } else if constexpr (j > 0) {
                a[j] = turn[j - 1] * from(n);
            } else {
                a[j] = {from(n), simd::f32<Arch>::zero()};
            }
        });
        transform<false>(a);
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA { a[j].store(x + (j * part + i) * complex::floats); });
    }
}
/// And back: sink(n, numbers), with `Halves` also for those from `points` on.
template <class Arch, int R, bool Halves, class Sink>
SEQMIX_NOINLINE void merge_sink(const float* x, index points, const Sink& sink, index part, const float* twiddles)
{
    using complex = tile::complex_lanes<Arch>;
    const block_twiddles<Arch> turn = {twiddles};
    const Sink to = sink;
    for (index i = 0; i < part; ++i) {
        complex a[R];
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA { a[j] = complex::load(x + (j * part + i) * complex::floats); });
        transform<true>(a);
        simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA {
            const index n = (j * part + i) * complex::lanes;
            if constexpr (Halves) {
                if constexpr (j > 0) { a[j] = times_conjugate(a[j], turn[j - 1]); }
                to(n, a[j].re), to(n + points, a[j].im);
            } else {
                if constexpr (j > 0) {
                    const complex w = turn[j - 1];
                    to(n, fma(a[j].im, w.im, a[j].re * w.re));
                } else {
                    to(n, a[j].re);
                }
            }
        });
    }
}

/// Radix of the first split of `size` parts inside a leaf, 4 as far as it goes.
constexpr int leaf_radix(int size) { return size == 8 ? 2 : 4; }
/// Numbers of twiddles of all splits from `size` parts down to 1.
constexpr int leaf_twiddles(int size) { return size == 1 ? 0 : leaf_radix(size) - 1 + leaf_radix(size) * leaf_twiddles(size / leaf_radix(size)); }

/// All splits of `Size` vectors down to single ones, and back.
template <class Arch, int Size, template <class> class Twiddles>
SEQMIX_INLINE void split_all(float* x, const float* twiddles, index step)
{
    if constexpr (Size > 1) {
        constexpr int R = leaf_radix(Size), part = Size / R;
        split<Arch, R>(x, part, Twiddles<Arch>{twiddles});
        simd::unroll<R>([&](auto k) SEQMIX_INLINE_LAMBDA {
            split_all<Arch, part, Twiddles>(x + k * part * tile::complex_lanes<Arch>::floats,
                                            twiddles + (R - 1 + k * leaf_twiddles(part)) * step, step);
        });
    }
}
template <class Arch, int Size, template <class> class Twiddles>
SEQMIX_INLINE void merge_all(float* x, const float* twiddles, index step)
{
    if constexpr (Size > 1) {
        constexpr int R = leaf_radix(Size), part = Size / R;
        simd::unroll<R>([&](auto k) SEQMIX_INLINE_LAMBDA {
            merge_all<Arch, part, Twiddles>(x + k * part * tile::complex_lanes<Arch>::floats,
                                            twiddles + (R - 1 + k * leaf_twiddles(part)) * step, step);
        });
        merge<Arch, R>(x, part, Twiddles<Arch>{twiddles});
    }
}

/// Splits of lanes, products with the spectrum, and back; the last split, the products and the first merge meet in registers.
template <class Arch, int Size>
SEQMIX_INLINE void multiply_lanes(float* x, const float* twiddles, const float* spectrum)
{
    using complex = tile::complex_lanes<Arch>;
    if constexpr (Size == 1) {
        (complex::load(x) * complex::load(spectrum)).store(x);
    } else {
        constexpr int R = leaf_radix(Size), part = Size / R;
        const lane_twiddles<Arch> turn = {twiddles};
        if constexpr (part == 1) {
            complex a[R];
            simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA {
                a[j] = complex::load(x + j * complex::floats);
                if constexpr (j > 0) { a[j] = a[j] * turn[j - 1]; }
            });
            transform<false>(a);
            simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA { a[j] = a[j] * complex::load(spectrum + j * complex::floats); });
            transform<true>(a);
            simd::unroll<R>([&](auto j) SEQMIX_INLINE_LAMBDA {
                if constexpr (j > 0) { a[j] = times_conjugate(a[j], turn[j - 1]); }
                a[j].store(x + j * complex::floats);
            });
        } else {
            split<Arch, R>(x, part, turn);
            simd::unroll<R>([&](auto k) SEQMIX_INLINE_LAMBDA {
                multiply_lanes<Arch, part>(x + k * part * complex::floats, twiddles + (R - 1 + k * leaf_twiddles(part)) * complex::floats,
                                           spectrum + k * part * complex::floats);
            });
            merge<Arch, R>(x, part, turn);
        }
    }
}

/// Lanes become registers: of as many complex vectors as there are lanes.
template <class Arch>
SEQMIX_INLINE void turn_square(float* x)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    for (int part = 0; part < 2; ++part) {
        float* const at = x + part * lanes;
        f32 square[lanes];
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA { square[i] = f32::load(at + i * 2 * lanes); });
        transpose(square);
        simd::unroll<lanes>([&](auto i) SEQMIX_INLINE_LAMBDA { square[i].store(at + i * 2 * lanes); });
    }
}

/// The last splits, of `vectors` vectors whose lanes are split as well.
template <class Arch>
struct leaf {
    using complex = tile::complex_lanes<Arch>;
    static constexpr int lanes = complex::lanes;
    static constexpr int vectors = 16;
    static constexpr index points = vectors * lanes;
    static constexpr int of_vectors = 2 * leaf_twiddles(vectors) + 2; ///< floats of twiddles, whole lines
    static constexpr int of_square = leaf_twiddles(lanes) * complex::floats;
    static constexpr int twiddles = of_vectors + vectors / lanes * of_square;

    static SEQMIX_NOINLINE void forward(float* x, const float* w)
    {
        split_all<Arch, vectors, block_twiddles>(x, w, 2);
        if constexpr (lanes > 1) {
            for (index square = 0; square < vectors / lanes; ++square) {
                float* const at = x + square * lanes * complex::floats;
                turn_square<Arch>(at);
                split_all<Arch, lanes, lane_twiddles>(at, w + of_vectors + square * of_square, complex::floats);
            }
        }
    }
    static SEQMIX_NOINLINE void multiply(float* x, const float* w, const float* spectrum)
    {
        split_all<Arch, vectors, block_twiddles>(x, w, 2);
        for (index square = 0; square < vectors / lanes; ++square) {
            float* const at = x + square * lanes * complex::floats;
            if constexpr (lanes > 1) { turn_square<Arch>(at); }
            multiply_lanes<Arch, lanes>(at, w + of_vectors + square * of_square, spectrum + square * lanes * complex::floats);
            if constexpr (lanes > 1) { turn_square<Arch>(at); }
        }
        merge_all<Arch, vectors, block_twiddles>(x, w, 2);
    }
};

} // namespace detail

/// Products in the ring of one size; immutable, so threads share it.
template <class Arch>
class ring {
    using leaf = detail::leaf<Arch>;
    using complex = tile::complex_lanes<Arch>;
    static constexpr int of_node = 16; ///< floats of a block's twiddles: a line

public:
    /// The least M >= points that there is a ring of: 16 · lanes · 2^a 3^b 5^c.
    static index good_points(index points)
    {
        const index leaves = (points + leaf::points - 1) / leaf::points;
        index best = 1;
        while (best < leaves) { best *= 2; }
        for (index five = 1; five < best; five *= 5) {
            for (index three = five; three < best; three *= 3) {
                index size = three;
                while (size < leaves) { size *= 2; }
                if (size < best) { best = size; }
            }
        }
        return best * leaf::points;
    }

    /// Of at least so many points.
    explicit ring(index points) : points_(good_points(points))
    {
        index left = points_ / leaf::points;
        for (const int radix : {5, 3}) {
            for (; left % radix == 0; left /= radix) { radices_.push_back(radix); }
        }
        while (left > 1) {
            const index radix = left % 8 == 0 && left != 16 ? 8 : left % 4 == 0 ? 4 : 2;
            radices_.push_back(static_cast<int>(radix)), left /= radix;
        }
        // The greatest first: it reads and writes what is farthest away.
        std::sort(radices_.begin(), radices_.end(), std::greater<>());
        if (radices_.empty()) { radices_.push_back(1); }
        float* at = reinterpret_cast<float*>(twiddles_.reserve(static_cast<std::size_t>(twiddles_below(0)) * sizeof(float)));
        twiddles_begin_ = at;
        fill(0, 0.5 * pi, at);
    }

    index points() const { return points_; }
    /// Of an element, and of a spectrum.
    index floats() const { return 2 * points_; }
    /// The last blocks, and the floats that each has in a spectrum.
    static constexpr index leaf_points = leaf::points, leaf_floats = 2 * leaf::points;
    index leaves() const { return points_ / leaf::points; }

    /// For products of which only a part of the spectrum is there: the residues modulo t - e^(i (π/2 + 2πm) / M) with keep(m mod P), P = the
    /// extent of keep, which divides leaves(); all others are 0. Of the leaves in a spectrum's order, how many of those before each, and
    /// of all, are kept: [leaves + 1]. A leaf has the m of one class modulo leaves(), and so has every block one modulo the number of its like.
    std::vector<index> kept_before(const view<const bool, 1>& keep) const
    {
        std::vector<index> before = {0};
        for (index l = 0; l < leaves(); ++l) {
            index m = 0, left = l;
            for (std::size_t level = radices_.size(); level-- > 0; left /= radices_[level]) { m = left % radices_[level] + radices_[level] * m; }
            before.push_back(before.back() + (keep(m % keep.extent(0)) ? 1 : 0));
        }
        return before;
    }

    /// The spectrum of Σ source(n) t^n, in the ring's own order, times 1 / M; see split_source.
    template <class Source>
    void forward(const Source& source, float* spectrum) const
    {
        const float* twiddles = begin() + of_node;
        const index part = points_ / complex::lanes / radices_[0];
        with_radix(radices_[0], [&](auto r) { detail::split_source<Arch, r, true>(source, points_, spectrum, part, begin()); });
        for (int k = 0; k < radices_[0]; ++k) { forward(1, part, spectrum + k * part * complex::floats, twiddles); }
        const auto scale = simd::f32<Arch>::broadcast(static_cast<float>(1.0 / static_cast<double>(points_)));
        for (index i = 0; i < floats(); i += complex::lanes) { (simd::f32<Arch>::load(spectrum + i) * scale).store(spectrum + i); }
    }

    /// sink(n, …) = the product of source's polynomial with that of `spectrum`. Without `Halves` only the first `points` numbers of source
    /// are read, and of the product written. `scratch` holds floats().
    ///
    /// With `kept_before` the spectrum has the kept leaves only, and where a block has none, it is neither split nor multiplied.
    template <bool Halves, class Source, class Sink>
    void multiply(const Source& source, const float* spectrum, const Sink& sink, float* scratch, const index* kept_before = nullptr) const
    {
        const float* twiddles = begin() + of_node;
        const index part = points_ / complex::lanes / radices_[0];
        with_radix(radices_[0], [&](auto r) { detail::split_source<Arch, r, Halves>(source, points_, scratch, part, begin()); });
        for (int k = 0; k < radices_[0]; ++k) { multiply(1, part, scratch + k * part * complex::floats, twiddles, spectrum, kept_before); }
        with_radix(radices_[0], [&](auto r) { detail::merge_sink<Arch, r, Halves>(scratch, points_, sink, part, begin()); });
    }

private:
    static constexpr double pi = 3.14159265358979323846;

    const float* begin() const { return twiddles_begin_; }

    template <class Body>
    static void with_radix(int radix, const Body& body)
    {
        switch (radix) {
        case 1: return body(std::integral_constant<int, 1>{});
        case 2: return body(std::integral_constant<int, 2>{});
        case 3: return body(std::integral_constant<int, 3>{});
        case 4: return body(std::integral_constant<int, 4>{});
        case 5: return body(std::integral_constant<int, 5>{});
        default: return body(std::integral_constant<int, 8>{});
        }
    }

    void forward(std::size_t level, index vectors, float* x, const float*& twiddles) const
    {
        if (level == radices_.size()) {
            leaf::forward(x, twiddles);
            twiddles += leaf::twiddles;
            return;
        }
        const index part = vectors / radices_[level];
        with_radix(radices_[level], [&](auto r) { detail::split_block<Arch, r>(x, part, twiddles); });
        twiddles += of_node;
        for (int k = 0; k < radices_[level]; ++k) { forward(level + 1, part, x + k * part * complex::floats, twiddles); }
    }

    void multiply(std::size_t level, index vectors, float* x, const float*& twiddles, const float*& spectrum, const index*& kept_before) const
    {
        if (kept_before != nullptr) {
            const index of_leaves = vectors / leaf::vectors;
            if (kept_before[0] == kept_before[of_leaves]) {
                std::fill_n(x, vectors * complex::floats, 0.0f);
                twiddles += twiddles_below(level), kept_before += of_leaves;
                return;
            }
        }
        if (level == radices_.size()) {
            leaf::multiply(x, twiddles, spectrum);
            twiddles += leaf::twiddles, spectrum += leaf_floats;
            if (kept_before != nullptr) { ++kept_before; }
            return;
        }
        const index part = vectors / radices_[level];
        const float* const own = twiddles;
        with_radix(radices_[level], [&](auto r) { detail::split_block<Arch, r>(x, part, own); });
        twiddles += of_node;
        for (int k = 0; k < radices_[level]; ++k) { multiply(level + 1, part, x + k * part * complex::floats, twiddles, spectrum, kept_before); }
        with_radix(radices_[level], [&](auto r) { detail::merge_block<Arch, r>(x, part, own); });
    }

    /// Floats of the twiddles of a block that is split by radices_[level], and of all its parts.
    index twiddles_below(std::size_t level) const
    {
        index floats = 0, blocks = 1;
        for (; level < radices_.size(); ++level) { floats += blocks * of_node, blocks *= radices_[level]; }
        return floats + blocks * leaf::twiddles;
    }

    /// Twiddles of a block modulo t^s - e^(i angle), those of its parts behind them.
    void fill(std::size_t level, double angle, float*& at)
    {
        if (level == radices_.size()) { return fill_leaf(angle, at); }
        const int radix = radices_[level];
        for (int j = 1; j < radix; ++j) { put(j * angle / radix, at + 2 * (j - 1)); }
        at += of_node;
        for (int k = 0; k < radix; ++k) { fill(level + 1, (angle + 2.0 * pi * k) / radix, at); }
    }
    void fill_leaf(double angle, float*& at)
    {
        double angles[leaf::vectors];
        double* next = angles;
        float* to = at;
        fill_vectors(leaf::vectors, angle, to, next);
        to = at + leaf::of_vectors;
        for (int square = 0; square < leaf::vectors / complex::lanes; ++square) {
            fill_lanes(complex::lanes, angles + square * complex::lanes, to);
        }
        at += leaf::twiddles;
    }
    void fill_vectors(int size, double angle, float*& to, double*& angles)
    {
        if (size == 1) {
            *angles++ = angle;
            return;
        }
        const int radix = detail::leaf_radix(size);
        for (int j = 1; j < radix; ++j, to += 2) { put(j * angle / radix, to); }
        for (int k = 0; k < radix; ++k) { fill_vectors(size / radix, (angle + 2.0 * pi * k) / radix, to, angles); }
    }
    void fill_lanes(int size, const double* angles, float*& to)
    {
        if (size == 1) { return; }
        const int radix = detail::leaf_radix(size);
        for (int j = 1; j < radix; ++j, to += complex::floats) {
            for (int lane = 0; lane < complex::lanes; ++lane) {
                float number[2];
                put(j * angles[lane] / radix, number);
                to[lane] = number[0], to[lane + complex::lanes] = number[1];
            }
        }
        for (int k = 0; k < radix; ++k) {
            double parts[complex::lanes];
            for (int lane = 0; lane < complex::lanes; ++lane) { parts[lane] = (angles[lane] + 2.0 * pi * k) / radix; }
            fill_lanes(size / radix, parts, to);
        }
    }
    static void put(double angle, float* to) { to[0] = static_cast<float>(std::cos(angle)), to[1] = static_cast<float>(std::sin(angle)); }

    index points_;
    std::vector<int> radices_; ///< of the splits down to leaves, the first one's first; there is at least one, though it be 1
    workspace twiddles_;
    const float* twiddles_begin_ = nullptr;
};

} // namespace conv
SEQMIX_NAMESPACE_END
