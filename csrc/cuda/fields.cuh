// SPDX-License-Identifier: BSD-3-Clause
// Loops over whole flow fields, which mean_flow, quantize_flow and dequantize_flow share; the twin is cpu/fields.h.
// A field without gaps is a run of values: one of each component (planar), or one of both in turn (interleaved). Runs
// are read 16 aligned bytes at a time; other strides go value by value.
// Sums are reduced in a fixed tree, without atomics, so that a result never changes from run to run.
#pragma once

#include "core/statistics.h"
#include "core/types.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

namespace twostream {

template <typename T>
TWOSTREAM_HD T* component_plane(const twostream_sample& sample, int64_t field, int component) {
  return static_cast<T*>(const_cast<void*>(sample.data)) + field * sample.field_stride +
         component * sample.component_stride;
}

TWOSTREAM_HD int64_t pixel_offset(const twostream_sample& sample, int64_t pixel) {
  return pixel / sample.width * sample.row_stride + pixel % sample.width * sample.column_stride;
}

TWOSTREAM_HD int64_t pixel_count(const twostream_sample& sample) {
  return static_cast<int64_t>(sample.height) * sample.width;
}

enum class Layout { interleaved, planar, other };

TWOSTREAM_HD Layout layout_of(const twostream_sample& sample) {
  if (sample.row_stride != sample.width * sample.column_stride) {
    return Layout::other;
  }
  if (sample.column_stride == 2 && sample.component_stride == 1) {
    return Layout::interleaved;
  }
  return sample.column_stride == 1 ? Layout::planar : Layout::other;
}

TWOSTREAM_HD void merge(double& sum, double other) { sum += other; }

// Every thread's `mine` becomes the block's total; `shared` holds a value for each of the block's threads, whose number
// is a power of two.
template <typename T>
__device__ T reduce_block(T mine, T* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      merge(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    __syncthreads();
  }
  const T total = shared[0];
  __syncthreads();  // the next reduction reuses `shared`
  return total;
}

// Calls add(even, value) and add(odd, value) for the values of a run at even and at odd places.
template <typename In, typename Total, typename Add>
__device__ void add_run(const In* __restrict__ run, int64_t count, Total& even, Total& odd, const Add& add) {
  constexpr int values = pack_bytes / static_cast<int>(sizeof(In));
  const int64_t before = elements_before_alignment(run);
  const int64_t head = before < count ? before : count;
  const int64_t packs = (count - head) / values;
  Total first = even;  // of the packs, whose first place may be odd
  Total second = odd;
  for (int64_t each = threadIdx.x; each < packs; each += blockDim.x) {
    const auto pack = reinterpret_cast<const Pack<In, values>*>(run + head)[each];
    for (int place = 0; place < values; place += 2) {
      add(first, to_float(pack.values[place]));
      add(second, to_float(pack.values[place + 1]));
    }
  }
  even = head % 2 == 0 ? first : second;
  odd = head % 2 == 0 ? second : first;
  const int64_t outside = count - packs * values;  // before and after the packs
  for (int64_t each = threadIdx.x; each < outside; each += blockDim.x) {
    const int64_t place = each < head ? each : each + packs * values;
    add(place % 2 == 0 ? even : odd, to_float(run[place]));
  }
}

// What a block (blockIdx.x = 2 * field + component, blockIdx.y = sample) adds up: both components of an interleaved
// field if it is the block of the first (the other has nothing to do), else its own.
template <typename In, typename Total, typename Add>
__device__ void add_component(const twostream_sample& sample, Layout layout, Total& mine, Total& other,
                              const Add& add) {
  const auto component = static_cast<int>(blockIdx.x % 2);
  const In* plane = component_plane<const In>(sample, blockIdx.x / 2, component);
  const int64_t pixels = pixel_count(sample);
  if (layout == Layout::interleaved) {
    add_run(plane, 2 * pixels, mine, other, add);
  } else if (layout == Layout::planar) {
    add_run(plane, pixels, mine, other, add);
    merge(mine, other);
  } else {
    for (int64_t pixel = threadIdx.x; pixel < pixels; pixel += blockDim.x) {
      add(mine, to_float(plane[pixel_offset(sample, pixel)]));
    }
  }
}

// Blocks run over the components of the fields (x) and the samples (y): blockIdx.x = 2 * field + component.
inline dim3 fields_grid(const twostream_batch& batch, int samples) {
  return dim3(static_cast<unsigned int>(batch.length) * 2, static_cast<unsigned int>(samples));
}

// Few fields must still keep enough bytes in flight.
constexpr int threads_per_field = 512;

}  // namespace twostream
