/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_MEAN_FLOW_H_
#define TWOSTREAM_MEAN_FLOW_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The mean displacement of each whole field (section 3.1): output[n, l, c], in pixels; 0 for an empty field. */
typedef struct twostream_mean_flow_args {
  twostream_batch flow;
  const float* lo;   /* [N, L, 2] contiguous; for uint8 fields, else NULL */
  const float* step; /* likewise */
  float* output;     /* [N, L, 2] contiguous */
} twostream_mean_flow_args;

TWOSTREAM_API int twostream_mean_flow_cpu(const twostream_mean_flow_args* args);
TWOSTREAM_API int twostream_mean_flow_cuda(const twostream_mean_flow_args* args, int device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
