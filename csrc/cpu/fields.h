// SPDX-License-Identifier: BSD-3-Clause
// Loops over whole flow fields, shared by mean_flow, quantize_flow and dequantize_flow. An item is one field, x and y
// together: interleaved components lie in the same cache lines.
#pragma once

#include "core/types.h"
#include "cpu/parallel.h"
#include "cpu/reduce.h"
#include "cpu/rows.h"

namespace twostream {

// Calls body(sample, field, index) in parallel, index counting [N, L].
template <typename Body>
void for_each_field(const twostream_batch& batch, const Body& body) {
  const int64_t pixels = batch.size > 0 ? static_cast<int64_t>(batch.samples[0].height) * batch.samples[0].width : 0;
  parallel_for(batch.size * batch.length, grain_for(2 * pixels),
               [&](int64_t index) { body(index / batch.length, index % batch.length, index); });
}

// Rows without a gap between them are one long row.
inline bool has_gaps(const twostream_sample& sample) {
  return sample.row_stride != sample.width * sample.column_stride;
}

struct Extent {
  int64_t rows;
  int64_t columns;
};

inline Extent extent_of(const twostream_sample& sample, bool gaps) {
  return gaps ? Extent{sample.height, sample.width} : Extent{1, static_cast<int64_t>(sample.height) * sample.width};
}

template <typename T>
T* pixel_of(const twostream_sample& sample, int64_t field, int64_t row, int64_t column) {
  return static_cast<T*>(const_cast<void*>(sample.data)) + field * sample.field_stride + row * sample.row_stride +
         column * sample.column_stride;
}

// Calls body(rows, count, row, column) for the tiles of a field: rows[component] holds `count` values.
template <typename In, typename Body>
void for_each_tile(const twostream_sample& sample, int64_t field, const Extent& extent, const Body& body) {
  TileRows<In, 2> tile;
  for (int64_t row = 0; row < extent.rows; ++row) {
    for (int64_t column = 0; column < extent.columns; column += tile_pixels) {
      const int64_t left = extent.columns - column;
      const auto count = static_cast<int32_t>(left < tile_pixels ? left : tile_pixels);
      read_tile(pixel_of<const In>(sample, field, row, column), sample.column_stride, sample.component_stride, count,
                tile);
      body(tile.rows, count, row, column);
    }
  }
}

// Adds a field's values to two sums or two Statistics, x and y.
template <typename In, typename Total>
void add_field(const twostream_sample& sample, int64_t field, Total* totals) {
  const Extent extent = extent_of(sample, has_gaps(sample));
  const bool interleaved = sample.column_stride == 2 && sample.component_stride == 1;
  if (!interleaved && sample.column_stride != 1) {
    for_each_tile<In>(sample, field, extent, [&](const In* const(&rows)[2], int32_t count, int64_t, int64_t) {
      add_values<1>(rows[0], count, totals);
      add_values<1>(rows[1], count, totals + 1);
    });
    return;
  }
  for (int64_t row = 0; row < extent.rows; ++row) {
    const In* run = pixel_of<const In>(sample, field, row, 0);
    if (interleaved) {
      add_values<2>(run, 2 * extent.columns, totals);
    } else {
      add_values<1>(run, extent.columns, totals);
      add_values<1>(run + sample.component_stride, extent.columns, totals + 1);
    }
  }
}

inline bool exceeds_cache(const twostream_batch& batch, int64_t bytes_per_value) {
  int64_t pixels = 0;
  for (int64_t index = 0; index < batch.size; ++index) {
    pixels += static_cast<int64_t>(batch.samples[index].height) * batch.samples[index].width;
  }
  return exceeds_cache(pixels * batch.length * 2 * bytes_per_value);
}

}  // namespace twostream
