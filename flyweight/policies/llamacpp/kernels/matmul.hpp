// Quantised weights times activations with AVX-512 VNNI, several rows of activations at a time.
//
// Activations become signed bytes with one scale for each 32, as in llama.cpp's own kernels; products and sums of a
// block are exact integers. Every output is one chain of additions in block order, so that it does not depend on how
// many other rows are computed with it nor on the number of threads.
#pragma once

#include "clock.hpp"
#include "formats.hpp"
#include "ggml_private.hpp"

#include <algorithm>

namespace flyweight {

// Activations of a product: `columns` rows of `length` floats, quantised into shared work space.
struct Activations {
    int64_t length, columns;
    int8_t * quants;      // [columns][length]
    float * scales;       // [columns][blocks]
    int32_t * first;      // [columns][blocks] start of a block's integer sum (what the weights' zero takes away) ...
    int32_t * second;     // ... and of its second half; or, as float, scale * sum for the weights' minimum

    int64_t blocks() const { return length / BLOCK; }

    static size_t bytes(int64_t length, int64_t columns) { return columns * (length + length / BLOCK * 12) + 64; }

    Activations(void * space, int64_t length, int64_t columns) : length(length), columns(columns) {
        quants = (int8_t *) (((uintptr_t) space + 63) & ~uintptr_t(63));
        scales = (float *) (quants + columns * length);
        first = (int32_t *) (scales + columns * blocks());
        second = first + columns * blocks();
    }

    template <class F> void quantise(int64_t column, const float * from) {
        for (int64_t b = 0; b < blocks(); b++, from += BLOCK) {
            const __m512 low = _mm512_loadu_ps(from), high = _mm512_loadu_ps(from + 16);
            const float peak = std::max(_mm512_reduce_max_ps(_mm512_abs_ps(low)), _mm512_reduce_max_ps(_mm512_abs_ps(high)));
            const float scale = peak / 127;
            const __m512 inverse = _mm512_set1_ps(peak > 0 ? 127 / peak : 0);
            const __m512i l = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
            const __m512i h = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
            int8_t * to = quants + column * length + b * BLOCK;
            _mm_storeu_si128((__m128i *) to, _mm512_cvtepi32_epi8(l));
            _mm_storeu_si128((__m128i *) (to + 16), _mm512_cvtepi32_epi8(h));
            const int32_t s0 = _mm512_reduce_add_epi32(l), s1 = _mm512_reduce_add_epi32(h);
            const int64_t at = column * blocks() + b;
            scales[at] = scale;
            first[at] = -F::zero * (F::split ? s0 : s0 + s1);
            second[at] = -F::zero * s1;
            if (F::minimum) ((float *) second)[at] = scale * (s0 + s1);
        }
    }
};

// Weights of one tensor: panels of quants, then the panels' inner scales, then their outer ones.
template <class F> struct Panels {
    static constexpr int quant_bytes = F::nibbles ? PANEL * BLOCK / 2 : PANEL * BLOCK;
    int64_t rows, blocks;
    uint8_t * quants, * inner, * outer;

    static int64_t count(int64_t rows) { return (rows + PANEL - 1) / PANEL; }

    static size_t bytes(int64_t rows, int64_t length) {
        const int64_t blocks = length / BLOCK;
        return count(rows) * (blocks * (quant_bytes + F::inner_bytes) + (blocks + SUPER - 1) / SUPER * F::outer_bytes);
    }

    Panels(void * data, int64_t rows, int64_t length) : rows(rows), blocks(length / BLOCK) {
        quants = (uint8_t *) data;
        inner = quants + count(rows) * blocks * quant_bytes;
        outer = inner + count(rows) * blocks * F::inner_bytes;
    }

    uint8_t * quants_at(int64_t panel) const { return quants + panel * blocks * quant_bytes; }
    uint8_t * inner_at(int64_t panel) const { return inner + panel * blocks * F::inner_bytes; }
    uint8_t * outer_at(int64_t panel) const { return outer + panel * ((blocks + SUPER - 1) / SUPER) * F::outer_bytes; }

    // Rows as they are in the file, `stride` bytes apart. What the last panel lacks is zero.
    void pack(const uint8_t * from, size_t stride) {
#pragma omp parallel for
        for (int64_t panel = 0; panel < count(rows); panel++)
            for (int64_t b = 0; b < blocks; b++) {
                uint8_t * to = quants_at(panel) + b * quant_bytes;
                for (int row = 0; row < PANEL; row++) {
                    Block block = {};
                    if (panel * PANEL + row < rows) F::block(from + (panel * PANEL + row) * stride, b, block);
                    F::store(block, row, inner_at(panel) + b * F::inner_bytes, outer_at(panel) + b / SUPER * F::outer_bytes);
                    for (int i = 0; i < BLOCK; i++) {
                        const int at = i / 4 * 64 + row * 4 + i % 4;
                        if (!F::nibbles)
                            to[at] = block.quants[i];
                        else if (i < 16)
                            to[at] = block.quants[i] | block.quants[i + 16] << 4;
                    }
                }
            }
    }

    // R panels times C columns of activations: the tile that stays in registers. Each block also fetches `lines` cache
    // lines from `ahead` on.
    template <int R, int C>
    void tile(int64_t panel, const Activations & a, int64_t column, float * out, size_t stride, const uint8_t * ahead, int lines) const {
        const int64_t length = a.length, step = blocks * quant_bytes;
        const uint8_t * q = quants_at(panel);
        const int8_t * x = a.quants + column * length;
        const int64_t meta = column * blocks;
        __m512 sums[R][C] = {};
        for (int64_t b = 0; b < blocks; b++, q += quant_bytes) {
            for (int i = 0; i < lines; i++, ahead += 64) _mm_prefetch((const char *) ahead, _MM_HINT_T0);
            Scales scales[R];
            for (int r = 0; r < R; r++)
                scales[r] = F::scales(inner_at(panel + r) + b * F::inner_bytes, outer_at(panel + r) + b / SUPER * F::outer_bytes);
#pragma GCC unroll 2
            for (int half = 0; half < (F::split ? 2 : 1); half++) {
                __m512i dot[R][C];
#pragma GCC unroll 8
                for (int c = 0; c < C; c++)
#pragma GCC unroll 2
                    for (int r = 0; r < R; r++)
                        dot[r][c] = F::zero ? _mm512_set1_epi32((half ? a.second : a.first)[meta + c * blocks + b]) : __m512i{};
#pragma GCC unroll 8
                for (int j = half * 4; j < (F::split ? half * 4 + 4 : 8); j++) {
                    __m512i w[R];
#pragma GCC unroll 2
                    for (int r = 0; r < R; r++) {
                        const uint8_t * at = q + r * step + (F::nibbles ? j % 4 : j) * 64;
                        w[r] = _mm512_load_si512(at);
                        if (F::nibbles)
                            w[r] = _mm512_and_si512(j < 4 ? w[r] : _mm512_srli_epi16(w[r], 4), _mm512_set1_epi8(15));
                    }
#pragma GCC unroll 8
                    for (int c = 0; c < C; c++) {
                        int32_t four;
                        memcpy(&four, x + c * length + b * BLOCK + j * 4, 4);
#pragma GCC unroll 2
                        for (int r = 0; r < R; r++) dot[r][c] = _mm512_dpbusd_epi32(dot[r][c], w[r], _mm512_set1_epi32(four));
                    }
                }
#pragma GCC unroll 8
                for (int c = 0; c < C; c++) {
                    const __m512 scale = _mm512_set1_ps(a.scales[meta + c * blocks + b]);
#pragma GCC unroll 2
                    for (int r = 0; r < R; r++) {
                        const __m512 s = _mm512_mul_ps(half ? scales[r].second : scales[r].first, scale);
                        sums[r][c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][c]), s, sums[r][c]);
                        if (F::minimum) {
                            const __m512 total = _mm512_set1_ps(((const float *) a.second)[meta + c * blocks + b]);
                            sums[r][c] = _mm512_fnmadd_ps(scales[r].second, total, sums[r][c]);
                        }
                    }
                }
            }
        }
        for (int r = 0; r < R; r++) {
            const int64_t left = rows - (panel + r) * PANEL;
            const __mmask16 some = left < PANEL ? (1u << left) - 1 : 0xFFFF;
            for (int c = 0; c < C; c++) _mm512_mask_storeu_ps(out + c * stride + r * PANEL, some, sums[r][c]);
        }
    }

    // R panels times every column; `out` is the product's column 0 at these rows.
    template <int R> void times(int64_t panel, const Activations & a, float * out, size_t stride) const {
        const int64_t tiles = (a.columns + 3) / 4;
        // The next panels come from memory while these are multiplied, evenly over all tiles.
        const int lines = (R * quant_bytes / 64 + tiles - 1) / tiles;
        const uint8_t * ahead = quants_at(panel + R);
        for (int64_t t = 0; t < tiles; t++) {  // of nearly equal width: a narrow last one would waste its loads
            const int64_t begin = t * a.columns / tiles, width = (t + 1) * a.columns / tiles - begin;
            float * to = out + begin * stride;
            switch (width) {
                case 1: tile<R, 1>(panel, a, begin, to, stride, ahead, lines); break;
                case 2: tile<R, 2>(panel, a, begin, to, stride, ahead, lines); break;
                case 3: tile<R, 3>(panel, a, begin, to, stride, ahead, lines); break;
                case 4: tile<R, 4>(panel, a, begin, to, stride, ahead, lines); break;
            }
            ahead += blocks * lines * 64;
        }
    }
};

// What a tensor in our buffer can do; one object per GGUF format.
struct Format : ggml::cpu::tensor_traits {
    virtual size_t packed_bytes(const ggml_tensor * weights) const = 0;
    virtual void pack(ggml_tensor * weights, const void * from) const = 0;
};

template <class F> struct FormatOf final : Format {
    size_t packed_bytes(const ggml_tensor * w) const override { return Panels<F>::bytes(w->ne[1], w->ne[0]); }

    void pack(ggml_tensor * w, const void * from) const override {
        Panels<F>(w->data, w->ne[1], w->ne[0]).pack((const uint8_t *) from, w->nb[1]);
    }

    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = Activations::bytes(op->src[1]->ne[0], ggml_nrows(op->src[1]));
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const Stopwatch watch(params, product_time);
        const ggml_tensor * w = op->src[0], * x = op->src[1];
        const Panels<F> panels(w->data, w->ne[1], w->ne[0]);
        Activations a(params->wdata, x->ne[0], ggml_nrows(x));
        if (params->ith == 0) ggml_threadpool_chunk_set(params->threadpool, 0);
        for (int64_t c = params->ith; c < a.columns; c += params->nth) {
            const int64_t i1 = c % x->ne[1], i2 = c / x->ne[1] % x->ne[2], i3 = c / (x->ne[1] * x->ne[2]);
            a.quantise<F>(c, (const float *) ((const char *) x->data + i1 * x->nb[1] + i2 * x->nb[2] + i3 * x->nb[3]));
        }
        ggml_barrier(params->threadpool);

        // Chunks are handed out as threads come for them: one that is held up does not hold up the others.
        const int64_t count = panels.count(w->ne[1]), pairs = (count + 1) / 2, chunk = std::max<int64_t>(1, pairs / (8 * params->nth));
        for (;;) {
            const int64_t begin = chunk * ggml_threadpool_chunk_add(params->threadpool, 1);
            if (begin >= pairs) return true;
            for (int64_t pair = begin; pair < std::min(pairs, begin + chunk); pair++) {
                float * out = (float *) op->data + pair * 2 * PANEL;
                if (pair * 2 + 1 < count)
                    panels.template times<2>(pair * 2, a, out, op->nb[1] / sizeof(float));
                else
                    panels.template times<1>(pair * 2, a, out, op->nb[1] / sizeof(float));
            }
        }
    }
};

// The format object of a weight tensor, or null where llama.cpp's own kernels must do.
inline Format * format_of(const ggml_tensor * w) {
    static FormatOf<Q4_0> q4_0;
    static FormatOf<Q5_0> q5_0;
    static FormatOf<Q8_0> q8_0;
    static FormatOf<Q4_K> q4_k;
    static FormatOf<Q5_K> q5_k;
    static FormatOf<Q6_K> q6_k;
    if (w->ne[2] != 1 || w->ne[3] != 1) return nullptr;
    switch (w->type) {
        case GGML_TYPE_Q4_0: return &q4_0;
        case GGML_TYPE_Q5_0: return &q5_0;
        case GGML_TYPE_Q8_0: return &q8_0;
        case GGML_TYPE_Q4_K: return &q4_k;
        case GGML_TYPE_Q5_K: return &q5_k;
        case GGML_TYPE_Q6_K: return &q6_k;
        default: return nullptr;
    }
}

}  // namespace flyweight
