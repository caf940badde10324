// SPDX-License-Identifier: BSD-3-Clause
// The loop that flow_stack and crop_frames share: every output plane is a cropped, flipped, affine copy of one
// component of one source field.
#pragma once

#include "core/affine.h"
#include "core/types.h"
#include "core/window.h"
#include "cpu/parallel.h"

namespace twostream {

template <typename In, typename Out>
void crop_plane(const In* source, const twostream_sample& sample, const Window& window, const Affine& affine,
                Out* target, const twostream_stack& output) {
  const int64_t step = window.flip ? -sample.column_stride : sample.column_stride;
  const int64_t start = source_column(window, 0, output.width) * sample.column_stride;
  for (int32_t row = 0; row < output.height; ++row) {
    const In* from = source + (window.top + row) * sample.row_stride + start;
    Out* to = target + row * output.row_stride;
    for (int32_t column = 0; column < output.width; ++column) {
      to[column * output.column_stride] = from_float<Out>(apply(affine, to_float(from[column * step])));
    }
  }
}

// `channels` is FlowChannels or FrameChannels; one item of the parallel loop is one plane.
template <typename In, typename Out, typename Channels>
void crop_batch(const twostream_batch& batch, const int32_t* windows, int32_t windows_per_sample,
                const Channels& channels, const twostream_stack& output) {
  const int64_t planes_per_sample = static_cast<int64_t>(windows_per_sample) * channels.channels;
  const int64_t pixels = static_cast<int64_t>(output.height) * output.width;
  parallel_for(batch.size * planes_per_sample, grain_for(pixels), [&](int64_t plane) {
    const int64_t index = plane / planes_per_sample;
    const int64_t place = plane % planes_per_sample / channels.channels;
    const auto channel = static_cast<int32_t>(plane % channels.channels);
    const twostream_sample& sample = batch.samples[index];
    const Window window =
        load_window(windows + (index * windows_per_sample + place) * 3, sample, output.height, output.width);
    const In* source = static_cast<const In*>(sample.data) + channel / Channels::components * sample.field_stride +
                       channel % Channels::components * sample.component_stride;
    Out* target = static_cast<Out*>(output.data) + index * output.sample_stride + place * output.window_stride +
                  channel * output.channel_stride;
    crop_plane(source, sample, window, channels.affine(index, channel, window.flip), target, output);
  });
}

}  // namespace twostream
