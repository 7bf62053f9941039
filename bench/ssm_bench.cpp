// SPDX-License-Identifier: MIT
#include "arch.hpp"
#include "peers_ssm.hpp"

#include <seqmix/ssm/selective_scan.hpp>
#include <seqmix/ssm/ssd.hpp>
#include <seqmix/ssm/step.hpp>

#include <iterator>
#include <vector>

namespace bench::SEQMIX_BENCH_ARCH {

family ssm_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;
namespace ssm = seqmix::ssm;

template <class T>
class scan_call {
public:
    scan_call(const scan_problem& p, void* const* data)
        : u_(channels_of(p, static_cast<const T*>(data[0]))), delta_(channels_of(p, static_cast<const T*>(data[1]))),
          out_(channels_of(p, static_cast<T*>(data[8]))), B_(states_of(p, static_cast<const T*>(data[3]))),
          C_(states_of(p, static_cast<const T*>(data[4]))), A_(static_cast<const float*>(data[2]), {p.channels, p.states})
    {
        opt_.z = channels_of(p, static_cast<const T*>(data[5]));
        opt_.D = seqmix::view(static_cast<const float*>(data[6]), {p.channels});
        opt_.delta_bias = seqmix::view(static_cast<const float*>(data[7]), {p.channels});
        opt_.softplus = true;
    }
    void run() { ssm::selective_scan<set>(u_, delta_, A_, B_, C_, out_, opt_, ctx_); }

private:
    template <class U>
    static seqmix::view<U, 3> channels_of(const scan_problem& p, U* data)
    {
        const index whole = p.channels * p.length;
        return p.channels_inside ? seqmix::view<U, 3>(data, {p.batch, p.channels, p.length}, {whole, index{1}, p.channels})
                                 : seqmix::view<U, 3>(data, {p.batch, p.channels, p.length});
    }
    static seqmix::view<const T, 4> states_of(const scan_problem& p, const T* data)
    {
        const index whole = p.states * p.length;
        return p.channels_inside
                   ? seqmix::view<const T, 4>(data, {p.batch, index{1}, p.states, p.length}, {whole, whole, index{1}, p.states})
                   : seqmix::view<const T, 4>(data, {p.batch, index{1}, p.states, p.length});
    }

    seqmix::context<> ctx_;
    seqmix::view<const T, 3> u_, delta_;
    seqmix::view<T, 3> out_;
    seqmix::view<const T, 4> B_, C_;
    seqmix::view<const float, 2> A_;
    ssm::scan_options<T> opt_;
};

class scan_step_call {
public:
    scan_step_call(const scan_problem& p, void* const* data)
        : state_(static_cast<std::size_t>(p.batch * p.channels * p.states)), u_(of(p, data[0])), delta_(of(p, data[1])),
          A_(static_cast<const float*>(data[2]), {p.channels, p.states}), B_(row(p, data[3])), C_(row(p, data[4])),
          out_(static_cast<float*>(data[8]), {p.batch, p.channels})
    {
        opt_.z = of(p, data[5]);
        opt_.D = seqmix::view(static_cast<const float*>(data[6]), {p.channels});
        opt_.softplus = true;
        opt_.state = seqmix::view(state_.data(), {p.batch, p.channels, p.states});
    }
    void run() { ssm::selective_step<set>(u_, delta_, A_, B_, C_, out_, opt_, ctx_); }

private:
    static seqmix::view<const float, 2> of(const scan_problem& p, const void* data)
    {
        return {static_cast<const float*>(data), {p.batch, p.channels}};
    }
    static seqmix::view<const float, 3> row(const scan_problem& p, const void* data)
    {
        return {static_cast<const float*>(data), {p.batch, index{1}, p.states}};
    }

    seqmix::context<> ctx_;
    std::vector<float> state_;
    seqmix::view<const float, 2> u_, delta_, A_;
    seqmix::view<const float, 3> B_, C_;
    seqmix::view<float, 2> out_;
    ssm::scan_step_options<float> opt_;
};

template <class T>
class ssd_call {
public:
    ssd_call(const ssd_problem& p, void* const* data)
        : x_(static_cast<const T*>(data[0]), {p.batch, p.length, p.heads, p.channels}),
          dt_(static_cast<const float*>(data[1]), {p.batch, p.length, p.heads}), A_(static_cast<const float*>(data[2]), {p.heads}),
          B_(static_cast<const T*>(data[3]), {p.batch, p.length, index{1}, p.states}),
          C_(static_cast<const T*>(data[4]), {p.batch, p.length, index{1}, p.states}),
          out_(static_cast<T*>(data[5]), {p.batch, p.length, p.heads, p.channels})
    {
        opt_.softplus = true;
    }
    void run() { ssm::ssd<set>(x_, dt_, A_, B_, C_, out_, opt_, ctx_); }

private:
    seqmix::context<> ctx_;
    seqmix::view<const T, 4> x_;
    seqmix::view<const float, 3> dt_;
    seqmix::view<const float, 1> A_;
    seqmix::view<const T, 4> B_, C_;
    seqmix::view<T, 4> out_;
    ssm::ssd_options<T> opt_;
};

/// The float kernel on a bf16 row's problem, with operands of its own.
class ssd_as_float_call {
public:
    ssd_as_float_call(const ssd_problem& p, void* const* data)
        : x_(widened(data[0], p.batch * p.length * p.heads * p.channels)), B_(widened(data[3], p.batch * p.length * p.states)),
          C_(widened(data[4], p.batch * p.length * p.states)), out_(x_.size()),
          operands_{x_.data(), data[1], data[2], B_.data(), C_.data(), out_.data()}, call_(p, operands_)
    {
    }
    void run() { call_.run(); }

private:
    static std::vector<float> widened(const void* data, std::int64_t count)
    {
        const auto* from = static_cast<const seqmix::bf16*>(data);
        std::vector<float> to(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < to.size(); ++i) { to[i] = static_cast<float>(from[i]); }
        return to;
    }

    std::vector<float> x_, B_, C_, out_;
    void* operands_[6];
    ssd_call<float> call_;
};

class ssd_step_call {
public:
    ssd_step_call(const ssd_problem& p, void* const* data)
        : state_(static_cast<std::size_t>(p.batch * p.heads * p.channels * p.states)),
          x_(static_cast<const float*>(data[0]), {p.batch, p.heads, p.channels}), dt_(static_cast<const float*>(data[1]), {p.batch, p.heads}),
          A_(static_cast<const float*>(data[2]), {p.heads}), B_(static_cast<const float*>(data[3]), {p.batch, index{1}, p.states}),
          C_(static_cast<const float*>(data[4]), {p.batch, index{1}, p.states}),
          out_(static_cast<float*>(data[5]), {p.batch, p.heads, p.channels})
    {
        opt_.softplus = true;
        opt_.state = seqmix::view(state_.data(), {p.batch, p.heads, p.channels, p.states});
    }
    void run() { ssm::ssd_step<set>(x_, dt_, A_, B_, C_, out_, opt_, ctx_); }

private:
    seqmix::context<> ctx_;
    std::vector<float> state_;
    seqmix::view<const float, 3> x_;
    seqmix::view<const float, 2> dt_;
    seqmix::view<const float, 1> A_;
    seqmix::view<const float, 3> B_, C_;
    seqmix::view<float, 3> out_;
    ssm::ssd_step_options<float> opt_;
};

call make_scan(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const scan_problem*>(problem);
    if (p.step) { return call_of(new scan_step_call(p, data)); }
    return p.type == element::bf16 ? call_of(new scan_call<seqmix::bf16>(p, data)) : call_of(new scan_call<float>(p, data));
}

call make_ssd(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const ssd_problem*>(problem);
    if (p.step) { return call_of(new ssd_step_call(p, data)); }
    return p.type == element::bf16 ? call_of(new ssd_call<seqmix::bf16>(p, data)) : call_of(new ssd_call<float>(p, data));
}

call make_ssd_as_float(const void* problem, void* const* data)
{
    return call_of(new ssd_as_float_call(*static_cast<const ssd_problem*>(problem), data));
}

constexpr scan_problem usual = {}, inside = {.channels_inside = true}, bf16_scan = {.type = element::bf16};
constexpr scan_problem short_scan = {.channels = 16, .length = 1000}, long_scan = {.channels = 16, .length = 1000000};
// Channels 4 MB apart: all of their lines fall into one set of every cache.
constexpr scan_problem crowded_scan = {.channels = 16, .length = 1048576};
constexpr scan_problem many_steps = {.batch = 64, .length = 1, .step = true};
constexpr ssd_problem heads32 = {}, heads32_bf16 = {.type = element::bf16};
constexpr ssd_problem short_ssd = {.length = 1024, .heads = 1, .channels = 32, .states = 16};
constexpr ssd_problem long_ssd = {.length = 1048576, .heads = 1, .channels = 32, .states = 16};
constexpr ssd_problem many_ssd_steps = {.batch = 64, .length = 1, .step = true};

constexpr double values(const scan_problem& p)
{
    return static_cast<double>(p.batch * p.channels * p.length) * static_cast<double>(p.states);
}
constexpr double values(const ssd_problem& p)
{
    return static_cast<double>(p.batch * p.length * p.heads * p.channels) * static_cast<double>(p.states);
}

/// A scan's exponentials are counted, one a token, channel and state; a step's bytes of state, read and written.
constexpr row scan_row(const char* name, const char* shape, const scan_problem& p, spread_over where = spread_over::best)
{
    const std::int64_t tokens = p.batch * p.channels * p.length, coefficients = p.batch * p.length * p.states;
    return {
        .name = name,
        .shape = shape,
        .of = p.step ? limit::copy : limit::exp2,
        .unit = p.step ? "B" : "element",
        .work = p.step ? 8 * values(p) : values(p),
        .where = where,
        .operands = {{p.type, tokens, filling::normal},
                     {p.type, tokens, filling::normal},
                     {element::f32, p.channels * p.states, filling::negative},
                     {p.type, coefficients, filling::normal},
                     {p.type, coefficients, filling::normal},
                     {p.type, tokens, filling::normal},
                     {element::f32, p.channels, filling::normal},
                     {element::f32, p.channels, filling::negative},
                     {p.type, tokens, filling::none}},
        .problem = &p,
        .make = make_scan,
        .peers = {},
    };
}

/// 4 N P operations a token and head: a multiply-add for what enters the state, one for what is read of it.
constexpr row ssd_row(const char* name, const char* shape, const ssd_problem& p, spread_over where = spread_over::best)
{
    const std::int64_t tokens = p.batch * p.length;
    return {
        .name = name,
        .shape = shape,
        .of = p.step ? limit::copy : p.type == element::bf16 ? limit::bf16 : limit::f32,
        .unit = p.step ? "B" : "FLOP",
        .work = p.step ? 8 * values(p) : 4 * values(p),
        .where = where,
        .operands = {{p.type, tokens * p.heads * p.channels, filling::normal},
                     {element::f32, tokens * p.heads, filling::normal},
                     {element::f32, p.heads, filling::negative},
                     {p.type, tokens * p.states, filling::normal},
                     {p.type, tokens * p.states, filling::normal},
                     {p.type, tokens * p.heads * p.channels, filling::none}},
        .problem = &p,
        .make = make_ssd,
        .peers = {},
    };
}

template <class Problem>
constexpr row compared(row r, figure says, const Problem& with, double work, maker* by = nullptr)
{
    r.says = says;
    r.reference_problem = &with;
    r.reference_work = work;
    r.reference = by;
    return r;
}

constexpr row rows[] = {
    scan_row("scan_f32", "D 2048, N 16, L 2048; softplus, bias, D, z", usual, spread_over::vectors),
    scan_row("scan_f32_channel_last", "the same, [B, L, D]", inside, spread_over::vectors),
    scan_row("scan_bf16", "bf16, the same", bf16_scan),
    compared(scan_row("channel_last_over_first", "D 2048, N 16, L 2048, [B, L, D]; time over that of [B, D, L]", inside),
             figure::time_over_share, usual, values(usual)),
    compared(scan_row("scan_over_expf", "D 2048, N 16, L 2048; speed over a scalar loop of expf", inside), figure::speed_up, inside, 0,
             scalar_scan),
    compared(scan_row("scan_1M_over_1k", "D 16, N 16; time a token at L 1000000 over L 1000", long_scan), figure::time_over_share, short_scan,
             values(short_scan)),
    compared(scan_row("scan_crowded_1M_over_1k", "D 16, N 16; time a token at L 1048576 over L 1000", crowded_scan), figure::time_over_share,
             short_scan, values(short_scan)),
    scan_row("step_f32", "64 sequences, D 2048, N 16", many_steps, spread_over::vectors),
    ssd_row("ssd_f32", "32 heads x 64, N 128, L 2048", heads32, spread_over::vectors),
    ssd_row("ssd_bf16", "bf16, 32 heads x 64, N 128, L 2048", heads32_bf16, spread_over::vectors),
    compared(ssd_row("ssd_over_token_loop", "32 heads x 64, N 128, L 2048; speed over the loop token by token", heads32), figure::speed_up,
             heads32, 0, token_loop_ssd),
    compared(ssd_row("ssd_bf16_over_f32", "bf16, the same; speed over f32", heads32_bf16), figure::speed_up, heads32_bf16, 0,
             make_ssd_as_float),
    compared(ssd_row("ssd_bf16_over_token_loop", "bf16; speed over the loop token by token", heads32_bf16), figure::speed_up, heads32_bf16, 0,
             token_loop_ssd),
    compared(ssd_row("ssd_1M_over_1k", "1 head x 32, N 16; time a token at L 1048576 over L 1024", long_ssd), figure::time_over_share,
             short_ssd, 4 * values(short_ssd)),
    ssd_row("ssd_step_f32", "64 sequences, 32 heads x 64, N 128", many_ssd_steps, spread_over::vectors),
};

} // namespace

family ssm_rows() { return {"ssm", rows, static_cast<int>(std::size(rows))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
