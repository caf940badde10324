// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/flow_stack.h"

#include "core/flow_stack.h"
#include "core/validate.h"
#include "cpu/crop.h"
#include "cpu/crop_backward.h"
#include "cpu/isa.h"

using namespace twostream;

int TWOSTREAM_CPU(flow_stack)(const twostream_flow_stack_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  crop_batch(args->flow, args->windows, args->windows_per_sample, flow_channels(*args), args->output);
  return TWOSTREAM_SUCCESS;
}

int TWOSTREAM_CPU(flow_stack_backward)(const twostream_flow_stack_backward_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  crop_backward(args->gradient, args->windows, args->windows_per_sample, FlowGradients{}, args->flow_gradient);
  return TWOSTREAM_SUCCESS;
}
