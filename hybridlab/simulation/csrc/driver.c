/* libcuda: what torch asks of the driver itself, above all virtual memory for expandable segments.
 * A program that brings its own runtime (CTranslate2) finds devices here and no more: the private
 * tables that such a runtime asks for (cuGetExportTable) do not exist, which it reports. */
#include "card.h"
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct card *card_of(CUdevice device) {
    int card = visible_card(device);
    return card < 0 ? NULL : &state_of_run()->card[card];
}
/* A context is its device's primary one. */
static CUcontext context_of(int device) { return (CUcontext)(uintptr_t)(0x1000 + 16 * device); }
static int device_of(CUcontext context) { return (int)(((uintptr_t)context - 0x1000) / 16); }

API CUresult cuInit(unsigned flags) { return visible_count() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }
API CUresult cuDriverGetVersion(int *version) {
    const struct state *s = state_of_run();
    *version = s ? s->cuda_version : 0;
    return CUDA_SUCCESS;
}
API CUresult cuGetErrorString(CUresult error, const char **text) {
    switch (error) {
        case CUDA_SUCCESS: *text = "no error"; break;
        case CUDA_ERROR_OUT_OF_MEMORY: *text = "out of memory"; break;
        case CUDA_ERROR_INVALID_VALUE: *text = "invalid argument"; break;
        case CUDA_ERROR_NO_DEVICE: *text = "no CUDA-capable device is detected"; break;
        case CUDA_ERROR_NOT_FOUND: *text = "named symbol not found"; break;
        case CUDA_ERROR_NOT_SUPPORTED: *text = "operation not supported"; break;
        default: *text = NULL; return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
API CUresult cuGetErrorName(CUresult error, const char **text) {
    switch (error) {
        case CUDA_SUCCESS: *text = "CUDA_SUCCESS"; break;
        case CUDA_ERROR_OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case CUDA_ERROR_INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; break;
        case CUDA_ERROR_NO_DEVICE: *text = "CUDA_ERROR_NO_DEVICE"; break;
        case CUDA_ERROR_NOT_FOUND: *text = "CUDA_ERROR_NOT_FOUND"; break;
        case CUDA_ERROR_NOT_SUPPORTED: *text = "CUDA_ERROR_NOT_SUPPORTED"; break;
        default: *text = NULL; return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
API CUresult cuGetExportTable(const void **table, const CUuuid *id) {
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}
API CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status) {
    char second[128];
    snprintf(second, sizeof second, "%s_v2", name);
    *function = dlsym(RTLD_DEFAULT, second);
    if (!*function) *function = dlsym(RTLD_DEFAULT, name);
    if (status) *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* ------------------------------------------------------------------------ devices and contexts */

API CUresult cuDeviceGetCount(int *count) {
    *count = visible_count();
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return card_of(ordinal) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
API CUresult cuDeviceGetName(char *text, int size, CUdevice device) {
    const struct card *c = card_of(device);
    if (!c) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(text, (size_t)size, "%s", c->name);
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    const struct card *c = card_of(device);
    if (!c) return CUDA_ERROR_INVALID_DEVICE;
    memcpy(uuid, c->uuid, sizeof c->uuid);
    return CUDA_SUCCESS;
}
API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    const struct card *c = card_of(device);
    if (!c) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = c->usable_bytes;
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    const struct card *c = card_of(device);
    if (!c) return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = c->major; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = c->minor; break;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = c->multiprocessors; break;
        case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
        default: *value = 0; /* fabric handles, multicast, ...: features that these cards lack */
    }
    return CUDA_SUCCESS;
}
/* Looking at the state of a primary context does not make it. */
API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    if (!card_of(device)) return CUDA_ERROR_INVALID_DEVICE;
    if (flags) *flags = 0;
    *active = context_exists(visible_card(device));
    return CUDA_SUCCESS;
}
static CUresult enter(int device) {
    switch (context_enter(visible_card(device))) {
        case ENTERED: return CUDA_SUCCESS;
        case NO_CARD: return CUDA_ERROR_NO_DEVICE;
        case FORKED: return CUDA_ERROR_NOT_INITIALIZED;
        default: return CUDA_ERROR_OUT_OF_MEMORY;
    }
}
API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = context_of(device);
    return enter(device);
}
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return CUDA_SUCCESS; }
API CUresult cuCtxGetCurrent(CUcontext *context) {
    bool there = context_exists(visible_card(current_device()));
    *context = there ? context_of(current_device()) : NULL;
    return CUDA_SUCCESS;
}
API CUresult cuCtxGetDevice(CUdevice *device) {
    *device = current_device();
    return CUDA_SUCCESS;
}
API CUresult cuCtxSetCurrent(CUcontext context) {
    if (!context) return CUDA_SUCCESS;
    set_current_device(device_of(context));
    return enter(current_device());
}
API CUresult cuCtxPushCurrent_v2(CUcontext context) { return cuCtxSetCurrent(context); }
API CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    return context ? cuCtxGetCurrent(context) : CUDA_SUCCESS;
}
API CUresult cuCtxSynchronize(void) {
    work_finish_all();
    return enter(current_device());
}

/* ------------------------------------------------------------------------------- virtual memory */

/* Device memory without an address. It is given back when nothing holds it: neither the handle nor
 * a mapping. */
struct physical {
    size_t bytes;
    int device, holders;
};
static void let_go(struct physical *memory) {
    if (__atomic_sub_fetch(&memory->holders, 1, __ATOMIC_ACQ_REL)) return;
    device_give(visible_card(memory->device), memory->bytes);
    free(memory);
}

API CUresult cuMemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *wish, CUmemAllocationGranularity_flags flags) {
    *bytes = PAGE_BYTES;
    return CUDA_SUCCESS;
}
API CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *wish, unsigned long long flags) {
    int device = wish->location.id;
    if (!bytes || bytes % PAGE_BYTES || !card_of(device)) return CUDA_ERROR_INVALID_VALUE;
    CUresult error = enter(device);
    if (error) return error;
    if (!device_take(visible_card(device), bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    struct physical *memory = malloc(sizeof *memory);
    *memory = (struct physical){bytes, device, 1};
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)memory;
    return CUDA_SUCCESS;
}
API CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
    let_go((struct physical *)(uintptr_t)handle);
    return CUDA_SUCCESS;
}

static bool lay(void *at, size_t bytes, int protection, int flags) {
    return mmap(at, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0) != MAP_FAILED;
}
API CUresult cuMemAddressReserve(CUdeviceptr *at, size_t bytes, size_t alignment, CUdeviceptr wish, unsigned long long flags) {
    void *range = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    *at = (CUdeviceptr)(uintptr_t)range;
    return CUDA_SUCCESS;
}
API CUresult cuMemAddressFree(CUdeviceptr at, size_t bytes) {
    munmap((void *)(uintptr_t)at, bytes);
    return CUDA_SUCCESS;
}
API CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags) {
    struct physical *memory = (struct physical *)(uintptr_t)handle;
    struct block block = {(uintptr_t)at, bytes, MAPPED_BLOCK, memory->device, memory};
    if (offset || bytes != memory->bytes || !block_add(block)) return CUDA_ERROR_INVALID_VALUE;
    __atomic_add_fetch(&memory->holders, 1, __ATOMIC_ACQ_REL);
    if (!lay((void *)(uintptr_t)at, bytes, PROT_READ | PROT_WRITE, MAP_FIXED)) return CUDA_ERROR_OUT_OF_MEMORY;
    poison((void *)(uintptr_t)at, bytes);
    return CUDA_SUCCESS;
}
/* All mappings in the range; nothing of it can be touched afterwards. */
API CUresult cuMemUnmap(CUdeviceptr at, size_t bytes) {
    struct block block;
    work_finish_all();
    for (size_t done = 0; done < bytes; done += block.bytes) {
        void *place = (void *)(uintptr_t)(at + done);
        if (!block_remove(place, MAPPED_BLOCK, &block)) return CUDA_ERROR_INVALID_VALUE;
        lay(place, block.bytes, PROT_NONE, MAP_FIXED);
        let_go(block.handle);
    }
    return CUDA_SUCCESS;
}
API CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *wish, size_t count) { return CUDA_SUCCESS; }
API CUresult cuMemGetAddressRange_v2(CUdeviceptr *at, size_t *bytes, CUdeviceptr pointer) {
    struct block block;
    if (!block_find((void *)(uintptr_t)pointer, &block)) return CUDA_ERROR_NOT_FOUND;
    if (at) *at = block.at;
    if (bytes) *bytes = block.bytes;
    return CUDA_SUCCESS;
}
