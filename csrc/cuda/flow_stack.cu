// SPDX-License-Identifier: BSD-3-Clause
#include "core/flow_stack.h"
#include "cuda/crop.cuh"
#include "cuda/crop_backward.cuh"
#include "twostream/flow_stack.h"

using namespace twostream;

int twostream_flow_stack_cuda(const twostream_flow_stack_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    return launch_crop(args->flow, args->windows, args->windows_per_sample, flow_channels(*args), args->output, stream);
  });
}

int twostream_flow_stack_backward_cuda(const twostream_flow_stack_backward_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    return launch_crop_backward(args->gradient, args->windows, args->windows_per_sample, FlowGradients{},
                                args->flow_gradient, stream);
  });
}
