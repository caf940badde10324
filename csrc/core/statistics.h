// SPDX-License-Identifier: BSD-3-Clause
// The range and the sum of one component of a field. Sums are taken in double: 256 x 340 floats keep all their digits.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "core/host_device.h"

namespace twostream {

struct Statistics {  // no initialisers: arrays of it live in shared memory
  float lowest;
  float highest;
  double sum;
  int64_t count;
};

TWOSTREAM_HD Statistics no_values() { return {FLT_MAX, -FLT_MAX, 0.0, 0}; }

TWOSTREAM_HD void add(Statistics& statistics, float value) {
  if (value - value == 0.0f) {  // false for NaN and infinities, which would spoil the range of all other pixels
    statistics.lowest = fminf(statistics.lowest, value);
    statistics.highest = fmaxf(statistics.highest, value);
    statistics.sum += static_cast<double>(value);
    statistics.count += 1;
  }
}

TWOSTREAM_HD void merge(Statistics& statistics, const Statistics& other) {
  statistics.lowest = fminf(statistics.lowest, other.lowest);
  statistics.highest = fmaxf(statistics.highest, other.highest);
  statistics.sum += other.sum;
  statistics.count += other.count;
}

}  // namespace twostream
