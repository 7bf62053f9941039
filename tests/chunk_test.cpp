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
#include <deque>
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

/// What two readers see of a chunk, and what it leaves of the state. `each`: a factor for each row; else one for all. V has `of_token` rows
/// for each token.
template <class Element>
void check_pass(index_type tokens, index_type states, index_type columns, bool each, index_type of_token = 1)
{
    using operands = tile::operand_tiles<test_arch, Element>;
    using word = typename tile::product<test_arch, Element>::word;
    CAPTURE(tokens, states, columns, each, of_token);
    random_source random(37);
    constexpr std::size_t readers = 2;
    const index_type padded_states = padded_row(states), depth = tokens * of_token, padded = padded_row(depth);
    const numbers before(random, states, width, width), V(random, depth, width, width), to_end(random, depth, width, width);
    const numbers K(random, depth, states, padded_states);
    const std::vector<float> from_start = random.normals(static_cast<std::size_t>(whole(tokens, rows_of_tile)));
    const std::vector<float> decay = random.normals(static_cast<std::size_t>(whole(states, rows_of_tile)));
    std::deque<numbers> Q, M;
    std::deque<words_of<Element>> Q_words, M_words;
    std::deque<guarded<float>> out;
    std::vector<tile::chunk_reader> read;
    for (std::size_t r = 0; r < readers; ++r) {
        Q.emplace_back(random, tokens, states, padded_states), M.emplace_back(random, tokens, depth, padded);
        for (index_type i = 0; i < tokens; ++i) { // what lies beyond a row's tile is not read: it stays NaN
            const index_type reach = (i / rows_of_tile * rows_of_tile + rows_of_tile) * of_token;
            for (index_type j = (i + 1) * of_token; j < padded; ++j) { M[r].memory[i * padded + j] = j < reach ? 0.0f : std::nanf(""); }
        }
        Q_words.emplace_back(tokens * padded_states / 2 + 1), M_words.emplace_back(tokens * padded / 2 + 1), out.emplace_back(tokens * width);
        read.push_back({operands::rows(Q[r].data(), tokens, padded_states, Q_words[r].data()),
                        operands::rows(M[r].data(), tokens, padded, M_words[r].data()), out[r].data()});
    }
    words_of<Element> S_words((tile::pass_rows<test_arch> + 1) / 2 * width), V_words((depth + 1) / 2 * width), end_words((depth + 1) / 2 * width);
    words_of<Element> K_words((depth + 1) / 2 * padded_states);
    guarded<float> S(states * width);
    std::copy(before.data(), before.data() + states * width, S.data());
    operands::joined(K.data(), depth, padded_states, padded_states, K_words.data());
    const tile::chunk_writer<word> written = {{operands::joined(V.data(), depth, width, columns, V_words.data()), width},
                                              of_token,
                                              operands::turned_left_of(K.data(), padded_states, K_words.data()),
                                              {operands::joined(to_end.data(), depth, width, columns, end_words.data()), width}};
    const numbers next(random, tokens, columns, columns);
    tile::lines_ahead ahead;
    ahead.add(tile::block<const float>{next.data(), columns, 1, tokens, columns});
    ahead.spread_over(tile::asks_of_pass<test_arch>(states, tokens, readers));
    if (each) {
        tile::pass_chunk<operands>(read.data(), readers, from_start.data(), written, tokens, decay.data(), states, columns, S.data(),
                                   S_words.data(), &ahead);
    } else {
        tile::pass_chunk<operands>(read.data(), readers, from_start[0], written, tokens, decay[0], states, columns, S.data(), S_words.data());
    }
    const auto factor = [&](const std::vector<float>& of, index_type row) { return static_cast<double>(of[static_cast<std::size_t>(each ? row : 0)]); };
    worst_error worst;
    for (std::size_t r = 0; r < readers; ++r) {
        for (index_type i = 0; i < tokens; ++i) {
            for (index_type c = 0; c < columns; ++c) {
                sum_of_products<Element> want;
                for (index_type n = 0; n < states; ++n) { want.add(Q[r](i, n), before(n, c)); }
                want.scale(factor(from_start, i));
                for (index_type j = 0; j < (i + 1) * of_token; ++j) { want.add(M[r](i, j), V(j, c)); }
                see(worst, out[r][i * width + c], want, i * width + c);
            }
        }
        CHECK((out[r].intact() && Q_words[r].intact() && M_words[r].intact()));
    }
    for (index_type n = 0; n < states; ++n) {
        for (index_type c = 0; c < columns; ++c) {
            sum_of_products<Element> want;
            want.add(before(n, c), factor(decay, n));
            for (index_type t = 0; t < depth; ++t) { want.add(K(t, n), to_end(t, c)); }
            see(worst, S[n * width + c], want, n * width + c);
        }
    }
    INFO(worst);
    CHECK(worst.error == 0.0);
    CHECK((S.intact() && K_words.intact() && V_words.intact() && end_words.intact() && S_words.intact()));
}

template <class Element>
void check_products()
{
    for (index_type tokens : lengths) {
        for (index_type states : lengths) { check_scores<Element>(tokens, states); }
        for (index_type columns : columns_of_panel) {
            for (const bool each : {false, true}) {
                check_pass<Element>(tokens, 7, columns, each), check_pass<Element>(7, tokens, columns, each);
                check_pass<Element>(tokens, 3, columns, each, 2);
            }
        }
    }
    // No states; in one block of rows and in several, the last one whole or not.
    constexpr index_type block = tile::pass_rows<test_arch>;
    for (index_type states : {index_type{0}, block - 1, block, block + 1, 2 * block, 2 * block + 7}) { check_pass<Element>(13, states, width, true); }
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
