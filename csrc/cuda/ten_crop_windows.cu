// SPDX-License-Identifier: BSD-3-Clause
#include "core/ten_crop_windows.h"
#include "cuda/launch.h"
#include "twostream/ten_crop_windows.h"

using namespace twostream;

namespace {

__global__ void ten_crop_windows_kernel(const twostream_ten_crop_windows_args args) {
  const int64_t sample = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (sample < args.size) {
    place_ten_crop(args, sample);
  }
}

}  // namespace

int twostream_ten_crop_windows_cuda(const twostream_ten_crop_windows_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    if (args->size == 0) {
      return static_cast<int>(TWOSTREAM_SUCCESS);
    }
    return launch(ten_crop_windows_kernel, dim3(blocks_for(args->size)), dim3(threads_per_block), 0, stream, *args);
  });
}
