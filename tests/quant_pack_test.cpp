// SPDX-License-Identifier: MIT
// What packing writes, byte for byte against packed_layout's definition, one code after another; who packs, and what is refused.
#include "quant_case.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/refusals.hpp"

#include <seqmix/quant.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

namespace quant_pack_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using quant_case::as_const;
using sm::index;
using test_support::on_threads;

namespace {

/// Puts numbers of one panel after another where the layout says, into bytes that are zero else.
template <class F>
class definition {
public:
    using layout = quant::packed_layout<F>;
    using scale = typename F::scale_type;

    explicit definition(const layout& of) : layout_(of), bytes(static_cast<std::size_t>(of.bytes())) {}

    void code(index row, index position, std::uint8_t code)
    {
        const unsigned stored = quant::lane_code<F>::stored(code);
        layout::for_each_field(row % layout::panel_rows, position, [&](index byte, int bit, int code_bit, int width) {
            unsigned char& b = bytes[static_cast<std::size_t>(panel(row) + byte)];
            b = static_cast<unsigned char>(b | (stored >> code_bit & ((1u << width) - 1u)) << bit);
        });
    }
    template <class T>
    void number(index row, index base, index at, T value)
    {
        const index place = at * layout::panel_rows + row % layout::panel_rows;
        std::memcpy(&bytes[static_cast<std::size_t>(panel(row) + base + place * static_cast<index>(sizeof(T)))], &value, sizeof value);
    }

private:
    index panel(index row) const { return row / layout::panel_rows * layout_.panel_bytes(); }

    layout layout_;

public:
    std::vector<unsigned char> bytes;
};

template <quant::block_source S>
std::vector<unsigned char> packed_by_definition(const S& source, const quant::packed_layout<typename S::format>& layout)
{
    using F = typename S::format;
    definition<F> to(layout);
    for (index row = 0; row < source.rows(); ++row) {
        for (index b = 0; b < source.blocks(); ++b) {
            quant::stored_block<F> block{};
            source.read(row, b, block);
            for (index i = 0; i < F::block; ++i) { to.code(row, b * F::block + i, block.codes[i]); }
            for (index g = 0; g < F::block / F::group; ++g) {
                const index at = b * (F::block / F::group) + g;
                if constexpr (F::two_levels) {
                    to.number(row, layout.sub_scales_at(), at, block.sub_scales[g]);
                    if constexpr (quant::packed_layout<F>::has_min) { to.number(row, layout.sub_mins_at(), at, block.sub_mins[g]); }
                } else {
                    to.number(row, layout.scales_at(), at, quant::widened(block.scales[g]));
                    if constexpr (quant::packed_layout<F>::has_min) { to.number(row, layout.mins_at(), at, block.mins[g]); }
                }
            }
            if constexpr (F::two_levels) {
                to.number(row, layout.scales_at(), b, block.scale);
                if constexpr (quant::packed_layout<F>::has_min) { to.number(row, layout.mins_at(), b, block.min); }
            }
        }
    }
    return to.bytes;
}

template <quant::group_source S>
std::vector<unsigned char> packed_by_definition(const S& source, const quant::packed_layout<typename S::format>& layout)
{
    using F = typename S::format;
    definition<F> to(layout);
    std::vector<std::int32_t> order(static_cast<std::size_t>(layout.depth()), -1);
    for (index g = 0; g < layout.groups; ++g) {
        for (index p = source.first(g); p < source.first(g + 1); ++p) {
            const index position = g * layout.group + p - source.first(g);
            for (index row = 0; row < source.rows(); ++row) {
                std::uint8_t code = 0;
                source.codes(row, p, 1, &code);
                to.code(row, position, code);
                to.number(row, layout.scales_at(), g, quant::widened(source.parameters(row, g).scale));
                if constexpr (quant::packed_layout<F>::has_zero) {
                    to.number(row, layout.zeros_at(), g, static_cast<std::int8_t>(source.parameters(row, g).zero));
                }
            }
            order[static_cast<std::size_t>(position)] = source.order() != nullptr ? source.order()[p] : static_cast<std::int32_t>(p);
        }
    }
    if (layout.permuted) { std::memcpy(&to.bytes[static_cast<std::size_t>(layout.order_at())], order.data(), 4 * order.size()); }
    return to.bytes;
}

/// Alone and by three workers, into memory of which every bit was set.
template <class S>
void check_packed(const S& source)
{
    using F = typename S::format;
    sm::context three{sm::parallel_for{3, on_threads{}}};
    for (bool alone : {true, false}) {
        const index bytes = quant::packed_bytes(source);
        guarded<unsigned char> memory(bytes);
        const auto packed = quant::pack(source, sm::workspace(memory.data(), static_cast<std::size_t>(bytes)), {},
                                        alone ? sm::context_ref() : sm::context_ref(three));
        const std::vector<unsigned char> want = packed_by_definition(source, packed.layout());
        INFO(F::name << " of " << F::bits << " bits, " << source.rows() << " x " << source.columns() << ", group " << packed.layout().group);
        REQUIRE(static_cast<index>(want.size()) == bytes);
        index wrong = 0;
        for (index i = 0; i < bytes; ++i) { wrong += want[static_cast<std::size_t>(i)] != memory[i]; }
        CHECK(wrong == 0);
        CHECK(memory.intact());
    }
}

template <class F>
struct arrays {
    std::vector<typename F::code_type> codes;
    std::vector<typename F::scale_type> scales;
    std::vector<typename F::zero_type> zeros;
    index rows, columns, groups;
    quant::array_options<F> options;

    arrays(index rows_, index columns_, index group) : rows(rows_), columns(columns_)
    {
        random_source random(static_cast<std::uint64_t>(rows * 1000 + columns + group));
        const index bytes = (columns * F::bits + 7) / 8;
        groups = group > 0 ? (columns + group - 1) / group : 1;
        for (index i = 0; i < rows * bytes; ++i) {
            codes.push_back(std::bit_cast<typename F::code_type>(static_cast<std::uint8_t>(random.bits())));
        }
        for (index i = 0; i < rows * groups; ++i) {
            if constexpr (sizeof(typename F::scale_type) == 1) {
                scales.push_back(F::scale_type::from_bits(static_cast<std::uint8_t>(random.integer(0, 100))));
            } else {
                scales.push_back(static_cast<typename F::scale_type>(random.normal()));
            }
            zeros.push_back(static_cast<typename F::zero_type>(random.integer(F::least_zero, F::most_zero)));
        }
        options.tile = {1, group};
        options.columns = columns;
        if (F::form == quant::affine::scale_and_zero) { options.zeros = as_const(zeros, rows, groups); }
    }
    quant::array_matrix<F> source() const
    {
        return {as_const(codes, rows, (columns * F::bits + 7) / 8), as_const(scales, rows, groups), options};
    }
};

template <class F>
void check_arrays()
{
    for (index columns : {index{1}, index{33}, index{300}, index{512}}) {
        for (index group : {index{0}, index{16}, index{32}, index{40}, index{128}}) { check_packed(arrays<F>(19, columns, group).source()); }
    }
    check_packed(arrays<F>(1, 64, 0).source());
    check_packed(arrays<F>(48, 64, 0).source());
    check_packed(arrays<F>(0, 64, 0).source());
    check_packed(arrays<F>(5, 0, 0).source());
    const arrays<F> a(19, 300, 48);
    std::vector<std::int32_t> order(300);
    std::iota(order.begin(), order.end(), 0);
    std::reverse(order.begin(), order.end());
    check_packed(quant::permuted_matrix(a.source(), sm::view<const std::int32_t, 1>(order.data(), {300})));
}

/// Random blocks, in which finite scales stand at `halves`.
template <class F>
std::vector<unsigned char> blocks_of(index rows, index columns, std::initializer_list<index> halves)
{
    random_source random(static_cast<std::uint64_t>(F::block_bytes));
    std::vector<unsigned char> bytes(static_cast<std::size_t>(gguf::stored_bytes<F>(rows, columns)));
    for (unsigned char& b : bytes) { b = static_cast<unsigned char>(random.bits()); }
    for (std::size_t block = 0; block < bytes.size(); block += F::block_bytes) {
        for (index half : halves) { bytes[block + static_cast<std::size_t>(half) + 1] &= 0xbb; }
    }
    return bytes;
}

template <class F>
void check_blocks(std::initializer_list<index> halves)
{
    for (index rows : {index{0}, index{3}, index{37}}) {
        for (index blocks : {0, 1, 3}) {
            const std::vector<unsigned char> bytes = blocks_of<F>(rows, blocks * F::block, halves);
            check_packed(gguf::matrix<F>(bytes.data(), static_cast<index>(bytes.size()), rows, blocks * F::block));
        }
    }
}

/// Of one's own: blocks that fill no whole number of chunks.
struct short_blocks : gguf::q4_0 {
    static constexpr const char* name = "short_blocks";
    static constexpr index block = 48, group = 16, block_bytes = 30;
    static void read(const std::byte* stored, quant::stored_block<short_blocks>& out)
    {
        out = {};
        for (index g = 0; g < 3; ++g) { out.scales[g] = quant::load<sm::f16>(stored + 2 * g); }
        quant::unpack_stream<4>(stored + 6, 0, 48, out.codes);
    }
    static void write(const quant::stored_block<short_blocks>&, std::byte*) {}
};

/// Groups of 32, 16 and 64 columns, in order, of which no list says so.
struct uneven_groups {
    using format = quant::signed_integer<8, float, false>;
    arrays<format> of{5, 112, 0};

    index rows() const { return 5; }
    index columns() const { return 112; }
    index group() const { return 64; }
    index groups() const { return 3; }
    index first(index group) const { return std::array<index, 4>{0, 32, 48, 112}[static_cast<std::size_t>(group)]; }
    const std::int32_t* order() const { return nullptr; }
    float matrix_scale() const { return 1.0f; }
    quant::group_parameters<format> parameters(index row, index group) const { return {static_cast<float>(row + 10 * group + 1), 0}; }
    void codes(index row, index position, index count, std::uint8_t* to) const { of.source().codes(row, position, count, to); }
    void check_apart_from(const sm::checker&, const sm::byte_range&, const char*) const {}
};

template <int bits>
void check_stream()
{
    random_source random(bits);
    for (index count : {0, 1, 7, 8, 9, 40}) {
        for (index first = 0; first < 18; ++first) {
            const index bytes = ((first + count) * bits + 7) / 8;
            at_the_edge<std::byte> stream(bytes);
            for (index i = 0; i < bytes; ++i) { stream[i] = static_cast<std::byte>(random.bits()); }
            std::vector<std::uint8_t> got(static_cast<std::size_t>(count) + 1, 0xee);
            quant::unpack_stream<bits>(stream.data(), first, count, got.data());
            for (index i = 0; i < count; ++i) {
                const int want = quant::code_in_stream(stream.data(), bits, first + i);
                REQUIRE(static_cast<int>(got[static_cast<std::size_t>(i)]) == want);
            }
            REQUIRE(got.back() == 0xee);
        }
    }
}

} // namespace

TEST_CASE("quant: every width of codes is packed as the layout says", "[quant]")
{
    check_arrays<quant::unsigned_integer<1, sm::f16>>();
    check_arrays<quant::unsigned_integer<2, sm::f16>>();
    check_arrays<quant::signed_integer<3, float, false>>();
    check_arrays<quant::signed_integer<4, float, false>>();
    check_arrays<quant::signed_integer<5, sm::f16, true>>();
    check_arrays<quant::unsigned_integer<6, float>>();
    check_arrays<quant::signed_integer<7, float, false>>();
    check_arrays<quant::signed_integer<8, float, true>>();
    check_arrays<quant::microscaling<sm::fp4_e2m1>>();
    check_arrays<quant::microscaling<sm::fp6_e2m3>>();
    check_arrays<quant::float8<sm::fp8_e4m3, float>>();
    check_packed(uneven_groups{});
}

TEST_CASE("quant: blocks are packed as the layout says", "[quant]")
{
    check_blocks<gguf::q4_0>({0});
    check_blocks<gguf::q5_1>({0, 2});
    check_blocks<gguf::q2_k>({80, 82});
    check_blocks<gguf::q3_k>({108});
    check_blocks<gguf::q4_k>({0, 2});
    check_blocks<gguf::nvfp4>({});
    check_blocks<gguf::mxfp4>({}); // of any byte: ggml has no NaN there
    check_blocks<short_blocks>({0, 2, 4});
}

TEST_CASE("quant: eight codes of a stream at once", "[quant]")
{
    check_stream<1>();
    check_stream<2>();
    check_stream<3>();
    check_stream<4>();
    check_stream<5>();
    check_stream<6>();
    check_stream<7>();
}

TEST_CASE("quant: columns in groups of any size come back from packing", "[quant]")
{
    const uneven_groups source;
    std::vector<float> want(5 * 112), got(5 * 112);
    quant::decode(source, sm::view<float, 2>(want.data(), {5, 112}));
    quant::decode(quant::pack(source), sm::view<float, 2>(got.data(), {5, 112}));
    CHECK(got == want);
}

TEST_CASE("quant: packing refuses scales that are not finite", "[quant]")
{
    sm::context three{sm::parallel_for{3, on_threads{}}};
    const std::string none = "(nothing thrown)";
    const auto refusal = [&](const auto& source) {
        const std::string alone = message_of([&] { quant::pack(source); });
        CHECK(message_of([&] { quant::pack(source, {}, {}, three); }) == alone);
        CHECK(message_of([&] { quant::pack(source, {}, {.any_scales = true}, three); }) == none);
        return alone;
    };
    {
        using F = quant::signed_integer<4, float, false>;
        arrays<F> a(50, 96, 32);
        a.scales[0] = 0.0f, a.scales[1] = -0.0f, a.scales[2] = 1e-45f, a.scales[3] = 3e38f;
        CHECK(refusal(a.source()) == none);
        a.scales[40 * 3 + 1] = -HUGE_VALF;
        CHECK(refusal(a.source()) == "quant::pack: scale of row 40, group 1 is -inf, but must be finite unless any_scales is set");
        a.scales[19 * 3 + 2] = std::nanf("");
        CHECK(refusal(a.source()) == "quant::pack: scale of row 19, group 2 is nan, but must be finite unless any_scales is set");
        // What is carried is what was stored.
        std::vector<float> want(50 * 96), got(50 * 96);
        quant::decode(a.source(), sm::view<float, 2>(want.data(), {50, 96}));
        quant::decode(quant::pack(a.source(), {}, {.any_scales = true}), sm::view<float, 2>(got.data(), {50, 96}));
        CHECK(std::memcmp(got.data(), want.data(), sizeof(float) * want.size()) == 0);
    }
    const auto of_blocks = [&]<class F>(F, index row, index half) {
        std::vector<unsigned char> bytes(static_cast<std::size_t>(gguf::stored_bytes<F>(20, 2 * F::block)));
        const gguf::matrix<F> source(bytes.data(), static_cast<index>(bytes.size()), 20, 2 * F::block);
        CHECK(refusal(source) == none);
        bytes[static_cast<std::size_t>((2 * row + 1) * F::block_bytes + half + 1)] = 0x7c;
        return refusal(source);
    };
    CHECK(of_blocks(gguf::q4_1{}, 17, 0) == "quant::pack: scale of row 17, group 1 is inf, but must be finite unless any_scales is set");
    // q4_1 adds its minimum; here minima are subtracted.
    CHECK(of_blocks(gguf::q4_1{}, 3, 2) == "quant::pack: minimum of row 3, group 1 is -inf, but must be finite unless any_scales is set");
    CHECK(of_blocks(gguf::q4_k{}, 19, 0) == "quant::pack: scale of row 19, block 1 is inf, but must be finite unless any_scales is set");
    CHECK(of_blocks(gguf::q4_k{}, 0, 2) == "quant::pack: minimum of row 0, block 1 is inf, but must be finite unless any_scales is set");
    {
        arrays<quant::microscaling<sm::fp4_e2m1>> a(3, 64, 32);
        CHECK(refusal(a.source()) == none);
        a.scales[5] = sm::e8m0::from_bits(255);
        CHECK(refusal(a.source()) == "quant::pack: scale of row 2, group 1 is nan, but must be finite unless any_scales is set");
    }
    {
        arrays<quant::nvfp4> a(3, 64, 16);
        a.options.matrix_scale = HUGE_VALF;
        CHECK(refusal(a.source()) == "quant::pack: matrix_scale is inf, but must be finite unless any_scales is set");
    }
    {
        // Group 1 has no column: nobody packs its scales.
        const std::vector<std::int32_t> words(8 * 8), group_of(64, 0);
        std::vector<sm::f16> scales(2 * 8, sm::f16(std::nanf("")));
        const auto source = [&] {
            return quant::gptq_matrix<>(as_const(words, 8, 8), {}, as_const(scales, 2, 8), {.g_idx = {group_of.data(), {64}}});
        };
        CHECK(refusal(source()) == "quant::pack: scale of row 0, group 0 is nan, but must be finite unless any_scales is set");
        for (std::size_t row = 0; row < 8; ++row) { scales[row] = sm::f16(1.0f); }
        CHECK(refusal(source()) == none);
    }
}

} // namespace quant_pack_test
