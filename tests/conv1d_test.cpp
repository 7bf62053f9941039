// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"

#include <seqmix/ssm/causal_conv1d.hpp>
#include <seqmix/ssm/conv1d_reference.hpp>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// A namespace, because POSIX has an index of its own in the global one.
namespace conv1d_test {

namespace {

namespace sm = seqmix;
namespace ssm = seqmix::ssm;
using sm::bf16;
using sm::f16;
using sm::index;
using test_support::on_threads;

constexpr index lanes = sm::simd::lanes<test_arch>;
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// How a [B, D, L] operand lies in memory.
enum class lie { channel_first, channel_last, spaced, spaced_last, time_reversed, last_time_reversed, channels_reversed };
constexpr lie all_lies[] = {lie::channel_first, lie::channel_last,       lie::spaced,           lie::spaced_last,
                            lie::time_reversed, lie::last_time_reversed, lie::channels_reversed};

/// A [B, D, L] operand in guarded memory; `skipped` elements off a border of 64 bytes.
template <class T>
class tensor {
public:
    tensor(index batch, index channels, index length, lie how, std::size_t skipped = 0)
        : memory_(batch * channels * length * (how == lie::spaced || how == lie::spaced_last ? 6 : 1), skipped * sizeof(T))
    {
        index b = channels * length, d = length, t = 1;
        if (how == lie::channel_last || how == lie::last_time_reversed) { d = 1, t = channels; }
        if (how == lie::spaced) { t = 3, d = 3 * length, b = 6 * channels * length; }
        if (how == lie::spaced_last) { d = 1, t = 2 * channels, b = 2 * channels * length; }
        view_ = sm::view<T, 3>(memory_.data(), {batch, channels, length}, {b, d, t});
        if (how == lie::time_reversed || how == lie::last_time_reversed) { view_ = view_.reversed(2); }
        if (how == lie::channels_reversed) { view_ = view_.reversed(1); }
    }

    const sm::view<T, 3>& operator()() const { return view_; }
    guarded<T>& memory() { return memory_; }

    void fill(random_source& random)
    {
        each([&](T& x) { x = T(random.normal()); });
    }
    template <class Other>
    void copy(const Other& other)
    {
        for (index b = 0; b < view_.extent(0); ++b) {
            for (index d = 0; d < view_.extent(1); ++d) {
                for (index t = 0; t < view_.extent(2); ++t) { view_(b, d, t) = other(b, d, t); }
            }
        }
    }

    /// Whether what the view does not reach, and only that, is as it was made.
    bool written_exactly()
    {
        std::vector<bool> reached(static_cast<std::size_t>(memory_.size()));
        each([&](T& x) { reached[static_cast<std::size_t>(&x - memory_.data())] = true; });
        for (index i = 0; i < memory_.size(); ++i) {
            if (memory_.untouched(i) == reached[static_cast<std::size_t>(i)]) { return false; }
        }
        return memory_.intact();
    }
    bool untouched()
    {
        bool all = memory_.intact();
        for (index i = 0; i < memory_.size(); ++i) { all = all && memory_.untouched(i); }
        return all;
    }

private:
    template <class Body>
    void each(const Body& body)
    {
        for (index b = 0; b < view_.extent(0); ++b) {
            for (index d = 0; d < view_.extent(1); ++d) {
                for (index t = 0; t < view_.extent(2); ++t) { body(view_(b, d, t)); }
            }
        }
    }

    guarded<T> memory_;
    sm::view<T, 3> view_;
};

/// Whether two views hold the same bits.
template <class T, std::size_t Rank>
bool same_bits(const sm::view<T, Rank>& a, const sm::view<T, Rank>& b)
{
    if constexpr (Rank == 1) {
        for (index i = 0; i < a.extent(0); ++i) {
            if (std::memcmp(&a(i), &b(i), sizeof(T)) != 0) { return false; }
        }
    } else {
        for (index i = 0; i < a.extent(0); ++i) {
            if (!same_bits(a[i], b[i])) { return false; }
        }
    }
    return true;
}

/// Weight [D, W] and bias [D]; the weight's taps lie apart where `spaced`.
struct filter_numbers {
    std::vector<float> weight, bias;
    index channels, width, spacing;

    filter_numbers(random_source& random, index d, index w, bool spaced = false)
        : weight(random.normals(static_cast<std::size_t>(d * w * 2))), bias(random.normals(static_cast<std::size_t>(d))),
          channels(d), width(w), spacing(spaced ? 2 : 1)
    {
    }
    sm::view<const float, 2> weight_view() const { return {weight.data(), {channels, width}, {width * spacing, spacing}}; }
    sm::view<const float, 1> bias_view() const { return sm::view<const float, 1>(bias.data(), {channels}); }
    ssm::conv1d_options options(bool biased, bool silu) const
    {
        return {.bias = biased ? bias_view() : sm::view<const float, 1>{},
                .activation = silu ? ssm::activation::silu : ssm::activation::none};
    }
};

/// The docstring's bound on |out - exact|; `magnitude` is |bias| + Σ|weight x|, `exact` what comes after the activation.
template <class Out>
double bound(double magnitude, double exact, index width, bool silu)
{
    constexpr double u = sm::unit_roundoff<float>;
    double error = static_cast<double>(width + 2) * u * magnitude;
    if (silu) { error = 1.1 * error + 3.35 * unit_in_last_place(exact); }
    if constexpr (!std::is_same_v<Out, float>) {
        constexpr double half_smallest = std::is_same_v<Out, bf16> ? 0x1p-134 : 0x1p-25; // where results are subnormal
        error += sm::unit_roundoff<Out> * (std::fabs(exact) + error) + half_smallest;
    }
    return error;
}

template <class T>
std::vector<double> widened(const sm::view<T, 1>& x)
{
    std::vector<double> wide;
    for (index i = 0; i < x.extent(0); ++i) { wide.push_back(as_double(x(i))); }
    return wide;
}

/// x, out and state against the definition; `before` is the state as it was. Returns the worst error over its bound.
template <class T, class Out, class S>
double worst_over_bound(const sm::view<const T, 3>& x, const filter_numbers& f, bool biased, bool silu,
                        const sm::view<Out, 3>& out, const sm::view<S, 3>& before, const sm::view<S, 3>& after)
{
    double worst = 0.0;
    std::vector<float> size_of_weight = f.weight;
    for (float& w : size_of_weight) { w = std::fabs(w); }
    for (index b = 0; b < x.extent(0); ++b) {
        for (index d = 0; d < x.extent(1); ++d) {
            std::vector<double> state(static_cast<std::size_t>(f.width - 1));
            if (before) { state = widened(before[b][d]); }
            std::vector<double> sizes = state;
            for (double& s : sizes) { s = std::fabs(s); }
            std::vector<T> size_of_x;
            for (index t = 0; t < x.extent(2); ++t) { size_of_x.push_back(T(std::fabs(static_cast<float>(x(b, d, t))))); }

            const double bias = biased ? static_cast<double>(f.bias[static_cast<std::size_t>(d)]) : 0.0;
            const auto want = ssm::reference::causal_conv1d<T>(x[b][d], f.weight_view()[d], bias, silu, state);
            const sm::view<const float, 2> abs_weight(size_of_weight.data(), {f.channels, f.width},
                                                      {f.width * f.spacing, f.spacing});
            const auto magnitude = ssm::reference::causal_conv1d<T>(
                sm::view<const T, 1>(size_of_x.data(), {x.extent(2)}), abs_weight[d], std::fabs(bias), false, sizes);
            for (index t = 0; t < x.extent(2); ++t) {
                const auto at = static_cast<std::size_t>(t);
                const double error = absolute_error(as_double(out(b, d, t)), want[at]);
                worst = std::max(worst, error / (bound<Out>(magnitude[at], want[at], f.width, silu) + 0x1p-1000));
            }
            if (after) {
                for (index j = 0; j < f.width - 1; ++j) {
                    // What came from x is rounded to the state's type, what was the state's already is itself.
                    const S kept(static_cast<float>(state[static_cast<std::size_t>(j)]));
                    if (std::memcmp(&after(b, d, j), &kept, sizeof(S)) != 0) { worst = HUGE_VAL; }
                }
            }
        }
    }
    return worst;
}

template <class T, class Out>
void check_shape(random_source& random, index batch, index channels, index length, index width, lie x_lies, lie out_lies,
                 int variant)
{
    const bool biased = variant & 1, silu = variant & 2, with_state = variant & 4, narrow_state = variant & 8;
    tensor<T> x(batch, channels, length, x_lies, static_cast<std::size_t>(variant) % 5);
    tensor<Out> out(batch, channels, length, out_lies, static_cast<std::size_t>(variant) % 3);
    x.fill(random);
    const filter_numbers f(random, channels, width, variant & 16);
    const lie state_lies = all_lies[variant % 7];
    const auto run = [&]<class S>(S) {
        tensor<S> state(batch, channels, width - 1, state_lies), before(batch, channels, width - 1, lie::channel_first);
        state.fill(random);
        before.copy(state());
        ssm::conv1d_options opt = f.options(biased, silu);
        if (with_state) { opt.state = state(); }
        ssm::causal_conv1d<test_arch>(x(), f.weight_view(), out(), opt);
        std::ostringstream where;
        where << "B " << batch << " D " << channels << " L " << length << " W " << width << " x lies "
              << static_cast<int>(x_lies) << ", out " << static_cast<int>(out_lies) << ", variant " << variant;
        INFO(where.str());
        const sm::view<S, 3> none;
        CHECK(worst_over_bound<T, Out, S>(x(), f, biased, silu, out(), with_state ? before() : none,
                                          with_state ? state() : none) <= 1.0);
        CHECK(out.written_exactly());
        CHECK(state.memory().intact());
        CHECK(x.memory().intact());
    };
    narrow_state ? run(bf16()) : run(float());
}

template <class T, class Out>
void check_shapes(std::uint64_t seed)
{
    random_source random(seed);
    int variant = 0;
    for (const index width : {1, 2, 3, 4, 5, 9}) {
        for (const index length : {index{0}, index{1}, index{2}, index{3}, index{7}, lanes - 1, lanes, lanes + 1, index{61},
                                   4 * lanes + 3}) {
            for (const index channels : {index{1}, index{3}, lanes + 1, index{37}}) {
                const lie x_lies = all_lies[variant % 7];
                const lie out_lies = variant % 3 == 0 ? all_lies[variant / 7 % 7] : x_lies;
                check_shape<T, Out>(random, 1 + variant % 2, channels, length, width, x_lies, out_lies, variant % 32);
                ++variant;
            }
        }
    }
    check_shape<T, Out>(random, 1, 2, 1201, 4, lie::spaced, lie::spaced, 7);           // several dense stretches
    check_shape<T, Out>(random, 1, 2, 1201, 600, lie::time_reversed, lie::spaced, 7);  // wider than one
    check_shape<T, Out>(random, 2, 70, 150, 130, lie::channel_last, lie::channel_last, 7);
    check_shape<T, Out>(random, 0, 3, 5, 4, lie::channel_first, lie::channel_first, 7);
    check_shape<T, Out>(random, 3, 0, 5, 4, lie::channel_last, lie::channel_last, 7);
}

} // namespace

TEST_CASE("conv1d: float, any shape and layout, as defined", "[conv1d]") { check_shapes<float, float>(1); }
TEST_CASE("conv1d: bf16, any shape and layout, as defined", "[conv1d]") { check_shapes<bf16, bf16>(2); }
TEST_CASE("conv1d: f16 to float, any shape and layout, as defined", "[conv1d]") { check_shapes<f16, float>(3); }

TEST_CASE("conv1d: the same bits in every layout, on any number of threads", "[conv1d]")
{
    struct shape {
        index batch, channels, length, width;
    };
    // All but the first are cut along time for several workers, the last one with blocks that its width makes longer.
    for (const shape s : {shape{2, 133, 67, 4}, shape{1, 70, 1501, 4}, shape{1, 3, 30011, 7}, shape{1, 70, 700, 180}}) {
        random_source random(4);
        const filter_numbers f(random, s.channels, s.width);
        tensor<float> x(s.batch, s.channels, s.length, lie::channel_first);
        tensor<float> state(s.batch, s.channels, s.width - 1, lie::channel_first);
        x.fill(random), state.fill(random);
        tensor<float> want(s.batch, s.channels, s.length, lie::channel_first);
        tensor<float> want_state(s.batch, s.channels, s.width - 1, lie::channel_first);
        want_state.copy(state());
        ssm::conv1d_options opt = f.options(true, true);
        opt.state = want_state();
        ssm::causal_conv1d<test_arch>(x(), f.weight_view(), want(), opt);
        for (const lie how : all_lies) {
            tensor<float> mine(s.batch, s.channels, s.length, how);
            mine.copy(x());
            for (const int workers : {1, 2, 5}) {
                tensor<float> got(s.batch, s.channels, s.length, how), got_state(s.batch, s.channels, s.width - 1, how);
                got_state.copy(state());
                opt.state = got_state();
                sm::context ctx{sm::parallel_for{workers, on_threads{}}};
                ssm::causal_conv1d<test_arch>(mine(), f.weight_view(), got(), opt, ctx);
                INFO("D " << s.channels << " L " << s.length << " lies " << static_cast<int>(how) << ", " << workers
                          << " workers");
                CHECK(same_bits(got(), want()));
                CHECK(same_bits(got_state(), want_state()));
            }
        }
    }
}

TEST_CASE("conv1d: any cut into calls and steps gives the same bits", "[conv1d]")
{
    for (const index width : {1, 2, 3, 4, 6}) {
        constexpr index batch = 3, channels = 2 * 16 + 5, length = 97;
        random_source random(5);
        const filter_numbers f(random, channels, width);
        tensor<float> x(batch, channels, length, lie::channel_last);
        x.fill(random);
        tensor<float> want(batch, channels, length, lie::channel_last);
        tensor<float> want_state(batch, channels, width - 1, lie::channel_first);
        tensor<float> start(batch, channels, width - 1, lie::channel_first);
        start.fill(random);
        ssm::conv1d_options opt = f.options(true, true);
        want_state.copy(start());
        opt.state = want_state();
        ssm::causal_conv1d<test_arch>(x(), f.weight_view(), want(), opt);

        for (const lie how : {lie::channel_first, lie::channel_last, lie::spaced}) {
            for (const lie state_lies : {lie::channel_first, lie::channel_last}) {
                tensor<float> mine(batch, channels, length, how), got(batch, channels, length, how);
                tensor<float> state(batch, channels, width - 1, state_lies);
                mine.copy(x()), state.copy(start());
                opt.state = state();
                for (index t = 0; t < length;) {
                    const index count = std::min(length - t, random.integer(0, 3) == 0 ? random.integer(0, 20) : index{1});
                    const auto in = mine().slice(2, t, t + count), out = got().slice(2, t, t + count);
                    if (count == 1) {
                        ssm::causal_conv1d_step<test_arch>(in.select(2, 0), f.weight_view(), out.select(2, 0), opt);
                    } else {
                        ssm::causal_conv1d<test_arch>(in, f.weight_view(), out, opt);
                    }
                    t += count;
                }
                INFO("W " << width << " lies " << static_cast<int>(how));
                CHECK(same_bits(got(), want()));
                CHECK(same_bits(state(), want_state()));
                CHECK(got.written_exactly());
            }
        }
    }
}

TEST_CASE("conv1d: packed sequences are sequences of their own", "[conv1d]")
{
    const std::vector<index> offsets = {0, 3, 3, 4, 50, 52, 52, 2100, 2103};
    const index sequences = static_cast<index>(offsets.size()) - 1, channels = 19, total = offsets.back();
    for (const lie how : {lie::channel_first, lie::channel_last, lie::spaced}) {
        for (const int workers : {1, 3}) {
            random_source random(6);
            const filter_numbers f(random, channels, 4);
            tensor<float> x(1, channels, total, how), got(1, channels, total, how), want(1, channels, total, how);
            tensor<bf16> state(sequences, channels, 3, lie::channel_first);
            tensor<bf16> want_state(sequences, channels, 3, lie::channel_first);
            x.fill(random), state.fill(random);
            want_state.copy(state());
            ssm::conv1d_options opt = f.options(true, false);
            opt.state = state();
            sm::context ctx{sm::parallel_for{workers, on_threads{}}};
            ssm::causal_conv1d_packed<test_arch>(x()[0], f.weight_view(), got()[0],
                                                 sm::view<const index, 1>(offsets.data(), {sequences + 1}), opt, ctx);
            for (index n = 0; n < sequences; ++n) {
                const index begin = offsets[static_cast<std::size_t>(n)], end = offsets[static_cast<std::size_t>(n) + 1];
                opt.state = want_state().slice(0, n, n + 1);
                ssm::causal_conv1d<test_arch>(x().slice(2, begin, end), f.weight_view(), want().slice(2, begin, end), opt);
            }
            INFO("lies " << static_cast<int>(how) << ", " << workers << " workers");
            CHECK(same_bits(got(), want()));
            CHECK(same_bits(state(), want_state()));
            CHECK(got.written_exactly());
        }
    }
}

TEST_CASE("conv1d: NaN reaches the outputs that see it and no others", "[conv1d]")
{
    constexpr index channels = 41, length = 83, width = 4;
    for (const lie how : all_lies) {
        random_source random(7);
        const filter_numbers f(random, channels, width);
        for (const index at : {index{0}, index{30}, length - 1}) {
            tensor<float> x(2, channels, length, how), out(2, channels, length, how), state(2, channels, width - 1, how);
            x.fill(random), state.fill(random);
            x()(1, 17, at) = not_a_number;
            state()(0, 5, 1) = not_a_number; // seen by tokens 0 and 1
            ssm::conv1d_options opt = f.options(true, true);
            opt.state = state();
            ssm::causal_conv1d<test_arch>(x(), f.weight_view(), out(), opt);
            index wrong = 0;
            for (index b = 0; b < 2; ++b) {
                for (index d = 0; d < channels; ++d) {
                    for (index t = 0; t < length; ++t) {
                        const bool sees = (b == 1 && d == 17 && t >= at && t < at + width) || (b == 0 && d == 5 && t < 2);
                        wrong += std::isnan(out()(b, d, t)) != sees;
                    }
                    for (index j = 0; j < width - 1; ++j) {
                        wrong += std::isnan(state()(b, d, j)) != (b == 1 && d == 17 && length - (width - 1) + j == at);
                    }
                }
            }
            INFO("lies " << static_cast<int>(how) << ", NaN at " << at);
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("conv1d: results that are written past the caches are the same", "[conv1d]")
{
    constexpr index length = 4099;
    const index channels = sm::tile::streamed_bytes / 4 / length / 64 * 64 + 64; // rows of whole cache lines
    random_source random(8);
    const filter_numbers f(random, channels, 4);
    for (const lie how : {lie::channel_first, lie::channel_last}) {
        for (const std::size_t skipped : {std::size_t{0}, std::size_t{1}}) {
            tensor<float> x(1, channels, length, how), want(1, channels, length, how);
            tensor<float> got(1, channels, length, how, skipped);
            std::uint32_t bits = 1;
            for (float& v : x.memory()) { v = static_cast<float>((bits = bits * 1664525u + 1013904223u) >> 8) * 0x1p-24f; }
            ssm::conv1d_options opt = f.options(true, false);
            ssm::causal_conv1d<test_arch>(x(), f.weight_view(), got(), opt);
            for (index d = 0; d < channels; d += channels / 2) {
                const index end = std::min(d + channels / 2, channels);
                opt.bias = f.bias_view().slice(0, d, end);
                ssm::causal_conv1d<test_arch>(x().slice(1, d, end), f.weight_view().slice(0, d, end),
                                              want().slice(1, d, end), opt);
            }
            INFO("lies " << static_cast<int>(how) << ", skipped " << skipped);
            CHECK(same_bits(got(), want()));
            CHECK(got.memory().intact());
        }
    }
}

namespace {

/// What a refused call says; empty where it was not refused.
template <class Call>
std::string message_of(const Call& call)
{
    try {
        call();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return {};
}

} // namespace

TEST_CASE("conv1d: what does not fit is refused, by name and with both values, and nothing is written", "[conv1d]")
{
    random_source random(9);
    tensor<float> x(2, 5, 7, lie::channel_first), out(2, 5, 7, lie::channel_first), state(2, 5, 3, lie::channel_first);
    x.fill(random);
    const filter_numbers f(random, 6, 4);
    const auto weight = f.weight_view().slice(0, 0, 5);
    const sm::view<float, 3> xs = x(), outs = out(), states = state();
    struct bad_call {
        const char* message;
        sm::view<float, 3> x, out;
        sm::view<const float, 2> weight;
        ssm::conv1d_options options{};
    };
    const sm::view<float, 3> null(nullptr, {2, 5, 7}), negative(outs.data(), {2, 5, -7});
    const bad_call calls[] = {
        {"x is null, but its shape has 70 elements", null, outs, weight},
        {"out is null, but its shape has 70 elements", xs, null, weight},
        {"weight is null, but its shape has 20 elements", xs, outs, sm::view<const float, 2>(nullptr, {5, 4})},
        {"out has a negative extent: -7", xs, negative, weight},
        {"weight's number of channels is 6, but x's is 5", xs, outs, f.weight_view()},
        {"weight's width is 0, but must be at least 1", xs, outs, weight.slice(1, 0, 0)},
        {"out's batch is 1, but x's is 2", xs, outs.slice(0, 0, 1), weight},
        {"out's number of channels is 4, but x's is 5", xs, outs.slice(1, 0, 4), weight},
        {"out's length is 6, but x's is 7", xs, outs.slice(2, 0, 6), weight},
        {"bias' length is 6, but x's number of channels is 5", xs, outs, weight, {.bias = f.bias_view()}},
        {"state's number of sequences is 1, but x's batch is 2", xs, outs, weight, {.state = states.slice(0, 0, 1)}},
        {"state's number of channels is 4, but x's is 5", xs, outs, weight, {.state = states.slice(1, 0, 4)}},
        {"state's length is 3, but weight's width - 1 is 2", xs, outs, weight.slice(1, 0, 3), {.state = states}},
        {"out overlaps x", xs, xs.slice(2, 0, 7), weight},
        {"out overlaps bias", xs, outs, weight, {.bias = sm::view<const float, 1>(outs.data() + 60, {5})}},
        {"out overlaps weight", xs, outs, sm::view<const float, 2>(outs.data() + 50, {5, 4})},
        {"state overlaps x", xs, outs, weight, {.state = sm::view<float, 3>(xs.data() + 40, {2, 5, 3})}},
        {"state overlaps out", xs, outs, weight, {.state = sm::view<float, 3>(outs.data() + 40, {2, 5, 3})}},
    };
    const std::vector<float> kept(x.memory().begin(), x.memory().end());
    for (const bad_call& c : calls) {
        const std::string said =
            message_of([&] { ssm::causal_conv1d<test_arch>(c.x, c.weight, c.out, c.options); });
        CHECK(said.rfind(std::string("ssm::causal_conv1d: ") + c.message, 0) == 0);
        INFO(said);
        CHECK(out.untouched());
        CHECK(state.untouched());
        CHECK(std::equal(kept.begin(), kept.end(), x.memory().begin()));
    }

    const sm::view<float, 2> x1 = xs.select(2, 0), out1 = outs.select(2, 0);
    CHECK(message_of([&] { ssm::causal_conv1d_step<test_arch>(x1, weight, out1.slice(0, 0, 1)); }) ==
          "ssm::causal_conv1d_step: out's batch is 1, but x's is 2");
    const auto packed = [&](std::vector<index> offsets, const ssm::conv1d_options& opt = {}) {
        const sm::view<const index, 1> cu(offsets.data(), {offsets.size()});
        return message_of([&] { ssm::causal_conv1d_packed<test_arch>(xs[0], weight, outs[0], cu, opt); });
    };
    CHECK(packed({}) == "ssm::causal_conv1d_packed: cu_seqlens is empty");
    CHECK(packed({1, 7}) == "ssm::causal_conv1d_packed: cu_seqlens starts at 1, not at 0");
    CHECK(packed({0, 5, 4, 7}) == "ssm::causal_conv1d_packed: cu_seqlens decreases from 5 to 4");
    CHECK(packed({0, 5, 8}) == "ssm::causal_conv1d_packed: cu_seqlens ends at 8, but x has length 7");
    CHECK(packed({0, 7}, {.state = states}) ==
          "ssm::causal_conv1d_packed: state's number of sequences is 2, but the number of sequences is 1");
    CHECK(out.untouched());
    CHECK(state.untouched());
}

TEST_CASE("conv1d: scratch is the caller's, of a known size, and does not grow with the length", "[conv1d]")
{
    random_source random(10);
    const filter_numbers f(random, 70, 4);
    for (const lie how : {lie::channel_first, lie::channel_last, lie::spaced}) {
        tensor<float> x(1, 70, 600, how), want(1, 70, 600, how), got(1, 70, 600, how);
        x.fill(random);
        sm::context<> ctx;
        const auto run = [&](index length, auto& out, const sm::context_ref& on) {
            ssm::causal_conv1d<test_arch>(x().slice(2, 0, length), f.weight_view(), out().slice(2, 0, length), {}, on);
        };
        run(500, want, ctx);
        const std::size_t bytes = ctx.scratch().size();
        run(600, want, ctx);
        CHECK(ctx.scratch().size() == bytes);
        guarded<unsigned char> memory(static_cast<index>(bytes));
        sm::context<> exact{sm::serial{}, sm::workspace(memory.data(), bytes)};
        sm::context<> too_small{sm::serial{}, sm::workspace(memory.data(), bytes - 1)};
        const std::string said = message_of([&] { run(600, got, too_small); });
        CHECK(said.find(std::to_string(bytes)) != std::string::npos);
        CHECK(got.untouched());
        run(600, got, exact);
        CHECK(same_bits(got(), want()));
        CHECK(memory.intact());
    }
}

} // namespace conv1d_test
