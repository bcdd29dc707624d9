/* The ranges of this process's memory that CUDA knows, sorted by address. */
#include "card.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
static size_t count, room;

/* Index of the first block that begins behind the address. */
static size_t behind(uintptr_t address) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].at <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void grow(void) {
    room = room ? 2 * room : 1024;
    blocks = realloc(blocks, room * sizeof *blocks);
    if (blocks) return;
    perror("simulated card");
    abort();
}

bool block_add(struct block block) {
    pthread_mutex_lock(&mutex);
    size_t i = behind(block.at);
    bool touches = (i > 0 && blocks[i - 1].at + blocks[i - 1].bytes > block.at) ||
                   (i < count && block.at + block.bytes > blocks[i].at);
    if (!touches) {
        if (count == room) grow();
        memmove(&blocks[i + 1], &blocks[i], (count - i) * sizeof *blocks);
        blocks[i] = block;
        count++;
    }
    pthread_mutex_unlock(&mutex);
    return !touches;
}

bool block_find(const void *address, struct block *out) {
    uintptr_t a = (uintptr_t)address;
    pthread_mutex_lock(&mutex);
    size_t i = behind(a);
    bool found = i > 0 && a - blocks[i - 1].at < blocks[i - 1].bytes;
    if (found) *out = blocks[i - 1];
    pthread_mutex_unlock(&mutex);
    return found;
}

bool block_remove(const void *address, enum block_kind kind, struct block *out) {
    uintptr_t a = (uintptr_t)address;
    pthread_mutex_lock(&mutex);
    size_t i = behind(a);
    bool found = i > 0 && blocks[i - 1].at == a && blocks[i - 1].kind == kind;
    if (found) {
        *out = blocks[i - 1];
        memmove(&blocks[i - 1], &blocks[i], (count - i) * sizeof *blocks);
        count--;
    }
    pthread_mutex_unlock(&mutex);
    return found;
}
