/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_TVL1_FLOW_H_
#define TWOSTREAM_TVL1_FLOW_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grey frames of one size, values 0 to 255: [count, height, width]. */
typedef struct twostream_grey_frames {
  const void* data;
  twostream_dtype dtype; /* uint8 or float32 */
  int64_t count;
  int32_t height;
  int32_t width;
  int64_t frame_stride; /* strides in elements, none negative */
  int64_t row_stride;
  int64_t column_stride;
} twostream_grey_frames;

/* Float32 flow fields of the frames' size: [pairs, height, width, 2]. */
typedef struct twostream_flow_fields {
  float* data;
  int64_t field_stride; /* strides in elements; those of an output do not overlap */
  int64_t row_stride;
  int64_t column_stride;
  int64_t component_stride;
} twostream_flow_fields;

/*
 * TV-L1 optical flow (Zach, Pock and Bischof, 2007) between pairs of frames: the flow u minimises
 *   sum over the pixels of |grad u_x| + |grad u_y| + lambda * |next(x + u(x)) - previous(x)|
 * by alternating steps that theta couples, over a pyramid of images, with the dual variables of each level started at
 * 0. A warp ends after the iteration that changed the flow by epsilon or less (root mean square over the pixels, in
 * pixels of the level), or after `iterations`. Where it leads out of the image, the flow is led by its neighbours
 * alone.
 */
typedef struct twostream_tvl1_flow_args {
  twostream_grey_frames frames;
  const int32_t* pairs; /* [pair_count, 2]: indices of the previous and the next frame, clamped to those there are */
  int64_t pair_count;
  twostream_flow_fields init;   /* where to start from, on the full size; data NULL: at 0 */
  twostream_flow_fields output; /* may be `init` */
  float tau;                    /* time step of the dual variables, positive */
  float lambda;                 /* weight of the images' likeness, positive */
  float theta;                  /* coupling of the two steps, positive */
  float epsilon;                /* 0: all iterations are done */
  int32_t scales;               /* at most; levels with a side below 16 pixels are left out; at least 1 */
  float scale_step;             /* size of a level relative to the next finer one, at least 0.1 and below 1 */
  int32_t finest_scale;         /* the last level that is worked on, 0 for the full size; its flow is then enlarged.
                                   Where there are fewer levels it is the coarsest. At least 0 */
  int32_t warps;                /* a level, at least 1 */
  int32_t iterations;           /* a warp, at most; at least 1 */
  int32_t median;               /* 0, or the side of a median filter of the flow, 3 or 5 ... */
  int32_t median_every;         /* ... applied before iterations 0, median_every, 2 median_every, ... of each warp */
  int32_t concurrent_pairs;     /* computed at a time, from 1 (CUDA: to 256); each takes a part of the workspace */
  int32_t share_rows; /* CPU: 0: one thread for a pair; otherwise the threads share the rows of large levels */
  void* workspace;    /* what the function below says, 64-byte aligned */
} twostream_tvl1_flow_args;

/* Bytes of workspace for these arguments, of which no pointer is read; negative if they are invalid. */
TWOSTREAM_API int64_t twostream_tvl1_flow_workspace_cpu(const twostream_tvl1_flow_args* args);
TWOSTREAM_API int64_t twostream_tvl1_flow_workspace_cuda(const twostream_tvl1_flow_args* args);

TWOSTREAM_API int twostream_tvl1_flow_cpu(const twostream_tvl1_flow_args* args);
TWOSTREAM_API int twostream_tvl1_flow_cuda(const twostream_tvl1_flow_args* args, int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
