/* For any processor: one row at a time, and floor(). */
#define START(m) 0.0
#define SCALE_POWER(m) 0
#define INLINE static inline
#define EIGHT_BIT_BASE 0

/* Of some groups and tokens: D. */
typedef struct {
  int32_t dots[GROUPS][TOKENS][LANES];
} Held;

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

/* D of one tile for some tokens, x [tokens][32] and their sums [tokens]: codes as stored are `base` below the true ones. */
static inline void dots(const uint8_t *at, int bits, int width, const int8_t *x, int32_t base, const int32_t *sums,
                        int tokens, int32_t (*d)[LANES]) {
  for (int t = 0; t < tokens; t++)
    for (int r = 0; r < LANES; r++) d[t][r] = dot(at, x + PACKET * t, bits, width, r) + base * sums[t];
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
        double d = held->dots[g][t][r];
        add_floor(sums + LANES * t + r, high, d * scale * x.factor[((x.first + g) >> x.halved) * x.stored + t]);
        if (minimum) add_floor(sums + LANES * t + r, high, low * x.scaled_sum[(x.first + g) * x.stored + t]);
      }
    }
}

static unsigned round_down(void) { return 0; }
static void round_back(unsigned old) { (void)old; }
