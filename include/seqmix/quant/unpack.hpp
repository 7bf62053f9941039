// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/decode.hpp>
#include <seqmix/quant/gguf.hpp>
#include <seqmix/quant/packed.hpp>

// What was packed, as it was stored.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

namespace detail {

/// Single codes and scales of a packed matrix.
template <format F>
class packed_reader {
    using layout = packed_layout<F>;
    using scale_type = typename F::scale_type;

public:
    explicit packed_reader(const packed_matrix<F>& packed) : packed_(packed) {}

    std::uint8_t code(index row, index position) const
    {
        const std::byte* const panel = panel_of(row);
        unsigned stored = 0;
        layout::for_each_field(row % layout::panel_rows, position, [&](index byte, int bit, int code_bit, int width) {
            stored |= (std::to_integer<unsigned>(panel[byte]) >> bit & ((1u << width) - 1u)) << code_bit;
        });
        return lane_code<F>::unstored(static_cast<std::uint8_t>(stored));
    }

    scale_type scale(index row, index at) const { return stored_scale(row, packed_.layout().scales_at(), at); }
    scale_type min(index row, index at) const { return stored_scale(row, packed_.layout().mins_at(), at); }
    std::int8_t sub_scale(index row, index group) const { return element<std::int8_t>(row, packed_.layout().sub_scales_at(), group); }
    std::uint8_t sub_min(index row, index group) const { return element<std::uint8_t>(row, packed_.layout().sub_mins_at(), group); }
    int zero(index row, index group) const
    {
        if constexpr (layout::has_zero) {
            return element<std::int8_t>(row, packed_.layout().zeros_at(), group);
        } else {
            return 0;
        }
    }

    group_parameters<F> parameters(index row, index group) const
    {
        if constexpr (row_scaled<F>) {
            return {scale(row, 0), 0, static_cast<std::uint8_t>(sub_scale(row, group))};
        } else {
            return {scale(row, group), zero(row, group)};
        }
    }

private:
    const std::byte* panel_of(index row) const { return packed_.panel(row / layout::panel_rows); }

    template <class T>
    T element(index row, index base, index at) const
    {
        T value;
        std::memcpy(&value, panel_of(row) + base + (at * layout::panel_rows + row % layout::panel_rows) * static_cast<index>(sizeof(T)), sizeof(T));
        return value;
    }
    scale_type stored_scale(index row, index base, index at) const
    {
        const auto held = element<packed_scale<scale_type>>(row, base, at);
        if constexpr (std::is_same_v<packed_scale<scale_type>, scale_type>) {
            return held;
        } else {
            scale_type found{};
            for (int bits = 0; bits < 256; ++bits) {
                found.bits = static_cast<std::uint8_t>(bits);
                if (widened(found) == held) { break; }
            }
            return found;
        }
    }

    const packed_matrix<F>& packed_;
};

/// A packed matrix of a block format as a source.
template <block_format F>
class unpacked_blocks {
public:
    using format = F;

    explicit unpacked_blocks(const packed_matrix<F>& packed) : packed_(packed), reader_(packed) {}

    index rows() const { return packed_.rows(); }
    index columns() const { return packed_.columns(); }
    index group() const { return F::group; }
    index blocks() const { return columns() / F::block; }
    void read(index row, index block, stored_block<F>& out) const
    {
        constexpr index groups = F::block / F::group;
        out = {};
        for (index i = 0; i < F::block; ++i) { out.codes[i] = reader_.code(row, block * F::block + i); }
        if constexpr (F::two_levels) {
            out.scale = reader_.scale(row, block);
            if constexpr (packed_layout<F>::has_min) { out.min = reader_.min(row, block); }
        }
        for (index g = 0; g < groups; ++g) {
            const index at = block * groups + g;
            if constexpr (F::two_levels) {
                out.sub_scales[g] = reader_.sub_scale(row, at);
                if constexpr (packed_layout<F>::has_min) { out.sub_mins[g] = reader_.sub_min(row, at); }
            } else {
                out.scales[g] = reader_.scale(row, at);
                if constexpr (packed_layout<F>::has_min) { out.mins[g] = reader_.min(row, at); }
            }
        }
    }
    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, view<const std::byte, 1>(packed_.panel(0), {packed_.bytes()}), "the packed matrix");
    }

private:
    const packed_matrix<F>& packed_;
    packed_reader<F> reader_;
};

} // namespace detail

/// out [rows, columns] = the numbers of a packed matrix, bit for bit those of what was packed (MXFP6 E2M3's negative zero is positive).
template <format F, storage T>
void decode(const packed_matrix<F>& packed, const view<T, 2>& out)
{
    if constexpr (block_format<F>) {
        decode(detail::unpacked_blocks<F>(packed), out);
    } else {
        const checker check("quant::decode");
        check_given(check, out, "out");
        check_extent(check, out, "out", 0, "number of rows", packed.rows(), "the matrix's");
        check_extent(check, out, "out", 1, "number of columns", packed.columns(), "the matrix's");
        check_apart(check, reach(out), "out", view<const std::byte, 1>(packed.panel(0), {packed.bytes()}), "the packed matrix");
        const detail::packed_reader<F> reader(packed);
        const index end = packed.order() != nullptr ? packed.layout().depth() : packed.columns();
        for (index row = 0; row < packed.rows(); ++row) {
            for (index p = 0; p < end; ++p) {
                const index group = p / packed.layout().group, column = packed.order() != nullptr ? packed.order()[p] : p;
                if (column < 0 || column >= packed.columns()) { continue; } // padding, or bytes that nobody packed
                out(row, column) = static_cast<T>(dequantize<F>(reader.code(row, p), reader.parameters(row, group), packed.matrix_scale()));
            }
        }
    }
}

/// bytes = the blocks of a packed matrix as a GGUF file holds them; bytes has stored_bytes(rows, columns) of them.
template <block_format F>
void unpack(const packed_matrix<F>& packed, const view<std::byte, 1>& bytes)
{
    const checker check("quant::unpack");
    check_given(check, bytes, "bytes");
    check.equal(bytes.extent(0), gguf::stored_bytes<F>(packed.rows(), packed.columns()), "bytes' length", "what the matrix asks for");
    check.require(bytes.extent(0) < 2 || bytes.stride(0) == 1, "bytes have stride ", bytes.stride(0), ", but must have ", 1);
    const detail::unpacked_blocks<F> source(packed);
    source.check_apart_from(check, reach(bytes), "bytes");
    stored_block<F> block;
    for (index row = 0; row < source.rows(); ++row) {
        for (index b = 0; b < source.blocks(); ++b) {
            source.read(row, b, block);
            F::write(block, bytes.data() + (row * source.blocks() + b) * F::block_bytes);
        }
    }
}

} // namespace quant
SEQMIX_NAMESPACE_END
