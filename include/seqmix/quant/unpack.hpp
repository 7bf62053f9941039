// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/gguf.hpp>
#include <seqmix/quant/packed.hpp>

// What was packed, as it was stored.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// A packed matrix as a source: for decode, and to be stored or packed again. Codes come back bit for bit, and scales with them; of
/// MXFP6 (E2M3) the negative zero comes back as the positive one.
template <format F>
class unpacked_matrix {
    using layout = packed_layout<F>;
    using scale_type = typename F::scale_type;

public:
    using format = F;

    explicit unpacked_matrix(const packed_matrix<F>& packed) : packed_(packed) {}

    index rows() const { return packed_.rows(); }
    index columns() const { return packed_.columns(); }
    index group() const { return packed_.layout().group; }
    index groups() const { return packed_.layout().groups; }
    float matrix_scale() const { return packed_.matrix_scale(); }

    /// Block formats.
    index blocks() const { return columns() / F::block; }
    void read(index row, index block, stored_block<F>& out) const
        requires block_format<F>
    {
        constexpr index of_block = F::block / F::group;
        out = {};
        for (index i = 0; i < F::block; ++i) { out.codes[i] = code(row, block * F::block + i); }
        if constexpr (F::two_levels) {
            out.scale = scale(row, packed_.layout().scales_at(), block);
            if constexpr (layout::has_min) { out.min = scale(row, packed_.layout().mins_at(), block); }
        }
        for (index g = 0; g < of_block; ++g) {
            const index group = block * of_block + g;
            if constexpr (F::two_levels) {
                out.sub_scales[g] = small<std::int8_t>(row, packed_.layout().sub_scales_at(), group);
                if constexpr (layout::has_min) { out.sub_mins[g] = small<std::uint8_t>(row, packed_.layout().sub_mins_at(), group); }
            } else {
                out.scales[g] = scale(row, packed_.layout().scales_at(), group);
                if constexpr (layout::has_min) { out.mins[g] = scale(row, packed_.layout().mins_at(), group); }
            }
        }
    }

    /// Formats whose group the matrix knows. Positions are those of the packed matrix, order() their columns; those without a column
    /// stand at the end of their groups and are passed over.
    index first(index group) const
    {
        const index at = smaller(group * packed_.layout().group, packed_.layout().depth());
        if (packed_.order() == nullptr) { return smaller(at, columns()); }
        return at;
    }
    const std::int32_t* order() const { return packed_.order(); }
    group_parameters<F> parameters(index row, index group) const
    {
        group_parameters<F> shared;
        shared.scale = scale(row, packed_.layout().scales_at(), group);
        if constexpr (layout::has_zero) { shared.zero = small<std::int8_t>(row, packed_.layout().zeros_at(), group); }
        return shared;
    }
    void codes(index row, index position, index count, std::uint8_t* to) const
    {
        for (index i = 0; i < count; ++i) { to[i] = code(row, position + i); }
    }

    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        check_apart(check, written, writer, view<const std::byte, 1>(packed_.panel(0), {packed_.bytes()}), "the packed matrix");
    }

private:
    const std::byte* panel_of(index row) const { return packed_.panel(row / layout::panel_rows); }

    std::uint8_t code(index row, index position) const
    {
        const index word = position % layout::chunk / 4;
        const std::byte* plane = panel_of(row) + position / layout::chunk * layout::chunk_bytes + row % layout::panel_rows * 4 + position % 4;
        unsigned stored = 0;
        int shift = 0;
        for (int width = 8; width > 0; width /= 2) {
            if ((layout::bits & width) == 0) { continue; }
            const index words = 8 / width;
            stored |= (std::to_integer<unsigned>(plane[word / words * 64]) >> (word % words * width) & ((1u << width) - 1u)) << shift;
            plane += width * 64;
            shift += width;
        }
        return lane_code<F>::unstored(static_cast<std::uint8_t>(stored));
    }

    template <class T>
    T small(index row, index base, index at) const
    {
        T value;
        std::memcpy(&value, panel_of(row) + base + (at * layout::panel_rows + row % layout::panel_rows) * static_cast<index>(sizeof(T)), sizeof(T));
        return value;
    }
    scale_type scale(index row, index base, index at) const
    {
        const auto held = small<packed_scale<scale_type>>(row, base, at);
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

/// bytes = the blocks of a packed matrix as a GGUF file holds them; bytes has stored_bytes(rows, columns) of them.
template <block_format F>
void unpack(const packed_matrix<F>& packed, const view<std::byte, 1>& bytes)
{
    const checker check("quant::unpack");
    check_given(check, bytes, "bytes");
    check.equal(bytes.extent(0), gguf::stored_bytes<F>(packed.rows(), packed.columns()), "bytes' length", "what the matrix asks for");
    check.require(bytes.extent(0) < 2 || bytes.stride(0) == 1, "bytes have stride ", bytes.stride(0), ", but must have ", 1);
    const unpacked_matrix<F> source(packed);
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
