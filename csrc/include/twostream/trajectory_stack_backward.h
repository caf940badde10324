/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_TRAJECTORY_STACK_BACKWARD_H_
#define TWOSTREAM_TRAJECTORY_STACK_BACKWARD_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

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
  int32_t subtract_mean; /* not 0: the means came from the fields themselves, and mean_gradient flows on to them */
  float* positions;      /* workspace [N, K, 2L, height, width]: before they are clamped */
  float* displacements;  /* workspace [N, K, 2L, height, width]: gradients of the sampled displacements */
  uint32_t* largest;     /* workspace [N, L, 2]: the largest magnitudes in displacements */
  int64_t* sums;         /* workspace [N, sums_stride] */
  int64_t sums_stride;   /* at least 2 L H W of the largest sample */
  const float*
      camera; /* [N, L, 2, 3] contiguous, as given to the operator: it changes along the trajectories; or NULL */
} twostream_trajectory_stack_backward_args;

TWOSTREAM_API int twostream_trajectory_stack_backward_cpu(const twostream_trajectory_stack_backward_args* args);
TWOSTREAM_API int twostream_trajectory_stack_backward_cuda(const twostream_trajectory_stack_backward_args* args,
                                                           int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
