/* Streams and events. Their order matters only in POISON mode (work.c); an event's time is the
 * host's, so that nothing here speaks of a card's speed. */
#include "runtime.h"
#include <stdlib.h>

#define MAX_STREAMS 4096

struct stream {
    int device, priority;
};
struct event {
    cudaStream_t stream;
    uint64_t mark, at_ns; /* at_ns: 0 until it is recorded */
    bool timed;
};
static struct stream *streams[MAX_STREAMS];

bool stream_known(cudaStream_t stream) {
    if (!stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return true;
    for (int i = 0; i < MAX_STREAMS; i++)
        if (__atomic_load_n(&streams[i], __ATOMIC_ACQUIRE) == (struct stream *)stream) return true;
    return false;
}
static cudaError_t check(cudaStream_t stream) {
    return stream_known(stream) ? cudaSuccess : keep(cudaErrorInvalidResourceHandle);
}

static bool keep_stream(struct stream *stream) {
    for (int i = 0; i < MAX_STREAMS; i++) {
        struct stream *none = NULL;
        if (__atomic_compare_exchange_n(&streams[i], &none, stream, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) return true;
    }
    return false;
}

API cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    cudaError_t error = enter();
    if (error) return error;
    struct stream *made = malloc(sizeof *made);
    *made = (struct stream){current_device(), priority < -5 ? -5 : priority > 0 ? 0 : priority};
    if (!keep_stream(made)) {
        free(made);
        return keep(cudaErrorMemoryAllocation);
    }
    *stream = (cudaStream_t)made;
    return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}
API cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
API cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    if (!stream || check(stream)) return keep(cudaErrorInvalidResourceHandle);
    work_finish(stream, UINT64_MAX);
    for (int i = 0; i < MAX_STREAMS; i++)
        if (streams[i] == (struct stream *)stream) __atomic_store_n(&streams[i], NULL, __ATOMIC_RELEASE);
    free(stream);
    return cudaSuccess;
}
API cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
    bool own = stream && stream != cudaStreamLegacy && stream != cudaStreamPerThread;
    cudaError_t error = check(stream);
    if (!error) *priority = own ? ((struct stream *)stream)->priority : 0;
    return error;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    cudaError_t error = check(stream);
    if (!error) work_finish(stream, UINT64_MAX);
    return error ? error : enter();
}
API cudaError_t cudaStreamQuery(cudaStream_t stream) {
    cudaError_t error = check(stream);
    if (error) return error;
    return work_pending(stream, UINT64_MAX) ? keep(cudaErrorNotReady) : cudaSuccess;
}

/* No graph is ever captured: cudaStreamBeginCapture is not supported. */
API cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return check(stream);
}
static cudaError_t no_capture(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph, size_t *dependencies) {
    if (status) *status = cudaStreamCaptureStatusNone;
    if (id) *id = 0;
    if (graph) *graph = NULL;
    if (dependencies) *dependencies = 0;
    return check(stream);
}
#if CUDART_VERSION >= 13000
API cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
    const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *dependencies) {
    return no_capture(stream, status, id, graph, dependencies);
}
#else
API cudaError_t cudaStreamGetCaptureInfo_v2(
    cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
    const cudaGraphNode_t **nodes, size_t *dependencies) {
    return no_capture(stream, status, id, graph, dependencies);
}
#endif
API cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return cudaSuccess; }

/* The host's function runs behind all that the stream was given. */
API cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    cudaError_t error = check(stream);
    if (error) return error;
    work_finish(stream, UINT64_MAX);
    function(data);
    return enter();
}
API cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void *data, unsigned flags) {
    cudaError_t error = check(stream);
    if (error) return error;
    work_finish(stream, UINT64_MAX);
    function(stream, cudaSuccess, data);
    return enter();
}

/* -------------------------------------------------------------------------------------- events */

API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    cudaError_t error = enter();
    if (error) return error;
    struct event *made = calloc(1, sizeof *made);
    made->timed = !(flags & cudaEventDisableTiming);
    *event = (cudaEvent_t)made;
    return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
API cudaError_t cudaEventDestroy(cudaEvent_t event) {
    if (!event) return keep(cudaErrorInvalidResourceHandle);
    free(event);
    return cudaSuccess;
}
API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (!event || check(stream)) return keep(cudaErrorInvalidResourceHandle);
    struct event *e = (struct event *)event;
    e->stream = stream;
    e->mark = work_mark();
    e->at_ns = now_ns();
    return enter();
}
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return cudaEventRecord(event, stream);
}
/* An event that was never recorded is over. */
API cudaError_t cudaEventQuery(cudaEvent_t event) {
    const struct event *e = (struct event *)event;
    if (!e) return keep(cudaErrorInvalidResourceHandle);
    return e->at_ns && work_pending(e->stream, e->mark) ? keep(cudaErrorNotReady) : cudaSuccess;
}
API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const struct event *e = (struct event *)event;
    if (!e) return keep(cudaErrorInvalidResourceHandle);
    if (e->at_ns) work_finish(e->stream, e->mark);
    return cudaSuccess;
}
/* What was recorded is carried out now: all that the stream is given from here on comes later. */
API cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    cudaError_t error = check(stream);
    return error ? error : cudaEventSynchronize(event);
}
API cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const struct event *a = (struct event *)start, *b = (struct event *)end;
    if (!a || !b || !a->timed || !b->timed || !a->at_ns || !b->at_ns) return keep(cudaErrorInvalidResourceHandle);
    if (work_pending(a->stream, a->mark) || work_pending(b->stream, b->mark)) return keep(cudaErrorNotReady);
    *milliseconds = (float)(((double)b->at_ns - (double)a->at_ns) / 1e6);
    return cudaSuccess;
}
