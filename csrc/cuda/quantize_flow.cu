// SPDX-License-Identifier: BSD-3-Clause
#include "core/quantize_flow.h"
#include "core/validate.h"
#include "cuda/fields.cuh"
#include "twostream/quantize_flow.h"

using namespace twostream;

namespace {

// The second pass over the plane finds it in the cache: 256 x 340 floats are 340 kB.
template <typename In>
__global__ void quantize_flow_kernel(const SampleChunk chunk, const SampleChunk codes, float bound, float* lo,
                                     float* step, float* mean) {
  __shared__ Statistics statistics[threads_per_block];
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const twostream_sample& target = codes.samples[blockIdx.y];
  const int64_t field = blockIdx.x / 2;
  const int component = static_cast<int>(blockIdx.x % 2);
  const In* plane = component_plane<const In>(sample, field, component);
  uint8_t* coded = component_plane<uint8_t>(target, field, component);

  Statistics mine = no_values();
  for (int64_t pixel = threadIdx.x; pixel < pixel_count(sample); pixel += threads_per_block) {
    add(mine, to_float(plane[pixel_offset(sample, pixel)]));
  }
  const Statistics total = reduce_block(mine, statistics);
  const CodeRange range = code_range(total, bound);
  for (int64_t pixel = threadIdx.x; pixel < pixel_count(sample); pixel += threads_per_block) {
    coded[pixel_offset(target, pixel)] = code_of(to_float(plane[pixel_offset(sample, pixel)]), range);
  }
  if (threadIdx.x == 0) {
    const int64_t index = (chunk.first + blockIdx.y) * gridDim.x + blockIdx.x;
    lo[index] = range.lo;
    step[index] = range.step;
    mean[index] = finite_mean(total);
  }
}

}  // namespace

int twostream_quantize_flow_cuda(const twostream_quantize_flow_args* args, int device, void* stream) {
  if (!valid_batch(args->flow, 1, 1) || !is_float(args->flow.dtype) || !same_sizes(args->flow, args->codes)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS) {
    return status;
  }
  with_float_type(args->flow.dtype, [&](auto in) {
    status = for_each_chunk(args->flow.samples, args->flow.size, [&](const SampleChunk& chunk, int count) {
      const SampleChunk codes = chunk_of(args->codes, chunk.first, count);
      return launch(quantize_flow_kernel<decltype(in)>, fields_grid(args->flow, count), dim3(threads_per_block), 0,
                    stream, chunk, codes, args->bound, args->lo, args->step, args->mean);
    });
  });
  return status;
}
