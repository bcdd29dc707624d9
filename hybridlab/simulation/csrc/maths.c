/* cuBLAS, cuDNN and the others: what of them must say something. All else of theirs answers success
 * and computes nothing.
 *
 * torch allocates cuBLAS's workspace itself, from the device's properties (8 MiB, from Hopper on
 * 32 MiB), so it is counted. A handle's own memory is the driver's: context_load_libraries. cuDNN's
 * convolutions take a workspace that its heuristics choose on the card; here they ask for none.
 */
#include "card.h"
#include <cuda_runtime_api.h>
#include <string.h>

#define ALLOCATION_FAILED 3 /* cuBLAS's number; of the others' any but 0 is a failure */

static char handle[4096]; /* nobody looks inside */

/* Each handle is another one: by handle and stream torch keeps cuBLAS' workspaces apart. */
static void *new_handle(void) {
    static unsigned created;
    return &handle[__sync_fetch_and_add(&created, 1) % sizeof handle];
}

/* The first handle of any library brings its kernels into the context. */
static int create(void **out) {
    *out = new_handle();
    return context_load_libraries(visible_card(current_device())) ? 0 : ALLOCATION_FAILED;
}
API int cublasCreate_v2(void **out) { return create(out); }
API int cublasLtCreate(void **out) { return create(out); }
API int cudnnCreate(void **out) { return create(out); }
API int cusparseCreate(void **out) { return create(out); }
API int cusolverDnCreate(void **out) { return create(out); }

API int cublasGetVersion_v2(void *h, int *version) {
    *version = CUDART_VERSION * 10;
    return 0;
}
API int cublasGetPointerMode_v2(void *h, int *mode) { return *mode = 0; }
API int cublasGetMathMode(void *h, int *mode) { return *mode = 0; }

API size_t cublasLtGetVersion(void) { return CUDART_VERSION * 10; }
API size_t cublasLtGetCudartVersion(void) { return CUDART_VERSION; }
/* One algorithm that needs no workspace. */
API int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *out,
                                       void *preference, int most, void *results, int *count) {
    memset(results, 0, 96); /* cublasLtMatmulHeuristicResult_t */
    *count = 1;
    return 0;
}

/* The version that torch was built for, which build.py reads from torch's package. */
API size_t cudnnGetVersion(void) { return 10000 * CUDNN_MAJOR + 100 * CUDNN_MINOR + CUDNN_PATCH; }
API int cudnnGetProperty(int part, int *value) {
    const int version[] = {CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCH};
    *value = version[part];
    return 0;
}
API size_t cudnnGetCudartVersion(void) { return CUDART_VERSION; }

/* cuDNN's graphs, by which attention goes from Hopper on: the heuristics find one plan for any
 * graph, without knobs, notes or a workspace. */
enum { ENGINE_HEURISTICS_RESULTS = 202, TYPE_INT64 = 3, TYPE_INT32 = 23 };
API int cudnnBackendCreateDescriptor(int kind, void **out) {
    *out = handle;
    return 0;
}
API int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t most, int64_t *count,
                                 void *values) {
    if (count) *count = name == ENGINE_HEURISTICS_RESULTS || most == 1;
    size_t width = type == TYPE_INT64 ? 8 : type == TYPE_INT32 ? 4 : 0;
    if (values && most > 0) memset(values, 0, width * (size_t)most);
    return 0;
}

API int ncclGetVersion(int *version) {
    *version = 10000 * NCCL_MAJOR + 100 * NCCL_MINOR + NCCL_PATCH;
    return 0;
}
