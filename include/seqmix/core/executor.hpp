// SPDX-License-Identifier: MIT
#pragma once

#include <seqmix/core/workspace.hpp>

#include <atomic>
#include <utility>

// How work is spread over threads; the only place that knows of them.
//
// An executor offers two things: concurrency(), how many workers it would use, and run(workers, job), which calls job(0),
// job(1), … job(workers - 1), each once, in any order and on any threads, and returns when all are done. Workers fetch
// tasks from a shared counter. What a task computes depends on the task alone, so results are bit-identical for every
// number of workers.

SEQMIX_NAMESPACE_BEGIN

/// A borrowed callable of an int: what an executor is handed. Lives as long as the call.
class job {
public:
    template <class Body>
    explicit job(Body& body) : body_(&body), call_([](void* b, int worker) { (*static_cast<Body*>(b))(worker); })
    {
    }
    void operator()(int worker) const { call_(body_, worker); }

private:
    void* body_;
    void (*call_)(void*, int);
};

/// Everything on the calling thread.
struct serial {
    int concurrency() const { return 1; }
    void run(int workers, const job& body) const
    {
        for (int worker = 0; worker < workers; ++worker) { body(worker); }
    }
};

#if defined(_OPENMP)
/// OpenMP threads, as many as given.
struct openmp {
    int threads = 1;
    int concurrency() const { return threads; }
    void run(int workers, const job& body) const
    {
#pragma omp parallel for num_threads(workers) schedule(static, 1)
        for (int worker = 0; worker < workers; ++worker) { body(worker); }
    }
};
#else
struct openmp; // complete where the unit is compiled with OpenMP (-fopenmp)
#endif

/// Any callable parallel_for(count, body) that calls body(i) once for every i in [0, count): a thread pool's, TBB's, a
/// lambda over std::thread. Use: `seqmix::context ctx{seqmix::parallel_for{4, my_callable}};`
template <class Callable>
struct parallel_for {
    int workers = 1;
    Callable callable;
    int concurrency() const { return workers; }
    void run(int count, const job& body) { callable(count, body); }
};
template <class Callable>
parallel_for(int, Callable) -> parallel_for<Callable>;

/// Who runs a call, and on what scratch; keep one and reuse it. One context serves one call at a time.
template <class Executor = serial>
class context {
public:
    context() = default;
    explicit context(Executor executor) : executor_(std::move(executor)) {}
    context(Executor executor, workspace scratch) : executor_(std::move(executor)), scratch_(std::move(scratch)) {}

    Executor& executor() { return executor_; }
    workspace& scratch() { return scratch_; }

private:
    Executor executor_{};
    workspace scratch_;
};
template <class Executor>
context(Executor) -> context<Executor>;

/// What a door takes: any context, with the executor's type forgotten so that kernels are compiled once. Default: the
/// calling thread and scratch that lives as long as the call.
class context_ref {
public:
    context_ref() = default;

    template <class Executor>
    context_ref(context<Executor>& ctx)
        : executor_(&ctx.executor()),
          run_([](void* e, int workers, const job& body) { static_cast<Executor*>(e)->run(workers, body); }),
          concurrency_(ctx.executor().concurrency()), scratch_(&ctx.scratch())
    {
    }

    int concurrency() const { return concurrency_; }

    /// Runs body(task, scratch of the worker) for every task in [0, tasks); each worker has `scratch_bytes` of its own.
    template <class Body>
    void for_each(index tasks, std::size_t scratch_bytes, Body&& body) const
    {
        in_phases(tasks, scratch_bytes, 0, [&](std::byte*, const auto& phase) { phase(tasks, body); });
    }

    /// For work in several phases, each of which needs all of the one before: calls work(shared, phase) once, on the calling
    /// thread; phase(tasks, body) is for_each with at most `most_tasks` tasks. `shared` is `shared_bytes` of scratch that
    /// keep what they hold from phase to phase; a worker's own scratch does not.
    template <class Work>
    void in_phases(index most_tasks, std::size_t scratch_bytes, std::size_t shared_bytes, Work&& work) const
    {
        if (most_tasks <= 0) { return; }
        const auto whole_lines = [](std::size_t bytes) {
            return (bytes + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
        };
        const std::size_t each = whole_lines(scratch_bytes), shared = whole_lines(shared_bytes);
        const int most_workers = workers_for(most_tasks);
        workspace own;
        workspace& scratch = scratch_ == nullptr ? own : *scratch_;
        std::byte* const memory = scratch.reserve(shared + each * static_cast<std::size_t>(most_workers));
        work(memory, [&](index tasks, auto&& body) {
            const int workers = workers_for(tasks);
            if (run_ == nullptr || workers == 1) {
                for (index task = 0; task < tasks; ++task) { body(task, memory + shared); }
                return;
            }
            std::atomic<index> next{0};
            auto share = [&](int worker) {
                for (index task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) {
                    body(task, memory + shared + each * static_cast<std::size_t>(worker));
                }
            };
            run_(executor_, workers, job(share));
        });
    }

private:
    int workers_for(index tasks) const
    {
        return tasks < concurrency_ ? static_cast<int>(tasks) : (concurrency_ < 1 ? 1 : concurrency_);
    }

    void* executor_ = nullptr;
    void (*run_)(void*, int, const job&) = nullptr;
    int concurrency_ = 1;
    workspace* scratch_ = nullptr;
};

SEQMIX_NAMESPACE_END
