// Attention of single positions over their own KV (f16), all query heads of a KV head together.
//
// Keys and values are widened to float once for a whole group of query heads; sums are kept in float and in order of
// position, so that a position's result depends on nothing but what it attends to. Softmax is computed on the way
// (M. Milakov and N. Gimelshein 2018, arXiv 1805.02867).
#pragma once

#include "ggml_private.hpp"
#include "vector.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace flyweight {

constexpr int GROUP = 16;   // query heads that can share a KV head
constexpr int KEYS = 16;    // positions looked at together

template <int D> struct Attention {
    static constexpr int LANES = D / 16;
    int heads;
    float scale;
    alignas(64) float query[GROUP][D], out[GROUP][D];
    alignas(64) float keys[KEYS][D], values[KEYS][D];
    float peak[GROUP], total[GROUP];

    static void widen(float (*to)[D], const char * from, size_t stride, int count) {
        for (int i = 0; i < count; i++)
            for (int l = 0; l < LANES; l++)
                _mm512_store_ps(to[i] + 16 * l, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (from + i * stride) + l)));
    }

    void start() {
        std::fill_n(&out[0][0], heads * D, 0.f);
        std::fill_n(peak, heads, -INFINITY);
        std::fill_n(total, heads, 0.f);
        std::fill_n(&keys[0][0], KEYS * D, 0.f);  // a short last block leaves some unread: they must be numbers
    }

    // `count` positions whose additive mask is `mask`, -inf where a position must not be seen.
    void add(const char * k, size_t k_stride, const char * v, size_t v_stride, __m512 mask, int count) {
        widen(keys, k, k_stride, count);
        widen(values, v, v_stride, count);
        for (int h = 0; h < heads; h++) {
            __m512 q[LANES], products[KEYS];
            for (int l = 0; l < LANES; l++) q[l] = _mm512_load_ps(query[h] + 16 * l);
#pragma GCC unroll 16
            for (int i = 0; i < KEYS; i++) {
                products[i] = _mm512_mul_ps(q[0], _mm512_load_ps(keys[i]));
                for (int l = 1; l < LANES; l++) products[i] = _mm512_fmadd_ps(q[l], _mm512_load_ps(keys[i] + 16 * l), products[i]);
            }
            const __m512 scores = _mm512_fmadd_ps(sums(products), _mm512_set1_ps(scale), mask);
            const float highest = std::max(peak[h], _mm512_reduce_max_ps(scores));
            const __m512 weights = exp(_mm512_sub_ps(scores, _mm512_set1_ps(highest)));
            alignas(64) float weight[KEYS];
            // exp() never reaches 0: what the mask hides must weigh exactly nothing.
            _mm512_store_ps(weight, _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(scores, _mm512_set1_ps(-INFINITY), _CMP_NEQ_OQ), weights));
            const float shrink = highest > peak[h] ? std::exp(peak[h] - highest) : 1.f;
            peak[h] = highest;
            total[h] = total[h] * shrink + _mm512_reduce_add_ps(_mm512_load_ps(weight));
            __m512 o[LANES];
            for (int l = 0; l < LANES; l++) o[l] = _mm512_mul_ps(_mm512_load_ps(out[h] + 16 * l), _mm512_set1_ps(shrink));
            for (int i = 0; i < count; i++)
                for (int l = 0; l < LANES; l++)
                    o[l] = _mm512_fmadd_ps(_mm512_set1_ps(weight[i]), _mm512_load_ps(values[i] + 16 * l), o[l]);
            for (int l = 0; l < LANES; l++) _mm512_store_ps(out[h] + 16 * l, o[l]);
        }
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
            q->ne[2] / k->ne[2] <= GROUP && k->ne[3] == q->ne[3] && v->ne[3] == q->ne[3] && k->ne[1] % KEYS == 0 &&
            q->ne[3] % mask->ne[3] == 0 && param(op, 1) == 0 && param(op, 2) == 0 && !op->src[4];
    }

    bool work_size(int, const ggml_tensor *, size_t & size) override {
        size = 0;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
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

    template <int D> static void compute(const ggml_compute_params * params, ggml_tensor * op) {
        const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3];
        const int64_t rows = q->ne[1], kv_heads = k->ne[2];
        Attention<D> attention;
        attention.heads = q->ne[2] / kv_heads;
        attention.scale = param(op, 0);
        // A unit is one position of one sequence with one KV head. Late positions are the long ones: deal them out in turn.
        for (int64_t unit = params->ith; unit < q->ne[3] * rows * kv_heads; unit += params->nth) {
            const int64_t row = unit / kv_heads % rows, sequence = unit / (kv_heads * rows);
            const int64_t kv_head = (unit + row + sequence) % kv_heads;  // no thread gets one and the same head throughout
            for (int h = 0; h < attention.heads; h++)
                memcpy(attention.query[h],
                       (const char *) q->data + row * q->nb[1] + (kv_head * attention.heads + h) * q->nb[2] + sequence * q->nb[3],
                       sizeof attention.query[h]);
            attention.start();
            const char * keys = (const char *) k->data + kv_head * k->nb[2] + sequence * k->nb[3];
            const char * values = (const char *) v->data + kv_head * v->nb[2] + sequence * v->nb[3];
            const char * hidden = (const char *) mask->data + row * mask->nb[1] + sequence % mask->ne[3] * mask->nb[3];
            for (int64_t at = 0; at < k->ne[1]; at += KEYS) {
                const __m512 bias = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (hidden + 2 * at)));
                const __mmask16 seen = _mm512_cmp_ps_mask(bias, _mm512_set1_ps(-INFINITY), _CMP_NEQ_OQ);
                if (seen)
                    attention.add(keys + at * k->nb[1], k->nb[1], values + at * v->nb[1], v->nb[1], bias, 32 - __builtin_clz(seen));
            }
            for (int h = 0; h < attention.heads; h++) {
                float * to = (float *) ((char *) op->data + (kv_head * attention.heads + h) * op->nb[1] + row * op->nb[2] + sequence * op->nb[3]);
                const float total = attention.total[h];
                for (int i = 0; i < D; i++) to[i] = total > 0 ? attention.out[h][i] / total : 0;
            }
        }
    }
};

}  // namespace flyweight
