// SPDX-License-Identifier: BSD-3-Clause
// Reads each field about once and writes 2L planes; the reads are at random, but near one another, and set the time.
// A tile, up to 256 pixels of one output row, goes through all L fields while its positions stay in the first-level
// cache. Only the first step is different: it begins at integer positions, which need no interpolation.
#include "twostream/trajectory_stack.h"

#include <algorithm>

#include "core/trajectory_stack.h"
#include "core/validate.h"
#include "core/window.h"
#include "cpu/bilinear.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

using namespace twostream;

namespace {

constexpr int32_t tile_pixels = 256;
constexpr int32_t tile_fields = 16;  // written out together
constexpr int32_t band_rows = 8;     // one item of the parallel loop, so that one sample keeps several threads busy

struct Tile {
  alignas(32) float x[tile_pixels];
  alignas(32) float y[tile_pixels];
  alignas(32) float raw_x[tile_pixels];
  alignas(32) float raw_y[tile_pixels];

  Vector2Row positions() { return {x, y}; }
  Vector2Row raw() { return {raw_x, raw_y}; }
};

// Where a tile starts: at pixel (row, column) of the field, going right, or left in a flipped window.
struct TileStart {
  int32_t row;
  int32_t column;
  int32_t direction;
  int32_t count;
};

void place_tile(Tile& tile, const TileStart& start) {
  const int32_t padded = (start.count + sample_group - 1) / sample_group * sample_group;
  for (int32_t pixel = 0; pixel < padded; ++pixel) {
    tile.x[pixel] = static_cast<float>(start.column + std::min(pixel, start.count - 1) * start.direction);
    tile.y[pixel] = static_cast<float>(start.row);
  }
}

template <typename In>
void load_tile(const StridedField<In>& field, const TileStart& start, Tile& tile) {
  const In* pixels = field.data + start.row * field.row_stride + start.column * field.column_stride;
  const int64_t stride = start.direction * field.column_stride;
  for (int32_t pixel = 0; pixel < start.count; ++pixel) {
    tile.raw_x[pixel] = to_float(pixels[pixel * stride]);
    tile.raw_y[pixel] = to_float(pixels[pixel * stride + field.component_stride]);
  }
}

template <typename Out>
void emit_tile(const Tile& tile, const FieldAffine& affine, int32_t count, Out* x, Out* y) {
  for (int32_t pixel = 0; pixel < count; ++pixel) {
    x[pixel] = from_float<Out>(apply(affine.output_x, tile.raw_x[pixel]));
    y[pixel] = from_float<Out>(apply(affine.output_y, tile.raw_y[pixel]));
  }
}

void advance_tile(Tile& tile, const FieldAffine& affine, const Bounds& bounds, int32_t count) {
  for (int32_t pixel = 0; pixel < count; ++pixel) {
    const Vector2 moved = advance({tile.x[pixel], tile.y[pixel]},
                                  affine.displacement({tile.raw_x[pixel], tile.raw_y[pixel]}), bounds);
    tile.x[pixel] = moved.x;
    tile.y[pixel] = moved.y;
  }
}

template <typename Out>
void store_tile(const Out* values, int64_t channels, int32_t count, Out* target, const twostream_stack& output) {
  for (int64_t channel = 0; channel < channels; ++channel) {
    for (int32_t pixel = 0; pixel < count; ++pixel) {
      target[channel * output.channel_stride + pixel * output.column_stride] = values[channel * tile_pixels + pixel];
    }
  }
}

template <typename In, typename Out>
class TrajectoryStack {
 public:
  explicit TrajectoryStack(const twostream_trajectory_stack_args& args)
      : args_(args), channels_(flow_channels(args)), fields_(args.flow.length / trajectories(args.bidirectional)) {}

  void run() const {
    const twostream_stack& output = args_.output;
    const int64_t bands = (output.height + band_rows - 1) / band_rows;
    const int64_t work = int64_t{band_rows} * output.width * args_.flow.length;
    parallel_for(args_.flow.size * args_.windows_per_sample * bands, grain_for(work), [&](int64_t item) {
      const auto first = static_cast<int32_t>(item % bands) * band_rows;
      run_band(item / bands / args_.windows_per_sample, item / bands % args_.windows_per_sample, first,
               std::min(first + band_rows, output.height));
    });
  }

 private:
  void run_band(int64_t index, int64_t place, int32_t first_row, int32_t end_row) const {
    const twostream_stack& output = args_.output;
    const twostream_sample& sample = args_.flow.samples[index];
    const Window window = load_window(args_.windows + (index * args_.windows_per_sample + place) * 3, sample,
                                      output.height, output.width);
    Out* target = static_cast<Out*>(output.data) + index * output.sample_stride + place * output.window_stride;
    for (int32_t row = first_row; row < end_row; ++row) {
      for (int32_t column = 0; column < output.width; column += tile_pixels) {
        const TileStart start{window.top + row, source_column(window, column, output.width), window.flip ? -1 : 1,
                              std::min(tile_pixels, output.width - column)};
        Out* pixels = target + row * output.row_stride + column * output.column_stride;
        for (int32_t first = 0; first < args_.flow.length; first += fields_) {
          run_trajectory(index, start, first, window.flip, pixels);
        }
      }
    }
  }

  // One tile through fields first, ..., first + fields_ - 1.
  void run_trajectory(int64_t index, const TileStart& start, int32_t first, bool flip, Out* target) const {
    const twostream_sample& sample = args_.flow.samples[index];
    const Bounds bounds = bounds_of(sample);
    alignas(32) Out values[2 * tile_fields * tile_pixels];
    Tile tile;
    place_tile(tile, start);
    for (int32_t field = 0; field < fields_; ++field) {
      const auto source = strided_field<In>(sample, first + field);
      if (field == 0) {
        load_tile(source, start, tile);
      } else {
        sample_row(source, sample, tile.positions(), start.count, tile.raw());
      }
      const FieldAffine affine = field_affine(channels_, index, first + field, flip);
      const int32_t slot = field % tile_fields;
      emit_tile(tile, affine, start.count, values + 2 * slot * tile_pixels, values + (2 * slot + 1) * tile_pixels);
      if (slot == tile_fields - 1 || field == fields_ - 1) {
        store_tile(values, 2 * (slot + 1), start.count,
                   target + 2 * int64_t{first + field - slot} * args_.output.channel_stride, args_.output);
      }
      if (field < fields_ - 1) {
        advance_tile(tile, affine, bounds, start.count);
      }
    }
  }

  const twostream_trajectory_stack_args& args_;
  const FlowChannels channels_;
  const int32_t fields_;  // of one trajectory
};

}  // namespace

int TWOSTREAM_CPU(trajectory_stack)(const twostream_trajectory_stack_args* args) {
  if (!valid_batch(args->flow, args->output.height, args->output.width) || !is_float(args->output.dtype) ||
      !valid_coding(args->flow, args->lo, args->step) || !valid_halves(args->flow, args->bidirectional)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_any_type(args->flow.dtype, [&](auto in) {
    with_float_type(args->output.dtype,
                    [&](auto out) { TrajectoryStack<decltype(in), decltype(out)>(*args).run(); });
  });
  return TWOSTREAM_SUCCESS;
}
