// SPDX-License-Identifier: BSD-3-Clause
// Four kernels. `walk`: a thread takes one output pixel forth and back, and leaves for every field where it sampled and
// the gradient of what it sampled there. `measure`: a block finds the largest of these in one component of one field,
// which gives the scale of its sums. `scatter`: a thread adds one pixel's gradient to the four pixels that it came
// from, with integer atomics, so that the order does not matter. `finish`: the sums become floats.
// The workspaces are planar, so that neighbouring threads read and write neighbouring values.
#include "core/trajectory_stack.h"
#include "core/window.h"
#include "cuda/fields.cuh"
#include "cuda/paired_field.cuh"
#include "twostream/trajectory_stack_backward.h"

using namespace twostream;

namespace {

using Args = twostream_trajectory_stack_backward_args;

__device__ Window window_at(const Args& args, const twostream_sample& sample, int64_t index, int64_t place) {
  return load_window(args.windows + (index * args.windows_per_sample + place) * 3, sample, args.gradient.height,
                     args.gradient.width);
}

template <typename Gradient>
__device__ const Gradient* gradient_at(const Args& args, int64_t index, int64_t place) {
  return static_cast<const Gradient*>(args.gradient.data) + index * args.gradient.sample_stride +
         place * args.gradient.window_stride;
}

template <typename Field, typename Gradient>
__global__ void walk_kernel(const SampleChunk chunk, const Args args, int32_t fields) {
  const int64_t plane = static_cast<int64_t>(args.gradient.height) * args.gradient.width;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= plane) {
    return;
  }
  const auto row = static_cast<int32_t>(pixel / args.gradient.width);
  const auto column = static_cast<int32_t>(pixel % args.gradient.width);
  const twostream_sample& sample = chunk.samples[blockIdx.z];
  const int64_t index = chunk.first + blockIdx.z;
  const Bounds bounds = bounds_of(sample);
  const int32_t legs = args.flow.length / fields;
  for (int64_t leg = blockIdx.y; leg < int64_t{legs} * args.windows_per_sample; leg += gridDim.y) {
    const int64_t place = leg / legs;
    const auto first = static_cast<int32_t>(leg % legs) * fields;
    const Window window = window_at(args, sample, index, place);
    const int32_t start_row = window.top + row;
    const int32_t start_column = source_column(window, column, args.gradient.width);
    float* positions = args.positions + workspace_start(args, index, place) + pixel;
    float* displacements = args.displacements + workspace_start(args, index, place) + pixel;
    Vector2 unclamped{static_cast<float>(start_column), static_cast<float>(start_row)};
    for (int32_t field = first; field < first + fields; ++field) {
      positions[2 * field * plane] = unclamped.x;
      positions[(2 * field + 1) * plane] = unclamped.y;
      const Vector2 from = clamp_position(unclamped, bounds);
      const Field source(sample, field);
      const Vector2 raw = field == first ? source.at(start_row, start_column) : sample_at(source, from);
      unclamped = {from.x + raw.x, from.y + raw.y};
    }
    const Gradient* given = gradient_at<Gradient>(args, index, place) + row * args.gradient.row_stride +
                            column * args.gradient.column_stride;
    Vector2 next{0.0f, 0.0f};  // the gradient of the position after the field
    for (int32_t field = first + fields - 1; field >= first; --field) {
      const float given_x = to_float(given[2 * field * args.gradient.channel_stride]);
      const float given_y = to_float(given[(2 * field + 1) * args.gradient.channel_stride]);
      const Vector2 displacement{(window.flip ? -given_x : given_x) + next.x, given_y + next.y};
      displacements[2 * field * plane] = displacement.x;
      displacements[(2 * field + 1) * plane] = displacement.y;
      if (field > first) {
        const Vector2 outputs{window.flip ? -given_x : given_x, given_y};
        const Vector2 beside = through_camera(args.camera, index * args.flow.length + field, outputs, next);
        const Vector2 sampled{positions[2 * field * plane], positions[(2 * field + 1) * plane]};
        next = pull_back(Field(sample, field), sample, sampled, bounds, displacement, beside);
      }
    }
  }
}

struct Totals {  // no initialisers: arrays of it live in shared memory
  double sum;
  uint32_t largest;
};

TWOSTREAM_HD void merge(Totals& totals, const Totals& other) {
  totals.sum += other.sum;
  totals.largest = totals.largest > other.largest ? totals.largest : other.largest;
}

// Blocks run over the channels (x) and the samples (y). Also makes the sums 0.
template <typename Gradient>
__global__ void measure_kernel(const SampleChunk chunk, const Args args, bool with_flow) {
  __shared__ Totals shared[threads_per_block];
  const int64_t plane = static_cast<int64_t>(args.gradient.height) * args.gradient.width;
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const int64_t index = chunk.first + blockIdx.y;
  const int64_t channel = blockIdx.x;
  Totals mine{0.0, 0};
  for (int64_t place = 0; place < args.windows_per_sample; ++place) {
    const bool negate = channel % 2 == 0 && window_at(args, sample, index, place).flip;
    const Gradient* given = gradient_at<Gradient>(args, index, place) + channel * args.gradient.channel_stride;
    const int64_t start = workspace_start(args, index, place) + channel * plane;
    for (int64_t pixel = threadIdx.x; pixel < plane; pixel += threads_per_block) {
      const float value = to_float(given[pixel / args.gradient.width * args.gradient.row_stride +
                                         pixel % args.gradient.width * args.gradient.column_stride]);
      mine.sum -= static_cast<double>(negate ? -value : value);
      if (with_flow) {
        merge(mine, {0.0, magnitude_of(args.displacements[start + pixel])});
      }
    }
  }
  const Totals totals = reduce_block(mine, shared);
  const int64_t number = index * gridDim.x + channel;
  if (threadIdx.x == 0) {
    args.mean_gradient[number] = static_cast<float>(totals.sum);
  }
  if (with_flow) {
    if (threadIdx.x == 0) {
      args.largest[number] = totals.largest;
    }
    int64_t* sums = args.sums + index * args.sums_stride + channel * pixel_count(sample);
    for (int64_t pixel = threadIdx.x; pixel < pixel_count(sample); pixel += threads_per_block) {
      sums[pixel] = 0;
    }
  }
}

__device__ void add_fixed(int64_t* sum, float gradient, float weight, const FixedPoint& fixed) {
  if (fixed.finite) {
    atomicAdd(reinterpret_cast<unsigned long long*>(sum),
              static_cast<unsigned long long>(to_fixed(gradient, weight, fixed)));
  }
}

// Blocks run over the pixels of a window (x), the windows' fields (y), the samples (z).
__global__ void scatter_kernel(const SampleChunk chunk, const Args args) {
  const int64_t plane = static_cast<int64_t>(args.gradient.height) * args.gradient.width;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel >= plane) {
    return;
  }
  const twostream_sample& sample = chunk.samples[blockIdx.z];
  const int64_t index = chunk.first + blockIdx.z;
  const Bounds bounds = bounds_of(sample);
  const int64_t length = args.flow.length;
  for (int64_t item = blockIdx.y; item < args.windows_per_sample * length; item += gridDim.y) {
    const int64_t field = item % length;
    const uint32_t* largest = args.largest + (index * length + field) * 2;
    const FixedPoint fixed_x = fixed_point(largest[0], plane * args.windows_per_sample);
    const FixedPoint fixed_y = fixed_point(largest[1], plane * args.windows_per_sample);
    const int64_t start = workspace_start(args, index, item / length) + 2 * field * plane + pixel;
    const Vector2 position = clamp_position({args.positions[start], args.positions[start + plane]}, bounds);
    const Vector2 gradient{args.displacements[start], args.displacements[start + plane]};
    int64_t* sums = args.sums + index * args.sums_stride + 2 * field * pixel_count(sample);
    spread(position, [&](int32_t row, int32_t column, float weight) {
      int64_t* sum = sums + static_cast<int64_t>(row) * sample.width + column;
      add_fixed(sum, gradient.x, weight, fixed_x);
      add_fixed(sum + pixel_count(sample), gradient.y, weight, fixed_y);
    });
  }
}

// Blocks run over the channels (x) and the samples (y); the samples are those of the result.
template <typename In>
__global__ void finish_kernel(const SampleChunk chunk, const Args args) {
  const twostream_sample& target = chunk.samples[blockIdx.y];
  const int64_t index = chunk.first + blockIdx.y;
  const int64_t channel = blockIdx.x;
  const int64_t number = index * gridDim.x + channel;
  const int64_t contributions =
      static_cast<int64_t>(args.gradient.height) * args.gradient.width * args.windows_per_sample;
  const FixedPoint fixed = fixed_point(args.largest[number], contributions);
  const float share = args.subtract_mean != 0 ? mean_share(args.mean_gradient[number], target) : 0.0f;
  const int64_t* sums = args.sums + index * args.sums_stride + channel * pixel_count(target);
  In* plane = component_plane<In>(target, channel / 2, static_cast<int>(channel % 2));
  for (int64_t pixel = threadIdx.x; pixel < pixel_count(target); pixel += threads_per_block) {
    plane[pixel_offset(target, pixel)] = from_float<In>(from_fixed(sums[pixel], fixed) + share);
  }
}

unsigned int grid_y(int64_t items) {
  return static_cast<unsigned int>(items < largest_grid_y ? items : largest_grid_y);
}

template <typename Gradient>
int launch_measure(const Args& args, void* stream) {
  return for_each_chunk(args.flow.samples, args.flow.size, [&](const SampleChunk& chunk, int count) {
    return launch(measure_kernel<Gradient>, fields_grid(args.flow, count), dim3(threads_per_block), 0, stream, chunk,
                  args, args.flow_gradient != nullptr);
  });
}

template <typename Field, typename In, typename Gradient>
int launch_backward(const Args& args, void* stream) {
  const int64_t walks = int64_t{args.windows_per_sample} * trajectories(args.bidirectional);
  const int64_t fields = int64_t{args.windows_per_sample} * args.flow.length;
  const unsigned int blocks = blocks_for(static_cast<int64_t>(args.gradient.height) * args.gradient.width);
  int status = TWOSTREAM_SUCCESS;
  if (walks > 0) {
    status = for_each_chunk(args.flow.samples, args.flow.size, [&](const SampleChunk& chunk, int count) {
      return launch(walk_kernel<Field, Gradient>, dim3(blocks, grid_y(walks), static_cast<unsigned int>(count)),
                    dim3(threads_per_block), 0, stream, chunk, args,
                    args.flow.length / trajectories(args.bidirectional));
    });
  }
  if (status == TWOSTREAM_SUCCESS) {
    status = launch_measure<Gradient>(args, stream);
  }
  if (status == TWOSTREAM_SUCCESS && fields > 0) {
    status = for_each_chunk(args.flow.samples, args.flow.size, [&](const SampleChunk& chunk, int count) {
      return launch(scatter_kernel, dim3(blocks, grid_y(fields), static_cast<unsigned int>(count)),
                    dim3(threads_per_block), 0, stream, chunk, args);
    });
  }
  if (status == TWOSTREAM_SUCCESS) {
    status = for_each_chunk(args.flow_gradient, args.flow.size, [&](const SampleChunk& chunk, int count) {
      return launch(finish_kernel<In>, fields_grid(args.flow, count), dim3(threads_per_block), 0, stream, chunk, args);
    });
  }
  return status;
}

}  // namespace

int twostream_trajectory_stack_backward_cuda(const twostream_trajectory_stack_backward_args* args, int device,
                                             void* stream) {
  return on_device(*args, device, [&] {
    int status = TWOSTREAM_SUCCESS;
    with_float_type(args->gradient.dtype, [&](auto gradient) {
      if (args->flow_gradient == nullptr) {
        status = launch_measure<decltype(gradient)>(*args, stream);
        return;
      }
      with_float_type(args->flow.dtype, [&](auto in) {
        with_field(args->flow, in, [&](auto field) {
          status = launch_backward<typename decltype(field)::Type, decltype(in), decltype(gradient)>(*args, stream);
        });
      });
    });
    return status;
  });
}
