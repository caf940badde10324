// SPDX-License-Identifier: BSD-3-Clause
#include "core/crop_frames.h"
#include "core/validate.h"
#include "cuda/crop.cuh"
#include "cuda/crop_backward.cuh"
#include "twostream/crop_frames.h"

using namespace twostream;

int twostream_crop_frames_cuda(const twostream_crop_frames_args* args, int device, void* stream) {
  if (!valid_batch(args->frames, args->output.height, args->output.width) || !is_float(args->output.dtype)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS) {
    return status;
  }
  const auto channels = frame_channels(*args);
  with_any_type(args->frames.dtype, [&](auto in) {
    with_float_type(args->output.dtype, [&](auto out) {
      status = launch_crop<decltype(in), decltype(out)>(args->frames, args->windows, args->windows_per_sample, channels,
                                                        args->output, stream);
    });
  });
  return status;
}

int twostream_crop_frames_backward_cuda(const twostream_crop_frames_backward_args* args, int device, void* stream) {
  const twostream_batch& batch = args->frames_gradient;
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
          args->gradient, args->windows, args->windows_per_sample, frame_gradients(*args), batch, stream);
    });
  });
  return status;
}
