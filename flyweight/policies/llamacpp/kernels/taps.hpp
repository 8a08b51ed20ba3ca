// Copies of what chosen tensors hold, taken while llama.cpp computes a batch: its evaluation callback.
#pragma once

#include "ggml_private.hpp"

#include <cstdint>
#include <cstring>

namespace flyweight {

// Filled by Python (taps.py): row `i` of tensor `t` goes to `out[(i * count + t) * width]`.
struct Taps {
    int32_t open;               // whether anything is wanted now
    int32_t count;
    int64_t width, room;        // numbers of a row; rows `out` has room for
    const char * const * names;
    int64_t * rows;             // copied so far, of each tensor
    float * out;

    int find(const ggml_tensor * t) const {
        if (open)
            for (int i = 0; i < count; i++)
                if (!strcmp(t->name, names[i])) return i;
        return -1;
    }

    void take(const ggml_tensor * t, int at) {
        for (int64_t r = 0; r < t->ne[1] && rows[at] < room; r++, rows[at]++)
            memcpy(out + (rows[at] * count + at) * width, (const char *) t->data + r * t->nb[1], width * sizeof(float));
    }
};

}  // namespace flyweight
