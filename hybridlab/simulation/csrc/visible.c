/* Which cards a process sees, in which order, and which of them its threads use. */
#include "card.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int seen[MAX_CARDS], n_seen;
static _Thread_local int current;

void uuid_text(const struct card *card, char out[41]) {
    const uint8_t *b = card->uuid;
    out += sprintf(out, "GPU-");
    for (int i = 0; i < 16; i++)
        out += sprintf(out, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", b[i]);
}

/* The cards in CUDA's order: fastest first unless PCI_BUS_ID is asked for (the file's order). */
static void in_order(const struct state *s, int order[MAX_CARDS]) {
    const char *wish = getenv("CUDA_DEVICE_ORDER");
    bool by_bus = wish && !strcmp(wish, "PCI_BUS_ID");
    for (int i = 0; i < (int)s->cards; i++) order[by_bus ? i : (int)s->card[i].speed_rank] = i;
}

/* The card that one word of CUDA_VISIBLE_DEVICES names; -1 where it names none. A UUID may be cut
 * short where that still names one card. */
static int named(const struct state *s, const int order[MAX_CARDS], const char *word) {
    char *end, uuid[41];
    long index = strtol(word, &end, 10);
    if (end != word && !*end) return index >= 0 && index < (long)s->cards ? order[index] : -1;
    int found = -1;
    for (int i = 0; i < (int)s->cards && strlen(word) > 4; i++) {
        uuid_text(&s->card[i], uuid);
        if (strncasecmp(uuid, word, strlen(word))) continue;
        if (found >= 0) return -1;
        found = i;
    }
    return found;
}

/* The first wrong word ends the list; a card named twice leaves none. */
static void read_wish(const struct state *s, const int order[MAX_CARDS], char *words) {
    for (char *rest, *word = strtok_r(words, ", ", &rest); word; word = strtok_r(NULL, ", ", &rest)) {
        int card = named(s, order, word);
        if (card < 0 || n_seen == MAX_CARDS) return;
        for (int i = 0; i < n_seen; i++)
            if (seen[i] == card) {
                n_seen = 0;
                return;
            }
        seen[n_seen++] = card;
    }
}

static void look(void) {
    const struct state *s = state_of_run();
    if (!s) return;
    int order[MAX_CARDS];
    in_order(s, order);
    const char *wish = getenv("CUDA_VISIBLE_DEVICES");
    if (!wish) {
        n_seen = (int)s->cards;
        memcpy(seen, order, sizeof seen);
        return;
    }
    char *words = strdup(wish);
    read_wish(s, order, words);
    free(words);
}

static void look_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look);
}

int visible_count(void) {
    look_once();
    return n_seen;
}

int visible_card(int ordinal) {
    look_once();
    return ordinal >= 0 && ordinal < n_seen ? seen[ordinal] : -1;
}

int current_device(void) { return current; }
void set_current_device(int ordinal) { current = ordinal; }
