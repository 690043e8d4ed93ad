/* Matrix times vectors. Each byte of a matrix is read once for all tokens of a pass.

   A term of a row's sum is floor(D * scale * factor). D * scale and scale * 2^k are exact in binary64. With AVX2 the sum
   stands at 1.5 * 2^52 and the processor rounds towards minus infinity: a fused multiply-add then adds the floor of its
   product, exactly, while |sum| < 2^51. `period` says for how many groups that is proved. The sums of all periods are
   added in binary64 where they are proved to stay below 2^53 (`fits`), else in int64.
   Scales in binary16 stand 2^16 too low; there the sum stands at 1.5 * 2^36, whose last place is 2^-16.
   Where a single term may reach 2^51 (`deep`), its multiple of 2^DEEP and the rest are summed apart. */
#include <stdlib.h>

#include "engine.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

#define BLOCKS 16     /* blocks summed before their results are rounded, where one token is multiplied */
#define TOKENS 64     /* tokens summed at a time */
#define DEEP 26
#define DEEP_ROOM 0x1p26

enum { SINGLE, HALF, WIDE }; /* how scales are stored; WIDE: binary32 of a deep matrix */

/* What a group's product takes of the tokens: [tokens] each. */
typedef struct {
  const int8_t *codes;
  const int16_t *wide;
  double factor[TOKENS], scaled_sum[TOKENS];
  int32_t add[TOKENS];
} Group;

/* Group g of `width` columns of the tokens. `base` is what a stored code is above the true one without the offset. */
static inline __attribute__((always_inline)) void group_of(
    const Packets *p, const Matrix *m, int width, int stored, int from, int tokens, int g, Group *group) {
  int packet = g * width / PACKET, within = g * width % PACKET, base = m->offset - (m->bits == 4 ? 8 : 0);
  int64_t at = (int64_t)packet * stored + from;
  group->codes = p->codes + at * PACKET + within;
  group->wide = p->wide + at * PACKET + within;
  for (int t = 0; t < tokens; t++) {
    const int32_t *halves = p->sums + 2 * (at + t);
    int32_t sum = width == PACKET ? halves[0] + halves[1] : halves[within / 16];
    group->factor[t] = p->factor[at + t];
    group->scaled_sum[t] = sum * p->factor[at + t];
    group->add[t] = base * sum;
  }
}

#ifdef __AVX2__

#define START(m) ((m)->halves ? 0x1.8p36 : 0x1.8p52)
#define SCALE_POWER(m) ((m)->halves ? 16 : 0)

static inline __attribute__((always_inline)) void four_scales(const uint8_t *at, int halves, int first, __m256d *low, __m256d *high) {
  __m256 all = halves ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at + 2 * first)))
                      : _mm256_loadu_ps((const float *)(at + 4 * first));
  *low = _mm256_cvtps_pd(_mm256_castps256_ps128(all));
  *high = _mm256_cvtps_pd(_mm256_extractf128_ps(all, 1));
}

static inline __attribute__((always_inline)) __m256i four_bytes(const int8_t *x) {
  int32_t word;
  memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}

static inline __attribute__((always_inline)) __m256i two_words(const int16_t *x) {
  int32_t word;
  memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}

/* Memory is asked for a little at a time between the arithmetic: all at once, it stood in line for the requests that
   a core can have under way (10 against 16 GB/s). */
#define AHEAD 4096
static inline __attribute__((always_inline)) void prefetch(const uint8_t *at, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)at + i, _MM_HINT_T0);
}

/* low + 2^DEEP * high += floor(a * f), both rounding down; the product has at most 39 bits, so it is exact. */
static inline __attribute__((always_inline)) __m256d deep_term(__m256d a, __m256d f, __m256d low, double *high) {
  __m256d x = _mm256_mul_pd(a, f), h = _mm256_loadu_pd(high), up = _mm256_fmadd_pd(x, _mm256_set1_pd(1 / DEEP_ROOM), h);
  _mm256_storeu_pd(high, up);
  return _mm256_add_pd(low, _mm256_fnmadd_pd(_mm256_sub_pd(up, h), _mm256_set1_pd(DEEP_ROOM), x));
}

/* sums [tokens][32] += one tile; the high sums of a deep matrix stand behind them. All but the pointers and `tokens` are
   constants where it is called. */
static inline __attribute__((always_inline)) void tile(
    const uint8_t *at, const Group *x, int bits, int width, int kind, int minimum, int tokens, double *sums) {
  int halves = kind == HALF;
  const __m256i low_half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  const uint8_t *scales = at + width * LANES * bits / 8, *minima = scales + (halves ? 2 : 4) * LANES;
  int quarter = (width * LANES * bits / 8 + (1 + minimum) * (halves ? 2 : 4) * LANES) / 4;
  for (int o = 0; o < 4; o++) {
    prefetch(at + AHEAD + quarter * o, quarter);
    __m256i codes[8];
    if (bits == 4)
      for (int j = 0; j < width / 8; j++) {
        __m256i both = _mm256_loadu_si256((const __m256i *)(at + 128 * j + 32 * o));
        codes[2 * j] = _mm256_and_si256(both, low_half);
        codes[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
      }
    __m256d s0, s1, m0, m1;
    four_scales(scales, halves, 8 * o, &s0, &s1);
    if (minimum) four_scales(minima, halves, 8 * o, &m0, &m1);
    for (int t = 0; t < tokens; t++) {
      __m256i d;
      if (bits == 4) { /* at most 15 * 127 * 16 in a word: sixteen columns */
        d = _mm256_maddubs_epi16(codes[0], four_bytes(x->codes + PACKET * t));
        for (int k = 1; k < width / 4; k++)
          d = _mm256_add_epi16(d, _mm256_maddubs_epi16(codes[k], four_bytes(x->codes + PACKET * t + 4 * k)));
        d = _mm256_madd_epi16(d, ones);
      } else {
        d = _mm256_setzero_si256();
        for (int k = 0; k < width / 2; k++) {
          __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(at + 64 * k + 16 * o)));
          d = _mm256_add_epi32(d, _mm256_madd_epi16(w, two_words(x->wide + PACKET * t + 2 * k)));
        }
      }
      d = _mm256_add_epi32(d, _mm256_set1_epi32(x->add[t]));
      double *y = sums + LANES * t + 8 * o;
      __m256d f = _mm256_set1_pd(x->factor[t]);
      __m256d p0 = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(d)), s0);
      __m256d p1 = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(d, 1)), s1);
      __m256d a = _mm256_set1_pd(x->scaled_sum[t]), y0 = _mm256_loadu_pd(y), y1 = _mm256_loadu_pd(y + 4);
      double *high = y + LANES * tokens;
      y0 = kind == WIDE ? deep_term(p0, f, y0, high) : _mm256_fmadd_pd(p0, f, y0);
      y1 = kind == WIDE ? deep_term(p1, f, y1, high + 4) : _mm256_fmadd_pd(p1, f, y1);
      if (minimum) {
        y0 = kind == WIDE ? deep_term(m0, a, y0, high) : _mm256_fmadd_pd(m0, a, y0);
        y1 = kind == WIDE ? deep_term(m1, a, y1, high + 4) : _mm256_fmadd_pd(m1, a, y1);
      }
      _mm256_storeu_pd(y, y0);
      _mm256_storeu_pd(y + 4, y1);
    }
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

static inline double scale_of(const uint8_t *at, int halves, int r) {
  uint16_t half;
  float single;
  if (halves) {
    memcpy(&half, at + 2 * r, 2);
    return half_value(half) * 65536.0;
  }
  memcpy(&single, at + 4 * r, 4);
  return single;
}

static inline int32_t dot(const uint8_t *at, const int8_t *x, int bits, int width, int r) {
  int32_t d = 0;
  if (bits == 8)
    for (int k = 0; k < width; k++) d += (int8_t)at[64 * (k / 2) + 2 * r + k % 2] * x[k];
  else
    for (int j = 0; j < width / 8; j++)
      for (int c = 0; c < 4; c++) {
        uint8_t both = at[128 * j + 4 * r + c];
        d += (both & 15) * x[8 * j + c] + (both >> 4) * x[8 * j + 4 + c];
      }
  return d;
}

/* sum[0] + 2^DEEP * sum[high] += floor(x), high 0 where no term is deep. */
static inline void add_floor(double *sum, int high, double x) {
  double part = high ? floor(x / DEEP_ROOM) : 0.0;
  if (high) sum[high] += part;
  sum[0] += floor(x - part * DEEP_ROOM);
}

static inline void tile(
    const uint8_t *at, const Group *x, int bits, int width, int kind, int minimum, int tokens, double *sums) {
  int halves = kind == HALF, high = kind == WIDE ? LANES * tokens : 0;
  const uint8_t *scales = at + width * LANES * bits / 8, *minima = scales + (halves ? 2 : 4) * LANES;
  for (int r = 0; r < LANES; r++) {
    double scale = scale_of(scales, halves, r), low = minimum ? scale_of(minima, halves, r) : 0.0;
    for (int t = 0; t < tokens; t++) {
      double d = dot(at, x->codes + PACKET * t, bits, width, r) + x->add[t];
      add_floor(sums + LANES * t + r, high, d * scale * x->factor[t]);
      add_floor(sums + LANES * t + r, high, low * x->scaled_sum[t]);
    }
  }
}

static unsigned round_down(void) { return 0; }
static void round_back(unsigned old) { (void)old; }

#endif

/* One block's groups first..last-1 into sums [tokens][32]. */
static inline __attribute__((always_inline)) void block_sum(
    const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int first, int last, double *sums,
    int bits, int width, int kind, int minimum) {
  const uint8_t *at = m->tiles + ((int64_t)block * m->groups + first) * m->tile_bytes;
  int bytes = width * LANES * bits / 8 + (1 + minimum) * (kind == HALF ? 2 : 4) * LANES;
  Group x;
  for (int g = first; g < last; g++, at += bytes) {
    group_of(p, m, width, stored, from, tokens, g, &x);
    if (tokens == 1) tile(at, &x, bits, width, kind, minimum, 1, sums);
    else tile(at, &x, bits, width, kind, minimum, tokens, sums);
  }
}

typedef void (*BlockSum)(const Matrix *, const Packets *, int, int, int, int, int, int, double *);
#define KERNEL(bits, width, kind, minimum)                                                                             \
  static __attribute__((noinline)) void sum_##bits##_##width##_##kind##_##minimum(                                     \
      const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int first, int last, double *s) {\
    block_sum(m, p, stored, from, tokens, block, first, last, s, bits, width, kind, minimum);                          \
  }
#define BOTH(bits, width, kind) KERNEL(bits, width, kind, 0) KERNEL(bits, width, kind, 1)
#define KERNELS(bits, width) BOTH(bits, width, SINGLE) BOTH(bits, width, HALF) BOTH(bits, width, WIDE)
KERNELS(4, 16) KERNELS(4, 32) KERNELS(8, 16) KERNELS(8, 32)
#define PAIR(bits, width, kind) {sum_##bits##_##width##_##kind##_0, sum_##bits##_##width##_##kind##_1}
#define NAMES(bits, width) {PAIR(bits, width, SINGLE), PAIR(bits, width, HALF), PAIR(bits, width, WIDE)}
static const BlockSum KERNEL_OF[2][2][3][2] = {{NAMES(4, 16), NAMES(4, 32)}, {NAMES(8, 16), NAMES(8, 32)}};

/* Sums [blocks][tokens][32] from START on, of a deep matrix one block's [2][tokens][32]; a function of its own, so that no other arithmetic rounds down. */
static __attribute__((noinline)) void sum_down(
    const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int blocks, int first, int last, double *sums) {
  BlockSum kernel = KERNEL_OF[m->bits == 8][m->columns == 32][m->deep ? WIDE : m->halves][m->has_minimum];
  double start = START(m);
  unsigned old = round_down();
  for (int i = 0; i < (1 + m->deep) * blocks * tokens * LANES; i++) sums[i] = start;
  for (int b = 0; b < blocks; b++)
    kernel(m, p, stored, from, tokens, block + b, first, last, sums + b * tokens * LANES);
  round_back(old);
}

/* Round sums [tokens][32] of a block, exact integers. */
static int64_t finish(const Matrix *m, const Packets *p, int from, int tokens, int block, const double *sums, float *out) {
  int64_t bad = 0, power = SCALE_POWER(m);
  const int64_t *exponent = m->exponent + LANES * block;
  int rows = m->rows - LANES * block < LANES ? m->rows - LANES * block : LANES;
  for (int t = 0; t < tokens; t++) {
    int64_t k = power + p->e_max[from + t];
    float *y = out + (int64_t)t * m->rows + LANES * block;
    int32_t infinite = 0;
    for (int r = 0; r < rows; r++) {
      y[r] = f32_of_double(sums[LANES * t + r], exponent[r] + k);
      if (m->factor != 1.0f) y[r] = mul32(y[r], m->factor);
      infinite += fabsf(y[r]) > 0x1.fffffep127f;
    }
    bad += infinite;
  }
  return bad;
}

/* Some blocks whose sums binary64 holds: `period` groups at a time, then the periods together. */
static int64_t blocks_within(
    const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int blocks, float *out) {
  double sums[TOKENS * LANES], part[TOKENS * LANES], start = START(m);
  int64_t bad = 0;
  int count = blocks * tokens * LANES;
  memset(sums, 0, count * sizeof *sums);
  for (int g = 0; g < m->groups; g += m->period) {
    int last = g + m->period < m->groups ? g + m->period : m->groups;
    sum_down(m, p, stored, from, tokens, block, blocks, g, last, part);
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
  for (int t = 0; t < tokens; t += TOKENS) {
    int some = tokens - t < TOKENS ? tokens - t : TOKENS, room = some < BLOCKS && m->fits ? BLOCKS / some : 1;
    float *y = out + (int64_t)t * m->rows;
    for (int block = first; block < last; block += room) {
      int blocks = last - block < room ? last - block : room;
      if (m->fits) bad += blocks_within(m, p, stored, from + t, some, block, blocks, y);
      else bad += block_beyond(m, p, stored, from + t, some, block, y);
    }
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
        int code = codes[LANES * k + r];
        reach[r] += abs(code + offset);
        if (bits == 8) out[64 * (k / 2) + 2 * r + k % 2] = (uint8_t)code;
        else if (k % 8 < 4) out[128 * (k / 8) + 4 * r + k % 4] = (uint8_t)(code + 8);
        else out[128 * (k / 8) + 4 * r + k % 4] |= (uint8_t)((code + 8) << 4);
      }
    out += columns * LANES * bits / 8;
    memcpy(out, scale + i * bytes, bytes);
    out += bytes;
    if (!minimum) continue;
    memcpy(out, minimum + i * bytes, bytes);
    out += bytes;
  }
}
