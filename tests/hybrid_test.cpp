// SPDX-License-Identifier: MIT
// Window attention and linear attention summed into one output, without a kernel of its own: two calls are the sum of both definitions.
#include "linear_case.hpp"

#include <seqmix/attention/forward.hpp>
#include <seqmix/attention/reference.hpp>
#include <seqmix/linear/forward.hpp>

namespace linear_test {

namespace attention = seqmix::attention;

TEST_CASE("hybrid: attention in a window, then linear attention with accumulate")
{
    constexpr double u = linear_bound::u;
    for (index length : {1, 5, 24, 61}) {
        for (index left : {0, 7, 100}) {
            for (stand s : {stand{}, stand{lie::first, axes::swap12, 1}}) {
                const linear_case c{.rule = rule::gla, .batch = 2, .heads = 2, .size = 9, .values = lanes + 1, .length = length, .stands = s};
                const linear_problem<float> p(c);
                const sm::view<const float, 4> q = p.q(), k = p.k(), v = p.v(); // [B, L, H, D]
                const auto heads_first = [](const auto& x) { return x.transposed(1, 2); };
                const linear_result<float> result(p);
                attention::forward<test_arch>(heads_first(q), heads_first(k), heads_first(v), heads_first(result.out()),
                                              {.causal = sm::causal::top_left, .window = {.left = left}});
                linear::forward<linear::gla, test_arch>(q, k, v, {.log_decay = p.channel_decay()}, result.out(),
                                                        {.form = form::chunked, .accumulate = true});

                expectation want = expect<float>(p);
                const double scale = 1.0 / std::sqrt(static_cast<double>(c.size));
                for (index b = 0; b < c.batch; ++b) {
                    for (index h = 0; h < c.heads; ++h) {
                        const auto head = [&](const auto& x) { return heads_first(x)[b][h]; };
                        double largest = 0.0, strongest = 0.0;
                        for_each(head(v), [&](float x, auto...) { largest = std::max(largest, std::fabs(as_double(x))); });
                        for (index t = 0; t < length; ++t) {
                            for (index j = 0; j < length; ++j) {
                                double sum = 0.0;
                                for (index i = 0; i < c.size; ++i) { sum += std::fabs(as_double(head(q)(t, i)) * as_double(head(k)(j, i))); }
                                strongest = std::max(strongest, scale * sum);
                            }
                        }
                        for (index t = 0; t < length; ++t) {
                            std::vector<double> row;
                            const auto visible = [&](index j) { return j <= t && j >= t - left; };
                            attention::reference::row(head(q)[t], head(k), head(v), {.scale = scale}, visible, [](index) { return 0.0; }, row);
                            for (index j = 0; j < c.values; ++j) {
                                const auto at = static_cast<std::size_t>(((b * length + t) * c.heads + h) * c.values + j);
                                double& tolerance = want.out_tolerance[at];
                                want.out[at] += row[static_cast<std::size_t>(j)];
                                // As attention::forward says of itself, and one addition.
                                tolerance += u * (2.0 * static_cast<double>(c.size) * strongest + 2.0 * static_cast<double>(length) + 16.0) * largest;
                                tolerance += u * (std::fabs(want.out[at]) + tolerance);
                            }
                        }
                    }
                }
                const worst_error worst = worst_in_tolerances(result.out(), want.out, want.out_tolerance);
                INFO(c << ", window " << left << ": " << worst);
                CHECK(worst.error <= 1.0);
                CHECK(result.out.written_exactly());
            }
        }
    }
}

} // namespace linear_test
