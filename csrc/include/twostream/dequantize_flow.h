/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_DEQUANTIZE_FLOW_H_
#define TWOSTREAM_DEQUANTIZE_FLOW_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 8-bit codes back to displacements in pixels: lo + step * code. */
typedef struct twostream_dequantize_flow_args {
  twostream_batch codes;          /* uint8 */
  const float* lo;                /* [N, L, 2] contiguous */
  const float* step;              /* [N, L, 2] contiguous */
  const twostream_sample* output; /* [N] on the host: where the displacements go (same sizes as the codes) */
  twostream_dtype output_dtype;   /* a float type */
} twostream_dequantize_flow_args;

TWOSTREAM_API int twostream_dequantize_flow_cpu(const twostream_dequantize_flow_args* args);
TWOSTREAM_API int twostream_dequantize_flow_cuda(const twostream_dequantize_flow_args* args, int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
