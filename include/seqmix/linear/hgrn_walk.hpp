// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>
#include <seqmix/linear/hgrn_cells.hpp>
#include <seqmix/tile/block.hpp>

#include <tuple>
#include <utility>

// The walk of an elementwise linear recurrence, h = keep h + add, through time. Channels stand in lanes, and time is sequential. What
// keep, add and the output are is the cell's business.

SEQMIX_NAMESPACE_BEGIN
namespace linear {

/// One sequence, all [L, D].
template <class Out, class... In>
struct element_sequence {
    std::tuple<view<const In, 2>...> in;
    view<Out, 2> out;
    bool accumulate;
    tile::store how; ///< out is written

    index tokens() const { return out.extent(0); }
    index channels() const { return out.extent(1); }
    bool channels_contiguous() const
    {
        return out.stride(1) == 1 && std::apply([](const auto&... of) { return ((of.stride(1) == 1) && ...); }, in);
    }
};

namespace detail {

/// What a sweep does with the outputs.
enum class outputs {
    none,     ///< nothing: asked for are the state, and what of the one before has been kept
    stored,
    streamed, ///< stored past the caches: rows lie on multiples of a register's size
    summed,   ///< added to what is there
};

/// Tokens down, channels along, which are contiguous.
template <class Number>
struct token_rows {
    Number* base;
    index stride;
};

/// Registers of channels through some tokens; the states stay in registers. Where not `Whole`, the last register has `live` channels.
/// ahead(t) is called at each token.
template <class Arch, class Cell, int Vectors, bool Whole, outputs How, class Ahead, class Out, class... In>
SEQMIX_NOINLINE void sweep_elements(index tokens, index live, float* states, float* keeps, Ahead ahead, token_rows<Out> out,
                                    token_rows<const In>... in)
{
    using f32 = simd::f32<Arch>;
    constexpr int lanes = f32::lanes;
    f32 h[Vectors], kept[Vectors];
    simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
        h[v] = f32::load(states + v * lanes);
        if constexpr (How == outputs::none) { kept[v] = f32::load(keeps + v * lanes); }
    });
    for (index t = 0; t < tokens; ++t) {
        simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
            const auto load = [&](const auto* from) SEQMIX_INLINE_LAMBDA {
                return Whole ? f32::load(from + v * lanes) : f32::load(from + v * lanes, live - v * lanes);
            };
            const auto advance = [&](auto... x) SEQMIX_INLINE_LAMBDA {
                const cell_terms<f32> terms = Cell::terms(x...);
                h[v] = fma(terms.keep, h[v], terms.add);
                if constexpr (How == outputs::none) { kept[v] = kept[v] * terms.keep; }
                return Cell::output(h[v], x...);
            };
            f32 y = advance(load(in.base)...);
            Out* const to = out.base + v * lanes;
            if constexpr (How == outputs::summed) { y = load(out.base) + y; }
            if constexpr (How == outputs::streamed) {
                y.stream(to);
            } else if constexpr (How != outputs::none) {
                Whole ? y.store(to) : y.store(to, live - v * lanes);
            }
        });
        ahead(t);
        out.base += out.stride;
        ((in.base += in.stride), ...);
    }
    simd::unroll<Vectors>([&](auto v) SEQMIX_INLINE_LAMBDA {
        h[v].store(states + v * lanes);
        if constexpr (How == outputs::none) { kept[v].store(keeps + v * lanes); }
    });
}

} // namespace detail

/// A block of channels of one sequence on its way through time.
///
/// Where channels are contiguous, memory is worked on in place, a few tokens at once from the block's first channel to its last: rows
/// are read and written as they lie, and the states wait in L1. Otherwise 64 tokens of one register of channels are turned on their
/// way in and out (4 lines of each channel), and the lines that come next are asked for meanwhile. What a channel yields depends on
/// neither.
template <class Arch, class Cell, class Out, class... In>
class element_walk {
    using f32 = simd::f32<Arch>;
    using outputs = detail::outputs;
    static constexpr index lanes = f32::lanes, tokens_at_once = 8, tile_tokens = 64, tile_size = tile_tokens * lanes;
    static constexpr int vectors = 4;

public:
    using sequence = element_sequence<Out, In...>;
    static constexpr index channel_step = vectors * lanes;
    /// Of a block: the states take a quarter of L1.
    static constexpr index most_channels = tile::level1_bytes / 4 / static_cast<index>(sizeof(float));

    /// Takes scratch for blocks of `width` channels, a multiple of channel_step.
    element_walk(arena& a, index width)
        : width_(width), states_(a.take<float>(carried(width))), keeps_(states_ + width),
          tiles_(a.take<float>(static_cast<index>(sizeof...(In) + 1) * tile_size))
    {
    }

    /// Channels [first, first + count) of `s`, which lives as long as they are walked.
    void choose(const sequence& s, index first, index count) { s_ = &s, first_ = first, count_ = count; }

    void start_from_zero()
    {
        for (index c = 0; c < width_; c += lanes) { f32::zero().store(states_ + c), f32::broadcast(1.0f).store(keeps_ + c); }
    }

    /// [D] of all channels.
    template <class State>
    void load_state(const view<State, 1>& from)
    {
        tile::copy_row<Arch>(&from(first_), from.stride(0), count_, states_);
    }
    template <class State>
    void store_state(const view<State, 1>& to) const
    {
        for (index c = 0; c < count_; c += lanes) {
            tile::store_strided<Arch>(f32::load(states_ + c), &to(first_ + c), to.stride(0), count_ - c);
        }
    }

    /// What a stretch of time leaves to the next: its states, and what it has kept of the ones before.
    static constexpr index carried(index width) { return 2 * width; }
    float* carry() { return states_; }
    /// The states of a stretch that began with zeros become what they had been if it had begun with those of `before`. (The
    /// state-passing identity of linear recurrences.)
    void add_decayed(const float* before)
    {
        for (index c = 0; c < width_; c += lanes) {
            fma(f32::load(keeps_ + c), f32::load(before + c), f32::load(states_ + c)).store(states_ + c);
        }
    }

    /// Tokens [first, last).
    void run(index first, index last)
    {
        if (s_->accumulate) { return through<outputs::summed>(first, last); }
        const view<Out, 2>& out = s_->out;
        const auto bytes = static_cast<std::uintptr_t>(lanes) * sizeof(Out);
        const bool on_borders = reinterpret_cast<std::uintptr_t>(&out(first, first_)) % bytes == 0 && out.stride(0) % lanes == 0;
        if (s_->how == tile::store::kept || !on_borders) { return through<outputs::stored>(first, last); }
        through<outputs::streamed>(first, last);
        f32::stream_fence();
    }
    /// The same without outputs, for add_decayed.
    void run_states(index first, index last) { through<outputs::none>(first, last); }

private:
    template <outputs How>
    void through(index first, index last)
    {
        std::apply(
            [&](const auto&... in) {
                s_->channels_contiguous() ? in_place<How>(first, last, in...) : turned<How>(first, last, in...);
            },
            s_->in);
    }

    template <outputs How>
    void in_place(index first, index last, const view<const In, 2>&... in)
    {
        constexpr outputs of_rest = How == outputs::streamed ? outputs::stored : How;
        constexpr auto nothing = [](index) SEQMIX_INLINE_LAMBDA {};
        const index step = count_ <= channel_step ? tile_tokens : tokens_at_once; // of few channels, calls would take longer than work
        for (index t = first; t < last; t += step) {
            const index tokens = smaller(step, last - t);
            const auto rows = [&](const auto& of, index c) {
                auto* const base = &of(t, first_ + c);
                return detail::token_rows<std::remove_pointer_t<decltype(base)>>{base, of.stride(0)};
            };
            index c = 0;
            for (; c + channel_step <= count_; c += channel_step) {
                detail::sweep_elements<Arch, Cell, vectors, true, How>(tokens, channel_step, states_ + c, keeps_ + c, nothing,
                                                                       rows(s_->out, c), rows(in, c)...);
            }
            for (; c < count_; c += lanes) {
                detail::sweep_elements<Arch, Cell, 1, false, of_rest>(tokens, count_ - c, states_ + c, keeps_ + c, nothing,
                                                                      rows(s_->out, c), rows(in, c)...);
            }
        }
    }

    template <outputs How>
    void turned(index first, index last, const view<const In, 2>&... in)
    {
        constexpr outputs of_tile = How == outputs::streamed ? outputs::stored : How;
        constexpr int streams = static_cast<int>(sizeof...(In)) + 1;
        for (index c = 0; c < count_; c += lanes) {
            for (index t = first; t < last; t += tile_tokens) {
                const index tokens = smaller(tile_tokens, last - t);
                float* tile = tiles_;
                const auto turn = [&](const auto& of) {
                    load_block<Arch>(block(of, t, tokens, c), tile::lane_groups{tile, lanes, lanes});
                    return detail::token_rows<const float>{std::exchange(tile, tile + tile_size), lanes};
                };
                const std::tuple rows{turn(in)...}; // in this order
                if constexpr (How == outputs::summed) { turn(s_->out), tile -= tile_size; }
                const bool next = t + tokens < last;
                const index next_t = next ? t + tokens : first, next_c = next ? c : c + lanes;
                const index next_tokens = next_c < count_ ? smaller(tile_tokens, last - next_t) : 0;
                const auto lines_of = [&](const auto& of) {
                    return next_tokens == 0 ? tile::block_lines<Arch>{}
                                            : tile::block_lines<Arch>::of(block(of, next_t, next_tokens, next_c));
                };
                struct {
                    tile::block_lines<Arch> stream[streams];
                    index rows;
                    SEQMIX_INLINE void operator()(index t)
                    {
                        if (t < rows) {
                            simd::unroll<streams>([&](auto i) SEQMIX_INLINE_LAMBDA { stream[i].ask_for(t); });
                        }
                    }
                } ahead{{lines_of(in)..., lines_of(s_->out)}, next_tokens};
                std::apply(
                    [&](const auto&... row) {
                        detail::sweep_elements<Arch, Cell, 1, true, of_tile>(tokens, lanes, states_ + c, keeps_ + c, ahead,
                                                                             detail::token_rows<float>{tile, lanes}, row...);
                    },
                    rows);
                if constexpr (How != outputs::none) {
                    store_block<Arch>(tile::lane_groups{tile, lanes, lanes}, block(s_->out, t, tokens, c), s_->how);
                }
            }
        }
    }

    /// One register of channels from c on.
    template <class Number>
    tile::block<Number> block(const view<Number, 2>& of, index t, index tokens, index c) const
    {
        return {&of(t, first_ + c), of.stride(0), of.stride(1), tokens, smaller(lanes, count_ - c)};
    }

    const sequence* s_ = nullptr;
    index width_, first_ = 0, count_ = 0;
    float *states_, *keeps_, *tiles_;
};

} // namespace linear
SEQMIX_NAMESPACE_END
