/* Kernels: they are registered, their launches are checked and counted, and they do not run. */
#include "runtime.h"
#include <cuda.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define REGISTERS_PER_THREAD 32 /* what each kernel is said to use */

/* -------------------------------------------------- which architectures kernels were compiled for */

#define MAX_ARCHITECTURES 16
/* A file that nvcc has compiled. */
struct binary {
    int architectures[MAX_ARCHITECTURES], count;
};
/* Its kernels, each by the host's function that stands for it; in order from the first look on. */
static struct kernel {
    const void *function;
    const struct binary *binary;
} *kernels;
static size_t n_kernels, kernels_room;
static bool in_order;

/* What nvcc leaves of a file (fatbinary_section.h of CUDA's toolkit), then one header and one entry
 * for each architecture, each of which says where the next one begins. */
struct fat_wrapper {
    int magic, version;
    const char *data;
};
struct fat_header {
    unsigned magic;
    unsigned short version, header_bytes;
    unsigned long long body_bytes;
};
struct fat_entry {
    unsigned short kind, version;
    unsigned header_bytes;
    unsigned long long body_bytes;
    unsigned unused[3], architecture; /* 86 for sm_86 */
};
enum { FAT_WRAPPER = 0x466243b1, FAT_HEADER = 0xBA55ED50u, MACHINE_CODE = 2 };

/* Files and their kernels are registered by one thread, when their library is loaded. */
static void read_architectures(struct binary *binary, const struct fat_wrapper *file) {
    if (file->magic != FAT_WRAPPER || !file->data) return;
    struct fat_header header;
    memcpy(&header, file->data, sizeof header);
    if (header.magic != FAT_HEADER) return;
    const char *at = file->data + header.header_bytes, *end = at + header.body_bytes;
    while (at + sizeof(struct fat_entry) <= end && binary->count < MAX_ARCHITECTURES) {
        struct fat_entry entry;
        memcpy(&entry, at, sizeof entry);
        if (!entry.header_bytes) return;
        if (entry.kind == MACHINE_CODE)
            binary->architectures[binary->count++] = (int)entry.architecture;
        at += entry.header_bytes + entry.body_bytes;
    }
}
static void add_kernel(const void *function, const struct binary *binary) {
    if (n_kernels == kernels_room) {
        kernels_room = kernels_room ? 2 * kernels_room : 4096;
        kernels = realloc(kernels, kernels_room * sizeof *kernels);
        if (!kernels) abort();
    }
    kernels[n_kernels++] = (struct kernel){function, binary};
    in_order = false;
}
static int by_function(const void *one, const void *other) {
    const struct kernel *a = one, *b = other;
    return (a->function > b->function) - (a->function < b->function);
}
/* Whose code a card runs: the newest of its own major version that is not newer than it is; an L4
 * (8.9) mostly runs that for 8.6, and libraries choose their tuning by it. */
static int code_of(const void *function, int major, int minor) {
    static pthread_mutex_t ordering = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&ordering);
    if (!in_order) qsort(kernels, n_kernels, sizeof *kernels, by_function);
    in_order = true;
    struct kernel wanted = {function, NULL};
    const struct kernel *found =
        bsearch(&wanted, kernels, n_kernels, sizeof *kernels, by_function);
    pthread_mutex_unlock(&ordering);
    int best = 0;
    for (int i = 0; found && i < found->binary->count; i++) {
        int own = found->binary->architectures[i];
        if (own / 10 == major && own % 10 <= minor && own > best) best = own;
    }
    return best ? best : major * 10 + minor;
}

static const struct card *here(void) {
    return &state_of_run()->card[visible_card(current_device())];
}

/* In a stream a kernel comes after the copies before it. */
static cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) {
    cudaError_t error = enter();
    if (error) return error;
    if (!stream_known(stream)) return keep(cudaErrorInvalidResourceHandle);
    size_t threads = (size_t)block.x * block.y * block.z;
    if (!threads || threads > 1024 || !grid.x || !grid.y || !grid.z || grid.y > 65535 ||
        grid.z > 65535)
        return keep(cudaErrorInvalidConfiguration);
    if (shared_bytes > here()->shared_optin_bytes) return keep(cudaErrorInvalidValue);
    work_finish(stream, UINT64_MAX);
    struct activity *activity = &state_of_run()->activity[visible_card(current_device())];
    __atomic_add_fetch(&activity->launches, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&activity->last_launch_ns, now_ns(), __ATOMIC_RELAXED);
    return cudaSuccess;
}
API cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments,
                                 size_t shared_bytes, cudaStream_t stream) {
    return launch(grid, block, shared_bytes, stream);
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments,
                                   size_t shared_bytes, cudaStream_t stream) {
    return launch(grid, block, shared_bytes, stream);
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel,
                                    void **arguments) {
    return launch(config->gridDim, config->blockDim, config->dynamicSmemBytes, config->stream);
}

API cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *about, const void *kernel) {
    cudaError_t error = enter();
    if (error) return error;
    memset(about, 0, sizeof *about);
    about->maxThreadsPerBlock = 1024;
    about->numRegs = REGISTERS_PER_THREAD;
    about->ptxVersion = about->binaryVersion = 
        code_of(kernel, here()->major, here()->minor);
    about->maxDynamicSharedSizeBytes = (int)here()->shared_optin_bytes;
    return cudaSuccess;
}
/* Only so much shared memory as the card has may be asked for. */
API cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute,
                                     int value) {
    cudaError_t error = enter();
    if (error) return error;
    bool too_much = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize &&
                    value > (int)here()->shared_optin_bytes;
    return too_much ? keep(cudaErrorInvalidValue) : cudaSuccess;
}
API cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel,
                                                enum cudaFuncAttribute attribute, int value,
                                                int device) {
    return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}

static int least(int a, int b) { return a < b ? a : b; }

/* How many blocks one multiprocessor holds by its threads, slots, registers and shared memory. */
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, const void *kernel, int threads, size_t shared_bytes, unsigned flags) {
    cudaError_t error = enter();
    if (error) return error;
    if (threads <= 0) return keep(cudaErrorInvalidValue);
    const struct card *c = here();
    int by_threads = c->threads_per_multiprocessor / ((threads + 31) / 32 * 32);
    int by_registers = 65536 / (REGISTERS_PER_THREAD * threads);
    int by_shared = (int)(c->shared_multiprocessor_bytes / (shared_bytes + 1024));
    if (shared_bytes > c->shared_optin_bytes || threads > 1024) by_threads = 0;
    *blocks =
        least(least(by_threads, by_registers), least(by_shared, c->blocks_per_multiprocessor));
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel,
                                                              int threads, size_t shared_bytes) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, kernel, threads,
                                                                  shared_bytes, 0);
}

/* ------------------------------------------- what nvcc's code calls before main and per launch */

API void **__cudaRegisterFatBinary(void *file) {
    struct binary *binary = calloc(1, sizeof *binary);
    if (!binary) abort();
    read_architectures(binary, file);
    return (void **)binary;
}
API void __cudaRegisterFatBinaryEnd(void **handle) {}
API void __cudaUnregisterFatBinary(void **handle) {}
API void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                                int limit, void *thread, void *block, void *block_size, void *grid,
                                int *warp) {
    add_kernel(host, (const struct binary *)handle);
}
API void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external,
                           size_t bytes, int constant, int global) {}
API char __cudaInitModule(void **handle) { return 1; }
API cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}

static _Thread_local struct {
    dim3 grid, block;
    size_t shared_bytes;
    void *stream;
} pushed;
API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void *stream) {
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared_bytes = shared_bytes;
    pushed.stream = stream;
    return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes,
                                           void *stream) {
    *grid = pushed.grid;
    *block = pushed.block;
    *shared_bytes = pushed.shared_bytes;
    *(void **)stream = pushed.stream;
    return cudaSuccess;
}
