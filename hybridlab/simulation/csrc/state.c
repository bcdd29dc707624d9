/* The file that all processes map: which cards there are, and who holds what of them.
 *
 * A process may be killed at any moment: the lock is flock's, which the kernel releases, every
 * change is one aligned word, and whoever takes the lock first drops the users that no longer live.
 */
#include "card.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct state *state;
static int file = -1;
static bool context_made[MAX_CARDS], libraries_loaded[MAX_CARDS];
static bool forked;

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void refuse(const char *path, const char *why) {
    fprintf(stderr, "HYBRIDLAB_SIMULATED_CARD=%s: %s\n", path, why);
    exit(70);
}

/* A child's descriptor shares its lock with its parent's, so it opens the file anew; and CUDA
 * cannot be used in the child of a process that has used it. */
static void after_fork(void) {
    pthread_mutex_init(&mutex, NULL);
    if (file >= 0) close(file);
    file = -1;
    for (int i = 0; i < MAX_CARDS; i++) {
        forked = forked || context_made[i];
        context_made[i] = libraries_loaded[i] = false;
    }
}

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork); }

static void map_state(const char *path) {
    struct stat about;
    if (fstat(file, &about) || (size_t)about.st_size < sizeof *state) refuse(path, "not a state file");
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (state == MAP_FAILED) refuse(path, strerror(errno));
    if (state->magic != STATE_MAGIC) refuse(path, "not a state file of this version");
}

/* With the mutex held. */
static bool open_state(void) {
    if (file >= 0) return true;
    const char *path = getenv("HYBRIDLAB_SIMULATED_CARD");
    if (!path || !*path) return false;
    file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) refuse(path, strerror(errno));
    if (!state) map_state(path);
    return true;
}

struct state *state_of_run(void) {
    pthread_mutex_lock(&mutex);
    bool there = open_state();
    pthread_mutex_unlock(&mutex);
    return there ? state : NULL;
}

/* Start time of a living process in clock ticks since boot; 0 where it has ended, a zombie too. */
static uint64_t start_of(pid_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int f = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = f < 0 ? -1 : read(f, text, sizeof text - 1);
    if (f >= 0) close(f);
    if (n <= 0) return 0;
    text[n] = 0;
    char *rest = strrchr(text, ')'); /* the name before it may hold anything */
    char kind;
    unsigned long long start;
    if (!rest || sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &kind, &start) != 2) return 0;
    return kind == 'Z' || kind == 'X' ? 0 : start;
}

static void drop_the_dead(void) {
    for (struct user *u = state->user; u < state->user + MAX_USERS; u++)
        if (u->pid && start_of(u->pid) != u->start_ticks) memset(u, 0, sizeof *u);
}

static bool lock(void) {
    pthread_mutex_lock(&mutex);
    if (!open_state()) {
        pthread_mutex_unlock(&mutex);
        return false;
    }
    while (flock(file, LOCK_EX) && errno == EINTR) continue;
    drop_the_dead();
    return true;
}

static void unlock(void) {
    flock(file, LOCK_UN);
    pthread_mutex_unlock(&mutex);
}

/* This process's slot on the card, made where it has none; NULL where all slots are taken. */
static struct user *own_user(int card) {
    static uint64_t start;
    static pid_t pid;
    if (pid != getpid()) start = start_of(pid = getpid());
    struct user *empty = NULL;
    for (struct user *u = state->user; u < state->user + MAX_USERS; u++) {
        if (u->pid == pid && u->card == card) return u;
        if (!u->pid && !empty) empty = u;
    }
    if (empty) {
        *empty = (struct user){.card = card, .start_ticks = start};
        empty->pid = pid;
    }
    return empty;
}

static uint64_t held(const struct user *u) { return u->context_bytes + u->device_bytes; }

static uint64_t used(int card) {
    uint64_t sum = 0;
    for (const struct user *u = state->user; u < state->user + MAX_USERS; u++)
        if (u->pid && u->card == card) sum += held(u);
    return sum;
}

static bool fits(int card, uint64_t bytes) {
    uint64_t now = used(card), most = state->card[card].usable_bytes;
    return now <= most && bytes <= most - now;
}

enum entry context_enter(int card) {
    if (forked) return FORKED;
    if (card < 0) return NO_CARD;
    if (context_made[card]) return ENTERED;
    if (!lock()) return NO_CARD;
    if (!context_made[card] && fits(card, state->card[card].context_bytes)) {
        struct user *own = own_user(card);
        if (own) own->context_bytes = state->card[card].context_bytes;
        context_made[card] = own != NULL;
    }
    enum entry answer = context_made[card] ? ENTERED : NO_ROOM;
    unlock();
    return answer;
}

bool context_exists(int card) { return card >= 0 && context_made[card]; }

void context_load_libraries(int card) {
    if (!context_exists(card) || libraries_loaded[card] || !lock()) return;
    struct user *own = own_user(card);
    if (own && !libraries_loaded[card]) own->context_bytes += state->card[card].library_bytes;
    libraries_loaded[card] = true;
    unlock();
}

bool device_take(int card, uint64_t bytes) {
    if (!lock()) return false;
    struct user *own = fits(card, bytes) ? own_user(card) : NULL;
    if (own) own->device_bytes += bytes;
    unlock();
    return own != NULL;
}

void device_give(int card, uint64_t bytes) {
    if (!lock()) return;
    struct user *own = own_user(card);
    if (own) own->device_bytes -= bytes;
    unlock();
}

static uint64_t pinned(void) {
    uint64_t sum = 0;
    for (const struct user *u = state->user; u < state->user + MAX_USERS; u++)
        if (u->pid) sum += u->pinned_bytes;
    return sum;
}

bool pinned_take(int card, uint64_t bytes) {
    if (!lock()) return false;
    uint64_t limit = state->pinned_limit_bytes;
    bool room = !limit || pinned() + bytes <= limit;
    struct user *own = room ? own_user(card) : NULL;
    if (own) own->pinned_bytes += bytes;
    unlock();
    return own != NULL;
}

void pinned_give(int card, uint64_t bytes) {
    if (!lock()) return;
    struct user *own = own_user(card);
    if (own) own->pinned_bytes -= bytes;
    unlock();
}

uint64_t device_used(int card) {
    if (!lock()) return 0;
    uint64_t sum = used(card);
    unlock();
    return sum;
}

int device_users(int card, struct user *out, int most) {
    if (!lock()) return 0;
    int n = 0;
    for (const struct user *u = state->user; u < state->user + MAX_USERS; u++)
        if (u->pid && u->card == card && held(u)) {
            if (n < most) out[n] = *u;
            n++;
        }
    unlock();
    return n;
}
