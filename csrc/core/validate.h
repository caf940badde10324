// SPDX-License-Identifier: BSD-3-Clause
// What the C API refuses, alike on both backends: one function for each operator. (The Python binding checks the same
// with words; see python/check.h.)
#pragma once

#include "twostream/twostream.h"

namespace twostream {

// ---- parts of arguments --------------------------------------------------------------------------------------------

inline bool is_float(twostream_dtype dtype) {
  return dtype == TWOSTREAM_FLOAT16 || dtype == TWOSTREAM_BFLOAT16 || dtype == TWOSTREAM_FLOAT32;
}

// Every sample is at least height x width.
inline bool valid_batch(const twostream_batch& batch, int32_t height, int32_t width) {
  if (batch.size < 0 || batch.length < 1 || height < 1 || width < 1) {
    return false;
  }
  for (int64_t index = 0; index < batch.size; ++index) {
    const twostream_sample& sample = batch.samples[index];
    if (sample.height < height || sample.width < width) {
      return false;
    }
  }
  return true;
}

inline bool same_sizes(const twostream_batch& batch, const twostream_sample* others) {
  for (int64_t index = 0; index < batch.size; ++index) {
    if (batch.samples[index].height != others[index].height || batch.samples[index].width != others[index].width) {
      return false;
    }
  }
  return true;
}

inline bool valid_coding(const twostream_batch& batch, const float* lo, const float* step) {
  return batch.dtype != TWOSTREAM_UINT8 || (lo != nullptr && step != nullptr);
}

// Windows of a batch, and the stack that shows them or holds their gradients.
inline bool valid_stack(const twostream_batch& batch, const twostream_stack& stack) {
  return valid_batch(batch, stack.height, stack.width) && is_float(stack.dtype);
}

inline bool valid_halves(const twostream_batch& batch, int32_t bidirectional) {
  return bidirectional == 0 || batch.length % 2 == 0;
}

// One of them at most is subtracted.
inline bool valid_subtraction(const float* mean, const float* camera) { return mean == nullptr || camera == nullptr; }

// ---- operators -----------------------------------------------------------------------------------------------------

inline bool valid(const twostream_flow_stack_args& args) {
  return valid_stack(args.flow, args.output) && valid_coding(args.flow, args.lo, args.step) &&
         valid_subtraction(args.mean, args.camera);
}

inline bool valid(const twostream_flow_stack_backward_args& args) {
  return valid_stack(args.flow_gradient, args.gradient) && is_float(args.flow_gradient.dtype);
}

inline bool valid(const twostream_crop_frames_args& args) { return valid_stack(args.frames, args.output); }

inline bool valid(const twostream_crop_frames_backward_args& args) {
  return valid_stack(args.frames_gradient, args.gradient) && is_float(args.frames_gradient.dtype);
}

inline bool valid(const twostream_trajectory_stack_args& args) {
  return valid_stack(args.flow, args.output) && valid_coding(args.flow, args.lo, args.step) &&
         valid_halves(args.flow, args.bidirectional) && valid_subtraction(args.mean, args.camera);
}

inline bool valid(const twostream_trajectory_stack_backward_args& args) {
  if (!valid_stack(args.flow, args.gradient) || !valid_halves(args.flow, args.bidirectional) ||
      args.mean_gradient == nullptr) {
    return false;
  }
  if (args.flow_gradient == nullptr) {
    return true;
  }
  if (!is_float(args.flow.dtype) || !same_sizes(args.flow, args.flow_gradient)) {
    return false;
  }
  for (int64_t index = 0; index < args.flow.size; ++index) {
    const twostream_sample& sample = args.flow.samples[index];
    if (args.sums_stride / 2 / args.flow.length / sample.width < sample.height) {
      return false;
    }
  }
  return true;
}

inline bool valid(const twostream_mean_flow_args& args) {
  return valid_batch(args.flow, 1, 1) && valid_coding(args.flow, args.lo, args.step);
}

inline bool valid(const twostream_camera_motion_args& args) {
  return valid_batch(args.flow, 1, 1) && valid_coding(args.flow, args.lo, args.step) && args.iterations >= 1;
}

inline bool valid(const twostream_quantize_flow_args& args) {
  return valid_batch(args.flow, 1, 1) && is_float(args.flow.dtype) && same_sizes(args.flow, args.codes);
}

inline bool valid(const twostream_dequantize_flow_args& args) {
  return valid_batch(args.codes, 1, 1) && args.codes.dtype == TWOSTREAM_UINT8 &&
         valid_coding(args.codes, args.lo, args.step) && same_sizes(args.codes, args.output) &&
         is_float(args.output_dtype);
}

inline bool valid(const twostream_random_windows_args& args) {
  return args.size >= 0 && args.height >= 1 && args.width >= 1;
}

inline bool valid(const twostream_ten_crop_windows_args& args) {
  return args.size >= 0 && args.height >= 1 && args.width >= 1;
}

inline bool valid_response(const twostream_response_shape& shape, const twostream_response_constants& constants) {
  return shape.samples >= 0 && shape.channels >= 0 && shape.pixels >= 0 && constants.size >= 1 && is_float(shape.dtype);
}

inline bool valid(const twostream_local_response_norm_args& args) { return valid_response(args.shape, args.constants); }

inline bool valid(const twostream_local_response_norm_backward_args& args) {
  return valid_response(args.shape, args.constants);
}

inline bool valid(const twostream_tvl1_flow_args& args) {
  constexpr int32_t largest_side = 1 << 30;  // places a little beyond the border are int32 too
  const bool dtype = args.frames.dtype == TWOSTREAM_UINT8 || args.frames.dtype == TWOSTREAM_FLOAT32;
  const bool frames = args.frames.count >= 1 || args.pair_count == 0;
  const bool largest = args.frames.height <= largest_side && args.frames.width <= largest_side;
  const bool sizes = args.frames.height >= 1 && args.frames.width >= 1 && largest && args.pair_count >= 0 && frames;
  const bool weights = args.tau > 0.0f && args.lambda > 0.0f && args.theta > 0.0f && args.epsilon >= 0.0f;
  const bool steps = args.scale_step >= 0.1f && args.scale_step < 1.0f;
  const bool levels = args.scales >= 1 && args.finest_scale >= 0 && steps;
  const bool loops = args.warps >= 1 && args.iterations >= 1 && args.concurrent_pairs >= 1;
  const bool median = args.median == 0 || ((args.median == 3 || args.median == 5) && args.median_every >= 1);
  return dtype && sizes && weights && levels && loops && median;
}

}  // namespace twostream
