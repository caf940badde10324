// SPDX-License-Identifier: BSD-3-Clause
// Fields as the trajectory kernels read them, through the read-only path: of any strides, or with x and y side by side
// and aligned, so that one load brings both.
#pragma once

#include <cstdint>

#include "core/trajectory_stack.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

namespace twostream {

// The unsigned integers of the size of one value and of two.
template <size_t bytes>
struct Word;
template <>
struct Word<1> {
  using Type = unsigned char;
};
template <>
struct Word<2> {
  using Type = unsigned short;
};
template <>
struct Word<4> {
  using Type = unsigned int;
};
template <>
struct Word<8> {
  using Type = unsigned long long;
};

template <typename T>
__device__ T read_only(const T* address) {
  using Bits = typename Word<sizeof(T)>::Type;
  const Bits bits = __ldg(reinterpret_cast<const Bits*>(address));
  T value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

template <typename In>
class AnyField {
 public:
  __device__ AnyField(const twostream_sample& sample, int64_t field) : field_(strided_field<In>(sample, field)) {}

  __device__ Vector2 at(int32_t row, int32_t column) const {
    const In* pixel = field_.data + row * field_.row_stride + column * field_.column_stride;
    return {to_float(read_only(pixel)), to_float(read_only(pixel + field_.component_stride))};
  }

 private:
  StridedField<In> field_;
};

template <typename In>
class PairedField {
 public:
  __device__ PairedField(const twostream_sample& sample, int64_t field) : field_(strided_field<In>(sample, field)) {}

  __device__ Vector2 at(int32_t row, int32_t column) const {
    const In* pixel = field_.data + row * field_.row_stride + column * field_.column_stride;
    const auto pair = read_only(reinterpret_cast<const Pack<In, 2>*>(pixel));
    return {to_float(pair.values[0]), to_float(pair.values[1])};
  }

 private:
  StridedField<In> field_;
};

template <typename Field>
struct FieldTag {
  using Type = Field;
};

inline bool has_aligned_pairs(const twostream_batch& batch, int64_t bytes) {
  for (int64_t index = 0; index < batch.size; ++index) {
    const twostream_sample& sample = batch.samples[index];
    if (sample.component_stride != 1 || sample.column_stride % 2 != 0 || sample.row_stride % 2 != 0 ||
        sample.field_stride % 2 != 0 || !is_aligned(sample.data, 2 * bytes)) {
      return false;
    }
  }
  return true;
}

// Calls `body` with the FieldTag of the best way to read the batch, whose values are like `in`.
template <typename In, typename Body>
void with_field(const twostream_batch& batch, In /*in*/, const Body& body) {
  if (has_aligned_pairs(batch, static_cast<int64_t>(sizeof(In)))) {
    body(FieldTag<PairedField<In>>{});
  } else {
    body(FieldTag<AnyField<In>>{});
  }
}

}  // namespace twostream
