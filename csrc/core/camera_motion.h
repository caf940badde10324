// SPDX-License-Identifier: BSD-3-Clause
// The affine map that most of a flow field follows, by iteratively reweighted least squares with the weights of Geman
// and McClure: (s / (s + r))^2, r the squared length of a pixel's residual. It begins at the best of seventeen plain
// fits: to the whole field, which lies between the motions that there are, and to each of sixteen blocks, some of which
// show the background alone. The scale s follows the weighted mean of r, which shrinks as what moves on its own loses
// its weight: nothing needs to be sorted, and no noise level known. Coordinates run from -1 to 1 along each side, and
// each round fits the residuals of the one before: both keep the digits of large fields and large displacements.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "core/affine.h"
#include "core/host_device.h"
#include "core/scalar.h"
#include "twostream/camera_motion.h"

namespace twostream {

// ---- places --------------------------------------------------------------------------------------------------------

// A pixel's coordinate along a side is (place - centre) * unit; 0 where the side has one pixel.
struct Axis {
  float centre;
  float unit;
};

TWOSTREAM_HD Axis axis_of(int32_t extent) {
  const float centre = 0.5f * static_cast<float>(extent - 1);
  return {centre, 1.0f / (centre > 0.5f ? centre : 0.5f)};
}

// All rounds but the last look at every `step`-th pixel of every `step`-th row, as far apart at both ends.
struct SampleGrid {
  int32_t step;
  int32_t first_row;
  int32_t first_column;
  int32_t rows;
  int32_t columns;
};

// Few enough for the first-level cache, and many enough: with half of them the error grows by half. A row of them
// counts as whole groups of eight.
constexpr int64_t most_samples = 4096;

TWOSTREAM_HD int64_t padded_columns(int64_t columns) { return (columns + 7) / 8 * 8; }

TWOSTREAM_HD SampleGrid sample_grid(int32_t height, int32_t width) {
  int32_t step = 1;
  while (((height - 1) / step + 1) * padded_columns((width - 1) / step + 1) > most_samples) {
    step += 1 + step / 8;
  }
  return {step, (height - 1) % step / 2, (width - 1) % step / 2, (height - 1) / step + 1, (width - 1) / step + 1};
}

// Rows and columns of the grid, from the first to before the last.
struct Block {
  int32_t first_row;
  int32_t last_row;
  int32_t first_column;
  int32_t last_column;
};

TWOSTREAM_HD Block whole_block(const SampleGrid& grid) { return {0, grid.rows, 0, grid.columns}; }

constexpr int32_t block_rows = 4;
constexpr int32_t block_columns = 4;
constexpr int32_t smallest_block = 8;  // pixels along each side, or noise decides

// The plain fits to begin with: the last is that to the whole field.
TWOSTREAM_HD int32_t starts_of(const SampleGrid& grid) {
  const bool large = grid.rows >= block_rows * smallest_block && grid.columns >= block_columns * smallest_block;
  return large ? block_rows * block_columns + 1 : 1;
}

TWOSTREAM_HD Block start_block(const SampleGrid& grid, int32_t number) {
  if (number == starts_of(grid) - 1) {
    return whole_block(grid);
  }
  const int32_t row = number / block_columns;
  const int32_t column = number % block_columns;
  return {grid.rows * row / block_rows, grid.rows * (row + 1) / block_rows, grid.columns * column / block_columns,
          grid.columns * (column + 1) / block_columns};
}

// A start is judged by every fourth row of the grid.
constexpr int32_t judged_rows = 4;

// ---- a pixel -------------------------------------------------------------------------------------------------------

template <typename Value>
struct PixelWeight {
  Value squared;  // the length of the residual
  Value weight;
};

template <typename Value>
TWOSTREAM_HD PixelWeight<Value> pixel_weight(Value x, Value y, Value scale) {
  const Value squared = multiply_add(x, x, y * y);
  const Value share = scale / (scale + squared);
  return {squared, share * share};
}

// What a start is judged by: little is said by how far off that is what it does not fit at all.
template <typename Value>
TWOSTREAM_HD Value pixel_penalty(Value x, Value y) {
  return square_root(square_root(multiply_add(x, x, y * y)));
}

// Weighted sums over pixels: of 1, the coordinates u and v, the residuals x and y, their products, and the squared
// length of the residuals.
struct CameraSums {  // no initialisers: arrays of it live in shared memory
  double weight;
  double u, v, uu, uv, vv;
  double x, xu, xv;
  double y, yu, yv;
  double squared;
};

TWOSTREAM_HD CameraSums no_pixels() { return {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}; }

TWOSTREAM_HD void merge(CameraSums& sums, const CameraSums& other) {
  sums.weight += other.weight;
  sums.u += other.u;
  sums.v += other.v;
  sums.uu += other.uu;
  sums.uv += other.uv;
  sums.vv += other.vv;
  sums.x += other.x;
  sums.xu += other.xu;
  sums.xv += other.xv;
  sums.y += other.y;
  sums.yu += other.yu;
  sums.yv += other.yv;
  sums.squared += other.squared;
}

TWOSTREAM_HD void add_pixel(CameraSums& sums, float u, float v, float x, float y, float scale) {
  const PixelWeight<float> pixel = pixel_weight(x, y, scale);
  const auto weight = static_cast<double>(pixel.weight);
  const double weighted_u = weight * static_cast<double>(u);
  const double weighted_v = weight * static_cast<double>(v);
  merge(sums,
        {weight, weighted_u, weighted_v, weighted_u * static_cast<double>(u), weighted_u * static_cast<double>(v),
         weighted_v * static_cast<double>(v), weight * static_cast<double>(x), weighted_u * static_cast<double>(x),
         weighted_v * static_cast<double>(x), weight * static_cast<double>(y), weighted_u * static_cast<double>(y),
         weighted_v * static_cast<double>(y), weight * static_cast<double>(pixel.squared)});
}

// ---- a round -------------------------------------------------------------------------------------------------------

// The map so far: displacement x[0] u + x[1] v + x[2] along x, and likewise along y.
struct CameraFit {
  double x[3];
  double y[3];
  float scale;  // s, in squared pixels
};

// The best start so far.
struct CameraStart {
  CameraFit fit;
  double penalty;
};

constexpr float largest_scale = 1e30f;
constexpr float smallest_scale = 1e-6f;  // a thousandth of a pixel: an exact fit must not divide by 0
constexpr double scale_factor = 1.5;     // above, noise counts less and what moves on its own more; measured
// The last round may trust its start: its wider weights average over more of the noise.
constexpr float last_widening = 8.0f;

// As large a scale makes all weights 1.
TWOSTREAM_HD CameraFit no_fit() { return {{0.0, 0.0, 0.0}, {0.0, 0.0, 0.0}, largest_scale}; }

TWOSTREAM_HD CameraStart no_start() { return {no_fit(), DBL_MAX}; }

TWOSTREAM_HD float limited_scale(double scale) {
  if (scale < static_cast<double>(largest_scale)) {
    const auto narrowed = static_cast<float>(scale);
    return narrowed > smallest_scale ? narrowed : smallest_scale;
  }
  return largest_scale;  // NaN too
}

// From a raw value to its residual, as a function of u and v.
TWOSTREAM_HD SlopedAffine residual_of(const double* fitted, float lo, float step) {
  return {step, -static_cast<float>(fitted[0]), -static_cast<float>(fitted[1]), lo - static_cast<float>(fitted[2])};
}

struct Slopes {
  double u;
  double v;
};

// Solves for the slopes from centred moments. Where the pixels lie on a line, or all at one place, there is no slope
// across: `least` is the moment below which a side has no extent. Written so that NaN goes through.
TWOSTREAM_HD Slopes solve_slopes(double uu, double uv, double vv, double xu, double xv, double least) {
  if (uu <= least) {
    return {0.0, 0.0};
  }
  const double left = vv - uv * uv / uu;
  const double v = left <= least ? 0.0 : (xv - uv * xu / uu) / left;
  return {(xu - uv * v) / uu, v};
}

// As it was used in float. GCC leaves the rounding out where it works on two at a time, unless the value is out of
// sight.
TWOSTREAM_HD double as_used(double fitted) {
  auto used = static_cast<float>(fitted);
#if !defined(__CUDA_ARCH__)
  asm("" : "+m"(used));
#endif
  return static_cast<double>(used);
}

// Adds to the map what fits its residuals.
TWOSTREAM_HD void refine(double* fitted, const CameraSums& sums, double x, double xu, double xv) {
  const double mean_u = sums.u / sums.weight;
  const double mean_v = sums.v / sums.weight;
  const double uu = sums.uu - sums.u * mean_u;
  const double uv = sums.uv - sums.u * mean_v;
  const double vv = sums.vv - sums.v * mean_v;
  const double right_u = xu - x * mean_u;
  const double right_v = xv - x * mean_v;
  const double least = 1e-6 * sums.weight;
  Slopes slopes{};
  if (vv > uu) {
    const Slopes swapped = solve_slopes(vv, uv, uu, right_v, right_u, least);
    slopes = {swapped.v, swapped.u};
  } else {
    slopes = solve_slopes(uu, uv, vv, right_u, right_v, least);
  }
  fitted[0] = as_used(fitted[0]) + slopes.u;
  fitted[1] = as_used(fitted[1]) + slopes.v;
  fitted[2] = as_used(fitted[2]) + (x / sums.weight - slopes.u * mean_u - slopes.v * mean_v);
}

// Ends a round.
TWOSTREAM_HD void refit(CameraFit& fit, const CameraSums& sums) {
  if (sums.weight <= 0.0) {  // every weight was too small for a float
    return;
  }
  refine(fit.x, sums, sums.x, sums.xu, sums.xv);
  refine(fit.y, sums, sums.y, sums.yu, sums.yv);
  fit.scale = limited_scale(scale_factor * sums.squared / sums.weight);
}

// Takes a fit if its mean penalty is lower. A penalty is the root of a length: its fourth power is a scale.
TWOSTREAM_HD void offer(CameraStart& start, const CameraFit& fit, double penalty) {
  if (penalty < start.penalty) {
    start.fit = fit;
    start.fit.scale = limited_scale(penalty * penalty * penalty * penalty);
    start.penalty = penalty;
  }
}

TWOSTREAM_HD void widen(CameraFit& fit) {
  fit.scale = limited_scale(static_cast<double>(fit.scale) * static_cast<double>(last_widening));
}

TWOSTREAM_HD int64_t judged_pixels(const SampleGrid& grid) {
  return static_cast<int64_t>((grid.rows - 1) / judged_rows + 1) * grid.columns;
}

// The three numbers of one component, for pixel coordinates, and `spoiled`, 0 or NaN, added to each.
TWOSTREAM_HD void write_component(const double* fitted, const Axis& along_x, const Axis& along_y, double spoiled,
                                  float* output) {
  const double x = fitted[0] * static_cast<double>(along_x.unit);
  const double y = fitted[1] * static_cast<double>(along_y.unit);
  output[0] = static_cast<float>(x + spoiled);
  output[1] = static_cast<float>(y + spoiled);
  output[2] = static_cast<float>(spoiled + fitted[2] - x * static_cast<double>(along_x.centre) -
                                 y * static_cast<double>(along_y.centre));
}

// `output` is the field's map, [2, 3].
TWOSTREAM_HD void write_map(const CameraFit& fit, int32_t height, int32_t width, float* output) {
  const Axis along_x = axis_of(width);
  const Axis along_y = axis_of(height);
  const double spoiled = 0.0 * (fit.x[2] + fit.y[2]);  // an infinity in one component gives it no weight in the other
  write_component(fit.x, along_x, along_y, spoiled, output);
  write_component(fit.y, along_x, along_y, spoiled, output + 3);
}

// How the codes of one field are decoded; displacements stay as they are.
struct FieldCoding {
  float lo[2];
  float step[2];
};

// `lo` and `step` are NULL for float fields; `index` counts [N, L].
TWOSTREAM_HD FieldCoding field_coding(const float* lo, const float* step, int64_t index) {
  if (step == nullptr) {
    return {{0.0f, 0.0f}, {1.0f, 1.0f}};
  }
  return {{lo[2 * index], lo[2 * index + 1]}, {step[2 * index], step[2 * index + 1]}};
}

}  // namespace twostream
