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

// The same where an affine map of the place is subtracted: the offset changes along x and along y.
struct SlopedAffine {
  float scale;
  float along_x;
  float along_y;
  float offset;
};

TWOSTREAM_HD float row_offset(const SlopedAffine& affine, float y) { return fmaf(affine.along_y, y, affine.offset); }

// What is to be applied at column x of the row with that offset.
TWOSTREAM_HD Affine affine_at(const SlopedAffine& affine, float row_offset, float x) {
  return {affine.scale, fmaf(affine.along_x, x, row_offset)};
}

}  // namespace twostream
