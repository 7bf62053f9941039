// SPDX-License-Identifier: MIT
// Products with every format, compiled once per instruction set with its flags and -DSEQMIX_QUANTIZE_ARCH=<set>.
#include "kernel.hpp"

#include <seqmix/quant.hpp>
#include <seqmix/tile/gemm.hpp>
#include <seqmix/tile/row_products.hpp>

#include <algorithm>
#include <ctime>
#include <limits>
#include <vector>

namespace {

using namespace quantize_layer;
namespace sm = seqmix;
namespace quant = seqmix::quant;
using sm::index; // not the one of <strings.h>
using arch = sm::arch::SEQMIX_QUANTIZE_ARCH;

/// Both take turns, so that what else the machine does falls on both; the fastest turns count.
template <class Work, class Beside>
double time_ratio(const Work& work, const Beside& beside)
{
    constexpr int turns = 5;
    constexpr double enough = 0.004; // seconds of a turn
    const auto seconds = [](const auto& run) {
        const std::clock_t start = std::clock(); // of this one thread's work
        double passed = 0;
        int runs = 0;
        for (; passed < enough; ++runs) { run(), passed = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC; }
        return passed / runs;
    };
    double best = std::numeric_limits<double>::infinity(), best_beside = best;
    for (int turn = 0; turn < turns; ++turn) {
        best = std::min(best, seconds(work));
        best_beside = std::min(best_beside, seconds(beside));
    }
    return best / best_beside;
}

template <class Source>
void run(const Source& source, const problem& p, outcome& result)
{
    constexpr bool integers = Source::format::integer_codes;
    const auto packed = quant::pack(source);
    const sm::view<const float, 2> x(p.x, {p.tokens, p.columns}), w(p.weights, {p.rows, p.columns});
    const sm::view<float, 2> by_floats(result.by_floats, {p.tokens, p.rows}), by_int8(result.by_int8, {p.tokens, p.rows});
    quant::matmul<arch>(x, packed, by_floats);
    quant::options fast;
    fast.compute = integers ? quant::compute::int8 : quant::compute::floats;
    if (integers) { quant::matmul<arch>(x, packed, by_int8, fast); }
    result.has_int8 = integers;

    std::vector<float> memory(static_cast<std::size_t>(p.tokens * p.rows));
    const sm::view<float, 2> out(memory.data(), {p.tokens, p.rows});
    sm::workspace scratch;
    // A vector is multiplied by rows of weights where they are, which asks for whole registers.
    constexpr index whole = 16;
    const index stride = (p.columns + whole - 1) / whole * whole;
    std::vector<float> padded(static_cast<std::size_t>((p.rows + 1) * stride));
    for (index n = 0; n < p.rows; ++n) { std::copy_n(&w(n, 0), p.columns, padded.data() + n * stride); }
    std::copy_n(p.x, p.columns, padded.data() + p.rows * stride);
    const auto x_of = [&](index tokens) { return x.slice(0, 0, tokens); };
    const auto ratio = [&](index tokens) {
        const auto to = out.slice(0, 0, tokens);
        const auto by_float_product = [&] {
            if (tokens == 1) {
                sm::tile::row_products<arch>({padded.data() + p.rows * stride, stride, 1}, {padded.data(), stride, p.rows}, stride,
                                             {memory.data(), p.rows, 1});
            } else {
                sm::tile::gemm<arch>(x_of(tokens), w.transposed(0, 1), to, scratch);
            }
        };
        return time_ratio([&] { quant::matmul<arch>(x_of(tokens), packed, to, fast); }, by_float_product);
    };
    result.one_token = ratio(1), result.all = ratio(p.tokens);
}

template <class F>
void run_arrays(const stored& s, const problem& p, outcome& result)
{
    quant::array_options<F> options;
    options.tile = quant::per_group(s.group), options.columns = p.columns;
    const index groups = (p.columns + s.group - 1) / s.group;
    if constexpr (F::form == quant::affine::scale_and_zero) { options.zeros = {s.zeros, {p.rows, groups}}; }
    using code = typename F::code_type;
    const index row_bytes = s.code_bytes / p.rows;
    const quant::array_matrix<F> matrix({static_cast<const code*>(s.codes), {p.rows, row_bytes}}, {s.scales, {p.rows, groups}}, options);
    if constexpr (F::bits == 4 && F::form == quant::affine::scale_only) {
        if (s.order != nullptr) { return run(quant::permuted_matrix(matrix, {s.order, {p.columns}}), p, result); }
    }
    run(matrix, p, result);
}

void run_two_level(const stored& s, const problem& p, outcome& result)
{
    const index groups = (p.columns + s.group - 1) / s.group;
    const auto* const codes = static_cast<const std::uint8_t*>(s.codes);
    run(quant::two_level_matrix<float>({codes, {p.rows, s.code_bytes / p.rows}}, {s.zeros, {p.rows, groups}}, {s.scales, {p.rows, index{1}}},
                                       {.group = s.group, .columns = p.columns}),
        p, result);
}

template <class F>
void run_blocks(const stored& s, const problem& p, outcome& result)
{
    run(quant::gguf::matrix<F>(s.codes, s.code_bytes, p.rows, p.columns), p, result);
}

void multiply(const stored& s, const problem& p, outcome& result)
{
    namespace gguf = quant::gguf;
    switch (s.kind) {
    case format::int8: return run_arrays<quant::signed_integer<8, float, false>>(s, p, result);
    case format::fp8: return run_arrays<quant::float8<sm::fp8_e4m3, float>>(s, p, result);
    case format::int4: return run_arrays<quant::signed_integer<4, float, false>>(s, p, result);
    case format::uint4: return run_arrays<quant::unsigned_integer<4, float>>(s, p, result);
    case format::two_level: return run_two_level(s, p, result);
    case format::q4_0: return run_blocks<gguf::q4_0>(s, p, result);
    case format::q8_0: return run_blocks<gguf::q8_0>(s, p, result);
    case format::q6_k: return run_blocks<gguf::q6_k>(s, p, result);
    case format::q4_k: return run_blocks<gguf::q4_k>(s, p, result);
    case format::mxfp4: return run_blocks<gguf::mxfp4>(s, p, result);
    }
}

} // namespace

#define QUANTIZE_PASTE_(a, b) a##b
#define QUANTIZE_PASTE(a, b) QUANTIZE_PASTE_(a, b)

extern const quantize_layer::backend QUANTIZE_PASTE(quantize_layer_, SEQMIX_QUANTIZE_ARCH);
const quantize_layer::backend QUANTIZE_PASTE(quantize_layer_, SEQMIX_QUANTIZE_ARCH) = {multiply};
