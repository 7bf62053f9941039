// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/ssm/lti_parts.hpp>

// S4D, a diagonal state space with complex eigenvalues, as a scan and as one step. Lanes are channels, and time is sequential. One
// order of operations a token, whatever the call: any cut of a sequence gives the same bits.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// What S4D may be told besides its operands. D channels of N states.
struct s4d_options {
    view<const float, 1> D{};    ///< [D]: out += D u
    view<complex, 3> state{};    ///< [B, D, N], read at the start and written at the end; null: zeros
    bool conjugate_pairs = true; ///< one of each pair of conjugate eigenvalues is given: y = 2 Re Σ; else y = Re Σ
};

namespace lti {

/// Calls body(rows, tile, stride) for the floats of complex numbers [channels, N] as rows of their own: in a tile, row 2n
/// holds the real parts of state n and row 2n + 1 the imaginary ones.
template <class Float, class Complex, class Body>
void each_part(const view<Complex, 2>& states, float* tile, index lanes, const Body& body)
{
    const index live = states.extent(0), count = states.extent(1), channel = 2 * states.stride(0),
                state = 2 * states.stride(1);
    Float* const re = parts_of(states.data());
    if (state == 2) { // real and imaginary parts in turns: one row
        body(view<Float, 2>(re, {live, 2 * count}, {channel, index{1}}), tile, lanes);
        return;
    }
    body(view<Float, 2>(re, {live, count}, {channel, state}), tile, 2 * lanes);
    body(view<Float, 2>(re + 1, {live, count}, {channel, state}), tile + lanes, 2 * lanes);
}

template <class Arch>
void load_states(const view<const complex, 2>& states, float* tile)
{
    constexpr int lanes = simd::lanes<Arch>;
    each_part<const float>(states, tile, lanes, [&](const view<const float, 2>& rows, float* to, index stride) {
        load_tile<Arch>(rows, to, stride, 2 * states.extent(1) * lanes);
    });
}

template <class Arch>
void store_states(float* tile, const view<complex, 2>& states)
{
    constexpr int lanes = simd::lanes<Arch>;
    each_part<float>(states, tile, lanes, [&](const view<float, 2>& rows, float* from, index stride) {
        store_tile<Arch>(from, stride, 2 * states.extent(1) * lanes, rows);
    });
}

/// States of a block, which passes over a tile of tokens while that stays in L1. Four states are 16 coefficients and 8 states: all in registers where there are 32, the
/// coefficients read from L1 where there are 16. Four chains of two dependent multiply-adds a token are what latency 4 at
/// two a cycle asks for.
inline constexpr int block_states = 4;

/// Registers of channels of a task: two lines of floats, so that rows of channels are not read by halves of a line.
template <class Arch>
inline constexpr index task_registers = larger(1, 32 / simd::lanes<Arch>);

/// Takes `States` states of a register of channels over a tile: h = A h + u, y += CB_re h_re - CB_im h_im. Six
/// multiply-adds a state, token and register, one subtraction (two sums are half the latency of one), two loads and a store
/// a token. Tiles of complex numbers as load_states has them.
template <class Arch, int States>
SEQMIX_NOINLINE void advance(const float* A, const float* CB, float* state, const float* u, float* y, index tokens)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    f32 a_re[States], a_im[States], c_re[States], c_im[States], h_re[States], h_im[States];
    simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA {
        a_re[n] = f32::load(A + 2 * n * lanes), a_im[n] = f32::load(A + (2 * n + 1) * lanes);
        c_re[n] = f32::load(CB + 2 * n * lanes), c_im[n] = f32::load(CB + (2 * n + 1) * lanes);
        h_re[n] = f32::load(state + 2 * n * lanes), h_im[n] = f32::load(state + (2 * n + 1) * lanes);
    });
    for (index t = 0; t < tokens; ++t, u += lanes, y += lanes) {
        const f32 input = f32::load(u);
        f32 sum = f32::load(y), less = f32::zero();
        simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA {
            const f32 re = fma(a_re[n], h_re[n], fnma(a_im[n], h_im[n], input));
            const f32 im = fma(a_re[n], h_im[n], a_im[n] * h_re[n]);
            h_re[n] = re, h_im[n] = im;
            sum = fma(c_re[n], re, sum);
            less = fma(c_im[n], im, less);
        });
        (sum - less).store(y);
    }
    simd::unroll<States>([&](auto n) SEQMIX_INLINE_LAMBDA {
        h_re[n].store(state + 2 * n * lanes), h_im[n].store(state + (2 * n + 1) * lanes);
    });
}

/// Scratch of one worker: for each register of channels, tiles of complex numbers and of tokens.
template <class Arch>
struct s4d_scratch {
    static constexpr int lanes = simd::lanes<Arch>;
    index states;
    float *A, *CB, *state, *u, *y, *skip;

    s4d_scratch(arena& a, index count) : states(count)
    {
        constexpr index width = task_registers<Arch> * lanes;
        A = a.take<float>(2 * states * width), CB = a.take<float>(2 * states * width),
        state = a.take<float>(2 * states * width);
        u = a.take<float>(tile_tokens * width), y = a.take<float>(tile_tokens * width), skip = a.take<float>(width);
    }
};

/// One sequence.
template <class T, class Out>
struct sequence {
    view<const T, 2> u; ///< [D, L]
    view<Out, 2> out;   ///< [D, L]
    view<complex, 2> state;
};

/// A task's channels of one sequence; A, CB (doubled for pairs) and D are in scratch.
template <class Arch, class T, class Out>
void s4d_channels(const sequence<T, Out>& s, const s4d_scratch<Arch>& scratch)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    const index length = s.u.extent(1), states = scratch.states, registers = (s.u.extent(0) + lanes - 1) / lanes;
    if (length == 0) { return; }
    if (s.state) {
        load_states<Arch>(s.state, scratch.state);
    } else {
        for (index i = 0; i < 2 * states * registers; ++i) { f32::zero().store(scratch.state + i * lanes); }
    }
    for (index t = 0; t < length; t += tile_tokens) {
        const index tokens = smaller(length - t, tile_tokens);
        load_tile<Arch>(s.u.slice(1, t, t + tokens), scratch.u, lanes, tile_tokens * lanes);
        for (index g = 0; g < registers; ++g) {
            const float* const u = scratch.u + g * tile_tokens * lanes;
            float* const y = scratch.y + g * tile_tokens * lanes;
            const f32 skip = f32::load(scratch.skip + g * lanes);
            for (index i = 0; i < tokens; ++i) { (skip * f32::load(u + i * lanes)).store(y + i * lanes); }
            const auto advance_block = [&](auto count, index n) {
                const index at = 2 * (g * states + n) * lanes;
                advance<Arch, count>(scratch.A + at, scratch.CB + at, scratch.state + at, u, y, tokens);
            };
            index n = 0;
            for (; n + block_states <= states; n += block_states) {
                advance_block(std::integral_constant<int, block_states>{}, n);
            }
            for (; n < states; ++n) { advance_block(std::integral_constant<int, 1>{}, n); }
        }
        store_tile<Arch>(scratch.y, lanes, tile_tokens * lanes, s.out.slice(1, t, t + tokens));
    }
    if (s.state) { store_states<Arch>(scratch.state, s.state); }
}

/// Spreads blocks of channels x groups of sequences over the workers. Short sequences (steps) share a task, and with it the
/// coefficients; how they are grouped changes no result.
template <class Arch, class T, class Out, class SequenceOf>
void s4d_sequences(index sequences, index tokens, const view<const complex, 2>& A, const view<const complex, 2>& CB,
                   const s4d_options& opt, const SequenceOf& sequence_of, const context_ref& ctx)
{
    using f32 = simd::f32<Arch>;
    constexpr index lanes = f32::lanes, width = task_registers<Arch> * lanes;
    const index channels = A.extent(0), states = A.extent(1), blocks = (channels + width - 1) / width;
    if (sequences == 0 || blocks == 0) { return; }
    constexpr index tokens_worth_a_task = 1024;
    const index wanted = (4 * ctx.concurrency() + blocks - 1) / blocks; // groups that keep all workers busy
    const index most = tokens_worth_a_task / (tokens / sequences + 1) + 1, fair = (sequences + wanted - 1) / wanted;
    const index group = ctx.concurrency() > 1 ? smaller(fair, most) : most, groups = (sequences + group - 1) / group;

    arena measure;
    static_cast<void>(s4d_scratch<Arch>(measure, states));
    ctx.for_each(blocks * groups, measure.used(), [&](index task, std::byte* memory) {
        arena carve(memory);
        const s4d_scratch<Arch> scratch(carve, states);
        const index first = task / groups * width, last = smaller(first + width, channels);
        load_states<Arch>(A.slice(0, first, last), scratch.A);
        load_states<Arch>(CB.slice(0, first, last), scratch.CB);
        const index registers = (last - first + lanes - 1) / lanes;
        for (index i = 0; opt.conjugate_pairs && i < 2 * states * registers; ++i) {
            const f32 c = f32::load(scratch.CB + i * lanes);
            (c + c).store(scratch.CB + i * lanes);
        }
        for (index c = 0; c < width; ++c) { scratch.skip[c] = opt.D && first + c < last ? opt.D(first + c) : 0.0f; }
        for (index b = task % groups * group; b < smaller(task % groups * group + group, sequences); ++b) {
            const sequence<T, Out> all = sequence_of(b);
            s4d_channels<Arch, T, Out>({all.u.slice(0, first, last), all.out.slice(0, first, last),
                                        all.state ? all.state.slice(0, first, last) : all.state},
                                       scratch);
        }
    });
}

/// What the doors of S4D ask; u's axes end in channels and time.
template <std::size_t Rank, class T, class Out>
void check_s4d(const checker& check, const view<const T, Rank>& u, const view<const complex, 2>& A,
               const view<const complex, 2>& CB, const view<Out, Rank>& out, index sequences, const char* of_sequences,
               const s4d_options& opt)
{
    constexpr std::size_t channel_axis = Rank - 2, time_axis = Rank - 1;
    check_given(check, u, "u"), check_given(check, A, "A"), check_given(check, CB, "CB"), check_given(check, out, "out");
    const index channels = u.extent(channel_axis);
    check_extent(check, A, "A", 0, "number of channels", channels, "u's");
    check_extent(check, CB, "CB", 0, "number of channels", channels, "u's");
    check_extent(check, CB, "CB", 1, "number of states", A.extent(1), "A's");
    if constexpr (Rank == 3) { check_extent(check, out, "out", 0, "batch", u.extent(0), "u's"); }
    check_extent(check, out, "out", channel_axis, "number of channels", channels, "u's");
    check_extent(check, out, "out", time_axis, "length", u.extent(time_axis), "u's");
    if (opt.D) { check_extent(check, opt.D, "D", 0, "length", channels, "u's number of channels"); }
    if (opt.state) {
        check_extent(check, opt.state, "state", 0, Rank == 3 ? "batch" : "number of sequences", sequences, of_sequences);
        check_extent(check, opt.state, "state", 1, "number of channels", channels, "u's");
        check_extent(check, opt.state, "state", 2, "number of states", A.extent(1), "A's");
    }
    const auto apart = [&](const byte_range& written, const char* writer) {
        check_apart(check, written, writer, u, "u"), check_apart(check, written, writer, A, "A");
        check_apart(check, written, writer, CB, "CB"), check_apart(check, written, writer, opt.D, "D");
    };
    apart(reach(out), "out");
    apart(reach(opt.state), "state");
    check_apart(check, reach(opt.state), "state", out, "out");
}

template <class Arch, class T, class Out>
void s4d_batch(const char* door, const view<const T, 3>& u, const view<const complex, 2>& A,
               const view<const complex, 2>& CB, const view<Out, 3>& out, const s4d_options& opt, const context_ref& ctx)
{
    check_types<T, Out>();
    check_s4d<3, T, Out>(checker(door), u, A, CB, out, u.extent(0), "u's", opt);
    const auto sequence_of = [&](index b) {
        return sequence<T, Out>{u[b], out[b], opt.state ? opt.state[b] : view<complex, 2>{}};
    };
    s4d_sequences<Arch, T, Out>(u.extent(0), u.extent(0) * u.extent(2), A, CB, opt, sequence_of, ctx);
}

} // namespace lti

/// S4D, a diagonal state space with complex eigenvalues, as a scan: for every channel d and state n
///
///     h_t = A[d, n] h_{t-1} + u_t,    out_t = [2] Re Σ_n CB[d, n] h_t + D[d] u_t.
///
/// u [B, D, L], out [B, D, L]: float, bf16 or f16, out of u's type or float; A [D, N]: discretised eigenvalues, e^{dt A} or
/// what discretize_zoh and discretize_bilinear give; CB [D, N]: the product of C and the discretised B. Any strides: unit
/// stride of time and of channels are about equally fast. s4d_options says the rest. Zero sizes are legal; for L = 0 the
/// state stays. Lanes are channels, so fewer channels than lanes leave lanes idle.
///
/// 6 multiply-adds for each channel, state and token; scratch of 24 N + 256 bytes for each of a task's 32 channels. Results
/// are bit-identical for every number of threads, every batch and every way to cut the sequence into calls that hand on the
/// state, s4d_step among them. NaN and infinities reach the later tokens of their channel, the infinity as NaN at times,
/// and no other channel. States that decay below 2^-126 are kept as subnormals, at the processor's speed for them:
/// scoped_flush_denormals turns them off.
///
/// Error for |A| <= 1 against exact arithmetic on the given numbers, to first order in u = 2^-24. With the majorant
/// g_t = |A| g_{t-1} + |u_t|, g of the start being the modulus of the state, a token adds a rounding of at most 2 u g_t to
/// a state (each of the two sums in each part is rounded once), which then decays with it:
///
///     |h_t - exact| <= 2 u Σ_s |A|^{t-s} g_s <= 2 u max(g) min(t, 1 / (1 - |A|)),
///
/// the number of tokens that the decay remembers; and the output adds (2 N + 1) u (|D u_t| + [2] Σ_n |CB_n| g_t) to
/// [2] Σ_n |CB_n| times that, and the rounding to its type. (Below 2^-126 add 2^-149 a sum.)
///
/// Throws std::invalid_argument, naming the argument and both values, with the outputs untouched.
/// Source: Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models", section 3.
template <class Arch = arch::native, class U, class Out>
void s4d(const view<U, 3>& u, const view<const complex, 2>& A, const view<const complex, 2>& CB, const view<Out, 3>& out,
         const s4d_options& opt = {}, const context_ref& ctx = {})
{
    lti::s4d_batch<Arch, std::remove_const_t<U>, Out>("ssm::s4d", u, A, CB, out, opt, ctx);
}

/// One token of many sequences: u, out [B, D]; the same numbers as s4d's, bit by bit. Bound by reading and writing the
/// state.
template <class Arch = arch::native, class U, class Out>
void s4d_step(const view<U, 2>& u, const view<const complex, 2>& A, const view<const complex, 2>& CB,
              const view<Out, 2>& out, const s4d_options& opt = {}, const context_ref& ctx = {})
{
    const auto one_token = [](const auto& v) {
        using element = typename std::remove_cvref_t<decltype(v)>::element;
        return view<element, 3>(v.data(), {v.extent(0), v.extent(1), index{1}}, {v.stride(0), v.stride(1), index{0}});
    };
    lti::s4d_batch<Arch, std::remove_const_t<U>, Out>("ssm::s4d_step", one_token(u), A, CB, one_token(out), opt, ctx);
}

/// s4d over packed sequences: u, out [D, T]; sequence s has the tokens cu_seqlens[s] to cu_seqlens[s + 1], which start at
/// 0, do not decrease and end at T. No token sees across a border. s4d_options::state is [sequences, D, N].
template <class Arch = arch::native, class U, class Out>
void s4d_packed(const view<U, 2>& u, const view<const complex, 2>& A, const view<const complex, 2>& CB,
                const view<Out, 2>& out, const view<const index, 1>& cu_seqlens, const s4d_options& opt = {},
                const context_ref& ctx = {})
{
    using T = std::remove_const_t<U>;
    lti::check_types<T, Out>();
    const checker check("ssm::s4d_packed");
    check_given(check, view<const T, 2>(u), "u");
    check_offsets(check, cu_seqlens, "cu_seqlens", u.extent(1), "u");
    const index sequences = cu_seqlens.extent(0) - 1;
    lti::check_s4d<2, T, Out>(check, u, A, CB, out, sequences, "that of cu_seqlens", opt);
    check_apart(check, reach(out), "out", cu_seqlens, "cu_seqlens");
    check_apart(check, reach(opt.state), "state", cu_seqlens, "cu_seqlens");
    const auto sequence_of = [&](index s) {
        const index from = cu_seqlens(s), to = cu_seqlens(s + 1);
        return lti::sequence<T, Out>{view<const T, 2>(u).slice(1, from, to), out.slice(1, from, to),
                                     opt.state ? opt.state[s] : view<complex, 2>{}};
    };
    lti::s4d_sequences<Arch, T, Out>(sequences, u.extent(1), A, CB, opt, sequence_of, ctx);
}

} // namespace ssm
SEQMIX_NAMESPACE_END
