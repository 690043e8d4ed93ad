/* Matrix times vectors. Each byte of a matrix is read once from memory for all tokens of a pass.

   A term of a row's sum is floor(D * scale * factor). D * scale and scale * 2^k are exact in binary64. With AVX2 or AVX-512 the sum
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

#define BLOCKS 16     /* blocks summed before their results are rounded, where one token is multiplied */
#define TOKENS 8      /* tokens summed at a time: they find the block of rows in the processor's cache */
#define GROUPS 8      /* groups whose dot products are held */
#define DEEP 26
#define DEEP_ROOM 0x1p26

enum { SINGLE, HALF, WIDE }; /* how scales are stored; WIDE: binary32 of a deep matrix */

/* What multiplies D and the minima of the groups from `first` on: of group g and token t at [g * stored + t], but factors at
   [(g >> halved) * stored + t]. */
typedef struct {
  const double *factor, *scaled_sum;
  int first, halved, stored;
} Factors;

/* Each gives `dots` and `terms` (or what `terms` below is made of, and `one_token`), `Held` between the two, EIGHT_BIT_BASE
   that codes stored in 8 bits are multiplied above their own value, and START, where a sum stands when it is nought. */
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#include "kernels_avx512.h"
#elif defined(__AVX2__)
#include "kernels_avx2.h"
#else
#include "kernels_portable.h"
#endif

#ifdef TOGETHER
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
  for (int g = 0; g < groups; g++) hold_scales(at + (int64_t)g * tile_bytes, kind, minimum, held->scales[g]);
  for (int row = 0; row < LANES; row += ROWS) {
    int t = 0;
    for (; t + TOGETHER <= tokens; t += TOGETHER)
      terms_of_tokens(held, groups, x, kind, minimum, row, t, TOGETHER, sums + LANES * t + row, high + LANES * t + row);
    for (; t < tokens; t++)
      terms_of_tokens(held, groups, x, kind, minimum, row, t, 1, sums + LANES * t + row, high + LANES * t + row);
  }
}
#endif

/* D of the groups first..last-1 of a block, whose first tile of them stands at `at`, for the tokens from `from` on. */
INLINE void dots_of_groups(const uint8_t *at, int tile_bytes, int bits, int width, int32_t base, const Packets *p, int stored,
                           int from, int tokens, int first, int last, Held *held) {
  const int32_t *sums = (width < PACKET ? p->half_sums : p->sums) + from;
  for (int g = first; g < last; g++, at += tile_bytes) {
    int64_t x = ((int64_t)(g * width / PACKET) * stored + from) * PACKET + g * width % PACKET;
    dots(at, bits, width, p->codes + x, base, sums + (int64_t)g * stored, tokens, held->dots[g - first]);
  }
}

typedef void (*Dots)(const uint8_t *, int, int32_t, const Packets *, int, int, int, int, int, Held *);
#define DOTS(bits, width, based)                                                                                       \
  static __attribute__((noinline)) void dots_##bits##_##width##_##based(const uint8_t *at, int tile_bytes, int32_t base, \
      const Packets *p, int stored, int from, int tokens, int first, int last, Held *held) {                           \
    dots_of_groups(at, tile_bytes, bits, width, based ? base : 0, p, stored, from, tokens, first, last, held);         \
  }
#define DOTS_BASED(bits, width) DOTS(bits, width, 0) DOTS(bits, width, 1)
DOTS_BASED(4, 16) DOTS_BASED(4, 32) DOTS_BASED(8, 16) DOTS_BASED(8, 32)
#define DOTS_PAIR(bits, width) {dots_##bits##_##width##_0, dots_##bits##_##width##_1}
static const Dots DOTS_OF[2][2][2] = {{DOTS_PAIR(4, 16), DOTS_PAIR(4, 32)}, {DOTS_PAIR(8, 16), DOTS_PAIR(8, 32)}};

typedef void (*Terms)(const uint8_t *, int, Held *, int, Factors, int, double *);
#define TERMS(kind, minimum)                                                                                           \
  static __attribute__((noinline)) void terms_##kind##_##minimum(                                                      \
      const uint8_t *at, int tile_bytes, Held *held, int groups, Factors x, int tokens, double *sums) {                \
    terms(at, tile_bytes, held, groups, x, kind, minimum, tokens, sums);                                               \
  }
TERMS(SINGLE, 0) TERMS(SINGLE, 1) TERMS(HALF, 0) TERMS(HALF, 1) TERMS(WIDE, 0) TERMS(WIDE, 1)
static const Terms TERMS_OF[3][2] = {
  {terms_SINGLE_0, terms_SINGLE_1}, {terms_HALF_0, terms_HALF_1}, {terms_WIDE_0, terms_WIDE_1}};

/* One block's groups first..last-1 into sums [tokens][32]. */
static void block_sum(const Matrix *m, const Packets *p, int stored, int from, int tokens, int block, int first, int last,
                      double *sums) {
  Terms terms_of = TERMS_OF[m->deep ? WIDE : m->halves][m->has_minimum];
  int halved = m->columns < PACKET, base = m->offset - (m->bits == 4 ? 8 : EIGHT_BIT_BASE);
  Dots dots_of = DOTS_OF[m->bits == 8][m->columns == 32][base != 0];
  int code_bytes = m->columns * LANES * m->bits / 8;
  const uint8_t *tiles = m->tiles + (int64_t)block * m->groups * m->tile_bytes;
  const double *scaled = (halved ? p->half_scaled : p->scaled) + from;
#ifdef TOGETHER
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
    dots_of(at, m->tile_bytes, base, p, stored, from, tokens, g, end, &held);
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
