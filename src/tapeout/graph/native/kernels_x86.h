/* What the kernels of AVX2 and of AVX-512 share. */
#include <immintrin.h>

#define START(m) ((m)->halves ? 0x1.8p36 : 0x1.8p52)
#define SCALE_POWER(m) ((m)->halves ? 16 : 0)
#define INLINE static inline __attribute__((always_inline))

INLINE int32_t word_at(const int8_t *x) {
  int32_t word;
  memcpy(&word, x, 4);
  return word;
}

/* Memory is asked for a little at a time between the arithmetic: all at once, it stood in line for the requests that
   a core can have under way (10 against 16 GB/s). */
INLINE void prefetch(const uint8_t *at, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)at + 4096 + i, _MM_HINT_T0);
}

/* Rounding towards minus infinity, and back. Nothing else may be computed between the two: see `sum_down`. */
static unsigned round_down(void) {
  unsigned old = _mm_getcsr();
  _mm_setcsr(old | 0x2000);
  return old;
}
static void round_back(unsigned old) { _mm_setcsr(old); }
