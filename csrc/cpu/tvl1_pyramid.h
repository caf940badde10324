// SPDX-License-Identifier: BSD-3-Clause
// Frames of any strides to images of floats, and images and flow from one level of the pyramid to another. The twin is
// cuda/tvl1_pyramid.cuh.
#pragma once

#include <algorithm>

#include "core/tvl1_flow.h"
#include "core/tvl1_pyramid.h"
#include "core/types.h"
#include "cpu/tvl1_rows.h"

namespace twostream {

template <typename T>
void read_frame(const twostream_grey_frames& frames, int64_t index, float* to) {
  for (int32_t y = 0; y < frames.height; ++y) {
    const T* row = static_cast<const T*>(frames.data) + index * frames.frame_stride + y * frames.row_stride;
    for (int32_t x = 0; x < frames.width; ++x) {
      *to++ = to_float(row[x * frames.column_stride]);
    }
  }
}

constexpr int32_t tap_columns = 256;  // whose taps are worked out once for all rows

// Row y of the result begins at row_of(y), and has `stride` floats from pixel to pixel.
template <typename RowOf>
void resize(const float* image, const Tvl1Resize& sizes, const Sharing& sharing, const RowOf& row_of,
            int64_t stride = 1) {
  LinearTap taps[tap_columns];
  for (int32_t left = 0; left < sizes.to.width; left += tap_columns) {
    const int32_t count = std::min(tap_columns, sizes.to.width - left);
    for (int32_t x = 0; x < count; ++x) {
      taps[x] = linear_tap(left + x, sizes.scale_x, sizes.from.width);
    }
    sharing.each_row(sizes.to, [&](int32_t y) {
      const LinearTap vertical = linear_tap(y, sizes.scale_y, sizes.from.height);
      const float* upper = image + static_cast<int64_t>(vertical.first) * sizes.from.width;
      const float* lower = image + static_cast<int64_t>(vertical.second) * sizes.from.width;
      float* to = row_of(y) + left * stride;
      for (int32_t x = 0; x < count; ++x) {
        const LinearTap& tap = taps[x];
        to[x * stride] = resized({upper[tap.first], upper[tap.second], lower[tap.first], lower[tap.second]}, vertical,
                                 tap, sizes.factor);
      }
    });
  }
}

// All levels of one frame.
static void build_pyramid(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, int64_t index,
                          float* frame) {
  if (args.frames.dtype == TWOSTREAM_UINT8) {
    read_frame<uint8_t>(args.frames, index, frame);
  } else {
    read_frame<float>(args.frames, index, frame);
  }
  for (int finer = 0; finer + 1 < pyramid.count; ++finer) {
    const Tvl1Resize sizes = shrink_image(pyramid, finer, args.scale_step);
    float* to = frame + image_offset(pyramid, finer + 1);
    resize(frame + image_offset(pyramid, finer), sizes, Sharing{false},
           [&](int32_t y) { return to + static_cast<int64_t>(y) * sizes.to.width; });
  }
}

}  // namespace twostream
