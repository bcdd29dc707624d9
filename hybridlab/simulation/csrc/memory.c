/* The runtime's memory: device memory is address space that is reserved and not touched, so that a
 * card larger than this machine can be stood in for; it is counted in the state file. Pinned host
 * memory is counted against the state's limit. */
#include "runtime.h"
#include <string.h>
#include <sys/mman.h>

static size_t rounded(size_t bytes, size_t page) { return (bytes + page - 1) / page * page; }

static void *reserve(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static int here(void) { return visible_card(current_device()); }

/* Out of memory where less than that is free on the card, in whole pages of the driver. */
API cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    cudaError_t error = enter();
    if (error) return error;
    *pointer = NULL;
    if (!bytes) return cudaSuccess;
    size_t granted = rounded(bytes, PAGE_BYTES);
    if (granted < bytes || !device_take(here(), granted)) return keep(cudaErrorMemoryAllocation);
    void *at = reserve(granted);
    if (!at || !block_add((struct block){(uintptr_t)at, granted, DEVICE_BLOCK, current_device(), NULL})) {
        device_give(here(), granted);
        return keep(cudaErrorMemoryAllocation);
    }
    poison(at, granted);
    *pointer = at;
    return cudaSuccess;
}

/* Waits for all work first, as CUDA does. Freeing nothing makes a context. */
API cudaError_t cudaFree(void *pointer) {
    cudaError_t error = enter();
    if (error || !pointer) return error;
    work_finish_all();
    struct block block;
    if (!block_remove(pointer, DEVICE_BLOCK, &block)) return keep(cudaErrorInvalidValue);
    munmap(pointer, block.bytes);
    device_give(visible_card(block.device), block.bytes);
    return cudaSuccess;
}

/* The stream-ordered allocator is the plain one: nothing is kept in a pool of the driver's. */
API cudaError_t cudaMallocAsync(void **pointer, size_t bytes, cudaStream_t stream) {
    return cudaMalloc(pointer, bytes);
}
API cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) { return cudaFree(pointer); }

API cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    cudaError_t error = enter();
    if (error) return error;
    uint64_t used = device_used(here());
    *total = state_of_run()->card[here()].usable_bytes;
    *free_bytes = used < *total ? *total - used : 0;
    return cudaSuccess;
}

/* ------------------------------------------------------------------------------- pinned memory */

static cudaError_t pin(void *at, size_t bytes, enum block_kind kind) {
    struct block block = {(uintptr_t)at, bytes, kind, current_device(), NULL};
    if (!block_add(block)) return cudaErrorHostMemoryAlreadyRegistered;
    if (pinned_take(here(), bytes)) return cudaSuccess;
    block_remove(at, kind, &block);
    return cudaErrorMemoryAllocation;
}

API cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    cudaError_t error = enter();
    if (error) return error;
    *pointer = NULL;
    if (!bytes) return cudaSuccess;
    size_t granted = rounded(bytes, 4096);
    void *at = reserve(granted);
    error = at ? pin(at, granted, PINNED_BLOCK) : cudaErrorMemoryAllocation;
    if (error && at) munmap(at, granted);
    if (!error) *pointer = at;
    return keep(error);
}

API cudaError_t cudaFreeHost(void *pointer) {
    cudaError_t error = enter();
    if (error || !pointer) return error;
    work_finish_all();
    struct block block;
    if (!block_remove(pointer, PINNED_BLOCK, &block)) return keep(cudaErrorInvalidValue);
    munmap(pointer, block.bytes);
    pinned_give(visible_card(block.device), block.bytes);
    return cudaSuccess;
}

/* Pins memory that is there already; not none of it, and none that is pinned. */
API cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags) {
    cudaError_t error = enter();
    if (error) return error;
    if (!pointer || !bytes) return keep(cudaErrorInvalidValue);
    return keep(pin(pointer, bytes, REGISTERED_BLOCK));
}

API cudaError_t cudaHostUnregister(void *pointer) {
    cudaError_t error = enter();
    if (error) return error;
    work_finish_all();
    struct block block;
    if (!block_remove(pointer, REGISTERED_BLOCK, &block)) return keep(cudaErrorHostMemoryNotRegistered);
    pinned_give(visible_card(block.device), block.bytes);
    return cudaSuccess;
}

static bool on_device(const struct block *block) {
    return block->kind == DEVICE_BLOCK || block->kind == MAPPED_BLOCK;
}

API cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *about, const void *pointer) {
    cudaError_t error = enter();
    if (error) return error;
    struct block block;
    *about = (struct cudaPointerAttributes){.type = cudaMemoryTypeUnregistered, .device = cudaInvalidDeviceId};
    if (!block_find(pointer, &block)) return cudaSuccess;
    about->type = on_device(&block) ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    about->device = block.device;
    about->devicePointer = (void *)pointer;
    about->hostPointer = on_device(&block) ? NULL : (void *)pointer;
    return cudaSuccess;
}

/* -------------------------------------------------------------------------------------- copies */

static bool is_device(const void *pointer) {
    struct block block;
    return block_find(pointer, &block) && on_device(&block);
}

static bool kind_holds(bool to, bool from, enum cudaMemcpyKind kind) {
    switch (kind) {
        case cudaMemcpyHostToHost: return !to && !from;
        case cudaMemcpyHostToDevice: return to && !from;
        case cudaMemcpyDeviceToHost: return !to && from;
        case cudaMemcpyDeviceToDevice: return to && from;
        default: return kind == cudaMemcpyDefault;
    }
}

static void count(bool to, bool from, size_t bytes) {
    enum direction way = !from ? TO_DEVICE : !to ? TO_HOST : ON_DEVICE;
    if (to || from) __atomic_add_fetch(&state_of_run()->activity[here()].copied_bytes[way], bytes, __ATOMIC_RELAXED);
}

/* Invalid where a pointer is not on the side that the kind says. */
API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    cudaError_t error = enter();
    if (error || !bytes) return error;
    if (!stream_known(stream)) return keep(cudaErrorInvalidResourceHandle);
    bool to_device = is_device(to), from_device = is_device(from);
    if (!kind_holds(to_device, from_device, kind)) return keep(cudaErrorInvalidValue);
    count(to_device, from_device, bytes);
    work_copy(stream, to, from, bytes);
    return cudaSuccess;
}
API cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, NULL);
    work_finish(NULL, UINT64_MAX);
    return error;
}
API cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes, cudaStream_t stream) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
API cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    cudaError_t error = cudaSuccess;
    for (size_t i = 0; i < height && !error; i++)
        error = cudaMemcpyAsync((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width, kind, stream);
    return error;
}

/* Comes after what the stream was given before. */
API cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
    cudaError_t error = enter();
    if (error || !bytes) return error;
    if (!is_device(at)) return keep(cudaErrorInvalidValue);
    work_finish(stream, UINT64_MAX);
    if (bytes <= copy_limit()) memset(at, value, bytes);
    return cudaSuccess;
}
API cudaError_t cudaMemset(void *at, int value, size_t bytes) { return cudaMemsetAsync(at, value, bytes, NULL); }

/* Variables of kernels share one piece of memory: no kernel runs to read them. */
static char symbols[1 << 16];
API cudaError_t cudaGetSymbolAddress(void **pointer, const void *symbol) {
    block_add((struct block){(uintptr_t)symbols, sizeof symbols, DEVICE_BLOCK, current_device(), NULL});
    *pointer = symbols;
    return cudaSuccess;
}
API cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset, enum cudaMemcpyKind kind) {
    return enter();
}
