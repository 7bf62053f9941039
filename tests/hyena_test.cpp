// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/refusals.hpp"

#include <seqmix/conv/hyena.hpp>
#include <seqmix/conv/reference.hpp>

#include <cstring>
#include <vector>

namespace hyena_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;
using plan = conv::plan<test_arch>;

constexpr index lanes = sm::simd::lanes<test_arch>;

struct sizes {
    index batch, order, channels, length, taps;
    bool causal = true, skip = false, inside = false, own_kernels = false; ///< inside: channels lie together
    conv::method how = conv::method::automatic;
};

/// Integers: where sums stay below 2^24 floats are exact, so that there is one right answer.
template <class T>
std::vector<T> integers(random_source& random, index n, int most)
{
    std::vector<T> x;
    for (index i = 0; i < n; ++i) { x.push_back(static_cast<T>(static_cast<float>(random.integer(-most, most)))); }
    return x;
}

template <class T>
struct operands {
    sizes n;
    std::vector<float> kernel, skip;
    std::vector<T> v, gates;

    operands(const sizes& n_, std::uint64_t seed, bool whole) : n(n_)
    {
        random_source random(seed);
        const auto numbers = [&](auto& to, index count, int most) {
            using E = typename std::remove_reference_t<decltype(to)>::value_type;
            to = integers<E>(random, count, most);
            for (E& x : to) { x = whole ? x : static_cast<E>(random.normal()); }
        };
        const index all = n.batch * n.channels * n.length, kernels = n.order * n.channels;
        numbers(kernel, kernels * n.taps * (n.own_kernels ? n.batch : 1), 2), numbers(skip, kernels, 2);
        numbers(v, all, 4), numbers(gates, all * n.order, 1);
    }
    plan make() const
    {
        const index kernels = n.order * n.channels;
        const conv::plan_options opt{.length = n.length, .causal = n.causal, .method = n.how};
        return n.own_kernels ? plan(sm::view<const float, 3>(kernel.data(), {n.batch, kernels, n.taps}), opt)
                             : plan(sm::view<const float, 2>(kernel.data(), {kernels, n.taps}), opt);
    }
    template <class E>
    sm::view<E, 3> rows(E* data) const
    {
        if (n.inside) { return sm::view<E, 3>(data, {n.batch, n.length, n.channels}).transposed(1, 2); }
        return {data, {n.batch, n.channels, n.length}};
    }
    sm::view<const T, 4> factors() const
    {
        if (n.inside) { return sm::view<const T, 4>(gates.data(), {n.batch, n.length, n.order, n.channels}).transposed(1, 2).transposed(2, 3); }
        return {gates.data(), {n.batch, n.order, n.channels, n.length}};
    }
    conv::hyena_options options() const
    {
        conv::hyena_options opt;
        if (n.skip) { opt.skip = sm::view<const float, 2>(skip.data(), {n.order, n.channels}); }
        return opt;
    }
};

/// Exactly the definition's, of small integers, by taps.
template <class T, class Out>
void check(const sizes& n, std::uint64_t seed)
{
    CAPTURE(n.batch, n.order, n.channels, n.length, n.taps, n.causal, n.skip, n.inside, n.own_kernels);
    const operands<T> o(n, seed, true);
    guarded<Out> memory(n.batch * n.channels * n.length);
    const sm::view<Out, 3> out = o.rows(memory.data());
    conv::hyena(o.make(), o.rows(o.v.data()), o.factors(), out, o.options());
    const auto v = o.rows(o.v.data());
    const auto x = o.factors();
    bool same = true;
    for (index b = 0; b < n.batch; ++b) {
        for (index d = 0; d < n.channels; ++d) {
            std::vector<double> z;
            for (index t = 0; t < n.length; ++t) { z.push_back(static_cast<double>(static_cast<float>(v(b, d, t)))); }
            for (index i = 0; i < n.order; ++i) {
                const index kernel = ((n.own_kernels ? b : 0) * n.order + i) * n.channels + d;
                const auto taps = o.kernel.begin() + kernel * n.taps;
                std::vector<double> y = conv::reference::convolve(z, {taps, taps + n.taps}, {}, !n.causal);
                for (index t = 0; t < n.length; ++t) {
                    const auto at = static_cast<std::size_t>(t);
                    const double skip = n.skip ? static_cast<double>(o.skip[static_cast<std::size_t>(i * n.channels + d)]) : 0.0;
                    z[at] = static_cast<double>(static_cast<float>(x(b, i, d, t))) * (y[at] + skip * z[at]);
                }
            }
            for (index t = 0; t < n.length; ++t) {
                const Out want = static_cast<Out>(static_cast<float>(z[static_cast<std::size_t>(t)]));
                same = same && static_cast<float>(out(b, d, t)) == static_cast<float>(want);
            }
        }
    }
    CHECK(same);
    CHECK(memory.intact());
}

TEST_CASE("Hyena's operator is its definition, exactly, of small integers")
{
    random_source random(3);
    const auto yes = [&] { return random.integer(0, 1) == 1; };
    for (std::uint64_t seed = 0; seed < 80; ++seed) {
        sizes n{random.integer(0, 2), random.integer(0, 3), random.integer(1, 3), random.integer(0, 60), random.integer(0, 30)};
        if (seed % 8 == 0) { n.channels = lanes + 2; }
        n.causal = yes(), n.skip = yes(), n.inside = yes(), n.own_kernels = yes(), n.how = conv::method::direct;
        if (n.order > 2) { n.taps = sm::smaller(n.taps, 8); }
        check<float, float>(n, seed);
    }
    for (const bool inside : {false, true}) {
        const sizes n{.batch = 2, .order = 2, .channels = 3, .length = 37, .taps = 9, .skip = true, .inside = inside, .how = conv::method::direct};
        check<sm::bf16, float>(n, 1), check<sm::bf16, sm::bf16>(n, 2);
    }
}

TEST_CASE("Hyena's operator is that many convolutions with gates, bit for bit, by any number of threads")
{
    for (const bool inside : {false, true}) {
        const sizes n{.batch = 2, .order = 2, .channels = 5, .length = 1000, .taps = 1000, .skip = true, .inside = inside, .how = conv::method::transform};
        const operands<float> o(n, 7, false);
        std::vector<float> whole(o.v.size()), spread(o.v.size()), middle(o.v.size()), chained(o.v.size());
        const plan all = o.make();
        conv::hyena(all, o.rows(o.v.data()), o.factors(), o.rows(whole.data()), o.options());
        sm::context many{sm::parallel_for{3, test_support::on_threads{}}};
        conv::hyena(all, o.rows(o.v.data()), o.factors(), o.rows(spread.data()), o.options(), many);
        CHECK(std::memcmp(whole.data(), spread.data(), whole.size() * sizeof(float)) == 0);
        for (index i = 0; i < 2; ++i) {
            const plan one(sm::view<const float, 2>(o.kernel.data() + i * n.channels * n.taps, {n.channels, n.taps}),
                           {.length = n.length, .method = n.how});
            conv::apply(one, o.rows<const float>(i == 0 ? o.v.data() : middle.data()), o.rows(i == 0 ? middle.data() : chained.data()),
                        {.post_gate = o.factors().select(1, i), .skip = o.options().skip[i]});
        }
        CHECK(std::memcmp(whole.data(), chained.data(), whole.size() * sizeof(float)) == 0);
    }
}

struct hyena_call {
    std::vector<float> kernel = minus_ones(6 * 5), from = minus_ones(2 * 3 * 7), factors = minus_ones(2 * 2 * 3 * 7), skips = minus_ones(6), to = from;
    conv::plan_options plan_opt{.length = 7};
    sm::view<const float, 2> k{kernel.data(), {6, 5}};
    sm::view<const float, 3> v{from.data(), {2, 3, 7}};
    sm::view<const float, 4> gates{factors.data(), {2, 2, 3, 7}};
    sm::view<float, 3> out{to.data(), {2, 3, 7}};
    conv::hyena_options opt{.skip = {skips.data(), {2, 3}}};

    void call() { conv::hyena(plan(k, plan_opt), v, gates, out, opt); }
    bool untouched() const { return all_minus_ones({&kernel, &from, &factors, &skips, &to}); }
};

TEST_CASE("Hyena's operator refuses")
{
    check_refusals<hyena_call>(
        "conv::hyena",
        {
            {"null v", [](hyena_call& c) { c.v = null(c.v); }, {"v is null", "42"}},
            {"null gates", [](hyena_call& c) { c.gates = null(c.gates); }, {"gates is null", "84"}},
            {"batch of gates", [](hyena_call& c) { c.gates = resized(c.gates, 0, 1); }, {"gates's batch is 1", "v's is 2"}},
            {"length of gates", [](hyena_call& c) { c.gates = resized(c.gates, 3, 6); }, {"gates's length is 6", "v's is 7"}},
            {"kernels", [](hyena_call& c) { c.k = resized(c.k, 0, 3); }, {"the plan has 3 channels", "order times v's channels is 6"}},
            {"channels of out", [](hyena_call& c) { c.out = resized(c.out, 1, 2); }, {"out's number of channels is 2", "v's is 3"}},
            {"skip", [](hyena_call& c) { c.opt.skip = resized(c.opt.skip, 0, 1); }, {"skip's order is 1", "gates' is 2"}},
            {"longer than planned", [](hyena_call& c) { c.plan_opt.length = 6; }, {"v's length is 7", "the plan's is 6"}},
            {"circular", [](hyena_call& c) { c.plan_opt.length = 8, c.plan_opt.causal = false; }, {"v's length is 7", "the plan's is 8"}},
            {"out over gates", [](hyena_call& c) { c.out = {c.factors.data(), {2, 3, 7}}; }, {"out overlaps gates"}},
        });
}

} // namespace
} // namespace hyena_test
