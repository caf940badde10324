// SPDX-License-Identifier: BSD-3-Clause
// The arithmetic of one cropped pixel: decode, subtract, scale and change of sign are one fused multiply-add.
#pragma once

#include <cmath>

#include "core/host_device.h"

namespace twostream {

struct Affine {
  float scale;
  float offset;
};

TWOSTREAM_HD float apply(const Affine& affine, float value) { return fmaf(value, affine.scale, affine.offset); }

}  // namespace twostream
