// SPDX-License-Identifier: MIT
#include "support/arch.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

#include <seqmix/conv/kernels.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace long_conv_kernels_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;

/// [D, Lk] with the taps inside, or with the channels inside, or backwards.
struct layout {
    index channels, taps;
    int lie;

    sm::view<float, 2> over(std::vector<float>& data) const
    {
        sm::view<float, 2> v(data.data(), {channels, taps});
        if (lie == 1) { v = sm::view<float, 2>(data.data(), {channels, taps}, {1, channels}); }
        if (lie == 2) { v = v.reversed(1); }
        return v;
    }
};

/// Changes random kernels of all shapes and lies; want(before, d, s) is exact, and the result within 2^-24 of it, and some 2^-50 of what it is made of.
template <class Change, class Want>
void check_all(const Change& change, const Want& want)
{
    for (const index taps : {0, 1, 2, 17, 100}) {
        for (int lie = 0; lie < 3; ++lie) {
            const layout at = {3, taps, lie};
            random_source random(static_cast<std::uint64_t>(taps + 1));
            std::vector<float> before(static_cast<std::size_t>(3 * taps));
            for (float& x : before) { x = random.normal(); }
            std::vector<float> after = before;
            change(at.over(after));
            for (index d = 0; d < 3; ++d) {
                for (index s = 0; s < taps; ++s) {
                    CAPTURE(taps, lie, d, s);
                    const double exact = want(at.over(before), d, s), got = static_cast<double>(at.over(after)(d, s));
                    CHECK(std::fabs(got - exact) <= 0x1p-24 * std::fabs(exact) + 0x1p-48);
                }
            }
        }
    }
}

TEST_CASE("long kernels: exponential windows")
{
    const std::vector<float> rate = {0.0f, 3.0f, -0.5f};
    for (const float shift : {0.0f, 0.05f}) {
        for (const index unit : {0, 7}) {
            check_all([&](const sm::view<float, 2>& k) { conv::decay_window(k, {rate.data(), {index{3}}}, shift, unit); },
                      [&](const sm::view<float, 2>& k, index d, index s) {
                          const double time = static_cast<double>(s) / static_cast<double>(unit > 0 ? unit : k.extent(1));
                          return static_cast<double>(k(d, s)) *
                                 (std::exp(-static_cast<double>(rate[static_cast<std::size_t>(d)]) * time) + static_cast<double>(shift));
                      });
        }
    }
}

TEST_CASE("long kernels: Hyena's rates")
{
    CHECK(conv::hyena_rates(0).empty());
    CHECK(conv::hyena_rates(1).size() == 1);
    const std::vector<float> rate = conv::hyena_rates(5);
    CHECK(std::fabs(std::exp(-1.5 * static_cast<double>(rate[0])) - 0.01) <= 1.5 * 4.0 * 0x1p-24 * 0.01 * 4.0);
    CHECK(std::fabs(std::exp(-0.3 * static_cast<double>(rate[4])) - 0.01) <= 0.3 * 16.0 * 0x1p-24 * 0.01 * 4.0);
    for (std::size_t d = 2; d < rate.size(); ++d) { CHECK(std::fabs((rate[d] - rate[d - 1]) - (rate[1] - rate[0])) <= 4.0f * 0x1p-24f * rate[4]); }
}

TEST_CASE("long kernels: squashed")
{
    for (const float threshold : {0.0f, 0.7f}) {
        check_all([&](const sm::view<float, 2>& k) { conv::squash(k, threshold); },
                  [&](const sm::view<float, 2>& k, index d, index s) {
                      const double x = static_cast<double>(k(d, s));
                      return std::copysign(std::max(std::fabs(x) - static_cast<double>(threshold), 0.0), x);
                  });
    }
    std::vector<float> extremes = {std::numeric_limits<float>::quiet_NaN(), -HUGE_VALF, 0.5f, -0.5f};
    conv::squash({extremes.data(), {index{1}, index{4}}}, 0.5f);
    CHECK(std::isnan(extremes[0]));
    CHECK(extremes[1] == -HUGE_VALF);
    CHECK((extremes[2] == 0.0f && extremes[3] == 0.0f));
}

TEST_CASE("long kernels: smoothed")
{
    for (const index width : {index{0}, index{1}, index{5}, index{200}, std::numeric_limits<index>::max()}) {
        check_all([&](const sm::view<float, 2>& k) { conv::smooth(k, width); },
                  [&](const sm::view<float, 2>& k, index d, index s) {
                      double sum = 0.0;
                      for (index i = 0; i < k.extent(1); ++i) { sum += std::abs(i - s) <= width ? static_cast<double>(k(d, i)) : 0.0; }
                      return sum / (1.0 + 2.0 * static_cast<double>(width));
                  });
    }
}

} // namespace
} // namespace long_conv_kernels_test
