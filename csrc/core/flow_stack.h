// SPDX-License-Identifier: BSD-3-Clause
// What a channel of a flow stack does to its pixels.
#pragma once

#include "core/affine.h"
#include "twostream/flow_stack.h"

namespace twostream {

struct FlowChannels {
  static constexpr int components = 2;

  const float* lo;    // [N, L, 2] or NULL: the fields are displacements already
  const float* step;  // [N, L, 2] or NULL
  const float* mean;  // [N, L, 2] or NULL
  int32_t channels;   // 2L

  // sign * (lo + step * code - mean); the sign is negative for x in a flipped window.
  TWOSTREAM_HD Affine affine(int64_t sample, int32_t channel, bool flip) const {
    const int64_t index = sample * channels + channel;
    const float scale = step != nullptr ? step[index] : 1.0f;
    const float offset = (lo != nullptr ? lo[index] : 0.0f) - (mean != nullptr ? mean[index] : 0.0f);
    const bool negate = flip && channel % components == 0;
    return negate ? Affine{-scale, -offset} : Affine{scale, offset};
  }
};

// What a pixel of an output channel adds to its source pixel's gradient is scaled by this.
struct FlowGradients {
  static constexpr int components = FlowChannels::components;

  TWOSTREAM_HD float factor(int component, bool flip) const { return flip && component == 0 ? -1.0f : 1.0f; }
};

// Of flow_stack or trajectory_stack: what belongs to codes is left out where the fields are displacements.
template <typename Args>
FlowChannels flow_channels(const Args& args) {
  const bool coded = args.flow.dtype == TWOSTREAM_UINT8;
  return {coded ? args.lo : nullptr, coded ? args.step : nullptr, args.mean,
          args.flow.length * FlowChannels::components};
}

}  // namespace twostream
