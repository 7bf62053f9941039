// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/view.hpp>

#include <cmath>
#include <complex>
#include <vector>

// The long convolution as it is defined, in double, one channel: what the kernels are judged by.

SEQMIX_NAMESPACE_BEGIN
namespace conv::reference {

/// y_t = Σ_s k_s u_(t-s) + Σ_s backward_s u_(t+1+s), numbers outside of u being 0, or u going round if `circular`.
inline std::vector<double> convolve(const std::vector<double>& u, const std::vector<double>& k, const std::vector<double>& backward, bool circular)
{
    const index length = static_cast<index>(u.size());
    const auto at = [&](index t) {
        if (circular) { t = (t % length + length) % length; }
        return t >= 0 && t < length ? u[static_cast<std::size_t>(t)] : 0.0;
    };
    std::vector<double> y(u.size());
    for (index t = 0; t < length; ++t) {
        double sum = 0.0;
        for (std::size_t s = 0; s < k.size(); ++s) { sum += k[s] * at(t - static_cast<index>(s)); }
        for (std::size_t s = 0; s < backward.size(); ++s) { sum += backward[s] * at(t + 1 + static_cast<index>(s)); }
        y[static_cast<std::size_t>(t)] = sum;
    }
    return y;
}

/// One image [H, W] with one kernel [Hk, Wk]: y(h, w) = Σ_ab k(a, b) u(h - a + c, w - b + d), where c = ⌊Hk / 2⌋ if `centred` along the rows, else 0, and
/// d likewise; numbers outside of u being 0, or u going round along an axis that is `circular`.
struct image_axis_kind {
    bool centred = false, circular = false;
};
inline std::vector<double> convolve_image(const std::vector<double>& u, index height, index width, const std::vector<double>& k, index rows,
                                          index columns, image_axis_kind along_rows, image_axis_kind along_columns)
{
    const auto number = [](index i, index extent, image_axis_kind kind) { // -1: none
        if (kind.circular) { return (i % extent + extent) % extent; }
        return i >= 0 && i < extent ? i : -1;
    };
    std::vector<double> y(u.size());
    for (index h = 0; h < height; ++h) {
        for (index w = 0; w < width; ++w) {
            for (index a = 0; a < rows; ++a) {
                for (index b = 0; b < columns; ++b) {
                    const index i = number(h - a + (along_rows.centred ? rows / 2 : 0), height, along_rows);
                    const index j = number(w - b + (along_columns.centred ? columns / 2 : 0), width, along_columns);
                    if (i < 0 || j < 0) { continue; }
                    y[static_cast<std::size_t>(h * width + w)] += k[static_cast<std::size_t>(a * columns + b)] * u[static_cast<std::size_t>(i * width + j)];
                }
            }
        }
    }
    return y;
}

/// The first `length` numbers of the product of two real polynomials modulo t^M - i, each of up to 2M numbers, the second half being imaginary, with
/// the residues at e^(i (π/2 + 2πm) / M) set to 0 unless keep[m mod P]: residue by residue, O(M²).
inline std::vector<double> ring_product(const std::vector<double>& u, const std::vector<double>& k, index points, const std::vector<bool>& keep, index length)
{
    using complex = std::complex<double>;
    std::vector<complex> turns; // e^(2πi n / 4M)
    for (index n = 0; n < 4 * points; ++n) { turns.push_back(std::polar(1.0, std::acos(0.0) * static_cast<double>(n) / static_cast<double>(points))); }
    const auto turn = [&](index m, index n) { return turns[static_cast<std::size_t>((4 * m + 1) * n % (4 * points))]; };
    const auto residue = [&](const std::vector<double>& x, index m) {
        complex sum = 0.0;
        for (std::size_t n = 0; n < x.size(); ++n) { sum += x[n] * turn(m, static_cast<index>(n)); } // t^M = i of itself
        return sum;
    };
    std::vector<double> y(static_cast<std::size_t>(length));
    for (index m = 0; m < points; ++m) {
        if (!keep[static_cast<std::size_t>(m) % keep.size()]) { continue; }
        const complex product = residue(u, m) * residue(k, m) / static_cast<double>(points);
        for (index n = 0; n < length; ++n) {
            const complex number = product * std::conj(turn(m, n % points));
            y[static_cast<std::size_t>(n)] += n < points ? number.real() : number.imag();
        }
    }
    return y;
}

} // namespace conv::reference
SEQMIX_NAMESPACE_END
