// SPDX-License-Identifier: BSD-3-Clause
// What a channel of a flow stack does to its pixels.
#pragma once

#include "core/affine.h"
#include "twostream/flow_stack.h"

namespace twostream {

struct FlowChannels {
  static constexpr int components = 2;
  static constexpr bool may_slope = true;  // what is added to a pixel may depend on its place

  const float* lo;      // [N, L, 2] or NULL: the fields are displacements already
  const float* step;    // [N, L, 2] or NULL
  const float* mean;    // [N, L, 2] or NULL
  const float* camera;  // [N, L, 2, 3] or NULL, as it must be where there is a mean
  int32_t channels;     // 2L

  TWOSTREAM_HD bool is_sloped() const { return camera != nullptr; }

  // sign * (lo + step * code - mean); the sign is negative for x in a flipped window.
  TWOSTREAM_HD Affine affine(int64_t sample, int32_t channel, bool flip) const {
    const int64_t index = sample * channels + channel;
    const float scale = step != nullptr ? step[index] : 1.0f;
    const float offset = (lo != nullptr ? lo[index] : 0.0f) - (mean != nullptr ? mean[index] : 0.0f);
    return is_negated(channel, flip) ? Affine{-scale, -offset} : Affine{scale, offset};
  }

  // sign * (lo + step * code - (mean, or the camera's map at the pixel's place in its field))
  TWOSTREAM_HD SlopedAffine sloped(int64_t sample, int32_t channel, bool flip) const {
    const Affine straight = affine(sample, channel, flip);
    if (camera == nullptr) {
      return {straight.scale, -0.0f, -0.0f, straight.offset};
    }
    const float* map = camera + 3 * (sample * channels + channel);
    return is_negated(channel, flip) ? SlopedAffine{straight.scale, map[0], map[1], straight.offset + map[2]}
                                     : SlopedAffine{straight.scale, -map[0], -map[1], straight.offset - map[2]};
  }

  TWOSTREAM_HD RowAffine row_affine(int64_t sample, int32_t channel, bool flip, int32_t row) const {
    return at_row(sloped(sample, channel, flip), static_cast<float>(row));
  }

 private:
  TWOSTREAM_HD static bool is_negated(int32_t channel, bool flip) { return flip && channel % components == 0; }
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
  return {coded ? args.lo : nullptr, coded ? args.step : nullptr, args.mean, args.camera,
          args.flow.length * FlowChannels::components};
}

}  // namespace twostream
