// SPDX-License-Identifier: BSD-3-Clause
// The kernels that flow_stack and crop_frames share; the twin is cpu/crop.h. The limit is memory, and of codes to
// float32 four bytes of five are written: full aligned 16-byte stores are the centre, and what is irregular (the
// window's offset, the mirror) lies on the side of the loads, which the cache smooths.
//
// Planar output: a thread makes `vector` neighbouring pixels of one row, in all components of one field, so that
// interleaved components are read once. Channels-last output: a thread makes one pixel, `vector` channels at a time.
// A vector of 1 serves every stride and alignment.
#pragma once

#include "core/affine.h"
#include "core/types.h"
#include "core/window.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

namespace twostream {

// Blocks run over the vectors of the window (x), the windows of the fields (y), the samples (z).
template <typename In, typename Out, typename Channels, int vector>
__global__ void crop_rows_kernel(const SampleChunk chunk, const int32_t* __restrict__ windows,
                                 int32_t windows_per_sample, int32_t fields, const Channels channels,
                                 const twostream_stack output) {
  constexpr int components = Channels::components;
  const int32_t vectors = output.width / vector;  // of a row
  const int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (item >= static_cast<int64_t>(output.height) * vectors) {
    return;
  }
  const auto row = static_cast<int32_t>(item / vectors);
  const auto column = static_cast<int32_t>(item % vectors) * vector;
  const twostream_sample& sample = chunk.samples[blockIdx.z];
  const int64_t index = chunk.first + blockIdx.z;
  // The windows of one field follow each other, so that ten crops find it in the cache.
  for (int64_t place = blockIdx.y; place < static_cast<int64_t>(fields) * windows_per_sample; place += gridDim.y) {
    const auto field = static_cast<int32_t>(place / windows_per_sample);
    const int64_t number = place % windows_per_sample;
    const Window window =
        load_window(windows + (index * windows_per_sample + number) * 3, sample, output.height, output.width);
    const In* source = static_cast<const In*>(sample.data) + field * sample.field_stride +
                       (window.top + row) * sample.row_stride +
                       source_column(window, column, output.width) * sample.column_stride;
    const int64_t step = window.flip ? -sample.column_stride : sample.column_stride;
    In values[components][vector];
    for (int component = 0; component < components; ++component) {
      for (int each = 0; each < vector; ++each) {
        values[component][each] = source[component * sample.component_stride + each * step];
      }
    }
    Out* target = static_cast<Out*>(output.data) + index * output.sample_stride + number * output.window_stride +
                  static_cast<int64_t>(field) * components * output.channel_stride + row * output.row_stride +
                  column * output.column_stride;
    for (int component = 0; component < components; ++component) {
      const auto affine = channels.row_affine(index, field * components + component, window.flip, window.top + row);
      Pack<Out, vector> pack;
      for (int each = 0; each < vector; ++each) {
        const auto x = static_cast<float>(source_column(window, column + each, output.width));
        pack.values[each] = from_float<Out>(apply(at_column(affine, x), to_float(values[component][each])));
      }
      *reinterpret_cast<Pack<Out, vector>*>(target + component * output.channel_stride) = pack;
    }
  }
}

// Blocks run over the pixels of the window (x), the windows (y), the samples (z).
template <typename In, typename Out, typename Channels, int vector>
__global__ void crop_pixels_kernel(const SampleChunk chunk, const int32_t* __restrict__ windows,
                                   int32_t windows_per_sample, const Channels channels, const twostream_stack output) {
  constexpr int components = Channels::components;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= static_cast<int64_t>(output.height) * output.width) {
    return;
  }
  const auto row = static_cast<int32_t>(pixel / output.width);
  const auto column = static_cast<int32_t>(pixel % output.width);
  const twostream_sample& sample = chunk.samples[blockIdx.z];
  const int64_t index = chunk.first + blockIdx.z;
  for (int64_t number = blockIdx.y; number < windows_per_sample; number += gridDim.y) {
    const Window window =
        load_window(windows + (index * windows_per_sample + number) * 3, sample, output.height, output.width);
    const In* source = static_cast<const In*>(sample.data) + (window.top + row) * sample.row_stride +
                       source_column(window, column, output.width) * sample.column_stride;
    Out* target = static_cast<Out*>(output.data) + index * output.sample_stride + number * output.window_stride +
                  row * output.row_stride + column * output.column_stride;
    const auto x = static_cast<float>(source_column(window, column, output.width));
    for (int32_t first = 0; first < channels.channels; first += vector) {
      Pack<Out, vector> pack;
      for (int each = 0; each < vector; ++each) {
        const int32_t channel = first + each;
        const In value =
            source[channel / components * sample.field_stride + channel % components * sample.component_stride];
        const auto affine = channels.row_affine(index, channel, window.flip, window.top + row);
        pack.values[each] = from_float<Out>(apply(at_column(affine, x), to_float(value)));
      }
      *reinterpret_cast<Pack<Out, vector>*>(target + first) = pack;
    }
  }
}

// Whether every place that is a multiple of `vector` elements away along the moving dimension starts a whole vector.
template <typename Out>
bool keeps_alignment(const twostream_stack& output, int64_t other_stride, int vector) {
  return is_aligned(output.data, static_cast<int64_t>(sizeof(Out)) * vector) && output.sample_stride % vector == 0 &&
         output.window_stride % vector == 0 && output.row_stride % vector == 0 && other_stride % vector == 0;
}

template <typename In, typename Out, typename Channels>
int launch_crop_typed(const twostream_batch& batch, const int32_t* windows, int32_t windows_per_sample,
                      const Channels& channels, const twostream_stack& output, void* stream) {
  if (windows_per_sample == 0) {
    return TWOSTREAM_SUCCESS;
  }
  constexpr int row_vector = pack_bytes / static_cast<int>(sizeof(Out));
  constexpr int channel_vector = 4;
  const bool whole_rows = output.column_stride == 1 && output.width % row_vector == 0 &&
                          keeps_alignment<Out>(output, output.channel_stride, row_vector);
  const bool whole_pixels = output.channel_stride == 1 && channels.channels % channel_vector == 0 &&
                            keeps_alignment<Out>(output, output.column_stride, channel_vector);
  const int64_t pixels = static_cast<int64_t>(output.height) * output.width;
  const int64_t places = static_cast<int64_t>(windows_per_sample) * (whole_pixels && !whole_rows ? 1 : batch.length);
  const auto grid_y = static_cast<unsigned int>(places < largest_grid_y ? places : largest_grid_y);
  return for_each_chunk(batch.samples, batch.size, [&](const SampleChunk& chunk, int count) {
    const dim3 block(threads_per_block);
    const auto grid_z = static_cast<unsigned int>(count);
    if (whole_rows) {
      return launch(crop_rows_kernel<In, Out, Channels, row_vector>,
                    dim3(blocks_for(pixels / row_vector), grid_y, grid_z), block, 0, stream, chunk, windows,
                    windows_per_sample, batch.length, channels, output);
    }
    const dim3 grid(blocks_for(pixels), grid_y, grid_z);
    if (whole_pixels) {
      return launch(crop_pixels_kernel<In, Out, Channels, channel_vector>, grid, block, 0, stream, chunk, windows,
                    windows_per_sample, channels, output);
    }
    return launch(crop_rows_kernel<In, Out, Channels, 1>, grid, block, 0, stream, chunk, windows, windows_per_sample,
                  batch.length, channels, output);
  });
}

template <typename Channels>
int launch_crop(const twostream_batch& batch, const int32_t* windows, int32_t windows_per_sample,
                const Channels& channels, const twostream_stack& output, void* stream) {
  int status = TWOSTREAM_SUCCESS;
  with_any_type(batch.dtype, [&](auto in) {
    with_float_type(output.dtype, [&](auto out) {
      status =
          launch_crop_typed<decltype(in), decltype(out)>(batch, windows, windows_per_sample, channels, output, stream);
    });
  });
  return status;
}

}  // namespace twostream
