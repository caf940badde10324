// SPDX-License-Identifier: BSD-3-Clause
// The gradient of a crop, shared by flow_stack and crop_frames: each source pixel sums the output pixels that show it,
// window by window in their order, so that the result depends neither on threads nor on chance.
#pragma once

#include "core/types.h"
#include "core/window.h"
#include "cpu/parallel.h"

namespace twostream {

constexpr int32_t gradient_tile = 256;

// Adds what one window gives to the columns [first, first + count) of one source row.
template <typename Grad>
void add_window(const Grad* gradient, const twostream_stack& output, const Window& window, int32_t row, int32_t first,
                int32_t count, float factor, float* sums) {
  if (row < window.top || row >= window.top + output.height) {
    return;
  }
  const Grad* from = gradient + (row - window.top) * output.row_stride;
  const int32_t begin = window.left > first ? window.left : first;
  const int32_t end = window.left + output.width < first + count ? window.left + output.width : first + count;
  for (int32_t column = begin; column < end; ++column) {
    const int32_t shown = window.flip ? window.left + output.width - 1 - column : column - window.left;
    sums[column - first] = fmaf(to_float(from[shown * output.column_stride]), factor, sums[column - first]);
  }
}

// `gradients` is FlowGradients or FrameGradients; one item of the parallel loop is one source plane.
template <typename Grad, typename In, typename Gradients>
void crop_backward_typed(const twostream_stack& gradient, const int32_t* windows, int32_t windows_per_sample,
                         const Gradients& gradients, const twostream_batch& batch) {
  constexpr int components = Gradients::components;
  const int64_t planes = int64_t{batch.length} * components;
  const int64_t pixels = int64_t{gradient.height} * gradient.width * windows_per_sample;
  parallel_for(batch.size * planes, grain_for(pixels), [&](int64_t plane) {
    const int64_t index = plane / planes;
    const int64_t channel = plane % planes;
    const auto component = static_cast<int>(channel % components);
    const twostream_sample& sample = batch.samples[index];
    const Grad* source =
        static_cast<const Grad*>(gradient.data) + index * gradient.sample_stride + channel * gradient.channel_stride;
    In* target = static_cast<In*>(const_cast<void*>(sample.data)) + channel / components * sample.field_stride +
                 component * sample.component_stride;
    for (int32_t row = 0; row < sample.height; ++row) {
      for (int32_t first = 0; first < sample.width; first += gradient_tile) {
        const int32_t count = sample.width - first < gradient_tile ? sample.width - first : gradient_tile;
        float sums[gradient_tile] = {};
        for (int32_t place = 0; place < windows_per_sample; ++place) {
          const Window window =
              load_window(windows + (index * windows_per_sample + place) * 3, sample, gradient.height, gradient.width);
          add_window(source + place * gradient.window_stride, gradient, window, row, first, count,
                     gradients.factor(component, window.flip), sums);
        }
        In* to = target + row * sample.row_stride + first * sample.column_stride;
        for (int32_t column = 0; column < count; ++column) {
          to[column * sample.column_stride] = from_float<In>(sums[column]);
        }
      }
    }
  });
}

template <typename Gradients>
void crop_backward(const twostream_stack& gradient, const int32_t* windows, int32_t windows_per_sample,
                   const Gradients& gradients, const twostream_batch& batch) {
  with_float_type(gradient.dtype, [&](auto out) {
    with_float_type(batch.dtype, [&](auto in) {
      crop_backward_typed<decltype(out), decltype(in)>(gradient, windows, windows_per_sample, gradients, batch);
    });
  });
}

}  // namespace twostream
