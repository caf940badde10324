// SPDX-License-Identifier: BSD-3-Clause
// The iterations of TV-L1 flow, and the median filter between them. The twin is cuda/tvl1_iterate.cuh.
// An iteration reads six variables of a pixel, changes them, and reads four constants: 64 bytes a pixel, of 3.5 MB for
// a field of 256x340, which lie in the last-level cache. It takes one pass: the primal step of a row, and then, while
// that is in the first-level cache, the dual step of the row above, which needs the flow of both. (Both steps in one
// loop took a tenth more.) Where all iterations are done whatever comes of them, many go over the field in one pass,
// each a row behind the one before, so that what they share lies in the second-level cache: half the time.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "core/tvl1_flow.h"
#include "cpu/lanes.h"
#include "cpu/tvl1_rows.h"
#include "cpu/tvl1_slots.h"

namespace twostream {

using Step = Tvl1Step<Lanes>;

constexpr int32_t span = 128 * lane_count;  // pixels whose change an integer lane can hold

inline Step in_lanes(const Tvl1Step<float>& step) {
  return {Lanes(step.bound), Lanes(step.theta), Lanes(step.dual_step), Lanes(step.units), Lanes(step.most_units)};
}

// The rows of one y.
struct Rows {
  float* flow_x_row;
  float* flow_y_row;
  float* duals[4];
  const float* terms[4];

  Rows(float* first, int64_t stride) : flow_x_row(first), flow_y_row(first + stride) {
    for (int index = 0; index < 4; ++index) {
      duals[index] = first + (x_dual_x + index) * stride;
      terms[index] = first + (term_x + index) * stride;
    }
  }

  Pair<Lanes> flow(int32_t x) const { return {load_lanes(flow_x_row + x), load_lanes(flow_y_row + x)}; }
  Duals<Lanes> dual_variables(int32_t x) const {
    return {{load_lanes(duals[0] + x), load_lanes(duals[1] + x)}, {load_lanes(duals[2] + x), load_lanes(duals[3] + x)}};
  }
};

// The primal step of a vector of pixels, with the duals of the row above as they were before this iteration's step.
static Pair<Lanes> primal_at(const Rows& rows, const Rows& above, int32_t x, Pair<Lanes> flow, const Step& step) {
  const Duals<Lanes> duals = rows.dual_variables(x);
  const DataTerm<Lanes> term{load_lanes(rows.terms[0] + x), load_lanes(rows.terms[1] + x),
                             load_lanes(rows.terms[2] + x), load_lanes(rows.terms[3] + x)};
  const Pair<Lanes> diverging{divergence(duals.x, load_lanes(rows.duals[0] + x - 1), load_lanes(above.duals[1] + x)),
                              divergence(duals.y, load_lanes(rows.duals[2] + x - 1), load_lanes(above.duals[3] + x))};
  return primal(term, flow, diverging, step);
}

// Returns how much the flow changed, in units, if that is `measured`. Whole vectors are computed: what lies behind a
// row holds nothing. `known` is the stride, or 0 where that is not known to the compiler.
template <int64_t known, bool measured>
int64_t primal_row(const Variables& variables, int32_t y, const Step& step) {
  const int64_t stride = known ? known : variables.stride;
  const Rows rows(variables.row(flow_x, y), stride);
  const Rows above(variables.row(flow_x, y) - plane_count * stride, stride);
  const int32_t width = variables.level.width;
  int64_t change = 0;
  for (int32_t left = 0; left < width; left += span) {
    const int32_t right = std::min(left + span, width);
    IntegerLanes units{};
    for (int32_t x = left; x < right; x += lane_count) {
      const Pair<Lanes> before = rows.flow(x);
      const Pair<Lanes> after = primal_at(rows, above, x, before, step);
      store_lanes(after.x, rows.flow_x_row + x);
      store_lanes(after.y, rows.flow_y_row + x);
      if constexpr (measured) {
        const IntegerLanes changed = to_integers(change_units(before, after, step));
        units.vector += right - x < lane_count ? first_lanes(changed, right - x).vector : changed.vector;
      }
    }
    change += sum_of(units);
  }
  rows.flow_x_row[width] = rows.flow_x_row[width - 1];  // no gradient at the last column
  rows.flow_y_row[width] = rows.flow_y_row[width - 1];
  return change;
}

template <int64_t known>
void dual_row(const Variables& variables, int32_t y, const Step& step) {
  const int64_t stride = known ? known : variables.stride;
  const Rows rows(variables.row(flow_x, y), stride);
  const Rows rows_below(variables.row(flow_x, std::min(y + 1, variables.level.height - 1)), stride);
  for (int32_t x = 0; x < variables.level.width; x += lane_count) {
    const Pair<Lanes> here = rows.flow(x);
    const Pair<Lanes> right = rows.flow(x + 1);
    const Pair<Lanes> below = rows_below.flow(x);
    const Duals<Lanes> gradients{{right.x - here.x, below.x - here.x}, {right.y - here.y, below.y - here.y}};
    const Duals<Lanes> after = dual(rows.dual_variables(x), gradients, step);
    store_lanes(after.x.x, rows.duals[0] + x);
    store_lanes(after.x.y, rows.duals[1] + x);
    store_lanes(after.y.x, rows.duals[2] + x);
    store_lanes(after.y.y, rows.duals[3] + x);
  }
}

// One iteration; returns how much it changed.
template <int64_t known>
int64_t iterate_once(const Variables& variables, const Step& step) {
  int64_t change = primal_row<known, true>(variables, 0, step);
  for (int32_t y = 1; y < variables.level.height; ++y) {
    change += primal_row<known, true>(variables, y, step);
    dual_row<known>(variables, y - 1, step);
  }
  dual_row<known>(variables, variables.level.height - 1, step);
  return change;
}

// Several iterations in one pass.
template <int64_t known>
void iterate_together(const Variables& variables, const Step& step, int32_t iterations) {
  const int32_t height = variables.level.height;
  for (int32_t front = 0; front < height + iterations; ++front) {
    const int32_t first = std::max(0, front - height);  // the others have gone over the last row
    const int32_t end = std::min(iterations, front + 1);
    for (int32_t iteration = first; iteration < end; ++iteration) {
      const int32_t y = front - iteration;
      if (y < height) {
        primal_row<known, false>(variables, y, step);
      }
      if (y > 0) {
        dual_row<known>(variables, y - 1, step);
      }
    }
  }
}

constexpr int32_t most_together = 16;  // iterations; their rows are 0.26 MB at a width of 340

struct Iterations {
  int64_t (*once)(const Variables&, const Step&);
  void (*together)(const Variables&, const Step&, int32_t iterations);
};

constexpr int64_t stride_units = 17;  // what is less than so many units has iterations of its own

// With the stride known to the compiler, one pointer reaches the ten planes of a row: the loops take a tenth less time.
template <int64_t... numbers>
Iterations iterations_for(int64_t stride, std::integer_sequence<int64_t, numbers...>) {
  constexpr Iterations known[] = {{iterate_once<numbers * stride_unit>,
                                   iterate_together<numbers * stride_unit>}...};  // the first is for any stride
  const int64_t number = stride / stride_unit;
  return known[number < static_cast<int64_t>(sizeof...(numbers)) ? number : 0];
}

// The same values with the rows shared between threads.
static int64_t iterate_on_shared_rows(const Variables& variables, const Step& step, const Sharing& sharing) {
  std::atomic<int64_t> change{0};
  sharing.each_row(variables.level, [&](int32_t y) { change += primal_row<0, true>(variables, y, step); });
  sharing.each_row(variables.level, [&](int32_t y) { dual_row<0>(variables, y, step); });
  return change;
}

// ---- the median filter ---------------------------------------------------------------------------------------------

template <int side>
void median_row(const Variables& variables, Plane plane, int32_t y, float* to) {
  constexpr int reach = side / 2;
  const Tvl1Level& level = variables.level;
  for (int32_t left = 0; left < level.width; left += lane_count) {
    Lanes values[side * side];
    for (int place = 0; place < side * side; ++place) {
      const float* row = variables.row(plane, within(y + place / side - reach, level.height));
      const int32_t first = left + place % side - reach;
      if (first >= 0 && first + lane_count <= level.width) {
        values[place] = load_lanes(row + first);
        continue;
      }
      for (int32_t lane = 0; lane < lane_count; ++lane) {
        values[place].vector[lane] = row[within(first + lane, level.width)];
      }
    }
    const Lanes median = median_of(values);
    std::memcpy(to + left, &median, std::min(lane_count, level.width - left) * sizeof(float));
  }
}

static void filter_flow(const Variables& variables, int32_t side, float* spare, const Sharing& sharing) {
  const Tvl1Level& level = variables.level;
  for (const Plane plane : {flow_x, flow_y}) {
    sharing.each_row(level, [&](int32_t y) {
      float* to = spare + static_cast<int64_t>(y) * level.width;
      side == 3 ? median_row<3>(variables, plane, y, to) : median_row<5>(variables, plane, y, to);
    });
    sharing.each_row(level, [&](int32_t y) {
      std::memcpy(variables.row(plane, y), spare + static_cast<int64_t>(y) * level.width, level.width * sizeof(float));
    });
  }
}

// ---- a warp's iterations --------------------------------------------------------------------------------------------

// Iterations that all are done.
static void iterate_all(const Variables& variables, const Step& step, const Iterations& run, int32_t iterations,
                        const Sharing& sharing) {
  if (sharing.worth_it(variables.level)) {
    for (int32_t iteration = 0; iteration < iterations; ++iteration) {
      iterate_on_shared_rows(variables, step, sharing);
    }
    return;
  }
  for (int32_t left = iterations; left > 0; left -= most_together) {
    run.together(variables, step, std::min(left, most_together));
  }
}

// Up to so many; gives whether they ended the warp.
static bool iterate_to_rest(const Variables& variables, const Step& step, const Iterations& run, int32_t iterations,
                            const Sharing& sharing) {
  for (int32_t iteration = 0; iteration < iterations; ++iteration) {
    const int64_t change = sharing.worth_it(variables.level) ? iterate_on_shared_rows(variables, step, sharing)
                                                             : run.once(variables, step);
    if (has_converged(change, variables.level.pixels())) {
      return true;
    }
  }
  return false;
}

// `spare` holds a flow field of this level.
static void iterate(const twostream_tvl1_flow_args& args, const Variables& variables, float* spare,
                    const Sharing& sharing) {
  const Step step = in_lanes(tvl1_step(args));
  const Iterations run = iterations_for(variables.stride, std::make_integer_sequence<int64_t, stride_units>{});
  const int32_t stretch = args.median > 0 ? args.median_every : args.iterations;
  for (int32_t first = 0; first < args.iterations; first += std::min(stretch, args.iterations - first)) {
    if (args.median > 0) {
      filter_flow(variables, args.median, spare, sharing);
    }
    const int32_t iterations = std::min(stretch, args.iterations - first);
    if (args.epsilon == 0.0f) {
      iterate_all(variables, step, run, iterations, sharing);
    } else if (iterate_to_rest(variables, step, run, iterations, sharing)) {
      return;
    }
  }
}

}  // namespace twostream
