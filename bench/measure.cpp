// SPDX-License-Identifier: MIT
#include "measure.hpp"

#include "processor_time.hpp"

#include <seqmix/core/types.hpp>

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <thread>

namespace bench {

void spread(int count, void (*job)(void* state, int worker), void* state)
{
    std::vector<std::thread> others;
    for (int worker = 1; worker < count; ++worker) { others.emplace_back(job, state, worker); }
    job(state, 0);
    for (std::thread& other : others) { other.join(); }
}

namespace {

enum class clock { wall, thread };

double now(clock which = clock::wall)
{
    if (which == clock::thread) {
        timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::size_t size_of(element type)
{
    switch (type) {
    case element::f32:
    case element::s32:
        return 4;
    case element::bf16:
    case element::f16:
        return 2;
    case element::s8:
        return 1;
    }
    return 0;
}

/// Memory touched, so that no page is missing later; in huge pages where it is large and the system grants them, as it does
/// unasked on many: looking up small pages costs several times more in a virtual machine than outside of it, and is no
/// kernel's doing.
class buffer {
public:
    explicit buffer(std::size_t bytes) : data_(::operator new(bytes, alignment))
    {
#if defined(MADV_HUGEPAGE)
        if (bytes >= huge_page) { madvise(data_.get(), bytes, MADV_HUGEPAGE); }
#endif
        std::memset(data_.get(), 0, bytes);
    }
    void* get() const { return data_.get(); }

private:
    static constexpr std::size_t huge_page = std::size_t{2} << 20;
    static constexpr std::align_val_t alignment{huge_page};
    struct release {
        void operator()(void* p) const { ::operator delete(p, alignment); }
    };
    std::unique_ptr<void, release> data_;
};

class random {
public:
    double uniform() // [0, 1)
    {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<double>(state_ >> 40) * 0x1p-24;
    }
    /// Four uniforms, of variance 1: near enough to the normal distribution, and quick.
    double normal() { return (uniform() + uniform() + uniform() + uniform() - 2.0) * 1.7320508; }

private:
    std::uint64_t state_ = 1;
};

void fill(const operand& what, void* data, random& numbers)
{
    const auto value = [&](std::int64_t i) {
        switch (what.fill) {
        case filling::normal:
            return numbers.normal();
        case filling::positive:
            return 1e-3 + 9.9 * numbers.uniform();
        case filling::negative:
            return -1e-3 - 9.9 * numbers.uniform();
        case filling::slopes:
            return std::exp2(-8.0 * static_cast<double>(i + 1) / static_cast<double>(what.count));
        case filling::bytes:
            return std::floor(256 * numbers.uniform()) - 128;
        case filling::none:
            break;
        }
        return 0.0;
    };
    const auto write = [&](auto* to) {
        using T = std::remove_pointer_t<decltype(to)>;
        for (std::int64_t i = 0; i < what.count; ++i) {
            if constexpr (std::is_integral_v<T>) {
                to[i] = static_cast<T>(value(i));
            } else {
                to[i] = T(static_cast<float>(value(i)));
            }
        }
    };
    switch (what.type) {
    case element::f32:
        return write(static_cast<float*>(data));
    case element::bf16:
        return write(static_cast<seqmix::bf16*>(data));
    case element::f16:
        return write(static_cast<seqmix::f16*>(data));
    case element::s8:
        return write(static_cast<std::int8_t*>(data));
    case element::s32:
        return write(static_cast<std::int32_t*>(data));
    }
}

double value_of(element type, const void* data, std::int64_t i)
{
    switch (type) {
    case element::f32:
        return static_cast<const float*>(data)[i];
    case element::bf16:
        return static_cast<float>(static_cast<const seqmix::bf16*>(data)[i]);
    case element::f16:
        return static_cast<float>(static_cast<const seqmix::f16*>(data)[i]);
    case element::s8:
        return static_cast<const std::int8_t*>(data)[i];
    case element::s32:
        return static_cast<const std::int32_t*>(data)[i];
    }
    return 0;
}

/// The operands of a row, and a second output for those who are compared with it.
class operands {
public:
    explicit operands(const row& r)
    {
        random numbers;
        for (const operand& what : r.operands) {
            if (what.count == 0) { break; }
            buffers_.emplace_back(static_cast<std::size_t>(what.count) * size_of(what.type));
            fill(what, buffers_.back().get(), numbers);
            own_.push_back(buffers_.back().get());
            out_ = what;
        }
        buffers_.emplace_back(static_cast<std::size_t>(out_.count) * size_of(out_.type));
        others_ = own_;
        others_.back() = buffers_.back().get();
    }

    void* const* own() const { return own_.data(); }
    void* const* others() const { return others_.data(); }

    /// Whether both outputs are the same but for rounding. Tests prove kernels right; this only makes sure that a peer
    /// does the same work.
    bool agree() const
    {
        double difference = 0, size = 0;
        for (std::int64_t i = 0; i < out_.count; ++i) {
            const double own = value_of(out_.type, own_.back(), i), other = value_of(out_.type, others_.back(), i);
            difference += (own - other) * (own - other);
            size += own * own;
        }
        return difference <= 0.02 * 0.02 * size;
    }

private:
    std::vector<buffer> buffers_;
    std::vector<void*> own_, others_;
    operand out_{};
};

/// A call, how often it is run for one reading of the clock, and its best time.
class timed {
public:
    timed(const call& what, clock which) : what_(what), clock_(which) {}
    timed(timed&& other) noexcept
        : what_(other.what_), clock_(other.clock_), repeats_(other.repeats_), best_(other.best_), core_(other.core_),
          spent_(other.spent_)
    {
        other.what_ = {};
    }
    ~timed()
    {
        if (what_.destroy != nullptr) { what_.destroy(what_.state); }
    }

    explicit operator bool() const { return what_.run != nullptr; }

    /// The first run, which is not counted; and how many fill ten milliseconds, so that what the neighbours in turn left of
    /// the caches does not count.
    void warm_up()
    {
        for (double seconds = once(); seconds < 1e-2 && repeats_ < 1 << 20; seconds = once()) {
            repeats_ = seconds * 16 < 1e-2 ? repeats_ * 16 : static_cast<int>(1.1e-2 * repeats_ / seconds) + 1;
        }
        best_ = 1e30;
        spent_ = 0;
    }

    double once()
    {
        const double wall = now(), thread = now(clock::thread);
        for (int i = 0; i < repeats_; ++i) { what_.run(what_.state); }
        const double thread_seconds = now(clock::thread) - thread, wall_seconds = now() - wall;
        const double seconds = clock_ == clock::wall ? wall_seconds : thread_seconds;
        spent_ += wall_seconds;
        if (seconds / repeats_ < best_) {
            best_ = seconds / repeats_;
            core_ = clock_ == clock::wall ? thread_seconds / wall_seconds : 1;
        }
        return seconds;
    }

    double best() const { return best_; }
    double core() const { return core_; }
    double spent() const { return spent_; }

private:
    call what_;
    clock clock_;
    int repeats_ = 1;
    double best_ = 1e30, core_ = 1, spent_ = 0;
};

constexpr std::size_t stream_bytes = std::size_t{256} << 20; // far beyond any L3 that one core has to itself

const buffer& stream_source()
{
    static const buffer memory(stream_bytes);
    return memory;
}

/// One stretch of a peak's loop.
class peak_probe {
public:
    peak_probe(const instruction_set& set, limit kind, clock which) : set_(set), kind_(kind), clock_(which) {}

    void run(double seconds)
    {
        if (kind_ == limit::none) { return; }
        if (kind_ == limit::read || kind_ == limit::copy) {
            stream();
        } else {
            spin(set_.peaks[static_cast<int>(kind_)], seconds);
        }
    }

    double best() const { return best_; }

private:
    void stream()
    {
        char* const memory = static_cast<char*>(stream_source().get());
        const double begin = now(clock_);
        if (kind_ == limit::read) {
            set_.read(memory, stream_bytes);
        } else {
            std::memcpy(memory, memory + stream_bytes / 2, stream_bytes / 2);
        }
        best_ = std::max(best_, stream_bytes / (now(clock_) - begin)); // a copy reads one half and writes the other
    }

    void spin(const peak_loop& loop, double seconds)
    {
        for (;;) {
            const double begin = now(clock_);
            loop.run(rounds_);
            const double took = now(clock_) - begin;
            best_ = std::max(best_, static_cast<double>(rounds_) * loop.work / took);
            if (took > 0.5 * seconds) { return; }
            rounds_ = took * 8 < seconds ? rounds_ * 8
                                         : static_cast<std::int64_t>(static_cast<double>(rounds_) * seconds / took);
        }
    }

    const instruction_set& set_;
    limit kind_;
    clock clock_;
    std::int64_t rounds_ = 10000;
    double best_ = 0;
};

} // namespace

std::string place::name() const
{
    return std::string(of->name) + '/' + (best() ? "" : std::string(set->name) + '_') + what->name;
}

limit place::of_limit() const { return what->of == limit::bf16 && !set->has_bf16_dot ? limit::f32 : what->of; }

double measured::figure_of(const row& r) const
{
    switch (r.says) {
    case figure::peak_fraction:
        return peak > 0 ? r.work / seconds / peak : 0;
    case figure::time_over_share:
        return seconds / (reference_seconds * r.work / r.reference_work);
    case figure::speed_up:
        return reference_seconds / seconds;
    }
    return 0;
}

std::string measured::disturbance() const
{
    if (core > 0.97) { return {}; }
    char text[100];
    std::snprintf(text, sizeof text, "disturbed: its best run had %.2f of a core", core);
    return text;
}

measured measure(const place& at, const effort& how)
{
    const row& r = *at.what;
    const operands data(r);
    const clock which = how.processor_time && r.says != figure::speed_up ? clock::thread : clock::wall;
    measured m;
    timed kernel(r.make(r.problem, data.own()), which);
    maker* const reference_maker = r.reference != nullptr ? r.reference : r.make;
    timed reference(r.reference_problem != nullptr ? reference_maker(r.reference_problem, data.others()) : call{}, which);
    peak_probe peak(at.limit_set(), at.of_limit(), which);
    kernel.warm_up();
    if (reference) { reference.warm_up(); }

    std::vector<peer> named;
    std::vector<timed> peers;
    for (const peer& p : r.peers) {
        if (!how.peers || p.name == nullptr || (p.any_set && !at.best())) { continue; }
        timed other(p.make(r.problem, data.others()), which);
        if (!other) { continue; }
        const double wall = now(), cpu = processor_seconds(RUSAGE_SELF);
        other.warm_up();
        if (processor_seconds(RUSAGE_SELF) - cpu > 1.5 * (now() - wall) + 0.02) {
            m.remarks.push_back(std::string(p.name) + " is left out: it uses several threads");
        } else if (!data.agree()) {
            m.remarks.push_back(std::string(p.name) + " is left out: it computes something else");
        } else {
            named.push_back(p);
            peers.push_back(std::move(other));
        }
    }

    constexpr int usual_rounds = 10, least_rounds = 3;
    constexpr double most_seconds = 6;
    const double begin = now();
    for (double spent = 0;
         m.rounds < least_rounds || (spent < most_seconds && (m.rounds < usual_rounds || spent < how.seconds));
         spent = now() - begin) {
        kernel.once();
        // A loop much shorter than the kernel would have more luck on a busy machine.
        peak.run(std::clamp(kernel.best(), 2e-3, 2e-2));
        if (reference) { reference.once(); }
        for (timed& p : peers) {
            if (m.rounds < 2 || p.spent() < how.seconds) { p.once(); }
        }
        ++m.rounds;
    }
    m.seconds = kernel.best();
    m.core = kernel.core();
    m.peak = peak.best();
    m.reference_seconds = reference.best();
    for (std::size_t i = 0; i < peers.size(); ++i) { m.peers.push_back({named[i].name, peers[i].best()}); }
    return m;
}

peak_table measure_peaks(const instruction_set& set, bool processor_time)
{
    peak_table table;
    for (int kind = 0; kind < limit_count; ++kind) {
        peak_probe probe(set, static_cast<limit>(kind), processor_time ? clock::thread : clock::wall);
        for (int round = 0; round < 8; ++round) { probe.run(1e-2); }
        table.best[static_cast<std::size_t>(kind)] = probe.best();
    }
    return table;
}

} // namespace bench
