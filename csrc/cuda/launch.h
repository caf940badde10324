// SPDX-License-Identifier: BSD-3-Clause
// The one place that launches kernels, so that the host build (cuda/host/) can run the same kernels with g++.
#pragma once

#if defined(TWOSTREAM_CUDA_ON_HOST)
#include "cuda/host/cuda_on_host.h"
#else
#include <cuda_runtime.h>
#endif

#include <cstdint>
#include <utility>

#include "core/types.h"
#include "core/validate.h"

namespace twostream {

#if !defined(TWOSTREAM_CUDA_ON_HOST)
template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, void* stream,
           Arguments&&... arguments) {
  kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(std::forward<Arguments>(arguments)...);
  return static_cast<int>(cudaGetLastError());
}
#endif

// A stream belongs to a device: launches need that device current, whatever the caller left current.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    status_ = static_cast<int>(cudaGetDevice(&previous_));
    if (status_ == cudaSuccess && previous_ != device) {
      status_ = static_cast<int>(cudaSetDevice(device));
      changed_ = status_ == cudaSuccess;
    }
  }
  ~DeviceGuard() {
    if (changed_) {
      cudaSetDevice(previous_);
    }
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

  int status() const { return status_; }

 private:
  int previous_ = 0;
  int status_ = 0;
  bool changed_ = false;
};

// What every operator does first: refuse, then make the device current for body(), which launches and returns a status.
template <typename Args, typename Body>
int on_device(const Args& args, int device, const Body& body) {
  if (!valid(args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  return guard.status() == TWOSTREAM_SUCCESS ? body() : guard.status();
}

// The samples of a batch travel to the kernel by value, a chunk a launch: no device memory, no copy to wait for, and
// the launch can be captured in a CUDA graph. Two chunks of 32 stay under the 4 kB that every driver takes as
// parameters.
struct SampleChunk {
  static constexpr int capacity = 32;
  twostream_sample samples[capacity];
  int64_t first;  // index of samples[0] in the batch
};

inline SampleChunk chunk_of(const twostream_sample* samples, int64_t first, int count) {
  SampleChunk chunk{};
  chunk.first = first;
  for (int index = 0; index < count; ++index) {
    chunk.samples[index] = samples[first + index];
  }
  return chunk;
}

// Calls body(chunk, count) for each chunk until one returns a status other than 0.
template <typename Body>
int for_each_chunk(const twostream_sample* samples, int64_t size, Body&& body) {
  for (int64_t first = 0; first < size; first += SampleChunk::capacity) {
    const int64_t left = size - first;
    const int count = static_cast<int>(left < SampleChunk::capacity ? left : SampleChunk::capacity);
    if (const int status = body(chunk_of(samples, first, count), count)) {
      return status;
    }
  }
  return TWOSTREAM_SUCCESS;
}

constexpr int threads_per_block = 256;
constexpr int64_t largest_grid_y = 65535;

inline unsigned int blocks_for(int64_t items, int64_t most = INT32_MAX) {
  const int64_t blocks = (items + threads_per_block - 1) / threads_per_block;
  return static_cast<unsigned int>(blocks < most ? blocks : most);
}

}  // namespace twostream
