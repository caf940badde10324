/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_QUANTIZE_FLOW_H_
#define TWOSTREAM_QUANTIZE_FLOW_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Float fields to 8-bit codes (section 5, "Optical flow"): value = lo + step * code.
 * bound < 0: each component of each field keeps its own range. bound > 0: values are clipped to [-bound, bound].
 * The range and the mean are taken over the finite values; NaN is coded as the value nearest to 0.
 */
typedef struct twostream_quantize_flow_args {
  twostream_batch flow; /* a float type */
  float bound;
  const twostream_sample* codes; /* [N] on the host: where the uint8 codes go (same sizes as the fields) */
  float* lo;                     /* [N, L, 2] contiguous */
  float* step;                   /* [N, L, 2] contiguous */
  float* mean;                   /* [N, L, 2] contiguous: of the field before coding, in pixels */
} twostream_quantize_flow_args;

TWOSTREAM_API int twostream_quantize_flow_cpu(const twostream_quantize_flow_args* args);
TWOSTREAM_API int twostream_quantize_flow_cuda(const twostream_quantize_flow_args* args, int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
