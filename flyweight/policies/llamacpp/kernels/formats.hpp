// GGUF's quantised weights as panels for the matrix product: the same numbers, exactly, in another order.
//
// A panel is 16 rows. Along the row, 32 weights make a block; a block's quants are stored as unsigned bytes (or
// nibbles), four consecutive weights of row 0, four of row 1, ... so that one 64-byte load feeds one VPDPBUSD for 16
// rows. A weight is scale * quant + offset; where the offset is the scale times a constant ("zero"), it is not stored.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace flyweight {

constexpr int PANEL = 16, BLOCK = 32, SUPER = 8;  // rows; weights; blocks that share a K-quant's outer scales

struct Block {  // one row's block, unpacked
    uint8_t quants[BLOCK];
    uint16_t outer[2] = {};  // f16: scale, and scale of the minimum
    uint8_t inner[2] = {};   // K-quants only: two factors of the outer scales
};

// What a tile needs to know of 16 rows' block: quant * scale (+ minimum), per half if the halves differ.
struct Scales {
    __m512 first, second;
};

inline __m512 halves(const uint8_t * at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) at));
}

// Q4_0, Q5_0, Q8_0: weight = d * (quant - zero).
template <int ZERO, bool NIBBLES> struct Symmetric {
    static constexpr int zero = ZERO;
    static constexpr bool nibbles = NIBBLES, split = false, minimum = false;
    static constexpr int inner_bytes = 2 * PANEL, outer_bytes = 0;

    static Scales scales(const uint8_t * inner, const uint8_t *) { return {halves(inner), _mm512_setzero_ps()}; }
    static void store(const Block & from, int row, uint8_t * inner, uint8_t *) {
        memcpy(inner + 2 * row, from.outer, 2);
    }
};

// Q4_K, Q5_K: weight = (d * inner0) * quant - (dmin * inner1).
template <bool NIBBLES> struct Affine {
    static constexpr int zero = 0;
    static constexpr bool nibbles = NIBBLES, split = false, minimum = true;
    static constexpr int inner_bytes = 2 * PANEL, outer_bytes = 4 * PANEL;

    static Scales scales(const uint8_t * inner, const uint8_t * outer) {
        const __m512i scale = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) inner));
        const __m512i least = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) (inner + PANEL)));
        return {_mm512_mul_ps(halves(outer), _mm512_cvtepi32_ps(scale)),
                _mm512_mul_ps(halves(outer + 2 * PANEL), _mm512_cvtepi32_ps(least))};
    }
    static void store(const Block & from, int row, uint8_t * inner, uint8_t * outer) {
        inner[row] = from.inner[0];
        inner[PANEL + row] = from.inner[1];
        memcpy(outer + 2 * row, &from.outer[0], 2);
        memcpy(outer + 2 * PANEL + 2 * row, &from.outer[1], 2);
    }
};

// Q6_K: weight = (d * inner) * (quant - 32), a signed inner factor for each half of the block.
struct Split {
    static constexpr int zero = 32;
    static constexpr bool nibbles = false, split = true, minimum = false;
    static constexpr int inner_bytes = 2 * PANEL, outer_bytes = 2 * PANEL;

    static Scales scales(const uint8_t * inner, const uint8_t * outer) {
        const __m512i first = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) inner));
        const __m512i second = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) (inner + PANEL)));
        const __m512 d = halves(outer);
        return {_mm512_mul_ps(d, _mm512_cvtepi32_ps(first)), _mm512_mul_ps(d, _mm512_cvtepi32_ps(second))};
    }
    static void store(const Block & from, int row, uint8_t * inner, uint8_t * outer) {
        inner[row] = from.inner[0];
        inner[PANEL + row] = from.inner[1];
        memcpy(outer + 2 * row, from.outer, 2);
    }
};

// The GGUF formats themselves: `block` unpacks block `b` of the row that starts at `row`. -----------------------

inline uint8_t nibble(const uint8_t * quants, int i) {  // 16 bytes hold weights 0-15 low, 16-31 high
    return i < 16 ? quants[i] & 15 : quants[i - 16] >> 4;
}

struct Q4_0 : Symmetric<8, true> {
    static void block(const uint8_t * row, int b, Block & to) {
        const uint8_t * at = row + b * 18;
        memcpy(to.outer, at, 2);
        for (int i = 0; i < BLOCK; i++) to.quants[i] = nibble(at + 2, i);
    }
};

struct Q5_0 : Symmetric<16, false> {
    static void block(const uint8_t * row, int b, Block & to) {
        const uint8_t * at = row + b * 22;
        uint32_t high;
        memcpy(to.outer, at, 2);
        memcpy(&high, at + 2, 4);
        for (int i = 0; i < BLOCK; i++) to.quants[i] = nibble(at + 6, i) | (high >> i & 1) << 4;
    }
};

struct Q8_0 : Symmetric<128, false> {
    static void block(const uint8_t * row, int b, Block & to) {
        const uint8_t * at = row + b * 34;
        memcpy(to.outer, at, 2);
        for (int i = 0; i < BLOCK; i++) to.quants[i] = at[2 + i] ^ 128;
    }
};

// Six-bit factors of block `j` of 8, packed into 12 bytes.
inline void factors(const uint8_t * packed, int j, uint8_t * to) {
    if (j < 4) {
        to[0] = packed[j] & 63;
        to[1] = packed[j + 4] & 63;
    } else {
        to[0] = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
        to[1] = packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
    }
}

struct Q4_K : Affine<true> {
    static void block(const uint8_t * row, int b, Block & to) {
        const uint8_t * at = row + b / SUPER * 144;
        const int j = b % SUPER;
        memcpy(to.outer, at, 4);
        factors(at + 4, j, to.inner);
        const uint8_t * quants = at + 16 + j / 2 * BLOCK;  // two blocks share 32 bytes: low nibbles, high nibbles
        for (int i = 0; i < BLOCK; i++) to.quants[i] = j % 2 ? quants[i] >> 4 : quants[i] & 15;
    }
};

struct Q5_K : Affine<false> {
    static void block(const uint8_t * row, int b, Block & to) {
        const uint8_t * at = row + b / SUPER * 176;
        const int j = b % SUPER;
        memcpy(to.outer, at, 4);
        factors(at + 4, j, to.inner);
        const uint8_t * high = at + 16;
        const uint8_t * quants = at + 48 + j / 2 * BLOCK;
        for (int i = 0; i < BLOCK; i++)
            to.quants[i] = (j % 2 ? quants[i] >> 4 : quants[i] & 15) | (high[i] >> j & 1) << 4;
    }
};

struct Q6_K : Split {
    static void block(const uint8_t * row, int b, Block & to) {
        const uint8_t * at = row + b / SUPER * 210;
        const int j = b % SUPER, part = j / 4, quarter = j % 4;
        const uint8_t * low = at + part * 64 + quarter % 2 * BLOCK;
        const uint8_t * high = at + 128 + part * BLOCK;
        memcpy(to.inner, at + 192 + j * 2, 2);
        memcpy(to.outer, at + 208, 2);
        for (int i = 0; i < BLOCK; i++)
            to.quants[i] = (quarter < 2 ? low[i] & 15 : low[i] >> 4) | (high[i] >> 2 * quarter & 3) << 4;
    }
};

}  // namespace flyweight
