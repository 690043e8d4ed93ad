/* Threads that take pieces of one job at a time. A thread that the system does not run holds nobody up: the others take
   its pieces, and nobody waits for it but for a piece it has begun. An idle thread looks for work for some 50
   microseconds, the length of what stands between two jobs of a token, and then sleeps. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine.h"

#define LOOKS 2000

struct Team {
  _Alignas(64) _Atomic uint64_t turn; /* serial number << 32 | pieces << 16 | next piece: a piece is taken with its job */
  _Alignas(64) _Atomic int done;
  _Atomic int64_t result;
  _Alignas(64) Piece piece;
  void *job;
  _Atomic int sleepers, over;
  int threads;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct Member { Team *team; pthread_t thread; int index; } members[];
};

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int has_work(uint64_t turn) { return (turn & 0xFFFF) < (turn >> 16 & 0xFFFF); }

/* Take pieces until none is left. A piece that is taken keeps its job in place: it is not done. */
static void help(Team *team, int index) {
  uint64_t turn = atomic_load_explicit(&team->turn, memory_order_acquire);
  while (has_work(turn)) {
    if (!atomic_compare_exchange_weak(&team->turn, &turn, turn + 1)) continue;
    int64_t result = team->piece(team->job, (int)(turn & 0xFFFF), index);
    if (result) atomic_fetch_add(&team->result, result);
    atomic_fetch_add_explicit(&team->done, 1, memory_order_release);
    turn = atomic_load_explicit(&team->turn, memory_order_acquire);
  }
}

static void sleep_until_work(Team *team) {
  pthread_mutex_lock(&team->lock);
  atomic_fetch_add(&team->sleepers, 1);
  while (!has_work(atomic_load(&team->turn)) && !atomic_load(&team->over)) pthread_cond_wait(&team->wake, &team->lock);
  atomic_fetch_sub(&team->sleepers, 1);
  pthread_mutex_unlock(&team->lock);
}

static void wake_all(Team *team) {
  pthread_mutex_lock(&team->lock);
  pthread_cond_broadcast(&team->wake);
  pthread_mutex_unlock(&team->lock);
}

static void *work(void *argument) {
  struct Member *member = argument;
  Team *team = member->team;
  while (!atomic_load(&team->over)) {
    int looks = 0;
    while (looks < LOOKS && !has_work(atomic_load_explicit(&team->turn, memory_order_relaxed))) {
      pause_briefly();
      looks++;
    }
    if (looks == LOOKS) sleep_until_work(team);
    help(team, member->index);
  }
  return 0;
}

/* The sum of what the pieces 0..pieces-1 return; pieces <= 65535. The caller is one of the threads. */
int64_t team_run(Team *team, Piece piece, void *job, int pieces) {
  if (pieces == 1 || team->threads == 1) {
    int64_t sum = 0;
    for (int i = 0; i < pieces; i++) sum += piece(job, i, 0);
    return sum;
  }
  team->piece = piece;
  team->job = job;
  atomic_store_explicit(&team->done, 0, memory_order_relaxed);
  atomic_store_explicit(&team->result, 0, memory_order_relaxed);
  uint64_t serial = (atomic_load_explicit(&team->turn, memory_order_relaxed) >> 32) + 1;
  atomic_store(&team->turn, serial << 32 | (uint64_t)pieces << 16);
  if (atomic_load(&team->sleepers)) wake_all(team);
  help(team, 0);
  for (int looks = 0; atomic_load_explicit(&team->done, memory_order_acquire) < pieces; looks++)
    if (looks < LOOKS) pause_briefly();
    else sched_yield();
  return atomic_load(&team->result);
}

int team_size(const Team *team) { return team->threads; }

void team_free(Team *team) {
  atomic_store(&team->over, 1);
  wake_all(team);
  for (int i = 0; i < team->threads - 1; i++) pthread_join(team->members[i].thread, 0);
  pthread_cond_destroy(&team->wake);
  pthread_mutex_destroy(&team->lock);
  free(team);
}

/* `threads` of them, the caller counted; fewer where the system gives no more. Null where there is no memory. */
Team *team_new(int threads) {
  size_t bytes = sizeof(Team) + (size_t)threads * sizeof(struct Member);
  Team *team = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!team) return 0;
  memset(team, 0, bytes);
  pthread_mutex_init(&team->lock, 0);
  pthread_cond_init(&team->wake, 0);
  team->threads = 1;
  for (int i = 1; i < threads; i++) {
    struct Member *member = &team->members[i - 1];
    member->team = team;
    member->index = i;
    if (pthread_create(&member->thread, 0, work, member)) break;
    team->threads++;
  }
  return team;
}
