// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/tile/gemm.hpp>
#include <seqmix/tile/map.hpp>
#include <seqmix/tile/reduce.hpp>
#include <seqmix/tile/register_tile.hpp>
#include <seqmix/tile/triangular.hpp>

#include <stdexcept>
#include <vector>

using seqmix::bf16;
using seqmix::f16;
using seqmix::view;
using index_type = seqmix::index;
using f32 = seqmix::simd::f32<test_arch>;
namespace tile = seqmix::tile;

namespace {

constexpr int lanes = seqmix::simd::lanes<test_arch>;
constexpr int width = tile::blocking<test_arch>::columns;

template <class T>
T element(random_source& random)
{
    if constexpr (std::is_same_v<T, std::int8_t>) {
        return static_cast<std::int8_t>(random.integer(-128, 127));
    } else {
        return static_cast<T>(random.normal());
    }
}

template <class T>
double number(T x)
{
    if constexpr (std::is_same_v<T, std::int8_t>) {
        return static_cast<double>(x);
    } else {
        return static_cast<double>(static_cast<float>(x));
    }
}

struct layout {
    const char* name;
    bool transposed_a, transposed_b;
    index_type gap; // between rows, in elements
};

/// One product against the definition in double. For float sums |error| <= (K + 2) u Σ|a b| (Higham 2002, section 3.5,
/// with one more for C); for bf16 a word's two products may be rounded on their own, which doubles the count, and the
/// instruction may flush products below 2^-126, which normal numbers' products never are. int8 is exact.
template <class T, class Acc>
void check_product(index_type m, index_type n, index_type k, const layout& how, bool accumulate)
{
    CAPTURE(m, n, k, how.name, accumulate);
    random_source random(static_cast<std::uint64_t>(m * 10007 + n * 101 + k));
    const auto operand = [&](index_type rows, index_type columns, bool transposed, std::vector<T>& memory) {
        const index_type inner = (transposed ? rows : columns) + how.gap, outer = transposed ? columns : rows;
        memory.resize(static_cast<std::size_t>(inner * outer + 1));
        for (T& x : memory) { x = element<T>(random); }
        const std::array<index_type, 2> shape = {rows, columns};
        const std::array<index_type, 2> strides = transposed ? std::array<index_type, 2>{1, inner}
                                                             : std::array<index_type, 2>{inner, 1};
        return view<const T, 2>(memory.data() + 1, shape, strides); // one element off any border
    };
    std::vector<T> memory_a, memory_b;
    const auto a = operand(m, k, how.transposed_a, memory_a);
    const auto b = operand(k, n, how.transposed_b, memory_b);
    const index_type stride = n + 3;
    guarded<Acc> memory_c(m * stride, sizeof(Acc));
    std::vector<double> before(static_cast<std::size_t>(m * n));
    for (index_type i = 0; i < m * stride; ++i) { memory_c[i] = static_cast<Acc>(random.integer(-50, 50)); }
    const view<Acc, 2> c(memory_c.data(), {m, n}, {stride, index_type{1}});
    std::vector<Acc> padding;
    for (index_type i = 0; i < m; ++i) {
        for (index_type j = 0; j < n; ++j) { before[static_cast<std::size_t>(i * n + j)] = accumulate ? static_cast<double>(c(i, j)) : 0.0; }
        for (index_type j = n; j < stride; ++j) { padding.push_back(memory_c[i * stride + j]); }
    }

    seqmix::workspace scratch;
    tile::gemm<test_arch>(a, b, c, scratch, accumulate);

    worst_error worst;
    for (index_type i = 0; i < m; ++i) {
        for (index_type j = 0; j < n; ++j) {
            double sum = before[static_cast<std::size_t>(i * n + j)], magnitude = std::fabs(sum);
            for (index_type d = 0; d < k; ++d) {
                const double product = number(a(i, d)) * number(b(d, j));
                sum += product;
                magnitude += std::fabs(product);
            }
            const double steps = static_cast<double>(std::is_same_v<T, bf16> ? 2 * k + 2 : k + 2);
            const double bound = std::is_same_v<T, std::int8_t> ? 0.0 : steps * 0x1p-24 * magnitude;
            const double error = absolute_error(static_cast<double>(c(i, j)), sum);
            worst.see(error <= bound ? 0.0 : error, i * n + j, static_cast<double>(c(i, j)), sum);
        }
    }
    INFO(worst);
    CHECK(worst.error == 0.0);
    CHECK(memory_c.intact());
    std::size_t at = 0;
    bool padding_kept = true;
    for (index_type i = 0; i < m; ++i) {
        for (index_type j = n; j < stride; ++j) { padding_kept = padding_kept && memory_c[i * stride + j] == padding[at++]; }
    }
    CHECK(padding_kept);
}

template <class T, class Acc>
void check_products()
{
    const layout layouts[] = {{"row-major", false, false, 0}, {"both transposed", true, true, 5}, {"b transposed", false, true, 0}};
    const index_type sizes[] = {1, 2, lanes, lanes + 1, 13, width - 1, width, width + 1, 2 * width + lanes + 3};
    for (const layout& how : layouts) {
        for (index_type n : sizes) { check_product<T, Acc>(11, n, 7, how, false); }
        for (index_type k : {index_type{0}, index_type{1}, index_type{3}, index_type{4}, index_type{63}}) { check_product<T, Acc>(9, 2 * lanes + 1, k, how, true); }
        for (index_type m : {1, 3, 4, 7, 8, 9}) { check_product<T, Acc>(m, lanes, 5, how, false); }
    }
    // Beyond one block along every axis.
    using blocks = tile::gemm_blocking<test_arch>;
    const index_type deep = blocks::depth_words * tile::word_group<T> + 5;
    check_product<T, Acc>(blocks::rows + 3, 5, 9, layouts[0], false);
    check_product<T, Acc>(5, 7, deep, layouts[0], false);
    check_product<T, Acc>(5, 7, 2 * deep, layouts[1], true);
    check_product<T, Acc>(2, blocks::columns + 5, 3, layouts[0], true);
    check_product<T, Acc>(10, 20, 30, {"rows on one set of the cache", false, false, 4096 - 30}, false);
}

} // namespace

TEST_CASE("gemm of float is the product")
{
    check_products<float, float>();
}

TEST_CASE("gemm of bf16 is the product")
{
    check_products<bf16, float>();
}

TEST_CASE("gemm of int8 is the product, exactly")
{
    check_products<std::int8_t, std::int32_t>();
}

TEST_CASE("gemm of int8 does not saturate")
{
    constexpr index_type depth = 517;
    for (const int x : {-128, 127}) {
        for (const int y : {-128, 127}) {
            std::vector<std::int8_t> a(static_cast<std::size_t>(depth), static_cast<std::int8_t>(x)), b(static_cast<std::size_t>(depth), static_cast<std::int8_t>(y));
            std::int32_t c = 0;
            seqmix::workspace scratch;
            tile::gemm<test_arch>(view(a.data(), {index_type{1}, depth}), view(b.data(), {depth, index_type{1}}), view(&c, {1, 1}), scratch);
            CHECK(c == depth * x * y);
        }
    }
}

TEST_CASE("gemm refuses shapes that do not fit, and says which")
{
    float numbers[64] = {};
    seqmix::workspace scratch;
    const auto refusal = [&](const view<float, 2>& a, const view<float, 2>& b, const view<float, 2>& c) {
        try {
            tile::gemm<test_arch>(a, b, c, scratch);
        } catch (const std::invalid_argument& e) {
            return std::string(e.what());
        }
        return std::string("accepted");
    };
    CHECK(refusal(view(numbers, {2, 3}), view(numbers, {4, 2}), view(numbers, {2, 2})) == "tile::gemm: b's depth is 4, but a's is 3");
    CHECK(refusal(view(numbers, {2, 3}), view(numbers, {3, 2}), view(numbers, {5, 2})) == "tile::gemm: c's rows is 5, but a's is 2");
    CHECK(refusal(view(numbers, {2, 3}), view(numbers, {3, 2}), view(numbers, {2, 2}, {1, 2})) == "tile::gemm: c's columns have stride 2, but must have 1");
}

namespace {

/// What a lane of an operand holds: a float, or a pair along the depth of which the first stands lower.
template <class Element>
auto word_of(const Element* pair, index_type count)
{
    if constexpr (std::is_same_v<Element, float>) {
        static_cast<void>(count);
        return pair[0];
    } else {
        return static_cast<std::int32_t>(pair[0].bits | (count > 1 ? static_cast<std::uint32_t>(pair[1].bits) << 16 : 0u));
    }
}

/// S = (diag(f) (factor S + L1 R1)) + L2 R2 of `live` rows and Vectors registers, against double. A float product of depth
/// d is off by d u of the sums of absolute values, one of bf16 by twice as much (see above), each scaling by u.
template <class Element, int Vectors>
void check_register_tile(index_type live, index_type depth, bool turned, bool from_memory)
{
    using product = tile::product<test_arch, Element>;
    using word = typename product::word;
    constexpr int rows = tile::small_blocking<test_arch>::rows, columns = Vectors * lanes, group = product::group;
    CAPTURE(Vectors, live, depth, turned, from_memory);
    random_source random(static_cast<std::uint64_t>(live * 1009 + depth * 31 + Vectors));
    const index_type first = 2, words = tile::depth_words<product>(depth), stride = columns + 3, left_rows = first + live;
    // The left operand ends with its last live row; what lies above the first row is not to be read either: NaN.
    const auto element_at = [&](std::vector<Element>& of, index_type r, index_type d) -> Element& {
        return of[static_cast<std::size_t>(r * words * group + d)];
    };
    std::vector<Element> left_numbers(static_cast<std::size_t>(left_rows * words * group)),
        right_numbers(static_cast<std::size_t>(columns * words * group));
    for (index_type r = 0; r < left_rows; ++r) {
        for (index_type d = 0; d < words * group; ++d) {
            element_at(left_numbers, r, d) = r < first   ? Element(std::numeric_limits<float>::quiet_NaN())
                                             : d < depth ? element<Element>(random)
                                                         : Element(0.0f);
        }
    }
    for (index_type c = 0; c < columns; ++c) {
        for (index_type d = 0; d < words * group; ++d) {
            element_at(right_numbers, c, d) = d < depth ? element<Element>(random) : Element(0.0f);
        }
    }
    const index_type row_stride = turned ? 1 : words, depth_stride = turned ? left_rows : 1;
    at_the_edge<word> left(left_rows * words);
    at_the_edge<word> right(words == 0 ? 0 : (words - 1) * stride + columns);
    for (index_type s = 0; s < words; ++s) {
        for (index_type r = 0; r < left_rows; ++r) {
            left[r * row_stride + s * depth_stride] = word_of(&element_at(left_numbers, r, s * group), group);
        }
        for (index_type c = 0; c < columns; ++c) {
            right[s * stride + c] = word_of(&element_at(right_numbers, c, s * group), group);
        }
    }
    std::vector<float> before(static_cast<std::size_t>(rows * columns)), factors(rows);
    for (float& x : before) { x = random.normal(); }
    for (float& x : factors) { x = random.normal(); }
    at_the_edge<float> start((live - 1) * columns + columns), result_end((live - 1) * stride + columns);
    for (index_type i = 0; i < live * columns; ++i) { start[i] = before[static_cast<std::size_t>(i)]; }
    const float factor = 0.3f;

    using register_tile = tile::register_tile<product, Vectors>;
    register_tile sum = from_memory ? register_tile(start.data(), columns, live) : register_tile();
    const auto operand = tile::left_operand::of(left.data(), row_stride, depth_stride);
    sum.scale(factor);
    sum.add_product(operand, first, live, {right.data(), stride}, words);
    sum.scale_rows(factors.data());
    sum.add_product(operand, first, live, {right.data(), stride}, words);
    guarded<float> result(rows * stride);
    sum.store(result.data(), stride, live);
    sum.store(result_end.data(), stride, live); // a fault is what fails

    worst_error worst;
    for (index_type r = 0; r < live; ++r) {
        for (index_type c = 0; c < columns; ++c) {
            double dot = 0.0, size = 0.0;
            for (index_type d = 0; d < depth; ++d) {
                const double term =
                    number(element_at(left_numbers, first + r, d)) * number(element_at(right_numbers, c, d));
                dot += term, size += std::fabs(term);
            }
            const double begin = from_memory ? static_cast<double>(factor) *
                                                   static_cast<double>(before[static_cast<std::size_t>(r * columns + c)])
                                             : 0.0;
            const double f = static_cast<double>(factors[static_cast<std::size_t>(r)]), want = f * (begin + dot) + dot;
            const double gross = std::fabs(f) * (std::fabs(begin) + size) + size;
            const double steps = static_cast<double>(2 * depth * (group > 1 ? 2 : 1) + 3);
            const double got = static_cast<double>(result[r * stride + c]), error = absolute_error(got, want);
            worst.see(error <= steps * 0x1p-24 * gross ? 0.0 : error, r * columns + c, got, want);
        }
    }
    INFO(worst);
    CHECK(worst.error == 0.0);
    CHECK(result.intact());
    bool kept = true;
    for (index_type i = 0; i < result.size(); ++i) {
        kept = kept && (i / stride < live && i % stride < columns ? true : result.untouched(i));
    }
    CHECK(kept);
}

template <class Element>
void check_register_tiles()
{
    seqmix::simd::unroll<tile::small_blocking<test_arch>::vectors>([](auto v) {
        for (index_type live = 1; live <= tile::small_blocking<test_arch>::rows; ++live) {
            for (index_type depth : {0, 1, 2, 3, 8, 63}) {
                for (const bool turned : {false, true}) {
                    check_register_tile<Element, v + 1>(live, depth, turned, depth != 3);
                }
            }
        }
    });
}

} // namespace

TEST_CASE("a register tile adds products of every live size, and touches nothing else") { check_register_tiles<float>(); }

TEST_CASE("a register tile adds products of bf16") { check_register_tiles<bf16>(); }

TEST_CASE("a number of registers becomes a constant, once")
{
    for (int n = 0; n <= tile::small_blocking<test_arch>::vectors + 1; ++n) {
        int calls = 0, last = 0;
        tile::with_vectors<test_arch>(n, [&](auto vectors) { ++calls, last = vectors; });
        const bool exists = n >= 1 && n <= tile::small_blocking<test_arch>::vectors;
        CHECK(calls == (exists ? 1 : 0));
        CHECK(last == (exists ? n : 0));
    }
}

TEST_CASE("the lanes of each register of a square are summed")
{
    random_source random(23);
    for (int bad = -1; bad < lanes; ++bad) { // a NaN reaches its own register's sum
        f32 square[lanes];
        double want[lanes], size[lanes];
        for (int i = 0; i < lanes; ++i) {
            float row[lanes];
            want[i] = size[i] = 0.0;
            for (int c = 0; c < lanes; ++c) {
                row[c] = random.normal();
                want[i] += static_cast<double>(row[c]), size[i] += std::fabs(static_cast<double>(row[c]));
            }
            if (i == bad) { row[(i * 5) % lanes] = std::numeric_limits<float>::quiet_NaN(); }
            square[i] = f32::load(row);
        }
        float sums[lanes];
        tile::row_sums<test_arch>(square).store(sums);
        int halvings = 0;
        while ((1 << halvings) < lanes) { ++halvings; }
        bool right = true;
        for (int i = 0; i < lanes; ++i) {
            right = right && (i == bad ? std::isnan(sums[i])
                                       : std::fabs(static_cast<double>(sums[i]) - want[i]) <= halvings * 0x1p-24 * size[i]);
        }
        CHECK(right);
    }
}

TEST_CASE("columns are loaded and stored with any stride, count and type")
{
    random_source random(7);
    const auto check = [&](auto zero, index_type count, index_type stride) {
        using T = decltype(zero);
        CAPTURE(count, stride);
        std::vector<guarded<T>*> owned;
        const T* rows[lanes];
        T* back[lanes];
        std::vector<std::vector<T>> memory(lanes), result(lanes);
        for (int lane = 0; lane < lanes; ++lane) {
            const auto n = static_cast<std::size_t>(count * stride + 1);
            memory[static_cast<std::size_t>(lane)].resize(n);
            result[static_cast<std::size_t>(lane)].assign(n, T(-7.0f));
            for (T& x : memory[static_cast<std::size_t>(lane)]) { x = element<T>(random); }
            const bool empty = lane == lanes / 2 && lanes > 1;
            rows[lane] = empty ? nullptr : memory[static_cast<std::size_t>(lane)].data();
            back[lane] = empty ? nullptr : result[static_cast<std::size_t>(lane)].data();
        }
        guarded<float> turned(count * lanes);
        tile::load_columns<test_arch>(rows, stride, count, turned.data(), lanes);
        bool right = turned.intact();
        for (index_type s = 0; s < count; ++s) {
            for (int lane = 0; lane < lanes; ++lane) {
                const float want = rows[lane] == nullptr ? 0.0f : static_cast<float>(rows[lane][s * stride]);
                right = right && turned[s * lanes + lane] == want;
            }
        }
        CHECK(right);
        tile::store_columns<test_arch, T>(turned.data(), lanes, count, f32::broadcast(2.0f), back, stride);
        bool stored = true;
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            for (index_type i = 0; i <= count * stride; ++i) {
                const auto at = static_cast<std::size_t>(i);
                const bool written = back[lane] != nullptr && i % stride == 0 && i / stride < count;
                const T want = written ? static_cast<T>(2.0f * static_cast<float>(memory[lane][at])) : T(-7.0f);
                stored = stored && result[lane][at] == want;
            }
        }
        CHECK(stored);
    };
    for (index_type count : {0, 1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2}) {
        for (index_type stride : {1, 3}) {
            check(0.0f, count, stride);
            check(bf16(0.0f), count, stride);
            check(f16(0.0f), count, stride);
        }
    }
}

TEST_CASE("narrow elements are packed into words along the row and across rows")
{
    random_source random(11);
    const auto check = [&](auto zero, index_type count, index_type stride) {
        using T = decltype(zero);
        constexpr int group = tile::word_group<T>;
        CAPTURE(count, stride, group);
        std::vector<T> rows(static_cast<std::size_t>(group * (count * stride + 5)));
        for (T& x : rows) { x = element<T>(random); }
        const index_type row_stride = count * stride + 5, words = (count + group - 1) / group;
        const auto part = [](std::int32_t word, int place) {
            return static_cast<std::uint32_t>(word) >> (place * 32 / group) & (group == 2 ? 0xffffu : 0xffu);
        };

        guarded<std::int32_t> along(words);
        tile::copy_row<test_arch>(rows.data(), stride, count, along.data());
        bool right = along.intact();
        for (index_type i = 0; i < words * group; ++i) {
            const auto want = i < count ? tile::detail::bits_of(rows[static_cast<std::size_t>(i * stride)]) : 0u;
            right = right && part(along[i / group], static_cast<int>(i % group)) == want;
        }
        CHECK(right);

        for (index_type live = 1; live <= group; ++live) {
            guarded<std::int32_t> across(count);
            tile::join_rows<test_arch>(rows.data(), row_stride, live, stride, count, across.data());
            right = across.intact();
            for (index_type i = 0; i < count; ++i) {
                for (int row = 0; row < group; ++row) {
                    const auto want = row < live ? tile::detail::bits_of(rows[static_cast<std::size_t>(row * row_stride + i * stride)]) : 0u;
                    right = right && part(across[i], row) == want;
                }
            }
            CHECK(right);
        }
    };
    for (index_type count : {1, 2, 3, lanes, 2 * lanes + 1, 4 * lanes, 4 * lanes + 3}) {
        for (index_type stride : {1, 2}) {
            check(bf16(0.0f), count, stride);
            check(std::int8_t{0}, count, stride);
        }
    }
}

TEST_CASE("a block is known to be finite or not, wherever the culprit stands")
{
    constexpr index_type rows = 5, columns = 2 * lanes + 3;
    std::vector<float> block(rows * columns, 3e38f);
    const auto finite = [&] { return tile::all_finite<test_arch>(block.data(), rows, columns, columns, index_type{1}); };
    CHECK(finite());
    for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        bool all_found = true;
        for (float& x : block) {
            x = bad;
            all_found = all_found && !finite();
            x = 3e38f;
        }
        CHECK(all_found);
    }
}

TEST_CASE("elementwise verbs and row reductions")
{
    random_source random(13);
    for (index_type columns : {1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2}) {
        if (columns == 0) { continue; }
        CAPTURE(columns);
        constexpr index_type rows = 4;
        seqmix::workspace memory;
        seqmix::arena arena(memory.reserve(4096 + 3 * 4 * rows * sizeof(float) * static_cast<std::size_t>(columns + lanes)));
        using matrix = tile::matrix<test_arch>;
        const matrix x = matrix::take(arena, rows, columns), y = matrix::take(arena, rows, columns), z = matrix::take(arena, rows, columns);
        tile::fill(x, 1e30f); // padding that would be seen in sums and maxima
        tile::fill(y, 0.0f);
        const float of_row[rows] = {1.0f, -2.0f, 0.5f, 4.0f};
        for (index_type r = 0; r < rows; ++r) {
            for (index_type c = 0; c < columns; ++c) { x(r, c) = random.normal(), y(r, c) = random.normal(); }
        }
        tile::map(z, [](f32 a, f32 b) { return fma(a, b, a); }, x, y);
        float sums[rows], maxima[rows];
        tile::row_sums(x, sums);
        tile::row_maxima(x, maxima);
        for (index_type r = 0; r < rows; ++r) {
            double sum = 0.0, size = 0.0;
            float top = -std::numeric_limits<float>::infinity();
            for (index_type c = 0; c < columns; ++c) {
                const double want = static_cast<double>(x(r, c)) * static_cast<double>(y(r, c)) + static_cast<double>(x(r, c));
                CHECK(ulp_error(z(r, c), want) <= 0.5000001);
                sum += static_cast<double>(x(r, c));
                size += std::fabs(static_cast<double>(x(r, c)));
                top = std::max(top, x(r, c));
            }
            CHECK(std::fabs(static_cast<double>(sums[r]) - sum) <= static_cast<double>(columns + 4) * 0x1p-24 * size);
            CHECK(maxima[r] == top);
        }
        tile::map_rows(z, [](f32 a, f32 b) { return a * b; }, x, of_row);
        for (index_type r = 0; r < rows; ++r) { CHECK(z(r, columns - 1) == x(r, columns - 1) * of_row[r]); }
    }
}

TEST_CASE("unit lower triangular solve and inverse")
{
    random_source random(17);
    for (index_type n : {1, 2, 7, 16, 33, 64}) {
        CAPTURE(n);
        constexpr index_type m = 2 * lanes + 1;
        seqmix::workspace memory;
        seqmix::arena arena(memory.reserve(static_cast<std::size_t>((3 * n + 4) * (n + m + 3 * lanes)) * sizeof(float) + 4096));
        using matrix = tile::matrix<test_arch>;
        const matrix lower = matrix::take(arena, n, n), b = matrix::take(arena, n, m), inverse = matrix::take(arena, n, n);
        std::vector<double> right(static_cast<std::size_t>(n * m)), identity(static_cast<std::size_t>(n * n), 0.0);
        for (index_type r = 0; r < n; ++r) {
            for (index_type c = 0; c < lower.stride; ++c) { lower(r, c) = std::numeric_limits<float>::quiet_NaN(); } // not to be read
            for (index_type c = 0; c < r; ++c) { lower(r, c) = 0.3f * random.normal(); }
            for (index_type c = 0; c < b.stride; ++c) { b(r, c) = 0.0f; }
            for (index_type c = 0; c < m; ++c) { right[static_cast<std::size_t>(r * m + c)] = static_cast<double>(b(r, c) = random.normal()); }
            identity[static_cast<std::size_t>(r * n + r)] = 1.0;
        }
        tile::solve_unit_lower(lower, b);
        tile::invert_unit_lower(lower, inverse);
        // |L x - b| <= n u |L||x| (Higham 2002, theorem 8.5), element by element.
        const auto solved = [&](const matrix& x, const std::vector<double>& want, index_type columns) {
            bool all = true;
            for (index_type r = 0; r < n; ++r) {
                for (index_type c = 0; c < columns; ++c) {
                    double sum = static_cast<double>(x(r, c)), size = std::fabs(sum);
                    for (index_type j = 0; j < r; ++j) {
                        const double product = static_cast<double>(lower(r, j)) * static_cast<double>(x(j, c));
                        sum += product;
                        size += std::fabs(product);
                    }
                    all = all && std::fabs(sum - want[static_cast<std::size_t>(r * columns + c)]) <= static_cast<double>(n) * 0x1p-24 * size;
                }
            }
            return all;
        };
        CHECK(solved(b, right, m));
        CHECK(solved(inverse, identity, n));
    }
}
