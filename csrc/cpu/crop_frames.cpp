// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/crop_frames.h"

#include "core/crop_frames.h"
#include "core/validate.h"
#include "cpu/crop.h"
#include "cpu/crop_backward.h"
#include "cpu/isa.h"

using namespace twostream;

int TWOSTREAM_CPU(crop_frames)(const twostream_crop_frames_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  crop_batch(args->frames, args->windows, args->windows_per_sample, frame_channels(*args), args->output);
  return TWOSTREAM_SUCCESS;
}

int TWOSTREAM_CPU(crop_frames_backward)(const twostream_crop_frames_backward_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  crop_backward(args->gradient, args->windows, args->windows_per_sample, frame_gradients(*args), args->frames_gradient);
  return TWOSTREAM_SUCCESS;
}
