/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_RANDOM_WINDOWS_H_
#define TWOSTREAM_RANDOM_WINDOWS_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Windows drawn uniformly from all positions in each sample, flipped with a given probability. Counter-based
 * (Philox4x32-10): sample n draws from (seed, offset + n) alone, so CPU and CUDA, and any split into batches, agree.
 */
typedef struct twostream_random_windows_args {
  const int64_t* sizes; /* [N, 2] contiguous: height, width */
  int64_t size;         /* N */
  int32_t height;       /* of the window */
  int32_t width;
  float flip; /* probability in [0, 1] */
  uint64_t seed;
  uint64_t offset;
  int32_t* windows; /* [N, 3] contiguous: top, left, flip */
} twostream_random_windows_args;

TWOSTREAM_API int twostream_random_windows_cpu(const twostream_random_windows_args* args);
TWOSTREAM_API int twostream_random_windows_cuda(const twostream_random_windows_args* args, int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
