// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/format.hpp>

#include <vector>

SEQMIX_NAMESPACE_BEGIN
namespace quant {

/// A stored matrix whose position p holds column order(p), as encode_gptq writes it with act-order: decode, pack and matmul give columns
/// their places, and x stays as it is. `stored` has no order of its own. Allocates a copy of the order. Refuses an order of another
/// length, or in which a column is missing.
template <group_source S>
class permuted_matrix {
public:
    using format = typename S::format;

    permuted_matrix(const S& stored, const view<const std::int32_t, 1>& order) : stored_(stored)
    {
        const checker check("quant::permuted_matrix");
        check_given(check, order, "order");
        check_extent(check, order, "order", 0, "length", stored.columns(), "the matrix's number of columns");
        check.require(stored.order() == nullptr, "stored has an order already, of ", stored.columns(), " columns");
        std::vector<bool> seen(static_cast<std::size_t>(stored.columns()), false);
        for (index p = 0; p < stored.columns(); ++p) {
            const index column = order(p);
            check.require(column >= 0 && column < stored.columns(), "order has column ", column, " at position ", p,
                          ", but the matrix has ", stored.columns());
            check.require(!seen[static_cast<std::size_t>(column)], "order has column ", column, " twice, again at position ", p);
            seen[static_cast<std::size_t>(column)] = true;
            order_.push_back(order(p));
        }
    }

    index rows() const { return stored_.rows(); }
    index columns() const { return stored_.columns(); }
    index group() const { return stored_.group(); }
    index groups() const { return stored_.groups(); }
    index first(index group) const { return stored_.first(group); }
    const std::int32_t* order() const { return order_.empty() ? nullptr : order_.data(); }
    float matrix_scale() const { return stored_.matrix_scale(); }
    group_parameters<format> parameters(index row, index group) const { return stored_.parameters(row, group); }
    void codes(index row, index position, index count, std::uint8_t* to) const { stored_.codes(row, position, count, to); }
    void check_apart_from(const checker& check, const byte_range& written, const char* writer) const
    {
        stored_.check_apart_from(check, written, writer);
    }

private:
    S stored_;
    std::vector<std::int32_t> order_;
};

} // namespace quant
SEQMIX_NAMESPACE_END
