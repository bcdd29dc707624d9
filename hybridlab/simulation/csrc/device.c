/* The runtime's devices: none of these calls makes a context, except choosing a device (CUDA 12
 * and later) and waiting for it. */
#include "runtime.h"
#include <stdio.h>
#include <string.h>

static const struct card *card_of(int device) {
    int card = visible_card(device);
    return card < 0 ? NULL : &state_of_run()->card[card];
}

API cudaError_t cudaGetDeviceCount(int *count) {
    *count = visible_count();
    return *count ? cudaSuccess : keep(cudaErrorNoDevice);
}
API cudaError_t cudaGetDevice(int *device) {
    if (!visible_count()) return keep(cudaErrorNoDevice);
    *device = current_device();
    return cudaSuccess;
}
API cudaError_t cudaSetDevice(int device) {
    if (!card_of(device)) return keep(visible_count() ? cudaErrorInvalidDevice : cudaErrorNoDevice);
    set_current_device(device);
    return enter();
}
API cudaError_t cudaDeviceSynchronize(void) {
    work_finish_all();
    return enter();
}

static void name_card(struct cudaDeviceProp *p, const struct card *c) {
    snprintf(p->name, sizeof p->name, "%s", c->name);
    memcpy(&p->uuid, c->uuid, sizeof c->uuid);
    p->pciDomainID = (int)c->pci_domain;
    p->pciBusID = (int)c->pci_bus;
    p->pciDeviceID = (int)c->pci_device;
    p->major = c->major;
    p->minor = c->minor;
}

/* What all cards since Turing have in common, from the table of compute capabilities in the CUDA
 * programming guide. */
static void common_limits(struct cudaDeviceProp *p) {
    p->sharedMemPerBlock = 48 << 10;
    p->reservedSharedMemPerBlock = 1 << 10;
    p->totalConstMem = 64 << 10;
    p->regsPerBlock = p->regsPerMultiprocessor = 1 << 16;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->textureAlignment = 512;
    p->concurrentKernels = p->unifiedAddressing = p->canMapHostMemory = p->cooperativeLaunch = 1;
    p->managedMemory = p->streamPrioritiesSupported = p->hostRegisterSupported = 1;
    p->asyncEngineCount = 3;
}

API cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    const struct card *c = card_of(device);
    if (!c) return keep(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    name_card(p, c);
    common_limits(p);
    p->totalGlobalMem = c->usable_bytes;
    p->multiProcessorCount = c->multiprocessors;
    p->maxThreadsPerMultiProcessor = c->threads_per_multiprocessor;
    p->maxBlocksPerMultiProcessor = c->blocks_per_multiprocessor;
    p->sharedMemPerBlockOptin = c->shared_optin_bytes;
    p->sharedMemPerMultiprocessor = c->shared_multiprocessor_bytes;
    p->l2CacheSize = (int)c->l2_bytes;
    return cudaSuccess;
}

/* An attribute that is not listed is a feature that the card lacks. */
API cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error) return error;
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
        case cudaDevAttrMaxBlockDimX: *value = p.maxThreadsDim[0]; break;
        case cudaDevAttrMaxBlockDimY: *value = p.maxThreadsDim[1]; break;
        case cudaDevAttrMaxBlockDimZ: *value = p.maxThreadsDim[2]; break;
        case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
        case cudaDevAttrMaxGridDimY: *value = p.maxGridSize[1]; break;
        case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[2]; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
        case cudaDevAttrReservedSharedMemoryPerBlock: *value = (int)p.reservedSharedMemPerBlock; break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)p.sharedMemPerMultiprocessor; break;
        case cudaDevAttrTotalConstantMemory: *value = (int)p.totalConstMem; break;
        case cudaDevAttrWarpSize: *value = p.warpSize; break;
        case cudaDevAttrMaxRegistersPerBlock: *value = p.regsPerBlock; break;
        case cudaDevAttrMaxRegistersPerMultiprocessor: *value = p.regsPerMultiprocessor; break;
        case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
        case cudaDevAttrMaxBlocksPerMultiprocessor: *value = p.maxBlocksPerMultiProcessor; break;
        case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
        case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
        case cudaDevAttrPciDomainId: *value = p.pciDomainID; break;
        case cudaDevAttrPciBusId: *value = p.pciBusID; break;
        case cudaDevAttrPciDeviceId: *value = p.pciDeviceID; break;
        case cudaDevAttrAsyncEngineCount: *value = p.asyncEngineCount; break;
        case cudaDevAttrConcurrentKernels:
        case cudaDevAttrUnifiedAddressing:
        case cudaDevAttrCanMapHostMemory:
        case cudaDevAttrCooperativeLaunch:
        case cudaDevAttrManagedMemory:
        case cudaDevAttrStreamPrioritiesSupported:
        case cudaDevAttrHostRegisterSupported: *value = 1; break;
        default: *value = 0;
    }
    return cudaSuccess;
}

API cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) {
    const struct card *c = card_of(device);
    if (!c) return keep(cudaErrorInvalidDevice);
    snprintf(text, (size_t)size, "%04x:%02x:%02x.0", c->pci_domain, c->pci_bus, c->pci_device);
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return enter();
}

/* Cards lie behind different roots: none reads another's memory, copies go through the host. */
API cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    *can = 0;
    return card_of(device) && card_of(peer) ? cudaSuccess : keep(cudaErrorInvalidDevice);
}
API cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) { return keep(cudaErrorPeerAccessUnsupported); }
