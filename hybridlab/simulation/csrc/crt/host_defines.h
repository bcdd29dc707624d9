// What CUDA's headers need of nvidia-cuda-crt when a C compiler reads them for the host: no package
// that torch asks for brings it. Where CUDA's own is there, it is found before this one.
#pragma once
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define __cudart_builtin__
#define __device__
#define __device_builtin__
#define __device_builtin_surface_type__
#define __device_builtin_texture_type__
#define __host__
#define __specialization_static
