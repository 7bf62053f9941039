// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/executor.hpp>
#include <seqmix/core/operands.hpp>
#include <seqmix/ssm/lti_parts.hpp>

// The recurrence of the LRU: a diagonal state space whose states are its outputs. Lanes are states, and time is sequential.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// What diagonal_scan may be told besides its operands.
struct diagonal_scan_options {
    view<complex, 2> state{}; ///< [B, N], read at the start and written at the end; null: zeros
};

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
