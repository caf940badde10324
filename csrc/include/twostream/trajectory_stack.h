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
 * or, in place of the mean, minus the camera's map where the field was sampled, A[n, l, c] (p_l, 1).
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
  const float* camera;        /* A: [N, L, 2, 3] contiguous, pixels; NULL subtracts nothing; not beside a mean */
} twostream_trajectory_stack_args;

TWOSTREAM_API int twostream_trajectory_stack_cpu(const twostream_trajectory_stack_args* args);
TWOSTREAM_API int twostream_trajectory_stack_cuda(const twostream_trajectory_stack_args* args, int device,
                                                  void* stream);

#ifdef __cplusplus
}
#endif

#endif
