// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/quant/integer.hpp>

// Block floating point: mantissas that share an exponent.

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// w = 2^(e - 127) · q / 2^(bits - 2): q in two's complement of 2 to 8 bits, e E8M0 of a group. With 8 bits in groups of 32 this is
/// the MXINT8 of OCP Microscaling, revision 1.0, section 5.3.4. Mantissas stand in a stream, lowest bits first.
template <int bits_>
struct block_float : run_time_group<e8m0> {
    static_assert(bits_ >= 2 && bits_ <= 8);
    static constexpr const char* name = "block_float";
    static constexpr int bits = bits_;
    static constexpr bool integer_codes = true;
    static constexpr float unit = 1.0f / static_cast<float>(1 << (bits - 2));
    static constexpr float extreme = unit * static_cast<float>((1 << (bits - 1)) - 1);
    static constexpr affine form = affine::scale_only;
    static constexpr scale_tile tile = per_group(32);
    using code_type = std::conditional_t<bits == 8, std::int8_t, std::uint8_t>;

    static constexpr float value(std::uint8_t code)
    {
        constexpr int sign = 1 << (bits - 1);
        return unit * static_cast<float>((code ^ sign) - sign);
    }
};

template <int bits>
using block_float_matrix = array_matrix<block_float<bits>>;

} // namespace quant
SEQMIX_NAMESPACE_END
