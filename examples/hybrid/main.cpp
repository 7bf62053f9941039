// SPDX-License-Identifier: MIT
// hybrid: window attention plus linear attention into one output, for a whole sequence and token by token. README.md explains.
#include <seqmix/attention.hpp>
#include <seqmix/linear.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

namespace sm = seqmix;
using sm::index;
using rule = sm::linear::mapped<sm::linear::additive, sm::linear::taylor_map>; // Based: 1 + x + x²/2 in place of e^x

constexpr index length = 512, size = 16, symbols = 32, seen = 16; // tokens; of a key; values are one-hot; the window, the token included
constexpr index features = rule::features::features(size);
constexpr float norm = 32.0f, sharpness = 0.75f; // |k|²; a key that is asked for scores norm · sharpness = 24 in the window,
constexpr float sink[] = {20.0f};                // and where none is, the window's weight goes here
const sm::view<const float, 1> sinks(sink, {1});

struct numbers {
    std::vector<float> of;

    explicit numbers(index n) : of(static_cast<std::size_t>(n)) {}
    float* row(index i, index width) { return of.data() + i * width; }
    sm::view<float, 4> heads_first(index rows, index width) { return {of.data(), {index{1}, index{1}, rows, width}}; } // [B, H, L, D]
    sm::view<float, 4> tokens_first(index rows, index width) { return {of.data(), {index{1}, rows, index{1}, width}}; } // [B, L, H, D]
    sm::view<float, 4> token(index i, index width) { return {row(i, width), {index{1}, index{1}, index{1}, width}}; }
};

/// Token t writes a symbol under its key, and asks for what an earlier token (or itself) has written.
struct task {
    numbers q{length * size}, k{length * size}, v{length * symbols};
    std::vector<index> asked = std::vector<index>(length);

    task()
    {
        std::mt19937 random(1);
        const auto below = [&](index n) { return static_cast<index>(random() % static_cast<unsigned>(n)); };
        for (index t = 0; t < length; ++t) {
            float* const key = k.row(t, size);
            float sum = 0.0f;
            for (index i = 0; i < size; ++i) { key[i] = static_cast<float>(random()) * 0x1p-31f - 1.0f, sum += key[i] * key[i]; }
            for (index i = 0; i < size; ++i) { key[i] *= std::sqrt(norm / sum); }
            v.row(t, symbols)[below(symbols)] = 1.0f;
            const bool near = t < seen || t % 2 == 0;
            asked[static_cast<std::size_t>(t)] = near ? t - below(std::min(t + 1, seen)) : below(t - seen + 1);
            std::copy_n(k.row(asked[static_cast<std::size_t>(t)], size), size, q.row(t, size));
        }
    }
};

/// All tokens at once: two calls, one output.
numbers prefill(task& x, bool window, bool states)
{
    numbers out(length * symbols);
    if (window) {
        sm::attention::forward(x.q.heads_first(length, size), x.k.heads_first(length, size), x.v.heads_first(length, symbols),
                               out.heads_first(length, symbols),
                               {.scale = sharpness, .causal = sm::causal::top_left, .window = {.left = seen - 1}, .sinks = sinks});
    }
    if (states) {
        sm::linear::forward<rule>(x.q.tokens_first(length, size), x.k.tokens_first(length, size), x.v.tokens_first(length, symbols), {},
                                  out.tokens_first(length, symbols), {.normalize = true, .accumulate = true});
    }
    return out;
}

/// One token after another: a state, and a ring of the window's keys and values, whose order attention does not see.
numbers decode(task& x)
{
    numbers out(length * symbols), far(symbols), ring_k(seen * size), ring_v(seen * symbols), state(features * symbols), normalizer(features);
    for (index t = 0; t < length; ++t) {
        const index kept = std::min(t + 1, seen);
        std::copy_n(x.k.row(t, size), size, ring_k.row(t % seen, size));
        std::copy_n(x.v.row(t, symbols), symbols, ring_v.row(t % seen, symbols));
        sm::attention::forward(x.q.token(t, size), ring_k.heads_first(kept, size), ring_v.heads_first(kept, symbols), out.token(t, symbols),
                               {.scale = sharpness, .sinks = sinks});
        sm::linear::step<rule>(x.q.token(t, size)[0], x.k.token(t, size)[0], x.v.token(t, symbols)[0], {}, far.token(0, symbols)[0],
                               {.normalize = true,
                                .state = sm::view(state.of.data(), {index{1}, index{1}, features, symbols}),
                                .normalizer = {normalizer.of.data(), {index{1}, index{1}, features}}});
        for (index j = 0; j < symbols; ++j) { out.row(t, symbols)[j] += far.of[static_cast<std::size_t>(j)]; }
    }
    return out;
}

/// Per cent of the questions about near or far tokens that the right symbol answers.
double found(task& x, const numbers& out, bool near)
{
    int right = 0, all = 0;
    for (index t = 0; t < length; ++t) {
        const index s = x.asked[static_cast<std::size_t>(t)];
        const float* const y = out.of.data() + t * symbols;
        if ((t - s < seen) != near) { continue; }
        right += x.v.row(s, symbols)[std::max_element(y, y + symbols) - y] == 1.0f, ++all;
    }
    return 100.0 * right / all;
}

} // namespace

int main()
{
    task x;
    const auto line = [&](const char* name, const numbers& out) {
        std::printf("%s   %4.0f   %4.0f\n", name, found(x, out, true), found(x, out, false));
    };
    const numbers sum = prefill(x, true, true), steps = decode(x);
    std::printf("found, %%       near    far\n");
    line("window alone", prefill(x, true, false)), line("states alone", prefill(x, false, true)), line("their sum   ", sum);
    float worst = 0.0f;
    for (std::size_t i = 0; i < sum.of.size(); ++i) { worst = std::fmax(worst, std::fabs(sum.of[i] - steps.of[i])); }
    std::printf("largest difference between prefill and decoding: %g\n", static_cast<double>(worst));
    // Weights that add up to 1, each with the roundings of a product of `features` numbers; 1 + x + x²/2 >= 1/2, so none cancel.
    return worst <= static_cast<float>(length + features) * 0x1p-23f ? 0 : 1;
}
