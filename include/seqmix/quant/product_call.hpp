// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/operands.hpp>
#include <seqmix/quant/grouped_matmul.hpp>
#include <seqmix/quant/grouped_tables.hpp>

#include <cstring>

// What the doors of products have in common: what they ask of their operands, and the way to the loops.

SEQMIX_NAMESPACE_BEGIN
namespace quant::detail {

/// What is added to out, in place or from elsewhere.
template <class Out>
void check_residual(const checker& check, const view<const float, 2>& residual, const view<Out, 2>& out, index rows,
                    const char* whose_rows, const char* whose_columns)
{
    if (!residual) { return; }
    check_extent(check, residual, "residual", 0, "number of rows", rows, whose_rows);
    check_extent(check, residual, "residual", 1, "number of columns", out.extent(1), whose_columns);
    const bool is_out = static_cast<const void*>(residual.data()) == static_cast<const void*>(out.data()) &&
                        std::is_same_v<Out, float> && residual.strides() == out.strides();
    if (!is_out) { check_apart(check, reach(out), "out", residual, "residual"); }
}

/// What messages call a matrix.
struct weight_names {
    const char *name, *its, *its_rows;
};

/// A call of any of the doors. Groups of rows have a matrix each in both lists; the second list is null where there is one
/// product.
template <class T, class Out, format F>
struct product_call {
    view<const T, 2> x;
    const packed_matrix<F>* weights[2];
    weight_names names[2];
    index experts;
    view<const std::int32_t, 1> counts, rows;
    view<Out, 2> out;
    ending what;
    const char* bias_name;
    quant::compute compute;
    activation_scales scales;
    view<const float, 1> x_scale;

    static constexpr bool bytes_in = std::is_same_v<T, std::int8_t>, bytes_out = std::is_same_v<Out, std::int8_t>;
    static_assert((storage<T> || bytes_in) && (storage<Out> || bytes_out),
                  "seqmix: products read and write float, bf16, f16 or std::int8_t");

    /// Rows of out. A list of no rows may well be null, and is then none of those that are not given.
    index total() const
    {
        bool any = !counts && experts > 0;
        for (index e = 0; e < experts && !any; ++e) { any = counts(e) != 0; }
        return rows ? rows.extent(0) : any ? x.extent(0) : 0;
    }

    void check_all(const checker& check) const
    {
        check_given(check, x, "x"), check_given(check, out, "out");
        check_weights(check);
        check_rows(check);
        const char* const whose_rows = rows ? "rows' length" : total() > 0 ? "x's" : "counts' sum";
        check_extent(check, out, "out", 0, "number of rows", total(), whose_rows);
        check_apart(check, reach(out), "out", x, "x");
        check_apart(check, reach(out), "out", counts, "counts"), check_apart(check, reach(out), "out", rows, "rows");
        if (experts > 0) {
            check_bias(check, what.bias, bias_name);
            check_bias(check, what.up_bias, "up_bias");
        }
        check_residual(check, what.residual, out, total(), whose_rows, names[0].its_rows);
        check_bytes(check);
        check.require(F::integer_codes || compute != compute::int8, "compute is int8, but the codes of ", F::name,
                      " are no integers");
        if (experts > 0) {
            const auto& layout = weights[0][0].layout();
            check.require(compute != compute::tables || (tabulated<F> && (layout.group % 32 == 0 || layout.groups <= 1)),
                          "compute is tables, but those are for integers of up to 4 bits in groups of a multiple of 32; ", F::name, " has ",
                          F::bits, " bits in groups of ", layout.group);
        }
    }

    template <class Arch>
    void run(const context_ref& ctx) const
    {
        if (total() == 0) { return; }
        row_groups groups{.total = total(), .counts = counts, .rows = rows, .weights_size = static_cast<index>(sizeof(packed_matrix<F>))};
        for (int p = 0; p < 2; ++p) { groups.weights[p] = reinterpret_cast<const std::byte*>(weights[p]); }
        const packed_matrix<F>& w = weights[0][0];
        if (compute == compute::int8) {
            if constexpr (F::integer_codes) {
                const auto shared = bytes_in ? activation_scales::rows : scales;
                multiply_as_bytes(x, x_scale, groups, byte_weights<Arch>(w, shared), what, out, ctx);
            }
            return;
        }
        if constexpr (!bytes_in) {
            if constexpr (tabulated<F>) {
                if (compute == compute::tables) {
                    multiply_as_tables<Arch>(x, groups, w, scales, what, out, ctx);
                    return;
                }
            }
            if constexpr (simd::backend<Arch>::has_bf16_dot) {
                if (compute == compute::bf16) {
                    multiply_as_floats(x, groups, float_weights<Arch, bf16>(w), what, out, ctx);
                    return;
                }
            }
            multiply_as_floats(x, groups, float_weights<Arch, float>(w), what, out, ctx);
        }
    }

private:
    /// All of one shape and one way of grouping; of two products, positions in one order, since x is read once.
    void check_weights(const checker& check) const
    {
        for (index e = 0; e < experts; ++e) {
            for (int p = 0; p < 2 && weights[p] != nullptr; ++p) {
                const packed_matrix<F>&w = weights[p][e], &first = weights[0][0];
                const checker one = counts ? check.of("expert", e) : check;
                if (p == 0 && e == 0) {
                    check_extent(check, x, "x", 1, "number of columns", w.columns(), names[0].its);
                    check_extent(check, out, "out", 1, "number of columns", w.rows(), names[0].its_rows);
                } else {
                    const auto same = [&](index got, index want, const char* what_of) {
                        one.require(got == want, names[p].its, " ", what_of, " is ", got, ", but ",
                                    counts ? "the first expert's" : "gate's", " is ", want);
                    };
                    same(w.rows(), first.rows(), "number of rows");
                    same(w.columns(), first.columns(), "number of columns");
                    same(w.layout().group, first.layout().group, "group");
                    same(w.layout().groups, first.layout().groups, "number of groups");
                    one.require(w.layout().permuted == first.layout().permuted, names[p].its, " columns have ",
                                w.layout().permuted ? "an" : "no", " order, but ", counts ? "the first expert's" : "gate's",
                                " have ", first.layout().permuted ? "one" : "none");
                }
                if (p == 1 && w.layout().permuted) {
                    const auto bytes = static_cast<std::size_t>(w.layout().depth()) * sizeof(std::int32_t);
                    one.require(std::memcmp(w.order(), weights[0][e].order(), bytes) == 0,
                                "up's order of columns is another than gate's, but x is read once");
                }
                check_apart(one, reach(out), "out", view<const std::byte, 1>(w.panel(0), {w.bytes()}), names[p].name);
            }
        }
    }

    void check_rows(const checker& check) const
    {
        for (index i = 0; rows && i < rows.extent(0); ++i) {
            check.require(rows(i) >= 0 && rows(i) < x.extent(0), "rows has ", index{rows(i)}, " at ", i, ", but x has ",
                          x.extent(0), " rows");
        }
        if (!counts && experts > 0) { return; }
        index sum = 0;
        for (index e = 0; e < counts.extent(0); ++e) {
            check.require(counts(e) >= 0, "counts has ", index{counts(e)}, " at ", e, ", but no group has fewer rows than ", 0);
            sum += counts(e);
        }
        check.equal(sum, total(), "counts' sum", rows ? "rows' length" : "x's number of rows");
    }

    void check_bias(const checker& check, const view<const float, 2>& bias, const char* name) const
    {
        if (!bias) { return; }
        if (counts) { check_extent(check, bias, name, 0, "number of rows", experts, "the number of experts"); }
        check_extent(check, bias, name, 1, counts ? "number of columns" : "length", out.extent(1), names[0].its_rows);
        check_apart(check, reach(out), "out", bias, name);
    }

    void check_bytes(const checker& check) const
    {
        check.require(bytes_in || !x_scale, "x_scale is given, but x holds no bytes");
        check.require(bytes_out || !what.out_scale, "out_scale is given, but out holds no bytes");
        check.require(what.out_scale || !what.out_zero_point, "out_zero_point is given, but out_scale is not");
        if (bytes_in) {
            check.require(static_cast<bool>(x_scale) || x.empty(), "x holds bytes, but x_scale is null");
            check.require(x_scale.extent(0) == 1 || x_scale.extent(0) == x.extent(0), "x_scale's length is ", x_scale.extent(0),
                          ", but x's number of rows is ", x.extent(0));
            check.require(compute == compute::int8, "x holds bytes, but compute is not int8");
            check.require(scales != activation_scales::blocks, "x holds bytes, which have a scale a row, but scales is blocks");
        }
        if (bytes_out) {
            check.require(static_cast<bool>(what.out_scale) || out.empty(), "out holds bytes, but out_scale is null");
            check.require(what.out_scale.extent(0) == 1 || what.out_scale.extent(0) == out.extent(1), "out_scale's length is ",
                          what.out_scale.extent(0), ", but out's number of columns is ", out.extent(1));
            if (what.out_zero_point) {
                check_extent(check, what.out_zero_point, "out_zero_point", 0, "length", what.out_scale.extent(0), "out_scale's");
            }
        }
        check_apart(check, reach(out), "out", x_scale, "x_scale"),
            check_apart(check, reach(out), "out", what.out_scale, "out_scale");
        check_apart(check, reach(out), "out", what.out_zero_point, "out_zero_point");
    }
};

/// Biases of rank 1 are those of one group.
inline view<const float, 2> bias_of_groups(const view<const float, 1>& bias) { return with_leading_axis(bias); }
inline view<const float, 2> bias_of_groups(const view<const float, 2>& bias) { return bias; }

} // namespace quant::detail
SEQMIX_NAMESPACE_END
