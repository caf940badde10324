// SPDX-License-Identifier: BSD-3-Clause
// One step of a trajectory: where it samples a field, what it reads there, and where it goes.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/flow_stack.h"
#include "core/host_device.h"
#include "core/types.h"
#include "twostream/trajectory_stack.h"
#include "twostream/trajectory_stack_backward.h"

namespace twostream {

struct Vector2 {
  float x;
  float y;
};

// The largest coordinate along an extent: exact up to 2^24, and never beyond the last pixel.
TWOSTREAM_HD float last_coordinate(int32_t extent) {
  const auto last = static_cast<float>(extent - 1);
  return static_cast<int64_t>(last) > extent - 1 ? float_of(bits_of(last) - 1) : last;
}

struct Bounds {
  float right;
  float bottom;
};

TWOSTREAM_HD Bounds bounds_of(const twostream_sample& sample) {
  return {last_coordinate(sample.width), last_coordinate(sample.height)};
}

// NaN becomes 0. Written so that maxps and minps do the same.
TWOSTREAM_HD float clamp_coordinate(float value, float last) {
  const float not_negative = value > 0.0f ? value : 0.0f;
  return not_negative < last ? not_negative : last;
}

TWOSTREAM_HD Vector2 advance(Vector2 position, Vector2 displacement, const Bounds& bounds) {
  return {clamp_coordinate(position.x + displacement.x, bounds.right),
          clamp_coordinate(position.y + displacement.y, bounds.bottom)};
}

// The two pixels around a clamped coordinate. At a pixel they are one: a neighbour of weight 0 may be NaN, or not
// exist.
struct Tap {
  int32_t first;
  int32_t second;
  float fraction;
};

TWOSTREAM_HD Tap tap_at(float coordinate) {
  const auto first = static_cast<int32_t>(coordinate);
  const float fraction = coordinate - static_cast<float>(first);
  return {first, fraction > 0.0f ? first + 1 : first, fraction};
}

TWOSTREAM_HD float interpolate(float from, float to, float fraction) { return fmaf(fraction, to - from, from); }

// Four values around a position: in x first, then in y.
struct Patch {
  Vector2 top_left;
  Vector2 top_right;
  Vector2 bottom_left;
  Vector2 bottom_right;
};

TWOSTREAM_HD Vector2 interpolate(const Patch& patch, float fraction_x, float fraction_y) {
  return {interpolate(interpolate(patch.top_left.x, patch.top_right.x, fraction_x),
                      interpolate(patch.bottom_left.x, patch.bottom_right.x, fraction_x), fraction_y),
          interpolate(interpolate(patch.top_left.y, patch.top_right.y, fraction_x),
                      interpolate(patch.bottom_left.y, patch.bottom_right.y, fraction_x), fraction_y)};
}

// A field of any strides, as its raw values: codes or displacements.
template <typename In>
struct StridedField {
  const In* data;
  int64_t row_stride;
  int64_t column_stride;
  int64_t component_stride;

  TWOSTREAM_HD Vector2 at(int32_t row, int32_t column) const {
    const In* pixel = data + row * row_stride + column * column_stride;
    return {to_float(pixel[0]), to_float(pixel[component_stride])};
  }
};

template <typename In>
TWOSTREAM_HD StridedField<In> strided_field(const twostream_sample& sample, int64_t field) {
  return {static_cast<const In*>(sample.data) + field * sample.field_stride, sample.row_stride, sample.column_stride,
          sample.component_stride};
}

template <typename Field>
TWOSTREAM_HD Patch patch_at(const Field& field, const Tap& row, const Tap& column) {
  return {field.at(row.first, column.first), field.at(row.first, column.second), field.at(row.second, column.first),
          field.at(row.second, column.second)};
}

template <typename Field>
TWOSTREAM_HD Vector2 sample_at(const Field& field, Vector2 position) {
  const Tap row = tap_at(position.y);
  const Tap column = tap_at(position.x);
  return interpolate(patch_at(field, row, column), column.fraction, row.fraction);
}

// From a sampled raw value to the displacement that moves the trajectory, and to the two channels of the output.
struct FieldAffine {
  Affine move_x;
  Affine move_y;
  SlopedAffine output_x;
  SlopedAffine output_y;

  TWOSTREAM_HD Vector2 displacement(Vector2 raw) const { return {apply(move_x, raw.x), apply(move_y, raw.y)}; }
};

TWOSTREAM_HD FieldAffine field_affine(const FlowChannels& channels, int64_t sample, int32_t field, bool flip) {
  const FlowChannels moving{channels.lo, channels.step, nullptr, nullptr, channels.channels};
  return {moving.affine(sample, 2 * field, false), moving.affine(sample, 2 * field + 1, false),
          channels.sloped(sample, 2 * field, flip), channels.sloped(sample, 2 * field + 1, flip)};
}

// A stack is one trajectory through all its fields, or two through half of them each.
TWOSTREAM_HD int32_t trajectories(int32_t bidirectional) { return bidirectional != 0 ? 2 : 1; }

// ---- the way back -------------------------------------------------------------------------------------------------

TWOSTREAM_HD Vector2 clamp_position(Vector2 position, const Bounds& bounds) {
  return {clamp_coordinate(position.x, bounds.right), clamp_coordinate(position.y, bounds.bottom)};
}

// At a pixel the derivative is that towards the next one, where there is one.
TWOSTREAM_HD Tap slope_tap_at(float coordinate, int32_t extent) {
  const Tap tap = tap_at(coordinate);
  return {tap.first, tap.first < extent - 1 ? tap.first + 1 : tap.first, tap.fraction};
}

TWOSTREAM_HD bool is_inside(float coordinate, float last) { return coordinate >= 0.0f && coordinate <= last; }

// From the gradients of the displacement d(p) and of p + d(p) to the gradient of the position q, of which p is the
// clamped value: its transposed Jacobian, and nothing where a coordinate was clamped.
template <typename Field>
TWOSTREAM_HD Vector2 pull_back(const Field& field, const twostream_sample& sample, Vector2 unclamped,
                               const Bounds& bounds, Vector2 displacement, Vector2 next) {
  const Vector2 position = clamp_position(unclamped, bounds);
  const Tap row = slope_tap_at(position.y, sample.height);
  const Tap column = slope_tap_at(position.x, sample.width);
  const Patch patch = patch_at(field, row, column);
  const Vector2 along_x{
      interpolate(patch.top_right.x - patch.top_left.x, patch.bottom_right.x - patch.bottom_left.x, row.fraction),
      interpolate(patch.top_right.y - patch.top_left.y, patch.bottom_right.y - patch.bottom_left.y, row.fraction)};
  const Vector2 along_y{
      interpolate(patch.bottom_left.x - patch.top_left.x, patch.bottom_right.x - patch.top_right.x, column.fraction),
      interpolate(patch.bottom_left.y - patch.top_left.y, patch.bottom_right.y - patch.top_right.y, column.fraction)};
  const float x = fmaf(along_x.y, displacement.y, fmaf(along_x.x, displacement.x, next.x));
  const float y = fmaf(along_y.y, displacement.y, fmaf(along_y.x, displacement.x, next.y));
  return {is_inside(unclamped.x, bounds.right) ? x : 0.0f, is_inside(unclamped.y, bounds.bottom) ? y : 0.0f};
}

// What is subtracted changes along the trajectory: from the gradients of a field's two outputs, x not negated, to that
// of the place where it was sampled, added to `next`. `index` counts [N, L].
TWOSTREAM_HD Vector2 through_camera(const float* camera, int64_t index, Vector2 given, Vector2 next) {
  if (camera == nullptr) {
    return next;
  }
  const float* map = camera + 6 * index;
  return {fmaf(-map[0], given.x, fmaf(-map[3], given.y, next.x)),
          fmaf(-map[1], given.x, fmaf(-map[4], given.y, next.y))};
}

// The magnitude of a gradient as an integer that orders like it, with infinity and NaN above all others.
TWOSTREAM_HD uint32_t magnitude_of(float value) { return bits_of(value) & 0x7fffffffu; }

// Sums of gradients in fixed point: integers may be added in any order. The scale is a power of two, the largest with
// which `count` contributions of the largest magnitude stay below 2^62.
struct FixedPoint {
  bool finite;
  double scale;    // 0 if there is nothing to add
  double inverse;  // of the scale
};

TWOSTREAM_HD FixedPoint fixed_point(uint32_t largest, int64_t count) {
  if (largest == 0 || largest >= 0x7f800000u) {
    return {largest == 0, 0.0, 0.0};
  }
  int exponent = 62 - (static_cast<int>(largest >> 23) - 126);  // largest < 2^(its exponent - 126)
  for (int64_t covered = 1; covered < count; covered *= 2) {
    --exponent;
  }
  return {true, ldexp(1.0, exponent), ldexp(1.0, -exponent)};
}

// Calls add(row, column, weight) for each pixel that a sample at a clamped position read.
template <typename Add>
TWOSTREAM_HD void spread(Vector2 position, const Add& add) {
  const Tap row = tap_at(position.y);
  const Tap column = tap_at(position.x);
  add(row.first, column.first, (1.0f - column.fraction) * (1.0f - row.fraction));
  if (column.fraction > 0.0f) {
    add(row.first, column.second, column.fraction * (1.0f - row.fraction));
  }
  if (row.fraction > 0.0f) {
    add(row.second, column.first, (1.0f - column.fraction) * row.fraction);
    if (column.fraction > 0.0f) {
      add(row.second, column.second, column.fraction * row.fraction);
    }
  }
}

TWOSTREAM_HD int64_t to_fixed(float gradient, float weight, const FixedPoint& fixed) {
  return static_cast<int64_t>(static_cast<double>(gradient * weight) * fixed.scale);
}

TWOSTREAM_HD float from_fixed(int64_t sum, const FixedPoint& fixed) {
  return fixed.finite ? static_cast<float>(static_cast<double>(sum) * fixed.inverse) : NAN;
}

// What each pixel of a field receives through the field's mean.
TWOSTREAM_HD float mean_share(float mean_gradient, const twostream_sample& sample) {
  return static_cast<float>(static_cast<double>(mean_gradient) /
                            (static_cast<double>(sample.height) * static_cast<double>(sample.width)));
}

// Where the planes of channel 0 of a window begin in the workspaces [N, K, 2L, h, w].
TWOSTREAM_HD int64_t workspace_start(const twostream_trajectory_stack_backward_args& args, int64_t index,
                                     int64_t place) {
  return (index * args.windows_per_sample + place) * 2 * args.flow.length * args.gradient.height * args.gradient.width;
}

}  // namespace twostream
