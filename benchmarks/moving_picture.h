// SPDX-License-Identifier: BSD-3-Clause
// Two frames for the programs that call the C API: a smooth picture that moves by one pixel and a half.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

inline std::vector<float> moving_picture(int64_t height, int64_t width) {
  const int64_t pixels = height * width;
  std::vector<float> grey(static_cast<size_t>(2 * pixels));
  for (int64_t frame = 0; frame < 2; ++frame) {
    for (int64_t at = 0; at < pixels; ++at) {
      const int64_t x = 4 * (at % width) - 6 * frame, y = 4 * (at / width);
      grey[static_cast<size_t>(frame * pixels + at)] =
          static_cast<float>((x * x / 16 + 3 * y * y / 16 + x * y / 8) % 251);
    }
  }
  return grey;
}
