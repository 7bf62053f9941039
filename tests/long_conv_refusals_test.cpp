// SPDX-License-Identifier: MIT
#include "support/refusals.hpp"

#include <seqmix/conv/apply.hpp>
#include <seqmix/conv/image_apply.hpp>
#include <seqmix/conv/kernels.hpp>
#include <seqmix/conv/stream.hpp>

#include <cmath>
#include <vector>

namespace long_conv_refusals_test {
namespace {

namespace sm = seqmix;
namespace conv = seqmix::conv;
using sm::index;
using scalar = sm::arch::scalar;

template <std::size_t Rank>
using input = sm::view<const float, Rank>;

struct apply_call {
    std::vector<float> kernel = minus_ones(3 * 5), u = minus_ones(2 * 3 * 7), pre = u, post = u, skip = minus_ones(3), out = u;
    conv::plan_options plan{.length = 7};
    input<2> k{kernel.data(), {3, 5}};
    input<3> x{u.data(), {2, 3, 7}};
    sm::view<float, 3> y{out.data(), {2, 3, 7}};
    conv::apply_options<float> opt{.pre_gate = {pre.data(), {2, 3, 7}}, .post_gate = {post.data(), {2, 3, 7}}, .skip = {skip.data(), {3}}};

    void call() { conv::apply(conv::plan<scalar>(k, plan), x, y, opt); }
    bool untouched() const { return all_minus_ones({&kernel, &u, &pre, &post, &skip, &out}); }
};

TEST_CASE("conv::apply refuses")
{
    check_refusals<apply_call>(
        "conv::apply",
        {
            {"null u", [](apply_call& c) { c.x = null(c.x); }, {"u is null", "42"}},
            {"null out", [](apply_call& c) { c.y = null(c.y); }, {"out is null", "42"}},
            {"channels of u", [](apply_call& c) { c.x = resized(c.x, 1, 2); }, {"u has 2 channels", "the plan has 3"}},
            {"longer than planned", [](apply_call& c) { c.plan.length = 6; }, {"u's length is 7", "the plan's is 6"}},
            {"another length, circular", [](apply_call& c) { c.plan.length = 8, c.plan.causal = false; }, {"u's length is 7", "the plan's is 8"}},
            {"length of out", [](apply_call& c) { c.y = resized(c.y, 2, 6); }, {"out's length is 6", "u's is 7"}},
            {"batch of pre_gate", [](apply_call& c) { c.opt.pre_gate = resized(c.opt.pre_gate, 0, 1); }, {"pre_gate's batch is 1", "u's is 2"}},
            {"length of post_gate", [](apply_call& c) { c.opt.post_gate = resized(c.opt.post_gate, 2, 6); }, {"post_gate's length is 6", "u's is 7"}},
            {"channels of skip", [](apply_call& c) { c.opt.skip = resized(c.opt.skip, 0, 2); }, {"skip's number of channels is 2", "u's is 3"}},
            {"out over u", [](apply_call& c) { c.y = {c.u.data(), {2, 3, 7}}; }, {"out overlaps u"}},
            {"out over post_gate", [](apply_call& c) { c.y = {c.post.data(), {2, 3, 7}}; }, {"out overlaps post_gate"}},
        });
}

TEST_CASE("conv::plan refuses")
{
    check_refusals<apply_call>(
        "conv::plan",
        {
            {"null kernel", [](apply_call& c) { c.k = null(c.k); }, {"kernel is null", "15"}},
            {"negative length", [](apply_call& c) { c.plan.length = -1; }, {"length is -1", "at least 0"}},
            {"negative points", [](apply_call& c) { c.plan.points = -4; }, {"points is -4", "at least 0"}},
            {"channels of backward", [](apply_call& c) { c.plan.backward = {c.kernel.data(), {2, 5}}; }, {"backward has 2 channels", "kernel has 3"}},
        });
    const std::vector<float> kernels = minus_ones(2 * 3 * 5), u = minus_ones(3 * 7);
    std::vector<float> out = minus_ones(3 * 7);
    const conv::plan<scalar> own(input<3>(kernels.data(), {2, 3, 5}), {.length = 7});
    check_refused("kernels of other items", {"conv::apply", "u has 1 batch items", "the plan has 2"},
                  [&] { conv::apply(own, input<3>(u.data(), {1, 3, 7}), sm::view<float, 3>(out.data(), {1, 3, 7})); });
    CHECK(all_minus_ones({&out}));
}

TEST_CASE("conv::plan refuses parts of spectra")
{
    static constexpr bool keep[7] = {true};
    const auto parts = [](index count) { return sm::view<const bool, 1>(keep, {count}); };
    check_refusals<apply_call>(
        "conv::plan",
        {
            {"no parts", [&](apply_call& c) { c.plan.keep = parts(0); }, {"keep has 0 parts", "at least 1"}},
            {"seven parts", [&](apply_call& c) { c.plan.keep = parts(7); }, {"keep has 7 parts", "left over is 7"}},
            {"circular", [&](apply_call& c) { c.plan.keep = parts(4), c.plan.causal = false; }, {"keep is given for 4 parts", "causal is 0"}},
            {"direct",
             [&](apply_call& c) { c.plan.keep = parts(4), c.plan.method = conv::method::direct; },
             {"keep is given for 4 parts", "method is direct"}},
        });
}

struct image_call {
    std::vector<float> kernel = minus_ones(3 * 2 * 2), u = minus_ones(2 * 3 * 5 * 7), pre = u, post = u, skip = minus_ones(3), out = u;
    conv::image_options plan{.height = 5, .width = 7};
    input<3> k{kernel.data(), {3, 2, 2}};
    input<4> x{u.data(), {2, 3, 5, 7}};
    sm::view<float, 4> y{out.data(), {2, 3, 5, 7}};
    conv::image_apply_options<float> opt{.pre_gate = {pre.data(), {2, 3, 5, 7}}, .post_gate = {post.data(), {2, 3, 5, 7}}, .skip = {skip.data(), {3}}};

    void call() { conv::apply(conv::image_plan<scalar>(k, plan), x, y, opt); }
    bool untouched() const { return all_minus_ones({&kernel, &u, &pre, &post, &skip, &out}); }
};

TEST_CASE("convolutions of images refuse")
{
    check_refusals<image_call>(
        "conv::image_plan",
        {
            {"null kernel", [](image_call& c) { c.k = null(c.k); }, {"kernel is null", "12"}},
            {"negative height", [](image_call& c) { c.plan.height = -1; }, {"height is -1", "at least 0"}},
            {"negative width", [](image_call& c) { c.plan.width = -2; }, {"width is -2", "at least 0"}},
            {"negative points", [](image_call& c) { c.plan.points = -4; }, {"points is -4", "at least 0"}},
        });
    check_refusals<image_call>(
        "conv::apply",
        {
            {"null u", [](image_call& c) { c.x = null(c.x); }, {"u is null", "210"}},
            {"null out", [](image_call& c) { c.y = null(c.y); }, {"out is null", "210"}},
            {"channels of u", [](image_call& c) { c.x = resized(c.x, 1, 2); }, {"u's number of channels is 2", "the plan's is 3"}},
            {"height of u", [](image_call& c) { c.plan.height = 6; }, {"u's height is 5", "the plan's is 6"}},
            {"width of out", [](image_call& c) { c.y = resized(c.y, 3, 6); }, {"out's width is 6", "the plan's is 7"}},
            {"batch of pre_gate", [](image_call& c) { c.opt.pre_gate = resized(c.opt.pre_gate, 0, 1); }, {"pre_gate's batch is 1", "u's is 2"}},
            {"width of post_gate", [](image_call& c) { c.opt.post_gate = resized(c.opt.post_gate, 3, 6); }, {"post_gate's width is 6"}},
            {"channels of skip", [](image_call& c) { c.opt.skip = resized(c.opt.skip, 0, 2); }, {"skip's number of channels is 2", "the plan's is 3"}},
            {"out over u", [](image_call& c) { c.y = {c.u.data(), {2, 3, 5, 7}}; }, {"out overlaps u"}},
            {"out over post_gate", [](image_call& c) { c.y = {c.post.data(), {2, 3, 5, 7}}; }, {"out overlaps post_gate"}},
        });
}

TEST_CASE("changes of long kernels refuse")
{
    std::vector<float> kernel = minus_ones(3 * 5), rate = minus_ones(3);
    const sm::view<float, 2> k(kernel.data(), {3, 5});
    const input<1> r(rate.data(), {3});
    check_refused("rates", {"conv::decay_window", "rate's number of channels is 2", "kernel's is 3"},
                  [&] { conv::decay_window(k, input<1>(rate.data(), {2})); });
    check_refused("null kernel", {"conv::decay_window", "kernel is null", "15"}, [&] { conv::decay_window(null(k), r); });
    check_refused("unit", {"conv::decay_window", "unit is -1", "at least 0"}, [&] { conv::decay_window(k, r, 0.0f, -1); });
    check_refused("kernel over rate", {"conv::decay_window", "kernel overlaps rate"}, [&] { conv::decay_window(k, input<1>(kernel.data(), {3})); });
    check_refused("threshold", {"conv::squash", "threshold is -1", "at least 0"}, [&] { conv::squash(k, -1.0f); });
    check_refused("threshold", {"conv::squash", "threshold is", "nan"}, [&] { conv::squash(k, std::nanf("")); });
    check_refused("null kernel", {"conv::squash", "kernel is null", "15"}, [&] { conv::squash(null(k), 1.0f); });
    check_refused("width", {"conv::smooth", "width is -2", "at least 0"}, [&] { conv::smooth(k, -2); });
    check_refused("null kernel", {"conv::smooth", "kernel is null", "15"}, [&] { conv::smooth(null(k), 1); });
    CHECK(all_minus_ones({&kernel, &rate}));
}

struct step_call {
    std::vector<float> kernel = minus_ones(3 * 5), u = minus_ones(2 * 3), pre = u, skip = minus_ones(3), out = u;
    conv::stream_plan<scalar> plan{input<2>(kernel.data(), {3, 5})};
    conv::stream<scalar> stream{plan, 2};
    input<2> x{u.data(), {2, 3}};
    sm::view<float, 2> y{out.data(), {2, 3}};
    conv::stream_options<float> opt{.pre_gate = {pre.data(), {2, 3}}, .post_gate = {}, .skip = {skip.data(), {3}}};

    void call() { stream.step(x, y, opt); }
    bool untouched() const { return stream.position() == 0 && all_minus_ones({&kernel, &u, &pre, &skip, &out}); }
};

TEST_CASE("conv::stream::step refuses")
{
    check_refusals<step_call>(
        "conv::stream::step",
        {
            {"null u", [](step_call& c) { c.x = null(c.x); }, {"u is null", "6"}},
            {"batch of u", [](step_call& c) { c.x = resized(c.x, 0, 1); }, {"u's batch is 1", "the stream's is 2"}},
            {"channels of out", [](step_call& c) { c.y = resized(c.y, 1, 2); }, {"out's number of channels is 2", "the plan's is 3"}},
            {"channels of pre_gate", [](step_call& c) { c.opt.pre_gate = resized(c.opt.pre_gate, 1, 2); }, {"pre_gate's number of channels is 2"}},
            {"channels of skip", [](step_call& c) { c.opt.skip = resized(c.opt.skip, 0, 2); }, {"skip's number of channels is 2", "the plan's is 3"}},
            {"out over skip", [](step_call& c) { c.y = {c.skip.data(), {2, 3}, {0, 1}}; }, {"out overlaps skip"}},
        });
}

} // namespace
} // namespace long_conv_refusals_test
