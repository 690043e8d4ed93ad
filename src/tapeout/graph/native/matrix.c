/* Matrix times vectors. Each byte of a matrix is read once from memory for all tokens of a pass.

   A term of a row's sum is floor(D * scale * factor). D * scale and scale * 2^k are exact in binary64. With AVX2 the sum
   stands at 1.5 * 2^52 and the processor rounds towards minus infinity: a fused multiply-add then adds the floor of its
   product, exactly, while |sum| < 2^51. `period` says for how many groups that is proved. The sums of all periods are
   added in binary64 where they are proved to stay below 2^53 (`fits`), else in int64.
   Scales in binary16 stand 2^16 too low; there the sum stands at 1.5 * 2^36, whose last place is 2^-16.
   Where a single term may reach 2^51 (`deep`), its multiple of 2^DEEP and the rest are summed apart.

   Of several tokens the dot products D of some groups are made first and held, then their terms are summed with the sums in
   registers: two short loops, each of which a processor overlaps better than one long chain per token. A token alone waits for
   memory, which wants the bytes of a block one after the other: its D and terms are made group by group. */
#include <stdlib.h>

#include "engine.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

#define BLOCKS 16     /* blocks summed before their results are rounded, where one token is multiplied */
#define TOKENS 8      /* tokens summed at a time: they find the block of rows in the processor's cache */
#define GROUPS 8      /* groups whose dot products are held */
#define TOGETHER 4    /* tokens whose sums stand in registers together */
#define DEEP 26
#define DEEP_ROOM 0x1p26

enum { SINGLE, HALF, WIDE }; /* how scales are stored; WIDE: binary32 of a deep matrix */

/* Of some groups and tokens: D, and the scales in binary64; both by eights of rows. */
typedef struct {
  _Alignas(32) int32_t dots[GROUPS][4][TOKENS][8];
  _Alignas(32) double scales[GROUPS][4][2][8]; /* then the minima */
} Held;

/* What multiplies D and the minima of the groups from `first` on: of group g and token t at [g * stored + t], but factors at
   [(g >> halved) * stored + t]. */
typedef struct {
  const double *factor, *scaled_sum;
  int first, halved, stored;
} Factors;

#ifdef __AVX2__

#define START(m) ((m)->halves ? 0x1.8p36 : 0x1.8p52)
#define SCALE_POWER(m) ((m)->halves ? 16 : 0)
#define INLINE static inline __attribute__((always_inline))

INLINE __m256i four_bytes(const int8_t *x) {
  int32_t word;
  memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}

/* Memory is asked for a little at a time between the arithmetic: all at once, it stood in line for the requests that
   a core can have under way (10 against 16 GB/s). */
#define AHEAD 4096
INLINE void prefetch(const uint8_t *at, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)at + i, _MM_HINT_T0);
}

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

INLINE void dots4(const uint8_t *at, int width, int o, const int8_t *x, int tokens, int32_t (*d)[8]) {
  const __m256i low_half = _mm256_set1_epi8(15);
  __m256i codes[8];
  for (int j = 0; j < width / 8; j++) {
    __m256i both = _mm256_loadu_si256((const __m256i *)(at + 4 * width * o + 32 * j));
    codes[2 * j] = _mm256_and_si256(both, low_half);
    codes[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
  }
  for (int t = 0; t < tokens; t++) _mm256_store_si256((__m256i *)d[t], dot4(codes, width, x + PACKET * t));
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
INLINE void dots8(const uint8_t *at, int width, int o, const int8_t *x, int tokens, int32_t (*d)[8]) {
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
      if (first) a = _mm256_add_epi32(a, _mm256_load_si256((const __m256i *)d[t]));
      _mm256_store_si256((__m256i *)d[t], a);
    }
  }
}

/* D [4 eights of rows][tokens][8] of one tile, of the codes as stored. */
INLINE void dots(const uint8_t *at, int bits, int width, const int8_t *x, int tokens, int32_t (*d)[TOKENS][8]) {
  int quarter = width * LANES * bits / 32 + LANES;
  for (int o = 0; o < 4; o++) {
    prefetch(at + AHEAD + quarter * o, quarter);
    if (bits == 4) dots4(at, width, o, x, tokens, d[o]);
    else dots8(at, width, o, x, tokens, d[o]);
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

/* The terms of some groups for `count` tokens from t on, eight rows. */
INLINE void terms_of_tokens(const Held *held, int groups, Factors x, int kind, int minimum, int o, int t, int count,
                            double *sums, double *high) {
  __m256d y[4][2];
  for (int i = 0; i < count; i++) {
    y[i][0] = _mm256_loadu_pd(sums + LANES * i);
    y[i][1] = _mm256_loadu_pd(sums + LANES * i + 4);
  }
  for (int g = 0; g < groups; g++) {
    const double *from = held->scales[g][o][0];
    __m256d s[4] = {_mm256_load_pd(from), _mm256_load_pd(from + 4)};
    if (minimum) s[2] = _mm256_load_pd(from + 8), s[3] = _mm256_load_pd(from + 12);
    int at = ((x.first + g) >> x.halved) * x.stored + t, sum = (x.first + g) * x.stored + t;
    for (int i = 0; i < count; i++)
      eight_terms((const __m128i *)held->dots[g][o][t + i], s, x.factor[at + i], x.scaled_sum[sum + i], kind, minimum, y[i], high + LANES * i);
  }
  for (int i = 0; i < count; i++) {
    _mm256_storeu_pd(sums + LANES * i, y[i][0]);
    _mm256_storeu_pd(sums + LANES * i + 4, y[i][1]);
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
      prefetch(at + AHEAD + quarter * o, quarter);
      __m256i d = _mm256_add_epi32(bits == 4 ? one_dot4(at, width, o, x) : dot8(at, width, o, x), add);
      __m128i halves[2] = {_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1)};
      scales_and_minima(at + code_bytes, kind, minimum, o, s);
      eight_terms(halves, s, p->factor[packet], scaled[sum], kind, minimum, y[o], sums + LANES + 8 * o);
    }
  }
  for (int i = 0; i < 8; i++) _mm256_storeu_pd(sums + 4 * i, y[i / 2][i % 2]);
}

typedef void (*One)(const uint8_t *, int, int32_t, const Packets *, int, int, int, int, double *);
#define KERNEL(bits, width, kind, minimum)                                                                             \
  static __attribute__((noinline)) void one_##bits##_##width##_##kind##_##minimum(const uint8_t *at, int tile_bytes,     \
      int32_t base, const Packets *p, int stored, int from, int first, int last, double *s) {                          \
    one_token(at, tile_bytes, bits, width, kind, minimum, base, p, stored, from, first, last, s);                      \
  }
#define BOTH(bits, width, kind) KERNEL(bits, width, kind, 0) KERNEL(bits, width, kind, 1)
#define KERNELS(bits, width) BOTH(bits, width, SINGLE) BOTH(bits, width, HALF) BOTH(bits, width, WIDE)
KERNELS(4, 16) KERNELS(4, 32) KERNELS(8, 16) KERNELS(8, 32)
#define PAIR(bits, width, kind) {one_##bits##_##width##_##kind##_0, one_##bits##_##width##_##kind##_1}
#define NAMES(bits, width) {PAIR(bits, width, SINGLE), PAIR(bits, width, HALF), PAIR(bits, width, WIDE)}
static const One ONE_OF[2][2][3][2] = {{NAMES(4, 16), NAMES(4, 32)}, {NAMES(8, 16), NAMES(8, 32)}};

/* sums [tokens][32] += the terms of some groups, whose first scales stand at `at`; the high sums of a deep matrix stand
   behind the sums. */
INLINE void terms(const uint8_t *at, int tile_bytes, Held *held, int groups, Factors x, int kind, int minimum, int tokens,
                  double *sums) {
  double *high = sums + LANES * tokens;
  for (int g = 0; g < groups; g++)
    for (int o = 0; o < 4; o++) {
      __m256d s[4];
      scales_and_minima(at + (int64_t)g * tile_bytes, kind, minimum, o, s);
      for (int i = 0; i < 2 + 2 * minimum; i++) _mm256_store_pd(held->scales[g][o][0] + 4 * i, s[i]);
    }
  for (int o = 0; o < 4; o++) {
    int t = 0;
    for (; t + TOGETHER <= tokens; t += TOGETHER)
      terms_of_tokens(held, groups, x, kind, minimum, o, t, TOGETHER, sums + LANES * t + 8 * o, high + LANES * t + 8 * o);
    for (; t < tokens; t++)
      terms_of_tokens(held, groups, x, kind, minimum, o, t, 1, sums + LANES * t + 8 * o, high + LANES * t + 8 * o);
  }
}

/* Rounding towards minus infinity, and back. Nothing else may be computed between the two: see `sum_down`. */
static unsigned round_down(void) {
  unsigned old = _mm_getcsr();
  _mm_setcsr(old | 0x2000);
  return old;
}
static void round_back(unsigned old) { _mm_setcsr(old); }

#else

#define START(m) 0.0
#define SCALE_POWER(m) 0
#define INLINE static inline

static inline double scale_of(const uint8_t *at, int kind, int r) {
  uint16_t half;
  float single;
  if (kind == HALF) {
    memcpy(&half, at + 2 * r, 2);
    return half_value(half) * 65536.0;
  }
  memcpy(&single, at + 4 * r, 4);
  return single;
}

static inline int32_t dot(const uint8_t *at, const int8_t *x, int bits, int width, int r) {
  int32_t d = 0;
  if (bits == 8)
    for (int k = 0; k < width; k++) d += (int8_t)at[8 * width * (r / 8) + 32 * (k / 4) + 4 * (r % 8) + k % 4] * x[k];
  else
    for (int j = 0; j < width / 8; j++)
      for (int c = 0; c < 4; c++) {
        uint8_t both = at[4 * width * (r / 8) + 32 * j + 4 * (r % 8) + c];
        d += (both & 15) * x[8 * j + c] + (both >> 4) * x[8 * j + 4 + c];
      }
  return d;
}

/* D [4 eights of rows][tokens][8] of one tile, of the codes as stored. */
static inline void dots(const uint8_t *at, int bits, int width, const int8_t *x, int tokens, int32_t (*d)[TOKENS][8]) {
  for (int t = 0; t < tokens; t++)
    for (int r = 0; r < LANES; r++) d[r / 8][t][r % 8] = dot(at, x + PACKET * t, bits, width, r);
}

/* sum[0] + 2^DEEP * sum[high] += floor(x), high 0 where no term is deep. */
static inline void add_floor(double *sum, int high, double x) {
  double part = high ? floor(x / DEEP_ROOM) : 0.0;
  if (high) sum[high] += part;
  sum[0] += floor(x - part * DEEP_ROOM);
}

/* sums [tokens][32] += the terms of some groups, whose first scales stand at `at`; the high sums of a deep matrix stand
   behind the sums. */
static inline void terms(const uint8_t *at, int tile_bytes, Held *held, int groups, Factors x, int kind, int minimum,
                         int tokens, double *sums) {
  int high = kind == WIDE ? LANES * tokens : 0;
  for (int g = 0; g < groups; g++, at += tile_bytes)
    for (int r = 0; r < LANES; r++) {
      double scale = scale_of(at, kind, r), low = minimum ? scale_of(at, kind, LANES + r) : 0.0;
      for (int t = 0; t < tokens; t++) {
        double d = held->dots[g][r / 8][t][r % 8];
        add_floor(sums + LANES * t + r, high, d * scale * x.factor[((x.first + g) >> x.halved) * x.stored + t]);
        if (minimum) add_floor(sums + LANES * t + r, high, low * x.scaled_sum[(x.first + g) * x.stored + t]);
      }
    }
}

static unsigned round_down(void) { return 0; }
static void round_back(unsigned old) { (void)old; }

#endif

/* D of the groups first..last-1 of a block, whose first tile of them stands at `at`, for the tokens from `from` on. */
INLINE void dots_of_groups(const uint8_t *at, int tile_bytes, int bits, int width, const Packets *p, int stored, int from,
                           int tokens, int first, int last, Held *held) {
  for (int g = first; g < last; g++, at += tile_bytes) {
    int64_t x = ((int64_t)(g * width / PACKET) * stored + from) * PACKET + g * width % PACKET;
    dots(at, bits, width, p->codes + x, tokens, held->dots[g - first]);
  }
}

typedef void (*Dots)(const uint8_t *, int, const Packets *, int, int, int, int, int, Held *);
#define DOTS(bits, width)                                                                                              \
  static __attribute__((noinline)) void dots_##bits##_##width(const uint8_t *at, int tile_bytes, const Packets *p,      \
      int stored, int from, int tokens, int first, int last, Held *held) {                                             \
    dots_of_groups(at, tile_bytes, bits, width, p, stored, from, tokens, first, last, held);                           \
  }
DOTS(4, 16) DOTS(4, 32) DOTS(8, 16) DOTS(8, 32)
static const Dots DOTS_OF[2][2] = {{dots_4_16, dots_4_32}, {dots_8_16, dots_8_32}};

typedef void (*Terms)(const uint8_t *, int, Held *, int, Factors, int, double *);
#define TERMS(kind, minimum)                                                                                           \
  static __attribute__((noinline)) void terms_##kind##_##minimum(                                                      \
      const uint8_t *at, int tile_bytes, Held *held, int groups, Factors x, int tokens, double *sums) {                \
    terms(at, tile_bytes, held, groups, x, kind, minimum, tokens, sums);                                               \
  }
TERMS(SINGLE, 0) TERMS(SINGLE, 1) TERMS(HALF, 0) TERMS(HALF, 1) TERMS(WIDE, 0) TERMS(WIDE, 1)
static const Terms TERMS_OF[3][2] = {
  {terms_SINGLE_0, terms_SINGLE_1}, {terms_HALF_0, terms_HALF_1}, {terms_WIDE_0, terms_WIDE_1}};

/* D += base * A: what a stored code is above the true one without the offset. */
static void add_offset(int32_t base, const int32_t *sums, int stored, int tokens, int groups, Held *held) {
  for (int g = 0; g < groups; g++)
    for (int o = 0; o < 4; o++)
      for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 8; r++) held->dots[g][o][t][r] += base * sums[g * stored + t];
}

/* One block's groups first..last-1 into sums [tokens][32]. */
static void block_sum(const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int first, int last,
                      double *sums) {
  Dots dots_of = DOTS_OF[m->bits == 8][m->columns == 32];
  Terms terms_of = TERMS_OF[m->deep ? WIDE : m->halves][m->has_minimum];
  int halved = m->columns < PACKET, base = m->offset - (m->bits == 4 ? 8 : 0);
  int code_bytes = m->columns * LANES * m->bits / 8;
  const uint8_t *tiles = m->tiles + (int64_t)block * m->groups * m->tile_bytes;
  const int32_t *sums_of = (halved ? p->half_sums : p->sums) + from;
  const double *scaled = (halved ? p->half_scaled : p->scaled) + from;
#ifdef __AVX2__
  if (tokens == 1) {
    ONE_OF[m->bits == 8][m->columns == 32][m->deep ? WIDE : m->halves][m->has_minimum](
        tiles + (int64_t)first * m->tile_bytes, m->tile_bytes, base, p, stored, from, first, last, sums);
    return;
  }
#endif
  Held held;
  for (int g = first; g < last; g += GROUPS) {
    int end = last - g < GROUPS ? last : g + GROUPS;
    const uint8_t *at = tiles + (int64_t)g * m->tile_bytes;
    dots_of(at, m->tile_bytes, p, stored, from, tokens, g, end, &held);
    if (base) add_offset(base, sums_of + (int64_t)g * stored, stored, tokens, end - g, &held);
    terms_of(at + code_bytes, m->tile_bytes, &held, end - g, (Factors){p->factor + from, scaled, g, halved, stored}, tokens, sums);
  }
}

/* Sums [blocks][tokens][32] from START on, of a deep matrix one block's [2][tokens][32]; a function of its own, so that no other arithmetic rounds down. */
static __attribute__((noinline)) void sum_down(
    const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int blocks, int first, int last, double *sums) {
  double start = START(m);
  unsigned old = round_down();
  for (int i = 0; i < (1 + m->deep) * blocks * tokens * LANES; i++) sums[i] = start;
  for (int b = 0; b < blocks; b++)
    block_sum(m, p, stored, from, tokens, block + b, first, last, sums + b * tokens * LANES);
  round_back(old);
}

/* y [rows] = sums [rows], exact integers, times 2^(exponent + k), and the factor where there is one. */
INLINE int32_t round_rows(const double *sums, const int64_t *exponent, int64_t k, float factor, int rows, float *restrict y) {
  int32_t infinite = 0;
  for (int r = 0; r < rows; r++) y[r] = f32_of_double(sums[r], exponent[r] + k);
  if (factor != 1.0f)
    for (int r = 0; r < rows; r++) y[r] = mul32(y[r], factor);
  for (int r = 0; r < rows; r++) infinite += fabsf(y[r]) > 0x1.fffffep127f;
  return infinite;
}

/* Round sums [tokens][32] of a block. */
static int64_t finish(const Matrix *m, const Packets *p, int from, int tokens, int block, const double *sums, float *out) {
  int64_t bad = 0, power = SCALE_POWER(m);
  const int64_t *exponent = m->exponent + LANES * block;
  int rows = m->rows - LANES * block < LANES ? m->rows - LANES * block : LANES;
  for (int t = 0; t < tokens; t++) {
    int64_t k = power + p->e_max[from + t];
    float *y = out + (int64_t)t * m->rows + LANES * block;
    if (rows == LANES) bad += round_rows(sums + LANES * t, exponent, k, m->factor, LANES, y);
    else bad += round_rows(sums + LANES * t, exponent, k, m->factor, rows, y);
  }
  return bad;
}

/* Some blocks whose sums binary64 holds: `period` groups at a time, then the periods together. */
static int64_t blocks_within(
    const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int blocks, float *out) {
  double sums[BLOCKS * LANES], part[BLOCKS * LANES], start = START(m);
  int64_t bad = 0;
  int count = blocks * tokens * LANES;
  for (int g = 0; g < m->groups; g += m->period) {
    int last = g + m->period < m->groups ? g + m->period : m->groups;
    sum_down(m, p, stored, from, tokens, block, blocks, g, last, part);
    if (g == 0)
      for (int i = 0; i < count; i++) sums[i] = part[i] - start;
    else
      for (int i = 0; i < count; i++) sums[i] += part[i] - start;
  }
  for (int b = 0; b < blocks; b++) bad += finish(m, p, from, tokens, block + b, sums + b * tokens * LANES, out);
  return bad;
}

/* A block whose sums may need int64. */
static int64_t block_beyond(const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, float *out) {
  double part[2 * TOKENS * LANES], start = START(m), power = pow2(SCALE_POWER(m));
  int64_t total[TOKENS * LANES] = {0}, bad = 0;
  for (int g = 0; g < m->groups; g += m->period) {
    int last = g + m->period < m->groups ? g + m->period : m->groups;
    sum_down(m, p, stored, from, tokens, block, 1, g, last, part);
    for (int i = 0; i < tokens * LANES; i++) total[i] += (int64_t)((part[i] - start) * power);
    for (int i = 0; m->deep && i < tokens * LANES; i++) total[i] += (int64_t)(part[tokens * LANES + i] - start) << DEEP;
  }
  for (int t = 0; t < tokens; t++)
    for (int r = 0; r < LANES && LANES * block + r < m->rows; r++) {
      int row = LANES * block + r;
      float y = mul32(f32_of(total[LANES * t + r], m->exponent[row] + p->e_max[from + t]), m->factor);
      out[(int64_t)t * m->rows + row] = y;
      bad += !isfinite(y);
    }
  return bad;
}

int64_t multiply(const Matrix *m, const Packets *p, int stored, int from, int tokens, int first, int last, float *out) {
  int64_t bad = 0;
  int room = m->fits && 0 < tokens && tokens <= TOKENS ? BLOCKS / tokens : 1;
  for (int block = first; block < last; block += room)
    for (int t = 0; t < tokens; t += TOKENS) {
      int some = tokens - t < TOKENS ? tokens - t : TOKENS, blocks = last - block < room ? last - block : room;
      float *y = out + (int64_t)t * m->rows;
      if (m->fits) bad += blocks_within(m, p, stored, from + t, some, block, blocks, y);
      else bad += block_beyond(m, p, stored, from + t, some, block, y);
    }
  return bad;
}

/* codes int8 [tiles][columns][32 rows] and scales [tiles][32 rows] of `scale_bytes` each into `out`: see `Matrix`.
   reach [tiles][32 rows]: the sum of |code + offset|. */
void pack_tiles(const int8_t *codes, const uint8_t *scale, const uint8_t *minimum, int64_t tiles, int columns, int bits,
                int scale_bytes, int offset, uint8_t *out, int32_t *reach) {
  int bytes = scale_bytes * LANES;
  for (int64_t i = 0; i < tiles; i++, codes += columns * LANES, reach += LANES) {
    memset(reach, 0, LANES * sizeof *reach);
    for (int k = 0; k < columns; k++)
      for (int r = 0; r < LANES; r++) {
        int code = codes[LANES * k + r], eight = columns * bits * (r / 8), lane = 4 * (r % 8) + k % 4;
        reach[r] += abs(code + offset);
        if (bits == 8) out[eight + 32 * (k / 4) + lane] = (uint8_t)code;
        else if (k % 8 < 4) out[eight + 32 * (k / 8) + lane] = (uint8_t)(code + 8);
        else out[eight + 32 * (k / 8) + lane] |= (uint8_t)((code + 8) << 4);
      }
    out += columns * LANES * bits / 8;
    memcpy(out, scale + i * bytes, bytes);
    out += bytes;
    if (!minimum) continue;
    memcpy(out, minimum + i * bytes, bytes);
    out += bytes;
  }
}
