/* The arithmetic contract (docs/numerics.md) in C: what numerics/kernels.py says, function by function.

   Plain IEEE binary32 and binary64: built without contraction and without any flag that changes a value. Loops are
   written with selects instead of branches, so that a compiler can run eight numbers at a time. */
#ifndef TAPEOUT_NUMBERS_H
#define TAPEOUT_NUMBERS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TINY 0x1p-126f
#define SMALLEST_E (-100)

static inline uint32_t bits_of(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
static inline float float_of(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }

/* 2^k, -1022 <= k <= 1023. */
static inline double pow2(int64_t k) { uint64_t b = (uint64_t)(k + 1023) << 52; double x; memcpy(&x, &b, 8); return x; }

/* The value of binary16 bits. */
static inline double half_value(uint16_t h) {
  int field = (h >> 10) & 31, mantissa = (h & 1023) | (field ? 1024 : 0);
  double size = mantissa * pow2((field ? field : 1) - 25);
  return h >> 15 ? -size : size;
}

/* 0 < |y| < 2^-126 becomes +0; an exact -0 stays. */
static inline float flushed(float y) {
  float z = fabsf(y) < TINY ? 0.0f : y;
  return y != 0.0f ? z : y;
}
static inline float add32(float a, float b) { return flushed(a + b); }
static inline float mul32(float a, float b) {
  float y = a * b, z = fabsf(y) < TINY ? 0.0f : y, w = b != 0.0f ? z : y;
  return a != 0.0f ? w : y;
}
static inline float div32(float a, float b) {
  float y = a / b, z = fabsf(y) < TINY ? 0.0f : y;
  return a != 0.0f ? z : y;
}

/* F(i, k) of an integer held exactly by a double; -900 < k < 900. binary64 holds the product, so it rounds once. */
static inline float f32_of_double(double i, int64_t k) { return flushed((float)(i * pow2(k))); }

/* F(i, k) of any int64. */
static inline float f32_of(int64_t i, int64_t k) {
  if (i == 0) return 0.0f;
  float f = (float)i;
  uint32_t b = bits_of(f), sign = b & 0x80000000u, fraction = b & 0x7FFFFFu;
  int64_t field = (int64_t)((b >> 23) & 255) + k;
  if (field >= 255) return float_of(sign | 0x7F800000u);
  if (field > 0) return float_of(sign | (uint32_t)field << 23 | fraction);
  if (field == 0 && fraction == 0x7FFFFFu && llabs(i) >= (int64_t)fabsf(f)) return float_of(sign | 0x800000u);
  return 0.0f;
}

/* X(x, k), |k| < 900. */
static inline float shift32(float x, int64_t k) { return flushed((float)((double)x * pow2(k))); }

/* The greatest magnitude of x [count], as bits: those of positive floats are ordered as integers. */
static inline uint32_t greatest_bits(const float *x, int count) {
  uint32_t largest = 0;
  for (int i = 0; i < count; i++) {
    uint32_t b = bits_of(x[i]) & 0x7FFFFFFFu;
    largest = b > largest ? b : largest;
  }
  return largest;
}

/* (n, e) of a group whose greatest magnitude has these bits and gets at most code `most`, 127 or 7. */
static inline void group_scale(uint32_t bits, int32_t most, int32_t *n, int32_t *e) {
  int32_t shift = most == 127 ? 13 : 17;
  int64_t m = (bits & 0x7FFFFFu) | 0x800000u, divisor = (int64_t)most << shift;
  *e = (int32_t)(bits >> 23) - 150 + shift;
  if (m > 15 * divisor) divisor *= 2, *e += 1;
  *n = (int32_t)((m + divisor - 1) / divisor);
  if (*n < 8) *n = 8;
  if (*e < SMALLEST_E) *n = 8, *e = SMALLEST_E;
}

/* Quantize one group: codes [count]. What the contract flushes in x/n is far below half a code, so it need not be. */
static inline void quantize_group(
    const float *x, int count, int32_t most, const float *reciprocal, int8_t *codes, int32_t *n, int32_t *e) {
  group_scale(greatest_bits(x, count), most, n, e);
  float r = reciprocal[*n], p = (float)pow2(-*e);
  for (int i = 0; i < count; i++) {
    int32_t c = (int32_t)rintf(x[i] * r * p);
    c = c > most ? most : c;
    codes[i] = (int8_t)(c < -most ? -most : c);
  }
}

/* rne(min(x, limit) * 2^16) of x >= 0; infinity and NaN count as large. */
static inline int32_t capped(float x, float limit) {
  float y = x < limit ? x : limit;
  return (int32_t)rintf(y * 65536.0f);
}

static inline int32_t sine24(uint32_t phase, const int32_t *sine) {
  uint32_t j = phase >> 22;
  int64_t low = sine[j], f = phase & 0x3FFFFF;
  return (int32_t)(low + (((sine[j + 1] - low) * f) >> 22));
}

/* x times the table's value at |x|, at most `limit`, in steps of 2^(bits-16); one less that for a negative x. */
static inline float gated(float x, const int32_t *table, float limit, int bits) {
  int32_t a = capped(fabsf(x), limit), j = a >> bits, f = a & ((1 << bits) - 1), low = table[j];
  int32_t t = low + (((table[j + 1] - low) * f) >> bits);
  t = x < 0.0f ? (1 << 24) - t : t;
  return mul32(x, (float)t * 0x1p-24f);
}
static inline float silu(float x, const int32_t *sigmoid) { return gated(x, sigmoid, 16.0f, 11); }
static inline float gelu(float x, const int32_t *table) { return gated(x, table, 8.0f, 10); }

/* 2 * sigmoid(2x) - 1; infinity where x is not finite. */
static inline float tanh32(float x, const int32_t *sigmoid) {
  int32_t a = capped(2.0f * fabsf(x), 16.0f), j = a >> 11, f = a & 2047, low = sigmoid[j];
  int32_t t = 2 * (low + (((sigmoid[j + 1] - low) * f) >> 11)) - (1 << 24);
  float y = (float)(x < 0.0f ? -t : t) * 0x1p-24f;
  return fabsf(x) <= 0x1.fffffep127f ? y : HUGE_VALF;
}

/* The integer softmax numerator of s <= m. */
static inline int32_t probability(float m, float s, const int32_t *exp2) {
  int32_t u = capped(add32(m, -s), 17.0f), i = u >> 16, j = (u >> 10) & 63, f = u & 1023, high = exp2[j];
  return (high - (((high - exp2[j + 1]) * f) >> 10) + (1 << (8 + i))) >> (9 + i);
}

#endif
