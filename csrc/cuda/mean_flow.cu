// SPDX-License-Identifier: BSD-3-Clause
#include "core/mean_flow.h"
#include "core/validate.h"
#include "cuda/fields.cuh"
#include "twostream/mean_flow.h"

using namespace twostream;

namespace {

template <typename In>
__global__ void mean_flow_kernel(const SampleChunk chunk, const float* lo, const float* step, float* output) {
  __shared__ double sums[threads_per_block];
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const In* plane = component_plane<const In>(sample, blockIdx.x / 2, static_cast<int>(blockIdx.x % 2));
  double mine = 0.0;
  for (int64_t pixel = threadIdx.x; pixel < pixel_count(sample); pixel += threads_per_block) {
    mine += static_cast<double>(to_float(plane[pixel_offset(sample, pixel)]));
  }
  const double sum = reduce_block(mine, sums);
  if (threadIdx.x == 0) {
    const int64_t index = (chunk.first + blockIdx.y) * gridDim.x + blockIdx.x;
    output[index] = mean_displacement(sum, pixel_count(sample), lo, step, index);
  }
}

}  // namespace

int twostream_mean_flow_cuda(const twostream_mean_flow_args* args, int device, void* stream) {
  if (!valid_batch(args->flow, 1, 1) || !valid_coding(args->flow, args->lo, args->step)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS) {
    return status;
  }
  const bool coded = args->flow.dtype == TWOSTREAM_UINT8;
  const float* lo = coded ? args->lo : nullptr;
  const float* step = coded ? args->step : nullptr;
  with_any_type(args->flow.dtype, [&](auto in) {
    status = for_each_chunk(args->flow.samples, args->flow.size, [&](const SampleChunk& chunk, int count) {
      return launch(mean_flow_kernel<decltype(in)>, fields_grid(args->flow, count), dim3(threads_per_block), 0, stream,
                    chunk, lo, step, args->output);
    });
  });
  return status;
}
