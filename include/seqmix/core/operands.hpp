// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/check.hpp>
#include <seqmix/core/view.hpp>

// What every door asks of its operands.

SEQMIX_NAMESPACE_BEGIN

/// Refuses a null view whose shape has elements, and negative extents.
template <class T, std::size_t Rank>
void check_given(const checker& check, const view<T, Rank>& operand, const char* name)
{
    check.require(operand.data() != nullptr || operand.empty(), name, " is null, but its shape has ", operand.size(),
                  " elements");
    for (index extent : operand.extents()) { check.require(extent >= 0, name, " has a negative extent: ", extent); }
}

/// One extent that must be the same number as another operand's: "<name>'s <axis> is 3, but <of_what> is 4".
template <class T, std::size_t Rank>
void check_extent(const checker& check, const view<T, Rank>& operand, const char* name, std::size_t axis,
                  const char* axis_name, index want, const char* of_what)
{
    check.require(operand.extent(axis) == want, name, "'s ", axis_name, " is ", operand.extent(axis), ", but ", of_what,
                  " is ", want);
}

/// Refuses what is written where `operand` is read. `written` reaches from its first to its last element.
template <class Operand>
void check_apart(const checker& check, const byte_range& written, const char* writer, const Operand& operand,
                 const char* name)
{
    check.require(!written.overlaps(reach(operand)), writer, " overlaps ", name,
                  ": its memory from first to last element must be apart");
}

/// Offsets of packed sequences: n + 1 numbers from 0 to `total`, which do not decrease. `operand` names what is packed.
inline void check_offsets(const checker& check, const view<const index, 1>& offsets, const char* name, index total,
                          const char* operand)
{
    check.require(offsets.data() != nullptr && offsets.extent(0) >= 1, name, " is empty");
    const index sequences = offsets.extent(0) - 1;
    check.require(offsets(0) == 0, name, " starts at ", offsets(0), ", not at ", 0);
    for (index n = 0; n < sequences; ++n) {
        check.require(offsets(n) <= offsets(n + 1), name, " decreases from ", offsets(n), " to ", offsets(n + 1));
    }
    check.require(offsets(sequences) == total, name, " ends at ", offsets(sequences), ", but ", operand, " has length ",
                  total);
}

SEQMIX_NAMESPACE_END
