// SPDX-License-Identifier: MIT
#pragma once

#include "case_reader.hpp"

#include <seqmix/quant.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

inline constexpr std::string_view quant_matmul_metadata = "format group n k scaling";

namespace detail {

/// Numbers of a tensor as they stand, aligned; of one of the dtypes that `dtypes` lists.
template <class T>
array<T> stored(const case_reader& c, const char* name, std::string_view dtypes)
{
    const plain_tensor& t = c.get(name);
    if (!is_listed(t.dtype, dtypes)) { throw unsupported("tensor '" + std::string(name) + "' has dtype " + t.dtype); }
    return convert<T, T>(t);
}

/// The numbers of an array, one after another, as a matrix of `rows` rows; where rows is 0, of one column.
template <class T>
view<const T, 2> in_rows(const array<T>& a, index rows)
{
    index count = 1;
    for (const index extent : a.shape) { count *= extent; }
    if (rows > 0 && count % rows != 0) { throw std::runtime_error("the number of scales is no multiple of that of their rows"); }
    return view<const T, 2>(a.numbers.get(), {rows, rows > 0 ? count / rows : 1});
}

/// Which weights share a scale; `usual` where the case says nothing.
inline quant::scale_tile tile_of(const case_reader& c, const quant::scale_tile& usual)
{
    const index group = c.whole("group", 0);
    const char* const text = c.text("scaling");
    if (text == nullptr) { return group > 0 ? quant::per_group(group) : usual; }
    const std::string_view scaling = text;
    if (scaling == "tensor") { return quant::per_tensor; }
    if (scaling == "channel") { return quant::per_channel; }
    if (scaling == "group") { return quant::per_group(group); }
    if (scaling == "block") { return quant::per_block(group, group); }
    throw unsupported("scaling '" + std::string(scaling) + "'");
}

/// The decoded weights, bit for bit, and x times them.
template <class Arch, class Source>
void run_matmul(const case_reader& c, judge& verdicts, const Source& source)
{
    const index rows = source.rows(), columns = source.columns();
    if (rows != c.whole("n", rows) || columns != c.whole("k", columns)) {
        throw std::runtime_error("the weights have another shape than n and k say");
    }
    std::vector<float> weights(static_cast<std::size_t>(rows * columns), std::nanf(""));
    const view<float, 2> weight(weights.data(), {rows, columns});
    quant::decode(source, weight);
    verdicts.compare_bits("weight", view<const float, 1>(weights.data(), {rows * columns}), {rows, columns},
                          c.get("expect.weight"));

    const array<float> x_numbers = read<float>(c.get("x"));
    const view<const float, 2> x = x_numbers.template as<2>("x");
    const index batch = x.extent(0);
    std::vector<float> out(static_cast<std::size_t>(batch * rows), std::nanf(""));
    // Past the door, which would have the products of int8 compiled as well.
    const auto packed = quant::pack(source, {}, {.any_scales = true}); // cases hold scales of every kind
    quant::detail::row_groups all{.total = batch};
    all.weights[0] = reinterpret_cast<const std::byte*>(&packed);
    quant::detail::multiply_as_floats(x, all, quant::float_weights<Arch, float>(packed), {}, view<float, 2>(out.data(), {batch, rows}), {});
    verdicts.compare("out", view<const float, 1>(out.data(), {batch * rows}), {batch, rows}, c.get("expect.out"));
}

/// Codes and scales in arrays of their own. Scales of floating point are widened, which is exact.
template <class Arch, class Format>
void run_arrays(const case_reader& c, judge& verdicts, std::string_view code_dtypes, std::string_view scale_dtypes,
                quant::array_options<Format> options = {})
{
    using code_type = typename Format::code_type;
    using scale_type = typename Format::scale_type;
    const array<code_type> code_numbers = stored<code_type>(c, "weight", code_dtypes);
    const view<const code_type, 2> codes = code_numbers.template as<2>("weight");
    array<scale_type> scales;
    if constexpr (std::is_same_v<scale_type, float>) {
        scales = read<float>(c.get("scales"));
    } else {
        scales = stored<scale_type>(c, "scales", scale_dtypes);
    }
    options.tile = tile_of(c, options.tile);
    options.columns = c.whole("k", -1);
    if (options.columns == codes.extent(1)) { options.stored_bits = 8; }
    if (c.find("global_scale") != nullptr) {
        const array<float> global = read<float>(c.get("global_scale"));
        if (c.get("global_scale").bytes == 0) { throw std::runtime_error("global_scale is empty"); }
        options.matrix_scale = global.numbers[0];
    }
    const index down = options.tile.rows > 0 ? (codes.extent(0) + options.tile.rows - 1) / options.tile.rows : 1;
    run_matmul<Arch>(c, verdicts, quant::array_matrix<Format>(codes, in_rows(scales, down), options));
}

template <class Arch>
void run_gptq(const case_reader& c, judge& verdicts, quant::gptq_zeros zeros)
{
    const auto qweight = stored<std::int32_t>(c, "qweight", "I32"), qzeros = stored<std::int32_t>(c, "qzeros", "I32");
    const array<float> scales = read<float>(c.get("scales"));
    quant::gptq_options options{.group = c.whole("group", 0), .zeros = zeros};
    array<std::int32_t> g_idx;
    if (c.find("g_idx") != nullptr) { options.g_idx = (g_idx = stored<std::int32_t>(c, "g_idx", "I32")).template as<1>("g_idx"); }
    run_matmul<Arch>(c, verdicts,
                     quant::gptq_matrix<4, float>(qweight.template as<2>("qweight"), qzeros.template as<2>("qzeros"),
                                                  scales.template as<2>("scales"), options));
}

template <class Arch>
void run_awq(const case_reader& c, judge& verdicts)
{
    const auto qweight = stored<std::int32_t>(c, "qweight", "I32"), qzeros = stored<std::int32_t>(c, "qzeros", "I32");
    const array<float> scales = read<float>(c.get("scales"));
    run_matmul<Arch>(c, verdicts,
                     quant::awq_matrix<float>(qweight.template as<2>("qweight"), qzeros.template as<2>("qzeros"),
                                              scales.template as<2>("scales"), c.whole("group", 0)));
}

template <class Arch, class Format>
bool run_gguf_if(std::string_view name, const case_reader& c, judge& verdicts)
{
    if (name != Format::name) { return false; }
    const auto bytes = stored<std::uint8_t>(c, "weight", "U8");
    const view<const std::uint8_t, 2> weight = bytes.template as<2>("weight");
    const index columns = c.whole("k", weight.extent(1) / Format::block_bytes * Format::block);
    run_matmul<Arch>(c, verdicts, quant::gguf::matrix<Format>(weight.data(), weight.size(), weight.extent(0), columns));
    return true;
}
template <class Arch, class... Formats>
bool run_gguf(std::string_view name, const case_reader& c, judge& verdicts)
{
    return (run_gguf_if<Arch, Formats>(name, c, verdicts) || ...);
}

} // namespace detail

template <class Arch>
void run_quant_matmul(const case_reader& c, judge& verdicts)
{
    using namespace quant;
    c.require_known_tensors("x weight qweight qzeros scales g_idx global_scale expect.weight expect.out");
    const char* const text = c.text("format");
    if (text == nullptr) { throw std::runtime_error("metadata 'format' is missing"); }
    const std::string_view format = text;
    const std::string_view e8m0_dtypes = "U8 F8_E8M0", gguf_prefix = "gguf_";
    if (format == "int8") { return detail::run_arrays<Arch, signed_integer<8, float, false>>(c, verdicts, "I8", ""); }
    if (format == "int4") { return detail::run_arrays<Arch, signed_integer<4, float, false>>(c, verdicts, "U8 I8", ""); }
    if (format == "gptq_int4") { return detail::run_gptq<Arch>(c, verdicts, gptq_zeros::minus_one); }
    if (format == "gptq_v2_int4") { return detail::run_gptq<Arch>(c, verdicts, gptq_zeros::as_is); }
    if (format == "awq_int4") { return detail::run_awq<Arch>(c, verdicts); }
    if (format == "fp8_e4m3") { return detail::run_arrays<Arch, float8<fp8_e4m3, float>>(c, verdicts, "F8_E4M3 U8", ""); }
    if (format == "fp8_e5m2") { return detail::run_arrays<Arch, float8<fp8_e5m2, float>>(c, verdicts, "F8_E5M2 U8", ""); }
    if (format == "mxfp4") { return detail::run_arrays<Arch, microscaling<fp4_e2m1>>(c, verdicts, "U8", e8m0_dtypes); }
    if (format == "mxfp6_e2m3") { return detail::run_arrays<Arch, microscaling<fp6_e2m3>>(c, verdicts, "U8", e8m0_dtypes); }
    if (format == "mxfp6_e3m2") { return detail::run_arrays<Arch, microscaling<fp6_e3m2>>(c, verdicts, "U8", e8m0_dtypes); }
    if (format == "mxfp8_e4m3") { return detail::run_arrays<Arch, microscaling<fp8_e4m3>>(c, verdicts, "F8_E4M3 U8", e8m0_dtypes); }
    if (format == "mxfp8_e5m2") { return detail::run_arrays<Arch, microscaling<fp8_e5m2>>(c, verdicts, "F8_E5M2 U8", e8m0_dtypes); }
    if (format == "nvfp4") { return detail::run_arrays<Arch, quant::nvfp4>(c, verdicts, "U8", "F8_E4M3 U8"); }
    if (format == "ternary") { return detail::run_arrays<Arch, ternary<float>>(c, verdicts, "U8", ""); }
    if (format.substr(0, gguf_prefix.size()) == gguf_prefix &&
        detail::run_gguf<Arch, gguf::q4_0, gguf::q4_1, gguf::q5_0, gguf::q5_1, gguf::q8_0, gguf::q2_k, gguf::q3_k, gguf::q4_k,
                         gguf::q5_k, gguf::q6_k, gguf::iq4_nl, gguf::iq4_xs, gguf::tq1_0, gguf::tq2_0, gguf::mxfp4, gguf::nvfp4>(
            format.substr(gguf_prefix.size()), c, verdicts)) {
        return;
    }
    throw unsupported("format '" + std::string(format) + "'");
}

} // namespace conformance
SEQMIX_NAMESPACE_END
