// SPDX-License-Identifier: BSD-3-Clause
// An iteration reads six variables of a pixel, changes them, and reads four constants: 64 bytes a pixel, of 3.5 MB for
// a field of 256x340, which lie in the last-level cache. It takes one pass: the primal step of a row, and then, while
// that is in the first-level cache, the dual step of the row above, which needs the flow of both. (Several iterations
// in one pass, each two rows behind the one before, took no less time and could not stop after each; both steps in one
// loop took a tenth more.) The ten values of a row lie side by side, one straight row each, and guards beside and above
// them stand for what is outside the image. Pairs of frames are shared between threads; where there are fewer of them,
// the rows of large levels are.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

#include "core/tvl1_flow.h"
#include "core/validate.h"
#include "cpu/isa.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"

using namespace twostream;

namespace {

// ---- workspace -----------------------------------------------------------------------------------------------------

constexpr int64_t alignment = 16;  // floats

int64_t aligned(int64_t floats) { return (floats + alignment - 1) / alignment * alignment; }

enum Plane { flow_x, flow_y, x_dual_x, x_dual_y, y_dual_x, y_dual_y, term_x, term_y, term_constant, term_inverse };
constexpr int plane_count = 10;
constexpr int64_t guard = 8;  // values before a row; the widest vector, so that the layout is every build's

// The variables of a pair at one level.
struct Variables {
  float* base;
  Tvl1Level level;
  int64_t stride;  // from one plane's row to the next one's

  float* row(Plane plane, int32_t y) const { return base + ((y + 1) * plane_count + plane) * stride + guard; }
};

constexpr int64_t stride_unit = 64;
constexpr int64_t stride_units = 17;  // what is less than so many units has iterations of its own

int64_t plane_stride(int32_t width) {
  const int64_t least = guard + width + guard;  // behind: one guard, or the rest of the last vector
  const int64_t units = (least + stride_unit - 1) / stride_unit;
  // Rows 2 or 4 kB apart would share one or two sets of the cache.
  return (units % 8 == 0 ? units + 1 : units) * stride_unit;
}

int64_t variables_size(const Tvl1Level& level) {
  return (static_cast<int64_t>(level.height) + 1) * plane_count * plane_stride(level.width);
}

// The next frame at one level: intensity, its two differences and a zero, as one vector a pixel.
struct Pixels {
  float* base;
  int64_t stride;

  float* at(int32_t y, int32_t x) const { return base + (y + cubic_margin) * stride + (x + cubic_margin) * 4; }
};

int64_t pixels_stride(int32_t width) { return 4 * (static_cast<int64_t>(width) + 2 * cubic_margin); }

int64_t pixels_size(const Tvl1Level& level) {
  return aligned((static_cast<int64_t>(level.height) + 2 * cubic_margin) * pixels_stride(level.width));
}

int64_t flow_size(const Tvl1Level& level) { return aligned(2 * level.pixels()); }

int64_t slot_size(const Tvl1Level& level) { return variables_size(level) + pixels_size(level) + flow_size(level); }

int64_t frame_size(const Tvl1Pyramid& pyramid) {
  int64_t floats = 0;
  for (int index = 0; index < pyramid.count; ++index) {
    floats += aligned(pyramid.levels[index].pixels());
  }
  return floats;
}

const float* level_of(const float* frame, const Tvl1Pyramid& pyramid, int wanted) {
  for (int index = 0; index < wanted; ++index) {
    frame += aligned(pyramid.levels[index].pixels());
  }
  return frame;
}

// ---- rows ----------------------------------------------------------------------------------------------------------

// Each step of an iteration is a meeting of all threads. On smaller levels two gained a seventh of the time, and where
// other processes kept one of them waiting, they took many times as long as one.
constexpr int64_t pixels_worth_sharing = int64_t{1} << 19;

// Whether the threads share the rows of a pair, and of this level.
struct Sharing {
  bool rows;

  bool worth_it(const Tvl1Level& level) const { return rows && level.pixels() >= pixels_worth_sharing; }

  template <typename Body>
  void each_row(const Tvl1Level& level, const Body& body) const {
    if (worth_it(level)) {
      parallel_for(level.height, grain_for(level.width), [&](int64_t y) { body(static_cast<int32_t>(y)); });
    } else {
      for (int32_t y = 0; y < level.height; ++y) {
        body(y);
      }
    }
  }
};

// ---- the pyramid ---------------------------------------------------------------------------------------------------

template <typename T>
void read_frame(const twostream_grey_frames& frames, int64_t index, float* to) {
  for (int32_t y = 0; y < frames.height; ++y) {
    const T* row = static_cast<const T*>(frames.data) + index * frames.frame_stride + y * frames.row_stride;
    for (int32_t x = 0; x < frames.width; ++x) {
      *to++ = to_float(row[x * frames.column_stride]);
    }
  }
}

constexpr int32_t tap_columns = 256;  // whose taps are worked out once for all rows

// Resizes an image of `size` to one of `level`, whose row y begins at row_of(y). One pixel of the result is scale_y
// pixels high and scale_x wide.
template <typename RowOf>
void resize(const float* from, const Tvl1Level& size, float scale_y, float scale_x, float factor,
            const Tvl1Level& level, const Sharing& sharing, const RowOf& row_of) {
  LinearTap taps[tap_columns];
  for (int32_t left = 0; left < level.width; left += tap_columns) {
    const int32_t count = std::min(tap_columns, level.width - left);
    for (int32_t x = 0; x < count; ++x) {
      taps[x] = linear_tap(left + x, scale_x, size.width);
    }
    sharing.each_row(level, [&](int32_t y) {
      const LinearTap vertical = linear_tap(y, scale_y, size.height);
      const float* first = from + static_cast<int64_t>(vertical.first) * size.width;
      const float* second = from + static_cast<int64_t>(vertical.second) * size.width;
      float* to = row_of(y) + left;
      for (int32_t x = 0; x < count; ++x) {
        const LinearTap tap = taps[x];
        const float upper_row = mix(first[tap.first], first[tap.second], tap.weight);
        const float lower_row = mix(second[tap.first], second[tap.second], tap.weight);
        to[x] = factor * mix(upper_row, lower_row, vertical.weight);
      }
    });
  }
}

void build_pyramid(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, int64_t index, float* frame) {
  if (args.frames.dtype == TWOSTREAM_UINT8) {
    read_frame<uint8_t>(args.frames, index, frame);
  } else {
    read_frame<float>(args.frames, index, frame);
  }
  const float scale = 1.0f / args.scale_step;
  for (int coarser = 1; coarser < pyramid.count; ++coarser) {
    const Tvl1Level& size = pyramid.levels[coarser - 1];
    const Tvl1Level& level = pyramid.levels[coarser];
    float* to = frame + aligned(size.pixels());
    resize(frame, size, scale, scale, 1.0f, level, Sharing{false},
           [&](int32_t y) { return to + static_cast<int64_t>(y) * level.width; });
    frame = to;
  }
}

// ---- a warp --------------------------------------------------------------------------------------------------------

int32_t within(int32_t place, int32_t length) { return std::min(std::max(place, 0), length - 1); }

void fill_pixels_row(const float* image, const Tvl1Level& level, int32_t y, const Pixels& pixels) {
  const auto row = [&](int32_t place) {
    return image + static_cast<int64_t>(within(place, level.height)) * level.width;
  };
  const float* here = row(y);
  const float* above = row(y - 1);
  const float* below = row(y + 1);
  for (int32_t x = 0; x < level.width; ++x) {
    float* pixel = pixels.at(y, x);
    pixel[0] = here[x];
    pixel[1] = centred_difference(here[within(x - 1, level.width)], here[within(x + 1, level.width)]);
    pixel[2] = centred_difference(above[x], below[x]);
    pixel[3] = 0.0f;
  }
  for (int32_t outside = 1; outside <= cubic_margin; ++outside) {
    std::memset(pixels.at(y, -outside), 0, 4 * sizeof(float));
    std::memset(pixels.at(y, level.width - 1 + outside), 0, 4 * sizeof(float));
  }
}

void fill_pixels(const float* image, const Tvl1Level& level, const Pixels& pixels, const Sharing& sharing) {
  sharing.each_row(level, [&](int32_t y) { fill_pixels_row(image, level, y, pixels); });
  const int64_t bytes = pixels.stride * static_cast<int64_t>(sizeof(float));
  for (int32_t outside = 1; outside <= cubic_margin; ++outside) {
    std::memset(pixels.at(-outside, -cubic_margin), 0, bytes);
    std::memset(pixels.at(level.height - 1 + outside, -cubic_margin), 0, bytes);
  }
}

// The four pixels of one axis for each of a vector's pixels.
struct Taps {
  int32_t first[lane_count];
  float weights[4][lane_count];
};

Taps taps_at(Lanes position, int32_t length) {
  const CubicTaps<Lanes> lanes = cubic_taps(position, static_cast<float>(length));
  Taps taps;
  const IntegerLanes first = to_integers(lanes.first);
  std::memcpy(taps.first, &first, sizeof(taps.first));
  std::memcpy(taps.weights, lanes.weights, sizeof(taps.weights));
  return taps;
}

#if defined(__AVX2__) && defined(__FMA__)
// Intensity, its differences and a zero at one pixel's position, of the even columns and of the odd ones.
__m256 sample_by_twos(const Pixels& pixels, const Taps& vertical, const Taps& horizontal, int32_t lane) {
  const float* row = pixels.at(vertical.first[lane], horizontal.first[lane]);
  const auto weight = [&](const Taps& taps, int tap) { return _mm256_broadcast_ss(&taps.weights[tap][lane]); };
  const __m256 down[4] = {weight(vertical, 0), weight(vertical, 1), weight(vertical, 2), weight(vertical, 3)};
  const auto sum_of_rows = [&](const float* from) {  // of two columns
    __m256 sum = _mm256_mul_ps(down[0], _mm256_loadu_ps(from));
    sum = _mm256_fmadd_ps(down[1], _mm256_loadu_ps(from + pixels.stride), sum);
    sum = _mm256_fmadd_ps(down[2], _mm256_loadu_ps(from + 2 * pixels.stride), sum);
    return _mm256_fmadd_ps(down[3], _mm256_loadu_ps(from + 3 * pixels.stride), sum);
  };
  const auto across = [&](int tap) {
    return _mm256_blend_ps(weight(horizontal, tap), weight(horizontal, tap + 1), 0xf0);
  };
  return _mm256_fmadd_ps(across(2), sum_of_rows(row + 8), _mm256_mul_ps(across(0), sum_of_rows(row)));
}

Intensity<Lanes> sample(const Pixels& pixels, const Taps& vertical, const Taps& horizontal) {
  __m256 both[lane_count];
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    both[lane] = sample_by_twos(pixels, vertical, horizontal, lane);
  }
  __m256 sampled[4];  // of pixel i in one half, of pixel i + 4 in the other
  for (int32_t lane = 0; lane < 4; ++lane) {
    sampled[lane] = _mm256_add_ps(_mm256_permute2f128_ps(both[lane], both[lane + 4], 0x20),
                                  _mm256_permute2f128_ps(both[lane], both[lane + 4], 0x31));
  }
  const __m256 first = _mm256_unpacklo_ps(sampled[0], sampled[1]);  // intensities and differences along x of both
  const __m256 second = _mm256_unpacklo_ps(sampled[2], sampled[3]);
  const __m256 along_y =
      _mm256_shuffle_ps(_mm256_unpackhi_ps(sampled[0], sampled[1]), _mm256_unpackhi_ps(sampled[2], sampled[3]), 0x44);
  return {_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xee), along_y};
}
#else
// The next frame at the positions of a vector of pixels.
Intensity<Lanes> sample(const Pixels& pixels, const Taps& vertical, const Taps& horizontal) {
  Lanes sampled[3];
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    const float* row = pixels.at(vertical.first[lane], horizontal.first[lane]);
    float across[4];
    float down[4];
    for (int tap = 0; tap < 4; ++tap) {
      across[tap] = horizontal.weights[tap][lane];
      down[tap] = vertical.weights[tap][lane];
    }
    for (int value = 0; value < 3; ++value) {
      const auto sum_of_rows = [&](const float* from) {
        return weighted(down, from[0], from[pixels.stride], from[2 * pixels.stride], from[3 * pixels.stride]);
      };
      sampled[value].vector[lane] = weighted_by_twos(across, sum_of_rows(row + value), sum_of_rows(row + 4 + value),
                                                     sum_of_rows(row + 8 + value), sum_of_rows(row + 12 + value));
    }
  }
  return {sampled[0], sampled[1], sampled[2]};
}
#endif

void warp_row(const float* previous, const Pixels& pixels, const Variables& variables, int32_t y) {
  const Tvl1Level& level = variables.level;
  Lanes places;
  for (int32_t lane = 0; lane < lane_count; ++lane) {
    places.vector[lane] = static_cast<float>(lane);
  }
  for (int32_t x = 0; x < level.width; x += lane_count) {
    const Pair<Lanes> flow{load_lanes(variables.row(flow_x, y) + x), load_lanes(variables.row(flow_y, y) + x)};
    const Taps vertical = taps_at(Lanes(static_cast<float>(y)) + flow.y, level.height);
    const Taps horizontal = taps_at(Lanes(static_cast<float>(x)) + places + flow.x, level.width);
    const Intensity<Lanes> warped = sample(pixels, vertical, horizontal);
    const Lanes intensity = load_first_lanes(previous + x, level.width - x);
    const DataTerm<Lanes> term = data_term(warped, flow, intensity);
    store_lanes(term.x, variables.row(term_x, y) + x);
    store_lanes(term.y, variables.row(term_y, y) + x);
    store_lanes(term.constant, variables.row(term_constant, y) + x);
    store_lanes(term.inverse, variables.row(term_inverse, y) + x);
  }
}

// ---- iterations ----------------------------------------------------------------------------------------------------

using Step = Tvl1Step<Lanes>;

constexpr int32_t span = 128 * lane_count;  // pixels whose change an integer lane can hold

Step in_lanes(const Tvl1Step<float>& step) {
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
Pair<Lanes> primal_at(const Rows& rows, const Rows& above, int32_t x, Pair<Lanes> flow, const Step& step) {
  const Duals<Lanes> duals = rows.dual_variables(x);
  const DataTerm<Lanes> term{load_lanes(rows.terms[0] + x), load_lanes(rows.terms[1] + x),
                             load_lanes(rows.terms[2] + x), load_lanes(rows.terms[3] + x)};
  const Pair<Lanes> diverging{divergence(duals.x, load_lanes(rows.duals[0] + x - 1), load_lanes(above.duals[1] + x)),
                              divergence(duals.y, load_lanes(rows.duals[2] + x - 1), load_lanes(above.duals[3] + x))};
  return primal(term, flow, diverging, step);
}

// Returns how much the flow changed, in units. Whole vectors are computed: what lies behind a row holds nothing.
// `known` is the stride, or 0 where that is not known to the compiler.
template <int64_t known>
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
      const IntegerLanes changed = to_integers(change_units(before, after, step));
      units.vector += right - x < lane_count ? first_lanes(changed, right - x).vector : changed.vector;
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
  int64_t change = primal_row<known>(variables, 0, step);
  for (int32_t y = 1; y < variables.level.height; ++y) {
    change += primal_row<known>(variables, y, step);
    dual_row<known>(variables, y - 1, step);
  }
  dual_row<known>(variables, variables.level.height - 1, step);
  return change;
}
using Iteration = int64_t (*)(const Variables&, const Step&);

// With the stride known to the compiler, one pointer reaches the ten planes of a row: the loops take a tenth less time.
template <int64_t... numbers>
Iteration iteration_for(int64_t stride, std::integer_sequence<int64_t, numbers...>) {
  constexpr Iteration known[] = {iterate_once<numbers * stride_unit>...};  // the first is for any stride
  const int64_t number = stride / stride_unit;
  return known[number < static_cast<int64_t>(sizeof...(numbers)) ? number : 0];
}

// The same values with the rows shared between threads.
int64_t iterate_on_shared_rows(const Variables& variables, const Step& step, const Sharing& sharing) {
  std::atomic<int64_t> change{0};
  sharing.each_row(variables.level, [&](int32_t y) { change += primal_row<0>(variables, y, step); });
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

void filter_flow(const Variables& variables, int32_t side, float* spare, const Sharing& sharing) {
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

// ---- a pair --------------------------------------------------------------------------------------------------------

struct Slot {
  float* variables;
  float* pixels;
  float* flow;  // a spare copy, [2, height, width]
};

Slot slot_at(float* base, const Tvl1Level& largest) {
  return {base, base + variables_size(largest), base + variables_size(largest) + pixels_size(largest)};
}

void iterate(const twostream_tvl1_flow_args& args, const Variables& variables, float* spare, const Sharing& sharing) {
  const Step step = in_lanes(tvl1_step(args));
  const Iteration once = iteration_for(variables.stride, std::make_integer_sequence<int64_t, stride_units>{});
  for (int32_t iteration = 0; iteration < args.iterations; ++iteration) {
    if (args.median > 0 && iteration % args.median_every == 0) {
      filter_flow(variables, args.median, spare, sharing);
    }
    const int64_t change =
        sharing.worth_it(variables.level) ? iterate_on_shared_rows(variables, step, sharing) : once(variables, step);
    if (has_converged(change, variables.level.pixels())) {
      return;
    }
  }
}

void save_flow(const Variables& variables, float* to) {
  for (const Plane plane : {flow_x, flow_y}) {
    for (int32_t y = 0; y < variables.level.height; ++y, to += variables.level.width) {
      std::memcpy(to, variables.row(plane, y), variables.level.width * sizeof(float));
    }
  }
}

// The flow of a level from that of another in `spare`; vectors grow as the image does.
void resize_flow(const float* spare, const Tvl1Level& from, float scale_y, float scale_x, float factor,
                 const Variables& variables, const Sharing& sharing) {
  const Tvl1Level& level = variables.level;
  for (const Plane plane : {flow_x, flow_y}) {
    const float* source = spare + (plane == flow_x ? 0 : from.pixels());
    resize(source, from, scale_y, scale_x, factor, level, sharing, [&](int32_t y) { return variables.row(plane, y); });
  }
}

Variables variables_of(const Slot& slot, const Tvl1Level& level) {
  return {slot.variables, level, plane_stride(level.width)};
}

// Zero variables of a level, duals and guards among them.
Variables clear_variables(const Slot& slot, const Tvl1Level& level) {
  const Variables variables = variables_of(slot, level);
  std::memset(slot.variables, 0, variables_size(level) * sizeof(float));
  return variables;
}

// Leaves the initial flow of the coarsest level in `slot.flow`.
void shrink_init(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, int64_t pair, const Slot& slot,
                 const Sharing& sharing) {
  Variables variables = variables_of(slot, pyramid.levels[0]);
  for (int32_t y = 0; y < variables.level.height; ++y) {
    const float* row = args.init.data + pair * args.init.field_stride + y * args.init.row_stride;
    for (int32_t x = 0; x < variables.level.width; ++x) {
      variables.row(flow_x, y)[x] = row[x * args.init.column_stride];
      variables.row(flow_y, y)[x] = row[x * args.init.column_stride + args.init.component_stride];
    }
  }
  save_flow(variables, slot.flow);
  for (int coarser = 1; coarser < pyramid.count; ++coarser) {
    variables = variables_of(slot, pyramid.levels[coarser]);
    const float scale = 1.0f / args.scale_step;
    resize_flow(slot.flow, pyramid.levels[coarser - 1], scale, scale, args.scale_step, variables, sharing);
    save_flow(variables, slot.flow);
  }
}

void write_flow(const Variables& variables, const twostream_flow_fields& fields, int64_t pair, const Sharing& sharing) {
  sharing.each_row(variables.level, [&](int32_t y) {
    float* row = fields.data + pair * fields.field_stride + y * fields.row_stride;
    for (int32_t x = 0; x < variables.level.width; ++x) {
      row[x * fields.column_stride] = variables.row(flow_x, y)[x];
      row[x * fields.column_stride + fields.component_stride] = variables.row(flow_y, y)[x];
    }
  });
}

void solve_pair(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, const float* frames, int64_t pair,
                const Slot& slot, const Sharing& sharing) {
  const auto frame = [&](int which) {
    const int64_t index = std::min<int64_t>(std::max(args.pairs[2 * pair + which], 0), args.frames.count - 1);
    return frames + index * frame_size(pyramid);
  };
  const float* previous = frame(0);
  const float* next = frame(1);
  if (args.init.data != nullptr) {
    shrink_init(args, pyramid, pair, slot, sharing);
  }
  Variables variables{};
  for (int index = pyramid.count - 1; index >= 0; --index) {
    const Tvl1Level& level = pyramid.levels[index];
    const bool coarsest = index == pyramid.count - 1;
    variables = clear_variables(slot, level);
    if (!coarsest) {
      const Tvl1Level& coarser = pyramid.levels[index + 1];
      resize_flow(slot.flow, coarser, static_cast<float>(coarser.height) / static_cast<float>(level.height),
                  static_cast<float>(coarser.width) / static_cast<float>(level.width), 1.0f / args.scale_step,
                  variables, sharing);
    } else if (args.init.data != nullptr) {
      resize_flow(slot.flow, level, 1.0f, 1.0f, 1.0f, variables, sharing);
    }
    const Pixels pixels{slot.pixels, pixels_stride(level.width)};
    fill_pixels(level_of(next, pyramid, index), level, pixels, sharing);
    const float* image = level_of(previous, pyramid, index);
    for (int32_t warp = 0; warp < args.warps; ++warp) {
      sharing.each_row(
          level, [&](int32_t y) { warp_row(image + static_cast<int64_t>(y) * level.width, pixels, variables, y); });
      iterate(args, variables, slot.flow, sharing);
    }
    save_flow(variables, slot.flow);
  }
  write_flow(variables, args.output, pair, sharing);
}

}  // namespace

int64_t TWOSTREAM_CPU(tvl1_flow_workspace)(const twostream_tvl1_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const Tvl1Pyramid pyramid = tvl1_pyramid(*args);
  const int64_t floats =
      args->frames.count * frame_size(pyramid) + args->concurrent_pairs * slot_size(pyramid.levels[0]);
  return floats * static_cast<int64_t>(sizeof(float));
}

int TWOSTREAM_CPU(tvl1_flow)(const twostream_tvl1_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const Tvl1Pyramid pyramid = tvl1_pyramid(*args);
  auto* frames = static_cast<float*>(args->workspace);
  parallel_for(args->frames.count, grain_for(pyramid.levels[0].pixels()),
               [&](int64_t index) { build_pyramid(*args, pyramid, index, frames + index * frame_size(pyramid)); });
  float* slots = frames + args->frames.count * frame_size(pyramid);
  const Sharing sharing{args->share_rows != 0};
  std::atomic<int64_t> next{0};
  const auto solve_on = [&](int64_t slot) {
    const Slot own = slot_at(slots + slot * slot_size(pyramid.levels[0]), pyramid.levels[0]);
    for (int64_t pair = next++; pair < args->pair_count; pair = next++) {
      solve_pair(*args, pyramid, frames, pair, own, sharing);
    }
  };
  if (sharing.rows) {
    solve_on(0);
  } else {
    parallel_for(args->concurrent_pairs, 1, solve_on);
  }
  return TWOSTREAM_SUCCESS;
}
