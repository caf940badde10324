/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_FLOW_STACK_H_
#define TWOSTREAM_FLOW_STACK_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Stacks of L flow fields, cropped, flipped, decoded and mean-subtracted (Simonyan & Zisserman 2014, section 3, eq. 1):
 * channel 2l of the output is the x displacement of field l, channel 2l + 1 its y. A flip mirrors left-right and
 * negates x. output[n, k, 2l + c, y, x] = sign * (lo + step * code - mean), or in place of the mean the camera's map at
 * the pixel: A[n, l, c] (column, row, 1), both counted in the whole field. For uint8 fields `lo` and `step` are
 * required; for float fields they are ignored and the code is the displacement.
 */
typedef struct twostream_flow_stack_args {
  twostream_batch flow;
  const int32_t* windows;     /* [N, K, 3] contiguous: top, left, flip; positions outside a field are clamped into it */
  int32_t windows_per_sample; /* K */
  const float* lo;            /* [N, L, 2] contiguous, or NULL */
  const float* step;          /* [N, L, 2] contiguous, or NULL */
  const float* mean;          /* [N, L, 2] contiguous, pixels; NULL subtracts nothing */
  twostream_stack output;     /* channels = 2L; no window larger than the smallest field */
  const float* camera;        /* A: [N, L, 2, 3] contiguous, pixels; NULL subtracts nothing; not beside a mean */
} twostream_flow_stack_args;

TWOSTREAM_API int twostream_flow_stack_cpu(const twostream_flow_stack_args* args);
TWOSTREAM_API int twostream_flow_stack_cuda(const twostream_flow_stack_args* args, int device, void* stream);

/* The gradient of float fields: each pixel's is the sum over the windows that show it; 0 where none does. */
typedef struct twostream_flow_stack_backward_args {
  twostream_stack gradient;      /* of the output; read only, strides may be 0 */
  const int32_t* windows;        /* [N, K, 3] contiguous, as given to the operator */
  int32_t windows_per_sample;    /* K */
  twostream_batch flow_gradient; /* written; a float type, strides that do not overlap */
} twostream_flow_stack_backward_args;

TWOSTREAM_API int twostream_flow_stack_backward_cpu(const twostream_flow_stack_backward_args* args);
TWOSTREAM_API int twostream_flow_stack_backward_cuda(const twostream_flow_stack_backward_args* args, int device,
                                                     void* stream);

#ifdef __cplusplus
}
#endif

#endif
