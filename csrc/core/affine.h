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

// The same where an affine map of the place is subtracted, and the offset changes along x and along y. Slopes of -0
// leave every offset as it is, a negative zero too, since coordinates are not negative.
struct SlopedAffine {
  float scale;
  float along_x;
  float along_y;
  float offset;
};

// Where it has no slopes.
TWOSTREAM_HD Affine everywhere(const SlopedAffine& affine) { return {affine.scale, affine.offset}; }

struct RowAffine {
  float scale;
  float along_x;
  float offset;
};

TWOSTREAM_HD RowAffine at_row(const SlopedAffine& affine, float y) {
  return {affine.scale, affine.along_x, fmaf(affine.along_y, y, affine.offset)};
}

TWOSTREAM_HD Affine at_column(const RowAffine& affine, float x) {
  return {affine.scale, fmaf(affine.along_x, x, affine.offset)};
}

TWOSTREAM_HD Affine at_column(const Affine& affine, float /*x*/) { return affine; }

}  // namespace twostream
