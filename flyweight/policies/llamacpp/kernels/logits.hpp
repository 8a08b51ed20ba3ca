// From rows of logits to drawn tokens: two passes over a row for its summary, one more for a draw.
#pragma once

#include "vector.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace flyweight {

constexpr int64_t STRETCH = 4096;  // logits summed in float before the sum goes on in double

struct Summary {
    float peak;        // largest logit; NaN if any is
    float mean;
    double log_total;  // log of the sum of exponentials
};

// 16 logits, or the last `left` of a row followed by `fill`.
inline __m512 load(const float * at, int64_t left, float fill) {
    if (left >= 16) return _mm512_loadu_ps(at);
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16) ((1u << left) - 1), at);
}

// exp((x - peak) / temperature) of 16 logits, nothing beyond the end of the row.
inline __m512 weights(const float * row, int64_t i, int64_t n, float peak, float inverse) {
    const __m512 x = exp(_mm512_mul_ps(_mm512_sub_ps(load(row + i, n - i, peak), _mm512_set1_ps(peak)), _mm512_set1_ps(inverse)));
    return n - i >= 16 ? x : _mm512_maskz_mov_ps((__mmask16) ((1u << (n - i)) - 1), x);
}

inline float stretch(const float * row, int64_t begin, int64_t n, float peak, float inverse) {
    __m512 part = _mm512_setzero_ps();
    for (int64_t i = begin; i < std::min(n, begin + STRETCH); i += 16) part = _mm512_add_ps(part, weights(row, i, n, peak, inverse));
    return _mm512_reduce_add_ps(part);
}

inline Summary summary(const float * row, int64_t n) {
    __m512 peak = _mm512_set1_ps(-INFINITY);
    double sum = 0, total = 0;
    for (int64_t begin = 0; begin < n; begin += STRETCH) {
        __m512 part = _mm512_setzero_ps();
        for (int64_t i = begin; i < std::min(n, begin + STRETCH); i += 16) {
            peak = _mm512_max_ps(peak, load(row + i, n - i, -INFINITY));
            part = _mm512_add_ps(part, load(row + i, n - i, 0));
        }
        sum += _mm512_reduce_add_ps(part);
    }
    const float highest = _mm512_reduce_max_ps(peak);
    for (int64_t begin = 0; begin < n; begin += STRETCH) total += stretch(row, begin, n, highest, 1);
    return {std::isnan(total) ? NAN : highest, (float) (sum / n), highest + std::log(total)};
}

// The token at which the cumulative tempered distribution, ids ascending, passes `u`; the most likely one (the lowest
// id on ties) at temperature 0.
inline int64_t draw(const float * row, int64_t n, float peak, float temperature, double u, std::vector<double> & totals) {
    if (temperature == 0) return std::max_element(row, row + n) - row;
    const float inverse = 1 / temperature;
    totals.clear();
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += STRETCH) totals.push_back(total += stretch(row, begin, n, peak, inverse));
    const double wanted = u * total;
    const int64_t part = std::min<int64_t>(std::upper_bound(totals.begin(), totals.end(), wanted) - totals.begin(), totals.size() - 1);
    double passed = part ? totals[part - 1] : 0;
    int64_t last = part * STRETCH;  // sums in another order may end a hair below `wanted`: then the last possible token
    for (int64_t i = part * STRETCH; i < std::min(n, (part + 1) * STRETCH); i += 16) {
        float lanes[16];
        _mm512_storeu_ps(lanes, weights(row, i, n, peak, inverse));
        for (int lane = 0; lane < std::min<int64_t>(16, n - i); lane++) {
            passed += lanes[lane];
            if (passed > wanted) return i + lane;
            if (lanes[lane] > 0) last = i + lane;
        }
    }
    return last;
}

}  // namespace flyweight
