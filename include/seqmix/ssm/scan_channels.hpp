// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/ssm/blocking.hpp>
#include <seqmix/ssm/options.hpp>
#include <seqmix/ssm/scan_sweep.hpp>
#include <seqmix/tile/combine.hpp>

#include <limits>

// The selective scan of a block of channels through time. Channels stand in lanes, states in registers; nothing of size
// L · D · N ever exists. Time has two axes, so that the columns of an image are as good a sequence as its rows.

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// One sequence: [channels or groups, states, outer time, inner time], token t standing at (t / inner, t % inner).
template <class T, class Delta, class Out>
struct scan_sequence {
    view<const T, 3> u;
    view<const Delta, 3> delta;
    view<const float, 2> A; ///< [D, N]
    view<const T, 4> B, C;  ///< [G, N, outer, inner]
    view<const T, 3> z;
    view<Out, 3> out;
    view<const float, 1> D, delta_bias;
    bool softplus;
    ssm::decay decay;
    bool accumulate;
    tile::store how;          ///< out is written
    bool gate_sum;            ///< z gates the sum that is accumulated, not only what is added to it
    view<float, 3> snapshots; ///< [S, D, N]
    index snapshot_interval;

    index tokens() const { return u.extent(1) * u.extent(2); }
};

template <class Arch>
struct scan_scratch {
    static constexpr index lanes = simd::lanes<Arch>, tile_size = scan_blocking<Arch>::most_vectors * lanes;

    float *step, *input, *output, *power; ///< [groups][tokens][lanes]: delta, delta u, y; e^-delta to the states behind
    float *B, *C;                                 ///< [slab][padded states]
    lane_states<Arch> A, h;
    float* decay_time; ///< [channels], right behind h: Σ delta since the start

    /// Floats of h and decay_time, which together are what a stretch of time leaves to the next.
    static constexpr index carried(index channels, index states) { return channels * (states + 1); }

    scan_scratch(arena& a, const scan_blocking<Arch>& sizes, index states)
    {
        const index channels = sizes.channels, padded = (states + lanes - 1) / lanes * lanes;
        for (float** tile : {&step, &input, &output, &power}) { *tile = a.take<float>(tile_size); }
        B = a.take<float>(sizes.slab * padded), C = a.take<float>(sizes.slab * padded);
        A = {a.take<float>(channels * states), states};
        h = {a.take<float>(carried(channels, states)), states};
        decay_time = h.data + channels * states;
    }
};

/// A block of channels of one group, through any stretch of one sequence.
template <class Arch, class T, class Delta, class Out>
class channel_scan {
    using f32 = simd::f32<Arch>;
    using blocking = scan_blocking<Arch>;
    static constexpr index lanes = f32::lanes;

public:
    channel_scan(const scan_sequence<T, Delta, Out>& s, const blocking& sizes, index first_channel, index channels,
                 const scan_scratch<Arch>& scratch)
        : s_(s), sizes_(sizes), first_(first_channel), channels_(channels), groups_((channels + lanes - 1) / lanes), states_(s.A.extent(1)),
          padded_((states_ + lanes - 1) / lanes * lanes), group_(s.B.extent(0) == 0 ? 0 : first_channel / (s.u.extent(0) / s.B.extent(0))),
          at_(scratch)
    {
        load_states(s.A, at_.A);
        f32 largest = f32::zero();
        for (index i = 0; i < groups_ * states_ * lanes; i += lanes) {
            const f32 a = f32::load(at_.A.data + i) * f32::broadcast(0x1.715476p+0f); // exponentials are powers of two
            select(a == a, a, f32::broadcast(std::numeric_limits<float>::quiet_NaN())).store(at_.A.data + i);
            largest = max(abs(a), largest);
        }
        largest_A_ = reduce_max(largest);
    }

    void start_from_zero()
    {
        for (index i = 0; i < groups_ * lanes * (states_ + 1); ++i) { at_.h.data[i] = 0.0f; }
        for (index i = 0; i < groups_ * lanes; ++i) { at_.decay_time[i] = 0.0f; }
    }

    /// [D, N] of all channels.
    template <class State>
    void load_state(const view<State, 2>& from)
    {
        load_states(from, at_.h);
    }
    template <class State>
    void store_state(const view<State, 2>& to) const
    {
        for (index g = 0; g < groups_; ++g) {
            store_block<Arch>(tile::lane_groups{at_.h.at(g, 0), lanes, 0}, channel_block(to, g));
        }
    }

    /// h = decay over the time that has passed since start_from_zero, times `before`, + h: what a stretch that began with zeros
    /// would hold if it had begun with `before`. (The state-passing identity of linear recurrences.)
    void add_decayed(const float* before)
    {
        for (index g = 0; g < groups_; ++g) {
            const f32 time = f32::load(at_.decay_time + g * lanes);
            for (index n = 0; n < states_; ++n) {
                const f32 keep = simd::exp2(time * f32::load(at_.A.at(g, n)));
                float* const h = at_.h.at(g, n);
                fma(keep, f32::load(before + (h - at_.h.data)), f32::load(h)).store(h);
            }
        }
    }

    /// Tokens [first, last).
    void run(index first, index last) { through(first, last, true); }
    /// The same without outputs, for add_decayed.
    void run_states(index first, index last)
    {
        keeps_time_ = true;
        through(first, last, false);
    }
    /// scan_scratch::carried() floats that one stretch of time leaves to the next.
    float* carry() { return at_.h.data; }

private:
    void through(index first, index last, bool with_outputs)
    {
        const index interval = with_outputs && s_.snapshots ? s_.snapshot_interval : 0;
        for (index begin = first, end = first; begin < last; begin = end) {
            end = smaller(last, begin + sizes_.slab);
            if (interval > 0) { end = smaller(end, begin - begin % interval + interval); }
            load_coefficients(s_.B, begin, end - begin, at_.B);
            load_coefficients(s_.C, begin, end - begin, at_.C);
            for (index g = 0; g < groups_; g += sizes_.groups) {
                for (index t = begin; t < end; t += sizes_.tokens) {
                    const span now = {t, smaller(sizes_.tokens, end - t)};
                    fetch(g, now);
                    advance(g, now, (t - begin) * padded_, next_tile(g, now, begin, end, last));
                    if (with_outputs) { finish(g, now); }
                }
            }
            if (interval > 0 && end % interval == 0) { store_state(s_.snapshots[end / interval - 1]); }
        }
        f32::stream_fence();
    }

    /// Tokens [first, first + count).
    struct span {
        index first, count;
    };
    struct place {
        index group;
        span tokens;
    };
    /// What run() does after a tile of the slab [begin, end): the next tile of these channels, the next channels of this slab, or
    /// the first of the next slab.
    place next_tile(index g, span now, index begin, index end, index last) const
    {
        const index after = now.first + now.count;
        if (after < end) { return {g, {after, smaller(sizes_.tokens, end - after)}}; }
        if (g + sizes_.groups < groups_) { return {g + sizes_.groups, {begin, smaller(sizes_.tokens, end - begin)}}; }
        return {0, {end, smaller(sizes_.tokens, last - end)}};
    }

    /// [D, N] as lanes of channels, states along rows.
    template <class Number>
    tile::block<Number> channel_block(const view<Number, 2>& of, index g) const
    {
        return {of.data() + first_of(g) * of.stride(0), of.stride(1), of.stride(0), states_, live(g)};
    }
    template <class Number>
    void load_states(const view<Number, 2>& from, const lane_states<Arch>& to) const
    {
        for (index g = 0; g < groups_; ++g) {
            load_block<Arch>(channel_block(from, g), tile::lane_groups{to.at(g, 0), lanes, 0});
        }
    }

    /// Calls body(block of tokens, its first token counted from t) for each run of tokens whose distance in memory is one stride:
    /// `of` [columns, outer, inner].
    template <class Number, class Body>
    static void for_runs(const view<Number, 3>& of, index first_column, index columns, index t, index count, const Body& body)
    {
        const index inner = of.extent(2);
        for (index done = 0, run = 0; done < count; done += run) {
            const index o = (t + done) / inner, i = (t + done) % inner;
            run = smaller(inner - i, count - done);
            body(tile::block<Number>{of.data() + first_column * of.stride(0) + o * of.stride(1) + i * of.stride(2), of.stride(2),
                                     of.stride(0), run, columns},
                 done);
        }
    }
    /// The channels of a tile from register g on.
    index first_of(index g) const { return first_ + g * lanes; }
    index tile_channels(index g) const { return smaller(sizes_.groups * lanes, channels_ - g * lanes); }

    /// function(x, register of channels, where it will stand) on every register of a tile's channels, on its way to `to`.
    template <class Number, class Function>
    SEQMIX_INLINE void load_channels(const view<Number, 3>& from, index g, index t, index count, float* to, const Function& function) const
    {
        for_runs(from, first_of(g), tile_channels(g), t, count, [&](const auto& run, index done) SEQMIX_INLINE_LAMBDA {
            load_block<Arch>(run, tile::lane_groups{to + done * lanes, lanes, count * lanes}, function);
        });
    }
    void load_coefficients(const view<const T, 4>& from, index t, index count, float* to) const
    {
        for_runs(from[group_], 0, states_, t, count, [&](const auto& run, index done) {
            load_block<Arch>(run, tile::lane_groups{to + done * padded_, padded_, lanes});
        });
    }

    /// step = delta after bias and softplus; input = delta u; output = D u.
    void fetch(index g, span now)
    {
        const index t = now.first, count = now.count;
        f32 bias[blocking::most_groups], skip[blocking::most_groups];
        for (index i = 0; i < groups_of(g); ++i) {
            bias[i] = s_.delta_bias ? channel_numbers(s_.delta_bias, g + i) : f32::zero();
            skip[i] = s_.D ? channel_numbers(s_.D, g + i) : f32::zero();
        }
        if (s_.softplus) {
            load_channels(s_.delta, g, t, count, at_.step,
                          [&](f32 x, index i, float*) SEQMIX_INLINE_LAMBDA { return simd::softplus(x + bias[i]); });
        } else {
            load_channels(s_.delta, g, t, count, at_.step, [&](f32 x, index i, float*) SEQMIX_INLINE_LAMBDA { return x + bias[i]; });
        }
        f32 largest = f32::zero(); // of |delta|; a NaN there is one in the states by either way
        const index to_step = at_.step - at_.input, to_output = at_.output - at_.input;
        const bool skips = bool(s_.D); // without D an infinite u is no NaN
        load_channels(s_.u, g, t, count, at_.input, [&](f32 u, index i, float* at) SEQMIX_INLINE_LAMBDA {
            const f32 dt = f32::load(at + to_step);
            (skips ? skip[i] * u : f32::zero()).store(at + to_output);
            largest = max(abs(dt), largest);
            return dt * u;
        });
        bounded_ = all(largest * f32::broadcast(largest_A_) <= f32::broadcast(125.0f));
        for (index i = 0; keeps_time_ && i < groups_of(g); ++i) {
            f32 total = f32::load(at_.decay_time + (g + i) * lanes);
            for (index r = 0; r < count; ++r) { total = total + f32::load(at_.step + (i * count + r) * lanes); }
            total.store(at_.decay_time + (g + i) * lanes);
        }
        for (index at = 0; s_.decay == decay::s4d_real && at < groups_of(g) * count * lanes; at += lanes) {
            simd::exp2(f32::load(at_.step + at) * f32::broadcast(-0x1.715476p+0f)).store(at_.step + at);
            f32::broadcast(1.0f).store(at_.power + at);
        }
    }

    /// Registers of channels in the tile that begins with register g.
    index groups_of(index g) const { return (tile_channels(g) + lanes - 1) / lanes; }
    /// Channels of register g.
    index live(index g) const { return smaller(lanes, channels_ - g * lanes); }
    f32 channel_numbers(const view<const float, 1>& of, index g) const
    {
        return tile::load_strided<Arch>(&of(first_of(g)), of.stride(0), live(g));
    }

    /// All states of a tile's channels through its tokens.
    void advance(index first_group, span now, index coefficients, const place& next)
    {
        const index count = now.count;
        for (index i = 0; i < groups_of(first_group); ++i) {
            const index g = first_group + i, begin = i * count * lanes;
            scan_tile<Arch> tile = {at_.step + begin, at_.input + begin, at_.output + begin, at_.power + begin, at_.B + coefficients, at_.C + coefficients,
                              count, padded_, lines_of(next.group + i, next.tokens)};
            if (g == 0) { ask_for_coefficients(now, tile.ahead); }
            index n = 0;
            const auto sweeps = [&](auto states) {
                for (; n + states <= states_; n += states) {
                    if (s_.decay == decay::s4d_real) {
                        sweep_powers<Arch, states>(tile, at_.h.at(g, n), n);
                    } else if (bounded_) {
                        sweep<Arch, states, bounded_decay>(tile, at_.h.at(g, n), at_.A.at(g, n), n);
                    } else {
                        sweep<Arch, states, any_decay>(tile, at_.h.at(g, n), at_.A.at(g, n), n);
                    }
                    tile.ahead.rows = tile.ahead.coefficient_rows = 0; // once is enough
                }
            };
            sweeps(std::integral_constant<int, blocking::states>{});
            sweeps(std::integral_constant<int, 4>{});
            sweeps(std::integral_constant<int, 1>{});
        }
    }

    /// The first channels' tiles see to the coefficients of all.
    void ask_for_coefficients(span now, read_ahead<Arch>& ahead) const
    {
        const index first = now.first + sizes_.slab;
        if (s_.u.extent(1) != 1 || first >= s_.tokens() || states_ == 0) { return; }
        const auto lines = [&](const view<const T, 3>& of) {
            return tile::block_lines<Arch>::of(
                tile::block<const T>{of.data() + first * of.stride(2), of.stride(2), of.stride(0), now.count, states_});
        };
        ahead.B = lines(s_.B[group_]), ahead.C = lines(s_.C[group_]);
        ahead.coefficient_rows = smaller(now.count, s_.tokens() - first);
    }

    /// Of an image, whose tokens come in several runs, none: its rows are near one another.
    read_ahead<Arch> lines_of(index g, span tokens) const
    {
        if (s_.u.extent(1) != 1 || g >= groups_) { return {}; }
        const auto lines = [&](const auto& of) {
            using number = std::remove_pointer_t<decltype(of.data())>;
            return tile::block_lines<Arch>::of(tile::block<number>{of.data() + first_of(g) * of.stride(0) + tokens.first * of.stride(2),
                                                                   of.stride(2), of.stride(0), tokens.count, live(g)});
        };
        const tile::block_lines<Arch> u = lines(s_.u);
        return {{u, lines(s_.delta), s_.how == tile::store::streamed ? u : lines(s_.out), s_.z ? lines(s_.z) : u}, tokens.count};
    }

    /// out = y silu(z), or y; added to what is there where the caller sums directions.
    void finish(index g, span now)
    {
        for_runs(s_.out, first_of(g), tile_channels(g), now.first, now.count, [&](const auto& out, index done) {
            const tile::lane_groups y = {at_.output + done * lanes, lanes, now.count * lanes};
            const tile::block<const Out> before = {out.base, out.row_stride, out.column_stride, out.rows, out.columns};
            if (!s_.z) {
                if (!s_.accumulate) { return store_block<Arch>(y, out, s_.how); }
                return store_combined<Arch>(y, out, s_.how, tile::add_to(), before);
            }
            for_runs(s_.z, first_of(g), tile_channels(g), now.first + done, out.rows, [&](const auto& z, index) {
                if (!s_.accumulate) {
                    store_combined<Arch>(y, out, s_.how, [](f32 sum, f32 gate) SEQMIX_INLINE_LAMBDA { return sum * simd::silu(gate); }, z);
                } else if (s_.gate_sum) {
                    store_combined<Arch>(
                        y, out, s_.how, [](f32 sum, f32 old, f32 gate) SEQMIX_INLINE_LAMBDA { return (old + sum) * simd::silu(gate); }, before, z);
                } else {
                    store_combined<Arch>(
                        y, out, s_.how, [](f32 sum, f32 old, f32 gate) SEQMIX_INLINE_LAMBDA { return old + sum * simd::silu(gate); }, before, z);
                }
            });
        });
    }

    const scan_sequence<T, Delta, Out>& s_;
    blocking sizes_;
    index first_, channels_, groups_, states_, padded_, group_;
    scan_scratch<Arch> at_;
    float largest_A_;
    bool bounded_ = false, keeps_time_ = false;
};

} // namespace ssm
SEQMIX_NAMESPACE_END
