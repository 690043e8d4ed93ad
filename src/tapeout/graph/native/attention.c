/* Keys and values as int8 with a scale per head and position; attention in two passes over them. What is looked back on may
   begin anywhere, and is read in eights: the cache has room for eight positions more than are held. */
#include "engine.h"

static inline int padded(int head_dim) { return (head_dim + 31) / 32 * 32; }

int64_t store(const Op *op, const Plan *plan, int first, int last) {
  int dim = padded(op->head_dim);
  for (int t = first; t < last; t++)
    for (int h = 0; h < op->kv_heads; h++) {
      int64_t at = (plan->stream[t] * op->kv_heads + h) * op->context + plan->position[t];
      int64_t from = ((int64_t)t * op->kv_heads + h) * op->head_dim;
      int32_t e;
      quantize_group(op->b + from, op->head_dim, op->most_key, plan->reciprocal, op->keys + at * dim, op->n_keys + at, &e);
      op->power_keys[at] = pow2(e);
      quantize_group(op->c + from, op->head_dim, op->most_value, plan->reciprocal, op->values + at * dim, op->n_values + at, op->e_values + at);
    }
  return 0;
}

#ifdef __AVX2__
#include <immintrin.h>

/* sums [4] = products of q with four keys, to be added across. Magnitudes of q times keys with q's signs: codes are
   -127..127, so two products fit a word. */
static inline void four_keys(const int8_t *q, const int8_t *keys, int dim, __m256i *sums) {
  for (int i = 0; i < 4; i++) sums[i] = _mm256_setzero_si256();
  for (int d = 0; d < dim; d += 32) {
    __m256i x = _mm256_loadu_si256((const __m256i *)(q + d)), magnitude = _mm256_abs_epi8(x);
    for (int i = 0; i < 4; i++) {
      __m256i key = _mm256_loadu_si256((const __m256i *)(keys + i * dim + d));
      __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(key, x));
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
}

/* dots [count padded to 4s] of q with keys [count padded to 4s][dim]; int32 and exact. */
static void dots(const int8_t *q, const int8_t *keys, int count, int dim, int32_t *out) {
  for (int i = 0; i < count; i += 4, keys += 4 * dim) {
    __m256i sums[4];
    four_keys(q, keys, dim, sums);
    __m256i c = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    _mm_storeu_si128((__m128i *)(out + i), _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1)));
  }
}
#else
static void dots(const int8_t *q, const int8_t *keys, int count, int dim, int32_t *out) {
  for (int i = 0; i < count; i++, keys += dim) {
    int32_t s = 0;
    for (int d = 0; d < dim; d++) s += q[d] * keys[d];
    out[i] = s;
  }
}
#endif

/* sums [dim] of weights times values [count][dim]. Eight products fit int32, all of them binary64. */
static void weigh(const int32_t *weights, const int8_t *values, int count, int dim, double *sums) {
  memset(sums, 0, dim * sizeof *sums);
  for (int i = 0; i < count; i += 8) {
    const int32_t *c = weights + i;
    const int8_t *v = values + (int64_t)i * dim;
    if (!(c[0] | c[1] | c[2] | c[3] | c[4] | c[5] | c[6] | c[7])) continue;
    for (int d = 0; d < dim; d++)
      sums[d] += c[0] * v[d] + c[1] * v[dim + d] + c[2] * v[2 * dim + d] + c[3] * v[3 * dim + d] +
                 c[4] * v[4 * dim + d] + c[5] * v[5 * dim + d] + c[6] * v[6 * dim + d] + c[7] * v[7 * dim + d];
  }
}

/* One head of one token. |S * nq * nk| < 2^31 while head_dim <= 512. */
static int64_t one(const Op *op, const Plan *plan, int t, int h, float *restrict scores, int32_t *restrict weights) {
  int dim = padded(op->head_dim), count = (int)plan->position[t] + 1, kv = h / (op->heads / op->kv_heads);
  int start = op->window && op->window < count ? count - op->window : 0;
  int64_t at = (plan->stream[t] * op->kv_heads + kv) * op->context + start;
  count -= start;
  int8_t q[512];
  int32_t nq, eq, infinite = 0, top = SMALLEST_E;
  memset(q, 0, dim);
  quantize_group(op->a + ((int64_t)t * op->heads + h) * op->head_dim, op->head_dim, 127, plan->reciprocal, q, &nq, &eq);
  dots(q, op->keys + at * dim, count, dim, weights);
  double power = pow2(eq);
  const int32_t *n_keys = op->n_keys + at, *n = op->n_values + at, *e = op->e_values + at;
  const double *power_keys = op->power_keys + at;
  for (int i = 0; i < count; i++) {
    float s = mul32((float)(weights[i] * nq * n_keys[i]), op->constant);
    scores[i] = flushed((float)(s * (power * power_keys[i])));
    top = e[i] > top ? e[i] : top;
  }
  if (op->factor != 0.0f)
    for (int i = 0; i < count; i++) scores[i] = mul32(tanh32(scores[i], plan->sigmoid), op->factor);
  for (int i = 0; i < count; i++) infinite += fabsf(scores[i]) > 0x1.fffffep127f;
  float greatest = scores[0];
  for (int i = 1; i < count; i++) greatest = scores[i] > greatest ? scores[i] : greatest;
  int64_t total = 0, bad = infinite;
  const int32_t *exp2 = plan->exp2;
  for (int i = 0; i < count; i++) weights[i] = probability(greatest, scores[i], exp2);
  for (int i = 0; i < count; i++) total += weights[i];
  for (int i = 0; i < count; i++) {
    int32_t down = top - e[i];
    weights[i] = (weights[i] * n[i]) >> (down < 31 ? down : 31);
  }
  for (int i = count; i % 8; i++) weights[i] = 0;
  double sums[512];
  weigh(weights, op->values + at * dim, count, dim, sums);
  float *out = op->out + (int64_t)t * op->width + h * op->head_dim, all = (float)total;
  double up = pow2(top);
  for (int d = 0; d < op->head_dim; d++) {
    float y = flushed((float)((double)div32((float)sums[d], all) * up));
    out[d] = y;
    bad += fabsf(y) > 0x1.fffffep127f;
  }
  return bad;
}

int64_t attend(const Op *op, const Plan *plan, int first, int last, int thread) {
  int64_t bad = 0, room = (int64_t)thread * plan->context;
  for (int pair = first; pair < last; pair++)
    bad += one(op, plan, pair / op->heads, pair % op->heads, plan->scores + room, plan->weights + room);
  return bad;
}
