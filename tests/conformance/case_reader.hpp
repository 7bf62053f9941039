// SPDX-License-Identifier: MIT
#pragma once

#include "plain_case.hpp"

#include <seqmix/core/types.hpp>
#include <seqmix/core/view.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

// What every operation needs to read a case and to judge a result. Inside the ABI-tag namespace, because it is compiled
// once per instruction set.

SEQMIX_NAMESPACE_BEGIN
namespace conformance {

using namespace ::conformance;

/// Something that is not built (yet): the case is neither passed nor failed.
struct unsupported : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Whether `word` is one of the words of `list`, which single spaces part.
inline bool is_listed(std::string_view word, std::string_view list)
{
    for (std::size_t at = 0; at <= list.size();) {
        std::size_t end = list.find(' ', at);
        if (end == std::string_view::npos) { end = list.size(); }
        if (end > at && list.substr(at, end - at) == word) { return true; }
        at = end + 1;
    }
    return false;
}

/// A finite number and nothing else.
inline double to_number(const char* text, const std::string& what)
{
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    if (end == text || *end != '\0' || !std::isfinite(value)) {
        throw std::runtime_error(what + " is '" + text + "', which is no number");
    }
    return value;
}

class case_reader {
public:
    explicit case_reader(const plain_case& c) : case_(c) {}

    /// Null where the key is not there.
    const char* text(std::string_view key) const
    {
        for (std::size_t i = 0; i < case_.metadata_count; ++i) {
            if (key == case_.metadata[i].key) { return case_.metadata[i].value; }
        }
        return nullptr;
    }

    double number(const char* key, double otherwise) const
    {
        const char* value = text(key);
        return value == nullptr ? otherwise : to_number(value, std::string("metadata '") + key + "'");
    }

    index whole(const char* key, index otherwise) const
    {
        const double value = number(key, static_cast<double>(otherwise));
        if (value != std::floor(value) || std::fabs(value) > 0x1p53) {
            throw std::runtime_error(std::string("metadata '") + key + "' is not a whole number");
        }
        return static_cast<index>(value);
    }

    /// "true" or "false"; false where it is not said.
    bool truth(const char* key) const
    {
        const char* const value = text(key);
        const std::string_view said = value == nullptr ? "false" : value;
        if (said != "true" && said != "false") {
            throw std::runtime_error(std::string("metadata '") + key + "' is '" + value + "', neither true nor false");
        }
        return said == "true";
    }

    void require_known_metadata(std::string_view known) const
    {
        for (std::size_t i = 0; i < case_.metadata_count; ++i) {
            const std::string_view key = case_.metadata[i].key;
            if (!is_listed(key, "op tolerance") && !is_listed(key, known)) {
                throw std::runtime_error("metadata key '" + std::string(key) + "' is not known");
            }
        }
    }

    void require_known_tensors(std::string_view known) const
    {
        for (std::size_t i = 0; i < case_.tensor_count; ++i) {
            if (!is_listed(case_.tensors[i].name, known)) {
                throw std::runtime_error("tensor '" + std::string(case_.tensors[i].name) + "' is not known");
            }
        }
    }

    /// Null where there is none of that name.
    const plain_tensor* find(std::string_view name) const
    {
        for (std::size_t i = 0; i < case_.tensor_count; ++i) {
            if (name == case_.tensors[i].name) { return &case_.tensors[i]; }
        }
        return nullptr;
    }

    const plain_tensor& get(std::string_view name) const
    {
        const plain_tensor* t = find(name);
        if (t == nullptr) { throw std::runtime_error("tensor '" + std::string(name) + "' is missing"); }
        return *t;
    }

private:
    const plain_case& case_;
};

/// A tensor's numbers as a type of the library's, dense and aligned, and their shape.
template <class T>
struct array {
    std::unique_ptr<T[]> numbers; // not a vector: that of bool has no elements to point at
    std::vector<index> shape;

    /// A view of the tensor, which must have this rank.
    template <std::size_t Rank>
    view<const T, Rank> as(const char* name) const
    {
        if (shape.size() != Rank) {
            throw std::runtime_error(std::string(name) + " has rank " + std::to_string(shape.size()) + ", but " +
                                     std::to_string(Rank) + " is meant");
        }
        return padded<Rank>(name);
    }

    /// The same, or of a lower rank: axes that the tensor lacks come first and have extent 1.
    template <std::size_t Rank>
    view<const T, Rank> padded(const char* name) const
    {
        if (shape.size() > Rank) {
            throw std::runtime_error(std::string(name) + " has rank " + std::to_string(shape.size()) +
                                     ", but at most " + std::to_string(Rank) + " is meant");
        }
        index extents[Rank];
        for (std::size_t axis = 0, missing = Rank - shape.size(); axis < Rank; ++axis) {
            extents[axis] = axis < missing ? 1 : shape[axis - missing];
        }
        return view<const T, Rank>(numbers.get(), extents);
    }
};

namespace detail {

template <class From, class To>
array<To> convert(const plain_tensor& t)
{
    const std::size_t count = t.bytes / sizeof(From);
    array<To> a{std::unique_ptr<To[]>(new To[count]), std::vector<index>(t.shape, t.shape + t.rank)};
    for (std::size_t i = 0; i < count; ++i) {
        From x;
        std::memcpy(&x, t.data + i * sizeof(From), sizeof x);
        if constexpr (std::is_same_v<From, To>) {
            a.numbers[i] = x;
        } else if constexpr (std::is_same_v<To, bool>) {
            a.numbers[i] = x != 0;
        } else if constexpr (std::is_same_v<From, bf16> || std::is_same_v<From, f16>) {
            a.numbers[i] = static_cast<To>(static_cast<float>(x));
        } else {
            a.numbers[i] = static_cast<To>(x);
        }
    }
    return a;
}

} // namespace detail

/// To is the type of the file, or one that holds all its numbers (double to float is rounded).
template <class To>
array<To> read(const plain_tensor& t)
{
    const std::string_view dtype = t.dtype;
    if constexpr (std::is_same_v<To, bool>) {
        if (dtype == "BOOL" || dtype == "U8" || dtype == "I8") { return detail::convert<std::uint8_t, To>(t); }
    } else if constexpr (std::is_same_v<To, bf16>) {
        if (dtype == "BF16") { return detail::convert<bf16, To>(t); }
    } else if constexpr (std::is_same_v<To, f16>) {
        if (dtype == "F16") { return detail::convert<f16, To>(t); }
    } else if constexpr (std::is_same_v<To, float>) {
        if (dtype == "F32") { return detail::convert<float, To>(t); }
        if (dtype == "F16") { return detail::convert<f16, To>(t); }
        if (dtype == "BF16") { return detail::convert<bf16, To>(t); }
        if (dtype == "F64") { return detail::convert<double, To>(t); }
    } else {
        static_assert(std::is_same_v<To, index>);
        if (dtype == "I64") { return detail::convert<std::int64_t, To>(t); }
        if (dtype == "I32") { return detail::convert<std::int32_t, To>(t); }
    }
    throw unsupported("tensor '" + std::string(t.name) + "' has dtype " + t.dtype);
}

/// Judges one result: the largest of |got - want| / max|want|. Infinities and NaN must stand exactly where they are
/// wanted, and where all that is wanted is 0 so must be what is got.
class judge {
public:
    judge(double tolerance, verdict& v) : v_(v)
    {
        v_.tolerance = tolerance;
        v_.result = outcome::ok;
        v_.worst = 0.0;
    }

    void compare(const char* name, const view<const float, 1>& got, const std::vector<index>& shape,
                 const plain_tensor& expected)
    {
        const array<float> want = numbers_of(name, shape, expected);
        const auto wanted = [&](index i) { return static_cast<double>(want.numbers[static_cast<std::size_t>(i)]); };
        double largest = 0.0;
        for (index i = 0; i < got.size(); ++i) {
            if (std::isfinite(wanted(i))) { largest = std::fmax(largest, std::fabs(wanted(i))); }
        }
        double worst = 0.0;
        index place = 0;
        for (index i = 0; i < got.size(); ++i) {
            const double error = error_of(static_cast<double>(got(i)), wanted(i), largest);
            if (error > worst) { worst = error, place = i; }
        }
        if (worst > v_.worst) { v_.worst = worst; }
        if (worst > v_.tolerance && v_.result == outcome::ok) {
            v_.result = outcome::fail;
            std::snprintf(v_.reason, sizeof v_.reason, "%s: element %lld is %.9g, but %.9g is expected", name,
                          static_cast<long long>(place), static_cast<double>(got(place)), wanted(place));
        }
    }

    /// The same floats, bit for bit: -0 is not 0. (Any NaN is a NaN.)
    void compare_bits(const char* name, const view<const float, 1>& got, const std::vector<index>& shape, const plain_tensor& expected)
    {
        const array<float> want = numbers_of(name, shape, expected);
        for (index i = 0; i < got.size(); ++i) {
            const float wanted = want.numbers[static_cast<std::size_t>(i)];
            if (std::memcmp(&got(i), &wanted, sizeof wanted) == 0 || (std::isnan(got(i)) && std::isnan(wanted))) { continue; }
            v_.worst = std::numeric_limits<double>::infinity();
            if (v_.result == outcome::ok) {
                v_.result = outcome::fail;
                std::snprintf(v_.reason, sizeof v_.reason, "%s: element %lld is %a, but exactly %a is expected", name, static_cast<long long>(i),
                              static_cast<double>(got(i)), static_cast<double>(wanted));
            }
        }
    }

private:
    static array<float> numbers_of(const char* name, const std::vector<index>& shape, const plain_tensor& expected)
    {
        array<float> want = read<float>(expected);
        if (want.shape != shape) { throw std::runtime_error(std::string(name) + " has another shape than is expected"); }
        return want;
    }

    static double error_of(double got, double want, double largest)
    {
        constexpr double infinity = std::numeric_limits<double>::infinity();
        if (got == want || (std::isnan(got) && std::isnan(want))) { return 0.0; }
        if (!std::isfinite(got) || !std::isfinite(want) || largest == 0.0) { return infinity; }
        return std::fabs(got - want) / largest;
    }

    verdict& v_;
};

} // namespace conformance
SEQMIX_NAMESPACE_END
