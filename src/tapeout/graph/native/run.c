/* One pass of up to 64 tokens over the ops of a plan. */
#include "engine.h"

#define LEAST_PIECE 60000 /* multiplications, or what takes as long, below which a piece is not worth handing out */
#define MOST_PIECES 65535

typedef struct {
  const Plan *plan;
  const Op *op;
  int64_t *bad;      /* per op */
  int64_t count;     /* things to cut: tokens, pairs of token and head, blocks of rows */
  int pieces;
} Job;

typedef struct {
  const uint64_t *at;
  int64_t words;
  int pieces;
} Reading;

typedef int64_t (*Vector)(const Op *, const Plan *, int, int);
static const Vector VECTOR[] = {
  [TURNS] = turns, [EMBED] = embed, [NORM] = norm, [ROPE] = rope, [SWIGLU] = swiglu, [ADD] = add, [GEGLU] = geglu,
  [GELU] = gelu_of, [LAYER_NORM] = layer_norm, [ADD_BIAS] = add_bias, [ADD_POSITION] = add_position, [SCALE] = scaled,
  [SOFT_CAP] = soft_cap,
};

static int from_of(const Job *job, int piece) { return (int)(job->count * piece / job->pieces); }

static int64_t vector_piece(void *argument, int piece, int thread) {
  Job *job = argument;
  (void)thread;
  return VECTOR[job->op->kind](job->op, job->plan, from_of(job, piece), from_of(job, piece + 1));
}

static int64_t quantize_piece(void *argument, int piece, int thread) {
  Job *job = argument;
  (void)thread;
  return quantize(job->op, job->plan, from_of(job, piece), from_of(job, piece + 1));
}

static int64_t attend_piece(void *argument, int piece, int thread) {
  Job *job = argument;
  return attend(job->op, job->plan, from_of(job, piece), from_of(job, piece + 1), thread);
}

/* Row blocks of all matrices of a stage, one after the other. */
static int64_t matrix_piece(void *argument, int piece, int thread) {
  Job *job = argument;
  const Plan *plan = job->plan;
  int first = from_of(job, piece), last = from_of(job, piece + 1);
  int64_t sum = 0;
  (void)thread;
  for (int i = 0; i < job->op->stage; i++) {
    const Op *op = job->op + i;
    const Matrix *m = op->weight;
    int from = first < 0 ? 0 : first, to = last < m->blocks ? last : m->blocks;
    if (from < to) {
      int tokens = op->last_only ? plan->wanted : plan->tokens;
      float *out = op->last_only ? plan->logits : op->out;
      int64_t bad = multiply(m, &plan->packets, plan->tokens, plan->tokens - tokens, tokens, from, to, out);
      if (bad) __atomic_fetch_add(&job->bad[op - plan->ops], bad, __ATOMIC_RELAXED);
      sum += bad;
    }
    first -= m->blocks;
    last -= m->blocks;
  }
  return sum;
}

/* Cut `count` things that cost `cost` multiplications together, and do them. */
static int64_t share(Team *team, Job *job, Piece piece, int64_t count, int64_t cost) {
  int64_t most = 4 * (int64_t)team_size(team), pieces = cost / LEAST_PIECE;
  pieces = pieces < most ? pieces : most;
  pieces = pieces < count ? pieces : count;
  pieces = pieces < MOST_PIECES ? pieces : MOST_PIECES;
  job->count = count;
  job->pieces = pieces > 1 && team_size(team) > 1 ? (int)pieces : 1;
  return team_run(team, piece, job, job->pieces);
}

static int64_t run_op(Team *team, Job *job) {
  const Op *op = job->op;
  const Plan *plan = job->plan;
  int64_t tokens = plan->tokens;
  if (op->kind == LINEAR) {
    int64_t blocks = 0, cost = 0;
    for (int i = 0; i < op->stage; i++) {
      const Matrix *m = op[i].weight;
      blocks += m->blocks;
      cost += (int64_t)m->blocks * m->groups * m->columns * LANES * (op->last_only ? plan->wanted : tokens);
    }
    share(team, job, quantize_piece, tokens, tokens * op->x_width * 8);
    return share(team, job, matrix_piece, blocks, cost);
  }
  if (op->kind == ATTENTION) {
    int64_t keys = 0;
    for (int t = 0; t < tokens; t++) keys += plan->position[t] + 1;
    store(op, plan, 0, (int)tokens);
    return share(team, job, attend_piece, tokens * op->heads, 4 * keys * op->heads * (op->head_dim + 32));
  }
  if (op->last_only) { /* the cap of the logits, in their place */
    Op capped = *op;
    capped.a = capped.out = plan->logits;
    job->op = &capped;
    return share(team, job, vector_piece, plan->wanted, (int64_t)plan->wanted * op->width * 8);
  }
  return share(team, job, vector_piece, tokens, tokens * op->width * 8);
}

/* Run the plan's tokens. -1, or the first op that made a number that is not finite; what stands after it is not run.
   `bad` [count] is zero. */
int run(Team *team, const Plan *plan, int64_t *bad) {
  for (int i = 0; i < plan->count; i++) {
    const Op *op = plan->ops + i;
    if (op->kind == LINEAR && op->stage == 0) continue;
    Job job = {.plan = plan, .op = op, .bad = bad};
    if (!run_op(team, &job)) continue;
    if (op->kind == LINEAR)
      while (!bad[op - plan->ops]) op++;
    return (int)(op - plan->ops);
  }
  return -1;
}

static int64_t read_piece(void *argument, int piece, int thread) {
  const Reading *reading = argument;
  int64_t first = reading->words * piece / reading->pieces, last = reading->words * (piece + 1) / reading->pieces;
  uint64_t all[8] = {0};
  (void)thread;
  for (int64_t i = first; i + 8 <= last; i += 8)
    for (int k = 0; k < 8; k++) all[k] ^= reading->at[i + k];
  return (all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7]) & 1;
}

/* Read memory and do nothing with it: what no decode that reads the same bytes can beat. */
int64_t read_all(Team *team, const uint64_t *at, int64_t bytes) {
  Reading reading = {at, bytes / 8, 64};
  return team_run(team, read_piece, &reading, reading.pieces);
}

/* Bytes of the structs, so that Python can tell that it means the same ones. */
int64_t size_of(int which) {
  const int64_t sizes[] = {sizeof(Matrix), sizeof(Op), sizeof(Packets), sizeof(Plan)};
  return sizes[which];
}

/* Whether this machine runs what is compiled for x86-64-v3, or with what build.py adds for `v4`. */
int has_v3(void) {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
#else
  return 0;
#endif
}
int has_v4(void) {
#if defined(__x86_64__) && defined(__GNUC__)
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return 0;
#endif
}

/* What the sources were when this was built. */
const char *built_from(void) { return BUILT_FROM; }
