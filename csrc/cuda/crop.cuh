// SPDX-License-Identifier: BSD-3-Clause
// The kernel that flow_stack and crop_frames share; its twin is cpu/crop.h.
// A thread makes one output pixel of one plane: blocks run over the pixels (x), the windows' planes (y), the samples
// (z).
#pragma once

#include "core/affine.h"
#include "core/types.h"
#include "core/window.h"
#include "cuda/launch.h"

namespace twostream {

template <typename In, typename Out, typename Channels>
__global__ void crop_kernel(const SampleChunk chunk, const int32_t* windows, int32_t windows_per_sample,
                            const Channels channels, const twostream_stack output) {
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= static_cast<int64_t>(output.height) * output.width) {
    return;
  }
  const auto row = static_cast<int32_t>(pixel / output.width);
  const auto column = static_cast<int32_t>(pixel % output.width);
  const twostream_sample& sample = chunk.samples[blockIdx.z];
  const int64_t index = chunk.first + blockIdx.z;
  const int64_t planes = static_cast<int64_t>(windows_per_sample) * channels.channels;
  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    const int64_t place = plane / channels.channels;
    const auto channel = static_cast<int32_t>(plane % channels.channels);
    const Window window =
        load_window(windows + (index * windows_per_sample + place) * 3, sample, output.height, output.width);
    const In* source = static_cast<const In*>(sample.data) + channel / Channels::components * sample.field_stride +
                       channel % Channels::components * sample.component_stride;
    const In value = source[(window.top + row) * sample.row_stride +
                            source_column(window, column, output.width) * sample.column_stride];
    Out* target = static_cast<Out*>(output.data) + index * output.sample_stride + place * output.window_stride +
                  channel * output.channel_stride;
    target[row * output.row_stride + column * output.column_stride] =
        from_float<Out>(apply(channels.affine(index, channel, window.flip), to_float(value)));
  }
}

template <typename In, typename Out, typename Channels>
int launch_crop(const twostream_batch& batch, const int32_t* windows, int32_t windows_per_sample,
                const Channels& channels, const twostream_stack& output, void* stream) {
  const int64_t planes = static_cast<int64_t>(windows_per_sample) * channels.channels;
  if (planes == 0) {
    return TWOSTREAM_SUCCESS;
  }
  const auto grid_y = static_cast<unsigned int>(planes < largest_grid_y ? planes : largest_grid_y);
  return for_each_chunk(batch.samples, batch.size, [&](const SampleChunk& chunk, int count) {
    const dim3 grid(blocks_for(static_cast<int64_t>(output.height) * output.width), grid_y,
                    static_cast<unsigned int>(count));
    return launch(crop_kernel<In, Out, Channels>, grid, dim3(threads_per_block), 0, stream, chunk, windows,
                  windows_per_sample, channels, output);
  });
}

}  // namespace twostream
