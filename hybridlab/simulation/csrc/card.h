/* The simulated cards: what the stand-in libraries share.
 *
 * One file, mapped by every process, says which cards there are and who holds what of them. It is
 * written by hybridlab/simulation/state.py, which mirrors the structs below byte by byte; nothing
 * about any card is known here. This library (libhybridlab_card.so) keeps that file and this
 * process's own ranges of memory; the libraries under CUDA's names call it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Everything is compiled with hidden visibility; only this is seen from outside. */
#define API __attribute__((visibility("default")))

#define STATE_MAGIC 0x31647261436c6248ull /* "HblCard1" */
#define MAX_CARDS 8
#define MAX_USERS 1024
#define PAGE_BYTES ((size_t)2 << 20) /* the driver gives device memory in pages of 2 MiB */

enum state_flags { HIDE_PIDS = 1, NVML_ABSENT = 2, POISON = 4 };

/* Facts of one card; they never change during a run. */
struct card {
    char name[96];
    uint8_t uuid[16];
    uint64_t total_bytes;   /* NVML's total */
    uint64_t usable_bytes;  /* CUDA's total: without what the driver reserves */
    uint64_t context_bytes; /* a process holds them from its first context on */
    uint64_t library_bytes; /* and these from its first handle of a maths library on */
    uint32_t pci_domain, pci_bus, pci_device;
    int32_t major, minor;
    int32_t multiprocessors, threads_per_multiprocessor, blocks_per_multiprocessor;
    uint32_t shared_optin_bytes, shared_multiprocessor_bytes;
    uint32_t l2_bytes;
    uint32_t speed_rank; /* 0 is the fastest: the order of CUDA_DEVICE_ORDER=FASTEST_FIRST */
    uint32_t clock_mhz, idle_clock_mhz;
    uint32_t power_limit_mw, idle_power_mw;
};

/* What has happened on one card. */
struct activity {
    uint64_t launches;
    uint64_t last_launch_ns; /* CLOCK_MONOTONIC */
    uint64_t copied_bytes[3]; /* by enum direction */
};
enum direction { TO_DEVICE, TO_HOST, ON_DEVICE };

/* What one process holds of one card. The start time tells a process from a later one with the
 * same id, which inherits nothing. */
struct user {
    int32_t pid; /* 0: the slot is free */
    int32_t card;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat */
    uint64_t context_bytes, device_bytes, pinned_bytes;
};

struct state {
    uint64_t magic;
    uint32_t cards, flags;
    uint64_t pinned_limit_bytes; /* of all processes together; 0: none */
    uint64_t created_ns;         /* CLOCK_MONOTONIC: where the energy counter starts */
    int32_t cuda_version, reserved;
    char driver_version[32];
    struct card card[MAX_CARDS];
    struct activity activity[MAX_CARDS];
    struct user user[MAX_USERS];
};

/* ------------------------------------------------------------------------------------- state.c */

/* The mapped file, or NULL where HYBRIDLAB_SIMULATED_CARD is not set (a machine without a card).
 * Ends the process with one line where it names anything else than a state file. */
API struct state *state_of_run(void);
/* What entering a call that needs a context may say. */
enum entry { ENTERED, NO_CARD, FORKED, NO_ROOM };
/* This process holds a context on the card from now on. FORKED: in the child of a process that
 * had a context, where CUDA cannot be used. NO_ROOM: the context itself does not fit. */
API enum entry context_enter(int card);
API bool context_exists(int card);
/* The first handle of a maths library loads its kernels into the context. */
API void context_load_libraries(int card);
/* Whether that much was still free; if so this process holds it now. */
API bool device_take(int card, uint64_t bytes);
API void device_give(int card, uint64_t bytes);
API bool pinned_take(int card, uint64_t bytes);
API void pinned_give(int card, uint64_t bytes);
/* Bytes in use on the card by all living processes, contexts included. */
API uint64_t device_used(int card);
/* Copies out up to `most` living users of the card; returns how many there are. */
API int device_users(int card, struct user *out, int most);
API uint64_t now_ns(void);

/* ----------------------------------------------------------------------------------- visible.c */

/* CUDA's ordinals as CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER make them at the first call. */
API int visible_count(void);
/* The index in the state file of CUDA's ordinal; -1 where there is none. */
API int visible_card(int ordinal);
/* The calling thread's current device, an ordinal. */
API int current_device(void);
API void set_current_device(int ordinal);
API void uuid_text(const struct card *card, char out[41]);

/* ------------------------------------------------------------------------------------ blocks.c */

enum block_kind { DEVICE_BLOCK = 1, MAPPED_BLOCK, PINNED_BLOCK, REGISTERED_BLOCK };
/* A range of this process's memory that CUDA knows. */
struct block {
    uintptr_t at;
    size_t bytes;
    enum block_kind kind;
    int device; /* ordinal */
    void *handle; /* of a MAPPED_BLOCK: the physical memory behind it */
};
/* False where the range touches a known one. */
API bool block_add(struct block block);
/* The block that holds this address. */
API bool block_find(const void *address, struct block *out);
/* Forgets the block that begins at this address and is of this kind. */
API bool block_remove(const void *address, enum block_kind kind, struct block *out);

/* -------------------------------------------------------------------------------------- work.c */

/* Copies between the device and the host in the order of their streams. At once, unless the state
 * says POISON: then a copy is carried out as late as CUDA allows, when something waits for it. */
API void work_copy(void *stream, void *to, const void *from, size_t bytes);
/* The last work given to the stream so far. */
API uint64_t work_mark(void);
/* Carries out what was given to the stream up to the mark. */
API void work_finish(void *stream, uint64_t mark);
API void work_finish_all(void);
API bool work_pending(void *stream, uint64_t mark);
/* Fresh memory holds nothing to rely on: in POISON mode every float of it is NaN. */
API void poison(void *at, size_t bytes);
/* HYBRIDLAB_SIMULATED_COPY_LIMIT: larger copies carry only their first and last page. */
API size_t copy_limit(void);
