// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/tile/block.hpp>
#include <seqmix/tile/mma.hpp>

#include <cmath>
#include <complex>

// Diagonal linear time-invariant state spaces with complex eigenvalues: S4D as a scan, as one step and as the kernel of a
// long convolution, and the recurrence of the LRU.
//
// Lanes are channels (S4D) or states (LRU), and time is sequential. One operation order per token, whatever the call: any
// cut of a sequence gives the same bits.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

using complex = std::complex<float>;

/// What S4D may be told besides its operands. D channels of N states.
struct s4d_options {
    view<const float, 1> D{};    ///< [D]: out += D u
    view<complex, 3> state{};    ///< [B, D, N], read at the start and written at the end; null: zeros
    bool conjugate_pairs = true; ///< one of each pair of conjugate eigenvalues is given: y = 2 Re Σ; else y = Re Σ
};

/// What diagonal_scan may be told besides its operands.
struct diagonal_scan_options {
    view<complex, 2> state{}; ///< [B, N], read at the start and written at the end; null: zeros
};

namespace lti {

/// The two floats of each complex number, as the standard lays them out ([complex.numbers.general]). No member of
/// std::complex is called: its code would be shared with units of other flags.
inline const float* parts_of(const complex* z) { return reinterpret_cast<const float*>(z); }
inline float* parts_of(complex* z) { return reinterpret_cast<float*>(z); }

/// A complex number in double.
struct wide {
    double re, im;

    static wide of(const complex& z)
    {
        return {static_cast<double>(parts_of(&z)[0]), static_cast<double>(parts_of(&z)[1])};
    }
    void store(complex& to) const { parts_of(&to)[0] = static_cast<float>(re), parts_of(&to)[1] = static_cast<float>(im); }

    friend wide operator*(wide a, wide b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
    friend wide operator*(double a, wide b) { return {a * b.re, a * b.im}; }
    /// a / b for |b|² within double's range.
    friend wide operator/(wide a, wide b)
    {
        const double square = b.re * b.re + b.im * b.im;
        return {(a.re * b.re + a.im * b.im) / square, (a.im * b.re - a.re * b.im) / square};
    }
};

/// Rows to tiles, so that the row is the lane: to(s, lane) = rows(lane, s), token s at to + s · to_stride, and every
/// further register of rows group_stride on. Lanes beyond the rows are zero. Unit stride of either axis is fast.
template <class Arch, class T>
void load_tile(const view<const T, 2>& rows, float* to, index to_stride, index group_stride)
{
    const tile::block<const T> from = {rows.data(), rows.stride(1), rows.stride(0), rows.extent(1), rows.extent(0)};
    tile::load_block<Arch>(from, tile::lane_groups{to, to_stride, group_stride});
}

/// Back, rounded to T.
template <class Arch, class T>
void store_tile(float* from, index from_stride, index group_stride, const view<T, 2>& rows)
{
    const tile::block<T> to = {rows.data(), rows.stride(1), rows.stride(0), rows.extent(1), rows.extent(0)};
    tile::store_block<Arch>(tile::lane_groups{from, from_stride, group_stride}, to);
}

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

/// S4D: tokens of a tile (inputs and outputs of a register of channels stay in L1 while blocks of states pass over them),
/// and states of a block. Four states are 16 coefficients and 8 states: all in registers where there are 32, the
/// coefficients read from L1 where there are 16. Four chains of two dependent multiply-adds a token are what latency 4 at
/// two a cycle asks for.
inline constexpr index tile_tokens = 32;
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

template <class T, class Out>
constexpr void check_types()
{
    static_assert(storage<T>, "seqmix: u is float, bf16 or f16");
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "seqmix: out has the type of u, or float");
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

namespace lti {

/// Channels and states of a discretisation, one at a time, in double.
template <class Rule>
void discretize(const char* door, const view<const complex, 2>& A, const view<const complex, 2>& B,
                const view<const float, 1>& dt, const view<complex, 2>& A_bar, const view<complex, 2>& B_bar,
                const Rule& rule)
{
    const checker check(door);
    check_given(check, A, "A"), check_given(check, B, "B"), check_given(check, dt, "dt");
    check_given(check, A_bar, "A_bar"), check_given(check, B_bar, "B_bar");
    const auto same_shape = [&](const auto& operand, const char* name) {
        check_extent(check, operand, name, 0, "number of channels", A.extent(0), "A's");
        check_extent(check, operand, name, 1, "number of states", A.extent(1), "A's");
    };
    same_shape(B, "B"), same_shape(A_bar, "A_bar"), same_shape(B_bar, "B_bar");
    check_extent(check, dt, "dt", 0, "length", A.extent(0), "A's number of channels");
    const auto apart = [&](const byte_range& written, const char* writer) {
        check_apart(check, written, writer, A, "A"), check_apart(check, written, writer, B, "B");
        check_apart(check, written, writer, dt, "dt");
    };
    apart(reach(A_bar), "A_bar"), apart(reach(B_bar), "B_bar");
    check_apart(check, reach(B_bar), "B_bar", A_bar, "A_bar");
    for (index d = 0; d < A.extent(0); ++d) {
        const double step = static_cast<double>(dt(d));
        for (index n = 0; n < A.extent(1); ++n) {
            wide keep, input; // of A dt: what a state keeps, and what an input of B = 1 gives, over dt
            rule(step * wide::of(A(d, n)), keep, input);
            keep.store(A_bar(d, n)), (step * input * wide::of(B(d, n))).store(B_bar(d, n));
        }
    }
}

} // namespace lti

/// Zero-order hold for diagonal A: A_bar = e^{A dt}, B_bar = (e^{A dt} - 1) / A · B. A, B, A_bar, B_bar [D, N], dt [D]:
/// time between tokens, in the unit of 1 / A. Computed in double and rounded once to float (2^-24 relative in modulus); no
/// cancellation near A dt = 0, where B_bar -> dt B. Throws std::invalid_argument.
/// Source: Gu et al. 2022 (see s4d), section 3.
inline void discretize_zoh(const view<const complex, 2>& A, const view<const complex, 2>& B, const view<const float, 1>& dt,
                           const view<complex, 2>& A_bar, const view<complex, 2>& B_bar)
{
    using lti::wide;
    lti::discretize("ssm::discretize_zoh", A, B, dt, A_bar, B_bar, [](wide z, wide& keep, wide& input) {
        const double growth = std::exp(z.re), half_sine = std::sin(0.5 * z.im);
        keep = {growth * std::cos(z.im), growth * std::sin(z.im)};
        // e^{x + iy} - 1 = (e^x - 1) cos y - 2 sin²(y / 2) + i e^x sin y: small where z is.
        const wide less_one = {std::expm1(z.re) * std::cos(z.im) - 2.0 * half_sine * half_sine, keep.im};
        input = z.re == 0.0 && z.im == 0.0 ? wide{1.0, 0.0} : less_one / z;
    });
}

/// The bilinear rule for diagonal A: A_bar = (1 + A dt / 2) / (1 - A dt / 2), B_bar = dt / (1 - A dt / 2) · B. Operands and
/// accuracy as for discretize_zoh; Re A <= 0 keeps clear of the pole at A dt = 2. (The same source.)
inline void discretize_bilinear(const view<const complex, 2>& A, const view<const complex, 2>& B,
                                const view<const float, 1>& dt, const view<complex, 2>& A_bar,
                                const view<complex, 2>& B_bar)
{
    using lti::wide;
    lti::discretize("ssm::discretize_bilinear", A, B, dt, A_bar, B_bar, [](wide z, wide& keep, wide& input) {
        const wide less = {1.0 - 0.5 * z.re, -0.5 * z.im}, more = {1.0 + 0.5 * z.re, 0.5 * z.im};
        input = wide{1.0, 0.0} / less, keep = more / less;
    });
}

namespace lti {

/// The kernel of one channel as a matrix product: k(t0 + j) = Σ_n Re(CB A^t0) Re(A^j) - Im(CB A^t0) Im(A^j). The left
/// operand has a row for every start t0, the right one a column for every j within a panel; both are powers taken in
/// double.
template <class Arch>
class kernel_channel {
public:
    static constexpr index columns = tile::blocking<Arch>::columns;
    static constexpr index most_rows = 64; ///< starts at a time: 4 kB of left operand for 8 states, 32 kB for 64

    kernel_channel(arena& a, index states) : states_(states)
    {
        left_ = a.take<float>(most_rows * 2 * states), right_ = a.take<float>(2 * states * columns);
        for (double** list : {&a_re_, &a_im_, &p_re_, &p_im_, &q_re_, &q_im_}) { *list = a.take<double>(states); }
    }

    void run(const view<const complex, 1>& A, const view<const complex, 1>& CB, double factor, const view<float, 1>& k)
    {
        using product = tile::product<Arch, float>;
        constexpr int lanes = simd::lanes<Arch>;
        const index length = k.extent(0);
        for (index n = 0; n < states_; ++n) {
            const wide a = wide::of(A(n)), q = factor * wide::of(CB(n));
            a_re_[n] = a.re, a_im_[n] = a.im, p_re_[n] = 1.0, p_im_[n] = 0.0, q_re_[n] = q.re, q_im_[n] = q.im;
        }
        for (index j = 0; j < columns; ++j) {
            for (index n = 0; n < states_; ++n) {
                right_[2 * n * columns + j] = static_cast<float>(p_re_[n]);
                right_[(2 * n + 1) * columns + j] = static_cast<float>(-p_im_[n]);
            }
            multiply(p_re_, p_im_, a_re_, a_im_);
        }
        for (index t = 0; t < length; t += most_rows * columns) {
            const index rest = (length - t + columns - 1) / columns, rows = rest < most_rows ? rest : most_rows;
            for (index row = 0; row < rows; ++row) {
                for (index n = 0; n < states_; ++n) {
                    left_[(row * states_ + n) * 2] = static_cast<float>(q_re_[n]);
                    left_[(row * states_ + n) * 2 + 1] = static_cast<float>(q_im_[n]);
                }
                multiply(q_re_, q_im_, p_re_, p_im_); // by A^columns
            }
            tile::mma<product, tile::blocking<Arch>::vectors>(
                rows, 2 * states_, tile::left_operand::of(left_, 2 * states_, 1), {right_, columns},
                [&](index row, index v, simd::f32<Arch> sum) SEQMIX_INLINE_LAMBDA {
                    const index at = t + row * columns + v * lanes;
                    if (at < length) { tile::detail::store_strided<Arch>(sum, &k(at), k.stride(0), length - at); }
                });
        }
    }

private:
    /// x *= y. What has decayed beyond every float becomes zero, before it gets to double's subnormals and their price.
    void multiply(double* SEQMIX_RESTRICT x_re, double* SEQMIX_RESTRICT x_im, const double* SEQMIX_RESTRICT y_re,
                  const double* SEQMIX_RESTRICT y_im) const
    {
        for (index n = 0; n < states_; ++n) {
            const double re = x_re[n] * y_re[n] - x_im[n] * y_im[n], im = x_re[n] * y_im[n] + x_im[n] * y_re[n];
            const bool gone = std::fabs(re) + std::fabs(im) < 0x1p-400;
            x_re[n] = gone ? 0.0 : re, x_im[n] = gone ? 0.0 : im;
        }
    }

    index states_;
    float *left_, *right_;
    double *a_re_, *a_im_, *p_re_, *p_im_, *q_re_, *q_im_;
};

} // namespace lti

/// The kernel of a long convolution that gives s4d's outputs from a zero state (but for D u): k[d, t] = [2] Re Σ_n CB A^t.
/// A, CB [D, N] as for s4d; k [D, L], any strides.
///
/// Powers do not drift: A^t is (A^J)^r A^j, both taken in double and rounded once, J being the columns of a micro-panel. A
/// matrix product then sums over the states: 2 multiply-adds for each state and token. For |A| <= 1, u = 2^-24:
/// |k_t - exact| <= ((2 N + 2) u + 4 t 2^-53) [2] Σ_n |CB_n| |A_n|^t to first order, (and 2^-149 N max(1, |CB|) below
/// 2^-126); the second term reaches the first at t = 2^28. Bit-identical for every number of threads. Throws
/// std::invalid_argument. Source: Gu et al. 2022 (see s4d), section 3: a Vandermonde product.
template <class Arch = arch::native>
void s4d_kernel(const view<const complex, 2>& A, const view<const complex, 2>& CB, const view<float, 2>& k,
                bool conjugate_pairs = true, const context_ref& ctx = {})
{
    const checker check("ssm::s4d_kernel");
    check_given(check, A, "A"), check_given(check, CB, "CB"), check_given(check, k, "k");
    check_extent(check, CB, "CB", 0, "number of channels", A.extent(0), "A's");
    check_extent(check, CB, "CB", 1, "number of states", A.extent(1), "A's");
    check_extent(check, k, "k", 0, "number of channels", A.extent(0), "A's");
    check_apart(check, reach(k), "k", A, "A"), check_apart(check, reach(k), "k", CB, "CB");
    arena measure;
    static_cast<void>(lti::kernel_channel<Arch>(measure, A.extent(1)));
    ctx.for_each(A.extent(0), measure.used(), [&](index d, std::byte* memory) {
        arena carve(memory);
        lti::kernel_channel<Arch>(carve, A.extent(1)).run(A[d], CB[d], conjugate_pairs ? 2.0 : 1.0, k[d]);
    });
}

namespace lti {

/// A range of states of one sequence of the LRU. Complex numbers stay in turns, as they lie in memory. Beside a register of
/// them, (re, im, re, im, …), runs its swap, (im, re, im, re, …), so that the product needs no shuffle:
///
///     h = a h + b swap(h) + v,   swap(h) = a swap(h) - b h + swap(v),   a = (λ_re, λ_re, …), b = (-λ_im, λ_im, …).
///
/// The swap of v is the row read one place later in even lanes and one place earlier in odd ones. Twice the arithmetic of
/// separate parts, where memory is what takes the time. A block of registers passes over a few tokens at a time, so that
/// every row of memory is read from its beginning to its end.
template <class Arch>
class pair_range {
    using f32 = simd::f32<Arch>;
    static constexpr int lanes = f32::lanes;
    static constexpr int vectors = simd::backend<Arch>::registers >= 32 ? 4 : 2; // even: one lane is half a number
    static constexpr index floats = vectors * lanes;
    static constexpr index row_floats = floats + 2 * lanes; // a row in scratch has a register to spare at both ends
    static constexpr index tokens_at_once = 8;

public:
    static constexpr index block_states = floats / 2; ///< of a block
    static constexpr index most_blocks = 32;          ///< 24 kB of states and coefficients where registers are widest

    pair_range(arena& a, index blocks)
        : rows_(a.take<float>(tokens_at_once * row_floats)), h_(a.take<float>(blocks * row_floats)),
          a_(a.take<float>(blocks * floats)), b_(a.take<float>(blocks * floats))
    {
    }

    /// v, out [L, N], lambda and state [N]; N is at most the blocks that there is scratch for.
    void run(const view<const complex, 2>& v, const view<const complex, 1>& lambda, const view<complex, 2>& out,
             const view<complex, 1>& state)
    {
        const index length = v.extent(0), states = v.extent(1), blocks = (states + block_states - 1) / block_states;
        if (length == 0) { return; }
        for (index i = 0; i < tokens_at_once * row_floats; ++i) { rows_[i] = 0.0f; }
        for (index i = 0; i < blocks * row_floats; ++i) { h_[i] = 0.0f; }
        for (index n = 0; n < blocks * block_states; ++n) {
            const float re = n < states ? parts_of(&lambda(n))[0] : 0.0f, im = n < states ? parts_of(&lambda(n))[1] : 0.0f;
            a_[2 * n] = a_[2 * n + 1] = re;
            b_[2 * n] = -im, b_[2 * n + 1] = im;
        }
        const auto each_block = [&](const auto& body) {
            for (index at = 0; at < blocks; ++at) {
                const index first = at * block_states;
                body(at, first, first + block_states < states ? first + block_states : states);
            }
        };
        if (state) {
            each_block([&](index at, index first, index last) { gather(state.slice(0, first, last), start_of(at)); });
        }
        for (index t = 0; t < length; t += tokens_at_once) {
            const index tokens = length - t < tokens_at_once ? length - t : tokens_at_once;
            each_block([&](index at, index first, index last) {
                for (index s = 0; s < tokens; ++s) {
                    gather(v[t + s].slice(0, first, last), rows_ + s * row_floats + lanes);
                }
                if (last - first == block_states && out.stride(1) == 1) {
                    advance(at, tokens, parts_of(&out(t, first)), 2 * out.stride(0));
                    return;
                }
                advance(at, tokens, rows_ + lanes, row_floats); // each row has been read when it is written
                for (index s = 0; s < tokens; ++s) {
                    scatter(rows_ + s * row_floats + lanes, out[t + s].slice(0, first, last));
                }
            });
        }
        if (state) {
            each_block([&](index at, index first, index last) { scatter(start_of(at), state.slice(0, first, last)); });
        }
    }

private:
    float* start_of(index block) const { return h_ + block * row_floats + lanes; }

    static void gather(const view<const complex, 1>& from, float* to)
    {
        const index count = 2 * from.extent(0);
        if (from.stride(0) != 1) {
            for (index n = 0; n < from.extent(0); ++n) {
                to[2 * n] = parts_of(&from(n))[0], to[2 * n + 1] = parts_of(&from(n))[1];
            }
            return;
        }
        const float* const row = parts_of(from.data());
        index i = 0;
        for (; i + lanes <= count; i += lanes) { f32::load(row + i).store(to + i); }
        if (i < count) { f32::load(row + i, count - i).store(to + i); }
    }

    static void scatter(const float* from, const view<complex, 1>& to)
    {
        for (index n = 0; n < to.extent(0); ++n) {
            parts_of(&to(n))[0] = from[2 * n], parts_of(&to(n))[1] = from[2 * n + 1];
        }
    }

    static SEQMIX_INLINE f32 swapped(const float* at, simd::mask<Arch> even)
    {
        return select(even, f32::load(at + 1), f32::load(at - 1));
    }

    SEQMIX_NOINLINE void advance(index block, index tokens, float* to, index to_stride) const
    {
        f32 a[vectors], b[vectors], h[vectors], swap[vectors];
        float parity[2 * lanes];
        for (int i = 0; i < 2 * lanes; ++i) { parity[i] = i % 2 == 0 ? -1.0f : 0.0f; }
        simd::mask<Arch> even[2]; // all registers alike, but for those of one lane
        simd::unroll<2>([&](auto v) SEQMIX_INLINE_LAMBDA { even[v] = f32::load(parity + v * lanes) < f32::zero(); });
        float* const start = start_of(block);
        simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
            a[v] = f32::load(a_ + block * floats + v * lanes), b[v] = f32::load(b_ + block * floats + v * lanes);
            h[v] = f32::load(start + v * lanes), swap[v] = swapped(start + v * lanes, even[v % 2]);
        });
        const float* row = rows_ + lanes;
        for (index t = 0; t < tokens; ++t, row += row_floats, to += to_stride) {
            simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
                const f32 input = f32::load(row + v * lanes), other = swapped(row + v * lanes, even[v % 2]);
                const f32 next = fma(a[v], h[v], fma(b[v], swap[v], input));
                swap[v] = fma(a[v], swap[v], fnma(b[v], h[v], other));
                h[v] = next;
            });
            simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { h[v].store(to + v * lanes); });
        }
        simd::unroll<vectors>([&](auto v) SEQMIX_INLINE_LAMBDA { h[v].store(start + v * lanes); });
    }

    float *rows_, *h_, *a_, *b_;
};

} // namespace lti

/// The recurrence of the Linear Recurrent Unit, all states out: h_t = lambda ∘ h_{t-1} + v_t. Its dense B before and C
/// behind are matrix products of their own.
///
/// v [B, L, N], lambda [N], out [B, L, N]; any strides, unit stride of N is the fast path. Zero sizes are legal; for L = 0
/// the state stays. Bound by memory: 8 bytes in and 8 out for each state and token; a worker's scratch does not grow with
/// the sizes. Bit-identical for every number of threads, and for every way to cut a sequence into calls that hand on the
/// state. NaN and infinities reach the later tokens of their state and no other. Error for |lambda| <= 1: as the state's in
/// s4d, |h_t - exact| <= 2 u Σ_s |lambda|^{t-s} g_s with g_t = |lambda| g_{t-1} + |v_t|. Throws std::invalid_argument, with
/// the outputs untouched. Source: Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences",
/// section 3.
template <class Arch = arch::native>
void diagonal_scan(const view<const complex, 3>& v, const view<const complex, 1>& lambda, const view<complex, 3>& out,
                   const diagonal_scan_options& opt = {}, const context_ref& ctx = {})
{
    using range = lti::pair_range<Arch>;
    const checker check("ssm::diagonal_scan");
    check_given(check, v, "v"), check_given(check, lambda, "lambda"), check_given(check, out, "out");
    check_extent(check, lambda, "lambda", 0, "length", v.extent(2), "v's number of states");
    check_extent(check, out, "out", 0, "batch", v.extent(0), "v's");
    check_extent(check, out, "out", 1, "length", v.extent(1), "v's");
    check_extent(check, out, "out", 2, "number of states", v.extent(2), "v's");
    if (opt.state) {
        check_extent(check, opt.state, "state", 0, "batch", v.extent(0), "v's");
        check_extent(check, opt.state, "state", 1, "number of states", v.extent(2), "v's");
    }
    const auto apart = [&](const byte_range& written, const char* writer) {
        check_apart(check, written, writer, v, "v"), check_apart(check, written, writer, lambda, "lambda");
    };
    apart(reach(out), "out"), apart(reach(opt.state), "state");
    check_apart(check, reach(opt.state), "state", out, "out");
    const index states = v.extent(2), blocks = (states + range::block_states - 1) / range::block_states;
    if (v.extent(0) == 0 || states == 0) { return; }
    // Ranges no result depends on: as wide as serves memory, and enough of them for all workers.
    const index wanted = ctx.concurrency() > 1 ? 4 * ctx.concurrency() / v.extent(0) + 1 : 1;
    const index fair = (blocks + wanted - 1) / wanted, wide = fair < range::most_blocks ? fair : range::most_blocks;
    const index ranges = (blocks + wide - 1) / wide, range_states = wide * range::block_states;
    arena measure;
    static_cast<void>(range(measure, wide));
    ctx.for_each(v.extent(0) * ranges, measure.used(), [&](index task, std::byte* memory) {
        arena carve(memory);
        const index b = task / ranges, first = task % ranges * range_states,
                    last = first + range_states < states ? first + range_states : states;
        range(carve, wide)
            .run(v[b].slice(1, first, last), lambda.slice(0, first, last), out[b].slice(1, first, last),
                 opt.state ? opt.state[b].slice(0, first, last) : view<complex, 1>{});
    });
}

} // namespace ssm
SEQMIX_NAMESPACE_END
