// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/gguf_k.hpp>
#include <seqmix/quant/gguf_legacy.hpp>
#include <seqmix/quant/gguf_table.hpp>
#include <seqmix/quant/gguf_ternary.hpp>

#include <limits>

// A matrix as a GGUF file holds it.

SEQMIX_NAMESPACE_BEGIN
namespace quant::gguf {

namespace detail {

inline index row_bytes(const checker& check, index rows, index columns, index block, index block_bytes)
{
    check.require(rows >= 0, "rows is negative: ", rows);
    check.require(columns >= 0, "columns is negative: ", columns);
    check.require(columns % block == 0, "columns is ", columns, ", which is no multiple of the block's ", block);
    const index blocks = columns / block, most = std::numeric_limits<index>::max();
    check.require(blocks <= most / block_bytes, "columns is too large: ", columns);
    check.require(rows == 0 || blocks * block_bytes <= most / rows, "rows is too large: ", rows);
    return blocks * block_bytes;
}

} // namespace detail

/// Bytes of a matrix [rows, columns]; columns is a multiple of the format's block.
template <block_format F>
index stored_bytes(index rows, index columns)
{
    return rows * detail::row_bytes(checker("quant::gguf::stored_bytes"), rows, columns, F::block, F::block_bytes);
}

/// A view of a matrix [rows, columns] in blocks of F, rows one after another. The bytes need no alignment; any contents decode.
/// Refuses a number of columns that the block does not divide, and another number of bytes than the shape asks for.
template <block_format F>
class matrix {
public:
    using format = F;

    matrix(const void* bytes, index byte_count, index rows, index columns)
        : bytes_(static_cast<const std::byte*>(bytes)), rows_(rows), columns_(columns)
    {
        const checker check("quant::gguf::matrix");
        row_bytes_ = detail::row_bytes(check, rows, columns, F::block, F::block_bytes);
        check.equal(byte_count, rows * row_bytes_, "byte_count", "what rows, columns and the format ask for");
        check.require(bytes_ != nullptr || byte_count == 0, "bytes is null, but byte_count is ", byte_count);
    }

    index rows() const { return rows_; }
    index columns() const { return columns_; }
    index group() const { return F::group; }
    index blocks() const { return columns_ / F::block; }
    void read(index row, index block, stored_block<F>& out) const
    {
        F::read(bytes_ + row * row_bytes_ + block * F::block_bytes, out);
    }

    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, view<const std::byte, 1>(bytes_, {rows_ * row_bytes_}), "bytes");
    }

private:
    const std::byte* bytes_;
    index rows_, columns_, row_bytes_;
};

} // namespace quant::gguf
SEQMIX_NAMESPACE_END
