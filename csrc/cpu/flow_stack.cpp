// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/flow_stack.h"

#include "core/flow_stack.h"
#include "core/validate.h"
#include "cpu/crop.h"
#include "cpu/crop_backward.h"
#include "cpu/isa.h"

using namespace twostream;

int TWOSTREAM_CPU(flow_stack)(const twostream_flow_stack_args* args) {
  if (!valid_batch(args->flow, args->output.height, args->output.width) || !is_float(args->output.dtype) ||
      !valid_coding(args->flow, args->lo, args->step)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const auto channels = flow_channels(*args);
  with_any_type(args->flow.dtype, [&](auto in) {
    with_float_type(args->output.dtype, [&](auto out) {
      crop_batch<decltype(in), decltype(out)>(args->flow, args->windows, args->windows_per_sample, channels,
                                              args->output);
    });
  });
  return TWOSTREAM_SUCCESS;
}

int TWOSTREAM_CPU(flow_stack_backward)(const twostream_flow_stack_backward_args* args) {
  const twostream_batch& batch = args->flow_gradient;
  if (!valid_batch(batch, args->gradient.height, args->gradient.width) || !is_float(batch.dtype) ||
      !is_float(args->gradient.dtype)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_float_type(args->gradient.dtype, [&](auto gradient) {
    with_float_type(batch.dtype, [&](auto in) {
      crop_backward<decltype(gradient), decltype(in)>(args->gradient, args->windows, args->windows_per_sample,
                                                      FlowGradients{}, batch);
    });
  });
  return TWOSTREAM_SUCCESS;
}
