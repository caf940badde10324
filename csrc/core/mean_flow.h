// SPDX-License-Identifier: BSD-3-Clause
// From the sum over a field's codes or displacements to its mean in pixels.
#pragma once

#include "core/affine.h"
#include "core/host_device.h"
#include "twostream/mean_flow.h"

namespace twostream {

// `lo` and `step` are NULL for float fields; `index` counts [N, L, 2].
TWOSTREAM_HD float mean_displacement(double sum, int64_t count, const float* lo, const float* step, int64_t index) {
  const float mean = count > 0 ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
  return step != nullptr ? fmaf(mean, step[index], lo[index]) : mean;
}

}  // namespace twostream
