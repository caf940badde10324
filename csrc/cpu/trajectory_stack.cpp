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
#include "cpu/rows.h"

using namespace twostream;

namespace {

constexpr int32_t tile_fields = tile_channels / 2;
constexpr int32_t band_rows = 8;  // one item of the parallel loop, so that one sample keeps several threads busy

// Up to tile_pixels pixels of one output row, from this column on.
struct TilePlace {
  int64_t index;  // of the sample
  Window window;
  int32_t row;
  int32_t column;
  int32_t count;
};

template <typename In, typename Out>
class Tile {
 public:
  Tile(const twostream_trajectory_stack_args& args, const FlowChannels& channels, bool streaming)
      : args_(args),
        channels_(channels),
        fields_(args.flow.length / trajectories(args.bidirectional)),
        planar_(args.output.column_stride == 1),
        streaming_(streaming) {}

  // `target` is channel 0 of the tile's first pixel.
  void run(const TilePlace& place, Out* target) {
    const twostream_sample& sample = args_.flow.samples[place.index];
    const Bounds bounds = bounds_of(sample);
    for (int32_t field = 0; field < args_.flow.length; ++field) {
      const auto source = strided_field<In>(sample, field);
      if (field % fields_ == 0) {
        start(place, bounds);
        load(source, place);
      } else {
        sample_row(source, sample, {x_, y_}, place.count, {raw_x_, raw_y_});
      }
      const FieldAffine affine = field_affine(channels_, place.index, field, place.window.flip);
      emit(affine, field, place.count, target);
      if (field % fields_ != fields_ - 1) {
        move(affine, bounds, place.count);
      }
    }
  }

 private:
  // Clamped, because beyond 2^24 a float may round up; the padding is sampled where it stands.
  void start(const TilePlace& place, const Bounds& bounds) {
    const int32_t padded = (place.count + sample_group - 1) / sample_group * sample_group;
    for (int32_t pixel = 0; pixel < padded; ++pixel) {
      const int32_t column = place.column + std::min(pixel, place.count - 1);
      const int32_t source = source_column(place.window, column, args_.output.width);
      x_[pixel] = clamp_coordinate(static_cast<float>(source), bounds.right);
      y_[pixel] = clamp_coordinate(static_cast<float>(place.window.top + place.row), bounds.bottom);
    }
  }

  // The values at the starting pixels.
  void load(const StridedField<In>& field, const TilePlace& place) {
    const bool flip = place.window.flip;
    const int32_t last = place.column + place.count - 1;
    const int32_t lowest = source_column(place.window, flip ? last : place.column, args_.output.width);
    const In* pixels = field.data + (place.window.top + place.row) * field.row_stride + lowest * field.column_stride;
    read_tile(pixels, field.column_stride, field.component_stride, place.count, rows_);
    convert_row(Affine{1.0f, 0.0f}, flip, rows_.rows[0], place.count, raw_x_);
    convert_row(Affine{1.0f, 0.0f}, flip, rows_.rows[1], place.count, raw_y_);
  }

  void emit(const FieldAffine& affine, int32_t field, int32_t count, Out* target) {
    const twostream_stack& output = args_.output;
    const int32_t slot = field % tile_fields;
    Out* x = target + 2 * int64_t{field} * output.channel_stride;
    if (channels_.is_sloped()) {
      subtract_camera(affine.output_x, raw_x_, count, values_[2 * slot]);
      subtract_camera(affine.output_y, raw_y_, count, values_[2 * slot + 1]);
      if (planar_) {
        store_floats(values_[2 * slot], count, x, streaming_);
        store_floats(values_[2 * slot + 1], count, x + output.channel_stride, streaming_);
      }
    } else if (planar_) {
      convert_and_store(everywhere(affine.output_x), false, raw_x_, count, x, streaming_);
      convert_and_store(everywhere(affine.output_y), false, raw_y_, count, x + output.channel_stride, streaming_);
    } else {
      convert_row(everywhere(affine.output_x), false, raw_x_, count, values_[2 * slot]);
      convert_row(everywhere(affine.output_y), false, raw_y_, count, values_[2 * slot + 1]);
    }
    if (!planar_ && (slot == tile_fields - 1 || field == args_.flow.length - 1)) {
      store_tile(values_, 2 * (slot + 1), count, target + 2 * int64_t{field - slot} * output.channel_stride, output,
                 streaming_);
    }
  }

  // At the places where the field was sampled.
  void subtract_camera(const SlopedAffine& affine, const float* __restrict raw, int32_t count,
                       float* __restrict to) const {
    for (int32_t pixel = 0; pixel < count; ++pixel) {
      to[pixel] = apply(at_column(at_row(affine, y_[pixel]), x_[pixel]), raw[pixel]);
    }
  }

  void move(const FieldAffine& affine, const Bounds& bounds, int32_t count) {
    for (int32_t pixel = 0; pixel < count; ++pixel) {
      const Vector2 moved =
          advance({x_[pixel], y_[pixel]}, affine.displacement({raw_x_[pixel], raw_y_[pixel]}), bounds);
      x_[pixel] = moved.x;
      y_[pixel] = moved.y;
    }
  }

  const twostream_trajectory_stack_args& args_;
  const FlowChannels& channels_;
  const int32_t fields_;  // of one trajectory
  const bool planar_;
  const bool streaming_;
  alignas(32) float x_[tile_pixels];
  alignas(32) float y_[tile_pixels];
  alignas(32) float raw_x_[tile_pixels];
  alignas(32) float raw_y_[tile_pixels];
  TileRows<In, 2> rows_;
  float values_[tile_channels][tile_pixels];
};

template <typename In, typename Out>
void run_stack(const twostream_trajectory_stack_args& args) {
  const twostream_stack& output = args.output;
  const int32_t places = args.windows_per_sample;
  const FlowChannels channels = flow_channels(args);
  const int64_t bands = (output.height + band_rows - 1) / band_rows;
  const int64_t values = args.flow.size * places * channels.channels * output.height * output.width;
  const bool streaming = exceeds_cache(values * static_cast<int64_t>(sizeof(Out)));
  const int64_t samples_per_band = std::min<int64_t>(band_rows, output.height) * output.width * args.flow.length;
  parallel_for(args.flow.size * places * bands, grain_for(samples_per_band), [&](int64_t item) {
    const int64_t index = item / bands / places;
    const int64_t place = item / bands % places;
    const Window window =
        load_window(args.windows + (index * places + place) * 3, args.flow.samples[index], output.height, output.width);
    Out* target = static_cast<Out*>(output.data) + index * output.sample_stride + place * output.window_stride;
    Tile<In, Out> tile(args, channels, streaming);
    const auto first = static_cast<int32_t>(item % bands) * band_rows;
    for (int32_t row = first; row < std::min(first + band_rows, output.height); ++row) {
      for (int32_t column = 0; column < output.width; column += tile_pixels) {
        const int32_t count = std::min(tile_pixels, output.width - column);
        tile.run({index, window, row, column, count}, target + row * output.row_stride + column * output.column_stride);
      }
    }
    if (streaming) {
      finish_streaming();
    }
  });
}

}  // namespace

int TWOSTREAM_CPU(trajectory_stack)(const twostream_trajectory_stack_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  with_any_type(args->flow.dtype, [&](auto in) {
    with_float_type(args->output.dtype, [&](auto out) { run_stack<decltype(in), decltype(out)>(*args); });
  });
  return TWOSTREAM_SUCCESS;
}
