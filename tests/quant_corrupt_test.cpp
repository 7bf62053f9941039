// SPDX-License-Identifier: MIT
// Packed weights may stand on anybody's bytes, a mapped file's say: whatever they hold, nothing is read or written past an end,
// nor is anything done that C++ leaves undefined. What this finds, it finds with the sanitizers; without them, where memory ends
// at a page.
#include "quant_case.hpp"
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"

#include <new>

namespace quant_corrupt_test {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using namespace quant_case;
using quant::compute;
using sm::index;

namespace {

constexpr int rounds = 40;

/// Heap memory of exactly so many bytes, on a border of cache lines.
struct exact_memory {
    explicit exact_memory(index bytes)
        : size(static_cast<std::size_t>(bytes)), data(static_cast<unsigned char*>(::operator new(size, line)))
    {
    }
    ~exact_memory() { ::operator delete(data, line); }
    exact_memory(const exact_memory&) = delete;
    exact_memory& operator=(const exact_memory&) = delete;

    static constexpr std::align_val_t line{sm::scratch_alignment};
    std::size_t size;
    unsigned char* data;
};

/// Some bytes, a run of them, or all.
void corrupt(random_source& random, exact_memory& memory, int round)
{
    const auto size = static_cast<std::int64_t>(memory.size);
    const std::int64_t begin = round % 4 == 3 ? 0 : random.integer(0, size - 1),
                       end = round % 4 == 3 ? size : std::min(size, begin + random.integer(1, 64));
    for (std::int64_t i = begin; i < end; ++i) { memory.data[i] = static_cast<unsigned char>(random.bits()); }
    for (int i = 0; i < 8; ++i) {
        memory.data[random.integer(0, size - 1)] = static_cast<unsigned char>(i % 2 == 0 ? 0xff : random.bits());
    }
}

template <class S>
void check_corrupt(const S& source)
{
    using F = typename S::format;
    const index outputs = source.rows(), depth = source.columns();
    exact_memory memory(quant::packed_bytes(source));
    const auto w = quant::pack(source, sm::workspace(memory.data, memory.size));
    REQUIRE(static_cast<std::size_t>(w.bytes()) == memory.size);
    const std::vector<unsigned char> good(memory.data, memory.data + memory.size);
    random_source random(memory.size);
    for (int round = 0; round < rounds; ++round) {
        std::memcpy(memory.data, good.data(), good.size());
        corrupt(random, memory, round);
        INFO(F::name << ", round " << round);
        const index rows = round % 2 == 0 ? 2 : 9;
        at_the_edge<float> x(rows * depth), out(rows * outputs), numbers(outputs * depth);
        for (index i = 0; i < rows * depth; ++i) { x[i] = random.normal(); }
        const sm::view<const float, 2> left(x.data(), {rows, depth});
        const sm::view<float, 2> to(out.data(), {rows, outputs});
        quant::matmul<test_arch>(left, w, to, {.activation = quant::activation::gelu});
        if constexpr (F::integer_codes) {
            for (auto scales : {quant::activation_scales::rows, quant::activation_scales::blocks}) {
                quant::matmul<test_arch>(left, w, to,
                                         {.activation = quant::activation::silu, .compute = compute::int8, .scales = scales});
            }
        }
        quant::decode(w, sm::view<float, 2>(numbers.data(), {outputs, depth}));
        if constexpr (quant::block_format<F>) {
            at_the_edge<std::byte> bytes(gguf::stored_bytes<F>(outputs, depth));
            quant::unpack(w, sm::view<std::byte, 1>(bytes.data(), {gguf::stored_bytes<F>(outputs, depth)}));
        }
    }
    CHECK(w.rows() == outputs);
}

template <class F>
void check_blocks(index columns)
{
    const std::vector<float> numbers = normals(1, 19 * columns);
    std::vector<unsigned char> bytes(static_cast<std::size_t>(gguf::stored_bytes<F>(19, columns)));
    const auto size = static_cast<index>(bytes.size());
    quant::encode<F>(matrix(numbers, columns), bytes.data(), size);
    check_corrupt(gguf::matrix<F>(bytes.data(), size, 19, columns));
}

template <class F>
[[maybe_unused]] void check_arrays(index group)
{
    const std::vector<float> numbers = normals(1, 19 * 96);
    std::vector<typename F::code_type> codes(static_cast<std::size_t>(19 * 96 * F::bits / 8));
    std::vector<typename F::scale_type> scales(static_cast<std::size_t>(19 * 96 / group));
    const sm::view<typename F::code_type, 2> c(codes.data(), {19, 96 * F::bits / 8});
    const sm::view<typename F::scale_type, 2> s(scales.data(), {index{19}, 96 / group});
    quant::encode<F>(matrix(numbers, 96), c, s);
    check_corrupt(quant::array_matrix<F>(c, s));
}

} // namespace

TEST_CASE("quant: packed blocks of any bytes")
{
    check_blocks<gguf::q3_k>(256);
#if !defined(__SANITIZE_ADDRESS__) // a format takes a minute to compile then
    check_blocks<gguf::q4_k>(256);
    check_blocks<gguf::tq1_0>(256);
#endif
}

#if !defined(__SANITIZE_ADDRESS__)
TEST_CASE("quant: packed arrays of any bytes")
{
    check_arrays<quant::microscaling<sm::fp4_e2m1>>(32);
    check_arrays<quant::microscaling<sm::fp6_e2m3>>(32);
}
#endif

TEST_CASE("quant: packed codes with two levels of scales, of any bytes")
{
    const std::vector<std::uint8_t> codes(19 * 48, 0x5a), group_scales(19 * 3, 9);
    const std::vector<float> scales(19, 0.01f);
    check_corrupt(quant::two_level_matrix<>(matrix(codes, 48), matrix(group_scales, 3), matrix(scales, 1), {.group = 32}));
}

TEST_CASE("quant: packed columns in an order of any bytes")
{
    random_source random(3);
    constexpr index rows = 24, columns = 160, groups = 4;
    std::vector<std::int32_t> words(columns / 8 * rows), zeros(groups * rows / 8), group_of(columns);
    for (auto& w : words) { w = static_cast<std::int32_t>(random.bits()); }
    for (auto& z : zeros) { z = static_cast<std::int32_t>(random.bits() & 0x77777777u); }
    for (auto& g : group_of) { g = static_cast<std::int32_t>(random.integer(0, groups - 1)); }
    const std::vector<sm::f16> scales(groups * rows, sm::f16(0.02f));
    check_corrupt(quant::gptq_matrix<>(matrix(words, rows), matrix(zeros, rows / 8), matrix(scales, rows),
                                       {.group = 40, .g_idx = list(group_of)}));
}

} // namespace quant_corrupt_test
