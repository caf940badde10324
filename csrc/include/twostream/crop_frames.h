/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_CROP_FRAMES_H_
#define TWOSTREAM_CROP_FRAMES_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Frames cropped, flipped, shifted in colour and normalised (Simonyan & Zisserman 2014, section 5):
 *   output[n, k, c, y, x] = (pixel - mean[c] + shift[n, c]) / deviation[c]
 * computed as fmaf(pixel, 1 / deviation, (shift - mean) * (1 / deviation)).
 */
typedef struct twostream_crop_frames_args {
  twostream_batch frames;     /* length 1, three components */
  const int32_t* windows;     /* [N, K, 3] contiguous: top, left, flip; clamped into the frame */
  int32_t windows_per_sample; /* K */
  float mean[3];              /* in the units of the pixels */
  float deviation[3];
  const float* shift;     /* [N, 3] contiguous, or NULL */
  twostream_stack output; /* channels = 3 */
} twostream_crop_frames_args;

TWOSTREAM_API int twostream_crop_frames_cpu(const twostream_crop_frames_args* args);
TWOSTREAM_API int twostream_crop_frames_cuda(const twostream_crop_frames_args* args, int device, void* stream);

/* The gradient of float frames: each pixel's is the sum over the windows that show it; 0 where none does. */
typedef struct twostream_crop_frames_backward_args {
  twostream_stack gradient;        /* of the output; read only, strides may be 0 */
  const int32_t* windows;          /* [N, K, 3] contiguous, as given to the operator */
  int32_t windows_per_sample;      /* K */
  float deviation[3];              /* as given to the operator */
  twostream_batch frames_gradient; /* written; a float type, strides that do not overlap */
} twostream_crop_frames_backward_args;

TWOSTREAM_API int twostream_crop_frames_backward_cpu(const twostream_crop_frames_backward_args* args);
TWOSTREAM_API int twostream_crop_frames_backward_cuda(const twostream_crop_frames_backward_args* args, int device,
                                                      void* stream);

#ifdef __cplusplus
}
#endif

#endif
