// Attention of single positions over their own KV (f16), the query heads of a KV head together.
//
// Keys and values are widened to float once for all these heads; sums are kept in float and in order of position, so that
// a position's result depends on nothing but what it attends to. Softmax is computed on the way (M. Milakov and N.
// Gimelshein 2018, arXiv 1805.02867). Each stage goes over all heads before the next one begins: a head alone would wait
// for its own additions most of the time.
#pragma once

#include "clock.hpp"
#include "ggml_private.hpp"
#include "vector.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace flyweight {

constexpr int KEYS = 16;   // positions looked at together
constexpr int AHEAD = 32;  // positions fetched before their turn

// H heads of width D: their sums stay in registers, so H * D / 16 must be below 32.
template <int D, int H> struct Heads {
    static constexpr int LANES = D / 16;
    alignas(64) float query[H][D], out[H][D];
    alignas(64) float peak[16], total[16];

    void start() {
        std::fill_n(&out[0][0], H * D, 0.f);
        std::fill_n(peak, 16, -INFINITY);
        std::fill_n(total, 16, 0.f);
    }

    // The next `count` positions; `mask` is added to their scores, -inf where one must not be seen.
    void add(const char * keys, size_t key_stride, const char * values, size_t value_stride, __m512 mask, float scale, int count) {
        alignas(64) float scores[H][KEYS], highest[16] = {};
        {
            __m512 products[H][KEYS];
            for (int i = 0; i < KEYS; i += 2) {  // two positions share the loads of the queries
                const int next = std::min(i + 1, count - 1);
                for (int h = 0; h < H; h++) products[h][i] = products[h][i + 1] = _mm512_setzero_ps();
                if (i >= count) continue;
#pragma GCC unroll 16
                for (int l = 0; l < LANES; l++) {
                    const __m512 a = widened(keys + i * key_stride, l), b = widened(keys + next * key_stride, l);
#pragma GCC unroll 8
                    for (int h = 0; h < H; h++) {
                        const __m512 q = _mm512_load_ps(query[h] + 16 * l);
                        products[h][i] = _mm512_fmadd_ps(q, a, products[h][i]);
                        products[h][i + 1] = _mm512_fmadd_ps(q, b, products[h][i + 1]);
                    }
                }
            }
#pragma GCC unroll 8
            for (int h = 0; h < H; h++) {
                const __m512 s = _mm512_fmadd_ps(sums(products[h]), _mm512_set1_ps(scale), mask);
                _mm512_store_ps(scores[h], s);
                highest[h] = _mm512_reduce_max_ps(s);
            }
        }
        const __m512 before = _mm512_load_ps(peak), now = _mm512_max_ps(before, _mm512_load_ps(highest));
        const __m512 shrink = exp(_mm512_sub_ps(before, now));
        alignas(64) float shrinks[16];
        _mm512_store_ps(shrinks, shrink);
        _mm512_store_ps(peak, now);
        for (int h = 0; h < H; h++) {
            const __m512 s = _mm512_load_ps(scores[h]);
            // exp() never reaches 0: what the mask hides must weigh exactly nothing.
            const __mmask16 seen = _mm512_cmp_ps_mask(s, _mm512_set1_ps(-INFINITY), _CMP_NEQ_OQ);
            const __m512 weights = _mm512_maskz_mov_ps(seen, exp(_mm512_sub_ps(s, _mm512_set1_ps(peak[h]))));
            _mm512_store_ps(scores[h], weights);
            total[h] = total[h] * shrinks[h] + _mm512_reduce_add_ps(weights);
        }
        __m512 sum[H][LANES];
#pragma GCC unroll 8
        for (int h = 0; h < H; h++)
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) sum[h][l] = _mm512_mul_ps(_mm512_load_ps(out[h] + 16 * l), _mm512_set1_ps(shrinks[h]));
        for (int i = 0; i < count; i++) {
            for (int line = 0; line < 2 * D; line += 64) {  // the next block: strides are too long for the hardware's guess
                _mm_prefetch(keys + (AHEAD + i) * key_stride + line, _MM_HINT_T0);
                _mm_prefetch(values + (AHEAD + i) * value_stride + line, _MM_HINT_T0);
            }
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) {
                const __m512 v = widened(values + i * value_stride, l);
#pragma GCC unroll 8
                for (int h = 0; h < H; h++) sum[h][l] = _mm512_fmadd_ps(_mm512_set1_ps(scores[h][i]), v, sum[h][l]);
            }
        }
#pragma GCC unroll 8
        for (int h = 0; h < H; h++)
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) _mm512_store_ps(out[h] + 16 * l, sum[h][l]);
    }

    static __m512 widened(const char * from, int lane) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from + lane));
    }
};

struct AttentionOp final : ggml::cpu::tensor_traits {
    static float param(const ggml_tensor * op, int i) {
        float value;
        memcpy(&value, (const char *) op->op_params + 4 * i, 4);
        return value;
    }

    // Plain causal attention over f16: no biases by distance, soft caps or sinks.
    static bool fits(const ggml_tensor * op) {
        const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3];
        const int64_t d = q->ne[0];
        return (d == 16 || d == 32 || d == 64 || d == 96 || d == 128 || d == 256) && k->ne[0] == d && v->ne[0] == d && q->type == GGML_TYPE_F32 &&
            k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && q->nb[0] == 4 && k->nb[0] == 2 && v->nb[0] == 2 &&
            mask && mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 && k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0 &&
            k->ne[3] == q->ne[3] && v->ne[3] == q->ne[3] && k->ne[1] % KEYS == 0 &&
            q->ne[3] % mask->ne[3] == 0 && param(op, 1) == 0 && param(op, 2) == 0 && !op->src[4];
    }

    bool work_size(int, const ggml_tensor *, size_t & size) override {
        size = 0;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const Stopwatch watch(params, attention_time);
        switch (op->src[0]->ne[0]) {
            case 16: compute<16>(params, op); break;
            case 32: compute<32>(params, op); break;
            case 64: compute<64>(params, op); break;
            case 96: compute<96>(params, op); break;
            case 128: compute<128>(params, op); break;
            case 256: compute<256>(params, op); break;
        }
        return true;
    }

    // All positions of all sequences, dealt out to the threads in turn: late positions are the long ones.
    template <int D> static void compute(const ggml_compute_params * params, ggml_tensor * op) {
        const ggml_tensor * q = op->src[0], * k = op->src[1];
        const int64_t rows = q->ne[1], kv_heads = k->ne[2], group = q->ne[2] / kv_heads;
        for (int64_t unit = params->ith; unit < q->ne[3] * rows * kv_heads; unit += params->nth) {
            const int64_t row = unit / kv_heads % rows, sequence = unit / (kv_heads * rows);
            const int64_t kv_head = (unit + row + sequence) % kv_heads;  // no thread gets one and the same head throughout
            constexpr int64_t MOST = std::min(8, 28 / (D / 16));
            for (int64_t h = kv_head * group; h < (kv_head + 1) * group;) {
                const int64_t heads = std::min(MOST, (kv_head + 1) * group - h);
                attend<D, MOST>(op, heads, h, kv_head, row, sequence);
                h += heads;
            }
        }
    }

    template <int D, int H> static void attend(ggml_tensor * op, int heads, int64_t head, int64_t kv_head, int64_t row, int64_t sequence) {
        if constexpr (H > 1)
            if (heads < H) return attend<D, H - 1>(op, heads, head, kv_head, row, sequence);
        const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3];
        Heads<D, H> state;
        for (int h = 0; h < H; h++)
            memcpy(state.query[h], (const char *) q->data + row * q->nb[1] + (head + h) * q->nb[2] + sequence * q->nb[3], D * 4);
        state.start();
        const char * keys = (const char *) k->data + kv_head * k->nb[2] + sequence * k->nb[3];
        const char * values = (const char *) v->data + kv_head * v->nb[2] + sequence * v->nb[3];
        const char * hidden = (const char *) mask->data + row * mask->nb[1] + sequence % mask->ne[3] * mask->nb[3];
        for (int64_t at = 0; at < k->ne[1]; at += KEYS) {
            const __m512 bias = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (hidden + 2 * at)));
            const unsigned seen = _mm512_cmp_ps_mask(bias, _mm512_set1_ps(-INFINITY), _CMP_NEQ_OQ);
            if (seen)
                state.add(keys + at * k->nb[1], k->nb[1], values + at * v->nb[1], v->nb[1], bias, param(op, 0), 32 - __builtin_clz(seen));
        }
        for (int h = 0; h < H; h++) {
            float * to = (float *) ((char *) op->data + (head + h) * op->nb[1] + row * op->nb[2] + sequence * op->nb[3]);
            for (int i = 0; i < D; i++) to[i] = state.total[h] > 0 ? state.out[h][i] / state.total[h] : 0;
        }
    }
};

}  // namespace flyweight
