// SPDX-License-Identifier: MIT
#include "encodings.hpp"

#include <seqmix/quant/channel_scales.hpp>
#include <seqmix/quant/encode_clipped.hpp>
#include <seqmix/quant/encode_gptq.hpp>
#include <seqmix/quant/encode_two_level.hpp>
#include <seqmix/quant/float8.hpp>
#include <seqmix/quant/integer.hpp>
#include <seqmix/quant/permuted.hpp>

namespace quantize_layer {
namespace {

namespace sm = seqmix;
namespace quant = seqmix::quant;
namespace gguf = seqmix::quant::gguf;
using sm::index;
using weights_view = sm::view<const float, 2>;
using int4 = quant::signed_integer<4, float, false>;
using int8 = quant::signed_integer<8, float, false>;
using uint4 = quant::unsigned_integer<4, float>;
constexpr index group = 128;

/// Where bytes are codes of F's type.
template <class F>
sm::view<typename F::code_type, 2> codes_of(encoding& e, index rows)
{
    return {reinterpret_cast<typename F::code_type*>(e.codes.data()), {rows, static_cast<index>(e.codes.size()) / rows}};
}

/// Room for arrays; write(codes, scales, options) fills them.
template <class F, class Write>
encoding in_arrays(const char* name, format kind, index rows, index columns, index group_columns, const Write& write)
{
    encoding e;
    e.name = name, e.kind = kind, e.group = group_columns;
    const index groups = (columns + group_columns - 1) / group_columns;
    e.codes.resize(static_cast<std::size_t>(rows * ((columns * F::bits + 7) / 8)));
    e.scales.resize(static_cast<std::size_t>(rows * groups));
    const sm::view<float, 2> scales(e.scales.data(), {rows, groups});
    quant::encode_options<F> to;
    quant::array_options<F> from;
    to.tile = from.tile = quant::per_group(group_columns), from.columns = columns;
    if constexpr (F::form == quant::affine::scale_and_zero) {
        e.zeros.resize(e.scales.size());
        to.zeros = {e.zeros.data(), {rows, groups}};
        from.zeros = to.zeros;
    }
    write(e, codes_of<F>(e, rows), scales, to);
    e.decoded.resize(static_cast<std::size_t>(rows * columns));
    const sm::view<float, 2> decoded(e.decoded.data(), {rows, columns});
    const quant::array_matrix<F> matrix(codes_of<F>(e, rows), scales, from);
    if (e.order.empty()) {
        quant::decode(matrix, decoded);
    } else {
        quant::decode(quant::permuted_matrix(matrix, {e.order.data(), {columns}}), decoded);
    }
    return e;
}

template <class F>
encoding nearest(const char* name, format kind, const weights_view& w, index group_columns)
{
    return in_arrays<F>(name, kind, w.extent(0), w.extent(1), group_columns,
                        [&](encoding&, auto codes, auto scales, const auto& to) { quant::encode<F>(w, codes, scales, to); });
}

/// By the search of encode_clipped where `clip` is given.
encoding in_two_levels(const char* name, const weights_view& w, index group_columns, const quant::clip_options* clip)
{
    using two_levels = quant::two_level_int4<float>;
    const index rows = w.extent(0), columns = w.extent(1), groups = (columns + group_columns - 1) / group_columns;
    encoding e;
    e.name = name, e.kind = format::two_level, e.group = group_columns;
    e.codes.resize(static_cast<std::size_t>(rows * ((columns + 1) / 2)));
    e.zeros.resize(static_cast<std::size_t>(rows * groups));
    e.scales.resize(static_cast<std::size_t>(rows));
    const auto codes = codes_of<two_levels>(e, rows);
    const sm::view<std::uint8_t, 2> group_scales(e.zeros.data(), {rows, groups});
    const sm::view<float, 2> scales(e.scales.data(), {rows, index{1}});
    const quant::two_level_options options{.group = group_columns, .columns = columns};
    if (clip != nullptr) {
        quant::encode_clipped<two_levels>(w, codes, group_scales, scales, options, *clip);
    } else {
        quant::encode<two_levels>(w, codes, group_scales, scales, options);
    }
    e.decoded.resize(static_cast<std::size_t>(rows * columns));
    quant::decode(quant::two_level_matrix<float>(codes, group_scales, scales, options), sm::view<float, 2>(e.decoded.data(), {rows, columns}));
    return e;
}

template <class F>
void add_blocks(std::vector<encoding>& all, const char* name, format kind, const weights_view& w)
{
    if (w.extent(1) % F::block != 0) { return; }
    encoding e;
    e.name = name, e.kind = kind;
    const index bytes = gguf::stored_bytes<F>(w.extent(0), w.extent(1));
    e.codes.resize(static_cast<std::size_t>(bytes));
    quant::encode<F>(w, e.codes.data(), bytes);
    e.decoded.resize(static_cast<std::size_t>(w.size()));
    quant::decode(gguf::matrix<F>(e.codes.data(), bytes, w.extent(0), w.extent(1)), sm::view<float, 2>(e.decoded.data(), {w.extent(0), w.extent(1)}));
    all.push_back(std::move(e));
}

std::vector<float> times_channels(const weights_view& w, const std::vector<float>& s)
{
    std::vector<float> scaled;
    for (index n = 0; n < w.extent(0); ++n) {
        for (index k = 0; k < w.extent(1); ++k) { scaled.push_back(w(n, k) * s[static_cast<std::size_t>(k)]); }
    }
    return scaled;
}

} // namespace

double encoding::bits_a_weight() const
{
    const std::size_t bytes = codes.size() + 4 * scales.size() + zeros.size();
    return 8.0 * static_cast<double>(bytes) / static_cast<double>(decoded.size());
}

std::vector<encoding> encode_all(const layer& l)
{
    const weights_view w(l.weights.data(), {l.rows, l.columns});
    const sm::view<const float, 2> x(l.calibration.data(), {l.calibration_tokens, l.columns});
    const auto channels = static_cast<std::size_t>(l.columns);
    std::vector<double> hessian_memory(channels * channels);
    const sm::view<double, 2> hessian(hessian_memory.data(), {l.columns, l.columns});
    quant::accumulate_hessian(x, hessian);

    std::vector<encoding> all;
    all.push_back(nearest<int8>("int8 a channel", format::int8, w, l.columns));
    std::vector<float> s(channels);
    const sm::view<float, 1> channel_scales(s.data(), {l.columns});
    quant::smooth_scales(x, w, channel_scales);
    const auto scaled_by = [&](const char* name, auto f, format kind, index group_columns) {
        const std::vector<float> scaled = times_channels(w, s);
        encoding e = nearest<decltype(f)>(name, kind, weights_view(scaled.data(), {l.rows, l.columns}), group_columns);
        e.channel_scales = s;
        return e;
    };
    all.push_back(scaled_by("int8 a channel, SmoothQuant", int8(), format::int8, l.columns));
    all.push_back(nearest<quant::float8<sm::fp8_e4m3, float>>("fp8 E4M3 a channel", format::fp8, w, l.columns));
    add_blocks<gguf::q8_0>(all, "q8_0", format::q8_0, w);
    add_blocks<gguf::q6_k>(all, "q6_K", format::q6_k, w);
    add_blocks<gguf::q4_0>(all, "q4_0", format::q4_0, w);
    add_blocks<gguf::q4_k>(all, "q4_K", format::q4_k, w);
    add_blocks<gguf::mxfp4>(all, "mxfp4", format::mxfp4, w);

    all.push_back(nearest<uint4>("uint4 g128, min-max", format::uint4, w, group));
    all.push_back(nearest<int4>("int4 g32, nearest", format::int4, w, 32));
    all.push_back(nearest<int4>("int4 g128, nearest", format::int4, w, group));
    const auto in_int4 = [&](const char* name, const auto& write) {
        all.push_back(in_arrays<int4>(name, format::int4, l.rows, l.columns, group, write));
    };
    in_int4("int4 g128, clipped", [&](encoding&, auto codes, auto scales, const auto& to) { quant::encode_clipped<int4>(w, codes, scales, to); });
    std::vector<float> mean_squares;
    for (index k = 0; k < l.columns; ++k) { mean_squares.push_back(static_cast<float>(hessian(k, k) / static_cast<double>(l.calibration_tokens))); }
    in_int4("int4 g128, clipped by x^2", [&](encoding&, auto codes, auto scales, const auto& to) {
        quant::encode_clipped<int4>(w, codes, scales, to, {.importance = {mean_squares.data(), {l.columns}}});
    });
    const quant::clip_options searched, searched_by_x{.importance = {mean_squares.data(), {l.columns}}};
    all.push_back(in_two_levels("2-level g32, nearest", w, 32, nullptr));
    all.push_back(in_two_levels("2-level g128, nearest", w, group, nullptr));
    all.push_back(in_two_levels("2-level g128, clipped", w, group, &searched));
    all.push_back(in_two_levels("2-level g128, clipped by x^2", w, group, &searched_by_x));
    all.push_back(in_two_levels("2-level g32, clipped by x^2", w, 32, &searched_by_x));
    in_int4("int4 g128, GPTQ", [&](encoding&, auto codes, auto scales, const auto& to) { quant::encode_gptq<int4>(w, hessian, codes, scales, to); });
    in_int4("int4 g128, GPTQ act-order", [&](encoding& e, auto codes, auto scales, const auto& to) {
        e.order.resize(channels);
        quant::encode_gptq<int4>(w, hessian, codes, scales, to, {.order = {e.order.data(), {l.columns}}});
    });
    quant::awq_scales<int4>(x, w, channel_scales, quant::per_group(group));
    all.push_back(scaled_by("int4 g128, AWQ", int4(), format::int4, group));
    return all;
}

} // namespace quantize_layer
