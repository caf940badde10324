/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_TRAJECTORY_STACK_H_
#define TWOSTREAM_TRAJECTORY_STACK_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Stacks of L flow fields sampled along trajectories (Simonyan & Zisserman 2014, section 3, eq. 2). A trajectory
 * starts at each pixel of the window, p_0 = (column, row), and moves by the field's own displacement:
 *   d_l = field l, bilinearly, at p_l        p_{l+1} = p_l + d_l, clamped to the field
 *   output[n, k, 2l + c, y, x] = sign * (d_l[c] - mean[n, l, c])
 * A flip mirrors the result left-right and negates x. For uint8 fields the codes are interpolated and then decoded with
 * `lo` and `step`, which are required; for float fields they are ignored. Positions are float32; NaN counts as 0.
 */
typedef struct twostream_trajectory_stack_args {
  twostream_batch flow;
  const int32_t* windows;     /* [N, K, 3] contiguous: top, left, flip; positions outside a field are clamped into it */
  int32_t windows_per_sample; /* K */
  const float* lo;            /* [N, L, 2] contiguous, or NULL */
  const float* step;          /* [N, L, 2] contiguous, or NULL */
  const float* mean;          /* [N, L, 2] contiguous, pixels; NULL subtracts nothing */
  int32_t bidirectional;      /* not 0: fields L/2 and later are a trajectory of their own, again from p_0; L is even */
  twostream_stack output;     /* channels = 2L; no window larger than the smallest field */
} twostream_trajectory_stack_args;

TWOSTREAM_API int twostream_trajectory_stack_cpu(const twostream_trajectory_stack_args* args);
TWOSTREAM_API int twostream_trajectory_stack_cuda(const twostream_trajectory_stack_args* args, int device,
                                                  void* stream);

/*
 * From the gradient of the output to those of the mean and of the fields: through the sampled values and through the
 * positions, with derivative 0 where a coordinate was clamped. The sums over pixels are taken in 64-bit fixed point,
 * scaled by the largest contribution to each component of each field, and so do not depend on any order; a contribution
 * that is not finite makes that component's gradient NaN.
 */
typedef struct twostream_trajectory_stack_backward_args {
  twostream_batch flow;
  const int32_t* windows; /* as in the forward call */
  int32_t windows_per_sample;
  int32_t bidirectional;
  twostream_stack gradient; /* of the output; only read */
  float* mean_gradient;     /* [N, L, 2] contiguous */
  /* The rest is for the fields' gradient: flow_gradient NULL leaves it out. */
  const twostream_sample* flow_gradient; /* [N] on the host: sizes and dtype of the fields, which are float */
  int32_t subtract_mean;  /* not 0: the means came from the fields themselves, and mean_gradient flows on to them */
  float* positions;       /* workspace [N, K, 2L, height, width] */
  float* displacements;   /* workspace [N, K, 2L, height, width]: gradients of the sampled displacements */
  float* largest;         /* workspace [N, L, 2] */
  int64_t* sums;          /* workspace [N, sums_stride] */
  int64_t sums_stride;    /* at least 2 L H W of the largest sample */
} twostream_trajectory_stack_backward_args;

TWOSTREAM_API int twostream_trajectory_stack_backward_cpu(const twostream_trajectory_stack_backward_args* args);
TWOSTREAM_API int twostream_trajectory_stack_backward_cuda(const twostream_trajectory_stack_backward_args* args,
                                                           int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
