// Where a step's time goes: seconds the first thread has spent in each of our operations.
#pragma once

#include "ggml_private.hpp"

#include <atomic>
#include <chrono>

namespace flyweight {

inline std::atomic<int64_t> product_time{0}, attention_time{0};  // nanoseconds

class Stopwatch {
    using Clock = std::chrono::steady_clock;
    std::atomic<int64_t> * total;
    Clock::time_point began;

  public:
    Stopwatch(const ggml_compute_params * params, std::atomic<int64_t> & total) : total(params->ith == 0 ? &total : nullptr) {
        if (this->total) began = Clock::now();
    }
    ~Stopwatch() {
        if (total) *total += std::chrono::nanoseconds(Clock::now() - began).count();
    }
};

}  // namespace flyweight
