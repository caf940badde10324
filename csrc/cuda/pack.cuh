// SPDX-License-Identifier: BSD-3-Clause
// Up to 16 bytes that move with one instruction: memory is used best in whole aligned vectors.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace twostream {

template <typename T, int count>
struct alignas(sizeof(T) * count) Pack {
  T values[count];
};

constexpr int pack_bytes = 16;

TWOSTREAM_HD bool is_aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

// How many elements lie before the first that is aligned to a whole pack.
template <typename T>
TWOSTREAM_HD int64_t elements_before_alignment(const T* pointer) {
  return static_cast<int64_t>((pack_bytes - reinterpret_cast<uintptr_t>(pointer) % pack_bytes) % pack_bytes /
                              sizeof(T));
}

}  // namespace twostream
