// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <seqmix/attention.hpp>

#include <iterator>

namespace bench::SEQMIX_BENCH_ARCH {

family attention_rows();

namespace {

using set = seqmix::arch::SEQMIX_BENCH_ARCH;
using seqmix::index;

template <class T>
class forward_call {
public:
    forward_call(const attention_problem& p, void* const* data)
        : many_(seqmix::parallel_for{p.threads, threads{}}), spread_(p.threads > 1),
          q_(operand(p, static_cast<const T*>(data[0]), p.heads, p.queries)),
          k_(operand(p, static_cast<const T*>(data[1]), p.kv_heads, p.keys)),
          v_(operand(p, static_cast<const T*>(data[2]), p.kv_heads, p.keys)),
          out_(operand(p, static_cast<T*>(data[p.alibi ? 4 : 3]), p.heads, p.queries))
    {
        opt_.causal = p.causal ? seqmix::causal::bottom_right : seqmix::causal::none;
        opt_.window.left = p.window_left;
        opt_.softcap = p.softcap;
        if (p.alibi) { opt_.alibi_slopes = seqmix::view(static_cast<const float*>(data[3]), {p.heads}); }
    }

    void run()
    {
        seqmix::attention::forward<set>(q_, k_, v_, out_, opt_, spread_ ? seqmix::context_ref(many_) : alone_);
    }

private:
    template <class U>
    static seqmix::view<U, 4> operand(const attention_problem& p, U* data, index heads, index length)
    {
        const layout at(p, heads, length);
        return {data, {p.batch, heads, length, p.dim}, {at.batch, at.head, at.time, index{1}}};
    }

    seqmix::context<> own_;
    seqmix::context<seqmix::parallel_for<threads>> many_;
    seqmix::context_ref alone_{own_};
    bool spread_;
    seqmix::attention::options opt_;
    seqmix::view<const T, 4> q_, k_, v_;
    seqmix::view<T, 4> out_;
};

call make(const void* problem, void* const* data)
{
    const auto& p = *static_cast<const attention_problem*>(problem);
    switch (p.type) {
    case element::f32:
        return call_of(new forward_call<float>(p, data));
    case element::bf16:
        return call_of(new forward_call<seqmix::bf16>(p, data));
    case element::f16:
        return call_of(new forward_call<seqmix::f16>(p, data));
    default:
        return {};
    }
}

/// Σ min(x, most) for x = 1 … n
constexpr std::int64_t capped_sum(std::int64_t n, std::int64_t most)
{
    return n <= most ? n * (n + 1) / 2 : most * (most + 1) / 2 + (n - most) * most;
}

constexpr double visible_pairs(const attention_problem& p)
{
    const std::int64_t most = p.window_left >= 0 ? p.window_left + 1 : p.keys;
    const std::int64_t pairs =
        p.causal ? capped_sum(p.keys, most) - capped_sum(p.keys - p.queries, most) : p.queries * p.keys;
    return static_cast<double>(p.batch * p.heads * pairs);
}

/// Two products of a multiplication and an addition for each visible pair; the exponential counts as nothing.
constexpr double operations(const attention_problem& p) { return 4 * visible_pairs(p) * static_cast<double>(p.dim); }

constexpr double bytes_of_keys_and_values(const attention_problem& p)
{
    return static_cast<double>(2 * p.batch * p.kv_heads * p.keys * p.dim * (p.type == element::f32 ? 4 : 2));
}

struct one_case {
    const char* name;
    const char* shape;
    attention_problem problem;
    spread_over where = spread_over::best;
    bool stored_scores = true; ///< whether the peers, which store them, take part
    bool streams = false;      ///< bound by reading keys and values, not by arithmetic
    figure says = figure::peak_fraction;
    const attention_problem* reference = nullptr;
};

constexpr attention_problem one_thread = {};
constexpr attention_problem no_window = {.heads = 1, .kv_heads = 1, .queries = 16384, .keys = 16384};

constexpr one_case cases[] = {
    {"f32_full_d128", "8 heads, L 2048, dim 128", {}, spread_over::vectors},
    {"f32_causal_d128", "8 heads, L 2048, dim 128, causal", {.causal = true}, spread_over::vectors},
    {"f32_causal_d64_L8192",
     "2 heads, L 8192, dim 64, causal",
     {.heads = 2, .kv_heads = 2, .queries = 8192, .keys = 8192, .dim = 64, .causal = true},
     spread_over::vectors},
    {"bf16_full_d128", "bf16, 8 heads, L 2048, dim 128", {.type = element::bf16}, spread_over::vectors},
    {"bf16_causal_d128", "bf16, 8 heads, L 2048, dim 128, causal", {.type = element::bf16, .causal = true}},
    {"f16_full_d128", "f16, 8 heads, L 2048, dim 128", {.type = element::f16}, spread_over::vectors},
    {"f32_softcap_d128", "8 heads, L 2048, dim 128, softcap 30", {.softcap = 30}},
    {"f32_alibi_d128", "8 heads, L 2048, dim 128, ALiBi", {.alibi = true}},
    {"f32_gqa_d128",
     "32 heads on 8, L 1024, dim 128, causal",
     {.heads = 32, .kv_heads = 8, .queries = 1024, .keys = 1024, .causal = true}},
    {"f32_BLHD_d128", "8 heads, L 2048, dim 128, laid out [B, L, H, D]", {.heads_inside = true}},
    {"window512_of_16384",
     "1 head, L 16384, dim 128, causal, 512 keys each",
     {.heads = 1, .kv_heads = 1, .queries = 16384, .keys = 16384, .causal = true, .window_left = 511},
     spread_over::best,
     false,
     false,
     figure::time_over_share,
     &no_window},
    {"f32_decode_d128_L32768",
     "1 query, 8 heads, 32768 keys, dim 128",
     {.queries = 1, .keys = 32768},
     spread_over::vectors,
     true,
     true},
    {"bf16_decode_gqa_d128_L32768",
     "bf16, 1 query, 32 heads on 8, 32768 keys, dim 128",
     {.type = element::bf16, .heads = 32, .queries = 1, .keys = 32768},
     spread_over::best,
     true,
     true},
    {"f32_full_d128_L1", "8 heads, L 1, dim 128", {.queries = 1, .keys = 1}},
    {"f32_full_d128_L128", "8 heads, L 128, dim 128", {.queries = 128, .keys = 128}, spread_over::all},
    {"f32_full_d128_L1024", "8 heads, L 1024, dim 128", {.queries = 1024, .keys = 1024}},
    {"f32_full_d128_L8192", "1 head, L 8192, dim 128", {.heads = 1, .kv_heads = 1, .queries = 8192, .keys = 8192}},
    {"two_cores",
     "8 heads, L 2048, dim 128, 2 threads",
     {.threads = 2},
     spread_over::best,
     false,
     false,
     figure::speed_up,
     &one_thread},
};

constexpr row row_of(const one_case& c)
{
    const attention_problem& p = c.problem;
    const std::int64_t outs = p.batch * p.heads * p.queries * p.dim, keys = p.batch * p.kv_heads * p.keys * p.dim;
    row r{
        .name = c.name,
        .shape = c.shape,
        .of = c.streams                    ? limit::read
              : c.says == figure::speed_up ? limit::none
              : p.type == element::bf16    ? limit::bf16
                                           : limit::f32,
        .unit = c.streams ? "B" : "FLOP",
        .work = c.streams ? bytes_of_keys_and_values(p) : operations(p),
        .where = c.where,
        .operands = {{p.type, outs, filling::normal}, {p.type, keys, filling::normal}, {p.type, keys, filling::normal}},
        .problem = &c.problem,
        .make = make,
        .peers = {},
        .says = c.says,
        .reference_problem = c.reference,
        .reference_work = c.reference != nullptr ? operations(*c.reference) : 0,
    };
    int next = 3;
    if (p.alibi) { r.operands[next++] = {element::f32, p.heads, filling::slopes}; }
    r.operands[next] = {p.type, outs, filling::none};
    if (c.stored_scores) {
        r.peers[0] = eigen_attention_peer;
        if (p.type == element::f32) { r.peers[1] = openblas_attention_peer; }
    }
    return r;
}

constexpr auto rows = tabulate(cases, row_of);

} // namespace

family attention_rows() { return {"attention", rows.rows, static_cast<int>(std::size(cases))}; }

} // namespace bench::SEQMIX_BENCH_ARCH
