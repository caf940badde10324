// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/flow_stack.h"

#include "core/flow_stack.h"
#include "core/validate.h"
#include "cpu/crop.h"
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
