// SPDX-License-Identifier: BSD-3-Clause
#include "core/crop_frames.h"
#include "cuda/crop.cuh"
#include "cuda/crop_backward.cuh"
#include "twostream/crop_frames.h"

using namespace twostream;

int twostream_crop_frames_cuda(const twostream_crop_frames_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    return launch_crop(args->frames, args->windows, args->windows_per_sample, frame_channels(*args), args->output,
                       stream);
  });
}

int twostream_crop_frames_backward_cuda(const twostream_crop_frames_backward_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    return launch_crop_backward(args->gradient, args->windows, args->windows_per_sample, frame_gradients(*args),
                                args->frames_gradient, stream);
  });
}
