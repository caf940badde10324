// SPDX-License-Identifier: BSD-3-Clause
// A thread at work on a pair of frames has a slot of the workspace: the ten variables of each pixel, the next frame
// with its differences, and a spare copy of the flow. The twin is cuda/tvl1_slots.cuh.
// The ten values of a row of pixels lie side by side, one straight row each, and guards beside and above them stand for
// what is outside the image.
#pragma once

#include <algorithm>
#include <cstring>

#include "core/tvl1_flow.h"
#include "core/tvl1_pyramid.h"

namespace twostream {

// ---- the variables of a level --------------------------------------------------------------------------------------

enum Plane { flow_x, flow_y, x_dual_x, x_dual_y, y_dual_x, y_dual_y, term_x, term_y, term_constant, term_inverse };
constexpr int plane_count = 10;
constexpr int64_t guard = 8;  // values before a row; the widest vector, so that the layout is every build's

struct Variables {
  float* base;
  Tvl1Level level;
  int64_t stride;  // from one plane's row to the next one's

  float* row(Plane plane, int32_t y) const { return base + ((y + 1) * plane_count + plane) * stride + guard; }
};

constexpr int64_t stride_unit = 64;

inline int64_t plane_stride(int32_t width) {
  const int64_t least = guard + width + guard;  // behind: one guard, or the rest of the last vector
  const int64_t units = (least + stride_unit - 1) / stride_unit;
  // Rows 2 or 4 kB apart would share one or two sets of the cache.
  return (units % 8 == 0 ? units + 1 : units) * stride_unit;
}

inline int64_t variables_size(const Tvl1Level& level) {
  return (static_cast<int64_t>(level.height) + 1) * plane_count * plane_stride(level.width);
}

// ---- the next frame at a level -------------------------------------------------------------------------------------

// Intensity, its two differences and a zero, as one vector a pixel.
struct PixelVectors {
  float* base;
  int64_t stride;

  float* at(int32_t y, int32_t x) const { return base + (y + cubic_margin) * stride + (x + cubic_margin) * 4; }
};

inline int64_t vectors_stride(int32_t width) { return 4 * (static_cast<int64_t>(width) + 2 * cubic_margin); }

inline int64_t vectors_size(const Tvl1Level& level) {
  return aligned_floats((static_cast<int64_t>(level.height) + 2 * cubic_margin) * vectors_stride(level.width));
}

// ---- slots ---------------------------------------------------------------------------------------------------------

struct PairSlot {
  float* variables;
  float* vectors;
  float* flow;  // a spare copy, [2, height, width]
};

inline int64_t slot_size(const Tvl1Level& largest) {
  return variables_size(largest) + vectors_size(largest) + aligned_floats(2 * largest.pixels());
}

inline PairSlot slot_at(float* base, const Tvl1Level& largest) {
  float* vectors = base + variables_size(largest);
  return {base, vectors, vectors + vectors_size(largest)};
}

inline Variables variables_of(const PairSlot& slot, const Tvl1Level& level) {
  return {slot.variables, level, plane_stride(level.width)};
}

// Zero variables of a level, duals and guards among them.
inline Variables clear_variables(const PairSlot& slot, const Tvl1Level& level) {
  std::memset(slot.variables, 0, variables_size(level) * sizeof(float));
  return variables_of(slot, level);
}

static void save_flow(const Variables& variables, float* to) {
  for (const Plane plane : {flow_x, flow_y}) {
    for (int32_t y = 0; y < variables.level.height; ++y, to += variables.level.width) {
      std::memcpy(to, variables.row(plane, y), variables.level.width * sizeof(float));
    }
  }
}

}  // namespace twostream
