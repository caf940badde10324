// SPDX-License-Identifier: BSD-3-Clause
// A thread makes one output pixel: it walks the L fields with its position in registers, reads four neighbours a step
// and writes two channels. Neighbouring threads are neighbouring pixels, so that planar stores are whole lines and the
// reads fall on few; where x and y lie side by side, as they mostly do, one load brings both.
// Blocks run over the pixels (x), the windows' trajectories (y), the samples (z).
#include "core/trajectory_stack.h"
#include "core/window.h"
#include "cuda/paired_field.cuh"
#include "twostream/trajectory_stack.h"

using namespace twostream;

namespace {

template <typename Field, typename Out>
__global__ void trajectory_stack_kernel(const SampleChunk chunk, const int32_t* windows, int32_t windows_per_sample,
                                        const FlowChannels channels, int32_t fields, const twostream_stack output) {
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= static_cast<int64_t>(output.height) * output.width) {
    return;
  }
  const auto row = static_cast<int32_t>(pixel / output.width);
  const auto column = static_cast<int32_t>(pixel % output.width);
  const twostream_sample& sample = chunk.samples[blockIdx.z];
  const int64_t index = chunk.first + blockIdx.z;
  const Bounds bounds = bounds_of(sample);
  const int32_t legs = channels.channels / 2 / fields;  // 2 in a bi-directional stack
  for (int64_t leg = blockIdx.y; leg < int64_t{legs} * windows_per_sample; leg += gridDim.y) {
    const int64_t place = leg / legs;
    const auto first = static_cast<int32_t>(leg % legs) * fields;
    const Window window =
        load_window(windows + (index * windows_per_sample + place) * 3, sample, output.height, output.width);
    Out* target = static_cast<Out*>(output.data) + index * output.sample_stride + place * output.window_stride +
                  row * output.row_stride + column * output.column_stride;
    const int32_t start_row = window.top + row;
    const int32_t start_column = source_column(window, column, output.width);
    Vector2 position{static_cast<float>(start_column), static_cast<float>(start_row)};
    for (int32_t field = first; field < first + fields; ++field) {
      const Field source(sample, field);
      const Vector2 raw = field == first ? source.at(start_row, start_column) : sample_at(source, position);
      const FieldAffine affine = field_affine(channels, index, field, window.flip);
      Out* x = target + 2 * static_cast<int64_t>(field) * output.channel_stride;
      x[0] = from_float<Out>(apply(at_column(at_row(affine.output_x, position.y), position.x), raw.x));
      x[output.channel_stride] =
          from_float<Out>(apply(at_column(at_row(affine.output_y, position.y), position.x), raw.y));
      position = advance(position, affine.displacement(raw), bounds);
    }
  }
}

template <typename Field, typename Out>
int launch_trajectory_stack(const twostream_trajectory_stack_args& args, void* stream) {
  const twostream_stack& output = args.output;
  const int32_t legs = trajectories(args.bidirectional);
  const int64_t walks = int64_t{args.windows_per_sample} * legs;
  if (walks == 0) {
    return TWOSTREAM_SUCCESS;
  }
  const FlowChannels channels = flow_channels(args);
  const auto grid_y = static_cast<unsigned int>(walks < largest_grid_y ? walks : largest_grid_y);
  return for_each_chunk(args.flow.samples, args.flow.size, [&](const SampleChunk& chunk, int count) {
    const dim3 grid(blocks_for(static_cast<int64_t>(output.height) * output.width), grid_y,
                    static_cast<unsigned int>(count));
    return launch(trajectory_stack_kernel<Field, Out>, grid, dim3(threads_per_block), 0, stream, chunk, args.windows,
                  args.windows_per_sample, channels, args.flow.length / legs, output);
  });
}

}  // namespace

int twostream_trajectory_stack_cuda(const twostream_trajectory_stack_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    int status = TWOSTREAM_SUCCESS;
    with_any_type(args->flow.dtype, [&](auto in) {
      with_field(args->flow, in, [&](auto field) {
        with_float_type(args->output.dtype, [&](auto out) {
          status = launch_trajectory_stack<typename decltype(field)::Type, decltype(out)>(*args, stream);
        });
      });
    });
    return status;
  });
}
