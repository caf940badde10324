// SPDX-License-Identifier: BSD-3-Clause
// One window of a sample: where it lies, and which source column feeds an output column.
#pragma once

#include "core/host_device.h"
#include "core/types.h"

namespace twostream {

struct Window {
  int32_t top;
  int32_t left;
  bool flip;
};

TWOSTREAM_HD int32_t clamp(int32_t value, int32_t lowest, int32_t highest) {
  return value < lowest ? lowest : (value > highest ? highest : value);
}

// The caller's numbers are clamped, so that no window reads outside its sample (which is at least height x width).
TWOSTREAM_HD Window load_window(const int32_t* numbers, const twostream_sample& sample, int32_t height, int32_t width) {
  return {clamp(numbers[0], 0, sample.height - height), clamp(numbers[1], 0, sample.width - width), numbers[2] != 0};
}

TWOSTREAM_HD int32_t source_column(const Window& window, int32_t column, int32_t width) {
  return window.left + (window.flip ? width - 1 - column : column);
}

}  // namespace twostream
