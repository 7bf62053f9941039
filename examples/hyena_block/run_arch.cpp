// SPDX-License-Identifier: MIT
// The block, compiled once per instruction set with its flags and -DSEQMIX_HYENA_ARCH=<set>.
#include "kernel.hpp"

#include <seqmix/conv/hyena.hpp>
#include <seqmix/conv/kernels.hpp>
#include <seqmix/conv/stream.hpp>
#include <seqmix/ssm/causal_conv1d.hpp>
#include <seqmix/tile/gemm.hpp>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <utility>
#include <vector>

namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;
using arch = sm::arch::SEQMIX_HYENA_ARCH;
using numbers = std::vector<float>;

/// [rows, columns]: of the rows of `from` those first, first + 1, …
sm::view<float, 2> matrix(numbers& from, index first, index rows, index columns)
{
    return {from.data() + first * columns, {rows, columns}};
}

numbers random(index count, double scale)
{
    static unsigned long long state = 1;
    numbers x(static_cast<std::size_t>(count));
    for (float& value : x) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        value = static_cast<float>(scale * (static_cast<double>(state >> 33) * 0x1p-30 - 1.0));
    }
    return x;
}

/// Both long filters of all channels, [2 D, L]: a network of the position, sines for activations, times a fading window.
numbers implicit_filters(index channels, index length)
{
    constexpr index bands = 4, features = 2 * bands + 1, hidden = 16;
    numbers first = random(hidden * features, 1.0), second = random(hidden * hidden, 0.5), last = random(2 * channels * hidden, 0.3);
    numbers filter(static_cast<std::size_t>(2 * channels * length));
    const auto layer = [](const numbers& weight, const std::vector<double>& x, std::size_t row) {
        double sum = 0.0;
        for (std::size_t i = 0; i < x.size(); ++i) { sum += static_cast<double>(weight[row * x.size() + i]) * x[i]; }
        return sum;
    };
    for (index t = 0; t < length; ++t) {
        const double time = static_cast<double>(t) / static_cast<double>(length);
        std::vector<double> x = {time}, a(hidden), b(hidden);
        for (int f = 1; f <= bands; ++f) { x.push_back(std::cos(6.2831853 * f * time)), x.push_back(std::sin(6.2831853 * f * time)); }
        for (std::size_t i = 0; i < a.size(); ++i) { a[i] = std::sin(10.0 * layer(first, x, i)); }
        for (std::size_t i = 0; i < b.size(); ++i) { b[i] = std::sin(10.0 * layer(second, a, i)); }
        for (index d = 0; d < 2 * channels; ++d) {
            filter[static_cast<std::size_t>(d * length + t)] = static_cast<float>(layer(last, b, static_cast<std::size_t>(d)));
        }
    }
    numbers rate = conv::hyena_rates(channels);
    for (index h : {index{0}, channels}) { conv::decay_window(matrix(filter, h, channels, length), {rate.data(), {channels}}); }
    return filter;
}

/// Hyena's operator of order 2 (Poli et al. 2023, section 3):
///
///     v, x1, x2 = conv1d(in_proj(input))            3 taps a channel
///     y         = x2 ∘ (h2 * (x1 ∘ (h1 * v)))       and skips: h * u + skip u
///     output    = out_proj(y)
///
/// Sequences are [L, D]; in between, channels come first: what is [rows, L] for a whole sequence is [rows, 1] for a token.
class block {
public:
    block(index length, index channels)
        : D(channels), in_proj_(random(3 * D * D, 1.5 / std::sqrt(D))), short_(random(3 * D * 3, 1.0)), out_proj_(random(D * D, 1.0 / std::sqrt(D))),
          skips_(random(2 * D, 1.0)), filters_(implicit_filters(D, length)), plan_(matrix(filters_, 0, 2 * D, length), {.length = length}),
          first_stream_plan_(filter(0)), second_stream_plan_(filter(1)),
          first_stream_(first_stream_plan_, 1), second_stream_(second_stream_plan_, 1), short_state_(static_cast<std::size_t>(3 * D * 2))
    {
    }

    void whole(const sm::view<float, 2>& input, const sm::view<float, 2>& output)
    {
        const index L = input.extent(0);
        make_room(L);
        sm::tile::gemm<arch>(matrix(in_proj_, 0, 3 * D, D), input.transposed(0, 1), matrix(projected_, 0, 3 * D, L), scratch_);
        sm::ssm::causal_conv1d<arch>(item(projected_, 0, 3 * D, L), matrix(short_, 0, 3 * D, 3), item(mixed_, 0, 3 * D, L));
        conv::hyena(plan_, item(mixed_, 0, D, L), sm::view<const float, 4>(mixed_.data() + D * L, {index{1}, index{2}, D, L}), item(y_, 0, D, L),
                    {.skip = matrix(skips_, 0, 2, D)}, ctx_);
        sm::tile::gemm<arch>(matrix(y_, 0, D, L).transposed(0, 1), matrix(out_proj_, 0, D, D).transposed(0, 1), output, scratch_);
    }

    /// The next token: [1, D].
    void step(const sm::view<float, 2>& input, const sm::view<float, 2>& output)
    {
        make_room(1);
        const auto row = [](numbers& of, index first, index count) { return sm::view<float, 2>(of.data() + first, {index{1}, count}); };
        sm::tile::gemm<arch>(matrix(in_proj_, 0, 3 * D, D), input.transposed(0, 1), matrix(projected_, 0, 3 * D, 1), scratch_);
        sm::ssm::causal_conv1d_step<arch>(row(projected_, 0, 3 * D), matrix(short_, 0, 3 * D, 3), row(mixed_, 0, 3 * D),
                                          {.state = sm::view<float, 3>(short_state_.data(), {index{1}, 3 * D, index{2}})});
        first_stream_.step(row(mixed_, 0, D), row(middle_, 0, D), {.skip = skip(0)}, ctx_);
        second_stream_.step(row(middle_, 0, D), row(y_, 0, D),
                            {.pre_gate = row(mixed_, D, D), .post_gate = row(mixed_, 2 * D, D), .skip = skip(1)}, ctx_);
        sm::tile::gemm<arch>(matrix(out_proj_, 0, D, D), matrix(y_, 0, D, 1), output.transposed(0, 1), scratch_);
    }

    index points() const { return plan_.points(); }

private:
    /// [1, rows, L]
    sm::view<float, 3> item(numbers& from, index first, index rows, index L) { return with_leading_axis(matrix(from, first, rows, L)); }
    sm::view<const float, 2> filter(index i) { return matrix(filters_, i * D, D, static_cast<index>(filters_.size()) / (2 * D)); }
    sm::view<const float, 1> skip(index i) { return {skips_.data() + i * D, {D}}; }
    void make_room(index L)
    {
        projected_.resize(static_cast<std::size_t>(3 * D * L)), mixed_.resize(projected_.size());
        middle_.resize(static_cast<std::size_t>(D)), y_.resize(static_cast<std::size_t>(D * L));
    }

    index D;
    numbers in_proj_, short_, out_proj_, skips_, filters_; // [3 D, D], [3 D, 3], [D, D], [2, D], [2 D, L]
    conv::plan<arch> plan_;
    conv::stream_plan<arch> first_stream_plan_, second_stream_plan_;
    conv::stream<arch> first_stream_, second_stream_;
    numbers short_state_, projected_, mixed_, middle_, y_;
    sm::workspace scratch_;
    sm::context<> ctx_;
};

hyena_block::result run(std::ptrdiff_t tokens, std::ptrdiff_t channels)
{
    block b(tokens, channels);
    numbers x = random(tokens * channels, 1.7), whole(x.size()), streamed(x.size());
    auto seconds = [start = std::clock()]() mutable {
        return static_cast<double>(std::clock() - std::exchange(start, std::clock())) / CLOCKS_PER_SEC;
    };
    b.whole(matrix(x, 0, tokens, channels), matrix(whole, 0, tokens, channels));
    hyena_block::result r{.whole_seconds = seconds()};
    for (index t = 0; t < tokens; ++t) { b.step(matrix(x, t, 1, channels), matrix(streamed, t, 1, channels)); }
    r.stream_seconds = seconds();
    double largest = 0.0, all = 0.0, squares = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double want = static_cast<double>(whole[i]), apart = std::fabs(static_cast<double>(streamed[i]) - want);
        r.difference = std::max(apart, r.difference), largest = std::max(largest, std::fabs(want));
        squares += apart * apart, all += want * want; // a NaN stays in them
    }
    r.difference /= largest, r.root_mean_square = std::sqrt(squares / all);
    // Of two convolutions by two routes: each may be off by that much, in the root mean square, and so may what is made of it.
    r.bound = 4.0 * 3.0 * 0x1p-23 * std::log2(2.0 * static_cast<double>(std::max(2 * tokens, b.points())));
    return r;
}

} // namespace

#define HYENA_PASTE_(a, b) a##b
#define HYENA_PASTE(a, b) HYENA_PASTE_(a, b)
extern hyena_block::backend* const HYENA_PASTE(hyena_block_, SEQMIX_HYENA_ARCH);
hyena_block::backend* const HYENA_PASTE(hyena_block_, SEQMIX_HYENA_ARCH) = run;
