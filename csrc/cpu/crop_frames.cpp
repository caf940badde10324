// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/crop_frames.h"

#include "core/crop_frames.h"
#include "core/validate.h"
#include "cpu/crop.h"
#include "cpu/crop_backward.h"
#include "cpu/isa.h"

using namespace twostream;

int TWOSTREAM_CPU(crop_frames)(const twostream_crop_frames_args* args) {
  if (!valid_batch(args->frames, args->output.height, args->output.width) || !is_float(args->output.dtype)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const auto channels = frame_channels(*args);
  with_any_type(args->frames.dtype, [&](auto in) {
    with_float_type(args->output.dtype, [&](auto out) {
      crop_batch<decltype(in), decltype(out)>(args->frames, args->windows, args->windows_per_sample, channels,
                                              args->output);
    });
  });
  return TWOSTREAM_SUCCESS;
}

int TWOSTREAM_CPU(crop_frames_backward)(const twostream_crop_frames_backward_args* args) {
  const twostream_batch& batch = args->frames_gradient;
  if (!valid_batch(batch, args->gradient.height, args->gradient.width) || !is_float(batch.dtype) ||
      !is_float(args->gradient.dtype)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_float_type(args->gradient.dtype, [&](auto gradient) {
    with_float_type(batch.dtype, [&](auto in) {
      crop_backward<decltype(gradient), decltype(in)>(args->gradient, args->windows, args->windows_per_sample,
                                                      frame_gradients(*args), batch);
    });
  });
  return TWOSTREAM_SUCCESS;
}
