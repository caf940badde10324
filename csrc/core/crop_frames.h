// SPDX-License-Identifier: BSD-3-Clause
// What a channel of a cropped frame does to its pixels.
#pragma once

#include "core/affine.h"
#include "twostream/crop_frames.h"

namespace twostream {

struct FrameChannels {
  static constexpr int components = 3;
  static constexpr bool may_slope = false;

  float mean[components];
  float scale[components];
  const float* shift;  // [N, 3] or NULL
  int32_t channels;    // 3

  TWOSTREAM_HD bool is_sloped() const { return false; }

  TWOSTREAM_HD Affine affine(int64_t sample, int32_t channel, bool /*flip*/) const {
    const float moved = shift != nullptr ? shift[sample * components + channel] : 0.0f;
    return {scale[channel], (moved - mean[channel]) * scale[channel]};
  }

  TWOSTREAM_HD Affine row_affine(int64_t sample, int32_t channel, bool flip, int32_t /*row*/) const {
    return affine(sample, channel, flip);
  }
};

// What a pixel of an output channel adds to its source pixel's gradient is scaled by this.
struct FrameGradients {
  static constexpr int components = FrameChannels::components;

  float scale[components];

  TWOSTREAM_HD float factor(int component, bool /*flip*/) const { return scale[component]; }
};

inline FrameGradients frame_gradients(const twostream_crop_frames_backward_args& args) {
  FrameGradients gradients{};
  for (int component = 0; component < FrameGradients::components; ++component) {
    gradients.scale[component] = 1.0f / args.deviation[component];
  }
  return gradients;
}

inline FrameChannels frame_channels(const twostream_crop_frames_args& args) {
  FrameChannels frame{};
  for (int component = 0; component < FrameChannels::components; ++component) {
    frame.mean[component] = args.mean[component];
    frame.scale[component] = 1.0f / args.deviation[component];
  }
  frame.shift = args.shift;
  frame.channels = FrameChannels::components;
  return frame;
}

}  // namespace twostream
