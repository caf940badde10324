// SPDX-License-Identifier: BSD-3-Clause
// The loop that flow_stack and crop_frames share: every output plane is a cropped, flipped, affine copy of one
// component of one source field. It must read the windows' pixels and write the output once: the limit is memory, and
// for uint8 in and float32 out four of five bytes are written.
//
// An item is a band of rows of one window of one field. The windows of a field are neighbours in the order of items, so
// that ten crops read their field from memory once. Channels-last output takes as many fields together as fill a pixel.
#pragma once

#include "core/affine.h"
#include "core/types.h"
#include "core/window.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"

namespace twostream {

constexpr int32_t band_rows = 64;

// Where an item lies in the output and in its sample.
struct CropItem {
  int64_t index;  // of the sample
  Window window;
  int32_t first_field;
  int32_t fields;
  int32_t first_row;
  int32_t rows;
};

// Asks for `count` pixels of one row of several fields: more rows, far apart, than the processor would ask for by
// itself. Beside streaming stores it does not pay.
template <typename In>
void prefetch_row(const In* row, const twostream_sample& sample, int32_t fields, int32_t components, int32_t count) {
  constexpr int64_t line = 64 / sizeof(In);
  const bool interleaved = sample.column_stride != 1;
  const int64_t values = interleaved ? count * sample.column_stride : count;
  for (int32_t field = 0; field < fields; ++field) {
    for (int32_t component = 0; component < (interleaved ? 1 : components); ++component) {
      const In* from = row + field * sample.field_stride + component * sample.component_stride;
      for (int64_t value = 0; value < values + line; value += line) {
        __builtin_prefetch(from + value);
      }
    }
  }
}

// `sloped`: what is added to a pixel depends on its place.
template <bool sloped, typename In, typename Out, typename Channels>
void crop_item(const CropItem& item, const twostream_sample& sample, const Channels& channels, Out* target,
               const twostream_stack& output, bool streaming) {
  constexpr int components = Channels::components;
  const int32_t count_channels = item.fields * components;
  Affine affines[tile_channels];
  for (int32_t channel = 0; channel < count_channels; ++channel) {
    affines[channel] = channels.affine(item.index, item.first_field * components + channel, item.window.flip);
  }
  const bool planar = output.column_stride == 1;
  const In* first = static_cast<const In*>(sample.data) + item.first_field * sample.field_stride +
                    item.window.top * sample.row_stride + item.window.left * sample.column_stride;
  TileRows<In, components> tile;
  float values[tile_channels][tile_pixels];
  for (int32_t row = item.first_row; row < item.first_row + item.rows; ++row) {
    if (!planar && !streaming && row + 1 < item.first_row + item.rows) {
      prefetch_row(first + (row + 1) * sample.row_stride, sample, item.fields, components, output.width);
    }
    for (int32_t column = 0; column < output.width; column += tile_pixels) {
      const int32_t count = output.width - column < tile_pixels ? output.width - column : tile_pixels;
      // A mirrored tile reads the columns that end where the straight one would begin.
      const int32_t lowest = item.window.flip ? output.width - column - count : column;
      const In* source = first + row * sample.row_stride + lowest * sample.column_stride;
      Out* to = target + row * output.row_stride + column * output.column_stride;
      for (int32_t field = 0; field < item.fields; ++field) {
        read_tile(source + field * sample.field_stride, sample.column_stride, sample.component_stride, count, tile);
        for (int component = 0; component < components; ++component) {
          const int32_t channel = field * components + component;
          const In* from = tile.rows[component];
          if constexpr (sloped) {
            const RowAffine affine = channels.row_affine(item.index, item.first_field * components + channel,
                                                         item.window.flip, item.window.top + row);
            convert_row(affine, item.window.left + lowest, item.window.flip, from, count, values[channel]);
            if (planar) {
              store_floats(values[channel], count, to + channel * output.channel_stride, streaming);
            }
          } else if (planar) {
            convert_and_store(affines[channel], item.window.flip, from, count, to + channel * output.channel_stride,
                              streaming);
          } else {
            convert_row(affines[channel], item.window.flip, from, count, values[channel]);
          }
        }
      }
      if (!planar) {
        store_tile(values, count_channels, count, to, output, streaming);
      }
    }
  }
}

// `channels` is FlowChannels or FrameChannels.
template <typename In, typename Out, typename Channels>
void crop_typed(const twostream_batch& batch, const int32_t* windows, int32_t windows_per_sample,
                const Channels& channels, const twostream_stack& output) {
  const int32_t most_fields = output.column_stride == 1 ? 1 : tile_channels / Channels::components;
  const int64_t groups = (batch.length + most_fields - 1) / most_fields;
  const int64_t bands = (output.height + band_rows - 1) / band_rows;
  const int64_t items = batch.size * groups * windows_per_sample * bands;
  const int64_t values = int64_t{output.height} * output.width * windows_per_sample * channels.channels * batch.size;
  const bool streaming = exceeds_cache(values * static_cast<int64_t>(sizeof(Out)));
  const int64_t rows = output.height < band_rows ? output.height : band_rows;
  const int64_t fields = batch.length < most_fields ? batch.length : most_fields;
  const int64_t pixels = rows * output.width * fields * Channels::components;
  parallel_for(items, grain_for(pixels), [&](int64_t number) {
    const int64_t place = number / bands % windows_per_sample;
    CropItem item{};
    item.index = number / bands / windows_per_sample / groups;
    item.first_field = static_cast<int32_t>(number / bands / windows_per_sample % groups) * most_fields;
    item.fields = batch.length - item.first_field < most_fields ? batch.length - item.first_field : most_fields;
    item.first_row = static_cast<int32_t>(number % bands) * band_rows;
    item.rows = output.height - item.first_row < band_rows ? output.height - item.first_row : band_rows;
    const twostream_sample& sample = batch.samples[item.index];
    item.window =
        load_window(windows + (item.index * windows_per_sample + place) * 3, sample, output.height, output.width);
    Out* target = static_cast<Out*>(output.data) + item.index * output.sample_stride + place * output.window_stride +
                  item.first_field * Channels::components * output.channel_stride;
    if (Channels::may_slope && channels.is_sloped()) {
      crop_item<Channels::may_slope, In, Out>(item, sample, channels, target, output, streaming);
    } else {
      crop_item<false, In, Out>(item, sample, channels, target, output, streaming);
    }
    if (streaming) {
      finish_streaming();
    }
  });
}

template <typename Channels>
void crop_batch(const twostream_batch& batch, const int32_t* windows, int32_t windows_per_sample,
                const Channels& channels, const twostream_stack& output) {
  with_any_type(batch.dtype, [&](auto in) {
    with_float_type(output.dtype, [&](auto out) {
      crop_typed<decltype(in), decltype(out)>(batch, windows, windows_per_sample, channels, output);
    });
  });
}

}  // namespace twostream
