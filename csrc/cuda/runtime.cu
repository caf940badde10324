// SPDX-License-Identifier: BSD-3-Clause
// What the build and the driver offer.
#include "core/status.h"
#include "cuda/launch.h"

using namespace twostream;

#if !defined(TWOSTREAM_CUDA_ARCHITECTURES)
#define TWOSTREAM_CUDA_ARCHITECTURES ""
#endif

const char* twostream_status_string(int status) {
  return status > 0 ? cudaGetErrorName(static_cast<cudaError_t>(status)) : own_status_string(status);
}

const char* twostream_cuda_architectures(void) { return TWOSTREAM_CUDA_ARCHITECTURES; }

int twostream_cuda_device_count(void) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver is an answer, not an error for the next launch to find
    return 0;
  }
  return count;
}

int twostream_cuda_driver_version(void) {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}
