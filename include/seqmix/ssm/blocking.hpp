// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/blocking.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace ssm {

/// Work cut for the workers: items x groups x blocks of a group's members (channels or heads), none across a group's border.
struct group_blocks {
    index items, groups, of_group; ///< members of a group
    index block;                   ///< members of a block; the last one of a group may have fewer

    struct piece {
        index item, first, count; ///< members [first, first + count) of an item
    };

    /// As many blocks of a group as give everybody two pieces; one where nobody else works.
    static index wanted(index workers, index items, index groups)
    {
        return workers <= 1 ? 1 : (2 * workers + items * groups - 1) / (items * groups);
    }
    index blocks_of_group() const { return (of_group + block - 1) / block; }
    index pieces() const { return items * groups * blocks_of_group(); }
    piece operator[](index task) const
    {
        const index of_item = groups * blocks_of_group(), item = task / of_item;
        const index group = task % of_item / blocks_of_group(), first = task % blocks_of_group() * block;
        return {item, group * of_group + first, smaller(block, of_group - first)};
    }
};

/// Selective scan: what stays in registers and what in L1.
///
/// | registers | states a sweep | and besides |
/// |---|---|---|
/// | 32 (AVX-512, NEON) | 16 | step, input, output; the constant 1.5 · 2^23; 5 coefficients; about 5 in flight |
/// | 16 (AVX2, scalar)  |  8 | the same, coefficients from memory |
///
/// A tile of tokens and channels takes 12 kB of L1 (step, input, output), B and C of its tokens 8 kB at 16 states. A slab of time
/// is as many tokens as B and C are made dense for at once, for all channels of a block; the block's states and A wait in L2 for
/// their turn.
///
/// | contiguous | tile | slab | pages of the four streams in flight |
/// |---|---|---|---|
/// | time     | one register of channels, 64 tokens: 4 lines of each channel | up to 512 tokens | 16 channels x 4, for all of the slab |
/// | channels | 64 channels, 16 tokens: 4 lines of each token | 16 tokens | 16 tokens x 4, for all channels of the block |
///
/// Rows and columns of usual sizes lie a page or more apart: what a tile touches must fit the first level of the TLB, and what
/// has been looked up must be used up.
template <class Arch>
struct scan_blocking {
    static constexpr int states = simd::backend<Arch>::registers / 2;
    static constexpr index lanes = simd::lanes<Arch>;
    static constexpr index most_tokens = 64, most_vectors = larger(64, 1024 / lanes), most_groups = larger(64 / lanes, 1);

    index tokens, groups; ///< of a tile; groups are registers of channels
    index slab;           ///< tokens
    index channels;       ///< of a block

    /// At most as many channels as leave `wanted` blocks for the workers: what a channel yields does not depend on its block.
    scan_blocking(bool channels_contiguous, index of_group, index states_of_channel, index wanted)
        : tokens(channels_contiguous ? 16 : most_tokens), groups(channels_contiguous ? most_groups : 1)
    {
        const index bytes = 2 * (states_of_channel + 1) * static_cast<index>(sizeof(float));
        slab = channels_contiguous ? tokens : larger(smaller(512, tile::level2_bytes / 4 / bytes) / tokens, 1) * tokens;
        const index fit = smaller(2048, tile::level2_bytes / bytes);
        const index share = (of_group + wanted - 1) / wanted, width = groups * lanes;
        channels = larger(smaller(fit, share + width - 1) / width, 1) * width;
    }
};

} // namespace ssm
SEQMIX_NAMESPACE_END
