/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_LOCAL_RESPONSE_NORM_H_
#define TWOSTREAM_LOCAL_RESPONSE_NORM_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the values of N samples lie: one plane of pixels after another, or all channels of a pixel side by side. */
typedef struct twostream_response_shape {
  int64_t samples;       /* N */
  int64_t channels;      /* C */
  int64_t pixels;        /* of one channel of one sample */
  int32_t channels_last; /* 0: [N, C, pixels] contiguous; otherwise [N, pixels, C] contiguous */
  twostream_dtype dtype; /* a float type, of every tensor */
} twostream_response_shape;

/*
 * The window of channel c holds the channels c - size / 2 to c + (size - 1) / 2 that exist.
 * base[c] = k + alpha / size * sum over the window of c of input[j]^2
 */
typedef struct twostream_response_constants {
  int64_t size; /* at least 1; may exceed C */
  float alpha;
  float beta;
  float k;
} twostream_response_constants;

/* Local response normalisation across channels: output[c] = input[c] / base[c]^beta. In float for every dtype. */
typedef struct twostream_local_response_norm_args {
  twostream_response_shape shape;
  twostream_response_constants constants;
  const void* input;
  void* output; /* does not overlap the input */
} twostream_local_response_norm_args;

/*
 * Its gradient, from the input alone: input_gradient[c] = output_gradient[c] / base[c]^beta
 *   - 2 alpha beta / size * input[c] * sum over j, whose window holds c, of
 *     output_gradient[j] * input[j] / base[j]^(beta + 1)
 */
typedef struct twostream_local_response_norm_backward_args {
  twostream_response_shape shape;
  twostream_response_constants constants;
  const void* output_gradient;
  const void* input;
  void* input_gradient; /* overlaps neither of the others */
} twostream_local_response_norm_backward_args;

TWOSTREAM_API int twostream_local_response_norm_cpu(const twostream_local_response_norm_args* args);
TWOSTREAM_API int twostream_local_response_norm_cuda(const twostream_local_response_norm_args* args, int device,
                                                     void* stream);

TWOSTREAM_API int twostream_local_response_norm_backward_cpu(const twostream_local_response_norm_backward_args* args);
TWOSTREAM_API int twostream_local_response_norm_backward_cuda(const twostream_local_response_norm_backward_args* args,
                                                              int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
