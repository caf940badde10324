// SPDX-License-Identifier: BSD-3-Clause
// The 8-bit code of a displacement: value = lo + step * code.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "core/statistics.h"
#include "twostream/quantize_flow.h"

namespace twostream {

struct CodeRange {
  float lo;
  float step;
  float codes_per_pixel;  // 1 / step; 0 where step is
};

// A range below what float can divide by counts as none.
TWOSTREAM_HD CodeRange code_range(float lo, double extent) {
  const auto step = static_cast<float>(extent / 255.0);
  return step < FLT_MIN ? CodeRange{lo, 0.0f, 0.0f} : CodeRange{lo, step, 1.0f / step};
}

// The component's own range, or [-bound, bound] if `bound` is positive. A constant component has step 0 and code 0.
TWOSTREAM_HD CodeRange code_range(const Statistics& statistics, float bound) {
  if (bound > 0.0f) {
    return code_range(-bound, 2.0 * static_cast<double>(bound));
  }
  if (statistics.count == 0) {
    return code_range(0.0f, 0.0);
  }
  return code_range(statistics.lowest,
                    static_cast<double>(statistics.highest) - static_cast<double>(statistics.lowest));
}

TWOSTREAM_HD uint8_t code_of(float value, const CodeRange& range) {
  const float known = value == value ? value : 0.0f;
  const float code = (known - range.lo) * range.codes_per_pixel;
  const float bounded = code > 0.0f ? (code < 255.0f ? code : 255.0f) : 0.0f;  // 0 also for infinity * 0
  return static_cast<uint8_t>(rintf(bounded));
}

TWOSTREAM_HD float finite_mean(const Statistics& statistics) {
  return statistics.count > 0 ? static_cast<float>(statistics.sum / static_cast<double>(statistics.count)) : 0.0f;
}

}  // namespace twostream
