/* What the parts of the stand-in for libcudart share. */
#pragma once
#include "card.h"
#include <cuda_runtime_api.h>

/* Keeps an error as the thread's last one, until cudaGetLastError takes it. */
cudaError_t keep(cudaError_t error);
/* For calls that need the current device's context: makes it, or says why there is none. */
cudaError_t enter(void);
/* A stream that was made here and not destroyed, or one of CUDA's own three. */
bool stream_known(cudaStream_t stream);
