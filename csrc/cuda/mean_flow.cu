// SPDX-License-Identifier: BSD-3-Clause
#include "core/mean_flow.h"
#include "cuda/fields.cuh"
#include "twostream/mean_flow.h"

using namespace twostream;

namespace {

template <typename In>
__global__ void mean_flow_kernel(const SampleChunk chunk, const float* lo, const float* step, float* output) {
  __shared__ double sums[threads_per_field];
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const Layout layout = layout_of(sample);
  const bool both = layout == Layout::interleaved;
  if (both && blockIdx.x % 2 == 1) {
    return;
  }
  double mine = 0.0;
  double other = 0.0;
  add_component<In>(sample, layout, mine, other, [](double& sum, float value) { sum += static_cast<double>(value); });
  const int64_t index = (chunk.first + blockIdx.y) * gridDim.x + blockIdx.x;
  const double sum = reduce_block(mine, sums);
  if (threadIdx.x == 0) {
    output[index] = mean_displacement(sum, pixel_count(sample), lo, step, index);
  }
  if (both) {
    const double second = reduce_block(other, sums);
    if (threadIdx.x == 0) {
      output[index + 1] = mean_displacement(second, pixel_count(sample), lo, step, index + 1);
    }
  }
}

}  // namespace

int twostream_mean_flow_cuda(const twostream_mean_flow_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    int status = TWOSTREAM_SUCCESS;
    const bool coded = args->flow.dtype == TWOSTREAM_UINT8;
    const float* lo = coded ? args->lo : nullptr;
    const float* step = coded ? args->step : nullptr;
    with_any_type(args->flow.dtype, [&](auto in) {
      status = for_each_chunk(args->flow.samples, args->flow.size, [&](const SampleChunk& chunk, int count) {
        return launch(mean_flow_kernel<decltype(in)>, fields_grid(args->flow, count), dim3(threads_per_field), 0,
                      stream, chunk, lo, step, args->output);
      });
    });
    return status;
  });
}
