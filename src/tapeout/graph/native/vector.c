/* The ops on single vectors, and the quantizer of what matrices read. */
#include "engine.h"

#define INFINITE(y) (fabsf(y) > 0x1.fffffep127f)

int64_t turns(const Op *op, const Plan *plan, int first, int last) {
  const int64_t *increments = op->weight;
  int half = op->head_dim / 2;
  for (int t = first; t < last; t++)
    for (int k = 0; k < half; k++) {
      uint32_t phase = (uint32_t)((uint64_t)plan->position[t] * (uint64_t)increments[k]);
      op->out[(int64_t)t * half + k] = (float)sine24(phase + 0x40000000u, plan->sine) * 0x1p-24f;
      op->out2[(int64_t)t * half + k] = (float)sine24(phase, plan->sine) * 0x1p-24f;
    }
  return 0;
}

/* Row `id` of a quantized table. */
static void table_row(const Op *op, int64_t id, float *restrict out) {
  int width = op->width, groups = (width + op->group - 1) / op->group;
  const int8_t *codes = (const int8_t *)op->weight + id * width;
  for (int g = 0; g < groups; g++) {
    double scale = op->scale[id * groups + g], minimum = op->minimum ? op->minimum[id * groups + g] : 0.0;
    for (int i = g * op->group; i < width && i < (g + 1) * op->group; i++)
      out[i] = mul32(flushed((float)(scale * (codes[i] + op->offset) + minimum + 0.0)), op->factor);
  }
}

static int32_t infinities(const float *x, int width) {
  int32_t infinite = 0;
  for (int i = 0; i < width; i++) infinite += INFINITE(x[i]);
  return infinite;
}

int64_t embed(const Op *op, const Plan *plan, int first, int last) {
  int64_t bad = 0;
  for (int t = first; t < last; t++) {
    float *out = op->out + (int64_t)t * op->width;
    table_row(op, plan->ids[t], out);
    bad += infinities(out, op->width);
  }
  return bad;
}

int64_t add_position(const Op *op, const Plan *plan, int first, int last) {
  int64_t bad = 0;
  for (int t = first; t < last; t++) {
    const float *x = op->a + (int64_t)t * op->width;
    float *restrict out = op->out + (int64_t)t * op->width;
    table_row(op, plan->position[t], out);
    for (int i = 0; i < op->width; i++) out[i] = add32(x[i], out[i]);
    bad += infinities(out, op->width);
  }
  return bad;
}

/* The exponent of the greatest magnitude of x, by which norms make integers. */
static int exponent_of(const float *x, int width) { return (int)(greatest_bits(x, width) >> 23) - 127; }

/* One vector: out may be x. */
static int64_t norm_one(const Op *op, const float *x, int width, float *out) {
  const float *weight = op->weight;
  int E = exponent_of(x, width);
  double power = pow2(22 - E);
  int64_t squares = 0;
  for (int i = 0; i < width; i++) {
    int32_t integer = (int32_t)rint(x[i] * power);
    squares += (int64_t)integer * integer;
  }
  float mean = add32(mul32(f32_of(squares, 2 * E - 44), op->inverse), op->eps);
  float r = isinf(mean) ? mean : div32(1.0f, flushed(sqrtf(mean)));
  int32_t infinite = !isfinite(r);
  for (int i = 0; i < width; i++) {
    float y = mul32(mul32(x[i], r), weight[i]);
    out[i] = y;
    infinite += INFINITE(y);
  }
  return infinite;
}

int64_t norm(const Op *op, const Plan *plan, int first, int last) {
  int64_t bad = 0;
  (void)plan;
  for (int64_t at = (int64_t)first * op->width; at < (int64_t)last * op->width; at += op->head_dim)
    bad += norm_one(op, op->a + at, op->head_dim, op->out + at);
  return bad;
}

int64_t layer_norm(const Op *op, const Plan *plan, int first, int last) {
  int width = op->width;
  int64_t bad = 0;
  (void)plan;
  for (int t = first; t < last; t++) {
    const float *x = op->a + (int64_t)t * width;
    float *restrict out = op->out + (int64_t)t * width;
    int E = exponent_of(x, width);
    double power = pow2(22 - E);
    int64_t sum = 0;
    for (int i = 0; i < width; i++) sum += (int32_t)rint(x[i] * power);
    float mean = mul32(f32_of(sum, E - 22), op->inverse);
    for (int i = 0; i < width; i++) out[i] = add32(x[i], -mean);
    int64_t infinite = infinities(out, width);
    if (!infinite) infinite = norm_one(op, out, width, out);
    for (int i = 0; i < width; i++) out[i] = add32(out[i], op->b[i]);
    bad += infinite + infinities(out, width);
  }
  return bad;
}

int64_t rope(const Op *op, const Plan *plan, int first, int last) {
  int half = op->head_dim / 2, width = op->width;
  int64_t bad = 0;
  (void)plan;
  for (int t = first; t < last; t++) {
    const float *cosines = op->b + (int64_t)t * half, *sines = op->c + (int64_t)t * half;
    for (int head = 0; head < width; head += 2 * half) {
      const float *x = op->a + (int64_t)t * width + head;
      float *restrict out = op->out + (int64_t)t * width + head;
      int32_t infinite = 0;
      for (int k = 0; k < half; k++) {
        float a = x[2 * k], b = x[2 * k + 1];
        float y0 = add32(mul32(a, cosines[k]), -mul32(b, sines[k]));
        float y1 = add32(mul32(a, sines[k]), mul32(b, cosines[k]));
        out[2 * k] = y0;
        out[2 * k + 1] = y1;
        infinite += INFINITE(y0) | INFINITE(y1);
      }
      bad += infinite;
    }
  }
  return bad;
}

/* An op of the numbers a[i], b[i] of every token, as `expression` says. */
#define EACH(name, expression)                                                       \
  int64_t name(const Op *op, const Plan *plan, int first, int last) {                \
    int32_t infinite = 0;                                                            \
    const int32_t *sigmoid = plan->sigmoid, *table = plan->gelu;                     \
    float factor = op->factor, constant = op->constant;                              \
    const float *a = op->a, *b = op->b;                                              \
    (void)sigmoid, (void)table, (void)factor, (void)constant, (void)b;               \
    for (int64_t i = (int64_t)first * op->width; i < (int64_t)last * op->width; i++) {\
      float y = expression;                                                          \
      op->out[i] = y;                                                                \
      infinite += INFINITE(y);                                                       \
    }                                                                                \
    return infinite;                                                                 \
  }
EACH(swiglu, mul32(silu(a[i], sigmoid), b[i]))
EACH(geglu, mul32(gelu(a[i], table), b[i]))
EACH(gelu_of, gelu(a[i], table))
EACH(add, add32(a[i], b[i]))
EACH(scaled, mul32(a[i], factor))
EACH(soft_cap, mul32(tanh32(mul32(a[i], constant), sigmoid), factor))

int64_t add_bias(const Op *op, const Plan *plan, int first, int last) {
  int64_t bad = 0;
  (void)plan;
  for (int t = first; t < last; t++) {
    const float *x = op->a + (int64_t)t * op->width;
    float *restrict out = op->out + (int64_t)t * op->width;
    for (int i = 0; i < op->width; i++) out[i] = add32(x[i], op->b[i]);
    bad += infinities(out, op->width);
  }
  return bad;
}

/* The first operand of a LINEAR into the plan's packets. */
int64_t quantize(const Op *op, const Plan *plan, int first, int last) {
  Packets p = plan->packets;
  int width = op->x_width, groups = (width + PACKET - 1) / PACKET, tokens = plan->tokens;
  for (int t = first; t < last; t++) {
    const float *x = op->a + (int64_t)t * width;
    int32_t top = SMALLEST_E;
    for (int g = 0; g < groups; g++) {
      int64_t at = (int64_t)g * tokens + t;
      int8_t *codes = p.codes + at * PACKET;
      int32_t n, e, low = 0, high = 0, count = width - PACKET * g < PACKET ? width - PACKET * g : PACKET;
      if (count == PACKET) quantize_group(x + PACKET * g, PACKET, 127, plan->reciprocal, codes, &n, &e);
      else {
        memset(codes, 0, PACKET);
        quantize_group(x + PACKET * g, count, 127, plan->reciprocal, codes, &n, &e);
      }
      for (int i = 0; i < 16; i++) low += codes[i], high += codes[16 + i];
      p.sums[at] = low + high;
      p.half_sums[at + (int64_t)g * tokens] = low;
      p.half_sums[at + (int64_t)(g + 1) * tokens] = high;
      p.factor[at] = n * pow2(e);
      top = e > top ? e : top;
    }
    double down = pow2(-top);
    for (int g = 0; g < groups; g++) {
      int64_t at = (int64_t)g * tokens + t, low = at + (int64_t)g * tokens, high = low + tokens;
      double factor = p.factor[at] * down;
      p.factor[at] = factor;
      p.scaled[at] = p.sums[at] * factor;
      p.half_scaled[low] = p.half_sums[low] * factor;
      p.half_scaled[high] = p.half_sums[high] * factor;
    }
    p.e_max[t] = top;
  }
  return 0;
}
