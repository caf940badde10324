// SPDX-License-Identifier: BSD-3-Clause
// One step of a trajectory: where it samples a field, what it reads there, and where it goes.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/flow_stack.h"
#include "core/host_device.h"
#include "core/types.h"
#include "core/validate.h"
#include "twostream/trajectory_stack.h"

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
  Affine output_x;
  Affine output_y;

  TWOSTREAM_HD Vector2 displacement(Vector2 raw) const { return {apply(move_x, raw.x), apply(move_y, raw.y)}; }
};

TWOSTREAM_HD FieldAffine field_affine(const FlowChannels& channels, int64_t sample, int32_t field, bool flip) {
  const FlowChannels moving{channels.lo, channels.step, nullptr, channels.channels};
  return {moving.affine(sample, 2 * field, false), moving.affine(sample, 2 * field + 1, false),
          channels.affine(sample, 2 * field, flip), channels.affine(sample, 2 * field + 1, flip)};
}

inline FlowChannels flow_channels(const twostream_trajectory_stack_args& args) {
  const bool coded = args.flow.dtype == TWOSTREAM_UINT8;
  return {coded ? args.lo : nullptr, coded ? args.step : nullptr, args.mean,
          args.flow.length * FlowChannels::components};
}

// A stack is one trajectory through all its fields, or two through half of them each.
TWOSTREAM_HD int32_t trajectories(int32_t bidirectional) { return bidirectional != 0 ? 2 : 1; }

inline bool valid_halves(const twostream_batch& batch, int32_t bidirectional) {
  return batch.length % trajectories(bidirectional) == 0;
}

}  // namespace twostream
