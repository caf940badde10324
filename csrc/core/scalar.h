// SPDX-License-Identifier: BSD-3-Clause
// For one float what cpu/lanes.h has for several side by side: templates over `Value` in core/ are written for both.
#pragma once

#include <cmath>

#include "core/host_device.h"

namespace twostream {

TWOSTREAM_HD float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
TWOSTREAM_HD float square_root(float value) { return sqrtf(value); }

TWOSTREAM_HD float lower(float a, float b) { return a < b ? a : b; }
TWOSTREAM_HD float upper(float a, float b) { return a < b ? b : a; }
TWOSTREAM_HD float floor_of(float value) { return floorf(value); }

// 1 / value, or 0 where the value is `least` or below it.
TWOSTREAM_HD float inverse_above(float value, float least) { return value > least ? 1.0f / value : 0.0f; }

}  // namespace twostream
