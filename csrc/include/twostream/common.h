/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every operator's header uses. Plain C: no Python, no torch, no exceptions.
 *
 * The contract of every function: it allocates nothing, keeps nothing, and does not synchronise. The caller brings the
 * output and, for CUDA, the device and its stream (a cudaStream_t passed as void*). Tensors that a CUDA function
 * reads or writes lie on that device; the structs that describe them lie on the host.
 * No value of an argument makes a function read or write outside the tensors described.
 */
#ifndef TWOSTREAM_COMMON_H_
#define TWOSTREAM_COMMON_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TWOSTREAM_API __attribute__((visibility("default")))
#else
#define TWOSTREAM_API
#endif

typedef enum twostream_dtype {
  TWOSTREAM_UINT8 = 0,
  TWOSTREAM_FLOAT16 = 1,
  TWOSTREAM_BFLOAT16 = 2,
  TWOSTREAM_FLOAT32 = 3
} twostream_dtype;

/* Every function returns 0, one of the negative values below, or the positive cudaError_t that a launch gave. */
typedef enum twostream_status {
  TWOSTREAM_SUCCESS = 0,
  TWOSTREAM_INVALID_ARGUMENT = -1,
  TWOSTREAM_BUILT_WITHOUT_CUDA = -2
} twostream_status;

/* One sample: L flow fields [L, height, width, 2], or one frame [1, height, width, 3]. */
typedef struct twostream_sample {
  const void* data; /* component 0 of pixel (0, 0) of field 0 */
  int32_t height;
  int32_t width;
  int64_t field_stride; /* strides in elements, none negative */
  int64_t row_stride;
  int64_t column_stride;
  int64_t component_stride;
} twostream_sample;

/* N samples of one dtype; their sizes and strides may differ. */
typedef struct twostream_batch {
  const twostream_sample* samples; /* [size], on the host */
  int64_t size;                    /* N */
  int32_t length;                  /* L; 1 for frames */
  twostream_dtype dtype;
} twostream_batch;

/* Where stacks of cropped channels go: [N, K, channels, height, width], any strides that do not overlap. */
typedef struct twostream_stack {
  void* data;
  twostream_dtype dtype; /* one of the float types */
  int32_t height;
  int32_t width;
  int64_t sample_stride; /* strides in elements */
  int64_t window_stride;
  int64_t channel_stride;
  int64_t row_stride;
  int64_t column_stride;
} twostream_stack;

/* The name of a status: "cudaErrorInvalidConfiguration: invalid configuration argument", say. Never NULL. */
TWOSTREAM_API const char* twostream_status_string(int status);

/* "0.1.0" */
TWOSTREAM_API const char* twostream_version(void);

/* The instruction set that the CPU operators use on this machine: "avx2" or "baseline". */
TWOSTREAM_API const char* twostream_cpu_isa(void);

/* The CUDA architectures compiled in, as "75-real;...;90"; "" when built without CUDA. */
TWOSTREAM_API const char* twostream_cuda_architectures(void);

/* How many CUDA devices the driver offers; 0 without a driver or when built without CUDA. */
TWOSTREAM_API int twostream_cuda_device_count(void);

/* The driver's CUDA version, as 13000 for 13.0; 0 without a driver or when built without CUDA. */
TWOSTREAM_API int twostream_cuda_driver_version(void);

#ifdef __cplusplus
}
#endif

#endif
