// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/check.hpp>
#include <seqmix/core/state.hpp>

#include <concepts>
#include <initializer_list>

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

/// What checks ask of an operand, whatever its type and rank: so that they are compiled once.
class named_operand {
public:
    static constexpr std::size_t most_axes = 5;

    named_operand() {} ///< none: room in a list
    template <class T, std::size_t Rank>
    named_operand(const char* name, const view<T, Rank>& v) : name_(name), given_(v), rank_(Rank), reach_(seqmix::reach(v))
    {
        static_assert(Rank <= most_axes);
        for (std::size_t i = 0; i < Rank; ++i) { extents_[i] = v.extent(i); }
    }
    template <class Float, class Bf16, std::size_t Rank>
    named_operand(const char* name, const basic_state_view<Float, Bf16, Rank>& v)
        : named_operand(v.is_bf16() ? named_operand(name, v.as_bf16()) : named_operand(name, v.as_float()))
    {
    }

    const char* name() const { return name_; }
    bool given() const { return given_; }
    std::size_t rank() const { return rank_; }
    index extent(std::size_t at) const { return extents_[at]; }
    const byte_range& reach() const { return reach_; }

private:
    const char* name_ = "";
    bool given_ = false;
    std::size_t rank_ = 0;
    index extents_[most_axes] = {}; ///< rank of them
    byte_range reach_;
};

/// An extent that operands share: what the axis is called, its number, and whose it is: "x's".
struct named_extent {
    const char* name;
    index extent;
    const char* of_what;
};

/// Extents in the order of axes: batch + length + heads.
struct named_shape {
    named_extent axes[named_operand::most_axes]; ///< rank of them
    std::size_t rank = 0;

    named_shape() {}
    named_shape(const named_extent& only) : rank(1) { axes[0] = only; }

    friend named_shape operator+(named_shape shape, const named_extent& next)
    {
        shape.axes[shape.rank++] = next;
        return shape;
    }
};
inline named_shape operator+(const named_extent& first, const named_extent& second) { return named_shape(first) + second; }

/// Refuses null operands whose shape has elements, and negative extents.
inline void check_given(const checker& check, const named_operand& o)
{
    index size = 1;
    for (std::size_t i = 0; i < o.rank(); ++i) { size *= o.extent(i); }
    check.require(o.given() || size == 0, o.name(), " is null, but its shape has ", size, " elements");
    for (std::size_t i = 0; i < o.rank(); ++i) {
        check.require(o.extent(i) >= 0, o.name(), " has a negative extent: ", o.extent(i));
    }
}
template <std::same_as<named_operand>... More>
void check_given(const checker& check, const named_operand& first, const More&... more)
{
    check_given(check, first), (check_given(check, more), ...);
}
inline void check_given(const checker& check, std::initializer_list<named_operand> operands)
{
    for (const named_operand& o : operands) { check_given(check, o); }
}

/// Refuses an operand of another shape: "<name>'s <axis> is 3, but <of_what> is 4".
inline void check_shape(const checker& check, const named_operand& o, const named_shape& want)
{
    for (std::size_t i = 0; i < want.rank; ++i) {
        const named_extent& a = want.axes[i];
        check.require(o.extent(i) == a.extent, o.name(), "'s ", a.name, " is ", o.extent(i), ", but ", a.of_what, " is ", a.extent);
    }
}

/// The same of one that may be left out.
inline void check_optional(const checker& check, const named_operand& o, const named_shape& want)
{
    if (o.given()) { check_shape(check, o, want); }
}

/// Refuses what is written where others are read.
template <std::same_as<named_operand>... Others>
void check_apart(const checker& check, const named_operand& written, const Others&... others)
{
    (check.require(!written.reach().overlaps(others.reach()), written.name(), " overlaps ", others.name(),
                   ": its memory from first to last element must be apart"),
     ...);
}
inline void check_apart(const checker& check, const named_operand& written, std::initializer_list<named_operand> others)
{
    for (const named_operand& o : others) { check_apart(check, written, o); }
}

/// Refuses groups that do not divide what they are groups of: "B has 3 groups, which does not divide x's 4 heads".
inline void check_groups(const checker& check, const char* name, index groups, const char* whose, index members, const char* what)
{
    check.require(members == 0 || (groups > 0 && members % groups == 0), name, " has ", groups, " groups, which does not divide ",
                  whose, " ", members, " ", what);
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
