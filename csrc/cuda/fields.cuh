// SPDX-License-Identifier: BSD-3-Clause
// One block a flow field: what mean_flow, quantize_flow and dequantize_flow share; the twin is cpu/fields.h.
// Sums are reduced in a fixed tree, without atomics, so that a result never changes from run to run.
#pragma once

#include "core/statistics.h"
#include "core/types.h"
#include "cuda/launch.h"

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

TWOSTREAM_HD void merge(double& sum, double other) { sum += other; }

// Every thread's `mine` becomes the block's total; `shared` holds threads_per_block values.
template <typename T>
__device__ T reduce_block(T mine, T* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (unsigned int half = threads_per_block / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      merge(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    __syncthreads();
  }
  const T total = shared[0];
  __syncthreads();  // the next reduction reuses `shared`
  return total;
}

// Blocks run over the components of the fields (x) and the samples (y): blockIdx.x = 2 * field + component.
inline dim3 fields_grid(const twostream_batch& batch, int samples) {
  return dim3(static_cast<unsigned int>(batch.length) * 2, static_cast<unsigned int>(samples));
}

}  // namespace twostream
