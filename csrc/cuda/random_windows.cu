// SPDX-License-Identifier: BSD-3-Clause
#include "core/random_windows.h"
#include "cuda/launch.h"
#include "twostream/random_windows.h"

using namespace twostream;

namespace {

__global__ void random_windows_kernel(const twostream_random_windows_args args) {
  const int64_t sample = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (sample < args.size) {
    draw_window(args, sample);
  }
}

}  // namespace

int twostream_random_windows_cuda(const twostream_random_windows_args* args, int device, void* stream) {
  if (args->size < 0 || args->height < 1 || args->width < 1) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  if (guard.status() != TWOSTREAM_SUCCESS || args->size == 0) {
    return guard.status();
  }
  return launch(random_windows_kernel, dim3(blocks_for(args->size)), dim3(threads_per_block), 0, stream, *args);
}
