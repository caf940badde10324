// SPDX-License-Identifier: BSD-3-Clause
// A warp: the next frame as seen through the present flow, and the data terms that follow from it. The twin is
// cpu/tvl1_warp.h.
#pragma once

#include "core/tvl1_flow.h"
#include "core/tvl1_pyramid.h"
#include "cuda/tvl1_pyramid.cuh"
#include "cuda/tvl1_slots.cuh"

namespace twostream {

// The image and its differences are 0 beyond the border.
__device__ inline Intensity<float> sample(const float* image, const Tvl1Level& level, Pair<float> position) {
  const CubicTaps<float> vertical = cubic_taps(position.y, static_cast<float>(level.height));
  const CubicTaps<float> horizontal = cubic_taps(position.x, static_cast<float>(level.width));
  const auto top = static_cast<int32_t>(vertical.first);
  const auto left = static_cast<int32_t>(horizontal.first);
  float patch[6][6];  // the taps' pixels and those around them, for the differences
  for (int32_t row = 0; row < 6; ++row) {
    const float* from = image + static_cast<int64_t>(within(top - 1 + row, level.height)) * level.width;
    for (int32_t column = 0; column < 6; ++column) {
      patch[row][column] = from[within(left - 1 + column, level.width)];
    }
  }
  Intensity<float> columns[4];
  for (int32_t column = 0; column < 4; ++column) {
    Intensity<float> taps[4];
    for (int32_t row = 0; row < 4; ++row) {
      const bool inside =
          within(top + row, level.height) == top + row && within(left + column, level.width) == left + column;
      const float (&here)[6] = patch[row + 1];
      taps[row] = {inside ? here[column + 1] : 0.0f, inside ? centred_difference(here[column], here[column + 2]) : 0.0f,
                   inside ? centred_difference(patch[row][column + 1], patch[row + 2][column + 1]) : 0.0f};
    }
    const float (&down)[4] = vertical.weights;
    columns[column] = {weighted(down, taps[0].value, taps[1].value, taps[2].value, taps[3].value),
                       weighted(down, taps[0].x, taps[1].x, taps[2].x, taps[3].x),
                       weighted(down, taps[0].y, taps[1].y, taps[2].y, taps[3].y)};
  }
  const float (&across)[4] = horizontal.weights;
  return {weighted_by_twos(across, columns[0].value, columns[1].value, columns[2].value, columns[3].value),
          weighted_by_twos(across, columns[0].x, columns[1].x, columns[2].x, columns[3].x),
          weighted_by_twos(across, columns[0].y, columns[1].y, columns[2].y, columns[3].y)};
}

// Computes the data terms around the present flow; `pairs` are those at work.
static __global__ void warp_kernel(const Slots slots, const Images images, const int32_t* pairs, int64_t frame_count,
                                   int32_t launch) {
  const Tvl1Level& level = images.level;
  const Slot slot = slots.at(blockIdx.z);
  const int32_t source = slot.turn(launch, level).source;
  if (first_thread_of_pair()) {
    slot.pass_on(launch, source, 0, false, false);
  }
  const float* previous = images.of(frame_of_pair(pairs, blockIdx.z, 0, frame_count));
  const float* next = images.of(frame_of_pair(pairs, blockIdx.z, 1, frame_count));
  const WholePair* flows = slot.state(source).flow;
  for_each_pixel(level, [&](int32_t y, int32_t x) {
    const int64_t offset = y * row_stride(level) + x;
    const Pair<float> flow = flows[offset].value;
    const Intensity<float> warped =
        sample(next, level, {static_cast<float>(x) + flow.x, static_cast<float>(y) + flow.y});
    slot.terms[offset].value = data_term(warped, flow, previous[static_cast<int64_t>(y) * level.width + x]);
  });
}

}  // namespace twostream
