// SPDX-License-Identifier: MIT
#include "safetensors.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <set>
#include <stdexcept>

// The format: eight bytes of header length, little-endian; the header, a JSON object of name -> {dtype, shape,
// data_offsets}; then the data, which the tensors cover from first to last byte without overlap or hole.

namespace formats {
namespace {

using json = nlohmann::json;

[[noreturn]] void refuse(const std::string& why) { throw std::runtime_error(why); }

std::size_t element_bytes(const std::string& dtype)
{
    static constexpr std::pair<const char*, std::size_t> known[] = {
        {"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"I16", 2}, {"U16", 2},
        {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4},     {"F32", 4},     {"I64", 8},     {"U64", 8}, {"F64", 8}};
    for (const auto& [name, bytes] : known) {
        if (dtype == name) { return bytes; }
    }
    refuse("dtype '" + dtype + "' is not known");
}

std::uint64_t whole_number(const json& value, const std::string& what)
{
    if (!value.is_number_unsigned()) { refuse(what + " is not a whole number"); }
    return value.get<std::uint64_t>();
}

/// Elements of a shape. Empty tensors too may have no extents whose product is out of bounds: views multiply them.
std::uint64_t elements(const std::vector<std::int64_t>& shape, const std::string& name)
{
    constexpr std::uint64_t most = std::uint64_t{1} << 40;
    std::uint64_t count = 1, bound = 1;
    for (std::int64_t signed_extent : shape) {
        const auto extent = static_cast<std::uint64_t>(signed_extent);
        count *= extent;
        if (extent > 0 && bound > most / extent) { refuse(name + "'s shape has too many elements"); }
        bound *= extent > 0 ? extent : 1;
    }
    return count;
}

tensor describe(const std::string& name, const json& entry, std::uint64_t data_bytes)
{
    if (!entry.is_object()) { refuse("'" + name + "' is not described by an object"); }
    for (const auto& [key, value] : entry.items()) {
        if (key != "dtype" && key != "shape" && key != "data_offsets") {
            refuse("'" + name + "' has an unknown field");
        }
    }
    if (entry.size() != 3) { refuse("'" + name + "' lacks one of dtype, shape and data_offsets"); }
    if (!entry["dtype"].is_string() || !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
        entry["data_offsets"].size() != 2) {
        refuse("'" + name + "' has a dtype, shape or data_offsets of the wrong form");
    }
    tensor t;
    t.name = name;
    t.dtype = entry["dtype"].get<std::string>();
    for (const json& extent : entry["shape"]) {
        const std::uint64_t value = whole_number(extent, "an extent of '" + name + "'");
        if (value > std::uint64_t{1} << 40) { refuse("an extent of '" + name + "' is too large"); }
        t.shape.push_back(static_cast<std::int64_t>(value));
    }
    const std::uint64_t begin = whole_number(entry["data_offsets"][0], "a data offset of '" + name + "'");
    const std::uint64_t end = whole_number(entry["data_offsets"][1], "a data offset of '" + name + "'");
    if (begin > end || end > data_bytes) {
        refuse("'" + name + "' has data from " + std::to_string(begin) + " to " + std::to_string(end) +
               ", but the file has " + std::to_string(data_bytes) + " bytes of data");
    }
    const std::uint64_t want = elements(t.shape, "'" + name + "'") * element_bytes(t.dtype);
    if (end - begin != want) {
        refuse("'" + name + "' has " + std::to_string(end - begin) +
               " bytes of data, but its shape and dtype ask for " + std::to_string(want));
    }
    t.begin = static_cast<std::size_t>(begin);
    t.end = static_cast<std::size_t>(end);
    return t;
}

/// JSON leaves open what a key that stands twice means; here it is refused.
json parse_header(const unsigned char* begin, const unsigned char* end)
{
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int, json::parse_event_t event, json& value) {
        if (event == json::parse_event_t::object_start) { keys.emplace_back(); }
        if (event == json::parse_event_t::object_end) { keys.pop_back(); }
        if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
            refuse("the header has the same key twice");
        }
        return true;
    };
    try {
        return json::parse(begin, end, watch);
    } catch (const json::exception& e) {
        refuse(std::string("the header is not JSON: ") + e.what());
    }
}

} // namespace

safetensors parse_safetensors(const std::vector<unsigned char>& file)
{
    constexpr std::size_t prefix = 8;
    if (file.size() < prefix) {
        refuse("the file has " + std::to_string(file.size()) + " bytes, too few for a header");
    }
    std::uint64_t header_bytes = 0;
    for (std::size_t i = 0; i < prefix; ++i) { header_bytes |= static_cast<std::uint64_t>(file[i]) << (8 * i); }
    if (header_bytes > file.size() - prefix) {
        refuse("the header has " + std::to_string(header_bytes) + " bytes, but the file only " +
               std::to_string(file.size()));
    }
    const unsigned char* const header_begin = file.data() + prefix;
    const unsigned char* const data = header_begin + header_bytes;
    const auto data_bytes = static_cast<std::uint64_t>(file.data() + file.size() - data);
    const json header = parse_header(header_begin, data);
    if (!header.is_object()) { refuse("the header is not an object"); }

    safetensors result;
    for (const auto& [name, entry] : header.items()) {
        if (name == "__metadata__") {
            if (!entry.is_object()) { refuse("__metadata__ is not an object"); }
            for (const auto& [key, value] : entry.items()) {
                if (!value.is_string()) { refuse("metadata '" + key + "' is not a string"); }
                result.metadata.emplace_back(key, value.get<std::string>());
            }
        } else {
            result.tensors.push_back(describe(name, entry, data_bytes));
        }
    }
    std::sort(result.tensors.begin(), result.tensors.end(),
              [](const tensor& a, const tensor& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
    std::size_t reached = 0;
    for (const tensor& t : result.tensors) {
        if (t.begin != reached) {
            refuse("'" + t.name + "' begins at " + std::to_string(t.begin) + ", but the tensor before it ends at " +
                   std::to_string(reached));
        }
        reached = t.end;
    }
    if (reached != data_bytes) {
        refuse("the tensors end at " + std::to_string(reached) + ", but the data at " + std::to_string(data_bytes));
    }
    result.buffer.assign(data, data + data_bytes);
    return result;
}

safetensors read_safetensors(const std::string& path)
{
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
    if (!file) { refuse("the file can't be opened"); }
    std::vector<unsigned char> bytes;
    std::array<unsigned char, 1 << 16> block;
    for (std::size_t n = 0; (n = std::fread(block.data(), 1, block.size(), file.get())) > 0;) {
        bytes.insert(bytes.end(), block.begin(), block.begin() + static_cast<std::ptrdiff_t>(n));
    }
    if (std::ferror(file.get()) != 0) { refuse("the file can't be read"); }
    return parse_safetensors(bytes);
}

} // namespace formats
