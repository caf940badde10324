// SPDX-License-Identifier: BSD-3-Clause
// The 8-bit code of a displacement: value = lo + step * code.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "core/statistics.h"
#include "twostream/quantize_flow.h"

namespace twostream {

struct CodeRange {
  float lo;
  float step;
};

// The component's own range, or [-bound, bound] if `bound` is positive. A constant component has step 0 and code 0.
TWOSTREAM_HD CodeRange code_range(const Statistics& statistics, float bound) {
  if (bound > 0.0f) {
    return {-bound, static_cast<float>(2.0 * static_cast<double>(bound) / 255.0)};
  }
  if (statistics.count == 0) {
    return {0.0f, 0.0f};
  }
  const double extent = static_cast<double>(statistics.highest) - static_cast<double>(statistics.lowest);
  return {statistics.lowest, static_cast<float>(extent / 255.0)};
}

TWOSTREAM_HD uint8_t code_of(float value, const CodeRange& range) {
  if (range.step <= 0.0f) {
    return 0;
  }
  const float known = value == value ? value : 0.0f;
  const float code = rintf((known - range.lo) / range.step);
  return static_cast<uint8_t>(fminf(fmaxf(code, 0.0f), 255.0f));
}

TWOSTREAM_HD float finite_mean(const Statistics& statistics) {
  return statistics.count > 0 ? static_cast<float>(statistics.sum / static_cast<double>(statistics.count)) : 0.0f;
}

}  // namespace twostream
