/* Sixteen rows of codes and eight of sums at a time, with AVX-512 and its dot product of four bytes (VNNI). Codes of 8 bits
   are multiplied with 128 added, since the instruction wants one side unsigned; `base` takes that back. */
#include "kernels_x86.h"

#define TOGETHER 4    /* tokens whose sums stand in registers together, */
#define ROWS 16       /* of so many rows */
#define EIGHT_BIT_BASE 128

/* Of some groups and tokens: D by sixteens of rows, and the scales in binary64 by eights. */
typedef struct {
  _Alignas(64) int32_t dots[GROUPS][2][TOKENS][16];
  _Alignas(64) double scales[GROUPS][4][2][8]; /* then the minima */
} Held;

/* Several tokens stay with a tile for long: what is far ahead comes into an outer cache meanwhile (a fifth less time for
   eight tokens; a token alone is a fifth slower by it). */
INLINE void prefetch_far(const uint8_t *at, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)at + 32768 + i, _MM_HINT_T2);
}

/* Codes [width / 4] of sixteen rows, unsigned, each four columns. */
INLINE void sixteen_rows(const uint8_t *at, int bits, int width, int s, __m512i *codes) {
  const uint8_t *first = at + 2 * width * bits * s, *second = first + width * bits;
  for (int j = 0; j < width * bits / 32; j++) {
    __m256i upper = _mm256_loadu_si256((const __m256i *)(first + 32 * j)), lower = _mm256_loadu_si256((const __m256i *)(second + 32 * j));
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(upper), lower, 1);
    if (bits == 8) {
      codes[j] = _mm512_xor_si512(both, _mm512_set1_epi8(-128));
      continue;
    }
    codes[2 * j] = _mm512_and_si512(both, _mm512_set1_epi8(15));
    codes[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), _mm512_set1_epi8(15));
  }
}

/* sums [2] += D of two sixteens of rows for one token. */
INLINE void dot(__m512i (*codes)[8], int width, const int8_t *x, __m512i *sums) {
  for (int k = 0; k < width / 4; k++) {
    __m512i four = _mm512_set1_epi32(word_at(x + 4 * k));
    for (int s = 0; s < 2; s++) sums[s] = _mm512_dpbusd_epi32(sums[s], codes[s][k], four);
  }
}

/* D of one tile for some tokens, x [tokens][32] and their sums [tokens]: codes as stored are `base` below the true ones. */
INLINE void dots(const uint8_t *at, int bits, int width, const int8_t *x, int32_t base, const int32_t *sums, int tokens,
                 int32_t (*d)[TOKENS][16]) {
  __m512i codes[2][8];
  prefetch_far(at, width * LANES * bits / 8 + 4 * LANES);
  for (int s = 0; s < 2; s++) sixteen_rows(at, bits, width, s, codes[s]);
  for (int t = 0; t < tokens; t++) {
    __m512i start = _mm512_mullo_epi32(_mm512_set1_epi32(base), _mm512_set1_epi32(sums[t])), both[2] = {start, start};
    dot(codes, width, x + PACKET * t, both);
    for (int s = 0; s < 2; s++) _mm512_store_si512(d[s][t], both[s]);
  }
}

INLINE __m512d eight_scales(const uint8_t *at, int kind, int first) {
  return _mm512_cvtps_pd(kind == HALF ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at + 2 * first)))
                                      : _mm256_loadu_ps((const float *)(at + 4 * first)));
}

/* The scales and minima of eight rows into s [2]. */
INLINE void scales_and_minima(const uint8_t *at, int kind, int minimum, int o, __m512d *s) {
  s[0] = eight_scales(at, kind, 8 * o);
  if (minimum) s[1] = eight_scales(at + (kind == HALF ? 2 : 4) * LANES, kind, 8 * o);
}

/* low + 2^DEEP * high += floor(a * f), both rounding down; the product has at most 39 bits, so it is exact. */
INLINE __m512d deep_term(__m512d a, __m512d f, __m512d low, double *high) {
  __m512d x = _mm512_mul_pd(a, f), h = _mm512_loadu_pd(high), up = _mm512_fmadd_pd(x, _mm512_set1_pd(1 / DEEP_ROOM), h);
  _mm512_storeu_pd(high, up);
  return _mm512_add_pd(low, _mm512_fnmadd_pd(_mm512_sub_pd(up, h), _mm512_set1_pd(DEEP_ROOM), x));
}

/* y + the terms of one group, eight rows and one token; s [2] as above, `high` the high sums of a deep matrix. */
INLINE __m512d eight_terms(__m256i d, const __m512d *s, double factor, double scaled_sum, int kind, int minimum, __m512d y,
                           double *high) {
  __m512d f = _mm512_set1_pd(factor), a = _mm512_set1_pd(scaled_sum), p = _mm512_mul_pd(_mm512_cvtepi32_pd(d), s[0]);
  y = kind == WIDE ? deep_term(p, f, y, high) : _mm512_fmadd_pd(p, f, y);
  if (minimum) y = kind == WIDE ? deep_term(s[1], a, y, high) : _mm512_fmadd_pd(s[1], a, y);
  return y;
}

/* The terms of some groups for `count` tokens from t on, sixteen rows from `row` on. */
INLINE void terms_of_tokens(const Held *held, int groups, Factors x, int kind, int minimum, int row, int t, int count,
                            double *sums, double *high) {
  __m512d y[TOGETHER][2], s[2][2];
  for (int i = 0; i < 2 * count; i++) y[i / 2][i % 2] = _mm512_loadu_pd(sums + LANES * (i / 2) + i % 2 * 8);
  for (int g = 0; g < groups; g++) {
    for (int i = 0; i < 4; i++) s[i / 2][i % 2] = _mm512_load_pd(held->scales[g][row / 8 + i / 2][i % 2]);
    int at = ((x.first + g) >> x.halved) * x.stored + t, sum = (x.first + g) * x.stored + t;
    for (int i = 0; i < 2 * count; i++) {
      int k = i / 2, h = i % 2;
      __m256i d = _mm256_load_si256((const __m256i *)(held->dots[g][row / 16][t + k] + 8 * h));
      y[k][h] = eight_terms(d, s[h], x.factor[at + k], x.scaled_sum[sum + k], kind, minimum, y[k][h], high + LANES * k + 8 * h);
    }
  }
  for (int i = 0; i < 2 * count; i++) _mm512_storeu_pd(sums + LANES * (i / 2) + i % 2 * 8, y[i / 2][i % 2]);
}

INLINE void hold_scales(const uint8_t *at, int kind, int minimum, double (*scales)[2][8]) {
  for (int o = 0; o < 4; o++) {
    __m512d s[2];
    scales_and_minima(at, kind, minimum, o, s);
    for (int i = 0; i < 1 + minimum; i++) _mm512_store_pd(scales[o][i], s[i]);
  }
}

/* One token: sums [32] += the terms of the groups first..last-1. Nothing is held; the sums stay in registers. */
INLINE void one_token(const uint8_t *at, int tile_bytes, int bits, int width, int kind, int minimum, int32_t base,
                      const Packets *p, int stored, int from, int first, int last, double *sums) {
  const double *scaled = width == PACKET ? p->scaled : p->half_scaled;
  const int32_t *sums_of = width == PACKET ? p->sums : p->half_sums;
  int code_bytes = width * LANES * bits / 8;
  __m512i codes[2][8];
  __m512d y[4], s[2];
  for (int o = 0; o < 4; o++) y[o] = _mm512_loadu_pd(sums + 8 * o);
  for (int g = first; g < last; g++, at += tile_bytes) {
    int64_t packet = (int64_t)(g * width / PACKET) * stored + from, sum = (int64_t)g * stored + from;
    __m512i start = _mm512_set1_epi32(base * sums_of[sum]), d[2] = {start, start};
    prefetch(at, code_bytes + (1 + minimum) * (kind == HALF ? 2 : 4) * LANES);
    for (int i = 0; i < 2; i++) sixteen_rows(at, bits, width, i, codes[i]);
    dot(codes, width, p->codes + packet * PACKET + g * width % PACKET, d);
    for (int o = 0; o < 4; o++) {
      __m256i eight = o % 2 ? _mm512_extracti64x4_epi64(d[o / 2], 1) : _mm512_castsi512_si256(d[o / 2]);
      scales_and_minima(at + code_bytes, kind, minimum, o, s);
      y[o] = eight_terms(eight, s, p->factor[packet], scaled[sum], kind, minimum, y[o], sums + LANES + 8 * o);
    }
  }
  for (int o = 0; o < 4; o++) _mm512_storeu_pd(sums + 8 * o, y[o]);
}
