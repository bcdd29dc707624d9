/* Copies in the order of their streams.
 *
 * Usually each is carried out at once, a legal order of events like any other. In POISON mode each
 * waits until something waits for it, so that memory which is read or reused too early on another
 * stream shows: what was there before is read, or a late copy lands in somebody else's tensor.
 */
#include "card.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_PAGE 4096

struct copy {
    struct copy *next;
    void *stream, *to, *staged; /* staged: pageable memory has been read when the call returns */
    const void *from;
    size_t bytes;
    uint64_t mark;
};
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct copy *first, **end = &first;
static uint64_t last_mark;

size_t copy_limit(void) {
    static size_t limit;
    if (limit) return limit;
    const char *text = getenv("HYBRIDLAB_SIMULATED_COPY_LIMIT");
    size_t asked = text ? strtoull(text, NULL, 10) : 0;
    return limit = asked ? asked : SIZE_MAX;
}

static bool delayed(void) {
    const struct state *s = state_of_run();
    return s && s->flags & POISON;
}

void poison(void *at, size_t bytes) {
    if (delayed()) memset(at, 0xff, bytes < copy_limit() ? bytes : SMALL_PAGE);
}

/* The ends of a block are carried whatever its size, so that a swap's checksum of them holds.
 * Results that the host reads (pageable memory) always come whole. */
static void carry(void *to, const void *from, size_t bytes) {
    struct block about;
    if (bytes <= copy_limit() || bytes < 2 * SMALL_PAGE || !block_find(to, &about)) {
        memmove(to, from, bytes);
        return;
    }
    size_t last = bytes - SMALL_PAGE;
    memmove(to, from, SMALL_PAGE);
    memmove((char *)to + last, (const char *)from + last, SMALL_PAGE);
}

static void put_off(void *stream, void *to, const void *from, size_t bytes) {
    struct copy *c = malloc(sizeof *c);
    struct block about;
    *c = (struct copy){.stream = stream, .to = to, .from = from, .bytes = bytes};
    if (!block_find(from, &about)) {
        c->staged = malloc(bytes);
        memcpy(c->staged, from, bytes);
        c->from = c->staged;
    }
    pthread_mutex_lock(&mutex);
    c->mark = ++last_mark;
    *end = c;
    end = &c->next;
    pthread_mutex_unlock(&mutex);
}

void work_copy(void *stream, void *to, const void *from, size_t bytes) {
    struct block about;
    if (delayed() && block_find(to, &about)) put_off(stream, to, from, bytes);
    else {
        if (delayed()) work_finish(stream, UINT64_MAX); /* pageable: the call itself waits */
        carry(to, from, bytes);
    }
}

uint64_t work_mark(void) {
    pthread_mutex_lock(&mutex);
    uint64_t mark = last_mark;
    pthread_mutex_unlock(&mutex);
    return mark;
}

static void finish(bool every, void *stream, uint64_t mark) {
    pthread_mutex_lock(&mutex);
    for (struct copy **at = &first; *at;) {
        struct copy *c = *at;
        if (!every && (c->stream != stream || c->mark > mark)) {
            at = &c->next;
            continue;
        }
        carry(c->to, c->from, c->bytes);
        if (!(*at = c->next)) end = at;
        free(c->staged);
        free(c);
    }
    pthread_mutex_unlock(&mutex);
}

void work_finish(void *stream, uint64_t mark) {
    if (delayed()) finish(false, stream, mark);
}

void work_finish_all(void) {
    if (delayed()) finish(true, NULL, 0);
}

bool work_pending(void *stream, uint64_t mark) {
    bool pending = false;
    pthread_mutex_lock(&mutex);
    for (struct copy *c = first; c && !pending; c = c->next)
        pending = c->stream == stream && c->mark <= mark;
    pthread_mutex_unlock(&mutex);
    return pending;
}
