// SPDX-License-Identifier: BSD-3-Clause
// The arithmetic of TV-L1 flow at one pixel: resizing, a warp, an iteration, the median filter. Every product and sum
// is written out, and the test of convergence adds integers, so that both backends give the same bits.
#pragma once

#include <cfloat>
#include <cmath>

#include "core/host_device.h"
#include "core/scalar.h"
#include "twostream/tvl1_flow.h"

namespace twostream {

// ---- a pixel between pixels -----------------------------------------------------------------------------------------

// The two pixels between which a linear resize reads, and the weight of the second. Pixels are squares: their centres
// lie at halves. `scale` is the length of one pixel of the result.
struct LinearTap {
  int32_t first;
  int32_t second;
  float weight;
};

TWOSTREAM_HD LinearTap linear_tap(int32_t place, float scale, int32_t length) {
  const float position = fmaf(static_cast<float>(place) + 0.5f, scale, -0.5f);
  const float floor = floorf(position);
  if (!(position > 0.0f)) {
    return {0, 0, 0.0f};
  }
  const auto first = static_cast<int32_t>(floor);
  if (first >= length - 1) {
    return {length - 1, length - 1, 0.0f};
  }
  return {first, first + 1, position - floor};
}

TWOSTREAM_HD float mix(float first, float second, float weight) { return fmaf(weight, second - first, first); }

// Two pixels of one row and, below them, two of another.
struct FourPixels {
  float upper_left;
  float upper_right;
  float lower_left;
  float lower_right;
};

TWOSTREAM_HD float resized(const FourPixels& pixels, const LinearTap& vertical, const LinearTap& horizontal,
                           float factor) {
  const float upper_row = mix(pixels.upper_left, pixels.upper_right, horizontal.weight);
  const float lower_row = mix(pixels.lower_left, pixels.lower_right, horizontal.weight);
  return factor * mix(upper_row, lower_row, vertical.weight);
}

// The nearest place inside an axis of that length.
TWOSTREAM_HD int32_t within(int32_t place, int32_t length) {
  return place < 0 ? 0 : (place < length ? place : length - 1);
}

// ---- values --------------------------------------------------------------------------------------------------------

template <typename Value>
TWOSTREAM_HD Value constant(float value) {
  return Value(value);
}

// `Value` is a float, or those of neighbouring pixels side by side (cpu/lanes.h).
template <typename Value>
struct Pair {
  Value x;
  Value y;
};

// ---- a warp --------------------------------------------------------------------------------------------------------

TWOSTREAM_HD float centred_difference(float before, float after) { return 0.5f * (after - before); }

// Cubic convolution (Keys, 1981) with a = -0.75, as in OpenCV: the weights of the four pixels before and after a
// position.
template <typename Value>
struct CubicTaps {
  Value first;  // place of the first of them, a whole number
  Value weights[4];
};

constexpr int32_t cubic_margin = 4;  // how far taps reach beyond the first and the last pixel

template <typename Value>
TWOSTREAM_HD Value cubic_weight_near(Value distance) {  // up to 1
  return multiply_add(multiply_add(constant<Value>(1.25f), distance, constant<Value>(-2.25f)), distance * distance,
                      constant<Value>(1.0f));
}

template <typename Value>
TWOSTREAM_HD Value cubic_weight_far(Value distance) {  // of 1 + distance, up to 2
  const Value other = constant<Value>(1.0f) - distance;
  return constant<Value>(-0.75f) * distance * (other * other);
}

// Beyond the border the image is 0, so that positions further out than the taps reach need not differ.
template <typename Value>
TWOSTREAM_HD CubicTaps<Value> cubic_taps(Value position, float length) {
  const Value inside = lower(upper(constant<Value>(-2.0f), position), constant<Value>(length + 1.0f));
  const Value floor = floor_of(inside);
  const Value after = inside - floor;
  const Value before = constant<Value>(1.0f) - after;
  return {floor - constant<Value>(1.0f),
          {cubic_weight_far(after), cubic_weight_near(after), cubic_weight_near(before), cubic_weight_far(before)}};
}

template <typename Value>
TWOSTREAM_HD Value weighted(const Value (&weights)[4], Value first, Value second, Value third, Value fourth) {
  return multiply_add(weights[3], fourth,
                      multiply_add(weights[2], third, multiply_add(weights[1], second, weights[0] * first)));
}

// Likewise; the even ones and the odd ones apart, as a vector of two pixels holds them.
template <typename Value>
TWOSTREAM_HD Value weighted_by_twos(const Value (&weights)[4], Value first, Value second, Value third, Value fourth) {
  const Value even = multiply_add(weights[2], third, weights[0] * first);
  const Value odd = multiply_add(weights[3], fourth, weights[1] * second);
  return even + odd;
}

// The next frame at one pixel or between pixels: intensity, and its centred differences.
template <typename Value>
struct Intensity {
  Value value;
  Value x;
  Value y;
};

// The linearised likeness of a pixel: residual(u) = x * u_x + y * u_y + constant, and 1 / (x^2 + y^2).
template <typename Value>
struct DataTerm {
  Value x;
  Value y;
  Value constant;
  Value inverse;
};

template <typename Value>
TWOSTREAM_HD DataTerm<Value> data_term(const Intensity<Value>& warped, Pair<Value> flow, Value previous) {
  const Value squares = multiply_add(warped.x, warped.x, warped.y * warped.y);
  const Value rest = multiply_add(-warped.x, flow.x, multiply_add(-warped.y, flow.y, warped.value)) - previous;
  return {warped.x, warped.y, rest, inverse_above(squares, FLT_EPSILON)};
}

// ---- an iteration --------------------------------------------------------------------------------------------------

constexpr float tvl1_units_of_epsilon = 256.0f;

template <typename Value>
struct Tvl1Step {
  Value bound;  // lambda * theta
  Value theta;
  Value dual_step;   // tau / theta
  Value units;       // of change in one squared pixel; see change_units
  Value most_units;  // that one pixel counts for: 16384 times what convergence asks of the mean
};

inline Tvl1Step<float> tvl1_step(const twostream_tvl1_flow_args& args) {
  const float units = tvl1_units_of_epsilon / (args.epsilon * args.epsilon);
  return {args.lambda * args.theta, args.theta, args.tau / args.theta, units, 16384.0f * tvl1_units_of_epsilon};
}

// Of one component's dual variable, by backward differences; the variable is 0 outside the image.
template <typename Value>
TWOSTREAM_HD Value divergence(Pair<Value> here, Value left_x, Value above_y) {
  return (here.x - left_x) + (here.y - above_y);
}

// The step towards the image (thresholding), then the step towards smoothness.
template <typename Value>
TWOSTREAM_HD Pair<Value> primal(const DataTerm<Value>& term, Pair<Value> flow, Pair<Value> diverging,
                                const Tvl1Step<Value>& step) {
  const Value residual = multiply_add(term.x, flow.x, multiply_add(term.y, flow.y, term.constant));
  const Value wanted = -residual * term.inverse;
  const Value length = lower(upper(-step.bound, wanted), step.bound);
  return {multiply_add(step.theta, diverging.x, multiply_add(length, term.x, flow.x)),
          multiply_add(step.theta, diverging.y, multiply_add(length, term.y, flow.y))};
}

// The dual variables of both components, of the gradients of both.
template <typename Value>
struct Duals {
  Pair<Value> x;
  Pair<Value> y;
};

template <typename Value>
TWOSTREAM_HD Value dual_divisor(Pair<Value> gradient, const Tvl1Step<Value>& step) {
  const Value length = square_root(multiply_add(gradient.x, gradient.x, gradient.y * gradient.y));
  return multiply_add(step.dual_step, length, constant<Value>(1.0f));
}

// Divisions are what takes longest, so one serves both components.
template <typename Value>
TWOSTREAM_HD Duals<Value> dual(const Duals<Value>& duals, const Duals<Value>& gradients, const Tvl1Step<Value>& step) {
  const Value divisor_x = dual_divisor(gradients.x, step);
  const Value divisor_y = dual_divisor(gradients.y, step);
  const Value inverse = constant<Value>(1.0f) / (divisor_x * divisor_y);
  const Value shrink_x = inverse * divisor_y;
  const Value shrink_y = inverse * divisor_x;
  return {{multiply_add(step.dual_step, gradients.x.x, duals.x.x) * shrink_x,
           multiply_add(step.dual_step, gradients.x.y, duals.x.y) * shrink_x},
          {multiply_add(step.dual_step, gradients.y.x, duals.y.x) * shrink_y,
           multiply_add(step.dual_step, gradients.y.y, duals.y.y) * shrink_y}};
}

// The squared change of a pixel in units of epsilon^2 / 256, to be cut to whole ones: integers, whose sum is the same
// in every order. A NaN counts as change.
template <typename Value>
TWOSTREAM_HD Value change_units(Pair<Value> before, Pair<Value> after, const Tvl1Step<Value>& step) {
  const Value x = after.x - before.x;
  const Value y = after.y - before.y;
  return lower(multiply_add(x, x, y * y) * step.units, step.most_units);
}

TWOSTREAM_HD bool has_converged(int64_t units, int64_t pixels) {
  return units <= pixels * static_cast<int64_t>(tvl1_units_of_epsilon);
}

// ---- the median filter ---------------------------------------------------------------------------------------------

// The first `count` of the values, and those from `next` on, are left to choose from.
template <int count, int next, int number, typename Value>
TWOSTREAM_HD Value median_of_rest(Value (&values)[number]) {
  for (int index = 1; index < count; ++index) {
    const Value least = lower(values[0], values[index]);
    values[index] = upper(values[0], values[index]);
    values[0] = least;
  }
  for (int index = 1; index < count - 1; ++index) {
    const Value greatest = upper(values[index], values[count - 1]);
    values[index] = lower(values[index], values[count - 1]);
    values[count - 1] = greatest;
  }
  if constexpr (next == number) {
    return values[1];
  } else {
    values[0] = values[next];
    return median_of_rest<count - 1, next + 1>(values);
  }
}

// The median of an odd number of values, which it moves about. The least and the greatest of any half of the values and
// two more cannot be the median: they leave, and one of the others takes their place, until there are no others. All
// counts are known to the compiler, so that the values can stay in registers.
template <int number, typename Value>
TWOSTREAM_HD Value median_of(Value (&values)[number]) {
  return median_of_rest<number / 2 + 2, number / 2 + 2>(values);
}

}  // namespace twostream
