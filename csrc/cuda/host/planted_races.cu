// SPDX-License-Identifier: BSD-3-Clause
// Test-only (python_tests/test_race_check.py): kernels with one fault each, and sound ones that look like them.
//     planted_races NAME    prints what the race check says of the kernel: a line, or "no race"
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cuda/host/race_check.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

using namespace twostream;

namespace {

constexpr unsigned int blocks = 3;
constexpr unsigned int threads = 64;

// Every thread shows a value to its neighbour.
template <bool with_barrier>
__global__ void neighbours(int* output) {
  __shared__ int shown[threads];
  shown[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) {
    __syncthreads();
  }
  output[blockIdx.x * threads + threadIdx.x] = shown[(threadIdx.x + 1) % threads];
}

// The first thread's value goes to all, twice, by way of one place.
template <bool with_barrier>
__global__ void place_used_again(int* output) {
  __shared__ int shown[1];
  for (int turn = 0; turn < 2; ++turn) {
    if (threadIdx.x == 0) {
      shown[0] = turn;
    }
    __syncthreads();
    output[blockIdx.x * threads + threadIdx.x] = shown[0];
    if (with_barrier) {
      __syncthreads();
    }
  }
}

// As in the one above, but only the first thread goes on with what all read.
__global__ void read_for_one(int* output) {
  __shared__ int shown[threads];
  for (int turn = 0; turn < 2; ++turn) {
    shown[threadIdx.x] = turn;
    __syncthreads();
    const int first = shown[0];
    if (threadIdx.x == 0) {
      output[blockIdx.x * threads] = first;
    }
  }
}

__global__ void blocks_write_the_same_value(int* output) {
  if (threadIdx.x == 5) {
    output[7] = 1;
  }
}

__global__ void a_block_reads_what_another_writes(int* output) {
  const unsigned int mine = blockIdx.x * threads + threadIdx.x;
  output[mine] = output[(mine + threads) % (blocks * threads)];
}

__device__ Pack<int, 4> four(int value) { return {{value, value, value, value}}; }

// Each thread stores 16 bytes, of which the last 4 are the next one's first.
__global__ void packs_overlap(int* output) {
  if (blockIdx.x == 0 && threadIdx.x < 8) {
    const Pack<int, 4> pack = four(static_cast<int>(threadIdx.x));
    std::copy(pack.values, pack.values + 4, output + 3 * threadIdx.x);
  }
}

// The result of a call goes to memory at once.
__global__ void all_store_one_pack(int* output) {
  if (blockIdx.x == 0) {
    *reinterpret_cast<Pack<int, 4>*>(output) = four(1);
  }
}

__global__ void bytes_side_by_side(int* output) {
  reinterpret_cast<unsigned char*>(output)[blockIdx.x * threads + threadIdx.x] = 1;
}

template <bool with_read>
__global__ void counts(int* output) {
  auto* count = reinterpret_cast<unsigned long long*>(output);
  atomicAdd(count, 1ULL);
  if (with_read) {
    output[2 + blockIdx.x * threads + threadIdx.x] = static_cast<int>(*count);
  }
}

struct Planted {
  const char* name;
  void (*kernel)(int*);
};

const Planted planted[] = {
    {"no barrier before a read", neighbours<false>},
    {"no barrier before a write", place_used_again<false>},
    {"a read for one thread", read_for_one},
    {"blocks write the same value", blocks_write_the_same_value},
    {"a block reads what another writes", a_block_reads_what_another_writes},
    {"packs overlap", packs_overlap},
    {"all store one pack", all_store_one_pack},
    {"an atomic sum is read in the same launch", counts<true>},
    {"sound: a barrier before a read", neighbours<true>},
    {"sound: a barrier before a write", place_used_again<true>},
    {"sound: bytes side by side", bytes_side_by_side},
    {"sound: an atomic sum", counts<false>},
};

}  // namespace

int main(int count, char** arguments) {
  for (const Planted& each : planted) {
    if (count == 2 && std::strcmp(arguments[1], each.name) == 0) {
      std::vector<int> output(2 + blocks * threads);
      for (int launches = 0; launches < 2; ++launches) {  // what one writes, the next may write
        if (const int status = launch(each.kernel, dim3(blocks), dim3(threads), 0, nullptr, output.data())) {
          std::puts(cudaGetErrorName(status));
          return status == race_status ? 0 : 1;
        }
      }
      std::puts("no race");
      return 0;
    }
  }
  return 2;
}
