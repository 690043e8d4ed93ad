/* Eight rows of codes and four of sums at a time, with AVX2 and FMA. */
#include "kernels_x86.h"

#define TOGETHER 4    /* tokens whose sums stand in registers together, */
#define ROWS 8        /* of so many rows */
#define EIGHT_BIT_BASE 0

/* Of some groups and tokens: D, and the scales in binary64; both by eights of rows. */
typedef struct {
  _Alignas(32) int32_t dots[GROUPS][4][TOKENS][8];
  _Alignas(32) double scales[GROUPS][4][2][8]; /* then the minima */
} Held;

INLINE __m256i four_bytes(const int8_t *x) { return _mm256_set1_epi32(word_at(x)); }

/* What codes of `base` below the true ones lack of D, activations summing to `sum`. */
INLINE __m256i lacking(int32_t base, int32_t sum) { return _mm256_mullo_epi32(_mm256_set1_epi32(base), _mm256_set1_epi32(sum)); }

/* Eight rows by four bits: at most 15 * 127 * 16 in a word, which holds sixteen columns. */
INLINE __m256i dot4(const __m256i *codes, int width, const int8_t *x) {
  __m256i even = _mm256_maddubs_epi16(codes[0], four_bytes(x)), odd = _mm256_maddubs_epi16(codes[1], four_bytes(x + 4));
  for (int k = 2; k < width / 4; k += 2) {
    even = _mm256_add_epi16(even, _mm256_maddubs_epi16(codes[k], four_bytes(x + 4 * k)));
    odd = _mm256_add_epi16(odd, _mm256_maddubs_epi16(codes[k + 1], four_bytes(x + 4 * k + 4)));
  }
  return _mm256_madd_epi16(_mm256_add_epi16(even, odd), _mm256_set1_epi16(1));
}

/* The same of codes that one token alone uses. */
INLINE __m256i one_dot4(const uint8_t *at, int width, int o, const int8_t *x) {
  const __m256i low_half = _mm256_set1_epi8(15);
  __m256i even = _mm256_setzero_si256(), odd = even;
  for (int j = 0; j < width / 8; j++) {
    __m256i both = _mm256_loadu_si256((const __m256i *)(at + 4 * width * o + 32 * j));
    __m256i low = _mm256_and_si256(both, low_half), high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
    even = _mm256_add_epi16(even, _mm256_maddubs_epi16(low, four_bytes(x + 8 * j)));
    odd = _mm256_add_epi16(odd, _mm256_maddubs_epi16(high, four_bytes(x + 8 * j + 4)));
  }
  return _mm256_madd_epi16(_mm256_add_epi16(even, odd), _mm256_set1_epi16(1));
}

INLINE void dots4(const uint8_t *at, int width, int o, const int8_t *x, int32_t base, const int32_t *sums, int tokens, int32_t (*d)[8]) {
  const __m256i low_half = _mm256_set1_epi8(15);
  __m256i codes[8];
  for (int j = 0; j < width / 8; j++) {
    __m256i both = _mm256_loadu_si256((const __m256i *)(at + 4 * width * o + 32 * j));
    codes[2 * j] = _mm256_and_si256(both, low_half);
    codes[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
  }
  for (int t = 0; t < tokens; t++)
    _mm256_store_si256((__m256i *)d[t], _mm256_add_epi32(dot4(codes, width, x + PACKET * t), lacking(base, sums[t])));
}

/* Eight rows by eight bits, for one token: magnitudes of the codes times the activations with their signs; 128 * 127 * 2 fits a word. */
INLINE __m256i dot8(const uint8_t *at, int width, int o, const int8_t *x) {
  __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int j = 0; j < width / 4; j++) {
    __m256i w = _mm256_loadu_si256((const __m256i *)(at + 8 * width * o + 32 * j));
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(four_bytes(x + 4 * j), w));
    sums[j & 1] = _mm256_add_epi32(sums[j & 1], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  return _mm256_add_epi32(sums[0], sums[1]);
}

/* The same for some tokens, sixteen columns at a time. */
INLINE void dots8(const uint8_t *at, int width, int o, const int8_t *x, int32_t base, const int32_t *sums, int tokens, int32_t (*d)[8]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int first = 0; first < width; first += 16) {
    __m256i codes[4], sizes[4];
    for (int j = 0; j < 4; j++) {
      codes[j] = _mm256_loadu_si256((const __m256i *)(at + 8 * width * o + 8 * first + 32 * j));
      sizes[j] = _mm256_abs_epi8(codes[j]);
    }
    for (int t = 0; t < tokens; t++) {
      __m256i p[4];
      for (int j = 0; j < 4; j++) {
        __m256i y = four_bytes(x + PACKET * t + first + 4 * j);
        p[j] = _mm256_madd_epi16(_mm256_maddubs_epi16(sizes[j], _mm256_sign_epi8(y, codes[j])), ones);
      }
      __m256i a = _mm256_add_epi32(_mm256_add_epi32(p[0], p[1]), _mm256_add_epi32(p[2], p[3]));
      a = _mm256_add_epi32(a, first ? _mm256_load_si256((const __m256i *)d[t]) : lacking(base, sums[t]));
      _mm256_store_si256((__m256i *)d[t], a);
    }
  }
}

/* D of one tile for some tokens, x [tokens][32] and their sums [tokens]: codes as stored are `base` below the true ones. */
INLINE void dots(const uint8_t *at, int bits, int width, const int8_t *x, int32_t base, const int32_t *sums, int tokens,
                 int32_t (*d)[TOKENS][8]) {
  int quarter = width * LANES * bits / 32 + LANES;
  for (int o = 0; o < 4; o++) {
    prefetch(at + quarter * o, quarter);
    if (bits == 4) dots4(at, width, o, x, base, sums, tokens, d[o]);
    else dots8(at, width, o, x, base, sums, tokens, d[o]);
  }
}

INLINE void eight_scales(const uint8_t *at, int kind, int first, __m256d *y) {
  __m256 all = kind == HALF ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at + 2 * first)))
                            : _mm256_loadu_ps((const float *)(at + 4 * first));
  y[0] = _mm256_cvtps_pd(_mm256_castps256_ps128(all));
  y[1] = _mm256_cvtps_pd(_mm256_extractf128_ps(all, 1));
}

/* The scales and minima of eight rows into s [4]. */
INLINE void scales_and_minima(const uint8_t *at, int kind, int minimum, int o, __m256d *s) {
  eight_scales(at, kind, 8 * o, s);
  if (minimum) eight_scales(at + (kind == HALF ? 2 : 4) * LANES, kind, 8 * o, s + 2);
}

/* low + 2^DEEP * high += floor(a * f), both rounding down; the product has at most 39 bits, so it is exact. */
INLINE __m256d deep_term(__m256d a, __m256d f, __m256d low, double *high) {
  __m256d x = _mm256_mul_pd(a, f), h = _mm256_loadu_pd(high), up = _mm256_fmadd_pd(x, _mm256_set1_pd(1 / DEEP_ROOM), h);
  _mm256_storeu_pd(high, up);
  return _mm256_add_pd(low, _mm256_fnmadd_pd(_mm256_sub_pd(up, h), _mm256_set1_pd(DEEP_ROOM), x));
}

/* y [2] += the terms of one group, eight rows and one token; s [4] as above, `high` the high sums of a deep matrix. */
INLINE void eight_terms(const __m128i *d, const __m256d *s, double factor, double scaled_sum, int kind, int minimum,
                        __m256d *y, double *high) {
  __m256d f = _mm256_set1_pd(factor), a = _mm256_set1_pd(scaled_sum);
  for (int i = 0; i < 2; i++) {
    __m256d p = _mm256_mul_pd(_mm256_cvtepi32_pd(d[i]), s[i]);
    y[i] = kind == WIDE ? deep_term(p, f, y[i], high + 4 * i) : _mm256_fmadd_pd(p, f, y[i]);
    if (minimum) y[i] = kind == WIDE ? deep_term(s[2 + i], a, y[i], high + 4 * i) : _mm256_fmadd_pd(s[2 + i], a, y[i]);
  }
}

/* The terms of some groups for `count` tokens from t on, eight rows from `row` on. */
INLINE void terms_of_tokens(const Held *held, int groups, Factors x, int kind, int minimum, int row, int t, int count,
                            double *sums, double *high) {
  __m256d y[TOGETHER][2];
  for (int i = 0; i < count; i++) {
    y[i][0] = _mm256_loadu_pd(sums + LANES * i);
    y[i][1] = _mm256_loadu_pd(sums + LANES * i + 4);
  }
  for (int g = 0; g < groups; g++) {
    const double *from = held->scales[g][row / 8][0];
    __m256d s[4] = {_mm256_load_pd(from), _mm256_load_pd(from + 4)};
    if (minimum) s[2] = _mm256_load_pd(from + 8), s[3] = _mm256_load_pd(from + 12);
    int at = ((x.first + g) >> x.halved) * x.stored + t, sum = (x.first + g) * x.stored + t;
    for (int i = 0; i < count; i++)
      eight_terms((const __m128i *)held->dots[g][row / 8][t + i], s, x.factor[at + i], x.scaled_sum[sum + i], kind, minimum, y[i], high + LANES * i);
  }
  for (int i = 0; i < count; i++) {
    _mm256_storeu_pd(sums + LANES * i, y[i][0]);
    _mm256_storeu_pd(sums + LANES * i + 4, y[i][1]);
  }
}

INLINE void hold_scales(const uint8_t *at, int kind, int minimum, double (*scales)[2][8]) {
  for (int o = 0; o < 4; o++) {
    __m256d s[4];
    scales_and_minima(at, kind, minimum, o, s);
    for (int i = 0; i < 2 + 2 * minimum; i++) _mm256_store_pd(scales[o][0] + 4 * i, s[i]);
  }
}

/* One token: sums [32] += the terms of the groups first..last-1. Nothing is held; the sums stay in registers. */
INLINE void one_token(const uint8_t *at, int tile_bytes, int bits, int width, int kind, int minimum, int32_t base,
                      const Packets *p, int stored, int from, int first, int last, double *sums) {
  const double *scaled = width == PACKET ? p->scaled : p->half_scaled;
  const int32_t *sums_of = width == PACKET ? p->sums : p->half_sums;
  int code_bytes = width * LANES * bits / 8, quarter = (code_bytes + (1 + minimum) * (kind == HALF ? 2 : 4) * LANES) / 4;
  __m256d y[4][2], s[4];
  for (int i = 0; i < 8; i++) y[i / 2][i % 2] = _mm256_loadu_pd(sums + 4 * i);
  for (int g = first; g < last; g++, at += tile_bytes) {
    int64_t packet = (int64_t)(g * width / PACKET) * stored + from, sum = (int64_t)g * stored + from;
    const int8_t *x = p->codes + packet * PACKET + g * width % PACKET;
    __m256i add = _mm256_set1_epi32(base * sums_of[sum]);
    for (int o = 0; o < 4; o++) {
      prefetch(at + quarter * o, quarter);
      __m256i d = _mm256_add_epi32(bits == 4 ? one_dot4(at, width, o, x) : dot8(at, width, o, x), add);
      __m128i halves[2] = {_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1)};
      scales_and_minima(at + code_bytes, kind, minimum, o, s);
      eight_terms(halves, s, p->factor[packet], scaled[sum], kind, minimum, y[o], sums + LANES + 8 * o);
    }
  }
  for (int i = 0; i < 8; i++) _mm256_storeu_pd(sums + 4 * i, y[i / 2][i % 2]);
}
