/* What Python hands over (native/plan.py mirrors these structs) and what the C files tell each other. */
#ifndef TAPEOUT_ENGINE_H
#define TAPEOUT_ENGINE_H

#include <stdint.h>

#include "numbers.h"

#define LANES 32    /* rows of a block of a packed matrix */
#define PACKET 32   /* activations of one scale */

/* A packed matrix: tiles [blocks][groups], each one group of columns of 32 rows: codes, then scales, then minima.
   Codes stand by eights of rows, [4][..][8 rows][4 bytes]: of 4 bits, code + 8, eight columns, the low halves the first
   four of them; of 8 bits four columns. Scales and minima: 32 numbers each. */
typedef struct {
  const uint8_t *tiles;
  const int64_t *exponent;    /* [blocks * 32]: e_row - F */
  int32_t rows, blocks, groups;
  int32_t columns;            /* of a group: 16 or 32 */
  int32_t bits;               /* of a code as stored: 4 or 8 */
  int32_t offset;             /* of the format */
  int32_t halves;             /* 1: scales are binary16, to be multiplied by 2^16; 0: binary32 */
  int32_t has_minimum;
  int32_t tile_bytes;
  int32_t period;             /* groups whose terms sum to less than 2^51: 0..period-1, then the next so many, and on */
  int32_t fits;               /* 1: all of a row's terms sum to less than 2^53 */
  int32_t deep;               /* 1: a term may be 2^51 or more; then scales are binary32 and `period` is `groups` */
  float factor;               /* of every output */
} Matrix;

enum { TURNS, EMBED, NORM, LINEAR, ROPE, ATTENTION, SWIGLU, ADD, GEGLU, GELU, LAYER_NORM, ADD_BIAS, ADD_POSITION, SCALE, SOFT_CAP };

/* One op. Values are float [tokens][width]. */
typedef struct {
  int32_t kind;
  int32_t stage;              /* LINEAR: how many neighbours from here on read the same vector; 0: one before took it */
  int32_t width, x_width;     /* of the result and of its first operand */
  int32_t last_only;          /* only for the last `wanted` tokens, into `logits`, which SOFT_CAP also reads */
  int32_t heads, kv_heads, head_dim, group, offset, context; /* NORM: head_dim numbers are normed together */
  int32_t window;             /* ATTENTION: positions it looks back on, its own counted; 0: all */
  int32_t most_key, most_value; /* ATTENTION: greatest codes of K and of V, 127 or 7 */
  float eps, inverse, constant, factor; /* SOFT_CAP and a capped ATTENTION: what goes into tanh and what comes behind it */
  const float *a, *b, *c;     /* ADD_BIAS and LAYER_NORM: b [width] is a weight */
  float *out, *out2;          /* TURNS: cosines and sines [tokens][head_dim / 2], read by ROPE as b and c */
  const void *weight;         /* norms: float [width]; LINEAR: Matrix; TURNS: int64 increments; EMBED, ADD_POSITION: int8 codes */
  const float *scale, *minimum; /* of those codes: [rows][groups] */
  int8_t *keys, *values;      /* ATTENTION: [streams][kv_heads][context][dim], dim = head_dim padded to 32s with zeros */
  int32_t *n_keys, *n_values, *e_values; /* [streams][kv_heads][context] */
  double *power_keys;         /* 2^e of the keys */
} Op;

/* A quantized vector per token, as matrices read it; g counts packets of 32, t tokens. */
typedef struct {
  int8_t *codes;              /* [g][t][32] */
  double *factor;             /* [g][t]: n * 2^(e - e_max) */
  int32_t *sums, *half_sums;  /* [g][t], [2 g][t]: sums of the 32 codes, of each 16 */
  double *scaled, *half_scaled; /* the same sums times the factor */
  int32_t *e_max;             /* [t] */
} Packets;

/* A model made ready, and the tokens of one pass over it. */
typedef struct {
  const Op *ops;
  const int32_t *sine, *exp2, *sigmoid, *gelu;
  const float *reciprocal;
  Packets packets;
  float *scores;              /* [threads][context padded] */
  int32_t *weights;           /* the same */
  int32_t count, context;     /* of ops; positions, padded to 32s */
  int32_t tokens, wanted;
  const int64_t *ids, *position, *stream; /* [tokens] */
  float *logits;              /* [wanted][width] */
} Plan;

/* matrix.c: out [tokens][stride] of the blocks first..last-1 for the tokens from..from+tokens-1 of `stored`. */
int64_t multiply(const Matrix *m, const Packets *p, int stored, int from, int tokens, int first, int last, float *out);

/* vector.c and attention.c: the tokens (or pairs of token and head) first..last-1. All return how many are not finite. */
int64_t turns(const Op *op, const Plan *plan, int first, int last);
int64_t embed(const Op *op, const Plan *plan, int first, int last);
int64_t norm(const Op *op, const Plan *plan, int first, int last);
int64_t rope(const Op *op, const Plan *plan, int first, int last);
int64_t swiglu(const Op *op, const Plan *plan, int first, int last);
int64_t add(const Op *op, const Plan *plan, int first, int last);
int64_t geglu(const Op *op, const Plan *plan, int first, int last);
int64_t gelu_of(const Op *op, const Plan *plan, int first, int last);
int64_t layer_norm(const Op *op, const Plan *plan, int first, int last);
int64_t add_bias(const Op *op, const Plan *plan, int first, int last);
int64_t add_position(const Op *op, const Plan *plan, int first, int last);
int64_t scaled(const Op *op, const Plan *plan, int first, int last);
int64_t soft_cap(const Op *op, const Plan *plan, int first, int last);
int64_t quantize(const Op *op, const Plan *plan, int first, int last);
int64_t store(const Op *op, const Plan *plan, int first, int last);
int64_t attend(const Op *op, const Plan *plan, int first, int last, int thread);

/* team.c: work cut into pieces that any thread may take. */
typedef struct Team Team;
typedef int64_t (*Piece)(void *job, int piece, int thread);
int64_t team_run(Team *team, Piece piece, void *job, int pieces);
int team_size(const Team *team);

#endif
