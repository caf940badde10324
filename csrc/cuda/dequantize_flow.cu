// SPDX-License-Identifier: BSD-3-Clause
#include "core/affine.h"
#include "core/validate.h"
#include "cuda/fields.cuh"
#include "twostream/dequantize_flow.h"

using namespace twostream;

namespace {

template <typename Out>
__global__ void dequantize_flow_kernel(const SampleChunk chunk, const SampleChunk output, const float* lo,
                                       const float* step) {
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const twostream_sample& target = output.samples[blockIdx.y];
  const int64_t field = blockIdx.x / 2;
  const int component = static_cast<int>(blockIdx.x % 2);
  const uint8_t* codes = component_plane<const uint8_t>(sample, field, component);
  Out* plane = component_plane<Out>(target, field, component);
  const int64_t index = (chunk.first + blockIdx.y) * gridDim.x + blockIdx.x;
  const Affine affine{step[index], lo[index]};
  for (int64_t pixel = threadIdx.x; pixel < pixel_count(sample); pixel += threads_per_block) {
    plane[pixel_offset(target, pixel)] = from_float<Out>(apply(affine, to_float(codes[pixel_offset(sample, pixel)])));
  }
}

}  // namespace

int twostream_dequantize_flow_cuda(const twostream_dequantize_flow_args* args, int device, void* stream) {
  if (!valid_batch(args->codes, 1, 1) || args->codes.dtype != TWOSTREAM_UINT8 ||
      !valid_coding(args->codes, args->lo, args->step) || !same_sizes(args->codes, args->output) ||
      !is_float(args->output_dtype)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS) {
    return status;
  }
  with_float_type(args->output_dtype, [&](auto out) {
    status = for_each_chunk(args->codes.samples, args->codes.size, [&](const SampleChunk& chunk, int count) {
      const SampleChunk output = chunk_of(args->output, chunk.first, count);
      return launch(dequantize_flow_kernel<decltype(out)>, fields_grid(args->codes, count), dim3(threads_per_block), 0,
                    stream, chunk, output, args->lo, args->step);
    });
  });
  return status;
}
