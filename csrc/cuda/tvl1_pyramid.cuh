// SPDX-License-Identifier: BSD-3-Clause
// Frames of any strides to images of floats, and images from one level of the pyramid to the next. The twin is
// cpu/tvl1_pyramid.h.
#pragma once

#include "core/tvl1_flow.h"
#include "core/tvl1_pyramid.h"
#include "core/types.h"
#include "cuda/launch.h"

namespace twostream {

// ---- a thread for a pixel ------------------------------------------------------------------------------------------

constexpr int32_t block_columns = 32;
constexpr int32_t block_rows = threads_per_block / block_columns;
constexpr int64_t largest_grid_z = 65535;

// Blocks run over the columns (x), the rows (y), the pairs at work or the frames (z).
inline dim3 pixel_grid(const Tvl1Level& level, int64_t count) {
  const int64_t rows = (static_cast<int64_t>(level.height) + block_rows - 1) / block_rows;
  return dim3(static_cast<unsigned int>((static_cast<int64_t>(level.width) + block_columns - 1) / block_columns),
              static_cast<unsigned int>(rows < largest_grid_y ? rows : largest_grid_y),
              static_cast<unsigned int>(count < largest_grid_z ? count : largest_grid_z));
}

// Calls body(y, x).
template <typename Body>
__device__ void for_each_pixel(const Tvl1Level& level, const Body& body) {
  const int64_t x = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.y;
  for (int64_t y = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; y < level.height && x < level.width;
       y += step) {
    body(static_cast<int32_t>(y), static_cast<int32_t>(x));
  }
}

// ---- images --------------------------------------------------------------------------------------------------------

// One level of all frames.
struct Images {
  float* base;
  int64_t frame_stride;
  Tvl1Level level;

  __device__ float* of(int64_t frame) const { return base + frame * frame_stride; }
};

inline Images images_of(float* base, const Tvl1Pyramid& pyramid, int wanted) {
  return {base + image_offset(pyramid, wanted), frame_size(pyramid), pyramid.levels[wanted]};
}

template <typename T>
__global__ void read_frames_kernel(const twostream_grey_frames frames, const Images images) {
  for (int64_t frame = blockIdx.z; frame < frames.count; frame += gridDim.z) {
    for_each_pixel(images.level, [&](int32_t y, int32_t x) {
      const T value = static_cast<const T*>(
          frames.data)[frame * frames.frame_stride + y * frames.row_stride + x * frames.column_stride];
      images.of(frame)[static_cast<int64_t>(y) * images.level.width + x] = to_float(value);
    });
  }
}

// pixel(row, column) reads one of the four pixels.
template <typename ReadPixel>
__device__ float resized_by(const ReadPixel& pixel, const LinearTap& vertical, const LinearTap& horizontal,
                            float factor) {
  return resized({pixel(vertical.first, horizontal.first), pixel(vertical.first, horizontal.second),
                  pixel(vertical.second, horizontal.first), pixel(vertical.second, horizontal.second)},
                 vertical, horizontal, factor);
}

static __global__ void resize_frames_kernel(int64_t count, const Images from, const Images to, const Tvl1Resize sizes) {
  for (int64_t frame = blockIdx.z; frame < count; frame += gridDim.z) {
    const float* image = from.of(frame);
    for_each_pixel(sizes.to, [&](int32_t y, int32_t x) {
      const LinearTap vertical = linear_tap(y, sizes.scale_y, sizes.from.height);
      const LinearTap horizontal = linear_tap(x, sizes.scale_x, sizes.from.width);
      const auto pixel = [&](int32_t row, int32_t column) {
        return image[static_cast<int64_t>(row) * sizes.from.width + column];
      };
      to.of(frame)[static_cast<int64_t>(y) * sizes.to.width + x] =
          resized_by(pixel, vertical, horizontal, sizes.factor);
    });
  }
}

}  // namespace twostream
