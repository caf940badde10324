// SPDX-License-Identifier: BSD-3-Clause
// Values that one instruction moves as a whole: up to 16 bytes, aligned to their size. Memory is used best in such
// vectors.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace twostream {

// One value of several members.
template <typename T>
struct alignas(sizeof(T)) Whole {
  T value;
};

template <typename T>
TWOSTREAM_HD T load(const Whole<T>* from) {
  const Whole<T> whole = *from;
  return whole.value;
}

// Neighbouring values of one type.
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

template <typename T, int count>
TWOSTREAM_HD void load_pack(const T* from, float (&to)[count]) {
  const auto pack = *reinterpret_cast<const Pack<T, count>*>(from);
  for (int index = 0; index < count; ++index) {
    to[index] = to_float(pack.values[index]);
  }
}

template <typename T, int count>
TWOSTREAM_HD void store_pack(const float (&from)[count], T* to) {
  Pack<T, count> pack;
  for (int index = 0; index < count; ++index) {
    pack.values[index] = from_float<T>(from[index]);
  }
  *reinterpret_cast<Pack<T, count>*>(to) = pack;
}

}  // namespace twostream
