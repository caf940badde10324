// SPDX-License-Identifier: BSD-3-Clause
// What the C API refuses, alike on both backends. (The Python binding checks the same with words; see python/check.h.)
#pragma once

#include "twostream/common.h"

namespace twostream {

inline bool is_float(twostream_dtype dtype) {
  return dtype == TWOSTREAM_FLOAT16 || dtype == TWOSTREAM_BFLOAT16 || dtype == TWOSTREAM_FLOAT32;
}

// Every sample is at least height x width.
inline bool valid_batch(const twostream_batch& batch, int32_t height, int32_t width) {
  if (batch.size < 0 || batch.length < 1 || height < 1 || width < 1) {
    return false;
  }
  for (int64_t index = 0; index < batch.size; ++index) {
    const twostream_sample& sample = batch.samples[index];
    if (sample.height < height || sample.width < width) {
      return false;
    }
  }
  return true;
}

inline bool same_sizes(const twostream_batch& batch, const twostream_sample* others) {
  for (int64_t index = 0; index < batch.size; ++index) {
    if (batch.samples[index].height != others[index].height || batch.samples[index].width != others[index].width) {
      return false;
    }
  }
  return true;
}

inline bool valid_coding(const twostream_batch& batch, const float* lo, const float* step) {
  return batch.dtype != TWOSTREAM_UINT8 || (lo != nullptr && step != nullptr);
}

}  // namespace twostream
