/* The runtime's errors, versions and entry points of the driver. */
#include "runtime.h"
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static _Thread_local cudaError_t last;

cudaError_t keep(cudaError_t error) {
    if (error != cudaSuccess) last = error;
    return error;
}

/* The last error of this thread outlives the call that failed: whoever asks next is told it. */
API cudaError_t cudaGetLastError(void) {
    cudaError_t error = last;
    last = cudaSuccess;
    return error;
}
API cudaError_t cudaPeekAtLastError(void) { return last; }

#define ERRORS(X) \
    X(cudaSuccess, "no error") \
    X(cudaErrorInvalidValue, "invalid argument") \
    X(cudaErrorMemoryAllocation, "out of memory") \
    X(cudaErrorInitializationError, "initialization error") \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument") \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected") \
    X(cudaErrorInvalidDevice, "invalid device ordinal") \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle") \
    X(cudaErrorNotReady, "device not ready") \
    X(cudaErrorPeerAccessUnsupported, "peer access is not supported between these two devices") \
    X(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped") \
    X(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region") \
    X(cudaErrorNotSupported, "operation not supported")

API const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
#define TEXT(code, text) case code: return text;
        ERRORS(TEXT)
        default: return "unrecognized error code";
    }
}
API const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define NAME(code, text) case code: return #code;
        ERRORS(NAME)
        default: return "unrecognized error code";
    }
}

/* Every call of the runtime that is not written here (graphs, IPC, ...) ends in this. */
cudaError_t unsupported(void) { return keep(cudaErrorNotSupported); }

cudaError_t enter(void) {
    if (!visible_count()) return keep(cudaErrorNoDevice);
    switch (context_enter(visible_card(current_device()))) {
        case ENTERED: return cudaSuccess;
        case NO_CARD: return keep(cudaErrorNoDevice);
        case FORKED: return keep(cudaErrorInitializationError);
        default: return keep(cudaErrorMemoryAllocation);
    }
}

API cudaError_t cudaDriverGetVersion(int *version) {
    const struct state *s = state_of_run();
    *version = s ? s->cuda_version : 0;
    return cudaSuccess;
}
API cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

static int not_supported(void) { return CUDA_ERROR_NOT_SUPPORTED; }

/* The driver's function of that name, in its newest version; one that is not simulated says so
 * when it is called. */
static void *driver_function(const char *name) {
    static void *driver;
    char second[128];
    if (!driver) driver = dlopen("libcuda.so.1", RTLD_NOW);
    snprintf(second, sizeof second, "%s_v2", name);
    void *found = driver ? dlsym(driver, second) : NULL;
    if (!found && driver) found = dlsym(driver, name);
    return found ? found : (void *)not_supported;
}
API cudaError_t cudaGetDriverEntryPointByVersion(
    const char *name, void **function, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *status) {
    *function = driver_function(name);
    if (status) *status = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
#if CUDART_VERSION < 13000
API cudaError_t cudaGetDriverEntryPoint(
    const char *name, void **function, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *status) {
    return cudaGetDriverEntryPointByVersion(name, function, CUDART_VERSION, flags, status);
}
#endif

API cudaError_t cudaProfilerStart(void) { return cudaSuccess; }
API cudaError_t cudaProfilerStop(void) { return cudaSuccess; }
