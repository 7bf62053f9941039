// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/attention/panel.hpp>
#include <seqmix/simd/prefetch.hpp>
#include <seqmix/tile/mma.hpp>

// Keys and values as operands of the products: in user memory where its layout serves, else a tile's copy in scratch.

SEQMIX_NAMESPACE_BEGIN
namespace attention {

/// The keys of one head and batch item, a tile at a time. Words run along the head size. `copies_pay` says that several
/// panels will read a tile, so that a copy is worth making where rows crowd one another.
template <class Arch, class T>
class key_source {
    using element = tile::compute_element<Arch, T>;
    using product = tile::product<Arch, element>;
    using word = typename product::word;

public:
    static index words(index key_size) { return tile::depth_words<product>(key_size); }
    static index scratch_words(index tile_keys, index key_size) { return tile_keys * words(key_size); }

    key_source(const view<const T, 2>& keys, word* scratch, bool copies_pay) : keys_(keys), copy_(scratch)
    {
        const bool readable = std::is_same_v<T, element> && keys.stride(1) == 1 && keys.extent(1) % product::group == 0 &&
                              !keys.empty();
        in_place_ = readable && !(copies_pay && tile::crowded(keys.stride(0) * static_cast<index>(sizeof(T))));
    }

    /// Makes ready the keys of a run.
    void fetch(const key_run& run)
    {
        if (in_place_ || keys_.empty()) { return; }
        const index size = words(keys_.extent(1));
        for (index key = 0; key < run.count; ++key) {
            tile::copy_row<Arch>(&keys_(run.first + key, 0), keys_.stride(1), keys_.extent(1), copy_ + key * size);
        }
        copied_from_ = run.first;
    }

    tile::left_operand operand(index first) const
    {
        if (in_place_) {
            return tile::left_operand::of(keys_.data() + first * keys_.stride(0), keys_.stride(0), product::group);
        }
        const index size = words(keys_.extent(1));
        return tile::left_operand::of(copy_ + (first - copied_from_) * size, size, 1);
    }

private:
    view<const T, 2> keys_;
    word* copy_;
    index copied_from_ = 0;
    bool in_place_;
};

/// The values likewise. Words run along the keys: for bf16 two rows are joined, which user memory never is.
template <class Arch, class T>
class value_source {
    using element = tile::compute_element<Arch, T>;
    using product = tile::product<Arch, element>;
    using word = typename product::word;

public:
    static index scratch_words(index tile_keys, index value_size)
    {
        return tile::depth_words<product>(tile_keys) * value_size;
    }

    value_source(const view<const T, 2>& values, word* scratch, bool copies_pay) : values_(values), copy_(scratch)
    {
        const bool readable =
            std::is_same_v<T, element> && product::group == 1 && values.stride(1) == 1 && !values.empty();
        in_place_ = readable && !(copies_pay && tile::crowded(values.stride(0) * static_cast<index>(sizeof(T))));
    }

    void fetch(const key_run& run)
    {
        if (in_place_ || values_.empty()) { return; }
        const index size = values_.extent(1);
        for (index key = 0; key < run.count; key += product::group) {
            const T* row = &values_(run.first + key, 0);
            word* const to = copy_ + key / product::group * size;
            if constexpr (product::group == 1) {
                tile::copy_row<Arch>(row, values_.stride(1), size, to);
            } else {
                tile::join_rows<Arch>(row, values_.stride(0), run.count - key, values_.stride(1), size, to);
            }
        }
        copied_from_ = run.first;
    }

    /// Rows of the operand are channels, its depth the keys from `first` on (a multiple of the group from the fetched run's).
    tile::left_operand operand(index first) const
    {
        if (in_place_) { return tile::left_operand::of(values_.data() + first * values_.stride(0), 1, values_.stride(0)); }
        const index size = values_.extent(1);
        return tile::left_operand::of(copy_ + (first - copied_from_) / product::group * size, 1, size);
    }

    bool all_finite(const key_run& run) const
    {
        return values_.empty() ||
               tile::all_finite<Arch>(values_.data() + run.first * values_.stride(0), run.count, values_.stride(0),
                                      values_.extent(1), values_.stride(1));
    }

    float at(index key, index channel) const { return static_cast<float>(values_(key, channel)); }

private:
    view<const T, 2> values_;
    word* copy_;
    index copied_from_ = 0;
    bool in_place_;
};

/// The next tile, asked for while this one is multiplied: rows are read in an order that hardware does not foresee. Each of
/// `shares` panels asks for every shares-th line of each row, so that requests are spread over the whole time.
template <class T>
struct read_ahead {
    view<const T, 2> keys, values;
    key_run next;
    index share, shares;

    /// The lines of the next tile's row number `row`.
    SEQMIX_INLINE void operator()(index row) const
    {
        if (row >= next.count) { return; }
        ask(keys, next.first + row);
        ask(values, next.first + row);
    }

private:
    SEQMIX_INLINE void ask(const view<const T, 2>& rows, index row) const
    {
        const auto* const first = reinterpret_cast<const std::byte*>(rows.data() + row * rows.stride(0));
        const index bytes = rows.extent(1) * static_cast<index>(sizeof(T));
        for (index at = share * simd::cache_line; at < bytes; at += shares * simd::cache_line) { simd::prefetch(first + at); }
    }
};

} // namespace attention
SEQMIX_NAMESPACE_END
