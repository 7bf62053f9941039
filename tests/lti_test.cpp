// SPDX-License-Identifier: MIT
// Linear time-invariant state spaces: S4D, the LRU's recurrence and the Legendre Memory Unit, as scans and as kernels.
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/on_threads.hpp"
#include "support/random.hpp"
#include "support/count_allocations.hpp"

#include <seqmix/ssm/diagonal.hpp>
#include <seqmix/ssm/legendre_memory.hpp>
#include <seqmix/ssm/lti_reference.hpp>

#include <cstdlib>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace lti_test {

namespace {

namespace sm = seqmix;
namespace ssm = seqmix::ssm;
namespace reference = seqmix::ssm::reference;
using seqmix::index;
using test_support::on_threads;
using complex = std::complex<float>;
using wide = std::complex<double>;
using test_case_list = std::vector<std::array<index, 4>>;

constexpr index lanes = sm::simd::lanes<test_arch>;
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr double roundoff = sm::unit_roundoff<float>;
constexpr double least = 0x1p-149; // the smallest float: a rounding may cost half of it

/// What k roundings one after another cost, relative: (1 + u)^k - 1 and more.
double rounded(double k, double u = roundoff) { return k * u / (1.0 - k * u); }

/// Half the smallest number of an output's type.
template <class T>
constexpr double half_least = std::is_same_v<T, sm::f16>    ? 0x1p-25
                              : std::is_same_v<T, sm::bf16> ? 0x1p-134
                                                            : 0x1p-150;

/// How an operand lies in memory.
enum class layout { contiguous, swapped, reversed, spread };
constexpr layout layouts[] = {layout::contiguous, layout::swapped, layout::reversed, layout::spread};

/// An operand in guarded memory that starts on no border: contiguous; with its last two axes swapped (channel-last);
/// with the last axis running backwards; or with gaps, the axis before the last backwards.
template <class T, std::size_t Rank>
class operand {
public:
    operand(const std::array<index, Rank>& extents, layout how) : memory_(count(extents) * gap(how), alignof(T))
    {
        std::array<index, Rank> strides{};
        index stride = gap(how);
        for (std::size_t at = Rank; at-- > 0;) {
            const std::size_t axis = Rank >= 2 && how == layout::swapped && at >= Rank - 2 ? 2 * Rank - 3 - at : at;
            strides[axis] = stride;
            stride *= extents[axis];
        }
        view_ = sm::view<T, Rank>(memory_.data(), extents, strides);
        if (how == layout::reversed) { view_ = view_.reversed(Rank - 1); }
        if (Rank >= 2 && how == layout::spread) { view_ = view_.reversed(Rank - 2); }
    }

    const sm::view<T, Rank>& operator*() const { return view_; }
    sm::view<const T, Rank> read() const { return view_; }

    /// Calls body(element) for every element, the last axis fastest.
    template <class Body>
    void each(Body&& body) const
    {
        for (index i = 0; i < view_.size(); ++i) {
            index rest = i, offset = 0;
            for (std::size_t axis = Rank; axis-- > 0;) {
                offset += rest % view_.extent(axis) * view_.stride(axis);
                rest /= view_.extent(axis);
            }
            body(view_.data()[offset]);
        }
    }

    std::vector<T> list() const
    {
        std::vector<T> all;
        each([&](const T& x) { all.push_back(x); });
        return all;
    }
    void assign(const std::vector<T>& from) const
    {
        std::size_t at = 0;
        each([&](T& x) { x = from[at++]; });
    }

    /// Whether nothing but its elements has been written.
    bool clean() const
    {
        index untouched = 0;
        for (index i = 0; i < memory_.size(); ++i) { untouched += memory_.untouched(i) ? 1 : 0; }
        return memory_.intact() && untouched >= memory_.size() - view_.size();
    }
    bool untouched() const
    {
        bool all = memory_.intact();
        for (index i = 0; i < memory_.size(); ++i) { all = all && memory_.untouched(i); }
        return all;
    }

private:
    static index count(const std::array<index, Rank>& extents)
    {
        index n = 1;
        for (index e : extents) { n *= e; }
        return n;
    }
    static index gap(layout how) { return how == layout::spread ? 3 : 1; }

    guarded<T> memory_;
    sm::view<T, Rank> view_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b)
{
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(static_cast<const void*>(a.data()), static_cast<const void*>(b.data()),
                                     a.size() * sizeof(T)) == 0);
}

/// Eigenvalues of every kind that a layer may have: within the unit circle, on it, real, zero, and hardly any decay.
std::vector<complex> eigenvalues(random_source& random, std::size_t count)
{
    std::vector<complex> all;
    for (std::size_t n = 0; n < count; ++n) {
        const float modulus[] = {0.99f, 0.9f, 0.999999f, 0.5f, 0.0f, 1.0f};
        const float angle = n % 5 == 3 ? 0.0f : random.uniform(-3.0f, 3.0f);
        const wide a = std::polar(static_cast<double>(modulus[n % 6]), static_cast<double>(angle));
        complex rounded_down(a);
        while (std::abs(wide(rounded_down)) > 1.0) { rounded_down *= 1.0f - 0x1p-24f; }
        all.push_back(rounded_down);
    }
    return all;
}

std::vector<complex> normals(random_source& random, std::size_t count)
{
    std::vector<complex> all;
    for (std::size_t n = 0; n < count; ++n) {
        const float re = random.normal();
        all.emplace_back(re, random.normal());
    }
    return all;
}

/// How far a state h = A h + u may be from the exact one, token by token, without an approximation: g is the majorant
/// of its modulus, `error` the bound.
struct state_bound {
    double modulus, g, error = 0.0;

    void take(double input)
    {
        const double seen = input + modulus * (g + error); // no less than the inner of the two sums of both parts
        g = modulus * g + input;
        // Inner sums are rounded, then outer ones, which are no larger than the new state and its error; products that
        // vanish lose half of `least` each.
        error = (modulus * error + roundoff * (1.0 + roundoff) * seen + roundoff * g) / (1.0 - roundoff) + 4.0 * least;
    }
};

constexpr double of_double = 1.0 + 0x1p-20; ///< the reference's own roundings, of 2^-53 each, beside those of 2^-24

/// One problem of S4D.
template <class T, class Out>
struct s4d_problem {
    index batch, channels, length, states;
    bool pairs;
    operand<T, 3> u;
    operand<complex, 2> A, CB;
    operand<float, 1> D;
    operand<complex, 3> state;
    operand<Out, 3> out;
    std::vector<complex> start;
    bool skips = true, has_state = true;

    s4d_problem(const std::array<index, 4>& shape, layout how, bool conjugate_pairs, std::uint64_t seed = 1)
        : batch(shape[0]), channels(shape[1]), length(shape[2]), states(shape[3]), pairs(conjugate_pairs),
          u({batch, channels, length}, how), A({channels, states}, how), CB({channels, states}, how),
          D({channels}, how), state({batch, channels, states}, how), out({batch, channels, length}, how)
    {
        random_source random(seed);
        u.each([&](T& x) { x = T(random.normal()); });
        A.assign(eigenvalues(random, static_cast<std::size_t>(channels * states)));
        CB.assign(normals(random, static_cast<std::size_t>(channels * states)));
        D.each([&](float& x) { x = random.normal(); });
        start = normals(random, static_cast<std::size_t>(batch * channels * states));
        state.assign(start);
    }

    ssm::s4d_options options() const
    {
        return {.D = skips ? D.read() : sm::view<const float, 1>{},
                .state = has_state ? *state : sm::view<complex, 3>{},
                .conjugate_pairs = pairs};
    }
    void run(const sm::context_ref& ctx = {}) const { ssm::s4d<test_arch>(*u, *A, *CB, *out, options(), ctx); }

    /// Holds outputs and states to the bound that the docstring states.
    void check() const
    {
        const double factor = pairs ? 2.0 : 1.0, count = static_cast<double>(states);
        const double u_out = std::is_same_v<Out, float> ? 0.0 : sm::unit_roundoff<Out>;
        bool good = true;
        double worst = 0.0;
        for (index b = 0; b < batch; ++b) {
            for (index d = 0; d < channels; ++d) {
                reference::complex_list a, cb, h;
                std::vector<state_bound> bound;
                for (index n = 0; n < states; ++n) {
                    a.emplace_back((*A)(d, n)), cb.emplace_back((*CB)(d, n));
                    h.emplace_back(has_state ? start[static_cast<std::size_t>((b * channels + d) * states + n)]
                                             : complex(0.0f));
                    bound.push_back({std::abs(a.back()), std::abs(h.back())});
                }
                std::vector<double> input;
                for (index t = 0; t < length; ++t) {
                    input.push_back(static_cast<double>(static_cast<float>((*u)(b, d, t))));
                }
                const double skip = skips ? static_cast<double>((*D)(d)) : 0.0;
                const std::vector<double> want = reference::s4d(input, a, cb, skip, pairs, h);
                for (index t = 0; t < length; ++t) {
                    const auto at = static_cast<std::size_t>(t);
                    double summed = std::fabs(skip * input[at]), carried = 0.0;
                    for (std::size_t n = 0; n < bound.size(); ++n) {
                        bound[n].take(std::fabs(input[at]));
                        summed += factor * std::abs(cb[n]) * (bound[n].g + bound[n].error);
                        carried += factor * std::abs(cb[n]) * bound[n].error;
                    }
                    double most = rounded(2.0 * count + 1.0) * summed + carried + (2.0 * count + 1.0) * least;
                    most += u_out * (std::fabs(want[at]) + most) + half_least<Out>;
                    const double error = std::fabs(static_cast<double>(static_cast<float>((*out)(b, d, t))) - want[at]);
                    worst = std::max(worst, error / most);
                    good = good && error <= of_double * most;
                }
                for (index n = 0; has_state && n < states; ++n) {
                    const auto at = static_cast<std::size_t>(n);
                    good = good && std::abs(wide((*state)(b, d, n)) - h[at]) <= of_double * bound[at].error;
                }
            }
        }
        INFO("B, D, L, N = " << batch << ", " << channels << ", " << length << ", " << states << "; worst " << worst
                             << " of the bound");
        CHECK(good);
        CHECK(out.clean());
        CHECK(state.clean());
        CHECK(u.clean());
    }
};

template <class T, class Out>
void check_s4d(const test_case_list& shapes)
{
    std::size_t at = 0;
    for (const auto& shape : shapes) {
        for (layout how : layouts) {
            s4d_problem<T, Out> p(shape, how, at % 2 == 0, at + 1);
            p.skips = at % 3 != 1;
            p.has_state = at % 5 != 2;
            ++at;
            p.run();
            p.check();
        }
    }
}

} // namespace

TEST_CASE("lti: S4D is its recurrence, in any shape and layout")
{
    check_s4d<float, float>({{1, 1, 1, 1},
                             {2, lanes - 1, 7, 3},
                             {1, lanes, 31, 4},
                             {1, lanes + 1, 32, 5},
                             {2, 2 * lanes + 3, 65, 11},
                             {1, 3, 131, 8},
                             {1, 67, 33, 6},
                             {1, 2, 5, 0},
                             {0, 3, 4, 2},
                             {2, 0, 4, 2},
                             {2, 3, 0, 2}});
    check_s4d<sm::bf16, sm::bf16>({{2, lanes + 1, 67, 5}, {1, lanes, 64, 4}});
    check_s4d<sm::f16, float>({{1, lanes + 2, 66, 6}});
}

TEST_CASE("lti: S4D keeps states that decay below the normal floats")
{
    s4d_problem<float, float> p({1, 3, 2000, 4}, layout::contiguous, true);
    p.A.each([n = 0](complex& a) mutable {
        a = std::polar(0.9f - 0.1f * static_cast<float>(n % 4), static_cast<float>(n)), ++n;
    });
    p.u.each([t = 0](float& x) mutable { x = t++ % 2000 == 0 ? 1.0f : 0.0f; });
    p.run();
    p.check();
    bool decayed = true;
    p.state.each([&](complex& h) { decayed = decayed && std::abs(h) < 0x1p-126f; });
    CHECK(decayed);
}

TEST_CASE("lti: cuts, steps, packing and threads change no bit of S4D")
{
    const index length = 150, many = 37; // more channels than a task takes, and no multiple of anything
    const s4d_problem<float, float> whole({3, many, length, 7}, layout::contiguous, true);
    whole.run();
    const auto want = whole.out.list();
    const auto want_state = whole.state.list();

    for (const std::vector<index>& cuts : {std::vector<index>{0, 1, 64, 65, length}, {0, 37, 37, 149, length}}) {
        const s4d_problem<float, float> p({3, many, length, 7}, layout::swapped, true);
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
            ssm::s4d<test_arch>((*p.u).slice(2, cuts[i], cuts[i + 1]), *p.A, *p.CB,
                                (*p.out).slice(2, cuts[i], cuts[i + 1]), p.options());
        }
        CHECK(same_bits(p.out.list(), want));
        CHECK(same_bits(p.state.list(), want_state));
    }
    {
        const s4d_problem<float, float> p({3, many, length, 7}, layout::reversed, true);
        for (index t = 0; t < length; ++t) {
            ssm::s4d_step<test_arch>((*p.u).select(2, t), *p.A, *p.CB, (*p.out).select(2, t), p.options());
        }
        CHECK(same_bits(p.out.list(), want));
        CHECK(same_bits(p.state.list(), want_state));
        CHECK(p.out.clean());
    }
    for (int workers : {2, 5}) {
        const s4d_problem<float, float> p({3, many, length, 7}, layout::spread, true);
        sm::context ctx{sm::parallel_for{workers, on_threads{}}};
        p.run(ctx);
        CHECK(same_bits(p.out.list(), want));
        CHECK(same_bits(p.state.list(), want_state));
    }
    { // the three sequences and an empty one, one after another
        operand<float, 2> u({many, 3 * length}, layout::swapped), out({many, 3 * length}, layout::reversed);
        operand<complex, 3> state({4, many, 7}, layout::spread);
        const index order[] = {0, 1, 3}; // of the batch in the packing
        for (index b = 0; b < 3; ++b) {
            for (index d = 0; d < many; ++d) {
                for (index t = 0; t < length; ++t) { (*u)(d, b * length + t) = (*whole.u)(b, d, t); }
                for (index n = 0; n < 7; ++n) {
                    (*state)(order[b], d, n) = whole.start[static_cast<std::size_t>((b * (many) + d) * 7 + n)];
                }
            }
        }
        const index offsets[] = {0, length, 2 * length, 2 * length, 3 * length};
        ssm::s4d_packed<test_arch>(*u, *whole.A, *whole.CB, *out, sm::view<const index, 1>(offsets, {5}),
                                   {.D = whole.D.read(), .state = *state});
        bool same = true;
        for (index b = 0; b < 3; ++b) {
            for (index d = 0; d < many; ++d) {
                for (index t = 0; t < length; ++t) {
                    same = same && (*out)(d, b * length + t) == (*whole.out)(b, d, t);
                }
                for (index n = 0; n < 7; ++n) { same = same && (*state)(order[b], d, n) == (*whole.state)(b, d, n); }
            }
        }
        CHECK(same);
        bool kept = true;
        for (index d = 0; d < many; ++d) {
            for (index n = 0; n < 7; ++n) {
                kept = kept && std::isnan((*state)(2, d, n).real());
            } // of no token: as it was made
        }
        CHECK(kept);
    }
}

TEST_CASE("lti: what is not finite stays in its channel and behind its token")
{
    const s4d_problem<float, float> clean({2, lanes + 2, 70, 5}, layout::contiguous, true);
    clean.run();
    for (float poison : {nan_value, infinity}) {
        const s4d_problem<float, float> p({2, lanes + 2, 70, 5}, layout::contiguous, true);
        (*p.u)(1, 2, 40) = poison;
        p.run();
        bool good = true;
        for (index b = 0; b < 2; ++b) {
            for (index d = 0; d < lanes + 2; ++d) {
                for (index t = 0; t < 70; ++t) {
                    const float got = (*p.out)(b, d, t);
                    good = good && (b == 1 && d == 2 && t >= 40 ? !std::isfinite(got) : got == (*clean.out)(b, d, t));
                }
            }
        }
        CHECK(good);
    }
    const std::array<index, 3> shape = {2, 30, 2 * lanes + 5};
    operand<complex, 3> v(shape, layout::contiguous), out(shape, layout::contiguous);
    operand<complex, 1> lambda({shape[2]}, layout::contiguous);
    random_source random(3);
    lambda.assign(eigenvalues(random, static_cast<std::size_t>(shape[2])));
    v.assign(normals(random, static_cast<std::size_t>((*v).size())));
    ssm::diagonal_scan<test_arch>(*v, *lambda, *out);
    const auto before = out.list();
    (*v)(1, 9, lanes) = complex(nan_value, nan_value);
    ssm::diagonal_scan<test_arch>(*v, *lambda, *out);
    bool good = true;
    for (index i = 0; i < (*out).size(); ++i) {
        const bool reached = i / (shape[1] * shape[2]) == 1 && i / shape[2] % shape[1] >= 9 && i % shape[2] == lanes;
        const complex got = (*out).data()[i];
        good = good && (reached ? std::isnan(got.real()) && std::isnan(got.imag())
                                : got == before[static_cast<std::size_t>(i)]);
    }
    CHECK(good);
}

TEST_CASE("lti: S4D's kernel is the sum of powers, and its convolution is the scan")
{
    const test_case_list shapes = {{1, 2, 20000, 3}, {1, 3, 2 * 64 * sm::tile::blocking<test_arch>::columns + 1, 4},
                                   {1, 2, 1, 1},     {1, 2, 7, 0},
                                   {1, 0, 5, 2},     {1, 2, 0, 2}};
    std::size_t at = 0;
    for (const auto& shape : shapes) {
        const s4d_problem<float, float> p(shape, layouts[at % 4], at % 2 == 0, at + 1);
        const operand<float, 2> k({p.channels, p.length}, layouts[at++ % 4]);
        ssm::s4d_kernel<test_arch>(*p.A, *p.CB, *k, p.pairs);
        bool good = true;
        for (index d = 0; d < p.channels; ++d) {
            reference::complex_list a, cb;
            for (index n = 0; n < p.states; ++n) { a.emplace_back((*p.A)(d, n)), cb.emplace_back((*p.CB)(d, n)); }
            const auto want = reference::s4d_kernel(a, cb, static_cast<std::size_t>(p.length), p.pairs);
            for (index t = 0; t < p.length; ++t) {
                double most = 0.0, largest = 1.0;
                for (std::size_t n = 0; n < a.size(); ++n) {
                    most += (p.pairs ? 2.0 : 1.0) * std::abs(cb[n]) * std::pow(std::abs(a[n]), static_cast<double>(t));
                    largest = std::max(largest, 2.0 * std::abs(cb[n]));
                }
                const double count = static_cast<double>(p.states), time = static_cast<double>(t);
                // 4 t for the kernel's powers, as many for the reference's angle t arg(A), twice: it may be as large as
                // π t.
                const double relative = rounded(2.0 * count + 2.0) + rounded(4.0 * time + 8.0 * (time + 1.0), 0x1p-53);
                good = good && std::fabs(static_cast<double>((*k)(d, t)) - want[static_cast<std::size_t>(t)]) <=
                                   relative * most + 2.0 * count * least * largest;
            }
        }
        INFO("L " << p.length);
        CHECK(good);
        CHECK(k.clean());
    }

    s4d_problem<float, float> p({1, lanes + 1, 140, 5}, layout::contiguous, true, 9);
    p.has_state = false;
    p.run();
    p.check();
    operand<float, 2> k({p.channels, p.length}, layout::contiguous), threaded({p.channels, p.length}, layout::swapped);
    ssm::s4d_kernel<test_arch>(*p.A, *p.CB, *k);
    sm::context ctx{sm::parallel_for{3, on_threads{}}};
    ssm::s4d_kernel<test_arch>(*p.A, *p.CB, *threaded, true, ctx);
    CHECK(same_bits(k.list(), threaded.list()));
    bool good = true;
    for (index d = 0; d < p.channels; ++d) {
        std::vector<double> kernel, u;
        for (index t = 0; t < p.length; ++t) {
            kernel.push_back(static_cast<double>((*k)(d, t))), u.push_back(static_cast<double>((*p.u)(0, d, t)));
        }
        const auto want = reference::convolution(kernel, u);
        // Both sides of the equation are within their bounds of the exact sum; in both a state's part is at most |CB|
        // g, and its error 2 u Σ |A|^(t-s) g, no more than 2 u (t + 1) g.
        std::vector<state_bound> bound;
        for (index n = 0; n < p.states; ++n) { bound.push_back({std::abs(wide((*p.A)(d, n))), 0.0}); }
        for (index t = 0; t < p.length; ++t) {
            const auto now = static_cast<std::size_t>(t);
            const double count = static_cast<double>(p.states), skip = static_cast<double>((*p.D)(d)) * u[now];
            double summed = std::fabs(skip), carried = 0.0;
            for (index n = 0; n < p.states; ++n) {
                state_bound& of = bound[static_cast<std::size_t>(n)];
                of.take(std::fabs(u[now]));
                summed += 2.0 * std::abs(wide((*p.CB)(d, n))) * (of.g + of.error);
                carried += 2.0 * std::abs(wide((*p.CB)(d, n))) * of.error;
            }
            const double most = (rounded(2.0 * count + 1.0) + rounded(2.0 * count + 3.0)) * summed + carried;
            good = good && std::fabs(static_cast<double>((*p.out)(0, d, t)) - want[now] - skip) <= of_double * most;
        }
    }
    CHECK(good);
}

TEST_CASE("lti: discretisation is accurate, near A dt = 0 too")
{
    random_source random(5);
    const std::array<index, 2> shape = {6, 7};
    for (layout how : {layout::contiguous, layout::spread}) {
        const operand<complex, 2> A(shape, how), B(shape, how), A_bar(shape, how), B_bar(shape, how);
        const operand<float, 1> dt({6}, how);
        const float steps[] = {0.0f, 1e-30f, 1e-6f, 0.01f, 0.1f, 1.0f};
        dt.assign({steps, steps + 6});
        A.each([n = 0, &random](complex& a) mutable {
            a = n % 7 == 0   ? complex(0.0f)
                : n % 7 == 1 ? complex(0.0f, 1e-20f)
                             : complex(-random.uniform(0.0f, 2.0f), random.uniform(-3.0f, 3.0f));
            ++n;
        });
        B.assign(normals(random, 42));
        const auto check = [&](const auto& keep_of, const auto& input_of) {
            bool good = true;
            for (index d = 0; d < 6; ++d) {
                for (index n = 0; n < 7; ++n) {
                    const double step = static_cast<double>((*dt)(d));
                    const wide z = step * wide((*A)(d, n)), keep = keep_of(z),
                               input = step * input_of(z) * wide((*B)(d, n));
                    good =
                        good && std::abs(wide((*A_bar)(d, n)) - keep) <= of_double * roundoff * std::abs(keep) + least;
                    good = good &&
                           std::abs(wide((*B_bar)(d, n)) - input) <= of_double * roundoff * std::abs(input) + least;
                }
            }
            CHECK(good);
            CHECK(A_bar.clean());
            CHECK(B_bar.clean());
        };
        ssm::discretize_zoh(*A, *B, *dt, *A_bar, *B_bar);
        check([](wide z) { return std::exp(z); }, reference::exponential_quotient);
        ssm::discretize_bilinear(*A, *B, *dt, *A_bar, *B_bar);
        check([](wide z) { return (1.0 + z / 2.0) / (1.0 - z / 2.0); }, [](wide z) { return 1.0 / (1.0 - z / 2.0); });
    }
}

TEST_CASE("lti: the LRU's recurrence, in any shape and layout, and however cut")
{
    const std::array<index, 3> shapes[] = {
        {1, 1, 1}, {2, 9, lanes + 1}, {1, 17, 2 * lanes}, {1, 8, 2 * lanes - 1},  {2, 0, 3},
        {0, 4, 3}, {2, 4, 0},         {1, 23, 5},         {2, 11, 70 * lanes + 3}};
    std::uint64_t seed = 0;
    for (const auto& shape : shapes) {
        for (layout how : layouts) {
            random_source random(++seed);
            const index states = shape[2];
            const operand<complex, 3> v(shape, how), out(shape, how), pieces(shape, how), threaded(shape, how);
            const operand<complex, 1> lambda({states}, how);
            const operand<complex, 2> state({shape[0], states}, how), state_of_pieces({shape[0], states}, how),
                state_of_threads({shape[0], states}, how);
            v.assign(normals(random, static_cast<std::size_t>((*v).size())));
            lambda.assign(eigenvalues(random, static_cast<std::size_t>(states)));
            const auto start = normals(random, static_cast<std::size_t>((*state).size()));
            state.assign(start), state_of_pieces.assign(start), state_of_threads.assign(start);
            ssm::diagonal_scan<test_arch>(*v, *lambda, *out, {.state = *state});
            bool good = true;
            for (index b = 0; b < shape[0]; ++b) {
                for (index n = 0; n < states; ++n) {
                    const wide factor((*lambda)(n));
                    wide h(start[static_cast<std::size_t>(b * states + n)]);
                    state_bound bound{std::abs(factor), std::abs(h)};
                    for (index t = 0; t < shape[1]; ++t) {
                        h = factor * h + wide((*v)(b, t, n));
                        bound.take(std::abs(wide((*v)(b, t, n))));
                        good = good && std::abs(wide((*out)(b, t, n)) - h) <= of_double * bound.error;
                    }
                    good = good && (shape[1] == 0 ? (*state)(b, n) == complex(h)
                                                  : (*state)(b, n) == (*out)(b, shape[1] - 1, n));
                }
            }
            INFO("B, L, N = " << shape[0] << ", " << shape[1] << ", " << states);
            CHECK(good);
            CHECK(out.clean());
            CHECK(state.clean());

            const index cuts[] = {0, shape[1] / 3, shape[1] / 2 + shape[1] / 4, shape[1]};
            for (int i = 0; i < 3; ++i) {
                ssm::diagonal_scan<test_arch>((*v).slice(1, cuts[i], cuts[i + 1]), *lambda,
                                              (*pieces).slice(1, cuts[i], cuts[i + 1]), {.state = *state_of_pieces});
            }
            CHECK(same_bits(pieces.list(), out.list()));
            CHECK(same_bits(state_of_pieces.list(), state.list()));
            sm::context ctx{sm::parallel_for{3, on_threads{}}};
            ssm::diagonal_scan<test_arch>(*v, *lambda, *threaded, {.state = *state_of_threads}, ctx);
            CHECK(same_bits(threaded.list(), out.list()));
            CHECK(same_bits(state_of_threads.list(), state.list()));
        }
    }
}

namespace {

/// A Legendre Memory Unit's matrices.
struct memory_matrices {
    operand<float, 2> A;
    operand<float, 1> B;

    memory_matrices(index order, double theta, layout how) : A({order, order}, how), B({order}, how)
    {
        ssm::legendre_memory(theta, *A, *B);
    }
    static std::vector<double> widened(const std::vector<float>& x) { return {x.begin(), x.end()}; }
    std::vector<double> wide_A() const { return widened(A.list()); }
    std::vector<double> wide_B() const { return widened(B.list()); }
};

double norm_of(const std::vector<double>& x)
{
    double sum = 0.0;
    for (double v : x) { sum += v * v; }
    return std::sqrt(sum);
}

/// |A^k| in the Frobenius norm for k = 0 … count - 1.
std::vector<double> norms_of_powers(const std::vector<double>& A, std::size_t q, std::size_t count)
{
    std::vector<double> norms, power(q * q, 0.0);
    for (std::size_t i = 0; i < q; ++i) { power[i * q + i] = 1.0; }
    for (std::size_t k = 0; k < count; ++k) {
        norms.push_back(norm_of(power));
        std::vector<double> next(q * q, 0.0);
        for (std::size_t i = 0; i < q; ++i) {
            for (std::size_t j = 0; j < q; ++j) {
                for (std::size_t l = 0; l < q; ++l) { next[i * q + l] += A[i * q + j] * power[j * q + l]; }
            }
        }
        power = next;
    }
    return norms;
}

template <class T, class Out>
void check_memory(const std::array<index, 4>& shape, double theta, layout how)
{
    const index batch = shape[0], channels = shape[1], length = shape[2], order = shape[3];
    const auto q = static_cast<std::size_t>(order);
    random_source random(static_cast<std::uint64_t>(channels * 100 + length));
    const memory_matrices m(order, theta, how);
    const operand<T, 3> u({batch, channels, length}, how);
    const operand<Out, 4> memory(shape, how), pieces(shape, how);
    const operand<float, 3> state({batch, channels, order}, how), other({batch, channels, order}, how);
    u.each([&](T& x) { x = T(random.normal()); });
    const auto start = random.normals(static_cast<std::size_t>((*state).size()));
    state.assign(start), other.assign(start);
    ssm::lmu_scan<test_arch>(*u, *m.A, *m.B, *memory, {.state = *state});

    const auto A = m.wide_A(), B = m.wide_B();
    const auto norms = norms_of_powers(A, q, static_cast<std::size_t>(length) + 1);
    const double step = rounded(static_cast<double>(order) + 1.0),
                 u_out = std::is_same_v<Out, float> ? 0.0 : sm::unit_roundoff<Out>;
    bool good = true;
    for (index b = 0; b < batch; ++b) {
        for (index d = 0; d < channels; ++d) {
            const auto first = static_cast<std::ptrdiff_t>((b * channels + d) * order);
            std::vector<double> now(start.begin() + first, start.begin() + first + static_cast<std::ptrdiff_t>(order)),
                added;
            double error = 0.0;
            for (index t = 0; t < length; ++t) {
                const double input = static_cast<double>(static_cast<float>((*u)(b, d, t)));
                double squares = 0.0; // of |A| |m| + |B| |u|
                for (std::size_t i = 0; i < q; ++i) {
                    double sum = std::fabs(B[i] * input);
                    for (std::size_t j = 0; j < q; ++j) { sum += std::fabs(A[i * q + j] * now[j]); }
                    squares += sum * sum;
                }
                added.push_back(step * (std::sqrt(squares) + norms[1] * error) + static_cast<double>(order) * least);
                reference::legendre_step(A, B, input, now);
                error = 0.0;
                for (std::size_t s = 0; s < added.size(); ++s) { error += norms[added.size() - 1 - s] * added[s]; }
                for (std::size_t i = 0; i < q; ++i) {
                    const double got =
                        static_cast<double>(static_cast<float>((*memory)(b, d, t, static_cast<index>(i))));
                    good = good && std::fabs(got - now[i]) <=
                                       of_double * error + u_out * (std::fabs(now[i]) + error) + half_least<Out>;
                }
            }
            for (std::size_t i = 0; i < q; ++i) {
                good = good && std::fabs(static_cast<double>((*state)(b, d, static_cast<index>(i))) - now[i]) <=
                                   of_double * error;
            }
        }
    }
    INFO("B, D, L, q = " << batch << ", " << channels << ", " << length << ", " << order);
    CHECK(good);
    CHECK(memory.clean());
    CHECK(state.clean());

    const index cuts[] = {0, length / 3, length - length / 4, length};
    sm::context ctx{sm::parallel_for{3, on_threads{}}};
    for (int i = 0; i < 3; ++i) {
        ssm::lmu_scan<test_arch>((*u).slice(2, cuts[i], cuts[i + 1]), *m.A, *m.B,
                                 (*pieces).slice(2, cuts[i], cuts[i + 1]), {.state = *other}, ctx);
    }
    CHECK(same_bits(pieces.list(), memory.list()));
    CHECK(same_bits(other.list(), state.list()));
}

} // namespace

TEST_CASE("lti: the matrices of the Legendre memory are the system held over a token")
{
    for (const auto& [order, theta] :
         {std::pair<index, double>{1, 3.0}, {2, 0.5}, {6, 30.0}, {13, 17.5}, {24, 100.0}}) {
        const memory_matrices m(order, theta, layout::spread);
        const auto q = static_cast<std::size_t>(order);
        const reference::legendre_system want = reference::held(reference::legendre_system(q), theta);
        // The exponential in double: as many products as halvings, which amplify by the norms of the powers between.
        const double size = std::max(1.0, norm_of(want.A) + norm_of(want.B)),
                     rate = 1.0 + 4.0 * static_cast<double>(q * q) / theta;
        const double in_double = rounded(8.0 * static_cast<double>(order + 1) * rate, 0x1p-53) * size * size;
        const auto A = m.wide_A(), B = m.wide_B();
        bool good = true;
        for (std::size_t i = 0; i < A.size(); ++i) {
            good = good && std::fabs(A[i] - want.A[i]) <= roundoff * std::fabs(want.A[i]) + in_double;
        }
        for (std::size_t i = 0; i < B.size(); ++i) {
            good = good && std::fabs(B[i] - want.B[i]) <= roundoff * std::fabs(want.B[i]) + in_double;
        }
        INFO("order " << order);
        CHECK(good);
        CHECK(m.A.clean());
        CHECK(m.B.clean());
    }
}

TEST_CASE("lti: the Legendre memory is its recurrence, in any shape and layout, and however cut")
{
    for (layout how : layouts) {
        check_memory<float, float>({2, lanes + 1, 9, 5}, 6.0, how);
        check_memory<float, float>({1, 3 * lanes + 2, 6, 8}, 20.0, how);
        check_memory<float, float>({1, 2, 67, 9}, 30.0, how);
        check_memory<sm::bf16, sm::bf16>({1, 2 * lanes + 1, 5, 3}, 10.0, how);
    }
    check_memory<sm::f16, float>({1, lanes, 5, 17}, 40.0, layout::contiguous);
    for (const std::array<index, 4>& empty :
         {std::array<index, 4>{0, 2, 3, 4}, {2, 0, 3, 4}, {2, 3, 0, 4}, {2, 3, 4, 0}}) {
        check_memory<float, float>(empty, 10.0, layout::contiguous);
    }
}

TEST_CASE("lti: the Legendre memory remembers, and keeps what is not finite in its channel")
{
    // u_{t - s} ≈ Σ P_i(2 s / theta - 1) m_i; at s = theta every polynomial is 1.
    const index order = 10, length = 400;
    const double theta = 60.0, turn = 0.05;
    const memory_matrices m(order, theta, layout::contiguous);
    const operand<float, 3> u({1, 2, length}, layout::contiguous);
    const operand<float, 4> memory({1, 2, length, order}, layout::contiguous);
    for (index t = 0; t < length; ++t) {
        (*u)(0, 0, t) = static_cast<float>(std::cos(turn * static_cast<double>(t)));
        (*u)(0, 1, t) = t == 200 ? nan_value : 0.0f;
    }
    ssm::lmu_scan<test_arch>(*u, *m.A, *m.B, *memory);
    bool good = true, separate = true;
    for (index t = 200; t < length; ++t) {
        double recalled = 0.0;
        for (index i = 0; i < order; ++i) {
            recalled += static_cast<double>((*memory)(0, 0, t, i));
            separate = separate && std::isnan((*memory)(0, 1, t, i));
        }
        // Held over a token, the input is off by as much as it changes within one, and so is its steps' share of the
        // memory.
        good = good && std::fabs(recalled - std::cos(turn * (static_cast<double>(t) - theta))) <= 2.0 * turn;
    }
    CHECK(good);
    CHECK(separate);
}

TEST_CASE("lti: the Legendre memory's kernel is its impulse response, and its convolution is the scan")
{
    const index order = 7, length = 90;
    const auto q = static_cast<std::size_t>(order);
    for (layout how : layouts) {
        const memory_matrices m(order, 25.0, how);
        const operand<float, 2> k({order, length}, how);
        ssm::lmu_kernel(*m.A, *m.B, *k);
        const auto A = m.wide_A(), B = m.wide_B();
        const auto norms = norms_of_powers(A, q, static_cast<std::size_t>(length) + 1);
        double memory_of_errors = 0.0;
        for (double norm : norms) { memory_of_errors += norm; }
        std::vector<double> impulse(q, 0.0), x;
        bool good = true;
        for (index t = 0; t < length; ++t) {
            reference::legendre_step(A, B, t == 0 ? 1.0 : 0.0, impulse);
            const double in_double = 2.0 * rounded(static_cast<double>(order) + 1.0, 0x1p-53) * memory_of_errors *
                                     norms[1] * norm_of(B) * norms[0];
            for (std::size_t i = 0; i < q; ++i) {
                good = good && std::fabs(static_cast<double>((*k)(static_cast<index>(i), t)) - impulse[i]) <=
                                   roundoff * std::fabs(impulse[i]) + in_double;
            }
        }
        CHECK(good);
        CHECK(k.clean());

        random_source random(8);
        const operand<float, 3> u({1, 1, length}, how);
        const operand<float, 4> memory({1, 1, length, order}, how);
        u.each([&](float& e) { e = random.normal(), x.push_back(static_cast<double>(e)); });
        ssm::lmu_scan<test_arch>(*u, *m.A, *m.B, *memory);
        double loudest = 0.0, largest = 0.0; // |u|, |A| |m| + |B| |u|
        for (double e : x) { loudest = std::max(loudest, std::fabs(e)); }
        std::vector<double> now(q, 0.0);
        for (double e : x) {
            largest = std::max(largest, norms[1] * norm_of(now) + norm_of(B) * std::fabs(e));
            reference::legendre_step(A, B, e, now);
        }
        good = true;
        for (std::size_t i = 0; i < q; ++i) {
            std::vector<double> row;
            double sum = 0.0;
            for (index t = 0; t < length; ++t) {
                row.push_back(static_cast<double>((*k)(static_cast<index>(i), t)));
                sum += std::fabs(row.back());
            }
            const auto want = reference::convolution(row, x);
            const double most =
                rounded(static_cast<double>(order) + 2.0) * memory_of_errors * largest + roundoff * sum * loudest;
            for (index t = 0; t < length; ++t) {
                good = good && std::fabs(static_cast<double>((*memory)(0, 0, t, static_cast<index>(i))) -
                                         want[static_cast<std::size_t>(t)]) <= of_double * most;
            }
        }
        CHECK(good);
    }
}

TEST_CASE("lti: scratch is the caller's")
{
    const s4d_problem<float, float> p({2, lanes + 1, 70, 5}, layout::contiguous, true),
        on_exact({2, lanes + 1, 70, 5}, layout::contiguous, true);
    const operand<float, 2> k({lanes + 1, 70}, layout::contiguous);
    const operand<complex, 3> v({2, 5, 9}, layout::contiguous), h({2, 5, 9}, layout::contiguous);
    const operand<complex, 1> lambda({9}, layout::contiguous);
    const operand<float, 4> memory({2, lanes + 1, 70, 6}, layout::contiguous);
    const operand<float, 2> A({6, 6}, layout::contiguous);
    const operand<float, 1> B({6}, layout::contiguous);
    v.each([](complex& x) { x = complex(1.0f, 2.0f); });
    lambda.each([](complex& x) { x = complex(0.5f, 0.5f); });
    p.run();
    const auto every_door = [&](const sm::context_ref& ctx) {
        on_exact.state.assign(on_exact.start);
        on_exact.run(ctx);
        ssm::s4d_kernel<test_arch>(*p.A, *p.CB, *k, true, ctx);
        ssm::diagonal_scan<test_arch>(*v, *lambda, *h, {}, ctx);
        ssm::legendre_memory(12.0, *A, *B, ctx);
        ssm::lmu_scan<test_arch>(*p.u, *A, *B, *memory, {}, ctx);
        sm::view<float, 2> row(on_exact.out.read().data() == nullptr ? nullptr : (*k).data(), {index{6}, index{2}});
        ssm::lmu_kernel(*A, *B, row, ctx);
    };
    sm::context<> ctx;
    every_door(ctx);
    long before = allocations;
    every_door(ctx);
    CHECK(allocations == before);
    CHECK(same_bits(on_exact.out.list(), p.out.list()));

    guarded<unsigned char> bytes(static_cast<index>(ctx.scratch().size()));
    sm::context<> exact{sm::serial{}, sm::workspace(bytes.data(), ctx.scratch().size())};
    before = allocations;
    every_door(exact);
    CHECK(allocations == before);
    CHECK(bytes.intact());
    sm::context<> none{sm::serial{}, sm::workspace(bytes.data(), 64)};
    const operand<float, 3> untouched({2, lanes + 1, 70}, layout::contiguous);
    CHECK_THROWS_AS(ssm::s4d<test_arch>(*p.u, *p.A, *p.CB, *untouched, {}, none), std::invalid_argument);
    CHECK(untouched.untouched());
}

namespace {

void check_refused(const std::vector<const char*>& texts, const std::function<void()>& call)
{
    std::string message = "(nothing thrown)";
    try {
        call();
    } catch (const std::invalid_argument& e) {
        message = e.what();
    }
    for (const char* text : texts) {
        INFO(message << " lacks: " << text);
        CHECK(message.find(text) != std::string::npos);
    }
}

} // namespace

TEST_CASE("lti: what does not fit is refused, and nothing is written")
{
    // u [2, 3, 4], A and CB [3, 5], out [2, 3, 4], state [2, 3, 5]; the LRU's v and out [2, 4, 3]; memory [2, 3, 4, 5]
    std::vector<float> numbers(2000, 0.5f);
    std::vector<complex> pairs(2000, complex(0.5f));
    const operand<float, 4> written({2, 3, 4, 5}, layout::contiguous);
    const operand<complex, 3> states({2, 4, 5}, layout::contiguous);
    float* const out_data = (*written).data();
    complex* const state_data = (*states).data();
    const auto real = [&]<std::size_t R>(const index(&e)[R]) { return sm::view<const float, R>(numbers.data(), e); };
    const auto number = [&]<std::size_t R>(const index(&e)[R]) { return sm::view<const complex, R>(pairs.data(), e); };
    const auto to = [&]<std::size_t R>(const index(&e)[R]) { return sm::view<float, R>(out_data, e); };
    const auto to_state = [&]<std::size_t R>(const index(&e)[R]) { return sm::view<complex, R>(state_data, e); };
    const auto u = real({2, 3, 4});
    const auto A = number({3, 5});
    const auto out = to({2, 3, 4});
    const auto scan = [&](const auto& u_, const auto& A_, const auto& CB_, const auto& out_,
                          const ssm::s4d_options& opt = {}) {
        return [=] { ssm::s4d<test_arch>(u_, A_, CB_, out_, opt); };
    };
    const auto over = reinterpret_cast<complex*>(out_data); // memory of out, as complex numbers
    const index offsets[] = {0, 3, 2, 4}, late[] = {1, 4}, early[] = {0, 3}, whole[] = {0, 4};

    // clang-format off
    check_refused({"ssm::s4d: u is null", "24"}, scan(sm::view<const float, 3>(nullptr, {2, 3, 4}), A, A, out));
    check_refused({"A is null", "15"}, scan(u, sm::view<const complex, 2>(nullptr, {3, 5}), A, out));
    check_refused({"CB is null", "15"}, scan(u, A, sm::view<const complex, 2>(nullptr, {3, 5}), out));
    check_refused({"out is null", "24"}, scan(u, A, A, sm::view<float, 3>(nullptr, {2, 3, 4})));
    check_refused({"u has a negative extent: -2"}, scan(real({-2, 3, 4}), A, A, out));
    check_refused({"A's number of channels is 2, but u's is 3"}, scan(u, number({2, 5}), A, out));
    check_refused({"CB's number of channels is 2, but u's is 3"}, scan(u, A, number({2, 5}), out));
    check_refused({"CB's number of states is 4, but A's is 5"}, scan(u, A, number({3, 4}), out));
    check_refused({"out's batch is 1, but u's is 2"}, scan(u, A, A, to({1, 3, 4})));
    check_refused({"out's number of channels is 4, but u's is 3"}, scan(u, A, A, to({2, 4, 4})));
    check_refused({"out's length is 3, but u's is 4"}, scan(u, A, A, to({2, 3, 3})));
    check_refused({"D's length is 2, but u's number of channels is 3"}, scan(u, A, A, out, {.D = real({2})}));
    check_refused({"state's batch is 1, but u's is 2"}, scan(u, A, A, out, {.state = to_state({1, 3, 5})}));
    check_refused({"state's number of channels is 2, but u's is 3"}, scan(u, A, A, out, {.state = to_state({2, 2, 5})}));
    check_refused({"state's number of states is 4, but A's is 5"}, scan(u, A, A, out, {.state = to_state({2, 3, 4})}));
    check_refused({"out overlaps u"}, scan(sm::view<const float, 3>(out_data + 23, {2, 3, 4}), A, A, out));
    check_refused({"out overlaps A"}, scan(u, sm::view<const complex, 2>(over, {3, 5}), A, out));
    check_refused({"out overlaps CB"}, scan(u, A, sm::view<const complex, 2>(over + 11, {3, 5}), out));
    check_refused({"out overlaps D"}, scan(u, A, A, out, {.D = {out_data, {3}}}));
    check_refused({"state overlaps A"}, scan(u, sm::view<const complex, 2>(state_data, {3, 5}), A, out, {.state = to_state({2, 3, 5})}));
    check_refused({"state overlaps out"}, scan(u, A, A, out, {.state = {over, {2, 3, 5}}}));
    check_refused({"ssm::s4d_step: out's number of channels is 4, but u's is 3"}, [&] { ssm::s4d_step<test_arch>(real({2, 3}), A, A, to({2, 4})); });
    const auto packed = [&](const index* at, index count, const ssm::s4d_options& opt = {}) {
        return [=] { ssm::s4d_packed<test_arch>(real({3, 4}), A, A, to({3, 4}), sm::view<const index, 1>(at, {count}), opt); };
    };
    check_refused({"ssm::s4d_packed: cu_seqlens decreases from 3 to 2"}, packed(offsets, 4));
    check_refused({"cu_seqlens starts at 1, not at 0"}, packed(late, 2));
    check_refused({"cu_seqlens ends at 3, but u has length 4"}, packed(early, 2));
    check_refused({"cu_seqlens is empty"}, packed(nullptr, 0));
    check_refused({"state's number of sequences is 2, but that of cu_seqlens is 1"}, packed(whole, 2, {.state = to_state({2, 3, 5})}));

    check_refused({"ssm::s4d_kernel: k's number of channels is 2, but A's is 3"}, [&] { ssm::s4d_kernel<test_arch>(A, A, to({2, 4})); });
    check_refused({"CB's number of states is 4"}, [&] { ssm::s4d_kernel<test_arch>(A, number({3, 4}), to({3, 4})); });
    check_refused({"k overlaps CB"}, [&] { ssm::s4d_kernel<test_arch>(A, sm::view<const complex, 2>(over, {3, 5}), to({3, 4})); });
    check_refused({"ssm::discretize_zoh: dt's length is 2, but A's number of channels is 3"},
                  [&] { ssm::discretize_zoh(A, A, real({2}), to_state({3, 5}), sm::view<complex, 2>(state_data + 15, {3, 5})); });
    check_refused({"ssm::discretize_bilinear: B_bar overlaps A_bar"},
                  [&] { ssm::discretize_bilinear(A, A, real({3}), to_state({3, 5}), to_state({3, 5})); });
    check_refused({"B_bar's number of states is 4, but A's is 5"},
                  [&] { ssm::discretize_zoh(A, A, real({3}), to_state({3, 5}), sm::view<complex, 2>(state_data + 15, {3, 4})); });

    const auto v = number({2, 4, 3});
    const auto lru = [&](const auto& v_, const auto& lambda, const auto& out_, const ssm::diagonal_scan_options& opt = {}) {
        return [=] { ssm::diagonal_scan<test_arch>(v_, lambda, out_, opt); };
    };
    check_refused({"ssm::diagonal_scan: lambda's length is 2, but v's number of states is 3"}, lru(v, number({2}), to_state({2, 4, 3})));
    check_refused({"out's length is 5, but v's is 4"}, lru(v, number({3}), to_state({2, 5, 3})));
    check_refused({"out's batch is 1, but v's is 2"}, lru(v, number({3}), to_state({1, 4, 3})));
    check_refused({"out's number of states is 4, but v's is 3"}, lru(v, number({3}), to_state({2, 4, 4})));
    check_refused({"state's batch is 1, but v's is 2"}, lru(v, number({3}), to_state({2, 4, 3}), {.state = {over, {1, 3}}}));
    check_refused({"state overlaps out"}, lru(v, number({3}), to_state({2, 4, 3}), {.state = to_state({2, 3})}));
    check_refused({"out overlaps v"}, lru(to_state({2, 4, 3}), number({3}), to_state({2, 4, 3})));

    const auto memory = to({2, 3, 4, 5});
    const auto lmu = [&](const auto& A_, const auto& B_, const auto& memory_, const ssm::lmu_options& opt = {}) {
        return [=] { ssm::lmu_scan<test_arch>(u, A_, B_, memory_, opt); };
    };
    check_refused({"ssm::lmu_scan: A's number of columns is 4, but its number of rows is 5"}, lmu(real({5, 4}), real({5}), memory));
    check_refused({"B's length is 4, but A's order is 5"}, lmu(real({5, 5}), real({4}), memory));
    check_refused({"memory's order is 4, but A's is 5"}, lmu(real({5, 5}), real({5}), to({2, 3, 4, 4})));
    check_refused({"memory's length is 3, but u's is 4"}, lmu(real({5, 5}), real({5}), to({2, 3, 3, 5})));
    check_refused({"memory's number of channels is 2, but u's is 3"}, lmu(real({5, 5}), real({5}), to({2, 2, 4, 5})));
    check_refused({"state's order is 4, but A's is 5"}, lmu(real({5, 5}), real({5}), memory, {.state = {reinterpret_cast<float*>(state_data), {2, 3, 4}}}));
    check_refused({"memory overlaps A"}, lmu(sm::view<const float, 2>(out_data, {5, 5}), real({5}), memory));
    check_refused({"state overlaps memory"}, lmu(real({5, 5}), real({5}), memory, {.state = to({2, 3, 5})}));
    check_refused({"ssm::legendre_memory: theta is 0", "above 0"}, [&] { ssm::legendre_memory(0.0, to({5, 5}), sm::view<float, 1>(out_data + 25, {5})); });
    check_refused({"theta is", "nan"}, [&] { ssm::legendre_memory(static_cast<double>(nan_value), to({5, 5}), sm::view<float, 1>(out_data + 25, {5})); });
    check_refused({"theta is inf"}, [&] { ssm::legendre_memory(static_cast<double>(infinity), to({5, 5}), sm::view<float, 1>(out_data + 25, {5})); });
    check_refused({"B overlaps A"}, [&] { ssm::legendre_memory(4.0, to({5, 5}), to({5})); });
    check_refused({"ssm::lmu_kernel: k's number of rows is 4, but A's order is 5"}, [&] { ssm::lmu_kernel(real({5, 5}), real({5}), to({4, 4})); });
    check_refused({"k overlaps B"}, [&] { ssm::lmu_kernel(real({5, 5}), sm::view<const float, 1>(out_data, {5}), to({5, 4})); });

    // clang-format on

    CHECK(written.untouched());
    CHECK(states.untouched());
    CHECK(numbers == std::vector<float>(2000, 0.5f));
    CHECK(pairs == std::vector<complex>(2000, complex(0.5f)));
}

} // namespace lti_test
