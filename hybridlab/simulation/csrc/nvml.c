/* libnvidia-ml over the same state: it counts all cards, whatever CUDA_VISIBLE_DEVICES says, in the
 * order of the PCI bus, and makes no context. Structs and numbers are those of NVML's documentation:
 * its header comes with no package that torch needs. */
#include "card.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, LIBRARY_NOT_FOUND = 12
} answer;
typedef const struct card *device;
typedef unsigned long long number;

#define BUSY_NS 100000000ull /* a card is busy so long after a launch */
#define LAUNCH_MJ 1          /* and has used so much more for it: kernels take no time here */
#define IDLE_TEMPERATURE_C 35
#define BUSY_TEMPERATURE_C 60

static int starts;

static const struct activity *activity_of(device d) {
    const struct state *s = state_of_run();
    return &s->activity[d - s->card];
}
static bool busy(device d) {
    uint64_t at = activity_of(d)->last_launch_ns;
    return at && now_ns() - at < BUSY_NS;
}

/* Without NVML the loader finds no library; asking one that is there says the same. */
API answer nvmlInitWithFlags(unsigned flags) {
    const struct state *s = state_of_run();
    if (!s || s->flags & NVML_ABSENT) return LIBRARY_NOT_FOUND;
    starts++;
    return OK;
}
API answer nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API answer nvmlInit(void) { return nvmlInitWithFlags(0); }
API answer nvmlShutdown(void) {
    if (!starts) return UNINITIALIZED;
    starts--;
    return OK;
}
API const char *nvmlErrorString(answer a) {
    switch (a) {
        case OK: return "Success";
        case UNINITIALIZED: return "Uninitialized";
        case INVALID_ARGUMENT: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case NOT_FOUND: return "Not Found";
        case INSUFFICIENT_SIZE: return "Insufficient Size";
        case LIBRARY_NOT_FOUND: return "NVML Shared Library Not Found";
        default: return "Unknown Error";
    }
}
API answer nvmlSystemGetDriverVersion(char *text, unsigned size) {
    if (!starts) return UNINITIALIZED;
    snprintf(text, size, "%s", state_of_run()->driver_version);
    return OK;
}
API answer nvmlSystemGetCudaDriverVersion(int *version) {
    if (!starts) return UNINITIALIZED;
    *version = state_of_run()->cuda_version;
    return OK;
}
API answer nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }

/* --------------------------------------------------------------------------- which card is meant */

API answer nvmlDeviceGetCount_v2(unsigned *count) {
    if (!starts) return UNINITIALIZED;
    *count = state_of_run()->cards;
    return OK;
}
API answer nvmlDeviceGetHandleByIndex_v2(unsigned index, device *d) {
    if (!starts) return UNINITIALIZED;
    if (index >= state_of_run()->cards) return INVALID_ARGUMENT;
    *d = &state_of_run()->card[index];
    return OK;
}
API answer nvmlDeviceGetHandleByUUID(const char *uuid, device *d) {
    if (!starts) return UNINITIALIZED;
    for (unsigned i = 0; i < state_of_run()->cards; i++) {
        char own[41];
        uuid_text(&state_of_run()->card[i], own);
        *d = &state_of_run()->card[i];
        if (!strcasecmp(own, uuid)) return OK;
    }
    return NOT_FOUND;
}
API answer nvmlDeviceGetHandleByPciBusId_v2(const char *text, device *d) {
    if (!starts) return UNINITIALIZED;
    unsigned domain, bus, slot;
    if (sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3) return INVALID_ARGUMENT;
    for (unsigned i = 0; i < state_of_run()->cards; i++) {
        *d = &state_of_run()->card[i];
        if ((*d)->pci_domain == domain && (*d)->pci_bus == bus && (*d)->pci_device == slot) return OK;
    }
    return NOT_FOUND;
}
API answer nvmlDeviceGetIndex(device d, unsigned *index) {
    *index = (unsigned)(d - state_of_run()->card);
    return OK;
}
API answer nvmlDeviceGetName(device d, char *text, unsigned size) {
    snprintf(text, size, "%s", d->name);
    return OK;
}
API answer nvmlDeviceGetUUID(device d, char *text, unsigned size) {
    char uuid[41];
    uuid_text(d, uuid);
    snprintf(text, size, "%s", uuid);
    return OK;
}
API answer nvmlDeviceGetPciInfo_v3(device d, void *out) {
    struct { char legacy[16]; unsigned domain, bus, slot, id, subsystem; char text[32]; } *p = out;
    memset(p, 0, sizeof *p);
    p->domain = d->pci_domain;
    p->bus = d->pci_bus;
    p->slot = d->pci_device;
    snprintf(p->legacy, sizeof p->legacy, "%04X:%02X:%02X.0", p->domain & 0xffff, p->bus & 0xff, p->slot & 0xff);
    snprintf(p->text, sizeof p->text, "%08X:%02X:%02X.0", p->domain, p->bus & 0xff, p->slot & 0xff);
    return OK;
}
API answer nvmlDeviceGetCudaComputeCapability(device d, int *major, int *minor) {
    *major = d->major;
    *minor = d->minor;
    return OK;
}

/* -------------------------------------------------------------------------------------- memory */

static number used(device d) { return device_used((int)(d - state_of_run()->card)); }

/* The first form books what the driver reserves as used. */
API answer nvmlDeviceGetMemoryInfo(device d, void *out) {
    struct { number total, free, used; } *m = out;
    m->total = d->total_bytes;
    m->free = d->usable_bytes - used(d);
    m->used = m->total - m->free;
    return OK;
}
API answer nvmlDeviceGetMemoryInfo_v2(device d, void *out) {
    struct { unsigned version; number total, reserved, free, used; } *m = out;
    m->total = d->total_bytes;
    m->reserved = d->total_bytes - d->usable_bytes;
    m->used = used(d);
    m->free = d->usable_bytes - m->used;
    return OK;
}

/* Computing processes; where a container hides process ids, none. */
static int processes(device d, struct user users[MAX_USERS]) {
    if (state_of_run()->flags & HIDE_PIDS) return 0;
    return device_users((int)(d - state_of_run()->card), users, MAX_USERS);
}
API answer nvmlDeviceGetComputeRunningProcesses_v3(device d, unsigned *count, void *out) {
    struct { unsigned pid; number used; unsigned gpu_instance, compute_instance; } *p = out;
    struct user users[MAX_USERS];
    unsigned room = *count, n = *count = (unsigned)processes(d, users);
    if (n > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < n; i++) {
        p[i].pid = (unsigned)users[i].pid;
        p[i].used = users[i].context_bytes + users[i].device_bytes;
        p[i].gpu_instance = p[i].compute_instance = ~0u;
    }
    return OK;
}
API answer nvmlDeviceGetComputeRunningProcesses_v2(device d, unsigned *count, void *out) {
    return nvmlDeviceGetComputeRunningProcesses_v3(d, count, out);
}
/* The oldest form, which torch asks for its text on running out of memory. */
API answer nvmlDeviceGetComputeRunningProcesses(device d, unsigned *count, void *out) {
    struct { unsigned pid; number used; } *p = out;
    struct user users[MAX_USERS];
    unsigned room = *count, n = *count = (unsigned)processes(d, users);
    if (n > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < n; i++) {
        p[i].pid = (unsigned)users[i].pid;
        p[i].used = users[i].context_bytes + users[i].device_bytes;
    }
    return OK;
}
API answer nvmlDeviceGetGraphicsRunningProcesses_v3(device d, unsigned *count, void *out) {
    *count = 0;
    return OK;
}

/* ---------------------------------------------------------------------- load, clocks and energy */

API answer nvmlDeviceGetUtilizationRates(device d, void *out) {
    struct { unsigned gpu, memory; } *u = out;
    u->gpu = busy(d) ? 100 : 0;
    u->memory = busy(d) ? 50 : 0;
    return OK;
}
API answer nvmlDeviceGetTemperature(device d, int sensor, unsigned *celsius) {
    *celsius = busy(d) ? BUSY_TEMPERATURE_C : IDLE_TEMPERATURE_C;
    return OK;
}
API answer nvmlDeviceGetClockInfo(device d, int clock, unsigned *mhz) {
    *mhz = busy(d) ? d->clock_mhz : d->idle_clock_mhz;
    return OK;
}
API answer nvmlDeviceGetMaxClockInfo(device d, int clock, unsigned *mhz) {
    *mhz = d->clock_mhz;
    return OK;
}
API answer nvmlDeviceGetPowerUsage(device d, unsigned *milliwatts) {
    *milliwatts = busy(d) ? d->power_limit_mw : d->idle_power_mw;
    return OK;
}
API answer nvmlDeviceGetEnforcedPowerLimit(device d, unsigned *milliwatts) {
    *milliwatts = d->power_limit_mw;
    return OK;
}
/* Rises with time and with every launch. */
API answer nvmlDeviceGetTotalEnergyConsumption(device d, number *millijoules) {
    number idle = (now_ns() - state_of_run()->created_ns) / 1000000 * d->idle_power_mw / 1000;
    *millijoules = idle + activity_of(d)->launches * LAUNCH_MJ;
    return OK;
}
API answer nvmlDeviceGetCurrentClocksThrottleReasons(device d, number *reasons) {
    *reasons = 0; /* nothing slows a card that computes nothing */
    return OK;
}
API answer nvmlDeviceGetCurrentClocksEventReasons(device d, number *reasons) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(d, reasons);
}
API answer nvmlDeviceGetPersistenceMode(device d, unsigned *mode) {
    *mode = 1;
    return OK;
}

/* ----------------------------------------------------------------- what these cards do not have */

API answer nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) { return NOT_SUPPORTED; }
API answer nvmlDeviceGetMaxMigDeviceCount(device d, unsigned *count) {
    *count = 0;
    return OK;
}
API answer nvmlDeviceGetProcessUtilization(device d, void *samples, unsigned *count, number since) { return NOT_SUPPORTED; }
API answer nvmlDeviceGetP2PStatus(device d, device peer, int kind, int *status) {
    *status = 3; /* chipset not supported */
    return OK;
}
API answer nvmlDeviceGetNvLinkRemoteDeviceType(device d, unsigned link, unsigned *kind) { return NOT_SUPPORTED; }
API answer nvmlDeviceGetNvLinkRemotePciInfo_v2(device d, unsigned link, void *out) { return NOT_SUPPORTED; }
/* torch asks before it makes an expandable segment, and takes a failure for its own. State 0: no
 * fabric. The struct's size stands in the low bits of its version, its first word. */
API answer nvmlDeviceGetGpuFabricInfoV(device d, void *out) {
    unsigned size = *(unsigned *)out & 0xffffff;
    memset((char *)out + sizeof size, 0, size - sizeof size);
    return OK;
}
