// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <seqmix/tile/chunk_products.hpp>
#include <seqmix/tile/decay.hpp>
#include <seqmix/tile/operand_tiles.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

// What mixers make of a chunk of tokens: operands, products, decays.

using seqmix::bf16;
using index_type = seqmix::index;
using f32 = seqmix::simd::f32<test_arch>;
namespace tile = seqmix::tile;

namespace {

constexpr index_type lanes = seqmix::simd::lanes<test_arch>, rows_of_tile = tile::small_blocking<test_arch>::rows;
constexpr index_type width = tile::panel_width<test_arch>;
constexpr double unit_roundoff = 0x1p-24;

index_type whole(index_type n, index_type of) { return (n + of - 1) / of * of; }
/// Rows are whole registers, and whole words.
index_type padded_row(index_type n) { return whole(n, std::max(lanes, index_type{2})); }

/// A tile of random numbers that bf16 holds exactly; NaN in the padding, but for what fills a last word.
struct numbers {
    index_type rows, columns, stride;
    guarded<float> memory;

    numbers(random_source& random, index_type r, index_type c, index_type row_stride)
        : rows(r), columns(c), stride(row_stride), memory(r * row_stride)
    {
        for (index_type i = 0; i < rows; ++i) {
            for (index_type j = 0; j < columns; ++j) { memory[i * stride + j] = static_cast<float>(static_cast<bf16>(random.normal())); }
            if (columns % 2 != 0 && columns < stride) { memory[i * stride + columns] = 0.0f; }
        }
    }
    const float* data() const { return memory.data(); }
    double operator()(index_type r, index_type c) const { return static_cast<double>(memory[r * stride + c]); }
};

/// The words of a tile of so many rows, for operands that need any.
template <class Element>
using words_of = guarded<typename tile::product<test_arch, Element>::word>;

/// Σ terms, and Σ |terms| times the roundings that one of them goes through: one a step, two where a step is a word of two products.
template <class Element>
struct sum_of_products {
    double sum = 0.0, gross = 0.0;
    index_type terms = 0;

    void add(double a, double b) { sum += a * b, gross += std::fabs(a * b), ++terms; }
    void scale(double factor) { sum *= factor, gross *= std::fabs(factor), ++terms; }
    double bound() const { return static_cast<double>(terms * (sizeof(Element) == 2 ? 2 : 1) + 2) * unit_roundoff * gross; }
};

template <class Element>
void see(worst_error& worst, float got, const sum_of_products<Element>& want, index_type at)
{
    const double error = absolute_error(static_cast<double>(got), want.sum);
    worst.see(error <= want.bound() ? 0.0 : error, at, static_cast<double>(got), want.sum);
}

/// Lengths around those of tiles and registers, and primes.
const std::vector<index_type> lengths = {1, 2, rows_of_tile - 1, rows_of_tile, rows_of_tile + 1, 13, lanes + 1, 31};
const std::vector<index_type> columns_of_panel = {1, lanes, lanes + 1, width - 1, width};

template <class Element>
void check_scores(index_type tokens, index_type states)
{
    using operands = tile::operand_tiles<test_arch, Element>;
    CAPTURE(tokens, states);
    random_source random(31);
    const index_type padded_states = padded_row(states), padded = padded_row(tokens);
    const numbers Q(random, tokens, states, padded_states), turned_K(random, states, tokens, padded);
    words_of<Element> Q_words(tokens * padded_states / 2 + 1), K_words((states + 1) / 2 * padded);
    guarded<float> scores(tokens * padded);
    tile::chunk_scores<tile::product<test_arch, Element>>(
        operands::rows(Q.data(), tokens, padded_states, Q_words.data()),
        {operands::joined(turned_K.data(), states, padded, padded, K_words.data()), padded}, states, tokens, scores.data());
    worst_error worst;
    for (index_type i = 0; i < tokens; ++i) {
        for (index_type j = 0; j <= i; ++j) {
            sum_of_products<Element> want;
            for (index_type n = 0; n < states; ++n) { want.add(Q(i, n), turned_K(n, j)); }
            see(worst, scores[i * padded + j], want, i * padded + j);
        }
    }
    INFO(worst);
    CHECK(worst.error == 0.0);
    CHECK((scores.intact() && Q_words.intact() && K_words.intact()));
}

/// `each`: a factor for each row; else one for all. V has `of_token` rows for each token.
template <class Element>
void check_outputs(index_type tokens, index_type states, index_type columns, bool each, index_type of_token = 1)
{
    using operands = tile::operand_tiles<test_arch, Element>;
    using product = tile::product<test_arch, Element>;
    CAPTURE(tokens, states, columns, each, of_token);
    random_source random(37);
    const index_type padded_states = padded_row(states), depth = tokens * of_token, padded = padded_row(depth);
    const numbers Q(random, tokens, states, padded_states), S(random, states, width, width), V(random, depth, width, width);
    numbers M(random, tokens, depth, padded);
    for (index_type i = 0; i < tokens; ++i) { // what lies beyond a row's tile is not read: it stays NaN
        const index_type read = (i / rows_of_tile * rows_of_tile + rows_of_tile) * of_token;
        for (index_type j = (i + 1) * of_token; j < padded; ++j) { M.memory[i * padded + j] = j < read ? 0.0f : std::nanf(""); }
    }
    const std::vector<float> factor = random.normals(static_cast<std::size_t>(whole(tokens, rows_of_tile)));
    words_of<Element> Q_words(tokens * padded_states / 2 + 1), M_words(tokens * padded / 2 + 1);
    words_of<Element> S_words((states + 1) / 2 * width), V_words((depth + 1) / 2 * width);
    guarded<float> out(tokens * width);
    const numbers next(random, tokens, columns, columns);
    tile::lines_ahead ahead;
    ahead.add(tile::block<const float>{next.data(), columns, 1, tokens, columns});
    ahead.spread_over((tokens + rows_of_tile - 1) / rows_of_tile);
    const auto Q_operand = operands::rows(Q.data(), tokens, padded_states, Q_words.data());
    const auto M_operand = operands::rows(M.data(), tokens, padded, M_words.data());
    const tile::right_panel<typename product::word> S_panel = {operands::joined(S.data(), states, width, columns, S_words.data()), width};
    const tile::right_panel<typename product::word> V_panel = {operands::joined(V.data(), depth, width, columns, V_words.data()), width};
    if (each) {
        tile::chunk_outputs<product>(Q_operand, S_panel, states, factor.data(), M_operand, V_panel, tokens, columns, out.data(), &ahead,
                                     of_token);
    } else {
        tile::chunk_outputs<product>(Q_operand, S_panel, states, factor[0], M_operand, V_panel, tokens, columns, out.data(), nullptr,
                                     of_token);
    }
    worst_error worst;
    for (index_type i = 0; i < tokens; ++i) {
        for (index_type c = 0; c < columns; ++c) {
            sum_of_products<Element> want;
            for (index_type n = 0; n < states; ++n) { want.add(Q(i, n), S(n, c)); }
            want.scale(static_cast<double>(factor[static_cast<std::size_t>(each ? i : 0)]));
            for (index_type j = 0; j < (i + 1) * of_token; ++j) { want.add(M(i, j), V(j, c)); }
            see(worst, out[i * width + c], want, i * width + c);
        }
    }
    INFO(worst);
    CHECK(worst.error == 0.0);
    CHECK((out.intact() && Q_words.intact() && M_words.intact() && S_words.intact() && V_words.intact()));
}

template <class Element>
void check_state(index_type tokens, index_type states, index_type columns, bool each)
{
    using operands = tile::operand_tiles<test_arch, Element>;
    using product = tile::product<test_arch, Element>;
    CAPTURE(tokens, states, columns, each);
    random_source random(41);
    const index_type padded_states = padded_row(states);
    const numbers K(random, tokens, states, padded_states), before(random, states, width, width), V(random, tokens, width, width);
    const std::vector<float> factor = random.normals(static_cast<std::size_t>(whole(states, rows_of_tile)));
    words_of<Element> K_words((tokens + 1) / 2 * padded_states), V_words((tokens + 1) / 2 * width);
    guarded<float> S(states * width);
    std::copy(before.data(), before.data() + states * width, S.data());
    operands::joined(K.data(), tokens, padded_states, padded_states, K_words.data());
    const auto turned_K = operands::turned_left_of(K.data(), padded_states, K_words.data());
    const tile::right_panel<typename product::word> V_panel = {operands::joined(V.data(), tokens, width, columns, V_words.data()), width};
    if (each) {
        tile::chunk_state<product>(turned_K, V_panel, tokens, factor.data(), states, columns, S.data());
    } else {
        tile::chunk_state<product>(turned_K, V_panel, tokens, factor[0], states, columns, S.data());
    }
    worst_error worst;
    for (index_type n = 0; n < states; ++n) {
        for (index_type c = 0; c < columns; ++c) {
            sum_of_products<Element> want;
            want.add(before(n, c), static_cast<double>(factor[static_cast<std::size_t>(each ? n : 0)]));
            for (index_type t = 0; t < tokens; ++t) { want.add(K(t, n), V(t, c)); }
            see(worst, S[n * width + c], want, n * width + c);
        }
    }
    INFO(worst);
    CHECK(worst.error == 0.0);
    CHECK((S.intact() && K_words.intact() && V_words.intact()));
}

template <class Element>
void check_products()
{
    for (index_type tokens : lengths) {
        for (index_type states : lengths) { check_scores<Element>(tokens, states); }
        for (index_type columns : columns_of_panel) {
            for (const bool each : {false, true}) {
                check_outputs<Element>(tokens, 7, columns, each), check_state<Element>(tokens, 7, columns, each);
                check_outputs<Element>(7, tokens, columns, each), check_state<Element>(7, tokens, columns, each);
                check_outputs<Element>(tokens, 3, columns, each, 2);
            }
        }
    }
}

/// Log decays of a chunk in some unit, and what is left between two tokens in double, each sum on its own.
struct decays {
    std::vector<float> log;
    double to_log2;

    index_type tokens() const { return static_cast<index_type>(log.size()); }
    /// Σ over (from, to], of |log decays| in units of log2.
    double between(index_type from, index_type to) const
    {
        double sum = 0.0;
        for (index_type k = from + 1; k <= to; ++k) { sum += to_log2 * static_cast<double>(log[static_cast<std::size_t>(k)]); }
        return -sum;
    }
    /// Of cumulated_decays; what is below 2^-100 may be 0, and what a token decays by beyond 2^-256 counts as so much.
    bool fits(float got, index_type from, index_type to, double factor) const
    {
        const double gone = between(from, to), want = std::exp2(-gone);
        double all = 0.0;
        for (float b : log) { all += std::fmin(256.0, std::fabs(to_log2 * static_cast<double>(b))); }
        const double of_sum = (0x1p-46 + static_cast<double>(tokens()) * 0x1p-53) * all;
        const double bound = want * ((4.0 + 2.0 * gone) * unit_roundoff + of_sum) + unit_roundoff * want;
        if (gone >= 99.0) { return static_cast<double>(got) <= 0x1p-98 * factor && got >= 0.0f; }
        return absolute_error(static_cast<double>(got), want * factor) <= bound * factor;
    }
};

void check_decays(const decays& b)
{
    using matrix = tile::matrix<test_arch>;
    const index_type tokens = b.tokens(), padded = padded_row(tokens), room = tile::cumulated_decays<test_arch>::padded(tokens);
    CAPTURE(tokens, b.to_log2);
    random_source random(43);
    guarded<float> high(room), low(room), from_start(room), to_end(room), scaled(room), factor(padded);
    for (index_type i = 0; i < tokens; ++i) { factor[i] = 0.1f + random.unit(); }
    const tile::cumulated_decays<test_arch> cumulated = {high.data(), low.data()};
    cumulated.cumulate(b.log.data(), b.to_log2, tokens);
    cumulated.from_start(tokens, from_start.data());
    cumulated.to_end(tokens, nullptr, to_end.data());
    cumulated.to_end(tokens, factor.data(), scaled.data());

    guarded<float> scores(tokens * padded), plain(tokens * padded), weighted(tokens * padded);
    for (index_type i = 0; i < tokens; ++i) {
        for (index_type j = 0; j <= i; ++j) { scores[i * padded + j] = random.normal(); } // above the diagonal NaN
    }
    const matrix in = {scores.data(), tokens, tokens, padded};
    tile::decay_scores(in, cumulated, matrix{plain.data(), tokens, tokens, padded});
    tile::decay_scores(in, cumulated, factor.data(), matrix{weighted.data(), tokens, tokens, padded});

    bool starts = true, ends = true, below = true, above = true;
    for (index_type i = 0; i < tokens; ++i) {
        const double f = static_cast<double>(factor[i]);
        starts = starts && b.fits(from_start[i], -1, i, 1.0);
        ends = ends && b.fits(to_end[i], i, tokens - 1, 1.0) && b.fits(scaled[i], i, tokens - 1, f);
        for (index_type j = 0; j < i / rows_of_tile * rows_of_tile + rows_of_tile && j < padded; ++j) {
            const float got = plain[i * padded + j], got_weighted = weighted[i * padded + j];
            if (j > i) {
                above = above && got == 0.0f && got_weighted == 0.0f;
                continue;
            }
            const float sign = std::copysign(1.0f, scores[i * padded + j]);
            const double size = std::fabs(static_cast<double>(scores[i * padded + j]));
            below = below && b.fits(sign * got, j, i, size) && b.fits(sign * got_weighted, j, i, size * static_cast<double>(factor[j]));
        }
    }
    CHECK(starts);
    CHECK(ends);
    CHECK(below);
    CHECK(above);
    CHECK((high.intact() && low.intact() && from_start.intact() && to_end.intact() && scaled.intact()));
    CHECK((plain.intact() && weighted.intact()));
    tile::decay_scores(in, cumulated, in); // in place
    const index_type last_row = (tokens - 1) * padded;
    CHECK(std::equal(plain.data() + last_row, plain.data() + last_row + tokens, scores.data() + last_row));
}

template <class T>
void check_strided(index_type stride, index_type count)
{
    CAPTURE(stride, count);
    const index_type step = stride < 0 ? -stride : stride, room = lanes * step + 1;
    guarded<T> from(room), to(room);
    const index_type first = stride < 0 ? lanes * step : 0; // backwards from the end
    for (index_type i = 0; i < lanes; ++i) { from[first + i * stride] = static_cast<T>(static_cast<float>(i + 1)); }
    float got[lanes];
    const f32 x = tile::load_strided<test_arch>(from.data() + first, stride, count);
    x.store(got);
    tile::store_strided<test_arch>(x, to.data() + first, stride, count);
    bool loaded = true, stored = to.intact();
    for (index_type i = 0; i < lanes; ++i) {
        const float want = i < count ? static_cast<float>(i + 1) : 0.0f;
        loaded = loaded && got[i] == want;
        stored = stored && (i < count ? static_cast<float>(to[first + i * stride]) == want : to.untouched(first + i * stride));
    }
    for (index_type i = 0; i < room; ++i) {
        const bool between = (i - first) % stride != 0 || (i - first) / stride >= lanes;
        stored = stored && (!between || to.untouched(i));
    }
    CHECK(loaded);
    CHECK(stored);
}

} // namespace

TEST_CASE("products of a chunk are the products, decayed, and read no token that is not seen") { check_products<float>(); }

TEST_CASE("products of a chunk in words of bf16 are the products") { check_products<bf16>(); }

TEST_CASE("lines are asked for ahead of blocks whose columns lie together, however often")
{
    const std::vector<float> memory(64);
    tile::lines_ahead lines;
    lines.spread_over(3), lines.ask(); // of nothing
    for (const auto& block : {tile::block<const float>{memory.data(), 8, 1, 3, 5}, {memory.data(), 1, 8, 3, 5}, {nullptr, 8, 1, 0, 5}}) {
        for (int times = 0; times < 4; ++times) { lines.add(block); } // more than are taken
    }
    for (const index_type calls : {0, 1, 100}) {
        lines.spread_over(calls);
        for (index_type call = 0; call <= calls; ++call) { lines.ask(); }
    }
}

TEST_CASE("decays between tokens are those of the sums between them")
{
    random_source random(47);
    for (index_type tokens : lengths) {
        for (const double to_log2 : {1.0, 1.4426950408889634, -0.7}) {
            for (const float strength : {0.0f, 1e-3f, 1.0f, 30.0f}) {
                decays b = {random.uniforms(static_cast<std::size_t>(tokens), 0.0f, to_log2 < 0.0 ? strength : -strength), to_log2};
                check_decays(b);
                // What a strong decay leaves behind it is as exact as before.
                b.log[b.log.size() / 2] = to_log2 < 0.0 ? 1e30f : -1e30f;
                check_decays(b);
                b.log[b.log.size() / 3] = to_log2 < 0.0 ? 1e4f : -1e4f;
                check_decays(b);
            }
        }
    }
}

TEST_CASE("a decay that is not a number reaches what is decayed by it, and nothing else")
{
    constexpr index_type tokens = 13, bad = 5;
    const index_type padded = padded_row(tokens), room = tile::cumulated_decays<test_arch>::padded(tokens);
    std::vector<float> log(tokens, -0.25f);
    log[bad] = std::nanf("");
    guarded<float> high(room), low(room), from_start(room), weights(tokens * padded);
    std::vector<float> scores(static_cast<std::size_t>(tokens * padded), 1.0f);
    const tile::cumulated_decays<test_arch> cumulated = {high.data(), low.data()};
    cumulated.cumulate(log.data(), 1.0, tokens);
    cumulated.from_start(tokens, from_start.data());
    tile::decay_scores({scores.data(), tokens, tokens, padded}, cumulated, tile::matrix<test_arch>{weights.data(), tokens, tokens, padded});
    bool right = true;
    for (index_type i = 0; i < tokens; ++i) {
        right = right && std::isnan(from_start[i]) == (i >= bad);
        for (index_type j = 0; j <= i; ++j) { right = right && (i >= bad || !std::isnan(weights[i * padded + j])); }
        right = right && std::isnan(weights[i * padded]) == (i >= bad);
    }
    CHECK(right);
}

TEST_CASE("up to a register's numbers are loaded and stored with any stride")
{
    for (const index_type stride : {1, -1, 2, -3}) {
        for (const index_type count : {index_type{0}, index_type{1}, lanes - 1, lanes, lanes + 5}) {
            check_strided<float>(stride, count), check_strided<bf16>(stride, count), check_strided<seqmix::f16>(stride, count);
        }
    }
}
