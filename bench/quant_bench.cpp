// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/quant.hpp>

#include <iterator>
#include <vector>

namespace bench::SEQMIX_BENCH_ARCH {

family quant_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
namespace quant = seqmix::quant;
using seqmix::index;
using seqmix::view;

enum class stored { int8, int4_g128, int4_dgq, q4_0, q4_k, q8_0, fp8, mxfp4, ternary };

struct quant_problem {
    index m, n, k;
    stored format;
    quant::compute compute;
    index copies = 1; ///< matrices, one after another, past every cache
};

/// x [m, k] times packed matrices. The stored bytes are operand 1, whatever they mean.
template <class Format>
class matmul_call {
public:
    template <class Source>
    matmul_call(const quant_problem& p, void* const* data, const Source& source)
        : p_(p), x_(static_cast<const float*>(data[0]), {p.m, p.k}), out_(static_cast<float*>(data[2]), {p.m, p.n})
    {
        for (index i = 0; i < p.copies; ++i) { weights_.push_back(quant::pack(source)); }
    }
    void run()
    {
        for (const auto& w : weights_) { quant::matmul<set>(x_, w, out_, {.compute = p_.compute}, ctx_); }
    }

private:
    const quant_problem& p_;
    view<const float, 2> x_;
    view<float, 2> out_;
    std::vector<quant::packed_matrix<Format>> weights_;
    seqmix::context<> ctx_;
};

template <class Source>
call packed_call(const quant_problem& p, void* const* data, const Source& source)
{
    return call_of(new matmul_call<typename Source::format>(p, data, source));
}

/// Any bytes are codes; scales are to be ordinary numbers.
template <class F>
call blocks_call(const quant_problem& p, void* const* data)
{
    auto* const bytes = static_cast<std::byte*>(data[1]);
    quant::stored_block<F> block;
    for (index b = 0; b < p.n * p.k / F::block; ++b) {
        F::read(bytes + b * F::block_bytes, block);
        if constexpr (F::two_levels) {
            block.scale = typename F::scale_type(0.01f), block.min = typename F::scale_type(0.02f);
        } else {
            for (auto& s : block.scales) { s = typename F::scale_type(0.01f); }
        }
        F::write(block, bytes + b * F::block_bytes);
    }
    return packed_call(p, data, quant::gguf::matrix<F>(bytes, quant::gguf::stored_bytes<F>(p.n, p.k), p.n, p.k));
}

/// One array of scales serves all: `size` columns share one.
template <class Matrix, class Scale>
call arrays_call(const quant_problem& p, void* const* data, index size, index bytes_of_row, Scale scale)
{
    using code = typename Matrix::code_type;
    const std::vector<Scale> scales(static_cast<std::size_t>(p.n * (p.k / size)), scale);
    return packed_call(p, data,
                       Matrix(view<const code, 2>(static_cast<const code*>(data[1]), {p.n, bytes_of_row}),
                              view<const Scale, 2>(scales.data(), {p.n, p.k / size}), {.tile = quant::per_group(size)}));
}

/// Two levels of scales, groups of 128.
call two_level_call(const quant_problem& p, void* const* data)
{
    const std::vector<float> scales(static_cast<std::size_t>(p.n), 0.001f);
    std::vector<std::uint8_t> group_scales(static_cast<std::size_t>(p.n * (p.k / 128)));
    for (std::size_t i = 0; i < group_scales.size(); ++i) { group_scales[i] = static_cast<std::uint8_t>(8 + i % 9); }
    return packed_call(p, data,
                       quant::two_level_matrix<float>({static_cast<const std::uint8_t*>(data[1]), {p.n, p.k / 2}},
                                                      {group_scales.data(), {p.n, p.k / 128}}, {scales.data(), {p.n, index{1}}}));
}

call make(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const quant_problem*>(problem);
    switch (p.format) {
    case stored::int8: return arrays_call<quant::int8_matrix<float>>(p, data, p.k, p.k, 0.01f);
    case stored::int4_g128: return arrays_call<quant::int4_matrix<seqmix::f16>>(p, data, 128, p.k / 2, seqmix::f16(0.01f));
    case stored::int4_dgq: return two_level_call(p, data);
    case stored::q4_0: return blocks_call<quant::gguf::q4_0>(p, data);
    case stored::q4_k: return blocks_call<quant::gguf::q4_k>(p, data);
    case stored::q8_0: return blocks_call<quant::gguf::q8_0>(p, data);
    case stored::fp8: return arrays_call<quant::fp8_matrix<seqmix::fp8_e4m3>>(p, data, p.k, p.k, 0.01f);
    case stored::ternary: { // bytes of four codes below 3
        auto* const bytes = static_cast<std::uint8_t*>(data[1]);
        for (index i = 0; i < p.n * p.k / 4; ++i) { bytes[i] = static_cast<std::uint8_t>(bytes[i] & ~(bytes[i] >> 1 & 0x55)); }
        return arrays_call<quant::ternary_matrix<float>>(p, data, p.k, p.k / 4, 0.01f);
    }
    case stored::mxfp4: return arrays_call<quant::mx_matrix<seqmix::fp4_e2m1>>(p, data, 32, p.k / 2, seqmix::e8m0(0.25f));
    }
    return {};
}

struct one_case {
    const char* name;
    const char* shape;
    quant_problem problem;
    limit of = limit::int8;
    double bits = 0;                        ///< of a weight, with its share of scales: rows of bandwidth
    const quant_problem* reference = nullptr; ///< rows that compare times
    spread_over where = spread_over::best;
};

constexpr quant_problem many(stored format, quant::compute how = quant::compute::int8) { return {512, 4096, 4096, format, how}; }
/// Half a gigabyte of weights.
constexpr quant_problem few(index rows, stored format, index copies, quant::compute how = quant::compute::int8)
{
    return {rows, 4096, 4096, format, how, copies};
}
constexpr quant_problem one_int4 = few(1, stored::int4_g128, 60);

constexpr one_case cases[] = {
    {"w8a8", "512 x 4096 x 4096, scales of channels and rows", many(stored::int8)},
    {"int4_g128_a8", "512 x 4096 x 4096", many(stored::int4_g128), limit::int8, 0, nullptr, spread_over::vectors},
    {"int4_dgq_a8", "the same, two levels of scales, groups of 128", many(stored::int4_dgq)},
    {"q4_k_a8", "the same", many(stored::q4_k)},
    {"q4_0_a8", "the same", many(stored::q4_0)},
    {"q8_0_a8", "the same", many(stored::q8_0)},
    {"fp8_bf16", "the same, scales of channels", many(stored::fp8, quant::compute::bf16), limit::bf16},
    {"mxfp4_bf16", "the same", many(stored::mxfp4, quant::compute::bf16), limit::bf16},
    {"int4_g128_f32", "the same", many(stored::int4_g128, quant::compute::floats), limit::f32},
    {"int8_one_row", "1 x 4096 x 4096, 32 matrices: 512 MB", few(1, stored::int8, 32), limit::read, 8},
    {"int4_one_row", "1 x 4096 x 4096, 60 matrices: 512 MB", one_int4, limit::read, 4.125, nullptr, spread_over::vectors},
    {"int4_dgq_one_row", "the same, two levels of scales", few(1, stored::int4_dgq, 60), limit::read, 4.07, nullptr, spread_over::vectors},
    {"q4_k_one_row", "the same", few(1, stored::q4_k, 60), limit::read, 4.625},
    {"ternary_one_row", "1 x 4096 x 4096, 120 matrices: 512 MB", few(1, stored::ternary, 120, quant::compute::tables), limit::read, 2, nullptr,
     spread_over::vectors},
    {"ternary_bytes_one_row", "the same by products of bytes", few(1, stored::ternary, 120), limit::read, 2, nullptr, spread_over::vectors},
    {"int4_tables_one_row", "int4_one_row by tables", few(1, stored::int4_g128, 60, quant::compute::tables), limit::read, 4.125, nullptr,
     spread_over::vectors},
    {"int4_eight_rows", "8 rows over one", few(8, stored::int4_g128, 60), limit::none, 0, &one_int4},
};

constexpr row row_of(const one_case& c)
{
    const quant_problem& p = c.problem;
    const bool of_bytes = c.of == limit::read;
    row r = {
        .name = c.name,
        .shape = c.shape,
        .of = c.of,
        .unit = of_bytes ? "B" : "OP",
        .work = of_bytes ? c.bits / 8 * static_cast<double>(p.copies) * static_cast<double>(p.n * p.k)
                         : 2.0 * static_cast<double>(p.m * p.copies) * static_cast<double>(p.n * p.k),
        .where = c.where,
        .operands = {{element::f32, p.m * p.k, filling::normal},
                     {element::s8, p.n * p.k * 9 / 8, filling::bytes},
                     {element::f32, p.m * p.n}},
        .problem = &c.problem,
        .make = make,
        .peers = {},
    };
    if (c.reference != nullptr) {
        r.says = figure::time_over_share;
        r.reference_problem = c.reference;
        r.reference_work = r.work; // the same weights
    }
    return r;
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family quant_rows() { return {"quant", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
