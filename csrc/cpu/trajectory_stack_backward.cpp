// SPDX-License-Identifier: BSD-3-Clause
// Two passes. The first walks each tile forth and back and leaves, for every pixel and field, where it sampled and the
// gradient of what it sampled there. In the second one thread spreads all that belongs to one field over its pixels.
#include "twostream/trajectory_stack_backward.h"

#include <algorithm>

#include "core/trajectory_stack.h"
#include "core/validate.h"
#include "core/window.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

using namespace twostream;

namespace {

constexpr int32_t tile_columns = 256;

template <typename In, typename Gradient>
class Backward {
 public:
  explicit Backward(const twostream_trajectory_stack_backward_args& args)
      : args_(args),
        plane_(int64_t{args.gradient.height} * args.gradient.width),
        fields_(args.flow.length / trajectories(args.bidirectional)) {}

  void run() const {
    const int64_t rows = args_.gradient.height;
    const int64_t places = args_.windows_per_sample;
    if (args_.flow_gradient != nullptr) {
      const int64_t values_per_row = int64_t{args_.gradient.width} * args_.flow.length;
      parallel_for(args_.flow.size * places * rows, grain_for(values_per_row), [&](int64_t item) {
        walk_row(item / rows / places, item / rows % places, static_cast<int32_t>(item % rows));
      });
    }
    parallel_for(args_.flow.size * args_.flow.length, grain_for(plane_ * places), [&](int64_t item) {
      gather_field(item / args_.flow.length, static_cast<int32_t>(item % args_.flow.length));
    });
  }

 private:
  Window window_at(int64_t index, int64_t place) const {
    return load_window(args_.windows + (index * args_.windows_per_sample + place) * 3, args_.flow.samples[index],
                       args_.gradient.height, args_.gradient.width);
  }

  const Gradient* gradient_at(int64_t index, int64_t place, int32_t channel) const {
    const twostream_stack& gradient = args_.gradient;
    return static_cast<const Gradient*>(gradient.data) + index * gradient.sample_stride +
           place * gradient.window_stride + channel * gradient.channel_stride;
  }

  void walk_row(int64_t index, int64_t place, int32_t row) const {
    const Window window = window_at(index, place);
    for (int32_t column = 0; column < args_.gradient.width; column += tile_columns) {
      const int32_t count = std::min(tile_columns, args_.gradient.width - column);
      for (int32_t first = 0; first < args_.flow.length; first += fields_) {
        walk_forth(index, place, window, first, row, column, count);
        walk_back(index, place, window, first, row, column, count);
      }
    }
  }

  // Leaves the position at which each field is sampled, before it is clamped.
  void walk_forth(int64_t index, int64_t place, const Window& window, int32_t first, int32_t row, int32_t column,
                  int32_t count) const {
    const twostream_sample& sample = args_.flow.samples[index];
    const Bounds bounds = bounds_of(sample);
    float* x = args_.positions + workspace_start(args_, index, place) + 2 * first * plane_ +
               int64_t{row} * args_.gradient.width + column;
    for (int32_t field = first; field < first + fields_; ++field, x += 2 * plane_) {
      for (int32_t pixel = 0; pixel < count; ++pixel) {
        Vector2 to{};
        if (field == first) {
          to.x = static_cast<float>(source_column(window, column + pixel, args_.gradient.width));
          to.y = static_cast<float>(window.top + row);
        } else {
          const Vector2 from{x[pixel - 2 * plane_], x[pixel - plane_]};
          to =
              step(strided_field<In>(sample, field - 1), window, row, column + pixel, field - 1 == first, from, bounds);
        }
        x[pixel] = to.x;
        x[pixel + plane_] = to.y;
      }
    }
  }

  Vector2 step(const StridedField<In>& field, const Window& window, int32_t row, int32_t column, bool starting,
               Vector2 unclamped, const Bounds& bounds) const {
    const Vector2 from = clamp_position(unclamped, bounds);
    const Vector2 raw = starting ? field.at(window.top + row, source_column(window, column, args_.gradient.width))
                                 : sample_at(field, from);
    return {from.x + raw.x, from.y + raw.y};
  }

  // Leaves the gradient of each sampled displacement.
  void walk_back(int64_t index, int64_t place, const Window& window, int32_t first, int32_t row, int32_t column,
                 int32_t count) const {
    const twostream_sample& sample = args_.flow.samples[index];
    const Bounds bounds = bounds_of(sample);
    Vector2 next[tile_columns] = {};  // the gradient of the position after the field
    for (int32_t field = first + fields_ - 1; field >= first; --field) {
      const auto source = strided_field<In>(sample, field);
      const int64_t start =
          workspace_start(args_, index, place) + 2 * field * plane_ + int64_t{row} * args_.gradient.width + column;
      const float* x = args_.positions + start;
      float* to = args_.displacements + start;
      const Gradient* given = gradient_at(index, place, 2 * field) + row * args_.gradient.row_stride +
                              column * args_.gradient.column_stride;
      for (int32_t pixel = 0; pixel < count; ++pixel) {
        const float given_x = to_float(given[pixel * args_.gradient.column_stride]);
        const float given_y = to_float(given[pixel * args_.gradient.column_stride + args_.gradient.channel_stride]);
        const Vector2 displacement{(window.flip ? -given_x : given_x) + next[pixel].x, given_y + next[pixel].y};
        to[pixel] = displacement.x;
        to[pixel + plane_] = displacement.y;
        if (field > first) {
          const Vector2 outputs{window.flip ? -given_x : given_x, given_y};
          const Vector2 beside = through_camera(args_.camera, index * args_.flow.length + field, outputs, next[pixel]);
          next[pixel] = pull_back(source, sample, {x[pixel], x[pixel + plane_]}, bounds, displacement, beside);
        }
      }
    }
  }

  void gather_field(int64_t index, int32_t field) const {
    FixedPoint fixed[2];
    for (int component = 0; component < 2; ++component) {
      const int32_t channel = 2 * field + component;
      const int64_t number = index * 2 * args_.flow.length + channel;
      args_.mean_gradient[number] = mean_gradient(index, channel);
      if (args_.flow_gradient != nullptr) {
        args_.largest[number] = largest(index, channel);
        fixed[component] = fixed_point(args_.largest[number], plane_ * args_.windows_per_sample);
      }
    }
    if (args_.flow_gradient != nullptr) {
      spread_field(index, field, fixed);
      finish_component(index, field, 0, fixed[0]);
      finish_component(index, field, 1, fixed[1]);
    }
  }

  float mean_gradient(int64_t index, int32_t channel) const {
    double sum = 0.0;
    for (int32_t place = 0; place < args_.windows_per_sample; ++place) {
      const bool negate = window_at(index, place).flip && channel % 2 == 0;
      const Gradient* given = gradient_at(index, place, channel);
      for (int32_t row = 0; row < args_.gradient.height; ++row) {
        for (int32_t column = 0; column < args_.gradient.width; ++column) {
          const float value = to_float(given[row * args_.gradient.row_stride + column * args_.gradient.column_stride]);
          sum -= static_cast<double>(negate ? -value : value);
        }
      }
    }
    return static_cast<float>(sum);
  }

  uint32_t largest(int64_t index, int32_t channel) const {
    uint32_t found = 0;
    for (int32_t place = 0; place < args_.windows_per_sample; ++place) {
      const float* values = args_.displacements + workspace_start(args_, index, place) + channel * plane_;
      for (int64_t pixel = 0; pixel < plane_; ++pixel) {
        found = std::max(found, magnitude_of(values[pixel]));
      }
    }
    return found;
  }

  int64_t* sums_of(int64_t index, int32_t field, int component) const {
    const twostream_sample& sample = args_.flow.samples[index];
    return args_.sums + index * args_.sums_stride + (2 * int64_t{field} + component) * sample.height * sample.width;
  }

  void spread_field(int64_t index, int32_t field, const FixedPoint* fixed) const {
    const twostream_sample& sample = args_.flow.samples[index];
    const Bounds bounds = bounds_of(sample);
    const int64_t pixels = int64_t{sample.height} * sample.width;
    int64_t* sums = sums_of(index, field, 0);
    std::fill_n(sums, 2 * pixels, 0);
    for (int32_t place = 0; place < args_.windows_per_sample; ++place) {
      const int64_t start = workspace_start(args_, index, place) + 2 * field * plane_;
      const float* x = args_.positions + start;
      const float* displacements = args_.displacements + start;
      for (int64_t pixel = 0; pixel < plane_; ++pixel) {
        const Vector2 gradient{displacements[pixel], displacements[pixel + plane_]};
        spread(clamp_position({x[pixel], x[pixel + plane_]}, bounds), [&](int32_t row, int32_t column, float weight) {
          int64_t* sum = sums + int64_t{row} * sample.width + column;
          sum[0] += fixed[0].finite ? to_fixed(gradient.x, weight, fixed[0]) : 0;
          sum[pixels] += fixed[1].finite ? to_fixed(gradient.y, weight, fixed[1]) : 0;
        });
      }
    }
  }

  void finish_component(int64_t index, int32_t field, int component, const FixedPoint& fixed) const {
    const twostream_sample& target = args_.flow_gradient[index];
    const int64_t number = (index * args_.flow.length + field) * 2 + component;
    const float share = args_.subtract_mean != 0 ? mean_share(args_.mean_gradient[number], target) : 0.0f;
    const int64_t* sums = sums_of(index, field, component);
    In* plane = static_cast<In*>(const_cast<void*>(target.data)) + field * target.field_stride +
                component * target.component_stride;
    for (int32_t row = 0; row < target.height; ++row) {
      for (int32_t column = 0; column < target.width; ++column) {
        plane[row * target.row_stride + column * target.column_stride] =
            from_float<In>(from_fixed(sums[int64_t{row} * target.width + column], fixed) + share);
      }
    }
  }

  const twostream_trajectory_stack_backward_args& args_;
  const int64_t plane_;   // pixels of a window
  const int32_t fields_;  // of one trajectory
};

}  // namespace

int TWOSTREAM_CPU(trajectory_stack_backward)(const twostream_trajectory_stack_backward_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  // The values of uint8 fields are never looked at: they have no gradient.
  const twostream_dtype dtype = args->flow_gradient != nullptr ? args->flow.dtype : TWOSTREAM_FLOAT32;
  with_float_type(dtype, [&](auto in) {
    with_float_type(args->gradient.dtype,
                    [&](auto gradient) { Backward<decltype(in), decltype(gradient)>(*args).run(); });
  });
  return TWOSTREAM_SUCCESS;
}
