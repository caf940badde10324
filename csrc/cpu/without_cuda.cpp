// SPDX-License-Identifier: BSD-3-Clause
// The CUDA half of the C API in a build without CUDA: every operator says so.
#include "core/status.h"
#include "twostream/twostream.h"

const char* twostream_status_string(int status) { return twostream::own_status_string(status); }
const char* twostream_cuda_architectures(void) { return ""; }
int twostream_cuda_device_count(void) { return 0; }
int twostream_cuda_driver_version(void) { return 0; }

#define TWOSTREAM_WITHOUT_CUDA(name) \
  int twostream_##name##_cuda(const twostream_##name##_args*, int, void*) { return TWOSTREAM_BUILT_WITHOUT_CUDA; }

TWOSTREAM_WITHOUT_CUDA(flow_stack)
TWOSTREAM_WITHOUT_CUDA(flow_stack_backward)
TWOSTREAM_WITHOUT_CUDA(trajectory_stack)
TWOSTREAM_WITHOUT_CUDA(trajectory_stack_backward)
TWOSTREAM_WITHOUT_CUDA(crop_frames)
TWOSTREAM_WITHOUT_CUDA(crop_frames_backward)
TWOSTREAM_WITHOUT_CUDA(mean_flow)
TWOSTREAM_WITHOUT_CUDA(camera_motion)
TWOSTREAM_WITHOUT_CUDA(quantize_flow)
TWOSTREAM_WITHOUT_CUDA(dequantize_flow)
TWOSTREAM_WITHOUT_CUDA(random_windows)
TWOSTREAM_WITHOUT_CUDA(ten_crop_windows)
TWOSTREAM_WITHOUT_CUDA(local_response_norm)
TWOSTREAM_WITHOUT_CUDA(local_response_norm_backward)
TWOSTREAM_WITHOUT_CUDA(tvl1_flow)

int64_t twostream_tvl1_flow_workspace_cuda(const twostream_tvl1_flow_args*) { return TWOSTREAM_BUILT_WITHOUT_CUDA; }
