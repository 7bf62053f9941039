// SPDX-License-Identifier: MIT

// The verbs of simd/vec.hpp over bytes, four in a lane, against plain integers.

#include "support/catch.hpp"
#include "support/lanes.hpp"
#include "support/random.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

namespace {

/// Four int8 in a lane, the left operand as packing stores it.
std::int32_t packed_int8(const int (&q)[4], int offset)
{
    std::uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) { bits |= static_cast<std::uint32_t>((q[i] + offset) & 0xff) << (8 * i); }
    return static_cast<std::int32_t>(bits);
}

using four = std::array<int, 4>;

std::int32_t packed(const four& bytes)
{
    return packed_int8({bytes[0], bytes[1], bytes[2], bytes[3]}, 0);
}

/// Steps of dot_short, one after another, each a pair of 16-bit sums; in the lists, then in the sums that are wanted.
struct short_sums {
    integers codes, bytes;
    int lower = 0, upper = 0;

    /// False, and nothing done, where a sum would leave its range.
    bool add(const four& code, const four& byte)
    {
        const int low = lower + code[0] * byte[0] + code[1] * byte[1], high = upper + code[2] * byte[2] + code[3] * byte[3];
        if (std::min(low, high) < INT16_MIN || std::max(low, high) > INT16_MAX) { return false; }
        codes.push_back(packed(code)), bytes.push_back(packed(byte));
        lower = low, upper = high;
        return true;
    }
};

/// A template, so that sets without the verbs need none.
template <class Backend>
void check_short_sums(const std::vector<short_sums>& all)
{
    if constexpr (Backend::has_short_sums) {
        for (const short_sums& sums : all) {
            for (int lane = 0; lane < L; ++lane) { // the others stay zero
                I acc = I::zero();
                for (std::size_t step = 0; step < sums.codes.size(); ++step) {
                    std::int32_t code[L] = {}, byte[L] = {};
                    code[lane] = sums.codes[step], byte[lane] = sums.bytes[step];
                    acc = Backend::dot_short(acc, I::load(code), I::load(byte));
                }
                std::int32_t halves[L], joined[L];
                acc.store(halves);
                Backend::sum_short(acc).store(joined);
                INFO("lane " << lane << ", " << sums.codes.size() << " steps to " << sums.lower << " and " << sums.upper);
                const auto both = (static_cast<std::uint32_t>(sums.lower) & 0xffffu) | static_cast<std::uint32_t>(sums.upper) << 16;
                CHECK(halves[lane] == static_cast<std::int32_t>(both));
                CHECK(joined[lane] == sums.lower + sums.upper);
                CHECK(std::count(joined, joined + L, 0) >= L - 1);
            }
        }
    }
}

/// Likewise. Every byte of one operand among zeros, extremes, then anything.
template <class Backend>
void check_byte_blocks()
{
    if constexpr (Backend::has_byte_blocks) {
        constexpr int bytes = 16, extreme[] = {-128, 127, 1, -1};
        random_source random(16);
        for (int round = 0; round < 3000; ++round) {
            std::int8_t a[bytes], b[bytes];
            std::int32_t start[L], left[L], right[L], got[L];
            for (int i = 0; i < bytes; ++i) {
                const bool all = round >= bytes;
                a[i] = static_cast<std::int8_t>(round < 100 ? (all || i == round ? extreme[round % 4] : 0) : random.integer(-128, 127));
                b[i] = static_cast<std::int8_t>(round < 100 && all ? extreme[round / 4 % 4] : random.integer(-128, 127));
            }
            for (std::int32_t& s : start) { s = round % 2 == 0 ? static_cast<std::int32_t>(random.bits()) : round % 4 == 1 ? INT32_MAX : INT32_MIN; }
            std::memcpy(left, a, bytes), std::memcpy(right, b, bytes);
            Backend::dot_blocks(I::load(start), I::load(left), I::load(right)).store(got);
            for (int i = 0; i < 2; ++i) {
                for (int j = 0; j < 2; ++j) {
                    auto want = static_cast<std::uint32_t>(start[2 * i + j]);
                    for (int k = 0; k < 8; ++k) { want += static_cast<std::uint32_t>(a[8 * i + k] * b[8 * j + k]); }
                    REQUIRE(got[2 * i + j] == static_cast<std::int32_t>(want));
                }
            }
        }
        const auto check_zip = [](const auto& zip, const std::array<int, 8>& want) {
            const std::int32_t words[8] = {0, 1, 2, 3, 4, 5, 6, 7};
            I a = I::load(words), b = I::load(words + 4);
            zip(a, b);
            std::int32_t got[8];
            a.store(got), b.store(got + 4);
            CHECK(std::equal(got, got + 8, want.begin()));
        };
        check_zip([](I& a, I& b) { Backend::zip_words(a, b); }, {0, 4, 1, 5, 2, 6, 3, 7});
        check_zip([](I& a, I& b) { Backend::zip_pairs(a, b); }, {0, 1, 4, 5, 2, 3, 6, 7});
    }
}

} // namespace

TEST_CASE("dot4 is exact for all int8 and wraps", "[simd]")
{
    constexpr int offset = B::left_int8_offset;
    integers acc, a, b, want;
    const auto add = [&](std::int32_t start, const int(&left)[4], const int(&right)[4]) {
        std::int64_t sum = start;
        int correction = 0;
        for (int i = 0; i < 4; ++i) {
            sum += left[i] * right[i];
            correction += offset * right[i];
        }
        acc.push_back(start);
        a.push_back(packed_int8(left, offset));
        b.push_back(packed_int8(right, 0));
        // What the instruction owes is the sum with the offset in it.
        want.push_back(static_cast<std::int32_t>(static_cast<std::uint32_t>(sum + correction)));
    };
    const int extreme[] = {-128, 127, 0, 1, -1};
    for (const int x : extreme) {
        for (const int y : extreme) {
            for (const std::int32_t start : {0, INT32_MAX, INT32_MIN}) {
                add(start, {x, x, x, x}, {y, y, y, y});
                add(start, {x, y, x, y}, {y, y, x, x});
                add(start, {x, 0, 0, 0}, {y, 1, 1, 1});
                add(start, {0, x, 0, 0}, {1, y, 1, 1});
                add(start, {0, 0, x, 0}, {1, 1, y, 1});
                add(start, {0, 0, 0, x}, {1, 1, 1, y});
            }
        }
    }
    random_source random(8);
    const auto byte = [&] { return static_cast<int>(random.integer(-128, 127)); };
    for (int i = 0; i < 5000; ++i) {
        add(static_cast<std::int32_t>(random.bits()), {byte(), byte(), byte(), byte()},
            {byte(), byte(), byte(), byte()});
    }
    const integers got = lanewise([](I c, I x, I y) { return B::dot4(c, x, y); }, acc, a, b);
    CHECK(first_difference(got, want) == -1);
}

TEST_CASE("dot_short adds products of bytes in pairs, to the ends of 16 bits", "[simd]")
{
    std::vector<short_sums> all(3);
    // The largest products, then what is left to the ends; and the two halves apart.
    CHECK(all[0].add({127, 127, 127, 127}, {127, 127, 127, 127}));
    CHECK(all[0].add({4, 1, 1, 4}, {127, 1, 1, 127}));
    CHECK(all[0].lower == INT16_MAX);
    CHECK(all[1].add({127, 127, 127, 127}, {-128, -128, -128, -128}));
    CHECK(all[1].add({2, 0, 0, 2}, {-128, 5, 5, -128}));
    CHECK(all[1].upper == INT16_MIN);
    CHECK(all[2].add({127, 127, 127, 127}, {127, 127, -128, -128}));
    random_source random(10);
    for (const int largest : {1, 3, 15, 127}) {
        const auto code = [&] { return static_cast<int>(random.integer(0, largest)); };
        const auto byte = [&] { return static_cast<int>(random.integer(-128, 127)); };
        for (int i = 0; i < 20; ++i) {
            short_sums sums;
            for (int step = 0; step < 200; ++step) {
                if (!sums.add({code(), code(), code(), code()}, {byte(), byte(), byte(), byte()})) { break; }
            }
            all.push_back(sums);
        }
        // As many steps as a caller may take whose codes are no larger, all of them at one end.
        short_sums sums;
        for (int step = 0; step < 32767 / (2 * 127 * largest); ++step) {
            CHECK(sums.add({largest, largest, largest, largest}, {127, 127, -127, -127}));
        }
        all.push_back(sums);
    }
    check_short_sums<B>(all);
}

TEST_CASE("dot_blocks multiplies two rows of eight bytes by two, exactly, and wraps", "[simd]")
{
    check_byte_blocks<B>();
}

TEST_CASE("lookup replaces every byte by the entry that it names", "[simd]")
{
    random_source random(11);
    for (int table = 0; table < 20; ++table) {
        std::uint8_t entries[16];
        for (std::uint8_t& e : entries) { e = static_cast<std::uint8_t>(random.integer(0, 255)); }
        entries[table % 16] = 0xff, entries[(table + 1) % 16] = 0x80;
        integers codes, want;
        for (int i = 0; i < 4 * 16 + 40; ++i) {
            std::uint32_t code = 0, entry = 0;
            for (int at = 0; at < 4; ++at) {
                // Every code in every place, among others; then any.
                const auto c = static_cast<std::uint32_t>(i / 4 < 16 && at == i % 4 ? i / 4 : random.integer(0, 15));
                code |= c << 8 * at, entry |= std::uint32_t{entries[c]} << 8 * at;
            }
            codes.push_back(static_cast<std::int32_t>(code)), want.push_back(static_cast<std::int32_t>(entry));
        }
        const auto named = B::table_of(entries);
        CHECK(first_difference(lanewise([&](I c) { return B::lookup(named, c); }, codes), want) == -1);
    }
}

TEST_CASE("each sixteen bytes of a register are looked up in a table of their own", "[simd]")
{
    random_source random(12);
    constexpr int bytes = 4 * L, tables = bytes < 16 ? 1 : bytes / 16;
    for (int round = 0; round < 20; ++round) {
        std::uint8_t entries[16 * tables], codes[bytes], got[bytes];
        for (std::uint8_t& e : entries) { e = static_cast<std::uint8_t>(random.bits()); }
        for (std::uint8_t& c : codes) { c = static_cast<std::uint8_t>(random.bits() & 15); }
        std::int32_t words[L];
        std::memcpy(words, codes, sizeof words);
        B::lookup(B::tables_of(entries), I::load(words)).store(words);
        std::memcpy(got, words, sizeof words);
        for (int i = 0; i < bytes; ++i) { REQUIRE(got[i] == entries[i / 16 * 16 + codes[i]]); }
    }
}

TEST_CASE("bytes are turned, [4][16] to lanes and [16][4] to registers", "[simd]")
{
    random_source random(13);
    std::uint8_t block[64], lanes[4 * L], turned[64];
    for (std::uint8_t& b : block) { b = static_cast<std::uint8_t>(random.bits()); }
    for (int first = 0; first < 16; first += L) {
        std::int32_t words[L];
        B::load_turned(block + first).store(words);
        std::memcpy(lanes, words, sizeof words);
        for (int lane = 0; lane < L; ++lane) {
            for (int i = 0; i < 4; ++i) { REQUIRE(lanes[4 * lane + i] == block[16 * i + first + lane]); }
        }
    }
    I parts[16 / L];
    B::turn_block(block, parts);
    for (int part = 0; part < 16 / L; ++part) {
        std::int32_t words[L];
        parts[part].store(words);
        std::memcpy(turned + 4 * L * part, words, sizeof words);
    }
    for (int i = 0; i < 4; ++i) {
        for (int column = 0; column < 16; ++column) { REQUIRE(turned[16 * i + column] == block[4 * column + i]); }
    }
}

TEST_CASE("256 bytes are summed, every sixteenth of a register's", "[simd]")
{
    random_source random(14);
    constexpr int bytes = 4 * L, columns = std::min(bytes, 16), most = 256 * columns / bytes;
    for (const bool largest : {true, false}) {
        std::int32_t want[columns] = {}, got[columns];
        auto sums = B::no_bytes();
        for (int step = 0; step < most; ++step) {
            std::uint8_t b[bytes];
            std::int32_t words[L];
            for (int i = 0; i < bytes; ++i) {
                b[i] = largest ? std::uint8_t{255} : static_cast<std::uint8_t>(random.bits());
                want[i % columns] += b[i];
            }
            std::memcpy(words, b, sizeof words);
            sums = B::add_bytes(sums, I::load(words));
        }
        B::store_sums(sums, got);
        for (int column = 0; column < columns; ++column) { REQUIRE(got[column] == want[column]); }
    }
}

TEST_CASE("the lowest byte of each lane is stored, and no more", "[simd]")
{
    random_source random(15);
    std::int32_t words[L];
    for (std::int32_t& w : words) { w = static_cast<std::int32_t>(random.bits()); }
    std::uint8_t got[L + 2] = {};
    got[0] = got[L + 1] = 77;
    I::load(words).store_bytes(got + 1);
    CHECK((got[0] == 77 && got[L + 1] == 77));
    for (int lane = 0; lane < L; ++lane) { CHECK(got[lane + 1] == static_cast<std::uint8_t>(words[lane])); }
}
