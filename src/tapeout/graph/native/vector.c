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

int64_t embed(const Op *op, const Plan *plan, int first, int last) {
  int width = op->width, groups = (width + op->group - 1) / op->group;
  int64_t bad = 0;
  for (int t = first; t < last; t++) {
    int64_t id = plan->ids[t];
    const int8_t *codes = (const int8_t *)op->weight + id * width;
    float *out = op->out + (int64_t)t * width;
    for (int g = 0; g < groups; g++) {
      double scale = op->scale[id * groups + g], minimum = op->minimum ? op->minimum[id * groups + g] : 0.0;
      for (int i = g * op->group; i < width && i < (g + 1) * op->group; i++) {
        out[i] = mul32(flushed((float)(scale * (codes[i] + op->offset) + minimum + 0.0)), op->factor);
        bad += INFINITE(out[i]);
      }
    }
  }
  return bad;
}

int64_t norm(const Op *op, const Plan *plan, int first, int last) {
  int width = op->width;
  const float *weight = op->weight;
  int64_t bad = 0;
  (void)plan;
  for (int t = first; t < last; t++) {
    const float *x = op->a + (int64_t)t * width;
    float *restrict out = op->out + (int64_t)t * width;
    int E = (int)(greatest_bits(x, width) >> 23) - 127;
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
    bad += infinite;
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

int64_t swiglu(const Op *op, const Plan *plan, int first, int last) {
  int64_t bad = 0;
  const int32_t *sigmoid = plan->sigmoid;
  for (int t = first; t < last; t++) {
    const float *gate = op->a + (int64_t)t * op->width, *up = op->b + (int64_t)t * op->width;
    float *restrict out = op->out + (int64_t)t * op->width;
    int32_t infinite = 0, width = op->width;
    for (int i = 0; i < width; i++) {
      float y = mul32(silu(gate[i], sigmoid), up[i]);
      out[i] = y;
      infinite += INFINITE(y);
    }
    bad += infinite;
  }
  return bad;
}

int64_t add(const Op *op, const Plan *plan, int first, int last) {
  int32_t infinite = 0;
  (void)plan;
  for (int64_t i = (int64_t)first * op->width; i < (int64_t)last * op->width; i++) {
    float y = add32(op->a[i], op->b[i]);
    op->out[i] = y;
    infinite += INFINITE(y);
  }
  return infinite;
}

/* The codes as words, in the order of `Packets`. */
static inline void widen(const int8_t *codes, int16_t *wide) {
  for (int i = 0; i < PACKET; i += 4) {
    wide[i] = codes[i];
    wide[i + 1] = codes[i + 2];
    wide[i + 2] = codes[i + 1];
    wide[i + 3] = codes[i + 3];
  }
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
      if (count == PACKET) quantize_group(x + PACKET * g, PACKET, plan->reciprocal, codes, &n, &e);
      else {
        memset(codes, 0, PACKET);
        quantize_group(x + PACKET * g, count, plan->reciprocal, codes, &n, &e);
      }
      widen(codes, p.wide + at * PACKET);
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
