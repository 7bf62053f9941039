// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/format.hpp>

// Stored weights as numbers: one after another, by their definition. Kernels have their own, faster ways, and are held to this one.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// Calls take(column, weight) for each weight of a row.
template <block_source S, class Take>
void decode_row(const S& source, index row, const Take& take)
{
    using format = typename S::format;
    stored_block<format> unpacked;
    for (index block = 0; block < source.blocks(); ++block) {
        source.read(row, block, unpacked);
        for (index i = 0; i < format::block; ++i) {
            const index group = i / format::group;
            take(block * format::block + i,
                 dequantize<format>(unpacked.codes[i], group_scale(unpacked, group), group_min(unpacked, group)));
        }
    }
}

template <group_source S, class Take>
void decode_row(const S& source, index row, const Take& take)
{
    using format = typename S::format;
    constexpr index piece = 256;
    std::uint8_t codes[piece];
    const std::int32_t* const order = source.order();
    for (index group = 0; group < source.groups(); ++group) {
        const index end = source.first(group + 1);
        if (end == source.first(group)) { continue; }
        const group_parameters<format> shared = source.parameters(row, group);
        for (index from = source.first(group); from < end; from += piece) {
            const index count = smaller(piece, end - from);
            source.codes(row, from, count, codes);
            for (index i = 0; i < count; ++i) {
                const index column = order != nullptr ? order[from + i] : from + i;
                take(column, dequantize<format>(codes[i], shared, source.matrix_scale()));
            }
        }
    }
}

} // namespace detail

/// out [rows, columns] = the numbers that are stored, as the format's published decoder has them, bit for bit; bf16 and f16 are
/// rounded once more. Any strides; one thread; allocates nothing. Refuses another shape, null, and memory that overlaps what is
/// stored.
template <source S, storage T>
void decode(const S& source, const view<T, 2>& out)
{
    const checker check("quant::decode");
    check_given(check, out, "out");
    check_extent(check, out, "out", 0, "number of rows", source.rows(), "the matrix's");
    check_extent(check, out, "out", 1, "number of columns", source.columns(), "the matrix's");
    source.check_apart_from(check, reach(out), "out");
    for (index row = 0; row < source.rows(); ++row) {
        detail::decode_row(source, row, [&](index column, float weight) { out(row, column) = static_cast<T>(weight); });
    }
}

/// One weight of the matrix, as decode has it; at the cost of a row.
template <source S>
float weight(const S& source, index row, index column)
{
    const checker check("quant::weight");
    check.require(row >= 0 && row < source.rows(), "row is ", row, ", but the matrix has ", source.rows());
    check.require(column >= 0 && column < source.columns(), "column is ", column, ", but the matrix has ", source.columns());
    float found = 0.0f;
    detail::decode_row(source, row, [&](index at, float weight) {
        if (at == column) { found = weight; }
    });
    return found;
}

} // namespace quant
SEQMIX_NAMESPACE_END
