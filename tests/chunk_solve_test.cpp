// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/tile/chunk_solve.hpp>
#include <seqmix/tile/row_products.hpp>

#include <cmath>
#include <vector>

// What delta rules make of a chunk: products of rows with rows, and a triangular system.

using index_type = seqmix::index;
namespace tile = seqmix::tile;

namespace {

using product = tile::product<test_arch, float>;
constexpr index_type lanes = seqmix::simd::lanes<test_arch>, tile_rows = tile::small_blocking<test_arch>::rows;
constexpr index_type width = tile::panel_width<test_arch>;
constexpr double unit_roundoff = 0x1p-24;
const std::vector<index_type> lengths = {0, 1, 2, tile_rows - 1, tile_rows, tile_rows + 1, 13, 31};

/// Rows of whole registers, zeros behind `columns`.
guarded<float>& filled(guarded<float>& rows, index_type count, index_type columns, index_type stride, random_source& random)
{
    for (index_type i = 0; i < count; ++i) {
        for (index_type c = 0; c < stride; ++c) { rows[i * stride + c] = c < columns ? random.normal() : 0.0f; }
    }
    return rows;
}

void check_row_products(index_type rows, index_type columns, index_type depth, bool lower)
{
    CAPTURE(rows, columns, depth, lower);
    random_source random(5);
    const index_type stride = (depth + lanes - 1) / lanes * lanes, row_stride = 2 * columns + 1;
    guarded<float> left(rows * stride), right(columns * stride), out(rows * row_stride);
    filled(left, rows, depth, stride, random), filled(right, columns, depth, stride, random);
    const tile::row_block a = {left.data(), stride, rows}, b = {right.data(), stride, columns};
    const tile::element_block to = {out.data() + 1, row_stride, 2}; // every other element
    lower ? tile::lower_row_products<test_arch>(a, b, stride, to) : tile::row_products<test_arch>(a, b, stride, to);
    index_type wrong = 0;
    for (index_type i = 0; i < rows; ++i) {
        for (index_type j = 0; j < columns; ++j) {
            double sum = 0.0, gross = 0.0;
            for (index_type d = 0; d < depth; ++d) {
                const double term = static_cast<double>(left[i * stride + d]) * static_cast<double>(right[j * stride + d]);
                sum += term, gross += std::fabs(term);
            }
            const double bound = (static_cast<double>(stride / lanes) + std::log2(static_cast<double>(lanes)) + 1.0) * unit_roundoff * gross;
            const bool is = absolute_error(static_cast<double>(out[1 + i * row_stride + 2 * j]), sum) <= bound;
            wrong += (!lower || j <= i) && !is;
        }
        for (index_type j = 0; j < row_stride; j += 2) { wrong += !out.untouched(i * row_stride + j); }
    }
    CHECK(wrong == 0);
    CHECK(out.intact());
}

/// (1 - L) X = K S + diag(factor) V, by the definition in double; the bound by the same system of absolute values (Higham 2002,
/// theorem 8.5).
void check_solve(index_type tokens, index_type states, index_type columns)
{
    CAPTURE(tokens, states, columns);
    random_source random(6);
    const index_type stride = tokens + tile_rows, x_stride = 2 * width; // every other row is somebody else's
    guarded<float> K(tokens * (states + 1)), S(states * width), V((tokens + tile_rows) * width), X(tokens * x_stride);
    guarded<float> L((tokens + tile_rows) * stride); // NaN on the diagonal and above
    filled(K, tokens, states, states + 1, random), filled(S, states, width, width, random), filled(V, tokens, width, width, random);
    const std::vector<float> factor = random.normals(static_cast<std::size_t>(tokens + tile_rows));
    for (index_type i = 0; i < tokens; ++i) {
        for (index_type j = 0; j < i; ++j) { L[i * stride + j] = 0.3f * random.normal(); }
    }
    const float *const v = V.data(), *const f = factor.data();
    tile::chunk_solve<product>(
        tile::left_operand::of(K.data(), states + 1, 1), {S.data(), width}, states,
        [=](auto& sum, index_type row, index_type live) { sum.add_rows(v + row * width, width, live, f + row); }, {L.data(), stride, 1}, tokens,
        columns, X.data(), x_stride);
    index_type wrong = 0;
    for (index_type c = 0; c < columns; ++c) {
        std::vector<double> x, error;
        for (index_type i = 0; i < tokens; ++i) {
            double sum = static_cast<double>(factor[static_cast<std::size_t>(i)]) * static_cast<double>(V[i * width + c]), gross = std::fabs(sum), from = 0.0;
            const auto add = [&](double a, double b) { sum += a * b, gross += std::fabs(a * b); };
            for (index_type n = 0; n < states; ++n) { add(static_cast<double>(K[i * (states + 1) + n]), static_cast<double>(S[n * width + c])); }
            for (index_type j = 0; j < i; ++j) {
                const double l = static_cast<double>(L[i * stride + j]);
                add(l, x[static_cast<std::size_t>(j)]), from += std::fabs(l) * error[static_cast<std::size_t>(j)];
            }
            x.push_back(sum), error.push_back(from + static_cast<double>(states + i + 2) * unit_roundoff * (gross + from));
            wrong += !(absolute_error(static_cast<double>(X[i * x_stride + c]), sum) <= error.back());
        }
    }
    for (index_type i = 0; i < tokens; ++i) {
        for (index_type c = width; c < x_stride; ++c) { wrong += !X.untouched(i * x_stride + c); }
    }
    CHECK(wrong == 0);
    CHECK(X.intact());
}

} // namespace

TEST_CASE("products of rows with rows are the products, and stand where they should")
{
    for (index_type rows : lengths) {
        for (index_type columns : lengths) {
            for (index_type depth : {index_type{1}, lanes, lanes + 1, index_type{37}}) {
                check_row_products(rows, columns, depth, false);
                if (rows == columns) { check_row_products(rows, columns, depth, true); }
            }
        }
    }
}

TEST_CASE("rows that depend on the rows before them are found one after another")
{
    for (index_type tokens : lengths) {
        for (index_type states : {index_type{1}, index_type{7}, index_type{33}}) {
            for (index_type columns : {index_type{1}, lanes, width - 1, width}) { check_solve(tokens, states, columns); }
        }
    }
}
