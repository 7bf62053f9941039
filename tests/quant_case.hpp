// SPDX-License-Identifier: MIT
#pragma once

#include "support/random.hpp"

#include <seqmix/quant.hpp>

#include <cstring>
#include <vector>

// Matrices and operands for tests of products.

namespace quant_case {

namespace quant = seqmix::quant;
using seqmix::index;

inline constexpr double u = 0x1p-24;

template <class T>
seqmix::view<const T, 2> matrix(const std::vector<T>& v, index columns)
{
    return {v.data(), {static_cast<index>(v.size()) / columns, columns}};
}
template <class T>
seqmix::view<T, 2> matrix(std::vector<T>& v, index columns)
{
    return {v.data(), {static_cast<index>(v.size()) / columns, columns}};
}
/// Of a shape that the numbers do not tell: without columns, or of fewer rows.
template <class T>
seqmix::view<const T, 2> as_const(const std::vector<T>& v, index rows, index columns)
{
    return {v.data(), {rows, columns}};
}
template <class T>
seqmix::view<const T, 1> list(const std::vector<T>& v)
{
    return {v.data(), {static_cast<index>(v.size())}};
}
inline std::vector<float> normals(std::uint64_t seed, index count)
{
    return random_source(seed).normals(static_cast<std::size_t>(count));
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b)
{
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), sizeof(T) * a.size()) == 0);
}

using int4 = quant::signed_integer<4, float, false>;
using fp8 = quant::float8<seqmix::fp8_e4m3, float>;

/// Some matrix [rows, columns] of normal numbers, in the format.
template <class F>
quant::packed_matrix<F> packed(std::uint64_t seed, index rows, index columns)
{
    const std::vector<float> numbers = normals(seed, rows * columns);
    const seqmix::view<const float, 2> w(numbers.data(), {rows, columns}); // of no columns too
    if constexpr (quant::block_format<F>) {
        std::vector<unsigned char> bytes(static_cast<std::size_t>(quant::gguf::stored_bytes<F>(rows, columns)));
        quant::encode<F>(w, bytes.data(), static_cast<index>(bytes.size()));
        return quant::pack(quant::gguf::matrix<F>(bytes.data(), static_cast<index>(bytes.size()), rows, columns));
    } else {
        const index group = 32, bytes = columns * F::bits / 8;
        std::vector<typename F::code_type> codes(static_cast<std::size_t>(rows * bytes));
        std::vector<float> scales(static_cast<std::size_t>(rows * (columns / group)));
        const seqmix::view<typename F::code_type, 2> c(codes.data(), {rows, bytes});
        const seqmix::view<float, 2> s(scales.data(), {rows, columns / group});
        quant::encode<F>(w, c, s, {.tile = quant::per_group(group)});
        return quant::pack(quant::array_matrix<F>(c, s, {.tile = quant::per_group(group)}));
    }
}

template <class F>
std::vector<float> decoded(const quant::packed_matrix<F>& w)
{
    std::vector<float> numbers(static_cast<std::size_t>(w.rows() * w.columns()));
    quant::decode(w, matrix(numbers, w.columns()));
    return numbers;
}

template <class F>
std::vector<quant::packed_matrix<F>> experts_of(std::uint64_t seed, index experts, index rows, index columns)
{
    std::vector<quant::packed_matrix<F>> all;
    for (index e = 0; e < experts; ++e) { all.push_back(packed<F>(seed + static_cast<std::uint64_t>(e), rows, columns)); }
    return all;
}

} // namespace quant_case
