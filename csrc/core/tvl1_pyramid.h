// SPDX-License-Identifier: BSD-3-Clause
// What both backends of TV-L1 flow must agree on: the levels of the pyramid, how flow goes from one to the next, and
// where the images of all levels lie in the workspace.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "twostream/tvl1_flow.h"

namespace twostream {

// ---- levels --------------------------------------------------------------------------------------------------------

constexpr int tvl1_most_scales = 64;
constexpr int32_t tvl1_smallest_side = 16;

struct Tvl1Level {
  int32_t height;
  int32_t width;

  TWOSTREAM_HD int64_t pixels() const { return static_cast<int64_t>(height) * width; }
};

// levels[0] is the full size. Those finer than `finest` only have the flow of the coarser ones enlarged.
struct Tvl1Pyramid {
  Tvl1Level levels[tvl1_most_scales];
  int count;
  int finest;
};

inline int32_t shrunken_side(int32_t side, float scale_step) {
  return static_cast<int32_t>(std::nearbyint(static_cast<double>(side) * static_cast<double>(scale_step)));
}

inline Tvl1Pyramid tvl1_pyramid(const twostream_tvl1_flow_args& args) {
  Tvl1Pyramid pyramid{};
  pyramid.levels[0] = {args.frames.height, args.frames.width};
  pyramid.count = 1;
  while (pyramid.count < args.scales && pyramid.count < tvl1_most_scales) {
    const Tvl1Level& finer = pyramid.levels[pyramid.count - 1];
    const Tvl1Level level{shrunken_side(finer.height, args.scale_step), shrunken_side(finer.width, args.scale_step)};
    if (level.height < tvl1_smallest_side || level.width < tvl1_smallest_side) {
      break;
    }
    pyramid.levels[pyramid.count++] = level;
  }
  pyramid.finest = args.finest_scale < pyramid.count ? args.finest_scale : pyramid.count - 1;
  return pyramid;
}

// ---- from one level to another -------------------------------------------------------------------------------------

struct Tvl1Resize {
  Tvl1Level from;
  Tvl1Level to;
  float scale_y;  // length of a pixel of `to` in pixels of `from`
  float scale_x;
  float factor;  // of the values: displacements grow as the image does, intensities do not
};

inline Tvl1Resize shrink_image(const Tvl1Pyramid& pyramid, int finer, float scale_step) {
  const float scale = 1.0f / scale_step;
  return {pyramid.levels[finer], pyramid.levels[finer + 1], scale, scale, 1.0f};
}

inline Tvl1Resize shrink_flow(const Tvl1Pyramid& pyramid, int finer, float scale_step) {
  Tvl1Resize resize = shrink_image(pyramid, finer, scale_step);
  resize.factor = scale_step;
  return resize;
}

// The flow of the coarser level is stretched over the finer one, whose sides were rounded: the scales are the ratios
// of the sides, and only the displacements grow by the nominal step.
inline Tvl1Resize enlarge_flow(const Tvl1Pyramid& pyramid, int coarser, float scale_step) {
  const Tvl1Level& from = pyramid.levels[coarser];
  const Tvl1Level& to = pyramid.levels[coarser - 1];
  return {from, to, static_cast<float>(from.height) / static_cast<float>(to.height),
          static_cast<float>(from.width) / static_cast<float>(to.width), 1.0f / scale_step};
}

inline Tvl1Resize keep_flow(const Tvl1Level& level) { return {level, level, 1.0f, 1.0f, 1.0f}; }

// ---- workspace -----------------------------------------------------------------------------------------------------

// The workspace begins with the pyramids of all frames: frame after frame, and of each, level after level, images
// without gaps between rows. Behind them, each pair at work has a slot, which the backends lay out each in its own way
// (cpu/tvl1_slots.h, cuda/tvl1_slots.cuh).

// Floats, rounded up so that every image begins at a cache line of 64 bytes.
inline int64_t aligned_floats(int64_t floats) { return (floats + 15) / 16 * 16; }

// Where a level's image begins in its frame's pyramid.
inline int64_t image_offset(const Tvl1Pyramid& pyramid, int wanted) {
  int64_t floats = 0;
  for (int index = 0; index < wanted; ++index) {
    floats += aligned_floats(pyramid.levels[index].pixels());
  }
  return floats;
}

inline int64_t frame_size(const Tvl1Pyramid& pyramid) { return image_offset(pyramid, pyramid.count); }

inline int64_t frames_size(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid) {
  return args.frames.count * frame_size(pyramid);
}

// The previous (0) or the next (1) frame of a pair, brought among those there are: on a device, nobody has looked at
// the indices before.
TWOSTREAM_HD int64_t frame_of_pair(const int32_t* pairs, int64_t pair, int32_t which, int64_t frame_count) {
  const int64_t index = pairs[2 * pair + which];
  return index < 0 ? 0 : (index < frame_count ? index : frame_count - 1);
}

}  // namespace twostream
