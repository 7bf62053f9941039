// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/tile/blocking.hpp>

SEQMIX_NAMESPACE_BEGIN
namespace attention {

/// Keys a tile. A fixed grid from key 0 that depends on the head sizes alone: where tiles end decides how sums are
/// rounded, so results are the same however many queries come at once.
/// One panel's scores (tile x panel) and the rows of keys or values in flight share L1; the tile's keys and values are
/// read once a panel from L2.
constexpr index keys_per_tile(index key_size, index value_size)
{
    const index larger = key_size > value_size ? key_size : value_size;
    return larger <= 96 ? 192 : larger <= 320 ? 128 : 64;
}

/// Panels that share one pass over the keys: as many as fit half of L2 beside the tile, so that keys and values are
/// fetched from memory once for several panels; fewer where there would not be four blocks for each worker.
template <class Arch>
constexpr index panels_per_block(index panels, index key_size, index value_size, index blocks_wanted)
{
    const index panel_bytes = (key_size + value_size) * tile::blocking<Arch>::columns * static_cast<index>(sizeof(float));
    const index tile_bytes = keys_per_tile(key_size, value_size) * (key_size + value_size) * static_cast<index>(sizeof(float));
    index fit = (tile::level2_bytes - tile_bytes) / (panel_bytes > 0 ? panel_bytes : 1);
    fit = fit < 1 ? 1 : fit > 8 ? 8 : fit;
    const index fair = panels / (blocks_wanted > 0 ? blocks_wanted : 1);
    return fair >= fit ? fit : fair < 1 ? 1 : fair;
}

} // namespace attention
SEQMIX_NAMESPACE_END
