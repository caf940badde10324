// SPDX-License-Identifier: BSD-3-Clause
// The gradient of a crop; its twin is cpu/crop_backward.h. A thread owns one source pixel of one component and sums the
// output pixels that show it in the order of the windows: no atomics, the same bits every time.
// Blocks run over the pixels (x), the planes (y), the samples (z).
#pragma once

#include "core/types.h"
#include "core/window.h"
#include "cuda/launch.h"

namespace twostream {

template <typename Grad, typename In, typename Gradients>
__global__ void crop_backward_kernel(const SampleChunk chunk, const int32_t* __restrict__ windows,
                                     int32_t windows_per_sample, const Gradients gradients,
                                     const twostream_stack gradient, int32_t planes) {
  constexpr int components = Gradients::components;
  const twostream_sample& sample = chunk.samples[blockIdx.z];
  const int64_t index = chunk.first + blockIdx.z;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= static_cast<int64_t>(sample.height) * sample.width) {
    return;
  }
  const auto row = static_cast<int32_t>(pixel / sample.width);
  const auto column = static_cast<int32_t>(pixel % sample.width);
  for (int32_t plane = static_cast<int32_t>(blockIdx.y); plane < planes; plane += static_cast<int32_t>(gridDim.y)) {
    const int component = plane % components;
    const Grad* source =
        static_cast<const Grad*>(gradient.data) + index * gradient.sample_stride + plane * gradient.channel_stride;
    float sum = 0.0f;
    for (int32_t place = 0; place < windows_per_sample; ++place) {
      const Window window =
          load_window(windows + (index * windows_per_sample + place) * 3, sample, gradient.height, gradient.width);
      const int32_t y = row - window.top;
      const int32_t x = column - window.left;
      if (y >= 0 && y < gradient.height && x >= 0 && x < gradient.width) {
        const int32_t shown = window.flip ? gradient.width - 1 - x : x;
        const Grad value =
            source[place * gradient.window_stride + y * gradient.row_stride + shown * gradient.column_stride];
        sum = fmaf(to_float(value), gradients.factor(component, window.flip), sum);
      }
    }
    In* target = static_cast<In*>(const_cast<void*>(sample.data)) + plane / components * sample.field_stride +
                 component * sample.component_stride;
    target[row * sample.row_stride + column * sample.column_stride] = from_float<In>(sum);
  }
}

template <typename Grad, typename In, typename Gradients>
int launch_crop_backward_typed(const twostream_stack& gradient, const int32_t* windows, int32_t windows_per_sample,
                               const Gradients& gradients, const twostream_batch& batch, void* stream) {
  const int32_t planes = batch.length * Gradients::components;
  const auto grid_y = static_cast<unsigned int>(planes < largest_grid_y ? planes : largest_grid_y);
  return for_each_chunk(batch.samples, batch.size, [&](const SampleChunk& chunk, int count) {
    int64_t pixels = 0;  // of the largest sample
    for (int each = 0; each < count; ++each) {
      const int64_t own = static_cast<int64_t>(chunk.samples[each].height) * chunk.samples[each].width;
      pixels = own > pixels ? own : pixels;
    }
    const dim3 grid(blocks_for(pixels), grid_y, static_cast<unsigned int>(count));
    return launch(crop_backward_kernel<Grad, In, Gradients>, grid, dim3(threads_per_block), 0, stream, chunk, windows,
                  windows_per_sample, gradients, gradient, planes);
  });
}

template <typename Gradients>
int launch_crop_backward(const twostream_stack& gradient, const int32_t* windows, int32_t windows_per_sample,
                         const Gradients& gradients, const twostream_batch& batch, void* stream) {
  int status = TWOSTREAM_SUCCESS;
  with_float_type(gradient.dtype, [&](auto out) {
    with_float_type(batch.dtype, [&](auto in) {
      status = launch_crop_backward_typed<decltype(out), decltype(in)>(gradient, windows, windows_per_sample, gradients,
                                                                       batch, stream);
    });
  });
  return status;
}

}  // namespace twostream
