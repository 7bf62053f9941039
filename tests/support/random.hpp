// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// Numbers that look random and are the same on every machine: integer arithmetic and exact conversions only, where
// <random> leaves its distributions to the library.

class random_source {
public:
    explicit random_source(std::uint64_t seed) : state_(seed) {}

    /// 64 bits (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
    std::uint64_t bits()
    {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    float unit() { return static_cast<float>(bits() >> 40) * 0x1p-24f; }
    float uniform(float low, float high) { return low + (high - low) * unit(); }

    /// Near enough to the normal distribution, of mean 0 and variance 1: the sum of twelve uniforms; within ±6.
    float normal()
    {
        double sum = -6.0;
        for (int i = 0; i < 12; ++i) { sum += static_cast<double>(unit()); }
        return static_cast<float>(sum);
    }

    /// In [low, high], both included.
    std::int64_t integer(std::int64_t low, std::int64_t high)
    {
        return low + static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
    }

    std::vector<float> uniforms(std::size_t n, float low, float high)
    {
        std::vector<float> x(n);
        for (float& v : x) { v = uniform(low, high); }
        return x;
    }
    std::vector<float> normals(std::size_t n, float scale = 1.0f)
    {
        std::vector<float> x(n);
        for (float& v : x) { v = scale * normal(); }
        return x;
    }

private:
    std::uint64_t state_;
};
