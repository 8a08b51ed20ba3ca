// Does this build do what it should inside this llama.cpp? Small products and an attention, computed by llama.cpp's CPU
// backend with the plug-in in place, against plain loops; and clearing.
#pragma once

#include "matmul.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>

namespace flyweight {

struct Check {
    std::mt19937 random{1};
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_context * context = nullptr;

    Check() { ggml_backend_cpu_set_n_threads(backend, 2); }
    ~Check() { ggml_backend_free(backend); }

    std::vector<float> numbers(size_t n) {
        std::normal_distribution<float> normal;
        std::vector<float> made(n);
        for (float & x : made) x = normal(random);
        return made;
    }

    // Allocate what `build` made, fill it, compute its result.
    std::vector<float> compute(ggml_tensor * result, const std::function<void()> & fill) {
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(context, ggml_backend_cpu_buffer_type());
        fill();
        ggml_cgraph * graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, result);
        ggml_backend_graph_compute(backend, graph);
        std::vector<float> out(ggml_nelements(result));
        ggml_backend_tensor_get(result, out.data(), 0, ggml_nbytes(result));
        ggml_backend_buffer_free(buffer);
        return out;
    }

    static double error(const std::vector<float> & got, const std::vector<double> & want) {
        double off = 0, size = 0;
        for (size_t i = 0; i < want.size(); i++) {
            off += (got[i] - want[i]) * (got[i] - want[i]);
            size += want[i] * want[i];
        }
        return std::sqrt(off / size);
    }

    // Relative error of a product, or NaN if a column depends on its company.
    double product(ggml_backend_buffer_type_t ours, ggml_type type, int rows, int length, int columns) {
        context = ggml_init({1 << 20, nullptr, true});
        ggml_context * elsewhere = ggml_init({1 << 20, nullptr, true});
        ggml_tensor * w = ggml_new_tensor_2d(elsewhere, type, length, rows);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(elsewhere, ours);
        const std::vector<float> weights = numbers(rows * length), x = numbers(length * columns);
        std::vector<uint8_t> raw(ggml_nbytes(w));
        ggml_quantize_chunk(type, weights.data(), raw.data(), 0, rows, length, nullptr);
        ggml_backend_tensor_set(w, raw.data(), 0, raw.size());
        ggml_tensor * all = ggml_new_tensor_2d(context, GGML_TYPE_F32, length, columns);
        ggml_tensor * one = ggml_new_tensor_2d(context, GGML_TYPE_F32, length, 1);
        ggml_tensor * together = ggml_mul_mat(context, w, all);
        ggml_tensor * alone = ggml_mul_mat(context, w, one);
        std::vector<float> got = compute(ggml_concat(context, together, alone, 1), [&] {
            ggml_backend_tensor_set(all, x.data(), 0, ggml_nbytes(all));
            ggml_backend_tensor_set(one, x.data() + (columns - 1) * length, 0, ggml_nbytes(one));
        });
        std::vector<float> exact(length);
        std::vector<double> want(rows * columns);
        for (int r = 0; r < rows; r++) {
            ggml_get_type_traits(type)->to_float(raw.data() + r * w->nb[1], exact.data(), length);
            for (int c = 0; c < columns; c++)
                for (int k = 0; k < length; k++) want[c * rows + r] += (double) exact[k] * x[c * length + k];
        }
        const bool same = std::equal(got.end() - rows, got.end(), got.end() - 2 * rows);
        ggml_backend_buffer_free(buffer);
        ggml_free(elsewhere);
        ggml_free(context);
        return same ? error(got, want) : NAN;
    }

    // Relative error of attention: `rows` last positions of each of `sequences` sequences of different lengths.
    double attention(int d, int heads, int kv_heads, int rows, int sequences, int positions) {
        context = ggml_init({1 << 20, nullptr, true});
        const std::vector<float> q = numbers((size_t) d * rows * heads * sequences);
        const size_t kv = (size_t) d * positions * kv_heads * sequences;
        std::vector<float> k = numbers(kv), v = numbers(kv), mask((size_t) positions * rows * sequences);
        std::vector<ggml_fp16_t> k16(kv), v16(kv), mask16(mask.size());
        for (int s = 0; s < sequences; s++)
            for (int r = 0; r < rows; r++)
                for (int p = 0; p < positions; p++)
                    mask[((size_t) s * rows + r) * positions + p] = p > 7 * s + r + 3 || p == 2 ? -INFINITY : 0;
        ggml_fp32_to_fp16_row(k.data(), k16.data(), kv);
        ggml_fp32_to_fp16_row(v.data(), v16.data(), kv);
        ggml_fp32_to_fp16_row(mask.data(), mask16.data(), mask.size());
        ggml_fp16_to_fp32_row(k16.data(), k.data(), kv);
        ggml_fp16_to_fp32_row(v16.data(), v.data(), kv);
        ggml_tensor * tq = ggml_new_tensor_4d(context, GGML_TYPE_F32, d, rows, heads, sequences);
        ggml_tensor * tk = ggml_new_tensor_4d(context, GGML_TYPE_F16, d, positions, kv_heads, sequences);
        ggml_tensor * tv = ggml_new_tensor_4d(context, GGML_TYPE_F16, d, positions, kv_heads, sequences);
        ggml_tensor * tm = ggml_new_tensor_4d(context, GGML_TYPE_F16, positions, rows, 1, sequences);
        const float scale = 1 / std::sqrt((float) d);
        const std::vector<float> got = compute(ggml_flash_attn_ext(context, tq, tk, tv, tm, scale, 0, 0), [&] {
            ggml_backend_tensor_set(tq, q.data(), 0, ggml_nbytes(tq));
            ggml_backend_tensor_set(tk, k16.data(), 0, ggml_nbytes(tk));
            ggml_backend_tensor_set(tv, v16.data(), 0, ggml_nbytes(tv));
            ggml_backend_tensor_set(tm, mask16.data(), 0, ggml_nbytes(tm));
        });
        std::vector<double> want(got.size());
        for (int s = 0; s < sequences; s++)
            for (int h = 0; h < heads; h++)
                for (int r = 0; r < rows; r++) {
                    const size_t side = ((size_t) s * kv_heads + h / (heads / kv_heads)) * positions * d;
                    double * to = &want[(((size_t) s * rows + r) * heads + h) * d], total = 0;
                    for (int p = 0; p < positions; p++) {
                        double score = 0;
                        for (int i = 0; i < d; i++) score += q[(((size_t) s * heads + h) * rows + r) * d + i] * k[side + p * d + i];
                        const double weight = std::exp(score * scale + mask[((size_t) s * rows + r) * positions + p]);
                        total += weight;
                        for (int i = 0; i < d; i++) to[i] += weight * v[side + p * d + i];
                    }
                    for (int i = 0; i < d; i++) to[i] /= total;
                }
        ggml_free(context);
        return error(got, want);
    }

    // Whether a large buffer holds one value throughout after it was cleared, also once it has held others.
    static bool clears() {
        ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), (9 << 20) + 321);
        const uint8_t * base = (const uint8_t *) ggml_backend_buffer_get_base(buffer);
        bool clean = true;
        for (const int value : {0, 7, 0, 255, 0}) {
            ggml_backend_buffer_clear(buffer, value);
            clean = clean && std::all_of(base, base + ggml_backend_buffer_get_size(buffer), [&](int x) { return x == value; });
        }
        ggml_backend_buffer_free(buffer);
        return clean;
    }

    // Empty if all is well, else what is not.
    std::string run(ggml_backend_buffer_type_t ours) {
        for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q5_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K})
            for (const int columns : {1, 2, 7, 33}) {
                const double off = product(ours, type, 85, 512, columns);
                if (!(off < 0.01))  // activations of 8 bits are 0.5 % off
                    return std::string(ggml_type_name(type)) + " times " + std::to_string(columns) + " columns is off by " + std::to_string(off);
            }
        for (const int d : {16, 32, 64, 96, 128, 256})
            for (const int rows : {1, 5}) {
                const double off = attention(d, 14, 2, rows, 3, 64);
                if (!(off < 1e-5)) return "attention over heads of " + std::to_string(d) + " is off by " + std::to_string(off);
            }
        return clears() ? "" : "a buffer that was cleared is not";
    }
};

}  // namespace flyweight
