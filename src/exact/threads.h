// Threads: who is free takes the next part of the work; nobody waits for a thread that holds none.
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#if defined __x86_64__
#define RELAX __builtin_ia32_pause()
#else
#define RELAX __asm__ volatile("yield")
#endif

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long parts(long all, long size) { return (all + size - 1) / size; }

typedef void Work(void *of, long first, long last);  // does units `first` to `last` - 1
static struct {
    pthread_mutex_t lead, lock;
    pthread_cond_t wake;
    atomic_int wanted, asleep;
    atomic_long left, unfinished;  // units
    Work *work;
    void *of;
    long started, units;
} pool;
// Some 50 microseconds; then some 300: as long as Python takes between two pieces of work. Who sleeps
// takes long to wake.
enum { SPINS = 2000, YIELDS = 1000 };

static void help(void) {  // large parts first, small ones last, so that all end together
    for (long left = pool.left; left > 0;) {
        long part = parts(left, 4 * pool.wanted);
        if (!atomic_compare_exchange_weak(&pool.left, &left, left - part)) continue;
        pool.work(pool.of, pool.units - left, pool.units - left + part);
        pool.unfinished -= part;
        left = pool.left;
    }
}

static void *helper(void *number) {
    fesetenv(FE_DFL_ENV);
    for (int idle = 0;; idle++) {
        if (pool.left && (long)number < pool.wanted) help(), idle = 0;
        if (idle < SPINS) RELAX;
        else sched_yield();  // still awake, but not in the way of others
        if (idle < SPINS + YIELDS) continue;
        pthread_mutex_lock(&pool.lock);
        pool.asleep++;
        while (!pool.left || (long)number >= pool.wanted) pthread_cond_wait(&pool.wake, &pool.lock);
        pool.asleep--;
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

static void share(Work *work, void *of, long units) {  // do units 0 to `units`, on all threads
    if (pool.wanted < 2 || units < 2 || pthread_mutex_trylock(&pool.lead)) {
        work(of, 0, units);  // alone: another thread shares out its own work
        return;
    }
    for (pthread_t thread; pool.started < pool.wanted; pool.started++)
        if (pthread_create(&thread, NULL, helper, (void *)pool.started)) break;
    pool.work = work, pool.of = of, pool.units = units;
    pool.unfinished = units;
    pool.left = units;  // from here on they start
    if (pool.asleep) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    help();
    for (int idle = 0; pool.unfinished; idle++)
        if (idle < SPINS) RELAX;
        else sched_yield();
    pthread_mutex_unlock(&pool.lead);
}

static void forget_threads(void) {  // a process made by fork has only its first
    pthread_mutex_init(&pool.lead, NULL), pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pool.started = 1;
    pool.asleep = 0;
    pool.left = pool.unfinished = 0;
}

void set_threads(long threads) {
    if (!pool.started) forget_threads(), pthread_atfork(NULL, NULL, forget_threads);
    pool.wanted = threads;
}
