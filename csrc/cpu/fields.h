// SPDX-License-Identifier: BSD-3-Clause
// Loops over whole flow fields, shared by mean_flow, quantize_flow and dequantize_flow.
#pragma once

#include "core/statistics.h"
#include "core/types.h"
#include "cpu/parallel.h"

namespace twostream {

inline int64_t field_pixels(const twostream_batch& batch) {
  return batch.size > 0 ? static_cast<int64_t>(batch.samples[0].height) * batch.samples[0].width : 0;
}

// The x (component 0) or y (component 1) plane of one field.
template <typename T>
T* component_plane(const twostream_sample& sample, int64_t field, int component) {
  return static_cast<T*>(const_cast<void*>(sample.data)) + field * sample.field_stride +
         component * sample.component_stride;
}

// Calls body(sample, field, component, index), index counting [N, L, 2], in parallel.
template <typename Body>
void for_each_component(const twostream_batch& batch, const Body& body) {
  parallel_for(batch.size * batch.length * 2, grain_for(field_pixels(batch)), [&](int64_t index) {
    const int64_t field = index / 2;
    body(field / batch.length, field % batch.length, static_cast<int>(index % 2), index);
  });
}

template <typename In>
Statistics plane_statistics(const In* plane, const twostream_sample& sample) {
  Statistics statistics = no_values();
  for (int32_t row = 0; row < sample.height; ++row) {
    for (int32_t column = 0; column < sample.width; ++column) {
      add(statistics, to_float(plane[row * sample.row_stride + column * sample.column_stride]));
    }
  }
  return statistics;
}

// to[pixel] = convert(from[pixel]) for two planes of one size.
template <typename In, typename Out, typename Convert>
void convert_plane(const In* from, const twostream_sample& source, Out* to, const twostream_sample& target,
                   const Convert& convert) {
  for (int32_t row = 0; row < source.height; ++row) {
    for (int32_t column = 0; column < source.width; ++column) {
      to[row * target.row_stride + column * target.column_stride] =
          convert(from[row * source.row_stride + column * source.column_stride]);
    }
  }
}

}  // namespace twostream
