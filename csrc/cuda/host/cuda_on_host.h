// SPDX-License-Identifier: BSD-3-Clause
// Test-only: enough of CUDA for g++ to compile and run csrc/cuda/*.cu without a GPU (docs/design.md, law 8).
// A block runs at a time; its threads are fibers that hand over at every barrier, in an order that alternates from
// stretch to stretch and from block to block, or is shuffled, so that a missing barrier or a wrong shared-memory index
// gives a wrong result. It proves indexing, bounds, barriers and arithmetic, and with race_check.h the absence of races
// in what the tests launch; it does not prove speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>

#define __global__
#if defined(TWOSTREAM_RACE_CHECK)
#define __device__ __attribute__((always_inline))  // see TWOSTREAM_HD
#else
#define __device__
#endif
#define __host__
#define __shared__ static  // one block at a time, so one copy is enough
#define __launch_bounds__(...)

struct dim3 {
  unsigned int x, y, z;
  dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads();

unsigned long long atomicAdd(unsigned long long* address, unsigned long long value);

template <typename T>
T __ldg(const T* address) {
  return *address;
}

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
constexpr cudaError_t cudaErrorInvalidConfiguration = 9;

inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 2, cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 0, cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t error);

namespace twostream {

// Runs thread(context) for every thread of every block.
int run_grid(dim3 grid, dim3 block, void (*thread)(void*), void* context);

template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t /*shared*/, void* /*stream*/,
           Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;  // by value, as a launch takes them
  } call{kernel, std::tuple<Parameters...>(arguments...)};
  const auto thread = [](void* context) {
    auto& each = *static_cast<Call*>(context);
    std::apply(each.kernel, each.arguments);
  };
  return run_grid(grid, block, thread, &call);
}

}  // namespace twostream
