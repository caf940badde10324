/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_CAMERA_MOTION_H_
#define TWOSTREAM_CAMERA_MOTION_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The camera's motion in each whole field, as an affine map: the displacement that the background has at pixel (x, y)
 * is output[n, l] (x, y, 1). The map is fitted to the field by iteratively reweighted least squares: what moves on its
 * own is far from the map and loses its weight from round to round. The start, the best of the plain fits to the field
 * and to sixteen blocks of it, and all rounds but the last look at a regular grid of at most 4096 pixels, the last
 * round at every pixel. A NaN or an infinity anywhere in a field makes its map NaN.
 */
typedef struct twostream_camera_motion_args {
  twostream_batch flow;
  const float* lo;    /* [N, L, 2] contiguous; for uint8 fields, else NULL */
  const float* step;  /* likewise */
  int32_t iterations; /* rounds, at least 1 */
  float* output;      /* [N, L, 2, 3] contiguous, pixels */
} twostream_camera_motion_args;

TWOSTREAM_API int twostream_camera_motion_cpu(const twostream_camera_motion_args* args);
TWOSTREAM_API int twostream_camera_motion_cuda(const twostream_camera_motion_args* args, int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
