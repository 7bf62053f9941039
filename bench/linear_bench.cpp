// SPDX-License-Identifier: MIT
#include "arch.hpp"
#include "peers_linear.hpp"

#include <seqmix/linear/forward.hpp>
#include <seqmix/linear/step.hpp>
#include <seqmix/linear/test_time_training.hpp>

#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family linear_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;
namespace linear = seqmix::linear;

/// What the rule takes, of tokens [tokens..., H]: [B, L] of them, or [B].
template <class Rule, class T, std::size_t Axes, class... Tokens>
auto inputs_of(const linear_problem& p, const linear_inputs<T>& from, Tokens... tokens)
{
    typename Rule::template inputs<T, Axes> in;
    const float* const decays = from.log_decay.data();
    if constexpr (Rule::gate == linear::gate::head) { in.log_decay = seqmix::view(decays, {p.heads}); }
    if constexpr (Rule::gate == linear::gate::token) { in.log_decay = seqmix::view(decays, {tokens..., p.heads}); }
    if constexpr (Rule::gate == linear::gate::channel) { in.log_decay = seqmix::view(decays, {tokens..., p.heads, p.dim}); }
    if constexpr (Rule::update == linear::update::delta) { in.beta = seqmix::view(from.beta.data(), {tokens..., p.heads}); }
    return in;
}

template <class Rule, class T>
class step_call {
public:
    step_call(const linear_problem& p, void* const* data)
        : from_(p, data), q_(of(p, static_cast<const T*>(data[0]))), k_(of(p, static_cast<const T*>(from_.k.data()))),
          v_(of(p, static_cast<const T*>(data[2]))), in_(inputs_of<Rule, T, 1>(p, from_, p.batch)),
          out_(of(p, static_cast<T*>(data[6])))
    {
        opt_.state = seqmix::view(static_cast<float*>(data[5]), {p.batch, p.heads, p.dim, p.dim});
    }
    void run() { linear::step<Rule, set>(q_, k_, v_, in_, out_, opt_, ctx_); }

private:
    template <class U>
    static seqmix::view<U, 3> of(const linear_problem& p, U* data)
    {
        return {data, {p.batch, p.heads, p.dim}};
    }

    seqmix::context<> ctx_;
    linear_inputs<T> from_;
    seqmix::view<const T, 3> q_, k_, v_;
    typename Rule::template inputs<T, 1> in_;
    seqmix::view<T, 3> out_;
    linear::step_options opt_;
};


template <class Rule, class T>
class forward_call {
public:
    forward_call(const linear_problem& p, void* const* data)
        : many_(seqmix::parallel_for{p.threads, threads{}}), spread_(p.threads > 1), from_(p, data),
          q_(of(p, static_cast<const T*>(data[0]))), k_(of(p, static_cast<const T*>(from_.k.data()))),
          v_(of(p, static_cast<const T*>(data[2]))), in_(inputs_of<Rule, T, 2>(p, from_, p.batch, p.length)),
          out_(of(p, static_cast<T*>(data[5])))
    {
    }
    void run()
    {
        const seqmix::context_ref ctx = spread_ ? seqmix::context_ref(many_) : seqmix::context_ref(alone_);
        linear::forward<Rule, set>(q_, k_, v_, in_, out_, linear::options{}, ctx);
    }

private:
    template <class U>
    static seqmix::view<U, 4> of(const linear_problem& p, U* data)
    {
        return {data, {p.batch, p.length, p.heads, p.dim}};
    }

    seqmix::context<> alone_;
    seqmix::context<seqmix::parallel_for<threads>> many_;
    bool spread_;
    linear_inputs<T> from_;
    seqmix::view<const T, 4> q_, k_, v_;
    typename Rule::template inputs<T, 2> in_;
    seqmix::view<T, 4> out_;
};

template <class T>
call make_forward(const linear_problem& p, void* const* data)
{
    switch (p.rule) {
    case linear_rule::retention: return call_of(new forward_call<linear::retention, T>(p, data));
    case linear_rule::simple_gla: return call_of(new forward_call<linear::simple_gla, T>(p, data));
    case linear_rule::gla: return call_of(new forward_call<linear::gla, T>(p, data));
    case linear_rule::gated_delta: return call_of(new forward_call<linear::gated_delta, T>(p, data));
    }
    return {};
}

/// The float kernel on a bf16 row's problem, with operands of its own.
class as_float_call {
public:
    as_float_call(const linear_problem& p, void* const* data)
        : q_(widened(p, data[0])), k_(widened(p, data[1])), v_(widened(p, data[2])),
          out_(v_.size()), operands_{q_.data(), k_.data(), v_.data(), data[3], data[4], out_.data()},
          call_(make_forward<float>(p, operands_))
    {
    }
    as_float_call(const as_float_call&) = delete;
    as_float_call& operator=(const as_float_call&) = delete;
    ~as_float_call() { call_.destroy(call_.state); }
    void run() { call_.run(call_.state); }

private:
    static std::vector<float> widened(const linear_problem& p, const void* data)
    {
        const auto* from = static_cast<const seqmix::bf16*>(data);
        std::vector<float> to(static_cast<std::size_t>(linear_tokens(p) * p.dim));
        for (std::size_t i = 0; i < to.size(); ++i) { to[i] = static_cast<float>(from[i]); }
        return to;
    }

    std::vector<float> q_, k_, v_, out_;
    void* operands_[6];
    call call_;
};

call make_as_float(const void* problem, void* const* data)
{
    return call_of(new as_float_call(*static_cast<const linear_problem*>(problem), data));
}


template <class T>
class training_call {
    using network = linear::swiglu_network;

public:
    training_call(const training_problem& p, void* const* data)
        : many_(seqmix::parallel_for{p.threads, threads{}}), spread_(p.threads > 1), from_(p, data), trained_(from_.weights.size()),
          q_(of(p, static_cast<const T*>(data[0]))), k_(of(p, static_cast<const T*>(data[1]))), v_(of(p, static_cast<const T*>(data[2]))),
          out_(of(p, static_cast<T*>(data[5])))
    {
        const seqmix::view<const float, 3> rates(from_.rates.data(), {index{1}, p.length, index{1}});
        in_.rate = {rates, rates, rates};
        opt_ = {.weights = matrices(p, trained_.data()), .initial_weights = matrices<const float>(p, from_.weights.data()), .chunk = p.chunk};
    }
    void run()
    {
        const seqmix::context_ref ctx = spread_ ? seqmix::context_ref(many_) : seqmix::context_ref(alone_);
        linear::test_time_training<network, set>(q_, k_, v_, in_, out_, opt_, ctx);
    }

private:
    template <class U>
    static seqmix::view<U, 4> of(const training_problem& p, U* data)
    {
        return {data, {index{1}, p.length, index{1}, p.dim}};
    }
    template <class U>
    static network::matrices<seqmix::view<U, 4>> matrices(const training_problem& p, U* data)
    {
        const index one = 1, size = p.hidden * p.dim;
        return {{data, {one, one, p.hidden, p.dim}}, {data + size, {one, one, p.dim, p.hidden}}, {data + 2 * size, {one, one, p.hidden, p.dim}}};
    }

    seqmix::context<> alone_;
    seqmix::context<seqmix::parallel_for<threads>> many_;
    bool spread_;
    training_inputs from_;
    std::vector<float> trained_;
    seqmix::view<const T, 4> q_, k_, v_;
    seqmix::view<T, 4> out_;
    linear::training_inputs<network> in_;
    linear::training_options<network> opt_;
};

call make_training(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const training_problem*>(problem);
    return p.type == element::bf16 ? call_of(new training_call<seqmix::bf16>(p, data)) : call_of(new training_call<float>(p, data));
}

call make(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const linear_problem*>(problem);
    if (p.step) {
        return p.rule == linear_rule::gla ? call_of(new step_call<linear::gla, float>(p, data))
                                          : call_of(new step_call<linear::gated_delta, float>(p, data));
    }
    return p.type == element::bf16 ? make_forward<seqmix::bf16>(p, data) : make_forward<float>(p, data);
}

constexpr linear_problem gla_steps = {.batch = 64, .length = 1, .step = true};
constexpr linear_problem delta_steps = {.rule = linear_rule::gated_delta, .batch = 64, .length = 1, .step = true};

/// 4 K V operations a token and head: a multiply-add for what enters the state and one for what is read of it; the delta
/// rules read twice. A step's bytes of state, read and written.
constexpr double work(const linear_problem& p)
{
    const double elements = static_cast<double>(linear_tokens(p) * p.dim) * static_cast<double>(p.dim);
    return p.step ? 8 * elements : (p.rule == linear_rule::gated_delta ? 6 : 4) * elements;
}

/// Rows of several threads count the work that falls to each: they are fractions of that many cores' peaks.
constexpr row row_of(const char* name, const char* shape, const linear_problem& p, spread_over where = spread_over::best)
{
    row r = {
        .name = name,
        .shape = shape,
        .of = p.step ? limit::copy : p.type == element::bf16 ? limit::bf16 : limit::f32,
        .unit = p.step ? "B" : "FLOP",
        .work = work(p) / p.threads,
        .where = where,
        .operands = {{p.type, linear_tokens(p) * p.dim, filling::normal},
                     {p.type, linear_tokens(p) * p.dim, filling::normal},
                     {p.type, linear_tokens(p) * p.dim, filling::normal},
                     {element::f32, linear_decays(p), filling::negative},
                     {element::f32, linear_tokens(p), filling::positive}},
        .problem = &p,
        .make = make,
        .peers = {},
    };
    if (p.step) { r.operands[5] = {element::f32, linear_tokens(p) * p.dim * p.dim, filling::normal}; }
    r.operands[p.step ? 6 : 5] = {p.type, linear_tokens(p) * p.dim, filling::none};
    return r;
}


constexpr linear_problem gla16 = {}, gla16_bf16 = {.type = element::bf16};
constexpr linear_problem simple16 = {.rule = linear_rule::simple_gla};
constexpr linear_problem simple16_bf16 = {.rule = linear_rule::simple_gla, .type = element::bf16};
constexpr linear_problem retention16 = {.rule = linear_rule::retention};
constexpr linear_problem retention16_bf16 = {.rule = linear_rule::retention, .type = element::bf16};
constexpr linear_problem delta32 = {.rule = linear_rule::gated_delta, .length = 1024, .heads = 32};
constexpr linear_problem delta32_two = {.rule = linear_rule::gated_delta, .length = 1024, .heads = 32, .threads = 2};
constexpr linear_problem delta32_two_bf16 = {
    .rule = linear_rule::gated_delta, .type = element::bf16, .length = 1024, .heads = 32, .threads = 2};
constexpr linear_problem short_retention = {.rule = linear_rule::retention, .length = 1024, .heads = 1};
constexpr linear_problem long_retention = {.rule = linear_rule::retention, .length = 262144, .heads = 1};
constexpr linear_problem short_gla = {.length = 1024, .heads = 1}, long_gla = {.length = 262144, .heads = 1};
constexpr linear_problem short_delta = {.rule = linear_rule::gated_delta, .length = 1024, .heads = 1};
constexpr linear_problem long_delta = {.rule = linear_rule::gated_delta, .length = 262144, .heads = 1};

constexpr row compared(row r, figure says, const linear_problem& with, maker* by = nullptr)
{
    r.says = says;
    r.reference_problem = &with;
    r.reference_work = work(with) / with.threads;
    r.reference = by;
    return r;
}


/// A token's nine products of D x H, three to answer its query and six to learn from it.
constexpr row training_row(const char* name, const char* shape, const training_problem& p, spread_over where = spread_over::best)
{
    const std::int64_t numbers = p.length * p.dim;
    return {
        .name = name,
        .shape = shape,
        .of = p.type == element::bf16 ? limit::bf16 : limit::f32,
        .unit = "FLOP",
        .work = 18.0 * static_cast<double>(numbers) * static_cast<double>(p.hidden) / p.threads,
        .where = where,
        .operands = {{p.type, numbers, filling::normal},
                     {p.type, numbers, filling::normal},
                     {p.type, numbers, filling::normal},
                     {element::f32, p.length, filling::positive},
                     {element::f32, 3 * p.hidden * p.dim, filling::normal},
                     {p.type, numbers, filling::none}},
        .problem = &p,
        .make = make_training,
        .peers = {p.threads > 1 ? peer{} : openblas_training_peer},
    };
}

constexpr training_problem training512 = {}, training512_bf16 = {.type = element::bf16}, training512_two = {.threads = 2};
constexpr training_problem training1024 = {.hidden = 1024};

constexpr row rows[] = {
    row_of("step_gla_f32", "64 sequences, 16 heads x 128, gates of channels", gla_steps, spread_over::vectors),
    row_of("step_gated_delta_f32", "64 sequences, 16 heads x 128", delta_steps, spread_over::vectors),
    row_of("gla_f32", "16 heads x 128, L 2048, gates of channels", gla16, spread_over::vectors),
    row_of("gla_bf16", "bf16, the same", gla16_bf16),
    compared(row_of("gla_over_token_loop", "the same in f32; speed over the loop token by token", gla16), figure::speed_up,
             gla16, token_loop_gla),
    row_of("simple_gla_f32", "16 heads x 128, L 2048, gates of tokens", simple16, spread_over::vectors),
    row_of("simple_gla_bf16", "bf16, the same", simple16_bf16),
    compared(row_of("simple_gla_bf16_over_f32", "bf16, the same; speed over f32", simple16_bf16), figure::speed_up,
             simple16_bf16, make_as_float),
    row_of("retention_f32", "16 heads x 128, L 2048, gates of heads", retention16),
    row_of("retention_bf16", "bf16, the same", retention16_bf16),
    row_of("gated_delta_f32", "32 heads x 128, L 1024", delta32, spread_over::vectors),
    row_of("gated_delta_two_cores", "32 heads x 128, L 1024, 2 threads; work and peak of each", delta32_two),
    row_of("gated_delta_bf16_two_cores", "bf16, the same", delta32_two_bf16),
    compared(row_of("gated_delta_bf16_over_f32", "bf16, the same; speed over f32", delta32_two_bf16), figure::speed_up,
             delta32_two_bf16, make_as_float),
    compared(row_of("gated_delta_over_four_sweeps", "32 heads x 128, L 1024, 2 threads; speed over the loop of four sweeps",
                    delta32_two),
             figure::speed_up, delta32_two, four_sweeps_gated_delta),
    training_row("ttt_swiglu_f32", "1 head, D 512, H 512, L 8192, chunks of 2048", training512, spread_over::vectors),
    training_row("ttt_swiglu_f32_H1024", "the same, H 1024", training1024),
    training_row("ttt_swiglu_bf16", "bf16, H 512", training512_bf16),
    training_row("ttt_swiglu_two_cores", "H 512, 2 threads; work and peak of each", training512_two),
    compared(row_of("retention_256k_over_1k", "1 head x 128; time a token at L 262144 over L 1024", long_retention),
             figure::time_over_share, short_retention),
    compared(row_of("gla_256k_over_1k", "the same with gates of channels", long_gla), figure::time_over_share, short_gla),
    compared(row_of("gated_delta_256k_over_1k", "the same by the gated delta rule", long_delta), figure::time_over_share,
             short_delta),
};

} // namespace

family linear_rows() { return {"linear", rows, static_cast<int>(std::size(rows))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
