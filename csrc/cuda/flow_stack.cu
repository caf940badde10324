// SPDX-License-Identifier: BSD-3-Clause
#include "core/flow_stack.h"
#include "core/validate.h"
#include "cuda/crop.cuh"
#include "cuda/crop_backward.cuh"
#include "twostream/flow_stack.h"

using namespace twostream;

int twostream_flow_stack_cuda(const twostream_flow_stack_args* args, int device, void* stream) {
  if (!valid_batch(args->flow, args->output.height, args->output.width) || !is_float(args->output.dtype) ||
      !valid_coding(args->flow, args->lo, args->step)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS) {
    return status;
  }
  const auto channels = flow_channels(*args);
  with_any_type(args->flow.dtype, [&](auto in) {
    with_float_type(args->output.dtype, [&](auto out) {
      status = launch_crop<decltype(in), decltype(out)>(args->flow, args->windows, args->windows_per_sample, channels,
                                                        args->output, stream);
    });
  });
  return status;
}

int twostream_flow_stack_backward_cuda(const twostream_flow_stack_backward_args* args, int device, void* stream) {
  const twostream_batch& batch = args->flow_gradient;
  if (!valid_batch(batch, args->gradient.height, args->gradient.width) || !is_float(batch.dtype) ||
      !is_float(args->gradient.dtype)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS) {
    return status;
  }
  with_float_type(args->gradient.dtype, [&](auto gradient) {
    with_float_type(batch.dtype, [&](auto in) {
      status = launch_crop_backward<decltype(gradient), decltype(in)>(
          args->gradient, args->windows, args->windows_per_sample, FlowGradients{}, batch, stream);
    });
  });
  return status;
}
